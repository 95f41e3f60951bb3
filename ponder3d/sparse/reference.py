"""Sparse convolution as one would write it down: tap by tap, gather, multiply, add.

What every faster way is held to. Autograd differentiates ``conv`` as it stands. Each tap is done for all rows, those
without a neighbour reading a row of zeros, so nothing depends on how many there are and no two rows add to one place:
on a GPU without Triton this is what runs.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.sparse.maps import TapTable


def conv(
    feats: Float[Tensor, "M_in C_in"], weight: Float[Tensor, "K C_in C_out"], table: TapTable
) -> Float[Tensor, "M_out C_out"]:
    """``out[q] = sum over taps r of feats[table[r, q]] @ weight[r]``."""
    padded = _with_zero_row(feats)
    out = feats.new_zeros(table.rows.shape[1], weight.shape[2])
    for rows, tap in zip(table.rows, weight, strict=True):
        out = out + padded[_present(rows, len(feats))] @ tap
    return out


def weight_gradient(
    feats: Float[Tensor, "M_in C_in"], grad_out: Float[Tensor, "M_out C_out"], table: TapTable
) -> Float[Tensor, "K C_in C_out"]:
    """``grad[r] = sum over output rows q of feats[table[r, q]] outer grad_out[q]``, in at least float32."""
    padded = _with_zero_row(feats)
    taps = [padded[_present(rows, len(feats))].T @ grad_out for rows in table.rows]
    return torch.stack(taps).to(torch.promote_types(feats.dtype, torch.float32))


def _with_zero_row(feats: Float[Tensor, "M C"]) -> Float[Tensor, "M1 C"]:
    return F.pad(feats, (0, 0, 0, 1))


def _present(rows: Int[Tensor, " M"], zero_row: int) -> Int[Tensor, " M"]:
    return torch.where(rows >= 0, rows, zero_row).to(torch.int64)
