"""Trilinear sampling of channels-last volumes, with its spatial derivative in closed form.

``sample`` reads features at points. ``sample_derivative`` reads how ``<g, features>`` changes as the point moves, for a
vector ``g`` per point: the eight corners' inner products with ``g``, combined with the derivative of the corner
weights. Together with a closed-form derivative of the network behind the features, this gives the gradient of a field
that needs first-order autograd only (no double backward, which PyTorch's ``grid_sample`` lacks before 2.12).

Both are differentiable with respect to the features (and ``g``), not with respect to the points. The backward pass to
the volume is a sum over the samples that touch each cell, in a fixed order: deterministic, without atomics.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.geometry.grid import cells_from_world, cells_per_metre, ravel
from ponder3d.types import Grid, Volume

_CHUNK = 4096
"""Points whose eight corners are gathered at once: 4096 x 8 x 32 channels x 4 B = 4 MB, about the size of a cache."""


@dataclass(frozen=True)
class Corners:
    """The eight cells around each point, and the weights with which they enter."""

    index: Int[Tensor, "N 8"]
    """Rows of the volume seen as [B*X*Y*Z, C]."""
    weight: Float[Tensor, "N 8"]
    """Sums to 1."""
    slope: Float[Tensor, "N 3 8"]
    """Derivative of ``weight`` by x, y and z, per metre; zero along an axis on which the point is clamped."""


def corners(grid: Grid, xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"]) -> Corners:
    """Corners of the cell centres around world points.

    Points beyond the outermost cell centres take the value at the nearest position between centres.
    """
    shape = torch.tensor(grid.shape, device=xyz.device)
    position = cells_from_world(grid, xyz, scene) - 0.5
    last = (shape - 1).to(position.dtype)
    inside = (position >= 0) & (position <= last)
    position = torch.minimum(position.clamp(min=0.0), last)
    # The lower corner of an axis with one cell is that cell, and so is the upper one.
    low = torch.minimum(position.floor().to(torch.int64), (shape - 2).clamp(min=0))
    step = (shape > 1).to(torch.int64)
    fraction = position - low
    slope = cells_per_metre(grid)[scene] * (inside & (shape > 1))
    per_axis = torch.stack([1 - fraction, fraction], dim=-1)  # [N 3 2]
    per_axis_slope = torch.stack([-slope, slope], dim=-1)
    wx, wy, wz = per_axis.unbind(1)
    sx, sy, sz = per_axis_slope.unbind(1)
    slopes = torch.stack([_outer(sx, wy, wz), _outer(wx, sy, wz), _outer(wx, wy, sz)], dim=1)
    strides = torch.tensor([grid.shape[1] * grid.shape[2], grid.shape[2], 1], device=xyz.device) * step
    bits = torch.arange(8, device=xyz.device)
    offsets = sum(((bits >> (2 - axis)) & 1) * strides[axis] for axis in range(3))
    index = ravel(low, scene, grid.shape)[:, None] + offsets
    return Corners(index=index, weight=_outer(wx, wy, wz), slope=slopes)


def sample(volume: Volume, at: Corners) -> Float[Tensor, "N C"]:
    """Features at points. Differentiable by the features."""
    return _Sample.apply(_rows(volume), at.index, at.weight)


def sample_derivative(volume: Volume, at: Corners, g: Float[Tensor, "N C"]) -> Float[Tensor, "N 3"]:
    """Derivative of ``<g, features(x)>`` by the world position x, per metre. Differentiable by features and ``g``."""
    return _SampleDerivative.apply(_rows(volume), at.index, at.slope, g)


def _outer(x: Float[Tensor, "N 2"], y: Float[Tensor, "N 2"], z: Float[Tensor, "N 2"]) -> Float[Tensor, "N 8"]:
    return (x[:, :, None, None] * y[:, None, :, None] * z[:, None, None, :]).flatten(1)


def _rows(volume: Volume) -> Float[Tensor, "M C"]:
    return volume.feats.flatten(0, 3)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.num_rows = len(rows)
        return F.embedding_bag(index, rows, per_sample_weights=weight.to(rows.dtype), mode="sum")

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        index, weight = ctx.saved_tensors
        return _scatter(index, [(weight, grads[0])], ctx.num_rows), None, None


class _SampleDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, slope: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(rows, index, slope, g)
        products = torch.cat(
            [torch.einsum("nkc,nc->nk", rows[i], v) for i, v in zip(index.split(_CHUNK), g.split(_CHUNK), strict=True)]
        )
        return torch.einsum("nak,nk->na", slope.to(rows.dtype), products)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, index, slope, g = ctx.saved_tensors
        weight = torch.einsum("nak,na->nk", slope.to(rows.dtype), grads[0])
        grad_rows = _scatter(index, [(weight, g)], len(rows)) if ctx.needs_input_grad[0] else None
        grad_g = F.embedding_bag(index, rows, per_sample_weights=weight, mode="sum")
        return grad_rows, None, None, grad_g


def _scatter(index: Tensor, terms: list[tuple[Tensor, Tensor]], num_rows: int) -> Tensor:
    """Sum of ``weight[n, k] * values[n]`` into row ``index[n, k]``: one bag of samples per row."""
    order = torch.argsort(index.flatten(), stable=True)
    samples = order // 8
    starts = torch.searchsorted(index.flatten()[order], torch.arange(num_rows, device=index.device))
    total: Tensor | None = None
    for weight, values in terms:
        per_sample = weight.flatten()[order].to(values.dtype)
        part = F.embedding_bag(samples, values, starts, per_sample_weights=per_sample, mode="sum")
        total = part if total is None else total + part
    assert total is not None
    return total
