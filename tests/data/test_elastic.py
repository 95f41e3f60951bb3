from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ponder3d.data import elastic
from ponder3d.data.dataset import DataError
from ponder3d.data.elastic import ElasticDistortion, node_noise, noise_around, noise_grid, smooth_noise
from ponder3d.geometry import keyed
from ponder3d.geometry.trilinear import corners
from ponder3d.types import Boxes, Cameras, Rays, Scene, Views

ALWAYS = ElasticDistortion(probability=1.0)


def a_scene(xyz: torch.Tensor, normal: torch.Tensor | None = None) -> Scene:
    return Scene(xyz, None, normal, "box", labels=torch.zeros(len(xyz), dtype=torch.int64))


def reference(xyz: np.ndarray, noise: np.ndarray, spacing: float, magnitude: float) -> np.ndarray:
    """Displacements as spec 5.1 says them, with loops: filters axis by axis, then the eight nodes around each point."""
    for _ in range(2):
        for axis in range(3):
            padded = np.pad(noise, [(1, 1) if a == axis else (0, 0) for a in range(4)])
            n = noise.shape[axis]
            noise = sum(np.take(padded, range(i, i + n), axis) for i in range(3)) / 3
    out = np.zeros_like(xyz)
    for row, point in enumerate(xyz):
        at = (point - (xyz.min(0) - spacing)) / spacing
        low = np.floor(at).astype(int)
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod([f if bit else 1 - f for bit, f in zip(corner, at - low, strict=True)])
            out[row] += weight * noise[tuple(low + corner)]
    return magnitude * out


def test_displacements_are_those_of_the_reference():
    xyz = torch.rand(60, 3) * torch.tensor([1.1, 0.7, 0.45]) + 3
    moved = ElasticDistortion(((0.2, 0.4),), 1.0)(a_scene(xyz), keyed.generator(5)).xyz - xyz
    generator = keyed.generator(5)
    torch.rand((), generator=generator)
    extent = xyz.double().amax(0) - xyz.double().amin(0)
    noise = torch.randn(3, *(int(e / 0.2) + 3 for e in extent), generator=generator)
    expected = reference(xyz.double().numpy(), noise.double().permute(1, 2, 3, 0).numpy(), 0.2, 0.4)
    np.testing.assert_allclose(moved.numpy(), expected, atol=2e-5)


def test_the_noise_has_the_deviation_that_is_documented():
    grid = noise_grid(torch.tensor([[0.0, 0, 0], [6, 6, 6]]), 0.2)
    noise = smooth_noise(grid, 1.0, keyed.generator(1)).feats
    assert float(noise[:, 3:-3, 3:-3, 3:-3].std()) == pytest.approx(0.11, abs=0.01)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_normals_turn_with_the_surface(axis):
    """A plane of points: the normals that come out are those of the bent plane, by finite differences."""
    step = 1e-2
    u, v = torch.meshgrid(torch.arange(120) * step, torch.arange(90) * step, indexing="ij")
    flat = torch.stack([u, v, torch.zeros_like(u)], dim=-1).roll(axis, dims=-1)
    normal = torch.zeros(3)
    normal[(axis + 2) % 3] = 1.0
    scene = a_scene(flat.reshape(-1, 3), normal.repeat(flat[..., 0].numel(), 1))
    out = ALWAYS(scene, keyed.generator(2))
    bent, turned = out.xyz.view(120, 90, 3), out.normal.view(120, 90, 3)
    along_u, along_v = bent[2:, 1:-1] - bent[:-2, 1:-1], bent[1:-1, 2:] - bent[1:-1, :-2]
    expected = F.normalize(torch.linalg.cross(along_u, along_v), dim=-1)
    cosine = (expected * turned[1:-1, 1:-1]).sum(-1)
    assert float((expected @ normal).amin()) < 0.98, "the plane really bends"
    # Slopes jump from cell to cell of the noise: differences across such a place are means of both sides.
    assert float(cosine.quantile(0.05)) > 0.999 and float(cosine.min()) > 0.9
    torch.testing.assert_close(out.normal.norm(dim=1), torch.ones(len(out.normal)))


