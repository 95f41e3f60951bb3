"""The grid of the volume of each scene."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.geometry.grid import fixed_grid, shape_like
from ponder3d.types import Grid


def scene_grid(
    bounds: Float[Tensor, "B 2 3"], shape: tuple[int, int, int], box: tuple[float, ...] = (), margin: float = 0.1
) -> Grid:
    """The same box for every scene, or one around each, filled along each axis: a room of 6 x 5 x 2.7 m uses all of it.

    Args:
        bounds: lower and upper corner of each scene, metres.
        shape: cells along x, y and z, at least 3 of each.
        box: lower x, y, z, upper x, y, z, metres, of every scene; empty: around the bounds.
        margin: metres by which the grid reaches beyond the bounds, at least; never less than a cell, because volumes
            are constant beyond their outermost cell centres.
    """
    if box:
        return fixed_grid(box, shape, len(bounds), bounds.device)
    lo, hi = bounds.unbind(1)
    around = ((hi - lo) / (shape_like(shape, lo) - 2)).clamp(min=margin)
    return Grid(torch.stack([lo - around, hi + around], dim=1), shape)


def cell_centres(grid: Grid) -> tuple[Float[Tensor, "Q 3"], Int[Tensor, " Q"]]:
    """World coordinates of the centres of all cells, in the order of a volume's rows, and their scenes."""
    device = grid.box.device
    steps = [(torch.arange(n, device=device) + 0.5) / n for n in grid.shape]
    unit = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1).reshape(1, -1, 3)
    xyz = grid.box[:, :1] + unit * (grid.box[:, 1:] - grid.box[:, :1])
    scene = torch.arange(len(grid.box), device=device)[:, None].expand(xyz.shape[:2])
    return xyz.flatten(0, 1), scene.flatten()


def check_grid(name: str, shape: tuple[int, int, int], box: tuple[float, ...], margin: float) -> None:
    """Refuse what ``scene_grid`` cannot make a grid of.

    Raises:
        ValueError: naming the configuration ``name``.
    """
    if min(shape) < 3:
        raise ValueError(f"{name}.volume_shape: at least 3 cells along each axis, not {shape}")
    if box and not (len(box) == 6 and all(lo < hi for lo, hi in zip(box[:3], box[3:], strict=True))):
        raise ValueError(f"{name}.volume_box: a lower and an upper corner, six numbers, are needed, not {box}")
    if margin <= 0:
        raise ValueError(f"{name}.volume_margin must be positive, not {margin}")
