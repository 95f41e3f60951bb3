"""Numbers in text files: a few of a camera, or millions of points."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine

_SMALL = 1 << 16
"""Bytes; a file with one camera is hundreds of bytes long."""
_LARGE = 1 << 30
"""Bytes; the largest file of points of S3DIS has some 200 MB."""
_CHUNK = 1 << 20
"""Bytes that are looked at together: their 60 or so temporary arrays stay small."""
_MAX_BROKEN = 100
"""A file with more broken lines is something else."""
_MAX_DIGITS = 15
"""An integer of so many digits is exact in float64, so that one division by a power of ten rounds it correctly."""
_TENS = 10.0 ** np.arange(_MAX_DIGITS + 1)
_SPACE = np.isin(np.arange(256), list(b" \t\r\n"))
_NUMBER = frozenset(b" 0123456789.-")


def read_small(path: Path) -> bytes:
    """The content of a small text file.

    Raises:
        DataError: it cannot be read, or is too large to be one.
    """
    return _read(path, _SMALL)


def parse_numbers(content: bytes, where: str, counts: tuple[int, ...], what: str) -> np.ndarray:
    """All numbers of a text, as float64.

    Args:
        content: the text.
        where: the file, for messages.
        counts: how many there may be.
        what: what they are, for messages.

    Raises:
        DataError: a word is no number, a number is not finite, or there are more or fewer.
    """
    try:
        values = np.array([float(word) for word in content.split()])
    except ValueError as error:
        raise DataError(f"{where}: {what}: {error}") from error
    if len(values) not in counts:
        expected = " or ".join(map(str, counts))
        raise DataError(f"{where}: {what}: {len(values)} numbers, expected {expected}")
    if not np.isfinite(values).all():
        raise DataError(f"{where}: {what}: a number is not finite")
    return values


@dataclass(frozen=True, eq=False)
class TextPoints:
    """Points of a text with a line ``x y z r g b`` each."""

    xyz: np.ndarray
    """[N 3] float32."""
    rgb: np.ndarray
    """[N 3] uint8."""
    notes: tuple[str, ...]
    """One for each line that was repaired or left out, with its number."""


def read_points(path: Path) -> TextPoints:
    """Points of a text file, see ``parse_points``.

    Raises:
        DataError: the file cannot be read, has no points, or more than 100 lines of it are no points.
    """
    return parse_points(_read(path, _LARGE), str(path))


def parse_points(content: bytes, where: str) -> TextPoints:
    """Points of a text with a line ``x y z r g b`` each; blank lines are passed over.

    A byte that lost the bit 0x20 is repaired: all known defects of S3DIS are of that kind, such as ``-9.1\\x160`` for
    -9.160 and ``185\\x00187`` for ``185 187``. A line that is none the better for it is left out.

    Raises:
        DataError: there are no points, or more than 100 lines are none.
    """
    rows, notes, num_lines, num_broken = [np.zeros((0, 6))], [], 0, 0
    start = 0
    while start < len(content):
        end = content.find(b"\n", min(start + _CHUNK, len(content)))
        end = len(content) if end < 0 else end + 1
        values, lines, doubtful = _fast(content[start:end])
        for index in np.flatnonzero(doubtful):
            line = content[start + lines[index] : start + lines[index + 1]]
            repaired = bytes(b | 0x20 if b < 32 and not _SPACE[b] and b | 0x20 in _NUMBER else b for b in line)
            row = _point(repaired)
            shown = f"line {num_lines + int(index) + 1}: {re.sub(r'^b|[rn]$', '', repr(line.strip()[:80]))}"
            if row is None:
                num_broken += 1
                notes.append(f"{shown} is not x y z r g b; left out")
                values[index] = np.nan
                if num_broken > _MAX_BROKEN:
                    raise DataError(f"{where}: {notes[0]}; and so are {_MAX_BROKEN} more: is it a file of points?")
                continue
            if repaired != line:
                notes.append(f"{shown}: read as {repaired.strip().decode()}")
            values[index] = row
        rows.append(values[~np.isnan(values[:, 0])])
        num_lines += len(lines) - 1
        start = end
    points = np.concatenate(rows)
    if not len(points):
        raise DataError(f"{where}: no points in it{f' ({notes[0]})' if notes else ''}")
    return TextPoints(points[:, :3].astype(np.float32), np.rint(points[:, 3:]).astype(np.uint8), tuple(notes))


def _fast(chunk: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[L 6] numbers of each line (NaN: blank), [L + 1] where lines begin, and [L] whether a line needs a closer look.

    np.loadtxt and np.fromstring manage 0.4 million points a second, this 1.6 million: it goes through the
    characters of a column of numbers, for all lines at once.
    """
    text = np.frombuffer(chunk, dtype=np.uint8)
    breaks = np.flatnonzero(text == 10) + 1
    lines = np.concatenate([[0], breaks, [len(text)] if not len(breaks) or breaks[-1] < len(text) else []]).astype(int)
    inside = np.zeros(len(text) + 2, dtype=np.int8)
    inside[1:-1] = ~_SPACE[text]
    edges = np.flatnonzero(np.diff(inside))
    first, last = edges[::2], edges[1::2]  # a word is text[first:last]
    word = np.searchsorted(first, lines)
    count = np.diff(word)
    values = np.full((len(count), 6), np.nan)
    doubtful = (count != 6) & (count != 0)
    whole = np.flatnonzero(count == 6)
    padded = np.concatenate([text, np.zeros(1, dtype=np.uint8)])
    for column in range(6 if len(whole) else 0):
        at = word[whole] + column
        number, fine = _decimal(padded, first[at], last[at])
        if column >= 3:
            fine &= (number > -0.5) & (number < 255.5)
        values[whole, column] = number
        doubtful[whole[~fine]] = True
    return values, lines, doubtful


def _decimal(text: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of the words ``text[first:last]``, and which of them are plain decimals such as -12.5."""
    length = last - first
    negative = text[first] == ord("-")
    value = np.zeros(len(first), dtype=np.int64)
    num_digits, decimals = np.zeros(len(first), dtype=np.int8), np.zeros(len(first), dtype=np.int8)
    after_point = np.zeros(len(first), dtype=bool)
    twice = np.zeros(len(first), dtype=bool)
    at = first.copy()
    for _ in range(min(int(length.max()), _MAX_DIGITS + 2)):
        here = text[np.minimum(at, len(text) - 1)]
        digit = here - np.uint8(48)  # wraps: what is no digit becomes 10 or more
        counts = (digit < 10) & (at < last)
        value = np.where(counts, value * 10 + digit, value)
        num_digits += counts
        decimals += counts & after_point
        point = (here == 46) & (at < last)
        twice |= point & after_point
        after_point |= point
        at += 1
    fine = (num_digits > 0) & (num_digits <= _MAX_DIGITS) & ~twice & (num_digits + after_point + negative == length)
    scale = _TENS[np.minimum(decimals, _MAX_DIGITS)]
    return np.where(negative, -value, value) / scale, fine


def _point(line: bytes) -> list[float] | None:
    """The six numbers of a line; None if they are no coordinates and colour."""
    try:
        row = [float(word) for word in line.split()]
    except ValueError:
        return None
    fine = len(row) == 6 and all(abs(v) < 1e9 for v in row[:3]) and all(-0.5 < v < 255.5 for v in row[3:])
    return row if fine else None


def _read(path: Path, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(content) > limit:
        raise DataError(f"{path}: more than {limit >> 10} KiB; it is not the file that it should be")
    return content
