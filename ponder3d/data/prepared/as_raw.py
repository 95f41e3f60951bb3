"""A prepared dataset as a raw one, for the doctor: its raw ids, its frames, and every checksum verified."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared.container import SceneIndex, read_array
from ponder3d.data.prepared.images import read_colour, read_numbers
from ponder3d.data.prepared.manifest import SceneEntry
from ponder3d.data.prepared.record import Records
from ponder3d.data.prepared.storage import Storage, StorageError
from ponder3d.data.raw.dataset import Problem, RawDataset, RawFrame, RawPoints, RawScene, checked_scenes

_OF_FRAME = re.compile(r"f(\d{6,})\.")
_COLUMNS = {"xyz": ("f", (3,)), "rgb": ("u", (3,)), "normal": ("f", (3,)), "labels": ("i", ()), "instances": ("i", ())}
"""Kind of the numbers and shape of a row of the columns of a cloud."""


class PreparedAsRaw(RawDataset):
    """The scenes of a prepared dataset. Opening it reads every member once and compares it with its SHA-256: scenes and
    frames that are damaged are in ``problems``, and not among the scenes and frames.

    Args:
        root: directory or URL of the manifest.

    Raises:
        DataError: there is no manifest, or a damaged one, or no scene is whole.
        StorageError: it cannot be read.
    """

    def __init__(self, root: str):
        records = Records(Storage(root))
        manifest = records.manifest()
        self.tables, self.known_ids = manifest.tables, manifest.known_ids
        scenes, problems = [], []
        for entry in manifest.scenes:
            try:
                index = records.index(entry)
            except (DataError, StorageError) as error:
                problems.append(Problem(entry.name, "", "file", str(error)))
                continue
            damaged = list(_damaged(records, entry, index))
            problems += damaged
            bad = {problem.frame for problem in damaged}
            if "" not in bad:
                scenes.append(_Scene(records, entry, index, bad))
        if not scenes:
            raise DataError(
                f"{root}: none of {len(manifest.scenes)} scenes is whole: {problems[0] if problems else ''}"
            )
        self.depth_units = max(scene.index.depth_units for scene in scenes)
        self.scenes = checked_scenes(scenes, root)
        self.problems = tuple(problems)


def _damaged(records: Records, entry: SceneEntry, index: SceneIndex) -> Iterator[Problem]:
    """Members that are not as they were written."""
    for name in index.members:
        try:
            records.members(entry, index, [name])
        except (DataError, StorageError) as error:
            row = _OF_FRAME.match(name)
            number = int(row[1]) if row else len(index.frames)
            frame = index.frames[number] if number < len(index.frames) else ""
            yield Problem(entry.name, frame, "file", str(error))


class _Scene(RawScene):
    def __init__(self, records: Records, entry: SceneEntry, index: SceneIndex, damaged: set[str]):
        self.name, self.split = entry.name, entry.split
        self.source = f"{records.storage.where(entry.file)}: {entry.name}"
        self.index = index
        self._rows = {frame: row for row, frame in enumerate(index.frames) if frame not in damaged}
        self.frames = tuple(self._rows)
        self._records, self._entry = records, entry

    def read_points(self) -> RawPoints | None:
        arrays = {
            name: self._array(f"{name}.npy", (self.index.points, *shape), kind)
            for name, (kind, shape) in _COLUMNS.items()
            if name == "xyz" or f"{name}.npy" in self.index.members
        }
        return RawPoints(**arrays)

    def read_frames(self, names: Sequence[str]) -> Iterator[RawFrame | Problem]:
        if not names:
            return
        num = len(self.index.frames)
        intrinsics = self._array("intrinsics.npy", (num, 3, 3), "f").astype(np.float64)
        poses = self._array("world_from_cam.npy", (num, 4, 4), "f").astype(np.float64)
        for name in names:
            if name not in self._rows:
                raise DataError(f"{self.source}: no frame named {name}")
            row = self._rows[name]
            try:
                yield self._frame(name, row, intrinsics[row], poses[row])
            except DataError as error:
                yield Problem(self.name, name, "file", str(error))

    def _frame(self, name: str, row: int, intrinsics: np.ndarray, pose: np.ndarray) -> RawFrame:
        size = self.index.size
        if size is None:
            raise DataError(f"{self.source}.index.json: images without a size; prepare it again")

        def numbers(kind: str) -> np.ndarray | None:
            member = f"f{row:06d}.{kind}.png"
            if member not in self.index.members:
                return None
            return read_numbers(self._bytes(member), f"{self.source}.{member}", size, size).astype(np.int32)

        colour = f"f{row:06d}.color.jpg"
        depth, instances = numbers("depth"), numbers("instance")
        return RawFrame(
            name=name,
            intrinsics=intrinsics,
            world_from_cam=pose,
            rgb=read_colour(self._bytes(colour), f"{self.source}.{colour}", size, size),
            depth=None if depth is None else depth.astype(np.float32) / np.float32(self.index.depth_units),
            labels=numbers("label"),
            instances=None if instances is None else instances - 1,
        )

    def _array(self, member: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
        return read_array(self._bytes(member), f"{self.source}.{member}", shape, kind)

    def _bytes(self, member: str) -> bytes:
        try:
            return self._records.members(self._entry, self.index, [member])[member]
        except StorageError as error:
            raise DataError(str(error)) from error
