"""Posed RGB-D frames as they lie on disk: ScanNet exports, 7-Scenes, HoloLens (deep-video-mvs), the shelves of the
Amazon Picking Challenge, and their like.

A directory is searched for sequences. Every sequence is cut into windows of frames, and a window is a scene: its
frames' depth is fused into a point cloud, its images supervise. Every n-th frame is held out: it neither makes points
nor supervises, and shows afterwards what was learnt.

Layouts, found by their file names:

========== ============================================== ================================= ===========================
layout     frames                                         intrinsics                        poses
========== ============================================== ================================= ===========================
7-Scenes   ``frame-000010.{color,depth,pose}.*``          ``camera-intrinsics.txt`` there   one 4x4 per frame
                                                          or above
HoloLens   ``images/*``, ``depth/*``                      ``K.txt``                         ``poses.txt``: one row-major
                                                                                            4x4 per line, or 4 lines
ScanNet    ``color/*``, ``depth/*``, optional ``label/*`` ``intrinsic/``: per frame, or     ``pose/``: one 4x4 per frame
                                                          ``intrinsic_{color,depth}.txt``
                                                          (one of them is enough)
shelf      ``frame-000010.{color,depth}.png``, optional   ``cam.info.txt``                  ``cam.info.txt``
           ``segm/frame-000010.segm.png``
========== ============================================== ================================= ===========================

Conventions of the files: poses take camera (OpenCV axes) to world, in metres; depth is plane depth in integers; label
images belong to the colour camera unless only the depth image has their size. Depth of a shelf is in tenths of
millimetres, rotated by three bits, whatever the options say. Classes are in ``label_map.json`` (ScanNet) or
``segm_label_map.json`` (shelf).
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.config import incidental
from ponder3d.data.cloud_voxels import voxels_of_cloud
from ponder3d.data.dataset import DataError, DatasetConfig, SceneDataset, no_labels
from ponder3d.data.rgbd_images import (
    check_headers,
    fitted_size,
    intrinsics_at,
    read_colour,
    read_frame_depth,
    read_labels,
)
from ponder3d.data.rgbd_layouts import Frame, Sequence, find_sequences
from ponder3d.data.skip_list import skip_list_of
from ponder3d.data.transforms import select_views
from ponder3d.geometry.cameras import normals_from_depth, pixel_grid, unproject
from ponder3d.geometry.transforms import Similarity, rotation_between, transform_scene
from ponder3d.types import Cameras, Scene, Views

_NO_LABELS = torch.tensor(-1, dtype=torch.int16)
"""Of a pixel, as ``read_labels`` has it."""


@dataclass(frozen=True)
class RGBDFolderConfig(DatasetConfig):
    """Choices of a directory of posed RGB-D frames."""

    root: str = ""
    """The directory; sequences may lie anywhere below it."""
    split: Literal["train", "held_out"] = "train"
    """``train`` never touches a held-out frame. ``held_out`` fuses the training frames and shows the held-out ones."""
    hold_out: int = 8
    """Every n-th usable frame of a sequence is held out; 0 holds out none, and then there is nothing to evaluate on."""
    every: int = 1
    """Use every n-th frame only."""
    window: int = 30
    """Frames per scene; 0 makes a whole sequence one scene."""
    window_step: int = 10
    """Frames from one window to the next; the last window ends with the sequence."""
    fused_share: float = 0.7
    """Share of a training scene's frames whose depth makes the points; the others supervise views the points do not
    come from."""
    depth_scale: float = 1000.0
    """Depth units per metre."""
    invalid_depth: tuple[int, ...] = (0, 65535)
    """Raw depth values that mean "nothing"."""
    max_depth: float = 8.0
    """Metres beyond which a depth camera is not believed."""
    intrinsics: tuple[float, ...] = ()
    """fx fy cx cy of the colour images, for directories without a file that says so."""
    max_side: int = 320
    """Images are made smaller until their longer side is at most this many pixels; 0 keeps them."""
    up: tuple[float, ...] = ()
    """The direction of up in the files' world. Empty: from ``gravity-direction.txt`` if there is one, else the world
    axis that the cameras' upper image edges point to on average."""
    cloud_spacing: float = 0.02
    """Metres; the fused cloud has one point per voxel of this size, the mean of what was measured in it."""
    skip: str = ""
    """A skip list (``data.skip_list``), such as ``ponder3d doctor`` writes. Empty: ``skip.tsv`` in ``root`` if there is
    one. A sequence is called by its path below ``root``, with _ for /."""
    keep_in_memory: int = incidental(8)
    """Scenes that each loader process keeps decoded."""

    def __post_init__(self):
        for name, fits, allowed in (
            ("hold_out", self.hold_out == 0 or self.hold_out >= 2, "0 or at least 2"),
            ("every", self.every >= 1, "at least 1"),
            ("window", self.window == 0 or self.window >= 2, "0 or at least 2"),
            ("window_step", self.window_step >= 1, "at least 1"),
            ("fused_share", 0 < self.fused_share <= 1, "above 0 and at most 1"),
            ("depth_scale", 0 < self.depth_scale < math.inf, "a positive number"),
            ("max_depth", self.max_depth > 0, "positive"),
            ("intrinsics", _is_pinhole(self.intrinsics), "fx fy cx cy with positive focal lengths"),
            ("max_side", self.max_side == 0 or self.max_side >= 8, "0 or at least 8"),
            ("up", _is_direction(self.up), "x y z, not all of them 0"),
            ("cloud_spacing", 0 < self.cloud_spacing < math.inf, "a positive number"),
            ("keep_in_memory", self.keep_in_memory >= 0, "at least 0"),
        ):
            if not fits:
                raise ValueError(f"RGBDFolderConfig.{name} must be {allowed}, it is {getattr(self, name)}")

    def build(self) -> "RGBDFolder":
        """Find the sequences, check poses and image headers; images are decoded when a scene is asked for."""
        if not self.root:
            raise DataError("RGBDFolderConfig.root is empty: name the directory, e.g. --data.root DIR")
        return RGBDFolder(self)

    def all_images(self) -> "RGBDFolderConfig":
        """The same frames in windows that do not overlap, but for the last of a sequence."""
        return replace(self, window_step=self.window or 1, keep_in_memory=0)

    def held_out(self) -> "RGBDFolderConfig":
        """The same scenes with their held-out frames as views."""
        return replace(self, split="held_out")


