"""Colours of what the pixels see: patterns on the surfaces, several lights, highlights, darker corners.

The light model is Lambert with distance fall-off plus an ambient term and one highlight; no shadows are cast. Instead,
corners of the room and the floor near furniture are darkened, which costs two look-ups a pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from ponder3d.data.synthetic.materials import PATTERN_SIZE, pattern_bank
from ponder3d.data.synthetic.solids import Quadric, Solid
from ponder3d.data.synthetic.tracing import FIRST_PLANE_FACE, HOLLOW_FACE, QUADRIC_FACE

FALL_OFF = 2.5
"""Distance in metres at which a lamp's light has dropped to half."""


@dataclass(frozen=True)
class Light:
    """A small lamp, or a window when it faces somewhere."""

    position: tuple[float, float, float]
    colour: tuple[float, float, float]
    """Linear RGB at no distance, 1 for a brightly lit white surface."""
    facing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Unit direction into which a window shines; zero for a lamp that shines everywhere."""


@dataclass(frozen=True)
class Lighting:
    """All light in a room."""

    lights: tuple[Light, ...]
    ambient: tuple[float, float, float]
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Opposite corners of the room."""
    floor_shade: Float32[np.ndarray, "Y X"]
    """Brightness of the floor, in cells of ``SHADE_CELL`` metres from the lower corner of the room."""


SHADE_CELL = 0.05


@dataclass(frozen=True)
class Surfaces:
    """Per-solid tables, columns are solids; float32 because pixels index them."""

    rotation: Float32[np.ndarray, "9 S"]
    """World from solid, row by row."""
    shift: Float32[np.ndarray, "3 S"]
    """Added to coordinates in the solid's axes to get texture coordinates."""
    colour: Float32[np.ndarray, "3 S"]
    contrast: Float32[np.ndarray, "3 S"]
    """Second colour minus first."""
    pattern: Int[np.ndarray, " S"]
    texels_per_metre: Float32[np.ndarray, " S"]
    gloss: Float32[np.ndarray, " S"]
    emission: Float32[np.ndarray, " S"]
    dropout: Float32[np.ndarray, " S"]
    centre: Float32[np.ndarray, "3 S"]
    quadrics: Float32[np.ndarray, "2 4 S"]
    """x, y, z and slope of the quadric and of the hollow."""
    planes: Float32[np.ndarray, "3 F S"]
    """Normals of the planes in the solid's axes."""


def surfaces_of(solids: Sequence[Solid], rng: np.random.Generator) -> Surfaces:
    """Tables for shading; ``rng`` shifts the pattern on every solid that does not take it from the world."""
    rotation = np.stack([s.rotation for s in solids])
    centre = np.array([s.centre for s in solids])
    world = np.array([s.world_texture for s in solids])
    anchor = rng.uniform(0, 8, (len(solids), 3)) - np.einsum("sji,sj->si", rotation, centre)
    materials = [s.material for s in solids]
    colours = np.array([m.colours for m in materials])
    planes = np.zeros((3, max([1, *(len(s.planes) for s in solids)]), len(solids)))
    for row, solid in enumerate(solids):
        for i, plane in enumerate(solid.planes):
            planes[:, i, row] = plane[:3]

    def table(values):
        return np.ascontiguousarray(np.array(values).astype(np.float32).T)

    return Surfaces(
        rotation=table(rotation.reshape(-1, 9)),
        shift=table(np.where(world[:, None], 0, anchor)),
        colour=table(colours[:, 0]),
        contrast=table(colours[:, 1] - colours[:, 0]),
        pattern=np.array([m.pattern for m in materials]),
        texels_per_metre=table([m.tiles_per_metre * PATTERN_SIZE for m in materials]),
        gloss=table([m.gloss for m in materials]),
        emission=table([m.emission for m in materials]),
        dropout=table([m.dropout for m in materials]),
        centre=table(centre),
        quadrics=np.stack([table([_row(s.quadric) for s in solids]), table([_row(s.hollow) for s in solids])]),
        planes=planes.astype(np.float32),
    )


