import math

import pytest
import torch

from ponder3d.geometry import transforms as tf
from ponder3d.geometry.boxes import box_corners
from ponder3d.geometry.cameras import pixel_rays, project, t_from_depth
from ponder3d.types import Boxes, Cameras, Rays, RayTargets, Scene, Views


def a_scene() -> Scene:
    rotation = torch.linalg.qr(torch.randn(3, 3, 3)).Q
    pose = torch.eye(4).repeat(3, 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = rotation, torch.randn(3, 3)
    intrinsics = torch.tensor([[50.0, 0, 20], [0, 50, 15], [0, 0, 1]]).repeat(3, 1, 1)
    cameras = Cameras(intrinsics, pose, (30, 40))
    views = Views(
        cameras=cameras,
        rgb=torch.zeros(3, 30, 40, 3, dtype=torch.uint8),
        depth=torch.rand(3, 30, 40) + 1,
        labels=None,
        counts=torch.tensor([3]),
    )
    view = torch.arange(3).repeat_interleave(4)
    uv, depth = torch.rand(12, 2) * 30, torch.rand(12) + 1
    origins, directions = pixel_rays(cameras, uv, view)
    rays = Rays(origins, directions, torch.full((12,), 0.1), torch.full((12,), 9.0), torch.zeros(12, dtype=torch.int64))
    targets = RayTargets(rgb=torch.rand(12, 3), t=t_from_depth(cameras, uv, depth, view))
    boxes = Boxes(
        torch.randn(4, 3), torch.rand(4, 3) + 0.1, torch.rand(4) * 6 - 3, torch.arange(4), velocity=torch.randn(4, 2)
    )
    xyz = torch.randn(50, 3)
    return Scene(
        xyz=xyz,
        rgb=torch.rand(50, 3),
        normal=torch.nn.functional.normalize(torch.randn(50, 3), dim=1),
        source="test",
        views=views,
        rays=rays,
        targets=targets,
        boxes=boxes,
        bounds=torch.stack([xyz.amin(0), xyz.amax(0)]),
    )


UPRIGHT = [
    tf.Similarity(tf.rotation_about("z", 0.7), torch.tensor([1.0, -2.0, 0.5])),
    tf.Similarity(torch.diag(torch.tensor([-1.0, 1.0, 1.0])), torch.zeros(3)),
    tf.Similarity(torch.diag(torch.tensor([1.0, -1.0, 1.0])) @ tf.rotation_about("z", 2.0), torch.ones(3), 1.3),
    tf.Similarity(torch.eye(3), torch.zeros(3), 0.8),
]


@pytest.mark.parametrize(("axis", "start", "end"), [("z", (1, 0, 0), (0, 1, 0)), ("x", (0, 1, 0), (0, 0, 1))])
def test_rotation_sense(axis, start, end):
    turned = tf.rotation_about(axis, math.pi / 2) @ torch.tensor(start, dtype=torch.float32)
    torch.testing.assert_close(turned, torch.tensor(end, dtype=torch.float32), atol=1e-6, rtol=0)


@pytest.mark.parametrize("transform", UPRIGHT)
def test_cameras_see_the_same_pixels(transform):
    scene = a_scene()
    moved = tf.transform_scene(transform, scene)
    assert scene.views is not None and moved.views is not None
    view = torch.arange(50) % 3
    uv, depth = project(scene.views.cameras, scene.xyz, view)
    uv_moved, depth_moved = project(moved.views.cameras, moved.xyz, view)
    front = depth > 0.05
    torch.testing.assert_close(uv_moved[front], uv[front], atol=2e-2, rtol=1e-4)
    torch.testing.assert_close(depth_moved, depth * transform.scale, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moved.views.depth, scene.views.depth * transform.scale)
    # The pose stays orthonormal, with the mirror in its determinant.
    block = moved.views.cameras.world_from_cam[:, :3, :3]
    torch.testing.assert_close(block @ block.mT, torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)
    expected = torch.linalg.det(transform.rotation) * torch.linalg.det(scene.views.cameras.world_from_cam[:, :3, :3])
    torch.testing.assert_close(torch.linalg.det(block), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("transform", UPRIGHT)
def test_rays_end_at_the_moved_points(transform):
    scene = a_scene()
    moved = tf.transform_scene(transform, scene)
    ends = [s.rays.origins + s.targets.t[:, None] * s.rays.directions for s in (scene, moved)]
    torch.testing.assert_close(tf.transform_points(transform, ends[0]), ends[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moved.rays.far, scene.rays.far * transform.scale)


@pytest.mark.parametrize("transform", UPRIGHT)
def test_boxes_and_bounds_move_with_their_corners(transform):
    scene = a_scene()
    moved = tf.transform_scene(transform, scene)
    corners = tf.transform_points(transform, box_corners(scene.boxes).view(-1, 3)).view(-1, 8, 3)
    found = box_corners(moved.boxes)
    # As sets: a mirror renames the corners.
    gap = torch.cdist(found, corners).amin(2)
    assert float(gap.max()) < 1e-5
    assert bool((moved.bounds[0] <= moved.xyz.amin(0) + 1e-5).all())
    assert bool((moved.bounds[1] >= moved.xyz.amax(0) - 1e-5).all())


def test_velocity_turns_and_scales():
    boxes = Boxes(
        torch.zeros(1, 3),
        torch.ones(1, 3),
        torch.zeros(1),
        torch.zeros(1, dtype=torch.int64),
        velocity=torch.tensor([[1.0, 0.0]]),
    )
    turn = tf.Similarity(tf.rotation_about("z", math.pi / 2), torch.ones(3), 2.0)
    moved = tf.transform_boxes(turn, boxes)
    torch.testing.assert_close(moved.velocity, torch.tensor([[0.0, 2.0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(moved.yaw, torch.tensor([math.pi / 2]))


def test_inverse_and_compose():
    a, b = UPRIGHT[2], UPRIGHT[0]
    xyz = torch.randn(20, 3)
    back = tf.transform_points(tf.inverse(a), tf.transform_points(a, xyz))
    torch.testing.assert_close(back, xyz, atol=1e-5, rtol=0)
    both = tf.transform_points(tf.compose(b, a), xyz)
    torch.testing.assert_close(both, tf.transform_points(b, tf.transform_points(a, xyz)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("end", [(0, 0, 1), (1, 0, 0), (-1, 2, 0.5), (0, 0, -1)])
def test_rotation_between(end):
    start, end = torch.tensor([0.0, 0.0, 1.0]), torch.tensor(end, dtype=torch.float32)
    rotation = tf.rotation_between(start, end)
    torch.testing.assert_close(rotation @ start, end / end.norm(), atol=1e-6, rtol=0)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1, abs=1e-5)


def test_rotation_between_needs_directions():
    with pytest.raises(ValueError, match="zero vector"):
        tf.rotation_between(torch.zeros(3), torch.ones(3))
