"""Which solid every pixel of every view sees, and where: analytic ray casting, vectorised over the rays of a solid.

Each solid is tested against the pixels of the screen rectangle of its box only, in all views at once. Along a ray,
every constraint of a solid (three slabs, planes, a quadric) is an interval; the solid is their intersection, and the
constraint that was entered last gives the face. Rays are parametrised by plane depth: the direction's camera z is 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from ponder3d.data.synthetic.solids import Quadric, Solid

NEAR = 0.05
"""Nothing closer than this many metres to the camera is seen."""

QUADRIC_FACE = 6
HOLLOW_FACE = 7
FIRST_PLANE_FACE = 8
"""Faces 0..5 are the box's -x +x -y +y -z +z sides; planes follow the two quadrics."""

_CHUNK = 32768
"""Candidate pixels worked on at once. Measured per room: 120 ms at 16384, 111 ms at 32768 and 65536, 165 ms at 4096."""


@dataclass(frozen=True)
class Lens:
    """Pinhole cameras in float64. Convention as ``types.Cameras``: OpenCV axes, integer pixel = pixel centre."""

    intrinsics: Float[np.ndarray, "V 3 3"]
    world_from_cam: Float[np.ndarray, "V 4 4"]
    size: tuple[int, int]

    def rays(self) -> Float32[np.ndarray, "3 V HW"]:
        """World direction of every pixel's ray, scaled so that its length along the camera's axis is 1."""
        height, width = self.size
        world_from_pixel = self.world_from_cam[:, :3, :3] @ np.linalg.inv(self.intrinsics)
        u, v = np.arange(width), np.arange(height)
        columns = world_from_pixel[:, :, 0, None, None] * u + world_from_pixel[:, :, 1, None, None] * v[:, None]
        rays = (columns + world_from_pixel[:, :, 2, None, None]).astype(np.float32)
        return np.ascontiguousarray(rays.reshape(len(rays), 3, -1).transpose(1, 0, 2))


@dataclass(frozen=True)
class Hits:
    """What the pixels of V views see."""

    depth: Float32[np.ndarray, "V HW"]
    """Plane depth in metres; infinite where nothing is hit."""
    solid: Int[np.ndarray, "V HW"]
    """Row of the solid; -1 where nothing is hit."""
    face: Int[np.ndarray, "V HW"]


def trace(solids: Sequence[Solid], lens: Lens, rays: Float32[np.ndarray, "3 V HW"]) -> Hits:
    """The first solid along every ray; ``rays`` are those of ``lens``."""
    num_views, num_pixels = rays.shape[1:]
    depth = np.full(num_views * num_pixels, np.inf, np.float32)
    seen = np.full(num_views * num_pixels, -1, np.int16)
    face = np.zeros(num_views * num_pixels, np.int8)
    flat = rays.reshape(3, -1)
    eyes = lens.world_from_cam[:, :3, 3]
    rects = screen_rects(solids, lens)
    # Backwards, because walls and floor come first: behind what is already seen, half of their hits need no face.
    for row in range(len(solids) - 1, -1, -1):
        solid = solids[row]
        origins = ((eyes - np.array(solid.centre)) @ solid.rotation).T.astype(np.float32)
        for views, areas, pixels in _candidates(rects[row], lens.size):
            origin = [np.repeat(column[views], areas) for column in origins]
            world = [np.take(column, pixels, mode="clip") for column in flat]
            direction = [_dot(solid.rotation[:, axis], world) for axis in range(3)]
            hit, t, code = intersect(solid, origin, direction, np.take(depth, pixels, mode="clip"))
            at = pixels[hit]
            depth[at], seen[at], face[at] = t, row, code
    shape = (num_views, num_pixels)
    return Hits(depth.reshape(shape), seen.reshape(shape), face.reshape(shape))


