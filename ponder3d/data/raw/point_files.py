"""Point clouds as files: PLY, LAS and LAZ, npz, npy, and tables of numbers as text.

What is read, by the names that a file gives it, in small letters (CloudCompare's ``scalar_`` in front is dropped):

========= ==============================================================================================
field     names
========= ==============================================================================================
xyz       ``x y z``; npz: ``xyz``, ``coord``, ``coords``, ``points``, ``position``, ``positions``
rgb       ``red green blue``, ``r g b``, ``diffuse_red ...``; npz: ``rgb``, ``color``, ``colors``, ``colour``,
          ``colours``
normal    ``nx ny nz``, ``normal_x ...``, ``normalx ...``; npz: ``normal``, ``normals``
labels    ``label``, ``labels``, ``class``, ``segment``, ``semantic``, ``semantics``, ``classification``
instances ``instance``, ``instances``, ``instance_id``, ``object_id``
intensity ``intensity``, ``reflectance``, ``reflectivity``; of several the first
========= ==============================================================================================

Two names of one field in a file are an error; in LAS, whose ``classification`` is always there, other labels win, and
one that is 0 throughout is none. Anything else in a file is left alone. Tables without names (npy, ``.txt``, ``.xyz``)
have these columns, by their number: 3 ``x y z``; 6 also ``r g b``; 7 and a label; 8 and an instance; 9 ``x y z r g b nx
ny nz``; 10 and a label; 11 and an instance. ``.pts`` has 3, 4 ``x y z intensity``, 6 ``x y z r g b``, or 7 ``x y z
intensity r g b``, and may begin with a line that counts the points.

Colours, unless told otherwise (``COLOUR_RANGES``): of a type of whole numbers, up to 255 they are 0..255, above that up
to 65535 they are 16 bit (LAS); of a type with fractions, up to 1 they are 0..1, and 0..255 if the largest is from 2 to
255. Other values are an error. So 16-bit colours none of which exceeds 255 are taken as 0..255: many writers of LAS
store those.

Intensities, up to 1 if they have fractions, else up to 255, else up to 65535, are brought to 0..1. Others (below 0, not
finite, 0 throughout) are left alone like anything else: nothing but encoders that were taught with it asks for them.

Coordinates are returned as they are in the file. Units are never guessed.
"""

import io
import math
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.npy import npy_header
from ponder3d.data.raw.dataset import RawPoints
from ponder3d.data.raw.las import read_las
from ponder3d.data.raw.ply import read_ply

CLOUDS = (".ply", ".las", ".laz", ".npz", ".npy")
"""Endings of files that hold a cloud and nothing else could; text may be anything."""
TEXTS = (".txt", ".xyz", ".pts")
COLOUR_RANGES = {"0..1": 1.0, "0..255": 255.0, "0..65535": 65535.0}
"""What colours can be said to be, and what white is."""

