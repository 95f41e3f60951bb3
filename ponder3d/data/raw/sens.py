"""ScanNet's ``.sens`` files, version 4: a camera's frames with their poses, one after the other.

Layout, little endian: uint32 version; uint64 length and characters of the sensor's name; four 4x4 float32 matrices
(intrinsics and extrinsics of colour, then of depth); int32 compression of colour and of depth; uint32 width and height
of colour, then of depth; float32 depth units per metre; uint64 number of frames. A frame: 4x4 float32 camera to world;
uint64 time of colour and of depth; uint64 bytes of colour and of depth; the bytes. A few numbers at the end (uint64
number of inertial readings and what follows) are not read.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.rgbd_images import read_image
from ponder3d.files import replacing

COLOUR_TYPES = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_TYPES = {0: "raw_ushort", 1: "zlib_ushort", 2: "occi_ushort"}
_VERSION = 4
_MAX_NAME = 4096
_MAX_SIDE = 8192
"""Pixels; sizes beyond it are damage, and so are frames of more bytes than an image of the size can take."""
_FRAME = struct.Struct("<16f4Q")
_FIXED = struct.Struct("<64f2i4IfQ")


@dataclass(frozen=True, eq=False)
class SensHeader:
    """What all frames share."""

    sensor: str
    colour_intrinsics: np.ndarray
    """[3 3], for ``colour_size``."""
    depth_intrinsics: np.ndarray
    """[3 3], for ``depth_size``."""
    colour_type: str
    depth_type: str
    colour_size: tuple[int, int]
    """Height and width."""
    depth_size: tuple[int, int]
    depth_shift: float
    """Depth units per metre."""
    num_frames: int
    """What the file says it holds."""


@dataclass(frozen=True)
class _Place:
    """Where the bytes of a frame are."""

    pose: bytes
    colour: tuple[int, int]
    """Offset and size."""
    depth: tuple[int, int]


class SensFile:
    """An open ``.sens`` file; holds one frame at a time. Use it in a ``with`` statement."""

    header: SensHeader

    def __init__(self, path: Path):
        """Open a file and read its header.

        Raises:
            DataError: it is not there, no ``.sens`` file of version 4, or its header cannot be.
        """
        self.path = path
        try:
            self._file: BinaryIO = path.open("rb", buffering=0)
        except OSError as error:
            raise_if_of_machine(error, path)
            raise DataError(f"{path}: no such file") from error
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self.header, self._next = self._read_header()
        except BaseException:
            self._file.close()
            raise
        self._places: list[_Place] = []
        height, width = self.header.colour_size
        # A JPEG or deflated image can be larger than its pixels, but not twice as large.
        self._max_colour = 2 * 4 * height * width + 65536
        self._max_depth = 2 * 2 * self.header.depth_size[0] * self.header.depth_size[1] + 65536

    def __enter__(self) -> "SensFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @property
    def most_frames(self) -> int:
        """Frames that the header promises and the file's size allows; a truncated file may have fewer."""
        return min(self.header.num_frames, self._size // _FRAME.size)

    def pose(self, number: int) -> np.ndarray:
        """[4 4] float64 camera to world of a frame, as it is in the file: infinite where tracking was lost.

        Raises:
            DataError: the file is cut off or damaged before the frame's end.
        """
        return np.frombuffer(self._place(number).pose, "<f4").reshape(4, 4).astype(np.float64)

    def colour(self, number: int) -> np.ndarray:
        """[H W 3] uint8.

        Raises:
            DataError: as ``pose``; or the image cannot be decoded or has another size than the header says.
        """
        data = self._bytes(*self._place(number).colour)
        where = f"{self.path}: colour of frame {number}"
        height, width = self.header.colour_size
        if self.header.colour_type == "raw":
            if len(data) != height * width * 3:
                raise DataError(f"{where}: {len(data)} bytes for {width}x{height} pixels")
            return np.frombuffer(data, np.uint8).reshape(height, width, 3)
        pixels = read_image(where, ("RGB", "RGBA", "L"), data)
        if pixels.shape[:2] != (height, width):
            shown = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise DataError(f"{where}: an image of {shown}; the header says {width}x{height}")
        return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., :3])

    def depth(self, number: int) -> np.ndarray:
        """[H W] float32 plane depth in metres, 0 where there is none.

        Raises:
            DataError: as ``pose``; or the depth cannot be decoded or has another size than the header says.
        """
        data = self._bytes(*self._place(number).depth)
        where = f"{self.path}: depth of frame {number}"
        height, width = self.header.depth_size
        if self.header.depth_type == "zlib_ushort":
            unpack = zlib.decompressobj()
            try:
                data = unpack.decompress(data, height * width * 2 + 1)  # one more shows that there is more
            except zlib.error as error:
                raise DataError(f"{where}: cannot be decompressed ({error})") from error
        if len(data) != height * width * 2:
            raise DataError(f"{where}: not the {height * width * 2} bytes of {width}x{height} pixels")
        raw = np.frombuffer(data, "<u2").reshape(height, width)
        metres = np.divide(raw, self.header.depth_shift, dtype=np.float32)
        metres[raw == 65535] = 0
        return metres

    def _place(self, number: int) -> _Place:
        """Where a frame is: frames before it are stepped over, their images are not read."""
        while len(self._places) <= number:
            at = len(self._places)
            fields = self._bytes(self._next, _FRAME.size) if at < self.header.num_frames else b""
            if len(fields) < _FRAME.size:
                raise DataError(f"{self.path}: frame {number}: the file ends after {at} of {self.header.num_frames}")
            *_, colour, depth = _FRAME.unpack(fields)
            for what, size, limit in (("colour", colour, self._max_colour), ("depth", depth, self._max_depth)):
                if size > limit:
                    raise DataError(f"{self.path}: frame {number}: {size} bytes of {what} in frame {at}: it is damaged")
            start = self._next + _FRAME.size
            if start + colour + depth > self._size:
                raise DataError(f"{self.path}: frame {number}: the file is cut off within frame {at}")
            self._places.append(_Place(fields[:64], (start, colour), (start + colour, depth)))
            self._next = start + colour + depth
        return self._places[number]

    def _bytes(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes; fewer at the end of the file."""
        parts = []
        try:
            self._file.seek(offset)
            while size and (part := self._file.read(size)):
                parts.append(part)
                size -= len(part)
        except OSError as error:
            raise_if_of_machine(error, self.path)
            raise DataError(f"{self.path}: {size} bytes at byte {offset} cannot be read ({error})") from error
        return b"".join(parts)

    def _read_header(self) -> tuple[SensHeader, int]:
        """The header, and where it ends."""
        start = self._bytes(0, 12)
        version = int.from_bytes(start[:4], "little")
        if len(start) < 12 or version != _VERSION:
            said = f"it says version {version}" if len(start) == 12 else f"it has {len(start)} bytes"
            raise DataError(f"{self.path}: header: no .sens file of version {_VERSION}: {said}")
        length = int.from_bytes(start[4:], "little")
        if length > _MAX_NAME:
            raise DataError(f"{self.path}: header: a sensor name of {length} characters; it is damaged")
        name, fixed = self._bytes(12, length), self._bytes(12 + length, _FIXED.size)
        if len(fixed) < _FIXED.size:
            raise DataError(f"{self.path}: header: the file ends within it")
        numbers = _FIXED.unpack(fixed)
        colour_intrinsics, _, depth_intrinsics, _ = np.array(numbers[:64]).reshape(4, 4, 4)
        colour, depth, colour_w, colour_h, depth_w, depth_h, shift, num_frames = numbers[64:]
        for what, code, known in (("colour", colour, COLOUR_TYPES), ("depth", depth, DEPTH_TYPES)):
            if code not in known:
                raise DataError(f"{self.path}: header: compression {code} of {what}; known are {known}")
        if DEPTH_TYPES[depth] == "occi_ushort":
            raise DataError(
                f"{self.path}: header: depth is packed as occi_ushort, which is not read; write the file anew with "
                "zlib_ushort, or export its frames"
            )
        for what, side in (("colour", colour_w), ("colour", colour_h), ("depth", depth_w), ("depth", depth_h)):
            if not 0 < side <= _MAX_SIDE:
                raise DataError(f"{self.path}: header: {what} of {side} pixels a side; it is damaged")
        if not (np.isfinite(shift) and shift > 0):
            raise DataError(f"{self.path}: header: {shift} depth units per metre")
        for what, matrix in (("colour", colour_intrinsics), ("depth", depth_intrinsics)):
            block = matrix[:3, :3]
            if not (
                np.isfinite(block).all() and block[0, 0] > 0 and block[1, 1] > 0 and block[2].tolist() == [0, 0, 1]
            ):
                raise DataError(f"{self.path}: header: intrinsics of {what} are no pinhole camera: {block.tolist()}")
        header = SensHeader(
            sensor=name.decode("latin-1"),
            colour_intrinsics=colour_intrinsics[:3, :3],
            depth_intrinsics=depth_intrinsics[:3, :3],
            colour_type=COLOUR_TYPES[colour],
            depth_type=DEPTH_TYPES[depth],
            colour_size=(colour_h, colour_w),
            depth_size=(depth_h, depth_w),
            depth_shift=shift,
            num_frames=num_frames,
        )
        return header, 12 + length + _FIXED.size


def write_sens(
    path: Path,
    frames: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    colour_intrinsics: np.ndarray,
    depth_intrinsics: np.ndarray,
    colour_type: str = "jpeg",
    depth_type: str = "zlib_ushort",
) -> None:
    """Write a ``.sens`` file as ScanNet's are: JPEG and deflated millimetres; for examples and tests.

    Args:
        path: the file.
        frames: [4 4] camera to world, [H W 3] uint8 colour and [H W] uint16 depth in millimetres of each frame.
        colour_intrinsics: [3 3].
        depth_intrinsics: [3 3].
        colour_type: ``raw``, ``png`` or ``jpeg``.
        depth_type: ``raw_ushort`` or ``zlib_ushort``.

    Raises:
        ValueError: there are no frames.
    """
    codes = {name: code for types in (COLOUR_TYPES, DEPTH_TYPES) for code, name in types.items()}
    number, sizes = 0, (0, 0, 0, 0)
    with replacing(path) as file:
        name = b"StructureSensor"
        file.write(struct.pack("<IQ", _VERSION, len(name)) + name)
        place = file.tell()
        file.write(bytes(_FIXED.size))
        for number, (pose, rgb, depth) in enumerate(frames, start=1):
            colour = _packed_colour(rgb, colour_type)
            deep = depth.astype("<u2").tobytes()
            deep = zlib.compress(deep) if depth_type == "zlib_ushort" else deep
            times = (number * 33333, number * 33333)
            file.write(_FRAME.pack(*pose.astype(np.float32).flatten(), *times, len(colour), len(deep)) + colour + deep)
            sizes = (rgb.shape[1], rgb.shape[0], depth.shape[1], depth.shape[0])
        if not number:
            raise ValueError(f"{path}: no frames to write")
        file.seek(place)
        matrices = np.tile(np.eye(4), (4, 1, 1))
        matrices[0, :3, :3], matrices[2, :3, :3] = colour_intrinsics, depth_intrinsics
        file.write(_FIXED.pack(*matrices.flatten(), codes[colour_type], codes[depth_type], *sizes, 1000.0, number))


def _packed_colour(rgb: np.ndarray, kind: str) -> bytes:
    if kind == "raw":
        return rgb.tobytes()
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind, **({"quality": 95, "subsampling": 0} if kind == "jpeg" else {}))
    return buffer.getvalue()
