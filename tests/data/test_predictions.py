import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from ponder3d.data.dataset import BenchmarkFile, DataError
from ponder3d.data.predictions import (
    ScenePrediction,
    list_predictions,
    read_prediction,
    write_coloured,
    write_prediction,
)
from ponder3d.types import LabelSet

LABELS = LabelSet(("floor", "wall", "chair"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


def a_prediction(num: int = 5, **changes) -> ScenePrediction:
    random = np.random.default_rng(0)
    made = ScenePrediction(
        name="scene0000_00",
        xyz=random.random((num, 3), dtype=np.float32),
        prediction=random.integers(0, 3, num).astype(np.int32),
        labels=LABELS,
        truth=random.integers(-1, 3, num).astype(np.int32),
        probabilities=random.random((num, 3)).astype(np.float16),
        benchmark_ids=(2, 1, 39),
    )
    return replace(made, **changes)


@pytest.mark.parametrize("num", [0, 1, 5])
def test_what_is_written_is_read(tmp_path, num):
    made = a_prediction(num)
    path = tmp_path / "scene0000_00.npz"
    write_prediction(path, made)
    read = read_prediction(path)
    for name in ("xyz", "prediction", "truth", "probabilities"):
        one, other = getattr(made, name), getattr(read, name)
        assert one.dtype == other.dtype and np.array_equal(one, other)
    assert (read.name, read.labels, read.benchmark_ids) == ("scene0000_00", LABELS, (2, 1, 39))
    assert read_prediction(path, probabilities=False).probabilities is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["scene0000_00.npz"]


def test_numpy_reads_it_without_pickle(tmp_path):
    write_prediction(tmp_path / "a.npz", a_prediction())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["classes"].tolist() == ["floor", "wall", "chair"]
        assert arrays["prediction"].tolist() == a_prediction().prediction.tolist()


def test_what_is_optional(tmp_path):
    write_prediction(tmp_path / "a.npz", a_prediction(truth=None, probabilities=None, benchmark_ids=()))
    read = read_prediction(tmp_path / "a.npz")
    assert read.truth is None and read.probabilities is None and read.benchmark_ids == ()


FILE = BenchmarkFile("lidarseg/val/ab_lidarseg.bin", torch.tensor([4, 0, 4]), torch.tensor([False, True, True]))


def test_points_of_a_benchmark(tmp_path):
    made = a_prediction(file=FILE)
    write_prediction(tmp_path / "a.npz", made)
    read = read_prediction(tmp_path / "a.npz")
    assert read.file is not None and read.file.path == FILE.path
    assert torch.equal(read.file.rows, FILE.rows) and torch.equal(read.file.own, FILE.own)
    assert read.of_file().tolist() == made.prediction[[4, 0, 4]].tolist()
    assert np.array_equal(a_prediction().of_file(), a_prediction().prediction)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "../../x"}, r"results is '../../x', and results of no benchmark are called so"),
        ({"rows": torch.tensor([0, 1, 5])}, r"result_rows holds 0..5, and there are 5 points"),
        ({"rows": torch.tensor([0, 1, 1])}, r"result_rows has a point twice that is the benchmark's own"),
    ],
)
def test_points_of_a_benchmark_that_cannot_be(tmp_path, changes, message):
    write_prediction(tmp_path / "a.npz", a_prediction(file=replace(FILE, **changes)))
    with pytest.raises(DataError, match=message):
        read_prediction(tmp_path / "a.npz")


def test_colours(tmp_path):
    made = a_prediction(3, prediction=np.array([2, 0, 1], dtype=np.int32))
    write_coloured(tmp_path / "a.ply", made)
    body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")[1]
    points = np.frombuffer(body, np.dtype([("p", "<f4", 3), ("c", "u1", 3)]))
    assert points["c"].tolist() == [[0, 0, 255], [255, 0, 0], [0, 255, 0]] and np.array_equal(points["p"], made.xyz)
    write_prediction(tmp_path / "a.npz", made)
    write_coloured(tmp_path / "b.ply", read_prediction(tmp_path / "a.npz"))
    assert (tmp_path / "b.ply").read_bytes() == (tmp_path / "a.ply").read_bytes()


