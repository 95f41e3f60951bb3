"""Released segmentation models as runs."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from segmenting import BoardsConfig, semseg_run

from ponder3d import cli
from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.files import read_card
from ponder3d.encoders.released import Released, read_released
from ponder3d.engine.adopt import adopt
from ponder3d.engine.evaluate import evaluate, load_task
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.loop import resume_experiment, train
from ponder3d.engine.predict import predict
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.types import Batch
from ponder3d.volume.convert import sample_at


@pytest.fixture
def files():
    """The module that tests of ``encoders`` use."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "encoders"))
    import released_files  # noqa: PLC0415

    return released_files


def model(files, head: str) -> dict:
    """Weights of a small model with a head of this kind, for three classes of ScanNet."""
    net = files.Net(stem=3, channels=(4, 5), blocks=(1, 1), conditions=0 if head == "final" else 3, classes=3)
    net = net if head == "final" else replace(net, classes=0)
    extra = {
        "final": dict,
        "seg_head": lambda: (
            {f"seg_head.{part}": torch.randn(3, 5)[:, n] for n, part in enumerate(("weight", "bias"))}
            | {"seg_head.weight": torch.randn(3, 5)}
        ),
        "language": lambda: files.language(net, classes=3),
        "heads": lambda: files.decoupled(net, (4, 3, 2)),
        "none": dict,
    }[head]()
    return {**files.backbone(net, prefix="backbone."), **(files.table(net) if net.prompted else {}), **extra}


def found(files, head: str, path: Path) -> Released:
    return read_released(files.saved(path / "released.pth", model(files, head)), grid_size=0.1)


def recipe() -> Experiment:
    """A recipe of segmentation, for the command line."""
    return semseg_run()


@pytest.mark.parametrize("head", ["final", "seg_head", "language", "heads"])
def test_a_run_scores_points_as_the_model_does(head, files, tmp_path):
    released = found(files, head, tmp_path)
    condition = "" if head == "final" else "ScanNet"
    recipe = semseg_run()
    recipe = replace(recipe, task=replace(recipe.task, all_levels=head == "final"))  # a released head reads the last
    experiment = adopt(released, recipe, tmp_path / "run", condition, {"source": "released.pth"})
    assert not experiment.task.all_levels
    task, stored, step = load_task(tmp_path / "run")
    assert stored == experiment == resume_experiment(tmp_path / "run") and step == experiment.steps
    assert stored.task.encoder == released.encoder.only(["ScanNet"]).folded("ScanNet").config if condition else True
    scene = replace(BoardsConfig().build()[0], condition=condition)
    batch = Batch.of([scene])
    with torch.no_grad():
        scores = task.logits(batch)
        x = released.encoder(batch)
        feats = sample_at(x, batch.points.xyz, batch.points.scene)
    found_head = dict(released.head.heads)["ScanNet"] if head == "heads" else released.head
    expected = found_head.logits(feats, "ScanNet") if head == "language" else found_head.logits(feats)
    torch.testing.assert_close(scores, expected, atol=1e-3 if head == "language" else 1e-5, rtol=1e-4)
    card = read_card(tmp_path / "run")["card"]
    assert card["source"] == "released.pth" and card["kind"] == released.kind and card["step"] == experiment.steps
    assert card.get("condition", "") == condition


@pytest.mark.parametrize("augment", ["", pytest.param("scannet", marks=pytest.mark.slow)])
def test_evaluate_and_predict(augment, files, tmp_path):
    run = tmp_path / "run"
    adopt(found(files, "language", tmp_path), semseg_run(), run, "ScanNet")
    figures = evaluate(run, quiet=True)
    assert 0 <= figures["miou"] <= 1
    record = json.loads((run / "evaluation.json").read_text())
    assert record["class_vectors"] == "vectors of PPT-v1m1 of SpUNet-v1m3" and record["step"] == 4
    assert predict(run, augment=augment, quiet=True)["scenes"] == 2
    with pytest.raises(ValueError, match="already holds a run"):
        train(resume_experiment(run), run)
    # The last step is done: what is left of the run is its evaluation.
    assert train(resume_experiment(run), run, resume=True, quiet=True).figures["miou"] == figures["miou"]


@pytest.mark.parametrize(
    ("head", "condition", "changes", "message"),
    [
        ("none", "ScanNet", {}, "PPT of SpUNet-v1m3 has no head that tells classes"),
        ("final", "ScanNet", {}, "--condition ScanNet: unknown; DefaultSegmentor of SpUNet-v1m1 knows no conditions"),
        (
            "language",
            "",
            {},
            r"say whose data they are .--condition.; PPT-v1m1 of SpUNet-v1m3 knows ScanNet, S3DIS, Str",
        ),
        ("heads", "kitchen", {}, "--condition kitchen: unknown; PPT-v1m2 of SpUNet-v1m3 knows ScanNet"),
        ("heads", "S3DIS", {}, "the head of PPT-v1m2 of SpUNet-v1m3 tells 2 classes, the recipe's data have 3"),
        ("final", "", {"data": BoardsConfig(labelled=False)}, "the recipe's data have no labels"),
        ("final", "", {"task": PonderConfig()}, "the recipe's task is PonderConfig; take a recipe of segmentation"),
    ],
)
def test_what_does_not_fit_writes_nothing(head, condition, changes, message, files, tmp_path):
    with pytest.raises(ValueError, match=message):
        adopt(found(files, head, tmp_path), semseg_run(**changes), tmp_path / "run", condition)
    assert not (tmp_path / "run").exists()


def test_a_directory_with_a_run_is_left_alone(files, tmp_path):
    released = found(files, "final", tmp_path)
    adopt(released, semseg_run(), tmp_path / "run")
    with pytest.raises(ValueError, match="already holds a run; choose another directory"):
        adopt(released, semseg_run(), tmp_path / "run")


def test_classes_of_the_shared_vocabulary(files, tmp_path):
    net = files.Net(stem=3, channels=(4, 5), blocks=(1, 1), conditions=3)
    weights = {**files.backbone(net, prefix="backbone."), **files.table(net), **files.language(net)}
    released = read_released(files.saved(tmp_path / "released.pth", weights))
    with pytest.raises(EncoderFileError, match="tells 13 classes, the recipe's data have 3; choose the same classes"):
        adopt(released, semseg_run(), tmp_path / "run", "S3DIS")


def test_the_command(files, tmp_path, capsys):
    path = files.saved(tmp_path / "released.pth", model(files, "heads"))
    run = str(tmp_path / "run")
    command = ["convert", str(path), run, f"--recipe={__name__}.recipe", "--condition", "ScanNet"]
    assert cli.main([*command, "--grid-size", "0.1", "--steps", "7"]) == 0
    assert capsys.readouterr().out.endswith(f"run: {run}   data: BoardsConfig\n")
    assert load_task(run)[2] == 7
    assert cli.main(["evaluate", run]) == 0 and "miou" in capsys.readouterr().out
    assert cli.main(command) == 2 and "already holds a run" in capsys.readouterr().err
    assert cli.main(["convert", str(path)]) == 2 and "usage: ponder3d convert FILE OUT" in capsys.readouterr().err
    assert cli.main(["convert", str(path), "--recipe"]) == 2 and "needs the name" in capsys.readouterr().err
    assert cli.main(["convert", str(path), run, "--recipe", "kitchen"]) == 2 and "no recipe" in capsys.readouterr().err
