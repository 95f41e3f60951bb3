"""Structured3D: rendered rooms, each seen by perspective cameras and by a panorama, from its zips or unpacked.

Layout, in ``Structured3D_*.zip`` or a directory::

    Structured3D/scene_00000/2D_rendering/485142/perspective/full/0/{rgb_rawlight,depth,semantic,instance}.png
                                                                   camera_pose.txt
                                                 panorama/full/{rgb_rawlight,depth,semantic,instance}.png
                                                 panorama/camera_xyz.txt

A room is a scene. Its points are what all its images saw, one for each voxel of 1 cm. The files' world has z up and is
kept, in metres rather than millimetres.

Cameras and images are described in ``data.raw.structured3d_images``. A pixel counts, in the cloud and in frames, if it
has a depth and a label and is not seen at a grazing angle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.raw import nyu40, structured3d_example
from ponder3d.data.raw.align import aligned
from ponder3d.data.raw.dataset import (
    LabelTable,
    Problem,
    RawDataset,
    RawDatasetConfig,
    RawFrame,
    RawPoints,
    RawScene,
    checked_scenes,
)
from ponder3d.data.raw.structured3d_files import Place, RoomFiles, list_rooms
from ponder3d.data.raw.structured3d_images import (
    IMAGES,
    Cloud,
    Seen,
    panorama_rays,
    parse_camera,
    perspective_rays,
    read_images,
    see,
)
from ponder3d.data.raw.text import parse_numbers
from ponder3d.data.raw.unusable import Unusable, unusable

_USED = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 15, 16, 17, 18, 19, 22, 24, 25, 32, 34, 35, 38, 39, 40)
TABLES = (
    LabelTable("structured3d25", nyu40.label_set(_USED), tuple((raw, row) for row, raw in enumerate(_USED))),
    LabelTable("nyu40", nyu40.label_set(), tuple((raw, raw - 1) for raw in nyu40.IDS)),
)
_KEPT = 1 << 28
"""Bytes of frames that are kept from reading the points until they are asked for: 80 of 640x360. Others are read
again."""
_PANORAMA = ("panorama/camera_xyz.txt", *(f"panorama/full/{name}" for name in IMAGES))


@dataclass(frozen=True)
class Structured3DConfig(RawDatasetConfig):
    """How Structured3D is read."""

    root: str = ""
    """Directory with Structured3D_*.zip, or with the unpacked Structured3D/scene_00000 and so on."""
    every: int = 1
    """Take every n-th perspective frame; the points are always those of all."""
    panoramas: bool = True
    """Panoramas make points too: they see all of a room, perspective frames a part of it."""
    max_side: int = 640
    """Frames are made smaller until their longer side is at most this many pixels; 0 keeps them."""

    def __post_init__(self):
        for name, fits, allowed in (
            ("every", self.every >= 1, "at least 1"),
            ("max_side", self.max_side == 0 or self.max_side >= 8, "0 or at least 8"),
        ):
            if not fits:
                raise ValueError(f"Structured3DConfig.{name} must be {allowed}, it is {getattr(self, name)}")

    def build(self) -> "Structured3D":
        """List the rooms of all archives.

        Raises:
            DataError: ``root`` holds no room that can be used.
        """
        return Structured3D(self)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether there are Structured3D_*.zip or scene_*/2D_rendering."""
        found = (root.glob("Structured3D_*.zip"), root.glob("Structured3D/scene_*"), root.glob("scene_*/2D_rendering"))
        return any(next(paths, None) is not None for paths in found)

    @staticmethod
    def write_example(root: Path) -> None:
        """Two zips: the frames and the panoramas of a room for training and of one for validation."""
        structured3d_example.write_example(root)


class Structured3D(RawDataset):
    """The rooms of Structured3D."""

    tables = TABLES
    known_ids = frozenset((0, *nyu40.IDS))
    depth_units = 1000

    def __init__(self, config: Structured3DConfig):
        root = Path(config.root)
        if not config.root or not root.is_dir():
            raise DataError(f"{config.root or 'Structured3DConfig.root'}: no such directory")
        problems: list[Problem] = []
        rooms = list_rooms(root, problems)
        scenes = [room for name, files in rooms.items() if (room := _list_room(name, files, config, problems))]
        if not scenes:
            found = f" ({len(problems)} problems, first: {min(problems)})" if problems else ""
            raise DataError(f"{root}: no room that can be used in its files{found}")
        self.scenes = checked_scenes(scenes, str(root))
        self.problems = tuple(sorted(problems))


