"""Kitchen and bathroom fixtures, appliances and radiators. One function per class, as in ``furniture``.

Convention: front towards +x, y is the width, z up, metres.
"""

import math
from dataclasses import replace

from ponder3d.data.synthetic.furniture import drawers, legs
from ponder3d.data.synthetic.materials import Material
from ponder3d.data.synthetic.pieces import Draw, Piece, piece
from ponder3d.data.synthetic.solids import (
    Quadric,
    Solid,
    bevelled,
    box,
    cylinder,
    ellipsoid_quadric,
    frustum,
    frustum_quadric,
    moved,
    rotation,
)

COUNTER_DEPTH = 0.6


def counter(draw: Draw, height: float = 0.0, top: Material | None = None, width: float = 0.0) -> Piece:
    """A stretch of kitchen counter: closed body on a plinth, worktop, sometimes with a wall cupboard above."""
    height, width = height or draw.uniform(0.85, 0.93), width or draw.uniform(0.5, 1.3)
    body = draw.material("wood", "paint")
    columns = max(1, round(width / 0.55))
    size = (COUNTER_DEPTH - 0.06, width, height - 0.14)
    parts = drawers(draw, body, (-0.02, 0, height / 2 + 0.03), size, columns, draw.pick((1, 1, 3)))
    parts.append(box(body, (-0.05, 0, 0.05), (COUNTER_DEPTH - 0.12, width, 0.1)))
    parts.append(box(top or draw.material("stone", "wood"), (0, 0, height - 0.02), (COUNTER_DEPTH, width, 0.04)))
    return piece("counter", parts, support=height)


def wall_cupboard(draw: Draw, width: float) -> Piece:
    """A cupboard that hangs above a counter."""
    columns = max(1, round(width / 0.5))
    parts = drawers(draw, draw.material("wood", "paint"), (0, 0, 0.32), (0.34, width, 0.64), columns, 1)
    return piece("cabinet", parts)


def faucet(metal: Material, x: float, z: float) -> list[Solid]:
    """A spout that reaches forward from a post."""
    post = cylinder(metal, (x, 0, z + 0.11), (0.035, 0.035, 0.22))
    return [post, cylinder(metal, (x + 0.08, 0, z + 0.21), (0.03, 0.03, 0.18), "x")]


def kitchen_sink(draw: Draw, height: float, top: Material) -> Piece:
    """A counter with a basin let into its top."""
    width = draw.uniform(0.6, 1.1)
    body = counter(draw, height, top, width)
    rim = draw.material("metal", "ceramic")
    basin = box(rim, (0.0, 0, height - 0.03), (0.42, min(0.55, width - 0.1), 0.1))
    bowl = ellipsoid_quadric((0.19, min(0.55, width - 0.1) / 2 - 0.025, 0.09), lift=0.05)
    # The worktop and the body below must open up with the basin, or they would show inside it.
    solids = [s for s in body.solids if s.centre[2] < height - 0.03]
    solids = [replace(s, hollow=_lifted(bowl, height - 0.03 - s.centre[2])) if s.half[0] > 0.2 else s for s in solids]
    slab = box(top, (0, 0, height - 0.02), (COUNTER_DEPTH, width, 0.04))
    slab = replace(slab, hollow=_lifted(bowl, -0.01))
    basin = replace(basin, hollow=bowl)
    return piece("sink", [*solids, slab, basin, *faucet(draw.material("metal"), -0.25, height)])


def _lifted(quadric: Quadric, lift: float) -> Quadric:
    """An ellipsoid seen from a frame whose origin is ``lift`` lower."""
    middle = -quadric.slope / quadric.z + lift
    radii = (quadric.x**-0.5, quadric.y**-0.5, quadric.z**-0.5)
    return ellipsoid_quadric(radii, middle)


