"""What the tables of nuScenes say about the scenes of a split: which files, poses and boxes each key frame has.

Tables refer to each other by tokens. They are read in an order in which the rows that matter are known before the large
tables come: radar, images between key frames and other splits' scenes are dropped at once. Tables of the size of 100 of
the 850 scenes of trainval (300 MB, 744 000 rows) take 8 s and 150 MB; all of them a bit more than a minute, and 1.1 GB
at most for the training split.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.classes import NUSCENES_BOXES, NUSCENES_POINTS
from ponder3d.data.driving.nuscenes_tables import Poses, Vectors, table_rows

LASER = "LIDAR_TOP"
CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT")
"""Front first, then clockwise."""
_GAP = 1.5
"""Seconds: a velocity over a longer time is unknown. Twice as much from the annotation before to the one after."""
_FINITE_US = 1 << 60
"""Microseconds, of the year 38000: timestamps are below."""


@dataclass(frozen=True)
class SceneRows:
    """A scene and its key frames."""

    name: str
    samples: tuple[int, ...]
    """Rows of its samples, in the order of time."""


def open_index(folder: Path, wanted: frozenset[str] | None, excluded: frozenset[str], labels: bool) -> "NuScenesIndex":
    """``NuScenesIndex``, kept for two splits: a run opens its data at every evaluation. Files that changed are read
    again.

    Raises:
        DataError: see ``NuScenesIndex``.
    """
    stats = [path.stat() for path in sorted(folder.glob("*.json"))]
    return _kept_index(folder, wanted, excluded, labels, tuple((s.st_size, s.st_mtime_ns, s.st_ino) for s in stats))


class NuScenesIndex:
    """The rows of the tables that some scenes need, as columns.

    Args:
        folder: of the tables (``v1.0-...``).
        wanted: names of the scenes, of which those that there are are taken; None takes all.
        excluded: names of scenes that are not.
        labels: look for the classes of points.

    Raises:
        DataError: a table is missing or damaged, or a token leads nowhere.
    """

    def __init__(self, folder: Path, wanted: frozenset[str] | None, excluded: frozenset[str], labels: bool):
        self.folder = folder
        self._read_sensors()
        self._read_samples(wanted, excluded)
        self._read_sample_data()
        self._read_boxes()
        self.label_files: dict[int, str] = {}
        """File of the classes of each sample's points, below the root."""
        if labels:
            self._read_labels()

    def _path(self, table: str) -> Path:
        return self.folder / f"{table}.json"

    def _read_sensors(self) -> None:
        path = self._path("sensor")
        channels = dict(table_rows(path, {"token": str, "channel": str}))
        path = self._path("calibrated_sensor")
        self.sensors = Poses(path)
        self.channel: list[str] = []
        """Of each calibrated sensor."""
        intrinsics = Vectors(path, "camera_intrinsic", 3, 3)
        fields = {"token": str, "sensor_token": str, "translation": list, "rotation": list, "camera_intrinsic": list}
        for token, sensor, translation, rotation, matrix in table_rows(path, fields):
            if sensor not in channels:
                raise _nowhere(path, token, "sensor_token", sensor, self._path("sensor"))
            channel = channels[sensor]
            if channel == LASER or channel in CAMERAS:
                self.sensors.add(token, translation, rotation)
                self.channel.append(channel)
                intrinsics.add(matrix if channel in CAMERAS else [[0.0] * 3] * 3, token)
        self.sensors.done()
        self.intrinsics = intrinsics.array(self.sensors.tokens)
        """[n 3 3] of each calibrated sensor; zeros of the laser."""
        of_camera = np.array([channel in CAMERAS for channel in self.channel], dtype=bool)
        focal, last = self.intrinsics[:, [0, 1], [0, 1]], self.intrinsics[:, 2]
        wrong = of_camera & ~((focal > 0).all(1) & (last == (0, 0, 1)).all(1))
        if wrong.any():
            token = self.sensors.tokens[int(wrong.argmax())]
            raise DataError(f"{path}: {token}: camera_intrinsic is no pinhole camera's matrix; get the table again")

    def _read_samples(self, wanted: frozenset[str] | None, excluded: frozenset[str]) -> None:
        path = self._path("scene")
        scenes: dict[str, tuple[str, int]] = {}
        self.scene_names: set[str] = set()
        """Of all scenes of the table, wanted or not."""
        for token, name, number in table_rows(path, {"token": str, "name": str, "nbr_samples": int}):
            self.scene_names.add(name)
            if (wanted is None or name in wanted) and name not in excluded:
                scenes[token] = (name, number)
        if len({name for name, _ in scenes.values()}) < len(scenes):
            raise DataError(f"{path}: two scenes have the same name; get the table again")
        path = self._path("sample")
        found: dict[str, list[tuple[int, str, str, str]]] = {token: [] for token in scenes}
        fields = {"token": str, "scene_token": str, "timestamp": int, "prev": str, "next": str}
        for token, scene, us, earlier, later in table_rows(path, fields):
            if scene in found:
                found[scene].append((us, token, earlier, later))
        self.sample_tokens: list[str] = []
        self.scenes: list[SceneRows] = []
        """In the order of their names."""
        times: list[int] = []
        for token, (name, number) in sorted(scenes.items(), key=lambda item: item[1][0]):
            samples = sorted(found[token])
            if len(samples) != number or not samples:
                raise DataError(
                    f"{path}: {name} has {len(samples)} samples, and {self._path('scene')} says {number}; get the "
                    "tables again"
                )
            tokens = ["", *(sample[1] for sample in samples), ""]
            for place, (us, own, earlier, later) in enumerate(samples):
                if (earlier, later) != (tokens[place], tokens[place + 2]) or not 0 <= us < _FINITE_US:
                    raise DataError(
                        f"{path}: {own} of {name}: its timestamp is out of order with those of its prev and next; get "
                        "the table again"
                    )
            start = len(self.sample_tokens)
            self.scenes.append(SceneRows(name, tuple(range(start, start + number))))
            self.sample_tokens += tokens[1:-1]
            times += [sample[0] for sample in samples]
        self.sample_us = np.array(times, dtype=np.int64)
        self._sample_rows = {token: row for row, token in enumerate(self.sample_tokens)}
        if len(self._sample_rows) < len(self.sample_tokens):
            raise DataError(f"{path}: a token occurs twice; get the table again")

    def _read_sample_data(self) -> None:
        path = self._path("sample_data")
        sweeps: dict[str, int] = {}
        earlier: list[str] = []
        self.file: list[str] = []
        """Of each row that was kept, below the root."""
        self.token: list[str] = []
        sensors: list[int] = []
        egos: list[str] = []
        times: list[int] = []
        number = len(self.sample_tokens)
        self.key = {channel: np.full(number, -1, np.int64) for channel in (LASER, *CAMERAS)}
        """Row of what each sensor took at each sample; -1: nothing."""
        fields = {
            "token": str,
            "sample_token": str,
            "calibrated_sensor_token": str,
            "ego_pose_token": str,
            "timestamp": int,
            "is_key_frame": bool,
            "filename": str,
            "prev": str,
        }
        for token, sample_token, calibrated, ego, us, is_key, file, before in table_rows(path, fields):
            sensor = self.sensors.rows.get(calibrated)
            sample = self._sample_rows.get(sample_token)
            if sensor is None or sample is None:
                continue
            channel = self.channel[sensor]
            if not is_key and channel != LASER:
                continue
            if not 0 <= us < _FINITE_US:
                raise DataError(f"{path}: {token}: timestamp is {us}, expected microseconds; get the table again")
            row = len(self.token)
            if channel == LASER:
                sweeps[token] = row
            if is_key:
                if self.key[channel][sample] >= 0:
                    raise DataError(f"{path}: {token}: a second key frame of {channel} of one sample; get it again")
                self.key[channel][sample] = row
            self.token.append(token)
            self.file.append(file)
            sensors.append(sensor)
            egos.append(ego)
            times.append(us)
            earlier.append(before if channel == LASER else "")
        self.sensor, self.us = np.array(sensors, dtype=np.int64), np.array(times, dtype=np.int64)
        missing = self.key[LASER] < 0
        if missing.any():
            token = self.sample_tokens[int(missing.argmax())]
            raise DataError(f"{path}: has no {LASER} of the sample {token}; get the table again")
        self.earlier = np.full(len(self.token), -1, np.int64)
        """Row of the sweep before each sweep; -1: none."""
        for row, before in enumerate(earlier):
            if before:
                if before not in sweeps:
                    raise _nowhere(path, self.token[row], "prev", before, path)
                self.earlier[row] = sweeps[before]
        wrong = (self.earlier >= 0) & (self.us[self.earlier] >= self.us)
        if wrong.any():
            token = self.token[int(wrong.argmax())]
            raise DataError(f"{path}: {token}: its timestamp is not after that of its prev; get the table again")
        self._read_egos(egos)

    def _read_egos(self, asked: list[str]) -> None:
        path = self._path("ego_pose")
        needed = set(asked)
        self.egos = Poses(path)
        for token, translation, rotation in table_rows(path, {"token": str, "translation": list, "rotation": list}):
            if token in needed:
                self.egos.add(token, translation, rotation)
        self.egos.done()
        table = self._path("sample_data")
        rows = [
            self.egos.row(ego, f"{table}: {token}: ego_pose_token")
            for ego, token in zip(asked, self.token, strict=True)
        ]
        self.ego = np.array(rows, dtype=np.int64)
        self.egos.forget_tokens()

    def _read_boxes(self) -> None:
        path = self._path("category")
        categories: dict[str, int] = {}
        for token, name in table_rows(path, {"token": str, "name": str}):
            if name not in NUSCENES_POINTS:
                raise DataError(f"{path}: {name!r} is no category of nuScenes; this reader knows its 32")
            categories[token] = NUSCENES_BOXES.get(name, -1)
        path = self._path("instance")
        instances: dict[str, int] = {}
        for token, category in table_rows(path, {"token": str, "category_token": str}):
            if category not in categories:
                raise _nowhere(path, token, "category_token", category, self._path("category"))
            instances[token] = categories[category]
        path = self._path("sample_annotation")
        poses, sizes = Poses(path), Vectors(path, "size", 3)
        rows: list[tuple[int, int, int, str, str]] = []
        fields = {
            "token": str,
            "sample_token": str,
            "instance_token": str,
            "translation": list,
            "rotation": list,
            "size": list,
            "prev": str,
            "next": str,
            "num_lidar_pts": int,
        }
        self.annotated = False
        """Whether there are any boxes, of whatever scene."""
        for token, sample_token, instance, translation, rotation, size, before, after, num in table_rows(path, fields):
            self.annotated = True
            sample = self._sample_rows.get(sample_token)
            if sample is None:
                continue
            if instance not in instances:
                raise _nowhere(path, token, "instance_token", instance, self._path("instance"))
            label = instances[instance]
            if label >= 0:
                poses.add(token, translation, rotation)
                sizes.add(size, token)
                rows.append((sample, label, num, before, after))
        poses.done()
        size = sizes.array(poses.tokens)
        self.box_rotation, self.box_size = poses.rotation, size[:, [1, 0, 2]]  # theirs is width, length, height
        self.box_centre = poses.translation
        self.box_sample = np.array([row[0] for row in rows], dtype=np.int64)
        self.box_label = np.array([row[1] for row in rows], dtype=np.int64)
        self.box_points = np.array([min(row[2], _FINITE_US) for row in rows], dtype=np.int64)
        ends = [
            [
                poses.row(token, f"{path}: {own}: {name}") if token else -1
                for token, own in zip(column, poses.tokens, strict=True)
            ]
            for name, column in (("prev", [row[3] for row in rows]), ("next", [row[4] for row in rows]))
        ]
        self._find_velocities(*(np.array(column, dtype=np.int64) for column in ends))
        order = np.argsort(self.box_sample, kind="stable")
        self._boxes_of = order, np.searchsorted(self.box_sample[order], np.arange(len(self.sample_tokens) + 1))

    def _find_velocities(self, before: np.ndarray, after: np.ndarray) -> None:
        """As nuScenes defines them: from the annotation before to the one after, or to or from its own."""
        own = np.arange(len(before))
        first, last = np.where(before >= 0, before, own), np.where(after >= 0, after, own)
        seconds = (self.sample_us[self.box_sample[last]] - self.sample_us[self.box_sample[first]]) * 1e-6
        most = np.where((before >= 0) & (after >= 0), 2 * _GAP, _GAP)
        known = (seconds > 0) & (seconds <= most)
        moved = self.box_centre[last] - self.box_centre[first]
        self.box_velocity = np.where(known[:, None], moved / np.where(known, seconds, 1)[:, None], np.nan)
        """[n 3] in the world, metres per second; NaN where unknown."""

    def boxes_of(self, sample: int) -> np.ndarray:
        """Rows of the boxes of a sample, in the table's order."""
        order, starts = self._boxes_of
        return order[starts[sample] : starts[sample + 1]]

    def _read_labels(self) -> None:
        path = self._path("category")
        self.label_rows = np.full(256, -1, np.int64)
        """Class of each number in a label file; -1 for none."""
        self.known_numbers = np.zeros(256, dtype=bool)
        for name, number in table_rows(path, {"name": str, "index": int}):
            if not 0 <= number < 256 or self.known_numbers[number]:
                raise DataError(f"{path}: {name}: index is {number}, expected a number of its own; get the table again")
            self.label_rows[number], self.known_numbers[number] = NUSCENES_POINTS[name], True
        path = self._path("lidarseg")
        sample_of = {self.token[row]: sample for sample, row in enumerate(self.key[LASER].tolist())}
        for token, file in table_rows(path, {"sample_data_token": str, "filename": str}):
            if token in sample_of:
                self.label_files[sample_of[token]] = file
        missing = next((s for s in range(len(self.sample_tokens)) if s not in self.label_files), None)
        if missing is not None:
            raise DataError(f"{path}: has no labels of the sample {self.sample_tokens[missing]}; get the table again")


def _nowhere(path: Path, token: str, field: str, value: str, other: Path) -> DataError:
    return DataError(f"{path}: {token}: {field} names {value!r}, which {other} does not have; get the tables again")


@lru_cache(maxsize=2)
def _kept_index(
    folder: Path,
    wanted: frozenset[str] | None,
    excluded: frozenset[str],
    labels: bool,
    stamps: tuple[tuple[int, ...], ...],
) -> NuScenesIndex:
    return NuScenesIndex(folder, wanted, excluded, labels)
