"""How far the opacity that VolSDF computes from samples can be off (Yariv et al. 2021, section 3.3 and Algorithm 1).

The rectangle rule misses what the density does between two samples. It cannot do much there if no surface is near, and
the signed distances at both say how near one can be. The bounds hold for true distances; of a field that is learnt they
are as good as its eikonal term. Samples ``t`` are sorted, metres along unit directions. Nothing here is differentiable,
and no ray waits for another: every ray takes the same steps, whether it needs them or not.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.render.weights import laplace_density

_EXPONENT = 14.0
"""Where the bound is cut off: exp(14) = 1.2e6, far above any tolerance and far below overflow."""
_BISECTIONS = 10
"""Halvings of the logarithm of a range of beta: a range from 1 mm to 2 m ends within 1 %."""


def clearance(delta: Float[Tensor, "R I"], sdf: Float[Tensor, "R S"]) -> Float[Tensor, "R I"]:
    """Lower bound of the distance to the surface anywhere between a sample and the next, metres.

    No surface is inside the balls of radius ``|sdf|`` around the two samples. If the balls overlap, it is at best where
    they intersect, the height of the triangle with sides ``delta`` and the two radii, or behind one of the samples if
    the triangle is obtuse there. Between samples of different sign it is 0.

    Args:
        delta: distance from each sample but the last to the next; I = S - 1.
        sdf: signed distances at the samples, metres.
    """
    first, then = sdf[:, :-1].abs(), sdf[:, 1:].abs()
    # Distance from the first sample to the height's foot; differences of squares as products, which do not cancel.
    foot = (delta + (first - then) * (first + then) / delta.clamp(min=1e-9)) / 2
    height = ((first - foot) * (first + foot)).clamp(min=0.0).sqrt()
    nearest = torch.where(first + then > delta, height, 0)
    nearest = torch.where(foot <= 0, first, torch.where(foot >= delta, then, nearest))
    return torch.where(sdf[:, :-1] * sdf[:, 1:] > 0, nearest, 0)


def opacity_error(t: Float[Tensor, "R S"], sdf: Float[Tensor, "R S"], beta: Float[Tensor, "R"]) -> Float[Tensor, "R I"]:
    """Bound of the error of the opacity ``1 - exp(-sum(density delta))`` anywhere in each interval (eq. 11 to 15).

    The density has the scale ``beta`` and the height ``1 / beta``; I = S - 1.
    """
    delta = torch.diff(t, dim=1)
    return _error(delta, clearance(delta, sdf), sdf[:, :-1], beta[:, None])


def _error(
    delta: Float[Tensor, "R I"], near: Float[Tensor, "R I"], sdf: Float[Tensor, "R I"], beta: Float[Tensor, "R 1"]
) -> Float[Tensor, "R I"]:
    """``opacity_error`` from what does not depend on the scale: lengths, clearances, distances where they begin."""
    error = (torch.exp(-near / beta) * (delta / beta).square() / 4).cumsum(1)
    thickness = delta * laplace_density(sdf, beta)
    through = torch.exp(-torch.nn.functional.pad(thickness[:, :-1].cumsum(1), (1, 0)))
    return through * torch.expm1(error.clamp(max=_EXPONENT))


def coarsest_beta(t: Float[Tensor, "R S"], tolerance: float) -> Float[Tensor, " R"]:
    """A scale at which the error is within ``tolerance`` whatever the distances are (lemma 2), metres."""
    return (torch.diff(t, dim=1).square().sum(1) / (4 * math.log1p(tolerance))).sqrt()


def finest_beta(
    t: Float[Tensor, "R S"], sdf: Float[Tensor, "R S"], beta: Float[Tensor, ""], tolerance: float
) -> Float[Tensor, " R"]:
    """The smallest scale from ``beta`` upwards at which these samples are known to err by at most ``tolerance``.

    ``beta`` itself where it is one, else found by bisection below ``coarsest_beta``, metres.
    """
    lowest = beta.expand(len(t))
    delta = torch.diff(t, dim=1)
    near, begin = clearance(delta, sdf), sdf[:, :-1].contiguous()

    def is_fine(at: Tensor) -> Tensor:
        return _error(delta, near, begin, at[:, None]).amax(1) <= tolerance

    upper, lower = torch.maximum(coarsest_beta(t, tolerance), lowest), lowest
    enough = is_fine(lowest)
    for _ in range(_BISECTIONS):
        middle = (lower * upper).sqrt()
        fine = is_fine(middle)
        upper, lower = torch.where(fine, middle, upper), torch.where(fine, lower, middle)
    return torch.where(enough, lowest, upper)
