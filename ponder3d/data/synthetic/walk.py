"""Where the cameras are: a walk through the free space of a room, looking at what was not seen yet."""

import math

import numpy as np
from jaxtyping import Bool, Float

from ponder3d.data.synthetic.layout import overlaps
from ponder3d.data.synthetic.pieces import Draw, Placed
from ponder3d.data.synthetic.plan import Plan
from ponder3d.data.synthetic.tracing import Lens

MAX_TURN = math.radians(32)
"""Largest turn between consecutive views; half of the smallest field of view, so that they overlap."""

NUM_CANDIDATES = 32
"""Cameras compared for each view."""

VIEWS_PER_GOAL = 6
"""The walk makes for a far place for so many views, then for another."""

STEP = 0.5
"""Longest step between consecutive views in metres."""

CLEARANCE = 0.25
"""Distance in metres that a camera keeps from walls and from furniture that reaches up to it."""


def walk(draw: Draw, plan: Plan, placed: list[Placed], num_views: int, size: tuple[int, int]) -> Lens:
    """Cameras of one room: eye height, targets on the furniture, mild pitch, small roll, one focal length."""
    height, width = size
    focal = width / 2 / math.tan(math.radians(draw.uniform(60.0, 75.0)) / 2)
    intrinsics = np.eye(3)
    intrinsics[0, 0] = intrinsics[1, 1] = focal
    intrinsics[0, 2] = (width - 1) / 2 + draw.uniform(-0.01, 0.01) * width
    intrinsics[1, 2] = (height - 1) / 2 + draw.uniform(-0.01, 0.01) * height
    half_view = 0.85 * math.atan(width / 2 / focal)
    sights = _Sights(placed, draw)
    eye, yaw, poses = _free_places(draw, plan, placed)[0], draw.uniform(-math.pi, math.pi), []
    goal = eye
    for view in range(num_views):
        if view % VIEWS_PER_GOAL == 0:
            places = _free_places(draw, plan, placed)
            goal = places[np.argmax(np.hypot(*(places - eye)[:, :2].T) * draw.rng.uniform(0.5, 1, len(places)))]
        steps = _steps(draw, plan, placed, eye)
        eyes = steps[draw.rng.integers(0, len(steps), NUM_CANDIDATES)]
        turn = MAX_TURN if view else math.pi
        yaws = yaw + draw.rng.uniform(-turn, turn, NUM_CANDIDATES)
        progress = math.dist(eye[:2], goal[:2]) - np.hypot(*(eyes - goal)[:, :2].T)
        worth = sights.interest(plan, eyes, yaws, half_view) * np.exp(1.5 * progress / STEP)
        best = int(np.argmax(worth))
        eye, yaw = eyes[best], float(yaws[best])
        aim = sights.look(eye, yaw, half_view)
        # One view in ten looks higher than what is worth seeing: otherwise ceilings would be 0.05 % of all pixels.
        aim += draw.uniform(0.1, 0.45) if draw.chance(0.1) else draw.uniform(-0.25, 0.08)
        pitch = max(math.radians(-35), min(math.radians(15), aim))
        poses.append(pose(eye, yaw, pitch, draw.uniform(-0.05, 0.05)))
    return Lens(np.repeat(intrinsics[None], num_views, 0), np.stack(poses), size)


_ON_WALLS = ("door", "window", "picture", "curtain", "mirror")
"""Seen anyway, behind the furniture; as targets they would fill half of the images with wall."""


