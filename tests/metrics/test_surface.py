import pytest
import torch

from ponder3d.metrics.surface import SurfaceDistance, surface_distance


def plane(z: float, reach: float = 1.0, spacing: float = 0.02) -> torch.Tensor:
    steps = torch.arange(0, reach + 1e-6, spacing)
    return torch.cartesian_prod(steps, steps, torch.tensor([z]))


def test_two_parallel_planes_five_centimetres_apart():
    found = surface_distance(plane(0.0), plane(0.05), threshold=0.06)
    assert found.accuracy == pytest.approx(0.05, abs=1e-6) and found.completeness == pytest.approx(0.05, abs=1e-6)
    assert found.chamfer == pytest.approx(0.05, abs=1e-6) and found.f_score == 1
    assert surface_distance(plane(0.0), plane(0.05), threshold=0.04).f_score == 0


def test_half_a_surface_is_accurate_but_not_complete():
    whole = plane(0.0, spacing=0.1)  # 11 x 11 points
    half = whole[whole[:, 0] < 0.45]  # 5 of 11 columns
    found = surface_distance(half, whole, threshold=0.15)
    assert found.accuracy == 0
    assert found.completeness == pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 0.6) / 11, abs=1e-6)
    recall = 6 / 11  # the missing columns but the first are further away than the threshold
    assert found.f_score == pytest.approx(2 * recall / (1 + recall))


def test_directions_are_told_apart():
    one, two = torch.tensor([[0.0, 0, 0]]), torch.tensor([[0.0, 0, 0], [0, 0, 2]])
    there, back = surface_distance(one, two), surface_distance(two, one)
    assert (there.accuracy, there.completeness) == (0, 1) and (back.accuracy, back.completeness) == (1, 0)
    assert there.chamfer == back.chamfer == 0.5
    assert SurfaceDistance(0.25, 0.75, 1.0).chamfer == 0.5


def test_agrees_with_all_pairs():
    a, b = torch.rand(300, 3), torch.rand(200, 3) + 0.2
    gap = torch.cdist(a, b)
    found = surface_distance(a, b)
    assert found.accuracy == pytest.approx(float(gap.amin(1).mean()), rel=1e-4)
    assert found.completeness == pytest.approx(float(gap.amin(0).mean()), rel=1e-4)


def test_a_surface_without_points():
    with pytest.raises(ValueError, match="a surface without points"):
        surface_distance(torch.zeros(0, 3), plane(0.0))
    with pytest.raises(ValueError, match="a surface without points"):
        surface_distance(plane(0.0), torch.zeros(0, 3))
