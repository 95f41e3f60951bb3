"""What stands together, and types of room: a bed with nightstands, chairs around a table, a kitchen along the walls.

A group is a function that adds to a layout what fits and leaves out what does not. To add a type of room, add a row to
``GROUPS`` and ``FILLERS`` here and its size to ``plan.SIZES``.
"""

import math
from collections.abc import Callable

import numpy as np

from ponder3d.data.synthetic import decor, fixtures, furniture
from ponder3d.data.synthetic.layout import Layout
from ponder3d.data.synthetic.pieces import Draw, Piece, Placed
from ponder3d.data.synthetic.plan import DOOR_SINK, WINDOW_SINK, Plan, curtain, door, mount, picture, window

HALF_TURN = math.pi


def furnish(draw: Draw, plan: Plan, kind: str) -> list[Placed]:
    """Everything in a room of some type, doors and windows included."""
    layout = Layout(draw, plan)
    _fill_openings(layout)
    for group in GROUPS[kind]:
        group(layout)
    large, small = FILLERS[kind]
    target = draw.uniform(0.36, 0.5)
    for _ in range(60):
        if layout.coverage() > target:
            break
        draw.pick(large if layout.coverage() < 0.8 * target else small)(layout)
    draw.pick(small)(layout)
    for _ in range(draw.integer(1, 4)):
        layout.against_wall(picture(draw), z=draw.uniform(1.15, 1.6), gap=0.002, turn=0.0, end=0.0)
    _ceiling_lamps(layout)
    return layout.placed


def _fill_openings(layout: Layout) -> None:
    """Doors and windows in their holes, and the space in front of them kept free of what would be in the way."""
    draw, plan = layout.draw, layout.plan
    for o in (o for o in plan.openings if o.is_door):
        wall = plan.walls[o.wall]
        layout.add(mount(plan, o.wall, door(draw, o.width, o.top), o.centre, 0.0, DOOR_SINK), blocks=False)
        layout.keep_out(*wall.at(o.centre, 0.48), wall.yaw, 0.95, o.width + 0.2, 0.0, o.top)
    for o in (o for o in plan.openings if not o.is_door):
        wall = plan.walls[o.wall]
        pane = window(draw, o.width, o.top - o.bottom)
        layout.add(mount(plan, o.wall, pane, o.centre, o.bottom, WINDOW_SINK), blocks=False)
        if draw.chance(0.4):
            low = draw.pick((0.04, max(0.04, o.bottom - 0.2)))
            cloth = curtain(draw, o.width + draw.uniform(0.3, 0.6), o.top + 0.12 - low)
            _add_if_free(layout, mount(plan, o.wall, cloth, o.centre, low, -0.03))
        elif o.bottom > 0.55 and draw.chance(0.6):
            heater = fixtures.radiator(draw, o.bottom - 0.25)
            _add_if_free(layout, mount(plan, o.wall, heater, o.centre, 0.0, -0.03))
        layout.keep_out(*wall.at(o.centre, 0.2), wall.yaw, 0.4, o.width, o.bottom - 0.04, o.top)


def _add_if_free(layout: Layout, placed: Placed) -> bool:
    pose = np.array([(placed.x, placed.y, placed.yaw)])
    if not bool(layout.fits(pose, placed.piece, placed.z, gap=0.0)[0]):
        return False
    layout.add(placed)
    return True


def _ceiling_lamps(layout: Layout) -> None:
    plan, draw = layout.plan, layout.draw
    for _ in range(1 if plan.area < 16 else draw.integer(1, 3)):
        lamp = decor.pendant_lamp(draw)
        for _ in range(6):
            x, y = (draw.uniform(-0.32, 0.32) * s for s in plan.size)
            if _add_if_free(layout, Placed(lamp, x, y, plan.height, 0.0)):
                break


def bed_group(layout: Layout) -> None:
    """A bed with pillows, nightstands with lamps, sometimes a bench at its foot and a rug."""
    draw = layout.draw
    bed = layout.against_wall(furniture.bed(draw), turn=0.0, end=0.25)
    if bed is None:
        return
    length, width, _ = bed.piece.size
    pillow = decor.pillow(draw)
    for left in (0.0,) if width < 1.3 else (-width / 4, width / 4):
        layout.on_top(bed, pillow, -length / 2 + 0.12 + pillow.size[0] / 2, left, draw.uniform(-0.15, 0.15))
    if draw.chance(0.3):
        small = decor.pillow(draw)
        layout.on_top(bed, small, -length / 2 + 0.75, draw.uniform(-0.2, 0.2) * width, draw.uniform(-0.5, 0.5))
    stand = furniture.nightstand(draw)
    for side in (-1, 1):
        left = side * (width / 2 + stand.size[1] / 2 + draw.uniform(0.03, 0.12))
        at = layout.beside(bed, stand, stand.size[0] / 2 - length / 2 + 0.03, left)
        layout.scatter(at, decor.table_lamp if draw.chance(0.6) else decor.clutter, 1)
    if draw.chance(0.25):
        bench = furniture.bench(draw)
        layout.beside(bed, bench, length / 2 + bench.size[0] / 2 + 0.06, 0.0)
    if draw.chance(0.5):
        _lay_rug(layout, bed, 0.3, length * 0.9, width + draw.uniform(0.8, 1.4))


