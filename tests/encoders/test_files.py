import errno
import json
import os
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

import ponder3d
from ponder3d.config import fingerprint, to_json
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import Centre, GridSample, apply
from ponder3d.encoders.encoder import Encoder
from ponder3d.encoders.files import (
    SHIPPED,
    EncoderFileError,
    copy_weights,
    load_encoder,
    read_card,
    save_encoder,
    shipped_names,
    weights_digest,
)
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.recipes.catalogue import find_recipe

CONFIG = SparseUNetConfig(inputs=("rgb",), grid_size=0.1, stem_channels=3, channels=(4, 5), blocks=(1, 1))


@pytest.fixture
def encoder():
    return CONFIG.build()


def test_round_trip(encoder, tmp_path):
    save_encoder(encoder, tmp_path / "encoder.safetensors", card={"trained on": "nothing", "licence": "Apache-2.0"})
    for path in (tmp_path, tmp_path / "encoder.safetensors", str(tmp_path)):
        loaded = load_encoder(path)
        assert loaded.config == encoder.config and not loaded.training
        for key, value in encoder.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[key])
    assert read_card(tmp_path)["card"] == {"trained on": "nothing", "licence": "Apache-2.0"}
    assert loaded.card == read_card(tmp_path)["card"] and encoder.card == {}
    save_encoder(loaded, tmp_path / "again.safetensors")
    assert load_encoder(tmp_path / "again.safetensors").card == loaded.card, "its own, if no other is given"
    save_encoder(loaded, tmp_path / "again.safetensors", card={})
    assert load_encoder(tmp_path / "again.safetensors").card == {}
    xyz, rgb = torch.rand(50, 3), torch.rand(50, 3)
    assert torch.equal(ponder3d.load(tmp_path).encode(xyz, rgb), encoder.encode(xyz, rgb))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="a run writes it with its first checkpoint"):
        load_encoder(tmp_path)


