"""Where things stand: placement without collisions.

Every placed thing blocks an oriented rectangle over a range of heights; two of them never overlap in both.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from ponder3d.data.synthetic.pieces import Draw, Piece, Placed
from ponder3d.data.synthetic.plan import Plan

TRIES = 32
"""Poses drawn at once for a piece; the first that fits is taken."""


class Layout:
    """A room that is being furnished."""

    def __init__(self, draw: Draw, plan: Plan):
        self.draw = draw
        self.plan = plan
        self.placed: list[Placed] = []
        self._blocked: list[tuple[float, ...]] = []
        """Rows x, y, yaw, half depth, half width, lowest, highest, owner (index into ``placed``, -1 for keep-outs)."""

    def fits(
        self,
        poses: Float[np.ndarray, "T 3"],
        piece: Piece,
        z: float = 0.0,
        ignore: Sequence[Placed] = (),
        gap: float = 0.02,
    ) -> Bool[np.ndarray, " T"]:
        """Which of the poses (x, y, yaw) keep a piece inside the room and ``gap`` metres clear of everything."""
        half = np.array(piece.size[:2]) / 2
        cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
        axes = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], 1)
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        corners = poses[:, None, :2] + np.einsum("kc,tcd->tkd", signs * half, axes)
        low, high = z + piece.lift, z + piece.lift + piece.size[2]
        good = np.asarray(self.plan.contains(corners).all(1)) & (high <= self.plan.height + 1e-6)
        if self.plan.notch is not None:
            x0, y0, x1, y1 = self.plan.notch
            row = ((x0 + x1) / 2, (y0 + y1) / 2, 0.0, (x1 - x0) / 2, (y1 - y0) / 2)
            good &= ~overlaps(poses, half, np.array([row]))[:, 0]
        skip = [self.placed.index(p) for p in ignore]
        rows = np.array([r[:5] for r in self._blocked if r[5] < high - 1e-3 and r[6] > low + 1e-3 and r[7] not in skip])
        if len(rows):
            good &= ~overlaps(poses, half + gap, rows).any(1)
        return good

    def add(self, placed: Placed, blocks: bool = True) -> Placed:
        """Put a piece where the caller found that it fits."""
        self.placed.append(placed)
        if blocks:
            depth, width, _ = placed.piece.size
            low = placed.z + placed.piece.lift
            owner = len(self.placed) - 1
            self._blocked.append((placed.x, placed.y, placed.yaw, depth / 2, width / 2, low, placed.top, owner))
        return placed

    def keep_out(self, x: float, y: float, yaw: float, depth: float, width: float, low: float, high: float) -> None:
        """Block a rectangle without putting anything there."""
        self._blocked.append((x, y, yaw, depth / 2, width / 2, low, high, -1))

    def against_wall(
        self, piece: Piece, z: float = 0.0, gap: float = 0.02, turn: float = 0.05, end: float = 0.35
    ) -> Placed | None:
        """Put a piece with its back to some wall; with probability ``end`` into a corner, turned by up to ``turn``."""
        rng, walls = self.draw.rng, self.plan.walls
        lengths = np.array([w.length for w in walls])
        rows = rng.choice(len(walls), TRIES, p=lengths / lengths.sum())
        tilt = rng.uniform(-turn, turn, TRIES) * (rng.random(TRIES) < 0.4)
        half = piece.size[1] / 2 + 0.03
        share = np.where(rng.random(TRIES) < end, rng.integers(0, 2, TRIES), rng.random(TRIES))
        along = half + share * np.maximum(0, lengths[rows] - 2 * half)
        inward = piece.size[0] / 2 + gap + half * np.sin(np.abs(tilt))
        starts, headings = (np.array([getattr(w, name) for w in walls])[rows].T for name in ("start", "along"))
        x = starts[0] + headings[0] * along - headings[1] * inward
        y = starts[1] + headings[1] * along + headings[0] * inward
        yaw = np.array([w.yaw for w in walls])[rows] + tilt
        return self._first(piece, np.stack([x, y, yaw], axis=1), z)

    def anywhere(self, piece: Piece, margin: float = 0.3, aligned: bool = False) -> Placed | None:
        """Put a piece into the room with ``margin`` metres of space around it; any yaw, or one along the walls."""
        rng = self.draw.rng
        poses = rng.uniform(-0.5, 0.5, (TRIES, 3)) * np.array([*self.plan.size, 2 * math.pi])
        if aligned:
            poses[:, 2] = rng.integers(0, 4, TRIES) * (math.pi / 2) + rng.normal(0, 0.03, TRIES)
        return self._first(piece, poses, 0.0, margin)

    def beside(
        self,
        parent: Placed,
        piece: Piece,
        forward: float,
        left: float,
        turn: float = 0.0,
        z: float = 0.0,
        ignore: Sequence[Placed] = (),
        gap: float = 0.01,
    ) -> Placed | None:
        """Put a piece at a place in another's frame if it fits there; ``turn`` is relative to the other's yaw."""
        x, y = parent.world(forward, left)
        pose = np.array([(x, y, parent.yaw + turn)])
        return self._first(piece, pose, z, gap, ignore)

    def on_top(self, parent: Placed, piece: Piece, forward: float, left: float, turn: float = 0.0) -> Placed | None:
        """Put a piece on another's supporting face, if it has one."""
        if not parent.piece.support:
            return None
        return self.beside(parent, piece, forward, left, turn, parent.z + parent.piece.support, (parent,))

    def scatter(self, parent: Placed | None, make: Callable[[Draw], Piece], count: int) -> None:
        """Put small things on top of a piece, a little away from its edges."""
        if parent is None:
            return
        for _ in range(count):
            small = make(self.draw)
            reach = [parent.piece.size[i] / 2 - max(small.size[:2]) / 2 - 0.02 for i in (0, 1)]
            if min(reach) > 0:
                forward, left = (r * self.draw.uniform(-1.0, 1.0) for r in reach)
                self.on_top(parent, small, forward, left, self.draw.uniform(-0.6, 0.6))

    def coverage(self) -> float:
        """Share of the floor that furniture stands on."""
        footprints = [p.piece.size[0] * p.piece.size[1] for p in self.placed if p.z == 0 and p.piece.label != "rug"]
        return sum(footprints) / self.plan.area

    def _first(self, piece, poses, z, gap=0.02, ignore=()) -> Placed | None:
        good = np.flatnonzero(self.fits(poses, piece, z, ignore, gap))
        if not len(good):
            return None
        x, y, yaw = (float(v) for v in poses[good[0]])
        return self.add(Placed(piece, x, y, z, yaw))


def overlaps(
    poses: Float[np.ndarray, "T 3"], half: Float[np.ndarray, "2"], rows: Float[np.ndarray, "N 5"]
) -> Bool[np.ndarray, "T N"]:
    """Which oriented rectangles overlap: separating axes.

    Args:
        poses: x, y and yaw of rectangles that are all of one size.
        half: their half depth and half width.
        rows: x, y, yaw, half depth and half width of the others.
    """
    dx, dy = rows[:, 0] - poses[:, :1], rows[:, 1] - poses[:, 1:2]
    turn = rows[:, 2] - poses[:, 2:]
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    apart = np.zeros(dx.shape, bool)
    mine, theirs = half[:, None, None], rows[:, 3:].T[:, None]
    for yaw, own, other in ((poses[:, 2:], mine, theirs), (rows[None, :, 2], theirs, mine)):
        along = np.abs(np.cos(yaw) * dx + np.sin(yaw) * dy)
        across = np.abs(np.cos(yaw) * dy - np.sin(yaw) * dx)
        apart |= along > own[0] + other[0] * cos + other[1] * sin
        apart |= across > own[1] + other[0] * sin + other[1] * cos
    return ~apart
