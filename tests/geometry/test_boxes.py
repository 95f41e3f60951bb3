import math

import pytest
import torch

from ponder3d.geometry.boxes import box_corners, ray_box
from ponder3d.types import Boxes

LO, HI = torch.tensor([[-1.0, -1, -1]]), torch.tensor([[1.0, 1, 1]])


@pytest.mark.parametrize(
    ("origin", "direction", "enter", "leave"),
    [
        ((-3, 0, 0), (1, 0, 0), 2, 4),
        ((0, 0, 0), (0, 0, 1), -1, 1),  # from inside
        ((3, 0, 0), (1, 0, 0), -4, -2),  # the box is behind
    ],
)
def test_ray_box_by_hand(origin, direction, enter, leave):
    rays = torch.tensor([origin], dtype=torch.float32), torch.tensor([direction], dtype=torch.float32)
    found = ray_box(*rays, LO, HI)
    assert float(found[0]) == pytest.approx(enter)
    assert float(found[1]) == pytest.approx(leave)


@pytest.mark.parametrize("origin", [(-3, 2, 0), (-3, 0, -1.5)])
def test_parallel_ray_beside_the_box_misses(origin):
    enter, leave = ray_box(torch.tensor([origin], dtype=torch.float32), torch.tensor([[1.0, 0, 0]]), LO, HI)
    assert float(leave) < float(enter)


def test_diagonal_through_corners():
    direction = torch.ones(1, 3) / math.sqrt(3)
    enter, leave = ray_box(torch.full((1, 3), -2.0), direction, LO, HI)
    assert float(enter) == pytest.approx(math.sqrt(3))
    assert float(leave) == pytest.approx(3 * math.sqrt(3))


def test_box_corners_by_hand():
    boxes = Boxes(
        torch.tensor([[1.0, 2, 3]]), torch.tensor([[4.0, 2, 6]]), torch.tensor([math.pi / 2]), torch.tensor([0])
    )
    corners = box_corners(boxes)[0]
    # A quarter turn: the long x side lies along world y.
    torch.testing.assert_close(corners.amin(0), torch.tensor([0.0, 0, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(corners.amax(0), torch.tensor([2.0, 4, 6]), atol=1e-6, rtol=0)
    # The last corner is (+x, +y, +z) of the box: x maps to +y, y to -x.
    torch.testing.assert_close(corners[7], torch.tensor([0.0, 4, 6]), atol=1e-6, rtol=0)
