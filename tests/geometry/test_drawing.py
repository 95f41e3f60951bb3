import math

import torch

from ponder3d.geometry.drawing import UNLABELLED, birds_eye, block_view, colour_scale, principal_colours, top_view
from ponder3d.types import Boxes


def test_colour_scale_ends():
    picture = colour_scale(torch.tensor([[0.0, 1e-6, 4.0, 9.0]]), 4.0)
    assert picture[0, 0].tolist() == [0, 0, 0]  # nothing
    assert picture[0, 1].tolist() == [48, 18, 59]  # nearest
    assert picture[0, 2].tolist() == picture[0, 3].tolist() == [122, 5, 3]  # farthest, and clamped


def test_top_view_shows_the_highest_point_and_cuts_the_ceiling():
    xyz = torch.tensor([[0.0, 0, 0], [0.0, 0, 1], [1.0, 1, 0], [0.0, 0, 3]])
    rgb = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], dtype=torch.uint8)
    picture = top_view(xyz, rgb, size=11)
    assert picture[10, 0].tolist() == [0, 255, 0]
    assert picture[0, 10].tolist() == [0, 0, 255]
    assert picture[5, 5].tolist() == [255, 255, 255]


def test_top_view_of_nothing_is_white():
    assert bool((top_view(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8), size=4) == 255).all())


RED, BLUE, WHITE, BLACK = [255, 0, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]


def test_birds_eye_has_x_to_the_right_and_y_up():
    xyz = torch.tensor([[4.5, 0.5, 0], [0.5, 4.5, 0], [-4.5, -4.5, 0], [5.5, 0, 0], [float("nan"), 0, 0]])
    labels = torch.tensor([0, 1, -1, 0, 0])
    picture = birds_eye(xyz, labels, [tuple(RED), tuple(BLUE)], extent=5.0, size=10)
    assert picture[4, 9].tolist() == RED  # x 4..5, y 0..1: right edge, just above the middle
    assert picture[0, 5].tolist() == BLUE  # forward is up
    assert picture[9, 0].tolist() == list(UNLABELLED)
    assert int((picture != 255).any(-1).sum()) == 3  # what is beyond, or nowhere, is not shown


def test_birds_eye_shows_what_is_highest_and_has_a_class():
    xyz = torch.tensor([[0.5, 0.5, 2], [0.5, 0.5, 1], [0.5, 0.5, 9]])
    picture = birds_eye(xyz, torch.tensor([0, 1, -1]), [tuple(RED), tuple(BLUE)], extent=1.0, size=2)
    assert picture[0, 1].tolist() == RED


def test_birds_eye_without_classes_shows_heights():
    xyz = torch.tensor([[-0.5, 0.5, -9], [0.5, 0.5, 9]])
    low, high = birds_eye(xyz, None, extent=1.0, size=2)[0].tolist()
    assert (low, high) == ([48, 18, 59], [122, 5, 3])


def test_birds_eye_draws_boxes_and_where_they_head():
    def drawn(yaw: float) -> torch.Tensor:
        boxes = Boxes(torch.tensor([[0.0, 0, 7]]), torch.tensor([[8.0, 4, 2]]), torch.tensor([yaw]), torch.tensor([0]))
        picture = birds_eye(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), [], boxes, extent=10.5, size=21)
        return (picture == 0).all(-1).flip(0).T  # [x y], cell (10, 10) around (0, 0)

    along = drawn(0.0)
    # 4 m to both sides along x, 2 m along y; cells of a metre around whole numbers, number 10 around 0.
    assert along.any(1).nonzero()[:, 0].tolist() == list(range(6, 15))
    assert along.any(0).nonzero()[:, 0].tolist() == list(range(8, 13))
    assert along[:, 10].nonzero()[:, 0].tolist() == [6, 10, 11, 12, 13, 14]  # a side, and the line to the front
    assert drawn(math.pi)[:, 10].nonzero()[:, 0].tolist() == [6, 7, 8, 9, 10, 14]
    assert drawn(math.pi / 2)[10].nonzero()[:, 0].tolist() == [6, 10, 11, 12, 13, 14]


def test_birds_eye_of_nothing_is_white():
    picture = birds_eye(torch.zeros(0, 3), None, size=4)
    assert bool((picture == 255).all())


def test_a_block_of_pixels_for_each_cell():
    xyz = torch.tensor([[0.0, 0, 0], [1.0, 1, 0], [0.0, 1, 9]])
    rgb = torch.tensor([[9, 9, 9], [7, 7, 7], [5, 5, 5]], dtype=torch.uint8)
    image = block_view(xyz, rgb, 1.0, 6)
    assert image.shape == (6, 6, 3) and bool((image[3:, :3] == 9).all()) and bool((image[:3, 3:] == 7).all())
    assert bool((image[:3, :3] == 255).all()), "the top is left out"
    assert block_view(xyz[:0], rgb[:0], 1.0, 6).shape == (6, 6, 3)


def test_colours_of_features_are_of_their_directions():
    groups = torch.arange(400) % 4
    feats = torch.eye(6)[groups] + 0.01 * torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    colours = principal_colours(feats)

    def apart(colours: torch.Tensor) -> float:
        """The least distance between two groups' mean colours."""
        means = torch.stack([colours[groups == k].float().mean(0) for k in range(4)])
        return float(torch.cdist(means, means).fill_diagonal_(torch.inf).min())

    assert apart(colours) > 60
    stretched = feats * torch.linspace(1, 2, 400)[:, None]
    assert int((principal_colours(stretched).int() - colours.int()).abs().max()) <= 1
    stretched[:40] *= 100  # a tenth of them, of every group
    assert apart(principal_colours(stretched)) > 60
    assert apart(principal_colours(stretched, lengths=True)) < 60


def test_colours_of_few_channels_and_of_nothing():
    assert principal_colours(torch.zeros(0, 5)).shape == (0, 3)
    one = principal_colours(torch.tensor([[-1.0], [0.0], [1.0]]))
    assert one[0].tolist() == [0, 0, 0] and one[2].tolist() == [255, 0, 0] and int(one[1, 0]) in (127, 128)
