"""Furniture to sit, lie, eat, work and store at. One function per class: random choices in, a ``Piece`` out.

Convention: front towards +x, y is the width, z up, metres. Sizes are those of ordinary furniture. To add a class, write
a function here (or in ``fixtures`` or ``decor``), name the class in ``room_classes`` and use it in ``groups``.
"""

import math
from dataclasses import replace

from ponder3d.data.synthetic.materials import Material
from ponder3d.data.synthetic.pieces import Draw, Piece, piece
from ponder3d.data.synthetic.solids import (
    Solid,
    Vector,
    bevelled,
    box,
    cushion,
    cylinder,
    frustum,
    frustum_quadric,
    moved,
    rotation,
    wedge,
)


def legs(draw: Draw, material: Material, depth: float, width: float, height: float, thickness: float) -> list[Solid]:
    """Four legs under a rectangle: square, round, tapered, or joined to two frames."""
    kind = draw.design(("square", "round", "tapered", "frames"), apart="frames")
    parts = []
    x, y = depth / 2 - thickness / 2, width / 2 - thickness / 2
    for side in (-1, 1):
        for end in (-1, 1):
            centre = (end * x, side * y, height / 2)
            if kind == "round":
                parts.append(cylinder(material, centre, (thickness, thickness, height)))
            elif kind == "tapered":
                parts.append(frustum(material, centre, (thickness, thickness, height), 0.45, 1.0))
            else:
                parts.append(box(material, centre, (thickness, thickness, height)))
        if kind == "frames":
            parts.append(box(material, (0, side * y, thickness / 2), (depth - 2 * thickness, thickness, thickness)))
    return parts


def star_base(draw: Draw, material: Material, radius: float, height: float) -> list[Solid]:
    """A column on a foot: a disc, a cross, or five arms on castors."""
    parts = [cylinder(material, (0, 0, height / 2 + 0.02), (0.06, 0.06, height - 0.04))]
    kind = draw.design(("disc", "cross", "castors"), apart="castors")
    if kind == "disc":
        return [*parts, frustum(material, (0, 0, 0.02), (2 * radius, 2 * radius, 0.04), 1.0, 0.85)]
    num_arms = 4 if kind == "cross" else 5
    for i in range(num_arms):
        turn = rotation("z", 2 * math.pi * i / num_arms)
        arm = [wedge(material, (radius / 2, 0, 0.08 if kind == "castors" else 0.03), (radius, 0.05, 0.06), 0.5)]
        if kind == "castors":
            arm.append(cylinder(material, (radius - 0.03, 0, 0.03), (0.06, 0.06, 0.03), "y"))
        parts += moved(arm, (0, 0, 0), turn)
    return parts


def top_on_legs(draw: Draw, label: str, depth: float, width: float, height: float) -> Piece:
    """A table: rectangular, oval or bevelled top on legs, a column, or two panels."""
    top, frame = draw.material("wood", "stone", "paint"), draw.material("wood", "metal")
    thickness = draw.uniform(0.02, 0.05)
    z = height - thickness / 2
    is_round = draw.chance(0.3)
    if is_round:
        parts = [cylinder(top, (0, 0, z), (depth, width, thickness))]
    elif draw.chance(0.4):
        parts = [bevelled(top, (0, 0, z), (depth, width, thickness), draw.uniform(0.02, 0.12), edges="z")]
    else:
        parts = [box(top, (0, 0, z), (depth, width, thickness))]
    under = height - thickness
    reach = 0.68 if is_round else draw.uniform(0.86, 0.98)
    kind = draw.design(("legs", "legs", "legs", "column", "panels"), apart="panels")
    if kind == "column":
        for y in (0.0,) if width < 1.3 else (-width / 4, width / 4):
            parts += moved(star_base(draw, frame, min(depth, width) * 0.33, under), (0, y, 0))
    elif kind == "panels" and not is_round:
        parts += [box(frame, (0, s * width * 0.38, under / 2), (depth * 0.8, 0.05, under)) for s in (-1, 1)]
        parts.append(box(frame, (0, 0, under * 0.45), (0.05, width * 0.76, 0.1)))
    else:
        parts += legs(draw, frame, depth * reach, width * reach, under, draw.uniform(0.035, 0.08))
        if draw.chance(0.6):
            parts.append(box(frame, (0, 0, under - 0.04), (depth * reach * 0.9, width * reach * 0.9, 0.08)))
    return piece(label, parts, support=height)


