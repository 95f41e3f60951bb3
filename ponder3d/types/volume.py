"""Regular grids over a metric box, and features on them."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """A regular grid over one axis-aligned box per scene; the box may have a different extent along each axis.

    Convention: cell ``i`` of an axis with ``n`` cells covers ``[lo + i*s, lo + (i+1)*s)`` with ``s = (hi - lo) / n``
    and holds the value at its centre. ``geometry.grid.cells_from_world`` is the only map from the world into it.
    """

    box: Float[Tensor, "B 2 3"]
    """Lower and upper corner in metres."""
    shape: tuple[int, int, int]
    """Number of cells along x, y and z."""
    fixed: tuple[float, ...] | None = None
    """Where every scene has the same box, and it was chosen and not measured (``geometry.grid.fixed_grid``): lower x,
    y, z, upper x, y, z. The host compares such grids without asking a GPU. None: it cannot."""

    def is_as(self, other: "Grid") -> bool:
        """Whether two grids of as many scenes are known to be one and the same."""
        if self.shape != other.shape or self.box.shape != other.box.shape:
            return False
        return self.box is other.box or (self.fixed is not None and self.fixed == other.fixed)


@dataclass(frozen=True)
class Occupied:
    """The cells of a volume that hold anything."""

    rows: Int[Tensor, " M"]
    """Of the volume seen as [B*X*Y*Z, C], ascending."""
    feats: Float[Tensor, "M C"]
    """What the volume holds there. Gradients that come this way need no gradient of the whole volume."""


@dataclass(frozen=True)
class Volume:
    """Features on a grid, channels last: the eight corners of a query are eight contiguous reads."""

    grid: Grid
    feats: Float[Tensor, "B X Y Z C"]
    occupied: Occupied | None = None
    """The same features once more, where they are not zero. None: not known."""