def sofa_group(layout: Layout) -> None:
    """A sofa with cushions, a coffee table before it, armchairs around, a rug, a floor lamp, a television opposite."""
    draw = layout.draw
    piece = furniture.sofa(draw)
    sofa = layout.anywhere(piece, 0.5, aligned=True) if layout.plan.area > 22 and draw.chance(0.35) else None
    sofa = sofa or layout.against_wall(piece)
    if sofa is None:
        return
    depth, width, _ = sofa.piece.size
    table = furniture.coffee_table(draw)
    reach = depth / 2 + draw.uniform(0.3, 0.45)
    low = layout.beside(sofa, table, reach + table.size[0] / 2, draw.uniform(-0.1, 0.1), draw.uniform(-0.08, 0.08))
    layout.scatter(low, decor.clutter, draw.integer(0, 2))
    chair = furniture.armchair(draw)
    for side in (-1, 1):
        if draw.chance(0.5):
            left = side * (max(table.size[1], width * 0.6) / 2 + chair.size[0] / 2 + draw.uniform(0.3, 0.5))
            layout.beside(
                sofa, chair, reach + table.size[0] * 0.6, left, -side * (math.pi / 2) + draw.uniform(-0.4, 0.4)
            )
    for _ in range(draw.integer(0, 3)):
        layout.on_top(
            sofa,
            decor.pillow(draw),
            draw.uniform(-0.02, 0.12),
            draw.uniform(-0.32, 0.32) * width,
            draw.uniform(-0.6, 0.6),
        )
    if draw.chance(0.5):
        lamp = decor.floor_lamp(draw)
        layout.beside(sofa, lamp, 0.0, draw.pick((-1, 1)) * (width / 2 + lamp.size[1] / 2 + 0.1))
    if draw.chance(0.65):
        _lay_rug(layout, sofa, reach + table.size[0] / 2, draw.uniform(1.4, 2.2), width * draw.uniform(0.8, 1.2))
    if draw.chance(0.75):
        television_group(layout)


def television_group(layout: Layout) -> None:
    """A low cabinet with a television on it, or a television on the wall."""
    draw = layout.draw
    if draw.chance(0.25):
        screen = decor.television(draw, on_wall=True)
        layout.against_wall(screen, z=draw.uniform(0.9, 1.2), gap=0.01, turn=0.0, end=0.0)
        return
    screen = decor.television(draw)
    for _ in range(3):
        cabinet = furniture.cabinet(draw)
        if cabinet.size[1] > screen.size[1] - 0.1 and cabinet.size[2] < 1.0:
            stand = layout.against_wall(cabinet)
            if stand is not None:
                layout.on_top(stand, screen, -0.04, draw.uniform(-0.1, 0.1), draw.uniform(-0.1, 0.1))
            return


def dining_group(layout: Layout) -> None:
    """A table with chairs, stools or benches pushed in around it, and things on it."""
    draw = layout.draw
    board = furniture.table(draw)
    table = layout.anywhere(board, 0.6, aligned=draw.chance(0.7)) or layout.against_wall(
        board, gap=draw.uniform(0.02, 0.6)
    )
    if table is None:
        return
    depth, width, _ = table.piece.size
    seat = draw.pick((furniture.chair, furniture.chair, furniture.chair, furniture.stool))(draw)
    along = max(1, int(width / 0.62))
    for side in (-1, 1):
        if width > 1.1 and draw.chance(0.12):
            bench = furniture.bench(draw)
            _pull_up(layout, table, bench, side * (depth / 2 + bench.size[0] / 2 - 0.08), 0.0, side)
            continue
        for i in range(along):
            if draw.chance(0.85):
                left = ((i + 0.5) / along - 0.5) * width + draw.uniform(-0.05, 0.05)
                out = depth / 2 + seat.size[0] / 2 + draw.uniform(-0.12, 0.15)
                _pull_up(layout, table, seat, side * out, left, side)
        if draw.chance(0.5):
            out = width / 2 + seat.size[0] / 2 + draw.uniform(-0.1, 0.15)
            layout.beside(table, seat, 0.0, side * out, -side * math.pi / 2 + draw.uniform(-0.2, 0.2), ignore=(table,))
    layout.scatter(table, decor.clutter, draw.integer(0, 3))
    if draw.chance(0.3):
        _lay_rug(layout, table, 0.0, depth + 1.2, width + 1.0)


