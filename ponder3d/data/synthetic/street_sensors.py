"""What a laser and six cameras on a vehicle measure in a generated street.

The laser turns 1.84 m above the ground; its frame has x right, y forward, z up. The cameras are placed as on nuScenes'
vehicles: five of 70 degrees and one of 110 degrees to the back, which overlap.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32, Int, Int8, UInt8, UInt16

from ponder3d.config import Config
from ponder3d.data.driving.classes import DETECTION_LABELS, STREET_LABELS
from ponder3d.data.synthetic.pieces import Draw
from ponder3d.data.synthetic.sensor import SensorConfig, colour_image
from ponder3d.data.synthetic.street_ground import GROUND_CLASSES, KERB_FACE, ground_look, trace_ground
from ponder3d.data.synthetic.street_layout import draw_street
from ponder3d.data.synthetic.street_light import (
    Skins,
    Weather,
    albedo,
    draw_weather,
    shadows,
    shine,
    sky,
    surface,
)
from ponder3d.data.synthetic.street_site import Site, ego_pose, poses
from ponder3d.data.synthetic.street_tracing import Bundle, Hits, Shapes, camera_bundle, trace, turning_rects
from ponder3d.data.synthetic.tracing import Lens, corner_rects

LASER_HEIGHT = 1.84
"""Metres above the ground."""
LOWEST, HIGHEST = math.radians(-30.67), math.radians(10.67)
"""Elevations of the lowest and the highest beam, as of the HDL-32E."""
RANGE_STEP = 0.002
"""Ranges are kept in this many metres."""
CAMERAS = {
    "front": (0.0, 0.75, -0.33, 0.0, 70.0),
    "front right": (0.49, 0.6, -0.34, 56.0, 70.0),
    "back right": (0.48, 0.07, -0.28, 110.0, 70.0),
    "back": (0.0, -0.9, -0.26, 180.0, 110.0),
    "back left": (-0.48, 0.07, -0.28, -110.0, 70.0),
    "front left": (-0.49, 0.6, -0.33, -56.0, 70.0),
}
"""Place in the laser's frame in metres, degrees clockwise from forward, and horizontal field of view in degrees."""
LOOK = SensorConfig(colour_noise=0.012, exposure=0.15, white_balance=0.04)
"""How the images are exposed; depth has no part in it."""


