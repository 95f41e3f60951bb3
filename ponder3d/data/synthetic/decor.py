"""Screens, lamps, plants, textiles and other small things. One function per class, as in ``furniture``.

Convention: front towards +x, y is the width, z up from what the piece stands on, metres. Things that hang on a wall
have their back at -x and their lower edge at z = 0.
"""

import math
from dataclasses import replace

from ponder3d.data.synthetic.pieces import Draw, Piece, piece
from ponder3d.data.synthetic.solids import (
    Solid,
    box,
    cushion,
    cylinder,
    ellipsoid,
    ellipsoid_quadric,
    frustum,
    frustum_quadric,
    moved,
    rotation,
    wedge,
)


def television(draw: Draw, on_wall: bool = False) -> Piece:
    """A wide screen on one or two feet, or with its back to a wall."""
    return screen_on_foot(draw, "television", draw.uniform(0.8, 1.45), 0.0 if on_wall else draw.uniform(0.05, 0.09))


def monitor(draw: Draw) -> Piece:
    """A computer screen on a neck and a foot."""
    return screen_on_foot(draw, "monitor", draw.uniform(0.42, 0.7), draw.uniform(0.1, 0.18))


def screen_on_foot(draw: Draw, label: str, width: float, neck: float) -> Piece:
    """A panel in a frame, ``neck`` metres above its foot, or without a foot; the screen is dark or shows something."""
    height = width * draw.uniform(0.55, 0.64)
    case, glass = draw.material("metal", "paint"), draw.material("screen", emission=draw.pick((0.0, 0.0, 0.35)))
    parts = [
        box(case, (0, 0, neck + height / 2), (0.04, width, height)),
        box(glass, (0.02, 0, neck + height / 2 + 0.004), (0.012, width - 0.035, height - 0.045)),
    ]
    if neck == 0:
        return piece(label, parts)
    if label == "monitor" or draw.chance(0.5):
        parts.append(box(case, (-0.01, 0, neck / 2 + 0.03), (0.035, 0.07, neck + 0.04)))
        foot = draw.design(("disc", "plate"), apart="plate")
        if foot == "disc":
            parts.append(cylinder(case, (0, 0, 0.01), (0.2, width * 0.4, 0.02)))
        else:
            parts.append(box(case, (0, 0, 0.01), (0.18, width * 0.42, 0.02)))
    else:
        for side in (-1, 1):
            parts.append(box(case, (0, side * width * 0.35, 0.012), (0.22, 0.03, 0.024)))
            parts.append(box(case, (0, side * width * 0.35, neck / 2 + 0.01), (0.03, 0.03, neck + 0.02)))
    return piece(label, parts)


def floor_lamp(draw: Draw) -> Piece:
    """A foot, a pole, and a shade: straight, on an arm, or three legs."""
    height, foot = draw.uniform(1.35, 1.75), draw.uniform(0.22, 0.34)
    metal = draw.material("metal", "wood")
    parts: list[Solid] = []
    if draw.chance(0.3):
        for i in range(3):
            leg = moved(
                [cylinder(metal, (0, 0, 0), (0.03, 0.03, height * 0.82))], (0.14, 0, height * 0.4), rotation("y", -0.2)
            )
            parts += moved(leg, (0, 0, 0), rotation("z", 2 * math.pi * i / 3))
    else:
        parts.append(frustum(metal, (0, 0, 0.015), (foot, foot, 0.03), 1.0, 0.8))
        parts.append(cylinder(metal, (0, 0, height * 0.48), (0.03, 0.03, height * 0.94)))
    shade = lamp_shade(draw, draw.uniform(0.28, 0.46))
    x = 0.0
    if draw.chance(0.25):
        x = draw.uniform(0.25, 0.45)
        parts.append(cylinder(metal, (x / 2, 0, height * 0.94), (0.025, 0.025, x + 0.03), "x"))
    return piece("lamp", [*parts, *moved(shade, (x, 0, height - 0.12))])


