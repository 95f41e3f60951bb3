"""Reading PLY files: points with any properties, and triangles.

Format: Greg Turk's PLY 1.0, ascii and binary of both byte orders. Lists of vertices and elements other than vertices
and faces are stepped over.
"""

import itertools
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_FACE_LISTS = ("vertex_indices", "vertex_index")
_MAX_HEADER = 1 << 20
"""Bytes; a header is some hundred."""


@dataclass(frozen=True, eq=False)
class PlyFile:
    """What a PLY file holds."""

    path: Path
    vertices: dict[str, np.ndarray]
    """[N] values of each property of the vertices that is no list, in the type of the file."""
    faces: np.ndarray | None
    """[F 3] int32 indices of vertices, polygons as fans of triangles; None if the file has no faces."""

    def columns(self, *names: str) -> np.ndarray:
        """[N K]: some properties of the vertices, side by side.

        Raises:
            DataError: the file lacks one of them.
        """
        for name in names:
            if name not in self.vertices:
                raise DataError(f"{self.path}: vertices have no property {name}, only {', '.join(self.vertices)}")
        return np.stack([self.vertices[name] for name in names], axis=1)


@dataclass(frozen=True)
class _Property:
    name: str
    type: str
    """A numpy type without its byte order."""
    count: str = ""
    """Type of a list's length; empty for a single value."""


@dataclass(frozen=True)
class _Element:
    name: str
    num: int
    properties: tuple[_Property, ...]

    @property
    def lists(self) -> tuple[_Property, ...]:
        return tuple(p for p in self.properties if p.count)


@dataclass(frozen=True, eq=False)
class _Table:
    """The rows of an element."""

    values: dict[str, np.ndarray]
    lists: dict[str, tuple[np.ndarray, np.ndarray]]
    """Lengths of the rows, and all entries one after the other."""


