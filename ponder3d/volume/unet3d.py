"""Dense 3D networks that turn pooled features into the feature volume (eq. 3).

Both take and return channels-last volumes; inside, the same memory is seen as [B C X Y Z] in ``channels_last_3d``, so
no copy is made at either end. Their first convolution sees a volume that is mostly empty, and half of PonderV2's
operations are in it: where the occupied cells are known it is done for those alone (``volume/occupied.py``).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ponder3d.config import Config, incidental
from ponder3d.types import Volume
from ponder3d.volume.occupied import norm_conv_of_occupied
from ponder3d.volume.recompute import recomputed


class VolumeNetConfig(Config, ABC):
    """Choices of a dense network."""

    @abstractmethod
    def build(self, in_channels: int) -> "VolumeNet":
        """The network for features of ``in_channels``."""


class VolumeNet(nn.Module, ABC):
    """Volume in, volume with ``out_channels`` on the same grid out."""

    out_channels: int

    @abstractmethod
    def forward(self, volume: Volume) -> Volume:
        """The feature volume."""


@dataclass(frozen=True)
class NoNet3DConfig(VolumeNetConfig):
    """The volume stays as it is."""

    def build(self, in_channels: int) -> "VolumeNet":
        """The identity."""
        return NoNet3D(in_channels)


class NoNet3D(VolumeNet):
    """No network at all."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.out_channels = in_channels

    def forward(self, volume: Volume) -> Volume:
        """What went in."""
        return volume


@dataclass(frozen=True)
class UNet3DConfig(VolumeNetConfig):
    """The projection network of PonderV2: 2,991,520 parameters for 96 channels in and 128 out."""

    channels: tuple[int, ...] = (32, 64, 128, 256)
    """Channels per level; every level halves the resolution."""
    out_channels: int = 128
    """Channels of the feature volume."""
    recompute: bool = incidental(False)
    """Whether training keeps what goes into each convolution only, not what its norm makes of it, and computes the
    norm again in the backward pass."""

    def build(self, in_channels: int) -> VolumeNet:
        """The network for features of ``in_channels``."""
        return UNet3D(in_channels, self)


@dataclass(frozen=True)
class ShallowNet3DConfig(VolumeNetConfig):
    """A few convolutions at one resolution: the "shallow dense network" of the paper's eq. 3."""

    channels: int = 32
    """Channels of each convolution."""
    depth: int = 2
    """Number of 3x3x3 convolutions; with 1 it is a single projection."""
    out_channels: int = 32
    """Channels of the feature volume."""
    bypass: Literal["none", "add", "appearance"] = "none"
    """A linear map of the input, past the convolutions: added to the output, or instead of its second half, the field's
    appearance. What is decoded from it is for the encoder to learn, not for the convolutions."""

    def build(self, in_channels: int) -> VolumeNet:
        """The network for features of ``in_channels``."""
        return ShallowNet3D(in_channels, self)


class UNet3D(VolumeNet):
    """A 3D U-Net with one convolution per level, additive skips and transposed-convolution upsampling."""

    def __init__(self, in_channels: int, config: UNet3DConfig):
        super().__init__()
        widths = config.channels
        self.out_channels = config.out_channels
        self.down = nn.ModuleList([_NormConv(i, o) for i, o in zip((in_channels, *widths[:-1]), widths, strict=True)])
        self.recompute = config.recompute
        deep = tuple(reversed(widths))
        pairs = list(zip(deep[:-1], deep[1:], strict=True))
        self.up = nn.ModuleList([nn.ConvTranspose3d(i, o, kernel_size=3, stride=2, padding=1) for i, o in pairs])
        self.fuse = nn.ModuleList([_NormConv(o, o) for _, o in pairs])
        self.head = nn.Conv3d(widths[0], config.out_channels, kernel_size=1)

    def forward(self, volume: Volume) -> Volume:
        """Same grid, ``out_channels`` features."""
        first, *deeper = self.down
        assert isinstance(first, _NormConv)
        if volume.occupied is None:
            x = self._through(first, _channels_first(volume))
        else:
            x = first.of_volume(volume)
        skips = [x]
        for block in deeper:
            x = self._through(block, F.max_pool3d(x, 2, ceil_mode=True))
            skips.append(x)
        for up, fuse, skip in zip(self.up, self.fuse, reversed(skips[:-1]), strict=True):
            assert isinstance(up, nn.ConvTranspose3d)
            x = self._through(fuse, up(x, output_size=skip.shape[2:]) + skip)
        return Volume(volume.grid, _pointwise(self.head, x))

    def _through(self, block: nn.Module, x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D X Y Z"]:
        return recomputed(block, block, x) if self.recompute else block(x)


class ShallowNet3D(VolumeNet):
    """Convolutions at the full resolution of the volume."""

    def __init__(self, in_channels: int, config: ShallowNet3DConfig):
        super().__init__()
        self.out_channels = config.out_channels
        widths = (in_channels, *[config.channels] * config.depth)
        self.blocks = nn.Sequential(*[_NormConv(i, o) for i, o in zip(widths[:-1], widths[1:], strict=True)])
        self.adds = config.bypass == "add"
        appearance = config.out_channels - config.out_channels // 2
        replaced = appearance if config.bypass == "appearance" else 0
        self.head = nn.Conv3d(widths[-1], config.out_channels - replaced, kernel_size=1)
        self.bypass = None if config.bypass == "none" else nn.Linear(in_channels, replaced or config.out_channels)

    def forward(self, volume: Volume) -> Volume:
        """Same grid, ``out_channels`` features."""
        first, *others = self.blocks
        assert isinstance(first, _NormConv)
        x = first.of_volume(volume)
        for block in others:
            x = block(x)
        out = _pointwise(self.head, x)
        if self.bypass is not None:
            past = _linear(self.bypass, volume)
            out = out + past if self.adds else torch.cat([out, past], dim=-1)
        return Volume(volume.grid, out)


class _NormConv(nn.Module):
    """Batch norm of the input, 3x3x3 convolution, ReLU ("bcr")."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.norm = nn.BatchNorm3d(in_channels)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D X Y Z"]:
        return F.relu(self.conv(self.norm(x)))

    def of_volume(self, volume: Volume) -> Float[Tensor, "B D X Y Z"]:
        """The same of a volume, faster if it says which of its cells are occupied."""
        if volume.occupied is None:
            return self(_channels_first(volume))
        return F.relu(
            norm_conv_of_occupied(self.norm, self.conv, volume.occupied, len(volume.feats), volume.grid.shape)
        )


def _linear(layer: nn.Linear, volume: Volume) -> Float[Tensor, "B X Y Z D"]:
    """A linear map of every cell; of an empty one it is the bias."""
    if volume.occupied is None:
        return layer(volume.feats)
    mapped = F.linear(volume.occupied.feats, layer.weight)
    of_empty = layer.bias.to(mapped.dtype).expand(volume.feats[..., 0].numel(), -1)
    return of_empty.index_add(0, volume.occupied.rows, mapped).view(*volume.feats.shape[:4], -1)


def _channels_first(volume: Volume) -> Float[Tensor, "B C X Y Z"]:
    return volume.feats.permute(0, 4, 1, 2, 3)


def _pointwise(conv: nn.Conv3d, x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B X Y Z D"]:
    """A 1x1x1 convolution as the matrix product it is, which PyTorch's convolution on a CPU does not notice."""
    return F.linear(x.permute(0, 2, 3, 4, 1), conv.weight.flatten(1), conv.bias).contiguous()
