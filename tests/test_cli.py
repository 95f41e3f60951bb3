"""The command line: what it prints, and what it exits with."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import ponder3d
from ponder3d import cli
from ponder3d.data.dataset import DataError
from ponder3d.engine.checkpoint import CheckpointError
from ponder3d.engine.loop import NonFiniteError, PreemptedError
from ponder3d.recipes.catalogue import list_recipes


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """A finished smoke run."""
    folder = tmp_path_factory.mktemp("cli")
    options = ["--data.cache", str(folder / "rooms"), "--steps", "2", "--validate-every", "1"]
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


@pytest.mark.parametrize("command", ["demo", "evaluate", "report"])
def test_help(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert "usage" in capsys.readouterr().out


def bare_flags(page: str) -> list[str]:
    """Flags of a help page that show nothing but their default."""
    text = "\n".join(line.strip("\u2502 ") for line in page.splitlines())
    return re.findall(r"^(--\S+(?: \S+)*)(?: {2,}|\n)\(default", text, flags=re.MULTILINE)


@pytest.mark.parametrize("command", [["demo"], *(["train", name] for name in list_recipes())], ids=" ".join)
def test_every_flag_is_explained(command, capsys):
    assert cli.main([*command, "--help"]) == 0
    out = capsys.readouterr().out
    flags = ("--out", "--seed") if command == ["demo"] else ("--out", "--steps", "--optim.lr", "--task.encoder.inputs")
    assert all(flag in out for flag in flags)
    assert not bare_flags(out)


def test_a_flag_without_a_text_is_found():
    below = "--a INT\n  Text.\n(default: 1)\n--b INT INT\n  (default: 1 2)\n"
    beside = "--c STR   Text. (default: x)\n--d STR   (default: x)"
    assert bare_flags(below + beside) == ["--b INT INT", "--d STR"]


def test_an_unknown_recipe_lists_the_known(capsys):
    assert cli.main(["train", "pretrain_indoor.romos"]) == 2
    assert "pretrain_indoor.rooms" in capsys.readouterr().err


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


def test_evaluating_nothing(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path)]) == 5
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PreemptedError("x"), 143),
        (DataError("x"), 3),
        (NonFiniteError("x"), 4),
        (CheckpointError("x"), 5),
        (ValueError("x"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(monkeypatch, error, code):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(cli, "resume_experiment", fail)
    assert cli.main(["train", "--resume", "somewhere"]) == code


def test_the_encoder_of_a_run_loads_in_three_lines(run):
    encoder = ponder3d.load(run)
    features = encoder.encode(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.5]] * 10))
    assert features.shape == (20, encoder.out_channels)
