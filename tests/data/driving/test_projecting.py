"""Points in images, by hand."""

import torch

from ponder3d.data.driving.projecting import between, hits, painted, sparse_images
from ponder3d.types import Cameras, Views

K = torch.tensor([[2.0, 0, 1.5], [0, 2.0, 1.0], [0, 0, 1]])
EYE = torch.eye(4, dtype=torch.float64)
SIZE = (3, 4)


def test_where_points_fall():
    # At depth 2 a step of 1 m is a step of 1 pixel: x from -2 to 2 and y from -1.5 to 1.5 are inside.
    xyz = torch.tensor(
        [[0.0, 0, 2], [-1.99, 0, 2], [-2.0, 0, 2], [1.99, 0, 2], [2.0, 0, 2], [0, 1.49, 2], [0, 1.5, 2], [0, 0, -2]]
    )
    found = hits(xyz, K, EYE, SIZE)
    assert found.row.tolist() == [0, 1, 3, 5]
    assert found.pixel.tolist() == [4 + 2, 4 + 0, 4 + 3, 8 + 2]  # u 1.5 lies between 1 and 2 and goes to 2
    assert found.depth.tolist() == [2, 2, 2, 2]


def test_the_nearest_point_wins_and_of_equals_the_first():
    xyz = torch.tensor([[0.0, 0, 8], [0, 0, 4], [0, 0, 4], [-1, 0, 2]])
    depth, label = sparse_images(hits(xyz, K, EYE, SIZE), torch.tensor([0, 1, 2, 3]), SIZE)
    assert depth[1].tolist() == [0, 2, 4, 0] and int((depth > 0).sum()) == 2  # u = -1 + 1.5 = 0.5 goes to 1
    assert label[1].tolist() == [-1, 3, 1, -1] and label.dtype == torch.int16


def test_poses_far_from_the_origin_lose_no_digits():
    a, b = EYE.clone(), EYE.clone()
    a[:3, 3] = torch.tensor([4e5, 5e6, 100.0], dtype=torch.float64)
    b[:3, 3] = torch.tensor([4e5 + 0.125, 5e6 - 0.25, 100.5], dtype=torch.float64)
    a[:2, :2] = torch.tensor([[0.0, -1], [1, 0]])  # a's x axis is the world's y
    assert between(a, b)[:3, 3].tolist() == [-0.25, -0.125, 0.5]


def test_colours_are_of_the_first_camera_that_sees_a_point():
    rgb = torch.zeros(2, 3, 4, 3, dtype=torch.uint8)
    rgb[0, 1, 2], rgb[1, 1, 2] = torch.tensor([255, 0, 0]), torch.tensor([0, 255, 0])
    views = Views(Cameras(K.repeat(2, 1, 1), EYE.float().repeat(2, 1, 1), SIZE), rgb, None, None, torch.tensor([2]))
    xyz = torch.tensor([[0.0, 0, 2], [0, 0, 3], [0, 0, -1]])
    found = hits(xyz, K, EYE, SIZE)
    other = hits(xyz[1:2], K, EYE, SIZE)
    only_second = painted(3, views, [other, found])
    # The first view sees row 0 of its own two hits: what it says wins there.
    assert only_second.tolist() == [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5]]