def table_lamp(draw: Draw) -> Piece:
    """A small lamp with a foot of one of several shapes."""
    body = draw.material("ceramic", "wood", "metal")
    rise, width = draw.uniform(0.12, 0.26), draw.uniform(0.1, 0.16)
    kind = draw.design(("ball", "cone", "post"), apart="cone")
    if kind == "ball":
        parts = [ellipsoid(body, (0, 0, rise / 2), (width, width, rise))]
    elif kind == "cone":
        parts = [frustum(body, (0, 0, rise / 2), (width, width, rise), 1.0, 0.3)]
    else:
        parts = [
            cylinder(body, (0, 0, rise / 2), (0.025, 0.025, rise)),
            cylinder(body, (0, 0, 0.01), (width, width, 0.02)),
        ]
    return piece("lamp", [*parts, *moved(lamp_shade(draw, draw.uniform(0.2, 0.3)), (0, 0, rise + 0.06))])


def pendant_lamp(draw: Draw) -> Piece:
    """A lamp that hangs from the ceiling: z = 0 is the ceiling. A shade or a ball on a cord, or a flat disc."""
    kind = draw.design(("shade", "ball", "disc"), apart="ball")
    glow = draw.pick((0.0, 0.9))
    if kind == "disc":
        size = draw.uniform(0.3, 0.5)
        return piece(
            "lamp", [frustum(draw.material("cloth", emission=glow), (0, 0, -0.05), (size, size, 0.1), 0.75, 1.0)]
        )
    drop = draw.uniform(0.35, 0.7)
    parts = [cylinder(draw.material("metal"), (0, 0, -drop / 2), (0.012, 0.012, drop))]
    if kind == "ball":
        size = draw.uniform(0.22, 0.4)
        return piece(
            "lamp", [*parts, ellipsoid(draw.material("cloth", emission=glow), (0, 0, -drop), (size, size, size))]
        )
    return piece("lamp", [*parts, *moved(lamp_shade(draw, draw.uniform(0.28, 0.5)), (0, 0, -drop))])


def lamp_shade(draw: Draw, width: float) -> list[Solid]:
    """A conical or straight shade, open at both ends, on or off; its centre is at the origin."""
    height, top = width * draw.uniform(0.45, 0.9), draw.uniform(0.4, 1.0)
    cloth = draw.material("cloth", emission=draw.pick((0.0, 0.9)))
    shade = frustum(cloth, (0, 0, 0), (width, width, height), 1.0, top)
    inner = frustum_quadric((width / 2 - 0.008, width / 2 - 0.008, height / 2), 1.0, top)
    bulb = draw.material("cloth", emission=cloth.emission)
    return [replace(shade, hollow=inner), ellipsoid(bulb, (0, 0, -0.02), (0.08, 0.08, min(0.12, height)))]


def plant(draw: Draw) -> Piece:
    """A pot with a plant: a bush, a palm, a cactus or a small tree."""
    width, height = draw.uniform(0.2, 0.38), draw.uniform(0.18, 0.36)
    pot, soil = draw.material("ceramic", "stone", "wood"), draw.material("leaf")
    shape = frustum(pot, (0, 0, height / 2), (width, width, height), draw.uniform(0.6, 0.95), 1.0)
    hole = frustum_quadric((width * 0.45, width * 0.45, height / 2), 1.0, 1.0)
    parts = [
        replace(shape, hollow=hole),
        cylinder(soil, (0, 0, height * 0.42), (width * 0.88, width * 0.88, height * 0.8)),
    ]
    grow = {"bush": _bush, "palm": _palm, "cactus": _cactus, "tree": _tree}[
        draw.design(("bush", "palm", "cactus", "tree"), apart="palm")
    ]
    return piece("plant", [*parts, *moved(grow(draw), (0, 0, height * 0.8))])


def _bush(draw: Draw) -> list[Solid]:
    leaf, size = draw.material("leaf"), draw.uniform(0.3, 0.55)
    parts = []
    for _ in range(draw.integer(5, 9)):
        x, y, z = (draw.uniform(-0.3, 0.3) * size for _ in range(3))
        r = size * draw.uniform(0.35, 0.6)
        parts.append(ellipsoid(leaf, (x, y, size * 0.55 + z), (r, r, r * draw.uniform(0.7, 1.2))))
    return parts


