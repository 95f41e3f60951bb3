"""Small pictures of geometry as tensors: depth in colours, points from above. No plotting library."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

_STOPS = (
    (0.19, 0.07, 0.23),
    (0.27, 0.49, 0.98),
    (0.16, 0.92, 0.65),
    (0.81, 0.90, 0.21),
    (0.98, 0.47, 0.13),
    (0.48, 0.02, 0.01),
)
"""A rainbow whose brightness rises and falls only once, dark at both ends."""
UNLABELLED = (90, 90, 90)
"""Dark grey, for what has no class."""


def colour_scale(values: Float[Tensor, "H W"], top: float) -> UInt8[Tensor, "H W 3"]:
    """Values from 0 to ``top`` in colours, near dark blue over green to dark red; 0 and below (nothing) is black."""
    stops = torch.tensor(_STOPS, device=values.device)
    place = (values / max(top, 1e-9)).clamp(0, 1) * (len(stops) - 1)
    low = place.floor().clamp(max=len(stops) - 2).to(torch.int64)
    share = (place - low)[..., None]
    rgb = stops[low] * (1 - share) + stops[low + 1] * share
    return (rgb * 255 * (values > 0)[..., None]).round().to(torch.uint8)


def normal_colours(normal: Float[Tensor, "*N 3"]) -> UInt8[Tensor, "*N 3"]:
    """Normals as colours: x, y, z from -1 to 1 become red, green, blue from 0 to 255; no normal (zero) is black."""
    rgb = ((normal + 1) * 127.5).round().clamp(0, 255)
    return (rgb * (normal.abs().sum(-1, keepdim=True) > 0)).to(torch.uint8)


def class_colours(labels: Int[Tensor, "*N"], palette: Sequence[tuple[int, int, int]]) -> UInt8[Tensor, "*N 3"]:
    """The colour of each class, on the CPU; dark grey where a label is negative."""
    table = torch.tensor([*palette, UNLABELLED], dtype=torch.uint8)
    return table[labels.cpu().to(torch.int64).clamp(min=-1)]  # -1 reads the last row


def top_view(
    xyz: Float[Tensor, "N 3"], rgb: UInt8[Tensor, "N 3"], size: int = 400, cut: float = 0.3
) -> UInt8[Tensor, "{size} {size} 3"]:
    """Points seen from above, x to the right and y up, the highest point of a pixel in front.

    Args:
        xyz: world points, z up.
        rgb: their colours.
        size: pixels along each side; the larger extent fills it.
        cut: metres below the top of the cloud that are left out, so that a ceiling does not hide the room.
    """
    image = torch.full((size * size, 3), 255, dtype=torch.uint8)
    if len(xyz) == 0:
        return image.view(size, size, 3)
    xyz, rgb = xyz.cpu(), rgb.cpu()
    below = xyz[:, 2] <= xyz[:, 2].max() - cut
    if bool(below.any()):
        xyz, rgb = xyz[below], rgb[below]
    lo, hi = xyz.amin(0), xyz.amax(0)
    scale = (size - 1) / float((hi - lo)[:2].max().clamp(min=1e-6))
    column = ((xyz[:, 0] - lo[0]) * scale).to(torch.int64)
    row = size - 1 - ((xyz[:, 1] - lo[1]) * scale).to(torch.int64)
    order = torch.argsort(xyz[:, 2], stable=True)  # from low to high: later writes win
    pixel = (row * size + column)[order]
    # Indexed assignment with repeated indices has no defined winner; keep the last (highest) of each pixel.
    last = torch.full((size * size,), -1, dtype=torch.int64).scatter_reduce_(0, pixel, torch.arange(len(pixel)), "amax")
    seen = last >= 0
    image[seen] = rgb[order][last[seen]]
    return image.view(size, size, 3)


def principal_colours(feats: Float[Tensor, "N C"]) -> UInt8[Tensor, "N 3"]:
    """The three strongest principal components of features as red, green and blue, each spread over its 2 to 98 %."""
    if len(feats) == 0:
        return torch.zeros(0, 3, dtype=torch.uint8)
    mean = feats.mean(0)
    # A part of a large cloud says as much about the axes, and takes a part of the memory.
    centred = (feats[:: max(1, len(feats) // 500_000)] - mean).double()
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -3:].flip(1)
    # An eigenvector's sign is arbitrary; the largest entry positive makes the picture the same every time.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    scores = torch.cat([((part - mean).double() @ axes).float() for part in feats.split(500_000)])
    bounds = torch.quantile(scores[:: max(1, len(scores) // 100_000)], torch.tensor([0.02, 0.98]), dim=0)
    share = (scores - bounds[0]) / (bounds[1] - bounds[0]).clamp(min=1e-9)
    rgb = (share.clamp(0, 1) * 255).round().to(torch.uint8)
    return torch.nn.functional.pad(rgb, (0, 3 - rgb.shape[1]))