def sink(draw: Draw) -> Piece:
    """A wash basin on a column, on a vanity, or on two legs at the wall."""
    depth, width, height = draw.uniform(0.4, 0.52), draw.uniform(0.48, 0.8), draw.uniform(0.8, 0.9)
    ceramic, metal = draw.material("ceramic"), draw.material("metal")
    deep = draw.uniform(0.14, 0.2)
    bowl = ellipsoid_quadric((depth * 0.4, width * 0.42, deep * 0.8), lift=deep / 2 + 0.01)
    shape = draw.design(("box", "oval", "bowl"), apart="oval")
    size = (depth, width, deep)
    centre = (0.0, 0.0, height - deep / 2)
    if shape == "box":
        parts = [replace(bevelled(ceramic, centre, size, 0.05, edges="z"), hollow=bowl)]
    elif shape == "oval":
        parts = [replace(frustum(ceramic, centre, size, 0.75, 1.0), hollow=bowl)]
    else:
        outer = ellipsoid_quadric((depth / 2, width / 2, deep), lift=deep / 2)
        parts = [replace(box(ceramic, centre, size), quadric=outer, hollow=bowl)]
    parts += faucet(metal, -depth / 2 + 0.05, height - 0.02)
    under = height - deep
    stand = draw.design(("column", "vanity", "legs"), apart="column")
    if stand == "column":
        parts.append(frustum(ceramic, (-depth * 0.15, 0, under / 2 + 0.02), (0.22, 0.2, under + 0.04), 1.0, 0.7))
    elif stand == "vanity":
        body = draw.material("wood", "paint")
        parts += drawers(draw, body, (-0.01, 0, under / 2), (depth * 0.9, width * 0.94, under), 2, 1)
    else:
        parts += legs(draw, metal, depth * 0.85, width * 0.9, under, 0.03)
    return piece("sink", parts, support=0.0)


def toilet(draw: Draw) -> Piece:
    """A bowl on a foot with a seat and an open or closed lid, and a cistern behind or none."""
    ceramic, lid = draw.material("ceramic"), draw.material("ceramic", "wood")
    width, reach, sit = draw.uniform(0.36, 0.42), draw.uniform(0.46, 0.54), draw.uniform(0.38, 0.44)
    parts = [
        frustum(ceramic, (0.02, 0, sit * 0.3), (reach * 0.8, width * 0.75, sit * 0.6), 0.75, 0.7),
        frustum(ceramic, (0.04, 0, sit * 0.7), (reach, width, sit * 0.55), 0.6, 1.0),
        box(ceramic, (-reach / 2 + 0.02, 0, sit / 2), (0.2, width * 0.7, sit)),
    ]
    bowl = ellipsoid_quadric((reach * 0.36, width * 0.34, 0.2), lift=sit * 0.28)
    parts[1] = replace(parts[1], hollow=bowl)
    seat = cylinder(lid, (0.04, 0, sit + 0.01), (reach * 1.02, width * 1.03, 0.025))
    if draw.chance(0.5):
        parts.append(seat)
        parts.append(cylinder(lid, (0.04, 0, sit + 0.032), (reach, width, 0.018)))
    else:
        parts.append(replace(seat, hollow=frustum_quadric((reach * 0.36, width * 0.34, 0.1), 1.0, 1.0)))
        raised = cylinder(lid, (0, 0, reach / 2), (width, reach, 0.025), "x")
        parts += moved([raised], (-reach / 2 + 0.1, 0, sit + 0.02), rotation("y", -0.15))
    tank = draw.design(("box", "slim", "none"), apart="slim")
    if tank != "none":
        deep, high = (0.18, draw.uniform(0.32, 0.4)) if tank == "box" else (0.12, draw.uniform(0.4, 0.6))
        x = -reach / 2 - deep / 2 + 0.03
        parts.append(bevelled(ceramic, (x, 0, sit + high / 2), (deep, width, high), 0.03, edges="z"))
        parts.append(box(ceramic, (x, 0, sit + high + 0.015), (deep + 0.02, width + 0.02, 0.03)))
        parts.append(cylinder(draw.material("metal"), (x, 0, sit + high + 0.035), (0.05, 0.05, 0.02)))
    return piece("toilet", parts)


