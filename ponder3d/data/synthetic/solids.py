"""Convex solids that furniture and walls are built of.

A solid is an oriented box, optionally cut by one quadric (elliptic cylinder, ellipsoid, cone or frustum) and by planes
(slopes, bevels), and optionally hollowed out by one more quadric (tubs, bins, lamp shades). Everything a ray needs to
know about it is an interval per constraint, so one piece of code in ``tracing`` handles every shape.

Convention: a solid's own frame has its origin at the box's centre; ``rotation`` columns are its axes in the frame it
stands in. Lengths are metres, angles radians.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from ponder3d.data.synthetic.materials import Material

Vector = tuple[float | int, float | int, float | int]
Rotation = Float[np.ndarray, "3 3"]

UPRIGHT = np.eye(3)
_ALONG = {
    "x": np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "y": np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
    "z": UPRIGHT,
}
"""Rotations that lay a solid's z axis along an axis of the frame it stands in."""


@dataclass(frozen=True)
class Quadric:
    """The points p with ``x p_x^2 + y p_y^2 + z p_z^2 + 2 slope p_z + level <= 0`` in the solid's own frame.

    With a negative ``z`` it is a double cone, of which the half that widens against the sign of ``slope`` counts.
    """

    x: float
    y: float
    z: float
    slope: float
    level: float


@dataclass(frozen=True, eq=False)
class Solid:
    """A convex solid made of one material; see the module for what it may be cut by."""

    centre: Vector
    half: Vector
    """Half extents of the box along its own axes."""
    material: Material
    rotation: Rotation
    quadric: Quadric | None = None
    planes: tuple[tuple[float, float, float, float], ...] = ()
    """Rows (n, d) with unit n: the solid is where ``n . p <= d``."""
    hollow: Quadric | None = None
    """What is taken out of the solid."""
    world_texture: bool = False
    """Whether the pattern lies still in the world, so that it runs on from one piece of a wall to the next."""


def box(material: Material, centre: Vector, size: Vector, rotation: Rotation = UPRIGHT) -> Solid:
    """A box of full extents ``size``."""
    return Solid(centre, (size[0] / 2, size[1] / 2, size[2] / 2), material, rotation)


def cylinder(material: Material, centre: Vector, size: Vector, axis: str = "z") -> Solid:
    """An elliptic cylinder. ``size`` is its two diameters and, last, its length along ``axis``."""
    return frustum(material, centre, size, 1.0, 1.0, axis)


def frustum(material: Material, centre: Vector, size: Vector, bottom: float, top: float, axis: str = "z") -> Solid:
    """A cylinder whose diameters are scaled by ``bottom`` and ``top`` (at most 1) at its ends; 0 makes a cone."""
    half = (size[0] / 2, size[1] / 2, size[2] / 2)
    return Solid(centre, half, material, _ALONG[axis], quadric=frustum_quadric(half, bottom, top))


def ellipsoid(material: Material, centre: Vector, size: Vector, rotation: Rotation = UPRIGHT) -> Solid:
    """An ellipsoid with three diameters."""
    half = (size[0] / 2, size[1] / 2, size[2] / 2)
    return Solid(centre, half, material, rotation, quadric=ellipsoid_quadric(half))


def cushion(
    material: Material, centre: Vector, size: Vector, rotation: Rotation = UPRIGHT, roundness: float = 1.3
) -> Solid:
    """A box whose edges are rounded by an ellipsoid ``roundness`` times as large; above 1.73 nothing is left to cut."""
    solid = box(material, centre, size, rotation)
    a, b, c = (h * roundness for h in solid.half)
    return replace(solid, quadric=ellipsoid_quadric((a, b, c)))


