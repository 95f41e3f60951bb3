"""Things in streets: where each stands or how it moves, and a site that keeps them from running into each other."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ponder3d.data.synthetic.pieces import Draw, Piece
from ponder3d.data.synthetic.street_ground import KERB, ROAD, Roads

FORWARD, BACKWARD, LEFT, RIGHT = math.pi / 2, -math.pi / 2, math.pi, 0.0
"""Headings in road coordinates, radians from the road's x axis towards its y axis."""

EGO_LENGTH, EGO_WIDTH = 4.6, 1.9
"""Of the vehicle with the sensors, metres."""


@dataclass(frozen=True)
class Thing:
    """A piece in road coordinates (``street_ground``), which moves at constant velocity in them."""

    piece: Piece
    x: float
    """At time 0, metres."""
    y: float
    z: float
    heading: float
    """Of the piece's front, radians."""
    velocity: tuple[float, float] = (0.0, 0.0)
    """Metres per second."""
    bends: bool = True
    """Whether it turns with the main road."""


@dataclass(frozen=True)
class Ego:
    """The way of the vehicle with the sensors: along a lane, swaying a little."""

    lane: float
    """Middle of its lane, road coordinates."""
    speed: float
    """Metres per second along y."""
    sway: float
    """Metres to either side."""
    rate: float
    """Of the swaying, radians per second."""
    phase: float

    def place(self, seconds: float) -> tuple[float, float, float]:
        """Road coordinates, and the angle to the road, counter-clockwise."""
        angle = self.rate * seconds + self.phase
        aside = self.sway * self.rate * math.cos(angle)
        return self.lane + self.sway * math.sin(angle), self.speed * seconds, -math.atan2(aside, self.speed)


class Site:
    """Takes things while none of them would meet another, or the ego vehicle, within the time of the drive."""

    def __init__(self, draw: Draw, roads: Roads, ego: Ego, seconds: float):
        self.draw = draw
        self.roads = roads
        self.ego = ego
        self.seconds = seconds
        self.length = ego.speed * seconds
        self.things: list[Thing] = []
        self._rects = np.array([(ego.lane, 0.0, EGO_WIDTH / 2 + ego.sway + 0.3, EGO_LENGTH / 2 + 1.5, 0.0, ego.speed)])

    def add(
        self,
        piece: Piece,
        x: float,
        y: float,
        heading: float,
        velocity: tuple[float, float] = (0.0, 0.0),
        bends: bool = True,
        margin: float = 0.2,
        footprint: tuple[float, float] | None = None,
    ) -> bool:
        """Put a piece somewhere unless it is in the way of something.

        Args:
            piece: the piece.
            x: across the road.
            y: along it.
            heading: of its front.
            velocity: of it.
            bends: whether it turns with the main road.
            margin: metres to keep from other things.
            footprint: length and width of what must stay free; those of the piece if None.

        Returns:
            Whether it is there now.
        """
        return self.add_all([(piece, x, y)], heading, velocity, bends, margin, footprint)

    def add_all(self, pieces, heading, velocity=(0.0, 0.0), bends=True, margin=0.2, footprint=None) -> bool:
        """Several pieces with places, with one heading and velocity, which may touch each other: all or none."""
        rects = []
        for piece, x, y in pieces:
            depth, width = footprint or piece.size[:2]
            cos, sin = abs(math.cos(heading)), abs(math.sin(heading))
            half = (cos * depth + sin * width) / 2, (sin * depth + cos * width) / 2
            rects.append((x, y, half[0] + margin, half[1] + margin, *velocity))
        if any(self._meets(rect) for rect in rects):
            return False
        self._rects = np.concatenate([self._rects, rects])
        for piece, x, y in pieces:
            kind = self.roads.kind(np.array([x]), np.array([y]))[0]
            self.things.append(Thing(piece, x, y, 0.0 if kind == ROAD else KERB, heading, velocity, bends))
        return True

    def _meets(self, rect: tuple[float, ...]) -> bool:
        others = self._rects
        first, last = np.zeros(len(others)), np.full(len(others), self.seconds)
        for axis in (0, 1):
            away, reach = others[:, axis] - rect[axis], others[:, 2 + axis] + rect[2 + axis]
            speed = others[:, 4 + axis] - rect[4 + axis]
            speed = np.where(np.abs(speed) < 1e-9, 1e-9, speed)
            a, b = (-reach - away) / speed, (reach - away) / speed
            first, last = np.maximum(first, np.minimum(a, b)), np.minimum(last, np.maximum(a, b))
        return bool((first <= last).any())


def poses(
    things: list[Thing], roads: Roads, seconds: float
) -> tuple[Float[np.ndarray, "T 4"], Float[np.ndarray, "T 2"]]:
    """World x, y, z and yaw of things at a time, and their velocities in world x and y."""
    column = np.array([(t.x, t.y, t.z, t.heading, *t.velocity, t.bends) for t in things]).reshape(-1, 7).T
    x, y = column[0] + seconds * column[4], column[1] + seconds * column[5]
    # What drives along a crossing road keeps to its straight line, wherever the main road's middle is.
    yaw = column[3] - np.where(column[6] > 0, np.arctan(roads.slope(y)), 0)
    world = np.stack([x + roads.bend(y), y, column[2], yaw], axis=1)
    return world, np.stack([column[4] + roads.slope(y) * column[5], column[5]], axis=1)


def ego_pose(ego: Ego, roads: Roads, seconds: float) -> Float[np.ndarray, "4 4"]:
    """World from the ego vehicle: x right, y forward, z up, origin on the ground below the laser."""
    x, y, angle = ego.place(seconds)
    turn = angle - math.atan(float(roads.slope(y)))
    pose = np.eye(4)
    pose[:2, :2] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    pose[:2, 3] = x + float(roads.bend(y)), y
    return pose
