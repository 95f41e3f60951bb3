"""Posed RGB-D frames as they lie on disk: every sequence of a directory is a scene of frames, without points.

The layouts are those of ``data.rgbd_folder``. A sequence is called by its path below the root, with _ for /. Its world
is turned so that z is up. All images of a sequence get the size of its first depth image, made smaller if it has to be.
Classes come from ``label_map.json`` (or ``segm_label_map.json``) beside the frames; label images without one mean
nothing. Numbers of ``instance`` images are kept, and 0 is none.
"""

import json
import math
from abc import ABC
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from PIL import Image

from ponder3d.data.dataset import DataError
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
from ponder3d.data.raw.example_room import SURFACES, ExampleRoom
from ponder3d.data.raw.point_files import cloud_files
from ponder3d.data.rgbd_folder import up_direction
from ponder3d.data.rgbd_images import FrameError, depth_size, fitted_size, read_frame_depth, read_ids, read_rgb
from ponder3d.data.rgbd_layouts import Frame, layout_of, palette, read_sequence, sequence_folders
from ponder3d.data.rgbd_layouts import Sequence as FrameSequence
from ponder3d.geometry.transforms import rotation_between
from ponder3d.types import LabelSet

SPLITS = ("train", "val", "test")
_DEEP, _WIDE = 4, 2000
"""How deep below a root, and in how many folders, ``recognises`` looks for frames."""
_LARGEST = 0xFFFF
"""Prepared label images have 16 bits."""


@dataclass(frozen=True)
class RGBDOptions(RawDatasetConfig, ABC):
    """Choices of how posed RGB-D frames are read, for every dataset that has some."""

    root: str = ""
    """The directory."""
    every: int = 1
    """Take every n-th usable frame."""
    val_every: int = 8
    """About every n-th scene is for validation, where folders do not say otherwise; 0: none. Its name decides, see
    ``splits_of``."""
    depth_scale: float = 1000.0
    """Depth units per metre."""
    invalid_depth: tuple[int, ...] = (0, 65535)
    """Raw depth values that mean "nothing"."""
    max_depth: float = 8.0
    """Metres beyond which a depth camera is not believed."""
    intrinsics: tuple[float, ...] = ()
    """fx fy cx cy of the colour images, for directories without a file that says so."""
    max_side: int = 640
    """Images are made smaller until their longer side is at most this many pixels; 0 keeps them."""
    up: tuple[float, ...] = ()
    """The direction of up in the files' world. Empty: z for scenes with points; for frames alone from
    ``gravity-direction.txt`` if there is one, else the world axis that the cameras' upper image edges point to."""

    def __post_init__(self):
        for name, fits, allowed in (
            ("every", self.every >= 1, "at least 1"),
            ("val_every", self.val_every >= 0, "at least 0"),
            ("depth_scale", 0 < self.depth_scale < math.inf, "a positive number"),
            ("max_depth", 0 < self.max_depth < math.inf, "a positive number"),
            ("intrinsics", not self.intrinsics or _is_pinhole(self.intrinsics), "fx fy cx cy, the first two positive"),
            ("max_side", self.max_side == 0 or self.max_side >= 8, "0 or at least 8"),
            ("up", not self.up or is_direction(self.up), "x y z, not all of them 0"),
        ):
            if not fits:
                raise ValueError(f"{type(self).__name__}.{name} must be {allowed}, it is {getattr(self, name)}")

    def directory(self) -> Path:
        """The root.

        Raises:
            DataError: it is not given or no directory.
        """
        if not self.root:
            raise DataError(f"{type(self).__name__}.root is empty: name the directory")
        if not Path(self.root).is_dir():
            raise DataError(f"{self.root}: no such directory")
        return Path(self.root)


def _is_pinhole(values: tuple[float, ...]) -> bool:
    return len(values) == 4 and all(map(math.isfinite, values)) and min(values[:2]) > 0


def is_direction(values: tuple[float, ...]) -> bool:
    """Whether three numbers say where something points to."""
    return len(values) == 3 and all(map(math.isfinite, values)) and any(values)


