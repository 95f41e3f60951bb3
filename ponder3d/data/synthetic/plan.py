"""The empty room: floor plan, walls with openings, and what fills the openings.

Convention: world frame in metres, z up, floor at z = 0, the origin in the middle of the plan's bounding rectangle.
Walls run counter-clockwise, so that the room is on their left; a wall's ``yaw`` is the direction into the room.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ponder3d.data.synthetic.materials import Material
from ponder3d.data.synthetic.pieces import Draw, Piece, Placed, piece
from ponder3d.data.synthetic.solids import Solid, box, cylinder

WALL_THICKNESS = 0.2
DOOR_SINK, WINDOW_SINK = 0.09, 0.14
"""How far behind the wall's face a door and a window begin, in metres."""

SIZES = {
    "bedroom": ((3.0, 5.2), (3.0, 4.8)),
    "living room": ((4.0, 8.0), (3.6, 7.0)),
    "office": ((3.2, 7.0), (3.0, 6.0)),
    "kitchen": ((3.2, 6.5), (3.0, 5.5)),
    "bathroom": ((3.0, 4.4), (3.0, 3.8)),
    "mixed": ((3.4, 7.0), (3.2, 6.0)),
}
"""Ranges of the longer and the shorter side of each type of room, in metres."""


@dataclass(frozen=True)
class Wall:
    """One straight wall."""

    start: tuple[float, float]
    along: tuple[float, float]
    """Unit vector from its start to its end."""
    length: float
    overlap: tuple[float, float]
    """How far its slab goes on beyond start and end to close the corners; 0 where the room's corner is reflex."""

    @property
    def yaw(self) -> float:
        """Direction into the room."""
        return math.atan2(self.along[0], -self.along[1])

    def at(self, along: float, inward: float) -> tuple[float, float]:
        """World x and y of a place ``along`` metres from the wall's start and ``inward`` metres in front of it."""
        ax, ay = self.along
        return self.start[0] + ax * along - ay * inward, self.start[1] + ay * along + ax * inward


@dataclass(frozen=True)
class Opening:
    """A hole in a wall for a door or a window."""

    wall: int
    centre: float
    """Distance along the wall."""
    width: float
    bottom: float
    top: float
    is_door: bool


@dataclass(frozen=True)
class Plan:
    """A rectangular or L-shaped room."""

    size: tuple[float, float]
    height: float
    notch: tuple[float, float, float, float] | None
    """The corner that an L-shaped room lacks: x and y range (x0, y0, x1, y1)."""
    walls: tuple[Wall, ...]
    openings: tuple[Opening, ...]

    @property
    def area(self) -> float:
        """Floor area in square metres."""
        notch = 0.0 if self.notch is None else (self.notch[2] - self.notch[0]) * (self.notch[3] - self.notch[1])
        return self.size[0] * self.size[1] - notch

    def contains(self, xy: Float[np.ndarray, "*N 2"], margin: float = 0.0) -> Bool[np.ndarray, "*N"]:
        """Whether places are inside the room, at least ``margin`` metres from every wall."""
        inside = np.asarray((np.abs(xy) <= np.array(self.size) / 2 - margin).all(-1))
        if self.notch is None:
            return inside
        lo, hi = np.array(self.notch[:2]) - margin, np.array(self.notch[2:]) + margin
        return inside & ~np.asarray(((xy > lo) & (xy < hi)).all(-1))


def draw_plan(draw: Draw, kind: str) -> Plan:
    """A floor plan with one or two doors and up to four windows."""
    (lo_x, hi_x), (lo_y, hi_y) = SIZES[kind]
    size = (draw.uniform(lo_x, hi_x), draw.uniform(lo_y, hi_y))
    if draw.chance(0.5):
        size = (min(size[1], 7.0), min(size[0], 7.0))
    notch = None
    if min(size) > 3.8 and draw.chance(0.3):
        w, h = size[0] * draw.uniform(0.25, 0.45), size[1] * draw.uniform(0.25, 0.45)
        x = draw.pick((-size[0] / 2, size[0] / 2 - w))
        y = draw.pick((-size[1] / 2, size[1] / 2 - h))
        notch = (x, y, x + w, y + h)
    height = draw.pick((draw.uniform(2.4, 2.7), draw.uniform(2.4, 3.2)))
    walls = _walls(size, notch)
    return Plan(size, height, notch, walls, _openings(draw, walls, height))


