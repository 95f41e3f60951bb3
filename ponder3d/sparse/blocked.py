"""Sparse convolution on a CPU in plain PyTorch, block by block of output rows.

The rows of a block are gathered once, multiplied tap by tap into a buffer that stays in cache, and the products of each
output row summed in a fixed order. No pass ever holds the features of all pairs, and nothing is added at random places.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ponder3d.sparse.maps import Block, TapTable


def conv(
    feats: Float[Tensor, "M_in C_in"], weight: Float[Tensor, "K C_in C_out"], table: TapTable
) -> Float[Tensor, "M_out C_out"]:
    """``out[q] = sum over taps r of feats[table[r, q]] @ weight[r]``."""
    pairs, taps = table.pairs, weight.unbind()
    out = feats.new_empty(len(pairs.row_starts), weight.shape[2])
    gathered_buffer = feats.new_empty(pairs.max_block_pairs, feats.shape[1])
    products_buffer = feats.new_empty(pairs.max_block_pairs, weight.shape[2])
    for block in pairs.blocks:
        span = _span(block)
        gathered, products = gathered_buffer[: _num(span)], products_buffer[: _num(span)]
        torch.index_select(feats, 0, pairs.in_rows[span], out=gathered)
        for tap, rows, result in _by_tap(block, gathered, products):
            torch.mm(rows, taps[tap], out=result)
        rows = slice(*block.rows)
        out[rows] = F.embedding_bag(pairs.slots[span], products, pairs.row_starts[rows], mode="sum")
    return out


def weight_gradient(
    feats: Float[Tensor, "M_in C_in"], grad_out: Float[Tensor, "M_out C_out"], table: TapTable
) -> Float[Tensor, "K C_in C_out"]:
    """``grad[r] = sum over output rows q of feats[table[r, q]] outer grad_out[q]``.

    Summed in float32 whatever the dtype of the products: a weight collects a term from every pair.
    """
    pairs = table.pairs
    dtype = torch.promote_types(feats.dtype, torch.float32)
    total = feats.new_zeros(len(table.rows), feats.shape[1], grad_out.shape[1], dtype=dtype)
    sums = total.unbind()
    gathered_buffer = feats.new_empty(pairs.max_block_pairs, feats.shape[1])
    grads_buffer = feats.new_empty(pairs.max_block_pairs, grad_out.shape[1])
    for block in pairs.blocks:
        span = _span(block)
        gathered, grads = gathered_buffer[: _num(span)], grads_buffer[: _num(span)]
        torch.index_select(feats, 0, pairs.in_rows[span], out=gathered)
        torch.index_select(grad_out, 0, pairs.out_rows[span], out=grads)
        for tap, rows, grad in _by_tap(block, gathered, grads):
            sums[tap].add_(rows.T @ grad)
    return total


def _span(block: Block) -> slice:
    return slice(block.first_pair, block.first_pair + sum(block.counts))


def _num(span: slice) -> int:
    return span.stop - span.start


def _by_tap(block: Block, a: Tensor, b: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The taps that occur in a block, with their rows of two tensors of its pairs."""
    parts = zip(a.split(block.counts), b.split(block.counts), strict=True)
    return ((tap, *part) for tap, part in enumerate(parts) if block.counts[tap])