def table(draw: Draw) -> Piece:
    """A dining table."""
    depth = draw.uniform(0.7, 1.0)
    return top_on_legs(draw, "table", depth, depth * draw.uniform(1.0, 2.1), draw.uniform(0.7, 0.78))


def coffee_table(draw: Draw) -> Piece:
    """A low table: on legs with or without a shelf, a drum, or a chest."""
    depth, height = draw.uniform(0.45, 0.75), draw.uniform(0.32, 0.48)
    width = depth * draw.uniform(1.0, 1.9)
    kind = draw.design(("legs", "legs", "shelf", "drum", "chest"), apart="drum")
    if kind == "drum":
        wood = draw.material("wood", "metal")
        body = frustum(wood, (0, 0, height / 2), (depth, depth, height), draw.uniform(0.7, 1.0), 1.0)
        lid = cylinder(draw.material("wood", "stone"), (0, 0, height + 0.01), (depth + 0.04, depth + 0.04, 0.02))
        return piece("coffee table", [body, lid], support=height + 0.02)
    if kind == "chest":
        wood = draw.material("wood")
        body = box(wood, (0, 0, height / 2 - 0.02), (depth, width, height - 0.04))
        lid = box(draw.material("wood"), (0, 0, height - 0.02), (depth + 0.04, width + 0.04, 0.04))
        return piece("coffee table", [body, lid], support=height)
    made = top_on_legs(draw, "coffee table", depth, width, height)
    if kind == "shelf":
        board = box(draw.material("wood"), (0, 0, height * 0.35), (depth * 0.75, width * 0.75, 0.02))
        return piece("coffee table", [*made.solids, board], support=height)
    return made


def desk(draw: Draw) -> Piece:
    """A desk: top, drawers on one or both sides or legs, a panel at the back, sometimes a raised shelf."""
    depth, width, height = draw.uniform(0.55, 0.8), draw.uniform(1.0, 1.8), draw.uniform(0.7, 0.77)
    top, body = draw.material("wood", "paint"), draw.material("wood", "paint", "metal")
    parts = [box(top, (0, 0, height - 0.015), (depth, width, 0.03))]
    under = height - 0.03
    block = draw.uniform(0.3, 0.45)
    sides = {"left": (1,), "right": (-1,), "both": (-1, 1), "none": ()}[draw.pick(("left", "right", "both", "none"))]
    for side in (-1, 1):
        y = side * (width / 2 - 0.02)
        if side in sides:
            centre = (0.0, side * (width / 2 - block / 2 - 0.01), under / 2)
            parts += drawers(draw, body, centre, (depth * 0.92, block, under), 1, draw.integer(2, 4))
        elif draw.chance(0.5):
            parts.append(box(body, (0, y, under / 2), (depth * 0.95, 0.03, under)))
        else:
            parts += [box(body, (s * (depth / 2 - 0.03), y, under / 2), (0.05, 0.04, under)) for s in (-1, 1)]
    if draw.chance(0.5):
        drop = draw.uniform(0.2, 0.5)
        parts.append(box(body, (-depth / 2 + 0.04, 0, under - drop / 2), (0.02, width - 0.08, drop)))
    return piece("desk", parts, support=height)


