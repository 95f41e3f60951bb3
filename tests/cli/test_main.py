"""The command line: what it prints, and what it exits with."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ponder3d
from ponder3d import cli
from ponder3d.data.dataset import DataError
from ponder3d.engine.checkpoint import CheckpointError
from ponder3d.engine.estimate import Estimate, TooLargeError
from ponder3d.engine.loop import LoaderError, NonFiniteError, PreemptedError
from ponder3d.recipes.catalogue import list_recipes


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """A finished smoke run."""
    folder = tmp_path_factory.mktemp("cli")
    options = ["--data.cache", str(folder / "rooms"), "--steps", "2", "--validate-every", "2"]
    assert cli.main(["train", "smoke.pretrain_indoor_rooms", "--out", str(folder / "run"), *options]) == 0
    return str(folder / "run")


def test_without_a_command_it_says_what_there_is(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("demo", "train", "evaluate", "report", "recipes"))


def test_an_unknown_command(capsys):
    assert cli.main(["trian"]) == 2
    assert "trian" in capsys.readouterr().err


def test_recipes_are_listed(capsys):
    assert cli.main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in list_recipes())
    blocks = [block.splitlines() for block in out.split("\n\n") if block.startswith("  ")]
    assert len(blocks) == len({name.split(".")[0] for name in list_recipes()})
    assert all(len({line.split(".")[0] for line in block}) == 1 for block in blocks), "each under its module's line"
    assert "joint_rooms: Joint training on a laptop" in out


@pytest.mark.parametrize("command", ["demo", "evaluate", "report"])
def test_help(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert "usage" in capsys.readouterr().out


def bare_flags(page: str) -> list[str]:
    """Flags of a help page that show nothing but their default."""
    text = "\n".join(line.strip("\u2502 ") for line in page.splitlines())
    return re.findall(r"^(--\S+(?: \S+)*)(?: {2,}|\n)\(default", text, flags=re.MULTILINE)


FULL_SIZES = [name for name in list_recipes() if not name.startswith("smoke.") and not name.endswith("_one_gpu")]


@pytest.mark.parametrize("command", [["demo"], *(["train", name] for name in FULL_SIZES)], ids=" ".join)
def test_every_flag_is_explained(command, capsys):
    assert cli.main([*command, "--help"]) == 0
    out = capsys.readouterr().out
    flags = ("--out", "--seed") if command == ["demo"] else ("--out", "--steps", "--optim.lr", "--task.encoder.")
    assert all(flag in out for flag in flags)
    assert not bare_flags(out)


def test_a_flag_without_a_text_is_found():
    below = "--a INT\n  Text.\n(default: 1)\n--b INT INT\n  (default: 1 2)\n"
    beside = "--c STR   Text. (default: x)\n--d STR   (default: x)"
    assert bare_flags(below + beside) == ["--b INT INT", "--d STR"]


def test_an_unknown_recipe_lists_the_known(capsys):
    assert cli.main(["train", "pretrain_indoor.romos"]) == 2
    assert "pretrain_indoor.rooms" in capsys.readouterr().err


def test_estimate(tmp_path, monkeypatch, capsys):
    measured = []
    needed = Estimate(3000, 1.3, 1.3, 0.1, 0.0, 0.1, 0.0, 10**9, 10**6, 10**7, "cpu", 3)
    monkeypatch.setattr(cli, "estimate", lambda experiment: measured.append(experiment) or needed)
    arguments = ["estimate", "smoke.semseg_rooms", "--out", str(tmp_path / "run"), "--steps", "3000"]
    assert cli.main(arguments) == 0 and measured[0].steps == 3000
    time, memory = capsys.readouterr().out.splitlines()
    assert time == "about 65 min: 3,000 steps of 1.3 s, evaluations 0 ms"
    assert re.match(r"memory 1000.0 MB \(cpu\); disk 10.0 MB, \S+ [MG]B are free$", memory)
    assert not (tmp_path / "run").exists()
    assert cli.main(["estimate", "--help"]) == 0 and "pretrain_indoor.rooms" in capsys.readouterr().out


def test_long_runs_are_told_of_beforehand(tmp_path, monkeypatch, capsys):
    """Measured from 500 steps on, told of from 10 minutes on or where the disk is too small, and not on resume."""
    measured, result = [], SimpleNamespace(figures={}, out=tmp_path, leads=True)
    needed = Estimate(500, 1.3, 1.3, 0.1, 0.0, 0.1, 0.0, 10**9, 10**6, 10**7, "cpu", 3)
    monkeypatch.setattr(cli, "train", lambda *args, **kwargs: result)
    monkeypatch.setattr(cli, "estimate", lambda experiment: measured.append(experiment) or needed)
    arguments = ["train", "smoke.pretrain_indoor_rooms", "--out", str(tmp_path / "run"), "--steps"]
    assert cli.main([*arguments, "499"]) == 0 and not measured
    assert cli.main([*arguments, "500"]) == 0 and len(measured) == 1
    assert "ponder3d: about 11 min: 500 steps of 1.3 s" in capsys.readouterr().err
    monkeypatch.setattr(cli, "estimate", lambda experiment: replace(needed, step_seconds=0.1))
    assert cli.main([*arguments, "500"]) == 0 and "about" not in capsys.readouterr().err
    monkeypatch.setattr(cli, "estimate", lambda experiment: replace(needed, step_seconds=0.1, disk_bytes=10**18))
    assert cli.main([*arguments, "500"]) == 0 and "ponder3d: WARNING:" in capsys.readouterr().err
    measured.clear()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli.main([*arguments, "500"]) == 0 and "WARNING" not in capsys.readouterr().err
    monkeypatch.delenv("LOCAL_RANK")

    def refuse(experiment):
        raise TooLargeError("a step does not fit")

    monkeypatch.setattr(cli, "estimate", refuse)
    assert cli.main([*arguments, "500"]) == 0 and "ponder3d: a step does not fit" in capsys.readouterr().err
    monkeypatch.setattr(cli, "resume_experiment", lambda run: None)
    assert cli.main(["train", "--resume", str(tmp_path)]) == 0 and not capsys.readouterr().err


def test_a_wrong_value_is_named(capsys, tmp_path):
    assert cli.main(["train", "smoke.semseg_rooms", "--out", str(tmp_path / "run"), "--steps", "0"]) == 2
    assert "steps" in capsys.readouterr().err


def test_a_directory_that_is_not_there(capsys, tmp_path):
    arguments = [
        "train",
        "smoke.pretrain_rgbd_folder",
        "--out",
        str(tmp_path / "run"),
        "--data.root",
        "/nowhere/at/all",
    ]
    assert cli.main(arguments) == 3
    assert "/nowhere/at/all" in capsys.readouterr().err


def test_evaluate_a_run(run, capsys):
    assert cli.main(["evaluate", run]) == 0
    out = capsys.readouterr().out
    assert "psnr" in out and "depth_error" in out
    assert json.loads(Path(run, "evaluation.json").read_text())["figures"]["psnr"] > 0


def test_report_of_a_run(run, capsys):
    assert cli.main(["report", run]) == 0
    page = capsys.readouterr().out.strip()
    assert page.endswith("index.html") and "<svg" in Path(page).read_text()


def test_a_run_is_not_overwritten(run, capsys):
    assert cli.main(["train", "smoke.pretrain_indoor_rooms", "--out", run]) == 2
    assert "--resume" in capsys.readouterr().err


def test_resuming_a_finished_run(run, capsys):
    assert cli.main(["train", "--resume", run]) == 0


@pytest.mark.parametrize("command", [["evaluate"], ["report"], ["train", "--resume"]])
def test_a_run_that_is_not_there(tmp_path, capsys, command):
    assert cli.main([*command, str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_an_encoder_that_is_not_there(run, tmp_path, capsys):
    cache = str(Path(run).parent / "rooms")
    missing = str(tmp_path / "encoder.safetensors")
    options = ["--init", missing, "--out", str(tmp_path / "run"), "--data.cache", cache]
    assert cli.main(["train", "smoke.semseg_rooms", *options]) == 2
    assert missing in capsys.readouterr().err


OWN = """
from dataclasses import dataclass, replace

