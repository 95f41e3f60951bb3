"""How far a pixel is: a distribution over bins of plane depth, and what teaches it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponder3d.config import Config


@dataclass(frozen=True)
class DepthBins(Config):
    """Bins of plane depth. Bin k covers ``[near + k s, near + (k + 1) s)``, ``s = (far - near) / num``; what lies in it
    is taken to be at its middle."""

    near: float = 1.0
    """Metres at which the first bin begins."""
    far: float = 60.0
    """Metres at which the last one ends."""
    num: int = 118
    """Number of bins."""

    def __post_init__(self):
        if not 0 <= self.near < self.far or self.num < 1:
            raise ValueError(
                f"DepthBins: {self.num} bins from {self.near} to {self.far} m; at least one, 0 <= near < far"
            )

    def middles(self, device: torch.device) -> Float[Tensor, " D"]:
        """Plane depth in the middle of each bin, metres."""
        step = (self.far - self.near) / self.num
        return self.near + step * (torch.arange(self.num, dtype=torch.float32, device=device) + 0.5)

    def of(self, depth: Float[Tensor, "*N"]) -> Int[Tensor, "*N"]:
        """The bin of each depth; -1 beyond them."""
        place = torch.floor((depth - self.near) * (self.num / (self.far - self.near)))
        return torch.where((place >= 0) & (place < self.num), place, -1).to(torch.int64)


class DepthHeadConfig(Config, ABC):
    """Choices of a network that says how far cells of a map are."""

    @abstractmethod
    def build(self, in_channels: int, num_bins: int) -> nn.Module:
        """A module from a map ``[N C h w]`` to scores of bins ``[N D h w]``."""


@dataclass(frozen=True)
class SimpleDepth(DepthHeadConfig):
    """One 1x1 convolution."""

    def build(self, in_channels: int, num_bins: int) -> nn.Module:
        """The convolution."""
        return nn.Conv2d(in_channels, num_bins, 1)


@dataclass(frozen=True)
class DepthNet(DepthHeadConfig):
    """UniPAD's, after BEVDepth (Li et al. 2023): a convolution, residual blocks, a pyramid of dilated
    convolutions, scores. Without the camera's parameters as an input, and without deformable convolution."""

    channels: int = 256
    """Width of convolution and blocks."""
    blocks: int = 3
    """Residual blocks."""
    pyramid: int = 96
    """Width of each branch of the pyramid (ASPP, Chen et al. 2017)."""
    dilations: tuple[int, ...] = (1, 6, 12, 18)
    """Of its branches; beside them is one with the mean of the whole map."""
    dropout: float = 0.5
    """Share of the pyramid's channels that is left out at a cell in training."""

    def build(self, in_channels: int, num_bins: int) -> nn.Module:
        """The network."""
        width = self.channels
        layers = [_conv_norm(in_channels, width, 3), nn.ReLU(), *[_Residual(width) for _ in range(self.blocks)]]
        return nn.Sequential(*layers, _Pyramid(width, self), nn.Conv2d(width, num_bins, 1))


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(_conv_norm(width, width, 3), nn.ReLU(), _conv_norm(width, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


class _Pyramid(nn.Module):
    def __init__(self, width: int, config: DepthNet):
        super().__init__()
        self.branches = nn.ModuleList(
            [_conv_norm(width, config.pyramid, 1 if rate == 1 else 3, rate) for rate in config.dilations]
        )
        # Without a norm: of a batch with one image a channel has one value here, which no statistic can be made of.
        self.whole = nn.Conv2d(width, config.pyramid, 1)
        self.fuse = _conv_norm(config.pyramid * (len(config.dilations) + 1), width, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.whole(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        parts = [*(branch(x) for branch in self.branches), whole]
        return self.dropout(F.relu(self.fuse(F.relu(torch.cat(parts, dim=1)))))


def _conv_norm(in_channels: int, out_channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def depth_bin_loss(
    probability: Float[Tensor, "N D h w"], depth: Float[Tensor, "N H W"], bins: DepthBins, stride: int
) -> Float[Tensor, ""]:
    """Binary cross entropy between a distribution of depth and what a laser measured.

    The target of a cell is the bin of the nearest point that a pixel of it shows; cells without a point, or with one
    beyond the bins, do not count. Terms are summed over the bins, and averaged over the cells that count (0 if none).

    Args:
        probability: of each bin; sums to 1.
        depth: sparse plane depth in metres; 0 where nothing was measured.
        bins: the bins.
        stride: pixels per cell of the map, which may reach beyond the image.
    """
    height, width = probability.shape[2] * stride, probability.shape[3] * stride
    whole = F.pad(depth, (0, width - depth.shape[2], 0, height - depth.shape[1]))
    far = torch.where(whole > 0, whole, torch.inf)
    nearest = far.unflatten(2, (-1, stride)).unflatten(1, (-1, stride)).amin((2, 4))
    target = bins.of(nearest)
    counts = target >= 0
    hot = F.one_hot(target.clamp(min=0), bins.num).permute(0, 3, 1, 2).to(torch.float32)
    with torch.autocast(probability.device.type, enabled=False):
        terms = F.binary_cross_entropy(probability.float().clamp(0, 1), hot, reduction="none").sum(1)
    return torch.where(counts, terms, 0).sum() / counts.sum().clamp(min=1)
