"""Posed RGB-D frames as they lie on disk: ScanNet exports, 7-Scenes, HoloLens (deep-video-mvs), and their like.

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
========== ============================================== ================================= ===========================

Conventions of the files: poses take camera (OpenCV axes) to world, in metres; depth is plane depth in integers.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.config import incidental
from ponder3d.data.dataset import DataError, DatasetConfig, SceneDataset
from ponder3d.data.rgbd_images import read_colour, read_depth, read_labels
from ponder3d.data.rgbd_layouts import Frame, Sequence, find_sequences
from ponder3d.data.transforms import select_views
from ponder3d.geometry.cameras import normals_from_depth, pixel_grid, unproject
from ponder3d.geometry.grid import voxelize
from ponder3d.geometry.transforms import Similarity, rotation_between, transform_scene
from ponder3d.types import Cameras, Scene, Views


@dataclass(frozen=True)
class RGBDFolderConfig(DatasetConfig):
    """Choices of a directory of posed RGB-D frames."""

    root: str = ""
    """The directory; sequences may lie anywhere below it."""
    split: Literal["train", "held_out"] = "train"
    """``train`` never touches a held-out frame. ``held_out`` fuses the training frames and shows the held-out ones."""
    hold_out: int = 8
    """Every n-th frame of a sequence is held out; 0 holds out none."""
    every: int = 1
    """Use every n-th frame only."""
    window: int = 30
    """Frames per scene; 0 makes a whole sequence one scene."""
    window_step: int = 10
    """Frames from one window to the next."""
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
    keep_in_memory: int = incidental(8)
    """Scenes that each loader process keeps decoded."""

    def build(self) -> "RGBDFolder":
        """Find the sequences and check their poses; images are read when a scene is asked for."""
        if not self.root:
            raise DataError("RGBDFolderConfig.root is empty: name the directory, e.g. --data.root DIR")
        if self.window < 0 or self.window_step < 1 or self.every < 1 or self.hold_out < 0 or self.hold_out == 1:
            raise DataError("RGBDFolderConfig: window, window_step, every or hold_out is out of range")
        if len(self.intrinsics) not in (0, 4) or len(self.up) not in (0, 3):
            raise DataError("RGBDFolderConfig: intrinsics takes fx fy cx cy, up takes x y z")
        return RGBDFolder(self)

    def held_out(self) -> "RGBDFolderConfig":
        """The same scenes with their held-out frames as views."""
        return replace(self, split="held_out")


@dataclass(frozen=True)
class _Window:
    sequence: Sequence
    fused: tuple[Frame, ...]
    """Frames whose depth makes the points."""
    shown: tuple[Frame, ...]
    """Frames that become views."""


class RGBDFolder(SceneDataset):
    """Scenes of a directory of posed RGB-D frames. ``skipped`` lists the frames that could not be used, and why."""

    def __init__(self, config: RGBDFolderConfig):
        self.config = config
        root = Path(config.root)
        if not root.is_dir():
            raise DataError(f"{root}: no such directory")
        sequences, self.skipped = find_sequences(root, config.intrinsics)
        if not sequences:
            raise DataError(f"{root}: no posed RGB-D frames found; see ponder3d.data.rgbd_folder for the known layouts")
        self.labels = next((s.labels for s in sequences if s.labels is not None), None)
        for sequence in sequences:
            if sequence.labels not in (None, self.labels):
                raise DataError(
                    f"{sequence.folder / 'label_map.json'}: other classes than in the sequences before it; "
                    "read them as a dataset of their own, or give both the same label_map.json"
                )
        self._windows = [window for sequence in sequences for window in _windows(sequence, config)]
        if not self._windows:
            reasons = "; ".join(self.skipped[:3])
            raise DataError(f"{root}: no scene of at least two usable frames ({len(self.skipped)} skipped: {reasons})")
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

    def _read(self, window: _Window) -> Scene:
        frames = [*window.fused, *(f for f in window.shown if f not in window.fused)]
        views, names = self._read_views(window.sequence, frames)
        fused = [names.index(f.name) for f in window.fused if f.name in names]
        shown = [names.index(f.name) for f in window.shown if f.name in names]
        if not fused or not shown:
            raise DataError(
                f"{window.sequence.folder}: no usable frame for the scene from {frames[0].name} on; "
                f"skipped: {'; '.join(self.skipped[-3:])}"
            )
        cloud = fuse_cloud(select_views(views, fused), self.config.cloud_spacing)
        scene = Scene(
            xyz=cloud.xyz,
            rgb=cloud.rgb,
            normal=cloud.normal,
            labels=cloud.labels,
            source=f"{window.sequence.folder}:{frames[0].name}",
            views=select_views(views, shown),
        )
        turn = rotation_between(up_direction(window.sequence, self.config.up), torch.tensor([0.0, 0.0, 1.0]))
        return transform_scene(Similarity(turn, torch.zeros(3)), scene)

    def _read_views(self, sequence: Sequence, frames: list[Frame]) -> tuple[Views, list[str]]:
        """Images of the frames that can be read, at one common size; the others go to ``skipped``."""
        colours, depths, labels, intrinsics, poses, names = [], [], [], [], [], []
        size: tuple[int, int] | None = None
        for frame in frames:
            try:
                raw_size, depth = read_depth(frame.depth, self.config)
                size = size or fitted_size(raw_size, self.config.max_side)
                colour_size, colour = read_colour(frame, raw_size, size)
                mask = None if sequence.labels is None else frame.label  # without a map its values mean nothing
                label = None if mask is None else read_labels(mask, sequence.label_rows, size)
            except DataError as error:
                self._skip(str(error))
                continue
            colours.append(colour)
            depths.append(F.interpolate(depth[None, None], size=size, mode="nearest-exact")[0, 0])
            labels.append(label)
            shared = frame.depth_intrinsics is frame.colour_intrinsics
            intrinsics.append(_resized_intrinsics(frame.depth_intrinsics, colour_size if shared else raw_size, size))
            poses.append(torch.from_numpy(frame.world_from_cam).to(torch.float32))
            names.append(frame.name)
        if size is None or not names:
            raise DataError(
                f"{sequence.folder}: none of {len(frames)} frames can be read: {'; '.join(self.skipped[-3:])}"
            )
        has_labels = all(label is not None for label in labels)
        views = Views(
            cameras=Cameras(torch.stack(intrinsics), torch.stack(poses), size),
            rgb=torch.stack(colours),
            depth=torch.stack(depths),
            labels=torch.stack([label for label in labels if label is not None]) if has_labels else None,
            counts=torch.tensor([len(names)]),
            names=tuple(names),
        )
        return views, names

    def _skip(self, reason: str) -> None:
        if reason not in self.skipped:
            self.skipped.append(reason)


def _windows(sequence: Sequence, config: RGBDFolderConfig) -> list[_Window]:
    """Cut a sequence into scenes. Held-out frames are chosen before, so that no window can see one by accident."""
    frames = sequence.frames[:: config.every]
    held = {f.name for f in frames[config.hold_out // 2 :: config.hold_out]} if config.hold_out else set()
    length = config.window or len(frames)
    starts = list(range(0, max(len(frames) - length, 0) + 1, config.window_step))
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


def fuse_cloud(views: Views, spacing: float) -> _Cloud:
    """Back-project all depth into the world and average what falls into one voxel of ``spacing`` metres.

    Pixels without a normal (at depth edges and holes) make no points: their depth is the least certain.

    Raises:
        DataError: not a single pixel has a depth and a normal.
    """
    assert views.depth is not None
    cameras = views.cameras
    normal = normals_from_depth(views.depth, cameras.intrinsics)
    normal = torch.einsum("vij,vhwj->vhwi", cameras.world_from_cam[:, :3, :3], normal)
    use = normal.flatten(0, 2).abs().sum(1) > 0
    view = torch.arange(len(cameras)).repeat_interleave(cameras.size[0] * cameras.size[1])[use]
    uv = pixel_grid(cameras.size).repeat(len(cameras), 1)[use]
    if len(uv) == 0:
        raise DataError(f"{', '.join(views.names[:3])}: no pixel with a usable depth")
    xyz = unproject(cameras, uv, views.depth.flatten()[use], view)
    voxels = voxelize(xyz, torch.zeros(len(xyz), dtype=torch.int64), spacing)
    rgb = views.rgb.flatten(0, 2)[use].to(torch.float32) / 255
    columns = torch.cat([xyz, rgb, normal.flatten(0, 2)[use]], dim=1)
    mean = torch.zeros(len(voxels.keys), 9).index_add_(0, voxels.voxel, columns) / voxels.counts[:, None]
    labels = None
    if views.labels is not None:
        # The label of the last pixel in the voxel: any of them, chosen the same way every time.
        last = torch.zeros(len(voxels.keys), dtype=torch.int64)
        last = last.scatter_reduce_(0, voxels.voxel, torch.arange(len(xyz)), "amax")
        labels = views.labels.flatten()[use][last].to(torch.int64)
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


def fitted_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """(height, width) with its longer side at most ``max_side``."""
    if not max_side or max(size) <= max_side:
        return size
    ratio = max_side / max(size)
    return round(size[0] * ratio), round(size[1] * ratio)


def _resized_intrinsics(matrix: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> Float[Tensor, "3 3"]:
    """As ``geometry.cameras.resize_cameras``: the image's outer edges stay in place."""
    out = torch.from_numpy(matrix).to(torch.float32).clone()
    for row, ratio in ((0, new[1] / old[1]), (1, new[0] / old[0])):
        centre = (out[row, 2] + 0.5) * ratio - 0.5
        out[row, :2] *= ratio
        out[row, 2] = centre
    return out
