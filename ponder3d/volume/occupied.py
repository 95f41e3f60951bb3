"""Batch norm and a 3x3x3 convolution of a volume that is mostly empty, computed from its occupied cells.

Normalised, an empty cell holds a constant, not zero. As the norm is affine, ``norm(x) = x * scale + shift``, the
convolution is that of ``x * scale``, to which only occupied cells contribute, plus that of the constant ``shift``,
which is the same everywhere but at the borders: a 3x3x3 volume holds all its values. With one cell in six occupied, as
in rooms of 32 x 32 x 16 cells, a sixth of the products is left; nothing is approximated.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponder3d.sparse.functional import sparse_conv
from ponder3d.sparse.maps import ConvMap, TapTable
from ponder3d.types import Occupied

Shape = tuple[int, int, int]


def norm_conv_of_occupied(
    norm: nn.BatchNorm3d, conv: nn.Conv3d, occupied: Occupied, num_scenes: int, shape: Shape
) -> Float[Tensor, "B D X Y Z"]:
    """``conv(norm(x))`` of ``num_scenes`` volumes that are zero except where they are occupied.

    ``conv`` is 3x3x3 with padding 1 and without bias. In training the norm's running statistics are updated.
    """
    x = occupied.feats
    scale, shift = _affine(norm, x, num_scenes * shape[0] * shape[1] * shape[2])
    taps = conv.weight.permute(2, 3, 4, 1, 0).flatten(0, 2)  # [27, C, D]
    out = sparse_conv(x * scale.to(x.dtype), taps, _map(occupied.rows, num_scenes, shape))
    out = out.view(num_scenes, *shape, -1) + _conv_of_constant(conv, shift.to(x.dtype), shape)
    return out.permute(0, 4, 1, 2, 3)


def _affine(norm: nn.BatchNorm3d, x: Float[Tensor, "M C"], num_cells: int) -> tuple[Tensor, Tensor]:
    """Factor and summand of the norm, from the occupied cells of ``num_cells``."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    if norm.training:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = x.sum(0) / num_cells
        var = ((x - mean).square().sum(0) + (num_cells - len(x)) * mean.square()) / num_cells
        with torch.no_grad():
            unbiased = var * (num_cells / max(num_cells - 1, 1))
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked += 1
    else:
        mean, var = norm.running_mean, norm.running_var
    scale = norm.weight / (var + norm.eps).sqrt()
    return scale, norm.bias - mean * scale


def _map(occupied: Int[Tensor, " M"], num_scenes: int, shape: Shape) -> ConvMap:
    """From the occupied cells to all cells: a neighbour is a look-up in the volume of their numbers."""
    numbers = torch.full((num_scenes, *(n + 2 for n in shape)), -1, dtype=torch.int32, device=occupied.device)
    inner = numbers[:, 1:-1, 1:-1, 1:-1]
    b, cell = occupied.div(shape[0] * shape[1] * shape[2], rounding_mode="floor"), occupied
    z, y, x = cell % shape[2], cell // shape[2] % shape[1], cell // (shape[1] * shape[2]) % shape[0]
    inner[b, x, y, z] = torch.arange(len(occupied), dtype=torch.int32, device=occupied.device)
    offsets = torch.cartesian_prod(*[torch.arange(3)] * 3).tolist()
    read = [
        numbers[:, i : i + shape[0], j : j + shape[1], k : k + shape[2]].reshape(-1).to(torch.int32)
        for i, j, k in offsets
    ]
    # The output that a tap of an occupied cell reaches: the cell at minus the tap's offset, if there is one.
    reached = []
    for i, j, k in offsets:
        to = (x + 1 - i, y + 1 - j, z + 1 - k)
        inside = torch.stack([(0 <= t) & (t < n) for t, n in zip(to, shape, strict=True)]).all(0)
        row = ((b * shape[0] + to[0]) * shape[1] + to[1]) * shape[2] + to[2]
        reached.append(torch.where(inside, row, -1).to(torch.int32))
    num_cells = num_scenes * shape[0] * shape[1] * shape[2]
    return ConvMap(
        forward=TapTable(torch.stack(read), len(occupied)),
        transpose=TapTable(torch.stack(reached), num_cells),
        mirrored=False,
    )


def _conv_of_constant(conv: nn.Conv3d, value: Float[Tensor, " C"], shape: Shape) -> Float[Tensor, "X Y Z D"]:
    """The convolution of a volume that holds ``value`` everywhere, zeros around it."""
    small = [min(n, 3) for n in shape]
    out = F.conv3d(value.view(1, -1, 1, 1, 1).expand(1, -1, *small), conv.weight.to(value.dtype), padding=1)
    out = out[0].permute(1, 2, 3, 0).contiguous()  # channels last, as what it is added to
    for axis, (n, few) in enumerate(zip(shape, small, strict=True)):
        # First and last cell are borders, those between are all alike.
        like = torch.arange(n, device=value.device).clamp(max=1)
        like[-1] = few - 1
        out = out.index_select(axis, like)
    return out
