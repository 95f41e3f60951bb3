"""nuScenes in its official layout: the tables, ``samples``, ``sweeps``, and ``lidarseg`` if it was unpacked too.

Drives are its scenes, key frames its samples (2 a second). The laser's frame is x right, y forward, z up already. Each
sensor has the vehicle's pose at its own instant. Opening reads the tables (``nuscenes_index``) and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ponder3d.data.dataset import BenchmarkFile, DataError
from ponder3d.data.driving.classes import STREET_LABELS
from ponder3d.data.driving.dataset import DrivingConfig, DrivingDataset
from ponder3d.data.driving.drive import Drive, Shot, Sweep
from ponder3d.data.driving.nuscenes_index import CAMERAS, LASER, NuScenesIndex, SceneRows, open_index
from ponder3d.data.driving.nuscenes_splits import split_scenes
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.rgbd_images import read_rgb
from ponder3d.geometry.neighbors import knn
from ponder3d.types import Boxes, Scene

_RECORD = 20
"""Bytes of a point: x, y, z, intensity up to 255 and the number of the beam, float32."""
_LARGEST = 1 << 26
"""Bytes of a sweep at most; the official ones have 0.7 MB."""
_VERSIONS = ("v1.0-trainval", "v1.0-mini", "v1.0-test")


@dataclass(frozen=True)
class NuScenesConfig(DrivingConfig):
    """nuScenes in its official layout."""

    beside_points = (*DrivingConfig.beside_points, "labels")

    root: str = ""
    """The directory with ``samples``, ``sweeps`` and the folder of the tables."""
    version: Literal["v1.0-trainval", "v1.0-mini", "v1.0-test"] = "v1.0-trainval"
    """Folder of the tables; ``split = "test"`` takes ``v1.0-test``."""
    split: Literal["train", "val", "test", ""] = "train"
    """An official split; empty: all scenes that there are."""
    test_drives: tuple[str, ...] = ()
    """Names of scenes that are held out instead of those of the official validation split; all others are trained on.
    For parts of nuScenes, or recordings of one's own in its layout."""
    labels: Literal["auto", "required", "none"] = "auto"
    """Classes of the points: if lidarseg is there, or an error where it is not, or none. The test split has none."""

    def build(self) -> DrivingDataset:
        """Read the tables."""
        if not self.root:
            raise DataError("NuScenesConfig.root is empty: name the directory, e.g. --data.root DIR")
        root = Path(self.root)
        version = "v1.0-test" if self.split == "test" else self.version
        folder = root / version
        if not folder.is_dir():
            others = [name for name in _VERSIONS if (root / name).is_dir()]
            hint = f"there is {' and '.join(others)}: choose --data.version" if others else "unpack nuScenes' metadata"
            raise DataError(f"{folder}: no such folder of tables; {hint}")
        wanted, excluded = self._scenes(version)
        index = open_index(folder, wanted, excluded, self._labelled(folder))
        lacking = [name for name in self.test_drives if name not in index.scene_names]
        if lacking:
            raise DataError(f"{folder / 'scene.json'}: has no {lacking[0]}, which test_drives names")
        if not index.scenes:
            raise DataError(
                f"{folder / 'scene.json'}: none of its {len(index.scene_names)} scenes is of the split {self.split!r}; "
                "choose another --data.split, or name those to hold out with --data.test-drives"
            )
        return NuScenes(self, [NuScenesDrive(root, index, scene) for scene in index.scenes], bool(index.label_files))

    def _scenes(self, version: str) -> tuple[frozenset[str] | None, frozenset[str]]:
        """Names that are taken (None: all) and names that are not."""
        if self.test_drives and self.split != "test":
            held = frozenset(self.test_drives)
            return {"train": (None, held), "val": (held, frozenset()), "": (None, frozenset())}[self.split]
        if not self.split:
            return None, frozenset()
        try:
            return split_scenes(version, self.split), frozenset()
        except ValueError as error:
            raise DataError(f"{Path(self.root) / version}: {error}; choose another --data.split") from error

    def _labelled(self, folder: Path) -> bool:
        path = folder / "lidarseg.json"
        if self.labels == "none" or folder.name == "v1.0-test":
            return False
        if self.labels == "required" and not path.is_file():
            raise DataError(
                f"{path}: no classes of points; get nuScenes-lidarseg (nuscenes.org/nuscenes#download) and unpack it "
                f"into {self.root}, or set --data.labels none"
            )
        return path.is_file()

    def held_out(self) -> "NuScenesConfig":
        """The official validation scenes, or ``test_drives``.

        Raises:
            DataError: all scenes are trained on.
        """
        if not self.split:
            raise DataError(
                "NuScenesConfig.split is empty: all scenes are trained on and none is held out; set --data.split train"
            )
        return replace(self, split="val")