def _pull_up(layout: Layout, table: Placed, seat: Piece, forward: float, left: float, side: int) -> None:
    """A seat that faces a table's long side; it may reach up to 12 cm below the top."""
    turn = (HALF_TURN if side > 0 else 0.0) + layout.draw.uniform(-0.25, 0.25)
    layout.beside(table, seat, forward, left, turn, ignore=(table,))


def desk_group(layout: Layout) -> None:
    """A desk with a screen or two, a chair in front of it, a bin beside it."""
    draw = layout.draw
    desk = layout.against_wall(furniture.desk(draw))
    if desk is None:
        return
    depth, width, _ = desk.piece.size
    screen = decor.monitor(draw)
    for left in draw.pick(((0.0,), (0.0,), (-0.35, 0.35), ())):
        layout.on_top(desk, screen, -depth / 2 + 0.2, left, draw.uniform(-0.25, 0.25) - 0.4 * left)
    chair = furniture.chair(draw)
    layout.beside(
        desk,
        chair,
        depth / 2 + chair.size[0] / 2 + draw.uniform(0.0, 0.3),
        draw.uniform(-0.2, 0.2) * width,
        HALF_TURN + draw.uniform(-0.6, 0.6),
    )
    layout.scatter(desk, decor.clutter, draw.integer(0, 2))
    if draw.chance(0.6):
        waste_bin = decor.waste_bin(draw)
        layout.beside(desk, waste_bin, 0.0, draw.pick((-1, 1)) * (width / 2 + waste_bin.size[1] / 2 + 0.1))


def kitchen_run(layout: Layout) -> None:
    """Counters, sink, stove and appliances side by side along a wall and on along the next, with cupboards above."""
    draw, plan = layout.draw, layout.plan
    height, top = draw.uniform(0.86, 0.93), draw.material("stone", "wood")
    units = [
        fixtures.counter(draw, height, top),
        fixtures.kitchen_sink(draw, height, top),
        fixtures.stove(draw, height),
        fixtures.counter(draw, height, top),
        fixtures.refrigerator(draw),
        fixtures.washing_machine(draw),
    ][: draw.integer(4, 6)]
    units = [units[i] for i in draw.rng.permutation(len(units))]
    for wall in (plan.walls[i] for i in draw.rng.permutation(len(plan.walls))):
        along = draw.pick((0.03, draw.uniform(0.0, 0.5) * wall.length))
        while units and along + units[-1].size[1] < wall.length:
            unit = units[-1]
            x, y = wall.at(along + unit.size[1] / 2, 0.02 + unit.size[0] / 2)
            placed = Placed(unit, x, y, 0.0, wall.yaw)
            if not _add_if_free(layout, placed):
                along += 0.12
                continue
            units.pop()
            if unit.label == "counter":
                _above_counter(layout, placed)
            along += unit.size[1] + 0.006


def _above_counter(layout: Layout, counter: Placed) -> None:
    draw = layout.draw
    layout.scatter(counter, decor.clutter, draw.integer(0, 2))
    if draw.chance(0.7):
        cupboard = fixtures.wall_cupboard(draw, counter.piece.size[1] - 0.01)
        back = (cupboard.size[0] - counter.piece.size[0]) / 2
        layout.beside(counter, cupboard, back, 0.0, z=draw.uniform(1.4, 1.5), gap=0.0)


def bathroom_group(layout: Layout) -> None:
    """Tub, toilet, basin with a mirror above it."""
    draw = layout.draw
    if draw.chance(0.85):
        layout.against_wall(fixtures.bathtub(draw), turn=0.0, end=0.8)
    layout.against_wall(fixtures.toilet(draw), turn=0.0, end=0.2)
    for _ in range(draw.pick((1, 1, 2))):
        basin = layout.against_wall(fixtures.sink(draw), turn=0.0, end=0.1)
        if basin is not None:
            glass = decor.mirror(draw)
            back = (glass.size[0] - basin.piece.size[0]) / 2 - 0.015
            layout.beside(basin, glass, back, 0.0, z=draw.uniform(1.15, 1.35), gap=0.0)
    if draw.chance(0.6):
        _lay_rug(layout, None, 0.0, draw.uniform(0.5, 0.8), draw.uniform(0.7, 1.2))


def any_groups(layout: Layout) -> None:
    """Groups that need not belong together, as in a flat of one room."""
    groups = (bed_group, sofa_group, desk_group, dining_group, kitchen_run, bathroom_group)
    for i in layout.draw.rng.permutation(len(groups))[:3]:
        groups[i](layout)


