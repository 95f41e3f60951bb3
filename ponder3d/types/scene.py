"""A scene as a dataset returns it, and the batch that encoders and tasks take."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.types.boxes import Boxes
from ponder3d.types.points import Points
from ponder3d.types.rays import Rays, RayTargets
from ponder3d.types.views import Cameras, Views

INPUT_CHANNELS = {"rgb": 3, "normal": 3, "one": 1, "xyz": 3, "intensity": 1, "time": 1}
"""Point features an encoder may ask for: colour scaled to [-1, 1], unit normal, a constant that says "occupied",
coordinates in metres in the scene's frame, and what lasers measure: intensity in [0, 1], age in seconds."""

T = TypeVar("T")


@dataclass(frozen=True)
class Scene:
    """One scene: a point cloud and, depending on the dataset, images, labels and boxes. Absent things are None."""

    xyz: Float[Tensor, "N 3"]
    """World coordinates in metres, z up."""
    rgb: Float[Tensor, "N 3"] | None
    """Colour in [0, 1]."""
    normal: Float[Tensor, "N 3"] | None
    """Unit normal in the world frame."""
    source: str
    """Where the scene came from, for messages."""
    labels: Int[Tensor, " N"] | None = None
    instances: Int[Tensor, " N"] | None = None
    views: Views | None = None
    rays: Rays | None = None
    targets: RayTargets | None = None
    boxes: Boxes | None = None
    bounds: Float[Tensor, "2 3"] | None = None
    """Lower and upper corner of the whole scene, where ``xyz`` shows a part of it; None: the extent of ``xyz``."""
    key: int = 0
    """Key of this draw of the scene; everything random that happens to it later is a function of it."""
    intensity: Float[Tensor, " N"] | None = None
    """Strength of a laser's echo in [0, 1]."""
    time: Float[Tensor, " N"] | None = None
    """By how many seconds each point is older than the scene; 0 for what was measured at its own instant."""
    images: Views | None = None
    """What image encoders see, where ``views`` are what is compared with what is rendered. As many in every scene, of
    one size."""
    condition: str = ""
    """Which of several datasets it comes from, for encoders and heads that treat them differently; may be empty."""
    recording: str = ""
    """What its views are a part of, where scenes are cut from longer recordings: views of one recording and one name
    are the same image. Empty: they are the scene's own."""
    skipped: tuple[str, ...] = ()
    """Frames that were left out when the scene was read: one line each, with the file and what is wrong with it."""
    place: Float[Tensor, "N 3"] | None = None
    """Where each point was before anything turned or moved it, in metres; the same in both views of a scene."""
    pair: "Scene | None" = None
    """Another view of the same scene (``data.transforms.TwoViews``), for tasks that compare the two."""


@dataclass(frozen=True)
class Batch:
    """Scenes packed for an encoder and a task."""

    points: Points
    bounds: Float[Tensor, "B 2 3"]
    """Lower and upper corner of each scene, metres; of its points unless the scene says otherwise."""
    keys: Int[Tensor, " B"]
    """``Scene.key`` of each scene."""
    sources: tuple[str, ...]
    labels: Int[Tensor, " N"] | None = None
    instances: Int[Tensor, " N"] | None = None
    rays: Rays | None = None
    targets: RayTargets | None = None
    views: Views | None = None
    boxes: tuple[Boxes, ...] | None = None
    images: Views | None = None
    """What image encoders see: as many views of every scene."""
    skipped: tuple[str, ...] = ()
    """``Scene.skipped`` of all scenes."""
    conditions: tuple[str, ...] = ()
    """``Scene.condition`` of each scene; names, not rows: whoever tells conditions apart has its own order of them."""
    place: Float[Tensor, "N 3"] | None = None
    """``Scene.place`` of each point."""
    pair: "Batch | None" = None
    """The ``Scene.pair`` of all scenes, in the same order."""

    @classmethod
    def of(cls, scenes: Sequence[Scene], inputs: Sequence[str] = ("rgb", "normal")) -> "Batch":
        """Pack scenes. A field is kept when every scene has it.

        Args:
            scenes: at least one scene.
            inputs: names from ``INPUT_CHANNELS``, in order; they make up the channels of ``points.feats``. A scene that
                lacks one gets zeros there.

        Raises:
            ValueError: no scenes, an unknown input name, or scenes with other numbers of ``images``.
        """
        if not scenes:
            raise ValueError("Batch.of: no scenes")
        seen = [len(s.images.cameras) for s in scenes if s.images is not None]
        if len(seen) == len(scenes) and len(set(seen)) > 1:
            told = ", ".join(f"{s.source} {number}" for s, number in zip(scenes, seen, strict=True))
            raise ValueError(f"Batch.of: image encoders see as many images of every scene; choose them: {told}")
        counts = torch.tensor([len(s.xyz) for s in scenes])
        points = Points(
            xyz=torch.cat([s.xyz for s in scenes]),
            feats=torch.cat([point_feats(s.xyz, s.rgb, s.normal, inputs, s.intensity, s.time) for s in scenes]),
            counts=counts,
        )
        boxes = [s.boxes for s in scenes if s.boxes is not None]
        rays = [s.rays for s in scenes if s.rays is not None]
        pairs = [s.pair for s in scenes if s.pair is not None]
        return cls(
            points=points,
            bounds=torch.stack([extent(s.xyz) if s.bounds is None else s.bounds for s in scenes]),
            keys=torch.tensor([s.key for s in scenes], dtype=torch.int64),
            sources=tuple(s.source for s in scenes),
            labels=_cat([s.labels for s in scenes]),
            instances=_cat([s.instances for s in scenes]),
            rays=_cat_rays(rays) if len(rays) == len(scenes) else None,
            targets=_cat_targets([s.targets for s in scenes]),
            views=_cat_views([s.views for s in scenes]),
            boxes=tuple(boxes) if len(boxes) == len(scenes) else None,
            images=_cat_views([s.images for s in scenes]),
            skipped=tuple(line for s in scenes for line in s.skipped),
            conditions=tuple(s.condition for s in scenes),
            place=_cat([s.place for s in scenes]),
            pair=cls.of(pairs, inputs) if len(pairs) == len(scenes) else None,
        )

    def __len__(self) -> int:
        return len(self.sources)


