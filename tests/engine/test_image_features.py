import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ponder3d.data.dataset import DataError, DatasetConfig, SceneDataset
from ponder3d.data.image_features import MapFolder, map_path, read_map, read_record
from ponder3d.engine.image_features import FeatureOptions, MakingMaps, principal_axes
from ponder3d.types import Cameras, Scene, Views

KEEP = FeatureOptions(channels=0)


@dataclass(frozen=True)
class PicturesConfig(DatasetConfig):
    """Two overlapping scenes of one recording; the colours of a view are its number, the pixel's row and column."""

    unreadable: int = -1
    shift: int = 0
    recording: str = "rec"

    def build(self):
        return Pictures(self)

    def held_out(self):
        return self


class Pictures(SceneDataset):
    labels = None

    def __init__(self, config):
        self.config, self.reads = config, []

    def __len__(self):
        return 2

    def view_names(self, index):
        return self.config.recording, tuple(f"v {n}" for n in (range(3), range(2, 5))[index])

    def __getitem__(self, index):
        self.reads.append(index)
        numbers = [n for n in (range(3), range(2, 5))[index] if n != self.config.unreadable]
        rgb = torch.zeros(len(numbers), 6, 8, 3, dtype=torch.uint8)
        rgb[..., 0] = torch.tensor(numbers)[:, None, None] * 50
        rgb[..., 1] = torch.arange(6)[:, None] * 10
        rgb[..., 2] = torch.arange(8) * 10 + self.config.shift
        eye = torch.eye(4).repeat(len(numbers), 1, 1)
        cameras = Cameras(eye[:, :3, :3], eye, (6, 8))
        views = Views(cameras, rgb, None, None, torch.tensor([len(numbers)]), names=tuple(f"v {n}" for n in numbers))
        return Scene(torch.zeros(1, 3), None, None, f"part {index}", views=views, recording=self.config.recording)