def _palm(draw: Draw) -> list[Solid]:
    leaf, trunk = draw.material("leaf"), draw.uniform(0.1, 0.7)
    parts = [cylinder(draw.material("wood"), (0, 0, trunk / 2), (0.05, 0.05, trunk))]
    count, long = draw.integer(7, 12), draw.uniform(0.35, 0.65)
    for i in range(count):
        droop = draw.uniform(-1.2, 0.2)
        blade = moved([ellipsoid(leaf, (long / 2, 0, 0), (long, long * 0.2, 0.02))], (0, 0, 0), rotation("y", droop))
        parts += moved(blade, (0, 0, trunk), rotation("z", 2 * math.pi * i / count + draw.uniform(-0.2, 0.2)))
    return parts


def _cactus(draw: Draw) -> list[Solid]:
    leaf, height, width = draw.material("leaf"), draw.uniform(0.35, 0.9), draw.uniform(0.1, 0.16)
    parts = [cushion(leaf, (0, 0, height / 2), (width, width, height), roundness=1.15)]
    for side in (-1, 1)[: draw.integer(0, 2)]:
        reach, z = width * draw.uniform(1.0, 1.6), height * draw.uniform(0.4, 0.6)
        parts.append(cylinder(leaf, (0, side * reach / 2, z), (width * 0.5, width * 0.5, reach), "y"))
        rise = height * draw.uniform(0.25, 0.45)
        size = (width * 0.6, width * 0.6, rise)
        parts.append(cushion(leaf, (0, side * reach, z + rise / 2 - 0.03), size, roundness=1.15))
    return parts


def _tree(draw: Draw) -> list[Solid]:
    leaf, trunk = draw.material("leaf"), draw.uniform(0.4, 0.9)
    parts = [frustum(draw.material("wood"), (0, 0, trunk / 2), (0.06, 0.06, trunk), 1.0, 0.6)]
    if draw.chance(0.4):
        return [*parts, frustum(leaf, (0, 0, trunk + 0.2), (0.5, 0.5, 0.6), 1.0, 0.05)]
    for _ in range(draw.integer(3, 6)):
        x, y, z = (draw.uniform(-0.18, 0.18) for _ in range(3))
        r = draw.uniform(0.25, 0.4)
        parts.append(ellipsoid(leaf, (x, y, trunk + z), (r, r, r * 0.8)))
    return parts


def waste_bin(draw: Draw) -> Piece:
    """A waste bin: open and conical, square, or with a lid and a pedal."""
    width, height = draw.uniform(0.22, 0.34), draw.uniform(0.28, 0.6)
    stuff = draw.material("metal", "paint", "wood")
    kind = draw.design(("open", "square", "lid"), apart="square")
    depth = width * draw.uniform(0.7, 1.0) if kind == "square" else width
    # The hollow runs through the floor of the bin as well; nobody sees that from above.
    inner = frustum_quadric((depth * 0.46, width * 0.46, height / 2), 0.82, 1.0)
    if kind == "square":
        parts = [replace(box(stuff, (0, 0, height / 2), (depth, width, height)), hollow=inner)]
    elif kind == "open":
        parts = [replace(frustum(stuff, (0, 0, height / 2), (width, width, height), 0.8, 1.0), hollow=inner)]
    else:
        parts = [cylinder(stuff, (0, 0, height / 2), (width, width, height))]
        dome = ellipsoid_quadric((width / 2, width / 2, 0.08), lift=-0.04)
        lid = box(draw.material("metal", "paint"), (0, 0, height + 0.04), (width, width, 0.08))
        parts.append(replace(lid, quadric=dome))
        parts.append(box(draw.material("metal"), (width / 2 + 0.02, 0, 0.03), (0.08, 0.08, 0.02)))
    return piece("bin", parts)


def pillow(draw: Draw) -> Piece:
    """A soft cushion, square or oblong, lying flat."""
    depth = draw.uniform(0.32, 0.48)
    size = (depth, depth * draw.uniform(1.0, 1.6), draw.uniform(0.1, 0.17))
    cloth = draw.material("cloth")
    if draw.chance(0.3):
        return piece("pillow", [ellipsoid(cloth, (0, 0, size[2] / 2), size)])
    return piece("pillow", [cushion(cloth, (0, 0, size[2] / 2), size, roundness=draw.uniform(1.2, 1.35))])


