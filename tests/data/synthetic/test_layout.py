"""Furniture stands in the room, clear of other things, of doors and of cameras, and has the size of furniture."""

import inspect
import math

import numpy as np
import pytest

from ponder3d.data.synthetic import decor, fixtures, furniture, plan
from ponder3d.data.synthetic.filming import Room, furnished_room
from ponder3d.data.synthetic.groups import FILLERS, GROUPS, ROOM_TYPES
from ponder3d.data.synthetic.layout import overlaps
from ponder3d.data.synthetic.pieces import Draw, Piece, Placed, piece
from ponder3d.data.synthetic.plan import SIZES, draw_plan, shell
from ponder3d.data.synthetic.rooms import ROOMS_LABELS
from ponder3d.data.synthetic.solids import box, extents
from ponder3d.data.synthetic.tracing import Lens
from ponder3d.data.synthetic.walk import MAX_TURN, pose, walk
from ponder3d.geometry.keyed import derive

BUILDERS = [
    make
    for module in (furniture, fixtures, decor)
    for make in vars(module).values()
    if inspect.isfunction(make) and inspect.signature(make).return_annotation is Piece
    if make.__module__ == module.__name__ and len(_required := inspect.signature(make).parameters) > 0
    if [p.name for p in _required.values() if p.default is p.empty] == ["draw"]
]
SEATS = ("chair", "stool", "bench")


def draw_of(*numbers: int) -> Draw:
    return Draw(np.random.default_rng(derive(*numbers)))


@pytest.fixture(scope="module", params=ROOM_TYPES)
def filmed(request) -> list[tuple[Room, Lens]]:
    out = []
    for number in range(3):
        room = furnished_room(draw_of(number), (request.param,))
        out.append((room, walk(draw_of(number, 1), room.plan, room.placed, 12, (48, 64))))
    return out


def covers(thing: Placed, places: np.ndarray) -> np.ndarray:
    """Which places are on a thing's footprint."""
    offset = places - np.array([thing.x, thing.y])
    cos, sin = math.cos(thing.yaw), math.sin(thing.yaw)
    local = np.stack([offset @ [cos, sin], offset @ [-sin, cos]], axis=1)
    return (np.abs(local) < np.array(thing.piece.size[:2]) / 2).all(1)


def test_things_do_not_share_space(filmed):
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 40), np.linspace(-0.5, 0.5, 40)), axis=-1).reshape(-1, 2)
    for room, _ in filmed:
        things = [p for p in room.placed if p.piece.label not in ("rug", "door", "window")]
        for i, a in enumerate(things):
            places = np.stack(a.world(grid[:, 0] * a.piece.size[0], grid[:, 1] * a.piece.size[1]), axis=1)
            for b in things[i + 1 :]:
                level = min(a.top, b.top) - max(a.z + a.piece.lift, b.z + b.piece.lift)
                if level <= 0.002 or not covers(b, places).any():
                    continue
                pair = {a.piece.label, b.piece.label}
                # Seats may be pushed below a table; what lies on a bed or a seat is within its footprint; a curtain
                # that ends at the sill hangs in front of low furniture.
                pushed_in = pair & set(SEATS) and pair & {"table", "desk"}
                lies_on = max(a.z, b.z) > 0.2 and any(thing.piece.support > 0 for thing in (a, b))
                assert pushed_in or lies_on or "curtain" in pair, (pair, a, b)


def test_things_are_in_the_room(filmed):
    for room, _ in filmed:
        for thing in room.placed:
            if thing.piece.label not in ("door", "window", "curtain"):
                assert room.plan.contains(thing.corners(), -1e-6).all(), thing.piece.label
            assert -0.05 <= thing.z + thing.piece.lift and thing.top <= room.plan.height + 1e-6
        assert all(label in ROOMS_LABELS.names for label in {p.piece.label for p in room.placed})


def test_doors_are_free(filmed):
    for room, _ in filmed:
        doors = [o for o in room.plan.openings if o.is_door]
        assert doors
        for opening in doors:
            wall = room.plan.walls[opening.wall]
            sides = np.linspace(-0.45, 0.45, 7) * opening.width
            front = np.array([wall.at(opening.centre + side, far) for side in sides for far in (0.2, 0.5, 0.9)])
            for thing in room.placed:
                if thing.z == 0 and thing.piece.lift < 1 and thing.piece.label not in ("rug", "door"):
                    assert not covers(thing, front).any(), thing.piece.label


def test_cameras_stand_in_free_space_and_turn_slowly(filmed):
    for room, lens in filmed:
        eyes, forward = lens.world_from_cam[:, :3, 3], lens.world_from_cam[:, :3, 2]
        assert room.plan.contains(eyes[:, :2], 0.02).all()
        assert (eyes[:, 2] >= 0.9).all() and (eyes[:, 2] <= 1.9).all()
        for solid in room.solids:
            local = (eyes - np.array(solid.centre)) @ solid.rotation
            assert not (np.abs(local) < np.array(solid.half)).all(1).any()
        yaw = np.unwrap(np.arctan2(forward[:, 1], forward[:, 0]))
        assert (np.abs(np.diff(yaw)) <= MAX_TURN + 1e-9).all()
        assert (np.abs(forward[:, 2]) < math.sin(math.radians(36))).all()
        field = 2 * np.degrees(np.arctan(32 / lens.intrinsics[:, 0, 0]))
        assert (field >= 59.9).all() and (field <= 75.1).all()


