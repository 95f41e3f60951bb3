"""A piece of furniture before and after it is placed, and the random choices its builder makes.

Convention: a piece's own frame has its origin in the middle of its footprint on the floor (or whatever it stands on),
its front towards +x, z up. Placing it turns +x by ``yaw`` towards +y.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from ponder3d.data.synthetic.materials import Material, draw_material, draw_palette
from ponder3d.data.synthetic.solids import Solid, Vector, extents, moved, rotation

T = TypeVar("T")

DESIGNS = ("all", "seen", "unseen")
"""Of each kind of thing: every design, all but one, and that one alone."""


class Draw:
    """The random choices of one room: numbers, designs, and materials in the room's own colours.

    Args:
        rng: where they come from.
        style: of the colours, one of ``materials.STYLES``.
        designs: which designs of things there are, one of ``DESIGNS``.
    """

    def __init__(self, rng: np.random.Generator, style: str = "mixed", designs: str = "all"):
        self.rng = rng
        self.palette = draw_palette(rng, style)
        self.designs = designs

    def uniform(self, low: float | int, high: float | int) -> float:
        """A number between two others."""
        return low + (high - low) * float(self.rng.random())

    def integer(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[T]) -> T:
        """One of several options."""
        return options[int(self.rng.integers(len(options)))]

    def design(self, options: Sequence[str], apart: str) -> str:
        """How a thing is built: one of several designs, of which ``apart`` is the one that ``seen`` rooms lack and
        that things of ``unseen`` rooms have."""
        if self.designs == "unseen":
            return apart
        return self.pick(options if self.designs == "all" else [option for option in options if option != apart])

    def material(self, *uses: str, emission: float = 0.0) -> Material:
        """A material for one of the uses named in ``materials.USES``."""
        return draw_material(self.rng, self.palette, self.pick(uses), emission)


@dataclass(frozen=True, eq=False)
class Piece:
    """One object, built of solids in its own frame."""

    label: str
    """Class name."""
    solids: tuple[Solid, ...]
    size: Vector
    """Depth (along its front direction), width and height in metres."""
    support: float = 0.0
    """Height of the face on which smaller things can be put; 0 for none."""
    lift: float = 0.0
    """How far its lowest point is above its origin, for things that hang."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A piece at its place in the room."""

    piece: Piece
    x: float
    y: float
    z: float
    """Height of what it stands on."""
    yaw: float

    def solids(self) -> list[Solid]:
        """Its solids in the world frame."""
        return moved(self.piece.solids, (self.x, self.y, self.z), rotation("z", self.yaw))

    def corners(self) -> Float[np.ndarray, "4 2"]:
        """Corners of its footprint, counter-clockwise."""
        half = np.array(self.piece.size[:2]) / 2
        local = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
        return np.stack(self.world(local[:, 0], local[:, 1]), axis=1)

    def world(self, forward: np.ndarray | float, left: np.ndarray | float) -> tuple:
        """World x and y of a place in the piece's own frame: ``forward`` along its front direction, ``left`` of it."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return self.x + cos * forward - sin * left, self.y + sin * forward + cos * left

    @property
    def top(self) -> float:
        """Height of its highest point."""
        return self.z + self.piece.lift + self.piece.size[2]


def piece(label: str, solids: Sequence[Solid], support: float = 0.0) -> Piece:
    """A piece made of solids; they are shifted so that the origin is in the middle of the footprint."""
    lo, hi = extents(solids)
    shift = (-float(lo[0] + hi[0]) / 2, -float(lo[1] + hi[1]) / 2, 0.0)
    depth, width, height = (float(s) for s in hi - lo)
    return Piece(label, tuple(moved(solids, shift)), (depth, width, height), support, float(lo[2]))