@dataclass(frozen=True)
class RGBDConfig(RGBDOptions):
    """Choices of a directory of posed RGB-D sequences."""

    def build(self) -> "RGBD":
        """List the sequences; images are not opened."""
        return RGBD(self)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Frames in a known layout at most four folders down, and no clouds beside them."""
        return not has_clouds(root) and has_frames(root)

    @staticmethod
    def write_example(root: Path) -> None:
        """A sequence in each layout; two have labels, one of them instances."""
        for i, layout in enumerate(("scannet", "shelf", "seven-scenes", "hololens")):
            write_sequence(root / "house" / layout, ExampleRoom(half_width=2.0 + 0.2 * i), layout)


class RGBD(RawDataset):
    """Sequences of posed RGB-D frames."""

    def __init__(self, config: RGBDConfig):
        root = config.directory()
        opened, problems = open_sequences(root, root, config)
        named = [(sequence.folder, sequence.label_names) for sequence in opened]
        self.tables = label_tables(named)
        ids = frozenset(row[0] for table in self.tables for row in table.rows)
        scenes = []
        splits = splits_of([sequence.name for sequence in opened], config.val_every)
        for sequence in sorted(opened, key=lambda sequence: sequence.name):
            frames = {frame.name: frame for frame in sequence.frames[:: config.every]}
            turn = upright(up_direction(sequence, config.up).double().numpy())
            no_label = unnamed(ids) if sequence.labels is not None else None
            scenes.append(
                _Scene(sequence, splits[sequence.name], FrameReader(sequence.name, frames, config, turn, no_label))
            )
        if not scenes:
            why = f" ({len(problems)} problems, the first: {problems[0]})" if problems else ""
            raise DataError(f"{root}: no posed RGB-D frames found{why}; see ponder3d.data.rgbd_folder for the layouts")
        self.scenes = checked_scenes(scenes, str(root))
        self.problems = tuple(problems)
        self.depth_units = depth_units(config, [frame for sequence in opened for frame in sequence.frames])


class _Scene(RawScene):
    def __init__(self, sequence: FrameSequence, split: str, reader: "FrameReader"):
        self.name, self.split, self.source = sequence.name, split, str(sequence.folder)
        self.frames = tuple(reader.frames)
        self._reader = reader

    def read_points(self) -> RawPoints | None:
        return None

    def read_frames(self, names: Sequence[str]) -> Iterator[RawFrame | Problem]:
        return self._reader.read(names)


@dataclass(frozen=True, eq=False)
class FrameReader:
    """Reads the frames of one scene into its world: ``scale * turn @ (x - origin)`` of the files' world."""

    scene: str
    frames: dict[str, Frame]
    """By name, in order of time."""
    options: RGBDOptions
    turn: np.ndarray
    """[3 3]."""
    no_label: int | None
    """Raw id of pixels that labels do not reach; None: labels are not read."""
    scale: float = 1.0
    origin: tuple[float, ...] = (0.0, 0.0, 0.0)

    @cached_property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of all images: of the first legible depth image; None if there is none."""
        for frame in self.frames.values():
            try:
                return fitted_size(depth_size(frame), self.options.max_side)
            except FrameError:
                continue
        return None

    def read(self, names: Sequence[str]) -> Iterator[RawFrame | Problem]:
        """The frames of these names, or what is wrong with them.

        Raises:
            DataError: a name is not among the frames.
        """
        for name in names:
            if name not in self.frames:
                raise DataError(f"{self.scene}: no frame named {name}")
            try:
                yield self._read(name, self.frames[name])
            except FrameError as error:
                yield Problem(self.scene, name, error.kind, str(error))

    def _read(self, name: str, frame: Frame) -> RawFrame:
        depth = read_frame_depth(frame, self.options)[1].numpy()
        try:
            rgb = read_rgb(frame.colour)
        except DataError as error:
            raise FrameError("colour", str(error)) from error
        labels = instances = None
        if self.no_label is not None and frame.label is not None:
            labels = read_ids(frame.label)
        if frame.instance is not None:
            instances = read_ids(frame.instance)
            instances = np.where(instances == 0, -1, instances)
        pose = np.eye(4)
        pose[:3, :3] = self.turn @ frame.world_from_cam[:3, :3]
        pose[:3, 3] = self.turn @ (self.scale * (frame.world_from_cam[:3, 3] - np.array(self.origin)))
        matrices = (frame.colour_intrinsics, frame.depth_intrinsics)
        no_label = 0 if self.no_label is None else self.no_label
        return aligned(
            name, pose, rgb, depth, matrices, labels=labels, instances=instances, no_label=no_label, size=self.size
        )


def open_sequences(
    folder: Path, root: Path, options: RGBDOptions, scene: str = ""
) -> tuple[list[FrameSequence], list[Problem]]:
    """Sequences with usable frames at or below a folder, and what is wrong with other frames and sequences.

    Args:
        folder: where to look.
        root: of the dataset; ``gravity-direction.txt`` may lie up to there.
        options: for the intrinsics.
        scene: to name problems by; empty: the sequence's name.
    """
    sequences, problems = [], []
    for name, place in sequence_folders(folder):
        try:
            sequence, wrong = read_sequence(name, place, root, options.intrinsics)
        except DataError as error:
            problems.append(Problem(scene or name, "", "file", str(error)))
            continue
        problems += [replace(problem, scene=scene or name) for problem in wrong]
        if sequence.frames:
            sequences.append(sequence)
        else:
            problems.append(Problem(scene or name, "", "file", f"{place}: no usable frame"))
    return sequences, problems


def label_tables(named: Sequence[tuple[Path, dict[int, str]]]) -> tuple[LabelTable, ...]:
    """The classes of all sequences together; none if no sequence has any.

    Raises:
        DataError: a number means one class here and another there.
    """
    names: dict[int, str] = {}
    for folder, own in named:
        for value, name in own.items():
            if names.setdefault(value, name) != name:
                raise DataError(
                    f"{folder}: its label map calls {value} {name!r}, that of another sequence {names[value]!r}; "
                    "prepare them as two datasets, or give both the same map"
                )
    return (table_of(names),) if names else ()


def table_of(names: dict[int, str], colours: Sequence[tuple[int, int, int]] = ()) -> LabelTable:
    """The classes of raw ids; ids of one name are one class. ``colours``: one for each class, or none."""
    classes = list(dict.fromkeys(names[value] for value in sorted(names)))
    rows = tuple((value, classes.index(names[value])) for value in sorted(names))
    return LabelTable("all", LabelSet(tuple(classes), tuple(colours) or palette(len(classes))), rows)


def unnamed(ids: frozenset[int]) -> int:
    """The largest number of 16 bits that is no raw id."""
    return next(value for value in range(_LARGEST, -1, -1) if value not in ids)


def upright(up: np.ndarray) -> np.ndarray:
    """[3 3]: the smallest rotation that takes a direction to z."""
    return rotation_between(torch.from_numpy(up), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)).numpy()


def splits_of(names: Iterable[str], val_every: int) -> dict[str, str]:
    """The splits of scenes where nothing else says so: ``val`` if the CRC-32 of the name is a multiple of
    ``val_every``, so that a scene stays where it is when others come or go.

    If that holds for none of several scenes, or for all, the one with the smallest CRC-32 is ``val`` and the others are
    ``train``. A single scene is ``train``.

    Args:
        names: of all scenes whose split nothing else says.
        val_every: 0: all are ``train``.
    """
    numbers = {name: crc32(name.encode(errors="surrogateescape")) for name in names}
    chosen = {name for name, number in numbers.items() if val_every and number % val_every == 0}
    if val_every and len(chosen) in (0, len(numbers)):
        chosen = set(sorted(numbers, key=lambda name: (numbers[name], name))[:1]) if len(numbers) > 1 else set()
    return {name: "val" if name in chosen else "train" for name in numbers}


def depth_units(options: RGBDOptions, frames: Sequence[Frame]) -> int:
    """Units per metre that hold the depth of all frames in 16 bits, as exactly as they can."""
    scales = {frame.depth_units or options.depth_scale for frame in frames} or {options.depth_scale}
    finest = max(1, round(max(scales)))
    return finest if len(scales) == 1 else min(finest, int(_LARGEST / options.max_depth))


def has_frames(root: Path) -> bool:
    """Whether there are frames in a known layout not far below a directory."""
    level, seen = [root] if root.is_dir() else [], 0
    for _ in range(_DEEP + 1):
        below = []
        for folder in level:
            seen += 1
            if layout_of(folder) is not None:
                return True
            if seen + len(below) < _WIDE:
                below += sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
        level = below[: _WIDE - seen]
    return False


def has_clouds(root: Path) -> bool:
    """Whether a directory follows the schema of ``raw.folder``: ``labels.json``, or a cloud where it expects one."""
    if not root.is_dir():
        return False
    if (root / "labels.json").is_file():
        return True
    places = [root, *(root / split for split in SPLITS)]
    return any(cloud_files(p) or any(scene_clouds(s) for s in p.iterdir() if s.is_dir()) for p in places if p.is_dir())


def scene_clouds(folder: Path) -> list[Path]:
    """``points.*`` of a scene's folder."""
    return [path for path in cloud_files(folder) if path.stem == "points"]


