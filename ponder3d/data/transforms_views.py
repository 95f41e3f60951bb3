"""Transforms of images: which are kept, which encoders see, and the rays that are made of them."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ponder3d.config import later
from ponder3d.data.dataset import SceneDataset
from ponder3d.data.image_features import FeatureMaps, NoFeatureMaps
from ponder3d.data.rgbd_images import seen_colour, seen_intrinsics
from ponder3d.data.transforms_base import Transform, select_views
from ponder3d.geometry.cameras import pixel_rays, t_from_depth
from ponder3d.types import Cameras, Rays, RayTargets, Scene


@dataclass(frozen=True)
class PickRays(Transform):
    """Choose pixels of some views and turn them into rays with targets; the images stay behind, but for ``keep_views``.

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
    fill: bool = False
    """For sparse depth, as lasers measure it: draw no pixel twice, and where a view has fewer pixels with depth than
    ``rays_per_view``, take as many without depth as are missing; those train colour alone."""
    unmeasured: float = 0.0
    """Share of each view's rays for which ``fill`` takes pixels without depth even if there are enough with depth."""
    horizon: float = 0.4
    """Share of the image's height above which ``fill`` takes no pixel without depth: there is sky (UniPAD)."""
    near: float = 0.05
    """Metres in front of the camera that are taken to be free."""
    far: float = 20.0
    """Metres along a ray at which it ends, if the volume does not end before."""
    features: FeatureMaps = NoFeatureMaps()
    """What a 2D model says of the images, as the rays' target feature; ``MapFolder`` reads it from files."""
    keep_views: bool = later(False)
    """Whether the images stay with the scene: for evaluations that read rays and also render whole views."""

    def __post_init__(self):
        if self.by_area and not self.need_depth:
            raise ValueError("PickRays.by_area needs depth: set need_depth too")
        if self.fill and (not self.need_depth or self.by_area or self.edge_share):
            raise ValueError("PickRays.fill draws pixels with depth evenly: it goes with need_depth alone")
        for name in ("horizon", "unmeasured"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"PickRays.{name} must be from 0 to 1, it is {getattr(self, name)}")

    def added_features(self) -> int:
        """Those of ``features``."""
        return self.features.num_channels()

    def check(self, dataset: SceneDataset) -> None:
        """Whether there are ``features`` of every image."""
        self.features.check(dataset)

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
            feature=self.features.look_up(scene, uv, view),
            group=self.features.regions(scene, uv, view),
        )
        return replace(scene, views=views if self.keep_views else None, rays=rays, targets=targets)

    def _pick(
        self, depth: Float[Tensor, "H W"] | None, size: tuple[int, int], generator: Generator
    ) -> Int[Tensor, " P"]:
        if self.fill:
            return self._filled(torch.zeros(size) if depth is None else depth, generator)
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

    def _filled(self, depth: Float[Tensor, "H W"], generator: Generator) -> Int[Tensor, " P"]:
        measured = (depth > 0).flatten()
        most = self.rays_per_view - round(self.unmeasured * self.rays_per_view)
        picked = _some(measured.nonzero()[:, 0], most, generator)
        missing = self.rays_per_view - len(picked)
        if not missing:
            return picked
        height, width = depth.shape
        below = torch.arange(math.ceil(self.horizon * height) * width, height * width)
        return torch.cat([picked, _some(below[~measured[below]], missing, generator)])

    def _draw(self, depth: Float[Tensor, " P"], num: int, generator: Generator) -> Int[Tensor, " {num}"]:
        if not self.by_area:
            return torch.randint(len(depth), (num,), generator=generator)
        until = depth.to(torch.float64).square().cumsum(0)
        spot = torch.rand(num, generator=generator, dtype=torch.float64) * until[-1]
        return torch.searchsorted(until, spot).clamp(max=len(depth) - 1)


