"""What stands and drives in streets: sizes, places, and that nothing is put where it would meet something."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ponder3d.data.driving.classes import STREET_LABELS
from ponder3d.data.synthetic import street_fixtures as fixtures
from ponder3d.data.synthetic import street_vehicles as vehicles
from ponder3d.data.synthetic.pieces import Draw
from ponder3d.data.synthetic.street_ground import KERB
from ponder3d.data.synthetic.street_layout import draw_roads
from ponder3d.data.synthetic.street_people import pedestrian
from ponder3d.data.synthetic.street_sensors import lenses
from ponder3d.data.synthetic.street_site import BACKWARD, FORWARD, Ego, Site, ego_pose, poses

SIZES = {
    "car": (vehicles.car, (3.6, 5.6), (1.6, 2.2), (1.35, 2.2)),
    "truck": (vehicles.truck, (5.0, 9.3), (1.8, 3.0), (1.7, 3.7)),
    "bus": (vehicles.bus, (9.0, 13.0), (2.5, 2.7), (2.9, 3.6)),
    "trailer": (vehicles.trailer, (2.5, 13.5), (1.6, 2.8), (1.0, 4.0)),
    "construction vehicle": (vehicles.construction_vehicle, (4.5, 8.0), (2.3, 3.1), (2.7, 5.0)),
    "motorcycle": (lambda draw: vehicles.motorcycle(draw, True), (1.9, 2.3), (0.6, 1.0), (1.6, 2.1)),
    "bicycle": (lambda draw: vehicles.bicycle(draw, True), (1.6, 1.9), (0.5, 1.0), (1.7, 2.1)),
    "pedestrian": (lambda draw: pedestrian(draw, True), (0.25, 1.3), (0.35, 0.8), (1.0, 2.0)),
    "barrier": (fixtures.barrier, (0.5, 0.7), (1.9, 2.1), (0.8, 1.1)),
    "traffic cone": (fixtures.cone, (0.2, 0.6), (0.2, 0.6), (0.5, 1.05)),
}
"""Length, width and height, metres."""


@pytest.fixture
def draw() -> Draw:
    return Draw(np.random.default_rng(0))


@pytest.fixture
def site(draw) -> Site:
    roads = replace(
        draw_roads(draw, 20.0), bend_size=0.0, lanes=1, lane=3.5, island=0.0, parking=0.0, walk=2.0, crossings=()
    )
    return Site(draw, roads, Ego(1.75, 5.0, 0.0, 0.5, 0.0), 2.0)


@pytest.mark.parametrize("name", SIZES)
def test_things_have_their_sizes_and_stand_on_the_ground(name, draw):
    make, *ranges = SIZES[name]
    for _ in range(8):
        piece = make(draw)
        assert piece.label == name and name in STREET_LABELS.names
        assert all(low <= size <= high for size, (low, high) in zip(piece.size, ranges, strict=True)), piece.size
        assert abs(piece.lift) < 0.06


def test_nothing_is_put_where_it_would_meet_something(site, draw):
    car = vehicles.car(draw)
    # The ego vehicle drives from 0 to 10 m in its lane; what goes ahead of it at its speed is never met.
    assert not site.add(car, 1.75, 9.0, FORWARD)
    assert site.add(car, 1.75, 9.0, FORWARD, (0.0, 5.0))
    assert not site.add(car, 1.75, 17.0, BACKWARD, (0.0, -5.0))
    assert site.add(car, -1.75, 17.0, BACKWARD, (0.0, -5.0))
    # Across the road: in the way at 2 m, and not before the ego vehicle is past at -20 m.
    someone = pedestrian(draw, True)
    assert not site.add(someone, 3.0, 6.0, 0.0, (-1.2, 0.0))
    assert site.add(someone, 3.0, -20.0, 0.0, (-1.2, 0.0))
    assert len(site.things) == 3
    assert [thing.z for thing in site.things] == [0.0, 0.0, 0.0]
    assert site.add(someone, 4.5, 40.0, 0.0) and site.things[-1].z == KERB
    assert not site.add_all([(car, -1.75, -40.0), (car, 1.75, 0.0)], FORWARD) and len(site.things) == 4


def test_things_follow_the_bend(site, draw):
    roads = replace(site.roads, bend_size=4.0, bend_rate=0.025, bend_phase=0.3)
    car = vehicles.car(draw)
    assert site.add(car, -1.75, 30.0, BACKWARD, (0.0, -6.0))
    assert site.add(car, -30.0, 60.0, 0.0, (6.0, 0.0), bends=False)
    (now, speed), (later, _) = (poses(site.things, roads, seconds) for seconds in (0.0, 0.01))
    np.testing.assert_allclose((later - now)[:, :2] / 0.01, speed, atol=0.01)
    ahead = np.stack([np.cos(now[:, 3]), np.sin(now[:, 3])], axis=1)
    np.testing.assert_allclose((ahead * speed).sum(1), np.hypot(*speed.T), rtol=1e-6)
    # Along its own straight line, wherever the main road's middle is.
    assert now[1, 3] == 0 and speed[1].tolist() == [6.0, 0.0]
    ego = replace(site.ego, sway=0.15)
    a, b = ego_pose(ego, roads, 1.0), ego_pose(ego, roads, 1.001)
    moved = (b - a)[:2, 3]
    np.testing.assert_allclose(a[:2, 1], moved / np.hypot(*moved), atol=2e-3)
    assert np.hypot(*moved) / 0.001 == pytest.approx(5.0, rel=0.01)


def test_neighbouring_cameras_overlap():
    fields = []
    for lens in lenses(np.eye(4), (90, 160)).values():
        axis, half = lens.world_from_cam[0, :3, 2], math.atan(80 / lens.intrinsics[0, 0, 0])
        fields.append((math.atan2(axis[0], axis[1]), half))
        assert lens.world_from_cam[0, :3, 1] == pytest.approx([0, 0, -1])
    assert [math.degrees(2 * half) for _, half in fields] == pytest.approx([70, 70, 70, 110, 70, 70])
    for (a, half), (b, other) in zip(fields, [*fields[1:], fields[0]], strict=True):
        between = (b - a) % (2 * math.pi)
        assert 0 < between < half + other
