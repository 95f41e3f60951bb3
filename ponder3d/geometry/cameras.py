"""Pinhole cameras: projection, rays, plane depth and ray distance.

Convention for all functions: OpenCV camera axes (x right, y down, z forward); ``uv`` are pixels with integer
coordinates at pixel centres, u to the right; ``depth`` is along the camera's z axis, ``t`` along the unit ray, both in
metres. Row ``i`` of ``uv``, ``depth`` or ``xyz`` belongs to camera ``view[i]``.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.types import Cameras


def project(
    cameras: Cameras, xyz: Float[Tensor, "N 3"], view: Int[Tensor, " N"]
) -> tuple[Float[Tensor, "N 2"], Float[Tensor, " N"]]:
    """World points to pixels and plane depth. With depth <= 0 a point is behind the camera, its pixel means nothing."""
    pose = cameras.world_from_cam[view]
    # R^T (x - c): the pose block is orthonormal, so its inverse is its transpose (also for a mirrored pose).
    in_cam = torch.einsum("nij,ni->nj", pose[:, :3, :3], xyz - pose[:, :3, 3])
    homogeneous = torch.einsum("nij,nj->ni", cameras.intrinsics[view], in_cam)
    return homogeneous[:, :2] / homogeneous[:, 2:], in_cam[:, 2]


def project_to_all(
    cameras: Cameras, xyz: Float[Tensor, "B N 3"]
) -> tuple[Float[Tensor, "B N V 2"], Float[Tensor, "B N V"]]:
    """``project`` of every point of a scene to every camera of it; as many cameras of each scene, one after another."""
    pose = cameras.world_from_cam.unflatten(0, (len(xyz), -1))
    intrinsics = cameras.intrinsics.unflatten(0, (len(xyz), -1))
    from_centre = xyz[:, :, None] - pose[:, None, :, :3, 3]
    in_cam = torch.einsum("bvij,bnvi->bnvj", pose[..., :3, :3], from_centre)
    homogeneous = torch.einsum("bvij,bnvj->bnvi", intrinsics, in_cam)
    return homogeneous[..., :2] / homogeneous[..., 2:], in_cam[..., 2]


def unproject(
    cameras: Cameras, uv: Float[Tensor, "N 2"], depth: Float[Tensor, " N"], view: Int[Tensor, " N"]
) -> Float[Tensor, "N 3"]:
    """Pixels with plane depth to world points; the inverse of ``project``."""
    pose = cameras.world_from_cam[view]
    in_cam = _plane_directions(cameras, uv, view) * depth[:, None]
    return torch.einsum("nij,nj->ni", pose[:, :3, :3], in_cam) + pose[:, :3, 3]


def pixel_rays(
    cameras: Cameras, uv: Float[Tensor, "N 2"], view: Int[Tensor, " N"]
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
    """Origins and unit directions, in the world frame, of the rays through pixels."""
    pose = cameras.world_from_cam[view]
    in_cam = F.normalize(_plane_directions(cameras, uv, view), dim=1)
    return pose[:, :3, 3], torch.einsum("nij,nj->ni", pose[:, :3, :3], in_cam)


def t_from_depth(
    cameras: Cameras, uv: Float[Tensor, "N 2"], depth: Float[Tensor, " N"], view: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Plane depth to distance along the unit ray; 0 (no depth) stays 0."""
    return depth * _plane_directions(cameras, uv, view).norm(dim=1)


def depth_from_t(
    cameras: Cameras, uv: Float[Tensor, "N 2"], t: Float[Tensor, " N"], view: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Distance along the unit ray to plane depth; the inverse of ``t_from_depth``."""
    return t / _plane_directions(cameras, uv, view).norm(dim=1)


def pixel_grid(size: tuple[int, int], device: torch.device | None = None) -> Float[Tensor, "HW 2"]:
    """The (u, v) of every pixel of an image of (height, width), row by row."""
    v, u = torch.meshgrid(
        torch.arange(size[0], dtype=torch.float32, device=device),
        torch.arange(size[1], dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack([u, v], dim=-1).reshape(-1, 2)


def select_cameras(cameras: Cameras, views: Int[Tensor, " K"]) -> Cameras:
    """The cameras of some of the views."""
    return replace(cameras, intrinsics=cameras.intrinsics[views], world_from_cam=cameras.world_from_cam[views])


def normals_from_depth(
    depth: Float[Tensor, "V H W"], intrinsics: Float[Tensor, "V 3 3"], max_slope: float = 0.2
) -> Float[Tensor, "V H W 3"]:
    """Unit normals, in camera axes and facing the camera, from central differences of the back-projected depth.

    Args:
        depth: plane depth in metres, 0 for none.
        intrinsics: pinhole matrices.
        max_slope: a pixel whose neighbours differ from it in depth by more than this share of its own depth lies on a
            depth edge and gets no normal.

    Returns:
        Normals; zero where a neighbour is missing or across a depth edge.
    """
    num_views, height, width = depth.shape
    uv1 = F.pad(pixel_grid((height, width), depth.device), (0, 1), value=1.0)
    directions = torch.einsum("vij,nj->vni", torch.linalg.inv(intrinsics), uv1)
    xyz = (directions * depth.reshape(num_views, -1, 1)).reshape(num_views, height, width, 3)
    right, left = xyz[:, 1:-1, 2:], xyz[:, 1:-1, :-2]
    down, up = xyz[:, 2:, 1:-1], xyz[:, :-2, 1:-1]
    normal = torch.linalg.cross(down - up, right - left, dim=-1)
    centre = depth[:, 1:-1, 1:-1]
    spread = torch.stack([(n[..., 2] - centre).abs() for n in (right, left, down, up)]).amax(0)
    present = torch.stack([n[..., 2] > 0 for n in (right, left, down, up)]).all(0) & (centre > 0)
    keep = present & (spread <= max_slope * centre)
    normal = F.normalize(normal, dim=-1) * keep[..., None]
    return F.pad(normal, (0, 0, 1, 1, 1, 1))


def _plane_directions(cameras: Cameras, uv: Float[Tensor, "N 2"], view: Int[Tensor, " N"]) -> Float[Tensor, "N 3"]:
    """K^-1 [u v 1]: the point at plane depth 1 that a pixel sees, in camera axes."""
    # Whether a matrix has no inverse is something that only its device knows: on a GPU nobody asks.
    inverse = torch.linalg.inv_ex(cameras.intrinsics, check_errors=uv.device.type == "cpu").inverse
    return torch.einsum("nij,nj->ni", inverse[view], F.pad(uv, (0, 1), value=1.0))