def read_ply(path: Path) -> PlyFile:
    """Read a PLY file.

    Raises:
        DataError: it is not there, is no PLY file, is shorter than its header says, has no vertices, or a face names a
            vertex that is not there.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: no such file") from error


def _read(path: Path, file: BinaryIO) -> PlyFile:
    order, elements = _read_header(path, file)
    end = os.fstat(file.fileno()).st_size
    tables = {}
    for element in elements:
        left = end - file.tell()
        if order:
            tables[element.name] = _read_binary(path, file, element, order, left)
        else:
            tables[element.name] = _read_ascii(path, file, element, left)
    vertices = tables["vertex"].values if "vertex" in tables else {}
    if not vertices:
        raise DataError(f"{path}: header: no element vertex with properties")
    return PlyFile(path, vertices, _triangles(path, tables, len(next(iter(vertices.values())))))


def _read_header(path: Path, file: BinaryIO) -> tuple[str, list[_Element]]:
    """Byte order (empty: ascii) and elements; the file is left where the data starts."""
    if file.readline(16).strip() != b"ply":
        raise DataError(f"{path}: no PLY file: it does not start with a line 'ply'")
    order: str | None = None
    elements: list[tuple[str, int, list[_Property]]] = []
    while True:
        line = file.readline(_MAX_HEADER)
        if not line.endswith(b"\n") and line.strip() != b"end_header" or file.tell() > _MAX_HEADER:
            raise DataError(f"{path}: header: it has no end within the file or {_MAX_HEADER} bytes")
        words = line.decode("latin-1").split()
        match words:
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["end_header"]:
                break
            case ["format", name, _] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", name, num] if num.isdecimal() and len(num) < 16:
                elements.append((name, int(num), []))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1][2].append(_Property(name, _TYPES[kind]))
            case ["property", "list", count, kind, name] if (
                elements and kind in _TYPES and _TYPES.get(count, "f")[0] in "iu"
            ):
                elements[-1][2].append(_Property(name, _TYPES[kind], _TYPES[count]))
            case _:
                raise DataError(f"{path}: header: a line {' '.join(words)[:80]!r}, which PLY does not have")
    if order is None:
        raise DataError(f"{path}: header: no format, or none of {', '.join(_ORDERS)}")
    found = [_Element(name, num, tuple(properties)) for name, num, properties in elements]
    for what, names in (
        ("element", [e.name for e in found]),
        *((e.name, [p.name for p in e.properties]) for e in found),
    ):
        if len(set(names)) != len(names):
            raise DataError(f"{path}: header: two of {what} have one name")
    return order, found


def _check_room(path: Path, element: _Element, needed: int, left: int) -> None:
    """Before anything is allocated: a count may be anything in a damaged file."""
    if needed > left:
        raise DataError(
            f"{path}: element {element.name}: {element.num} of them need {needed} bytes and {left} are left; the file "
            "is truncated or its header is wrong"
        )


def _read_binary(path: Path, file: BinaryIO, element: _Element, order: str, left: int) -> _Table:
    least = sum(np.dtype(p.count or p.type).itemsize for p in element.properties)
    _check_room(path, element, element.num * least, left)
    if element.num == 0 or not least:
        return _nothing(element)
    lengths = {p: 0 for p in element.lists}
    if lengths:
        lengths = _first_lengths(file, element, order)
    dtype = _row_type(element, order, lengths)
    if dtype is not None and element.num * dtype.itemsize <= left:
        start = file.tell()
        rows = np.frombuffer(file.read(element.num * dtype.itemsize), dtype)
        if all((rows[f"n{i}"] == lengths[p]).all() for i, p in enumerate(element.properties) if p.count):
            return _split_rows(element, rows)
        file.seek(start)
    return _walk_rows(path, file, element, order, left)


def _nothing(element: _Element) -> _Table:
    values = {p.name: np.zeros(0, p.type) for p in element.properties if not p.count}
    return _Table(values, {p.name: (np.zeros(0, np.int64), np.zeros(0, p.type)) for p in element.lists})


def _first_lengths(file: BinaryIO, element: _Element, order: str) -> dict[_Property, int]:
    """Lengths of the lists of the first row: most files have the same in all."""
    start, lengths = file.tell(), {}
    for prop in element.properties:
        size = np.dtype(prop.type).itemsize
        if prop.count:
            head = file.read(np.dtype(prop.count).itemsize)
            whole = len(head) == np.dtype(prop.count).itemsize
            lengths[prop] = int(np.frombuffer(head, order + prop.count)[0]) if whole else -1
            size *= max(lengths[prop], 0)
        file.seek(size, os.SEEK_CUR)
    file.seek(start)
    return lengths


def _row_type(element: _Element, order: str, lengths: dict[_Property, int]) -> np.dtype | None:
    """The type of a row whose lists have these lengths; None if there is no such."""
    if any(not 0 <= length <= 1024 for length in lengths.values()):
        return None
    fields: list[tuple] = []
    for i, prop in enumerate(element.properties):
        if prop.count:
            fields += [(f"n{i}", order + prop.count), (f"v{i}", order + prop.type, (lengths[prop],))]
        else:
            fields.append((f"v{i}", order + prop.type))
    return np.dtype(fields)


def _split_rows(element: _Element, rows: np.ndarray) -> _Table:
    values, lists = {}, {}
    for i, prop in enumerate(element.properties):
        column = rows[f"v{i}"].astype(prop.type)  # a copy of its own, in this machine's byte order
        if prop.count:
            lists[prop.name] = (rows[f"n{i}"].astype(np.int64), column.reshape(-1))
        else:
            values[prop.name] = column
    return _Table(values, lists)


def _walk_rows(path: Path, file: BinaryIO, element: _Element, order: str, left: int) -> _Table:
    """Rows of different lengths, one at a time: about 1 us each per property."""
    start = file.tell()
    data = file.read(left)
    sizes = [np.dtype(p.type).itemsize for p in element.properties]
    places = [(np.dtype(p.count).itemsize, p.count[0] == "i") if p.count else None for p in element.properties]
    byteorder = "little" if order == "<" else "big"
    pieces: list[list[bytes]] = [[] for _ in element.properties]
    position = 0
    for row in range(element.num):
        for piece, size, place in zip(pieces, sizes, places, strict=True):
            if place is not None:
                head = data[position : position + place[0]]
                position += place[0]
                size *= int.from_bytes(head, byteorder, signed=place[1])
            if size < 0 or position + size > left:
                raise DataError(f"{path}: element {element.name}: row {row} is longer than the file; it is damaged")
            piece.append(data[position : position + size])
            position += size
    file.seek(start + position)
    values, lists = {}, {}
    for prop, piece, size in zip(element.properties, pieces, sizes, strict=True):
        column = np.frombuffer(b"".join(piece), order + prop.type).astype(prop.type)
        if prop.count:
            lists[prop.name] = (np.array([len(part) // size for part in piece]), column)
        else:
            values[prop.name] = column
    return _Table(values, lists)


def _read_ascii(path: Path, file: BinaryIO, element: _Element, left: int) -> _Table:
    # A number and what separates it from the next take two bytes at least; the last one may lack its newline.
    _check_room(path, element, element.num * 2 * len(element.properties) - 1, left)
    if element.num == 0 or not element.properties:
        return _nothing(element)
    lines = _filled(file, element.num)
    if element.lists:
        return _read_lines(path, element, list(lines))
    table = _ascii_rows(lines)
    width = len(element.properties)
    if table is None or table.shape != (element.num, width):
        shown = "is not all numbers" if table is None else f"has {len(table)} rows of {table.shape[1]} numbers"
        raise DataError(f"{path}: element {element.name}: {shown}; the header wants {element.num} rows of {width}")
    return _Table({p.name: _typed(path, element, p, table[:, i]) for i, p in enumerate(element.properties)}, {})


def _filled(file: BinaryIO, num: int) -> Iterator[str]:
    """The next lines that are not empty."""
    return itertools.islice((line.decode("latin-1") for line in file if line.strip()), num)


def _ascii_rows(lines: list[str] | Iterator[str]) -> np.ndarray | None:
    """[R K] float64, which holds every number of 32 bits; None if lines differ in length or are not numbers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return np.loadtxt(lines, dtype=np.float64, comments=None, ndmin=2)
    except (ValueError, Warning):
        return None


