"""Augmentation T and grid sampling G (eq. 1), corruption, and ray choice: components that turn a Scene into a Scene.

Every transform is a frozen dataclass: its fields are the choices, calling it does the work. All randomness comes from
the generator it is given. Transforms that move points move cameras, depth, rays, normals and boxes along. Numbers in
the docstrings are those of PonderV2 (spec 5.2).
"""

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ponder3d.config import Config
from ponder3d.geometry import keyed
from ponder3d.geometry.cameras import pixel_rays, select_cameras, t_from_depth
from ponder3d.geometry.grid import one_per_voxel, voxelize
from ponder3d.geometry.rows import take
from ponder3d.geometry.transforms import Similarity, rotation_about, transform_scene
from ponder3d.types import Rays, RayTargets, Scene, Views
from ponder3d.types.scene import extent


class Transform(Config, ABC):
    """Turns a scene into a scene; a function of the scene and the generator only."""

    @abstractmethod
    def __call__(self, scene: Scene, generator: Generator) -> Scene: ...

    def on_grid(self, grid_size: float) -> "Transform":
        """The transform for clouds of an encoder with this grid size; ``self`` if it leaves nothing open.

        A transform that thins clouds out, or counts on how dense they are, takes the size from here, so that it is
        named once, with the encoder.
        """
        return self


@dataclass(frozen=True)
class Centre(Transform):
    """Move the middle of the bounding box to x = y = 0, and its floor to z = 0 if asked for."""

    floor: bool = True
    """Put the lowest point at z = 0; otherwise the middle of the height."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        lo, hi = extent(scene.xyz) if scene.bounds is None else scene.bounds
        middle = (lo + hi) / 2
        middle[2] = lo[2] if self.floor else 0.0
        return transform_scene(Similarity(torch.eye(3), -middle), scene)


@dataclass(frozen=True)
class Rotate(Transform):
    """Turn by an angle drawn from +-``max_turn`` about an axis through the origin, with some probability."""

    axis: str = "z"
    """Axis to turn about: ``x``, ``y`` or ``z`` (up)."""
    max_turn: float = math.pi
    """Radians; pi about z, pi/64 about x and y."""
    probability: float = 0.5
    """Probability that a scene is turned at all."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        chance, share = torch.rand(2, generator=generator).tolist()
        if chance >= self.probability:
            return scene
        rotation = rotation_about(self.axis, (2 * share - 1) * self.max_turn)
        return transform_scene(Similarity(rotation, torch.zeros(3)), scene)


@dataclass(frozen=True)
class Scale(Transform):
    """Scale by a factor drawn from [``smallest``, ``largest``]."""

    smallest: float = 0.9
    """Smallest factor on all lengths."""
    largest: float = 1.1
    """Largest factor on all lengths."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        factor = self.smallest + float(torch.rand((), generator=generator)) * (self.largest - self.smallest)
        return transform_scene(Similarity(torch.eye(3), torch.zeros(3), factor), scene)


@dataclass(frozen=True)
class Flip(Transform):
    """Mirror x and mirror y, each with some probability."""

    probability: float = 0.5
    """Probability of each of the two mirrors."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        signs = torch.ones(3)
        signs[:2] -= 2 * (torch.rand(2, generator=generator) < self.probability)
        if bool((signs == 1).all()):
            return scene
        return transform_scene(Similarity(torch.diag(signs), torch.zeros(3)), scene)


@dataclass(frozen=True)
class Jitter(Transform):
    """Add clipped Gaussian noise to the coordinates of each point; cameras stay."""

    std: float = 0.005
    """Standard deviation along each axis, in metres."""
    clip: float = 0.02
    """Largest displacement along each axis, in metres."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        noise = torch.randn(scene.xyz.shape, generator=generator) * self.std
        return replace(scene, xyz=scene.xyz + noise.clamp(-self.clip, self.clip))


@dataclass(frozen=True)
class AutoContrast(Transform):
    """Stretch each colour channel of the points to [0, 1], blended with the original by a random share."""

    probability: float = 0.2
    """Probability that the colours of a scene are stretched."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        chance, blend = torch.rand(2, generator=generator).tolist()
        if scene.rgb is None or len(scene.rgb) == 0 or chance >= self.probability:
            return scene
        lo, hi = extent(scene.rgb)
        stretched = (scene.rgb - lo) / (hi - lo).clamp(min=1e-6)
        return replace(scene, rgb=(1 - blend) * scene.rgb + blend * stretched)


@dataclass(frozen=True)
class ShiftColour(Transform):
    """Shift the colour of all points by one random amount per channel."""

    probability: float = 0.95
    """Probability that the colours of a scene are shifted."""
    ratio: float = 0.05
    """Largest shift, as a share of the full range."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        chance, *shift = torch.rand(4, generator=generator).tolist()
        if scene.rgb is None or chance >= self.probability:
            return scene
        return replace(scene, rgb=(scene.rgb + (torch.tensor(shift) * 2 - 1) * self.ratio).clamp(0, 1))


@dataclass(frozen=True)
class JitterColour(Transform):
    """Add Gaussian noise to the colour of each point."""

    probability: float = 0.95
    """Probability that the colours of a scene get noise."""
    std: float = 0.05
    """Standard deviation of each channel, where 1 is full scale."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if scene.rgb is None or float(torch.rand((), generator=generator)) >= self.probability:
            return scene
        noise = torch.randn(scene.rgb.shape, generator=generator) * self.std
        return replace(scene, rgb=(scene.rgb + noise).clamp(0, 1))


