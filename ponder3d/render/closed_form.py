"""Signed distance and its spatial gradient at points of a volume, with a first-order backward pass written out.

Point by point: read the features ``f`` and their derivative ``J = df/dx`` from the eight corners, decode the distance
and its derivative ``g`` by ``f``, combine to the gradient ``J g``. Everything happens for one chunk of points at a time
and nothing but ``f`` is kept: the backward pass computes a chunk's activations again. A chunk's tensors stay in the
cache and in memory that malloc already has, which wins more than the second computation costs: a fresh megabyte takes
0.6 ms of page faults on the machine of the benchmark, a 1024 x 128 x 64 matrix product 0.2 ms.

On a GPU the chunks are larger. Corners are read and summed by a twin of ``geometry/trilinear.py`` where there is one.

Written by hand because autograd on each chunk took 23 to 28 % longer (``benchmarks/field.py``, hidden 128 and 64). Sums
over points run in a fixed order (chunk by chunk, and ``scatter``'s), so two runs agree to the bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.geometry import compiled_trilinear
from ponder3d.geometry.kernels import use_triton
from ponder3d.geometry.trilinear import Corners, factors, read, read_along, scatter, twin_of
from ponder3d.render import compiled_softplus

CHUNK = 2048
"""Points at a time: 2048 x 128 hidden x 4 B = 1 MB per activation. 1024 to 4096 are as fast, 512 and 8192 slower."""
GPU_CHUNK = 1 << 17
"""Points at a time elsewhere: 67 MB per activation, 0.7 GB for the ten or so that live at once; 1.35 M points are 11
chunks, and with 22 launches forward and 43 backward for each, the host needs an estimated 4 ms for all of them."""
_SATURATED = 60.0
"""Where the sigmoid is cut off: exp(-60) is far below rounding, and denormal numbers, which are slow, do not arise."""


@dataclass(frozen=True)
class DecoderWeights:
    """``z_l = hidden[l-1] softplus(z_{l-1}) + feature[l] f + bias[l] (+ position q for l = 0)``, for L + 1 levels."""

    feature: list[Tensor]
    """U: one per level, [width_l, C]."""
    bias: list[Tensor]
    hidden: list[Tensor]
    """W: one between successive levels."""
    position: Tensor | None
    """P: [width_0, 3]."""

    def flat(self) -> list[Tensor]:
        """All of them in one list."""
        return [*self.feature, *self.bias, *self.hidden, *([] if self.position is None else [self.position])]

    @staticmethod
    def from_flat(flat: list[Tensor], levels: int) -> "DecoderWeights":
        """The inverse of ``flat``; ``levels`` is L + 1."""
        position = flat[3 * levels - 1] if len(flat) == 3 * levels else None
        return DecoderWeights(flat[:levels], flat[levels : 2 * levels], flat[2 * levels : 3 * levels - 1], position)


@dataclass(frozen=True)
class Positions:
    """What the decoder sees of the points' positions."""

    q: Float[Tensor, "N 3"]
    """Position within the box, in [-1, 1]."""
    slope: Float[Tensor, "N 3"]
    """Derivative of ``q`` by the world position along each axis, 1/metres."""


@dataclass(frozen=True)
class Decoded:
    """What is read and decoded at N points. Parts of their own, because the backward pass of a slice makes a whole."""

    distance: Float[Tensor, " N"]
    """First entry of the decoder's output."""
    others: Float[Tensor, "N H"]
    """The other entries."""
    gradient: Float[Tensor, "N 3"]
    """Spatial gradient of the first entry, per metre."""
    seen: Float[Tensor, "N S"]
    """The first channels of the volume, those that the decoder sees."""
    unseen: Float[Tensor, "N U"]
    """The others, read along."""


