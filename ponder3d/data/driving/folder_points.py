"""Points and labels of drives of one's own: ``folder`` says which files there are."""

from pathlib import Path

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.npy import npy_array
from ponder3d.data.raw.dataset import LabelTable
from ponder3d.data.raw.las import read_las
from ponder3d.data.raw.ply import read_ply
from ponder3d.data.raw.point_files import read_points

COLUMNS = ("x", "y", "z", "intensity")
_MAX_BYTES = 1 << 29
"""A revolution has some MB."""
_STRENGTHS = ("intensity", "scalar_intensity", "reflectance", "reflectivity")


def read_cloud(path: Path, columns: tuple[str, ...], brightest: float) -> tuple[np.ndarray, np.ndarray]:
    """The points of a revolution.

    Args:
        path: the file; its ending says what it is.
        columns: of ``.npy`` and ``.bin``.
        brightest: the intensity that counts as 1.

    Returns:
        xyz [N 3] float64, with rows that are not finite as they are in ``.npy`` and ``.bin``; intensity [N] float32.

    Raises:
        DataError: it is damaged, has other columns, or an intensity that is not from 0 to ``brightest``.
    """
    if path.suffix in (".npy", ".bin"):
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number stays none, and is looked for below
            table = _table(path, columns).astype(np.float64)
        xyz = np.stack([table[:, columns.index(axis)] for axis in "xyz"], axis=1)
        strength = table[:, columns.index("intensity")] if "intensity" in columns else None
    else:
        xyz, strength = read_points(path).xyz, _strength(path)
    if strength is None:
        return xyz, np.zeros(len(xyz), dtype=np.float32)
    shining = np.isfinite(xyz).all(1)  # a point without a place may have anything for an intensity
    intensity = np.where(shining, strength.astype(np.float64), 0) / brightest
    if intensity.size and not (intensity.min() >= 0 and intensity.max() <= 1):
        low, high = intensity.min() * brightest, intensity.max() * brightest
        raise DataError(
            f"{path}: intensity: from {low:g} to {high:g}, not from 0 to {brightest:g}; set brightest in "
            "calibration.json's laser"
        )
    return xyz, intensity.astype(np.float32)


def read_labels(path: Path, num: int, classes: tuple[frozenset[int], LabelTable]) -> np.ndarray:
    """Rows of the classes of ``num`` points, -1 for numbers that are ignored.

    Raises:
        DataError: it is no array of ``num`` whole numbers, or one of them is neither named nor ignored.
    """
    known, table = classes
    raw = npy_array(_content(path), str(path))
    if raw.shape not in ((num,), (num, 1)) or raw.dtype.kind not in "iu":
        raise DataError(f"{path}: labels: of shape {raw.shape} and type {raw.dtype}; expected {num} whole numbers")
    rows = dict(table.rows)
    found, inverse = np.unique(raw.reshape(-1), return_inverse=True)
    strange = [value for value in found.tolist() if value not in known and value != -1]
    if strange:
        raise DataError(f"{path}: labels: {strange[0]} is neither named nor ignored in classes.json")
    return np.array([rows.get(value, -1) for value in found.tolist()], dtype=np.int64)[inverse.reshape(-1)]


def _table(path: Path, columns: tuple[str, ...]) -> np.ndarray:
    """[N K] of a npy or bin file."""
    data = _content(path)
    if path.suffix == ".npy":
        table = npy_array(data, str(path))
        if table.dtype.kind not in "fiu" or table.ndim != 2 or table.shape[1] != len(columns):
            raise DataError(
                f"{path}: an array of shape {table.shape} and type {table.dtype}; calibration.json's laser says the "
                f"columns {', '.join(columns)}"
            )
        return table
    if len(data) % (4 * len(columns)):
        raise DataError(
            f"{path}: {len(data)} bytes are no whole number of points of {len(columns)} float32 ({', '.join(columns)}, "
            "says calibration.json's laser); it is cut short, or has other columns"
        )
    return np.frombuffer(data, dtype="<f4").reshape(-1, len(columns))


def _strength(path: Path) -> np.ndarray | None:
    """The intensity in a file whose coordinates are read already."""
    if path.suffix == ".ply":
        named = {name.lower(): column for name, column in read_ply(path).vertices.items()}
    elif path.suffix in (".las", ".laz"):
        named = {name.lower(): column for name, column in read_las(path).items()}
    else:
        return None
    found = [name for name in _STRENGTHS if name in named]
    if len(found) > 1:
        raise DataError(f"{path}: intensity is there twice, as {found[0]} and {found[1]}; keep one of them")
    return named[found[0]] if found else None


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DataError(f"{path}: {size} bytes; a revolution has at most {_MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
