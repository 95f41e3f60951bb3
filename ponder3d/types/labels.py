"""Class names and colours."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

IMPOSSIBLE = -1e4
"""Score of a class that a point cannot have. Its probability is exactly 0, and no gradient becomes infinite or NaN, as
it may with -inf."""


@dataclass(frozen=True)
class LabelSet:
    """The classes of a dataset. It lives beside its dataset and nobody else lists class names."""

    names: tuple[str, ...]
    """Class names; a label is an index into this tuple. A negative label means that there is none."""
    palette: tuple[tuple[int, int, int], ...]
    """One RGB colour in 0..255 per class."""
    subsets: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """For a vocabulary that several datasets share: the name of each (``Scene.condition``) and the rows of its classes,
    in its own order. A point of a scene of that dataset can have no other class. Empty: every class is possible."""

    def __post_init__(self):
        if len(self.names) != len(self.palette):
            raise ValueError(f"LabelSet: {len(self.names)} names but {len(self.palette)} colours")
        if len(set(self.names)) != len(self.names):
            raise ValueError("LabelSet: a class name occurs twice")
        for condition, rows in self.subsets:
            if len(set(rows)) != len(rows) or not all(0 <= row < len(self.names) for row in rows):
                raise ValueError(f"LabelSet: the classes of {condition!r} are no different rows of {len(self)} names")

    def __len__(self) -> int:
        return len(self.names)

    def possible(self, conditions: Sequence[str]) -> Bool[Tensor, "B {len(self)}"]:
        """Which classes points of scenes of these conditions can have. A condition that has no subset can have all."""
        subsets = dict(self.subsets)
        table = torch.ones(len(conditions), len(self), dtype=torch.bool)
        for row, condition in enumerate(conditions):
            if condition in subsets:
                table[row] = False
                table[row, list(subsets[condition])] = True
        return table
