import torch

from ponder3d.geometry.drawing import colour_scale, top_view


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
