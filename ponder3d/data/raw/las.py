"""Reading LAS 1.0 to 1.4, and LAZ with lazrs: the extra ``lidar``.

Source: LAS specification 1.4 R15 of the ASPRS, and the record that LASzip adds. The header is read here, where every
count can be compared with the size of the file: other readers wait for ever on some damaged headers.
"""

import importlib.util
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ponder3d.data.dataset import DataError

_RECORD = (20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67)
"""Bytes of a point of each format; what a file has beyond them are extra dimensions."""
_COLOUR = {2: 20, 3: 28, 5: 28, 7: 30, 8: 30, 10: 30}
"""Where red begins."""
_EXTRA = {1: "u1", 2: "i1", 3: "u2", 4: "i2", 5: "u4", 6: "i4", 7: "u8", 8: "i8", 9: "f4", 10: "f8"}
"""Types of extra dimensions of one number."""
_ITEMS = {6: 20, 7: 8, 8: 6, 9: 29, 10: 30, 11: 6, 12: 8, 13: 29}
"""Bytes of the parts of a point that LASzip packs each for itself; 0 and 14 are extra bytes, any number."""
_RATIO = 2000
"""More than points of a LAZ file shrink by: 60,000 equal ones of 34 bytes take 1412 bytes, header included."""
_MAX_RECORDS = 10_000
_MEMORY = 1 << 30
"""Bytes that unpacking may take beside the points."""
_UNPACK = """
import sys
import lazrs
path, offset, size, record, memory = sys.argv[1:]
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError):
    pass
points = bytearray(int(size))
with open(path, "rb") as file:
    file.seek(int(offset))
    lazrs.LasZipDecompressor(file, bytes.fromhex(record)).decompress_many(points)
sys.stdout.buffer.write(points)
"""


@dataclass(frozen=True)
class _Header:
    format: int
    packed: bool
    length: int
    """Bytes of a point."""
    num: int
    offset: int
    """Where the points begin."""
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    extra: tuple[tuple[str, int, str], ...]
    """Name, place in the point and type of extra dimensions of one number."""
    laszip: bytes
    """What LASzip says about itself."""