def shade_view(
    surfaces: Surfaces,
    lighting: Lighting,
    eye: Float[np.ndarray, "3"],
    rays: Float32[np.ndarray, "3 N"],
    depth: Float32[np.ndarray, " N"],
    solid: Int[np.ndarray, " N"],
    face: Int[np.ndarray, " N"],
) -> tuple[Float32[np.ndarray, "3 N"], Float32[np.ndarray, "3 N"]]:
    """Linear RGB and unit world normals of the pixels of one view.

    Args:
        surfaces: the solids.
        lighting: the lights.
        eye: the camera's position.
        rays: world directions with camera z of 1.
        depth: plane depth; pixels that see nothing have any finite value.
        solid: row of the solid; any valid row for pixels that see nothing.
        face: as in ``tracing.Hits``.
    """
    points = [np.float32(eye[i]) + rays[i] * depth for i in range(3)]
    frame = [np.take(row, solid) for row in surfaces.rotation]
    local = [_dot(frame[i::3], points) for i in range(3)]
    local_normal = _local_normals(surfaces, points, frame, solid, face)
    normal = [_dot(frame[3 * i : 3 * i + 3], local_normal) for i in range(3)]
    albedo = _albedo(surfaces, local, local_normal, solid)
    light, shine = _illuminate(lighting, points, normal, rays)
    gloss, emission = np.take(surfaces.gloss, solid), np.take(surfaces.emission, solid)
    rgb = np.stack([albedo[c] * (light[c] + emission) + gloss * shine[c] for c in range(3)])
    return rgb, np.stack(normal)


def floor_shade(
    footprints: Sequence[Float[np.ndarray, "4 2"]], lo: tuple[float, float], hi: tuple[float, float]
) -> Float32[np.ndarray, "Y X"]:
    """How bright the floor is around things that stand on it: 1 far away, 0.45 below them, blurred over 15 cm."""
    shape = [max(1, round((hi[i] - lo[i]) / SHADE_CELL)) for i in (1, 0)]
    y, x = (np.arange(n)[:, None] * SHADE_CELL + SHADE_CELL / 2 for n in shape)
    x = x.T + lo[0]
    y = y + lo[1]
    covered = np.zeros(shape)
    for corners in footprints:
        inside = np.ones(shape, bool)
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            inside &= (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) >= 0
        covered[inside] = 1
    for axis in (0, 1, 0, 1):
        padded = np.pad(covered, [(2, 2) if k == axis else (0, 0) for k in (0, 1)], mode="edge")
        covered = np.mean([np.take(padded, np.arange(shape[axis]) + i, axis) for i in range(5)], axis=0)
    return (1 - 0.55 * covered).astype(np.float32)


def _row(quadric: Quadric | None) -> tuple[float, float, float, float]:
    return (0.0, 0.0, 0.0, 0.0) if quadric is None else (quadric.x, quadric.y, quadric.z, quadric.slope)


