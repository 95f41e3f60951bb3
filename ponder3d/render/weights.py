"""From signed distances along rays to rendering weights: NeuS (Wang et al. 2021; paper eq. 6 and 7) and VolSDF.

``inv_std`` is the sharpness s of the logistic density: its standard deviation is about 1.8 / s metres.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def alpha_from_sdf(sdf: Float[Tensor, "R S"], inv_std: Float[Tensor, ""]) -> Float[Tensor, "R S"]:
    """Opacity of the interval between each sample and the next, the paper's eq. 7; 0 for the last sample.

    ``alpha_j = max((Phi(s_j) - Phi(s_{j+1})) / Phi(s_j), 0)`` with ``Phi`` the logistic function of ``inv_std * sdf``.
    """
    # log Phi keeps the ratio exact where both values underflow, deep behind a surface.
    log_cdf = torch.nn.functional.logsigmoid(sdf * inv_std)
    alpha = 1 - torch.exp((log_cdf[:, 1:] - log_cdf[:, :-1]).clamp(max=0.0))
    return torch.nn.functional.pad(alpha, (0, 1))


def alpha_from_slope(
    sdf: Float[Tensor, "R S"],
    cosine: Float[Tensor, "R S"],
    delta: Float[Tensor, "R S"],
    inv_std: Float[Tensor, ""],
) -> Float[Tensor, "R S"]:
    """Opacity of an interval centred on each sample, its two ends extrapolated along the slope (the released code).

    Args:
        sdf: signed distances at the samples, metres.
        cosine: inner product of ray direction and SDF gradient; only its negative part (a ray that enters) counts.
        delta: length of the interval around each sample, metres.
        inv_std: sharpness.
    """
    half = cosine.clamp(max=0.0) * delta / 2
    log_cdf = torch.nn.functional.logsigmoid
    return 1 - torch.exp((log_cdf((sdf + half) * inv_std) - log_cdf((sdf - half) * inv_std)).clamp(max=0.0))


def weights_from_alpha(alpha: Float[Tensor, "R S"]) -> Float[Tensor, "R S"]:
    """``w_j = alpha_j * prod_{k<j} (1 - alpha_k)``: what is seen at a sample; the rows sum to at most 1."""
    # The product as it stands, not exp of a sum of logs: alpha may be exactly 1, and cumprod's gradient handles that.
    through = torch.cumprod(1 - alpha, dim=1)
    return alpha * torch.nn.functional.pad(through[:, :-1], (1, 0), value=1.0)


def composite(weights: Float[Tensor, "R S"], values: Float[Tensor, "R S *C"]) -> Float[Tensor, "R *C"]:
    """Weighted sum along each ray (eq. 6)."""
    return torch.einsum("rs,rs...->r...", weights, values)


def laplace_density(sdf: Float[Tensor, "*N"], beta: Float[Tensor, "*_"]) -> Float[Tensor, "*N"]:
    """Density of VolSDF (Yariv et al. 2021, eq. 2 and 3), 1/metres: the Laplace CDF of ``-sdf`` with scale ``beta``
    metres, times ``1 / beta``. It is ``1 / (2 beta)`` on the surface and ``1 / beta`` deep inside."""
    scaled = sdf / beta
    # Each side is clamped to where it counts, so that nothing overflows; on the surface both have the right slope.
    outside = 0.5 * torch.exp(-scaled.clamp(min=0.0))
    inside = 1 - 0.5 * torch.exp(scaled.clamp(max=0.0))
    return torch.where(scaled > 0, outside, inside) / beta


def weights_from_thickness(thickness: Float[Tensor, "R S"]) -> Float[Tensor, "R S"]:
    """``w_j = (1 - exp(-thickness_j)) * exp(-sum_{k<j} thickness_k)``: ``weights_from_alpha`` of
    ``1 - exp(-thickness)``, also where that is 1 up to rounding. Thickness is the optical one: density times length."""
    before = torch.nn.functional.pad(thickness[:, :-1].cumsum(1), (1, 0))
    return -torch.expm1(-thickness) * torch.exp(-before)