def test_views_and_boxes_are_left_behind_and_rays_refused():
    cameras = Cameras(torch.eye(3)[None], torch.eye(4)[None], (4, 4))
    views = Views(cameras, torch.zeros(1, 4, 4, 3, dtype=torch.uint8), None, None, torch.tensor([1]))
    boxes = Boxes(torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    scene = replace(a_scene(torch.rand(50, 3)), views=views, boxes=boxes)
    for probability in (0.0, 1.0):  # a batch needs all of its scenes to have the same parts
        out = ElasticDistortion(probability=probability)(scene, keyed.generator(1))
        assert out.views is None and out.boxes is None
        assert torch.equal(out.xyz, scene.xyz) == (probability == 0)
        assert out.labels is scene.labels
    rays = Rays(torch.zeros(1, 3), torch.eye(3)[:1], torch.zeros(1), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="box has rays, which cannot be bent along"):
        ALWAYS(replace(scene, rays=rays), keyed.generator(1))


def test_the_noise_around_points_is_that_of_the_whole_lattice(monkeypatch):
    """With the same numbers at the nodes, up to the edges of the lattice and over several lots of cells."""
    monkeypatch.setattr(elastic, "_CELLS", 100)
    xyz = torch.rand(700, 3) * torch.tensor([3.1, 0.15, 1.3]) - 1
    grid = noise_grid(torch.stack([xyz.amin(0), xyz.amax(0)]), 0.2)
    white = torch.randn(3, *grid.shape, generator=keyed.generator(4)).flatten(1).T
    at = corners(grid, xyz, torch.zeros(700, dtype=torch.int64))
    rows, own = noise_around(at, grid, 0.4, lambda nodes: white[nodes.clamp(0, len(white) - 1)])
    expected = smooth_noise(grid, 0.4, keyed.generator(4)).feats.flatten(0, 3)
    torch.testing.assert_close(rows[own.index], expected[at.index], atol=1e-6, rtol=1e-5)
    assert len(rows) % 8 == 0 and len(rows) < 8 * 700 and own.weight is at.weight


def test_numbers_of_nodes_are_normal_and_their_own():
    nodes = torch.arange(200_000).view(2, -1) + (1 << 40)
    noise = node_noise(7, nodes)
    flat = noise.flatten(0, 1)
    torch.testing.assert_close(flat.mean(0), torch.zeros(3), atol=0.01, rtol=0)
    torch.testing.assert_close(flat.T.cov(), torch.eye(3), atol=0.015, rtol=0)
    assert float((flat.abs() < 1).float().mean()) == pytest.approx(0.6827, abs=0.003)
    assert float((flat[1:] * flat[:-1]).mean().abs()) < 0.01, "neighbours have nothing to do with each other"
    assert torch.equal(node_noise(7, nodes[1, 5:9]), noise[1, 5:9])
    assert not bool((node_noise(8, nodes[1, 5:9]) == noise[1, 5:9]).any())


def test_a_stray_point_costs_nothing():
    """2 km at 0.2 m are 10^12 nodes; displacements are as large as in a room."""
    xyz = torch.cat([torch.rand(2000, 3) * torch.tensor([4.0, 4, 0.5]), torch.tensor([[2000.0, 2000, 2000]])])
    normal = torch.tensor([0.0, 0, 1]).repeat(len(xyz), 1)
    out = ALWAYS(a_scene(xyz, normal), keyed.generator(3))
    assert torch.equal(out.xyz, ALWAYS(a_scene(xyz, normal), keyed.generator(3)).xyz)
    assert not torch.equal(out.xyz, ALWAYS(a_scene(xyz, normal), keyed.generator(4)).xyz)
    torch.testing.assert_close(out.normal.norm(dim=1), torch.ones(len(xyz)))
    apart = torch.rand(600, 3) * 400
    moved = ALWAYS(a_scene(apart), keyed.generator(3)).xyz - apart
    assert float(moved.std()) == pytest.approx(0.11 * (0.4**2 + 1.6**2) ** 0.5, rel=0.08)
    # A point moves smoothly with its neighbours here too.
    near = xyz[:200] + 1e-3
    moved = ALWAYS(a_scene(torch.cat([xyz, near])), keyed.generator(3)).xyz
    shift = (moved[len(xyz) :] - near) - (moved[:200] - xyz[:200])
    assert float(shift.abs().max()) < 0.01


def test_what_is_too_far_is_named():
    far = torch.tensor([[0.0, 0, 0], [1e9, 1e9, 1e9]])
    with pytest.raises(DataError, match=r"box reaches out to 1e\+09 m, too far for noise every 0.2 m; remove stray"):
        ALWAYS(a_scene(far), keyed.generator(1))
    for bad in (torch.nan, torch.inf):
        with pytest.raises(DataError, match="ElasticDistortion: a coordinate is not finite"):
            ALWAYS(a_scene(torch.tensor([[0.0, 0, 0], [bad, 1, 1]])), keyed.generator(1))


def test_spacings_are_positive():
    with pytest.raises(ValueError, match="spacings must be positive"):
        ElasticDistortion(((0.0, 1.0),))
