"""S3DIS (Stanford3dDataset v1.2), and the frames of 2D-3D-S that see its rooms.

Layout: ``Area_1/office_1/Annotations/chair_2.txt`` with a line ``x y z r g b`` per point, in metres and 0..255, and
``Area_1/Area_1_alignmentAngle.txt``. A room is a scene, its annotation files in the order of their names are its
points, a file is an instance. The releases have no normals. The ``_Aligned_Version`` has the same layout.

Frames (``frames_root``) are described in ``data.raw.s3dis_frames``.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.raw import s3dis_frames
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
from ponder3d.data.raw.example_room import COLOURS, SURFACES, ExampleRoom
from ponder3d.data.raw.surface import Surface
from ponder3d.data.raw.text import read_points, read_small
from ponder3d.data.raw.unusable import Unusable
from ponder3d.types import LabelSet

LABELS = LabelSet(
    names=(
        *("ceiling", "floor", "wall", "beam", "column", "window", "door"),
        *("table", "chair", "sofa", "bookcase", "board", "clutter"),
    ),
    palette=(
        *((0, 255, 0), (0, 0, 255), (0, 255, 255), (255, 255, 0), (255, 0, 255), (100, 100, 255), (200, 200, 100)),
        *((170, 120, 200), (255, 0, 0), (200, 100, 100), (10, 200, 100), (200, 200, 200), (50, 50, 50)),
    ),
)
"""The 13 classes in the order of the benchmark, in PointNet's colours."""
STAIRS, OTHER = 14, 15
"""Raw ids are 0 for nothing, 1 to 13 for the classes, and these for stairs and for words that are no class."""
TABLE = LabelTable("s3dis", LABELS, (*((row + 1, row) for row in range(13)), (STAIRS, LABELS.names.index("clutter"))))
"""Stairs, which a few rooms have, count as clutter."""

_AREA = re.compile(r"Area_(\d+)$")
_COPY = re.compile(r"(.+) \(\d+\)\.txt$")
"""What a file manager calls a second copy: Area_5/office_36 was published with ``wall_3 (1).txt``."""


@dataclass(frozen=True)
class S3DISConfig(RawDatasetConfig):
    """How S3DIS is read."""

    root: str = ""
    """Directory Stanford3dDataset_v1.2, which holds Area_1 to Area_6."""
    every: int = 1
    """Take every n-th frame."""
    frames_root: str = ""
    """Directory of 2D-3D-S (noXYZ) with area_1, ..., area_5a, area_5b, area_6; empty: no frames."""
    val_area: int = 5
    """The area that is held out, as ``val``; 1 to 6, one after the other, make the 6-fold protocol."""
    align_angle: bool = False
    """Turn every room, and its cameras, by the angle of its area's alignmentAngle.txt so that walls follow the axes."""
    max_side: int = 640
    """Frames are made smaller until their longer side is at most this many pixels; 0 keeps them."""
    min_seen: float = 0.25
    """Share of a frame's pixels that must have a depth within 0.1 m of the room's points; others look elsewhere."""

    def __post_init__(self):
        for name, fits, allowed in (
            ("every", self.every >= 1, "at least 1"),
            ("val_area", 1 <= self.val_area <= 6, "from 1 to 6"),
            ("max_side", self.max_side == 0 or self.max_side >= 8, "0 or at least 8"),
            ("min_seen", 0 <= self.min_seen <= 1, "from 0 to 1"),
        ):
            if not fits:
                raise ValueError(f"S3DISConfig.{name} must be {allowed}, it is {getattr(self, name)}")

    def build(self) -> "S3DIS":
        """List the rooms.

        Raises:
            DataError: ``root`` has no areas with rooms, an alignment file that is asked for is missing or damaged, or
                frames are asked for that do not fit.
        """
        return S3DIS(self)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether there is an ``Area_*/*/Annotations``."""
        return next(root.glob("Area_*/*/Annotations"), None) is not None

    @staticmethod
    def write_example(root: Path) -> None:
        """A room in Area_1 and one in Area_5; what ``frames_root`` takes is in ``frames``."""
        for number, (area, name, half_width) in enumerate((("1", "office_1", 2.0), ("5", "hallway_6", 1.8))):
            room = ExampleRoom(half_width=half_width)
            folder = root / f"Area_{area}" / name / "Annotations"
            folder.mkdir(parents=True)
            xyz, surface = room.points()
            lines = [
                f"{x:.3f} {y:.3f} {z:.3f} {r} {g} {b}"
                for (x, y, z), (r, g, b) in zip(xyz, COLOURS[surface], strict=True)
            ]
            for s, word in enumerate(SURFACES):
                own = [line for line, at in zip(lines, surface, strict=True) if at == s]
                (folder / f"{word}_{s + 1}.txt").write_text("\n".join(own) + "\n")
            angles = f"## Global alignment angle per disjoint space in Area_{area} ##\n{name} {90 * number}\n"
            (root / f"Area_{area}" / f"Area_{area}_alignmentAngle.txt").write_text(angles)
            s3dis_frames.write_example(root / "frames", room, f"{area}b" if area == "5" else area, name)