def drawers(
    draw: Draw, material: Material, centre: Vector, size: Vector, num_columns: int, num_rows: int
) -> list[Solid]:
    """A closed body with fronts (drawers or doors) that stand out by a centimetre and have handles."""
    x, y, z = centre
    depth, width, height = size
    fronts = material if draw.chance(0.5) else draw.material("wood", "paint")
    metal = draw.material("metal", "wood")
    knob = draw.design(("bar", "knob", "none"), apart="knob")
    parts = [box(material, centre, size)]
    w, h = width / num_columns, height / num_rows
    front = x + depth / 2
    for column in range(num_columns):
        for row in range(num_rows):
            cy, cz = y - width / 2 + (column + 0.5) * w, z - height / 2 + (row + 0.5) * h
            parts.append(box(fronts, (front + 0.006, cy, cz), (0.016, w - 0.016, h - 0.016)))
            tall = h > 1.2 * w
            ky = cy + (w * 0.36 * (1 if column % 2 == 0 else -1) if tall else 0.0)
            if knob == "bar":
                bar = (0.025, 0.018, min(0.3, h * 0.3)) if tall else (0.025, min(0.25, w * 0.35), 0.018)
                parts.append(box(metal, (front + 0.026, ky, cz), bar))
            elif knob == "knob":
                parts.append(cylinder(metal, (front + 0.028, ky, cz), (0.035, 0.035, 0.03), "x"))
    return parts


def bed(draw: Draw) -> Piece:
    """A bed with its head at -x: frame or legs, mattress, blanket, head boards of several kinds, maybe a foot board."""
    width, length, height = draw.pick((0.9, 1.2, 1.4, 1.6, 1.8)), draw.uniform(1.9, 2.1), draw.uniform(0.24, 0.42)
    frame, mattress, blanket = draw.material("wood", "cloth", "metal"), draw.material("cloth"), draw.material("cloth")
    thick = draw.uniform(0.14, 0.26)
    rail = draw.uniform(0.1, 0.2)
    lying = height + thick
    parts = [box(frame, (0, 0, height - rail / 2), (length, width, rail))]
    if draw.chance(0.5):
        parts += legs(draw, frame, length, width, height - rail, 0.07)
    else:
        parts.append(box(frame, (-0.03, 0, (height - rail) / 2), (length - 0.1, width - 0.12, height - rail)))
    parts.append(bevelled(mattress, (0, 0, height + thick / 2), (length - 0.06, width - 0.05, thick), 0.04, edges="xy"))
    if draw.chance(0.8):
        cover = draw.uniform(0.55, 0.85) * length
        size = (cover, width + 0.03, thick + 0.04)
        parts.append(
            bevelled(blanket, (length / 2 - cover / 2 + 0.02, 0, height + thick / 2 + 0.02), size, 0.05, edges="xy")
        )
    parts += head_board(draw, frame, -length / 2 - 0.03, width, lying + draw.uniform(0.2, 0.65))
    if draw.chance(0.35):
        foot = lying + draw.uniform(-0.05, 0.2)
        parts.append(box(frame, (length / 2 + 0.03, 0, foot / 2), (0.05, width + 0.04, foot)))
    return piece("bed", parts, support=lying)


def head_board(draw: Draw, frame: Material, x: float, width: float, height: float) -> list[Solid]:
    """A panel, bars between posts, a padded panel, or nothing."""
    kind = draw.design(("panel", "bars", "padded", "rounded", "none"), apart="rounded")
    if kind == "panel":
        return [box(frame, (x, 0, height / 2), (0.05, width + 0.06, height))]
    if kind == "rounded":
        return [cylinder(frame, (x, 0, height * 0.55), (width + 0.06, height * 0.9, 0.06), "x")]
    if kind == "padded":
        count = draw.integer(1, 5)
        cloth = draw.material("cloth")
        w = (width + 0.04) / count
        return [
            cushion(cloth, (x, -width / 2 - 0.02 + w * (i + 0.5), height * 0.65), (0.1, w, height * 0.7), roundness=1.4)
            for i in range(count)
        ]
    if kind == "bars":
        parts = [cylinder(frame, (x, s * width / 2, height / 2), (0.05, 0.05, height)) for s in (-1, 1)]
        parts += [cylinder(frame, (x, 0, z), (0.04, 0.04, width), "y") for z in (height - 0.05, height * 0.5)]
        count = draw.integer(3, 7)
        ys = [width * ((i + 1) / (count + 1) - 0.5) for i in range(count)]
        return parts + [cylinder(frame, (x, y, height * 0.74), (0.025, 0.025, height * 0.46)) for y in ys]
    return []


