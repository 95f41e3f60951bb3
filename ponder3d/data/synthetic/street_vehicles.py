"""Vehicles of streets, each built of a dozen solids in its own frame: front towards +x, on the ground at z = 0."""

import math
from dataclasses import replace

from ponder3d.data.synthetic.pieces import Draw, Piece, piece
from ponder3d.data.synthetic.solids import Solid, Vector, bevelled, box, cylinder, ellipsoid, rotation
from ponder3d.data.synthetic.street_people import rider
from ponder3d.data.synthetic.street_skins import (
    Skin,
    any_colour,
    glass,
    lamp,
    metal,
    paint,
    rubber,
    skin,
)


def slanted(material: Skin, centre: Vector, size: Vector, front: float, back: float) -> Solid:
    """A box whose front and back lean inwards: at its top they are ``front`` and ``back`` metres from its ends."""
    solid = box(material, centre, size)
    planes = []
    for sign, inset in ((1.0, front), (-1.0, back)):
        length = math.hypot(inset, size[2])
        normal = (sign * size[2] / length, 0.0, inset / length)
        planes.append((*normal, size[2] / length * solid.half[0] - inset / length * solid.half[2]))
    return Solid(solid.centre, solid.half, material, solid.rotation, planes=tuple(planes))


def bar(material: Skin, start: Vector, end: Vector, thickness: float, width: float | None = None) -> Solid:
    """A straight bar between two points of one plane ``y = constant``."""
    dx, dz = end[0] - start[0], end[2] - start[2]
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, (start[2] + end[2]) / 2)
    size = (math.hypot(dx, dz), thickness if width is None else width, thickness)
    return box(material, middle, size, rotation("y", -math.atan2(dz, dx)))


def car(draw: Draw) -> Piece:
    """A saloon, hatchback, off-roader or van."""
    kind = draw.pick(("saloon", "saloon", "hatch", "hatch", "offroad", "offroad", "van"))
    length, width, height, back, bonnet = {
        "saloon": (draw.uniform(4.4, 4.95), draw.uniform(1.75, 1.9), draw.uniform(1.4, 1.5), 0.75, 1.2),
        "hatch": (draw.uniform(3.7, 4.4), draw.uniform(1.65, 1.82), draw.uniform(1.45, 1.6), 0.3, 0.95),
        "offroad": (draw.uniform(4.4, 5.0), draw.uniform(1.85, 2.05), draw.uniform(1.65, 1.9), 0.25, 1.15),
        "van": (draw.uniform(4.6, 5.4), draw.uniform(1.85, 2.0), draw.uniform(1.85, 2.1), 0.12, 0.75),
    }[kind]
    body, windows, tyre = paint(draw), glass(draw), rubber(draw)
    radius = 0.3 if height < 1.6 else 0.36
    floor, belt = radius * 0.75, height * (0.6 if height < 1.62 else 0.55)
    boot = 0.75 if kind == "saloon" else 0.06
    cabin = length - bonnet - boot
    middle = (boot - bonnet) / 2
    windscreen = 0.75 if kind != "van" else 0.6
    solids = [
        bevelled(body, (0, 0, (floor + belt) / 2), (length, width, belt - floor), 0.12, edges="y"),
        slanted(
            windows, (middle, 0, (belt + height) / 2 - 0.03), (cabin, width * 0.86, height - belt), windscreen, back
        ),
        box(
            body, (middle + (back - windscreen) / 2, 0, height - 0.035), (cabin - windscreen - back, width * 0.88, 0.07)
        ),
        box(metal(draw, (0.1, 0.1, 0.1)), (0, 0, floor), (length * 0.94, width * 0.94, 0.16)),
        *_wheels(tyre, metal(draw), length * 0.31, width, radius, 0.22),
        *_lamps(draw, length, width, floor + (belt - floor) * 0.68),
    ]
    # The pillar between the doors.
    solids.append(box(body, (middle - 0.1, 0, (belt + height) / 2 - 0.03), (0.1, width * 0.875, height - belt - 0.04)))
    return piece("car", solids)