def test_a_flipped_bit_is_found(encoder, tmp_path):
    path = tmp_path / "e.safetensors"
    save_encoder(encoder, path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    with pytest.raises(EncoderFileError, match="the weights differ from their digest"):
        load_encoder(path)


@pytest.mark.parametrize("keep", [0, 4, 100, -3])
def test_a_truncated_file_is_refused(encoder, tmp_path, keep):
    path = tmp_path / "e.safetensors"
    save_encoder(encoder, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EncoderFileError, match="no intact safetensors file"):
        load_encoder(path)


def test_something_else(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(EncoderFileError, match="not one that ponder3d wrote"):
        load_encoder(tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(EncoderFileError, match="no intact safetensors file"):
        load_encoder(tmp_path / "text")


def test_a_bit_flipped_in_the_header_is_found_or_harmless(encoder, tmp_path):
    path = tmp_path / "e.safetensors"
    save_encoder(encoder, path)
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    for place in range(0, end, 5):  # 5 and 8 have no common divisor: every bit of a byte has its turn
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            loaded = load_encoder(path)
        except EncoderFileError as error:
            assert str(path) in str(error)
        else:
            assert loaded.config == encoder.config
            for key, value in encoder.state_dict().items():
                assert torch.equal(value, loaded.state_dict()[key])


def rewritten(encoder, path, change):
    """A file whose header was changed, with the digest left in order."""
    save_encoder(encoder, path)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["ponder3d"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header)
    save_file(weights, path, metadata={"ponder3d": json.dumps(header)})


def test_another_version_says_what_differs(encoder, tmp_path):
    path = tmp_path / "e.safetensors"
    rewritten(encoder, path, lambda h: h.update(format=99))
    with pytest.raises(EncoderFileError, match="format 99, this version reads 1"):
        load_encoder(path)
    rewritten(encoder, path, lambda h: h["config"].update(stem_size=3))
    with pytest.raises(EncoderFileError, match="stem_size: SparseUNetConfig has no such field"):
        load_encoder(path)
    rewritten(encoder, path, lambda h: describe(h, replace(CONFIG, blocks=(1, 2))))
    with pytest.raises(EncoderFileError, match="missing .first: dec"):
        load_encoder(path)
    rewritten(encoder, path, lambda h: describe(h, replace(CONFIG, stem_channels=7)))
    with pytest.raises(EncoderFileError, match=r"has shape \[.*\], the encoder needs"):
        load_encoder(path)


def describe(header, config):
    header.update(config=to_json(config), fingerprint=fingerprint(config))


def test_another_configuration_than_the_one_that_was_written_is_found(encoder, tmp_path):
    path = tmp_path / "e.safetensors"
    rewritten(encoder, path, lambda h: h["config"].update(grid_size=0.2))
    with pytest.raises(EncoderFileError, match="its configuration differs from its fingerprint"):
        load_encoder(path)
    rewritten(encoder, path, lambda h: h.update(card=["?"]))
    with pytest.raises(EncoderFileError, match="its card is no table of entries; the file is damaged"):
        load_encoder(path)
    rewritten(encoder, path, lambda h: h.pop("fingerprint"))
    with pytest.raises(EncoderFileError, match="no 'fingerprint'"):
        load_encoder(path)


def test_weights_of_another_structure_are_not_copied(encoder):
    other = SparseUNetConfig(
        inputs=("rgb",), grid_size=0.1, stem_channels=3, channels=(4, 4, 5, 5), blocks=(1,) * 4
    ).build()
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(EncoderFileError, match="mine: weights do not match the encoder"):
        copy_weights(encoder, other, "mine")
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": ("normal",)}, r"mine: trained with inputs \('rgb',\), this encoder has \('normal',\)"),
        ({"grid_size": 0.05}, "mine: trained with grid_size 0.1, this encoder has 0.05"),
    ],
)
def test_weights_that_would_mean_something_else_are_not_copied(encoder, changed, message):
    other = replace(CONFIG, **changed).build()
    with pytest.raises(EncoderFileError, match=message):
        copy_weights(encoder, other, "mine")
    same = replace(CONFIG, norm_momentum=0.5).build()
    copy_weights(encoder, same, "mine")
    assert all(torch.equal(value, same.state_dict()[key]) for key, value in encoder.state_dict().items())


def test_the_folder_is_synced_after_the_file_has_its_name(encoder, tmp_path, monkeypatch):
    calls = []
    fsync, replace_file = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace_file(*paths)))
    save_encoder(encoder, tmp_path / "e.safetensors")
    assert calls == ["fsync", "replace", "fsync"]


def test_a_failed_save_leaves_the_old_file(encoder, tmp_path, monkeypatch):
    path = tmp_path / "e.safetensors"
    save_encoder(encoder, path)
    before = path.read_bytes()

    def no_space(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=f"could not save the encoder .*No space.*{path}") as caught:
        save_encoder(encoder, path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]


@pytest.mark.parametrize("device", ["potato", "cuda:77", "meta"])
def test_a_device_that_is_not_there(encoder, tmp_path, device):
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    with pytest.raises(ValueError, match=f"--device {device}: cannot be used here .*; take cpu, or cuda where it is"):
        load_encoder(tmp_path, device)


def test_cuda_of_a_build_without_it(encoder, tmp_path, monkeypatch):
    save_encoder(encoder, tmp_path / "encoder.safetensors")

    def refuse(*shape, device):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "zeros", refuse)
    with pytest.raises(
        ValueError, match=r"--device cuda: cannot be used here \(Torch not compiled with CUDA enabled\)"
    ):
        load_encoder(tmp_path, "cuda")


def test_the_digest_of_weights():
    one = {"a": torch.arange(3.0), "b": torch.tensor(2)}
    assert weights_digest(one) == weights_digest({"b": torch.tensor(2), "a": torch.arange(6.0)[:3]})
    others = [{**one, "a": torch.arange(3.0) + 1e-6}, {**one, "a": torch.arange(3.0)[:, None]}, {"a": one["a"]}]
    assert len({weights_digest(weights) for weights in (one, *others)}) == 4


