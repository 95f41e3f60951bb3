"""Sparse convolution by gather, matrix product and segment sum, with its own backward pass.

Plain PyTorch: the same code runs on every device and is the reference that faster kernels are held to. Weights are
``[K, C_in, C_out]`` with taps in raster order (x slowest).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ponder3d.sparse.maps import ConvMap, KernelMap


def sparse_conv(
    feats: Float[Tensor, "M_in C_in"], weight: Float[Tensor, "K C_in C_out"], maps: ConvMap
) -> Float[Tensor, "M_out C_out"]:
    """``out[q] = sum over taps r of feats[in(q, r)] @ weight[r]``, over the pairs of ``maps.forward``.

    Inside ``torch.autocast`` the products are computed in its dtype. Differentiable once by both arguments; the result
    and both gradients are summed in a fixed order, so two runs agree to the bit.
    """
    if torch.is_autocast_enabled(feats.device.type):
        dtype = torch.get_autocast_dtype(feats.device.type)
        feats, weight = feats.to(dtype), weight.to(dtype)
    return _SparseConv.apply(feats, weight, maps)


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feats: Tensor, weight: Tensor, maps: ConvMap) -> Tensor:
        ctx.save_for_backward(feats, weight)
        ctx.maps = maps
        return _gather_multiply_sum(feats, weight, maps.forward)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        feats, weight = ctx.saved_tensors
        grad_out = grads[0].contiguous()
        grad_feats = grad_weight = None
        if ctx.needs_input_grad[0]:
            taps = weight.flip(0) if ctx.maps.mirrored else weight
            grad_feats = _gather_multiply_sum(grad_out, taps.transpose(1, 2), ctx.maps.transpose)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(feats, grad_out, weight, ctx.maps.forward)
        return grad_feats, grad_weight, None


def _gather_multiply_sum(feats: Tensor, weight: Tensor, pairs: KernelMap) -> Tensor:
    out = feats.new_empty(pairs.num_out, weight.shape[2])
    gathered_buffer = feats.new_empty(pairs.max_block_pairs, feats.shape[1])
    products_buffer = feats.new_empty(pairs.max_block_pairs, weight.shape[2])
    for block in pairs.blocks:
        num_pairs = sum(block.counts)
        span = slice(block.first_pair, block.first_pair + num_pairs)
        gathered, products = gathered_buffer[:num_pairs], products_buffer[:num_pairs]
        torch.index_select(feats, 0, pairs.in_rows[span], out=gathered)
        start = 0
        for tap, count in enumerate(block.counts):
            if count:
                torch.mm(gathered[start : start + count], weight[tap], out=products[start : start + count])
                start += count
        rows = slice(*block.rows)
        out[rows] = F.embedding_bag(pairs.slots[span], products, pairs.row_starts[rows], mode="sum")
    return out


def _weight_gradient(feats: Tensor, grad_out: Tensor, weight: Tensor, pairs: KernelMap) -> Tensor:
    # Summed in float32 whatever the dtype of the products: a weight collects a term from every pair.
    total = torch.zeros(weight.shape, dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)
    gathered_buffer = feats.new_empty(pairs.max_block_pairs, feats.shape[1])
    grads_buffer = feats.new_empty(pairs.max_block_pairs, grad_out.shape[1])
    for block in pairs.blocks:
        num_pairs = sum(block.counts)
        span = slice(block.first_pair, block.first_pair + num_pairs)
        gathered, grads = gathered_buffer[:num_pairs], grads_buffer[:num_pairs]
        torch.index_select(feats, 0, pairs.in_rows[span], out=gathered)
        torch.index_select(grad_out, 0, pairs.out_rows[span], out=grads)
        start = 0
        for tap, count in enumerate(block.counts):
            if count:
                total[tap] += gathered[start : start + count].T @ grads[start : start + count]
                start += count
    return total.to(weight.dtype)
