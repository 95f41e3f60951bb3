"""Laser points seen by cameras, in float64: where they fall, sparse depth images, colours of points."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.types import Views

MIN_DEPTH = 1e-5
"""Metres; what is closer to a camera's plane is behind it."""
UNSEEN = 0.5
"""Grey of points that no camera sees."""


@dataclass(frozen=True)
class Hits:
    """Points that fall into an image."""

    row: Int[Tensor, " M"]
    """Of the points."""
    pixel: Int[Tensor, " M"]
    """``v * width + u``."""
    depth: Float[Tensor, " M"]
    """Plane depth, metres, float64."""


def inverse(pose: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """The inverse of a rigid pose."""
    out = torch.eye(4, dtype=pose.dtype)
    out[:3, :3] = pose[:3, :3].T
    out[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return out


def between(world_from_a: Float[Tensor, "4 4"], world_from_b: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """``a_from_b``; the origins are subtracted first, so that world coordinates of 1e6 m cost no digits."""
    out = torch.eye(4, dtype=world_from_a.dtype)
    turn = world_from_a[:3, :3].T
    out[:3, :3] = turn @ world_from_b[:3, :3]
    out[:3, 3] = turn @ (world_from_b[:3, 3] - world_from_a[:3, 3])
    return out


def moved(pose: Float[Tensor, "4 4"], xyz: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Points through a pose, as float64."""
    return xyz.to(torch.float64) @ pose[:3, :3].T + pose[:3, 3]


def hits(
    xyz: Float[Tensor, "N 3"],
    intrinsics: Float[Tensor, "3 3"],
    world_from_cam: Float[Tensor, "4 4"],
    size: tuple[int, int],
) -> Hits:
    """The points in front of a camera that fall strictly inside its image of (height, width), which spans from -0.5 to
    ``width - 0.5``. Nothing is hidden by anything."""
    in_cam = moved(inverse(world_from_cam), xyz)
    # The rest of the arithmetic is for the points in front alone: half of them at most.
    row = (in_cam[:, 2] > MIN_DEPTH).nonzero()[:, 0]
    ahead = in_cam[row]
    uv = (ahead @ intrinsics.to(torch.float64).T)[:, :2] / ahead[:, 2:]
    inside = (uv > -0.5).all(1) & (uv[:, 0] < size[1] - 0.5) & (uv[:, 1] < size[0] - 0.5)
    row, ahead, uv = row[inside], ahead[inside], uv[inside]
    # Adding 0.5 may round up to the next whole number at the far edge.
    u = (uv[:, 0] + 0.5).floor().to(torch.int64).clamp(0, size[1] - 1)
    v = (uv[:, 1] + 0.5).floor().to(torch.int64).clamp(0, size[0] - 1)
    return Hits(row, v * size[1] + u, ahead[:, 2])


def sparse_images(
    found: Hits, labels: Int[Tensor, " N"] | None, size: tuple[int, int]
) -> tuple[Float[Tensor, "H W"], Int[Tensor, "H W"]]:
    """Depth image (float32, 0 for none) and label image (int16, -1 for none) of the nearest point in each pixel; of
    equally near ones the first."""
    near = found.depth.argsort(stable=True)
    pixel, order = found.pixel[near].sort(stable=True)
    first = torch.ones_like(pixel, dtype=torch.bool)
    first[1:] = pixel[1:] != pixel[:-1]
    pixel, chosen = pixel[first], near[order[first]]
    depth = torch.zeros(size[0] * size[1])
    depth[pixel] = found.depth[chosen].to(torch.float32)
    label = torch.full((size[0] * size[1],), -1, dtype=torch.int16)
    if labels is not None:
        label[pixel] = labels[found.row[chosen]].to(torch.int16)
    return depth.reshape(size), label.reshape(size)


def painted(num: int, views: Views, found: Sequence[Hits]) -> Float[Tensor, "{num} 3"]:
    """Colour in [0, 1] of points: of the pixel they fall on, in the first view they fall into; grey where there is
    none. A point that something hides gets the colour of what hides it.

    Args:
        num: points.
        views: the images.
        found: the points in each of the first views.
    """
    rgb = torch.full((num, 3), UNSEEN)
    for view in reversed(range(len(found))):
        image = views.rgb[view].reshape(-1, 3)
        rgb[found[view].row] = image[found[view].pixel].to(torch.float32) / 255
    return rgb
