"""What stands still in streets: buildings, trees, poles, fences, barriers; front towards +x, on the ground at z = 0."""

import math
from dataclasses import replace

from ponder3d.data.synthetic.pieces import Draw, Piece, piece
from ponder3d.data.synthetic.solids import Solid, box, cylinder, ellipsoid, frustum
from ponder3d.data.synthetic.street_skins import Skin, any_colour, lamp, leaves, metal, skin, wall

ROOFS = ((0.45, 0.2, 0.15), (0.3, 0.3, 0.32), (0.38, 0.28, 0.22), (0.25, 0.26, 0.3))


def building(draw: Draw, width: float, depth: float, tall: bool) -> Piece:
    """A building with its door in the front, towards +x, ``width`` wide and ``depth`` deep."""
    storey = draw.uniform(2.8, 3.4)
    storeys = draw.integer(3, 9) if tall else draw.integer(1, 3)
    height = storeys * storey + draw.uniform(0.2, 0.8)
    outside = wall(draw, storey=storey)
    front = depth / 2
    solids = [box(outside, (0, 0, height / 2), (depth, width, height))]
    trim = skin(draw, draw.pick(((0.85, 0.84, 0.8), (0.4, 0.38, 0.36), (0.6, 0.55, 0.5))))
    if not tall and draw.chance(0.7):
        solids.append(gable(skin(draw, draw.pick(ROOFS), "tiles", 1.5, 0.3), depth + 0.6, width + 0.5, height, draw))
    else:
        solids.append(box(trim, (0, 0, height + 0.15), (depth + 0.2, width + 0.2, draw.uniform(0.3, 0.9))))
        if draw.chance(0.5):
            solids.append(box(trim, (-1, draw.uniform(-0.2, 0.2) * width, height + 1), (3, 3.5, 2.2)))
    door = skin(draw, any_colour(draw), "planks", 1.0, 0.2)
    solids.append(box(door, (front + 0.03, draw.uniform(-0.3, 0.3) * width, 1.1), (0.1, 1.1, 2.2)))
    solids.append(box(skin(draw, (0.5, 0.5, 0.5)), (0, 0, 0.2), (depth + 0.12, width + 0.08, 0.4)))
    if tall and draw.chance(0.5):
        # Shops: a dark band of glass and an awning.
        shop = skin(draw, (0.14, 0.17, 0.2), "tiles", 4.0, 0.5, reflectance=0.12, gloss=0.6, dropout=0.4)
        solids.append(box(shop, (front + 0.01, 0, 1.5), (0.08, width * 0.9, 2.4)))
        colour = skin(draw, any_colour(draw, 0.9), "stripes", 1.5, 0.5)
        solids.append(box(colour, (front + 0.6, 0, 2.9), (1.2, width * draw.uniform(0.3, 0.9), 0.15)))
    for level in range(1, storeys if tall and draw.chance(0.5) else 1):
        solids.append(box(trim, (front + 0.45, 0, level * storey + 0.5), (0.9, width * 0.6, 1.0)))
    if not tall and draw.chance(0.4):
        solids.append(box(trim, (front + 0.8, draw.uniform(-0.2, 0.2) * width, 2.5), (1.6, 2.4, 0.15)))
    return piece("manmade", solids)


def gable(roof: Skin, depth: float, width: float, base: float, draw: Draw) -> Solid:
    """A pitched roof; its ridge runs along y or x."""
    along = draw.chance(0.6)
    run = (depth if along else width) / 2
    rise = run * draw.uniform(0.45, 0.9)
    length = math.hypot(run, rise)
    planes = []
    for sign in (-1.0, 1.0):
        side = sign * rise / length
        normal = (side, 0.0, run / length) if along else (0.0, side, run / length)
        planes.append((*normal, run / length * rise / 2))
    return replace(box(roof, (0, 0, base + rise / 2), (depth, width, rise)), planes=tuple(planes))