def decode_with_gradient(
    rows: Float[Tensor, "M C"],
    at: Corners,
    weights: DecoderWeights,
    beta: float,
    positions: Positions | None,
    known: Decoded | None = None,
) -> Decoded:
    """Features, decoder output, and the spatial gradient of the output's first entry.

    Args:
        rows: the volume, one row of channels per cell, decoded in the precision of the weights. The decoder sees as
            many of the first channels as its weights have columns.
        at: where to read.
        weights: of the decoder.
        beta: sharpness of its softplus.
        positions: needed if ``weights.position`` is there.
        known: of the first points, from a call with the same ``rows`` and ``weights``: copied, not computed again. The
            backward pass treats all points alike, known or not.

    Returns:
        All differentiable once by ``rows`` and ``weights``.
    """
    q, q_slope = (None, None) if positions is None else (positions.q, positions.slope)
    levels = len(weights.feature)
    dtype = weights.bias[0].dtype
    if not (use_triton(rows.device) and _wide(rows) == dtype):  # Triton reads half precision as it is
        rows = rows.to(dtype)
    twin = twin_of(rows)
    if twin is not None and rows.stride(1) != 1:  # once, instead of in every chunk
        rows = rows.contiguous()
    compiled = rows.dtype == torch.float32 and compiled_softplus.LIBRARY.wanted(rows.device)
    engine = _Engine(twin, compiled_softplus.softplus if compiled else _softplus)
    where = (at.index, at.weight, at.slope, q, q_slope)
    return Decoded(*_Decode.apply(levels, beta, engine, known, rows, *where, *weights.flat()))