@pytest.mark.parametrize("make", BUILDERS, ids=lambda make: make.__name__)
def test_every_piece_has_the_size_of_furniture(make):
    sizes = []
    for number in range(6):
        made = make(draw_of(number))
        assert made.label in ROOMS_LABELS.names
        lo, hi = extents(made.solids)
        assert hi - lo == pytest.approx(made.size)
        # The origin is in the middle of the footprint, and what stands does so on z = 0.
        assert (lo + hi)[:2] == pytest.approx([0, 0], abs=1e-9)
        assert lo[2] == pytest.approx(made.lift) and (made.lift < -0.05 or abs(made.lift) < 0.006)
        assert max(made.size) < 3.6 and made.size[2] < 2.4 and min(made.size) > 0.01
        assert made.support <= made.lift + made.size[2] + 1e-9
        sizes.append(made.size)
    assert len(set(sizes)) > 1


def test_there_are_builders_for_more_than_20_classes():
    labels = {make(draw_of(0)).label for make in BUILDERS}
    assert len(labels) >= 26


def test_every_type_of_room_is_described():
    assert set(GROUPS) == set(FILLERS) == set(SIZES) == set(ROOM_TYPES)


def test_plans_have_the_promised_sizes_and_closed_walls():
    notched = 0
    for number in range(60):
        kind = ROOM_TYPES[number % len(ROOM_TYPES)]
        room = draw_plan(draw_of(number), kind)
        notched += room.notch is not None
        assert 3 <= max(room.size) <= 8 and 3 <= min(room.size) <= 7 and 2.4 <= room.height <= 3.2
        for wall, after in zip(room.walls, room.walls[1:] + room.walls[:1], strict=True):
            assert wall.at(wall.length, 0.0) == pytest.approx(after.start)
            # The room is on the left of its walls.
            middle = np.array([wall.at(wall.length / 2, inward) for inward in (0.05, -0.05)])
            assert room.contains(middle).tolist() == [True, False]
        enclosed = sum(w.start[0] * w.at(w.length, 0.0)[1] - w.start[1] * w.at(w.length, 0.0)[0] for w in room.walls)
        assert enclosed / 2 == pytest.approx(room.area)
    assert 2 <= notched <= 30


def test_walls_have_holes_for_doors_and_windows():
    draw = draw_of(3)
    room = draw_plan(draw, "living room")
    walls = dict(shell(draw, room))["wall"]
    assert room.openings
    for opening in room.openings:
        x, y = room.walls[opening.wall].at(opening.centre, -plan.WALL_THICKNESS / 2)
        for z, filled in (((opening.bottom + opening.top) / 2, False), (opening.top + 0.05, True)):
            inside = [(np.abs(np.array([x, y, z]) - s.centre) < np.array(s.half)).all() for s in walls]
            assert any(inside) == filled


def test_overlaps_of_rectangles_computed_by_hand():
    half = np.array([1.0, 0.5])
    rows = np.array([
        [1.9, 0.0, 0.0, 1.0, 0.5],  # side by side, 10 cm into each other
        [2.1, 0.0, 0.0, 1.0, 0.5],  # 10 cm apart
        [1.4, 0.0, math.pi / 2, 1.0, 0.5],  # turned: reaches from 0.9
        [1.6, 0.0, math.pi / 2, 1.0, 0.5],  # turned: reaches from 1.1
        [1.6, 1.1, -math.pi / 4, 1.0, 0.2],  # a diagonal bar whose box overlaps, but not itself
        [0.0, 0.0, 0.3, 0.1, 0.1],  # inside
    ])  # fmt: skip
    poses = np.array([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]])
    assert overlaps(poses, half, rows).tolist() == [[True, False, True, False, False, True], [False] * 6]


def test_placing_turns_x_towards_y():
    part = box(draw_of(0).material("wood"), (0.5, 0.0, 0.5), (1.0, 0.2, 1.0))
    placed = Placed(piece("box", [part]), 3.0, 4.0, 0.5, math.pi / 2)
    assert placed.world(0.5, 0.0) == pytest.approx((3.0, 4.5))
    lo, hi = extents(placed.solids())
    np.testing.assert_allclose(lo, [2.9, 3.5, 0.5])
    np.testing.assert_allclose(hi, [3.1, 4.5, 1.5])
    np.testing.assert_allclose(placed.corners().min(0), [2.9, 3.5])


def test_poses_look_where_they_say():
    looking = pose(np.array([1.0, 2.0, 1.5]), math.pi / 2, -0.3, 0.0)
    np.testing.assert_allclose(looking[:3, 2], [0, math.cos(0.3), -math.sin(0.3)], atol=1e-12)
    np.testing.assert_allclose(looking[:3, 0], [1, 0, 0], atol=1e-12)
    assert np.linalg.det(looking[:3, :3]) == pytest.approx(1)