class S3DIS(RawDataset):
    """The rooms of S3DIS."""

    tables = (TABLE,)
    known_ids = frozenset(range(OTHER + 1))
    depth_units = 4000

    def __init__(self, config: S3DISConfig):
        root = Path(config.root)
        if not config.root or not root.is_dir():
            raise DataError(f"{config.root or 'S3DISConfig.root'}: no such directory; name Stanford3dDataset_v1.2")
        aligned = root.name.endswith("Aligned_Version")
        if aligned and (config.align_angle or config.frames_root):
            option = "align_angle" if config.align_angle else "frames_root"
            raise DataError(f"{root}: {option} needs Stanford3dDataset_v1.2; these rooms have been turned already")
        frames, problems = s3dis_frames.Frames({}), []
        if config.frames_root:
            frames = s3dis_frames.find_frames(Path(config.frames_root), problems)
        scenes: list[S3DISRoom] = []
        for area in sorted(path for path in root.iterdir() if _AREA.match(path.name) and path.is_dir()):
            angles = _read_angles(area / f"{area.name}_alignmentAngle.txt") if config.align_angle else None
            for room in sorted(path for path in area.iterdir() if path.is_dir() and not path.name.startswith(".")):
                scene = _list_room(area, room, angles, frames, config, problems)
                if scene is not None:
                    scenes.append(scene)
        if not scenes:
            raise DataError(f"{root}: no rooms found; it should hold Area_1/office_1/Annotations and the like")
        problems += frames.problems_of_others({scene.name for scene in scenes})
        self.scenes = checked_scenes(scenes, str(root))
        self.problems = tuple(problems)


@dataclass(frozen=True, eq=False)
class S3DISRoom(RawScene):
    """One room."""

    name: str
    split: str
    source: str
    files: tuple[tuple[Path, int], ...]
    """Annotation files and their raw ids; the position of a file is the number of its instance."""
    angle: float
    """Degrees; 0 leaves the room as it is."""
    folders: dict[str, Path]
    """Where each frame's files are."""
    max_side: int
    min_seen: float
    frames: tuple[str, ...] = ()

    def read_points(self) -> RawPoints:
        """The points of all annotation files.

        Raises:
            DataError: a file cannot be read, has no points, or has more than 100 broken lines.
        """
        return self._turned()[0]

    def read_frames(self, names: Sequence[str]) -> Iterator[RawFrame | Problem]:
        """Frames without distortion; depth and labels are where the room's points are within 0.1 m.

        Raises:
            DataError: see ``read_points``.
        """
        cloud, turn = self._turned()
        surface = Surface(cloud, self.source)
        for name in names:
            try:
                yield s3dis_frames.read_frame(self.folders[name], name, turn, surface, self.max_side, self.min_seen)
            except Unusable as error:
                yield Problem(self.name, name, error.kind, str(error))

    def _turned(self) -> tuple[RawPoints, np.ndarray]:
        """The cloud, and the [4 4] motion that ``align_angle`` applied to it."""
        return self.kept("cloud", self._read)

    def _read(self) -> tuple[RawPoints, np.ndarray]:
        parts, problems = [], []
        for path, _ in self.files:
            part = read_points(path)
            parts.append(part)
            problems += [Problem(self.name, "", "points", f"{path}: {note}") for note in part.notes]
        counts = [len(part.xyz) for part in parts]
        xyz = np.concatenate([part.xyz for part in parts])
        motion = _turn(xyz, self.angle)
        if self.angle:
            xyz = (xyz @ motion[:3, :3].T + motion[:3, 3]).astype(np.float32)
        cloud = RawPoints(
            xyz=xyz,
            rgb=np.concatenate([part.rgb for part in parts]),
            labels=np.repeat(np.array([raw for _, raw in self.files], dtype=np.int32), counts),
            instances=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            problems=tuple(problems),
        )
        return cloud, motion


