"""Transforms that choose points: corruption, grid sampling G (eq. 1), crops, and their order."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ponder3d.data.transforms_base import Transform, select_points, whole_bounds
from ponder3d.geometry.cameras import unproject
from ponder3d.geometry.grid import one_per_voxel, voxelize
from ponder3d.types import Boxes, Cameras, Scene


@dataclass(frozen=True)
class DropPoints(Transform):
    """Keep a random part of the points. A ratio of 0.8 is the corruption of PonderV2's indoor pre-training."""

    keeps_points = False

    ratio: float = 0.8
    """Share that is dropped."""
    probability: float = 1.0
    """Probability that a scene loses points at all."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if float(torch.rand((), generator=generator)) >= self.probability:
            return scene
        num = len(scene.xyz)
        keep = torch.zeros(num, dtype=torch.bool)
        keep[torch.randperm(num, generator=generator)[: num - int(num * self.ratio)]] = True
        return select_points(replace(scene, bounds=whole_bounds(scene)), keep.nonzero()[:, 0])


@dataclass(frozen=True)
class RemoveBlocks(Transform):
    """Take the points of random blocks of space away: the encoder must complete what it does not see.

    Unlike hiding features behind a learned token (``tasks.masking``), this takes the geometry away too. The lattice of
    blocks is shifted at random, unless it has a corner. The scene remembers its bounds from before.

    The masking of UniPAD's LiDAR encoder is ``RemoveBlocks(0.8, 0.8, 0.6, 1.6, (-54.0, -54.0, -5.0))``:
    blocks of 8 x 8 x 8 voxels, each a cell of its volume.
    """

    keeps_points = False

    smallest: float = 0.7
    """Smallest share of the occupied blocks that is removed; the share is drawn anew for every scene."""
    largest: float = 0.7
    """Largest share."""
    size: float = 0.5
    """Edge of a block in metres."""
    height: float = 0.0
    """Its edge along z, where that is another; 0: ``size``."""
    corner: tuple[float, ...] = ()
    """A corner of a block, x y z in metres; empty: drawn anew for every scene."""

    def __post_init__(self):
        if not 0 <= self.smallest <= self.largest <= 1:
            raise ValueError(
                f"RemoveBlocks: 0 <= smallest <= largest <= 1 must hold, they are {self.smallest} and {self.largest}"
            )
        if self.size <= 0 or self.height < 0 or len(self.corner) not in (0, 3):
            raise ValueError(
                f"RemoveBlocks: size must be positive, height not negative and corner x y z, they are {self.size}, "
                f"{self.height} and {self.corner}"
            )

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        ratio = self.smallest + float(torch.rand((), generator=generator)) * (self.largest - self.smallest)
        shift = -torch.tensor(self.corner) if self.corner else torch.rand(3, generator=generator) * self.size
        xyz = scene.xyz + shift
        if self.height:
            xyz = xyz * torch.tensor([1.0, 1.0, self.size / self.height])  # blocks are cubes then
        blocks = voxelize(xyz, torch.zeros(len(xyz), dtype=torch.int64), self.size)
        num = len(blocks.keys)
        num_kept = num - round(num * ratio)
        kept = torch.zeros(num, dtype=torch.bool)
        kept[torch.randperm(num, generator=generator)[:num_kept]] = True
        keep = kept[blocks.voxel].nonzero()[:, 0]
        return select_points(replace(scene, bounds=whole_bounds(scene)), keep)


@dataclass(frozen=True)
class GridSample(Transform):
    """One random point per occupied voxel: G of eq. 1.

    Where some points of a voxel are labelled and others are not, one of the labelled is taken: sparse annotations
    survive sampling at a coarser grid.
    """

    keeps_points = False

    size: float = 0.0
    """Edge of a voxel in metres; 0 takes the encoder's grid size."""

    def __post_init__(self):
        if self.size < 0:
            raise ValueError(f"GridSample.size must not be negative, it is {self.size}")

    def on_grid(self, grid_size: float) -> "GridSample":
        """With the voxels of the encoder, unless it has its own."""
        return self if self.size else replace(self, size=grid_size)

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if not self.size:
            raise ValueError("GridSample.size is left to the encoder: set it, or take the transform from an Experiment")
        voxels = voxelize(scene.xyz, torch.zeros(len(scene.xyz), dtype=torch.int64), self.size)
        share = torch.rand(len(voxels.counts), generator=generator)
        labelled = None if scene.labels is None else scene.labels >= 0
        return select_points(scene, one_per_voxel(voxels, share, labelled))