def extent(xyz: Float[Tensor, "N 3"]) -> Float[Tensor, "2 3"]:
    """Lower and upper corner of points; zeros if there are none."""
    if len(xyz) == 0:
        return xyz.new_zeros(2, 3)
    # Column by column: PyTorch reduces rows of three in three times the time.
    ends = [torch.stack(column.aminmax()) for column in xyz.unbind(1)]
    return torch.stack(ends, dim=1)


def point_feats(
    xyz: Float[Tensor, "N 3"],
    rgb: Float[Tensor, "N 3"] | None,
    normal: Float[Tensor, "N 3"] | None,
    inputs: Sequence[str],
    intensity: Float[Tensor, " N"] | None = None,
    time: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, "N C"]:
    """The input channels of an encoder; what is missing is zero (the value that modality dropout trains for).

    Raises:
        ValueError: an input name that is not in ``INPUT_CHANNELS``.
    """
    columns = {
        "rgb": None if rgb is None else rgb * 2 - 1,
        "normal": normal,
        "one": xyz.new_ones(len(xyz), 1),
        "xyz": xyz,
        "intensity": None if intensity is None else intensity[:, None],
        "time": None if time is None else time[:, None],
    }
    unknown = [name for name in inputs if name not in INPUT_CHANNELS]
    if unknown:
        raise ValueError(f"unknown point input {unknown[0]!r}; known are {', '.join(INPUT_CHANNELS)}")
    parts = [
        xyz.new_zeros(len(xyz), INPUT_CHANNELS[name]) if columns[name] is None else columns[name] for name in inputs
    ]
    return torch.cat(parts, dim=1) if parts else xyz.new_zeros(len(xyz), 0)


def to_device(value: T, device: torch.device | str, non_blocking: bool = False) -> T:
    """A copy of a value (tensor, dataclass, tuple of them) on a device; other things are returned as they are."""
    if isinstance(value, Tensor):
        return cast(T, value.to(device, non_blocking=non_blocking))
    if is_dataclass(value) and not isinstance(value, type):
        moved = {f.name: to_device(getattr(value, f.name), device, non_blocking) for f in fields(value)}
        return type(value)(**moved)
    if isinstance(value, tuple):
        return cast(T, tuple(to_device(item, device, non_blocking) for item in value))
    return value


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [p for p in parts if p is not None]
    return torch.cat(present) if len(present) == len(parts) else None


def _cat_views(views: Sequence[Views | None]) -> Views | None:
    """One value for all views; None unless every scene has some, all of one size."""
    present = [v for v in views if v is not None]
    if len(present) < len(views) or len({v.cameras.size for v in present}) != 1:
        return None
    cameras = Cameras(
        intrinsics=torch.cat([v.cameras.intrinsics for v in present]),
        world_from_cam=torch.cat([v.cameras.world_from_cam for v in present]),
        size=present[0].cameras.size,
    )
    return Views(
        cameras=cameras,
        rgb=torch.cat([v.rgb for v in present]),
        depth=_cat([v.depth for v in present]),
        labels=_cat([v.labels for v in present]),
        counts=torch.cat([v.counts for v in present]),
        instances=_cat([v.instances for v in present]),
        names=tuple(name for v in present for name in v.names),
    )


def _cat_rays(rays: Sequence[Rays]) -> Rays:
    scene = torch.repeat_interleave(torch.arange(len(rays)), torch.tensor([len(r) for r in rays]))
    columns = {name: torch.cat([getattr(r, name) for r in rays]) for name in ("origins", "directions", "near", "far")}
    return Rays(scene=scene, **columns)


def _cat_targets(targets: Sequence[RayTargets | None]) -> RayTargets | None:
    present = [t for t in targets if t is not None]
    if len(present) < len(targets):
        return None
    return RayTargets(
        rgb=torch.cat([t.rgb for t in present]),
        t=_cat([t.t for t in present]),
        label=_cat([t.label for t in present]),
        feature=_cat([t.feature for t in present]),
        group=_cat([t.group for t in present]),
    )
