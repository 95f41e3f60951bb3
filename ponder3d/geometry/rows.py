"""Rows of a tensor by number."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from ponder3d.geometry import compiled_grid


def take(x: Shaped[Tensor, "N *C"], rows: Int[Tensor, " K"]) -> Shaped[Tensor, "K *C"]:
    """``x[rows]`` for row numbers from 0 on, in a fifth of the time where a row is a few numbers.

    Indexing looks up every number of a row by itself; ``index_select`` copies rows, and the compiled twin asks for them
    ahead of time. 650 000 random rows of three out of a million: 55, 19 and 4 ms.

    Raises:
        IndexError: a row that is not there.
    """
    # For single numbers index_select is as fast as can be; what needs a gradient goes through autograd.
    if x.dim() == 2 and not x.requires_grad and compiled_grid.LIBRARY.wanted(x.device):
        return compiled_grid.take(x, rows)
    return torch.index_select(x, 0, rows)
