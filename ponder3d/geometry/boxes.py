"""Axis-aligned boxes and rays; corners of oriented boxes."""

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.types import Boxes


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
