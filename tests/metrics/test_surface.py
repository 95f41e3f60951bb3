import pytest
import torch

from ponder3d.geometry.mesh import Mesh
from ponder3d.metrics.surface import field_to_tsdf, mean_distance
from ponder3d.types import Views

BOUNDS = torch.tensor([[0.0, -0.8, -0.8], [2.0, 0.8, 0.8]])
WALL = 0.94
"""Half width of what counts of a wall that fills the view: the bounds, the truncation, less half a cell."""


def plane(z: float, spacing: float) -> torch.Tensor:
    steps = torch.arange(0, 1 + 1e-6, spacing)
    return torch.cartesian_prod(steps, steps, torch.tensor([z]))


def test_two_parallel_planes_five_centimetres_apart(device):
    one, other = plane(0.0, 0.02).to(device), plane(0.05, 0.02).to(device)
    assert mean_distance(one, other) == pytest.approx(0.05, abs=1e-6)
    assert mean_distance(one, one) == 0


def test_half_a_surface_lies_on_the_whole_but_not_the_other_way_round():
    whole = plane(0.0, 0.1)  # 11 x 11 points
    half = whole[whole[:, 0] < 0.45]  # 5 of 11 columns
    assert mean_distance(half, whole) == 0
    assert mean_distance(whole, half) == pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 0.6) / 11, abs=1e-6)


def test_agrees_with_all_pairs():
    a, b = torch.rand(300, 3), torch.rand(200, 3) + 0.2
    gap = torch.cdist(a, b)
    assert mean_distance(a, b) == pytest.approx(float(gap.amin(1).mean()), rel=1e-4)
    assert mean_distance(b, a) == pytest.approx(float(gap.amin(0).mean()), rel=1e-4)


@pytest.fixture
def wall(facing) -> Views:
    """A wall 2 m away. It is larger than the bounds; what is measured of it reaches as far as the truncation beyond."""
    return facing(torch.full((1, 41, 41), 2.0))


def join(*meshes: Mesh) -> Mesh:
    starts = [sum(len(m.vertices) for m in meshes[:i]) for i in range(len(meshes))]
    faces = [m.faces + start for m, start in zip(meshes, starts, strict=True)]
    return Mesh(torch.cat([m.vertices for m in meshes]), torch.cat(faces))


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_a_surface_behind_the_true_one(wall, shift, square):
    """10 cm off wherever the cameras look; equal surfaces are half the points' spacing apart."""
    found = field_to_tsdf(square(2.0 + shift), wall, BOUNDS)
    assert found.accuracy == pytest.approx(max(shift, 0.01), abs=0.005)
    assert found.completeness == pytest.approx(max(shift, 0.01), abs=0.005)


def test_a_floater_makes_the_field_inaccurate(wall, square):
    """A fifth of the field's surface hangs in the air, a metre in front of the wall."""
    found = field_to_tsdf(join(square(2.0), square(1.0, WALL / 2)), wall, BOUNDS)
    assert found.accuracy == pytest.approx(0.2, abs=0.03)
    assert found.completeness < 0.03


def test_missing_surface_makes_the_field_incomplete(wall, square):
    """Half of the wall is not there: its points are half of its half width from the other half, on average."""
    corners = square(2.0).vertices
    half = Mesh(torch.stack([corners[:, 0], corners[:, 1].clamp(max=0), corners[:, 2]], dim=1), square(2.0).faces)
    found = field_to_tsdf(half, wall, BOUNDS)
    assert found.accuracy < 0.03
    assert found.completeness == pytest.approx(WALL / 4, abs=0.03)


def test_surface_where_nobody_looked_is_not_held_against_the_field(wall, square):
    beyond, aside = square(5.0), Mesh(square(2.0).vertices + torch.tensor([0.0, 4, 0]), square(2.0).faces)
    found = field_to_tsdf(join(square(2.0), beyond, aside), wall, BOUNDS)
    assert found.accuracy < 0.03 and found.completeness < 0.06


def test_a_surface_that_no_view_can_see_is_only_incomplete(wall, square):
    assert field_to_tsdf(square(2.5), wall, BOUNDS).accuracy is None, "further behind the wall than the truncation"
    assert field_to_tsdf(square(2.5), wall, BOUNDS).completeness == pytest.approx(0.5, abs=0.02)


def test_what_lies_outside_the_bounds_is_not_asked_for(wall, square):
    assert field_to_tsdf(square(2.0), wall, BOUNDS - torch.tensor([1.0, 0, 0])) is None


def test_a_huge_surface_gets_points_that_are_further_apart(wall, square, monkeypatch):
    monkeypatch.setattr("ponder3d.metrics.surface._MOST_POINTS", 500)
    found = field_to_tsdf(square(2.0), wall, BOUNDS)
    assert 0.03 < found.accuracy < 0.06, "half of 1.88 m / sqrt(500)"


def test_a_mesh_without_area_is_no_surface(wall):
    point = Mesh(torch.tensor([[2.0, 0, 0]] * 3), torch.tensor([[0, 1, 2]]))
    found = field_to_tsdf(point, wall, BOUNDS)
    assert found.accuracy is None and found.completeness is None
