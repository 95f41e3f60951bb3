"""From the maps of cameras to a volume: the contract, and lifts in which voxels look at images.

All of them use the library's one map between world and grid: the value of a cell belongs to its centre, whichever way
it came there, so volumes of cameras, of lasers and of a field lie on each other.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.encoders.image.depth import DepthBins, DepthHeadConfig, SimpleDepth
from ponder3d.geometry.cameras import project_to_all
from ponder3d.geometry.incidence import gather_rows
from ponder3d.geometry.trilinear import corners, sample
from ponder3d.types import Cameras, Grid, Volume

_NEAR = 1e-3
"""Metres in front of a camera from which on it sees anything."""


@dataclass(frozen=True)
class Lifted:
    """What a lift makes of the maps."""

    feats: Float[Tensor, "B X Y Z C"]
    """Float32; 0 where no camera looks."""
    depth: tuple[Float[Tensor, "N D _ _"], ...] = ()
    """Probability of each bin of depth, for each map; of lifts that have one. See ``depth.depth_bin_loss``."""


class ViewTransformConfig(Config, ABC):
    """Choices of a lift from images into a volume."""

    @abstractmethod
    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> "ViewTransform":
        """The lift of maps with these channels and strides, from fine to coarse."""


class ViewTransform(nn.Module, ABC):
    """Maps and cameras in, features of a volume with ``out_channels`` out."""

    out_channels: int
    strides: tuple[int, ...]
    """Pixels per cell of each map."""
    bins: DepthBins | None = None
    """Of the distribution of depth, in lifts that have one."""

    @abstractmethod
    def forward(self, maps: tuple[Float[Tensor, "N _ _ _"], ...], cameras: Cameras, grid: Grid) -> Lifted:
        """Features at the cells of a grid. Under autocast networks may be in half precision; geometry and sums are not.

        Args:
            maps: of all images; with stride s the cell (i, j) is at the pixel ((j + 0.5) s - 0.5, (i + 0.5) s - 0.5).
                What lies beyond the image says nothing.
            cameras: of all images, as many of each scene, scene by scene. ``size`` is that of the images, without what
                they were padded by.
            grid: the volume of each scene.
        """


@dataclass(frozen=True)
class BilinearLift(ViewTransformConfig):
    """Each voxel reads the images where it is seen: the mean over the cameras that see its centre (paper eq. 10)."""

    channels: int = 256
    """Of the volume; a 1x1 convolution of each map gives them, and maps are summed."""
    mean: bool = True
    """Whether what several cameras see is averaged; otherwise summed."""

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> ViewTransform:
        """The lift."""
        return _BilinearLift(channels, strides, self)


@dataclass(frozen=True)
class DepthWeightedLift(ViewTransformConfig):
    """Each voxel reads the images where it is seen, times the probability that the image is of what is there (UVTR, Li
    et al. 2022): bilinear in the map, trilinear in the distribution of depth; summed over cameras and maps."""

    channels: int = 256
    """Of the volume; a 1x1 convolution of each map gives them."""
    bins: DepthBins = DepthBins(near=0.0, far=64.0, num=64)
    """Bins of depth; what lies beyond them gets nothing."""
    depth: DepthHeadConfig = SimpleDepth()
    """What tells depth, one for each map."""

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> ViewTransform:
        """The lift."""
        return _DepthWeightedLift(channels, strides, self)


class _BilinearLift(ViewTransform):
    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], config: BilinearLift):
        super().__init__()
        self.out_channels, self.strides, self.mean = config.channels, strides, config.mean
        self.content = nn.ModuleList([nn.Conv2d(c, config.channels, 1) for c in channels])

    def forward(self, maps: tuple[Float[Tensor, "N _ _ _"], ...], cameras: Cameras, grid: Grid) -> Lifted:
        """Features where a cell's centre is seen, summed or averaged over the cameras that see it."""
        found = _look(cameras, grid)
        share = found.seen.to(torch.float32)
        if self.mean:
            share = share / share.sum(2, keepdim=True).clamp(min=1)
        total = None
        for content, x, stride in zip(self.content, maps, self.strides, strict=True):
            part = _read(content(x), found, stride, share)
            total = part if total is None else total + part
        assert total is not None
        return Lifted(total.view(len(grid.box), *grid.shape, -1))


