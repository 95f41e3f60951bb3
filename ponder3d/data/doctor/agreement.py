"""Whether two views show one world: the surface of one, put into the other, lies at the depth that is seen there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ponder3d.data.doctor.sketch import Sketch

TOLERANCE = 0.05
"""Depths that differ by less than this share are one surface."""
MIN_OVERLAP = 0.05
"""Share of a view's usable pixels that another must see for a verdict."""
MIN_PIXELS = 25


@dataclass(frozen=True, eq=False)
class Meeting:
    """The pixels of one view that fall onto a surface of another."""

    pixel: np.ndarray
    """[N] flat number in the first view."""
    uv: np.ndarray
    """[N 2] where in the second view."""
    ratio: np.ndarray
    """[N] depth in the second view, over the depth that is seen there: 1 where both see one surface, less where the
    second looks through the surface of the first, more where it is hidden."""
    num: int
    """Pixels of the first view that were tried."""


@dataclass(frozen=True)
class Score:
    """How two views agree, counted both ways."""

    agree: int
    """Pixels at the depth that the other view sees."""
    contrary: int
    """Pixels that the other view looks through. Those that are hidden from it say nothing."""
    overlap: float
    """Share of the pixels that agree or are contrary."""

    @property
    def share(self) -> float:
        """Of the agreeing pixels; NaN where too little overlaps."""
        both = self.agree + self.contrary
        return self.agree / both if both >= MIN_PIXELS and self.overlap >= MIN_OVERLAP else float("nan")


def meet(
    one: Sketch,
    two: Sketch,
    pose_one: np.ndarray | None = None,
    pose_two: np.ndarray | None = None,
    scale_one: float = 1.0,
    scale_two: float = 1.0,
) -> Meeting:
    """Put the surface of a view into another.

    Args:
        one: the view whose pixels move; both have depth.
        two: the view they are moved to.
        pose_one: [4 4] camera to world in place of the view's own.
        pose_two: likewise.
        scale_one: what to multiply the view's depth with.
        scale_two: likewise.
    """
    a = one.world_from_cam if pose_one is None else pose_one
    b = two.world_from_cam if pose_two is None else pose_two
    turn = b[:3, :3].T  # a rotation: its transpose is its inverse, and a bad one must not raise
    pixel = one.solid
    points = one.points.reshape(-1, 3)[pixel] * scale_one
    with np.errstate(over="ignore", invalid="ignore"):
        seen = points @ (turn @ a[:3, :3]).T + turn @ (a[:3, 3] - b[:3, 3])
    z = seen[:, 2]
    ahead = z > 1e-6
    pixel, seen, z = pixel[ahead], seen[ahead], z[ahead]
    k = two.intrinsics
    u = (k[0, 0] * seen[:, 0] + k[0, 1] * seen[:, 1]) / z + k[0, 2]
    v = k[1, 1] * seen[:, 1] / z + k[1, 2]
    height, width = two.cells.shape
    inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    pixel, u, v, z = pixel[inside], u[inside], v[inside], z[inside]
    i, j = v.astype(np.int64), u.astype(np.int64)
    whole = two.cells[i, j]
    pixel, u, v, z, i, j = (x[whole] for x in (pixel, u, v, z, i, j))
    s, t, w = v - i, u - j, two.inverse_depth
    inverse = (1 - s) * ((1 - t) * w[i, j] + t * w[i, j + 1]) + s * ((1 - t) * w[i + 1, j] + t * w[i + 1, j + 1])
    return Meeting(pixel, np.stack([u, v], axis=1), z * inverse / scale_two, len(one.solid))


def score(meetings: Sequence[Meeting], tolerance: float = TOLERANCE) -> Score:
    """Agreement over some meetings, usually those of two views both ways."""
    agree = sum(int((np.abs(m.ratio - 1) < tolerance).sum()) for m in meetings)
    contrary = sum(int((m.ratio <= 1 - tolerance).sum()) for m in meetings)
    return Score(agree, contrary, (agree + contrary) / max(1, sum(m.num for m in meetings)))


def colour_correlation(one: Sketch, two: Sketch, meetings: Sequence[Meeting], image: np.ndarray | None = None) -> float:
    """Correlation of the brightness of two views where both see one surface; NaN where that is too little or has no
    contrast.

    Args:
        one: a view.
        two: another.
        meetings: of ``one`` in ``two``, and the other way round if wanted.
        image: [h w 3] in place of the colour image of ``one``.
    """
    rgb = one.rgb if image is None else image
    pairs = []
    for meeting, source, target in zip(meetings, (rgb, two.rgb), (two.rgb, rgb), strict=False):
        same = np.abs(meeting.ratio - 1) < TOLERANCE
        if source.shape != (one if source is rgb else two).rgb.shape:
            return float("nan")
        there = np.round(meeting.uv[same]).astype(np.int64)
        grey = source.reshape(-1, 3)[meeting.pixel[same]].mean(1), target[there[:, 1], there[:, 0]].mean(1)
        pairs.append(np.stack(grey))
    values = np.concatenate(pairs, axis=1)
    if values.shape[1] < MIN_PIXELS or values.std(axis=1).min() < 4:
        return float("nan")
    return float(np.corrcoef(values)[0, 1])


def label_agreement(one: Sketch, two: Sketch, meetings: Sequence[Meeting]) -> float:
    """Share of equal labels where both views see one surface; NaN where that is too little."""
    equal = total = 0
    for meeting, source, target in zip(meetings, (one, two), (two, one), strict=False):
        if source.labels is None or target.labels is None:
            return float("nan")
        same = np.abs(meeting.ratio - 1) < TOLERANCE
        there = np.round(meeting.uv[same]).astype(np.int64)
        equal += int((source.labels.reshape(-1)[meeting.pixel[same]] == target.labels[there[:, 1], there[:, 0]]).sum())
        total += len(there)
    return equal / total if total >= MIN_PIXELS else float("nan")


def neighbours(views: Sequence[Sketch], num: int = 4) -> list[tuple[int, int]]:
    """Pairs of views that may see the same: those next to each other in time, and those that look at places near each
    other.

    Args:
        views: in the order of time.
        num: pairs that each view looks for by place.
    """
    pairs = {(i, i + gap) for gap in (1, 2) for i in range(len(views) - gap)}
    depth = np.nanmedian([v.median_depth for v in views]) if views else 1.0
    pose = np.stack([v.world_from_cam for v in views]) if views else np.zeros((0, 4, 4))
    # A camera's place and what it looks at, in units of the depth: near in both is a like view.
    looks = np.concatenate([pose[:, :3, 3] / depth, pose[:, :3, 3] / depth + pose[:, :3, 2]], axis=1)
    for i in range(len(views)):
        far = ((looks - looks[i]) ** 2).sum(1)
        far[max(0, i - 2) : i + 3] = np.inf
        nearest = np.argpartition(far, min(num, len(far) - 1))[:num]
        pairs |= {(min(i, int(j)), max(i, int(j))) for j in nearest if np.isfinite(far[j])}
    return sorted(pairs)
