"""What drives have to satisfy, whatever their layout. Each check says which file, which field and what to do.

What makes a scene unusable raises ``DataError``; what it can do without (a box without a size, an earlier sweep without
points, points that are not finite) is left out and told, for ``Scene.skipped``.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.drive import Shot, Sweep
from ponder3d.types import Boxes

MAX_SKEW = 1e-3
"""How far a rotation may be from orthonormal: poses of six digits are within 1e-5."""


def rigid(matrix: np.ndarray | Tensor, where: str, field: str) -> Float[Tensor, "4 4"]:
    """A pose as float64, its rotation made orthonormal to the last digit: maps reach to 1e6 m, where rounding counts.

    Args:
        matrix: 4x4, or its upper three rows.
        where: the file, for messages.
        field: what it is, for messages.

    Raises:
        DataError: another shape, not finite, a last row that is not 0 0 0 1, or no rotation.
    """
    pose = np.asarray(matrix, dtype=np.float64)
    if pose.shape == (3, 4):
        pose = np.concatenate([pose, [[0.0, 0.0, 0.0, 1.0]]])
    if pose.shape != (4, 4):
        raise DataError(f"{where}: {field}: of shape {pose.shape}; expected a 4x4 matrix")
    if not np.isfinite(pose).all():
        raise DataError(f"{where}: {field}: a number is not finite")
    if not np.allclose(pose[3], [0, 0, 0, 1], rtol=0, atol=1e-6):
        raise DataError(f"{where}: {field}: its last row is {pose[3].tolist()}, not 0 0 0 1; is it transposed?")
    turn = pose[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        skew = np.abs(turn @ turn.T - np.eye(3)).max()
    if not skew <= MAX_SKEW:
        raise DataError(
            f"{where}: {field}: no rotation: R R^T is {skew:.3g} off the identity, {MAX_SKEW:g} is allowed; give a "
            "pose without scale or shear"
        )
    if np.linalg.det(turn) < 0:
        raise DataError(f"{where}: {field}: it mirrors (determinant -1); frames are right-handed, so flip one axis")
    left, _, right = np.linalg.svd(turn)
    pose = pose.copy()
    pose[:3, :3] = left @ right
    return torch.from_numpy(pose)


def rotation_of(quaternion: Sequence[float], where: str, field: str) -> np.ndarray:
    """[3 3] float64 of a quaternion w x y z.

    Raises:
        DataError: it has not four finite numbers, or its length is not 1 within 1e-3.
    """
    q = np.asarray(quaternion, dtype=np.float64)
    length = float(np.sqrt((q * q).sum())) if q.shape == (4,) and np.isfinite(q).all() else math.nan
    if not abs(length - 1) <= MAX_SKEW:
        raise DataError(f"{where}: {field}: {q.tolist()} is no unit quaternion w x y z, its length is {length:.4g}")
    w, x, y, z = q / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def check_pinhole(matrix: np.ndarray | Tensor, size: tuple[int, int], where: str) -> None:
    """Whether a matrix is a pinhole camera of an image of (height, width).

    Raises:
        DataError: it is not.
    """
    k = np.asarray(matrix, dtype=np.float64)
    if k.shape != (3, 3) or not np.isfinite(k).all():
        raise DataError(f"{where}: intrinsics: of shape {k.shape}, or not finite; expected a 3x3 matrix")
    if not (k[0, 0] > 0 and k[1, 1] > 0 and k[1, 0] == 0 and k[2].tolist() == [0, 0, 1]):
        raise DataError(f"{where}: intrinsics: {k.tolist()} is no [[fx s cx] [0 fy cy] [0 0 1]] with positive fx, fy")
    if not (-0.5 * size[1] < k[0, 2] < 1.5 * size[1] and -0.5 * size[0] < k[1, 2] < 1.5 * size[0]):
        raise DataError(
            f"{where}: intrinsics: the centre ({k[0, 2]:.4g}, {k[1, 2]:.4g}) is far outside an image of "
            f"{size[1]}x{size[0]}; are they for another image size?"
        )


def check_times(seconds: Sequence[float], where: str) -> None:
    """Whether instants are finite and each is later than the one before.

    Raises:
        DataError: they are not.
    """
    times = np.asarray(seconds, dtype=np.float64)
    if not np.isfinite(times).all():
        raise DataError(f"{where}: timestamps: number {int((~np.isfinite(times)).argmax())} is not finite")
    late = np.diff(times) <= 0
    if late.any():
        at = int(late.argmax())
        raise DataError(
            f"{where}: timestamps: out of order: number {at + 1} ({times[at + 1]:.6f} s) is not after number {at} "
            f"({times[at]:.6f} s); sort the frames by time"
        )


def checked_sweep(sweep: Sweep, num_classes: int) -> tuple[Sweep, tuple[str, ...]]:
    """A sweep without the points whose coordinates are not finite (lasers write those for no echo), and notes on that.

    Raises:
        DataError: columns of different lengths, an intensity outside [0, 1], a label that is no class, no pose.
    """
    num = len(sweep.xyz)
    columns = {"intensity": sweep.intensity, "labels": sweep.labels}
    for name, column in columns.items():
        if column is not None and column.shape != (num,):
            raise DataError(f"{sweep.source}: {name}: of shape {tuple(column.shape)} for {num} points")
    if not math.isfinite(sweep.seconds):
        raise DataError(f"{sweep.source}: timestamps: {sweep.seconds} is not finite")
    pose = rigid(sweep.world_from_sensor, sweep.source, "world_from_sensor")
    notes: tuple[str, ...] = ()
    finite = sweep.xyz.isfinite().all(1)
    if not bool(finite.all()):
        notes = (f"{sweep.source}: xyz: {int((~finite).sum())} of {num} points are not finite and left out",)
        sweep = _rows(sweep, finite)
    if len(sweep.xyz):
        low, high = (float(end) for end in sweep.intensity.aminmax())
        if not 0 <= low <= high <= 1:
            raise DataError(
                f"{sweep.source}: intensity: from {low:g} to {high:g}; it has to be in [0, 1]: divide it by the "
                "largest possible value"
            )
        if sweep.labels is not None:
            first, last = (int(end) for end in sweep.labels.aminmax())
            if first < -1 or last >= num_classes:
                raise DataError(f"{sweep.source}: labels: from {first} to {last}; there are {num_classes} classes")
    return replace(sweep, world_from_sensor=pose), notes


def _rows(sweep: Sweep, keep: Bool[Tensor, " N"]) -> Sweep:
    labels = None if sweep.labels is None else sweep.labels[keep]
    return replace(sweep, xyz=sweep.xyz[keep], intensity=sweep.intensity[keep], labels=labels)


def checked_shot(shot: Shot, where: str) -> Shot:
    """An image whose camera is one; its pose made orthonormal to the last digit.

    Raises:
        DataError: the image is empty, or its camera is none.
    """
    name = f"{where}: {shot.name}"
    size = (shot.rgb.shape[0], shot.rgb.shape[1])
    if min(size) < 1:
        raise DataError(f"{name}: an image of {size[1]}x{size[0]}")
    check_pinhole(shot.intrinsics, size, name)
    return Shot(shot.rgb, shot.intrinsics, rigid(shot.world_from_cam, name, "world_from_cam"), shot.name)


def usable_boxes(boxes: Boxes, where: str, num_classes: int) -> tuple[Boxes, tuple[str, ...]]:
    """The boxes that have a place, a size and a class, and notes on the others. A velocity that is not known, NaN, is
    allowed and stays NaN.

    Raises:
        DataError: a class that there is not.
    """
    if len(boxes.label) and not 0 <= int(boxes.label.min()) <= int(boxes.label.max()) < num_classes:
        low, high = int(boxes.label.min()), int(boxes.label.max())
        raise DataError(f"{where}: boxes: classes from {low} to {high}; there are {num_classes}")
    placed = torch.cat([boxes.centre, boxes.size, boxes.yaw[:, None]], dim=1).isfinite().all(1)
    moving = torch.ones_like(placed) if boxes.velocity is None else ~boxes.velocity.isinf().any(1)
    sized = (boxes.size > 0).all(1)
    notes = []
    for box in (~(placed & moving & sized)).nonzero()[:, 0].tolist():
        if bool(placed[box] & moving[box]):
            why = f"size {boxes.size[box].tolist()}"
        else:
            why = "a number is not finite"
        notes.append(f"{where}: boxes: number {box} is left out: {why}")
    keep = placed & moving & sized
    kept = Boxes(
        centre=boxes.centre[keep],
        size=boxes.size[keep],
        yaw=boxes.yaw[keep],
        label=boxes.label[keep],
        score=None if boxes.score is None else boxes.score[keep],
        velocity=None if boxes.velocity is None else boxes.velocity[keep],
    )
    return kept, tuple(notes)