class _Sights:
    """Places worth looking at, three on every piece; those seen often count less."""

    def __init__(self, placed: list[Placed], draw: Draw):
        places, weights = [], []
        for p in placed:
            depth, width, height = p.piece.size
            for left in (-0.35, 0.0, 0.35):
                x, y = p.world(draw.uniform(-0.3, 0.3) * depth, left * width)
                places.append((float(x), float(y), p.z + p.piece.lift + 0.5 * height))
                weight = (max(depth, width) * max(height, min(depth, width))) ** 0.5
                weights.append(weight * (0.15 if p.piece.label in _ON_WALLS else 1.0))
        self.places = np.array(places)
        self.weights = np.array(weights)
        self.seen = np.zeros(len(places))

    def interest(
        self, plan: Plan, eyes: Float[np.ndarray, "T 3"], yaws: Float[np.ndarray, " T"], half_view: float
    ) -> Float[np.ndarray, " T"]:
        """How much there is to see from each of several cameras at a good distance; little where one faces a wall."""
        distance, inside = self._view(eyes, yaws, half_view)
        good = inside & (distance > 1.0) & (distance < 4.5)
        worth = (good * (self.weights / (1 + self.seen) ** 1.5)).sum(1)
        crowded = (inside & (distance < 0.8) & (self.places[:, 2] > eyes[:, 2:] - 0.5)).sum(1)
        ahead = np.stack([np.cos(yaws), np.sin(yaws)], axis=1)
        reach = [plan.contains(eyes[:, :2] + ahead * far) for far in (1.2, 1.8, 2.4)]
        return (worth + 0.01) * (0.2 + sum(r.astype(float) for r in reach)) / (1 + crowded)

    def look(self, eye: Float[np.ndarray, "3"], yaw: float, half_view: float) -> float:
        """Pitch towards the middle of what a camera sees; remembers that it was seen."""
        distance, inside = self._view(eye[None], np.array([yaw]), half_view)
        inside = inside[0] & (distance[0] > 0.8) & (distance[0] < 4.5)
        if not inside.any():
            return -0.2
        slopes = np.arctan2(self.places[inside, 2] - eye[2], distance[0][inside])
        weights = self.weights[inside] / (1 + self.seen[inside])
        self.seen[inside] += 1
        return float((slopes * weights).sum() / weights.sum())

    def _view(self, eyes, yaws, half_view):
        """Horizontal distance from each camera to each place, and whether it is within the field of view."""
        dx, dy = self.places[:, 0] - eyes[:, :1], self.places[:, 1] - eyes[:, 1:2]
        off = np.abs((np.arctan2(dy, dx) - yaws[:, None] + math.pi) % (2 * math.pi) - math.pi)
        return np.hypot(dx, dy), off < half_view


def pose(eye: Float[np.ndarray, "3"], yaw: float, pitch: float, roll: float) -> Float[np.ndarray, "4 4"]:
    """World from camera. ``yaw`` turns +x towards +y, positive ``pitch`` looks up, ``roll`` is about the view axis."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    forward = np.array([cy * cp, sy * cp, sp])
    right = np.array([sy, -cy, 0.0])
    down = np.cross(forward, right)
    matrix = np.eye(4)
    matrix[:3, 0] = math.cos(roll) * right + math.sin(roll) * down
    matrix[:3, 1] = math.cos(roll) * down - math.sin(roll) * right
    matrix[:3, 2] = forward
    matrix[:3, 3] = eye
    return matrix


def is_free(
    plan: Plan, placed: list[Placed], eyes: Float[np.ndarray, "T 3"], clearance: float = CLEARANCE
) -> Bool[np.ndarray, " T"]:
    """Which places are inside the room and not in or close to furniture."""
    good = plan.contains(eyes[:, :2], clearance)
    rows = np.array([(p.x, p.y, p.yaw, p.piece.size[0] / 2, p.piece.size[1] / 2) for p in placed])
    low = np.array([p.z + p.piece.lift for p in placed])
    high = np.array([p.top for p in placed])
    poses = np.concatenate([eyes[:, :2], np.zeros((len(eyes), 1))], axis=1)
    near = overlaps(poses, np.array([clearance, clearance]), rows)
    level = (eyes[:, 2:] > low - clearance) & (eyes[:, 2:] < high + clearance)
    return good & ~(near & level).any(1)


def _free_places(draw: Draw, plan: Plan, placed: list[Placed]) -> Float[np.ndarray, "T 3"]:
    """Places where a camera may be; in a room that is full, places closer to the furniture."""
    spread = np.array([*plan.size, 1.0])
    eyes = draw.rng.uniform(-0.5, 0.5, (256, 3)) * spread + np.array([0.0, 0.0, 1.4])
    for clearance in (CLEARANCE, 0.12, 0.02):
        good = is_free(plan, placed, eyes, clearance)
        if good.any():
            return eyes[good]
    raise RuntimeError("a generated room has no free place for a camera")


def _steps(draw: Draw, plan: Plan, placed: list[Placed], eye: Float[np.ndarray, "3"]) -> Float[np.ndarray, "T 3"]:
    """Free places nearby that are free half-way too; the same place if there are none."""
    angle, reach = draw.rng.uniform(-math.pi, math.pi, 24), draw.rng.uniform(0.1, STEP, 24)
    height = np.clip(eye[2] + draw.rng.uniform(-0.2, 0.2, 24), 0.9, 1.9)
    steps = np.stack([eye[0] + reach * np.cos(angle), eye[1] + reach * np.sin(angle), height], axis=1)
    good = is_free(plan, placed, steps) & is_free(plan, placed, (steps + eye) / 2)
    return steps[good] if good.any() else eye[None]