@dataclass(frozen=True)
class SeeImages(Transform):
    """Let image encoders see views: ``Scene.images`` are copies of them, without labels. The views stay."""

    first: int = 0
    """How many of the views, the first ones; 0: all. A scene whose views are of later key frames too
    (``DrivingConfig.ahead``) has its own first: as many as there are cameras."""
    size: tuple[int, ...] = ()
    """(height, width) to which they are reduced, by averaging; empty: they stay."""
    depth: bool = later(False)
    """Whether they have the depth of the views, for encoders that learn from it (``CameraEncoderConfig.depth_weight``).
    Of reduced images a pixel has that of the nearest point."""

    gives_images = True

    def __post_init__(self):
        if self.first < 0:
            raise ValueError(f"SeeImages.first must be at least 0, it is {self.first}")
        if len(self.size) not in (0, 2) or min(self.size, default=1) < 1:
            raise ValueError(f"SeeImages.size must be height and width, it is {self.size}")
        object.__setattr__(self, "gives_depth", self.depth)  # no field: it follows from one

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if scene.views is None:
            raise ValueError(f"SeeImages: {scene.source} has no images")
        views = replace(scene.views, labels=None, instances=None)
        if not self.depth:
            views = replace(views, depth=None)
        elif views.depth is None:
            raise ValueError(f"SeeImages.depth: views of {scene.source} have no depth")
        num, old = len(views.cameras), views.cameras.size
        if self.first > num:
            raise ValueError(f"SeeImages.first: {scene.source} has {num} images, not {self.first}")
        views = select_views(views, range(self.first or num))
        if self.size in ((), old):
            return replace(scene, images=views)
        size = (self.size[0], self.size[1])
        if size[0] > old[0] or size[1] > old[1]:
            raise ValueError(f"SeeImages.size: {scene.source} is of {old}; images are only reduced, not to {size}")
        rgb = [seen_colour(image.numpy(), (None, None), old, size) for image in views.rgb]
        matrices = [seen_intrinsics((matrix.numpy(), None), old, old, size) for matrix in views.cameras.intrinsics]
        cameras = Cameras(
            intrinsics=torch.from_numpy(np.stack(matrices)).to(torch.float32),
            world_from_cam=views.cameras.world_from_cam,
            size=size,
        )
        depth = None if views.depth is None else _nearest(views.depth, size)
        return replace(scene, images=replace(views, cameras=cameras, rgb=torch.stack(rgb), depth=depth))


def _nearest(depth: Float[Tensor, "V H W"], size: tuple[int, int]) -> Float[Tensor, "V _ _"]:
    """The least depth that the pixels of each larger pixel have, 0 if none has one."""
    _, height, width = depth.shape
    # A pixel's middle lies in the larger pixel: the outer edges of the image stay where they are.
    rows, columns = (
        (2 * torch.arange(old) + 1) * new // (2 * old) for old, new in ((height, size[0]), (width, size[1]))
    )
    place = (rows[:, None] * size[1] + columns).flatten().expand(len(depth), -1)
    far = torch.full((len(depth), size[0] * size[1]), torch.inf)
    near = far.scatter_reduce(1, place, torch.where(depth > 0, depth, torch.inf).flatten(1), "amin")
    return torch.where(torch.isfinite(near), near, 0).view(-1, *size)


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


@dataclass(frozen=True)
class PointsOnly(Transform):
    """Leave views, rays and their targets behind, for tasks on points: they are not sent to the task for nothing. What
    image encoders see (``Scene.images``) stays."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        return replace(scene, views=None, rays=None, targets=None)


def _some(candidates: Int[Tensor, " N"], num: int, generator: Generator) -> Int[Tensor, " P"]:
    """Up to ``num`` of the candidates, none twice."""
    return candidates[torch.randperm(len(candidates), generator=generator)[:num]]


def _near_depth_edge(depth: Float[Tensor, "H W"], jump: float = 0.05, reach: int = 4) -> Bool[Tensor, "H W"]:
    """Pixels within ``reach`` of a place where the depth changes by more than a share ``jump`` from pixel to pixel."""
    edge = torch.zeros_like(depth)
    for axis in (0, 1):
        a, b = depth.narrow(axis, 0, depth.shape[axis] - 1), depth.narrow(axis, 1, depth.shape[axis] - 1)
        jumped = ((a - b).abs() > jump * torch.minimum(a, b)) & (a > 0) & (b > 0)
        edge.narrow(axis, 0, depth.shape[axis] - 1)[jumped] = 1
    pooled = torch.nn.functional.max_pool2d(edge[None, None], 2 * reach + 1, stride=1, padding=reach)
    return pooled[0, 0] > 0