def _is_pinhole(values: tuple[float, ...]) -> bool:
    return not values or (len(values) == 4 and all(map(math.isfinite, values)) and min(values[:2]) > 0)


def _is_direction(values: tuple[float, ...]) -> bool:
    return not values or (len(values) == 3 and all(map(math.isfinite, values)) and any(values))


@dataclass(frozen=True)
class _Window:
    sequence: Sequence
    fused: tuple[Frame, ...]
    """Frames whose depth makes the points."""
    shown: tuple[Frame, ...]
    """Frames that become views."""


class RGBDFolder(SceneDataset):
    """Scenes of a directory of posed RGB-D frames.

    Frames whose pose or image headers show that they cannot be used are left out before frames are held out and windows
    are cut; those that turn out to be damaged when a scene is read are missing from it.
    """

    def __init__(self, config: RGBDFolderConfig):
        self.config = config
        root = Path(config.root)
        if not root.is_dir():
            raise DataError(f"{root}: no such directory")
        sequences, problems = find_sequences(root, config.intrinsics)
        skipped = [problem.what for problem in problems]
        if not sequences:
            raise DataError(
                f"{root}: no posed RGB-D frames found{_listed(skipped)}; see ponder3d.data.rgbd_folder for the layouts"
            )
        self.labels = next((s.labels for s in sequences if s.labels is not None), None)
        for sequence in sequences:
            if sequence.labels not in (None, self.labels):
                raise DataError(
                    f"{sequence.folder / 'label_map.json'}: other classes than in the sequences before it; "
                    "read them as a dataset of their own, or give both the same label_map.json"
                )
        skip = skip_list_of(root, config.skip)
        unknown = skip.strangers(s.name for s in sequences)
        skipped += [
            f"{skip.where}: it names {name}, which is not below {root} or has no usable frame" for name in unknown
        ]
        self._windows: list[_Window] = []
        num_usable = 0
        for sequence in sequences:
            usable = []
            for frame in sequence.frames[:: config.every]:
                reason = skip.frame(sequence.name, frame.name)
                if reason is not None:
                    skipped.append(f"{frame.colour}: left out by {skip.where}: {reason}")
                    continue
                try:
                    check_headers(frame, with_label=sequence.labels is not None)
                    usable.append(frame)
                except DataError as error:
                    skipped.append(str(error))
            self._windows += _windows(sequence, usable, config)
            num_usable = max(num_usable, len(usable))
        self.skipped = tuple(skipped)
        if not self._windows:
            raise DataError(f"{root}: {_why_no_scene(config, num_usable)}{_listed(self.skipped)}")
        self._memory: dict[int, Scene] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Scene:
        if index not in self._memory:
            scene = self._read(self._windows[index])
            if self.config.keep_in_memory:
                while len(self._memory) >= self.config.keep_in_memory:
                    self._memory.pop(next(iter(self._memory)))
                self._memory[index] = scene
            return scene
        return self._memory[index]

    def view_names(self, index: int) -> tuple[str, tuple[str, ...]]:
        """The sequence, and the frames of the window that are views."""
        window = self._windows[index]
        return window.sequence.name, tuple(frame.name for frame in window.shown)

    def _read(self, window: _Window) -> Scene:
        frames = [*window.fused, *(f for f in window.shown if f not in window.fused)]
        views, skipped = self._read_views(window.sequence, frames)
        fused = [views.names.index(f.name) for f in window.fused if f.name in views.names]
        shown = [views.names.index(f.name) for f in window.shown if f.name in views.names]
        if not fused or not shown:
            missing = "to make points of" if not fused else "to look at them"
            raise DataError(
                f"{window.sequence.folder}: the scene from {frames[0].name} on has no usable frame {missing}"
                f"{_listed(skipped)}"
            )
        cloud = fuse_cloud(select_views(views, fused), self.config.cloud_spacing, str(window.sequence.folder))
        scene = Scene(
            xyz=cloud.xyz,
            rgb=cloud.rgb,
            normal=cloud.normal,
            labels=no_labels(len(cloud.xyz)) if cloud.labels is None and self.labels is not None else cloud.labels,
            source=f"{window.sequence.folder}:{frames[0].name}",
            views=select_views(views, shown),
            recording=window.sequence.name,
            skipped=skipped,
        )
        turn = rotation_between(up_direction(window.sequence, self.config.up), torch.tensor([0.0, 0.0, 1.0]))
        return transform_scene(Similarity(turn, torch.zeros(3)), scene)

    def _read_views(self, sequence: Sequence, frames: list[Frame]) -> tuple[Views, tuple[str, ...]]:
        """Images of the frames that can be read, at one common size, and what is wrong with the others."""
        colours, depths, labels, intrinsics, poses, names, skipped = [], [], [], [], [], [], []
        size: tuple[int, int] | None = None
        for frame in frames:
            try:
                raw_size, depth = read_frame_depth(frame, self.config)
                size = size or fitted_size(raw_size, self.config.max_side)
                colour_size, colour = read_colour(frame, raw_size, size)
                label = None
                if sequence.labels is not None:  # without a map the values of a label image mean nothing
                    label = read_labels(frame, sequence.label_rows, colour_size, raw_size, size)
            except DataError as error:
                skipped.append(str(error))
                continue
            colours.append(colour)
            depths.append(F.interpolate(depth[None, None], size=size, mode="nearest-exact")[0, 0])
            labels.append(label)
            intrinsics.append(intrinsics_at(frame, colour_size, raw_size, size))
            poses.append(torch.from_numpy(frame.world_from_cam).to(torch.float32))
            names.append(frame.name)
        if size is None or not names:
            raise DataError(f"{sequence.folder}: none of {len(frames)} frames can be read{_listed(skipped)}")
        known = [label for label in labels if label is not None]
        if 0 < len(known) < len(labels):
            lacking = names[[label is None for label in labels].index(True)]
            skipped.append(
                f"{sequence.folder}: {len(labels) - len(known)} of {len(labels)} frames from {frames[0].name} on have "
                f"no label image, such as {lacking}: their pixels have no class"
            )
        views = Views(
            cameras=Cameras(torch.stack(intrinsics), torch.stack(poses), size),
            rgb=torch.stack(colours),
            depth=torch.stack(depths),
            labels=torch.stack([_NO_LABELS.expand(size) if label is None else label for label in labels])
            if known
            else None,
            counts=torch.tensor([len(names)]),
            names=tuple(names),
        )
        return views, tuple(skipped)


