"""Sparse convolution with its own backward pass; the one place that chooses how it is computed.

Weights are ``[K, C_in, C_out]`` with taps in raster order (x slowest).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.geometry import kernels
from ponder3d.sparse import blocked, compiled, reference
from ponder3d.sparse.maps import TILE_ROWS, ConvMap, TapTable


@dataclass(frozen=True)
class _Engine:
    """A way of computing, as ``reference`` spells it out."""

    conv: Callable[[Tensor, Tensor, TapTable], Tensor]
    weight_gradient: Callable[[Tensor, Tensor, TapTable], Tensor]


def _triton_conv(feats: Tensor, weight: Tensor, table: TapTable) -> Tensor:
    from ponder3d.sparse import triton_conv  # noqa: PLC0415

    return triton_conv.conv(feats, weight, *_tiled(table), ordered=True)


def _triton_weight_gradient(feats: Tensor, grad_out: Tensor, table: TapTable) -> Tensor:
    from ponder3d.sparse import triton_conv  # noqa: PLC0415

    return triton_conv.weight_gradient(feats, grad_out, *_tiled(table), ordered=True)


def _tiled(table: TapTable) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    tiles = table.tiles
    return tiles.table, tiles.order, tiles.taps, tiles.counts, TILE_ROWS


_REFERENCE = _Engine(reference.conv, reference.weight_gradient)
_BLOCKED = _Engine(blocked.conv, blocked.weight_gradient)
_COMPILED = _Engine(
    lambda feats, weight, table: compiled.conv(feats, weight, table.rows),
    lambda feats, grad_out, table: compiled.weight_gradient(feats, grad_out, table.rows),
)
_TRITON = _Engine(_triton_conv, _triton_weight_gradient)


def sparse_conv(
    feats: Float[Tensor, "M_in C_in"], weight: Float[Tensor, "K C_in C_out"], maps: ConvMap
) -> Float[Tensor, "M_out C_out"]:
    """``out[q] = sum over taps r of feats[in(q, r)] @ weight[r]``, over the pairs of ``maps.forward``.

    Inside ``torch.autocast`` the products are computed in its dtype. Differentiable once by both arguments; the result
    and both gradients are summed in a fixed order, so two runs agree to the bit. ``geometry.kernels`` says how to
    choose between plain PyTorch, compiled C and Triton.
    """
    if torch.is_autocast_enabled(feats.device.type):
        dtype = torch.get_autocast_dtype(feats.device.type)
        feats, weight = feats.to(dtype), weight.to(dtype)
    return _SparseConv.apply(feats, weight, maps, _engine(feats))


def _engine(feats: Tensor) -> _Engine:
    if kernels.use_triton(feats.device) and feats.dtype != torch.float64:
        return _TRITON
    if compiled.wanted(feats.device) and feats.dtype == torch.float32:
        return _COMPILED
    return _BLOCKED if feats.device.type == "cpu" else _REFERENCE


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feats: Tensor, weight: Tensor, maps: ConvMap, engine: _Engine) -> Tensor:
        ctx.save_for_backward(feats, weight)
        ctx.maps, ctx.engine = maps, engine
        return engine.conv(feats, weight, maps.forward)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        feats, weight = ctx.saved_tensors
        grad_out = grads[0].contiguous()
        grad_feats = grad_weight = None
        if ctx.needs_input_grad[0]:
            taps = weight.flip(0) if ctx.maps.mirrored else weight
            grad_feats = ctx.engine.conv(grad_out, taps.transpose(1, 2), ctx.maps.transpose)
        if ctx.needs_input_grad[1]:
            grad_weight = ctx.engine.weight_gradient(feats, grad_out, ctx.maps.forward).to(weight.dtype)
        return grad_feats, grad_weight, None, None
