"""Commands about what encoders and runs give."""

import numpy as np
import pytest

import ponder3d
from ponder3d import cli
from ponder3d.cli import results
from ponder3d.encoders.sparse_unet import SparseUNetConfig


@pytest.fixture
def encoder(tmp_path) -> str:
    config = SparseUNetConfig(inputs=("rgb",), grid_size=0.2, stem_channels=3, channels=(4, 5), blocks=(1, 1))
    ponder3d.save(config.build(), tmp_path / "encoder.safetensors")
    return str(tmp_path / "encoder.safetensors")


def test_encode(encoder, tmp_path, capsys):
    xyz = np.random.default_rng(0).uniform(0, 2, (300, 3))
    np.savez(tmp_path / "cloud.npz", xyz=xyz, rgb=np.full((300, 3), 100, np.uint8))
    assert cli.main(["encode", encoder, str(tmp_path / "cloud.npz"), "--out", str(tmp_path / "features")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / f"features/cloud.{end}") for end in ("npz", "ply")]
    written = np.load(tmp_path / "features/cloud.npz")
    expected = ponder3d.load(encoder).encode(xyz, rgb=np.full((300, 3), 100, np.uint8))
    np.testing.assert_allclose(written["features"], np.asarray(expected), atol=1e-5)
    np.testing.assert_array_equal(written["xyz"], xyz)


def test_encode_needs_something_to_encode(encoder, tmp_path, capsys):
    assert cli.main(["encode", encoder]) == 2 and "at least one" in capsys.readouterr().err
    assert cli.main(["encode", encoder, str(tmp_path / "absent.ply")]) == 3
    assert cli.main(["encode", str(tmp_path / "absent.safetensors"), str(tmp_path)]) in (2, 5)


def test_predict_passes_its_options_on(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(results, "predict_run", lambda *args, **kwargs: seen.append((args, kwargs)) or {"miou": 0.5})
    options = ["--augment", "scannet", "--formats", "npz", "scannet", "--split", "test", "--out", "here"]
    assert cli.main(["predict", "run", *options]) == 0
    assert seen == [(("run", None, "scannet", "here", ("npz", "scannet"), False), {"split": "test"})]
    assert capsys.readouterr().out == "miou  0.5\n"


def test_score_passes_its_options_on(monkeypatch):
    seen = []
    monkeypatch.setattr(results, "score_predictions", lambda *args: seen.append(args) or {})
    assert cli.main(["score", "a", "b", "--six-fold", "--groups"]) == 0
    (paths, truth, six_fold, groups) = seen[0]
    assert (paths, truth, six_fold) == (("a", "b"), None, True)
    assert {name: len(classes) for name, classes in groups.items()} == {"head": 66, "common": 68, "tail": 66}
