"""Scenes of drives: what a vehicle's laser and cameras saw around a key frame, the same for all layouts.

A scene is in the frame of the key frame's laser: x right, y forward, z up, origin at the laser, metres. Whatever was
measured elsewhere or at another time comes into it by the poses in the world, in float64; that the world stood still
meanwhile is assumed.
"""

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponder3d.config import incidental
from ponder3d.data.dataset import DataError, DatasetConfig, SceneDataset
from ponder3d.data.driving.checks import check_times, checked_shot, checked_sweep, usable_boxes
from ponder3d.data.driving.classes import DETECTION_LABELS
from ponder3d.data.driving.drive import Drive, Shot, Sweep
from ponder3d.data.driving.projecting import Hits, between, hits, moved, painted, sparse_images
from ponder3d.data.rgbd_images import seen_colour, seen_intrinsics
from ponder3d.types import Cameras, LabelSet, Scene, Views


@dataclass(frozen=True)
class DrivingConfig(DatasetConfig, ABC):
    """Choices that all recordings of drives share."""

    beside_points = ("images", "cameras", "image_size", "depth_sweeps", "depth_closest", "ahead")

    sweeps: int = 1
    """Revolutions of the laser that make the cloud, the key frame's own included; the earlier ones are moved to where
    their points are at the key frame if they stand still. UniPAD takes 10. At the beginning of a recording there are
    fewer, and the cloud is made of those."""
    closest: float = 1.0
    """Metres; points with \\|x\\| and \\|y\\| both below that, in the frame of their own revolution, are the vehicle
    itself and dropped."""
    images: bool = True
    """Whether images are read; without them a scene has no views."""
    cameras: tuple[str, ...] = ()
    """Names of the cameras, in the order of the views; empty: all that a drive has."""
    image_size: tuple[int, ...] = ()
    """(height, width) to which images are reduced when they are read, by averaging; empty: they stay."""
    depth_sweeps: int = 1
    """Revolutions that give the views their sparse depth, the one of the view's own key frame included."""
    depth_closest: float = 3.0
    """Metres; points that are closer to their laser, seen from above, give no depth."""
    ahead: tuple[int, ...] = ()
    """Numbers of key frames ahead whose images are views too, with the depth of their own revolution, brought into the
    scene by the vehicle's motion: what will be seen is to be rendered from what is known now. They come after the views
    of the key frame itself. Frames beyond the end of a recording, and those that are no scenes of this dataset (held
    out), are left out."""
    colours: bool = False
    """Give each point the colour of the pixel it falls on, in the first camera of the key frame that sees it; without
    one it is grey (0.5)."""
    keep_in_memory: int = incidental(0)
    """Scenes that each loader process keeps decoded; worth it for recordings of a few frames."""

    def __post_init__(self):
        for name, fits, allowed in (
            ("sweeps", self.sweeps >= 1, "at least 1"),
            ("closest", 0 <= self.closest < math.inf, "at least 0"),
            ("cameras", len(set(self.cameras)) == len(self.cameras), "different names"),
            ("image_size", len(self.image_size) in (0, 2) and min(self.image_size, default=1) >= 1, "height width"),
            ("depth_sweeps", self.depth_sweeps >= 1, "at least 1"),
            ("depth_closest", 0 <= self.depth_closest < math.inf, "at least 0"),
            ("ahead", min(self.ahead, default=1) >= 1 and len(set(self.ahead)) == len(self.ahead), "from 1, each once"),
            ("colours", self.images or not self.colours, "off without images"),
            ("keep_in_memory", self.keep_in_memory >= 0, "at least 0"),
        ):
            if not fits:
                raise ValueError(f"{type(self).__name__}.{name} must be {allowed}, it is {getattr(self, name)}")

    def all_images(self) -> "DrivingConfig":
        """The same scenes without the views of key frames ahead: those are views of scenes of their own."""
        return replace(self, ahead=(), sweeps=1, colours=False, keep_in_memory=0)


@dataclass(frozen=True)
class _Cloud:
    """Points of some sweeps in the frame of a key frame's laser."""

    xyz: Float[Tensor, "N 3"]
    """Float64."""
    intensity: Float[Tensor, " N"]
    time: Float[Tensor, " N"]
    labels: Int[Tensor, " N"]
    far: Bool[Tensor, " N"]
    """Far enough from their laser to give depth."""