def truck(draw: Draw) -> Piece:
    """A pick-up, a lorry with a box, or one with an open bed."""
    kind = draw.pick(("pickup", "box", "box", "tipper"))
    tyre, windows, body = rubber(draw), glass(draw), paint(draw)
    if kind == "pickup":
        length, width, height = draw.uniform(5.2, 5.9), draw.uniform(1.85, 2.05), draw.uniform(1.8, 1.95)
        return piece(
            "truck",
            [
                bevelled(body, (0, 0, 0.72), (length, width, 0.6), 0.12, edges="y"),
                slanted(windows, (0.3, 0, (1.02 + height) / 2), (2.3, width * 0.88, height - 1.02), 0.7, 0.15),
                box(body, (0.0, 0, height - 0.03), (1.45, width * 0.88, 0.07)),
                box(body, (-length * 0.32, width * 0.46, 1.08), (length * 0.34, 0.08, 0.16)),
                box(body, (-length * 0.32, -width * 0.46, 1.08), (length * 0.34, 0.08, 0.16)),
                *_wheels(tyre, metal(draw), length * 0.31, width, 0.38, 0.26),
                *_lamps(draw, length, width, 0.8),
            ],
        )
    length, width, height = draw.uniform(6.5, 9.0), draw.uniform(2.3, 2.55), draw.uniform(2.9, 3.6)
    load = paint(draw, draw.pick(((0.92, 0.92, 0.9), (0.85, 0.86, 0.88), any_colour(draw))))
    solids = _cab(draw, body, windows, length / 2, width, min(height, 2.75))
    solids += [
        box(metal(draw, (0.12, 0.12, 0.12)), (-0.3, 0, 0.8), (length - 0.6, 0.9, 0.3)),
        *_wheels(tyre, metal(draw), length * 0.33, width, 0.48, 0.32),
        *_lamps(draw, length, width, 0.85),
    ]
    back = length - 2.15
    if kind == "box":
        solids.append(box(load, (-length / 2 + back / 2, 0, (1.0 + height) / 2), (back, width, height - 1.0)))
    else:
        for y in (-1.0, 1.0):
            solids.append(box(load, (-length / 2 + back / 2, y * (width / 2 - 0.06), 1.5), (back, 0.12, 1.0)))
        solids.append(box(load, (-length / 2 + back / 2, 0, 1.05), (back, width, 0.15)))
        solids.append(box(load, (-length / 2 + back - 0.06, 0, 1.6), (0.12, width, 1.2)))
        solids.append(box(load, (-length / 2 + 0.06, 0, 1.4), (0.12, width, 0.8)))
        heap = skin(draw, (0.45, 0.38, 0.3), "cloud", 1.5, 0.5)
        solids.append(ellipsoid(heap, (-length / 2 + back / 2, 0, 1.35), (back * 0.9, width * 0.85, 1.3)))
    return piece("truck", solids)


def tractor(draw: Draw) -> Piece:
    """What pulls a semi-trailer."""
    length, width = 5.6, 2.5
    solids = _cab(draw, paint(draw), glass(draw), length / 2, width, draw.uniform(3.0, 3.7))
    solids += [
        box(metal(draw, (0.12, 0.12, 0.12)), (-0.4, 0, 0.85), (length - 0.8, 1.0, 0.3)),
        *_wheels(rubber(draw), metal(draw), 1.75, width, 0.5, 0.34),
        *_lamps(draw, length, width, 0.85),
    ]
    return piece("truck", solids)


def trailer(draw: Draw) -> Piece:
    """A semi-trailer with a box, or a small one for a car."""
    tyre = rubber(draw)
    if draw.chance(0.4):
        length, width = draw.uniform(2.8, 4.2), draw.uniform(1.6, 1.9)
        body, height = paint(draw), draw.uniform(1.0, 2.2)
        return piece(
            "trailer",
            [
                box(body, (-0.4, 0, (0.5 + height) / 2), (length - 0.9, width, height - 0.5)),
                box(metal(draw), (length / 2 - 0.5, 0, 0.48), (1.0, 0.12, 0.12)),
                *_wheels(tyre, metal(draw), 0.0, width + 0.1, 0.3, 0.2),
            ],
        )
    length, width, height = draw.uniform(9.0, 13.0), 2.55, draw.uniform(3.4, 3.9)
    colour = draw.pick(((0.93, 0.93, 0.91), (0.8, 0.82, 0.85), any_colour(draw), any_colour(draw)))
    solids = [
        box(paint(draw, colour), (0, 0, (1.15 + height) / 2), (length, width, height - 1.15)),
        box(metal(draw, (0.1, 0.1, 0.1)), (0, 0, 1.0), (length * 0.98, 1.0, 0.3)),
        box(lamp(draw, (0.6, 0.08, 0.06)), (-length / 2, 0, 1.0), (0.04, width * 0.9, 0.14)),
        box(metal(draw), (length * 0.22, 0.8, 0.55), (0.12, 0.12, 1.1)),
        box(metal(draw), (length * 0.22, -0.8, 0.55), (0.12, 0.12, 1.1)),
    ]
    for x in (0.0, 1.3):
        solids += [
            cylinder(tyre, (x - length * 0.33, y * (width / 2 - 0.2), 0.5), (1.0, 1.0, 0.4), "y") for y in (-1, 1)
        ]
    return piece("trailer", solids)