def shed(draw: Draw) -> Piece:
    """A container, cabin or bus shelter."""
    length, height = draw.uniform(2.5, 6.0), draw.uniform(2.2, 2.6)
    return piece(
        "manmade", [box(skin(draw, any_colour(draw), "stripes", 2.0, 0.3), (0, 0, height / 2), (2.4, length, height))]
    )


def shelter(draw: Draw) -> Piece:
    """A bus stop: glass back, roof, bench."""
    pane = skin(draw, (0.5, 0.58, 0.6), gloss=0.5, reflectance=0.15, dropout=0.4)
    dark = metal(draw, (0.25, 0.26, 0.28))
    return piece(
        "manmade",
        [
            box(pane, (-0.7, 0, 1.25), (0.06, 3.4, 2.0)),
            box(pane, (0, -1.7, 1.25), (1.2, 0.06, 2.0)),
            box(dark, (0, 0, 2.4), (1.7, 3.8, 0.14)),
            *(box(dark, (x, y, 1.2), (0.1, 0.1, 2.4)) for x in (-0.7, 0.6) for y in (-1.75, 1.75)),
            box(skin(draw, (0.45, 0.32, 0.2)), (-0.4, 0, 0.45), (0.4, 2.4, 0.08)),
            *(box(dark, (-0.4, y, 0.22), (0.3, 0.08, 0.44)) for y in (-0.9, 0.9)),
        ],
    )


def tree(draw: Draw, small: bool = False) -> Piece:
    """A tree whose crown is several ellipsoids, or a conifer. Its footprint is that of the trunk's ``size``."""
    height = draw.uniform(3.5, 5.5) if small else draw.uniform(5.5, 11.0)
    bark = skin(draw, (0.33, 0.26, 0.2), "wood", 0.8, 0.3, reflectance=0.25)
    green = leaves(draw)
    thick = height * draw.uniform(0.028, 0.045)
    if draw.chance(0.2):
        solids = [cylinder(bark, (0, 0, 0.75), (thick, thick, 1.5))]
        width = height * draw.uniform(0.3, 0.42)
        for level in range(3):
            low = 0.8 + (height - 0.8) * 0.27 * level
            size = width * (1 - 0.25 * level)
            solids.append(frustum(green, (0, 0, low + height * 0.23), (size, size, height * 0.46), 1.0, 0.0))
        return piece("vegetation", solids)
    bare = max(2.2, height * draw.uniform(0.3, 0.42))
    solids = [frustum(bark, (0, 0, bare * 0.6), (thick, thick, bare * 1.2), 1.0, 0.75)]
    spread = (height - bare) * draw.uniform(0.7, 1.05)
    solids.append(ellipsoid(green, (0, 0, (bare + height) / 2), (spread, spread, height - bare)))
    start = draw.uniform(0, math.tau)
    for i in range(draw.integer(3, 5)):
        angle = start + i * draw.uniform(1.1, 1.6)
        size = spread * draw.uniform(0.45, 0.7)
        away = spread * draw.uniform(0.28, 0.42)
        middle = bare + (height - bare) * draw.uniform(0.35, 0.7)
        place = (away * math.cos(angle), away * math.sin(angle), max(middle, bare + size * 0.35))
        solids.append(ellipsoid(green, place, (size, size, size * draw.uniform(0.7, 1.0))))
    return Piece("vegetation", tuple(solids), (2 * spread, 2 * spread, height))


def bush(draw: Draw) -> Piece:
    """One to three round bushes."""
    green = leaves(draw)
    solids = []
    for _ in range(draw.integer(1, 3)):
        size = draw.uniform(0.7, 1.6)
        place = (draw.uniform(-0.5, 0.5), draw.uniform(-0.7, 0.7), size * 0.32)
        solids.append(ellipsoid(green, place, (size, size * draw.uniform(0.8, 1.3), size * draw.uniform(0.8, 1.2))))
    return piece("vegetation", solids)


