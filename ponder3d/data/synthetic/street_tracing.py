"""Which solid every ray of cameras and of a turning laser meets, and where: many solids, few pixels of each.

A bundle is a grid of rays for each of several eyes: the pixels of cameras, or beams by azimuths. A solid is tested
against the rays of the rectangle of the grid that its box covers only; all such pairs of a solid and a ray are worked
on together, in chunks, because a street has a thousand solids that cover a few rays each. Along a ray every constraint
of a solid is an interval, as in ``tracing``, whose numbers of faces hold here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from ponder3d.data.synthetic.solids import Solid
from ponder3d.data.synthetic.tracing import FIRST_PLANE_FACE, NEAR, QUADRIC_FACE, Lens

_CHUNK = 32768
"""Pairs worked on at once; the columns of a chunk stay in the cache of a core."""
_NUM_PLANES = 12
"""Most planes of a solid (``solids.bevelled``)."""


@dataclass(frozen=True)
class Shapes:
    """S solids at one instant, as tables; lengths in metres, world frame."""

    centre: Float[np.ndarray, "S 3"]
    rotation: Float[np.ndarray, "S 3 3"]
    half: Float[np.ndarray, "S 3"]
    quadric: Float32[np.ndarray, "S 5"]
    """x, y, z, slope and level of ``solids.Quadric``."""
    curved: np.ndarray
    """Whether each solid has a quadric."""
    planes: Float32[np.ndarray, "S F 4"]
    num_planes: Int[np.ndarray, " S"]

    @classmethod
    def of(cls, solids: Sequence[Solid]) -> "Shapes":
        """Tables of solids, which must have no ``hollow``."""
        planes = np.zeros((len(solids), _NUM_PLANES, 4), np.float32)
        quadric = np.zeros((len(solids), 5), np.float32)
        for row, solid in enumerate(solids):
            if solid.planes:
                planes[row, : len(solid.planes)] = solid.planes
            if solid.quadric is not None:
                q = solid.quadric
                quadric[row] = (q.x, q.y, q.z, q.slope, q.level)
        return cls(
            centre=np.array([s.centre for s in solids], np.float64).reshape(-1, 3),
            rotation=np.array([s.rotation for s in solids], np.float64).reshape(-1, 3, 3),
            half=np.array([s.half for s in solids], np.float64).reshape(-1, 3),
            quadric=quadric,
            curved=np.array([s.quadric is not None for s in solids], bool),
            planes=planes,
            num_planes=np.array([len(s.planes) for s in solids], np.int64),
        )

    def corners(self) -> Float[np.ndarray, "S 8 3"]:
        """Corners of the solids' boxes."""
        signs = np.array([[(i >> k & 1) * 2 - 1 for k in (2, 1, 0)] for i in range(8)])
        local = signs * self.half[:, None]
        turned = sum(self.rotation[:, None, :, k] * local[:, :, k, None] for k in range(3))
        return turned + self.centre[:, None]


@dataclass(frozen=True)
class Bundle:
    """Rays in a grid for each of V eyes."""

    eyes: Float[np.ndarray, "V 3"]
    rays: Float32[np.ndarray, "3 VHW"]
    """World directions, of any length: what is called ``t`` counts in it."""
    size: tuple[int, int]
    """Rows and columns of the grid; columns of a laser go on from the last to the first."""


@dataclass
class Hits:
    """What rays meet. Tracing more things into it keeps the nearest."""

    t: Float32[np.ndarray, " N"]
    """Infinite where nothing is met."""
    solid: Int[np.ndarray, " N"]
    """Row of the solid; below 0 is for what is none: see ``street_ground``."""
    face: Int[np.ndarray, " N"]


def camera_bundle(lens: Lens) -> Bundle:
    """The pixels of cameras; ``t`` is the plane depth."""
    return Bundle(lens.world_from_cam[:, :3, 3], lens.rays().reshape(3, -1), lens.size)


