"""PandaSet in its official layout.

::

    ROOT/002/
        lidar/59.pkl.gz             a DataFrame with a row per point: x y z in the world, i (0..255), t, d (the laser)
        lidar/poses.json            the vehicle in the world at each frame; lidar/timestamps.json
        camera/front_camera/        59.jpg, poses.json, timestamps.json, intrinsics.json, and so for six cameras
        annotations/semseg/         59.pkl.gz, a class per point, and classes.json; some drives have none
        annotations/cuboids/        59.pkl.gz, a row per box

Scenes are in the frame of ``lidar/poses.json``: x right, y forward, z up, with its origin near the axis of the spinning
laser, but low in the vehicle, some 0.4 m above the road. ``PandaSetConfig.raised`` brings it up to the laser, where
other recordings have it.

Two lasers measure together, one that spins (``d`` 0) and one that looks forward (``d`` 1). What moves was annotated for
each of them; where both are used, the box of the spinning one stays.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.checks import check_pinhole, check_times, rigid, rotation_of
from ponder3d.data.driving.classes import PANDASET_BOXES, PANDASET_POINTS, STREET_LABELS
from ponder3d.data.driving.dataset import DrivingConfig, DrivingDataset
from ponder3d.data.driving.drive import Drive, Shot, Sweep
from ponder3d.data.driving.json_files import entry, numbers, read_json
from ponder3d.data.driving.pandas_pickle import read_table
from ponder3d.data.raw.rgbd import table_of
from ponder3d.data.rgbd_images import read_rgb
from ponder3d.types import Boxes, LabelSet

CAMERAS = ("front_camera", "front_right_camera", "right_camera", "back_camera", "left_camera", "front_left_camera")
"""Front first, then clockwise."""
LASERS = {"all": (0, 1), "spinning": (0,), "forward": (1,)}
_BRIGHTEST = 255.0


@dataclass(frozen=True)
class PandaSetConfig(DrivingConfig):
    """PandaSet, read as it is published."""

    beside_points = (*DrivingConfig.beside_points, "classes")

    root: str = ""
    """The directory that holds 001, 002, ..."""
    split: Literal["train", "held_out"] = "train"
    """Frames to train on, or those held out."""
    drives: tuple[str, ...] = ()
    """Names of the drives; empty: all."""
    frames: tuple[int, ...] = ()
    """First and last number of the frames to train on, as files have them; empty: all that are not held out."""
    test_frames: tuple[int, ...] = ()
    """First and last number of the frames that are held out, of each drive; empty: the last fifth of those it has."""
    classes: Literal["native", "nuscenes"] = "native"
    """The 42 classes of PandaSet, or the 16 of nuScenes that they belong to."""
    lasers: Literal["all", "spinning", "forward"] = "all"
    """Whose points."""
    raised: float = 0.0
    """Metres by which the origin of scenes is above that of ``lidar/poses.json``."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("frames", "test_frames"):
            ends = getattr(self, name)
            if len(ends) not in (0, 2) or list(ends) != sorted(ends):
                raise ValueError(f"PandaSetConfig.{name} must be the first and the last number, it is {ends}")
        if self.frames and self.test_frames:
            first, last = max(self.frames[0], self.test_frames[0]), min(self.frames[1], self.test_frames[1])
            if first <= last:
                raise ValueError(f"PandaSetConfig.test_frames: frame {first} is one of frames too; hold out others")
        if not math.isfinite(self.raised):
            raise ValueError(f"PandaSetConfig.raised must be a number of metres, it is {self.raised}")

    def build(self) -> DrivingDataset:
        """Find the drives, read poses and timestamps."""
        if not self.root:
            raise DataError("PandaSetConfig.root is empty: name the directory, e.g. --data.root DIR")
        root = Path(self.root)
        if not root.is_dir():
            raise DataError(f"{root}: no such directory")
        found = sorted(path.name for path in root.iterdir() if (path / "lidar").is_dir())
        if not found:
            raise DataError(f"{root}: no drive such as 002, with a folder lidar; is it the directory of PandaSet?")
        lacking = [name for name in self.drives if name not in found]
        if lacking:
            raise DataError(f"{root}: drives: no {lacking[0]}; there are {', '.join(found)}")
        cameras = (self.cameras or CAMERAS) if self.images else ()
        drives = [
            PandaSetDrive(root / n, self.classes, self.lasers, cameras, self.raised) for n in self.drives or found
        ]
        frames = [self._chosen(drive.numbers) for drive in drives]
        if not any(frames):
            numbers = sorted({number for drive in drives for number in drive.numbers})
            raise DataError(
                f"{root}: no frame is {'held out' if self.split == 'held_out' else 'left to train on'}: files are "
                f"numbered from {numbers[0]} to {numbers[-1]}; change --data.frames or --data.test-frames"
            )
        labels = _labels(drives, self.classes)
        bare = [drive.path for drive in drives if not drive.names] if labels is not None else []
        skipped = [f"{path / 'annotations/semseg'}: not there; the points of this drive have no class" for path in bare]
        return DrivingDataset(self, drives, labels, frames, skipped)

    def _chosen(self, numbers: Sequence[int]) -> list[int]:
        """Places of the frames that are scenes, of those with these numbers."""
        last_fifth = len(numbers) - round(len(numbers) / 5)
        first, last = self.test_frames or (numbers[last_fifth] if last_fifth < len(numbers) else math.inf, math.inf)
        held = [first <= number <= last for number in numbers]
        if self.split == "held_out":
            return [i for i, out in enumerate(held) if out]
        wanted = [not self.frames or self.frames[0] <= number <= self.frames[1] for number in numbers]
        return [i for i, out in enumerate(held) if wanted[i] and not out]

    def held_out(self) -> "PandaSetConfig":
        """The frames that are held out, of the same drives."""
        return replace(self, split="held_out")