def _walls(size: tuple[float, float], notch: tuple[float, float, float, float] | None) -> tuple[Wall, ...]:
    x, y = size[0] / 2, size[1] / 2
    corners = [(-x, -y), (x, -y), (x, y), (-x, y)]
    if notch is not None:
        x0, y0, x1, y1 = notch
        # The notch sits in one corner of the rectangle; its other three corners replace that one.
        missing = next(i for i, (a, b) in enumerate(corners) if a in (x0, x1) and b in (y0, y1))
        a, b = corners[missing]
        inner = (x0 if a == x1 else x1, y0 if b == y1 else y1)
        # Counter-clockwise, corners 0 and 2 are reached along y and left along x, corners 1 and 3 the other way round.
        first, last = ((a, inner[1]), (inner[0], b)) if missing in (0, 2) else ((inner[0], b), (a, inner[1]))
        corners[missing : missing + 1] = [first, inner, last]
    walls = []
    for i, start in enumerate(corners):
        before, end, after = corners[i - 1], corners[(i + 1) % len(corners)], corners[(i + 2) % len(corners)]
        length = math.dist(start, end)
        along = ((end[0] - start[0]) / length, (end[1] - start[1]) / length)
        overlap = tuple(
            WALL_THICKNESS if turn > 0 else 0.0 for turn in (_turn(before, start, end), _turn(start, end, after))
        )
        walls.append(Wall(start, along, length, (overlap[0], overlap[1])))
    return tuple(walls)


def _turn(a, b, c) -> float:
    return (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0])


def _openings(draw: Draw, walls: tuple[Wall, ...], height: float) -> tuple[Opening, ...]:
    """Doors and windows that keep 12 cm from each other and from the corners."""
    wanted = [True] * draw.pick((1, 1, 2)) + [False] * draw.pick((1, 1, 2, 2, 3, 4))
    chosen: list[Opening] = []
    for is_door in wanted:
        for _ in range(12):
            wall = int(draw.integer(0, len(walls) - 1))
            width = draw.uniform(0.78, 0.98) if is_door else draw.uniform(0.7, 2.2)
            room = walls[wall].length - width - 0.5
            if room <= 0:
                continue
            bottom = 0.0 if is_door else draw.pick((draw.uniform(0.45, 1.1), draw.uniform(0.8, 1.1)))
            top = draw.uniform(1.95, 2.12) if is_door else min(height - 0.25, bottom + draw.uniform(0.8, 1.7))
            opening = Opening(wall, 0.25 + width / 2 + room * draw.uniform(0.0, 1.0), width, bottom, top, is_door)
            others = [o for o in chosen if o.wall == wall]
            if all(abs(o.centre - opening.centre) > (o.width + width) / 2 + 0.12 for o in others):
                chosen.append(opening)
                break
    return tuple(chosen)


def shell(draw: Draw, plan: Plan) -> list[tuple[str, list[Solid]]]:
    """Floor, ceiling and walls around the openings, with skirting boards."""
    x, y = plan.size
    t = WALL_THICKNESS
    slab = (x + 2 * t, y + 2 * t, t)
    floor = _world(box(draw.material("floor"), (0, 0, -t / 2), slab))
    ceiling = _world(box(draw.material("wall", "wall", "wood"), (0, 0, plan.height + t / 2), slab))
    paint = draw.material("wall")
    feature = draw.material("wall") if draw.chance(0.35) else paint
    board = draw.material("wood", "paint") if draw.chance(0.7) else None
    walls = []
    for i, wall in enumerate(plan.walls):
        holes = sorted((o for o in plan.openings if o.wall == i), key=lambda o: o.centre)
        walls += _wall_solids(wall, holes, plan.height, feature if i == 0 else paint, board)
    beams = []
    if draw.chance(0.1):
        wood, count = draw.material("wood"), draw.integer(2, 5)
        xs = [x * ((i + 0.5) / count - 0.5) for i in range(count)]
        beams = [box(wood, (bx, 0, plan.height - 0.07), (0.14, y, 0.14)) for bx in xs]
    return [("floor", [floor]), ("ceiling", [ceiling, *beams]), ("wall", walls)]


