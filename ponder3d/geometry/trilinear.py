"""Trilinear sampling of channels-last volumes, with its spatial derivative in closed form.

``sample`` reads features at points. ``sample_derivative`` reads how ``<g, features>`` changes as the point moves, for a
vector ``g`` per point: the eight corners' inner products with ``g``, combined with the derivative of the corner
weights. Together with a closed-form derivative of the network behind the features, this gives the gradient of a field
that needs first-order autograd only (no double backward, which PyTorch's ``grid_sample`` lacks before 2.12).

Both are differentiable with respect to the features (and ``g``), not with respect to the points. The backward pass to
the volume is a sum over the samples that touch each cell, in a fixed order: deterministic, without atomics.

``corners``, ``read``, ``read_along``, ``factors`` and ``scatter`` have twins in Triton (``triton_trilinear.py``) and in
C (``compiled_trilinear.py``); whoever calls several of them asks ``twin_of`` once.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.geometry import compiled_trilinear
from ponder3d.geometry.grid import cells_from_world, cells_per_metre, ravel, shape_like
from ponder3d.geometry.kernels import use_triton
from ponder3d.types import Grid, Volume

_CHUNK = 4096
"""Points whose slopes are held at once: 4096 x 3 x 64 channels x 4 B = 3 MB."""


@dataclass(frozen=True)
class Corners:
    """The eight cells around each point, and the weights with which they enter."""

    index: Int[Tensor, "N 8"]
    """Rows of the volume seen as [B*X*Y*Z, C]; ``index[:, k] - index[:, 0]`` is the same for all points."""
    weight: Float[Tensor, "N 8"]
    """Sums to 1."""
    slope: Float[Tensor, "N 3 8"]
    """Derivative of ``weight`` by x, y and z, per metre; zero along an axis on which the point is clamped."""


def corners(grid: Grid, xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"]) -> Corners:
    """Corners of the cell centres around world points.

    Points beyond the outermost cell centres take the value at the nearest position between centres.
    """
    twin = twin_of(xyz)
    if twin is not None:
        return Corners(*twin.corners(grid, xyz, scene))
    shape = shape_like(grid.shape, scene)
    position = cells_from_world(grid, xyz, scene) - 0.5
    last = (shape - 1).to(position.dtype)
    inside = (position >= 0) & (position <= last)
    position = torch.minimum(position.clamp(min=0.0), last)
    # The lower corner of an axis with one cell is that cell, and so is the upper one.
    low = torch.minimum(position.floor().to(torch.int64), (shape - 2).clamp(min=0))
    step = (shape > 1).to(torch.int64)
    fraction = (position - low).T
    slope = (cells_per_metre(grid)[scene] * (inside & (shape > 1))).T
    # Points last until the end: with the axes of length 2 innermost, these few products took a fifth of a small field.
    wx, wy, wz = torch.stack([1 - fraction, fraction], dim=1)  # each [2 N]
    sx, sy, sz = torch.stack([-slope, slope], dim=1)
    weight = _outer(wx, wy, wz).permute(1, 0)
    slopes = torch.stack([_outer(sx, wy, wz), _outer(wx, sy, wz), _outer(wx, wy, sz)]).permute(2, 0, 1)
    strides = shape_like((grid.shape[1] * grid.shape[2], grid.shape[2], 1), scene) * step
    bits = torch.arange(8, device=xyz.device)
    offsets = sum(((bits >> (2 - axis)) & 1) * strides[axis] for axis in range(3))
    index = ravel(low, scene, grid.shape)[:, None] + offsets
    return Corners(index=index, weight=weight.contiguous(), slope=slopes.contiguous())


def twin_of(x: Tensor) -> ModuleType | None:
    """The module whose functions do the work of this one's for tensors like ``x``; None for PyTorch."""
    if use_triton(x.device):
        from ponder3d.geometry import triton_trilinear  # noqa: PLC0415

        return triton_trilinear
    if x.dtype == torch.float32 and compiled_trilinear.LIBRARY.wanted(x.device):
        return compiled_trilinear
    return None


def sample(volume: Volume, at: Corners, dtype: torch.dtype | None = None) -> Float[Tensor, "N C"]:
    """Features at points, in another type than the volume's if asked. Differentiable by the features."""
    rows = _rows(volume)
    return _Sample.apply(twin_of(rows), dtype or rows.dtype, rows, at.index, at.weight)


def sample_derivative(volume: Volume, at: Corners, g: Float[Tensor, "N C"]) -> Float[Tensor, "N 3"]:
    """Derivative of ``<g, features(x)>`` by the world position x, per metre. Differentiable by features and ``g``."""
    rows = _rows(volume)
    return _SampleDerivative.apply(twin_of(rows), rows, at.index, at.slope, g)


def read(
    rows: Float[Tensor, "M C"],
    index: Int[Tensor, "N 8"],
    weight: Float[Tensor, "N 8"],
    twin: ModuleType | None = None,
    out: Float[Tensor, "N C"] | None = None,
) -> Float[Tensor, "N C"]:
    """Weighted sum of each point's eight rows; no gradient by the weights. Triton makes float32 of half precision."""
    if twin is not None:
        return twin.read(rows, index, weight, out)
    found = F.embedding_bag(index, rows, per_sample_weights=weight.to(rows.dtype), mode="sum")
    return found if out is None else out.copy_(found)


