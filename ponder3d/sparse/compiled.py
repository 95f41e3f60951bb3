"""Sparse convolution compiled for the CPU (``cpu_conv.c``), where there is a C compiler (``geometry/compiled.py``)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.geometry.compiled import Functions, Library
from ponder3d.geometry.grid import key_offset


def wanted(device: torch.device) -> bool:
    """Whether an operation on this device should run compiled.

    Raises:
        RuntimeError: ``kernels("compiled")`` insists, and they cannot be built here.
    """
    return LIBRARY.wanted(device)


def conv(
    feats: Float[Tensor, "M_in C_in"], weight: Float[Tensor, "K C_in C_out"], rows: Int[Tensor, "K M_out"]
) -> Float[Tensor, "M_out C_out"]:
    """``out[q] = sum over taps r of feats[rows[r, q]] @ weight[r]``, float32. ``weight`` may be a view."""
    feats, rows = feats.contiguous(), rows.contiguous()
    num_taps, c_in, c_out = weight.shape
    out = feats.new_empty(rows.shape[1], c_out)
    LIBRARY.run("conv", feats, weight, rows, out, rows.shape[1], num_taps, c_in, c_out, *weight.stride())
    return out


def weight_gradient(
    feats: Float[Tensor, "M_in C_in"], grad_out: Float[Tensor, "M_out C_out"], rows: Int[Tensor, "K M_out"]
) -> Float[Tensor, "K C_in C_out"]:
    """``grad[r] = sum over output rows q of feats[rows[r, q]] outer grad_out[q]``, float32."""
    feats, grad_out, rows = feats.contiguous(), grad_out.contiguous(), rows.contiguous()
    (num_taps, num_out), c_in, c_out = rows.shape, feats.shape[1], grad_out.shape[1]
    out = feats.new_empty(num_taps, c_in, c_out)
    LIBRARY.run("weight_gradient", feats, grad_out, rows, out, num_out, num_taps, c_in, c_out)
    return out


def neighbour_table(keys: Int[Tensor, " M"], kernel: int) -> Int[Tensor, "K M"]:
    """Row of each tap's neighbour of each row of sorted keys, -1 where there is none."""
    keys = keys.contiguous()
    table = keys.new_empty(kernel**3, len(keys), dtype=torch.int32)
    LIBRARY.run("neighbours", keys, table, len(keys), kernel, key_offset(1, 0, 0), key_offset(0, 1, 0))
    return table


def _is_right(functions: Functions) -> bool:
    generator = torch.Generator().manual_seed(0)
    feats, weight = torch.randn(40, 19, generator=generator), torch.randn(2, 19, 35, generator=generator)
    rows = torch.randint(-1, 40, (2, 50), generator=generator, dtype=torch.int32)
    out = torch.empty(50, 35)
    functions.run("conv", feats, weight, rows, out, 50, 2, 19, 35, *weight.stride())
    padded = torch.nn.functional.pad(feats, (0, 0, 0, 1))
    expected = padded[rows[0]] @ weight[0] + padded[rows[1]] @ weight[1]
    return bool(torch.allclose(out, expected, rtol=1e-4, atol=1e-4))


LIBRARY = Library("ponder3d.sparse", "cpu_conv.c", _is_right)