def bathtub(draw: Draw) -> Piece:
    """A tub let into a box, or a free-standing oval one on feet."""
    width, length, height = draw.uniform(0.68, 0.82), draw.uniform(1.5, 1.8), draw.uniform(0.5, 0.62)
    ceramic, metal = draw.material("ceramic"), draw.material("metal")
    hole = ellipsoid_quadric((width * 0.43, length * 0.46, height * 0.8), lift=height / 2 + 0.05)
    if draw.chance(0.6):
        body = bevelled(ceramic, (0, 0, height / 2), (width, length, height), 0.03, edges="xyz")
        if draw.chance(0.5):
            panel = draw.material("wood", "stone", "paint")
            parts = [box(panel, (width / 2 + 0.005, 0, height / 2 - 0.04), (0.02, length - 0.06, height - 0.12))]
        else:
            parts = []
        parts.append(replace(body, hollow=hole))
    else:
        shell = frustum(ceramic, (0, 0, height / 2 + 0.06), (width, length, height), 0.72, 1.0)
        parts = [replace(shell, hollow=hole)]
        parts += [
            frustum(metal, (x * width * 0.25, y * length * 0.25, 0.04), (0.09, 0.09, 0.08), 0.5, 1.0)
            for x in (-1, 1)
            for y in (-1, 1)
        ]
    tap = moved(faucet(metal, 0.0, 0.0), (0, -length / 2 + 0.05, height), rotation("z", math.pi / 2))
    return piece("bathtub", [*parts, *tap])


def refrigerator(draw: Draw) -> Piece:
    """One or two doors with long handles, low or tall, sometimes double width, sometimes with a dispenser."""
    depth, height = draw.uniform(0.58, 0.72), draw.pick((draw.uniform(0.85, 1.3), draw.uniform(1.6, 2.0)))
    is_double = height > 1.5 and draw.chance(0.25)
    width = draw.uniform(0.85, 0.95) if is_double else draw.uniform(0.54, 0.7)
    body, door, metal = draw.material("metal", "paint"), draw.material("metal", "paint"), draw.material("metal")
    parts = [box(body, (-0.03, 0, height / 2), (depth - 0.06, width, height))]
    split = draw.pick((0.3, 0.66, 0.72)) if height > 1.2 else 0.0
    columns = (-0.25, 0.25) if is_double else (0.0,)
    for column in columns:
        w = width / len(columns)
        for lo, hi in ((0.03, split), (split, 1.0)) if split else ((0.03, 1.0),):
            z, tall = (lo + hi) / 2 * height, (hi - lo) * height - 0.012
            size = (0.06, w - 0.012, tall)
            parts.append(
                bevelled(door, (depth / 2 - 0.02, column * width, z), size, draw.pick((0.005, 0.03)), edges="z")
            )
            side = -1 if column > 0 else 1
            bar = min(0.45, tall * 0.6)
            parts.append(
                cylinder(metal, (depth / 2 + 0.04, column * width + side * (w / 2 - 0.07), z), (0.03, 0.03, bar))
            )
    if draw.chance(0.3) and height > 1.5:
        at = (depth / 2 + 0.012, columns[0] * width - 0.05, height * 0.68)
        parts.append(box(draw.material("screen"), at, (0.02, 0.2, 0.3)))
    return piece("refrigerator", parts)


