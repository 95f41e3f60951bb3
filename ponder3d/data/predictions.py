"""Predicted classes of the points of a scene, as a file: npz with everything, PLY to look at.

Arrays of ``NAME.npz``, which numpy reads without pickle:

====================  ========================================================================================
``xyz``               [N 3] float32, metres: the dataset's own points in their order
``prediction``        [N] int32, index into ``classes``
``label``             [N] int32, the true class, -1 for none; if the dataset has labels
``probabilities``     [N K] float16; on request
``classes``           [K] names
``palette``           [K 3] uint8
``benchmark_ids``     [K] int32, the number of each class in the files of its benchmark; if there is one
``condition``         [1] which of several datasets the scene is of, if there are several
``results``           [1] where its benchmark wants the classes of other points than ``xyz`` (``BenchmarkFile``): the
                      path of its file of results, and
``result_rows``       [M] int32, for each point of the benchmark the row of ``xyz`` whose class it gets
``result_own``        [M] uint8, 1 where that is the point itself, 0 where it is the nearest one
====================  ========================================================================================
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ponder3d.data.archive import Archive
from ponder3d.data.dataset import BenchmarkFile, DataError
from ponder3d.data.submission_nuscenes import PATH
from ponder3d.files import replacing
from ponder3d.geometry.ply import write_ply
from ponder3d.types import LabelSet

_HEADER = re.compile(
    rb"\{'descr': '([<|][fiuU][0-9]{1,4})', 'fortran_order': False, 'shape': \(([0-9, ]{0,60})\), \} *\n"
)
"""Of a npy member as numpy writes it."""
_MAGIC = b"\x93NUMPY\x01\x00"
_KINDS = {
    "xyz": "<f4",
    "prediction": "<i4",
    "label": "<i4",
    "probabilities": "<f2",
    "classes": "<U",
    "palette": "|u1",
    "benchmark_ids": "<i4",
    "condition": "<U",
    "results": "<U",
    "result_rows": "<i4",
    "result_own": "|u1",
}
_OF_FILE = ("results", "result_rows", "result_own")
"""All of them, or none."""
_OPTIONAL = {"label", "probabilities", "benchmark_ids", "condition", *_OF_FILE}
_MOST_BYTES = 1 << 31


@dataclass(frozen=True, eq=False)
class ScenePrediction:
    """What is predicted for a scene."""

    name: str
    """Of the scene; the file's name without its ending."""
    xyz: np.ndarray
    """[N 3] float32, metres."""
    prediction: np.ndarray
    """[N] int32, index into ``labels``."""
    labels: LabelSet
    truth: np.ndarray | None = None
    """[N] int32; negative where there is none."""
    probabilities: np.ndarray | None = None
    """[N K] float16."""
    benchmark_ids: tuple[int, ...] = ()
    """Of each class; empty where there is no benchmark."""
    condition: str = ""
    """``Scene.condition``: which of several datasets the scene is of."""
    file: BenchmarkFile | None = None
    """What its benchmark wants, where that is not the class of each point of ``xyz``."""

    def of_file(self) -> np.ndarray:
        """[M] int32: the classes of the points that its benchmark wants."""
        return self.prediction if self.file is None else self.prediction[self.file.rows.numpy()]