_Softplus = Callable[[Tensor, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _Engine:
    """What does the work, chosen once for forward and backward."""

    twin: ModuleType | None
    """See ``trilinear.twin_of``."""
    softplus: _Softplus


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        levels: int,
        beta: float,
        engine: _Engine,
        known: Decoded | None,
        rows: Tensor,
        index: Tensor,
        weight: Tensor,
        slope: Tensor,
        q: Tensor | None,
        q_slope: Tensor | None,
        *flat: Tensor,
    ) -> tuple[Tensor, ...]:
        weights, num = DecoderWeights.from_flat(list(flat), levels), len(index)
        width, twin = weights.feature[0].shape[1], engine.twin
        seen = rows.new_empty(num, width, dtype=_wide(rows))
        unseen = seen.new_empty(num, rows.shape[1] - width)
        distance, others = seen.new_empty(num), seen.new_empty(num, len(weights.bias[-1]) - 1)
        gradient = seen.new_empty(num, 3)
        first = 0
        if known is not None:
            first = len(known.distance)
            for own, value in (
                (distance, known.distance),
                (others, known.others),
                (gradient, known.gradient),
                (seen, known.seen),
                (unseen, known.unseen),
            ):
                own[:first] = value
        with torch.autocast(rows.device.type, enabled=False):
            for chunk in _chunks(first, num, rows.device):
                if twin is None:  # to which a part of the channels is a copy of the volume
                    f = read(rows, index[chunk], weight[chunk])
                    seen[chunk], unseen[chunk] = f[:, :width], f[:, width:]
                else:
                    read(rows[:, :width], index[chunk], weight[chunk], twin, out=seen[chunk])
                    read(rows[:, width:], index[chunk], weight[chunk], twin, out=unseen[chunk])
                hidden = _Activations(weights, beta, engine.softplus, seen[chunk], None if q is None else q[chunk])
                out = hidden.out()
                distance[chunk], others[chunk] = out[:, 0], out[:, 1:]
                gradient[chunk] = read_along(rows, index[chunk], slope[chunk], hidden.by_feature, twin)
                if weights.position is not None and q_slope is not None:
                    gradient[chunk] += hidden.by_position() * q_slope[chunk]
        ctx.levels, ctx.beta, ctx.engine = levels, beta, engine
        ctx.save_for_backward(rows, index, weight, slope, q, q_slope, seen, *flat)
        ctx.set_materialize_grads(False)
        return distance, others, gradient, seen, unseen

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, index, weight, slope, q, q_slope, seen, *flat = ctx.saved_tensors
        weights, twin = DecoderWeights.from_flat(flat, ctx.levels), ctx.engine.twin
        totals = DecoderWeights.from_flat([torch.zeros_like(each) for each in flat], ctx.levels)
        num, width = seen.shape
        grad_distance, grad_others, grad_gradient, grad_seen, grad_unseen = grads
        grad_distance = seen.new_zeros(num) if grad_distance is None else grad_distance
        grad_others = seen.new_zeros(num, len(weights.bias[-1]) - 1) if grad_others is None else grad_others
        grad_gradient = seen.new_zeros(num, 3) if grad_gradient is None else grad_gradient
        read_from = rows if twin is None else rows[:, :width]
        wanted = ctx.needs_input_grad[4]
        grad_rows = _GradientOfRows(rows, index, width, grad_unseen, twin) if wanted else None
        with torch.autocast(rows.device.type, enabled=False):
            for chunk in _chunks(0, num, rows.device):
                hidden = _Activations(
                    weights, ctx.beta, ctx.engine.softplus, seen[chunk], None if q is None else q[chunk]
                )
                # With what a corner enters f, and the gradient: its own gradient is the sum of two terms.
                corner = factors(weight[chunk], slope[chunk], grad_gradient[chunk], twin)
                grad_by_feature = read(read_from, index[chunk], corner[..., 1], twin)[:, :width]
                grad_by_position = None if q_slope is None else grad_gradient[chunk] * q_slope[chunk]
                grad_out = torch.cat([grad_distance[chunk, None], grad_others[chunk]], dim=1)
                grad_f = hidden.backward(totals, grad_out, grad_by_feature, grad_by_position)
                if grad_rows is not None:
                    grad_f = grad_f if grad_seen is None else grad_f.add_(grad_seen[chunk])
                    grad_rows.add(chunk, corner, grad_f, hidden.by_feature)
        of_rows = None if grad_rows is None else grad_rows.total()
        return None, None, None, None, of_rows, None, None, None, None, None, *totals.flat()


class _GradientOfRows:
    """Sum of ``corner[k, 0] * grad_f + corner[k, 1] * by_feature`` into the rows of all points' corners; beside it
    the gradient of the channels that were only read along.

    Compiled, each chunk is added in place while it is in the cache. Otherwise chunks are collected, for one sum in a
    fixed order at the end.
    """

    def __init__(self, rows: Tensor, index: Tensor, width: int, grad_unseen: Tensor | None, twin: ModuleType | None):
        self.rows, self.index, self.twin, self.width = rows, index, twin, width
        num, further = len(index), rows.shape[1] - width
        self.in_place = twin is compiled_trilinear
        if self.in_place:
            self.sums = rows.new_zeros(rows.shape)
            self.rest = grad_unseen
            return
        wide = _wide(rows)
        self.corners = rows.new_empty(num, 8, 2, dtype=wide)
        self.rest = rows.new_zeros(num, further, dtype=wide) if grad_unseen is None else grad_unseen
        # PyTorch sums all channels at once, to which a part of them is a copy.
        self.values = rows.new_empty(2, num, width if twin else rows.shape[1], dtype=wide)
        if twin is None:
            self.values[0, :, width:] = self.rest
            self.values[1, :, width:].zero_()

    def add(self, chunk: slice, corner: Tensor, grad_f: Tensor, by_feature: Tensor) -> None:
        if self.in_place:
            rest = None if self.rest is None else self.rest[chunk]
            compiled_trilinear.add(self.sums, self.index[chunk], corner, torch.stack([grad_f, by_feature]), rest)
            return
        self.corners[chunk] = corner
        self.values[0, chunk, : self.width], self.values[1, chunk, : self.width] = grad_f, by_feature

    def total(self) -> Tensor:
        if self.in_place:
            return self.sums
        rest = None if self.twin is None else self.rest
        return scatter(self.index, self.corners, self.values, len(self.rows), rest, self.rows.dtype, self.twin)


class _Activations:
    """One chunk's way through the decoder: up to the last hidden level, and the derivative back down to ``f``.

    Level l < L has ``y = softplus(z)``, ``s = y'`` and, with D the distance, ``by_y = dD/dy`` and ``by_z = by_y s``.
    """

    def __init__(self, weights: DecoderWeights, beta: float, softplus: _Softplus, f: Tensor, q: Tensor | None):
        self.weights, self.beta, self.f, self.q = weights, beta, f, q
        self.last = len(weights.hidden)
        self.y: list[Tensor] = []
        self.s: list[Tensor] = []
        for level in range(self.last):
            y, s = softplus(self._z(level), beta)
            self.y.append(y)
            self.s.append(s)
        self.by_y, self.by_z = list(self.s), list(self.s)  # of the right length; filled from the top
        self.by_feature = weights.feature[-1][0].expand(len(f), -1)
        for level in reversed(range(self.last)):
            top = level == self.last - 1
            self.by_y[level] = weights.hidden[level][0] if top else self.by_z[level + 1] @ weights.hidden[level]
            self.by_z[level] = self.by_y[level] * self.s[level]
            self.by_feature = torch.addmm(self.by_feature, self.by_z[level], weights.feature[level])

    def out(self) -> Tensor:
        """The last level's z."""
        return self._z(self.last)

    def by_position(self) -> Tensor:
        """Derivative of the distance by q."""
        assert self.weights.position is not None
        if self.last == 0:  # the position enters the distance directly
            return self.weights.position[0].expand(len(self.f), -1)
        return self.by_z[0] @ self.weights.position

    def backward(
        self, totals: DecoderWeights, grad_out: Tensor, grad_by_feature: Tensor, grad_by_position: Tensor | None
    ) -> Tensor:
        """Add the weights' gradients to ``totals``; return that of ``f``."""
        grad_s = self._backward_of_derivative(totals, grad_by_feature, grad_by_position)
        weights, grad_z = self.weights, grad_out
        grad_f = torch.zeros_like(self.f)
        for level in reversed(range(self.last + 1)):
            totals.feature[level].addmm_(grad_z.T, self.f)
            totals.bias[level].add_(grad_z.sum(0))
            grad_f.addmm_(grad_z, weights.feature[level])
            if level:
                below, s = level - 1, self.s[level - 1]
                totals.hidden[below].addmm_(grad_z.T, self.y[below])
                # y' = s and s' = beta s (1 - s)
                grad_z = ((1 - s) * self.beta).mul_(grad_s[below]).addmm_(grad_z, weights.hidden[below]).mul_(s)
        if totals.position is not None and self.q is not None:
            totals.position.addmm_(grad_z.T, self.q)
        return grad_f

    def _backward_of_derivative(
        self, totals: DecoderWeights, grad_by_feature: Tensor, grad_by_position: Tensor | None
    ) -> list[Tensor]:
        """Back through ``by_feature`` and ``by_position``, which were computed from the top: hence from the bottom."""
        weights, grad_s = self.weights, []
        totals.feature[-1][0].add_(grad_by_feature.sum(0))
        if self.last == 0:
            if totals.position is not None and grad_by_position is not None:
                totals.position[0].add_(grad_by_position.sum(0))
            return grad_s
        grad_by_y = grad_by_feature[:, :0]
        for level in range(self.last):
            totals.feature[level].addmm_(self.by_z[level].T, grad_by_feature)
            grad_by_z = grad_by_feature @ weights.feature[level].T
            if level:
                grad_by_z.addmm_(grad_by_y, weights.hidden[level - 1].T)
            elif weights.position is not None and totals.position is not None and grad_by_position is not None:
                totals.position.addmm_(self.by_z[0].T, grad_by_position)
                grad_by_z.addmm_(grad_by_position, weights.position.T)
            grad_s.append(grad_by_z * self.by_y[level])
            grad_by_y = grad_by_z.mul_(self.s[level])
            if level == self.last - 1:
                totals.hidden[level][0].add_(grad_by_y.sum(0))
            else:
                totals.hidden[level].addmm_(self.by_z[level + 1].T, grad_by_y)
        return grad_s

    def _z(self, level: int) -> Tensor:
        weights = self.weights
        z = torch.addmm(weights.bias[level], self.f, weights.feature[level].T)
        if level:
            return z.addmm_(self.y[level - 1], weights.hidden[level - 1].T)
        if weights.position is not None:
            assert self.q is not None
            z.addmm_(self.q, weights.position.T)
        return z


def _softplus(z: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Softplus and its derivative, a sigmoid, from one exponential: ``log(1 + e^t) = t - log(sigmoid(t))``.

    7 ms for 3.5 million numbers; the two functions took 8 (small z) to 18 ms (large z). The difference loses nothing
    that matters: its error is that of rounding z. ``compiled_softplus`` takes half the time.
    """
    s = (z * beta).clamp_(-_SATURATED, _SATURATED).sigmoid_()
    return s.log().div_(-beta).add_(z).clamp_(min=0.0), s


def _chunks(first: int, num: int, device: torch.device) -> list[slice]:
    size = CHUNK if device.type == "cpu" else GPU_CHUNK
    return [slice(start, min(start + size, num)) for start in range(first, num, size)]


def _wide(rows: Tensor) -> torch.dtype:
    return torch.promote_types(rows.dtype, torch.float32)