def stove(draw: Draw, height: float = 0.0) -> Piece:
    """An oven with a window, a bar and knobs below four to six hot plates; sometimes with a panel at the back."""
    height, width = height or draw.uniform(0.85, 0.93), draw.uniform(0.56, 0.8)
    body, plate = draw.material("metal", "paint"), draw.material("screen", "metal")
    parts = [box(body, (-0.02, 0, height / 2), (COUNTER_DEPTH - 0.04, width, height))]
    parts.append(box(body, (COUNTER_DEPTH / 2 - 0.03, 0, height * 0.45), (0.04, width - 0.02, height * 0.62)))
    window = (0.01, width * 0.65, height * 0.32)
    parts.append(box(draw.material("screen"), (COUNTER_DEPTH / 2 - 0.008, 0, height * 0.45), window))
    metal = draw.material("metal")
    parts.append(cylinder(metal, (COUNTER_DEPTH / 2 + 0.02, 0, height * 0.72), (0.03, 0.03, width * 0.8), "y"))
    count = draw.integer(4, 6)
    for i in range(count):
        y = width * 0.8 * (i / (count - 1) - 0.5)
        parts.append(cylinder(metal, (COUNTER_DEPTH / 2 - 0.03, y, height * 0.87), (0.045, 0.045, 0.06), "x"))
    top = draw.pick(("rings", "flat"))
    parts.append(box(plate, (-0.02, 0, height + 0.006), (COUNTER_DEPTH - 0.05, width - 0.01, 0.02)))
    for x in (-0.15, 0.13):
        for y in (-width * 0.24, width * 0.24):
            size = draw.uniform(0.16, 0.23)
            if top == "flat":
                parts.append(cylinder(metal, (x, y, height + 0.018), (size, size, 0.012)))
            else:
                parts.append(box(metal, (x, y, height + 0.035), (size, 0.015, 0.015)))
                parts.append(box(metal, (x, y, height + 0.035), (0.015, size, 0.016)))
                parts.append(cylinder(metal, (x, y, height + 0.025), (0.08, 0.08, 0.02)))
    if draw.chance(0.4):
        parts.append(box(body, (-COUNTER_DEPTH / 2 + 0.02, 0, height + 0.1), (0.04, width, 0.2)))
    return piece("stove", parts)


def washing_machine(draw: Draw) -> Piece:
    """A box with a round glass door in a ring, a panel with a knob, and a drawer."""
    depth, width, height = draw.uniform(0.5, 0.62), draw.uniform(0.56, 0.62), draw.uniform(0.82, 0.9)
    body, metal, glass = draw.material("paint", "metal"), draw.material("metal"), draw.material("screen")
    front = depth / 2
    size = draw.uniform(0.3, 0.42)
    ring = cylinder(metal, (front + 0.01, 0, height * 0.48), (size, size, 0.05), "x")
    parts = [
        box(body, (0, 0, height / 2), (depth, width, height)),
        replace(ring, hollow=frustum_quadric((size * 0.38, size * 0.38, 0.1), 1.0, 1.0)),
        cylinder(glass, (front + 0.004, 0, height * 0.48), (size * 0.78, size * 0.78, 0.02), "x"),
        box(draw.material("paint", "screen"), (front + 0.008, 0, height - 0.07), (0.016, width - 0.02, 0.11)),
        cylinder(metal, (front + 0.03, draw.uniform(-0.1, 0.2), height - 0.07), (0.07, 0.07, 0.04), "x"),
        box(body, (front + 0.014, -width * 0.33, height - 0.07), (0.02, 0.16, 0.08)),
    ]
    return piece("washing machine", parts, support=height)


def radiator(draw: Draw, height: float) -> Piece:
    """A row of fins, or a flat panel, with its feet a hand above the floor."""
    width = draw.uniform(0.6, 1.4)
    metal = draw.material("paint", "metal")
    parts: list[Solid] = []
    if draw.chance(0.65):
        count = round(width / draw.uniform(0.07, 0.11))
        for i in range(count):
            y = ((i + 0.5) / count - 0.5) * width
            parts.append(bevelled(metal, (0, y, height / 2 + 0.1), (0.1, 0.045, height), 0.02, edges="y"))
        parts += [box(metal, (0, 0, z + 0.1), (0.05, width, 0.05)) for z in (0.06, height - 0.06)]
    else:
        parts.append(box(metal, (0, 0, height / 2 + 0.1), (0.07, width, height)))
        parts += [box(metal, (0.04, 0, height * f + 0.1), (0.02, width * 0.98, 0.02)) for f in (0.15, 0.5, 0.85)]
    parts += [box(metal, (0, s * width * 0.4, 0.06), (0.04, 0.03, 0.12)) for s in (-1, 1)]
    return piece("radiator", parts)