def bus(draw: Draw) -> Piece:
    """A city bus."""
    length, width, height = draw.uniform(9.5, 12.5), 2.55, draw.uniform(2.95, 3.3)
    body, windows = paint(draw, draw.pick((any_colour(draw, 0.9), (0.9, 0.9, 0.88)))), glass(draw)
    other = paint(draw, any_colour(draw, 0.9))
    return piece(
        "bus",
        [
            bevelled(body, (0, 0, 0.8), (length, width, 1.0), 0.08, edges="yz"),
            box(windows, (0, 0, 1.8), (length - 0.06, width - 0.06, 1.05)),
            bevelled(body, (0, 0, (2.3 + height) / 2), (length, width, height - 2.3), 0.1, edges="yz"),
            box(other, (0, 0, 1.18), (length + 0.02, width + 0.02, 0.22)),
            *(box(body, (length * (i / 5 - 0.5) * 0.98, 0, 1.8), (0.14, width - 0.02, 1.05)) for i in range(6)),
            box(lamp(draw, (1.0, 0.75, 0.3), 0.4), (length / 2, 0, height - 0.35), (0.05, 1.5, 0.24)),
            box(metal(draw, (0.75, 0.75, 0.75)), (-1, 0, height), (3.0, 1.6, 0.3)),
            *_wheels(rubber(draw), metal(draw), length * 0.3, width, 0.48, 0.3),
            *_lamps(draw, length, width, 0.7),
        ],
    )


def construction_vehicle(draw: Draw) -> Piece:
    """An excavator or a wheel loader."""
    body = paint(draw, draw.pick(((0.9, 0.65, 0.08), (0.85, 0.5, 0.1), (0.9, 0.72, 0.2))))
    dark, windows = metal(draw, (0.15, 0.15, 0.15)), glass(draw)
    if draw.chance(0.5):
        elbow = (2.6, 0.0, draw.uniform(3.4, 4.2))
        wrist = (draw.uniform(4.0, 4.8), 0.0, draw.uniform(1.2, 2.0))
        return piece(
            "construction vehicle",
            [
                *(bevelled(dark, (0, y * 1.05, 0.45), (3.6, 0.55, 0.9), 0.3, edges="y") for y in (-1, 1)),
                box(dark, (0, 0, 0.7), (2.0, 1.6, 0.5)),
                bevelled(body, (-0.6, 0, 1.55), (3.0, 2.5, 1.1), 0.2, edges="yz"),
                box(windows, (0.75, 0.7, 2.0), (1.3, 0.95, 1.5)),
                box(body, (0.75, 0.7, 2.8), (1.4, 1.0, 0.12)),
                bar(body, (0.6, -0.2, 1.4), (elbow[0], -0.2, elbow[2]), 0.42, 0.35),
                bar(body, (elbow[0], -0.2, elbow[2]), (wrist[0], -0.2, wrist[2]), 0.32, 0.28),
                bevelled(dark, (wrist[0] - 0.25, -0.2, wrist[2] - 0.4), (0.9, 1.0, 0.8), 0.25, edges="y"),
            ],
        )
    return piece(
        "construction vehicle",
        [
            bevelled(body, (-1.2, 0, 1.35), (2.6, 1.9, 1.2), 0.2, edges="yz"),
            box(body, (0.9, 0, 1.0), (1.8, 1.1, 0.7)),
            box(windows, (0.1, 0, 2.3), (1.4, 1.4, 1.3)),
            box(body, (0.1, 0, 2.98), (1.6, 1.55, 0.12)),
            bar(body, (0.9, 0.5, 1.5), (2.9, 0.5, 0.7), 0.25),
            bar(body, (0.9, -0.5, 1.5), (2.9, -0.5, 0.7), 0.25),
            slanted(dark, (3.1, 0, 0.6), (1.0, 2.5, 0.9), 0.0, 0.5),
            *_wheels(rubber(draw), body, 1.45, 2.5, 0.72, 0.55),
        ],
    )


