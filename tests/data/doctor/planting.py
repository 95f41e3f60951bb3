"""Copies of recordings with one fault each, and what the doctor has to say about it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ponder3d.data.raw.example_room import ExampleRoom

Expected = list[tuple[str, set[str]]]
"""Frame (empty: the scene) and the kinds that name the fault; one of them must be found."""


@dataclass
class Tree:
    """A recording that may be changed: 7-Scenes files, those of ScanNet exports, or those of HoloLens."""

    root: Path
    folder: Path
    frames: list[str]

    def colour(self, frame: str) -> Path:
        return self._image("color" if (self.folder / "color").is_dir() else "images", "color", frame)

    def depth(self, frame: str) -> Path:
        return self._image("depth", "depth", frame)

    def label(self, frame: str) -> Path:
        return self._image("label", "label", frame)

    def pose(self, frame: str) -> np.ndarray:
        if self._table.is_file():
            return np.loadtxt(self._table).reshape(-1, 4, 4)[self.frames.index(frame)]
        return np.loadtxt(self.pose_file(frame))

    def set_pose(self, frame: str, pose: np.ndarray) -> None:
        if self._table.is_file():
            poses = np.loadtxt(self._table).reshape(-1, 4, 4)
            poses[self.frames.index(frame)] = pose
            np.savetxt(self._table, poses.reshape(-1, 16))
        else:
            np.savetxt(self.pose_file(frame), pose)

    def pose_file(self, frame: str) -> Path:
        flat = self.folder / f"{frame}.pose.txt"
        return flat if flat.is_file() else self.folder / "pose" / f"{frame}.txt"

    @property
    def _table(self) -> Path:
        return self.folder / "poses.txt"

    def _image(self, folder: str, word: str, frame: str) -> Path:
        places = [*self.folder.glob(f"{frame}.{word}.*"), *(self.folder / folder).glob(f"{frame}.*")]
        return places[0]


def copied(source: Path, root: Path, below: str, keep: int = 0) -> Tree:
    """A copy of a recording.

    Args:
        source: its root.
        root: where the copy goes.
        below: folder of the sequence that faults go into, below the root.
        keep: so many frames, in files of their own, of that sequence are kept; 0: all.
    """
    shutil.copytree(source, root, copy_function=shutil.copyfile)
    folder = root / below
    images = folder / ("color" if (folder / "color").is_dir() else "images")
    files = images.iterdir() if images.is_dir() else folder.glob("*.color.*")
    frames = sorted(p.name.split(".")[0] for p in files)
    for frame in frames[keep:] if keep else ():
        for path in folder.glob(f"{frame}.*"):
            path.unlink()
    return Tree(root, folder, frames[:keep] if keep else frames)


def example_rooms(root: Path, size: tuple[int, int] = (24, 32), num: int = 16, names=("hall", "attic")) -> Tree:
    """Sequences of example rooms in the files of 7-Scenes; faults go into the first."""
    for number, name in enumerate(names):
        room = ExampleRoom(half_width=2.0 + 0.7 * number, num_frames=num, size=size)
        folder = root / name
        folder.mkdir(parents=True)
        np.savetxt(folder / "camera-intrinsics.txt", room.intrinsics)
        for i in range(num):
            write_frame(folder, i, room.trace(i)[0], room.colour(i), room.pose(i))
    return Tree(root, root / names[0], [f"frame-{i:06d}" for i in range(num)])


def write_frame(folder: Path, number: int, depth: np.ndarray, rgb: np.ndarray, pose: np.ndarray) -> None:
    stem = f"frame-{number:06d}"
    Image.fromarray(np.round(depth * 1000).astype(np.uint16)).save(folder / f"{stem}.depth.png")
    Image.fromarray(rgb).save(folder / f"{stem}.color.png")
    np.savetxt(folder / f"{stem}.pose.txt", pose)


def inverted_pose(tree: Tree, frame: str, other: str) -> Expected:
    tree.set_pose(frame, np.linalg.inv(tree.pose(frame)))
    return [(frame, {"pose"})]


def infinite_pose(tree: Tree, frame: str, other: str) -> Expected:
    tree.set_pose(frame, np.full((4, 4), -np.inf))
    return [(frame, {"pose"})]


def nan_pose(tree: Tree, frame: str, other: str) -> Expected:
    pose = tree.pose(frame)
    pose[1, 3] = np.nan
    tree.set_pose(frame, pose)
    return [(frame, {"pose"})]


def missing_pose(tree: Tree, frame: str, other: str) -> Expected:
    tree.pose_file(frame).unlink()
    return [(frame, {"pose", "file"})]


def millimetre_pose(tree: Tree, frame: str, other: str) -> Expected:
    pose = tree.pose(frame)
    pose[:3, 3] *= 1000
    tree.set_pose(frame, pose)
    return [(frame, {"pose"})]


def pose_of_another_frame(tree: Tree, frame: str, other: str) -> Expected:
    tree.set_pose(frame, tree.pose(other))
    return [(frame, {"pose", "duplicate"})]


def turned_pose(tree: Tree, frame: str, other: str) -> Expected:
    """Axes of OpenGL: y up, z backwards."""
    tree.set_pose(frame, tree.pose(frame) @ np.diag([1, -1, -1, 1]))
    return [(frame, {"pose"})]


def mirrored_pose(tree: Tree, frame: str, other: str) -> Expected:
    tree.set_pose(frame, tree.pose(frame) @ np.diag([-1, 1, 1, 1]))
    return [(frame, {"pose"})]


def pose_that_is_no_rotation(tree: Tree, frame: str, other: str) -> Expected:
    tree.set_pose(frame, tree.pose(frame) @ np.diag([1.3, 1.3, 1.3, 1]))
    return [(frame, {"pose"})]


def all_poses_inverted(tree: Tree, frame: str, other: str) -> Expected:
    for name in tree.frames:
        tree.set_pose(name, np.linalg.inv(tree.pose(name)))
    return [("", {"pose"})]


def all_poses_in_millimetres(tree: Tree, frame: str, other: str) -> Expected:
    for name in tree.frames:
        millimetre_pose(tree, name, other)
    return [("", {"pose"})]


def _rescale(path: Path, factor: float) -> None:
    raw = np.array(Image.open(path)).astype(np.float64)
    scaled = np.where((raw > 0) & (raw < 65535), np.clip(np.round(raw * factor), 1, 65534), 0)
    Image.fromarray(scaled.astype(np.uint16)).save(path)


def depth_of_one_in_other_units(tree: Tree, frame: str, other: str) -> Expected:
    _rescale(tree.depth(frame), 5)
    return [(frame, {"depth"})]


def depth_of_all_in_other_units(tree: Tree, frame: str, other: str) -> Expected:
    for name in tree.frames:
        _rescale(tree.depth(name), 5)
    return [("", {"depth"})]


def depth_of_all_in_centimetres(tree: Tree, frame: str, other: str) -> Expected:
    for name in tree.frames:
        _rescale(tree.depth(name), 0.1)
    return [("", {"depth"})]


def depth_bytes_swapped(tree: Tree, frame: str, other: str) -> Expected:
    raw = np.array(Image.open(tree.depth(frame))).astype(np.uint16)
    Image.fromarray(raw.byteswap()).save(tree.depth(frame))
    return [(frame, {"depth"})]


def truncated_depth(tree: Tree, frame: str, other: str) -> Expected:
    _truncate(tree.depth(frame))
    return [(frame, {"depth", "file"})]


def truncated_colour(tree: Tree, frame: str, other: str) -> Expected:
    _truncate(tree.colour(frame))
    return [(frame, {"colour", "file"})]


def _truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def missing_depth(tree: Tree, frame: str, other: str) -> Expected:
    tree.depth(frame).unlink()
    return [(frame, {"depth", "file"})]


def missing_frame(tree: Tree, frame: str, other: str) -> Expected:
    for path in [tree.colour(frame), tree.depth(frame), tree.pose_file(frame)]:
        path.unlink()
    return [("", {"file"})]


def empty_depth(tree: Tree, frame: str, other: str) -> Expected:
    _rescale(tree.depth(frame), 0)
    Image.fromarray(np.zeros_like(np.array(Image.open(tree.depth(frame))))).save(tree.depth(frame))
    return [(frame, {"depth"})]


def constant_depth(tree: Tree, frame: str, other: str) -> Expected:
    Image.fromarray(np.full_like(np.array(Image.open(tree.depth(frame))), 1500)).save(tree.depth(frame))
    return [(frame, {"depth"})]


def black_image(tree: Tree, frame: str, other: str) -> Expected:
    Image.fromarray(np.zeros_like(np.array(Image.open(tree.colour(frame))))).save(tree.colour(frame))
    return [(frame, {"colour"})]


def grey_image(tree: Tree, frame: str, other: str) -> Expected:
    Image.open(tree.colour(frame)).convert("L").save(tree.colour(frame))
    return [(frame, {"colour"})]


def colours_swapped(tree: Tree, frame: str, other: str) -> Expected:
    one, two = tree.colour(frame), tree.colour(other)
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    return [(frame, {"colour"}), (other, {"colour"})]


def images_of_another_frame(tree: Tree, frame: str, other: str) -> Expected:
    """Colour and depth, not the pose."""
    shutil.copyfile(tree.colour(other), tree.colour(frame))
    shutil.copyfile(tree.depth(other), tree.depth(frame))
    return [(frame, {"duplicate", "pose"})]


def duplicated_frame(tree: Tree, frame: str, other: str) -> Expected:
    images_of_another_frame(tree, frame, other)
    tree.set_pose(frame, tree.pose(other))
    return [(frame, {"duplicate"})]


def wrong_intrinsics(tree: Tree, frame: str, other: str) -> Expected:
    """Those of images of twice the size."""
    path = next(
        place / name
        for place in [tree.folder, *tree.folder.parents]
        for name in ("camera-intrinsics.txt", "K.txt")
        if (place / name).is_file()
    )
    matrix = np.loadtxt(path)
    matrix[:2] *= 2
    np.savetxt(path, matrix)
    return [("", {"intrinsics", "pose"})]


def labels_outside_the_set(tree: Tree, frame: str, other: str) -> Expected:
    labels = np.array(Image.open(tree.label(frame)))
    labels[: len(labels) // 3] = 250
    Image.fromarray(labels).save(tree.label(frame))
    return [(frame, {"label"})]


def empty_labels(tree: Tree, frame: str, other: str) -> Expected:
    Image.fromarray(np.zeros_like(np.array(Image.open(tree.label(frame))))).save(tree.label(frame))
    return [(frame, {"label"})]


POSES = (
    *(inverted_pose, infinite_pose, nan_pose, millimetre_pose, pose_of_another_frame, turned_pose, mirrored_pose),
    *(pose_that_is_no_rotation, all_poses_inverted, all_poses_in_millimetres),
)
DEPTHS = (
    *(depth_of_one_in_other_units, depth_of_all_in_other_units, depth_of_all_in_centimetres, depth_bytes_swapped),
    *(truncated_depth, missing_depth, empty_depth, constant_depth),
)
COLOURS = (black_image, grey_image, truncated_colour, colours_swapped, images_of_another_frame)
LABELS = (labels_outside_the_set, empty_labels)
FAULTS: tuple[Callable[[Tree, str, str], Expected], ...] = (
    *POSES,
    *DEPTHS,
    *COLOURS,
    *(missing_pose, missing_frame, duplicated_frame, wrong_intrinsics),
)
"""Those for any recording whose poses are files of their own; ``LABELS`` are for labelled ones."""
