import pytest
import torch

from ponder3d.types import Grid
from ponder3d.volume.scene_grid import cell_centres, check_grid, scene_grid

BOUNDS = torch.tensor([[[0.0, 0.0, 0.0], [8.0, 0.4, 2.0]], [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]])


def test_a_box_around_each_scene_reaches_a_cell_beyond_it():
    grid = scene_grid(BOUNDS, (10, 6, 4), margin=0.2)
    # Along x of the first scene a cell is 1 m, along y the margin is larger than a cell, along z a cell is 1 m.
    torch.testing.assert_close(grid.box[0], torch.tensor([[-1.0, -0.2, -1.0], [9.0, 0.6, 3.0]]))
    torch.testing.assert_close(grid.box[1], torch.tensor([[-1.25, -1.5, -2.0], [1.25, 1.5, 2.0]]))
    assert grid.shape == (10, 6, 4) and grid.fixed is None


def test_one_box_for_all():
    box = (0.0, 0.0, 0.0, 1.0, 2.0, 3.0)
    grid = scene_grid(BOUNDS, (3, 4, 5), box)
    assert grid.fixed == box and torch.equal(grid.box[0], grid.box[1])


def test_centres_by_hand():
    grid = Grid(torch.tensor([[[0.0, 0.0, 0.0], [2.0, 1.0, 2.0]], [[1.0, 0.0, 0.0], [3.0, 1.0, 1.0]]]), (2, 1, 2))
    xyz, scene = cell_centres(grid)
    torch.testing.assert_close(
        xyz[:4], torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 1.5], [1.5, 0.5, 0.5], [1.5, 0.5, 1.5]])
    )
    torch.testing.assert_close(xyz[7], torch.tensor([2.5, 0.5, 0.75]))
    assert scene.tolist() == [0] * 4 + [1] * 4


def test_what_is_no_grid():
    check_grid("X", (3, 3, 3), (), 0.1)
    for wrong, words in (
        (((2, 3, 3), (), 0.1), "X.volume_shape: at least 3"),
        (((3, 3, 3), (0.0, 1.0), 0.1), "X.volume_box: a lower and an upper corner"),
        (((3, 3, 3), (), 0.0), "X.volume_margin must be positive"),
    ):
        with pytest.raises(ValueError, match=words):
            check_grid("X", *wrong)