def _labels(drives: "Sequence[PandaSetDrive]", classes: str) -> LabelSet | None:
    named = [drive for drive in drives if drive.names]
    if not named:
        return None
    for drive in named:
        if drive.names != named[0].names:
            raise DataError(f"{drive.path / 'annotations/semseg/classes.json'}: other classes than {named[0].name} has")
    return STREET_LABELS if classes == "nuscenes" else table_of(named[0].names).labels


class PandaSetDrive(Drive):
    """One folder of PandaSet; all its frames are key frames."""

    def __init__(
        self,
        path: Path,
        classes: str = "native",
        lasers: str = "all",
        cameras: Sequence[str] = CAMERAS,
        raised: float = 0.0,
    ):
        """Args:
            path: the folder, such as ``ROOT/002``.
            classes: ``native`` or ``nuscenes``.
            lasers: one of ``LASERS``.
            cameras: those that have to be there.
            raised: metres from the origin of ``lidar/poses.json`` up to that of sweeps.

        Raises:
            DataError: see ``Drive``.
        """
        self.path, self.name, self.cameras = path, path.name, tuple(cameras)
        self._lasers = LASERS[lasers]
        self.numbers = _numbers(path / "lidar")
        """What files of each frame are called."""
        up = np.eye(4)
        up[2, 3] = raised
        self._poses = [pose @ up for pose in self._read_poses(path / "lidar")]
        self._seconds = self._read_times(path / "lidar")
        self._cameras = {name: self._camera(path / "camera" / name) for name in cameras}
        self.names = self._read_names(path / "annotations" / "semseg")
        """Name of each number of a class; empty for a drive whose points have none."""
        self._rows = _class_rows(self.names, classes, str(path / "annotations/semseg/classes.json"))

    def __len__(self) -> int:
        return len(self.numbers)

    def seconds(self, frame: int) -> float:
        """As ``lidar/timestamps.json`` has it."""
        return self._seconds[frame]

    def frame_name(self, frame: int) -> str:
        """Such as ``002-59``."""
        return f"{self.name}-{self.numbers[frame]:02d}"

    def sweep(self, frame: int) -> Sweep:
        """Of ``lidar``, with labels of ``annotations/semseg``."""
        return self._sweep(frame, bool(self.names))

    def earlier(self, frame: int, number: int) -> list[Sweep]:
        """The frames before."""
        return [self._sweep(before, False) for before in range(frame - 1, max(frame - 1 - number, -1), -1)]

    def shots(self, frame: int, cameras: Sequence[str]) -> list[Shot]:
        """Of ``camera``."""
        return [self._shot(frame, name) for name in cameras]

    def shot_names(self, frame: int, cameras: Sequence[str]) -> tuple[str, ...]:
        """Such as ``front_camera/59``."""
        return tuple(f"{name}/{self.numbers[frame]:02d}" for name in cameras)

    def boxes(self, frame: int) -> Boxes | None:
        """Of ``annotations/cuboids``, those of the ten detection classes. A velocity is that of the cuboid from the
        frame before to the frame after, as far as it is in them."""
        if not (self.path / "annotations" / "cuboids").is_dir():
            return None
        around = {i: self._cuboids(i) for i in range(max(frame - 1, 0), min(frame + 2, len(self)))}
        own = around[frame]
        centre = {i: {uuid: place for uuid, place in zip(c.uuid, c.centre, strict=True)} for i, c in around.items()}
        velocity = np.full((len(own.uuid), 2), np.nan)
        for row, uuid in enumerate(own.uuid):
            seen = [i for i in around if uuid in centre[i]]
            if len(seen) > 1:
                way = centre[seen[-1]][uuid] - centre[seen[0]][uuid]
                velocity[row] = way[:2] / (self._seconds[seen[-1]] - self._seconds[seen[0]])
        keep = own.row >= 0
        turn, place = self._poses[frame][:3, :3], self._poses[frame][:3, 3]
        # A cuboid's length is along its y axis; ours, the heading, along x: a quarter turn.
        angle = own.yaw[keep] + math.pi / 2
        heading = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1) @ turn
        moving = np.concatenate([velocity[keep], np.zeros((int(keep.sum()), 1))], axis=1) @ turn
        return Boxes(
            centre=torch.from_numpy(((own.centre[keep] - place) @ turn).astype(np.float32)),
            size=torch.from_numpy(own.size[keep][:, [1, 0, 2]].astype(np.float32)),
            yaw=torch.from_numpy(np.arctan2(heading[:, 1], heading[:, 0]).astype(np.float32)),
            label=torch.from_numpy(own.row[keep]),
            velocity=torch.from_numpy(moving[:, :2].astype(np.float32)),
        )

    def _sweep(self, frame: int, labelled: bool) -> Sweep:
        path = self._file("lidar", frame, ".pkl.gz")
        x, y, z, i, d = _column_of(read_table(path), ("x", "y", "z", "i", "d"), path)
        mine = np.isin(d, self._lasers)
        pose = self._poses[frame]
        world = np.stack([x, y, z], axis=1)[mine]
        strength = i[mine] / _BRIGHTEST
        if strength.size and not (strength.min() >= 0 and strength.max() <= 1):
            raise DataError(f"{path}: i: from {i.min():g} to {i.max():g}; intensities are from 0 to {_BRIGHTEST:g}")
        labels = None
        if labelled:
            labels = torch.from_numpy(self._labels(frame, len(x))[mine])
        return Sweep(
            xyz=torch.from_numpy(((world - pose[:3, 3]) @ pose[:3, :3]).astype(np.float32)),
            intensity=torch.from_numpy(strength.astype(np.float32)),
            world_from_sensor=torch.from_numpy(pose),
            seconds=self._seconds[frame],
            source=str(path),
            labels=labels,
        )

    def _labels(self, frame: int, num: int) -> np.ndarray:
        """[N] rows of the classes, -1 for none."""
        path = self._file("annotations/semseg", frame, ".pkl.gz")
        (ids,) = _column_of(read_table(path), ("class",), path)
        if len(ids) != num:
            raise DataError(f"{path}: class: {len(ids)} classes for {num} points of lidar")
        found, inverse = np.unique(ids, return_inverse=True)
        strange = [value for value in found.tolist() if value and value not in self._rows]
        if strange:
            raise DataError(f"{path}: class: {strange[0]:g} is not in classes.json")
        return np.array([self._rows.get(value, -1) for value in found.tolist()], dtype=np.int64)[inverse]

    def _shot(self, frame: int, name: str) -> Shot:
        camera = self._cameras[name]
        path = self._file(f"camera/{name}", frame, ".jpg")
        pixels = read_rgb(path)
        check_pinhole(camera.intrinsics, (pixels.shape[0], pixels.shape[1]), str(path.parent / "intrinsics.json"))
        return Shot(
            rgb=torch.from_numpy(np.ascontiguousarray(pixels)),
            intrinsics=torch.from_numpy(camera.intrinsics),
            world_from_cam=torch.from_numpy(camera.poses[frame]),
            name=f"{name}/{self.numbers[frame]:02d}",
        )

    def _cuboids(self, frame: int) -> "_Cuboids":
        path = self._file("annotations/cuboids", frame, ".pkl.gz")
        table = read_table(path)
        columns = _column_of(
            table, (*(f"position.{a}" for a in "xyz"), *(f"dimensions.{a}" for a in "xyz"), "yaw"), path
        )
        texts = [table.get(name) for name in ("uuid", "label")]
        if any(text is None or not all(isinstance(value, str) for value in text) for text in texts):
            raise DataError(f"{path}: uuid or label: it lacks the column, or a value is no text")
        uuid, label = ([str(value) for value in text] for text in texts if text is not None)
        strange = [name for name in label if name not in PANDASET_BOXES]
        if strange:
            raise DataError(f"{path}: label: {strange[0]!r} is no class of PandaSet")
        rows = np.array([PANDASET_BOXES[name] for name in label], dtype=np.int64)
        # Annotated twice, once for each laser: the other's is left out, unless it is the only one.
        if "cuboids.sensor_id" in table and "cuboids.sibling_id" in table:
            other = 0 if self._lasers == LASERS["forward"] else 1
            twin = np.array([sibling in set(uuid) for sibling in table["cuboids.sibling_id"].tolist()], dtype=bool)
            rows[twin & (table["cuboids.sensor_id"] == other)] = -1
        return _Cuboids(uuid, np.stack(columns[:3], axis=1), np.stack(columns[3:6], axis=1), columns[6], rows)

    def _file(self, folder: str, frame: int, ending: str) -> Path:
        path = self.path / folder / f"{self.numbers[frame]:02d}{ending}"
        if not path.is_file():
            raise DataError(f"{path}: no such file; get it, or leave the frame out with --data.frames")
        return path

    def _read_poses(self, folder: Path) -> list[np.ndarray]:
        path = folder / "poses.json"
        poses = []
        for number, record in enumerate(self._list(path)):
            where = f"{path}: entry {number}"
            place = entry(record, "position", dict, where)
            turn = entry(record, "heading", dict, where)
            pose = np.eye(4)
            pose[:3, 3] = [_number(place, axis, f"{where}: position") for axis in "xyz"]
            pose[:3, :3] = rotation_of([_number(turn, axis, f"{where}: heading") for axis in "wxyz"], where, "heading")
            poses.append(rigid(pose, where, "pose").numpy())
        return poses

    def _read_times(self, folder: Path) -> list[float]:
        path = folder / "timestamps.json"
        times = numbers(self._list(path), ((len(self.numbers),),), str(path)).tolist()
        check_times(times, str(path))
        return times

    def _list(self, path: Path) -> list[Any]:
        """A JSON list with an entry per frame."""
        record = read_json(path)
        if not isinstance(record, list) or len(record) != len(self.numbers):
            found = len(record) if isinstance(record, list) else "no list of"
            first, last = self.numbers[0], self.numbers[-1]
            raise DataError(
                f"{path}: {found} entries; lidar has {len(self.numbers)} frames, from {first:02d} to {last:02d}: is "
                "one missing?"
            )
        return record

    def _camera(self, folder: Path) -> "_Camera":
        if not folder.is_dir():
            raise DataError(f"{folder}: no such directory; get it, or name the other cameras with --data.cameras")
        path = folder / "intrinsics.json"
        fx, fy, cx, cy = (_number(read_json(path), name, str(path)) for name in ("fx", "fy", "cx", "cy"))
        self._read_times(folder)
        return _Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), self._read_poses(folder))

    @staticmethod
    def _read_names(folder: Path) -> dict[int, str]:
        if not folder.is_dir():
            return {}
        path = folder / "classes.json"
        record = read_json(path)
        if not isinstance(record, dict) or not all(
            key.isascii() and key.isdigit() and len(key) < 6 and isinstance(name, str) for key, name in record.items()
        ):
            raise DataError(f'{path}: expected {{"1": "Smoke", ...}}')
        return {int(key): name for key, name in record.items()}


