"""Normals of bare clouds: shapes whose normals are known, noise, degenerate clouds, and recordings."""

import numpy as np
import pytest
import torch

from ponder3d.data.raw.rgbd import RGBDConfig
from ponder3d.data.skip_list import SkipList
from ponder3d.geometry.normals import default_viewpoint, estimate_normals
from ponder3d.report import encode_files


def degrees(a, b):
    """Angle between two rows of unit vectors, whichever way they point."""
    return torch.rad2deg(torch.acos((a * b).sum(1).abs().clamp(max=1)))


def lattice(*sides: int) -> torch.Tensor:
    return torch.cartesian_prod(*(torch.arange(side) for side in sides)).double()


def box(spacing: float = 0.05) -> tuple[torch.Tensor, torch.Tensor]:
    """Points inside the six faces of a room of 3 x 4 x 2.5 m, none near an edge, and their inward normals."""
    size = torch.tensor([3.0, 4.0, 2.5], dtype=torch.float64)
    xyz, normal = [], []
    for axis in range(3):
        u, v = (other for other in range(3) if other != axis)
        plane = lattice(*(int(size[o] / spacing) - 15 for o in (u, v))) * spacing + 8 * spacing
        for end in (0.0, 1.0):
            points = torch.zeros(len(plane), 3, dtype=torch.float64)
            points[:, u], points[:, v], points[:, axis] = plane[:, 0], plane[:, 1], end * size[axis]
            direction = torch.zeros(3)
            direction[axis] = 1 - 2 * end
            xyz.append(points)
            normal.append(direction.expand(len(points), 3))
    return torch.cat(xyz), torch.cat(normal)


def test_a_room_exactly():
    """Walls inwards, the floor up, the ceiling down."""
    xyz, normal = box()
    torch.testing.assert_close(estimate_normals(xyz), normal, atol=1e-6, rtol=0)
    above = estimate_normals(xyz, viewpoint=torch.tensor([1.5, 2.0, 9.0]))
    ceiling = normal[:, 2] == -1
    torch.testing.assert_close(above[ceiling], -normal[ceiling], atol=1e-6, rtol=0)
    torch.testing.assert_close(above[~ceiling], normal[~ceiling], atol=1e-6, rtol=0)
    torch.testing.assert_close(estimate_normals(xyz, viewpoint=xyz - normal), -normal, atol=1e-6, rtol=0)


def test_a_tilted_plane_in_any_kind_of_array():
    xyz = torch.nn.functional.pad(lattice(40, 40) * 0.1, (0, 1))
    xyz[:, 2] = 0.75 * xyz[:, 0]
    expected = torch.tensor([-0.6, 0.0, 0.8]).expand(1600, 3)
    up = np.array([0.0, 0, 100])
    found = estimate_normals(xyz, viewpoint=up)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(estimate_normals(xyz.numpy().astype(np.float32), viewpoint=up), found, atol=1e-3, rtol=0)
    assert torch.equal(estimate_normals(xyz, viewpoint=up), found), "the same every time"
    order = torch.randperm(1600)
    torch.testing.assert_close(estimate_normals(xyz[order], viewpoint=up), found[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_a_sphere(noise):
    outward = torch.nn.functional.normalize(torch.randn(20000, 3), dim=1)
    xyz = outward + torch.randn(20000, 3) * noise
    found = estimate_normals(xyz)
    assert ((found * outward).sum(1) < 0).all(), "the middle of the box is the middle of the sphere"
    assert ((estimate_normals(xyz, viewpoint=5 * outward) * outward).sum(1) > 0).all()
    error = degrees(found, outward)
    # Points lie 2.5 cm apart, cells are some 4 cm wide: a cell's normal is off by up to 2 degrees at its corners.
    assert float(error.median()) < 2.0 and float(error.quantile(0.99)) < 5.0


def test_noise_of_half_the_spacing():
    """A plane sampled every 2 cm with noise of 1 cm along its normal: 7 degrees from 18 or more points, 3 from 150."""
    xyz = torch.nn.functional.pad(torch.rand(25000, 2) * 3.0, (0, 1))
    xyz[:, 2] += 0.01 * torch.randn(25000)
    up, above = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.5, 1.5, 10.0])
    few, many = (degrees(estimate_normals(xyz, k, viewpoint=above), up) for k in (24, 150))
    assert float(many.median()) < 0.6 * float(few.median()) < 10.0