class NuScenes(DrivingDataset):
    """Key frames of scenes of nuScenes; as a benchmark, that of LiDAR segmentation.

    Args:
        config: the choices.
        drives: the scenes.
        labelled: whether points have classes.
    """

    benchmark = "nuscenes"

    def __init__(self, config: NuScenesConfig, drives: Sequence["NuScenesDrive"], labelled: bool):
        super().__init__(config, drives, STREET_LABELS if labelled else None)
        mini = "mini_" if config.version == "v1.0-mini" and config.split != "test" else ""
        self._part = "" if config.test_drives and config.split != "test" else config.split
        self._part = self._part and mini + self._part
        self.benchmark_ids = tuple(range(1, len(STREET_LABELS) + 1)) if self._part else ()

    def benchmark_file(self, index: int, scene: Scene) -> BenchmarkFile | None:
        """Every point of the key frame's file; those that are the vehicle itself are left out of scenes, and get the
        class of the nearest point."""
        if not self._part:
            return None
        number, frame = self._scenes[index]
        drive = self._drives[number]
        assert isinstance(drive, NuScenesDrive)
        xyz = drive.sweep(frame).xyz
        own = self.in_cloud(xyz)
        rows = own.cumsum(0) - 1  # the key frame's points come first, in the order of the file
        left = (~own).nonzero()[:, 0]
        places = xyz[left].nan_to_num(0, 0, 0)
        none = torch.zeros(1, dtype=torch.int64)
        nearest, _ = knn(places, none.expand(len(left)), scene.xyz, none.expand(len(scene.xyz)), 1)
        rows[left] = nearest[:, 0]
        return BenchmarkFile(f"lidarseg/{self._part}/{drive.token(frame)}_lidarseg.bin", rows, own)


