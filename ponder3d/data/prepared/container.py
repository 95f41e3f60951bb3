"""One prepared scene: a run of plain tar members, the last of which is an index with place and SHA-256 of the others.

Members of the scene ``NAME`` (a dot ends the key, so that every file is a WebDataset shard too):

================================= ==================================================================================
``NAME.xyz.npy``                  [N 3] float32, metres, z up
``NAME.rgb.npy``                  [N 3] uint8, if known; so are the next three
``NAME.normal.npy``               [N 3] float32, unit
``NAME.labels.npy``               [N] int32 raw ids: numbers of the dataset's own files
``NAME.instances.npy``            [N] int32; -1 where there is none
``NAME.intrinsics.npy``           [V 3 3] float64, and ``NAME.world_from_cam.npy`` [V 4 4] float64; if there are views
``NAME.f000012.color.jpg``        [H W 3], of view 12; all views of a scene have one size
``NAME.f000012.depth.png``        [H W] 16 bit plane depth, 0 for none
``NAME.f000012.label.png``        [H W] 16 bit raw ids, if known
``NAME.f000012.instance.png``     [H W] 16 bit instance number plus 1, if known; 0 for none
``NAME.index.json``               ``SceneIndex``
================================= ==================================================================================

Offsets in the index count from the scene's first byte: a scene can be moved into another file as it is.
"""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.npy import npy_array
from ponder3d.data.raw.dataset import SCENE_NAME, Problem

VERSION = 1
BLOCK = 512
END = bytes(2 * BLOCK)
"""What a tar file ends with."""
_MAX_INDEX = 1 << 28


@dataclass(frozen=True)
class Member:
    """Where the bytes of a member are, and what they are."""

    offset: int
    """From the first byte of the scene."""
    size: int
    sha256: str


@dataclass(frozen=True)
class SceneIndex:
    """What there is of a scene."""

    name: str
    split: str
    source: str
    """What it was made from."""
    frames: tuple[str, ...]
    """Name of each view in the dataset's own files."""
    size: tuple[int, int] | None
    """(height, width) of the views."""
    depth_units: int
    """Depth units per metre."""
    points: int
    members: dict[str, Member]
    """By the part of the name after the scene's."""
    problems: tuple[Problem, ...]
    """Frames that were left out."""
    options: str
    """Fingerprint of the choices that it was prepared with."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "version": VERSION,
            "name": self.name,
            "split": self.split,
            "source": self.source,
            "frames": list(self.frames),
            "size": None if self.size is None else list(self.size),
            "depth_units": self.depth_units,
            "points": self.points,
            "members": {name: [m.offset, m.size, m.sha256] for name, m in self.members.items()},
            "problems": [problem_json(problem) for problem in self.problems],
            "options": self.options,
        }


def problem_json(problem: Problem) -> dict[str, str]:
    """A problem as JSON values."""
    return {"scene": problem.scene, "frame": problem.frame, "kind": problem.kind, "what": problem.what}


def parse_index(data: bytes, where: str) -> SceneIndex:
    """Read an index back.

    Args:
        data: JSON.
        where: what it is of, for messages.

    Raises:
        DataError: it is no index of this version.
    """
    try:
        record = json.loads(data)
        if record["version"] != VERSION:
            raise DataError(f"{where}: index of version {record['version']}; this is ponder3d for version {VERSION}")
        size = record["size"]
        index = SceneIndex(
            name=text(record["name"]),
            split=text(record["split"]),
            source=text(record["source"]),
            frames=tuple(text(frame) for frame in record["frames"]),
            size=None if size is None else (count(size[0]), count(size[1])),
            depth_units=count(record["depth_units"]),
            points=count(record["points"]),
            members={
                text(name): Member(count(offset), count(size), text(sha))
                for name, (offset, size, sha) in record["members"].items()
            },
            problems=tuple(parse_problem(problem) for problem in record["problems"]),
            options=text(record["options"]),
        )
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DataError(f"{where}: damaged index ({type(error).__name__}: {error})") from error
    if not SCENE_NAME.match(index.name):
        raise DataError(f"{where}: {index.name!r} is no name of a scene")
    return index


def parse_problem(record: dict[str, Any]) -> Problem:
    """A problem from JSON values; whatever is wrong with it is a KeyError, TypeError or ValueError."""
    return Problem(*(text(record[key]) for key in ("scene", "frame", "kind", "what")))


class SceneWriter:
    """Writes the members of one scene to a file, and its index at the end.

    Args:
        file: open for writing, at the scene's first byte.
        name: of the scene.
    """

    def __init__(self, file: BinaryIO | io.BytesIO, name: str):
        self._file, self._name = file, name
        self._position = 0
        self.members: dict[str, Member] = {}

    def add(self, member: str, data: bytes) -> None:
        """Append a member; ``member`` is its name after the scene's."""
        assert member not in self.members
        offset = self._append(member, data)
        self.members[member] = Member(offset, len(data), hashlib.sha256(data).hexdigest())

    def add_array(self, member: str, array: np.ndarray) -> None:
        """Append an array as a npy file."""
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
        self.add(member, buffer.getvalue())

    def finish(self, index: SceneIndex) -> tuple[int, Member]:
        """Append the index; returns the size of the scene in the file and where the index is."""
        data = json.dumps(index.to_json(), separators=(",", ":")).encode()
        if len(data) > _MAX_INDEX:
            raise DataError(f"{self._name}: {len(index.frames)} frames are too many for one scene; take every n-th")
        offset = self._append("index.json", data)
        return self._position, Member(offset, len(data), hashlib.sha256(data).hexdigest())

    def _append(self, member: str, data: bytes) -> int:
        self._file.write(_header(f"{self._name}.{member}", len(data)))
        self._file.write(data)
        self._file.write(_padding(len(data)))
        offset = self._position + BLOCK
        self._position = offset + len(data) + len(_padding(len(data)))
        return offset


