"""Ray casting against hand-computed hits, and against a slow membership test."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ponder3d.data.synthetic.materials import Material
from ponder3d.data.synthetic.shading import Lighting, shade_view, surfaces_of
from ponder3d.data.synthetic.solids import (
    Solid,
    bevelled,
    box,
    cushion,
    cylinder,
    ellipsoid,
    ellipsoid_quadric,
    extents,
    frustum,
    frustum_quadric,
    moved,
    rotation,
    wedge,
)
from ponder3d.data.synthetic.tracing import Lens, intersect, screen_rects, trace
from ponder3d.data.synthetic.walk import pose

GREY = Material(((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), 0, 1.0)
DARK = Lighting((), (0.0, 0.0, 0.0), ((-9.0, -9.0, -9.0), (9.0, 9.0, 9.0)), np.ones((1, 1), np.float32))
CENTRE = (0.0, 0.0, 0.0)
ROOT5 = math.sqrt(5)


def first_hit(solid: Solid, origin, direction) -> tuple[float, tuple[float, ...]] | None:
    """Parameter and world normal of the first hit of one ray."""
    o, d = np.array(origin, float) - np.array(solid.centre), np.array(direction, float)
    local_o, local_d = solid.rotation.T @ o, solid.rotation.T @ d
    columns = [[np.array([v], np.float32) for v in vector] for vector in (local_o, local_d)]
    rows, t, face = intersect(solid, columns[0], columns[1], np.full(1, np.inf, np.float32))
    if not len(rows):
        return None
    _, normal = shade_view(
        surfaces_of([solid], np.random.default_rng(0)),
        DARK,
        np.array(origin, float),
        d[:, None].astype(np.float32),
        t,
        np.zeros(1, np.int64),
        face,
    )
    return float(t[0]), tuple(normal[:, 0].tolist())


BOX = box(GREY, (2, 0, 0), (2, 2, 2))
DIAMOND = box(GREY, CENTRE, (2, 2, 2), rotation("z", math.pi / 4))
TUBE = cylinder(GREY, CENTRE, (2, 2, 2))
OVAL = cylinder(GREY, CENTRE, (4, 2, 2))
LYING = cylinder(GREY, CENTRE, (2, 2, 6), "x")
EGG = ellipsoid(GREY, CENTRE, (2, 4, 6))
CONE = frustum(GREY, CENTRE, (2, 2, 2), 1.0, 0.0)
FUNNEL = frustum(GREY, CENTRE, (2, 2, 2), 0.0, 1.0)
RAMP = wedge(GREY, CENTRE, (2, 2, 2), 0.5)
CHAMFER = bevelled(GREY, CENTRE, (2, 2, 2), 0.5, edges="z")
BOWL = replace(box(GREY, CENTRE, (2, 2, 2)), hollow=ellipsoid_quadric((0.5, 0.5, 0.5), lift=1.0))
PIPE = replace(TUBE, hollow=frustum_quadric((0.5, 0.5, 1.0), 1.0, 1.0))
S = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("solid", "origin", "direction", "t", "normal"),
    [
        (BOX, (0, 0, 0), (1, 0, 0), 1.0, (-1, 0, 0)),
        (BOX, (0, 0, 0), (2, 0.5, 0), 0.5, (-1, 0, 0)),
        (BOX, (2, 0.5, 4), (0, 0, -1), 3.0, (0, 0, 1)),
        (BOX, (6, 0.3, -0.2), (-1, 0, 0), 3.0, (1, 0, 0)),
        (DIAMOND, (-3, 0.2, 0), (1, 0, 0), 3 - (math.sqrt(2) - 0.2), (-S, S, 0)),
        (TUBE, (-3, 0.6, 0), (1, 0, 0), 2.2, (-0.8, 0.6, 0)),
        (TUBE, (0.5, 0, 5), (0, 0, -1), 4.0, (0, 0, 1)),
        (OVAL, (-5, 0.6, 0), (1, 0, 0), 3.4, (-0.4 / math.hypot(0.4, 0.6), 0.6 / math.hypot(0.4, 0.6), 0)),
        (LYING, (2.5, 0.6, 5), (0, 0, -1), 4.2, (0, 0.6, 0.8)),
        (LYING, (5, 0, 0.5), (-1, 0, 0), 2.0, (1, 0, 0)),
        (EGG, (0, 0, 10), (0, 0, -1), 7.0, (0, 0, 1)),
        (EGG, (0.6, 0, 10), (0, 0, -1), 7.6, (0.6 / math.hypot(0.6, 2.4 / 9), 0, 2.4 / 9 / math.hypot(0.6, 2.4 / 9))),
        (CONE, (-3, 0, 0), (1, 0, 0), 2.5, (-2 / ROOT5, 0, 1 / ROOT5)),
        (CONE, (0.25, 0, 5), (0, 0, -1), 4.5, (2 / ROOT5, 0, 1 / ROOT5)),
        (CONE, (0.25, 0, -5), (0, 0, 1), 4.0, (0, 0, -1)),
        (FUNNEL, (0.25, 0, -5), (0, 0, 1), 4.5, (2 / ROOT5, 0, -1 / ROOT5)),
        (FUNNEL, (0.25, 0, 5), (0, 0, -1), 4.0, (0, 0, 1)),
        (RAMP, (3, 0, 0), (-1, 0, 0), 2.5, (2 / ROOT5, 0, 1 / ROOT5)),
        (RAMP, (-3, 0, 0), (1, 0, 0), 2.0, (-1, 0, 0)),
        (CHAMFER, (3, 3, 0), (-1, -1, 0), 3 - 0.75, (S, S, 0)),
        (BOWL, (0, 0, 5), (0, 0, -1), 4.5, (0, 0, 1)),
        (BOWL, (0.3, 0, 5), (0, 0, -1), 4.4, (-0.6, 0, 0.8)),
        (BOWL, (0.8, 0, 5), (0, 0, -1), 4.0, (0, 0, 1)),
        (PIPE, (-3, 0, 0), (1, 0, 0), 2.0, (-1, 0, 0)),
        (PIPE, (-1.4, 0, 2), (1, 0, -1), 1.9, (-1, 0, 0)),
    ],
)
def test_hits_computed_by_hand(solid, origin, direction, t, normal):
    hit = first_hit(solid, origin, direction)
    assert hit is not None
    assert hit[0] == pytest.approx(t, abs=2e-5)
    assert hit[1] == pytest.approx(normal, abs=2e-4)


@pytest.mark.parametrize(
    ("solid", "origin", "direction"),
    [
        (BOX, (0, 0, 0), (-1, 0, 0)),  # behind
        (BOX, (2, 0, 0), (1, 0, 0)),  # from inside
        (BOX, (0, 1.5, 0), (1, 0, 0)),  # parallel to two faces, outside
        (TUBE, (1.5, 0, 5), (0, 0, -1)),  # along the axis, outside
        (TUBE, (-3, 1.2, 0), (1, 0, 0)),
        (TUBE, (0, 0, 0), (1, 0, 0)),  # from inside
        (TUBE, (-3, 0, 2), (1, 0, 0)),  # through the endless cylinder, above the solid
        (CONE, (0.75, 0, 5), (-0.6, 0, 0)),  # above the tip, through the mirrored cone
        (CONE, (1.5, 0, 5), (0, 0, -1)),
        (EGG, (1.2, 0, 10), (0, 0, -1)),
        (RAMP, (0.9, 5, 0.9), (0, -1, 0)),  # where the slope took the box away
        (PIPE, (0.2, 0, 5), (0, 0, -1)),  # down the hole
    ],
)
def test_misses_computed_by_hand(solid, origin, direction):
    assert first_hit(solid, origin, direction) is None


def test_hits_beyond_the_limit_do_not_count():
    o, d = ([np.full(2, v, np.float32) for v in vector] for vector in ((-2.0, 0.0, 0.0), (1.0, 0.0, 0.0)))
    rows, t, _ = intersect(BOX, o, d, np.array([0.9, 1.1], np.float32))
    assert rows.tolist() == [1] and t.tolist() == [1.0]


def is_inside(solid: Solid, points: np.ndarray) -> np.ndarray:
    """Membership, straight from the definition."""
    x, y, z = points.T
    inside = (np.abs(points) <= np.array(solid.half)).all(1)
    for nx, ny, nz, d in solid.planes:
        inside &= nx * x + ny * y + nz * z <= d
    for quadric, wanted in ((solid.quadric, True), (solid.hollow, False)):
        if quadric is not None:
            value = quadric.x * x**2 + quadric.y * y**2 + quadric.z * z**2 + 2 * quadric.slope * z + quadric.level
            inside &= (value <= 0) == wanted
    return inside


@pytest.mark.parametrize(
    "solid",
    [
        box(GREY, CENTRE, (1, 0.4, 0.7)),
        cylinder(GREY, CENTRE, (0.5, 0.9, 0.8)),
        frustum(GREY, CENTRE, (0.9, 0.7, 0.8), 0.3, 1.0),
        frustum(GREY, CENTRE, (0.9, 0.7, 0.8), 1.0, 0.0),
        ellipsoid(GREY, CENTRE, (0.9, 0.5, 0.7)),
        cushion(GREY, CENTRE, (0.9, 0.5, 0.3)),
        bevelled(GREY, CENTRE, (0.8, 0.6, 0.5), 0.1),
        wedge(GREY, CENTRE, (0.8, 0.6, 0.5), 0.3),
        replace(frustum(GREY, CENTRE, (0.8, 0.8, 0.8), 0.6, 1.0), hollow=ellipsoid_quadric((0.3, 0.35, 0.6), lift=0.4)),
        replace(frustum(GREY, CENTRE, (0.8, 0.8, 0.6), 1.0, 0.5), hollow=frustum_quadric((0.37, 0.37, 0.3), 1.0, 0.5)),
    ],
)
def test_first_hits_are_where_rays_first_get_inside(solid):
    rng = np.random.default_rng(3)
    origins = rng.normal(0, 1, (200, 3))
    origins *= rng.uniform(1.2, 3, (200, 1)) / np.linalg.norm(origins, axis=1, keepdims=True)
    directions = rng.uniform(-0.4, 0.4, (200, 3)) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    step = 0.004
    ts = np.arange(0.1, 4.2, step)
    points = origins[:, None] + ts[:, None] * directions[:, None]
    inside = is_inside(solid, points.reshape(-1, 3)).reshape(200, -1)
    columns = [list(a.T.astype(np.float32)) for a in (origins, directions)]
    rows, t, _ = intersect(solid, columns[0], columns[1], np.full(200, np.inf, np.float32))
    found = np.full(200, np.inf)
    found[rows] = t
    expected = np.where(inside.any(1), ts[inside.argmax(1)], np.inf)
    # A ray that passes through less than a step of the solid is seen by one of the two only.
    both = np.isfinite(expected) & np.isfinite(found)
    agree = both | ~np.isfinite(expected)
    assert (np.abs(found[both] - expected[both]) <= step + 1e-4).all()
    grazing = np.isfinite(found) & ~np.isfinite(expected)
    assert np.isfinite(expected).sum() > 40
    assert agree.all()
    assert grazing.mean() < 0.02


def test_screen_rectangles_lose_no_pixel():
    rng = np.random.default_rng(5)
    solids = []
    for _ in range(60):
        turn = rotation("z", rng.uniform(0, 6)) @ rotation("y", rng.uniform(0, 6))
        centre, size = rng.uniform(-2, 2, 3), rng.uniform(0.05, 1.5, 3)
        solids += moved([box(GREY, CENTRE, tuple(size.tolist()))], tuple(centre.tolist()), turn)
    # Eyes among the solids, so that many of these are half behind the camera.
    poses = np.stack([pose(rng.uniform(-2, 2, 3), rng.uniform(0, 6), rng.uniform(-1, 1), 0.1) for _ in range(4)])
    intrinsics = np.array([[40.0, 0, 19.5], [0, 40.0, 14.5], [0, 0, 1]])
    lens = Lens(np.repeat(intrinsics[None], 4, 0), poses, (30, 40))
    rays = lens.rays()
    hits = trace(solids, lens, rays)
    best = np.full(rays.shape[1:], np.inf)
    for solid in solids:
        origins = (poses[:, :3, 3] - np.array(solid.centre)) @ solid.rotation
        local = np.einsum("ji,jvp->ivp", solid.rotation, rays)
        columns = [np.repeat(origins[:, i], 1200).astype(np.float32) for i in range(3)]
        rows, t, _ = intersect(
            solid, columns, list(local.reshape(3, -1).astype(np.float32)), np.full(4800, np.inf, np.float32)
        )
        best.reshape(-1)[rows] = np.minimum(best.reshape(-1)[rows], t)
    assert np.isfinite(best).mean() > 0.3
    assert np.isfinite(best) == pytest.approx(np.isfinite(hits.depth))
    seen = np.isfinite(best)
    np.testing.assert_allclose(hits.depth[seen], best[seen], rtol=1e-4)


def test_a_solid_behind_the_camera_has_no_pixels():
    lens = Lens(np.array([[[40.0, 0, 20], [0, 40.0, 15], [0, 0, 1]]]), pose(np.zeros(3), 0.0, 0.0, 0.0)[None], (30, 40))
    behind, ahead = (screen_rects([box(GREY, (x, 0, 0), (1, 1, 1))], lens)[0, 0] for x in (-3.0, 3.0))
    assert behind[1] <= behind[0] or behind[3] <= behind[2]
    # The near face is at 2.5 m and 1 m wide: 40 / 2.5 = 16 pixels around (20, 15).
    assert ahead.tolist() == [7, 24, 12, 29]


def test_extents_of_turned_solids():
    turn = rotation("y", math.pi / 2)
    lo, hi = extents(moved([cylinder(GREY, CENTRE, (0.2, 0.4, 2.0))], (1, 2, 3), turn))
    np.testing.assert_allclose(hi - lo, [2.0, 0.4, 0.2], atol=1e-12)
    np.testing.assert_allclose((hi + lo) / 2, [1, 2, 3], atol=1e-12)
    lo, hi = extents(moved([ellipsoid(GREY, CENTRE, (2.0, 1.0, 1.0))], (0, 0, 0), rotation("z", math.pi / 4)))
    # Half extent sqrt((1 cos 45)^2 + (0.5 sin 45)^2).
    np.testing.assert_allclose(hi, [math.sqrt(0.625), math.sqrt(0.625), 0.5], atol=1e-12)