def read_las(path: Path) -> dict[str, np.ndarray]:
    """Columns of a LAS or LAZ file: ``x y z`` as float64 in the file's units, ``red green blue`` and ``intensity`` as
    uint16, ``classification``, and extra dimensions of one number a point by their names.

    Raises:
        DataError: lazrs is not installed, or the file is damaged or shorter than its header says.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = _read_header(path, file, size)
        read = _unpacked if header.packed else _stored
        data = read(path, file, header, size)
    rows = np.frombuffer(data, np.uint8).reshape(header.num, header.length)

    def column(at: int, kind: str) -> np.ndarray:
        width = np.dtype(kind).itemsize
        return np.ascontiguousarray(rows[:, at : at + width]).view("<" + kind)[:, 0]

    columns: dict[str, np.ndarray] = {}
    with np.errstate(over="ignore", invalid="ignore"):  # a damaged scale makes infinities, which callers refuse
        for i, axis in enumerate(("x", "y", "z")):
            columns[axis] = column(4 * i, "i4") * header.scale[i] + header.shift[i]
    if header.format in _COLOUR:
        for i, name in enumerate(("red", "green", "blue")):
            columns[name] = column(_COLOUR[header.format] + 2 * i, "u2")
    columns["intensity"] = column(12, "u2")
    columns["classification"] = column(16, "u1") if header.format >= 6 else column(15, "u1") & 31
    for name, at, kind in header.extra:
        columns[name] = column(at, kind)
    return columns


def write_las(path: Path, xyz: np.ndarray, rgb: np.ndarray, classification: np.ndarray) -> None:
    """Write points as LAS 1.2, format 2, to the millimetre.

    Args:
        path: the file.
        xyz: [N 3].
        rgb: [N 3] uint8; kept as 16 bit.
        classification: [N], below 32.
    """
    header = bytearray(227)
    header[:4], header[24:26] = b"LASF", bytes((1, 2))
    lo, hi = xyz.min(0), xyz.max(0)
    struct.pack_into("<HII", header, 94, 227, 227, 0)
    struct.pack_into("<BHI", header, 104, 2, _RECORD[2], len(xyz))
    struct.pack_into("<12d", header, 131, *[1e-3] * 3, *[0.0] * 3, *np.stack([hi, lo], axis=1).reshape(-1))
    kinds = [("xyz", "<i4", 3), ("a", "u1", 3), ("c", "u1"), ("b", "u1", 4), ("rgb", "<u2", 3)]
    rows = np.zeros(len(xyz), np.dtype(kinds))
    rows["xyz"], rows["c"] = np.round(xyz * 1000), classification
    rows["rgb"] = rgb.astype(np.uint16) * 257
    path.write_bytes(bytes(header) + rows.tobytes())


def _read_header(path: Path, file: BinaryIO, size: int) -> _Header:
    head = file.read(375)
    if len(head) < 227 or head[:4] != b"LASF":
        raise DataError(f"{path}: no LAS file: it does not begin with LASF, or ends within its header")
    if head[24] != 1 or head[25] > 4:
        raise DataError(f"{path}: header: version {head[24]}.{head[25]}; LAS 1.0 to 1.4 are read")
    header_size, offset, num_records = struct.unpack_from("<HII", head, 94)
    kind, length, num = struct.unpack_from("<BHI", head, 104)
    packed, point_format = bool(kind & 0xC0), kind & 0x3F
    if head[25] == 4:
        if len(head) < 375 or header_size < 375:
            raise DataError(f"{path}: header: of {header_size} bytes; LAS 1.4 has 375")
        num = struct.unpack_from("<Q", head, 247)[0] or num
    numbers = struct.unpack_from("<6d", head, 131)
    if point_format >= len(_RECORD) or length < _RECORD[point_format]:
        raise DataError(f"{path}: header: points of format {point_format} and {length} bytes, which LAS does not have")
    if not (227 <= header_size <= offset <= size) or num_records > _MAX_RECORDS:
        raise DataError(
            f"{path}: header: of {header_size} bytes, with {num_records} records, points from byte {offset} on, in a "
            f"file of {size} bytes"
        )
    if not np.isfinite(numbers).all() or 0 in numbers[:3]:
        raise DataError(f"{path}: header: scale {numbers[:3]} and offset {numbers[3:]} of coordinates")
    if num == 0:
        raise DataError(f"{path}: header: no points")
    extra, laszip = _read_records(path, file, (header_size, offset), num_records, _RECORD[point_format], length)
    return _Header(point_format, packed, length, num, offset, numbers[:3], numbers[3:], extra, laszip)


def _read_records(
    path: Path, file: BinaryIO, span: tuple[int, int], num: int, first_extra: int, length: int
) -> tuple[tuple[tuple[str, int, str], ...], bytes]:
    """Extra dimensions, and LASzip's record, from the variable length records between header and points."""
    extra, laszip = [], b""
    at, end = span
    for number in range(num):
        file.seek(at)
        head = file.read(54)
        if at + 54 > end:
            raise DataError(f"{path}: record {number}: begins where the points are; the header is damaged")
        user = head[2:18].split(b"\0")[0]
        kind, size = struct.unpack_from("<HH", head, 18)
        if at + 54 + size > end:
            raise DataError(f"{path}: record {number}: of {size} bytes, of which {end - at - 54} are left")
        data = file.read(size)
        at += 54 + size
        if user == b"laszip encoded" and kind == 22204:
            laszip = data
        if user == b"LASF_Spec" and kind == 4:
            place = first_extra
            for begin in range(0, size - 191, 192):
                code = data[begin + 2]
                width = data[begin + 3] if code == 0 else np.dtype(_EXTRA.get((code - 1) % 10 + 1, "u1")).itemsize
                width *= 1 if code == 0 else (code - 1) // 10 + 1  # 11 to 30: two and three numbers
                name = data[begin + 4 : begin + 36].split(b"\0")[0].decode("latin-1")
                if place + width > length:
                    raise DataError(f"{path}: extra dimension {name!r}: beyond the {length} bytes of a point")
                if code in _EXTRA:
                    extra.append((name, place, _EXTRA[code]))
                place += width
    return tuple(extra), laszip