def read_slopes(
    rows: Float[Tensor, "M C"],
    index: Int[Tensor, "N 8"],
    slope: Float[Tensor, "N 3 8"],
    twin: ModuleType | None = None,
) -> Float[Tensor, "N 3 C"]:
    """Derivative of the features by x, y and z: a point's rows are summed three times, twice of them from the cache."""
    if twin is not None:
        out = rows.new_empty(len(index), 3, rows.shape[1])
        for axis in range(3):
            twin.read(rows, index, slope[:, axis], out[:, axis])
        return out
    thrice = index[:, None].expand(-1, 3, -1).reshape(-1, 8)
    return read(rows, thrice, slope.reshape(-1, 8)).view(len(index), 3, rows.shape[1])


def read_along(
    rows: Float[Tensor, "M C"],
    index: Int[Tensor, "N 8"],
    slope: Float[Tensor, "N 3 8"],
    g: Float[Tensor, "N D"],
    twin: ModuleType | None = None,
) -> Float[Tensor, "N 3"]:
    """Derivative by x, y and z of ``<g, f>``, where f are the first D channels."""
    if twin is not None:
        return twin.read_along(rows, index, slope, g)
    return torch.sum(read_slopes(rows, index, slope)[..., : g.shape[1]].mul_(g[:, None]), dim=2)


def factors(
    weight: Float[Tensor, "N 8"],
    slope: Float[Tensor, "N 3 8"],
    direction: Float[Tensor, "N 3"],
    twin: ModuleType | None = None,
) -> Float[Tensor, "N 8 2"]:
    """With what each corner enters the features, and their derivative along ``direction``."""
    if twin is not None:
        return twin.factors(weight, slope, direction)
    return torch.stack([weight.to(direction.dtype), _along(slope, direction)], dim=2)


def scatter(
    index: Int[Tensor, "N 8"],
    weight: Float[Tensor, "N 8 T"],
    values: Float[Tensor, "T N C"],
    num_rows: int,
    rest: Float[Tensor, "N D"] | None = None,
    dtype: torch.dtype | None = None,
    twin: ModuleType | None = None,
) -> Float[Tensor, "{num_rows} E"]:
    """Sum of ``weight[n, k, t] * values[t, n]`` into row ``index[n, k]``: one bag of samples per row, in fixed order.

    All terms go into one pass over the volume, whose gradient is the largest tensor of a backward pass.

    Args:
        index: as ``corners`` makes it; PyTorch takes any.
        weight: of each term.
        values: the terms.
        num_rows: M.
        rest: values of further channels, which have the first term only.
        dtype: of the result; that of ``values`` if None.
        twin: what does it instead of PyTorch, for one or two terms.
    """
    if twin is not None:
        return twin.scatter(index, weight, values, num_rows, rest, dtype or values.dtype)
    num_terms, num = values.shape[:2]
    flat = index.flatten()  # no bincount: it makes the host wait for the largest value
    ones = torch.ones_like(flat, dtype=torch.int64)
    counts = torch.zeros(num_rows, dtype=torch.int64, device=flat.device).index_add_(0, flat, ones)
    starts = counts.cumsum(0) - counts
    order = torch.argsort(flat, stable=True)
    terms = torch.arange(num_terms, device=index.device) * num
    samples = ((order // 8)[:, None] + terms).flatten()
    per_sample = weight.reshape(-1, num_terms).index_select(0, order).to(values.dtype)
    parts = [_bags(samples, values.flatten(0, 1), starts * num_terms, per_sample.flatten())]
    if rest is not None and rest.shape[1]:
        parts.append(_bags(order // 8, rest, starts, per_sample[:, 0]))
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).to(dtype or values.dtype)


def _bags(
    index: Int[Tensor, " P"], rows: Float[Tensor, "N C"], starts: Int[Tensor, " M"], weight: Float[Tensor, " P"]
) -> Float[Tensor, "M C"]:
    return F.embedding_bag(index, rows, starts, per_sample_weights=weight, mode="sum")


def _along(slope: Float[Tensor, "N 3 8"], direction: Float[Tensor, "N 3"]) -> Float[Tensor, "N 8"]:
    return torch.einsum("nak,na->nk", slope.to(direction.dtype), direction)


def _outer(x: Float[Tensor, "2 N"], y: Float[Tensor, "2 N"], z: Float[Tensor, "2 N"]) -> Float[Tensor, "8 N"]:
    return (x[:, None, None] * y[None, :, None] * z[None, None, :]).flatten(0, 2)


def _rows(volume: Volume) -> Float[Tensor, "M C"]:
    return volume.feats.flatten(0, 3)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, twin: ModuleType | None, dtype: torch.dtype, rows: Tensor, index: Tensor, weight: Tensor
    ) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.twin, ctx.num_rows, ctx.dtype = twin, len(rows), rows.dtype
        return read(rows if twin is not None else rows.to(dtype), index, weight, twin).to(dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        index, weight = ctx.saved_tensors
        terms = weight[..., None], grads[0][None]
        return None, None, scatter(index, *terms, ctx.num_rows, dtype=ctx.dtype, twin=ctx.twin), None, None


class _SampleDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, twin: ModuleType | None, rows: Tensor, index: Tensor, slope: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(rows, index, slope, g)
        ctx.twin = twin
        if twin is not None:
            return read_along(rows, index, slope, g, twin)
        parts = zip(index.split(_CHUNK), slope.split(_CHUNK), g.split(_CHUNK), strict=True)
        return torch.cat([torch.einsum("nac,nc->na", read_slopes(rows, i, s), v) for i, s, v in parts])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, index, slope, g = ctx.saved_tensors
        weight, grad_rows = _along(slope, grads[0]), None
        if ctx.needs_input_grad[1]:
            grad_rows = scatter(index, weight[..., None], g[None], len(rows), dtype=rows.dtype, twin=ctx.twin)
        return None, grad_rows, None, None, read(rows, index, weight, ctx.twin)
