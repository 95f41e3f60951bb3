"""Axis-aligned boxes and rays; corners of oriented boxes, and the points in them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.types import Boxes

_PAIRS = 1 << 22
"""Points times boxes that are looked at in one go; 4 M take about 100 MB."""


def ray_box(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    lo: Float[Tensor, "R 3"],
    hi: Float[Tensor, "R 3"],
) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    """Where rays enter and leave axis-aligned boxes (slab method).

    Returns:
        ``t_enter`` and ``t_leave`` in metres along the unit directions. ``t_enter`` is negative for an origin inside
        the box; ``t_leave <= t_enter`` or ``t_leave <= 0`` means that the ray misses it.
    """
    # A zero component never leaves its slab; 1e-12 keeps the quotient finite and its sign right.
    safe = torch.where(directions.abs() < 1e-12, torch.full_like(directions, 1e-12), directions)
    a, b = (lo - origins) / safe, (hi - origins) / safe
    return torch.minimum(a, b).amax(1), torch.maximum(a, b).amin(1)


def box_corners(boxes: Boxes) -> Float[Tensor, "K 8 3"]:
    """The eight corners of oriented boxes in the world frame; corner bit 2, 1, 0 set means the +x, +y, +z side."""
    bits = torch.arange(8, device=boxes.centre.device)
    signs = torch.stack([(bits >> shift) & 1 for shift in (2, 1, 0)], dim=1) - 0.5
    local = signs * boxes.size[:, None]
    cos, sin = boxes.yaw.cos()[:, None], boxes.yaw.sin()[:, None]
    x, y, z = local.unbind(-1)
    turned = torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=-1)
    return turned + boxes.centre[:, None]


def points_in_boxes(xyz: Float[Tensor, "N 3"], boxes: Boxes) -> tuple[Int[Tensor, " K"], Int[Tensor, " N"]]:
    """Which points lie in which upright boxes; the surface of a box is a part of it.

    Args:
        xyz: points in the frame of the boxes, metres.
        boxes: may overlap; one without a size holds nothing.

    Returns:
        Number of points in each box, and for each point the box that holds it: the one whose centre is nearest in
        units of its half size where there are several, -1 where there is none.
    """
    inside = torch.zeros(len(boxes.centre), dtype=torch.int64, device=xyz.device)
    own = torch.full((len(xyz),), -1, dtype=torch.int64, device=xyz.device)
    if len(boxes.centre) == 0:
        return inside, own
    step = max(1, _PAIRS // len(boxes.centre))
    for start in range(0, len(xyz), step):
        part = xyz[start : start + step]
        share = _share(part, boxes)
        within = share <= 1
        inside += within.sum(0)
        best = share.masked_fill(~within, torch.inf).min(1)
        own[start : start + step] = torch.where(best.values.isfinite(), best.indices, -1)
    return inside, own


def _share(xyz: Float[Tensor, "N 3"], boxes: Boxes) -> Float[Tensor, "N K"]:
    """How far out in each box each point is: 0 in its centre, 1 on its surface."""
    x, y, z = (xyz[:, None, axis] - boxes.centre[:, axis] for axis in range(3))
    cos, sin = boxes.yaw.cos(), boxes.yaw.sin()
    per_metre = 2 / boxes.size.clamp(min=1e-9)
    along, across = (cos * x + sin * y).abs() * per_metre[:, 0], (cos * y - sin * x).abs() * per_metre[:, 1]
    return torch.maximum(torch.maximum(along, across), z.abs() * per_metre[:, 2])
