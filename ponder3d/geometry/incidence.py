"""Sums over the pairs of a sparse matrix, in both directions, without ever holding the features of all pairs.

Row m of the matrix has K entries: entry k says that m and row ``index[m, k]`` of another table belong together with
``weight[m, k]``. ``gather_rows`` sums what m reads from the other table, ``scatter_rows`` what the other table gets
from all m. They are each other's transpose, and each other's backward pass. A lift of image features into a volume is
one of them: a voxel reads pixels, or a pixel is spread along its ray.

A pair of a frustum (UniPAD: 6 cameras x 29 x 50 cells x 118 depths) has 256 channels, all together 0.98 GiB a scene in
float32; here rows are read where they are, forward and backward. Sums are made in a fixed order: same bits every time,
on a GPU as well.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def gather_rows(
    rows: Float[Tensor, "N C"], index: Int[Tensor, "M K"], weight: Float[Tensor, "M K"]
) -> Float[Tensor, "M C"]:
    """``out[m] = sum over k of weight[m, k] * rows[index[m, k]]``; entries with a negative index count for nothing.

    Differentiable by ``rows`` and ``weight``.
    """
    return _Gather.apply(rows, index, weight.masked_fill(index < 0, 0))  # type: ignore[return-value]


def scatter_rows(
    rows: Float[Tensor, "M C"], index: Int[Tensor, "M K"], weight: Float[Tensor, "M K"], num: int
) -> Float[Tensor, "{num} C"]:
    """``out[index[m, k]] += weight[m, k] * rows[m]`` for every pair; entries with a negative index count for nothing.

    Differentiable by ``rows`` and ``weight``.
    """
    return _Scatter.apply(rows, index, weight.masked_fill(index < 0, 0), num)  # type: ignore[return-value]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, index, weight)
        return _read(rows, index, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (rows, index, weight), grad = ctx.saved_tensors, grads[0].contiguous()
        to_rows = _add(grad, index, weight, len(rows)) if ctx.needs_input_grad[0] else None
        to_weight = _read_and_products(grad, rows, index, weight)[1] if ctx.needs_input_grad[2] else None
        return to_rows, None, to_weight


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor, num: int) -> Tensor:
        ctx.save_for_backward(rows, index, weight)
        return _add(rows, index, weight, num)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (rows, index, weight), grad = ctx.saved_tensors, grads[0].contiguous()
        if not ctx.needs_input_grad[2]:
            return _read(grad, index, weight), None, None, None
        to_rows, to_weight = _read_and_products(rows, grad, index, weight)
        return to_rows, None, to_weight, None


def _read(rows: Float[Tensor, "N C"], index: Int[Tensor, "M K"], weight: Float[Tensor, "M K"]) -> Float[Tensor, "M C"]:
    if len(rows) == 0:
        return rows.new_zeros(len(index), rows.shape[1])
    return F.embedding_bag(index.clamp(min=0), rows, per_sample_weights=weight.to(rows.dtype), mode="sum")


def _add(
    rows: Float[Tensor, "M C"], index: Int[Tensor, "M K"], weight: Float[Tensor, "M K"], num: int
) -> Float[Tensor, "{num} C"]:
    """Pairs sorted by where they go; each row of the result sums a run of them."""
    goal = index.flatten().to(torch.int32)  # sorted in two thirds of the time
    if goal.device.type == "cpu":
        place = torch.where(goal < 0, num, goal)
    else:
        # How many pairs there are is something that only the device knows, and one run of those that count for nothing
        # would keep one thread block busy for long: with weight 0 they may as well go anywhere, evenly.
        place = torch.where(goal < 0, torch.arange(len(goal), device=goal.device, dtype=torch.int32) % num, goal)
    place, order = torch.sort(place, stable=True)
    starts = torch.searchsorted(place, torch.arange(num + 1, device=place.device, dtype=torch.int32))
    if goal.device.type == "cpu":
        order = order[: int(starts[-1])]
    used = weight.flatten()[order].to(rows.dtype)
    return F.embedding_bag(order // max(index.shape[1], 1), rows, starts[:-1], per_sample_weights=used, mode="sum")


def _read_and_products(
    own: Float[Tensor, "M C"], others: Float[Tensor, "N C"], index: Int[Tensor, "M K"], weight: Float[Tensor, "M K"]
) -> tuple[Float[Tensor, "M C"], Float[Tensor, "M K"]]:
    """``_read(others, index, weight)``, and ``<own[m], others[index[m, k]]>``: its derivative by the weights along
    ``own``, which PyTorch computes pair by pair without putting rows together."""
    with torch.enable_grad():
        weight = weight.detach().to(others.dtype).requires_grad_()
        found = _read(others.detach(), index, weight)
        (products,) = torch.autograd.grad(found, weight, own.to(others.dtype)) if len(others) else (weight * 0,)
    return found.detach(), products.detach()
