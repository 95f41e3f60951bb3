"""Small files beside recordings: JSON and tables of poses. Whatever is wrong with one is a DataError that names it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.checks import rigid
from ponder3d.data.faults import raise_if_of_machine

MAX_BYTES = 1 << 28
"""A larger file is none of these; Python needs some ten times as much to hold one."""


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """A text file.

    Raises:
        DataError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise DataError(f"{path}: {size} bytes; such a file has at most {max_bytes}")
        return path.read_bytes().decode()
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no text ({error.reason} at byte {error.start})") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds; numbers in it may be NaN.

    Raises:
        DataError: see ``read_text``; or it is no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON ({error})") from error


def entry(record: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """An entry of a JSON object.

    Raises:
        DataError: it is no object, lacks the entry, or the entry is of another type.
    """
    if not isinstance(record, dict) or name not in record:
        raise DataError(f"{where}: no entry {name!r}")
    value = record[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(one.__name__ for one in kinds)
        raise DataError(f"{where}: {name}: {str(value)[:40]!r}; expected {names}")
    return value


def numbers(value: Any, shapes: tuple[tuple[int, ...], ...], where: str) -> np.ndarray:
    """Nested lists of numbers as a float64 array of one of these shapes.

    Raises:
        DataError: it is something else.
    """
    try:
        array = np.array(value)
    except (ValueError, TypeError, OverflowError) as error:  # ragged lists
        raise DataError(f"{where}: no array of numbers ({error})") from error
    if array.dtype.kind not in "iuf" or array.shape not in shapes:
        raise DataError(f"{where}: an array of shape {array.shape} and type {array.dtype}; expected numbers {shapes}")
    return array.astype(np.float64)


@dataclass(frozen=True, eq=False)
class TimedPose:
    """A row of a file of poses."""

    name: str
    seconds: float
    pose: np.ndarray
    """[4 4] float64."""


def read_poses(path: Path) -> list[TimedPose]:
    """Poses of a text file with a line ``name seconds m00 m01 ... m33`` each: 12 or 16 numbers of a matrix, row by row,
    separated by spaces or commas. Empty lines, lines that begin with #, and a first line of titles are skipped.

    Raises:
        DataError: see ``read_text``; a line is something else, a matrix no pose, or a name there twice.
    """
    rows: list[TimedPose] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#") or (number == 1 and words[1:2] == ["seconds"]):
            continue
        where = f"{path}: line {number}"
        if len(words) not in (14, 18):
            raise DataError(f"{where}: {len(words)} words; expected name, seconds, and 12 or 16 numbers of a pose")
        try:
            values = [float(word) for word in words[1:]]
        except ValueError as error:
            raise DataError(f"{where}: {error}") from error
        if not math.isfinite(values[0]):
            raise DataError(f"{where}: seconds: not finite")
        pose = rigid(np.array(values[1:]).reshape(-1, 4), where, f"pose {words[0]}").numpy()
        rows.append(TimedPose(words[0], values[0], pose))
    if len({row.name for row in rows}) < len(rows):
        twice = next(row.name for row in rows if sum(other.name == row.name for other in rows) > 1)
        raise DataError(f"{path}: {twice} is there twice")
    return rows


def poses_text(rows: list[TimedPose]) -> str:
    """What ``read_poses`` reads."""
    lines = ["name seconds " + " ".join(f"m{i}{j}" for i in range(4) for j in range(4))]
    lines += [" ".join([row.name, repr(row.seconds), *(repr(float(v)) for v in row.pose.flatten())]) for row in rows]
    return "\n".join(lines) + "\n"