def intersect(
    solid: Solid,
    origin: Sequence[Float32[np.ndarray, " N"]],
    direction: Sequence[Float32[np.ndarray, " N"]],
    limit: Float32[np.ndarray, " N"],
) -> tuple[Int[np.ndarray, " K"], Float32[np.ndarray, " K"], Int[np.ndarray, " K"]]:
    """Where rays first meet a solid.

    Args:
        solid: the solid.
        origin: x, y and z of the rays' origins in the solid's own frame.
        direction: x, y and z of their directions, of any length.
        limit: hits at or beyond this parameter do not count.

    Returns:
        Rows of the rays that hit, their parameters, and the faces. A ray that starts inside a solid does not see it.
    """
    enters, leaves = [], []
    for axis in range(3):
        # The 1e-20 keeps a ray along a face finite: its slab is entered at -1e19 and left at +1e19, or never.
        inverse = 1 / (direction[axis] + np.float32(1e-20))
        middle = origin[axis] * inverse
        reach = np.abs(inverse) * np.float32(solid.half[axis])
        enters.append(-reach - middle)
        leaves.append(reach - middle)
    enter = np.maximum(np.maximum(enters[0], enters[1]), enters[2])
    leave = np.minimum(np.minimum(np.minimum(leaves[0], leaves[1]), leaves[2]), limit)
    for plane in solid.planes:
        t, entering = _plane_interval(plane, origin, direction)
        enters.append(np.where(entering, t, np.float32(-np.inf)))
        enter = np.maximum(enter, enters[-1])
        leave = np.where(entering, leave, np.minimum(leave, t))
    rows = np.flatnonzero((enter < leave) & (enter > NEAR if solid.quadric is None else leave > NEAR))
    if solid.quadric is None and solid.hollow is None:
        enter = np.take(enter, rows)
        return rows, enter, _face([np.take(e, rows) for e in enters], enter, [np.take(d, rows) for d in direction])
    origin, direction = ([np.take(c, rows) for c in columns] for columns in (origin, direction))
    return _curved(solid, rows, origin, direction, enters, enter, leave)


def screen_rects(solids: Sequence[Solid], lens: Lens) -> Int[np.ndarray, "S V 4"]:
    """First row, end row, first column and end column of the pixels that may see each solid's box; empty when none."""
    half = np.array([s.half for s in solids])
    signs = np.array([[(i >> k & 1) * 2 - 1 for k in (2, 1, 0)] for i in range(8)])
    frames = np.stack([s.rotation for s in solids])
    corners = np.einsum("sij,skj->ski", frames, signs * half[:, None]) + np.array([s.centre for s in solids])[:, None]
    return corner_rects(corners, lens)


def corner_rects(corners: Float[np.ndarray, "S 8 3"], lens: Lens) -> Int[np.ndarray, "S V 4"]:
    """``screen_rects`` of boxes given by their corners; neighbours along an edge differ in one bit of their number."""
    # The camera matrix takes corners to (u z, v z, z).
    pixel_from_world = lens.intrinsics @ lens.world_from_cam[:, :3, :3].transpose(0, 2, 1)
    shift = np.einsum("vij,vj->vi", pixel_from_world, lens.world_from_cam[:, :3, 3])
    points = np.einsum("vij,skj->svki", pixel_from_world, corners) - shift[:, None]
    ahead = points[..., 2] > NEAR
    with np.errstate(divide="ignore", invalid="ignore"):
        uv = points[..., :2] / points[..., 2:]
    lo = np.where(ahead[..., None], uv, np.inf).min(2)
    hi = np.where(ahead[..., None], uv, -np.inf).max(2)
    crossing = np.argwhere(ahead.any(2) & ~ahead.all(2))
    if len(crossing):
        s, v = crossing.T
        cut_lo, cut_hi = _near_cut(points[s, v])
        lo[s, v], hi[s, v] = np.minimum(lo[s, v], cut_lo), np.maximum(hi[s, v], cut_hi)
    limits = np.array([lens.size[1], lens.size[0]])
    # Clipping first keeps the infinities of invisible solids within the range of int64.
    first = np.ceil(np.clip(lo, 0, limits)).astype(np.int64)
    end = np.floor(np.clip(hi, -1, limits - 1)).astype(np.int64) + 1
    return np.stack([first[..., 1], end[..., 1], first[..., 0], end[..., 0]], axis=-1)


_EDGES = np.array([(i, i | 1 << k) for i in range(8) for k in range(3) if not i >> k & 1])
"""The twelve edges of a box as pairs of corners; corners differ in one bit."""


def _near_cut(points: Float[np.ndarray, "N 8 3"]) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N 2"]]:
    """Bounds, in pixels, of where boxes' edges cross the near plane."""
    a, b = points[:, _EDGES[:, 0]], points[:, _EDGES[:, 1]]
    crosses = (a[..., 2] > NEAR) != (b[..., 2] > NEAR)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (NEAR - a[..., 2]) / (b[..., 2] - a[..., 2])
        uv = (a[..., :2] + share[..., None] * (b[..., :2] - a[..., :2])) / NEAR
    lo = np.where(crosses[..., None], uv, np.inf).min(1)
    hi = np.where(crosses[..., None], uv, -np.inf).max(1)
    return lo, hi