def trace(shapes: Shapes, bundle: Bundle, rects: Int[np.ndarray, "S V 4"], hits: Hits) -> None:
    """Put the first solid along every ray into ``hits``, where it is nearer than what is there.

    Args:
        shapes: the solids.
        bundle: the rays.
        rects: first row, end row, first column and end column of the rays that may meet each solid, for each eye.
        hits: what is met so far; changed.
    """
    away = np.sqrt(((shapes.centre[:, None] - bundle.eyes) ** 2).sum(2)) - np.sqrt((shapes.half**2).sum(1))[:, None]
    rects = rects.reshape(-1, 4)
    present = np.flatnonzero((rects[:, 1] > rects[:, 0]) & (rects[:, 3] > rects[:, 2]))
    # The nearest first: what is behind them needs no more than the test of its box.
    present = present[np.argsort(away.reshape(-1)[present], kind="stable")]
    solid, eye = np.divmod(present, len(bundle.eyes))
    offset = bundle.eyes[eye] - shapes.centre[solid]
    frame = shapes.rotation[solid].astype(np.float32)
    origin = (shapes.rotation[solid] * offset[:, :, None]).sum(1).astype(np.float32)
    half = shapes.half[solid].astype(np.float32)
    for first, end, areas, pixels in _pairs(rects[present], eye, bundle.size):
        part = slice(first, end)
        limit = hits.t[pixels]
        world = [np.take(column, pixels) for column in bundle.rays]
        start = [np.repeat(column, areas) for column in origin[part].T]
        ray = []
        for axis in range(3):
            turn = [np.repeat(frame[part, k, axis], areas) for k in range(3)]
            ray.append(turn[0] * world[0] + turn[1] * world[1] + turn[2] * world[2])
        enters, enter, leave = _slabs(start, ray, [np.repeat(column, areas) for column in half[part].T])
        rows = np.flatnonzero((enter < leave) & (leave > NEAR) & (enter < limit))
        if not len(rows):
            continue
        which = np.repeat(np.arange(first, end), areas)[rows]
        found = solid[which]
        face = _side([e[rows] for e in enters], enter[rows], [r[rows] for r in ray])
        t, face, keep = _carve(
            shapes, found, [s[rows] for s in start], [r[rows] for r in ray], enter[rows], leave[rows], face
        )
        at = pixels[rows]
        keep &= (t > NEAR) & (t < hits.t[at])
        t, face, found, at = t[keep], face[keep], found[keep], at[keep]
        # Of several pairs of one ray the last that is written stays: the nearest.
        order = np.argsort(-t, kind="stable")
        at = at[order]
        hits.t[at], hits.solid[at], hits.face[at] = t[order], found[order], face[order]


def turning_rects(
    shapes: Shapes,
    eye: Float[np.ndarray, "3"],
    elevations: Float[np.ndarray, " H"],
    columns: int,
    start: float,
    reach: float,
) -> Int[np.ndarray, "S 1 4"]:
    """Beams and azimuths that may meet each solid; as ``trace`` takes them.

    Args:
        shapes: the solids.
        eye: where the laser is.
        elevations: of the beams, radians, ascending.
        columns: number of azimuths; column j looks at ``start + 2 pi j / columns``, counter-clockwise from +x.
        start: radians.
        reach: solids that are farther away, in metres, are left out.
    """
    corners = shapes.corners() - eye
    flat = np.sqrt((corners[..., :2] ** 2).sum(2))
    middle = shapes.centre - eye
    azimuth = np.arctan2(middle[:, 1], middle[:, 0])
    turn = np.arctan2(corners[..., 1], corners[..., 0]) - azimuth[:, None]
    azimuth = azimuth - start
    turn = (turn + np.pi) % (2 * np.pi) - np.pi
    radius = np.sqrt(((corners - middle[:, None])[..., :2] ** 2).sum(2)).max(1)
    away = np.sqrt((middle[:, :2] ** 2).sum(1))
    # Seen from outside of the circle around a box its corners are the ends; from inside it may be anywhere.
    outside = away > radius * 1.001
    nearest = np.where(outside, away - radius, 1e-3)
    scale = columns / (2 * np.pi)
    left = np.where(outside, np.ceil((azimuth + turn.min(1)) * scale - 1e-3), 0)
    right = np.where(outside, np.floor((azimuth + turn.max(1)) * scale + 1e-3) + 1, columns)
    low, high = corners[..., 2].min(1), corners[..., 2].max(1)
    farthest = flat.max(1)
    bottom = np.arctan2(low, np.where(low < 0, nearest, farthest)) - 1e-4
    top = np.arctan2(high, np.where(high > 0, nearest, farthest)) + 1e-4
    rows = np.searchsorted(elevations, bottom), np.searchsorted(elevations, top, side="right")
    rects = np.stack([*rows, left.astype(np.int64), right.astype(np.int64)], axis=1)
    rects[nearest > reach] = 0
    return rects[:, None]