def motorcycle(draw: Draw, ridden: bool = False) -> Piece:
    """A motorcycle, alone or with who rides it."""
    body, dark = paint(draw, any_colour(draw, 0.9)), metal(draw, (0.15, 0.15, 0.15))
    tyre = rubber(draw)
    solids = [
        *(cylinder(tyre, (x, 0, 0.31), (0.62, 0.62, 0.14), "y") for x in (-0.68, 0.7)),
        ellipsoid(body, (0.12, 0, 0.85), (0.7, 0.34, 0.32)),
        box(dark, (0.0, 0, 0.5), (0.62, 0.34, 0.4)),
        box(skin(draw, (0.08, 0.08, 0.08)), (-0.42, 0, 0.8), (0.75, 0.28, 0.12)),
        bar(metal(draw), (0.7, 0, 0.31), (0.45, 0, 1.02), 0.09, 0.2),
        box(dark, (0.42, 0, 1.05), (0.08, 0.72, 0.06)),
        ellipsoid(lamp(draw, (0.9, 0.9, 0.85)), (0.6, 0, 0.92), (0.16, 0.2, 0.2)),
        box(lamp(draw, (0.6, 0.05, 0.05)), (-0.82, 0, 0.78), (0.06, 0.2, 0.08)),
    ]
    if ridden:
        solids += rider(draw, 0.84, 0.4, 1.06, helmet=True)
    return piece("motorcycle", solids)


def bicycle(draw: Draw, ridden: bool = False) -> Piece:
    """A bicycle, alone or with who rides it."""
    frame = paint(draw, any_colour(draw, 0.9))
    tyre = rubber(draw)
    solids = [
        *(cylinder(tyre, (x, 0, 0.34), (0.68, 0.68, 0.04), "y") for x in (-0.52, 0.52)),
        bar(frame, (-0.1, 0, 0.3), (0.4, 0, 0.85), 0.06),
        bar(frame, (-0.1, 0, 0.3), (-0.22, 0, 0.92), 0.06),
        bar(frame, (-0.2, 0, 0.75), (0.38, 0, 0.82), 0.06),
        bar(frame, (-0.52, 0, 0.34), (-0.1, 0, 0.3), 0.05),
        bar(metal(draw), (0.52, 0, 0.34), (0.38, 0, 1.0), 0.06),
        box(metal(draw, (0.1, 0.1, 0.1)), (0.38, 0, 1.02), (0.06, 0.56, 0.05)),
        box(skin(draw, (0.08, 0.08, 0.08)), (-0.24, 0, 0.95), (0.26, 0.16, 0.07)),
    ]
    if ridden:
        solids += rider(draw, 0.98, 0.38, 1.04, helmet=draw.chance(0.6))
    return piece("bicycle", solids)


def _cab(draw: Draw, body: Skin, windows: Skin, front: float, width: float, height: float) -> list[Solid]:
    """The cab of a lorry whose front is at x = ``front``."""
    return [
        box(body, (front - 0.95, 0, 1.05), (1.9, width * 0.96, 1.1)),
        slanted(windows, (front - 0.95, 0, 1.95), (1.86, width * 0.94, 0.75), 0.12, 0.0),
        box(body, (front - 1.05, 0, (2.3 + height) / 2), (1.7, width * 0.95, height - 2.3)),
        box(body, (front - 1.5, 0, 1.95), (0.6, width * 0.955, 0.75)),
        box(metal(draw, (0.12, 0.12, 0.12)), (front - 0.1, 0, 0.6), (0.24, width * 0.96, 0.4)),
        *(box(metal(draw, (0.1, 0.1, 0.1)), (front - 0.2, y * width / 2, 1.9), (0.12, 0.2, 0.5)) for y in (-1, 1)),
    ]


def _wheels(tyre: Skin, rim: Skin, axle: float, width: float, radius: float, thickness: float) -> list[Solid]:
    """Wheels at x = -axle and +axle (two of them if it is 0), which stand out of the width by 2 cm, rims by 3 cm."""
    wheel = (
        cylinder(tyre, (0, 0, radius), (2 * radius, 2 * radius, thickness), "y"),
        cylinder(rim, (0, 0, radius), (1.2 * radius, 1.2 * radius, thickness + 0.02), "y"),
    )
    place = (width - thickness) / 2 + 0.02
    return [
        replace(part, centre=(x, y, radius))
        for x in ((-axle, axle) if axle else (0.0,))
        for y in (-place, place)
        for part in wheel
    ]


def _lamps(draw: Draw, length: float, width: float, height: float) -> list[Solid]:
    white, red = lamp(draw, (0.95, 0.95, 0.9), 0.1), lamp(draw, (0.65, 0.05, 0.05), 0.05)
    solids = []
    for y in (-1, 1):
        solids.append(box(white, (length / 2 - 0.05, y * width * 0.36, height), (0.12, 0.32, 0.13)))
        solids.append(box(red, (-length / 2 + 0.05, y * width * 0.38, height + 0.05), (0.12, 0.26, 0.15)))
    return solids