def sofa(draw: Draw) -> Piece:
    """A sofa for two to four, sometimes with a long seat at one end."""
    seats = draw.integer(2, 4)
    seat = draw.uniform(0.52, 0.7)
    return upholstered(draw, "sofa", seats, seat, chaise=seats > 2 and draw.chance(0.35))


def armchair(draw: Draw) -> Piece:
    """An armchair: a sofa for one, or a tub of a ring of panels around a round seat."""
    if draw.chance(0.6):
        return upholstered(draw, "armchair", 1, draw.uniform(0.5, 0.65), chaise=False)
    cloth, foot = draw.material("cloth"), draw.material("wood", "metal")
    radius, low, high = draw.uniform(0.34, 0.44), draw.uniform(0.1, 0.2), draw.uniform(0.65, 0.9)
    parts = moved(legs(draw, foot, radius, radius, low, 0.04), (0, 0, 0))
    parts.append(cylinder(cloth, (0, 0, low + 0.1), (radius * 1.9, radius * 1.9, 0.2)))
    parts.append(cushion(draw.material("cloth"), (0.04, 0, low + 0.25), (radius * 1.5, radius * 1.4, 0.14)))
    count = 9
    for i in range(count):
        angle = math.pi + (i - (count - 1) / 2) * 0.42
        rise = high - (abs(i - (count - 1) / 2) / 4) ** 2 * draw.uniform(0.15, 0.25)
        panel = box(cloth, (radius, 0, low / 2 + rise / 2), (0.1, radius * 0.46, rise - low))
        parts += moved([panel], (0, 0, 0), rotation("z", angle))
    return piece("armchair", parts, support=low + 0.32)


def upholstered(draw: Draw, label: str, seats: int, seat: float, chaise: bool) -> Piece:
    """Base, seat and back cushions, arms of several shapes."""
    cloth = draw.material("cloth")
    pads = cloth if draw.chance(0.5) else draw.material("cloth")
    depth, base, sit = draw.uniform(0.75, 0.98), draw.uniform(0.2, 0.3), draw.uniform(0.38, 0.46)
    back, arm, lift = draw.uniform(0.72, 0.95), draw.uniform(0.08, 0.24), draw.pick((0.0, 0.05, 0.12))
    inner = seats * seat
    lean = rotation("y", -draw.uniform(0.08, 0.25))
    parts = [box(cloth, (0, 0, (lift + base) / 2 + 0.03), (depth, inner, base - lift + 0.06))]
    parts.append(box(cloth, (-depth / 2 + 0.07, 0, (back + lift) / 2 - 0.04), (0.14, inner + arm, back - lift - 0.08)))
    if lift:
        parts += legs(draw, draw.material("wood", "metal"), depth - 0.08, inner, lift, 0.05)
    for i in range(seats):
        y = (i + 0.5) * seat - inner / 2
        reach = depth - 0.2 + (0.7 if chaise and i == 0 else 0.0)
        pad = (reach, seat - 0.01, sit - base + 0.04)
        parts.append(cushion(pads, (reach / 2 - depth / 2 + 0.2, y, (sit + base) / 2 + 0.02), pad, roundness=1.45))
        if chaise and i == 0:
            parts.append(box(cloth, (depth / 2 + 0.3, y, (lift + base) / 2 + 0.02), (0.78, seat - 0.02, base - lift)))
        size = (0.2, seat - 0.02, back - sit + 0.04)
        parts.append(cushion(pads, (-depth / 2 + 0.24, y, (back + sit) / 2 + 0.02), size, lean, roundness=1.4))
    arms = ("square", "roll", "slope", "none") if label == "sofa" else ("square", "roll", "slope")
    kind = draw.design(arms, apart="roll")
    high = sit + draw.uniform(0.1, 0.24)
    for side in (-1, 1) if kind != "none" else ():
        y = side * (inner / 2 + arm / 2)
        if kind == "slope":
            parts.append(wedge(cloth, (0, y, (high + lift) / 2), (depth, arm, high - lift), draw.uniform(0.4, 0.9)))
        else:
            parts.append(box(cloth, (0, y, (high + lift) / 2), (depth, arm, high - lift)))
        if kind == "roll":
            parts.append(cylinder(cloth, (0, y, high), (arm + 0.05, arm + 0.05, depth), "x"))
    return piece(label, parts, support=sit + 0.03)


