"""What the surfaces of streets look like to a camera and to a laser."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ponder3d.data.hsv import rgb_from_hsv
from ponder3d.data.synthetic.materials import Colour, Material, pattern_rows
from ponder3d.data.synthetic.pieces import Draw


@dataclass(frozen=True)
class Skin(Material):
    """A material that also has what a laser at 905 nm meets, and windows."""

    reflectance: float = 0.3
    """Strength of the echo of a surface met straight on at no distance, in [0, 1]."""
    porosity: float = 0.0
    """Mean depth in metres that a laser gets into leaves before one of them sends it back."""
    window: float = 0.0
    """Metres from one window to the next along an upright face; 0 for a face without windows."""
    storey: float = 0.0
    """Height of a storey in metres."""


PAINTS = (
    (0.93, 0.93, 0.92), (0.9, 0.9, 0.88), (0.06, 0.06, 0.07), (0.1, 0.1, 0.12), (0.32, 0.33, 0.35), (0.6, 0.62, 0.64),
    (0.7, 0.71, 0.72), (0.55, 0.07, 0.08), (0.1, 0.18, 0.42), (0.16, 0.32, 0.5), (0.12, 0.26, 0.18), (0.5, 0.42, 0.3),
    (0.8, 0.45, 0.1), (0.85, 0.75, 0.15),
)  # fmt: skip
"""sRGB colours of vehicles; white, black and greys more often, as on the road."""
WALLS = (
    (0.86, 0.82, 0.72), (0.8, 0.74, 0.6), (0.72, 0.4, 0.3), (0.6, 0.33, 0.26), (0.75, 0.75, 0.74), (0.55, 0.56, 0.58),
    (0.9, 0.88, 0.84), (0.68, 0.62, 0.52), (0.62, 0.7, 0.72), (0.78, 0.65, 0.5), (0.42, 0.42, 0.45), (0.85, 0.72, 0.55),
)  # fmt: skip
LEAVES = ((0.25, 0.38, 0.13), (0.2, 0.33, 0.14), (0.32, 0.42, 0.16), (0.38, 0.42, 0.14), (0.17, 0.28, 0.15))
CLOTHES = (
    (0.12, 0.13, 0.2), (0.2, 0.22, 0.28), (0.5, 0.12, 0.12), (0.7, 0.68, 0.62), (0.18, 0.3, 0.5), (0.25, 0.38, 0.25),
    (0.08, 0.08, 0.08), (0.75, 0.55, 0.2), (0.4, 0.3, 0.22), (0.85, 0.85, 0.85),
)  # fmt: skip
_PATTERNS = pattern_rows()
FACES = ((0.85, 0.66, 0.54), (0.72, 0.52, 0.4), (0.5, 0.34, 0.24), (0.35, 0.24, 0.17))


def skin(
    draw: Draw,
    srgb: tuple[float, float, float],
    pattern: str = "plain",
    tile: float = 1.0,
    contrast: float = 0.25,
    reflectance: float = 0.3,
    gloss: float = 0.0,
    second: tuple[float, float, float] | None = None,
    **more: float,
) -> Skin:
    """A skin in about the sRGB colour ``srgb``, with another ``second`` or lighter one where the pattern is 1.

    Args:
        draw: where randomness comes from.
        srgb: the colour.
        pattern: name of a pattern of ``materials``.
        tile: side of one tile of the pattern, metres.
        contrast: by how much of its brightness the colour changes along the pattern; of no effect with ``second``.
        reflectance: of the skin.
        gloss: of the skin.
        second: the colour where the pattern is 1.
        more: other fields of ``Skin``.
    """
    bright, shift = draw.uniform(0.85, 1.12), draw.rng.normal(0, 0.015, 3).tolist()
    first = [min(max(c * bright + s, 0.02), 0.98) for c, s in zip(srgb, shift, strict=True)]
    other = [min(max(c * (1 + contrast), 0.02), 1.0) for c in first] if second is None else second
    rows = _PATTERNS[pattern]
    return Skin(
        colours=(_linear(first), _linear(other)),
        pattern=int(rows[draw.integer(0, len(rows) - 1)]),
        tiles_per_metre=1 / tile,
        gloss=gloss,
        reflectance=min(max(reflectance * draw.uniform(0.8, 1.2), 0.01), 1.0),
        **more,
    )


def paint(draw: Draw, srgb: tuple[float, float, float] | None = None) -> Skin:
    """The paint of a vehicle."""
    colour = draw.pick(PAINTS) if srgb is None else srgb
    return skin(draw, colour, contrast=0.05, reflectance=0.12 + 0.45 * max(colour), gloss=0.5)


def glass(draw: Draw) -> Skin:
    """The windows of a vehicle: dark, shiny, and often no echo."""
    return skin(draw, (0.1, 0.12, 0.14), contrast=0.1, reflectance=0.08, gloss=0.8, dropout=0.5)


def rubber(draw: Draw) -> Skin:
    """Tyres."""
    return skin(draw, (0.07, 0.07, 0.07), reflectance=0.06)


def metal(draw: Draw, srgb: tuple[float, float, float] = (0.45, 0.46, 0.47)) -> Skin:
    """Poles, rims, chassis."""
    return skin(draw, srgb, contrast=0.1, reflectance=0.35, gloss=0.3)


def lamp(draw: Draw, srgb: tuple[float, float, float], emission: float = 0.0) -> Skin:
    """Head lamps and tail lights: made to send light back."""
    return skin(draw, srgb, contrast=0.0, reflectance=0.9, gloss=0.6, emission=emission)


def wall(draw: Draw, windows: bool = True, storey: float = 3.0) -> Skin:
    """The outside of a building."""
    pattern, tile = draw.pick((("plain", 2.0), ("bricks", 1.2), ("cloud", 4.0), ("tiles", 3.0), ("planks", 2.4)))
    return skin(
        draw,
        draw.pick(WALLS),
        pattern,
        tile,
        contrast=draw.uniform(-0.15, 0.2),
        reflectance=draw.uniform(0.25, 0.55),
        window=draw.uniform(1.8, 3.6) if windows else 0.0,
        storey=storey,
    )


def leaves(draw: Draw, srgb: tuple[float, float, float] | None = None) -> Skin:
    """Crowns, hedges and bushes."""
    colour = np.array(draw.pick(LEAVES) if srgb is None else srgb) * draw.uniform(0.85, 1.1)
    return skin(
        draw,
        (float(colour[0]), float(colour[1]), float(colour[2])),
        "cloud",
        draw.uniform(0.9, 1.8),
        contrast=draw.uniform(0.45, 0.75),
        reflectance=0.45,
        porosity=0.18,
        dropout=0.05,
    )


def any_colour(draw: Draw, saturation: float = 0.6, value: float = 0.7) -> tuple[float, float, float]:
    """A colour of any hue, sRGB."""
    hsv = np.array([[draw.uniform(0, 1), draw.uniform(0.2, 1) * saturation, draw.uniform(0.6, 1.2) * value]])
    red, green, blue = (float(c) for c in rgb_from_hsv(hsv)[0])
    return red, green, blue


def _linear(srgb: Sequence[float]) -> Colour:
    red, green, blue = (c**2.2 for c in srgb)
    return red, green, blue
