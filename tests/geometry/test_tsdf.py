import pytest
import torch

from ponder3d.geometry.cameras import pixel_grid, pixel_rays
from ponder3d.geometry.tsdf import cell_centres, fuse
from ponder3d.metrics.surface import tsdf_mesh
from ponder3d.types import Cameras, Grid, Views
from ponder3d.types.scene import to_device


def look_at_sphere(num_views=12, radius=0.5, distance=2.0) -> Views:
    """Exact depth of a sphere at the origin, seen from around it."""
    turn = torch.arange(num_views) / num_views * 2 * torch.pi
    centre = torch.stack([turn.cos(), turn.sin(), 0.4 * (-1.0) ** torch.arange(num_views)], dim=1) * distance
    forward = torch.nn.functional.normalize(-centre, dim=1)
    right = torch.nn.functional.normalize(
        torch.linalg.cross(forward, torch.tensor([0.0, 0, 1]).expand_as(forward)), dim=1
    )
    down = torch.linalg.cross(forward, right)
    pose = torch.eye(4).repeat(num_views, 1, 1)
    pose[:, :3, :3] = torch.stack([right, down, forward], dim=2)
    pose[:, :3, 3] = centre
    cameras = Cameras(
        torch.tensor([[100.0, 0, 49.5], [0, 100, 49.5], [0, 0, 1]]).repeat(num_views, 1, 1), pose, (100, 100)
    )
    uv = pixel_grid((100, 100)).repeat(num_views, 1)
    view = torch.arange(num_views).repeat_interleave(10000)
    origins, directions = pixel_rays(cameras, uv, view)
    b = (origins * directions).sum(1)
    root = b.square() - origins.square().sum(1) + radius**2
    t = torch.where(root > 0, -b - root.clamp(min=0).sqrt(), torch.zeros_like(b))
    depth = t * (directions * forward[view]).sum(1)
    return Views(
        cameras,
        torch.zeros(num_views, 100, 100, 3, dtype=torch.uint8),
        depth.view(-1, 100, 100),
        None,
        torch.tensor([num_views]),
    )


def test_sphere_is_recovered(device):
    grid = Grid(torch.tensor([[[-0.8, -0.8, -0.8], [0.8, 0.8, 0.8]]], device=device), (40, 40, 40))
    tsdf = fuse(to_device(look_at_sphere(), device), grid, truncation=0.16)
    mesh = tsdf_mesh(tsdf)
    error = (mesh.vertices.norm(dim=1) - 0.5).abs()
    assert float(error.mean()) < 0.01  # cells are 0.04 m
    assert len(mesh.vertices) > 1000
    centres = cell_centres(grid).norm(dim=1).view(grid.shape)
    assert bool((tsdf.sdf[(centres > 0.6) & (tsdf.weight > 0)] > 0).all())


def test_behind_the_surface_is_not_seen():
    grid = Grid(torch.tensor([[[-0.8, -0.8, -0.8], [0.8, 0.8, 0.8]]]), (20, 20, 20))
    tsdf = fuse(look_at_sphere(), grid, truncation=0.16)
    assert float(tsdf.weight[10, 10, 10]) == 0  # the centre is 0.5 m deep
    assert float(tsdf.sdf[10, 10, 10]) == pytest.approx(0.16)


def test_needs_depth():
    views = look_at_sphere(2)
    blind = Views(views.cameras, views.rgb, None, None, views.counts)
    with pytest.raises(ValueError, match="no depth"):
        fuse(blind, Grid(torch.tensor([[[-1.0, -1, -1], [1, 1, 1]]]), (4, 4, 4)), 0.1)
