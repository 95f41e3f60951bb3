"""From a scene in its publisher's layout to a prepared one. Frames pass through one at a time."""

import contextlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from ponder3d.config import Config, incidental
from ponder3d.data.dataset import DataError
from ponder3d.data.prepared.container import END, SceneIndex, SceneWriter
from ponder3d.data.prepared.fusing import CloudBuilder
from ponder3d.data.raw.checks import frame_problem, points_problem
from ponder3d.data.raw.dataset import Problem, RawDataset, RawFrame, RawPoints, RawScene
from ponder3d.data.skip_list import SkipList
from ponder3d.files import replacing


@dataclass(frozen=True)
class PrepareOptions(Config):
    """Choices of how scenes are kept, whatever dataset they are of."""

    images: bool = True
    """Keep the images; without them there is nothing to pre-train on, and a scene takes a few megabytes."""
    jpeg_quality: int = 92
    """Of the colour images, 1 to 100; depth and labels lose nothing."""
    cloud_spacing: float = 0.02
    """Metres; where a dataset has only images, their depth makes a cloud of one point per voxel of this size."""
    skip: str = ""
    """Skip list of scenes and frames to leave out, such as the doctor's; empty: RAW/skip.tsv, if there is one."""
    scenes: str = ""
    """Text file with the names of the scenes to take, one a line; empty takes all. Those of before stay."""
    workers: int = incidental(0)
    """Processes; 0 takes one per core."""

    def __post_init__(self):
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"PrepareOptions.jpeg_quality must lie in 1..100, it is {self.jpeg_quality}")
        if not self.cloud_spacing > 0:
            raise ValueError(f"PrepareOptions.cloud_spacing must be positive, it is {self.cloud_spacing}")
        if self.workers < 0:
            raise ValueError(f"PrepareOptions.workers must not be negative, it is {self.workers}")


def write_scene(
    path: Path,
    scene: RawScene,
    dataset: RawDataset,
    options: PrepareOptions,
    skip: SkipList,
    identity: str,
    root: str = "",
) -> None:
    """Prepare one scene as a tar file of its own, whole or not at all.

    Args:
        path: the file.
        scene: what to read.
        dataset: that it is of.
        options: how to keep it.
        skip: frames to leave out.
        identity: fingerprint of all choices, kept in the index.
        root: directory that what is said about the scene's files is relative to.

    Raises:
        DataError: the scene cannot be used.
        OSError: the file cannot be written.
    """
    with replacing(path) as file, scene.keeping() if options.images else contextlib.nullcontext():
        _write(file, scene, dataset, options, skip, identity, root)
        file.write(END)


def _write(
    file: BinaryIO,
    scene: RawScene,
    dataset: RawDataset,
    options: PrepareOptions,
    skip: SkipList,
    identity: str,
    root: str,
) -> None:
    points = scene.read_points()
    if points is not None and (wrong := points_problem(points, dataset.known_ids)):
        raise DataError(f"{scene.source}: {wrong[0]}: {wrong[1]}")
    writer = SceneWriter(file, scene.name)
    cloud = CloudBuilder(options.cloud_spacing, scene.source) if points is None else None
    views = _Views(writer, dataset, options)
    views.problems += [] if points is None else points.problems
    if options.images or cloud is not None:
        skipped = [(frame, skip.frame(scene.name, frame)) for frame in scene.frames]
        views.problems += [Problem(scene.name, frame, "skipped", reason) for frame, reason in skipped if reason]
        for frame in scene.read_frames([frame for frame, reason in skipped if not reason]):
            usable = views.add(scene.name, frame)
            if cloud is not None and usable is not None:
                cloud.add(usable)
    if cloud is not None:
        points = cloud.points()
    assert points is not None
    _write_points(writer, points)
    if views.names:
        writer.add_array("intrinsics.npy", np.stack(views.intrinsics))
        writer.add_array("world_from_cam.npy", np.stack(views.poses))
    writer.finish(
        SceneIndex(
            name=scene.name,
            split=scene.split,
            source=without_root(scene.source, root),
            frames=tuple(views.names),
            size=views.size if views.names else None,
            depth_units=dataset.depth_units,
            points=len(points.xyz),
            members=writer.members,
            problems=tuple(replace(p, what=without_root(p.what, root)) for p in views.problems),
            options=identity,
        )
    )