@dataclass(frozen=True, eq=False)
class _Camera:
    intrinsics: np.ndarray
    poses: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class _Cuboids:
    uuid: list[str]
    centre: np.ndarray
    """[K 3] in the world."""
    size: np.ndarray
    """[K 3]: width, length, height."""
    yaw: np.ndarray
    row: np.ndarray
    """Of the detection classes; -1 for what is left out."""


def _numbers(folder: Path) -> list[int]:
    """Numbers of the frames, which have no gaps."""
    names = [path.name.removesuffix(".pkl.gz") for path in folder.glob("*.pkl.gz")]
    found = sorted(int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 6)
    if not found:
        raise DataError(f"{folder}: no file of points such as 00.pkl.gz")
    gaps = sorted(set(range(found[0], found[-1] + 1)) - set(found))
    if gaps:
        raise DataError(
            f"{folder / f'{gaps[0]:02d}.pkl.gz'}: no such file, though there are later frames; get it: poses.json "
            "has no names, so that frames are told by counting"
        )
    return found


def _class_rows(names: dict[int, str], classes: str, where: str) -> dict[int, int]:
    if classes == "native":
        return dict(table_of(names).rows)
    strange = [name for name in names.values() if name not in PANDASET_POINTS]
    if strange:
        raise DataError(f"{where}: {strange[0]!r} is no class of PandaSet; take --data.classes native")
    return {number: PANDASET_POINTS[name] for number, name in names.items()}


def _column_of(table: dict[str, np.ndarray], names: Sequence[str], path: Path) -> list[np.ndarray]:
    """Columns of numbers."""
    for name in names:
        if name not in table:
            raise DataError(f"{path}: no column {name}, only {', '.join(table)}")
        if table[name].dtype.kind not in "fiu":
            raise DataError(f"{path}: {name}: of type {table[name].dtype}; expected numbers")
    return [table[name].astype(np.float64) for name in names]


def _number(record: Any, name: str, where: str) -> float:
    return float(entry(record, name, (int, float), where))
