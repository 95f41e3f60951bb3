"""Colours of what cameras see in streets: a sun that casts shadows, a sky that things mirror, haze."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from ponder3d.data.synthetic.materials import PATTERN_SIZE, pattern_bank
from ponder3d.data.synthetic.pieces import Draw
from ponder3d.data.synthetic.street_skins import Skin
from ponder3d.data.synthetic.street_tracing import Shapes, meets_any
from ponder3d.data.synthetic.tracing import FIRST_PLANE_FACE, QUADRIC_FACE

STYLES = ("mixed", "sunny", "overcast", "dusk")
"""What light streets may have; ``mixed`` draws one of the others."""

SHADOW_CELL = 1.0
"""Metres; places are sorted into cells of this size across the sun's direction."""


@dataclass(frozen=True)
class Weather:
    """Light and air of one street; colours are linear RGB."""

    sun: tuple[float, float, float]
    """Unit vector towards it."""
    sunlight: tuple[float, float, float]
    skylight: tuple[float, float, float]
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    clouds: float
    """Share of the sky that they cover."""
    sight: float
    """Metres after which haze hides two thirds."""


def draw_weather(draw: Draw, style: str) -> Weather:
    """Sunny, overcast or at dusk, as the style has it."""
    kind = draw.pick(("sunny", "sunny", "overcast", "dusk")) if style == "mixed" else style
    azimuth = draw.uniform(0, 2 * np.pi)
    height = draw.uniform(0.45, 1.1) if kind != "dusk" else draw.uniform(0.12, 0.3)
    sun = (np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth), np.sin(height))
    light = {"sunny": (1.5, 1.4, 1.2), "overcast": (0.12, 0.12, 0.12), "dusk": (1.1, 0.65, 0.35)}[kind]
    sky = {"sunny": (0.42, 0.5, 0.62), "overcast": (0.75, 0.78, 0.82), "dusk": (0.38, 0.36, 0.42)}[kind]
    zenith = {"sunny": (0.12, 0.28, 0.7), "overcast": (0.55, 0.58, 0.63), "dusk": (0.14, 0.17, 0.35)}[kind]
    horizon = {"sunny": (0.62, 0.72, 0.85), "overcast": (0.72, 0.74, 0.77), "dusk": (0.75, 0.5, 0.35)}[kind]
    return Weather(
        sun=(float(sun[0]), float(sun[1]), float(sun[2])),
        sunlight=light,
        skylight=sky,
        zenith=zenith,
        horizon=horizon,
        clouds=draw.uniform(0.7, 1.0) if kind == "overcast" else draw.uniform(0.0, 0.6),
        sight=draw.uniform(120, 250) if kind == "overcast" else draw.uniform(250, 600),
    )


@dataclass(frozen=True)
class Skins:
    """What the surfaces of S solids are like, as tables."""

    colour: Float32[np.ndarray, "S 3"]
    contrast: Float32[np.ndarray, "S 3"]
    pattern: Int[np.ndarray, " S"]
    texels_per_metre: Float32[np.ndarray, " S"]
    shift: Float32[np.ndarray, "S 3"]
    """Of the pattern, metres."""
    gloss: Float32[np.ndarray, " S"]
    emission: Float32[np.ndarray, " S"]
    window: Float32[np.ndarray, " S"]
    storey: Float32[np.ndarray, " S"]
    reflectance: Float32[np.ndarray, " S"]
    dropout: Float32[np.ndarray, " S"]
    porosity: Float32[np.ndarray, " S"]

    @classmethod
    def of(cls, skins: list[Skin], rng: np.random.Generator) -> "Skins":
        """Tables; ``rng`` shifts the patterns."""
        colours = np.array([s.colours for s in skins])

        def column(name):
            return np.array([getattr(s, name) for s in skins], np.float32)

        return cls(
            colour=colours[:, 0].astype(np.float32),
            contrast=(colours[:, 1] - colours[:, 0]).astype(np.float32),
            pattern=np.array([s.pattern for s in skins], np.int64),
            texels_per_metre=column("tiles_per_metre") * np.float32(PATTERN_SIZE),
            shift=rng.uniform(0, 8, (len(skins), 3)).astype(np.float32),
            **{
                name: column(name)
                for name in ("gloss", "emission", "window", "storey", "reflectance", "dropout", "porosity")
            },
        )