class DrivingDataset(SceneDataset):
    """Scenes of key frames of drives."""

    def __init__(
        self,
        config: DrivingConfig,
        drives: Sequence[Drive],
        labels: LabelSet | None,
        frames: Sequence[Sequence[int]] | None = None,
        skipped: Sequence[str] = (),
    ):
        """Args:
            config: the choices.
            drives: the recordings.
            labels: the classes of the points.
            frames: key frames of each drive that are scenes; None: all.
            skipped: what was left out already.

        Raises:
            DataError: no scene, two drives of one name, key frames out of order, or a drive without one of the
                cameras.
        """
        self.config, self.labels, self.skipped = config, labels, tuple(skipped)
        self._drives = tuple(drives)
        names = [drive.name for drive in drives]
        for drive in drives:
            if names.count(drive.name) > 1:
                raise DataError(f"{drive.name}: two drives of this name; rename one of them")
            check_times([drive.seconds(frame) for frame in range(len(drive))], drive.name)
            lacking = [name for name in config.cameras if name not in drive.cameras]
            if lacking and config.images:
                raise DataError(
                    f"{drive.name}: cameras: no {lacking[0]}; it has {', '.join(drive.cameras) or 'none'}: name others "
                    "with --data.cameras, or leave this drive out"
                )
        chosen = [range(len(drive)) for drive in drives] if frames is None else frames
        self._scenes = tuple((i, frame) for i, own in enumerate(chosen) for frame in own)
        self._own = frozenset(self._scenes)
        if not self._scenes:
            raise DataError(f"no key frame of {', '.join(names) or 'any drive'} is a scene of this dataset")
        self._memory: dict[int, Scene] = {}

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Scene:
        if index not in self._memory:
            scene = self._read(*self._scenes[index])
            if not self.config.keep_in_memory:
                return scene
            while len(self._memory) >= self.config.keep_in_memory:
                self._memory.pop(next(iter(self._memory)))
            self._memory[index] = scene
        return self._memory[index]

    def view_names(self, index: int) -> tuple[str, tuple[str, ...]]:
        """The drive, and its images of the key frame and of those ahead."""
        drive, frames = self._seen(*self._scenes[index])
        cameras = self._cameras(drive)
        return drive.name, tuple(name for frame in frames for name in drive.shot_names(frame, cameras))

    def in_cloud(self, xyz: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
        """Which points of a file of the laser are points of scenes: not the vehicle itself, and finite."""
        return _outside(xyz, self.config.closest) & xyz.isfinite().all(1)

    def _seen(self, number: int, frame: int) -> tuple[Drive, list[int]]:
        """The drive, and the key frames whose images are views."""
        ahead = [frame + step for step in self.config.ahead if (number, frame + step) in self._own]
        return self._drives[number], [frame, *ahead]

    def _cameras(self, drive: Drive) -> tuple[str, ...]:
        return (self.config.cameras or drive.cameras) if self.config.images else ()

    def _read(self, number: int, frame: int) -> Scene:
        config, notes = self.config, []
        drive, frames = self._seen(number, frame)
        cameras = self._cameras(drive)
        depth_sweeps = config.depth_sweeps if cameras else 1
        sweeps = self._sweeps(drive, frame, max(config.sweeps, depth_sweeps), notes)
        key = sweeps[0]
        cloud = _joined(sweeps[: config.sweeps], key, config)
        if not bool((cloud.time == 0).any()):
            raise DataError(f"{key.source}: xyz: no point is farther than {config.closest:g} m from the laser")
        views, found = None, []
        if cameras:
            parts = []
            for seen in frames:
                own = sweeps if seen == frame else self._sweeps(drive, seen, depth_sweeps, notes)
                lidar = _joined(own[:depth_sweeps], key, config)
                shots = [self._shot(shot, key) for shot in drive.shots(seen, cameras)]
                parts.append(_views(shots, lidar, self.labels is not None))
                if config.colours and seen == frame:
                    found = [_hits(shot, cloud.xyz) for shot in shots]
            views = _all_views(parts, key.source)
        boxes = drive.boxes(frame)
        if boxes is not None:
            boxes, left = usable_boxes(boxes, key.source, len(DETECTION_LABELS))
            notes += left
        return Scene(
            xyz=cloud.xyz.to(torch.float32),
            rgb=painted(len(cloud.xyz), views, found) if config.colours and views is not None else None,
            normal=None,
            source=f"{key.source}:{drive.frame_name(frame)}",
            labels=None if self.labels is None else cloud.labels,
            views=views,
            boxes=boxes,
            intensity=cloud.intensity,
            time=cloud.time,
            recording=drive.name,
            skipped=tuple(dict.fromkeys(notes)),
        )

    def _sweeps(self, drive: Drive, frame: int, number: int, notes: list[str]) -> list[Sweep]:
        """The key frame's sweep and earlier ones, ``number`` at most, the latest first; empty ones are left out."""
        num_classes = 0 if self.labels is None else len(self.labels)
        sweeps = []
        for sweep in (drive.sweep(frame), *(drive.earlier(frame, number - 1) if number > 1 else ())):
            checked, left = checked_sweep(sweep, num_classes)
            notes += left
            if not len(checked.xyz):
                if not sweeps:
                    raise DataError(f"{sweep.source}: xyz: no points; leave this key frame out")
                notes.append(f"{sweep.source}: xyz: no points; this earlier sweep is left out")
                continue
            if sweeps and checked.seconds >= sweeps[-1].seconds:
                raise DataError(
                    f"{sweep.source}: timestamps: out of order: {checked.seconds:.6f} s is not before "
                    f"{sweeps[-1].seconds:.6f} s of {sweeps[-1].source}, which comes after it"
                )
            sweeps.append(checked)
        return sweeps

    def _shot(self, shot: Shot, key: Sweep) -> Shot:
        """An image in the scene's frame, at its size."""
        shot = checked_shot(shot, key.source)
        old = (shot.rgb.shape[0], shot.rgb.shape[1])
        pose = between(key.world_from_sensor, shot.world_from_cam)
        if self.config.image_size in ((), old):
            return replace(shot, world_from_cam=pose)
        height, width = self.config.image_size
        if height > old[0] or width > old[1]:
            raise DataError(
                f"{key.source}: {shot.name}: image_size {height} {width} is larger than the image, {old[0]} {old[1]}; "
                "images are only reduced"
            )
        none = (None, None)
        matrix = seen_intrinsics((shot.intrinsics.numpy(), None), old, old, (height, width))
        return Shot(
            rgb=seen_colour(shot.rgb.numpy(), none, old, (height, width)),
            intrinsics=torch.from_numpy(matrix),
            world_from_cam=pose,
            name=shot.name,
        )


def _outside(xyz: Float[Tensor, "N 3"], closest: float) -> Bool[Tensor, " N"]:
    """Which points of a sweep are not the vehicle itself."""
    return (xyz[:, :2].abs() >= closest).any(1)


def _joined(sweeps: Sequence[Sweep], key: Sweep, config: DrivingConfig) -> _Cloud:
    """The points of sweeps, the vehicle's own left out, in the frame of the key frame's laser. Those of the first have
    labels."""
    parts = []
    for number, sweep in enumerate(sweeps):
        keep = _outside(sweep.xyz, config.closest)
        xyz = sweep.xyz[keep]
        num = len(xyz)
        labels = torch.full((num,), -1)
        if number == 0 and sweep.labels is not None:
            labels = sweep.labels[keep].to(torch.int64)
        parts.append(
            _Cloud(
                xyz=moved(between(key.world_from_sensor, sweep.world_from_sensor), xyz),
                intensity=sweep.intensity[keep].to(torch.float32),
                time=torch.full((num,), key.seconds - sweep.seconds, dtype=torch.float32),
                labels=labels,
                far=xyz[:, :2].norm(dim=1) >= config.depth_closest,
            )
        )
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in _Cloud.__dataclass_fields__}
    return _Cloud(**columns)