def test_the_files_of_a_directory(tmp_path):
    for name in ("b.npz", "a.npz", ".tmp-c.npz", "d.ply"):
        (tmp_path / name).touch()
    assert list(list_predictions(tmp_path)) == ["a", "b"]
    assert list_predictions(tmp_path / "missing") == {}


def saved(**arrays) -> bytes:
    buffer = io.BytesIO()
    good = {
        "xyz": np.zeros((4, 3), np.float32),
        "prediction": np.array([0, 1, 0, 1], np.int32),
        "classes": np.array(["a", "b"]),
        "palette": np.zeros((2, 3), np.uint8),
    }
    np.savez(buffer, **{name: array for name, array in (good | arrays).items() if array is not None})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"xyz": None}, "has no member 'xyz.npy'"),
        ({"other": np.zeros(3)}, "has a member 'other.npy'; this is no file of predictions"),
        ({"xyz": np.zeros((4, 3))}, "xyz is of type <f8, expected <f4"),
        ({"xyz": np.zeros((3, 3), np.float32)}, r"prediction has the shape \(4,\), expected \(3,\)"),
        ({"prediction": np.array([0, 1, 2, 1], np.int32)}, r"prediction holds 0\.\.2, and there are 2 classes"),
        ({"prediction": np.array([0, -1, 1, 1], np.int32)}, r"prediction holds -1\.\.1"),
        ({"label": np.array([0, -1, 5, 1], np.int32)}, r"label holds -1\.\.5"),
        ({"classes": np.array(["a", "a"])}, "classes: LabelSet: a class name occurs twice"),
        ({"classes": np.array([b"a", b"b"])}, "classes has no header as numpy writes it"),
        ({"palette": np.zeros((2, 4), np.uint8)}, r"palette has the shape \(2, 4\)"),
        ({"xyz": np.asfortranarray(np.zeros((4, 3), np.float32))}, "xyz has no header as numpy writes it"),
        ({"benchmark_ids": np.zeros(3, np.int32)}, r"benchmark_ids has the shape \(3,\)"),
        ({"condition": np.array(["a", "b"])}, r"condition has the shape \(2,\)"),
        ({"condition": np.zeros(1, np.int32)}, "condition is of type <i4, expected <U"),
    ],
)
def test_what_is_no_prediction(tmp_path, arrays, message):
    (tmp_path / "a.npz").write_bytes(saved(**arrays))
    with pytest.raises(DataError, match=r"a\.npz: " + message):
        read_prediction(tmp_path / "a.npz")


def test_no_object_is_unpickled(tmp_path):
    (tmp_path / "a.npz").write_bytes(saved(classes=np.array([{}, 1], dtype=object)))
    with pytest.raises(DataError, match="classes has no header as numpy writes it"):
        read_prediction(tmp_path / "a.npz")


def check_damaged(tmp_path, fuzz, number: int) -> None:
    path = tmp_path / "a.npz"
    seeds = [saved(), saved(label=np.zeros(4, np.int32), benchmark_ids=np.array([1, 2], np.int32))]
    seeds.append(saved(condition=np.array(["ScanNet"])))
    write_prediction(path, a_prediction(40))
    seeds.append(path.read_bytes())

    def read(data: bytes) -> ScenePrediction:
        path.write_bytes(data)
        return read_prediction(path)

    assert fuzz(read, seeds, number=number) > number // 2


def test_damaged(tmp_path, fuzz):
    check_damaged(tmp_path, fuzz, 60)


@pytest.mark.slow
def test_many_damaged(tmp_path, fuzz):
    check_damaged(tmp_path, fuzz, 2000)