class _DepthWeightedLift(ViewTransform):
    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], config: DepthWeightedLift):
        super().__init__()
        self.config, self.out_channels, self.strides, self.bins = config, config.channels, strides, config.bins
        self.content = nn.ModuleList([nn.Conv2d(c, config.channels, 1) for c in channels])
        self.heads = nn.ModuleList([config.depth.build(c, config.bins.num) for c in channels])

    def forward(self, maps: tuple[Float[Tensor, "N _ _ _"], ...], cameras: Cameras, grid: Grid) -> Lifted:
        """The same, each weighted by how likely the depth of the cell is along its pixel's ray."""
        found = _look(cameras, grid)
        bins = self.config.bins
        within = found.seen & (found.depth >= bins.near) & (found.depth < bins.far)
        total, depths = None, []
        for content, head, x, stride in zip(self.content, self.heads, maps, self.strides, strict=True):
            probability = head(x).float().softmax(1)
            share = self._probability_at(probability, found, stride) * within
            part = _read(content(x), found, stride, share)
            total = part if total is None else total + part
            depths.append(probability)
        assert total is not None
        return Lifted(total.view(len(grid.box), *grid.shape, -1), tuple(depths))

    def _probability_at(
        self, probability: Float[Tensor, "N D h w"], found: "_Look", stride: int
    ) -> Float[Tensor, "B M V"]:
        """The distribution as a volume over (row, column, depth) of each image, read at where voxels are in it."""
        bins = self.config.bins
        num, _, h, w = probability.shape
        low, high = (-0.5, -0.5, bins.near), (h * stride - 0.5, w * stride - 0.5, bins.far)
        box = torch.stack([torch.stack([probability.new_full((), v) for v in corner]) for corner in (low, high)])
        volume = Volume(
            Grid(box.expand(num, 2, 3), (h, w, bins.num)), probability.permute(0, 2, 3, 1)[..., None].contiguous()
        )
        u, v = found.uv.unbind(-1)
        at = torch.stack([v, u, found.depth], dim=-1)
        image = torch.arange(num, device=box.device).view(len(at), 1, -1).expand(at.shape[:3])
        # What no camera sees may be anywhere, or nowhere (a point beside the camera): it is not counted.
        at = torch.where(found.seen[..., None], at, 0).flatten(0, 2)
        return sample(volume, corners(volume.grid, at, image.flatten()))[:, 0].view(found.depth.shape)


@dataclass(frozen=True)
class _Look:
    """Where voxels are in images."""

    uv: Float[Tensor, "B M V 2"]
    depth: Float[Tensor, "B M V"]
    seen: Bool[Tensor, "B M V"]
    """Whether the centre of the voxel is in front of the camera and within its image."""


def cell_centres(grid: Grid) -> Float[Tensor, "B M 3"]:
    """World coordinates of the centres of all cells, in the order of the volume's rows."""
    steps = [(torch.arange(n, device=grid.box.device) + 0.5) / n for n in grid.shape]
    unit = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1).reshape(1, -1, 3)
    return grid.box[:, :1] + unit * (grid.box[:, 1:] - grid.box[:, :1])


def _look(cameras: Cameras, grid: Grid) -> _Look:
    with torch.autocast(grid.box.device.type, enabled=False):
        uv, depth = project_to_all(cameras, cell_centres(grid))
    height, width = cameras.size
    u, v = uv.unbind(-1)
    # NaN, of a point beside the camera, fails the comparisons.
    seen = (depth > _NEAR) & (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
    return _Look(uv, depth, seen)


def _read(
    content: Float[Tensor, "N C h w"], found: _Look, stride: int, share: Float[Tensor, "B M V"]
) -> Float[Tensor, "BM C"]:
    """Sum over the cameras of the map at the voxel, read bilinearly, times the camera's share."""
    index, weight = _bilinear(found, stride, (content.shape[2], content.shape[3]))
    weight = (weight * share[..., None]).flatten(2).flatten(0, 1)
    return gather_rows(pixel_rows(content), index.flatten(2).flatten(0, 1), weight)


def _bilinear(
    found: _Look, stride: int, size: tuple[int, int]
) -> tuple[Int[Tensor, "B M V 4"], Float[Tensor, "B M V 4"]]:
    """The four cells around each place, as rows of all maps (-1: not seen), and their weights. Beyond the outermost
    centres the value is that of the nearest place between centres."""
    axes = []
    for at, num in zip(found.uv.unbind(-1), (size[1], size[0]), strict=True):
        place = (torch.where(found.seen, at, 0) + 0.5) / stride - 0.5
        place = place.clamp(0, num - 1)
        low = place.floor().clamp(max=max(num - 2, 0))
        fraction, low = place - low, low.to(torch.int64)
        axes.append(((low, 1 - fraction), ((low + 1).clamp(max=num - 1), fraction)))
    num_scenes, _, num_views = found.depth.shape
    image = torch.arange(num_scenes * num_views, device=found.depth.device).view(num_scenes, 1, num_views)
    pairs = [(row, column) for row in axes[1] for column in axes[0]]
    index = torch.stack([(image * size[0] + row) * size[1] + column for (row, _), (column, _) in pairs], dim=-1)
    weight = torch.stack([a * b for (_, a), (_, b) in pairs], dim=-1)
    return torch.where(found.seen[..., None], index, -1), weight


def pixel_rows(x: Float[Tensor, "N C h w"]) -> Float[Tensor, "Nhw C"]:
    """Cells of all maps, row by row, as float32 rows."""
    return x.permute(0, 2, 3, 1).flatten(0, 2).float()