def _listed(skipped: list[str] | tuple[str, ...]) -> str:
    """The end of an error message: the first few frames that were left out."""
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f" ({len(skipped)} skipped: {'; '.join(skipped[:3])}{more})" if skipped else ""


def _why_no_scene(config: RGBDFolderConfig, num_usable: int) -> str:
    if config.split == "train":
        return f"no scene of at least two usable frames; the longest sequence has {num_usable}"
    if not config.hold_out:
        return "no frame is held out to evaluate on, as hold_out is 0; set --data.hold-out to 2 or more"
    return (
        f"no scene has a held-out frame to evaluate on and two others: the longest sequence has {num_usable} usable "
        f"frames, and of {config.hold_out} frames number {config.hold_out // 2 + 1} is held out; make "
        "--data.hold-out smaller or --data.window larger"
    )


def _windows(sequence: Sequence, frames: list[Frame], config: RGBDFolderConfig) -> list[_Window]:
    """Cut the frames of a sequence into scenes. Held-out frames are chosen before, so that no window can see one by
    accident."""
    held = {f.name for f in frames[config.hold_out // 2 :: config.hold_out]} if config.hold_out else set()
    length = config.window or len(frames)
    last = max(len(frames) - length, 0)
    starts = [*range(0, last, config.window_step), last]
    found = []
    for start in starts:
        part = frames[start : start + length]
        train = [f for f in part if f.name not in held]
        if config.split == "held_out":
            fused, shown = train, [f for f in part if f.name in held]
        else:
            # Spread the frames that make no points evenly: frame i makes points when i * share crosses an integer.
            share = config.fused_share
            fused = [f for i, f in enumerate(train) if int((i + 1) * share) > int(i * share)] or train[:1]
            shown = train
        if len(train) >= 2 and shown:
            found.append(_Window(sequence, tuple(fused), tuple(shown)))
    return found


@dataclass(frozen=True)
class _Cloud:
    xyz: Float[Tensor, "N 3"]
    rgb: Float[Tensor, "N 3"]
    normal: Float[Tensor, "N 3"]
    labels: Int[Tensor, " N"] | None


def fuse_cloud(views: Views, spacing: float, where: str) -> _Cloud:
    """Back-project all depth into the world and average what falls into one voxel of ``spacing`` metres.

    Pixels without a normal (at depth edges and holes) make no points: their depth is the least certain.

    A voxel has the label of its last pixel, of those in images with any.

    Args:
        views: with depth, maybe with labels.
        spacing: edge of a voxel in metres.
        where: what they are of, for messages.

    Raises:
        DataError: not a single pixel has a depth and a normal, or the cloud is out of the voxels' reach.
    """
    assert views.depth is not None
    cameras = views.cameras
    normal = normals_from_depth(views.depth, cameras.intrinsics)
    normal = torch.einsum("vij,vhwj->vhwi", cameras.world_from_cam[:, :3, :3], normal)
    use = normal.flatten(0, 2).abs().sum(1) > 0
    view = torch.arange(len(cameras)).repeat_interleave(cameras.size[0] * cameras.size[1])[use]
    uv = pixel_grid(cameras.size).repeat(len(cameras), 1)[use]
    if len(uv) == 0:
        raise DataError(f"{where}: {', '.join(views.names[:3])}: no pixel with a usable depth")
    xyz = unproject(cameras, uv, views.depth.flatten()[use], view)
    voxels = voxels_of_cloud(xyz, spacing, where)
    rgb = views.rgb.flatten(0, 2)[use].to(torch.float32) / 255
    columns = torch.cat([xyz, rgb, normal.flatten(0, 2)[use]], dim=1)
    mean = torch.zeros(len(voxels.keys), 9).index_add_(0, voxels.voxel, columns) / voxels.counts[:, None]
    labels = None
    if views.labels is not None:
        # Any of them would do, chosen the same way every time. An image without labels has nothing to say.
        told = (views.labels >= 0).flatten(1).any(1)[view]
        number = torch.where(told, torch.arange(len(xyz)), -1)
        last = torch.full((len(voxels.keys),), -1).scatter_reduce_(0, voxels.voxel, number, "amax")
        labels = torch.where(last < 0, -1, views.labels.flatten()[use][last].to(torch.int64))
    return _Cloud(mean[:, :3], mean[:, 3:6], F.normalize(mean[:, 6:], dim=1), labels)


def up_direction(sequence: Sequence, up: tuple[float, ...]) -> Float[Tensor, "3"]:
    """Up in the world of a sequence: as told, against gravity if a file gives it, or the axis the cameras suggest."""
    if up:
        return torch.tensor(up, dtype=torch.float32)
    if sequence.gravity is not None:
        return -torch.from_numpy(sequence.gravity).to(torch.float32)
    mean = -np.mean([f.world_from_cam[:3, 1] for f in sequence.frames], axis=0)
    axis = int(np.abs(mean).argmax())
    return torch.eye(3)[axis] * float(np.sign(mean[axis]))
