"""What a frame and a cloud must satisfy to be prepared. The doctor looks closer (``data.doctor``)."""

import numpy as np

from ponder3d.data.raw.dataset import RawFrame, RawPoints

MIN_DEPTH_SHARE = 0.01
"""A frame with less depth than this says nothing."""
MAX_EXTENT = 2000.0
"""Metres; a cloud that is larger is in other units, or holds a stray point."""


def frame_problem(frame: RawFrame, known_ids: frozenset[int] | None) -> tuple[str, str] | None:
    """Kind and description of what makes a frame unusable; None if it is usable."""
    wrong = pose_problem(frame.world_from_cam) or intrinsics_problem(frame.intrinsics, frame.rgb.shape[:2])
    if wrong:
        return "pose", wrong
    if frame.rgb.ndim != 3 or frame.rgb.shape[2] != 3 or frame.rgb.dtype != np.uint8:
        return "colour", f"an image of shape {frame.rgb.shape} and type {frame.rgb.dtype}"
    for name, image in (("depth", frame.depth), ("label", frame.labels), ("label", frame.instances)):
        if image is not None and image.shape != frame.rgb.shape[:2]:
            return name, f"an image of {image.shape} beside colour of {frame.rgb.shape[:2]}"
    if frame.depth is not None:
        if not np.isfinite(frame.depth).all():
            return "depth", "a depth that is not finite"
        share = float((frame.depth > 0).mean())
        if share < MIN_DEPTH_SHARE:
            return "depth", f"only {share:.2%} of the pixels have a depth"
    if frame.labels is not None and (unknown := _unknown(frame.labels, known_ids)):
        return "label", unknown
    return None


def points_problem(points: RawPoints, known_ids: frozenset[int] | None) -> tuple[str, str] | None:
    """Kind and description of what makes a cloud unusable; None if it is usable."""
    num = len(points.xyz)
    if points.xyz.ndim != 2 or points.xyz.shape[1] != 3 or num == 0:
        return "points", f"coordinates of shape {points.xyz.shape}"
    finite = np.isfinite(points.xyz).all(1)
    if not finite.all():
        return "points", f"x, y or z of {int((~finite).sum())} points is not finite, first of point {finite.argmin()}"
    extent = float((points.xyz.max(0) - points.xyz.min(0)).max())
    if extent > MAX_EXTENT:
        return "points", f"it spans {extent:.6g} m: are its coordinates in metres, and is there no stray point?"
    for name in ("rgb", "normal", "labels", "instances"):
        column = getattr(points, name)
        if column is not None and len(column) != num:
            return "points", f"{len(column)} values of {name} for {num} points"
    if points.normal is not None and not np.isfinite(points.normal).all():
        return "points", "a normal that is not finite"
    if points.labels is not None and (unknown := _unknown(points.labels, known_ids)):
        return "label", unknown
    return None


def pose_problem(world_from_cam: np.ndarray) -> str | None:
    """Why a matrix is no pose, if it is none."""
    if world_from_cam.shape != (4, 4):
        return f"pose of {world_from_cam.size} numbers; it needs the 16 of a 4x4 matrix"
    if not np.isfinite(world_from_cam).all():
        return "pose is not finite"
    turn = world_from_cam[:3, :3]
    if not np.allclose(turn @ turn.T, np.eye(3), atol=0.02):
        sizes = np.linalg.norm(turn, axis=0)
        return f"pose is no rotation: its axes have lengths {', '.join(f'{s:.3g}' for s in sizes)} or are not square"
    if np.linalg.det(turn) < 0:
        return "pose mirrors: its determinant is -1"
    return None


def intrinsics_problem(matrix: np.ndarray, size: tuple[int, ...]) -> str | None:
    """Why a matrix is no pinhole camera of an image of (height, width), if it is none."""
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        return "intrinsics are not a 3x3 matrix with positive focal lengths"
    if not (-0.5 * size[1] < matrix[0, 2] < 1.5 * size[1] and -0.5 * size[0] < matrix[1, 2] < 1.5 * size[0]):
        return (
            f"intrinsics put the image centre at ({matrix[0, 2]:.4g}, {matrix[1, 2]:.4g}), far outside an image of "
            f"{size[1]}x{size[0]}: are they for another image size?"
        )
    return None


def _unknown(ids: np.ndarray, known: frozenset[int] | None) -> str | None:
    if known is None:
        return None
    found = sorted(set(np.unique(ids).tolist()) - known)
    shown = ", ".join(map(str, found[:5]))
    return f"label {shown}{' and more' if len(found) > 5 else ''}, which the dataset does not know" if found else None