def _candidates(
    rects: Int[np.ndarray, "V 4"], size: tuple[int, int]
) -> Iterator[tuple[Int[np.ndarray, " K"], Int[np.ndarray, " K"], Int[np.ndarray, " N"]]]:
    """Pixels of rectangles in several views, in chunks: the views, how many pixels of each, and their flat indices."""
    heights, widths = np.maximum(rects[:, 1] - rects[:, 0], 0), np.maximum(rects[:, 3] - rects[:, 2], 0)
    present = np.flatnonzero(heights * widths)
    if not len(present):
        return
    chunk = np.cumsum((heights * widths)[present]) // _CHUNK
    for views in np.split(present, np.flatnonzero(np.diff(chunk)) + 1):
        h, w = heights[views], widths[views]
        row_width = np.repeat(w, h)
        row_in_view = np.arange(len(row_width)) - np.repeat(np.cumsum(h) - h, h)
        starts = (np.repeat(views * size[0] + rects[views, 0], h) + row_in_view) * size[1] + np.repeat(
            rects[views, 2], h
        )
        pixels = np.arange(int(row_width.sum())) + np.repeat(starts - (np.cumsum(row_width) - row_width), row_width)
        yield views, h * w, pixels


def _curved(solid, rows, origin, direction, enters, enter, leave):
    """The rest of ``intersect`` for solids with quadrics, on the rays that meet the flat constraints."""
    flats, enter, leave = [np.take(e, rows) for e in enters], np.take(enter, rows), np.take(leave, rows)
    code = _face(flats, enter, direction)
    if solid.quadric is not None:
        q_enter, q_leave = quadric_interval(solid.quadric, origin, direction)
        code = np.where(q_enter > enter, np.int8(QUADRIC_FACE), code)
        enter, leave = np.maximum(enter, q_enter), np.minimum(leave, q_leave)
    if solid.hollow is not None:
        h_enter, h_leave = quadric_interval(solid.hollow, origin, direction)
        through = (h_enter <= enter) & (h_leave > enter)
        code = np.where(through, np.int8(HOLLOW_FACE), code)
        enter = np.where(through, h_leave, enter)
    keep = np.flatnonzero((enter < leave) & (enter > NEAR))
    return rows[keep], enter[keep], code[keep]


def quadric_interval(
    quadric: Quadric, origin: Sequence[Float32[np.ndarray, " N"]], direction: Sequence[Float32[np.ndarray, " N"]]
) -> tuple[Float32[np.ndarray, " N"], Float32[np.ndarray, " N"]]:
    """Parameters between which rays are inside a quadric; the first is larger than the second for rays that miss it."""
    ox, oy, oz = origin
    dx, dy, dz = direction
    qx, qy, qz, slope, level = (np.float32(c) for c in (quadric.x, quadric.y, quadric.z, quadric.slope, quadric.level))
    a = qx * dx * dx + qy * dy * dy + qz * dz * dz
    b = qx * ox * dx + qy * oy * dy + (qz * oz + slope) * dz
    c = qx * ox * ox + qy * oy * oy + (qz * oz + 2 * slope) * oz + level
    # A vanishing a is a ray along a cylinder or along a cone's side; it gets far roots instead of infinite ones.
    a = np.where(np.abs(a) < 1e-6, np.float32(1e-6), a)
    spread = b * b - a * c
    root = np.sqrt(np.maximum(spread, 0)) / np.abs(a)
    middle = -b / a
    near, far = middle - root, middle + root
    inf = np.float32(np.inf)
    if quadric.z >= 0:
        missed = spread < 0
        return np.where(missed, inf, near), np.where(missed, -inf, far)
    # Steeper than a cone's side, a ray is inside it before the first root or after the second: on the side that widens.
    steep, upward = a < 0, (dz > 0) == (slope < 0)
    missed = (spread < 0) & ~steep
    enter = np.where(steep, np.where(upward, far, -inf), np.where(missed, inf, near))
    leave = np.where(steep, np.where(upward, inf, near), np.where(missed, -inf, far))
    return enter, leave


def _plane_interval(plane, origin, direction):
    """Where rays cross a plane, and whether they go in through it. A parallel ray crosses it far away."""
    along = _dot(plane[:3], direction)
    along = along + np.float32(1e-20)
    return (np.float32(plane[3]) - _dot(plane[:3], origin)) / along, along < 0


def _face(enters, enter, direction):
    """The face whose constraint was entered last."""
    code = np.full(len(enter), FIRST_PLANE_FACE - 1, np.int8)
    for i in range(len(enters) - 1, -1, -1):
        at = (i * 2 + (direction[i] < 0)).astype(np.int8) if i < 3 else np.int8(FIRST_PLANE_FACE + i - 3)
        code = np.where(enters[i] == enter, at, code)
    return code


def _dot(vector, columns):
    x, y, z = (np.float32(v) for v in vector)
    return x * columns[0] + y * columns[1] + z * columns[2]
