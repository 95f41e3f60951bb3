"""How opaque an SDF is, and where to look for its surface: NeuS, VolSDF or UniSurf.

All three read one sharpness, ``FieldConfig.inv_std`` = s: the logistic function of NeuS and UniSurf and the Laplace CDF
of VolSDF with ``beta = 1 / s`` fall off alike, as exp(-s d) at d metres from the surface.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.config import Config
from ponder3d.render import samplers
from ponder3d.render.error_bound import finest_beta, opacity_error
from ponder3d.render.weights import (
    alpha_from_sdf,
    alpha_from_slope,
    laplace_density,
    weights_from_alpha,
    weights_from_thickness,
)
from ponder3d.types import Rays

Distance = Callable[[Float[Tensor, "R S"]], Float[Tensor, "R S"]]
"""Signed distance, metres, at distances along rays."""


class OpacityConfig(Config, ABC):
    """From signed distances to weights, and where to put further samples."""

    @abstractmethod
    def place(
        self,
        t: Float[Tensor, "R S"],
        sdf: Float[Tensor, "R S"],
        distance: Distance,
        rays: Rays,
        inv_std: Float[Tensor, ""],
        num: int,
        jitter: Float[Tensor, "R {num}"] | None,
        step: int | None,
    ) -> Float[Tensor, "R {num}"]:
        """Where the surface seems to be; called where no gradients are kept.

        Args:
            t: sorted distances along the rays where the field has been looked at.
            sdf: what it said there, metres.
            distance: looks at it elsewhere.
            rays: with ``far > near``.
            inv_std: sharpness of the field, 1/metres.
            num: samples wanted per ray.
            jitter: numbers in [0, 1) that move them; None puts them at fixed places.
            step: of training; None in evaluation.
        """

    @abstractmethod
    def weights(
        self,
        t: Float[Tensor, "R S"],
        sdf: Float[Tensor, "R S"],
        gradient: Float[Tensor, "R S 3"],
        rays: Rays,
        inv_std: Float[Tensor, ""],
    ) -> tuple[Float[Tensor, "R S"], Float[Tensor, "R S"]]:
        """Weights of sorted samples, and the distance at which each of them sits; differentiable."""


@dataclass(frozen=True)
class NeuS(OpacityConfig):
    """Wang et al. 2021, and the paper (eq. 6 and 7). Further samples follow the weights of the first."""

    alpha: Literal["paper", "slope"] = "paper"
    """``paper``: eq. 7, from adjacent samples. ``slope``: extrapolated from one sample, as the released code."""
    proposal_inv_std: float = 64.0
    """Sharpness with which the field is looked at to place them, 1/metres."""

    def place(
        self,
        t: Tensor,
        sdf: Tensor,
        distance: Distance,
        rays: Rays,
        inv_std: Tensor,
        num: int,
        jitter: Tensor | None,
        step: int | None,
    ) -> Tensor:
        """By importance, of a surface of ``proposal_inv_std``."""
        weights = weights_from_alpha(alpha_from_sdf(sdf, torch.full_like(inv_std, self.proposal_inv_std)))
        return samplers.importance(t, weights, num, jitter)

    def weights(self, t: Tensor, sdf: Tensor, gradient: Tensor, rays: Rays, inv_std: Tensor) -> tuple[Tensor, Tensor]:
        """``weights.alpha_from_sdf`` or ``weights.alpha_from_slope``."""
        delta = samplers.interval_lengths(t, rays.far)
        if self.alpha == "paper":
            # An interval's opacity is seen at its middle.
            return weights_from_alpha(alpha_from_sdf(sdf, inv_std)), t + delta / 2
        cosine = torch.einsum("rsk,rk->rs", gradient, rays.directions)
        return weights_from_alpha(alpha_from_slope(sdf, cosine, delta, inv_std)), t


@dataclass(frozen=True)
class VolSDF(OpacityConfig):
    """Yariv et al. 2021: a density, the Laplace CDF of the distance. Further samples follow the weights that are known
    to err little (its Algorithm 1): where the bound of the error is large the field is looked at again."""

    rounds: int = 5
    """Times that it is looked at again, the same for every ray; at most 5 in VolSDF, which stops earlier."""
    per_round: int = 64
    """Looks along each ray in a round."""
    tolerance: float = 0.1
    """Error of the opacity up to which samples are good enough. Where no number of rounds gets there, weights of a
    softer surface place the samples."""

    def __post_init__(self):
        if self.rounds < 0 or self.per_round < 1 or self.tolerance <= 0:
            raise ValueError(
                "VolSDF: rounds must be at least 0, per_round at least 1 and tolerance above 0, "
                f"not {self.rounds}, {self.per_round} and {self.tolerance}"
            )

    def place(
        self,
        t: Tensor,
        sdf: Tensor,
        distance: Distance,
        rays: Rays,
        inv_std: Tensor,
        num: int,
        jitter: Tensor | None,
        step: int | None,
    ) -> Tensor:
        """The error-bounded sampler, from end to end of the rays."""
        t, sdf = _with_ends(t, sdf, distance, rays)
        t, sdf, beta = self.search(t, sdf, distance, 1 / inv_std)
        thickness = laplace_density(sdf, beta[:, None]) * samplers.interval_lengths(t, rays.far)
        return samplers.importance(t, weights_from_thickness(thickness), num, jitter)

    def search(
        self, t: Float[Tensor, "R S"], sdf: Float[Tensor, "R S"], distance: Distance, beta: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, "R L"], Float[Tensor, "R L"], Float[Tensor, " R"]]:
        """Samples, the distances there, and the scale >= ``beta`` at which their opacity errs by ``tolerance``."""
        for _ in range(self.rounds):
            error = opacity_error(t, sdf, finest_beta(t, sdf, beta, self.tolerance))
            more = samplers.importance(t, torch.nn.functional.pad(error, (0, 1)), self.per_round)
            t, sdf = _merged((t, sdf), (more, distance(more)))
        return t, sdf, finest_beta(t, sdf, beta, self.tolerance)

    def weights(self, t: Tensor, sdf: Tensor, gradient: Tensor, rays: Rays, inv_std: Tensor) -> tuple[Tensor, Tensor]:
        """The rectangle rule: the density at a sample counts up to the next, and is seen at the sample."""
        thickness = laplace_density(sdf, 1 / inv_std) * samplers.interval_lengths(t, rays.far)
        return weights_from_thickness(thickness), t


@dataclass(frozen=True)
class UniSurf(OpacityConfig):
    """Oechsle et al. 2021: the occupancy of a sample, the logistic function of ``-inv_std * sdf``, is its opacity,
    however far the next one is. Further samples lie in an interval around the first surface, which shrinks in training.

    UniSurf learns occupancy without a distance, starts with 1 on either side of the surface, in units of its scene, and
    ends with 0.05 after some 200 000 steps."""

    widest: float = 0.5
    """Metres on either side of the first surface, at the first step."""
    narrowest: float = 0.05
    """The same in the end, and in evaluation."""
    shrinking: int = 10_000
    """Steps from the one to the other, by the same factor in each."""
    refinements: int = 8
    """Secant steps to the surface between the two samples around it."""

    def __post_init__(self):
        if not 0 < self.narrowest <= self.widest or self.shrinking < 1 or self.refinements < 0:
            raise ValueError(
                "UniSurf: narrowest must be above 0 and at most widest, shrinking at least 1 and refinements at least "
                f"0, not {self.narrowest}, {self.widest}, {self.shrinking} and {self.refinements}"
            )

    def interval(self, step: int | None) -> float:
        """Metres on either side of the surface at a step of training; None: in evaluation."""
        if step is None:
            return self.narrowest
        return self.widest * (self.narrowest / self.widest) ** min(step / self.shrinking, 1.0)

    def place(
        self,
        t: Tensor,
        sdf: Tensor,
        distance: Distance,
        rays: Rays,
        inv_std: Tensor,
        num: int,
        jitter: Tensor | None,
        step: int | None,
    ) -> Tensor:
        """Spread evenly over the interval around the first surface; over the whole ray if it meets none."""
        t, sdf = _with_ends(t, sdf, distance, rays)
        root, met = samplers.first_surface(t, sdf, distance, self.refinements)
        half = self.interval(step)
        near = torch.where(met, torch.maximum(root - half, rays.near), rays.near)
        far = torch.where(met, torch.minimum(root + half, rays.far), rays.far)
        return samplers.uniform(near, far, num, jitter)

    def weights(self, t: Tensor, sdf: Tensor, gradient: Tensor, rays: Rays, inv_std: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha = logistic(-inv_std sdf)``, seen at the sample."""
        # 1 - alpha is exp of minus this, also deep inside, where alpha is 1 up to rounding.
        return weights_from_thickness(torch.nn.functional.softplus(-sdf * inv_std)), t


def _with_ends(t: Tensor, sdf: Tensor, distance: Distance, rays: Rays) -> tuple[Tensor, Tensor]:
    """Samples and distances with those at ``near`` and ``far``."""
    ends = torch.stack([rays.near, rays.far], dim=1)
    at_near, at_far = distance(ends).split(1, dim=1)
    return torch.cat([ends[:, :1], t, ends[:, 1:]], dim=1), torch.cat([at_near, sdf, at_far], dim=1)


def _merged(first: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two sets of samples and distances as one that is sorted."""
    t, order = torch.cat([first[0], then[0]], dim=1).sort(dim=1)
    return t, torch.cat([first[1], then[1]], dim=1).gather(1, order)