from ponder3d.data.dataset import DatasetConfig, SceneDataset
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import smoke
from ponder3d.types import LabelSet, Scene
import torch


@dataclass(frozen=True)
class Noise(DatasetConfig):
    def build(self):
        return Scenes()

    def held_out(self):
        return self


class Scenes(SceneDataset):
    labels = LabelSet(("a", "b"), ((0, 0, 0), (9, 9, 9)))

    def __len__(self):
        return 2

    def __getitem__(self, index):
        xyz = torch.rand(200, 3, generator=torch.Generator().manual_seed(index))
        return Scene(xyz=xyz, rgb=xyz, normal=None, source="noise", labels=(xyz[:, 0] > 0.5).long())


def tiny() -> Experiment:
    return replace(smoke.semseg_rooms(), data=Noise(), transforms=(), steps=1)
"""
EACH = """
import sys
from ponder3d import cli
for command in (["train", "--resume"], ["evaluate"], ["report"]):
    sys.modules.pop("own_scans", None)
    print("code", cli.main([*command, "run"]), cli.main([*command, "run", "--import", "own_scans"]))
print("code", cli.main(["evaluate", "run", "--import", "own_scams"]))
"""


def test_a_run_with_a_dataset_of_ones_own_goes_on_in_another_process(tmp_path):
    (tmp_path / "own_scans.py").write_text(OWN)

    def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(Path(ponder3d.__file__).parents[1])}
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    start = "import sys; from ponder3d import cli; sys.exit(cli.main())"
    first = python(start, "train", "own_scans.tiny", "--out", "run")
    assert first.returncode == 0, first.stderr
    later = python(EACH)
    codes = [line for line in later.stdout.splitlines() if line.startswith("code")]
    assert codes == ["code 2 0"] * 3 + ["code 2"], later.stderr
    assert later.stderr.count("--import own_scans") == 3 and "--import own_scams: no such module" in later.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PreemptedError("x"), 143),
        (DataError("x"), 3),
        (NonFiniteError("x"), 4),
        (CheckpointError("x"), 5),
        (OSError("x"), 5),
        (ConnectionError("x"), 5),
        (ValueError("x"), 2),
        (LoaderError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(monkeypatch, error, code):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(cli, "resume_experiment", fail)
    assert cli.main(["train", "--resume", "somewhere"]) == code


def test_an_interrupted_run_is_told_how_to_go_on(monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "train", interrupt)
    assert cli.main(["train", "smoke.semseg_rooms"]) == 130
    assert "--resume RUN" in capsys.readouterr().err


def test_the_encoder_of_a_run_loads_in_three_lines(run):
    encoder = ponder3d.load(run)
    features = encoder.encode(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.5]] * 10))
    assert features.shape == (20, encoder.out_channels)
