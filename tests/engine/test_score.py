"""Scores of saved predictions, by hand."""

import numpy as np
import pytest
import torch

from ponder3d.data.dataset import BenchmarkFile, DataError
from ponder3d.data.predictions import ScenePrediction, write_prediction
from ponder3d.data.submission import write_ids
from ponder3d.data.submission_nuscenes import write_lidarseg
from ponder3d.engine.score import figures_of, score
from ponder3d.types import LabelSet

LABELS = LabelSet(("floor", "wall", "chair", "lamp"), ((0, 0, 0),) * 4)


def save(folder, name: str, truth: list[int] | None, prediction: list[int], **changes) -> None:
    given = {"labels": LABELS, "benchmark_ids": (2, 1, 5, 35)} | changes
    made = ScenePrediction(
        name=name,
        xyz=np.zeros((len(prediction), 3), np.float32),
        prediction=np.array(prediction, np.int32),
        truth=None if truth is None else np.array(truth, np.int32),
        **given,
    )
    write_prediction(folder / f"{name}.npz", made)


def test_two_directories_by_hand(tmp_path):
    save(tmp_path / "a", "one", [0, 0, 0, 1, -1], [0, 0, 1, 1, 2])
    save(tmp_path / "b", "two", [1, 1, 0], [1, 2, 0])
    figures = score([tmp_path / "a", tmp_path / "b"])
    # Floor: 3 of 4. Wall: 2 of 3, one too many. A chair is predicted where there is none; lamps are nowhere.
    floor, wall = 3 / 4, 2 / 4
    expected = {
        "scenes": 2,
        "points": 7,
        "miou": (floor + wall) / 2,
        "macc": (3 / 4 + 2 / 3) / 2,
        "allacc": 5 / 7,
        "miou_benchmark": (floor + wall + 0) / 3,
        "miou_all": (floor + wall) / 4,
        "iou/floor": floor,
        "iou/wall": wall,
        "acc/floor": 3 / 4,
        "acc/wall": 2 / 3,
    }
    assert figures == pytest.approx(expected)


def test_groups():
    matrix = torch.diag(torch.tensor([4.0, 2, 1, 0])).double()
    matrix[0, 1] = 4
    groups = {"head": ("floor", "wall"), "tail": ("chair", "lamp"), "none": ("lamp",)}
    figures = figures_of(matrix, LABELS, groups)
    assert figures["miou/head"] == pytest.approx((4 / 8 + 2 / 6) / 2) and figures["miou/tail"] == 1
    assert "miou/none" not in figures
    with pytest.raises(
        ValueError, match="no class 'bed' among the 4 of these predictions; groups are .* those of ScanNet200"
    ):
        figures_of(matrix, LABELS, {"head": ("bed",)})


def test_nothing_labelled(tmp_path):
    save(tmp_path, "one", [-1, -1], [0, 1])
    assert score([tmp_path]) == {
        **{"scenes": 1, "points": 0, "miou": 0, "macc": 0, "allacc": 0, "miou_benchmark": 0, "miou_all": 0},
    }


def test_six_fold(tmp_path):
    """Means are taken once, of the sum over the areas, and not over areas."""
    for area in range(1, 7):
        folder = tmp_path / ("first" if area in (1, 2) else f"area{area}")
        save(folder, f"Area_{area}_office_1", [0, 0, 1, 1], [0, 0, 1, 0 if area > 3 else 1])
    save(tmp_path / "first", "Area_1_office_2", [0, 1], [1, 1])
    folders = [tmp_path / name for name in ("first", "area3", "area4", "area5", "area6")]
    figures = score(folders, six_fold=True)
    # Floor: 12 of 13 and three too many; wall: 10 of 13 and one too many.
    assert figures["miou"] == pytest.approx((12 / 16 + 10 / 14) / 2)
    assert figures["allacc"] == pytest.approx(22 / 26) and figures["scenes"] == 7
    assert figures["Area_6/miou"] == pytest.approx((2 / 3 + 1 / 2) / 2) and figures["Area_3/miou"] == 1
    assert figures["Area_1/allacc"] == pytest.approx(5 / 6)
    assert score(folders)["miou"] == figures["miou"]
    with pytest.raises(DataError, match=r"score: no rooms of Area_4, Area_6 in "):
        score([folder for folder in folders if folder.name not in ("area4", "area6")], six_fold=True)
    save(tmp_path / "area4", "Area_2_hallway_1", [0], [0])
    with pytest.raises(DataError, match=r"area4: has rooms of Area_2, and so has .*first; each area is scored once"):
        score(folders, six_fold=True)
    save(tmp_path / "area3", "Area_10_office", [0], [0])
    with pytest.raises(DataError, match=r"Area_10_office\.npz: the name does not begin with an area"):
        score(folders, six_fold=True)


