"""Rendered images against real ones: PSNR, SSIM and depth errors."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def psnr(
    rendered: Float[Tensor, "*N 3"], truth: Float[Tensor, "*N 3"], mask: Bool[Tensor, "*N"] | None = None
) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio in dB of colours in [0, 1], over the pixels of the mask. Identical images give 100;
    an empty mask has nothing to compare and gives NaN."""
    error = (rendered - truth).square().mean(-1)
    mse = error.mean() if mask is None else (error * mask).sum() / mask.sum()
    return -10 * torch.log10(mse.clamp(min=1e-10))


def ssim(rendered: Float[Tensor, "V H W 3"], truth: Float[Tensor, "V H W 3"]) -> Float[Tensor, " V"]:
    """Structural similarity of each image (Wang et al. 2004), mean over its channels, for colours in [0, 1].

    Gaussian window of 11x11 with sigma 1.5; only windows that lie inside the image count, which is at least 11x11.
    """
    position = torch.arange(11, dtype=rendered.dtype, device=rendered.device) - 5
    kernel = torch.exp(-position.square() / (2 * 1.5**2))
    kernel = kernel / kernel.sum()

    def blur(image: Tensor) -> Tensor:
        image = F.conv2d(image, kernel.view(1, 1, 11, 1))
        return F.conv2d(image, kernel.view(1, 1, 1, 11))

    x, y = (i.permute(0, 3, 1, 2).flatten(0, 1)[:, None] for i in (rendered, truth))
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x.square(), blur(y * y) - mean_y.square()
    cov = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    value = value / ((mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2))
    return value.flatten(1).mean(1).view(-1, 3).mean(1)


def depth_l1(rendered: Float[Tensor, "*N"], truth: Float[Tensor, "*N"], mask: Bool[Tensor, "*N"]) -> Float[Tensor, ""]:
    """Mean absolute difference in metres over the pixels of the mask; NaN if it is empty."""
    return ((rendered - truth).abs() * mask).sum() / mask.sum()
