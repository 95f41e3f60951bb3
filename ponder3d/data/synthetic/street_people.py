"""People of streets, who stand, walk or ride, built of a dozen solids; front towards +x, on the ground at z = 0."""

import math

from ponder3d.data.synthetic.pieces import Draw, Piece, piece
from ponder3d.data.synthetic.solids import Solid, cushion, cylinder, ellipsoid, moved, rotation
from ponder3d.data.synthetic.street_skins import CLOTHES, FACES, Skin, any_colour, skin


def limb(material: Skin, start: tuple[float, float, float], end: tuple[float, float, float], thickness: float) -> Solid:
    """An elliptic cylinder between two points of one plane ``y = constant``."""
    dx, dz = end[0] - start[0], end[2] - start[2]
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, (start[2] + end[2]) / 2)
    upright = cylinder(material, (0, 0, 0), (thickness, thickness, math.hypot(dx, dz)))
    return moved([upright], middle, rotation("y", math.atan2(dx, dz)))[0]


def pedestrian(draw: Draw, walking: bool, worker: bool = False) -> Piece:
    """An adult or a child; workers wear yellow or orange."""
    height = draw.uniform(1.58, 1.9) if worker or draw.chance(0.88) else draw.uniform(1.0, 1.45)
    scale = height / 1.75
    top = skin(draw, (0.9, 0.6, 0.1) if worker else _cloth(draw), contrast=0.15, reflectance=0.8 if worker else 0.3)
    trousers, face = skin(draw, _cloth(draw), contrast=0.15), skin(draw, draw.pick(FACES), reflectance=0.4)
    hair = skin(
        draw, draw.pick(((0.1, 0.08, 0.06), (0.3, 0.2, 0.12), (0.55, 0.5, 0.45))) if not worker else (0.9, 0.8, 0.2)
    )
    stride = draw.uniform(0.15, 0.32) * draw.pick((-1, 1)) if walking else draw.uniform(-0.04, 0.04)
    swing, width = -0.8 * stride, draw.uniform(0.4, 0.5)
    solids = [
        limb(trousers, (stride, 0.1, 0.0), (0.0, 0.1, 0.86), 0.16),
        limb(trousers, (-stride, -0.1, 0.0), (0.0, -0.1, 0.86), 0.16),
        cushion(top, (0, 0, 1.14), (0.28, width, 0.68), roundness=1.35),
        limb(top, (swing, width / 2 + 0.02, 0.82), (0.0, width / 2 + 0.02, 1.42), 0.1),
        limb(top, (-swing, -width / 2 - 0.02, 0.82), (0.0, -width / 2 - 0.02, 1.42), 0.1),
        ellipsoid(face, (0.02, 0, 1.6), (0.2, 0.16, 0.26)),
        ellipsoid(hair, (-0.01, 0, 1.65), (0.22, 0.18, 0.2)),
    ]
    if not worker and draw.chance(0.25):
        solids.append(cushion(skin(draw, any_colour(draw)), (-0.2, 0, 1.2), (0.18, 0.3, 0.45), roundness=1.4))
    return piece("pedestrian", [_scaled(solid, scale) for solid in solids])


def rider(draw: Draw, seat: float, reach: float, handle: float, helmet: bool) -> list[Solid]:
    """Who sits on a cycle: the seat's height, and where the handlebar is."""
    top, trousers = skin(draw, _cloth(draw), contrast=0.15), skin(draw, _cloth(draw), contrast=0.15)
    head = skin(draw, any_colour(draw) if helmet else (0.15, 0.1, 0.08))
    solids = []
    for y, foot in ((0.13, -0.05), (-0.13, 0.15)):
        knee = (0.18, y, (seat + 0.3 + foot) / 2 + 0.12)
        solids.append(limb(trousers, (-0.22, y, seat + 0.05), knee, 0.15))
        solids.append(limb(trousers, knee, (0.0, y, 0.3 + foot), 0.12))
        solids.append(limb(top, (0.02, 1.7 * y, seat + 0.52), (reach, 1.7 * y, handle), 0.1))
    lean = rotation("y", 0.35)
    solids.append(cushion(top, (-0.12, 0, seat + 0.32), (0.26, 0.42, 0.62), lean, roundness=1.35))
    solids.append(ellipsoid(skin(draw, draw.pick(FACES)), (0.08, 0, seat + 0.76), (0.2, 0.16, 0.25)))
    solids.append(ellipsoid(head, (0.06, 0, seat + 0.81), (0.25, 0.2, 0.22)))
    return solids


def _cloth(draw: Draw) -> tuple[float, float, float]:
    return draw.pick(CLOTHES) if draw.chance(0.7) else any_colour(draw)


def _scaled(solid: Solid, scale: float) -> Solid:
    """A limb, cushion or ellipsoid of another size."""
    x, y, z = (c * scale for c in solid.centre)
    a, b, c = (h * scale for h in solid.half)
    quadric = solid.quadric
    assert quadric is not None
    grown = type(quadric)(
        quadric.x / scale**2, quadric.y / scale**2, quadric.z / scale**2, quadric.slope / scale, quadric.level
    )
    return Solid((x, y, z), (a, b, c), solid.material, solid.rotation, quadric=grown, planes=solid.planes)