def write_sequence(folder: Path, room: ExampleRoom, layout: str) -> None:
    """Write the frames of a room in one of the layouts.

    Args:
        folder: where; it is made.
        room: what is seen.
        layout: ``scannet`` (with labels and instances), ``shelf`` (with labels), ``seven-scenes`` or ``hololens``.
    """
    names = sorted(set(SURFACES))
    ids = np.array([names.index(name) + 1 for name in SURFACES])
    scannet = {"color": "color", "depth": "depth", "label": "label", "instance": "instance"}
    folders = {"scannet": scannet, "hololens": {"color": "images", "depth": "depth"}}.get(layout, {})
    for name in [*folders.values(), *(("pose", "intrinsic") if layout == "scannet" else ())]:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / ("segm" if layout == "shelf" else "")).mkdir(parents=True, exist_ok=True)
    lines = ["# Color camera intrinsic matrix", _rows(room.intrinsics)]
    for i in range(room.num_frames):
        depth, surface = room.trace(i)
        packed = np.round(depth * (10_000 if layout == "shelf" else 1000)).astype(np.uint16)
        if layout == "shelf":
            packed = (packed << 3) | (packed >> 13)
        images = {"color": room.colour(i), "depth": packed}
        if layout in ("scannet", "shelf"):
            images["label"] = ids[surface].astype(np.uint8)
        if layout == "scannet":
            images["instance"] = (surface + 1).astype(np.uint16)
        for kind, image in images.items():
            stem = folder / folders[kind] / f"{10 * i}" if folders else folder / f"frame-{10 * i:06d}.{kind}"
            if layout == "shelf" and kind == "label":
                stem = folder / "segm" / f"frame-{10 * i:06d}.segm"
            Image.fromarray(image).save(f"{stem}.png")
        pose = _rows(room.pose(i))
        if layout in ("scannet", "seven-scenes"):
            name = f"pose/{10 * i}.txt" if layout == "scannet" else f"frame-{10 * i:06d}.pose.txt"
            (folder / name).write_text(pose)
        title = "Camera-to-world extrinsic matrix (camera pose) for "
        lines += [f"# {title}frame-{10 * i:06d}" if layout == "shelf" else "", pose]
    by_id = {str(i + 1): name for i, name in enumerate(names)}
    if layout == "scannet":
        (folder / "intrinsic" / "intrinsic_color.txt").write_text(_rows(room.intrinsics))
        (folder / "label_map.json").write_text(json.dumps({"label_id_to_category": by_id}))
    elif layout == "shelf":
        (folder / "cam.info.txt").write_text("\n".join(lines))
        (folder / "segm_label_map.json").write_text(json.dumps({**by_id, "_note": "of the example"}))
    else:
        (folder / {"hololens": "K.txt"}.get(layout, "camera-intrinsics.txt")).write_text(_rows(room.intrinsics))
    if layout == "hololens":
        (folder / "poses.txt").write_text("".join(lines[3::2]))


def _rows(matrix: np.ndarray) -> str:
    return "".join(" ".join(f"{value:.12g}" for value in row) + "\n" for row in matrix)
