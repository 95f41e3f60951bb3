"""Options of a recipe on several datasets: every part can be reached, and a wrong one says which there are."""

import tyro

from ponder3d import cli
from ponder3d.cli import TrainOptions
from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.transforms import Only, PickRays, SphereCrop
from ponder3d.engine.experiment import Experiment
from ponder3d.tasks.ponder import PonderConfig

NAMES = ("ScanNet", "S3DIS", "Structured3D")

RECIPE = """
from dataclasses import replace

from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import smoke


def three() -> Experiment:
    \"\"\"Three datasets.\"\"\"
    parts = tuple(PartConfig(name, PreparedConfig(), 1.0) for name in ("ScanNet", "S3DIS", "Structured3D"))
    return replace(smoke.pretrain_rgbd_prepared(), data=JointConfig(parts))
"""


def experiment() -> Experiment:
    parts = tuple(PartConfig(name, PreparedConfig(), share) for name, share in zip(NAMES, (2.0, 1.0, 4.0), strict=True))
    return Experiment(
        task=PonderConfig(),
        data=JointConfig(parts),
        transforms=(Only(("S3DIS",), (SphereCrop(share=0.6),)), PickRays()),
        validation_transforms=(),
    )


def test_every_part_has_options():
    given = {
        "--data.parts.0.data.root": "/data/scannet",
        "--data.parts.1.data.root": "/data/s3dis",
        "--data.parts.2.data.root": "/data/structured3d",
        "--data.parts.2.data.views": "3",
        "--data.parts.1.share": "1.5",
        "--data.vocabulary": "separate",
        "--transforms.0.transforms.0.share": "0.5",
    }
    arguments = [word for pair in given.items() for word in pair]
    made = tyro.cli(TrainOptions, default=TrainOptions(experiment(), out="run"), args=arguments).experiment
    assert isinstance(made.data, JointConfig)
    roots = [part.data.root for part in made.data.parts if isinstance(part.data, PreparedConfig)]
    assert roots == ["/data/scannet", "/data/s3dis", "/data/structured3d"] and made.data.vocabulary == "separate"
    assert [(part.name, part.share) for part in made.data.parts] == list(zip(NAMES, (2.0, 1.5, 4.0), strict=True))
    assert made.data.parts[2].data == PreparedConfig(root="/data/structured3d", views=3)
    assert made.transforms[0] == Only(("S3DIS",), (SphereCrop(share=0.5),))


def test_a_wrong_option_and_a_part_that_is_not_there(tmp_path, monkeypatch, capsys):
    (tmp_path / "joint_of_three.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path))
    out = ["--out", str(tmp_path / "run")]
    assert cli.main(["train", "joint_of_three.three", *out, "--data.parts.1.data.rot", "x"]) == 2
    assert "--data.parts.1.data.root" in capsys.readouterr().err
    assert cli.main(["train", "joint_of_three.three", *out, "--data.parts.1.share", "0"]) == 2
    assert "S3DIS has no share" in capsys.readouterr().err
    assert cli.main(["train", "joint_of_three.three", *out]) == 3
    error = capsys.readouterr().err
    assert "data.parts[0] (ScanNet): " in error and "--data.parts.0.data.root DIR" in error
    assert not (tmp_path / "run").exists()