def chair(draw: Draw) -> Piece:
    """A dining or office chair: seat, four legs or a column, a back of several kinds, sometimes arm rests."""
    frame, seat = draw.material("wood", "metal"), draw.material("wood", "cloth")
    depth, width, sit = draw.uniform(0.38, 0.48), draw.uniform(0.38, 0.5), draw.uniform(0.42, 0.5)
    parts: list[Solid]
    if draw.chance(0.3):
        parts = star_base(draw, frame, 0.27, sit - 0.05)
    else:
        parts = legs(draw, frame, depth, width, sit - 0.03, draw.uniform(0.025, 0.045))
    thick = draw.uniform(0.02, 0.09)
    shape = draw.design(("box", "cushion", "round"), apart="round")
    centre, size = (0.0, 0.0, sit - thick / 2), (depth, width, thick)
    if shape == "round":
        parts.append(cylinder(seat, centre, size))
    elif shape == "cushion":
        parts.append(cushion(seat, centre, (depth + 0.03, width + 0.03, thick + 0.03), roundness=1.4))
    else:
        parts.append(box(seat, centre, size))
    lean = rotation("y", -draw.uniform(0.05, 0.22))
    rise = draw.uniform(0.36, 0.6)
    parts += moved(chair_back(draw, frame, seat, width, rise), (-depth / 2 + 0.01, 0, sit - 0.03), lean)
    if draw.chance(0.3):
        for side in (-1, 1):
            y, z = side * (width / 2 + 0.02), sit + draw.uniform(0.17, 0.24)
            parts.append(box(frame, (-0.02, y, z), (depth * 0.85, 0.045, 0.03)))
            parts.append(box(frame, (depth * 0.28, y, (z + sit) / 2 - 0.03), (0.035, 0.03, z - sit + 0.06)))
    return piece("chair", parts)


def chair_back(draw: Draw, frame: Material, seat: Material, width: float, rise: float) -> list[Solid]:
    """A panel, a pad on posts, rungs, or bars, standing at the origin."""
    kind = draw.design(("panel", "pad", "rungs", "bars"), apart="rungs")
    if kind == "panel":
        return [
            bevelled(seat, (0, 0, rise / 2), (0.03, width * 0.95, rise), width * draw.uniform(0.05, 0.3), edges="x")
        ]
    posts = [box(frame, (0, s * (width / 2 - 0.02), rise / 2), (0.03, 0.03, rise)) for s in (-1, 1)]
    if kind == "pad":
        return [*posts, cushion(seat, (0.02, 0, rise * 0.7), (0.07, width, rise * 0.55), roundness=1.4)]
    if kind == "rungs":
        count = draw.integer(2, 4)
        zs = [rise * (0.35 + 0.6 * i / (count - 1)) for i in range(count)]
        return posts + [box(frame, (0, 0, z), (0.02, width - 0.04, 0.05)) for z in zs]
    count = draw.integer(2, 5)
    ys = [(width - 0.06) * ((i + 1) / (count + 1) - 0.5) for i in range(count)]
    top = box(frame, (0, 0, rise - 0.03), (0.025, width - 0.03, 0.07))
    return [*posts, top, *(cylinder(frame, (0, y, rise / 2), (0.018, 0.018, rise - 0.05)) for y in ys)]