def _list_room(
    area: Path,
    room: Path,
    angles: dict[str, float] | None,
    frames: s3dis_frames.Frames,
    config: S3DISConfig,
    problems: list[Problem],
) -> S3DISRoom | None:
    name = f"{area.name}-{room.name}"
    folder = room / "Annotations"
    if not folder.is_dir():
        problems.append(Problem(name, "", "file", f"{folder}: no such directory; the room is left out"))
        return None
    files = []
    for path in sorted(folder.glob("[!.]*.txt")):  # hidden ones, such as ._chair_1.txt of macOS, are no points
        copy = _COPY.match(path.name)
        if copy and path.with_name(f"{copy[1]}.txt").exists():
            problems.append(Problem(name, "", "duplicate", f"{path}: a copy of {copy[1]}.txt; left out"))
            continue
        word = path.name.split("_")[0].removesuffix(".txt")
        raw = LABELS.names.index(word) + 1 if word in LABELS.names else STAIRS if word == "stairs" else OTHER
        if raw == OTHER:
            problems.append(Problem(name, "", "label", f"{path}: {word!r} is no class; its points get none"))
        files.append((path, raw))
    if not files:
        problems.append(Problem(name, "", "file", f"{folder}: no annotation files; the room is left out"))
        return None
    if angles is not None and room.name not in angles:
        raise DataError(f"{area / f'{area.name}_alignmentAngle.txt'}: no angle of {room.name}; turn align_angle off")
    number = int(area.name.removeprefix("Area_"))
    found = frames.rooms.get(name, [])[:: config.every]
    return S3DISRoom(
        name=name,
        split="val" if number == config.val_area else "train",
        frames=tuple(frame for frame, _ in found),
        source=str(room),
        files=tuple(files),
        angle=angles[room.name] if angles is not None else 0.0,
        folders=dict(found),
        max_side=config.max_side,
        min_seen=config.min_seen,
    )


def _read_angles(path: Path) -> dict[str, float]:
    """Degrees of each room: lines ``office_1 180`` after comments that begin with #."""
    angles = {}
    for number, line in enumerate(read_small(path).decode("latin-1").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            name, degrees = words
            angles[name] = float(degrees)
        except ValueError as error:
            raise DataError(f"{path}: line {number} is not the name of a room and an angle ({error})") from error
        if not np.isfinite(angles[name]):
            raise DataError(f"{path}: line {number}: the angle is not finite")
    return angles


def _turn(xyz: np.ndarray, degrees: float) -> np.ndarray:
    """[4 4]: about the vertical through the middle of the room's box, by the angle that undoes ``degrees``."""
    angle = (2 - degrees / 180) * np.pi
    centre = (xyz.max(0).astype(np.float64) + xyz.min(0)) / 2
    motion = np.eye(4)
    if degrees:
        motion[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        motion[:3, 3] = centre - motion[:3, :3] @ centre
    return motion