def hedge(draw: Draw, length: float) -> Piece:
    """A clipped hedge along y."""
    height = draw.uniform(0.8, 1.9)
    return piece("vegetation", [box(leaves(draw), (0, 0, height / 2), (draw.uniform(0.5, 0.9), length, height))])


def fence(draw: Draw, length: float) -> Piece:
    """A fence of slats between posts, or a wall, along y."""
    if draw.chance(0.4):
        height = draw.uniform(0.6, 2.0)
        return piece("manmade", [box(wall(draw, windows=False), (0, 0, height / 2), (0.25, length, height))])
    height, number = draw.uniform(0.9, 1.6), max(2, int(length / 2))
    material = skin(draw, draw.pick(((0.9, 0.9, 0.88), (0.35, 0.25, 0.17), (0.2, 0.22, 0.2))), "wood", 0.7, 0.25)
    solids = [
        box(material, (0, length * (i / number - 0.5), height / 2), (0.1, 0.1, height)) for i in range(number + 1)
    ]
    for low in (0.25, 0.55, 0.85):
        solids.append(box(material, (0, 0, height * low), (0.05, length, height * 0.17)))
    return piece("manmade", solids)


def mound(draw: Draw, size: float) -> Piece:
    """A grassy rise."""
    grass = skin(draw, (0.32, 0.38, 0.17), "cloud", 2.5, 0.4, reflectance=0.4)
    height = size * draw.uniform(0.05, 0.1)
    solid = ellipsoid(grass, (0, 0, 0), (size, size * draw.uniform(0.7, 1.3), 2 * height))
    return Piece("terrain", (solid,), (2 * solid.half[0], 2 * solid.half[1], height))


def street_lamp(draw: Draw) -> Piece:
    """A lamp post with an arm towards +x."""
    height, arm = draw.uniform(5.5, 8.5), draw.uniform(1.0, 2.2)
    grey = metal(draw, draw.pick(((0.45, 0.46, 0.47), (0.2, 0.22, 0.2))))
    return _standing(
        [
            frustum(grey, (0, 0, height / 2), (0.2, 0.2, height), 1.0, 0.6),
            box(grey, (arm / 2, 0, height - 0.1), (arm, 0.1, 0.1)),
            box(lamp(draw, (0.9, 0.88, 0.8)), (arm, 0, height - 0.18), (0.6, 0.24, 0.14)),
        ]
    )


def sign(draw: Draw) -> Piece:
    """A traffic sign on a pole, facing +x."""
    height = draw.uniform(2.3, 3.0)
    grey = metal(draw)
    solids = [cylinder(grey, (0, 0, height / 2), (0.08, 0.08, height))]
    colour = draw.pick(((0.75, 0.1, 0.1), (0.1, 0.25, 0.65), (0.9, 0.8, 0.2), (0.92, 0.92, 0.92), (0.1, 0.45, 0.25)))
    plate = skin(draw, colour, "plain", 0.6, 0.1, reflectance=0.95)
    if draw.chance(0.5):
        solids.append(cylinder(plate, (0.06, 0, height - 0.35), (0.65, 0.65, 0.05), "x"))
    else:
        wide = draw.uniform(0.5, 1.2)
        solids.append(box(plate, (0.06, 0, height - 0.4), (0.05, wide, draw.uniform(0.45, 0.8))))
    return _standing(solids)


def traffic_light(draw: Draw, arm: float) -> Piece:
    """Traffic lights facing +x, one of them at the end of an arm towards -y."""
    grey, dark = metal(draw), metal(draw, (0.12, 0.13, 0.12))
    on = draw.integer(0, 2)
    solids = [frustum(grey, (0, 0, 3.0), (0.22, 0.22, 6.0), 1.0, 0.7)]
    if arm > 0:
        solids.append(box(grey, (0, -arm / 2, 5.8), (0.12, arm, 0.12)))
    for y, z in ((0.0, 3.2), (-arm, 5.6)) if arm > 0 else ((0.0, 3.2),):
        solids.append(box(dark, (0.16, y, z), (0.2, 0.34, 0.95)))
        for i, colour in enumerate(((0.9, 0.1, 0.05), (0.95, 0.65, 0.1), (0.1, 0.85, 0.4))):
            bulb = lamp(draw, colour if i == on else (0.1, 0.1, 0.1), 1.0 if i == on else 0.0)
            solids.append(cylinder(bulb, (0.27, y, z + 0.3 - 0.3 * i), (0.22, 0.22, 0.04), "x"))
    return _standing(solids)