def _read_lines(path: Path, element: _Element, lines: list[str]) -> _Table:
    """Rows with lists in ascii."""
    only = element.properties[0]
    table = _ascii_rows(lines) if len(element.properties) == 1 else None
    if table is not None and len(table) == element.num and (table[:, 0] == table.shape[1] - 1).all():
        entries = _typed(path, element, only, table[:, 1:].reshape(-1))
        return _Table({}, {only.name: (np.full(element.num, table.shape[1] - 1), entries)})
    if len(lines) < element.num:
        raise DataError(f"{path}: element {element.name}: {len(lines)} rows; the header says {element.num}")
    numbers: list[list[float]] = [[] for _ in element.properties]
    lengths: list[list[int]] = [[] for _ in element.properties]
    for row, line in enumerate(lines):
        try:
            words = [float(word) for word in line.split()]
            position = 0
            for prop, entry, length in zip(element.properties, numbers, lengths, strict=True):
                num = int(words[position]) if prop.count else 1
                position += bool(prop.count)
                if num < 0 or position + num > len(words):
                    raise ValueError(f"{prop.name} is longer than the line")
                entry += words[position : position + num]
                length.append(num)
                position += num
        except (ValueError, IndexError, OverflowError) as error:
            raise DataError(f"{path}: element {element.name}: row {row}: {error}") from error
    typed = {p: _typed(path, element, p, np.array(e)) for p, e in zip(element.properties, numbers, strict=True)}
    lists = {p.name: (np.array(n), typed[p]) for p, n in zip(element.properties, lengths, strict=True) if p.count}
    return _Table({p.name: typed[p] for p in element.properties if not p.count}, lists)


def _typed(path: Path, element: _Element, prop: _Property, numbers: np.ndarray) -> np.ndarray:
    """Numbers of a text in the type that the header gives them."""
    if prop.type[0] == "f":
        with np.errstate(over="ignore"):
            return numbers.astype(prop.type)
    limits = np.iinfo(prop.type)
    fits = (numbers >= limits.min) & (numbers <= limits.max) & (numbers == np.trunc(numbers))
    if not fits.all():
        raise DataError(
            f"{path}: element {element.name}: {prop.name} is {numbers[fits.argmin()]:g}, no whole number from "
            f"{limits.min} to {limits.max}"
        )
    return numbers.astype(prop.type)


def _triangles(path: Path, tables: dict[str, _Table], num: int) -> np.ndarray | None:
    """[F 3] of the faces; polygons are cut into fans, what has fewer than 3 corners is no face."""
    lists = tables["face"].lists if "face" in tables else {}
    name = next((name for name in _FACE_LISTS if name in lists), None)
    if name is None:
        return None
    lengths, corners = lists[name]
    if corners.dtype.kind == "f":
        raise DataError(f"{path}: header: {name} of element face are of a type with fractions")
    if len(corners) and not (corners.min() >= 0 and corners.max() < num):
        raise DataError(f"{path}: face: {name} from {corners.min()} to {corners.max()}, but there are {num} vertices")
    corners = corners.astype(np.int32)
    if (lengths == 3).all():
        return corners.reshape(-1, 3)
    fans = np.maximum(lengths - 2, 0)
    first = np.repeat(np.cumsum(lengths) - lengths, fans)
    step = np.arange(len(first)) - np.repeat(np.cumsum(fans) - fans, fans)
    return corners[np.stack([first, first + step + 1, first + step + 2], axis=1)]
