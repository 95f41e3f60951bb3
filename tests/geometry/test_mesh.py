import math

import pytest
import torch

from ponder3d.geometry.mesh import face_areas, sample_surface, surface_nets


def sphere(num=32, radius=0.7):
    axis = torch.linspace(-1, 1, num)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    spacing = 2 / (num - 1)
    return grid.norm(dim=-1) - radius, torch.full((3,), -1.0), torch.full((3,), spacing)


def test_sphere():
    mesh = surface_nets(*sphere())
    # Chords of a cell of 0.065 deviate from the sphere by about 0.065^2 / (8 * 0.7) = 0.0008; the mean of crossings
    # more.
    assert float((mesh.vertices.norm(dim=1) - 0.7).abs().max()) < 0.003
    edges = torch.cat([mesh.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]).sort(dim=1).values
    unique, uses = torch.unique(edges, dim=0, return_counts=True)
    assert bool((uses == 2).all()), "watertight"
    assert len(mesh.vertices) - len(unique) + len(mesh.faces) == 2, "Euler characteristic of a sphere"


def test_faces_look_to_the_positive_side():
    for sign in (1, -1):
        values, origin, spacing = sphere()
        mesh = surface_nets(sign * values, origin, spacing)
        a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
        outward = (torch.linalg.cross(b - a, c - a) * a).sum(1)
        assert bool((sign * outward > 0).all())


def test_plane_is_exact():
    z = torch.arange(6.0).view(1, 1, 6).expand(4, 5, 6) * 0.1
    mesh = surface_nets(z - 0.234, torch.zeros(3), torch.full((3,), 0.1))
    torch.testing.assert_close(mesh.vertices[:, 2], torch.full((12,), 0.234))


def test_invalid_samples_carry_no_surface():
    values, origin, spacing = sphere()
    valid = torch.zeros_like(values, dtype=torch.bool)
    valid[:16] = True
    mesh = surface_nets(values, origin, spacing, valid)
    assert float(mesh.vertices[:, 0].max()) <= 0.0
    assert len(mesh.faces) > 0


def test_no_surface():
    mesh = surface_nets(torch.ones(4, 4, 4), torch.zeros(3), torch.ones(3))
    assert mesh.vertices.shape == (0, 3) and mesh.faces.shape == (0, 3)
    with pytest.raises(ValueError, match="no area"):
        sample_surface(mesh, 10, torch.Generator())


def test_samples_are_spread_by_area(device):
    mesh = surface_nets(*(x.to(device) for x in sphere()))
    points = sample_surface(mesh, 20000, torch.Generator().manual_seed(0)).cpu()
    assert float((points.norm(dim=1) - 0.7).abs().max()) < 0.005
    # Archimedes: the height over a sphere is uniform; its deviation is r / sqrt(3).
    assert float(points[:, 2].std()) == pytest.approx(0.7 / math.sqrt(3), rel=0.02)
    assert float(points.mean(0).abs().max()) < 0.02


def test_areas_of_a_sphere_add_up():
    assert float(face_areas(surface_nets(*sphere())).sum()) == pytest.approx(4 * math.pi * 0.7**2, rel=0.01)