@dataclass(frozen=True)
class DropModality(Transform):
    """Forget the colour, or the normals, of the whole cloud, so that the encoder learns to live without either.

    The images keep their colour: an encoder that sees bare geometry is still asked to render it.
    """

    colour: float = 0.2
    """Probability of losing the colour."""
    normal: float = 0.2
    """Probability of losing the normals."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        colour, normal = (torch.rand(2, generator=generator) < torch.tensor([self.colour, self.normal])).tolist()
        return replace(scene, rgb=None if colour else scene.rgb, normal=None if normal else scene.normal)


@dataclass(frozen=True)
class DropPoints(Transform):
    """Keep a random part of the points. A ratio of 0.8 is the corruption of PonderV2's indoor pre-training."""

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
    blocks is shifted at random. The scene remembers its bounds from before.
    """

    smallest: float = 0.7
    """Smallest share of the occupied blocks that is removed; the share is drawn anew for every scene."""
    largest: float = 0.7
    """Largest share."""
    size: float = 0.5
    """Edge of a block in metres."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        ratio = self.smallest + float(torch.rand((), generator=generator)) * (self.largest - self.smallest)
        shift = torch.rand(3, generator=generator) * self.size
        blocks = voxelize(scene.xyz + shift, torch.zeros(len(scene.xyz), dtype=torch.int64), self.size)
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

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        return select_points(scene, torch.randperm(len(scene.xyz), generator=generator))