def _lay_rug(layout: Layout, parent: Placed | None, forward: float, depth: float, width: float) -> None:
    """A rug under or in front of something. It blocks nothing: furniture stands on it."""
    draw, plan = layout.draw, layout.plan
    rug = decor.rug(draw, depth, width)
    if sum(p.piece.label == "rug" for p in layout.placed) > 1:
        return
    for _ in range(8):
        if parent is None:
            x, y = (draw.uniform(-0.4, 0.4) * s for s in plan.size)
            yaw = draw.uniform(-HALF_TURN, HALF_TURN)
        else:
            x, y = parent.world(forward + draw.uniform(-0.1, 0.1), draw.uniform(-0.15, 0.15))
            yaw = parent.yaw + draw.uniform(-0.05, 0.05)
        placed = Placed(rug, x, y, 0.0, yaw)
        if bool(plan.contains(placed.corners(), 0.02).all()):
            layout.add(placed, blocks=False)
            return


def _wall_piece(make: Callable[[Draw], Piece], things: int = 0) -> Callable[[Layout], None]:
    def put(layout: Layout) -> None:
        placed = layout.against_wall(make(layout.draw))
        layout.scatter(placed, decor.clutter, layout.draw.integer(0, things))

    return put


def _free_piece(make: Callable[[Draw], Piece], margin: float = 0.1) -> Callable[[Layout], None]:
    def put(layout: Layout) -> None:
        layout.anywhere(make(layout.draw), margin)

    return put


def _wall_mirror(layout: Layout) -> None:
    layout.against_wall(decor.mirror(layout.draw), z=layout.draw.pick((0.06, 1.0, 1.2)), gap=0.004, turn=0.0, end=0.0)


def _rug(layout: Layout) -> None:
    _lay_rug(layout, None, 0.0, layout.draw.uniform(0.8, 1.6), layout.draw.uniform(1.2, 2.4))


shelf, cupboard = _wall_piece(furniture.bookshelf, 1), _wall_piece(furniture.wardrobe)
chest, bench = _wall_piece(furniture.cabinet, 2), _wall_piece(furniture.bench)
armchair, stool = _free_piece(furniture.armchair, 0.2), _free_piece(furniture.stool)
chair, plant, waste = _free_piece(furniture.chair), _wall_piece(decor.plant), _wall_piece(decor.waste_bin)
carton, lamp = _wall_piece(decor.carton), _wall_piece(decor.floor_lamp)
washer, fridge = _wall_piece(fixtures.washing_machine, 1), _wall_piece(fixtures.refrigerator)
nightstand, loose_carton = _wall_piece(furniture.nightstand, 1), _free_piece(decor.carton)
low_table = _free_piece(furniture.coffee_table, 0.35)

GROUPS: dict[str, tuple[Callable[[Layout], None], ...]] = {
    "bedroom": (bed_group, cupboard, chest),
    "living room": (sofa_group, dining_group, shelf, plant),
    "office": (desk_group, desk_group, shelf, cupboard),
    "kitchen": (kitchen_run, dining_group, fridge, chest),
    "bathroom": (bathroom_group, washer, waste, chest),
    "mixed": (any_groups, shelf),
}
"""What each type of room gets first, in this order."""

ROOM_TYPES = tuple(GROUPS)

FILLERS: dict[str, tuple[tuple[Callable[[Layout], None], ...], tuple[Callable[[Layout], None], ...]]] = {
    "bedroom": (
        (cupboard, chest, shelf, desk_group, armchair, television_group, bench),
        (lamp, plant, waste, carton, stool, _wall_mirror, _rug, loose_carton, armchair),
    ),
    "living room": (
        (shelf, chest, armchair, dining_group, low_table, television_group, cupboard, bench),
        (lamp, plant, carton, stool, _rug, chair, waste, low_table),
    ),
    "office": (
        (desk_group, desk_group, shelf, shelf, chest, cupboard, armchair, sofa_group),
        (plant, waste, carton, chair, lamp, stool, loose_carton, low_table, bench, _rug),
    ),
    "kitchen": (
        (chest, fridge, dining_group, shelf, cupboard, washer, bench),
        (waste, plant, stool, chair, carton, lamp, _rug),
    ),
    "bathroom": (
        (chest, cupboard, washer, shelf, bench, nightstand, fridge, armchair),
        (stool, waste, plant, nightstand, carton, _wall_mirror, _rug),
    ),
    "mixed": (
        (shelf, chest, cupboard, desk_group, dining_group, armchair, fridge, bed_group, washer),
        (lamp, plant, waste, carton, stool, bench, low_table, _wall_mirror, chair, loose_carton, nightstand, _rug),
    ),
}
"""Large and small things that are added in turn until enough of the floor is covered."""