def test_half_precision_takes_half_the_bytes_and_nearly_nothing_from_the_features(tmp_path):
    torch.manual_seed(0)
    encoder = SparseUNetConfig(
        inputs=("rgb", "one"), grid_size=0.1, stem_channels=16, channels=(16,) * 8, blocks=(1,) * 8
    ).build()
    for half, name in ((False, "full"), (True, "half")):
        save_encoder(encoder, tmp_path / f"{name}.safetensors", half_precision=half)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    xyz, rgb = torch.rand(500, 3), torch.rand(500, 3)
    full, half = (load_encoder(tmp_path / f"{name}.safetensors").encode(xyz, rgb=rgb) for name in ("full", "half"))
    assert half.dtype == torch.float32
    assert 0 < float((full - half).norm() / full.norm()) < 5e-3  # float16 has 11 bits: 5e-4 a weight


@pytest.mark.parametrize(
    ("name", "inputs", "given"),
    [("indoor-small", ("rgb", "normal", "one"), ()), ("outdoor-small", ("intensity", "one"), ("intensity",))],
)
def test_encoders_come_with_the_package(name, inputs, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder(name)
    assert encoder.config == find_recipe("shipped." + name.replace("-", "_"))().task.encoder
    assert encoder.config.inputs == inputs and encoder.card["name"] == name
    assert {"command", "trained_on", "frame", "linear_probe", "licence"} <= set(read_card(name)["card"])
    rows = encoder.encode(torch.randn(200, 3) * 10, **{each: torch.rand(200) for each in given})
    assert rows.shape == (200, 32) and bool(torch.isfinite(rows).all()) and float(rows.std()) > 0


def test_indoor_small_is_what_its_recipe_trains():
    assert read_card("indoor-small")["card"]["experiment"] == fingerprint(find_recipe("shipped.indoor_small")())


def test_no_other_encoder_comes_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped_names() == ["indoor-small", "outdoor-small"]
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 8e6
    with pytest.raises(FileNotFoundError, match="with the package come indoor-small, outdoor-small"):
        load_encoder("outdoor-large")
    (tmp_path / "outdoor-small").mkdir()  # what is in the working directory comes first
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_encoder("outdoor-small")


def test_a_way_to_read_an_encoder_has_no_file(encoder, tmp_path):
    with pytest.raises(ValueError, match="save that one"):
        save_encoder(encoder.all_levels(), tmp_path / "levels.safetensors")
    assert not list(tmp_path.iterdir())


def test_indoor_small_tells_classes_apart_by_coordinates_alone():
    """Points of one room get the class whose mean feature in the other is most alike, as a first look at features."""
    data = RoomsConfig(seed=3, num_rooms=2, num_views=8, num_fused_views=8, image_size=(60, 80), classes="grouped")
    scenes = [apply((Centre(), GridSample(0.08)), replace(room, views=None), 0, 0) for room in data.build()]
    shipped = load_encoder("indoor-small")

    def accuracy(encoder: Encoder) -> float:
        """Mean over the classes that are in both rooms."""
        one, other = (functional.normalize(encoder.encode(scene.xyz)) for scene in scenes)
        labels, truth = (scene.labels for scene in scenes)
        both = sorted(set(labels.tolist()) & set(truth.tolist()) - {-1})
        means = functional.normalize(torch.stack([one[labels == c].mean(0) for c in both]))
        guess = torch.tensor(both)[(other @ means.T).argmax(1)]
        return float(torch.stack([(guess[truth == c] == c).float().mean() for c in both]).mean())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one with random weights has not learnt to do without colour
        untrained = accuracy(shipped.config.build())
    assert accuracy(shipped) > untrained + 0.15