def rug(draw: Draw, depth: float, width: float) -> Piece:
    """A carpet on the floor: rectangular or oval, sometimes with a border."""
    cloth = draw.material("cloth", "print")
    if draw.chance(0.35):
        return piece("rug", [cylinder(cloth, (0, 0, 0.006), (depth, width, 0.012))])
    parts = [box(cloth, (0, 0, 0.006), (depth, width, 0.012))]
    if draw.chance(0.5):
        edge = draw.uniform(0.08, 0.2)
        parts.append(box(draw.material("cloth", "print"), (0, 0, 0.008), (depth - 2 * edge, width - 2 * edge, 0.014)))
    return piece("rug", parts)


def carton(draw: Draw) -> Piece:
    """A box: closed, open with flaps, or two on top of each other."""
    depth, width, height = draw.uniform(0.25, 0.5), draw.uniform(0.3, 0.6), draw.uniform(0.2, 0.45)
    card = draw.material("paint", "wood", "print")
    kind = draw.design(("closed", "open", "stack"), apart="open")
    if kind == "open":
        t = 0.015
        parts = [box(card, (s * (depth - t) / 2, 0, height / 2), (t, width, height)) for s in (-1, 1)]
        parts += [box(card, (0, s * (width - t) / 2, height / 2), (depth - 2 * t, t, height)) for s in (-1, 1)]
        parts.append(box(card, (0, 0, 0.01), (depth - 2 * t, width - 2 * t, 0.02)))
        for side in (-1, 1):
            flap = box(card, (0, side * depth * 0.2, 0), (width * 0.95, depth * 0.4, 0.01))
            turn = rotation("z", math.pi / 2) @ rotation("x", -side * draw.uniform(0.3, 1.0))
            parts += moved([flap], (side * -depth / 2, 0, height), turn)
        return piece("box", parts)
    parts = [box(card, (0, 0, height / 2), (depth, width, height))]
    tape = draw.material("paint")
    parts.append(box(tape, (0, 0, height / 2), (depth + 0.006, 0.06, height + 0.006)))
    if kind == "stack":
        small = box(draw.material("paint", "print"), (0, 0, height * 0.35), (depth * 0.75, width * 0.7, height * 0.7))
        parts += moved([small], (0, 0, height + 0.003), rotation("z", draw.uniform(-0.3, 0.3)))
    return piece("box", parts)


def mirror(draw: Draw) -> Piece:
    """A framed mirror, rectangular or round, for a wall; the depth camera mostly sees nothing in it."""
    width, height = draw.uniform(0.4, 0.9), draw.uniform(0.5, 1.0)
    frame, glass = draw.material("wood", "metal", "paint"), draw.material("glass")
    if draw.chance(0.35):
        disc = cylinder(frame, (0, 0, width / 2), (width, width, 0.03), "x")
        return piece("mirror", [disc, cylinder(glass, (0.012, 0, width / 2), (width - 0.08, width - 0.08, 0.024), "x")])
    board = box(frame, (0, 0, height / 2), (0.03, width, height))
    return piece("mirror", [board, box(glass, (0.012, 0, height / 2), (0.024, width - 0.08, height - 0.08))])


def clutter(draw: Draw) -> Piece:
    """A small thing to put on a table or a cabinet: a box, a plant or a lamp."""
    kind = draw.pick(("box", "plant", "lamp"))
    if kind == "lamp":
        return table_lamp(draw)
    if kind == "plant":
        pot = draw.material("ceramic", "stone")
        width = draw.uniform(0.1, 0.18)
        grown = ellipsoid(draw.material("leaf"), (0, 0, width * 1.6), (width * 1.7, width * 1.7, width * 1.5))
        return piece("plant", [frustum(pot, (0, 0, width / 2), (width, width, width), 0.7, 1.0), grown])
    size = (draw.uniform(0.14, 0.3), draw.uniform(0.14, 0.35), draw.uniform(0.08, 0.25))
    return piece("box", [wedge(draw.material("print", "paint"), (0, 0, size[2] / 2), size, draw.pick((1.0, 1.0, 0.6)))])