def bin_or_box(draw: Draw) -> Piece:
    """A litter bin, a letter box, a hydrant or a switch box."""
    height = draw.uniform(0.7, 1.3)
    colour = skin(draw, any_colour(draw, 0.8, 0.5))
    if draw.chance(0.5):
        width = draw.uniform(0.35, 0.6)
        return piece("manmade", [cylinder(colour, (0, 0, height / 2), (width, width, height))])
    return piece("manmade", [box(colour, (0, 0, height / 2), (0.45, draw.uniform(0.5, 1.2), height))])


def bench(draw: Draw) -> Piece:
    """A bench that faces +x."""
    slats, dark = skin(draw, (0.45, 0.3, 0.18), "planks", 0.6, 0.3), metal(draw, (0.2, 0.2, 0.2))
    return piece(
        "manmade",
        [
            box(slats, (0, 0, 0.45), (0.45, 1.7, 0.07)),
            box(slats, (-0.24, 0, 0.75), (0.06, 1.7, 0.4)),
            *(box(dark, (-0.05, y, 0.22), (0.4, 0.08, 0.44)) for y in (-0.7, 0.7)),
        ],
    )


def barrier(draw: Draw, length: float = 2.0) -> Piece:
    """A concrete or plastic barrier along y."""
    plastic = draw.chance(0.5)
    material = (
        skin(draw, draw.pick(((0.85, 0.25, 0.1), (0.92, 0.92, 0.92))), reflectance=0.5)
        if plastic
        else skin(draw, (0.62, 0.61, 0.58), "cloud", 1.5, 0.2, reflectance=0.35)
    )
    height = draw.uniform(0.85, 1.05)
    return piece(
        "barrier",
        [
            frustum_box(material, 0.6, 0.32, length, 0.0, height * 0.35),
            frustum_box(material, 0.32, 0.2, length, height * 0.35, height),
        ],
    )


def frustum_box(material: Skin, below: float, above: float, length: float, low: float, high: float) -> Solid:
    """A bar along y whose thickness goes from ``below`` to ``above`` between two heights."""
    inset, rise = (below - above) / 2, high - low
    run = math.hypot(inset, rise)
    planes = tuple(
        (side * rise / run, 0.0, inset / run, rise / run * below / 2 - inset / run * rise / 2) for side in (-1.0, 1.0)
    )
    return replace(box(material, (0, 0, (low + high) / 2), (below, length, rise)), planes=planes)


def cone(draw: Draw) -> Piece:
    """A traffic cone."""
    height = draw.uniform(0.55, 1.0)
    orange = skin(draw, (0.95, 0.35, 0.08), contrast=0.1, reflectance=0.6)
    white = skin(draw, (0.92, 0.92, 0.9), contrast=0.0, reflectance=0.95)
    base = height * 0.5
    return piece(
        "traffic cone",
        [
            box(skin(draw, (0.15, 0.12, 0.1)), (0, 0, 0.03), (base, base, 0.06)),
            frustum(orange, (0, 0, height / 2), (base * 0.8, base * 0.8, height), 1.0, 0.2),
            frustum(white, (0, 0, height * 0.6), (base * 0.6, base * 0.6, height * 0.2), 0.92, 0.7),
        ],
    )


def _standing(solids: list[Solid]) -> Piece:
    """A piece whose origin stays where its pole stands."""
    return Piece("manmade", tuple(solids), (0.3, 0.3, 2.0))