def meets_any(
    shapes: Shapes,
    at: Float[np.ndarray, "N 3"],
    ray: Float32[np.ndarray, "3"],
    order: Int[np.ndarray, " N"],
    solid: Int[np.ndarray, " K"],
    begin: Int[np.ndarray, " K"],
    end: Int[np.ndarray, " K"],
) -> Bool[np.ndarray, " N"]:
    """Which places meet a solid along one direction.

    Args:
        shapes: the solids.
        at: the places.
        ray: the direction.
        order: rows of ``at`` in some order.
        solid: a solid ...
        begin: ... and the part of ``order``, from here ...
        end: ... to before here, whose places it is tested against.
    """
    out = np.zeros(len(at), bool)
    frame = shapes.rotation[solid]
    turned = (frame * ray[:, None]).sum(1).astype(np.float32)
    number = end - begin
    chunk = np.cumsum(number) // _CHUNK
    first = 0
    for last in [*(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(solid)]:
        area = number[first:last]
        pair = np.repeat(np.arange(first, last), area)
        place = order[np.arange(len(pair)) - np.repeat(np.cumsum(area) - area, area) + begin[pair]]
        pair, place = pair[~out[place]], place[~out[place]]
        which = solid[pair]
        offset = [(at[place, k] - shapes.centre[which, k]).astype(np.float32) for k in range(3)]
        turn = [[frame[pair, k, axis].astype(np.float32) for k in range(3)] for axis in range(3)]
        start = [t[0] * offset[0] + t[1] * offset[1] + t[2] * offset[2] for t in turn]
        direction = [turned[pair, axis] for axis in range(3)]
        _, enter, leave = _slabs(start, direction, [shapes.half[which, k].astype(np.float32) for k in range(3)])
        rows = np.flatnonzero((enter < leave) & (leave > NEAR))
        face = np.zeros(len(rows), np.int8)
        start, direction = [s[rows] for s in start], [d[rows] for d in direction]
        t, _, keep = _carve(shapes, which[rows], start, direction, enter[rows], leave[rows], face)
        out[place[rows[keep & (t > NEAR)]]] = True
        first = last
    return out


def _pairs(
    rects: Int[np.ndarray, "K 4"], eye: Int[np.ndarray, " K"], size: tuple[int, int]
) -> Iterator[tuple[int, int, Int[np.ndarray, " k"], Int[np.ndarray, " n"]]]:
    """Rectangles in chunks: their first and end row, how many rays each has, and the numbers of the rays."""
    heights, widths = rects[:, 1] - rects[:, 0], rects[:, 3] - rects[:, 2]
    areas = heights * widths
    chunk = np.cumsum(areas) // _CHUNK
    ends = [*(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(rects)]
    first = 0
    for end in ends:
        part = slice(first, end)
        area = areas[part]
        if len(area):
            at = np.arange(int(area.sum())) - np.repeat(np.cumsum(area) - area, area)
            row, column = np.divmod(at, np.repeat(widths[part], area))
            row += np.repeat(eye[part] * size[0] + rects[part, 0], area)
            column += np.repeat(rects[part, 2], area)
            yield first, end, area, row * size[1] + column % size[1]
        first = end


def _slabs(start, ray, half):
    """Where rays enter the three slabs of boxes, and where they are within all of them."""
    enters, leaves = [], []
    for axis in range(3):
        # As in ``tracing``: 1e-20 keeps a ray along a face finite.
        inverse = 1 / (ray[axis] + np.float32(1e-20))
        middle = start[axis] * inverse
        reach = np.abs(inverse) * half[axis]
        enters.append(-reach - middle)
        leaves.append(reach - middle)
    enter = np.maximum(np.maximum(enters[0], enters[1]), enters[2])
    leave = np.minimum(np.minimum(leaves[0], leaves[1]), leaves[2])
    return enters, enter, leave


def _side(enters, enter, ray):
    """The side of the box that was entered."""
    face = np.zeros(len(enter), np.int8)
    for axis in range(3):
        face = np.where(enters[axis] == enter, (2 * axis + (ray[axis] < 0)).astype(np.int8), face)
    return face


def _carve(shapes, solid, start, ray, enter, leave, face):
    """What planes and quadrics leave of the way through boxes: where it starts, the face, and whether any is left."""
    t, leave = enter.copy(), leave.copy()
    for number in range(int(shapes.num_planes[solid].max(initial=0))):
        rows = np.flatnonzero(shapes.num_planes[solid] > number)
        plane = shapes.planes[solid[rows], number]
        along = sum(plane[:, k] * ray[k][rows] for k in range(3)) + np.float32(1e-20)
        cross = (plane[:, 3] - sum(plane[:, k] * start[k][rows] for k in range(3))) / along
        entering = along < 0
        later = rows[entering & (cross > t[rows])]
        face[later] = FIRST_PLANE_FACE + number
        t[rows] = np.where(entering, np.maximum(t[rows], cross), t[rows])
        leave[rows] = np.where(entering, leave[rows], np.minimum(leave[rows], cross))
    rows = np.flatnonzero(shapes.curved[solid])
    if len(rows):
        # From where the box is entered: coordinates of a metre instead of those of the eye keep float32 exact enough.
        near = enter[rows]
        direction = [r[rows] for r in ray]
        at = [s[rows] + d * near for s, d in zip(start, direction, strict=True)]
        first, last = _quadric(shapes.quadric[solid[rows]].T, at, direction)
        later = first + near > t[rows]
        face[rows[later]] = QUADRIC_FACE
        t[rows] = np.maximum(t[rows], first + near)
        leave[rows] = np.minimum(leave[rows], last + near)
    return t, face, t < leave


def _quadric(quadric, at, ray):
    """Between which parameters rays are inside quadrics, as ``tracing.quadric_interval`` has it, for one each."""
    qx, qy, qz, slope, level = quadric
    (ox, oy, oz), (dx, dy, dz) = at, ray
    a = qx * dx * dx + qy * dy * dy + qz * dz * dz
    b = qx * ox * dx + qy * oy * dy + (qz * oz + slope) * dz
    c = qx * ox * ox + qy * oy * oy + (qz * oz + 2 * slope) * oz + level
    a = np.where(np.abs(a) < 1e-6, np.float32(1e-6), a)
    spread = b * b - a * c
    root = np.sqrt(np.maximum(spread, 0)) / np.abs(a)
    middle = -b / a
    near, far = middle - root, middle + root
    inf = np.float32(np.inf)
    # Steeper than a cone's side, a ray is inside of it before the first root or after the second.
    steep, upward = a < 0, (dz > 0) == (slope < 0)
    missed = (spread < 0) & ~steep
    enter = np.where(steep, np.where(upward, far, -inf), np.where(missed, inf, near))
    leave = np.where(steep, np.where(upward, inf, near), np.where(missed, -inf, far))
    return enter, leave
