"""What an image looks like around a place, as a classic descriptor: no weights, no labels, nothing to download.

Histograms of oriented gradients (Dalal & Triggs 2005) are the target that MaskFeat (Wei et al. 2022) found best for
masked prediction. Here they stand beside the colour, at three scales. It is a target to start with, and the example of
a backbone for ``ponder3d features``, where any other goes in its place.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponder3d.data.dataset import SceneDataset
from ponder3d.data.image_features import FeatureMaps, sample_map
from ponder3d.types import Scene


class GradientFeatures(nn.Module):
    """For each cell of an image and each scale: how gradients are oriented, mean colour, and contrast.

    Args:
        cell: pixels of a cell at the finest scale; cells share the image evenly, so the map covers all of it.
        scales: sizes of the patches that are described, in cells.
        bins: orientations in half a turn.
    """

    def __init__(self, cell: int = 8, scales: tuple[int, ...] = (1, 2, 4), bins: int = 9):
        super().__init__()
        if cell < 1 or not scales or min(scales) < 1 or bins < 2:
            raise ValueError(f"GradientFeatures: no cell {cell} with scales {scales} and {bins} orientations")
        self.cell, self.scales, self.bins = cell, tuple(scales), bins
        self.out_channels = len(scales) * (bins + 4)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Colours in [0, 1] to features; per scale ``bins`` orientations (the root of their share of the gradient, from
        0 to 1), mean brightness, red - green, blue - yellow, and standard deviation of brightness."""
        height, width = images.shape[2:]
        brightness = images.mean(1, keepdim=True)
        opponent = [images[:, :1] - images[:, 1:2], images[:, 2:] - images[:, :2].mean(1, keepdim=True)]
        fields = torch.cat([self._oriented(images), brightness, *opponent, brightness.square()], dim=1)
        size = (self._cells(height, 1), self._cells(width, 1))
        parts = []
        for scale in self.scales:
            mean = F.adaptive_avg_pool2d(fields, (self._cells(height, scale), self._cells(width, scale)))
            gradients, colour, square = mean.split([self.bins, 3, 1], dim=1)
            # The floor is that of an image of 8 bits: below it lies noise, which has no direction.
            shares = (gradients / (gradients.sum(1, keepdim=True) + 1 / 255)).sqrt()
            contrast = (square - colour[:, :1].square()).clamp(min=0).sqrt()
            described = torch.cat([shares, colour, contrast], dim=1)
            parts.append(F.interpolate(described, size=size, mode="bilinear", align_corners=False))
        return torch.cat(parts, dim=1)

    def _cells(self, pixels: int, scale: int) -> int:
        return max(1, round(pixels / (self.cell * scale)))

    def _oriented(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B bins H W"]:
        """Length of the gradient of the colour that changes most, in the two bins next to its direction."""
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
        down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
        length, strongest = (across.square() + down.square()).sqrt().max(1, keepdim=True)
        across, down = across.gather(1, strongest), down.gather(1, strongest)
        # A line has no front: half a turn is the whole range, bin 0 is a change from left to right.
        place = torch.atan2(down, across).remainder(math.pi) / math.pi * self.bins
        centres = torch.arange(self.bins, device=images.device, dtype=images.dtype).view(1, -1, 1, 1)
        apart = (place - centres).abs()
        return length * (1 - torch.minimum(apart, self.bins - apart)).clamp(min=0)


def oriented_gradients() -> nn.Module:
    """Oriented gradients and colours in patches of 8, 16 and 32 pixels: 39 channels."""
    return GradientFeatures()


@dataclass(frozen=True)
class GradientMaps(FeatureMaps):
    """Oriented gradients and colours of the images at hand, made when a ray asks for them: no files, 39 channels."""

    cell: int = 8
    """Pixels of a cell at the finest of three scales, which are 1, 2 and 4 cells wide."""

    def __post_init__(self):
        if self.cell < 1:
            raise ValueError(f"GradientMaps.cell must be at least 1, it is {self.cell}")

    def num_channels(self) -> int:
        """Those of ``GradientFeatures``: 39."""
        return GradientFeatures(self.cell).out_channels

    def check(self, dataset: SceneDataset) -> None:
        """Nothing to be missing: every image has gradients."""

    @torch.no_grad()
    def look_up(self, scene: Scene, uv: Float[Tensor, "R 2"], view: Int[Tensor, " R"]) -> Float[Tensor, "R K"]:
        """Features of pixels of a scene's views; only the images of views with a pixel are looked at."""
        assert scene.views is not None
        out = torch.zeros(len(uv), self.num_channels())
        describe, size = GradientFeatures(self.cell), scene.views.cameras.size
        for row in view.unique().tolist():
            image = scene.views.rgb[row].permute(2, 0, 1)[None].to(torch.float32) / 255
            mine = view == row
            out[mine] = sample_map(describe(image)[0].permute(1, 2, 0).numpy(), uv[mine], size)
        return out
