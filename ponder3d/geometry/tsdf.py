"""TSDF fusion of depth images into a grid (Curless and Levoy 1996)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.geometry.cameras import project
from ponder3d.types import Grid, Views


@dataclass(frozen=True)
class TSDF:
    """A fused surface on a grid of one scene. Values are signed distances in metres, positive in front."""

    grid: Grid
    sdf: Float[Tensor, "X Y Z"]
    """Truncated signed distance; ``truncation`` where ``weight`` is 0."""
    weight: Float[Tensor, "X Y Z"]
    """Number of views that saw the cell within the truncation band or in front of it."""


def cell_centres(grid: Grid) -> Float[Tensor, "XYZ 3"]:
    """World coordinates of the cell centres of a one-scene grid, z fastest."""
    (lo, hi), device = grid.box[0], grid.box.device
    steps = [(torch.arange(n, device=device) + 0.5) / n for n in grid.shape]
    unit = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1).reshape(-1, 3)
    return lo + unit * (hi - lo)


def fuse(views: Views, grid: Grid, truncation: float) -> TSDF:
    """Average the projective signed distances that the views' depth images give to each cell.

    Args:
        views: views of one scene with depth.
        grid: where to fuse; one scene.
        truncation: metres; a cell further behind a surface than this is not updated, one further in front counts as
            ``truncation``. About three to five cells is usual.

    Raises:
        ValueError: the views have no depth.
    """
    if views.depth is None:
        raise ValueError("tsdf.fuse: the views have no depth")
    centres = cell_centres(grid)
    total = torch.zeros(len(centres), device=centres.device)
    weight = torch.zeros_like(total)
    height, width = views.cameras.size
    for view in range(len(views.cameras)):
        uv, depth = project(views.cameras, centres, torch.full((len(centres),), view, device=centres.device))
        pixel = uv.round()
        seen = (depth > 0) & (pixel >= 0).all(1) & (pixel[:, 0] < width) & (pixel[:, 1] < height)
        rows = seen.nonzero()[:, 0]
        u, v = pixel[rows].to(torch.int64).unbind(1)
        measured = views.depth[view, v, u]
        distance = measured - depth[rows]
        use = (measured > 0) & (distance >= -truncation)
        rows, distance = rows[use], distance[use]
        total[rows] += distance.clamp(max=truncation)
        weight[rows] += 1
    sdf = torch.where(weight > 0, total / weight.clamp(min=1), torch.full_like(total, truncation))
    return TSDF(grid, sdf.reshape(grid.shape), weight.reshape(grid.shape))
