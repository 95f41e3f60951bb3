"""Where to evaluate the field along rays. Distances ``t`` are metres along unit directions."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def uniform(
    near: Float[Tensor, " R"], far: Float[Tensor, " R"], num: int, jitter: Float[Tensor, "R {num}"] | None = None
) -> Float[Tensor, "R {num}"]:
    """One sample per equal part of [near, far]: at its centre, or at the share ``jitter`` in [0, 1) of it."""
    steps = torch.arange(num, dtype=near.dtype, device=near.device)
    return near[:, None] + (steps + (0.5 if jitter is None else jitter)) / num * (far - near)[:, None]


def importance(
    t: Float[Tensor, "R S"],
    weights: Float[Tensor, "R S"],
    num: int,
    jitter: Float[Tensor, "R {num}"] | None = None,
) -> Float[Tensor, "R {num}"]:
    """Samples from the piecewise constant density with ``weights[:, j]`` between ``t[:, j]`` and ``t[:, j+1]``.

    Inverse transform sampling at equally spaced quantiles (their centres, or shifted by ``jitter``). The last weight
    has no interval and is ignored. A ray whose weights are all zero is sampled uniformly. Not differentiable.
    """
    with torch.no_grad():
        # 1e-5 in total keeps every interval reachable, so that a wrong field can still be corrected everywhere.
        mass = weights[:, :-1] + 1e-5 / (weights.shape[1] - 1)
        cdf = torch.nn.functional.pad(mass.cumsum(1), (1, 0))
        cdf = cdf / cdf[:, -1:]
        steps = torch.arange(num, dtype=t.dtype, device=t.device)
        quantile = ((steps + (0.5 if jitter is None else jitter)) / num).expand(len(t), num).contiguous()
        upper = torch.searchsorted(cdf, quantile, right=True).clamp(1, t.shape[1] - 1)
        cdf_lo, cdf_hi = cdf.gather(1, upper - 1), cdf.gather(1, upper)
        t_lo, t_hi = t.gather(1, upper - 1), t.gather(1, upper)
        return t_lo + (quantile - cdf_lo) / (cdf_hi - cdf_lo).clamp(min=1e-12) * (t_hi - t_lo)


def interval_lengths(t: Float[Tensor, "R S"], far: Float[Tensor, " R"]) -> Float[Tensor, "R S"]:
    """Distance from each sample to the next; from the last one to ``far``, where the volume ends."""
    return torch.diff(t, dim=1, append=torch.maximum(far, t[:, -1])[:, None])


def first_surface(
    t: Float[Tensor, "R S"],
    sdf: Float[Tensor, "R S"],
    distance: Callable[[Float[Tensor, "R 1"]], Float[Tensor, "R 1"]],
    refinements: int,
) -> tuple[Float[Tensor, " R"], Bool[Tensor, " R"]]:
    """Where rays first go from outside to inside, and whether they do.

    The secant through the two samples around it, ``refinements`` times made again with ``distance`` at where it meets
    zero in place of the sample on the same side. Of a ray that meets no surface the distance is some sample's. Not
    differentiable.
    """
    with torch.no_grad():
        enters = (sdf[:, :-1] > 0) & (sdf[:, 1:] <= 0)
        first = enters.to(torch.uint8).argmax(1, keepdim=True)
        met = enters.any(1)
        t_lo, t_hi = t.gather(1, first), t.gather(1, first + 1)
        sdf_lo, sdf_hi = sdf.gather(1, first), sdf.gather(1, first + 1)
        for _ in range(refinements):
            middle = _secant(t_lo, t_hi, sdf_lo, sdf_hi)
            found = distance(middle)
            outside = found > 0
            t_lo, sdf_lo = torch.where(outside, middle, t_lo), torch.where(outside, found, sdf_lo)
            t_hi, sdf_hi = torch.where(outside, t_hi, middle), torch.where(outside, sdf_hi, found)
        root = _secant(t_lo, t_hi, sdf_lo, sdf_hi)
        return torch.where(met, root[:, 0], t[:, 0]), met


def _secant(t_lo: Tensor, t_hi: Tensor, sdf_lo: Tensor, sdf_hi: Tensor) -> Tensor:
    """Where the line through two points meets zero, held between them."""
    share = sdf_lo / (sdf_lo - sdf_hi).clamp(min=1e-12)
    return t_lo + share.clamp(0, 1) * (t_hi - t_lo)
