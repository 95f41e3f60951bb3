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


def test_encode_passes_its_options_on(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(results, "encode_files", lambda *args, **kwargs: seen.append((args, kwargs)) or [])
    options = ["--condition", "street", "--estimate-normals", "--missing", "error", "--viewpoint", "1", "2", "3"]
    assert cli.main(["encode", "e", "a.ply", *options]) == 0
    choices = {"condition": "street", "estimate_normals": True, "missing": "error", "viewpoint": (1.0, 2.0, 3.0)}
    assert seen == [(("e", ("a.ply",), "features", (), 1.0, True, False, "auto"), {"device": "cpu", **choices})]
    assert cli.main(["encode", "e", "a.ply", "--missing", "ones"]) == 2
    assert cli.main(["encode", "--help"]) == 0 and "--estimate-normals" in capsys.readouterr().out


def test_info(encoder, tmp_path, capsys):
    assert cli.main(["info", encoder]) == 0
    out = capsys.readouterr().out
    facts = dict(line.split("  ", 1) for line in out.splitlines())
    facts = {name: value.strip() for name, value in facts.items()}
    model = ponder3d.load(encoder)
    assert facts["kind"] == "SparseUNet" and facts["inputs"] == "rgb" and facts["grid size"] == "0.2 m"
    assert facts["parameters"] == f"{sum(p.numel() for p in model.parameters()):,}" and facts["out channels"] == "5"
    assert facts["conditions"] == "none" and facts["reach"] == f"{model.reach:g} m" and len(facts) == 8
    ponder3d.save(model, tmp_path / "encoder.safetensors", card={"step": 7, "modality_dropout": ["rgb"]})
    assert cli.main(["info", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "card: step              7" in out and 'card: modality_dropout  ["rgb"]' in out
    assert cli.main(["info", str(tmp_path / "absent")]) == 5
    (tmp_path / "other").write_text("hello")
    assert cli.main(["info", str(tmp_path / "other")]) == 2 and "other" in capsys.readouterr().err


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
