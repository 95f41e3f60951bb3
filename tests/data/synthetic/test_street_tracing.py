"""Rays of a laser and of cameras against a solid, kerbs and the sun, by hand, and against the tracer of rooms."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ponder3d.data.driving.classes import STREET_LABELS
from ponder3d.data.synthetic import tracing
from ponder3d.data.synthetic.pieces import Draw
from ponder3d.data.synthetic.solids import Solid, bevelled, box, cushion, cylinder, ellipsoid, frustum, rotation
from ponder3d.data.synthetic.street_ground import (
    FLAT,
    GRASS,
    GROUND_CLASSES,
    KERB,
    KERB_FACE,
    ROAD,
    TOP_FACE,
    WALK,
    Crossing,
    Roads,
    trace_ground,
)
from ponder3d.data.synthetic.street_layout import draw_roads
from ponder3d.data.synthetic.street_light import shadows
from ponder3d.data.synthetic.street_sensors import LaserConfig, nothing
from ponder3d.data.synthetic.street_skins import skin
from ponder3d.data.synthetic.street_tracing import Bundle, Shapes, camera_bundle, trace, turning_rects
from ponder3d.data.synthetic.street_vehicles import slanted

ROADS = replace(
    draw_roads(Draw(np.random.default_rng(0)), 20.0),
    bend_size=0.0,
    lanes=1,
    lane=3.5,
    island=0.0,
    parking=0.0,
    walk=2.0,
    verge=0.0,
    corner=4.0,
    crossings=(Crossing(50.0, 4.0),),
    plot_ends=np.array([0.0, 1000.0]),
    plot_kinds=np.array([[FLAT, FLAT], [GRASS, GRASS]]),
    plot_depth=20.0,
)
"""A road of 3.5 m on either side of x = 0, sidewalks of 2 m, paved on the left, grass on the right."""


@pytest.fixture
def material():
    return skin(Draw(np.random.default_rng(0)), (0.5, 0.5, 0.5))


def laser_bundle(eye, laser: LaserConfig, start: float = 0.0) -> Bundle:
    turn = rotation("z", start).astype(np.float32)
    rays = sum(turn[:, k, None] * laser.directions[k] for k in range(3))
    return Bundle(np.array([eye], np.float64), np.ascontiguousarray(rays), (laser.beams, laser.azimuths))


def one_ray(eye, towards) -> Bundle:
    ray = np.array(towards, np.float32) / np.float32(np.linalg.norm(towards))
    return Bundle(np.array([eye], np.float64), ray[:, None], (1, 1))


def everywhere(number: int, size: tuple[int, int]) -> np.ndarray:
    return np.broadcast_to(np.array([0, size[0], 0, size[1]]), (number, 1, 4))


def some_solids(material, number: int = 60) -> list[Solid]:
    """Solids of every shape that streets have, around the origin."""
    rng = np.random.default_rng(3)
    out = []
    for i in range(number):
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(3, 30)
        place = (away * math.cos(angle), away * math.sin(angle), rng.uniform(-1, 2))
        size = tuple(rng.uniform(0.2, 4, 3))
        turn = rotation("z", rng.uniform(-3, 3)) @ rotation("y", rng.uniform(-1, 1))
        make = (box, ellipsoid, cushion, cylinder, bevelled, frustum, slanted)[i % 7]
        if make is bevelled:
            out.append(bevelled(material, place, size, 0.1, turn, "yz"))
        elif make is frustum:
            out.append(frustum(material, place, size, 1.0, rng.choice([0.0, 0.6]), "z"))
        elif make is cylinder:
            out.append(cylinder(material, place, size, "y"))
        elif make is slanted:
            out.append(slanted(material, place, size, 0.3 * size[0], 0.1 * size[0]))
        else:
            out.append(make(material, place, size, turn))
    return out


def test_one_box_by_hand(material):
    shapes = Shapes.of([box(material, (10.0, 0.0, 1.0), (2.0, 2.0, 2.0))])
    laser = LaserConfig(beams=1, azimuths=8, noise=0.0)
    bundle = replace(
        laser_bundle((0, 0, 1), laser),
        rays=np.float32([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4), np.zeros(8)]),
    )
    hits = nothing(bundle)
    trace(shapes, bundle, turning_rects(shapes, np.array([0, 0, 1.0]), np.zeros(1), 8, 0.0, 70.0), hits)
    assert hits.t[0] == pytest.approx(9.0) and hits.solid[0] == 0 and hits.face[0] == 0
    assert np.isinf(hits.t[1:]).all() and (hits.solid[1:] == -1).all()
    # Out of reach, and not nearer than what is there already.
    hits = nothing(bundle)
    trace(shapes, bundle, turning_rects(shapes, np.array([0, 0, 1.0]), np.zeros(1), 8, 0.0, 8.0), hits)
    assert np.isinf(hits.t).all()
    hits.t[0] = 5.0
    trace(shapes, bundle, everywhere(1, (1, 8)), hits)
    assert hits.t[0] == 5.0 and hits.solid[0] == -1


@pytest.mark.parametrize("start", [0.0, 2.5])
def test_a_laser_tests_all_rays_that_may_hit(material, start):
    shapes = Shapes.of(some_solids(material))
    laser = LaserConfig(beams=32, azimuths=240)
    eye = np.array([0.0, 0.0, 1.84])
    bundle = laser_bundle(eye, laser, start)
    few, all_rays = nothing(bundle), nothing(bundle)
    rects = turning_rects(shapes, eye, laser.elevations, laser.azimuths, start, 70.0)
    trace(shapes, bundle, rects, few)
    trace(shapes, bundle, everywhere(len(shapes.half), bundle.size), all_rays)
    np.testing.assert_array_equal(few.t, all_rays.t)
    np.testing.assert_array_equal(few.solid, all_rays.solid)
    assert 1000 < np.isfinite(few.t).sum() < len(few.t)
    areas = (rects[:, 0, 1] - rects[:, 0, 0]).clip(0) * (rects[:, 0, 3] - rects[:, 0, 2])
    assert areas.sum() < 0.1 * len(rects) * len(few.t)


def test_cameras_see_what_the_tracer_of_rooms_sees(material):
    solids = some_solids(material)
    pose = np.stack([np.eye(4), np.eye(4)])
    pose[0, :3, :3], pose[1, :3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]], [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    pose[:, 2, 3] = 1.5
    lens = tracing.Lens(np.array([[[50.0, 0, 49.5], [0, 50, 29.5], [0, 0, 1]]] * 2), pose, (60, 100))
    bundle, shapes = camera_bundle(lens), Shapes.of(solids)
    hits = nothing(bundle)
    trace(shapes, bundle, tracing.corner_rects(shapes.corners(), lens), hits)
    wanted = tracing.trace(solids, lens, lens.rays())
    same = hits.solid == wanted.solid.reshape(-1)
    assert same.mean() > 0.999 and (hits.solid >= 0).mean() > 0.2
    np.testing.assert_allclose(hits.t[same], wanted.depth.reshape(-1)[same], rtol=2e-4)
    assert (hits.face[same] == wanted.face.reshape(-1)[same])[np.isfinite(hits.t[same])].mean() > 0.999


def test_the_ground_by_hand():
    # 30 degrees down from 1.84 m: twice the height away.
    bundle = one_ray((0.0, 0.0, 1.84), (0.0, math.cos(math.pi / 6), -0.5))
    hits = nothing(bundle)
    trace_ground(ROADS, bundle, hits)
    assert hits.t[0] == pytest.approx(3.68, abs=1e-5) and hits.solid[0] == ROAD and hits.face[0] == TOP_FACE
    # To the right onto the sidewalk, to the left onto the forecourt, both at the height of kerbs.
    for towards, code, x in (((4.0, 0, KERB - 1.84), WALK, 4.0), ((-8.0, 0, KERB - 1.84), FLAT, -8.0)):
        bundle = one_ray((0.0, 0.0, 1.84), towards)
        hits = nothing(bundle)
        trace_ground(ROADS, bundle, hits)
        assert hits.solid[0] == code and hits.t[0] * bundle.rays[0, 0] == pytest.approx(x, abs=1e-4)
    # At the kerb, 5 cm below its edge: over the road at the kerb's height, below the sidewalk at the road's.
    bundle = one_ray((0.0, 0.0, 1.84), (3.5, 0.0, 0.1 - 1.84))
    hits = nothing(bundle)
    trace_ground(ROADS, bundle, hits)
    assert hits.solid[0] == WALK and hits.face[0] == KERB_FACE
    assert hits.t[0] * bundle.rays[0, 0] == pytest.approx(3.5, abs=1e-3)
    up = nothing(bundle)
    trace_ground(ROADS, one_ray((0, 0, 1.84), (0, 1, 0.1)), up)
    assert np.isinf(up.t[0]) and up.solid[0] == -1


def test_kinds_of_ground():
    places = [
        (0, 20),
        (3.4, 20),
        (3.6, 20),
        (5.4, 20),
        (6, 20),
        (-6, 20),
        (-40, 20),
        (30, 50),
        (30, 55),
        (3.9, 45.6),
        (4.9, 44.6),
    ]
    x, y = np.array(places, float).T
    kinds = [GROUND_CLASSES[int(code)] for code in ROADS.kind(x, y)]
    # The last two: in the corner of a crossing, outside and inside of the kerb's circle of 4 m around (7.5, 42).
    assert kinds == [
        "drivable surface", "drivable surface", "sidewalk", "sidewalk", "terrain", "other flat", "terrain",
        "drivable surface", "sidewalk", "drivable surface", "sidewalk",
    ]  # fmt: skip
    assert set(kinds) <= set(STREET_LABELS.names)
    island = replace(ROADS, island=2.0)
    assert island.half == 4.5
    assert island.kind(np.array([0.9, 1.1, 0.0]), np.array([20.0, 20.0, 50.0])).tolist() == [FLAT, ROAD, ROAD]
    bent = Roads(**{**vars(ROADS), "bend_size": 3.0, "bend_rate": 0.02, "bend_phase": 1.0})
    slope = (bent.bend(10.001) - bent.bend(9.999)) / 0.002
    assert bent.slope(10.0) == pytest.approx(float(slope), abs=1e-6) and bent.bend(0.0) == 0


def test_shadows_by_hand_and_against_every_pair(material):
    # A plate of 2 m, 4 m up, the sun 53 degrees high in the east: the shadow is 3 m to the west.
    shapes = Shapes.of([box(material, (0.0, 0.0, 4.0), (2.0, 2.0, 0.1))])
    x = np.array([-5.0, -3.5, -3.0, -2.5, 0.0, 2.0])
    at = np.stack([x, np.zeros(6), np.zeros(6)], axis=1)
    assert shadows(shapes, (0.6, 0.0, 0.8), at).tolist() == [False, True, True, True, False, False]
    shapes = Shapes.of(some_solids(material))
    rng = np.random.default_rng(0)
    at = np.stack([rng.uniform(-30, 30, 500), rng.uniform(-30, 30, 500), np.full(500, -2.0)], axis=1)
    sun = (0.48, 0.36, 0.8)
    dark = shadows(shapes, sun, at)
    for place, found in zip(at[:100], dark[:100], strict=True):
        bundle = one_ray(place, sun)
        hits = nothing(bundle)
        trace(shapes, bundle, everywhere(len(shapes.half), (1, 1)), hits)
        assert np.isfinite(hits.t[0]) == found
    assert 0.05 < dark.mean() < 0.9
