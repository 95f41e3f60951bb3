"""Materials: colours that every class shares, and a bank of tileable patterns.

Colour must not tell a class: a room draws one palette and walls, floors and furniture all pick from it. What a material
is used for decides only which patterns are likely and how it reflects.
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ponder3d.data.hsv import rgb_from_hsv
from ponder3d.geometry.keyed import derive

PATTERN_SIZE = 64
"""Texels along each side of a pattern."""

_BANK_KEY = 20240607
"""Key of the pattern bank; changing it changes every generated room."""

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """How a surface looks to the colour camera and to the depth camera."""

    colours: tuple[Colour, Colour]
    """Linear RGB where the pattern is 0 and where it is 1."""
    pattern: int
    """Row of ``pattern_bank()``."""
    tiles_per_metre: float
    gloss: float = 0.0
    """Strength of the highlight."""
    emission: float = 0.0
    """Light given off, in units of a brightly lit white wall."""
    dropout: float = 0.0
    """Probability that the depth camera gets nothing back."""


@dataclass(frozen=True)
class Use:
    """What a kind of material may look like."""

    patterns: tuple[str, ...]
    tile: tuple[float, float]
    """Range of a pattern tile's side in metres."""
    contrast: float
    """Largest change of brightness along the pattern; half of the materials get a second colour instead."""
    gloss: tuple[float, float] = (0.0, 0.1)
    dropout: float = 0.0


USES = {
    "wood": Use(("wood", "wood", "planks", "plain"), (0.5, 1.2), 0.35, (0.0, 0.35)),
    "cloth": Use(("plain", "weave", "stripes", "checks", "cloud", "dots"), (0.25, 0.9), 0.4),
    "paint": Use(("plain", "plain", "cloud", "stripes"), (0.8, 2.0), 0.25, (0.0, 0.2)),
    "metal": Use(("plain", "plain", "brushed"), (0.4, 0.8), 0.15, (0.3, 0.9), 0.06),
    "ceramic": Use(("plain", "plain", "marble"), (0.6, 1.5), 0.2, (0.3, 0.8), 0.04),
    "floor": Use(
        ("planks", "wood", "tiles", "checks", "cloud", "bricks", "marble", "plain"), (0.8, 2.4), 0.35, (0.0, 0.3)
    ),
    "wall": Use(("plain", "plain", "plain", "stripes", "cloud", "tiles", "bricks", "dots"), (0.8, 2.0), 0.2),
    "stone": Use(("marble", "cloud", "plain", "tiles"), (0.6, 1.5), 0.3, (0.1, 0.6)),
    "leaf": Use(("cloud", "stripes", "plain"), (0.15, 0.5), 0.35),
    "print": Use(("cloud", "stripes", "checks", "dots", "marble", "bricks"), (0.3, 1.2), 0.5),
    "glass": Use(("plain", "cloud"), (0.5, 1.5), 0.2, (0.5, 1.0), 0.65),
    "screen": Use(("plain", "plain", "cloud", "bricks"), (0.3, 0.8), 0.3, (0.3, 0.8), 0.35),
}
"""What the furniture asks for by name."""


STYLES = {
    "mixed": (0.38, 0.32, 0.24, 0.06),
    "warm": (0.1, 0.75, 0.1, 0.05),
    "cool": (0.75, 0.02, 0.2, 0.03),
    "bright": (0.15, 0.05, 0.4, 0.4),
}
"""Styles of rooms: how likely each of their colours is neutral, brown, muted or strong."""


def draw_palette(rng: np.random.Generator, style: str = "mixed", num_colours: int = 9) -> Float[np.ndarray, "C 3"]:
    """The sRGB colours of one room: neutrals, browns, muted and a few strong colours, as its style has them."""
    kind = rng.choice(4, num_colours, p=STYLES[style])
    hue = np.where(kind == 1, rng.uniform(0.03, 0.13, num_colours), rng.uniform(0, 1, num_colours))
    low = np.array([0.0, 0.25, 0.15, 0.45])[kind]
    high = np.array([0.08, 0.65, 0.45, 0.8])[kind]
    saturation = low + (high - low) * rng.random(num_colours)
    low = np.array([0.12, 0.25, 0.35, 0.35])[kind]
    high = np.array([0.97, 0.85, 0.9, 0.9])[kind]
    value = low + (high - low) * rng.random(num_colours)
    vivid = rng.uniform(0.35, 1.0)
    return rgb_from_hsv(np.stack([hue, saturation * vivid, value], axis=1))


def draw_material(
    rng: np.random.Generator, palette: Float[np.ndarray, "C 3"], use: str, emission: float = 0.0
) -> Material:
    """A material for a use, in two of the room's colours.

    Raises:
        KeyError: ``use`` is not in ``USES``.
    """
    kind = USES[use]
    first, second = palette[rng.integers(len(palette), size=2)]
    first = np.clip(first * rng.uniform(0.75, 1.2) + rng.normal(0, 0.03, 3), 0.02, 0.98)
    if rng.random() < 0.5:
        second = np.clip(first * (1 + kind.contrast * rng.uniform(-1, 1)), 0.02, 0.98)
    name = kind.patterns[rng.integers(len(kind.patterns))]
    rows = pattern_rows()[name]
    return Material(
        colours=(_linear(first), _linear(second)),
        pattern=int(rows[rng.integers(len(rows))]),
        tiles_per_metre=1 / rng.uniform(*kind.tile),
        gloss=rng.uniform(*kind.gloss),
        emission=emission,
        dropout=kind.dropout,
    )


