"""Where to evaluate the field along rays. Distances ``t`` are metres along unit directions."""

import torch
from jaxtyping import Float
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
