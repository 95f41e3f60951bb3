"""Cameras and grids whose projections can be told by hand."""

import torch

from ponder3d.types import Cameras, Grid

ALONG_Y = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""At the origin, looks along y; its x is that of the world."""


def cameras(poses: torch.Tensor, focal: float = 16.0, size: tuple[int, int] = (16, 32)) -> Cameras:
    """The optical axis goes through the middle of the image, between pixels."""
    matrix = torch.tensor([[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1]])
    return Cameras(matrix.repeat(len(poses), 1, 1), poses, size)


def grid(shape=(4, 4, 2), box=((-4.0, 0.0, -2.0), (4.0, 8.0, 2.0)), num: int = 1) -> Grid:
    """Cells of 2 m in front of the camera."""
    return Grid(torch.tensor(box).expand(num, 2, 3), shape)


def mirrored(seen: Cameras, where: Grid) -> tuple[Cameras, Grid]:
    """The world with x and -x exchanged."""
    flip = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    low, high = where.box.unbind(1)
    box = torch.stack(
        [torch.stack([-high[:, 0], low[:, 1], low[:, 2]], 1), torch.stack([-low[:, 0], *high[:, 1:].T], 1)], 1
    )
    return Cameras(seen.intrinsics, flip @ seen.world_from_cam, seen.size), Grid(box, where.shape)


def turned(degrees: float) -> torch.Tensor:
    """``ALONG_Y`` turned about z, counter-clockwise."""
    angle = torch.deg2rad(torch.tensor(degrees))
    c, s = float(angle.cos()), float(angle.sin())
    return torch.tensor([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ ALONG_Y