def bevelled(
    material: Material, centre: Vector, size: Vector, bevel: float, rotation: Rotation = UPRIGHT, edges: str = "xyz"
) -> Solid:
    """A box with the edges along the axes in ``edges`` cut off at 45 degrees, ``bevel`` metres on either side."""
    solid = box(material, centre, size, rotation)
    planes = []
    for axis in edges:
        i, j = (k for k in range(3) if k != "xyz".index(axis))
        for si in (-1.0, 1.0):
            for sj in (-1.0, 1.0):
                normal = [0.0, 0.0, 0.0]
                normal[i], normal[j] = si * math.sqrt(0.5), sj * math.sqrt(0.5)
                reach = (solid.half[i] + solid.half[j] - bevel) * math.sqrt(0.5)
                planes.append((normal[0], normal[1], normal[2], reach))
    return replace(solid, planes=tuple(planes))


def wedge(material: Material, centre: Vector, size: Vector, top: float, rotation: Rotation = UPRIGHT) -> Solid:
    """A box whose front (+x) face is sloped: at the top it is only ``top`` (0..1) as deep as at the bottom."""
    solid = box(material, centre, size, rotation)
    run, rise = size[0] * (1 - top), size[2]
    length = math.hypot(run, rise)
    normal = (rise / length, 0.0, run / length)
    offset = normal[0] * solid.half[0] - normal[2] * solid.half[2]
    return replace(solid, planes=((*normal, offset),))


def ellipsoid_quadric(radii: Vector, lift: float = 0.0) -> Quadric:
    """An ellipsoid with its centre ``lift`` above the solid's centre."""
    a, b, c = (1 / (r * r) for r in radii)
    return Quadric(a, b, c, -lift * c, lift * lift * c - 1)


def frustum_quadric(half: Vector, bottom: float, top: float) -> Quadric:
    """A cone about z with radii ``half[:2]`` times ``bottom`` at ``-half[2]`` and times ``top`` at ``+half[2]``."""
    mean, slope = (bottom + top) / 2, (top - bottom) / (2 * half[2])
    return Quadric(half[0] ** -2, half[1] ** -2, -slope * slope, -mean * slope, -mean * mean)


def rotation(axis: str, angle: float) -> Rotation:
    """Rotation about an axis; positive turns the next axis towards the one after it (x to y for z)."""
    i = "xyz".index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix = np.eye(3)
    matrix[j, j] = matrix[k, k] = math.cos(angle)
    matrix[k, j], matrix[j, k] = math.sin(angle), -math.sin(angle)
    return matrix


def moved(solids: Sequence[Solid], shift: Vector, turn: Rotation = UPRIGHT) -> list[Solid]:
    """The solids turned about the origin and then shifted."""
    out = []
    for solid in solids:
        if turn is UPRIGHT:
            a, b, c = (float(at + by) for at, by in zip(solid.centre, shift, strict=True))
            out.append(replace(solid, centre=(a, b, c)))
            continue
        x, y, z = (turn * np.array(solid.centre)).sum(1) + np.array(shift)
        out.append(replace(solid, centre=(float(x), float(y), float(z)), rotation=turn @ solid.rotation))
    return out


def extents(solids: Sequence[Solid]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Corners of the axis-aligned box around solids; exact for boxes, cylinders and ellipsoids, else a little large."""
    reach = []
    for solid in solids:
        arms = np.abs(solid.rotation) * np.array(solid.half)
        quadric = solid.quadric
        if quadric is None or quadric.level > -1 + 1e-9 or _is_clipped(quadric, solid.half):
            reach.append(arms.sum(1))
        elif quadric.z > 0:
            reach.append(np.sqrt((arms**2).sum(1)))
        else:
            reach.append(np.hypot(arms[:, 0], arms[:, 1]) + arms[:, 2])
    centres = np.array([solid.centre for solid in solids])
    return (centres - np.array(reach)).min(0), (centres + np.array(reach)).max(0)


def _is_clipped(quadric: Quadric, half: Vector) -> bool:
    """Whether the box cuts the quadric (a cushion), so that the box is what reaches farthest."""
    return quadric.x * half[0] ** 2 < 1 - 1e-9