class Pooled(nn.Module):
    """Means of 2 x 2 pixels, four channels: the colours times a weight, and their sum."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.batches: list[int] = []

    def forward(self, images):
        self.batches.append(len(images))
        colours = nn.functional.avg_pool2d(images, 2) * self.weight
        return torch.cat([colours, colours.sum(1, keepdim=True)], dim=1)


class Fails(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer(images)


def made(tmp_path, options: FeatureOptions = KEEP, backbone: nn.Module | None = None, data=None) -> MakingMaps:
    making = MakingMaps(data or PicturesConfig(), backbone or Pooled(), "m:f", tmp_path / "maps", options)
    making.run()
    return making


def a_map(tmp_path, number: int) -> np.ndarray:
    return read_map(map_path(tmp_path / "maps", "rec", f"v {number}"))


def expected_map(number: int) -> np.ndarray:
    row, column = np.meshgrid(np.arange(3) * 20 + 5, np.arange(4) * 20 + 5, indexing="ij")
    colours = np.stack([np.full((3, 4), number * 50), row, column], axis=-1) / 255
    return np.concatenate([colours, colours.sum(-1, keepdims=True)], axis=-1)


def test_maps_of_every_view_once(tmp_path):
    backbone = Pooled()
    making = MakingMaps(PicturesConfig(), backbone, "m:f", tmp_path / "maps", replace(KEEP, batch=2))
    estimate = making.estimate()
    assert (estimate.images, estimate.missing, estimate.shape) == (5, 5, (3, 4, 4))
    backbone.batches.clear()
    told = []
    assert making.run(lambda done, total: told.append((done, total))) == 5
    assert told == [(done, 5) for done in range(1, 6)] and max(backbone.batches) == 2
    size = sum(path.stat().st_size for path in (tmp_path / "maps" / "rec").iterdir())
    assert size == estimate.bytes
    for number in range(5):
        found = a_map(tmp_path, number)
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, expected_map(number), atol=1e-3)
    record = read_record(tmp_path / "maps")
    assert record == making.record and (record.model, record.channels, record.reduced) == ("m:f", 4, False)
    MapFolder(str(tmp_path / "maps")).check(Pictures(PicturesConfig()))


def test_what_is_whole_stays_and_the_rest_is_made(tmp_path):
    made(tmp_path)
    paths = [map_path(tmp_path / "maps", "rec", f"v {number}") for number in range(5)]
    contents = [path.read_bytes() for path in paths]
    os.truncate(paths[3], 100)
    paths[4].unlink()
    (paths[0].parent / ".tmp-left").write_bytes(b"x")
    before = paths[0].stat().st_mtime_ns
    making = MakingMaps(PicturesConfig(), Pooled(), "m:f", tmp_path / "maps", KEEP)
    assert making.estimate().missing == 2
    making.dataset.reads.clear()
    assert making.run() == 2 and making.dataset.reads == [0, 1], "the first to look at a map, the second to make two"
    assert [path.read_bytes() for path in paths] == contents and paths[0].stat().st_mtime_ns == before
    assert {path.name for path in paths[0].parent.iterdir()} == {path.name for path in paths}
    assert MakingMaps(PicturesConfig(), Pooled(), "m:f", tmp_path / "maps", KEEP).run() == 0


def test_principal_components(tmp_path):
    """Three of the four channels are free; 3 components lose nothing, and have a mean square of 1."""
    making = made(tmp_path, FeatureOptions(channels=3))
    record = making.record
    maps = np.stack([a_map(tmp_path, number) for number in range(5)]).astype(np.float64)
    assert maps.shape == (5, 3, 4, 3) and float((maps**2).mean()) == pytest.approx(1, abs=1e-3)
    covariance = np.cov(maps.reshape(-1, 3).T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3
    assert (np.diff(np.diag(covariance)) < 0).all()
    axes = np.array(record.axes)
    back = maps @ np.linalg.pinv(axes) + np.array(record.origin)
    np.testing.assert_allclose(back, np.stack([expected_map(number) for number in range(5)]), atol=2e-3)
    first = (tmp_path / "maps" / "features.json").read_bytes()
    (tmp_path / "maps").rename(tmp_path / "old")
    assert made(tmp_path, FeatureOptions(channels=3)).record == record
    assert (tmp_path / "maps" / "features.json").read_bytes() == first


def test_components_of_the_first_set_serve_the_next(tmp_path):
    record = made(tmp_path, FeatureOptions(channels=2, fit_images=2)).record
    assert made(tmp_path, FeatureOptions(channels=2), data=PicturesConfig(recording="other")).record == record
    assert len(list((tmp_path / "maps" / "other").iterdir())) == 5


def test_images_of_another_set_that_have_the_same_names(tmp_path):
    made(tmp_path)
    other = PicturesConfig(shift=100)
    with pytest.raises(ValueError, match=r"rec/v%200\.npy is of another image than v 0 of rec in this dataset"):
        made(tmp_path, data=other)
    assert made(tmp_path, data=PicturesConfig(shift=1)).record is not None, "a decoder's rounding is no other image"


def test_axes_by_hand():
    features = torch.tensor([[3.0, 1.0], [-3.0, 1.0], [1.0, 2.0], [-1.0, 0.0]])
    origin, axes = principal_axes(features, 1)
    assert origin.tolist() == [0, 1]
    variance = ((features - origin) @ axes).square().mean()
    assert float(variance) == pytest.approx(1) and float(axes[0]) > abs(float(axes[1]))
    for features, channels, message in (
        (torch.randn(50, 4), 5, "5 channels are asked for, of features with 4 at 50 places"),
        (torch.randn(3, 9), 3, "of features with 9 at 3 places"),
        (torch.ones(50, 4), 2, "the same everywhere"),
    ):
        with pytest.raises(ValueError, match=message):
            principal_axes(features, channels)


def test_what_a_model_is_given(tmp_path):
    seen = []

    def answer(images):
        seen.append(images)
        return images

    options = FeatureOptions(channels=0, size=(3, 4), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    made(tmp_path, options, Fails(answer))
    assert all(images.shape[1:] == (3, 3, 4) and images.dtype == torch.float32 for images in seen)
    whole = torch.cat(seen)
    assert float(whole[-1, 0].mean()) == pytest.approx(200 / 255 - 0.1, abs=1e-5)
    assert float(whole[-1, 1].mean()) == pytest.approx((25 / 255 - 0.2) / 2, abs=1e-3)
    assert float(whole[-1, 2].mean()) == pytest.approx((35 / 255 - 0.3) / 4, abs=1e-3)


def test_tokens_lists_and_class_tokens(tmp_path):
    def tokens(images):
        cells = nn.functional.avg_pool2d(images, 2).flatten(2).mT
        return [images, torch.cat([torch.full_like(cells[:, :2], 99.0), cells], dim=1)]

    made(tmp_path, replace(KEEP, grid=(3, 4)), Fails(tokens))
    for number in range(5):
        np.testing.assert_allclose(a_map(tmp_path, number), expected_map(number)[..., :3], atol=1e-3)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda images: {"out": images}, "m:f: gives a dict for"),
        (lambda images: images.mean(), r"m:f: gives shape \[\] for"),
        (lambda images: images[:1].repeat(3, 1, 1, 1), "gives shape"),
        (lambda images: images.flatten(2).mT, "gives 48 tokens an image; say with --grid"),
        (lambda images: images / 0, "features of rec, v 2, are not finite"),
    ],
)
def test_models_that_give_no_maps(tmp_path, answer, message):
    with pytest.raises(ValueError, match=message):
        made(tmp_path, KEEP, Fails(answer))
    assert not list((tmp_path / "maps").glob("*/*.npy"))


def test_features_beyond_half_precision(tmp_path):
    with pytest.raises(DataError, match="do not fit half precision"):
        made(tmp_path, KEEP, Pooled(1e6))
    assert not list((tmp_path / "maps").glob("*/*.npy"))


@pytest.mark.parametrize(
    ("options", "backbone", "what"),
    [
        (KEEP, Pooled(2.0), "weights is others there"),
        (replace(KEEP, size=(4, 4)), Pooled(), r"size is \(\) there"),
        (FeatureOptions(channels=2), Pooled(), "reduced is False there"),
    ],
)
def test_maps_of_another_kind_are_not_mixed(tmp_path, options, backbone, what):
    made(tmp_path)
    with pytest.raises(ValueError, match=f"holds maps of another kind: {what}; choose another directory"):
        MakingMaps(PicturesConfig(), backbone, "m:f", tmp_path / "maps", options)
    with pytest.raises(ValueError, match="model is 'm:f' there"):
        MakingMaps(PicturesConfig(), Pooled(), "m:g", tmp_path / "maps", KEEP)
    (tmp_path / "maps" / "features.json").unlink()
    with pytest.raises(ValueError, match=r"holds maps and no features\.json"):
        MakingMaps(PicturesConfig(), Pooled(), "m:f", tmp_path / "maps", KEEP)


def test_an_image_that_cannot_be_decoded_is_on_record_until_it_can(tmp_path):
    damaged = PicturesConfig(unreadable=3)
    assert made(tmp_path, data=damaged).record.unreadable == (("rec", "v 3"),)
    MapFolder(str(tmp_path / "maps")).check(damaged.build())
    assert made(tmp_path).record.unreadable == () and a_map(tmp_path, 3).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("choices", "name"),
    [
        ({"channels": -1}, "channels"),
        ({"size": (3,)}, "size"),
        ({"mean": (1.0,)}, "mean"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"grid": (0, 3)}, "grid"),
        ({"fit_images": 0}, "fit_images"),
        ({"batch": 0}, "batch"),
    ],
)
def test_options_that_make_no_sense(choices, name):
    with pytest.raises(ValueError, match=rf"FeatureOptions\.{name} must be"):
        FeatureOptions(**choices)


KILLED = """
import os, signal, sys
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.gradient_features import oriented_gradients
from ponder3d.engine.image_features import FeatureOptions, MakingMaps

rooms = RoomsConfig(num_rooms=1, num_test_rooms=1, num_views=8, num_fused_views=2, image_size=(16, 24), max_points=500)
making = MakingMaps(rooms, oriented_gradients(), "gradients", sys.argv[1], FeatureOptions(channels=4))
making.run(lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done == int(sys.argv[2]) else None)
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(tmp_path):
    def run(out: Path, kill_at: int) -> int:
        return subprocess.run([sys.executable, "-c", KILLED, str(out), str(kill_at)], check=False).returncode

    assert run(tmp_path / "whole", 0) == 0
    assert run(tmp_path / "killed", 3) == -signal.SIGKILL
    assert len(list((tmp_path / "killed").glob("*/*.npy"))) == 3
    assert run(tmp_path / "killed", 6) == -signal.SIGKILL
    assert run(tmp_path / "killed", 0) == 0
    files = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    assert files == {p.relative_to(tmp_path / "killed") for p in (tmp_path / "killed").rglob("*") if p.is_file()}
    assert len(files) == 9 and json.loads((tmp_path / "whole" / "features.json").read_text())["channels"] == 4
    assert all((tmp_path / "whole" / f).read_bytes() == (tmp_path / "killed" / f).read_bytes() for f in files)