@dataclass(frozen=True)
class LaserConfig(Config):
    """The turning laser; its defaults are about those of nuScenes."""

    beams: int = 32
    """Evenly from 30.67 degrees below to 10.67 degrees above the horizon."""
    azimuths: int = 1080
    """Shots of each beam per revolution."""
    noise: float = 0.02
    """Standard deviation of ranges, metres."""
    dropout: float = 0.02
    """Share of echoes that are lost wherever they come from; more are lost from far, dark and slanted surfaces."""
    reach: float = 70.0
    """Metres beyond which there is no echo."""

    def __post_init__(self):
        for name, fits, allowed in (
            ("beams", 1 <= self.beams <= 256, "from 1 to 256"),
            ("azimuths", 8 <= self.azimuths <= 8192, "from 8 to 8192"),
            ("noise", 0 <= self.noise <= 1, "from 0 to 1"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and below 1"),
            ("reach", 2 <= self.reach <= 130, "from 2 to 130"),
        ):
            if not fits:
                raise ValueError(f"LaserConfig.{name} must be {allowed}, it is {getattr(self, name)}")

    @cached_property
    def elevations(self) -> Float[np.ndarray, " B"]:
        """Of the beams, radians, ascending."""
        return np.linspace(LOWEST, HIGHEST, self.beams)

    @cached_property
    def directions(self) -> Float32[np.ndarray, "3 BA"]:
        """Unit directions in the laser's frame, beam by beam; azimuths counter-clockwise from +x."""
        azimuth = np.arange(self.azimuths) * (2 * np.pi / self.azimuths)
        up = self.elevations[:, None]
        parts = (
            np.cos(up) * np.cos(azimuth),
            np.cos(up) * np.sin(azimuth),
            np.broadcast_to(np.sin(up), (self.beams, self.azimuths)),
        )
        return np.stack([part.reshape(-1) for part in parts]).astype(np.float32)


@dataclass(frozen=True)
class PackedSweep:
    """One revolution in the precision in which it is stored."""

    pose: Float[np.ndarray, "4 4"]
    """World from the laser."""
    steps: UInt16[np.ndarray, " BA"]
    """Range in ``RANGE_STEP``; 0 where nothing came back."""
    intensity: UInt8[np.ndarray, " BA"]
    labels: Int8[np.ndarray, " BA"]
    boxes: Float32[np.ndarray, "K 9"]
    """Centre, size, yaw and velocity of the things of the ten classes that have points, in the laser's frame."""
    box_labels: Int8[np.ndarray, " K"]
    box_points: Int[np.ndarray, " K"]
    """Number of points of each."""


@dataclass(frozen=True)
class PackedShots:
    """The images of all cameras at one instant, in the precision in which they are stored."""

    pose: Float[np.ndarray, "4 4"]
    """World from the laser."""
    rgb: UInt8[np.ndarray, "C H W 3"]
    depth: UInt16[np.ndarray, "C H W"]
    """Plane depth in centimetres; 0 for the sky and beyond 655 m."""


@dataclass(frozen=True, eq=False)
class Town:
    """A street before anything is measured in it."""

    site: Site
    weather: Weather
    shapes: Shapes
    """Solids in the frames of the things they belong to."""
    skins: Skins
    thing: Int[np.ndarray, " S"]
    """Row of ``site.things`` of each solid."""
    classes: Int8[np.ndarray, " S"]
    box: Float[np.ndarray, "T 6"]
    """Centre and size of each thing in its own frame."""
    detection: Int[np.ndarray, " T"]
    """Row of ``DETECTION_LABELS``; -1 for what has no box."""


def make_town(rng: np.random.Generator, seconds: float, style: str) -> Town:
    """A street for a drive of so many seconds."""
    draw = Draw(rng)
    site = draw_street(draw, seconds)
    solids, thing = [], []
    box = np.zeros((len(site.things), 6))
    for row, placed in enumerate(site.things):
        solids += placed.piece.solids
        thing += [row] * len(placed.piece.solids)
        piece = placed.piece
        box[row] = (0, 0, piece.lift + piece.size[2] / 2, *piece.size)
    labels = [placed.piece.label for placed in site.things]
    classes = np.array([STREET_LABELS.names.index(label) for label in labels], np.int8)
    names = DETECTION_LABELS.names
    return Town(
        site=site,
        weather=draw_weather(draw, style),
        shapes=Shapes.of(solids),
        skins=Skins.of([solid.material for solid in solids], rng),  # type: ignore[arg-type]
        thing=np.array(thing),
        classes=classes[np.array(thing)],
        box=box,
        detection=np.array([names.index(label) if label in names else -1 for label in labels]),
    )


def instant(town: Town, seconds: float) -> Shapes:
    """The solids in the world at a time."""
    world, _ = poses(town.site.things, town.site.roads, seconds)
    place = world[town.thing]
    cos, sin = np.cos(place[:, 3]), np.sin(place[:, 3])
    x, y, z = town.shapes.centre.T
    centre = np.stack([cos * x - sin * y + place[:, 0], sin * x + cos * y + place[:, 1], z + place[:, 2]], axis=1)
    old = town.shapes.rotation
    cos, sin = cos[:, None], sin[:, None]
    rotation = np.stack([cos * old[:, 0] - sin * old[:, 1], sin * old[:, 0] + cos * old[:, 1], old[:, 2]], axis=1)
    return replace(town.shapes, centre=centre, rotation=rotation)


def laser_pose(town: Town, seconds: float) -> Float[np.ndarray, "4 4"]:
    """World from the laser."""
    pose = ego_pose(town.site.ego, town.site.roads, seconds)
    pose[2, 3] = LASER_HEIGHT
    return pose


def lenses(world_from_laser: Float[np.ndarray, "4 4"], size: tuple[int, int]) -> dict[str, Lens]:
    """A lens with one view for each camera."""
    out = {}
    for name, (x, y, z, clockwise, field) in CAMERAS.items():
        angle = math.radians(clockwise)
        cos, sin = math.cos(angle), math.sin(angle)
        pose = np.eye(4)
        # Columns: the image's right, down and forward.
        pose[:3, :3] = np.array([[cos, -sin, 0.0], [0.0, 0.0, -1.0], [sin, cos, 0.0]]).T
        pose[:3, 3] = x, y, z
        focal = size[1] / 2 / math.tan(math.radians(field) / 2)
        matrix = np.array([[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1.0]])
        turned = np.eye(4)
        turned[:3, :3] = sum(world_from_laser[:3, k, None] * pose[None, k, :3] for k in range(3))
        turned[:3, 3] = world_from_laser[:3, 3] + sum(world_from_laser[:3, k] * pose[k, 3] for k in range(3))
        out[name] = Lens(matrix[None], turned[None], size)
    return out


def measure(town: Town, laser: LaserConfig, seconds: float, rng: np.random.Generator) -> PackedSweep:
    """One revolution of the laser, all at one instant."""
    shapes, pose = instant(town, seconds), laser_pose(town, seconds)
    eye = pose[:3, 3]
    local = laser.directions
    rays = sum(pose[:3, k, None].astype(np.float32) * local[k] for k in range(3))
    bundle = Bundle(eye[None], np.ascontiguousarray(rays), (laser.beams, laser.azimuths))
    hits = nothing(bundle)
    trace_ground(town.site.roads, bundle, hits)
    start = math.atan2(pose[1, 0], pose[0, 0])
    trace(shapes, bundle, turning_rects(shapes, eye, laser.elevations, laser.azimuths, start, laser.reach), hits)
    rows = np.flatnonzero(hits.t <= laser.reach)
    t, solid, face, ray = hits.t[rows], hits.solid[rows], hits.face[rows], bundle.rays[:, rows]
    at = eye[:, None] + t.astype(np.float64) * ray
    ground = solid < 0
    normal = np.zeros((len(rows), 3), np.float32)
    echo, lost, depth = (np.zeros(len(rows), np.float32) for _ in range(3))
    on = np.flatnonzero(~ground)
    inside, own, normal[on] = surface(shapes, solid[on], face[on], at[:, on].T)
    _, window = albedo(town.skins, shapes.half, solid[on], inside, own)
    echo[on] = np.where(window, 0.1, town.skins.reflectance[solid[on]])
    lost[on] = np.where(window, 0.5, town.skins.dropout[solid[on]])
    depth[on] = town.skins.porosity[solid[on]]
    on = np.flatnonzero(ground)
    normal[on] = ground_normal(face[on], ray[:, on])
    _, echo[on] = ground_look(town.site.roads, at[0, on], at[1, on], solid[on])
    facing = np.abs((normal.T * ray).sum(0))
    # What comes back falls with the square of the distance and with the angle; far, slanted and dark is lost first.
    strength = echo * (0.1 + 0.9 * facing) * (np.float32(laser.reach) / np.maximum(t, 1)) ** 2
    chance = rng.random((2, len(rows)), dtype=np.float32)
    back = (chance[0] > lost) & (chance[1] < (1 - np.float32(laser.dropout)) * (1 - np.exp(strength / -0.07)))
    noise = rng.standard_normal((2, len(rows)), dtype=np.float32)
    beyond = depth * np.minimum(rng.standard_exponential(len(rows), dtype=np.float32), 3)
    measured = t + np.float32(laser.noise) * noise[0] + beyond
    bright = echo * (0.2 + 0.8 * facing) / (1 + (t / 60) ** 2) * (1 + 0.08 * noise[1])
    steps = np.rint(measured / np.float32(RANGE_STEP))
    back &= (steps > 0) & (measured <= laser.reach)
    kept = rows[back]
    count = laser.beams * laser.azimuths
    packed = np.zeros(count, np.uint16), np.zeros(count, np.uint8), np.full(count, -1, np.int8)
    packed[0][kept] = steps[back].astype(np.uint16)
    packed[1][kept] = np.rint(np.clip(bright[back], 0, 1) * 255).astype(np.uint8)
    packed[2][kept] = classes_of(town, solid[back])
    seen = town.thing[solid[back & ~ground]]
    return PackedSweep(pose, *packed, *_boxes(town, pose, seconds, np.bincount(seen, minlength=len(town.detection))))


def photograph(town: Town, size: tuple[int, int], seconds: float, rng: np.random.Generator) -> PackedShots:
    """The images of all cameras at one instant."""
    shapes, pose = instant(town, seconds), laser_pose(town, seconds)
    each = list(lenses(pose, size).values())
    lens = Lens(
        np.concatenate([one.intrinsics for one in each]), np.concatenate([one.world_from_cam for one in each]), size
    )
    bundle = camera_bundle(lens)
    hits = nothing(bundle)
    trace_ground(town.site.roads, bundle, hits)
    trace(shapes, bundle, corner_rects(shapes.corners(), lens), hits)
    linear = _colours(town, shapes, bundle, hits).reshape(3, len(each), *size)
    return PackedShots(
        pose=pose,
        rgb=np.stack([colour_image(np.ascontiguousarray(linear[:, i]), LOOK, rng) for i in range(len(each))]),
        depth=np.where(hits.t < 655, np.rint(hits.t * 100), 0).astype(np.uint16).reshape(len(each), *size),
    )


def nothing(bundle: Bundle) -> Hits:
    """Hits of rays before anything is traced."""
    number = bundle.rays.shape[1]
    return Hits(np.full(number, np.inf, np.float32), np.full(number, -1, np.int64), np.zeros(number, np.int8))


def classes_of(town: Town, solid: Int[np.ndarray, " N"]) -> Int8[np.ndarray, " N"]:
    """Row of ``STREET_LABELS`` of what was hit; -1 for nothing."""
    out = town.classes[np.maximum(solid, 0)]
    for code, name in GROUND_CLASSES.items():
        out[solid == code] = STREET_LABELS.names.index(name)
    out[solid == -1] = -1
    return out


def ground_normal(face: Int8[np.ndarray, " N"], ray: Float32[np.ndarray, "3 N"]) -> Float32[np.ndarray, "N 3"]:
    """Upwards, or towards where the ray comes from for the side of a kerb."""
    out = np.zeros((len(face), 3), np.float32)
    out[:, 2] = 1
    rows = np.flatnonzero(face == KERB_FACE)
    flat = -ray[:2, rows] / np.sqrt((ray[:2, rows] ** 2).sum(0) + np.float32(1e-12))
    out[rows, :2], out[rows, 2] = flat.T, 0
    return out


def _colours(town: Town, shapes: Shapes, bundle: Bundle, hits: Hits) -> Float32[np.ndarray, "3 N"]:
    """Linear RGB along every ray."""
    count = bundle.rays.shape[1]
    length = np.sqrt((bundle.rays**2).sum(0))
    ray = bundle.rays / length
    out = np.empty((3, count), np.float32)
    rows = np.flatnonzero(~np.isfinite(hits.t))
    out[:, rows] = sky(town.weather, ray[:, rows])
    rows = np.flatnonzero(np.isfinite(hits.t))
    eyes = np.repeat(bundle.eyes, bundle.size[0] * bundle.size[1], axis=0)[rows]
    solid, face = hits.solid[rows], hits.face[rows]
    distance = hits.t[rows] * length[rows]
    at = eyes.T + distance.astype(np.float64) * ray[:, rows]
    rgb, normal = np.zeros((3, len(rows)), np.float32), np.zeros((len(rows), 3), np.float32)
    gloss, emission = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.float32)
    on = np.flatnonzero(solid >= 0)
    local, own, normal[on] = surface(shapes, solid[on], face[on], at[:, on].T)
    rgb[:, on], window = albedo(town.skins, shapes.half, solid[on], local, own)
    gloss[on] = np.where(window, 0.9, town.skins.gloss[solid[on]])
    emission[on] = town.skins.emission[solid[on]]
    on = np.flatnonzero(solid < 0)
    normal[on] = ground_normal(face[on], ray[:, rows[on]])
    rgb[:, on], _ = ground_look(town.site.roads, at[0, on], at[1, on], solid[on])
    facing = (normal * np.array(town.weather.sun, np.float32)).sum(1)
    lit = facing > 0
    near = np.flatnonzero(lit & (distance < 90))
    if len(near):
        lit[near] = ~shadows(shapes, town.weather.sun, at[:, near].T + 0.02 * normal[near])
    out[:, rows] = shine(
        town.weather, ray[:, rows], distance, rgb, np.ascontiguousarray(normal.T), lit, gloss, emission
    )
    return out


def _boxes(town: Town, pose, seconds: float, number: Int[np.ndarray, " T"]):
    """Boxes of the ten classes that have points, in the laser's frame, their classes, and how many points they have."""
    rows = np.flatnonzero((town.detection >= 0) & (number > 0))
    world, velocity = (part[rows] for part in poses(town.site.things, town.site.roads, seconds))
    cos, sin = np.cos(world[:, 3]), np.sin(world[:, 3])
    x, y, z = town.box[rows, :3].T
    centre = np.stack([cos * x - sin * y + world[:, 0], sin * x + cos * y + world[:, 1], z + world[:, 2]], axis=1)
    away = centre - pose[:3, 3]
    boxes = np.empty((len(rows), 9))
    for k in range(3):
        boxes[:, k] = (away * pose[:3, k]).sum(1)
    boxes[:, 3:6] = town.box[rows, 3:]
    turn = world[:, 3] - math.atan2(pose[1, 0], pose[0, 0])
    boxes[:, 6] = (turn + np.pi) % (2 * np.pi) - np.pi
    for k in range(2):
        boxes[:, 7 + k] = (velocity * pose[:2, k]).sum(1)
    return boxes.astype(np.float32), town.detection[rows].astype(np.int8), number[rows].astype(np.int32)
