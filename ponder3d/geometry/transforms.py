"""Similarity transforms: rotation, mirroring, uniform scale and shift, applied to everything a scene holds.

Convention: a transform maps the old world to the new one, ``x_new = scale * rotation @ x_old + translation``. Camera
poses stay orthonormal: a scaled scene has scaled depth, not a scaled pose.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.types import Boxes, Cameras, Rays, Scene, Views


@dataclass(frozen=True)
class Similarity:
    """``x_new = scale * rotation @ x_old + translation``. ``rotation`` is orthonormal; a mirror has determinant -1."""

    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]
    scale: float = 1.0


def rotation_about(axis: str, angle: float) -> Float[Tensor, "3 3"]:
    """Rotation by ``angle`` radians about a coordinate axis; positive turns the next axis towards the one after it."""
    i = "xyz".index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix = torch.eye(3)
    matrix[j, j] = matrix[k, k] = math.cos(angle)
    matrix[k, j] = math.sin(angle)
    matrix[j, k] = -math.sin(angle)
    return matrix


def rotation_between(start: Float[Tensor, "3"], end: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The smallest rotation that takes the direction ``start`` to the direction ``end``.

    Raises:
        ValueError: one of the vectors has no direction.
    """
    if not (start.norm() > 0 and end.norm() > 0):
        raise ValueError("rotation_between: a zero vector has no direction")
    a, b = start.double() / start.double().norm(), end.double() / end.double().norm()
    cross, cos = torch.linalg.cross(a, b), a @ b
    if cos < -1 + 1e-12:  # opposite directions: half a turn about any perpendicular axis
        perpendicular = torch.eye(3, dtype=torch.float64)[a.abs().argmin()]
        axis = torch.linalg.cross(a, perpendicular)
        axis = axis / axis.norm()
        return (2 * torch.outer(axis, axis) - torch.eye(3, dtype=torch.float64)).to(start.dtype)
    skew = torch.zeros(3, 3, dtype=torch.float64)
    skew[0, 1], skew[0, 2], skew[1, 2] = -cross[2], cross[1], -cross[0]
    skew = skew - skew.T
    return (torch.eye(3, dtype=torch.float64) + skew + skew @ skew / (1 + cos)).to(start.dtype)


def inverse(transform: Similarity) -> Similarity:
    """The transform from the new world back to the old one."""
    rotation = transform.rotation.T
    return Similarity(rotation, -(rotation @ transform.translation) / transform.scale, 1 / transform.scale)


def compose(second: Similarity, first: Similarity) -> Similarity:
    """The transform that applies ``first`` and then ``second``."""
    shift = second.scale * (second.rotation @ first.translation) + second.translation
    return Similarity(second.rotation @ first.rotation, shift, second.scale * first.scale)


def transform_points(transform: Similarity, xyz: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Points of the old world in the new one."""
    return transform.scale * _turned(transform.rotation, xyz) + transform.translation


def transform_directions(transform: Similarity, directions: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Unit vectors (ray directions, normals) of the old world in the new one; they stay unit vectors."""
    return _turned(transform.rotation, directions)


def _turned(rotation: Float[Tensor, "3 3"], vectors: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """``vectors @ rotation.T``; where axes are at most mirrored, as exact in a fifth of the time."""
    signs = rotation.diagonal()
    # On a GPU looking at it would make the host wait.
    if rotation.device.type == "cpu" and torch.equal(rotation, torch.diag(signs)):
        return vectors * signs
    return vectors @ rotation.T


def transform_cameras(transform: Similarity, cameras: Cameras) -> Cameras:
    """The same cameras in the new world. Depth seen by them grows by ``transform.scale``."""
    pose = cameras.world_from_cam.clone()
    pose[:, :3, :3] = transform.rotation @ cameras.world_from_cam[:, :3, :3]
    pose[:, :3, 3] = transform_points(transform, cameras.world_from_cam[:, :3, 3])
    return replace(cameras, world_from_cam=pose)


def transform_boxes(transform: Similarity, boxes: Boxes) -> Boxes:
    """Upright boxes in the new world. Exact for transforms that keep z vertical; a small tilt is ignored in the yaw."""
    heading = torch.stack([boxes.yaw.cos(), boxes.yaw.sin(), torch.zeros_like(boxes.yaw)], dim=1)
    heading = transform_directions(transform, heading)
    velocity = boxes.velocity
    if velocity is not None:
        padded = torch.cat([velocity, velocity.new_zeros(len(velocity), 1)], dim=1)
        velocity = transform.scale * transform_directions(transform, padded)[:, :2]
    return replace(
        boxes,
        centre=transform_points(transform, boxes.centre),
        size=boxes.size * transform.scale,
        yaw=torch.atan2(heading[:, 1], heading[:, 0]),
        velocity=velocity,
    )


def transform_scene(transform: Similarity, scene: Scene) -> Scene:
    """Move a whole scene: points, normals, cameras and their depth, rays and their targets, boxes."""
    views, rays, targets = scene.views, scene.rays, scene.targets
    if views is not None:
        views = _transform_views(transform, views)
    if rays is not None:
        rays = _transform_rays(transform, rays)
    if targets is not None and targets.t is not None:
        targets = replace(targets, t=targets.t * transform.scale)
    return replace(
        scene,
        xyz=transform_points(transform, scene.xyz),
        normal=None if scene.normal is None else transform_directions(transform, scene.normal),
        views=views,
        images=None if scene.images is None else _transform_views(transform, scene.images),
        rays=rays,
        targets=targets,
        boxes=None if scene.boxes is None else transform_boxes(transform, scene.boxes),
        bounds=None if scene.bounds is None else _transform_bounds(transform, scene.bounds),
    )


def _transform_bounds(transform: Similarity, bounds: Float[Tensor, "2 3"]) -> Float[Tensor, "2 3"]:
    """The axis-aligned box around the eight moved corners."""
    corners = torch.cartesian_prod(*bounds.T)
    moved = transform_points(transform, corners)
    return torch.stack([moved.amin(0), moved.amax(0)])


def _transform_views(transform: Similarity, views: Views) -> Views:
    cameras = transform_cameras(transform, views.cameras)
    # Scaling by exactly 1 is common (rotations, flips) and the depth images are the largest thing in a scene.
    keep = views.depth is None or transform.scale == 1.0
    return replace(views, cameras=cameras, depth=views.depth if keep else views.depth * transform.scale)  # type: ignore[operator]


def _transform_rays(transform: Similarity, rays: Rays) -> Rays:
    return replace(
        rays,
        origins=transform_points(transform, rays.origins),
        directions=transform_directions(transform, rays.directions),
        near=rays.near * transform.scale,
        far=rays.far * transform.scale,
    )