def write_prediction(path: Path, prediction: ScenePrediction) -> None:
    """Write a npz file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    arrays = {
        "xyz": prediction.xyz.astype("<f4"),
        "prediction": prediction.prediction.astype("<i4"),
        "classes": np.array(prediction.labels.names, dtype=np.str_),
        "palette": np.array(prediction.labels.palette, dtype=np.uint8).reshape(-1, 3),
    }
    if prediction.truth is not None:
        arrays["label"] = prediction.truth.astype("<i4")
    if prediction.probabilities is not None:
        arrays["probabilities"] = prediction.probabilities.astype("<f2")
    if prediction.benchmark_ids:
        arrays["benchmark_ids"] = np.array(prediction.benchmark_ids, dtype="<i4")
    if prediction.condition:
        arrays["condition"] = np.array([prediction.condition], dtype=np.str_)
    if prediction.file is not None:
        arrays["results"] = np.array([prediction.file.path], dtype=np.str_)
        arrays["result_rows"] = prediction.file.rows.numpy().astype("<i4")
        arrays["result_own"] = prediction.file.own.numpy().astype(np.uint8)
    with replacing(path) as file:
        np.savez_compressed(file, **{name: np.ascontiguousarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]


def read_prediction(path: Path, probabilities: bool = True) -> ScenePrediction:
    """Read a npz file back.

    Args:
        path: ``NAME.npz``.
        probabilities: read them too, if there are any; they are most of the file.

    Raises:
        DataError: it is damaged, or not what ``write_prediction`` writes.
        OSError: it cannot be read.
    """
    archive = Archive(path)
    expected = {f"{name}.npy": name for name in _KINDS}
    unknown = [name for name in archive.names if name not in expected]
    if unknown:
        raise DataError(f"{path}: has a member {unknown[0]!r}; this is no file of predictions")
    arrays = {
        name: _read_array(archive, name)
        for member, name in expected.items()
        if (member in archive.names or name not in _OPTIONAL) and (probabilities or name != "probabilities")
    }
    num, num_classes = len(arrays["xyz"]), len(arrays["classes"])
    if len({name in arrays for name in _OF_FILE}) > 1:
        raise DataError(f"{path}: has some of {', '.join(_OF_FILE)}, and these go together")
    shapes = {
        "xyz": (num, 3),
        "prediction": (num,),
        "label": (num,),
        "probabilities": (num, num_classes),
        "classes": (num_classes,),
        "palette": (num_classes, 3),
        "benchmark_ids": (num_classes,),
        "condition": (1,),
        "results": (1,),
        "result_rows": (len(arrays.get("result_rows", ())),),
        "result_own": (len(arrays.get("result_rows", ())),),
    }
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise DataError(f"{path}: {name} has the shape {array.shape}, expected {shapes[name]}")
    for name, lowest in (("prediction", 0), ("label", -(2**31))):
        values = arrays.get(name)
        if values is not None and num and not (lowest <= int(values.min()) and int(values.max()) < num_classes):
            raise DataError(f"{path}: {name} holds {values.min()}..{values.max()}, and there are {num_classes} classes")
    try:
        names = tuple(str(name) for name in arrays["classes"].tolist())
        labels = LabelSet(names, tuple((int(r), int(g), int(b)) for r, g, b in arrays["palette"]))
    except ValueError as error:  # a class twice, or what is no character
        raise DataError(f"{path}: classes: {error}") from error
    condition = str(arrays["condition"][0]) if "condition" in arrays else ""
    return ScenePrediction(
        name=path.stem,
        xyz=arrays["xyz"],
        prediction=arrays["prediction"],
        labels=labels,
        truth=arrays.get("label"),
        probabilities=arrays.get("probabilities"),
        benchmark_ids=tuple(arrays["benchmark_ids"].tolist()) if "benchmark_ids" in arrays else (),
        condition=condition,
        file=_file(path, arrays) if "results" in arrays else None,
    )


def _file(path: Path, arrays: dict[str, np.ndarray]) -> BenchmarkFile:
    name, rows, num = str(arrays["results"][0]), arrays["result_rows"], len(arrays["xyz"])
    if PATH.fullmatch(name) is None:
        raise DataError(f"{path}: results is {name[:80]!r}, and results of no benchmark are called so")
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < num:
        raise DataError(f"{path}: result_rows holds {rows.min()}..{rows.max()}, and there are {num} points")
    own = torch.from_numpy(arrays["result_own"] > 0)
    mine = rows[arrays["result_own"] > 0]
    if len(np.unique(mine)) < len(mine):
        raise DataError(f"{path}: result_rows has a point twice that is the benchmark's own")
    return BenchmarkFile(name, torch.from_numpy(rows).long(), own)


def list_predictions(folder: Path) -> dict[str, Path]:
    """The npz files of a directory by the name of their scene, in order of these."""
    return {path.stem: path for path in sorted(folder.glob("*.npz")) if not path.name.startswith(".")}


def write_coloured(path: Path, prediction: ScenePrediction) -> None:
    """Write the points in the colours of their predicted classes, as PLY."""
    palette = torch.tensor(prediction.labels.palette, dtype=torch.uint8).reshape(-1, 3)
    write_ply(path, torch.from_numpy(prediction.xyz), palette[torch.from_numpy(prediction.prediction).long()])


def _read_array(archive: Archive, name: str) -> np.ndarray:
    """An array as numpy writes it: its own reader evaluates the header, and takes its word for the size."""
    where = f"{archive.path}: {name}"
    data = archive.read(f"{name}.npy", _MOST_BYTES)
    end = 10 + int.from_bytes(data[8:10], "little")
    match = _HEADER.fullmatch(data[10:end])
    if not data.startswith(_MAGIC) or match is None:
        raise DataError(f"{where} has no header as numpy writes it")
    kind, shape = match[1].decode(), tuple(int(n) for n in match[2].decode().replace(" ", "").split(",") if n)
    if kind != _KINDS[name] and not (_KINDS[name] == "<U" and kind.startswith("<U")):
        raise DataError(f"{where} is of type {kind}, expected {_KINDS[name]}")
    dtype = np.dtype(kind)
    if math.prod(shape) * dtype.itemsize != len(data) - end or dtype.itemsize == 0:
        raise DataError(f"{where} has {len(data) - end} bytes, which is not an array {shape} of {kind}")
    if _KINDS[name] == "<U" and len(shape) == 1 and len(data) > end:
        points = np.frombuffer(data, "<u4", offset=end)
        if int(points.max()) > 0x10FFFF:
            raise DataError(f"{where} holds {int(points.max())}, which is no character")
    return np.frombuffer(data, dtype, offset=end).reshape(shape).copy()  # torch takes what can be written to
