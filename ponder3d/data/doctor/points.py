"""Checks of a scene's cloud, and of how its views see it."""

from collections.abc import Iterator, Sequence

import numpy as np

from ponder3d.data.doctor.findings import Fault
from ponder3d.data.doctor.sketch import Sketch
from ponder3d.data.raw.checks import MAX_EXTENT
from ponder3d.data.raw.dataset import RawPoints

EXTENTS = (0.3, 300.0)
"""Metres between which the larger side of a scene usually lies: shelf to hall. A thing on a table is smaller, and land
from the air is larger."""
TWICE = 0.15
"""Share of points at one place with another, from which it is worth a word: along its seams, a mesh that was made in
parts has some."""
_SAMPLE = 200_000
_SEEN = 400
"""Pixels of a view that are looked for in the cloud."""
_LEVEL = 0.9
"""Cosine from which a normal counts as upright."""


def point_faults(points: RawPoints, classes: frozenset[int]) -> Iterator[Fault]:
    """What is wrong with a cloud that ``points_problem`` finds usable.

    Args:
        points: of a scene.
        classes: raw ids that have a class; empty: all have.
    """
    xyz = points.xyz
    lo, hi = np.percentile(xyz[:: max(1, len(xyz) // _SAMPLE)], [1, 99], axis=0)
    core, full = float((hi - lo).max()), float((xyz.max(0) - xyz.min(0)).max())
    if not EXTENTS[0] <= core <= EXTENTS[1]:
        severity = "unusable" if core > MAX_EXTENT else "suspect"
        yield Fault("", "points", "extent", f"it is {core:.4g} m large: are its coordinates in metres?", severity)
    elif full > 5 * core:
        what = f"stray points: all span {full:.4g} m, the middle 98 % only {core:.4g} m"
        yield Fault("", "points", "stray", what, "suspect")
    twice = 1 - _num_different(xyz) / len(xyz)
    if twice > TWICE:
        yield Fault("", "points", "twice", f"{twice:.0%} of the points are there more than once", "suspect")
    if points.rgb is not None and len(xyz) >= 50:
        if int(points.rgb.max()) <= 1:
            what = f"its colours are all {'0' if not points.rgb.any() else 'at most 1: they go up to 255'}"
            yield Fault("", "colour", "points", what, "suspect")
        elif not np.ptp(points.rgb, axis=0).any():
            yield Fault("", "colour", "points", "all its points have one colour", "suspect")
    if points.normal is not None:
        yield from _normals(xyz, points.normal)
    if points.labels is not None and classes and not np.isin(points.labels, list(classes)).any():
        yield Fault("", "label", "empty points", "no point has a class of the dataset", "suspect")


def _normals(xyz: np.ndarray, normal: np.ndarray) -> Iterator[Fault]:
    length = np.linalg.norm(normal, axis=1)
    odd = np.abs(length - 1) > 0.02
    if odd.mean() > 0.01:
        what = f"{odd.mean():.0%} of its normals are not of length 1, such as that of point {odd.argmax()}"
        yield Fault("", "points", "normals", what, "suspect")
    level = (np.abs(normal) > _LEVEL * np.maximum(length, 1e-9)[:, None]).mean(0)
    if level[2] < 0.03 and level[:2].max() > 0.25:
        axis = "xy"[int(level[:2].argmax())]
        yield Fault("", "points", "up", f"hardly a surface is level: is {axis} its upward axis, not z?", "suspect")
        return
    z = xyz[:, 2]
    low = (z < np.percentile(z, 10) + 0.05) & (np.abs(normal[:, 2]) > _LEVEL)
    if low.sum() >= 20 and (normal[low, 2] > 0).mean() < 0.2:
        what = "the lowest level surfaces face down: z points down, or normals point into matter"
        yield Fault("", "points", "up", what, "suspect")


def _num_different(xyz: np.ndarray) -> int:
    """How many different rows there are, up to one in 10^10 or so that share a key."""
    bits = np.ascontiguousarray(xyz.astype(np.float32)).view(np.uint32).astype(np.uint64)
    key = bits[:, 0] * np.uint64(0x9E3779B97F4A7C15)
    for column in (1, 2):
        key = (key ^ (key >> np.uint64(29)) ^ bits[:, column]) * np.uint64(0xBF58476D1CE4E5B9)
    return len(np.unique(key))


class Near:
    """Whether places lie near a point of a cloud: within one to two cells of a grid.

    Args:
        xyz: [N 3] the cloud.
        cell: metres.
    """

    def __init__(self, xyz: np.ndarray, cell: float):
        self.cell = cell
        self._origin = xyz.min(0).astype(np.float64) - 2 * cell
        self._shape = np.floor((xyz.max(0) - self._origin) / cell).astype(np.int64) + 3
        cells = np.unique(self._keys(np.floor((xyz - self._origin) / cell).astype(np.int64)))
        around = [self._keys(np.array([[i, j, k]])) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]
        self._cells = np.unique((cells[:, None] + np.concatenate(around)).reshape(-1))

    def __call__(self, xyz: np.ndarray) -> np.ndarray:
        """[N] bool."""
        index = np.floor((xyz - self._origin) / self.cell)
        inside = ((index >= 0) & (index < self._shape)).all(1)
        keys = self._keys(np.where(inside[:, None], index, 0).astype(np.int64))
        at = np.minimum(np.searchsorted(self._cells, keys), len(self._cells) - 1)
        return inside & (self._cells[at] == keys)

    def _keys(self, index: np.ndarray) -> np.ndarray:
        return (index[:, 0] * self._shape[1] + index[:, 1]) * self._shape[2] + index[:, 2]


def spacing(xyz: np.ndarray) -> float:
    """Metres between neighbouring points of a surface, roughly: the cell at which a cloud fills half of what it fills
    with all of its points four times as dense.
    """
    cell = max(float((xyz.max(0) - xyz.min(0)).max()) / 1000, 1e-4)
    for _ in range(12):
        num = len(np.unique(np.floor((xyz - xyz.min(0)) / cell).astype(np.int64), axis=0))
        if len(xyz) / num >= 2:
            break
        cell *= 1.6
    return cell


def view_overlap(views: Sequence[Sketch], xyz: np.ndarray) -> np.ndarray:
    """[V] share of each view's pixels whose depth ends near the cloud; for views without depth, of the cloud's points
    ahead of the camera that fall into the image, over a hundredth of all, 1 at most. NaN where nothing was measured.
    """
    xyz = xyz[:: max(1, len(xyz) // _SAMPLE)]
    near = Near(xyz, max(0.05, spacing(xyz)))
    shares = []
    for view in views:
        pose = view.world_from_cam
        if view.depth is not None:
            camera = view.points[view.depth > 0]
            camera = camera[:: max(1, len(camera) // _SEEN)]
            shares.append(float(near(camera @ pose[:3, :3].T + pose[:3, 3]).mean()) if len(camera) else np.nan)
            continue
        seen = (xyz[:: max(1, len(xyz) // 20_000)] - pose[:3, 3]) @ pose[:3, :3]
        ahead = seen[seen[:, 2] > 0.05]
        uv = ahead @ view.intrinsics.T
        uv = uv[:, :2] / uv[:, 2:]
        height, width = view.rgb.shape[:2]
        inside = ((uv >= 0) & (uv < [width, height])).all(1).sum()
        shares.append(min(1.0, float(100 * inside / len(xyz[:: max(1, len(xyz) // 20_000)]))))
    return np.array(shares)


def overlap_faults(views: Sequence[Sketch], shares: np.ndarray) -> Iterator[Fault]:
    """Views that do not see the scene's cloud.

    Args:
        views: of a scene.
        shares: ``view_overlap`` of them.
    """
    known = shares[np.isfinite(shares)]
    if not len(known):
        return
    usual = float(np.median(known))
    if usual < 0.3:
        what = f"half of the views have less than {usual:.0%} of their depth near the cloud: are both in one world?"
        yield Fault("", "overlap", "world", what, "unusable" if usual < 0.1 else "suspect")
        return
    for view, share in zip(views, shares, strict=True):
        if share < 0.35 * usual:
            what = f"{share:.0%} of its depth lies near the cloud, {usual:.0%} of others' does"
            yield Fault(view.name, "overlap", "stranger", what, "unusable" if share < 0.15 * usual else "suspect")