def test_far_away():
    """In map coordinates, a plane within 1e-4: float64 holds a nanometre there."""
    xyz, normal = box()
    far = xyz + torch.tensor([512_345.0, 5_400_321.0, 120.0], dtype=torch.float64)
    torch.testing.assert_close(estimate_normals(far), normal, atol=1e-4, rtol=0)


def test_outdoors_the_ground_and_roofs_point_up():
    ground = torch.nn.functional.pad(lattice(100, 100), (0, 1))
    roof = torch.cat([ground[:400, :2] / 4 + 30, torch.full((400, 1), 12.0)], dim=1)
    found = estimate_normals(torch.cat([ground, roof]))
    assert float((found[:, 2] > 0.99).float().mean()) > 0.95
    assert default_viewpoint(ground).tolist() == [49.5, 49.5, 99.0]
    assert default_viewpoint(ground / 4).tolist() == [12.375, 12.375, 0.0]


def test_sparse_and_dense_parts():
    """A floor with a point every 2 cm, and one with a point every 30 cm: each in its own cells."""
    dense = torch.nn.functional.pad(lattice(50, 50) * 0.02, (0, 1))
    sparse = torch.nn.functional.pad(lattice(12, 12) * 0.3 + torch.tensor([5.0, 0.0]), (0, 1))
    found = estimate_normals(torch.cat([dense, sparse]), viewpoint=torch.tensor([0.0, 0.0, 5.0]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 1.0]).expand(len(found), 3), atol=1e-6, rtol=0)
    near = estimate_normals(torch.cat([dense, sparse]), radius=0.2, viewpoint=torch.tensor([0.0, 0.0, 5.0]))
    torch.testing.assert_close(near[:2500], found[:2500], atol=1e-6, rtol=0)
    assert not near[2500:].any(), "nothing within the radius"


def test_unknown_is_zero():
    assert estimate_normals(torch.zeros(0, 3)).shape == (0, 3)
    for xyz in (torch.zeros(1, 3), torch.rand(2, 3), torch.zeros(100, 3), torch.rand(2, 3).repeat(50, 1)):
        assert torch.equal(estimate_normals(xyz), torch.zeros(len(xyz), 3))
    line = torch.linspace(0, 4, 500)[:, None] * torch.tensor([0.6, 0.0, 0.8])
    assert not estimate_normals(line).any()
    three = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(
        estimate_normals(three, viewpoint=torch.tensor([0.0, 0.0, 1.0])), torch.tensor([0.0, 0, 1]).expand(3, 3)
    )


def test_copies_of_points_change_nothing_much():
    xyz, normal = box(0.1)
    torch.testing.assert_close(estimate_normals(xyz.repeat(40, 1)), normal.repeat(40, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 2)),), r"xyz: expected shape \[N 3\], found \[4, 2\]"),
        ((np.full((4, 3), np.nan),), "xyz: a coordinate is not finite"),
        ((np.zeros((4, 3)), 2), "k must be at least 3 and radius positive, not 2"),
        ((np.zeros((4, 3)), 5, 0.0), "radius positive"),
        ((np.zeros((4, 3)), 5, None, np.zeros((2, 3))), r"viewpoint: expected shape \[3\], or \[4 3\]"),
        ((np.zeros((4, 3)), 5, None, np.full(3, np.inf)), "viewpoint: a coordinate is not finite"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        estimate_normals(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("7scenes", 22.0), ("hololens", 11.0)])
def test_recordings(real_data, name, most):
    """Against the normals of the depth images, which are noisy themselves; four of five point the same way."""
    scene = RGBDConfig(root=str(real_data(name)), max_side=320).build().scenes[0]
    cloud = encode_files._fused(scene, SkipList())
    normal = torch.from_numpy(cloud.normal)
    found = estimate_normals(cloud.xyz)
    known = found.any(1) & normal.any(1)
    assert float(known.float().mean()) > 0.99
    assert float(degrees(found, normal)[known].median()) < most
    assert float(((found * normal).sum(1)[known] > 0).float().mean()) > 0.85
