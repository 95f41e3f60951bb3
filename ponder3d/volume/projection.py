"""Convolutions that are followed by a norm, and the projection of an outdoor volume (``render_conv``)."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ponder3d.types import Volume
from ponder3d.volume.unet3d import VolumeNet, VolumeNetConfig

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class ProjectionConfig(VolumeNetConfig):
    """One 3x3x3 convolution, batch norm, ReLU: all that lies between encoder and field outdoors.

    ``ShallowNet3DConfig`` normalises its input and ends in a linear map; this normalises its output.
    """

    out_channels: int = 32
    """Channels of the feature volume."""
    norm_eps: float = 1e-5
    """Added to the variance."""
    norm_momentum: float = 0.1
    """Weight of the new statistics."""

    def build(self, in_channels: int) -> VolumeNet:
        """The network for features of ``in_channels``."""
        return Projection(in_channels, self)


class Projection(VolumeNet):
    """Same grid, ``out_channels`` features, none of them negative."""

    def __init__(self, in_channels: int, config: ProjectionConfig):
        super().__init__()
        self.out_channels = config.out_channels
        self.conv = ConvNorm(in_channels, config.out_channels, (3, 3, 3), config.norm_eps, config.norm_momentum)

    def forward(self, volume: Volume) -> Volume:
        """The feature volume."""
        return Volume(volume.grid, channels_last(self.conv(channels_first(volume.feats))))


class ConvNorm(nn.Module):
    """Convolution of an odd kernel, batch norm, ReLU. There is no bias: the norm would take it away again."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        eps: float,
        momentum: float,
        stride: Triple = (1, 1, 1),
    ):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm3d(out_channels, eps=eps, momentum=momentum)

    def forward(self, x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D X2 Y2 Z2"]:
        """The features, at every ``stride``-th cell."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


def channels_first(feats: Float[Tensor, "B X Y Z C"]) -> Float[Tensor, "B C X Y Z"]:
    """The same memory as convolutions want to see it."""
    return feats.permute(0, 4, 1, 2, 3)


def channels_last(x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B X Y Z C"]:
    """The way back."""
    return x.permute(0, 2, 3, 4, 1).contiguous()