@dataclass(frozen=True)
class LimitLabels(Transform):
    """Keep the labels of a few random points of each scene, always the same ones: limited annotations."""

    points: int = 20
    """Labelled points per scene."""
    seed: int = 0
    """Draws other points for other seeds."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if scene.labels is None:
            raise ValueError(f"LimitLabels: {scene.source} has no point labels")
        labelled = (scene.labels >= 0).nonzero()[:, 0]
        own = keyed.generator(self.seed, zlib.crc32(scene.source.encode()))
        keep = labelled[torch.randperm(len(labelled), generator=own)[: self.points]]
        labels = torch.full_like(scene.labels, -1)
        labels[keep] = scene.labels[keep]
        return replace(scene, labels=labels)


@dataclass(frozen=True)
class PickRays(Transform):
    """Choose pixels of some views and turn them into rays with targets; the images stay behind.

    About 40 KB a scene travel from here to the task, not megabytes of images. Views are chosen at random, whether or
    not their pixels made the cloud. A view without usable pixels gives no rays.
    """

    views: int = 5
    """Views that rays are drawn from, at most."""
    rays_per_view: int = 256
    """Rays of each of these views."""
    need_depth: bool = True
    """Choose among pixels with depth only; otherwise among all, and those without depth train colour alone."""
    edge_share: float = 0.0
    """Share of the rays that is drawn near depth edges, where objects end, instead of over the whole image."""
    by_area: bool = False
    """Draw pixels in proportion to their squared depth, hence to the area of a surface facing the camera that they see,
    instead of evenly: what stands close to the camera does not count for more. Goes with ``need_depth``."""
    near: float = 0.05
    """Metres in front of the camera that are taken to be free."""
    far: float = 20.0
    """Metres along a ray at which it ends, if the volume does not end before."""

    def __post_init__(self):
        if self.by_area and not self.need_depth:
            raise ValueError("PickRays.by_area needs depth: set need_depth too")

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        views = scene.views
        if views is None:
            raise ValueError(f"PickRays: {scene.source} has no images")
        num_views = len(views.cameras)
        chosen = torch.randperm(num_views, generator=generator)[: self.views].tolist()
        pixels, owners = [], []
        for view in chosen:
            picked = self._pick(None if views.depth is None else views.depth[view], views.cameras.size, generator)
            pixels.append(picked)
            owners.append(torch.full_like(picked, view))
        pixel, view = torch.cat(pixels), torch.cat(owners)
        width = views.cameras.size[1]
        v, u = pixel // width, pixel % width
        uv = torch.stack([u, v], dim=1).to(torch.float32)
        origins, directions = pixel_rays(views.cameras, uv, view)
        depth = None if views.depth is None else views.depth[view, v, u]
        rays = Rays(
            origins=origins,
            directions=directions,
            near=torch.full((len(uv),), self.near),
            far=torch.full((len(uv),), self.far),
            scene=torch.zeros(len(uv), dtype=torch.int64),
        )
        targets = RayTargets(
            rgb=views.rgb[view, v, u].to(torch.float32) / 255,
            t=None if depth is None else t_from_depth(views.cameras, uv, depth, view),
            label=None if views.labels is None else views.labels[view, v, u].to(torch.int64),
        )
        return replace(scene, views=None, rays=rays, targets=targets)

    def _pick(
        self, depth: Float[Tensor, "H W"] | None, size: tuple[int, int], generator: Generator
    ) -> Int[Tensor, " P"]:
        if depth is None:
            return torch.randint(size[0] * size[1], (self.rays_per_view,), generator=generator)
        usable = (depth > 0) if self.need_depth else torch.ones_like(depth, dtype=torch.bool)
        num_edge = round(self.rays_per_view * self.edge_share)
        near_edge = usable & _near_depth_edge(depth) if num_edge else usable
        groups = [(usable, self.rays_per_view - num_edge), (near_edge, num_edge)]
        picked = []
        for mask, num in groups:
            candidates = mask.flatten().nonzero()[:, 0]
            if len(candidates) and num:
                picked.append(candidates[self._draw(depth.flatten()[candidates], num, generator)])
        return torch.cat(picked) if picked else torch.zeros(0, dtype=torch.int64)

    def _draw(self, depth: Float[Tensor, " P"], num: int, generator: Generator) -> Int[Tensor, " {num}"]:
        if not self.by_area:
            return torch.randint(len(depth), (num,), generator=generator)
        until = depth.to(torch.float64).square().cumsum(0)
        spot = torch.rand(num, generator=generator, dtype=torch.float64) * until[-1]
        return torch.searchsorted(until, spot).clamp(max=len(depth) - 1)


@dataclass(frozen=True)
class KeepViews(Transform):
    """Keep some of the views, by number; negative numbers count from the end. Numbers that a scene lacks are left out,
    but one of them it must have."""

    views: tuple[int, ...] = (0,)
    """Numbers of the views that stay, from the end if negative; a scene that lacks one does without."""

    def __post_init__(self):
        if not self.views:
            raise ValueError("KeepViews.views is empty; name at least one view")

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if scene.views is None:
            raise ValueError(f"KeepViews: {scene.source} has no images")
        num = len(scene.views.cameras)
        rows = [view % num for view in self.views if -num <= view < num]
        if not rows:
            raise ValueError(f"KeepViews.views: {scene.source} has {num} views, none of {self.views}; name others")
        return replace(scene, views=select_views(scene.views, rows))


def select_points(scene: Scene, rows: Int[Tensor, " K"]) -> Scene:
    """The scene with some of its points, in the given order; everything else stays."""
    return replace(
        scene,
        xyz=take(scene.xyz, rows),
        rgb=None if scene.rgb is None else take(scene.rgb, rows),
        normal=None if scene.normal is None else take(scene.normal, rows),
        labels=None if scene.labels is None else take(scene.labels, rows),
        instances=None if scene.instances is None else take(scene.instances, rows),
    )


def select_views(views: Views, rows: Sequence[int]) -> Views:
    """Some of the views of one scene, in the given order."""
    index = torch.tensor(rows, dtype=torch.int64)
    return Views(
        cameras=select_cameras(views.cameras, index),
        rgb=views.rgb[index],
        depth=None if views.depth is None else views.depth[index],
        labels=None if views.labels is None else views.labels[index],
        counts=torch.tensor([len(index)]),
        instances=None if views.instances is None else views.instances[index],
        names=tuple(views.names[row] for row in rows) if views.names else (),
    )


def whole_bounds(scene: Scene) -> Float[Tensor, "2 3"]:
    """The scene's bounds, taken from its points if nobody has set them."""
    return extent(scene.xyz) if scene.bounds is None else scene.bounds


def apply(transforms: tuple[Transform, ...], scene: Scene, *key: int) -> Scene:
    """Run transforms in order with randomness that is a function of ``key``, and note the key on the scene."""
    for number, transform in enumerate(transforms):
        # One generator per transform: changing one step does not change what the others draw.
        scene = transform(scene, keyed.generator(*key, number))
    return replace(scene, key=keyed.derive(*key))


def _smallest(values: Float[Tensor, " N"], num: int) -> Int[Tensor, " {num}"]:
    """Rows of the smallest values, in ascending order; of equal values the first. A selection: no sort of them all."""
    values = values.nan_to_num(nan=math.inf, posinf=math.inf)
    bound = values.kthvalue(num).values
    keep = values < bound
    ties = (values == bound).nonzero()[:, 0]
    keep[ties[: num - int(keep.sum())]] = True
    return keep.nonzero()[:, 0]


def _near_depth_edge(depth: Float[Tensor, "H W"], jump: float = 0.05, reach: int = 4) -> Bool[Tensor, "H W"]:
    """Pixels within ``reach`` of a place where the depth changes by more than a share ``jump`` from pixel to pixel."""
    edge = torch.zeros_like(depth)
    for axis in (0, 1):
        a, b = depth.narrow(axis, 0, depth.shape[axis] - 1), depth.narrow(axis, 1, depth.shape[axis] - 1)
        jumped = ((a - b).abs() > jump * torch.minimum(a, b)) & (a > 0) & (b > 0)
        edge.narrow(axis, 0, depth.shape[axis] - 1)[jumped] = 1
    pooled = torch.nn.functional.max_pool2d(edge[None, None], 2 * reach + 1, stride=1, padding=reach)
    return pooled[0, 0] > 0
