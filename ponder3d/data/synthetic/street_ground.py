"""The ground of streets: roads with lanes and markings, kerbs, sidewalks, what lies beside them.

Road coordinates: ``y`` is the world's, along the main road; ``x`` is the distance to the right of the main road's
middle. The main road bends: its middle is at world ``x = Roads.bend(y)``. Crossing roads are straight, along x.
The ground is flat but for kerbs: roads are at z = 0, all else at ``KERB``.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from ponder3d.data.synthetic.materials import PATTERN_SIZE, Colour, pattern_bank
from ponder3d.data.synthetic.street_tracing import Bundle, Hits

KERB = 0.15
"""Height of sidewalks above the road, metres."""
FAR = 400.0
"""The ground ends this far away, in haze."""

ROAD, FLAT, WALK, GRASS = -2, -3, -4, -5
"""What ``Hits.solid`` has for the ground: road, other flat (islands, forecourts), sidewalk (kerbs too), terrain."""
GROUND_CLASSES = {ROAD: "drivable surface", FLAT: "other flat", WALK: "sidewalk", GRASS: "terrain"}
KERB_FACE, TOP_FACE = 6, 5
"""Faces: the side of a kerb, and what lies flat."""


@dataclass(frozen=True)
class Crossing:
    """A road across the main one."""

    y: float
    half: float
    """Half its width, metres."""


@dataclass(frozen=True, eq=False)
class Roads:
    """Where which ground is. Metres."""

    bend_size: float
    bend_rate: float
    """The middle of the main road is at ``bend_size * (sin(bend_rate * y + bend_phase) - sin(bend_phase))``."""
    bend_phase: float
    lanes: int
    """Per direction."""
    lane: float
    """Width of a lane."""
    island: float
    """Width of the traffic island between the directions; 0 for a painted line."""
    parking: float
    """Width of the parking lane on each side; 0 for none."""
    walk: float
    """Width of sidewalks, their verge included."""
    verge: float
    """Width of the strip of grass between kerb and sidewalk; 0 for none."""
    corner: float
    """Radius of kerbs at crossings."""
    crossings: tuple[Crossing, ...]
    plot_ends: Float[np.ndarray, " P"]
    """Ends of the plots of land along y, ascending, the same on both sides."""
    plot_kinds: Int[np.ndarray, "2 P"]
    """FLAT, WALK or GRASS for each plot, on the left and on the right."""
    plot_depth: float
    """Plots reach so far from the sidewalk; grass is behind."""
    asphalt: Colour
    """Linear RGB of the road."""
    paving: Colour
    grass: Colour
    paint: Colour
    """Of the line between the directions."""
    worn: float
    """How far markings are worn off, 0 to 1."""

    @property
    def half(self) -> float:
        """Half the width of the main road."""
        return self.island / 2 + self.lanes * self.lane + self.parking

    def bend(self, y: np.ndarray | float) -> np.ndarray | float:
        """World x of the main road's middle."""
        return self.bend_size * (np.sin(self.bend_rate * np.asarray(y) + self.bend_phase) - np.sin(self.bend_phase))

    def slope(self, y: np.ndarray | float) -> np.ndarray | float:
        """Derivative of ``bend``."""
        return self.bend_size * self.bend_rate * np.cos(self.bend_rate * np.asarray(y) + self.bend_phase)

    def kind(self, x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        """ROAD, FLAT, WALK or GRASS at places in road coordinates."""
        side = np.abs(x) - self.half
        across = self.beside_crossing(y)
        plot = np.clip(np.searchsorted(self.plot_ends, y), 0, len(self.plot_ends) - 1)
        out = np.where(side < self.walk + self.plot_depth, self.plot_kinds[(x > 0).astype(np.int64), plot], GRASS)
        out[(side < self.walk) | (across < self.walk)] = WALK
        if self.verge:
            clear = self.walk + 2.0
            out[((side < self.verge) & (across > clear)) | ((across < self.verge) & (side > clear))] = GRASS
        a, b = self.corner - side, self.corner - across
        # A rounded kerb: the corner's square is road outside of the circle.
        cut = (a > 0) & (b > 0) & (a * a + b * b > self.corner * self.corner)
        out[(side < 0) | (across < 0) | cut] = ROAD
        if self.island:
            out[(np.abs(x) < self.island / 2) & (across > 6.0)] = FLAT
        return out

    def beside_crossing(self, y: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Distance along y to the nearest kerb of a crossing road, negative on it; 1000 if there is none."""
        out = np.full(np.shape(y), 1000.0)
        for crossing in self.crossings:
            out = np.minimum(out, np.abs(y - crossing.y) - crossing.half)
        return out


def trace_ground(roads: Roads, bundle: Bundle, hits: Hits) -> None:
    """Put the ground into ``hits``, where it is nearer than what is there."""
    per_eye = bundle.size[0] * bundle.size[1]
    for number, eye in enumerate(bundle.eyes):
        part = slice(number * per_eye, (number + 1) * per_eye)
        ray = bundle.rays[:, part].astype(np.float64)
        down = np.flatnonzero(ray[2] * FAR < -np.sqrt(ray[0] ** 2 + ray[1] ** 2) * (eye[2] - KERB))
        ray = ray[:, down]
        upper, lower = (KERB - eye[2]) / ray[2], -eye[2] / ray[2]

        def kind(t, eye=eye, ray=ray):
            y = eye[1] + t * ray[1]
            return roads.kind(eye[0] + t * ray[0] - roads.bend(y), y)

        top, bottom = kind(upper), kind(lower)
        on_top = top != ROAD
        t = np.where(on_top, upper, lower)
        found, face = np.where(on_top, top, ROAD), np.full(len(t), TOP_FACE, np.int8)
        # Over a road at the height of kerbs, and below something else where the road would be: a kerb is between.
        rows = np.flatnonzero(~on_top & (bottom != ROAD))
        if len(rows):
            over, below = upper[rows], lower[rows]
            for _ in range(10):
                middle = (over + below) / 2
                y = eye[1] + middle * ray[1, rows]
                still = roads.kind(eye[0] + middle * ray[0, rows] - roads.bend(y), y) == ROAD
                over, below = np.where(still, middle, over), np.where(still, below, middle)
            t[rows], found[rows], face[rows] = over, np.where(bottom[rows] == FLAT, FLAT, WALK), KERB_FACE
        rows = np.flatnonzero(t < hits.t[part][down])
        at = down[rows] + part.start
        hits.t[at], hits.solid[at], hits.face[at] = t[rows], found[rows], face[rows]


def ground_look(
    roads: Roads, x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"], kind: Int[np.ndarray, " N"]
) -> tuple[Float32[np.ndarray, "3 N"], Float32[np.ndarray, " N"]]:
    """Linear RGB of the ground at places of the world, and how much of a laser's light it sends back."""
    across = x - roads.bend(y)
    rough, fine = _noise(x, y, 9.0, 5), _noise(x, y, 1.3, 1)
    grain = (0.75 + 0.3 * rough + 0.2 * fine)[None]
    rgb = np.empty((3, len(x)))
    echo = np.empty(len(x))
    for code, colour, reflectance in (
        (ROAD, roads.asphalt, 0.16),
        (FLAT, tuple(0.5 * (a + b) for a, b in zip(roads.asphalt, roads.paving, strict=True)), 0.25),
        (WALK, roads.paving, 0.33),
        (GRASS, roads.grass, 0.42),
    ):
        at = np.flatnonzero(kind == code)
        rgb[:, at] = np.array(colour)[:, None] * grain[:, at]
        echo[at] = reflectance * (0.85 + 0.3 * fine[at])
    at = np.flatnonzero(kind == WALK)
    joint = (np.mod(across[at], 1.0) < 0.05) | (np.mod(y[at], 1.0) < 0.05)
    rgb[:, at] *= np.where(joint, 0.75, 1.0)
    at = np.flatnonzero(kind == GRASS)
    dry = np.clip(2.5 * rough[at] - 1.2, 0, 1)
    rgb[:, at] *= 0.65 + 0.7 * _noise(x[at], y[at], 3.1, 6)
    rgb[0, at] *= 1 + 0.7 * dry
    at = np.flatnonzero(kind == ROAD)
    painted, yellow = _markings(roads, across[at], y[at])
    share = np.where(painted, 1 - roads.worn * (0.3 + 0.7 * fine[at]), 0)
    paint = np.where(yellow, np.array(roads.paint)[:, None], np.full((3, 1), 0.75))
    rgb[:, at] += share * (paint - rgb[:, at])
    echo[at] += share * (0.6 - echo[at])
    return rgb.astype(np.float32), echo.astype(np.float32)


def _markings(roads: Roads, x, y):
    """Where the road is painted, and where in the colour of the line between the directions."""
    across = roads.beside_crossing(y)
    open_road, left = across > 5.0, np.abs(x)
    dash = np.mod(y, 9.0) < 3.0
    if roads.island:
        middle = open_road & (np.abs(left - roads.island / 2 - 0.2) < 0.07)
    else:
        middle = open_road & ((np.abs(left - 0.15) < 0.06) if roads.lanes > 1 else (left < 0.07) & dash)
    painted = middle.copy()
    for number in range(1, roads.lanes):
        painted |= open_road & dash & (np.abs(left - roads.island / 2 - number * roads.lane) < 0.07)
    edge = roads.half - roads.parking - (0.0 if roads.parking else 0.25)
    painted |= open_road & (np.abs(left - edge) < 0.06)
    if roads.parking:
        bay = np.mod(y, 6.5) < 0.1
        painted |= (across > 9.0) & bay & (left > edge)
    # Zebra crossings and stop lines on the main road, and on the crossing roads.
    stripes = np.mod(x, 1.0) < 0.5
    painted |= (across > 1.2) & (across < 4.0) & stripes & (left < roads.half - 0.2)
    painted |= (across > 5.0) & (across < 5.4) & (left < edge) & (x * _nearest(roads, y) > roads.island / 2)
    side = left - roads.half
    for crossing in roads.crossings:
        off = np.abs(y - crossing.y)
        painted |= (side > 5.0) & (off < 0.07) & (np.mod(x, 9.0) < 3.0)
        painted |= (side > 1.2) & (side < 4.0) & (off < crossing.half - 0.2) & (np.mod(y, 1.0) < 0.5)
        painted |= (side > 5.0) & (side < 5.4) & (off < crossing.half - 0.2) & (np.sign(x) * (y - crossing.y) > 0)
    return painted, middle


def _nearest(roads: Roads, y):
    """+1 before the nearest crossing, where those on the right stop, and -1 behind it."""
    out, best = np.ones(len(y)), np.full(len(y), np.inf)
    for crossing in roads.crossings:
        away = np.abs(y - crossing.y)
        out = np.where(away < best, np.sign(crossing.y - y), out)
        best = np.minimum(best, away)
    return out


def _noise(x, y, tile: float, row: int):
    """A pattern of ``materials`` laid on the world, one tile every ``tile`` metres; in [0, 1]."""
    scale = PATTERN_SIZE / tile
    u, v = (np.floor(a * scale).astype(np.int64) % PATTERN_SIZE for a in (x, y))
    bank = pattern_bank()[row]
    top = np.float32(1 / max(bank.max(), 1e-6))
    return bank[v, u] * top