def _wall_solids(
    wall: Wall, holes: list[Opening], height: float, paint: Material, board: Material | None
) -> list[Solid]:
    parts = []
    edges = [-wall.overlap[0], *(e for o in holes for e in (o.centre - o.width / 2, o.centre + o.width / 2))]
    edges.append(wall.length + wall.overlap[1])
    for a, b in zip(edges[::2], edges[1::2], strict=True):
        parts.append(_panel(wall, paint, a, b, 0.0, height, -WALL_THICKNESS, 0.0))
    for o in holes:
        a, b = o.centre - o.width / 2, o.centre + o.width / 2
        parts.append(_panel(wall, paint, a, b, o.top, height, -WALL_THICKNESS, 0.0))
        if o.bottom > 0:
            parts.append(_panel(wall, paint, a, b, 0.0, o.bottom, -WALL_THICKNESS, 0.0))
    if board is not None:
        ends = [
            0.0,
            *(e for o in holes if o.is_door for e in (o.centre - o.width / 2, o.centre + o.width / 2)),
            wall.length,
        ]
        parts += [
            _panel(wall, board, a, b, 0.0, 0.08, 0.0, 0.012)
            for a, b in zip(ends[::2], ends[1::2], strict=True)
            if b > a
        ]
    return parts


def _panel(
    wall: Wall, material: Material, a: float, b: float, z0: float, z1: float, back: float, front: float
) -> Solid:
    """A box from a to b along a wall, z0 to z1 in height, and between two distances in front of its face."""
    x0, y0 = wall.at(a, back)
    x1, y1 = wall.at(b, front)
    size = (abs(x1 - x0), abs(y1 - y0), z1 - z0)
    return _world(box(material, ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2), size))


def _world(solid: Solid) -> Solid:
    return Solid(solid.centre, solid.half, solid.material, solid.rotation, world_texture=True)


def mount(plan: Plan, wall: int, hung: Piece, along: float, z: float, sink: float = 0.0) -> Placed:
    """A piece with its back ``sink`` metres behind a wall's face."""
    x, y = plan.walls[wall].at(along, hung.size[0] / 2 - sink)
    return Placed(hung, x, y, z, plan.walls[wall].yaw)


def door(draw: Draw, width: float, height: float) -> Piece:
    """A closed door in its frame, plain or with panels or a small window, and a handle."""
    leaf, frame, metal = draw.material("wood", "paint"), draw.material("wood", "paint"), draw.material("metal")
    parts = [box(leaf, (0.025, 0, height / 2), (0.05, width, height))]
    trim = 0.09
    for side in (-1, 1):
        parts.append(box(frame, (0.065, side * (width / 2 + 0.01), height / 2), (0.09, trim, height)))
    parts.append(box(frame, (0.065, 0, height + 0.02), (0.092, width + 0.02 + trim, trim)))
    kind = draw.pick(("plain", "panels", "panels", "window"))
    inner = width - 0.25
    if kind == "panels":
        count = draw.integer(2, 4)
        for i in range(count):
            z, tall = 0.12 + (height - 0.24) * (i + 0.5) / count, (height - 0.3) / count - 0.08
            parts.append(box(leaf, (0.055, 0, z), (0.014, inner, tall)))
            parts.append(box(draw.material("wood", "paint"), (0.056, 0, z), (0.016, inner - 0.08, tall - 0.08)))
    elif kind == "window":
        parts.append(box(draw.material("glass"), (0.052, 0, height * 0.68), (0.01, inner, height * 0.4)))
    side = draw.pick((-1, 1))
    y = side * (width / 2 - 0.1)
    parts.append(cylinder(metal, (0.075, y, 1.02), (0.03, 0.03, 0.05), "x"))
    parts.append(cylinder(metal, (0.1, y - side * 0.05, 1.02), (0.026, 0.026, 0.13), "y"))
    return piece("door", parts)


