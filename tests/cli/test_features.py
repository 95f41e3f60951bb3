"""``ponder3d features``, but for what a whole run shows: tests/data/test_rgbd_run.py."""

from pathlib import Path

import pytest

from ponder3d import cli
from ponder3d.cli import features
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.data.synthetic.rooms import RoomsConfig

MINE = """
from torch import nn

def pooled():
    return nn.AvgPool2d(4)

def number():
    return 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_models.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_whose_images(tmp_path):
    assert isinstance(features._data_of("smoke.pretrain_indoor_rooms"), RoomsConfig)
    assert features._data_of(str(tmp_path)) == RGBDFolderConfig(root=str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    assert features._data_of(str(tmp_path)) == PreparedConfig(root=str(tmp_path))
    with pytest.raises(ValueError, match="no recipe 'nowhere'"):
        features._data_of("nowhere")


def test_a_model_of_ones_own(mine):
    assert type(features._model("my_models:pooled")).__name__ == "AvgPool2d"
    for wrong, message in (
        ("my_models:absent", "--backbone my_models:absent: no such function"),
        ("no_such_module:f", "no such function; write MODULE:FUNCTION"),
        ("my_models", "no such function"),
        ("my_models:number", "returns a int; wanted is a torch.nn.Module"),
    ):
        with pytest.raises(ValueError, match=message):
            features._model(wrong)


def test_an_estimate_writes_nothing(mine, tmp_path, capsys):
    options = ["--data.num-rooms", "1", "--data.num-views", "4", "--data.num-fused-views", "2", "--data.cache", ""]
    options += ["--data.image-size", "16", "24", "--data.max-points", "500", "--out", str(tmp_path / "maps")]
    options += ["--backbone", "my_models:pooled", "--channels", "0", "--estimate"]
    assert cli.main(["features", "pretrain_indoor.rooms", *options]) == 0
    assert "4 images; maps of 4 x 6 x 3, about 0.0 MB" in capsys.readouterr().out
    assert not (tmp_path / "maps").exists()


def test_help_and_wrong_use(capsys):
    assert cli.main(["features"]) == cli.main(["features", "--help"]) == 0
    assert "usage: ponder3d features RECIPE_OR_DIR" in capsys.readouterr().out
    assert cli.main(["features", "nowhere"]) == 2
    assert cli.main(["features", "pretrain_rgbd.folder", "--data.root", str(Path("absent"))]) == 3