@functools.cache
def pattern_bank() -> Float[np.ndarray, "P 64 64"]:
    """Tileable patterns with values in [0, 1], four of every kind, as float32."""
    rng = np.random.Generator(np.random.PCG64(derive(_BANK_KEY)))
    rows = [np.clip(make(rng), 0, 1) for make in _MAKERS.values() for _ in range(_VARIANTS)]
    return np.stack(rows).astype(np.float32)


def pattern_rows() -> dict[str, range]:
    """Which rows of the bank show which kind of pattern."""
    return {name: range(i * _VARIANTS, (i + 1) * _VARIANTS) for i, name in enumerate(_MAKERS)}


def _linear(srgb: Float[np.ndarray, "3"]) -> Colour:
    red, green, blue = (float(c) ** 2.2 for c in srgb)
    return red, green, blue


def _noise(rng: np.random.Generator, cells_y: int, cells_x: int) -> Float[np.ndarray, "64 64"]:
    """Smooth tileable value noise in [0, 1] with the given number of cells along each side."""
    grid = rng.random((cells_y, cells_x))
    for axis, cells in ((0, cells_y), (1, cells_x)):
        at = (np.arange(PATTERN_SIZE) + 0.5) * cells / PATTERN_SIZE
        low = at.astype(int)
        weight = at - low
        weight = weight * weight * (3 - 2 * weight)
        weight = weight[:, None] if axis == 0 else weight
        grid = np.take(grid, low % cells, axis) * (1 - weight) + np.take(grid, (low + 1) % cells, axis) * weight
    return grid


def _axes() -> tuple[Float[np.ndarray, "64 1"], Float[np.ndarray, "1 64"]]:
    at = (np.arange(PATTERN_SIZE) + 0.5) / PATTERN_SIZE
    return at[:, None], at[None, :]


def _plain(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    return 0.12 * _noise(rng, 16, 16)


def _cloud(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    octaves = 0.5 * _noise(rng, 3, 3) + 0.3 * _noise(rng, 7, 7) + 0.2 * _noise(rng, 16, 16)
    return 2 * octaves - 0.5


def _wood(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    y, _ = _axes()
    warp = _noise(rng, 5, 2) * rng.uniform(0.5, 1.5)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (int(rng.integers(3, 8)) * y + warp))
    return 0.6 * rings + 0.4 * _noise(rng, 32, 3)


def _planks(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    y, x = _axes()
    count = int(rng.integers(4, 9))
    plank = np.floor(y * count).astype(int)
    tone = rng.random(count)[plank]
    joint = (y * count - plank < 0.1) | (np.abs((x + rng.random(count)[plank]) % 1 - 0.5) < 0.012)
    return np.where(joint, 1.0, 0.5 * tone + 0.3 * _noise(rng, 32, 3))


def _stripes(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    y, x = _axes()
    at = (x if rng.random() < 0.7 else y) * int(rng.integers(3, 9))
    return np.broadcast_to((at % 1 < rng.uniform(0.3, 0.6)).astype(float), (PATTERN_SIZE, PATTERN_SIZE))


def _checks(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    y, x = _axes()
    count = 2 * int(rng.integers(1, 4))
    if rng.random() < 0.5:
        return 0.5 * (x * count % 1 < 0.5) + 0.5 * (y * count % 1 < 0.5)
    return ((np.floor(x * count) + np.floor(y * count)) % 2).astype(float)


def _tiles(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    y, x = _axes()
    count = int(rng.integers(2, 6))
    grout = (x * count % 1 < 0.07) | (y * count % 1 < 0.07)
    tone = 0.3 * rng.random((count, count))[np.floor(y * count).astype(int), np.floor(x * count).astype(int)]
    return np.where(grout, 1.0, tone)


def _bricks(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    y, x = _axes()
    rows = 2 * int(rng.integers(2, 6))
    row = np.floor(y * rows).astype(int)
    shifted = (x * (rows // 2) + 0.5 * (row % 2)) % (rows // 2)
    tone = 0.4 * rng.random((rows, rows // 2))[row, np.floor(shifted).astype(int)]
    return np.where((y * rows % 1 < 0.14) | (shifted % 1 < 0.07), 1.0, tone)


def _dots(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    y, x = _axes()
    count = int(rng.integers(3, 7))
    return (np.hypot(x * count % 1 - 0.5, y * count % 1 - 0.5) < rng.uniform(0.18, 0.36)).astype(float)


def _marble(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    y, x = _axes()
    turbulence = 1.2 * _noise(rng, 4, 4) + 0.6 * _noise(rng, 9, 9)
    veins = np.abs(np.sin(np.pi * (x + int(rng.integers(1, 3)) * y + turbulence)))
    return 1 - veins**0.4


def _weave(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    y, x = _axes()
    count = 8 * int(rng.integers(1, 3))
    return 0.5 + 0.25 * np.sin(2 * np.pi * count * x) + 0.25 * np.sin(2 * np.pi * count * y)


def _brushed(rng: np.random.Generator) -> Float[np.ndarray, "64 64"]:
    return _noise(rng, PATTERN_SIZE, 2)


_MAKERS = {
    "plain": _plain, "cloud": _cloud, "wood": _wood, "planks": _planks, "stripes": _stripes, "checks": _checks,
    "tiles": _tiles, "bricks": _bricks, "dots": _dots, "marble": _marble, "weave": _weave, "brushed": _brushed,
}  # fmt: skip
_VARIANTS = 4