@dataclass(frozen=True, eq=False)
class Structured3DRoom(RawScene):
    """One room."""

    name: str
    split: str
    source: str
    files: dict[str, dict[str, Place]]
    """Those of each frame that can be used, frames that ``every`` passes over included."""
    panorama: dict[str, Place]
    """Files of the panorama; empty if it is not used."""
    max_side: int
    frames: tuple[str, ...] = ()

    def read_points(self) -> RawPoints:
        """What the images of the room saw; those that cannot be used are in its ``problems``.

        Raises:
            DataError: none of the images can be used.
        """
        cloud, problems, wanted = Cloud(), [], set(self.frames)
        free = _KEPT
        for name in (*self.files, *(["panorama"] if self.panorama else [])):
            try:
                if name == "panorama":
                    cloud.add(self._panorama())
                    continue
                seen, matrix, pose = self._seen(name)
                cloud.add(seen)
                if self._kept is not None and name in wanted and free > 0:
                    frame = self._kept[name] = self._frame(name, seen, matrix, pose)
                    free -= frame.nbytes
            except Unusable as error:
                problems.append(Problem(self.name, name, error.kind, str(error)))
        points = cloud.points(tuple(problems))
        if points is None:
            listed = "; ".join(map(str, problems[:3])) or "no pixel has a depth and a label"
            raise DataError(f"{self.source}: no image of the room can be used ({listed})")
        return points

    def read_frames(self, names: Sequence[str]) -> Iterator[RawFrame | Problem]:
        """Perspective frames; depth is where a pixel counts."""
        kept = self._kept or {}
        for name in names:
            try:
                yield kept.pop(name, None) or self._frame(name, *self._seen(name))
            except Unusable as error:
                yield Problem(self.name, name, error.kind, str(error))

    def _frame(self, name: str, seen: Seen, matrix: np.ndarray, pose: np.ndarray) -> RawFrame:
        images = seen.images
        depth = np.where(seen.counts, images.depth, np.float32(0))
        return aligned(name, pose, images.rgb, depth, (None, matrix), self.max_side, images.labels, images.instances)

    def _seen(self, name: str) -> tuple[Seen, np.ndarray, np.ndarray]:
        """What a frame saw, its intrinsics and its pose."""
        folder, files = f"perspective/full/{name}/", self.files[name]
        images = read_images({file: (place, folder + file) for file, place in files.items()})
        with unusable("pose"):
            place, file = files["camera_pose.txt"], f"{folder}camera_pose.txt"
            pose, matrix = parse_camera(place.read(file), place.where(file), images.depth.shape)
            return see(images, pose[:3, 3], perspective_rays(pose, matrix, images.depth.shape)), matrix, pose

    def _panorama(self) -> Seen:
        images = read_images({name.split("/")[-1]: (place, name) for name, place in self.panorama.items()})
        with unusable("pose"):
            place, file = self.panorama["panorama/camera_xyz.txt"], "panorama/camera_xyz.txt"
            origin = parse_numbers(place.read(file), place.where(file), (3,), "position in mm") / 1000
            return see(images, origin, panorama_rays(images.depth.shape), around=True)


def _list_room(
    name: str, files: RoomFiles, config: Structured3DConfig, problems: list[Problem]
) -> Structured3DRoom | None:
    number = int(files.scene.removeprefix("scene_"))
    places = list(files.places.values())
    source = places[0].where("").rstrip("/")
    needed = {"camera_pose.txt", *IMAGES}
    if any("instance.png" in found for found in files.frames.values()):  # early releases have none
        needed.add("instance.png")
    usable = {}
    for frame, found in sorted(files.frames.items(), key=lambda item: (int(item[0]), item[0])):
        if missing := needed - set(found):
            where = next(iter(found.values())).where(f"perspective/full/{frame}")
            problems.append(Problem(name, frame, "file", f"{where}: no {' and no '.join(sorted(missing))}; left out"))
        else:
            usable[frame] = found
    if not files.frames:
        problems.append(
            Problem(name, "", "file", f"{source}: no perspective frames of this room; is an archive missing?")
        )
    panorama = files.panorama if config.panoramas else {}
    missing = [file for file in _PANORAMA if file not in panorama]
    if config.panoramas and missing:
        what = f"{source}: no {' and no '.join(missing)}; the room is what its frames saw. Is an archive missing?"
        problems.append(Problem(name, "panorama", "file", what))
        panorama = {}
    if not usable and not panorama:
        problems.append(Problem(name, "", "file", f"{source}: nothing to make points of; the room is left out"))
        return None
    return Structured3DRoom(
        name=name,
        split="train" if number < 3000 else "val" if number < 3250 else "test",
        source=source,
        files=usable,
        panorama=panorama,
        max_side=config.max_side,
        frames=tuple(usable)[:: config.every],
    )