def _stored(path: Path, file: BinaryIO, header: _Header, size: int) -> bytes:
    needed = header.num * header.length
    if needed > size - header.offset:
        raise DataError(
            f"{path}: {header.num} points of {header.length} bytes, but {size - header.offset} bytes are left; the "
            "file is truncated or its header is wrong"
        )
    file.seek(header.offset)
    return file.read(needed)


def _unpacked(path: Path, file: BinaryIO, header: _Header, size: int) -> bytes:
    """The points of a LAZ file, from a process of its own: on some damaged files lazrs aborts the process, panics, or
    wants gigabytes.
    """
    if importlib.util.find_spec("lazrs") is None:
        raise DataError(f"{path}: unpacking LAZ needs lazrs: pip install 'ponder3d[lidar]'")
    _check_laszip(path, file, header, size)
    wanted = header.num * header.length
    arguments = [path.resolve(), header.offset, wanted, header.laszip.hex(), wanted + _MEMORY]
    command = [sys.executable, "-c", _UNPACK, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=3 + wanted / 2e6, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{path}: its points are not unpacked after {error.timeout:.0f} s") from error
    if done.returncode or len(done.stdout) != wanted:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(f"{path}: its points cannot be unpacked ({lines[-1] if lines else done.returncode})")
    return done.stdout


def _check_laszip(path: Path, file: BinaryIO, header: _Header, size: int) -> None:
    """What lazrs believes, and allocates memory by."""
    left = size - header.offset
    if header.num * header.length > _RATIO * left:
        raise DataError(f"{path}: {header.num} points of {header.length} bytes in {left} bytes: its header is wrong")
    record = header.laszip
    if len(record) < 34:
        raise DataError(f"{path}: no record of LASzip, or one of {len(record)} bytes")
    compressor, coder = struct.unpack_from("<HH", record)
    chunk, num_items = struct.unpack_from("<I", record, 12)[0], struct.unpack_from("<H", record, 32)[0]
    items = [struct.unpack_from("<HHH", record, 34 + 6 * i) for i in range(min(num_items, (len(record) - 34) // 6))]
    fits = all(kind in (0, 14) or _ITEMS.get(kind) == width for kind, width, _ in items)
    if (
        compressor not in (2, 3)
        or coder != 0
        or len(items) != num_items
        or not fits
        or sum(width for _, width, _ in items) != header.length
    ):
        raise DataError(f"{path}: record of LASzip: parts {items} for points of {header.length} bytes, or damaged")
    file.seek(header.offset)
    (table,) = struct.unpack("<q", file.read(8).ljust(8, b"\0"))
    if table == -1:  # a writer that could not go back left it at the end
        file.seek(size - 8)
        (table,) = struct.unpack("<q", file.read(8))
    if not header.offset + 8 <= table <= size - 8:
        raise DataError(f"{path}: the table of chunks would be at byte {table} of {size}")
    file.seek(table)
    num_chunks = struct.unpack("<II", file.read(8))[1]
    # A chunk takes the first point whole, so there cannot be many more of them than bytes.
    most = -(-header.num // chunk) if 0 < chunk < 0xFFFFFFFF else left // header.length + 1
    if num_chunks > most or chunk == 0:
        raise DataError(f"{path}: the table of chunks has {num_chunks} of {chunk} points for {header.num} points")