def stool(draw: Draw) -> Piece:
    """A stool, low or bar height: round or square seat on three or four legs or a column."""
    height, width = draw.pick((draw.uniform(0.4, 0.5), draw.uniform(0.6, 0.78))), draw.uniform(0.3, 0.42)
    frame, seat = draw.material("wood", "metal"), draw.material("wood", "cloth")
    thick = draw.uniform(0.03, 0.1)
    if draw.chance(0.65):
        parts = [cylinder(seat, (0, 0, height - thick / 2), (width, width, thick))]
    else:
        parts = [cushion(seat, (0, 0, height - thick / 2), (width, width, thick), roundness=1.5)]
    kind = draw.design(("splayed", "legs", "column"), apart="splayed")
    if kind == "legs":
        parts += legs(draw, frame, width * 0.8, width * 0.8, height - thick, 0.035)
    elif kind == "column":
        parts += star_base(draw, frame, width * 0.5, height - thick)
    else:
        count, rise = draw.integer(3, 4), height - thick + 0.01
        for i in range(count):
            leg = cylinder(frame, (0, 0, 0), (0.03, 0.03, rise * 1.02))
            leg = moved([leg], (width * 0.36, 0, rise / 2), rotation("y", -0.16))
            parts += moved(leg, (0, 0, 0), rotation("z", 2 * math.pi * i / count))
        ring = 2 * (width * 0.36 + 0.16 * rise * 0.15)
        hole = frustum_quadric((ring / 2 - 0.012, ring / 2 - 0.012, 1.0), 1.0, 1.0)
        parts.append(replace(cylinder(frame, (0, 0, rise * 0.35), (ring, ring, 0.02)), hollow=hole))
    return piece("stool", parts)


def bench(draw: Draw) -> Piece:
    """A long seat without arms, on panels or legs, sometimes padded, sometimes with a back."""
    depth, width, height = draw.uniform(0.3, 0.45), draw.uniform(0.9, 1.6), draw.uniform(0.4, 0.48)
    wood = draw.material("wood")
    parts = [box(wood, (0, 0, height - 0.02), (depth, width, 0.04))]
    if draw.chance(0.5):
        parts += [
            box(wood, (0, s * width * 0.42, height / 2 - 0.02), (depth * 0.9, 0.04, height - 0.04)) for s in (-1, 1)
        ]
    else:
        parts += legs(draw, draw.material("wood", "metal"), depth * 0.95, width * 0.95, height - 0.04, 0.045)
    if draw.chance(0.4):
        pad = (depth * 0.98, width * 0.98, 0.08)
        parts.append(cushion(draw.material("cloth"), (0, 0, height + 0.035), pad, roundness=1.5))
    if draw.chance(0.3):
        for z in (height + 0.18, height + 0.36):
            parts.append(box(wood, (-depth / 2 + 0.02, 0, z), (0.03, width, 0.1)))
        parts += [box(wood, (-depth / 2 - 0.01, s * width * 0.4, height + 0.2), (0.03, 0.05, 0.45)) for s in (-1, 1)]
    return piece("bench", parts, support=height)


def nightstand(draw: Draw) -> Piece:
    """A small chest: drawers on a plinth or on legs, or an open frame with a drawer."""
    depth, width, height = draw.uniform(0.32, 0.42), draw.uniform(0.36, 0.52), draw.uniform(0.42, 0.62)
    wood = draw.material("wood", "paint")
    lift = draw.pick((0.03, draw.uniform(0.1, 0.3)))
    parts = drawers(draw, wood, (0, 0, (height + lift) / 2), (depth, width, height - lift), 1, draw.integer(1, 3))
    parts += legs(draw, wood, depth, width, lift, 0.04)
    parts.append(box(wood, (0, 0, height + 0.01), (depth + 0.03, width + 0.03, 0.02)))
    return piece("nightstand", parts, support=height + 0.02)


def cabinet(draw: Draw) -> Piece:
    """A sideboard, chest of drawers or television cabinet, up to chest height."""
    kind = draw.design(("sideboard", "chest", "low"), apart="low")
    width = {"sideboard": draw.uniform(1.1, 1.9), "chest": draw.uniform(0.7, 1.1), "low": draw.uniform(1.1, 2.0)}[kind]
    height = {"sideboard": draw.uniform(0.7, 0.95), "chest": draw.uniform(0.8, 1.25), "low": draw.uniform(0.38, 0.6)}[
        kind
    ]
    depth = draw.uniform(0.36, 0.52)
    wood = draw.material("wood", "paint")
    lift = draw.pick((0.04, draw.uniform(0.1, 0.2)))
    columns = max(1, round(width / draw.uniform(0.42, 0.75)))
    rows = draw.integer(3, 5) if kind == "chest" else draw.integer(1, 2)
    parts = drawers(draw, wood, (0, 0, (height + lift) / 2), (depth, width, height - lift), columns, rows)
    parts += legs(draw, draw.material("wood", "metal"), depth * 0.94, width * 0.96, lift, 0.045)
    parts.append(box(draw.material("wood", "stone"), (0, 0, height + 0.012), (depth + 0.03, width + 0.03, 0.024)))
    return piece("cabinet", parts, support=height + 0.024)


