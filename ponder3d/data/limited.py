"""Training with less: lists of scenes, and of the points of a scene whose labels are known.

The benchmark for data-efficient learning on ScanNet publishes both: text files with the names of 1, 5, 10 or 20 % of
the training scenes, and files with 20, 50, 100 or 200 points for every training scene.
"""

import io
import json
import pickle
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from ponder3d.data.archive import Archive
from ponder3d.data.dataset import DataError, scene_name
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.npy import npy_array
from ponder3d.data.transforms import Transform
from ponder3d.types import Scene

_MAX_BYTES = 1 << 28
"""Of a list; 200 points of 1,201 scenes are 2 MB."""


def read_scene_list(path: Path) -> tuple[str, ...]:
    """Names of scenes from a text file, one a line, in its order; lines that are empty or begin with # say nothing.

    Raises:
        DataError: it cannot be read as such, names nothing, or names a scene twice.
    """
    try:
        lines = [line.strip() for line in _content(path).decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no text: {error}") from error
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise DataError(f"{path}: it names no scene")
    seen: set[str] = set()
    for name in names:
        if len(name.split()) != 1:
            raise DataError(f"{path}: a line {name[:80]!r}; each is the name of one scene")
        if name in seen:
            raise DataError(f"{path}: scene {name} is there twice")
        seen.add(name)
    return tuple(names)


def read_annotated_points(path: Path) -> dict[str, np.ndarray]:
    """Numbers of points by scene: from the official ``torch.save`` of a dictionary, from .npz or from .json.

    Values are lists, tensors or arrays of whole numbers. Nothing else is unpickled than what these are made of.

    Raises:
        DataError: it cannot be read as such.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        found = _from_json(path)
    elif suffix == ".npz":
        found = _from_npz(path)
    else:
        found = _from_torch(path)
    if not isinstance(found, dict) or not found:
        raise DataError(f"{path}: a {type(found).__name__}; expected scenes with numbers of points")
    return {_name(path, key): _numbers(path, key, value) for key, value in found.items()}


@dataclass(frozen=True)
class AnnotatedPoints(Transform):
    """Keep the labels of the points that a file lists for the scene: limited annotations, as benchmarks publish them.

    The numbers are those of the points in the publisher's files, so it comes before anything that drops or reorders
    points. The scene's name is ``scene_name`` of its source.
    """

    file: str = ""
    """See ``read_annotated_points``; empty: all labels stay."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        """The scene with the labels of its listed points only.

        Raises:
            ValueError: it has no labels, or the file lists other points than it has.
            DataError: the file cannot be read, or the source of the scene ends with no name.
        """
        if not self.file:
            return scene
        if scene.labels is None:
            raise ValueError(f"AnnotatedPoints: {scene.source} has no point labels")
        name = scene_name(scene.source)
        listed = _cached(self.file)
        if name not in listed:
            raise ValueError(f"AnnotatedPoints: {self.file} lists no points of {name} (of {scene.source})")
        keep = torch.from_numpy(listed[name])
        if len(keep) and int(keep.max()) >= len(scene.xyz):
            raise ValueError(
                f"AnnotatedPoints: {self.file} lists point {int(keep.max())} of {name}, which has {len(scene.xyz)}; "
                "put this transform before those that drop points"
            )
        labels = torch.full_like(scene.labels, -1)
        labels[keep] = scene.labels[keep]
        return replace(scene, labels=labels)


@lru_cache(maxsize=4)
def _cached(file: str) -> dict[str, np.ndarray]:
    return read_annotated_points(Path(file))


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: no such file") from error
    if len(content) > _MAX_BYTES:
        raise DataError(f"{path}: a list of more than {_MAX_BYTES} bytes is none")
    return content


def _from_json(path: Path) -> object:
    try:
        return json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error


def _from_npz(path: Path) -> object:
    archive = Archive(path, _content(path))
    return {
        name.removesuffix(".npy"): npy_array(archive.read(name, _MAX_BYTES), f"{path}: {name}")
        for name in archive.names
    }


def _from_torch(path: Path) -> object:
    content = io.BytesIO(_content(path))
    try:
        with torch.serialization.safe_globals(_numpy_parts()):
            return torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: holds more than numbers, or is damaged; only dictionaries of lists, tensors and numpy arrays are "
            f"read ({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:  # torch's readers raise almost anything on damaged files
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: cannot be read as a file of torch.save ({type(error).__name__}: {error})") from error


def _numpy_parts() -> list:
    """What pickled arrays of whole numbers are made of, under the names that numpy 1 and 2 give it."""
    rebuild, scalar = np.zeros(1).__reduce__()[0], np.int64(0).__reduce__()[0]
    parts: list = [np.ndarray, np.dtype, (_latin1, "_codecs.encode")]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        parts += [(rebuild, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    return parts + [type(np.dtype(kind)) for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of old protocols keep bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding}")
    return text.encode("latin1")


def _name(path: Path, key: object) -> str:
    if not isinstance(key, str):
        raise DataError(f"{path}: {key!r} is no name of a scene")
    return key


def _numbers(path: Path, key: object, value: object) -> np.ndarray:
    try:
        numbers = np.asarray(value)
    except Exception as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: {key}: no numbers of points ({error})") from error
    if numbers.size == 0:
        return np.zeros(0, np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or int(numbers.min()) < 0 or int(numbers.max()) >= 1 << 31:
        raise DataError(f"{path}: {key}: expected a list of numbers of points, from 0 on")
    return numbers.astype(np.int64)
