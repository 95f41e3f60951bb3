from collections.abc import Callable

import pytest
import torch

from ponder3d.geometry.mesh import Mesh
from ponder3d.types import Cameras, Views


@pytest.fixture
def facing() -> Callable[..., Views]:
    """Cameras at the origin that look along +x, with the given depth."""

    def make(depth: torch.Tensor, rgb: torch.Tensor | None = None) -> Views:
        num, height, width = depth.shape
        pose = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]).repeat(num, 1, 1)
        matrix = torch.tensor([[20.0, 0, (width - 1) / 2], [0, 20, (height - 1) / 2], [0, 0, 1]]).repeat(num, 1, 1)
        if rgb is None:
            rgb = torch.zeros(num, height, width, 3, dtype=torch.uint8)
        return Views(Cameras(matrix, pose, (height, width)), rgb, depth, None, torch.tensor([num]))

    return make


@pytest.fixture
def square() -> Callable[..., Mesh]:
    """A square at distance ``x``, facing the cameras."""

    def make(x: float, half: float = 0.94) -> Mesh:
        corners = torch.tensor([[x, -half, -half], [x, -half, half], [x, half, half], [x, half, -half]])
        return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))

    return make
