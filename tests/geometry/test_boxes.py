import math

import pytest
import torch

from ponder3d.geometry import boxes as module
from ponder3d.geometry.boxes import box_corners, points_in_boxes, ray_box
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


def _two_boxes() -> Boxes:
    """One 4 x 2 x 2 around (10, 0, 1), turned by a quarter; one 8 x 8 x 8 around (10, 3, 1)."""
    return Boxes(
        centre=torch.tensor([[10.0, 0, 1], [10.0, 3, 1]]),
        size=torch.tensor([[4.0, 2, 2], [8.0, 8, 8]]),
        yaw=torch.tensor([math.pi / 2, 0]),
        label=torch.zeros(2, dtype=torch.int64),
    )


def test_points_in_boxes_by_hand():
    points = [
        (10, -1.9, 1),  # in the small one, whose length is along y
        (11.5, -0.5, 1),  # beside it, in the large one
        (10, 1.9, 1),  # in both: nearer to the large one's centre, in units of its size
        (10, 0.2, 1),  # in both: nearer to the small one's
        (10, 0, 5.1),  # above both
        (14, 3, 1),  # on a face of the large one
    ]
    inside, own = points_in_boxes(torch.tensor(points, dtype=torch.float32), _two_boxes())
    assert inside.tolist() == [3, 4]
    assert own.tolist() == [0, 1, 1, 0, -1, 1]


def test_points_in_boxes_in_parts(monkeypatch):
    points = torch.rand(1000, 3) * 12 + torch.tensor([4.0, -4, -5])
    whole = points_in_boxes(points, _two_boxes())
    monkeypatch.setattr(module, "_PAIRS", 64)
    parts = points_in_boxes(points, _two_boxes())
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert 0 < int(whole[0][0]) < int(whole[0][1])


def test_points_in_no_boxes():
    boxes = Boxes(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    inside, own = points_in_boxes(torch.zeros(2, 3), boxes)
    assert (inside.tolist(), own.tolist()) == ([], [-1, -1])
    empty = points_in_boxes(torch.zeros(0, 3), _two_boxes())
    assert (empty[0].tolist(), empty[1].tolist()) == ([0, 0], [])