def surface(
    shapes: Shapes, solid: Int[np.ndarray, " N"], face: Int[np.ndarray, " N"], at: Float[np.ndarray, "N 3"]
) -> tuple[Float32[np.ndarray, "N 3"], Float32[np.ndarray, "N 3"], Float32[np.ndarray, "N 3"]]:
    """Places on solids in the solids' own axes, and the outward normals there, in these and in the world's."""
    frame = shapes.rotation[solid].astype(np.float32)
    offset = (at - shapes.centre[solid]).astype(np.float32)
    local = (frame * offset[:, :, None]).sum(1)
    normal = np.zeros((len(solid), 3), np.float32)
    rows = np.flatnonzero(face < QUADRIC_FACE)
    normal[rows, face[rows] // 2] = np.where(face[rows] % 2, 1, -1)
    rows = np.flatnonzero(face == QUADRIC_FACE)
    quadric = shapes.quadric[solid[rows]]
    gradient = quadric[:, :3] * local[rows]
    gradient[:, 2] += quadric[:, 3]
    normal[rows] = gradient / np.sqrt((gradient**2).sum(1, keepdims=True) + np.float32(1e-12))
    rows = np.flatnonzero(face >= FIRST_PLANE_FACE)
    normal[rows] = shapes.planes[solid[rows], face[rows] - FIRST_PLANE_FACE, :3]
    return local, normal, (frame * normal[:, None, :]).sum(2)


def albedo(
    skins: Skins,
    half: Float[np.ndarray, "S 3"],
    solid: Int[np.ndarray, " N"],
    local: Float32[np.ndarray, "N 3"],
    normal: Float32[np.ndarray, "N 3"],
) -> tuple[Float32[np.ndarray, "3 N"], Bool[np.ndarray, " N"]]:
    """Linear RGB of places on solids, and whether they are on a building's window; ``normal`` in the solid's axes."""
    across_x, flat = np.abs(normal[:, 0]) > 0.7, np.abs(normal[:, 2]) > 0.7
    x, y, z = (local + skins.shift[solid]).T
    scale = skins.texels_per_metre[solid]
    u, v = np.where(across_x, y, x) * scale, np.where(flat, y, z) * scale
    column, row = (np.floor(a).astype(np.int64) & (PATTERN_SIZE - 1) for a in (u, v))
    texel = (skins.pattern[solid] * PATTERN_SIZE + row) * PATTERN_SIZE + column
    weight = np.take(pattern_bank().reshape(-1), texel)
    rgb = (skins.colour[solid] + weight[:, None] * skins.contrast[solid]).T
    spacing = skins.window[solid]
    rows = np.flatnonzero((spacing > 0) & ~flat)
    window = np.zeros(len(solid), bool)
    if len(rows):
        extent = half[solid[rows]]
        along = np.where(across_x[rows], local[rows, 1], local[rows, 0])
        width = 2 * np.where(across_x[rows], extent[:, 1], extent[:, 0])
        # As many windows as fit, evenly; the storey at the top is left out where it is cut off.
        number = np.maximum(np.round(width / spacing[rows]), 1)
        place = np.mod((along / width + 0.5) * number, 1.0)
        level = (local[rows, 2] + extent[:, 2]) / skins.storey[solid[rows]]
        whole = np.floor(level) < np.floor(2 * extent[:, 2] / skins.storey[solid[rows]])
        inside = (np.abs(place - 0.5) < 0.27) & (np.abs(np.mod(level, 1.0) - 0.55) < 0.24) & whole
        frame = inside & ((np.abs(place - 0.5) > 0.23) | (np.abs(np.mod(level, 1.0) - 0.55) > 0.205))
        window[rows] = inside & ~frame
        rgb[:, rows[frame]] = 0.55
        rgb[:, rows[inside & ~frame]] = np.array([[0.03], [0.04], [0.05]])
    return rgb.astype(np.float32), window


def sky(weather: Weather, ray: Float32[np.ndarray, "3 N"]) -> Float32[np.ndarray, "3 N"]:
    """Linear RGB of the sky in unit directions; below the horizon, what the horizon has."""
    up = np.maximum(ray[2], 0)
    share = np.sqrt(up)[None]
    rgb = np.array(weather.horizon)[:, None] * (1 - share) + np.array(weather.zenith)[:, None] * share
    scale = 24 / (up + 0.12)
    u, v = (np.floor(ray[k] * scale).astype(np.int64) & (PATTERN_SIZE - 1) for k in (0, 1))
    cover = np.clip((pattern_bank()[4][v, u] - 1 + weather.clouds) * 2.5, 0, 1) * np.clip(up * 6, 0, 1)
    bright = np.array(weather.horizon)[:, None] * 1.15
    return (rgb + cover * (bright - rgb)).astype(np.float32)


def shine(
    weather: Weather,
    ray: Float32[np.ndarray, "3 N"],
    distance: Float32[np.ndarray, " N"],
    rgb: Float32[np.ndarray, "3 N"],
    normal: Float32[np.ndarray, "3 N"],
    lit: Bool[np.ndarray, " N"],
    gloss: Float32[np.ndarray, " N"],
    emission: Float32[np.ndarray, " N"],
) -> Float32[np.ndarray, "3 N"]:
    """Linear RGB that reaches the camera from surfaces of colour ``rgb``, met along unit rays after ``distance``."""
    facing = sum(normal[k] * np.float32(weather.sun[k]) for k in range(3))
    direct = np.where(lit, np.maximum(facing, 0), 0)
    light = [
        np.float32(weather.skylight[c]) * (0.72 + 0.28 * normal[2])
        + np.float32(weather.sunlight[c]) * direct
        + emission
        for c in range(3)
    ]
    out = rgb * np.stack(light)
    rows = np.flatnonzero(gloss > 0)
    if len(rows):
        along = sum(ray[k, rows] * normal[k, rows] for k in range(3))
        mirrored = np.stack([ray[k, rows] - 2 * along * normal[k, rows] for k in range(3)])
        # More is mirrored at grazing angles (Schlick 1994, with 0.06 straight on, scaled by the gloss).
        share = gloss[rows] * (0.1 + 0.9 * (1 - np.minimum(np.abs(along), 1)) ** 4)
        around = sky(weather, mirrored.astype(np.float32)) * np.where(mirrored[2] > 0, 1, 0.3)
        glint = np.maximum(sum(mirrored[k] * np.float32(weather.sun[k]) for k in range(3)), 0) ** 64
        around = around + np.array(weather.sunlight)[:, None] * (4 * glint * lit[rows])
        out[:, rows] += share * (around - out[:, rows])
    haze = np.exp(-distance / np.float32(weather.sight))
    return (out * haze + np.array(weather.horizon)[:, None] * (1 - haze)).astype(np.float32)


def shadows(shapes: Shapes, sun: tuple[float, float, float], at: Float[np.ndarray, "N 3"]) -> Bool[np.ndarray, " N"]:
    """Which places see no sun because a solid is in the way. Places are a little off the surfaces they are on."""
    first = np.array([-sun[1], sun[0], 0.0]) / np.hypot(sun[0], sun[1])
    second = np.cross(np.array(sun), first)
    plane = np.stack([first, second], axis=1)
    place = _across(at, plane)
    corners = _across(shapes.corners(), plane)
    low, high = place.min(0), place.max(0)
    count = np.floor((high - low) / SHADOW_CELL).astype(np.int64) + 1
    cell = np.floor((place - low) / SHADOW_CELL).astype(np.int64)
    key = cell[:, 1] * count[0] + cell[:, 0]
    order = np.argsort(key, kind="stable")
    key = key[order]
    start = np.floor((corners.min(1) - low) / SHADOW_CELL).astype(np.int64)
    end = np.floor((corners.max(1) - low) / SHADOW_CELL).astype(np.int64)
    start, end = np.maximum(start, 0), np.minimum(end, count - 1)
    solid = np.flatnonzero((start <= end).all(1))
    # One strip of cells for each row of cells that a solid covers.
    rows = end[solid, 1] - start[solid, 1] + 1
    strip = np.repeat(solid, rows)
    line = np.arange(int(rows.sum())) - np.repeat(np.cumsum(rows) - rows, rows) + start[strip, 1]
    begin = np.searchsorted(key, line * count[0] + start[strip, 0])
    stop = np.searchsorted(key, line * count[0] + end[strip, 0], side="right")
    keep = stop > begin
    return meets_any(shapes, at, np.array(sun, np.float32), order, strip[keep], begin[keep], stop[keep])


def _across(at, plane):
    return at[..., 0, None] * plane[0] + at[..., 1, None] * plane[1] + at[..., 2, None] * plane[2]