def _header(name: str, size: int) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def verify(file: BinaryIO, index: SceneIndex, place: Member, where: str) -> None:
    """See that every byte of a scene is what was written: members, and what is between them.

    Args:
        file: at the scene's first byte; it is left behind the scene.
        index: of the scene.
        place: of the index.
        where: the file, for messages.

    Raises:
        DataError: naming the first member that is damaged.
    """
    position = 0
    for name, member in [*index.members.items(), ("index.json", place)]:
        head, data = file.read(BLOCK), file.read(member.size)
        rest = file.read(len(_padding(member.size)))
        expected = _header(f"{index.name}.{name}", member.size)
        is_whole = (head, rest, position + BLOCK) == (expected, _padding(member.size), member.offset)
        actual = hashlib.sha256(data).hexdigest()
        if not is_whole or actual != member.sha256:
            raise DataError(f"{where}: {index.name}.{name} is damaged: SHA-256 {actual}, expected {member.sha256}")
        position = member.offset + len(data) + len(rest)


def find_index(file: BinaryIO, where: str) -> tuple[int, Member, bytes]:
    """The index of the only scene of a tar file.

    Returns:
        The size of the scene, where its index is, and the index.

    Raises:
        DataError: the file is damaged or has not been finished.
    """
    length = file.seek(0, io.SEEK_END)
    position = 0
    while position + BLOCK <= length:
        file.seek(position)
        try:
            header = tarfile.TarInfo.frombuf(file.read(BLOCK), "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise DataError(f"{where}: damaged at byte {position} ({error})") from error
        end = position + BLOCK + header.size + -header.size % BLOCK
        if header.size < 0 or end > length:
            break
        if header.name.endswith(".index.json"):
            data = file.read(header.size)
            return end, Member(position + BLOCK, len(data), hashlib.sha256(data).hexdigest()), data
        position = end
    raise DataError(f"{where}: cut short, it has no index")


def read_array(data: bytes, where: str, shape: tuple[int | None, ...], kind: str) -> np.ndarray:
    """An array of a npy member; it can be written to.

    Args:
        data: the member.
        where: what it is, for messages.
        shape: what it must have; None for any length.
        kind: of the numbers, as in ``numpy.dtype.kind``: ``f``, ``i`` or ``u``.

    Raises:
        DataError: it is not such an array.
    """
    array = npy_array(data, where)
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind != kind:
        raise DataError(f"{where}: an array of {array.dtype} {array.shape}; expected kind {kind!r} and shape {shape}")
    return array.copy()  # torch takes what can be written to


def text(value: Any) -> str:
    """A JSON value that must be a text; a ValueError otherwise."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where there should be a text")
    return value


def count(value: Any) -> int:
    """A JSON value that must be a whole number, not negative; a ValueError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} where there should be a number from 0 on")
    return value
