"""The files of Structured3D, in the zips that it comes in or unpacked. Zips are read in place.

The central directory of a zip is read once to list rooms, and once more by each process that reads images from it.
"""

import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.raw.dataset import SCENE_NAME, Problem
from ponder3d.data.raw.text import read_small

_MEMBER = re.compile(
    r"(?:Structured3D/)?(scene_\d{5})/2D_rendering/([A-Za-z0-9_-]+)/"
    r"(perspective/full/(\d+)/)?(panorama/(?:full/)?)?([a-z_]+\.(?:png|txt))$"
)
_PART = re.compile(r"(Structured3D_.+)_(\d\d)\.zip$")
_KEPT = frozenset(
    ("rgb_rawlight.png", "depth.png", "semantic.png", "instance.png", "camera_pose.txt", "camera_xyz.txt")
)
_LARGEST = 1 << 26
"""Bytes of a file; the colour of a panorama has about 1 MB."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Place:
    """Where some files of a room are: a zip, or a directory, and what their names begin with there."""

    path: Path
    prefix: str

    def read(self, name: str) -> bytes:
        """A file of the room, such as ``panorama/camera_xyz.txt``.

        Raises:
            DataError: it is not there, damaged, or absurdly large.
        """
        if self.path.suffix != ".zip":
            path = self.path / self.prefix / name
            if name.endswith(".txt"):
                return read_small(path)
            try:
                if path.stat().st_size > _LARGEST:
                    raise DataError(f"{path}: larger than {_LARGEST >> 20} MiB; it is not the file that it should be")
                return path.read_bytes()
            except OSError as error:
                raise_if_of_machine(error, path)
                raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        try:
            state = self.path.stat()
            archive = _opened(str(self.path), state.st_size, state.st_mtime_ns, os.getpid())
            info = archive.getinfo(self.prefix + name)
            if info.file_size > _LARGEST or info.compress_type not in _METHODS:
                raise DataError(f"{self.where(name)}: not a deflated file of at most {_LARGEST >> 20} MiB")
            return archive.read(info)
        except DataError:
            raise
        except Exception as error:  # zipfile raises almost anything on damaged archives
            raise_if_of_machine(error, self.path)
            raise DataError(f"{self.where(name)}: cannot be read ({type(error).__name__}: {error})") from error

    def where(self, name: str) -> str:
        """What messages call a file."""
        return f"{self.path}{':' if self.path.suffix == '.zip' else '/'}{self.prefix}{name}"


@lru_cache(maxsize=4)
def _opened(path: str, size: int, changed: int, process: int) -> zipfile.ZipFile:
    """An open archive of this process: a forked one would share, and move, the position in the file."""
    return zipfile.ZipFile(path)


@dataclass
class RoomFiles:
    """What there is of a room."""

    scene: str
    """``scene_00000``."""
    frames: dict[str, dict[str, Place]]
    """Files of each perspective frame, by name."""
    panorama: dict[str, Place]
    """Files of the panorama, by their names below the room."""
    places: dict[Path, Place]
    """All that occur."""


def list_rooms(root: Path, problems: list[Problem]) -> dict[str, RoomFiles]:
    """Rooms by name (``scene_00000-room_485142``); archives that cannot be read, and odd names, go to ``problems``.

    Raises:
        DataError: there is neither an archive ``Structured3D_*.zip`` nor a directory ``scene_*``.
    """
    zips = sorted(root.glob("Structured3D_*.zip"))
    tree = root / "Structured3D" if (root / "Structured3D").is_dir() else root
    scenes = sorted(path for path in tree.glob("scene_*") if path.is_dir())
    if not zips and not scenes:
        raise DataError(f"{root}: no Structured3D_*.zip and no Structured3D/scene_00000 in it")
    archives = [path for path in zips if SCENE_NAME.match(path.stem)]
    problems += [_odd_name(path) for path in zips if path not in archives]
    problems += _missing_parts(archives)
    rooms: dict[str, RoomFiles] = {}
    for scene in scenes:
        for member in _tree_members(tree, scene):
            _add(rooms, tree, member)
    for path in archives:
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except Exception as error:  # zipfile raises almost anything on damaged archives
            raise_if_of_machine(error, path)
            what = f"{path}: no zip that can be read ({type(error).__name__}: {error}); fetch it again"
            problems.append(Problem(path.stem, "", "file", what))
            continue
        for member in members:
            if member.startswith("/") or "\\" in member or ".." in member.split("/") or ":" in member:
                what = f"{path}: {member[:200]!r} is no name of a file below the archive; left out"
                problems.append(Problem(path.stem, "", "file", what))
            else:
                _add(rooms, path, member)
    return rooms


def _odd_name(path: Path) -> Problem:
    """An archive that its publisher did not name so, such as ``Structured3D_panorama_00 (1).zip``: a second download of
    one that is there has the same rooms, or is not whole."""
    name = re.split(r"[^A-Za-z0-9_-]", path.stem)[0]
    what = f"{path}: left out; if it is no second download of {name}.zip, and whole, rename it to that"
    return Problem(name, "", "duplicate", what)


def _missing_parts(archives: list[Path]) -> Iterator[Problem]:
    """Numbered archives that have a later part beside them but are not there."""
    parts: dict[str, list[int]] = {}
    for path in archives:
        if match := _PART.match(path.name):
            parts.setdefault(match[1], []).append(int(match[2]))
    for stem, numbers in sorted(parts.items()):
        for number in sorted(set(range(max(numbers))) - set(numbers)):
            part = f"{stem}_{number:02}"
            what = f"{archives[0].parent / part}.zip: not there, though later parts are; its scenes are missing"
            yield Problem(part, "", "file", what)


def _tree_members(tree: Path, scene: Path) -> Iterator[str]:
    for folder, _, files in os.walk(scene / "2D_rendering"):
        for name in files:
            if name in _KEPT:
                yield Path(folder, name).relative_to(tree).as_posix()


def _add(rooms: dict[str, RoomFiles], path: Path, member: str) -> None:
    """Note a file if it is one that is read. What is there twice is read where it was found first."""
    match = _MEMBER.match(member)
    if not match or match[6] not in _KEPT or (match[3] is None) == (match[5] is None):
        return
    scene, room, _, frame, panorama, name = match.groups()
    files = rooms.setdefault(f"{scene}-room_{room}", RoomFiles(scene, {}, {}, {}))
    place = files.places.setdefault(path, Place(path, member[: match.end(2)] + "/"))
    if frame is not None:
        files.frames.setdefault(frame, {}).setdefault(name, place)
    elif (name == "camera_xyz.txt") == (panorama == "panorama/"):
        files.panorama.setdefault(panorama + name, place)