@dataclass(frozen=True)
class SphereCrop(Transform):
    """Keep the points nearest to a random one of them: a bound on the size of a training scene.

    The scene remembers its bounds from before.
    """

    keeps_points = False

    share: float = 1.0
    """Largest share of the points that is kept."""
    max_points: int = 100_000
    """Largest number of points that is kept; 0 for any."""

    def __post_init__(self):
        if not 0 < self.share <= 1 or self.max_points < 0:
            raise ValueError(
                f"SphereCrop: share must lie in (0, 1] and max_points must not be negative, they are {self.share} and "
                f"{self.max_points}"
            )

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        num = len(scene.xyz)
        kept = min(math.ceil(num * self.share), self.max_points or num)
        if kept == num:
            return scene
        centre = scene.xyz[int(torch.randint(num, (), generator=generator))]
        keep = _smallest((scene.xyz - centre).square().sum(1), kept)
        return select_points(replace(scene, bounds=whole_bounds(scene)), keep)


@dataclass(frozen=True)
class Shuffle(Transform):
    """Put the points in random order, for encoders that see the first of their neighbours only."""

    keeps_points = False

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        return select_points(scene, torch.randperm(len(scene.xyz), generator=generator))


@dataclass(frozen=True)
class PointRange(Transform):
    """Keep what lies in a box around the origin: the reach of an outdoor model around its sensor.

    The scene ends there: its bounds are cut to the range, and boxes whose centre is outside are gone. A spinning laser
    sees some 100 m, the grid of such a model covers 54 m.
    """

    keeps_points = False
    lower: tuple[float, float, float] = (-54.0, -54.0, -5.0)
    """Lower corner in metres; points on it are kept."""
    upper: tuple[float, float, float] = (54.0, 54.0, 3.0)
    """Upper corner in metres; points on it are not."""
    depth: bool = False
    """Whether depth measured outside is forgotten too. To be compared with what is rendered it must be, as a volume
    ends there; in training it tells that the way is free."""

    def __post_init__(self):
        if any(lo >= hi for lo, hi in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"PointRange: lower {self.lower} must be below upper {self.upper} on every axis")

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        lo, hi = torch.tensor(self.lower), torch.tensor(self.upper)
        bounds, boxes = scene.bounds, scene.boxes
        if bounds is not None:
            bounds = torch.minimum(torch.maximum(bounds, lo), hi)
        if boxes is not None:
            boxes = select_boxes(boxes, ((boxes.centre >= lo) & (boxes.centre < hi)).all(1))
        views = scene.views
        if self.depth and views is not None and views.depth is not None:
            views = replace(views, depth=_depth_within(views.cameras, views.depth, lo, hi))
        rows = ((scene.xyz >= lo) & (scene.xyz < hi)).all(1).nonzero()[:, 0]
        return select_points(replace(scene, bounds=bounds, boxes=boxes, views=views), rows)


def _depth_within(
    cameras: Cameras, depth: Float[Tensor, "V H W"], lo: Float[Tensor, "3"], hi: Float[Tensor, "3"]
) -> Float[Tensor, "V H W"]:
    """Depth of what lies in a box, 0 elsewhere."""
    view, v, u = (depth > 0).nonzero(as_tuple=True)
    seen = unproject(cameras, torch.stack([u, v], dim=1).to(depth.dtype), depth[view, v, u], view)
    outside = ~((seen >= lo) & (seen < hi)).all(1)
    kept = depth.clone()
    kept[view[outside], v[outside], u[outside]] = 0
    return kept


def select_boxes(boxes: Boxes, keep: Bool[Tensor, " K"]) -> Boxes:
    """Those of the boxes that a mask names."""
    return Boxes(
        centre=boxes.centre[keep],
        size=boxes.size[keep],
        yaw=boxes.yaw[keep],
        label=boxes.label[keep],
        score=None if boxes.score is None else boxes.score[keep],
        velocity=None if boxes.velocity is None else boxes.velocity[keep],
    )


def _smallest(values: Float[Tensor, " N"], num: int) -> Int[Tensor, " {num}"]:
    """Rows of the smallest values, in ascending order; of equal values the first. A selection: no sort of them all."""
    values = values.nan_to_num(nan=math.inf, posinf=math.inf)
    bound = values.kthvalue(num).values
    keep = values < bound
    ties = (values == bound).nonzero()[:, 0]
    keep[ties[: num - int(keep.sum())]] = True
    return keep.nonzero()[:, 0]
