"""Superpixels: images in regions of one colour and one depth, for targets that are the same all over a region.

Simple linear iterative clustering (Achanta et al. 2012, "SLIC Superpixels Compared to State-of-the-Art Superpixel
Methods") without its last step: a region need not be in one piece. Beside place and colour, depth counts, if there is
any: a chair before a wall of its colour is another region.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ponder3d.data.dataset import SceneDataset
from ponder3d.data.gradient_features import GradientMaps
from ponder3d.data.image_features import FeatureMaps
from ponder3d.types import Scene


@dataclass(frozen=True)
class SuperpixelMaps(FeatureMaps):
    """Feature maps, and the regions that the images are divided into."""

    maps: FeatureMaps = GradientMaps()
    """Where the features come from."""
    num: int = 48
    """Regions of an image, about: they start as the blocks of a grid. SLidR has 150 in images of 224 x 416 pixels."""
    steps: int = 4
    """How often regions are drawn anew around their means."""
    compactness: float = 0.2
    """What a step from block to block counts for, in units of colours from 0 to 1; larger: regions stay blocks."""
    depth: float = 1.0
    """What a difference of log depth counts for, in the same units: 0.1 is that of 2.0 m and 2.2 m."""

    def __post_init__(self):
        if self.num < 1 or self.steps < 1 or self.compactness <= 0 or self.depth < 0:
            raise ValueError(
                "SuperpixelMaps: num and steps must be at least 1, compactness positive and depth not negative, they "
                f"are {self.num}, {self.steps}, {self.compactness} and {self.depth}"
            )

    def num_channels(self) -> int:
        """Those of the maps."""
        return self.maps.num_channels()

    def check(self, dataset: SceneDataset) -> None:
        """Whether the maps are there."""
        self.maps.check(dataset)

    def look_up(self, scene: Scene, uv: Float[Tensor, "R 2"], view: Int[Tensor, " R"]) -> Float[Tensor, "R K"] | None:
        """What the maps say."""
        return self.maps.look_up(scene, uv, view)

    def regions(self, scene: Scene, uv: Float[Tensor, "R 2"], view: Int[Tensor, " R"]) -> Int[Tensor, " R"]:
        """The region of each pixel, numbered through all views of the scene."""
        views = scene.views
        assert views is not None
        seen, number = view.unique(return_inverse=True)
        depth = None if views.depth is None or not self.depth else views.depth[seen]
        label = superpixels(views.rgb[seen], depth, self.num, self.steps, self.compactness, self.depth)
        u, v = uv.round().to(torch.int64).unbind(1)
        rows, columns = _blocks(self.num, views.cameras.size)
        return view * (rows * columns) + label[number, v, u]


def _blocks(num: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of about ``num`` blocks that are about square."""
    height, width = size
    rows = min(max(1, round(math.sqrt(num * height / width))), height)
    return rows, min(max(1, round(num / rows)), width)


def superpixels(
    rgb: UInt8[Tensor, "V H W 3"],
    depth: Float[Tensor, "V H W"] | None,
    num: int,
    steps: int,
    compactness: float,
    depth_weight: float,
) -> Int[Tensor, "V H W"]:
    """Regions of images, from 0 in each; see ``SuperpixelMaps`` for the numbers.

    In every step a pixel goes to the nearest of nine means: those of the regions that started as its own block of the
    grid and as the eight around. Pixels without depth (0) are compared without it.
    """
    num_views, height, width = rgb.shape[:3]
    rows, columns = _blocks(num, (height, width))
    down = (torch.arange(height) + 0.5) * rows / height
    right = (torch.arange(width) + 0.5) * columns / width
    row, column = (each.to(torch.int64) for each in (down, right))
    place = torch.stack(torch.meshgrid(down, right, indexing="ij"), dim=-1).view(1, -1, 2) * compactness
    known = torch.zeros(num_views, height * width, 1) if depth is None else (depth > 0).view(num_views, -1, 1).float()
    far = known if depth is None else depth.clamp(min=1e-3).log().view(num_views, -1, 1) * depth_weight * known
    colour = rgb.view(num_views, -1, 3).to(torch.float32) / 255
    # A squared distance to a mean is the product of these nine numbers of a pixel with nine of the mean, but for a
    # number that is the same for all means. The pixels of a block have their nine candidates in common: blocks filled
    # up with zeros to one size make a step one product of matrices.
    told = torch.cat([colour, place.expand(num_views, -1, 2), far, known, far.square(), torch.ones_like(known)], dim=2)
    block = (row[:, None] * columns + column).flatten()
    order = block.argsort(stable=True)
    inside = torch.bincount(block, minlength=rows * columns)
    slot = torch.arange(len(block)) - (inside.cumsum(0) - inside)[block[order]]
    pixels = told.new_zeros(num_views, rows * columns, int(inside.max()), 9)
    pixels[:, block[order], slot] = told[:, order]

    candidates = _around(rows, columns)
    first = torch.arange(num_views)[:, None, None] * (rows * columns)
    label = candidates[:, 4, None].expand(pixels.shape[:3])  # the block itself
    means, deep = told.new_zeros(num_views * rows * columns, 6), told.new_zeros(num_views * rows * columns, 1)
    for _ in range(steps):
        sums = torch.zeros(len(means), 9).index_add_(0, (first + label).flatten(), pixels.flatten(0, 2))
        count, with_depth = sums[:, 8:], sums[:, 6:7]
        mean = torch.cat([sums[:, :5] / count.clamp(min=1), sums[:, 5:6] / with_depth.clamp(min=1)], dim=1)
        # A region that has lost its last pixel stays where it was; one without depth has none to be compared with.
        means = torch.where(count > 0, mean, means)
        deep = torch.where(count > 0, (with_depth > 0).float(), deep)
        flat, distance = means[:, :5], means[:, 5:]
        times = [-2 * flat, -2 * distance * deep, distance.square() * deep, deep, flat.square().sum(1, keepdim=True)]
        tried = torch.cat(times, dim=1).view(num_views, -1, 9)[:, candidates]
        nearest = (pixels @ tried.transpose(2, 3)).argmin(3)
        label = candidates.expand(num_views, -1, -1).gather(2, nearest)
    out = torch.empty(num_views, height * width, dtype=torch.int64)
    out[:, order] = label[:, block[order], slot]
    return out.view(num_views, height, width)


def _around(rows: int, columns: int) -> Int[Tensor, "B 9"]:
    """Numbers of the blocks around each block of a grid, row by row; beyond an edge, that at the edge."""
    row = (torch.arange(rows)[:, None] + torch.arange(-1, 2)).clamp(0, rows - 1)
    column = (torch.arange(columns)[:, None] + torch.arange(-1, 2)).clamp(0, columns - 1)
    return (row[:, None, :, None] * columns + column[None, :, None, :]).reshape(rows * columns, 9)