def test_what_cannot_be_scored(tmp_path):
    save(tmp_path / "a", "one", [0], [0])
    save(tmp_path / "b", "one", [0], [0])
    with pytest.raises(DataError, match=r"b.one\.npz: this scene is in .*a too"):
        score([tmp_path / "a", tmp_path / "b"])
    save(tmp_path / "c", "two", None, [0])
    with pytest.raises(DataError, match=r"two\.npz: holds no labels to score against"):
        score([tmp_path / "a", tmp_path / "c"])
    save(tmp_path / "d", "three", [0], [0], labels=LabelSet(("floor",), ((0, 0, 0),)), benchmark_ids=())
    with pytest.raises(DataError, match=r"three\.npz: has other classes than .*one\.npz"):
        score([tmp_path / "a", tmp_path / "d"])
    with pytest.raises(ValueError, match="leave out truth"):
        score([tmp_path / "a"], truth=tmp_path / "b")
    with pytest.raises(ValueError, match="name at least one directory"):
        score([])
    for paths, truth in (([tmp_path / "nope"], None), ([tmp_path / "a", tmp_path / "nope"], None)):
        with pytest.raises(FileNotFoundError, match="nope: no such file or directory"):
            score(paths, truth)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="gone: no such file or directory"):
        score([tmp_path / "empty"], truth=tmp_path / "gone")
    with pytest.raises(DataError, match=r"empty: holds no predictions"):
        score([tmp_path / "a", tmp_path / "empty"])
    with pytest.raises(ValueError, match=r"empty holds no npz files; if it is a submission, say where the truth is"):
        score([tmp_path / "empty"])
    (tmp_path / "a" / "one.npz").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"one\.npz: no zip file"):
        score([tmp_path / "a"])


def test_a_submission_against_the_truth(tmp_path):
    truth, sent = tmp_path / "truth", tmp_path / "sent"
    save(truth, "scene0700_00", [0, 1, 2, -1], [3, 3, 3, 3])  # what the truth's files predict does not matter
    save(truth, "scene0701_00", [2, 2], [0, 0])
    write_ids(sent / "scene0700_00.txt", np.array([0, 1, 1, 3]), (2, 1, 5, 35))
    write_ids(sent / "scene0701_00.txt", np.array([2, 2]), (2, 1, 5, 35))
    figures = score([sent], truth=truth)
    assert figures["miou"] == pytest.approx((1 + 1 / 2 + 2 / 3) / 3) and figures["points"] == 5
    (sent / "scene0701_00.txt").write_text("5\n")
    with pytest.raises(DataError, match=r"scene0701_00\.txt: has 1 lines, and the scene has 2 points"):
        score([sent], truth=truth)
    with pytest.raises(DataError, match="holds no npz files with labels"):
        score([sent], truth=sent)
    save(truth, "scene0700_00", [0, 1, 2, -1], [3, 3, 3, 3], benchmark_ids=())
    with pytest.raises(DataError, match="4 classes, and benchmark numbers for 0"):
        score([sent], truth=truth)
    with pytest.raises(DataError, match=r"line 1 is b'2', which is no class"):
        score([sent], truth=truth, benchmark_ids=(1, 3, 5, 7))


def test_several_datasets_by_hand(tmp_path):
    save(tmp_path, "a.one", [0, 0, 1, -1], [0, 0, 1, 0], condition="a")
    save(tmp_path, "b.one", [0, 0, 0, 3], [0, 1, 1, 3], condition="b")
    figures = score([tmp_path])
    assert (figures["scenes"], figures["points"], figures["miou/a"]) == (2, 7, 1)
    assert figures["miou/b"] == pytest.approx((1 / 3 + 1) / 2) and figures["miou"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["allacc"] == pytest.approx((1 + 1 / 2) / 2) and figures["allacc/b"] == 1 / 2
    assert figures["iou/floor"] == pytest.approx(3 / 5) and figures["iou/b/floor"] == pytest.approx(1 / 3)
    assert figures["acc/floor"] == pytest.approx(3 / 5) and "iou/b/wall" not in figures


def test_results_for_points_of_key_frames(tmp_path):
    """Three points of the scene are the key frame's, the last is of an earlier sweep; one of the file's is left out."""
    for name in ("one", "two"):
        rows, own = torch.tensor([0, 2, 1, 0]), torch.tensor([True, True, True, False])
        file = BenchmarkFile(f"lidarseg/val/{name}_lidarseg.bin", rows, own)
        save(tmp_path / "truth", name, [0, 1, 2, -1], [3, 3, 3, 3], benchmark_ids=(1, 2, 3, 4), file=file)
    write_lidarseg(tmp_path / "sent/lidarseg/val/one_lidarseg.bin", np.array([0, 2, 1, 3]), (1, 2, 3, 4))
    write_lidarseg(tmp_path / "sent/lidarseg/val/two_lidarseg.bin", np.array([0, 1, 1, 3]), (1, 2, 3, 4))
    figures = score([tmp_path / "sent"], truth=tmp_path / "truth")
    assert figures["points"] == 6 and figures["allacc"] == pytest.approx(5 / 6)
    assert figures["iou/chair"] == pytest.approx(1 / 2) and figures["iou/wall"] == pytest.approx(2 / 3)
    save(tmp_path / "truth", "three", [0], [0], benchmark_ids=(1, 2, 3, 4))
    with pytest.raises(DataError, match=r"is of another benchmark than|score them apart"):
        score([tmp_path / "sent"], truth=tmp_path / "truth")
