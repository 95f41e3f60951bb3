import math

import pytest
import torch

from ponder3d.geometry import cameras as cam
from ponder3d.types import Cameras


def one_camera(pose=None, size=(80, 100)) -> Cameras:
    intrinsics = torch.tensor([[[100.0, 0, 50], [0, 100, 40], [0, 0, 1]]])
    return Cameras(intrinsics, torch.eye(4)[None] if pose is None else pose[None], size)


def random_cameras(num=5, mirrored=False) -> Cameras:
    rotation = torch.linalg.qr(torch.randn(num, 3, 3)).Q
    sign = -1.0 if mirrored else 1.0
    rotation[:, :, 0] *= (sign * torch.linalg.det(rotation))[:, None]
    pose = torch.eye(4).repeat(num, 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = rotation, torch.randn(num, 3)
    intrinsics = torch.tensor([[120.0, 0, 61], [0, 110, 43], [0, 0, 1]]).repeat(num, 1, 1)
    return Cameras(intrinsics, pose, (90, 120))


VIEW0 = torch.tensor([0])


def test_project_by_hand():
    uv, depth = cam.project(one_camera(), torch.tensor([[1.0, 2.0, 4.0]]), VIEW0)
    assert uv.tolist() == [[75.0, 90.0]]
    assert depth.tolist() == [4.0]


def test_project_with_a_pose_by_hand():
    # The camera sits at (10, 0, 0) and looks along world +y: its z axis is world y, its x axis world x, its y axis -z.
    pose = torch.tensor([[1.0, 0, 0, 10], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    uv, depth = cam.project(one_camera(pose), torch.tensor([[11.0, 5.0, 2.0]]), VIEW0)
    assert depth.tolist() == [5.0]
    torch.testing.assert_close(uv, torch.tensor([[50 + 100 / 5, 40 - 200 / 5]]))


def test_points_behind_the_camera_have_negative_depth():
    _, depth = cam.project(one_camera(), torch.tensor([[0.0, 0.0, -3.0]]), VIEW0)
    assert depth.tolist() == [-3.0]


@pytest.mark.parametrize("mirrored", [False, True])
def test_unproject_inverts_project(mirrored):
    cameras = random_cameras(mirrored=mirrored)
    view = torch.arange(5).repeat_interleave(20)
    uv, depth = torch.rand(100, 2) * 80, torch.rand(100) * 5 + 0.5
    xyz = cam.unproject(cameras, uv, depth, view)
    again, depth_again = cam.project(cameras, xyz, view)
    torch.testing.assert_close(again, uv, atol=1e-3, rtol=0)
    torch.testing.assert_close(depth_again, depth)


@pytest.mark.parametrize("mirrored", [False, True])
def test_rays_hit_the_points_of_their_pixels(mirrored):
    cameras = random_cameras(mirrored=mirrored)
    view = torch.arange(5).repeat_interleave(20)
    uv, depth = torch.rand(100, 2) * 80, torch.rand(100) * 5 + 0.5
    origins, directions = cam.pixel_rays(cameras, uv, view)
    t = cam.t_from_depth(cameras, uv, depth, view)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(100))
    torch.testing.assert_close(origins + t[:, None] * directions, cam.unproject(cameras, uv, depth, view))
    torch.testing.assert_close(cam.depth_from_t(cameras, uv, t, view), depth)


def test_plane_depth_and_ray_distance_by_hand():
    # At 45 degrees the ray is sqrt(2) times as long as the plane depth; no depth stays none.
    uv = torch.tensor([[150.0, 40.0], [50.0, 40.0], [150.0, 40.0]])
    t = cam.t_from_depth(one_camera(), uv, torch.tensor([2.0, 2.0, 0.0]), torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(t, torch.tensor([2 * math.sqrt(2), 2.0, 0.0]))


def test_pixel_grid_is_row_major():
    assert cam.pixel_grid((2, 3)).tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


def test_select_cameras():
    cameras = random_cameras()
    picked = cam.select_cameras(cameras, torch.tensor([3, 1]))
    assert torch.equal(picked.world_from_cam, cameras.world_from_cam[[3, 1]])


def test_normals_of_a_slanted_plane():
    cameras = one_camera()
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, -1.0]), dim=0)
    rays = (
        torch.nn.functional.pad(cam.pixel_grid(cameras.size), (0, 1), value=1.0)
        @ torch.linalg.inv(cameras.intrinsics[0]).T
    )
    depth = ((normal @ torch.tensor([0.0, 0.0, 3.0])) / (rays @ normal)).view(1, *cameras.size)
    found = cam.normals_from_depth(depth, cameras.intrinsics)
    torch.testing.assert_close(found[0, 1:-1, 1:-1], normal.expand(78, 98, 3), atol=2e-3, rtol=0)
    assert float(found[0, 0].abs().max()) == 0  # the border has no neighbours


def test_no_normals_at_holes_and_edges():
    depth = torch.full((1, 20, 20), 2.0)
    depth[0, 10, 10] = 0
    depth[0, :, 15:] = 4.0
    found = cam.normals_from_depth(depth, one_camera().intrinsics).norm(dim=-1)[0]
    assert float(found[10, 10]) == 0 and float(found[10, 11]) == 0
    assert float(found[5, 14]) == 0 and float(found[5, 15]) == 0
    assert float(found[5, 5]) == pytest.approx(1)
