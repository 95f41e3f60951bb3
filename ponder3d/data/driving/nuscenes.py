"""nuScenes in its official layout: the tables, ``samples``, ``sweeps``, and ``lidarseg`` if it was unpacked too.

Drives are its scenes, key frames its samples (2 a second). The laser's frame is x right, y forward, z up already. Each
sensor has the vehicle's pose at its own instant. Opening reads the tables (``nuscenes_index``) and nothing else.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.drive import Drive, Shot, Sweep
from ponder3d.data.driving.nuscenes_index import CAMERAS, LASER, NuScenesIndex, SceneRows
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.rgbd_images import read_rgb
from ponder3d.types import Boxes

_RECORD = 20
"""Bytes of a point: x, y, z, intensity up to 255 and the number of the beam, float32."""
_LARGEST = 1 << 26
"""Bytes of a sweep at most; the official ones have 0.7 MB."""


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
        row, sample = self._key(frame), self._samples[frame]
        file = self._index.label_files.get(sample)
        return self._sweep(row, None if file is None else file)

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
        return torch.from_numpy(index.egos.matrix(index.ego[row]) @ index.sensors.matrix(index.sensor[row]))

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
            labels=None if label_file is None else self._labels(label_file, len(points)),
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