def _local_normals(surfaces, points, frame, solid, face):
    """Outward unit normals in the solids' own axes."""
    normal = np.zeros((3, len(face)), np.float32)
    for i in range(6):
        normal[i // 2][face == i] = 1 if i % 2 else -1
    for which, code in enumerate((QUADRIC_FACE, HOLLOW_FACE)):
        at = np.flatnonzero(face == code)
        if len(at):
            row = solid[at]
            offset = [points[i][at] - surfaces.centre[i][row] for i in range(3)]
            local = [sum(frame[3 * i + j][at] * offset[i] for i in range(3)) for j in range(3)]
            x, y, z, slope = surfaces.quadrics[which][:, row]
            gradient = np.stack([x * local[0], y * local[1], z * local[2] + slope])
            sign = np.float32(1 if which == 0 else -1)
            normal[:, at] = sign * gradient / np.sqrt((gradient * gradient).sum(0) + np.float32(1e-12))
    at = np.flatnonzero(face >= FIRST_PLANE_FACE)
    if len(at):
        normal[:, at] = surfaces.planes[:, face[at] - FIRST_PLANE_FACE, solid[at]]
    return normal


def _albedo(surfaces, local, normal, solid):
    """Surface colour: the pattern in the two axes along which the surface runs most."""
    across_x = np.abs(normal[0]) > np.float32(0.7)
    flat = np.abs(normal[2]) > np.float32(0.7)
    x, y, z = (local[i] + np.take(surfaces.shift[i], solid) for i in range(3))
    scale = np.take(surfaces.texels_per_metre, solid)
    u, v = np.where(across_x, y, x) * scale, np.where(flat, y, z) * scale
    column = np.floor(u).astype(np.int32) & (PATTERN_SIZE - 1)
    row = np.floor(v).astype(np.int32) & (PATTERN_SIZE - 1)
    texel = (np.take(surfaces.pattern, solid) * PATTERN_SIZE + row) * PATTERN_SIZE + column
    weight = np.take(pattern_bank().reshape(-1), texel)
    return [
        np.take(c, solid) + weight * np.take(d, solid) for c, d in zip(surfaces.colour, surfaces.contrast, strict=True)
    ]


def _illuminate(lighting, points, normal, rays):
    """Light that falls on the surface, and what is mirrored towards the camera, both per colour channel.

    Only the first light makes a highlight: each costs as much as the light itself.
    """
    darkening = _corner_shade(lighting, points, normal)
    sky = (1 + np.float32(0.25) * normal[2]) * darkening
    light = [sky * np.float32(a) for a in lighting.ambient]
    shine = [np.float32(0)] * 3
    for i, lamp in enumerate(lighting.lights):
        offset = [np.float32(lamp.position[k]) - points[k] for k in range(3)]
        squared = _dot(offset, offset) + np.float32(0.01)
        inverse = 1 / np.sqrt(squared)
        beam = [o * inverse for o in offset]
        strength = darkening / (1 + squared * np.float32(FALL_OFF**-2))
        if any(lamp.facing):
            strength = strength * np.maximum(_dot([np.float32(-f) for f in lamp.facing], beam), 0)
        received = np.maximum(_dot(normal, beam), 0) * strength
        for c in range(3):
            light[c] += received * np.float32(lamp.colour[c])
        if i == 0:
            toward = 1 / np.sqrt(_dot(rays, rays))
            half = [b - r * toward for b, r in zip(beam, rays, strict=True)]
            mirrored = np.maximum(_dot(normal, half), 0) / np.sqrt(_dot(half, half) + np.float32(1e-12))
            for _ in range(5):  # the 32nd power, by squaring
                mirrored = mirrored * mirrored
            mirrored *= strength * (received > 0)
            shine = [mirrored * np.float32(0.5 * colour) for colour in lamp.colour]
    return light, shine


def _corner_shade(lighting, points, normal):
    """Darker within 15 cm of a wall, the floor or the ceiling, unless the surface faces that way, and by furniture."""
    lo, hi = lighting.bounds
    gaps = [
        np.minimum(points[i] - np.float32(lo[i]), np.float32(hi[i]) - points[i]) + 10 * np.abs(normal[i])
        for i in range(3)
    ]
    gap = np.minimum(np.minimum(gaps[0], gaps[1]), gaps[2])
    shade = 1 - np.float32(0.35) * np.exp(np.maximum(gap, 0) * np.float32(-1 / 0.15))
    on_floor = np.flatnonzero((points[2] < 0.03) & (normal[2] > 0.9))
    rows, columns = lighting.floor_shade.shape
    column = ((points[0][on_floor] - np.float32(lo[0])) * np.float32(1 / SHADE_CELL)).astype(np.int32)
    row = ((points[1][on_floor] - np.float32(lo[1])) * np.float32(1 / SHADE_CELL)).astype(np.int32)
    shade[on_floor] *= lighting.floor_shade[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
    return shade


def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
