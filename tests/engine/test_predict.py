"""Predictions as files: what is in them, what is kept, and what is refused."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from segmenting import Boards, BoardsConfig, PointwiseConfig, semseg_run

from ponder3d.data.dataset import DataError
from ponder3d.data.predictions import read_prediction
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.prepared.prepare import Preparation, Preparing
from ponder3d.data.prepared.scene_file import PrepareOptions
from ponder3d.data.raw.scannet import ScanNetConfig
from ponder3d.data.raw.scannet_classes import BENCHMARK20
from ponder3d.engine import predict as predicting
from ponder3d.engine.augmented import Looks
from ponder3d.engine.evaluate import evaluate, load_task
from ponder3d.engine.loop import train
from ponder3d.engine.predict import predict
from ponder3d.engine.score import score
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.types import Scene

VALIDATION = BoardsConfig().held_out()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("segmentation") / "run"
    train(semseg_run(), out, quiet=True)
    return out


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def expected(run, index: int, augment: str = "") -> torch.Tensor:
    task, experiment, _ = load_task(run)
    return Looks(task, experiment, augment, torch.device("cpu")).probabilities(Boards(VALIDATION)[index], index)


def test_every_point_of_every_scene(run, out):
    figures = predict(run, out=out, probabilities=True, quiet=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "figures.json",
        "predictions.json",
        "scene0700_00.npz",
        "scene0700_00.ply",
        "scene0701_00.npz",
        "scene0701_00.ply",
        "scenes.txt",
    ]
    right = total = 0
    for index, name in enumerate(VALIDATION.names):
        scene, made = Boards(VALIDATION)[index], read_prediction(out / f"{name}.npz")
        assert np.array_equal(made.xyz, scene.xyz.numpy()) and np.array_equal(made.truth, scene.labels.numpy())
        probabilities = expected(run, index)
        assert np.array_equal(made.prediction, probabilities.argmax(1).numpy())
        assert np.array_equal(made.probabilities, probabilities.half().numpy())
        assert made.labels.names == ("floor", "wall", "chair") and made.benchmark_ids == (2, 1, 5)
        known = made.truth >= 0
        right, total = right + (made.prediction == made.truth)[known].sum(), total + known.sum()
    assert (figures["scenes"], figures["points"]) == (2, 90 + 97)
    assert figures["allacc"] == pytest.approx(right / total) and figures["allacc"] > 0.5
    assert json.loads((out / "figures.json").read_text()) == figures
    record = json.loads((out / "predictions.json").read_text())
    assert (record["step"], record["augment"], record["left_out"]) == (4, "", ["GridSample", "Shuffle"])
    again = score([out])
    assert {name: again[name] for name in ("miou", "macc", "allacc")} == pytest.approx(
        {name: figures[name] for name in ("miou", "macc", "allacc")}
    )


def test_where_they_go_by_default_and_over_a_set(run):
    predict(run, augment="scannet200", formats=("npz",), quiet=True)
    made = read_prediction(run / "predictions-scannet200" / "scene0701_00.npz")
    assert np.array_equal(made.prediction, expected(run, 1, "scannet200").argmax(1).numpy())
    assert made.probabilities is None
    figures = evaluate(run, quiet=True, augment="scannet200")
    saved = json.loads((run / "evaluation-scannet200.json").read_text())
    assert saved["figures"] == figures and saved["augment"] == "scannet200"
    scored = score([run / "predictions-scannet200"])
    assert {name: scored[name] for name in figures} == pytest.approx(figures)
    # All points are scored, where the evaluation without a set takes what its transforms leave.
    plain = evaluate(run, quiet=True)
    assert plain != figures and json.loads((run / "evaluation.json").read_text())["figures"] == plain
    pictures = [
        Image.open(run / name).convert("RGB").tobytes() for name in ("confusion.png", "confusion-scannet200.png")
    ]
    assert pictures[0] != pictures[1] and not list(run.glob(".tmp-*"))


def test_what_is_done_is_kept(run, out, monkeypatch):
    def once(**changes):
        Boards.reads.clear()
        return predict(run, out=out, quiet=True, **changes)

    figures = once(formats=("npz",))
    before = (out / "scene0700_00.npz").stat().st_mtime_ns
    assert Boards.reads == ["scene0700_00", "scene0701_00"]
    # Other formats are made from what is there.
    with monkeypatch.context() as patch:
        patch.setattr(Looks, "probabilities", None)
        assert once(formats=("ply", "scannet")) == figures
    assert (out / "scene0700_00.ply").is_file() and (out / "scannet.zip").is_file()
    assert (out / "scene0700_00.npz").stat().st_mtime_ns == before
    # A scene whose file is damaged is done again, with all that was made from it.
    (out / "scene0701_00.npz").write_bytes(b"broken")
    (out / "scene0701_00.ply").write_bytes(b"old")
    assert once() == figures and (out / "scene0700_00.npz").stat().st_mtime_ns == before
    assert (out / "scene0701_00.ply").read_bytes().startswith(b"ply")


def test_a_kill_between_scenes(run, out, monkeypatch):
    clean = out.with_name("clean")
    predict(run, out=clean, quiet=True)
    original = Boards.__getitem__

    def fails(self, index):
        if index == 1:
            raise KeyboardInterrupt
        return original(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(Boards, "__getitem__", fails)
        with pytest.raises(KeyboardInterrupt):
            predict(run, out=out, quiet=True)
    with (out / "scenes.txt").open("a") as file:
        file.write("1 scene07")  # cut short
    (out / ".tmp-scene0701_00.npz-1").write_bytes(b"left")
    before = (out / "scene0700_00.npz").stat().st_mtime_ns
    predict(run, out=out, quiet=True)
    assert (out / "scene0700_00.npz").stat().st_mtime_ns == before
    names = sorted(path.name for path in clean.iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    assert all((out / name).read_bytes() == (clean / name).read_bytes() for name in names)


def test_other_predictions_are_never_mixed_in(run, out, monkeypatch):
    predict(run, out=out, quiet=True)
    for changes, differs in (
        ({"augment": "scannet200"}, "augment"),
        ({"probabilities": True}, "probabilities"),
        ({"data": BoardsConfig()}, "data"),
    ):
        with pytest.raises(ValueError, match=rf"holds other predictions \({differs} differs\); choose another --out"):
            predict(run, out=out, quiet=True, **changes)

    # The same experiment and step, from a file of weights of the same name, say.
    def otherwise(run):
        task, experiment, step = load_task(run)
        with torch.no_grad():
            next(task.parameters()).mul_(1 + 1e-6)
        return task, experiment, step

    with monkeypatch.context() as patch:
        patch.setattr(predicting, "load_task", otherwise)
        with pytest.raises(ValueError, match=r"holds other predictions \(weights differs\)"):
            predict(run, out=out, quiet=True)
    (out / "predictions.json").unlink()
    with pytest.raises(ValueError, match=r"holds predictions and no predictions\.json"):
        predict(run, out=out, quiet=True)


def test_a_dataset_that_changed_under_the_same_name(run, out, monkeypatch):
    """Scenes are known by name and content; files of those that are gone go."""
    scenes = {name: Boards(VALIDATION)[index] for index, name in enumerate(VALIDATION.names)}
    last = scenes["scene0701_00"]
    third = Scene(last.xyz[:40], torch.rand(40, 3), None, "boards:scene0699_00", labels=last.labels[:40])
    now: list = []
    monkeypatch.setattr(Boards, "__len__", lambda self: len(now))
    monkeypatch.setattr(Boards, "__getitem__", lambda self, index: now[index])
    predicted: list[str] = []
    original = Looks.probabilities

    def noted(self, scene, index):
        predicted.append(scene.source.split(":")[1])
        return original(self, scene, index)

    monkeypatch.setattr(Looks, "probabilities", noted)

    def once(*given):
        now[:] = given
        predicted.clear()
        figures = predict(run, out=out, formats=("ply", "scannet"), quiet=True)
        names = sorted(scene.source.split(":")[1] for scene in given)
        assert (
            sorted(path.stem for path in out.glob("*.npz")) == sorted(path.stem for path in out.glob("*.ply")) == names
        )
        assert sorted(path.stem for path in (out / "scannet").iterdir()) == names
        with zipfile.ZipFile(out / "scannet.zip") as file:
            assert file.namelist() == [f"{name}.txt" for name in names]
        for scene in given:
            made = read_prediction(out / f"{scene.source.split(':')[1]}.npz")
            assert np.array_equal(made.xyz, scene.xyz.numpy()) and np.array_equal(made.truth, scene.labels.numpy())
        assert (figures["scenes"], figures["points"]) == (len(given), sum(len(scene.xyz) for scene in given))
        assert score([out])["miou"] == pytest.approx(figures["miou"])
        return predicted

    first, second = scenes.values()
    assert once(first, second) == ["scene0700_00", "scene0701_00"]
    assert once(third, first, second) == ["scene0699_00"], "the others have moved, and are what they were"
    assert once(first, second) == []
    assert once(second) == []
    assert once(first, second) == ["scene0700_00"]
    for changed in (
        replace(second, rgb=second.rgb.flip(0)),
        replace(second, labels=second.labels.flip(0)),
        replace(second, xyz=second.xyz + 1),
        third,
    ):
        changed = replace(changed, source=second.source)
        assert once(first, changed) == ["scene0701_00"] and once(first, changed) == []


def test_the_files_of_a_benchmark(run, out):
    predict(run, out=out, formats=("scannet",), quiet=True)
    with zipfile.ZipFile(out / "scannet.zip") as file:
        assert file.namelist() == ["scene0700_00.txt", "scene0701_00.txt"]
        lines = file.read("scene0701_00.txt").split()
    made = read_prediction(out / "scene0701_00.npz")
    assert [int(line) for line in lines] == [(2, 1, 5)[row] for row in made.prediction]
    scored = score([out / "scannet.zip"], truth=out)
    assert scored == score([out / "scannet"], truth=out) == score([out])
    with pytest.raises(ValueError, match="these data have no benchmark"):
        predict(run, BoardsConfig(benchmark=False), out=out, formats=("scannet",))


def test_from_scannets_download_to_its_benchmarks_files(tmp_path):
    (tmp_path / "raw").mkdir()
    ScanNetConfig.write_example(tmp_path / "raw")
    raw = Preparation(ScanNetConfig(root=str(tmp_path / "raw"), every=10), PrepareOptions(workers=1))
    Preparing(raw, tmp_path / "scenes").run()
    data = PreparedConfig(root=str(tmp_path / "scenes"), views=0)
    task = SemSegConfig(encoder=PointwiseConfig(grid_size=0.05))
    train(semseg_run(task=task, data=data, validation=data, steps=1), tmp_path / "run", quiet=True)
    out = tmp_path / "out"
    figures = predict(tmp_path / "run", out=out, formats=("scannet",), quiet=True)
    scenes = data.build()
    assert figures["scenes"] == len(scenes) and figures["points"] == sum(len(scene.xyz) for scene in scenes)
    for scene in scenes:
        name = scene.source.split(":")[-1]
        lines = (out / "scannet" / f"{name}.txt").read_text().split()
        assert len(lines) == len(scene.xyz) and {int(line) for line in lines} <= set(BENCHMARK20)
        assert np.array_equal(read_prediction(out / f"{name}.npz").truth, scene.labels.numpy())
    assert score([out / "scannet.zip"], truth=out)["miou"] == pytest.approx(figures["miou"])


def test_data_without_labels(run, out):
    figures = predict(run, replace(VALIDATION, labelled=False), out=out, quiet=True)
    assert figures == {"scenes": 2, "points": 187}
    assert read_prediction(out / "scene0700_00.npz").truth is None


def test_errors(run, out):
    with pytest.raises(ValueError, match="no format 'las'; there are npz, ply, scannet"):
        predict(run, formats=("las",))
    with pytest.raises(ValueError, match="no set of augmentations 'x'"):
        predict(run, augment="x", out=out)
    with pytest.raises(ValueError, match="the run was trained on 3 others"):
        predict(run, BoardsConfig(classes=("floor", "wall", "sofa")), out=out)
    with pytest.raises(DataError, match="an earlier scene is named a too"):
        predict(run, BoardsConfig(names=("x/a", "y/a")), out=out, quiet=True)


def test_files_of_nuscenes_follow_from_the_data(run, out):
    data = BoardsConfig(names=VALIDATION.names, sweeps=True)
    figures = predict(run, data, out=out, formats=("npz",), quiet=True)
    made = read_prediction(out / "scene0701_00.npz")
    ids = np.array([2, 1, 5])
    path = out / "nuscenes" / "lidarseg" / "val" / "scene0701_00_lidarseg.bin"
    assert path.read_bytes() == ids[[made.prediction[-1], *made.prediction[:40]]].astype(np.uint8).tobytes()
    meta = json.loads((out / "nuscenes" / "val" / "submission.json").read_text())["meta"]
    assert (meta["use_lidar"], meta["use_camera"], meta["use_external"]) == (True, False, False)
    with zipfile.ZipFile(out / "nuscenes.zip") as file:
        assert len(file.namelist()) == 3
    # The benchmark's points alone are scored; those are all of them here.
    scored = score([out / "nuscenes.zip"], truth=out)
    assert 0 < scored["points"] < figures["points"]
    # What is gone is made again from the npz file; what is of no scene goes.
    path.unlink()
    path.with_name("old_lidarseg.bin").touch()
    predict(run, data, out=out, formats=("npz",), quiet=True)
    assert sorted(file.name[:10] for file in path.parent.iterdir()) == ["scene0700_", "scene0701_"]
    with pytest.raises(ValueError, match="the benchmark of these data is that of nuscenes; leave out scannet"):
        predict(run, data, out=out, formats=("scannet",), quiet=True)
    with pytest.raises(ValueError, match="the benchmark of these data is that of scannet; leave out nuscenes"):
        predict(run, out=out.with_name("other"), formats=("nuscenes",), quiet=True)


def test_what_lasers_and_cameras_measure_is_a_part_of_a_scene(run):
    scene = Boards(VALIDATION)[0]
    same = predicting._digest(replace(scene, source="elsewhere"))
    assert predicting._digest(scene) == same
    ones = torch.ones(len(scene.xyz))
    assert len({same, *(predicting._digest(replace(scene, **{name: ones})) for name in ("intensity", "time"))}) == 3