def _hits(shot: Shot, xyz: Float[Tensor, "N 3"]) -> Hits:
    return hits(xyz, shot.intrinsics, shot.world_from_cam, (shot.rgb.shape[0], shot.rgb.shape[1]))


def _views(shots: Sequence[Shot], cloud: _Cloud, labelled: bool) -> list[tuple[Shot, Tensor, Tensor | None]]:
    """Each image with its sparse depth and, if points have labels, its sparse labels."""
    far = cloud.far.nonzero()[:, 0]
    xyz, labels = cloud.xyz[far], cloud.labels[far]
    out = []
    for shot in shots:
        depth, label = sparse_images(_hits(shot, xyz), labels, (shot.rgb.shape[0], shot.rgb.shape[1]))
        out.append((shot, depth, label if labelled else None))
    return out


def _all_views(parts: Sequence[Sequence[tuple[Shot, Tensor, Tensor | None]]], where: str) -> Views:
    flat = [view for part in parts for view in part]
    sizes = {(shot.rgb.shape[0], shot.rgb.shape[1]) for shot, _, _ in flat}
    if len(sizes) > 1:
        raise DataError(
            f"{where}: images of sizes {', '.join(f'{w}x{h}' for h, w in sorted(sizes))}; views need one: say "
            "--data.image-size HEIGHT WIDTH"
        )
    labels = [label for _, _, label in flat if label is not None]
    return Views(
        cameras=Cameras(
            intrinsics=torch.stack([shot.intrinsics for shot, _, _ in flat]).to(torch.float32),
            world_from_cam=torch.stack([shot.world_from_cam for shot, _, _ in flat]).to(torch.float32),
            size=sizes.pop(),
        ),
        rgb=torch.stack([shot.rgb for shot, _, _ in flat]),
        depth=torch.stack([depth for _, depth, _ in flat]),
        labels=torch.stack(labels) if len(labels) == len(flat) else None,
        counts=torch.tensor([len(flat)]),
        names=tuple(shot.name for shot, _, _ in flat),
    )