class NuScenesDrive(Drive):
    """A scene of nuScenes.

    Args:
        root: of the data; files are named relative to it.
        index: the tables.
        scene: which of its scenes.
    """

    def __init__(self, root: Path, index: NuScenesIndex, scene: SceneRows):
        self.name, self.cameras = scene.name, CAMERAS
        self._root, self._index, self._samples = root, index, scene.samples

    def __len__(self) -> int:
        return len(self._samples)

    def seconds(self, frame: int) -> float:
        """Since the drive's first key frame: when the laser's revolution of a key frame ended."""
        return self._seconds(self._key(frame))

    def token(self, frame: int) -> str:
        """The sample_data token of the laser at a key frame, which files of results are named by."""
        return self._index.token[self._key(frame)]

    def sweep(self, frame: int) -> Sweep:
        """The laser at a key frame, every point of its file in order, with labels if the index has them.

        Raises:
            DataError: a file is missing, of another size than its points, or has a number that is no category.
        """
        return self._sweep(self._key(frame), self._index.label_files.get(self._samples[frame]))

    def earlier(self, frame: int, number: int) -> list[Sweep]:
        """Up to ``number`` sweeps before a key frame, key frames among them; fewer at the beginning of the scene.

        Raises:
            DataError: see ``sweep``; the file of an earlier sweep is missing too.
        """
        out: list[Sweep] = []
        row = int(self._index.earlier[self._key(frame)])
        while row >= 0 and len(out) < number:
            out.append(self._sweep(row, None))
            row = int(self._index.earlier[row])
        return out

    def shot_names(self, frame: int, cameras: Sequence[str]) -> tuple[str, ...]:
        """Names of the files, without their endings."""
        return tuple(Path(self._index.file[self._camera(frame, camera)]).stem for camera in cameras)

    def shots(self, frame: int, cameras: Sequence[str]) -> list[Shot]:
        """The images of a key frame.

        Raises:
            DataError: there is no such camera, or an image is missing or damaged.
        """
        index, out = self._index, []
        for camera, name in zip(cameras, self.shot_names(frame, cameras), strict=True):
            row = self._camera(frame, camera)
            out.append(
                Shot(
                    rgb=torch.from_numpy(np.ascontiguousarray(read_rgb(self._path(row)))),
                    intrinsics=torch.from_numpy(index.intrinsics[index.sensor[row]].copy()),
                    world_from_cam=self._pose(row),
                    name=name,
                )
            )
        return out

    def boxes(self, frame: int) -> Boxes | None:
        """The annotated boxes of the ten classes. nuScenes' width, length, height become extents along the box's y, x
        and z; None where nothing is annotated, as in the test set.
        """
        index = self._index
        if not index.annotated:
            return None
        rows = index.boxes_of(self._samples[frame])
        laser = self._pose(self._key(frame)).numpy()
        turn, origin = laser[:3, :3], laser[:3, 3]
        heading = index.box_rotation[rows][:, :, 0] @ turn  # rows times R: R^T applied to each
        velocity = index.box_velocity[rows] @ turn
        return Boxes(
            centre=_floats((index.box_centre[rows] - origin) @ turn),
            size=_floats(index.box_size[rows]),
            yaw=_floats(np.arctan2(heading[:, 1], heading[:, 0])),
            label=torch.from_numpy(index.box_label[rows]),
            velocity=_floats(velocity[:, :2]),
        )

    def points_in_boxes(self, frame: int) -> Int[Tensor, " K"]:
        """How many points of the key frame's sweep lie in each box, as annotated, in the order of ``boxes``."""
        return torch.from_numpy(self._index.box_points[self._index.boxes_of(self._samples[frame])])

    def _key(self, frame: int) -> int:
        return int(self._index.key[LASER][self._samples[frame]])

    def _camera(self, frame: int, camera: str) -> int:
        sample = self._samples[frame]
        row = int(self._index.key[camera][sample]) if camera in CAMERAS else -1
        if row < 0:
            token = self._index.sample_tokens[sample]
            what = f"has no {camera} of the sample {token}" if camera in CAMERAS else f"knows no camera {camera!r}"
            raise DataError(f"{self._index.folder / 'sample_data.json'}: {what}; choose other cameras")
        return row

    def _seconds(self, row: int) -> float:
        return float(self._index.us[row] - self._index.us[self._key(0)]) * 1e-6

    def _pose(self, row: int) -> Tensor:
        index = self._index
        return torch.from_numpy(index.egos.matrix(int(index.ego[row])) @ index.sensors.matrix(int(index.sensor[row])))

    def _path(self, row: int) -> Path:
        return _below(self._root, self._index.file[row], self._index.folder / "sample_data.json")

    def _sweep(self, row: int, label_file: str | None) -> Sweep:
        path = self._path(row)
        data = _content(path, _LARGEST)
        if len(data) % _RECORD:
            raise DataError(
                f"{path}: {len(data)} bytes are no whole number of points of {_RECORD} bytes; it is cut short, or no "
                "sweep: get it again"
            )
        points = torch.from_numpy(np.frombuffer(data, "<f4").reshape(-1, 5).astype(np.float32))
        intensity = points[:, 3] / 255
        if not bool(((intensity >= 0) & (intensity <= 1)).all()):
            raise DataError(f"{path}: intensity is not from 0 to 255; the file is damaged: get it again")
        return Sweep(
            xyz=points[:, :3].contiguous(),
            intensity=intensity,
            world_from_sensor=self._pose(row),
            seconds=self._seconds(row),
            source=str(path),
            labels=None if label_file is None or not len(points) else self._labels(label_file, len(points)),
        )

    def _labels(self, file: str, number: int) -> Int[Tensor, " N"]:
        path = _below(self._root, file, self._index.folder / "lidarseg.json")
        data = np.frombuffer(_content(path, _LARGEST), np.uint8)
        if len(data) != number:
            raise DataError(f"{path}: {len(data)} labels, and the sweep has {number} points; get both again")
        unknown = ~self._index.known_numbers[data]
        if unknown.any():
            raise DataError(
                f"{path}: point {int(unknown.argmax())} has the label {data[unknown][0]}, which "
                f"{self._index.folder / 'category.json'} does not have; get both again"
            )
        return torch.from_numpy(self._index.label_rows[data])


def _floats(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _below(root: Path, name: str, table: Path) -> Path:
    """A file that a table names, which has to lie below the root."""
    if not name or name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        raise DataError(f"{table}: filename {name[:80]!r} is no file below {root}; get the table again")
    return root / name


def _content(path: Path, most: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > most:
            raise DataError(f"{path}: {size} bytes, a file of points has at most {most}; get it again")
        return path.read_bytes()
    except (OSError, UnicodeError) as error:
        raise_if_of_machine(error, path)
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}); unpack the part of nuScenes that has it, or ask for "
            "fewer sweeps"
        ) from error