def wardrobe(draw: Draw) -> Piece:
    """A tall closed cupboard with two to four doors, sometimes drawers below or a cornice."""
    doors = draw.integer(2, 4)
    depth, width, height = draw.uniform(0.52, 0.65), doors * draw.uniform(0.4, 0.55), draw.uniform(1.75, 2.2)
    wood = draw.material("wood", "paint")
    low = draw.pick((0.06, 0.06, 0.4))
    parts = drawers(draw, wood, (0, 0, (height + low) / 2), (depth, width, height - low), doors, 1)
    if low > 0.1:
        parts += drawers(draw, wood, (0, 0, low / 2), (depth, width, low), max(1, doors // 2), 1)
    else:
        parts.append(box(wood, (-0.02, 0, low / 2), (depth - 0.06, width - 0.04, low)))
    if draw.chance(0.4):
        parts.append(box(wood, (0.01, 0, height + 0.03), (depth + 0.06, width + 0.06, 0.06)))
    return piece("wardrobe", parts)


def bookshelf(draw: Draw) -> Piece:
    """Open shelves between two sides, with or without a back, filled with books and boxes in any colours."""
    depth, width, height = draw.uniform(0.24, 0.36), draw.uniform(0.6, 1.3), draw.uniform(1.0, 2.15)
    wood = draw.material("wood", "paint", "metal")
    board = draw.uniform(0.018, 0.03)
    shelves = max(2, round(height / draw.uniform(0.3, 0.45)))
    pitch = (height - board) / shelves
    parts = [box(wood, (0, s * (width - board) / 2, height / 2), (depth, board, height)) for s in (-1, 1)]
    parts += [
        box(wood, (0, 0, board / 2 + i * pitch), (depth - 0.004, width - 2 * board, board)) for i in range(shelves + 1)
    ]
    if draw.chance(0.7):
        parts.append(box(wood, (-depth / 2 + 0.006, 0, height / 2), (0.008, width - 2 * board, height - 0.01)))
    covers = [draw.material("paint", "cloth", "print") for _ in range(6)]
    for i in range(shelves):
        if draw.chance(0.88):
            parts += shelf_row(draw, covers, depth, width - 2 * board, board + i * pitch, pitch - board)
    return piece("bookshelf", parts, support=height if height < 1.3 else 0.0)


def shelf_row(draw: Draw, covers: list[Material], depth: float, width: float, z: float, clear: float) -> list[Solid]:
    """Books of one shelf: uneven blocks from one side on, the last one leaning, sometimes a box beside them."""
    parts = []
    y, end = -width / 2 + 0.01, -width / 2 + width * draw.uniform(0.45, 0.98)
    while True:
        thick, tall = draw.uniform(0.03, 0.11), clear * draw.uniform(0.6, 0.92)
        if y + thick > end:
            break
        deep = depth * draw.uniform(0.6, 0.85)
        centre = (-depth / 2 + 0.01 + deep / 2, y + thick / 2, z + tall / 2)
        parts.append(box(draw.pick(covers), centre, (deep, thick - 0.003, tall)))
        y += thick
    if width / 2 - y > 0.22 and draw.chance(0.6):
        side = min(0.3, width / 2 - y - 0.06)
        tall = clear * draw.uniform(0.35, 0.75)
        parts.append(box(draw.pick(covers), (0, width / 2 - side / 2 - 0.02, z + tall / 2), (depth * 0.75, side, tall)))
    return parts