def window(draw: Draw, width: float, height: float) -> Piece:
    """A framed window with bars, glass by day or night, and a sill; z = 0 is its lower edge."""
    frame, glass = draw.material("paint", "wood"), draw.material("glass", emission=draw.pick((0.0, 0.4, 0.9)))
    bar = draw.uniform(0.04, 0.07)
    parts = [box(glass, (0.02, 0, height / 2), (0.02, width, height))]
    parts += [box(frame, (0.03, s * (width - bar) / 2, height / 2), (0.06, bar, height)) for s in (-1, 1)]
    parts += [box(frame, (0.03, 0, z), (0.06, width, bar)) for z in (bar / 2, height - bar / 2)]
    panes = max(1, round(width / draw.uniform(0.5, 0.9)))
    for i in range(1, panes):
        parts.append(box(frame, (0.028, (i / panes - 0.5) * width, height / 2), (0.056, bar, height)))
    if draw.chance(0.4):
        parts.append(box(frame, (0.026, 0, height * draw.pick((0.5, 0.7))), (0.05, width, bar * 0.8)))
    deep = draw.uniform(0.12, 0.3)
    parts.append(box(draw.material("paint", "stone", "wood"), (0.04 + deep / 2, 0, 0.0), (deep, width + 0.08, 0.035)))
    return piece("window", parts)


def curtain(draw: Draw, width: float, drop: float) -> Piece:
    """Two gathered halves on a rod, or a roller blind; z = 0 is its lower edge. The folds are a row of cylinders."""
    cloth, rod = draw.material("cloth"), draw.material("metal", "wood")
    if draw.chance(0.2):
        drawn = drop * draw.uniform(0.25, 0.7)
        roll = cylinder(rod, (0.04, 0, drop - 0.03), (0.07, 0.07, width), "y")
        return piece("curtain", [box(cloth, (0.04, 0, drop - drawn / 2), (0.012, width, drawn)), roll])
    parts = [cylinder(rod, (0.05, 0, drop + 0.02), (0.025, 0.025, width + 0.1), "y")]
    share = draw.uniform(0.14, 0.3)
    for side in (-1, 1):
        folds = max(3, round(share * width / 0.075))
        pitch = share * width / folds
        for i in range(folds):
            y = side * (width / 2 - (i + 0.5) * pitch)
            x = 0.05 + (0.012 if i % 2 else -0.012)
            parts.append(cylinder(cloth, (x, y, drop / 2), (draw.uniform(0.05, 0.075), pitch * 1.25, drop)))
    return piece("curtain", parts)


def picture(draw: Draw) -> Piece:
    """A framed picture of one to four patches of pattern; z = 0 is its lower edge."""
    width = draw.uniform(0.3, 1.1)
    height = min(1.0, width * draw.uniform(0.6, 1.4))
    frame = draw.material("wood", "metal", "paint")
    border = draw.uniform(0.02, 0.06)
    parts = [box(frame, (0.012, 0, height / 2), (0.024, width, height))]
    inner_w, inner_h = width - 2 * border, height - 2 * border
    parts.append(box(draw.material("print"), (0.014, 0, height / 2), (0.026, inner_w, inner_h)))
    for i in range(draw.integer(0, 3)):
        w, h = inner_w * draw.uniform(0.2, 0.6), inner_h * draw.uniform(0.2, 0.6)
        y, z = (inner_w - w) * draw.uniform(-0.5, 0.5), height / 2 + (inner_h - h) * draw.uniform(-0.5, 0.5)
        size = (0.028 + 0.001 * i, w, h)
        print_ = draw.material("print", "paint")
        if draw.chance(0.5):
            parts.append(cylinder(print_, (0.015, y, z), (w, h, size[0]), "x"))
        else:
            parts.append(box(print_, (0.015, y, z), size))
    return piece("picture", parts)