def without_root(text: str, root: str) -> str:
    """A message without the directory that all files lie in: what is kept does not depend on where it was made."""
    return text.replace(f"{Path(root)}/", "") if root else text


class _Views:
    """The frames that have been written so far."""

    def __init__(self, writer: SceneWriter, dataset: RawDataset, options: PrepareOptions):
        self.writer, self.dataset, self.options = writer, dataset, options
        self.size: tuple[int, int] | None = None
        self.names: list[str] = []
        self.intrinsics: list[np.ndarray] = []
        self.poses: list[np.ndarray] = []
        self.problems: list[Problem] = []

    def add(self, scene: str, frame: RawFrame | Problem) -> RawFrame | None:
        """Write a frame if it can be used; returns it then."""
        if isinstance(frame, Problem):
            self.problems.append(frame)
            return None
        wrong = frame_problem(frame, self.dataset.known_ids)
        size = (frame.rgb.shape[0], frame.rgb.shape[1])
        if wrong is None and self.size not in (None, size):
            assert self.size is not None
            before = f"{self.size[1]}x{self.size[0]}"
            wrong = "colour", f"{size[1]}x{size[0]} pixels, where the frames before it have {before}"
        if wrong is not None:
            self.problems.append(Problem(scene, frame.name, *wrong))
            return None
        self.size = size
        if self.options.images:
            try:
                files = encode_frame(frame, self.dataset.depth_units, self.options.jpeg_quality)
            except DataError as error:
                self.problems.append(Problem(scene, frame.name, "label", str(error)))
                return None
            for name, data in files.items():
                self.writer.add(f"f{len(self.names):06d}.{name}", data)
            self.names.append(frame.name)
            self.intrinsics.append(frame.intrinsics.astype(np.float64))
            self.poses.append(frame.world_from_cam.astype(np.float64))
        return frame


def encode_frame(frame: RawFrame, depth_units: int, jpeg_quality: int) -> dict[str, bytes]:
    """The images of a frame as files, by the ends of their names.

    Raises:
        DataError: a label or instance number that 16 bits do not hold.
    """
    files = {"color.jpg": _encoded(frame.rgb, "JPEG", quality=jpeg_quality)}
    if frame.depth is not None:
        raw = np.round(frame.depth.astype(np.float64) * depth_units)
        files["depth.png"] = _png16(np.where(raw <= _MAX16, raw, 0))  # beyond the reach of 16 bits: none
    if frame.labels is not None:
        files["label.png"] = _png16(_within16(frame.labels, frame.name, "label"))
    if frame.instances is not None:
        files["instance.png"] = _png16(_within16(frame.instances + 1, frame.name, "instance"))
    return files


_MAX16 = 65535


def _within16(values: np.ndarray, frame: str, what: str) -> np.ndarray:
    if values.min() < 0 or values.max() > _MAX16:
        raise DataError(f"{frame}: {what} numbers from {values.min()} to {values.max()} do not fit 16 bits")
    return values


def _png16(values: np.ndarray) -> bytes:
    # Level 1: a quarter of the time of the default, and 10 % more bytes for depth.
    return _encoded(values.astype(np.uint16), "PNG", compress_level=1)


def _encoded(image: np.ndarray, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def _write_points(writer: SceneWriter, points: RawPoints) -> None:
    columns = {"xyz": "<f4", "rgb": "u1", "normal": "<f4", "labels": "<i4", "instances": "<i4"}
    for name, kind in columns.items():
        column = getattr(points, name)
        if column is not None:
            writer.add_array(f"{name}.npy", column.astype(kind))
