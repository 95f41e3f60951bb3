"""Lift, splat: the features of a pixel are spread along its ray, as far as it is likely to be (Philion and Fidler 2020;
BEVDet, Huang et al. 2021; the lift of UniPAD).

``volume[cell] = sum of p(bin | pixel) feats[pixel]`` over the pairs of pixel and bin whose point lies in the cell: a
sparse matrix of probabilities times the features of pixels (``geometry.incidence``). What the products of features and
probabilities would take, 0.98 GiB a scene at UniPAD's size, is never there (``benchmarks/lift.py``). Points outside the
volume are dropped; the reference rounds towards zero, and what lies up to a cell below the volume falls into its first.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponder3d.encoders.image.depth import DepthBins, DepthHeadConfig, DepthNet
from ponder3d.encoders.image.lift import Lifted, ViewTransform, ViewTransformConfig, pixel_rows
from ponder3d.geometry.cameras import unproject
from ponder3d.geometry.grid import cells_from_world, ravel, shape_like
from ponder3d.geometry.incidence import scatter_rows
from ponder3d.types import Cameras, Grid


@dataclass(frozen=True)
class LiftSplat(ViewTransformConfig):
    """Choices of the lift; the defaults are UniPAD's."""

    channels: int = 256
    """Of the volume; a 1x1 convolution of the map gives them."""
    bins: DepthBins = DepthBins()
    """Bins of depth; a pixel has a point in the middle of each."""
    depth: DepthHeadConfig = DepthNet()
    """What tells depth."""

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> ViewTransform:
        """The lift.

        Raises:
            ValueError: there are several maps.
        """
        if len(channels) != 1:
            raise ValueError(f"LiftSplat takes one map, not {len(channels)}; set neck.levels to 1")
        return _LiftSplat(channels[0], strides[0], self)


class _LiftSplat(ViewTransform):
    def __init__(self, in_channels: int, stride: int, config: LiftSplat):
        super().__init__()
        self.config, self.out_channels, self.strides, self.bins = config, config.channels, (stride,), config.bins
        self.content = nn.Conv2d(in_channels, config.channels, 1)
        self.head = config.depth.build(in_channels, config.bins.num)

    def forward(self, maps: tuple[Float[Tensor, "N _ _ _"], ...], cameras: Cameras, grid: Grid) -> Lifted:
        (x,) = maps
        feats = pixel_rows(self.content(x))
        probability = self.head(x).float().softmax(1)
        rows = frustum_rows(cameras, (x.shape[2], x.shape[3]), self.strides[0], self.config.bins, grid)
        num = len(grid.box) * grid.shape[0] * grid.shape[1] * grid.shape[2]
        volume = scatter_rows(feats, rows, pixel_rows(probability), num)
        return Lifted(volume.view(len(grid.box), *grid.shape, -1), (probability,))


def frustum_rows(
    cameras: Cameras, size: tuple[int, int], stride: int, bins: DepthBins, grid: Grid
) -> Int[Tensor, "P D"]:
    """In which row of the volume each point of each pixel lies; -1 outside it, and for cells beyond the image.

    Args:
        cameras: of all images, as many of each scene, scene by scene.
        size: height and width of a map.
        stride: pixels per cell of it.
        bins: of depth.
        grid: the volume of each scene.
    """
    with torch.no_grad(), torch.autocast(grid.box.device.type, enabled=False):
        return _frustum_rows(cameras, size, stride, bins, grid)


def _frustum_rows(
    cameras: Cameras, size: tuple[int, int], stride: int, bins: DepthBins, grid: Grid
) -> Int[Tensor, "P D"]:
    device = grid.box.device
    num = len(cameras)
    v = torch.arange(size[0], device=device) * stride + (stride - 1) / 2
    u = torch.arange(size[1], device=device) * stride + (stride - 1) / 2
    uv = torch.stack(torch.meshgrid(v, u, indexing="ij"), dim=-1).flip(-1).reshape(-1, 2).to(torch.float32)
    inside = (uv[:, 0] <= cameras.size[1] - 0.5) & (uv[:, 1] <= cameras.size[0] - 0.5)
    uv, view = uv.repeat(num, 1), torch.arange(num, device=device).repeat_interleave(len(inside))
    # Cell coordinates are affine in the depth: two points of a ray give all of them.
    scene = view // (num // len(grid.box))
    start = cells_from_world(grid, cameras.world_from_cam[view, :3, 3], scene)
    step = cells_from_world(grid, unproject(cameras, uv, torch.ones_like(uv[:, 0]), view), scene) - start
    cell = torch.floor(start[:, None] + step[:, None] * bins.middles(device)[:, None]).to(torch.int32)
    kept = ((cell >= 0) & (cell < shape_like(grid.shape, cell))).all(2) & inside.repeat(num)[:, None]
    rows = ravel(cell.flatten(0, 1), scene.repeat_interleave(bins.num), grid.shape).view(kept.shape)
    return torch.where(kept, rows, -1)