_AXES = {
    "xyz": (("x", "y", "z"),),
    "rgb": (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")),
    "normal": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"), ("normalx", "normaly", "normalz")),
}
_IDS = {
    "labels": ("label", "labels", "class", "segment", "semantic", "semantics", "classification"),
    "instances": ("instance", "instances", "instance_id", "object_id"),
}
_STRENGTHS = ("intensity", "reflectance", "reflectivity")
_ARRAYS = {
    "xyz": ("xyz", "coord", "coords", "points", "position", "positions"),
    "rgb": ("rgb", "color", "colors", "colour", "colours"),
    "normal": ("normal", "normals"),
    **_IDS,
}
_TABLES = {
    3: ("xyz",),
    6: ("xyz", "rgb"),
    7: ("xyz", "rgb", "labels"),
    8: ("xyz", "rgb", "labels", "instances"),
    9: ("xyz", "rgb", "normal"),
    10: ("xyz", "rgb", "normal", "labels"),
    11: ("xyz", "rgb", "normal", "labels", "instances"),
}
_PTS = {3: ("xyz",), 4: ("xyz", "intensity"), 6: ("xyz", "rgb"), 7: ("xyz", "intensity", "rgb")}
_WIDTH = {"xyz": 3, "rgb": 3, "normal": 3}
_RANGES = ", ".join(COLOUR_RANGES)
_DEFLATE = 1100
"""Deflate makes nothing smaller than to a 1032nd: more than that is no size of a zip's member."""

Fields = dict[str, np.ndarray]


def read_points(path: Path, colour: str = "auto") -> RawPoints:
    """The points of a file.

    Args:
        path: the file; its ending says what it is.
        colour: ``auto`` (see above) or one of ``COLOUR_RANGES``.

    Returns:
        The points in the order of the file; unlike in a scene of a dataset, ``xyz`` are float64, in the file's units
        and frame. Normals are made unit, those of (0, 0, 0) stay.

    Raises:
        DataError: the file is not there, is damaged or shorter than it says, or of an unknown ending; a coordinate,
            colour or normal is not finite; labels are not whole numbers; colours fit no range.
    """
    readers: dict[str, Callable[[Path], Fields]] = {
        ".ply": lambda path: _named(path, read_ply(path).vertices),
        ".las": _las,
        ".laz": _las,
        ".npy": _npy,
        ".npz": _npz,
        **dict.fromkeys(TEXTS, _text),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: a file of points ends in one of {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        fields = reader(path)
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: cannot be read ({error})") from error
    return _checked(path, fields, colour)


def cloud_files(root: Path) -> list[Path]:
    """Files of points directly in a directory, in the order of their names; hidden ones are not."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.suffix.lower() in CLOUDS and p.name[0] != "." and p.is_file())


def _named(path: Path, columns: dict[str, np.ndarray]) -> Fields:
    """Fields of columns with names."""
    by_name: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        plain = name.lower().removeprefix("scalar_")
        if plain in by_name and any(plain in names for names in _known_names()):
            raise DataError(f"{path}: two columns named {plain}")
        by_name[plain] = column
    fields: Fields = {}
    for field, choices in _AXES.items():
        found = [names for names in choices if all(name in by_name for name in names)]
        if len(found) > 1:
            raise DataError(f"{path}: {field} is there twice, as {' '.join(found[0])} and {' '.join(found[1])}")
        if found:
            fields[field] = np.stack([by_name[name] for name in found[0]], axis=1)
    for field, names in _IDS.items():
        _take(path, fields, field, [name for name in names if name in by_name], by_name)
    _take(path, fields, "intensity", [name for name in _STRENGTHS if name in by_name][:1], by_name)
    if "xyz" not in fields:
        raise DataError(f"{path}: no columns x, y and z, only {', '.join(columns) or 'nothing'}")
    return fields


def _known_names() -> list[tuple[str, ...]]:
    return [names for choices in _AXES.values() for names in choices] + list(_IDS.values())


def _take(path: Path, fields: Fields, field: str, found: list[str], arrays: dict[str, np.ndarray]) -> None:
    if len(found) > 1:
        raise DataError(f"{path}: {field} are there twice, as {found[0]} and {found[1]}; keep one of them")
    if found:
        fields[field] = arrays[found[0]]


def _las(path: Path) -> Fields:
    columns = read_las(path)
    standard = columns.pop("classification", None)
    fields = _named(path, columns)
    if "labels" not in fields and standard is not None and standard.any():
        fields["labels"] = standard
    return fields


def _npy(path: Path) -> Fields:
    with path.open("rb") as file:
        return _table(path, _array(path, file, path.stat().st_size, "the array"), _TABLES)


def _npz(path: Path) -> Fields:
    fields: Fields = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for field, names in _ARRAYS.items():
                found = [name for name in names if name in members]
                if len(found) > 1:
                    raise DataError(f"{path}: {field} are there twice, as {found[0]} and {found[1]}; keep one of them")
                if found:
                    fields[field] = _member(path, archive, members[found[0]])
            strength = next((name for name in _STRENGTHS if name in members), None)
            if strength is not None:
                fields["intensity"] = _member(path, archive, members[strength])
    except DataError:
        raise
    except Exception as error:  # zipfile raises almost anything on damaged files
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: cannot be read as npz ({type(error).__name__}: {error})") from error
    if "xyz" not in fields:
        raise DataError(f"{path}: no array {' or '.join(_ARRAYS['xyz'][:2])}, only {', '.join(sorted(members)[:20])}")
    return fields


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    limits = {zipfile.ZIP_STORED: info.compress_size, zipfile.ZIP_DEFLATED: _DEFLATE * (info.compress_size + 1)}
    if info.file_size > limits.get(info.compress_type, -1) or info.compress_size > path.stat().st_size:
        raise DataError(f"{path}: {info.filename}: a size that it cannot have, or packed as numpy does not")
    with archive.open(info) as file:
        array = _array(path, cast(zipfile.ZipExtFile, file), info.file_size, info.filename)
        if file.read(1):  # also makes zipfile compare the checksum
            raise DataError(f"{path}: {info.filename}: longer than it says")
    return array


def _array(path: Path, file: io.BufferedIOBase, size: int, name: str) -> np.ndarray:
    """An array in numpy's format, of a file of ``size`` bytes."""
    try:
        shape, fortran, dtype = npy_header(file)
    except Exception as error:  # numpy evaluates the header as Python: damaged, it raises almost anything
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: {name}: no array of numpy ({type(error).__name__}: {error})") from error
    if dtype.kind not in "fiu":
        raise DataError(f"{path}: {name}: of type {dtype}; expected numbers, and objects are never read")
    num = math.prod(shape)
    if any(side < 0 for side in shape) or num * dtype.itemsize > size:
        raise DataError(f"{path}: {name}: of shape {shape} and type {dtype}, but the file has {size} bytes")
    data = file.read(num * dtype.itemsize)
    if len(data) < num * dtype.itemsize:
        raise DataError(f"{path}: {name}: {len(data)} bytes for an array of shape {shape} and type {dtype}")
    array = np.frombuffer(data, dtype).reshape(shape[::-1] if fortran else shape)
    array = array.T if fortran else array
    return array.astype(dtype.newbyteorder("="))


def _text(path: Path) -> Fields:
    pts = path.suffix.lower() == ".pts"
    try:
        with path.open(encoding="utf-8") as file, warnings.catch_warnings():
            warnings.simplefilter("error")  # an empty file is a warning
            first = file.readline()
            comma = "," if "," in first else None
            counted = pts and len(first.split()) == 1
            if not counted:
                file.seek(0)
            table = np.loadtxt(file, dtype=np.float64, comments=("#", "//"), delimiter=comma, ndmin=2)
            if counted and len(table) != int(first):
                raise DataError(f"{path}: {len(table)} rows; its first line says {first.strip()[:20]}")
    except DataError:
        raise
    except (ValueError, OverflowError, Warning) as error:
        raise DataError(f"{path}: cannot be read as rows of numbers ({error})") from error
    return _table(path, table, _PTS if pts else _TABLES)


def _table(path: Path, table: np.ndarray, layouts: dict[int, tuple[str, ...]]) -> Fields:
    """Fields of columns without names."""
    layout = layouts.get(table.shape[1]) if table.ndim == 2 else None
    if layout is None:
        raise DataError(
            f"{path}: an array of shape {table.shape}; columns can be {', '.join(map(str, layouts))} "
            "(ponder3d.data.raw.point_files says which). Write an npz with named arrays instead"
        )
    fields, at = {}, 0
    for field in layout:
        width = _WIDTH.get(field, 1)
        if field:
            fields[field] = table[:, at] if width == 1 else table[:, at : at + width]
        at += width
    return fields


def _checked(path: Path, fields: Fields, colour: str) -> RawPoints:
    """Fields in the types of ``RawPoints``."""
    xyz = fields["xyz"]
    if xyz.ndim != 2 or xyz.shape[1] != 3 or len(xyz) == 0:
        raise DataError(f"{path}: xyz: of shape {xyz.shape}; expected [N 3], and at least one point")
    strength = fields.pop("intensity", None)
    for field, array in fields.items():
        wanted = (len(xyz), 3) if field in _WIDTH else (len(xyz),)
        if field not in _WIDTH and array.shape == (len(xyz), 1):
            fields[field] = array[:, 0]
        elif array.shape != wanted:
            raise DataError(
                f"{path}: {field}: of shape {array.shape}; expected {wanted} as there are {len(xyz)} points"
            )
        _check_finite(path, field, array)
    normal = fields.get("normal")
    return RawPoints(
        xyz=xyz.astype(np.float64),
        rgb=_colours(path, fields["rgb"], colour) if "rgb" in fields else None,
        normal=None if normal is None else _unit(normal),
        labels=_ids(path, "labels", fields["labels"]) if "labels" in fields else None,
        instances=_ids(path, "instances", fields["instances"]) if "instances" in fields else None,
        intensity=None if strength is None else _intensity(strength, len(xyz)),
    )


def _intensity(raw: np.ndarray, num: int) -> np.ndarray | None:
    """Values of some range as shares of it; None where they are of none."""
    raw = raw.reshape(-1)
    if len(raw) != num or raw.dtype.kind not in "fiu" or not np.isfinite(raw).all():
        return None
    low, high = float(raw.min()), float(raw.max())
    ranges = (1.0, 255.0, 65535.0) if raw.dtype.kind == "f" else (255.0, 65535.0)
    white = next((white for white in ranges if high <= white), None)
    if low < 0 or high == 0 or white is None:
        return None
    return (raw.astype(np.float64) / white).astype(np.float32)


def _check_finite(path: Path, field: str, array: np.ndarray) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        rows = np.unique(np.nonzero(~finite)[0])
        raise DataError(
            f"{path}: {field}: {len(rows)} of {len(array)} rows are not finite, the first is row {rows[0]}; "
            "remove these points"
        )


def _colours(path: Path, raw: np.ndarray, colour: str) -> np.ndarray:
    low, high = float(raw.min()), float(raw.max())
    if colour != "auto":
        white = COLOUR_RANGES[colour]
    elif raw.dtype.kind == "f":
        white = 1.0 if high <= 1 else 255.0 if 2 <= high <= 255 else 0.0
    else:
        white = 255.0 if high <= 255 else 65535.0
    if low < 0 or high > white:
        say = f"are not {colour}" if colour != "auto" else f"fit no range; say which with colour: {_RANGES}"
        raise DataError(f"{path}: rgb: {raw.dtype} values from {low:g} to {high:g} {say}. Normals belong into normal")
    return np.round(raw.astype(np.float64) * (255 / white)).astype(np.uint8)


def _whole(values: np.ndarray) -> bool:
    return bool((values == np.trunc(values)).all())


def _ids(path: Path, field: str, raw: np.ndarray) -> np.ndarray:
    limits = np.iinfo(np.int32)
    if raw.dtype.kind == "f" and not _whole(raw):
        row = int((raw != np.trunc(raw)).argmax())
        raise DataError(f"{path}: {field}: row {row} is {raw[row]:g}, no whole number")
    if raw.min() < limits.min or raw.max() > limits.max:
        raise DataError(f"{path}: {field}: from {raw.min():g} to {raw.max():g}; they have to fit into 32 bits")
    return raw.astype(np.int32)


def _unit(normal: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(normal.astype(np.float64), axis=1, keepdims=True)
    return (normal / np.where(length > 0, length, 1)).astype(np.float32)
