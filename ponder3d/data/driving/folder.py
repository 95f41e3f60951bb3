"""Drives of one's own: a directory with a folder for each drive.

::

    ROOT/
        classes.json                what labels mean: {"0": "road", "1": "car"}, or
                                    {"names": [...], "ignore": [255], "palette": [[r, g, b], ...]}
        DRIVE/
            calibration.json        see below
            poses.txt               key frames, in the order of time: NAME seconds, and 12 or 16 numbers of the 4x4
                                    world_from_laser, row by row, by spaces or commas (then it may be poses.csv)
            lidar/NAME.*            points of each key frame
            sweeps.txt, sweeps/     the same for revolutions between key frames; optional
            cameras/CAMERA/NAME.*   jpg or png of each key frame and camera
            cameras/CAMERA/poses.txt  the camera itself at its exposures: NAME seconds world_from_camera; optional
            labels/NAME.npy         a number of classes.json per point; optional, then for every key frame
            boxes.json              {NAME: [{"class": ..., "centre": [x, y, z], "size": [length, width, height],
                                    "yaw": ..., "velocity": [vx, vy]}, ...]}; optional. In the laser's frame; the class
                                    one of the ten of ``classes.DETECTION_LABELS``; no velocity, or null: unknown

``calibration.json`` has up to three entries::

    {
        "laser": {
            "axes": "right forward up",                     or "forward left up", as KITTI and most vehicles have it
            "columns": ["x", "y", "z", "intensity"],        of npy and bin; others than these four are left alone
            "brightest": 1.0                                the intensity that counts as 1 (often 255)
        },
        "vehicle_from_laser": [[...], ...],                 if cameras are placed in the vehicle's frame
        "cameras": {
            "front": {
                "K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], pixel centres at integer coordinates, no distortion
                "size": [height, width],
                "laser_from_camera": [[...], ...]           or vehicle_from_camera; neither with cameras/front/poses.txt
            }
        }
    }

Cameras are in the order of the file, front first, then clockwise; their axes are x right, y down, z forward. The
laser's axes hold for points, poses, boxes and calibration alike; scenes are in "right forward up".

Points are in metres, in the laser's frame, with the vehicle's motion during the revolution taken out. They are ``.npy``
([N K]), ``.bin`` (float32, K a point), or what ``raw.point_files`` reads (``.ply``, ``.las``, ``.laz``, ``.npz``,
text). Of PLY and LAS the columns ``intensity`` or ``reflectance`` are read too; without one intensity is 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.checks import check_pinhole, check_times, rigid
from ponder3d.data.driving.classes import DETECTION_LABELS
from ponder3d.data.driving.dataset import DrivingConfig, DrivingDataset
from ponder3d.data.driving.drive import Drive, Shot, Sweep
from ponder3d.data.driving.folder_points import COLUMNS, read_cloud, read_labels
from ponder3d.data.driving.json_files import TimedPose, entry, numbers, read_json, read_poses
from ponder3d.data.raw.dataset import LabelTable
from ponder3d.data.raw.folder import read_labels_file
from ponder3d.data.rgbd_images import read_rgb
from ponder3d.types import Boxes

IMAGES = (".jpg", ".jpeg", ".png")
CLOUDS = (".npy", ".bin", ".ply", ".las", ".laz", ".npz", ".txt", ".xyz", ".pts")
AXES = {
    "right forward up": np.eye(4),
    "forward left up": np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
}
"""What turns a laser's axes into the scene's."""


@dataclass(frozen=True)
class DriveFolderConfig(DrivingConfig):
    """Drives of one's own; ``ponder3d.data.driving.folder`` describes the layout."""

    root: str = ""
    """The directory."""
    split: Literal["train", "held_out"] = "train"
    """Key frames to train on, or those held out."""
    drives: tuple[str, ...] = ()
    """Names of the drives; empty: all."""
    hold_out: float = 0.2
    """Share of each drive's key frames, its last, that is held out; 0 holds out none. Not used with ``test_drives``."""
    test_drives: tuple[str, ...] = ()
    """Drives that are held out as a whole, instead of the end of every drive."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.hold_out < 1:
            raise ValueError(f"DriveFolderConfig.hold_out must be at least 0 and below 1, it is {self.hold_out}")

    def build(self) -> DrivingDataset:
        """Find the drives and read what is small: calibration, poses, boxes."""
        if not self.root:
            raise DataError("DriveFolderConfig.root is empty: name the directory, e.g. --data.root DIR")
        root = Path(self.root)
        if not root.is_dir():
            raise DataError(f"{root}: no such directory")
        found = {path.name: path for path in sorted(root.iterdir()) if (path / "calibration.json").is_file()}
        if not found:
            raise DataError(
                f"{root}: no folder with a calibration.json; ponder3d.data.driving.folder describes the layout"
            )
        for field, names in (("drives", self.drives), ("test_drives", self.test_drives)):
            lacking = [name for name in names if name not in found]
            if lacking:
                raise DataError(f"{root}: {field}: no drive {lacking[0]}; there are {', '.join(found)}")
        classes = read_labels_file(root / "classes.json") if (root / "classes.json").is_file() else None
        drives = [FolderDrive(path, classes) for name, path in found.items() if name in (self.drives or found)]
        frames = [self._frames(drive) for drive in drives]
        if not any(frames):
            raise DataError(
                f"{root}: no key frame is {'held out' if self.split == 'held_out' else 'left to train on'}; change "
                "--data.hold-out or --data.test-drives"
            )
        return DrivingDataset(self, drives, None if classes is None else classes[1].labels, frames)

    def _frames(self, drive: Drive) -> range:
        num, held = len(drive), self.split == "held_out"
        if self.test_drives:
            return range(num if (drive.name in self.test_drives) == held else 0)
        num_held = math.ceil(num * self.hold_out) if num > 1 else 0
        return range(num - num_held, num) if held else range(num - num_held)

    def held_out(self) -> "DriveFolderConfig":
        """The last key frames of each drive, or ``test_drives``."""
        return replace(self, split="held_out")


@dataclass(frozen=True, eq=False)
class _Camera:
    intrinsics: np.ndarray
    size: tuple[int, int]
    laser_from_cam: np.ndarray | None
    poses: dict[str, np.ndarray]
    """world_from_cam of each key frame, where the camera has poses of its own."""


class FolderDrive(Drive):
    """A folder in the layout that this module describes."""

    def __init__(self, path: Path, classes: tuple[frozenset[int], LabelTable] | None):
        """Args:
            path: the folder; its name is the drive's.
            classes: what ``read_labels_file`` says of ``classes.json``.

        Raises:
            DataError: see ``Drive``.
        """
        self.path, self.name = path, path.name
        self._classes = classes
        calibration = path / "calibration.json"
        record = read_json(calibration)
        if not isinstance(record, dict):
            raise DataError(f"{calibration}: expected an object with laser and cameras")
        _known(record, ("laser", "vehicle_from_laser", "cameras"), str(calibration))
        self._turn, self._columns, self._brightest = _laser(record.get("laser", {}), f"{calibration}: laser")
        self._keys = self._poses("poses", required=True)
        self._between = self._poses("sweeps", required=False)
        cameras = entry(record, "cameras", dict, str(calibration)) if "cameras" in record else {}
        self._cameras = {name: self._camera(name, camera, record) for name, camera in cameras.items()}
        self.cameras = tuple(cameras)
        self._labelled = (path / "labels").is_dir()
        if self._labelled and classes is None:
            raise DataError(
                f"{path / 'labels'}: labels, but no {path.parent / 'classes.json'} that says what they mean"
            )
        self._boxes = self._read_boxes(path / "boxes.json") if (path / "boxes.json").exists() else None

    def __len__(self) -> int:
        return len(self._keys)

    def seconds(self, frame: int) -> float:
        """As ``poses.txt`` has it."""
        return self._keys[frame].seconds

    def frame_name(self, frame: int) -> str:
        """The drive and the NAME."""
        return f"{self.name}-{self._keys[frame].name}"

    def sweep(self, frame: int) -> Sweep:
        """Of ``lidar``."""
        return self._sweep(self._keys[frame], "lidar", self._labelled)

    def earlier(self, frame: int, number: int) -> list[Sweep]:
        """Of ``lidar`` and ``sweeps``."""
        before = [(row, "lidar") for row in self._keys[:frame]]
        before += [(row, "sweeps") for row in self._between if row.seconds < self._keys[frame].seconds]
        before.sort(key=lambda item: item[0].seconds, reverse=True)
        return [self._sweep(row, folder, False) for row, folder in before[:number]]

    def shots(self, frame: int, cameras: Sequence[str]) -> list[Shot]:
        """Of ``cameras``."""
        return [self._shot(self._keys[frame], name) for name in cameras]

    def shot_names(self, frame: int, cameras: Sequence[str]) -> tuple[str, ...]:
        """CAMERA/NAME."""
        return tuple(f"{name}/{self._keys[frame].name}" for name in cameras)

    def boxes(self, frame: int) -> Boxes | None:
        """Of ``boxes.json``; a key frame that is not in it has none."""
        if self._boxes is None:
            return None
        key = self._keys[frame].name
        columns = self._boxes.get(key, np.zeros((0, 10)))
        turn = torch.from_numpy(self._turn[:3, :3])
        values = torch.from_numpy(columns)
        heading = torch.stack([values[:, 6].cos(), values[:, 6].sin(), torch.zeros(len(values))], dim=1) @ turn.T
        velocity = torch.nn.functional.pad(values[:, 7:9], (0, 1)) @ turn.T
        return Boxes(
            centre=(values[:, :3] @ turn.T).to(torch.float32),
            size=values[:, 3:6].to(torch.float32),
            yaw=torch.atan2(heading[:, 1], heading[:, 0]).to(torch.float32),
            label=values[:, 9].to(torch.int64),
            velocity=velocity[:, :2].to(torch.float32),
        )

    def _poses(self, name: str, required: bool) -> list[TimedPose]:
        found = [path for path in (self.path / f"{name}.txt", self.path / f"{name}.csv") if path.exists()]
        if not found and not required:
            return []
        if len(found) != 1:
            raise DataError(f"{self.path}: {name}.txt and {name}.csv: {len(found)} of them are there; it takes one")
        rows = read_poses(found[0])
        if required and not rows:
            raise DataError(f"{found[0]}: no pose in it")
        check_times([row.seconds for row in rows], str(found[0]))
        # Poses of a laser with other axes: the turn back comes first.
        return [replace(row, pose=row.pose @ self._turn.T) for row in rows]

    def _camera(self, name: str, camera: Any, record: dict[str, Any]) -> _Camera:
        where = f"{self.path / 'calibration.json'}: cameras: {name}"
        if not name or Path(name).name != name:
            raise DataError(f"{where}: {name!r} is no name of a folder")
        if not isinstance(camera, dict):
            raise DataError(f"{where}: expected an object with K and size")
        _known(camera, ("K", "size", "laser_from_camera", "vehicle_from_camera"), where)
        matrix = numbers(entry(camera, "K", list, where), ((3, 3),), f"{where}: K")
        height, width = numbers(entry(camera, "size", list, where), ((2,),), f"{where}: size")
        if not (1 <= height <= 1 << 16 and 1 <= width <= 1 << 16 and height % 1 == 0 == width % 1):
            raise DataError(f"{where}: size: {height:g} {width:g}; expected height and width in pixels")
        size = (int(height), int(width))
        check_pinhole(matrix, size, where)
        path = self.path / "cameras" / name / "poses.txt"
        if path.exists():
            poses = {row.name: row.pose for row in read_poses(path)}
            lacking = [row.name for row in self._keys if row.name not in poses]
            if lacking:
                raise DataError(f"{path}: no pose {lacking[0]}, which is a key frame; add it")
            return _Camera(matrix, size, None, poses)
        given = [key for key in ("laser_from_camera", "vehicle_from_camera") if key in camera]
        if len(given) != 1:
            raise DataError(
                f"{where}: {len(given)} of laser_from_camera and vehicle_from_camera are there; it takes one, or {path}"
            )
        pose = _matrix(camera[given[0]], where, given[0])
        if given[0] == "vehicle_from_camera":
            if "vehicle_from_laser" not in record:
                raise DataError(f"{where}: vehicle_from_camera needs vehicle_from_laser beside cameras")
            vehicle = _matrix(record["vehicle_from_laser"], str(self.path / "calibration.json"), "vehicle_from_laser")
            pose = np.linalg.inv(vehicle) @ pose
        return _Camera(matrix, size, self._turn @ pose, {})

    def _sweep(self, row: TimedPose, folder: str, labelled: bool) -> Sweep:
        path = _file(self.path / folder, row.name, CLOUDS)
        xyz, intensity = read_cloud(path, self._columns, self._brightest)
        with np.errstate(over="ignore", invalid="ignore"):  # too far for float32 is nowhere, and left out like that
            turned = (xyz @ self._turn[:3, :3].T).astype(np.float32)
        labels = None
        if labelled and self._classes is not None:
            labels = torch.from_numpy(read_labels(self.path / "labels" / f"{row.name}.npy", len(xyz), self._classes))
        return Sweep(
            xyz=torch.from_numpy(turned),
            intensity=torch.from_numpy(intensity),
            world_from_sensor=torch.from_numpy(row.pose),
            seconds=row.seconds,
            source=str(path),
            labels=labels,
        )

    def _shot(self, row: TimedPose, name: str) -> Shot:
        camera = self._cameras[name]
        path = _file(self.path / "cameras" / name, row.name, IMAGES)
        pixels = read_rgb(path)
        if pixels.shape[:2] != camera.size:
            raise DataError(
                f"{path}: an image of {pixels.shape[1]}x{pixels.shape[0]}; calibration.json says size "
                f"{camera.size[1]}x{camera.size[0]} (width x height): K would be wrong"
            )
        pose = camera.poses[row.name] if camera.laser_from_cam is None else row.pose @ camera.laser_from_cam
        return Shot(
            rgb=torch.from_numpy(np.ascontiguousarray(pixels)),
            intrinsics=torch.from_numpy(camera.intrinsics),
            world_from_cam=torch.from_numpy(pose),
            name=f"{name}/{row.name}",
        )

    def _read_boxes(self, path: Path) -> dict[str, np.ndarray]:
        """[K 10] of each key frame: centre, size, yaw, velocity, class."""
        record = read_json(path)
        keys = {row.name for row in self._keys}
        if not isinstance(record, dict) or set(record) - keys:
            raise DataError(f"{path}: expected an object with an entry per key frame of poses.txt, and no other")
        return {key: _box_rows(boxes, f"{path}: {key}") for key, boxes in record.items()}


def _box_rows(boxes: Any, where: str) -> np.ndarray:
    if not isinstance(boxes, list):
        raise DataError(f"{where}: expected a list of boxes")
    rows = np.zeros((len(boxes), 10))
    for number, box in enumerate(boxes):
        at = f"{where}: box {number}"
        label = entry(box, "class", str, at)
        _known(box, ("class", "centre", "size", "yaw", "velocity"), at)
        if label not in DETECTION_LABELS.names:
            raise DataError(f"{at}: class: {label!r} is none of {', '.join(DETECTION_LABELS.names)}")
        rows[number, :3] = numbers(entry(box, "centre", list, at), ((3,),), f"{at}: centre")
        rows[number, 3:6] = numbers(entry(box, "size", list, at), ((3,),), f"{at}: size")
        rows[number, 6] = entry(box, "yaw", (int, float), at)
        velocity = box.get("velocity")
        rows[number, 7:9] = math.nan if velocity is None else numbers(velocity, ((2,),), f"{at}: velocity")
        rows[number, 9] = DETECTION_LABELS.names.index(label)
    return rows


def _laser(record: Any, where: str) -> tuple[np.ndarray, tuple[str, ...], float]:
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object")
    _known(record, ("axes", "columns", "brightest"), where)
    axes = record.get("axes", "right forward up")
    if axes not in AXES:
        raise DataError(f"{where}: axes: {axes!r}; expected {' or '.join(map(repr, AXES))}")
    columns = record.get("columns", list(COLUMNS))
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise DataError(f"{where}: columns: expected a list of names")
    if any(columns.count(name) != 1 for name in COLUMNS[:3]) or columns.count("intensity") > 1:
        raise DataError(f"{where}: columns: {', '.join(columns)}; it takes x, y and z, each once")
    brightest = entry(record, "brightest", (int, float), where) if "brightest" in record else 1.0
    if not 0 < brightest < math.inf:
        raise DataError(f"{where}: brightest: {brightest}; expected a positive number")
    return AXES[axes], tuple(columns), float(brightest)


def _matrix(value: Any, where: str, field: str) -> np.ndarray:
    return rigid(numbers(value, ((4, 4), (3, 4)), f"{where}: {field}"), where, field).numpy()


def _known(record: dict[str, Any], names: tuple[str, ...], where: str) -> None:
    for name in record:
        if name not in names:
            raise DataError(f"{where}: an entry {name!r}; known are {', '.join(names)}")


def _file(folder: Path, name: str, endings: tuple[str, ...]) -> Path:
    """The file of a name, whatever its ending."""
    for ending in endings:
        path = folder / f"{name}{ending}"
        if path.is_file():
            return path
    raise DataError(f"{folder}: no {name} with an ending {', '.join(endings)}; add it, or take {name} out of the poses")
