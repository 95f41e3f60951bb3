"""Hiding patches of images from a backbone, as SparK does (Tian et al. 2023, "Designing BERT for convolutional
networks"; UniPAD hides 0.3 of them).

Hidden pixels are zero, and features there are made zero again after every convolution: a hole, not a grey patch that
norms and convolutions would see. The mask is a value that is passed along; nothing keeps it. Which patches are hidden
is a function of each scene's key and the number of the view, so it is the same on any device and for any split of a
batch.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.geometry.keyed import hashed


@dataclass(frozen=True)
class PatchMask:
    """Which patches of a batch of images are seen."""

    visible: Bool[Tensor, "N h w"]
    """By patch, from the upper left corner; the last ones may reach beyond the image."""
    patch: int
    """Pixels along a patch."""

    def cells(self, shape: tuple[int, int], stride: int) -> Bool[Tensor, "N 1 {shape[0]} {shape[1]}"]:
        """The same for the cells of a map, of which a whole number lies along a patch."""
        num = self.patch // stride
        fine = self.visible.repeat_interleave(num, 1).repeat_interleave(num, 2)
        return fine[:, None, : shape[0], : shape[1]]


@dataclass(frozen=True)
class ImageMaskingConfig(Config):
    """Which share of the patches is hidden in training. In evaluation everything is seen."""

    ratio: float = 0.3
    """Share of each image's patches that is hidden; 0 hides nothing."""
    patch: int = 32
    """Edge of a patch in pixels; a multiple of the backbone's coarsest stride."""
    token: bool = False
    """Whether hidden cells of the maps hold a learnt vector, which is then a part of the encoder; otherwise zeros."""

    def __post_init__(self):
        if not 0 <= self.ratio < 1:
            raise ValueError(f"ImageMaskingConfig.ratio must lie in [0, 1), it is {self.ratio}")
        if self.patch < 1:
            raise ValueError(f"ImageMaskingConfig.patch must be at least 1 pixel, not {self.patch}")

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> "HidePatches":
        """The masking of maps with these channels and strides.

        Raises:
            ValueError: a cell would lie in two patches.
        """
        if self.patch % max(strides):
            raise ValueError(
                f"ImageMaskingConfig.patch must be a multiple of the coarsest stride, {max(strides)}, not {self.patch}"
            )
        return HidePatches(channels, strides, self)


class HidePatches(nn.Module):
    """Chooses patches, and fills what a backbone leaves empty."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], config: ImageMaskingConfig):
        super().__init__()
        self.config, self.strides = config, strides
        self.tokens = nn.ParameterList([nn.Parameter(torch.empty(c)) for c in channels] if config.token else [])
        for token in self.tokens:
            nn.init.trunc_normal_(token, std=0.02, a=-0.02, b=0.02)
            token.requires_grad_(config.ratio > 0)  # else nothing would reach it, which parallel training waits for

    def choose(self, keys: Int[Tensor, " B"], num_views: int, size: tuple[int, int]) -> PatchMask | None:
        """Which patches of each image are seen; None, in evaluation too, if all are.

        Args:
            keys: of the scenes (``Batch.keys``).
            num_views: images of each scene; they come scene by scene.
            size: height and width of an image.
        """
        if not self.training or self.config.ratio == 0:
            return None
        patch = self.config.patch
        return PatchMask(visible_patches(keys, num_views, size, patch, self.config.ratio), patch)

    def fill(
        self, maps: tuple[Float[Tensor, "N _ _ _"], ...], mask: PatchMask | None
    ) -> tuple[Float[Tensor, "N _ _ _"], ...]:
        """Maps with the learnt vectors in hidden cells, if there are any."""
        if mask is None or len(self.tokens) == 0:
            return maps
        filled = []
        for x, stride, token in zip(maps, self.strides, self.tokens, strict=True):
            seen = mask.cells((x.shape[2], x.shape[3]), stride)
            filled.append(torch.where(seen, x, token.to(x.dtype)[:, None, None]))
        return tuple(filled)


def visible_patches(
    keys: Int[Tensor, " B"], num_views: int, size: tuple[int, int], patch: int, ratio: float
) -> Bool[Tensor, "N h w"]:
    """True where a patch is seen: all of an image but ``round(ratio * h * w)``, those with the lowest hash."""
    h, w = -(-size[0] // patch), -(-size[1] // patch)
    device = keys.device
    view = torch.arange(num_views, device=device)[:, None]
    # A constant beside the key: blocks of points are drawn from the same key (``tasks/masking.py``).
    draw = hashed(keys[:, None, None], 0x1A6E, view, torch.arange(h * w, device=device)).flatten(0, 1)
    order = torch.argsort(draw, dim=1, stable=True)
    seen = torch.arange(h * w, device=device) >= round(ratio * h * w)
    return torch.zeros_like(draw, dtype=torch.bool).scatter_(1, order, seen.expand_as(order)).unflatten(1, (h, w))
