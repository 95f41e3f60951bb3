"""The dense network of outdoor models: what lies on the ground, seen at several scales of x and y.

Yan et al. 2018 (SECOND) and its pyramid, lifted to volumes in UVTR: kernels are 3x3x1 and strides act on x and y, as
heights are few and mean different things.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ponder3d.types import Volume
from ponder3d.volume.projection import ConvNorm, channels_first, channels_last
from ponder3d.volume.unet3d import VolumeNet, VolumeNetConfig


@dataclass(frozen=True)
class Second3DConfig(VolumeNetConfig):
    """Parallel branches of one volume, each at its own resolution, brought back to the first one's and summed."""

    channels: tuple[int, ...] = (128, 256, 512)
    """Channels of each branch."""
    strides: tuple[int, ...] = (1, 2, 4)
    """How many cells along x and y are one cell of a branch."""
    depth: int = 5
    """Convolutions of a branch after its strided one."""
    out_channels: int = 256
    """Channels of the sum."""
    norm_eps: float = 1e-3
    """Added to the variance."""
    norm_momentum: float = 0.01
    """Weight of the new statistics."""

    def __post_init__(self):
        if not self.channels or len(self.channels) != len(self.strides):
            raise ValueError(
                f"Second3DConfig: channels ({len(self.channels)}) and strides ({len(self.strides)}) need one entry per "
                "branch"
            )
        if min(*self.channels, *self.strides, self.out_channels) < 1 or self.depth < 0:
            raise ValueError("Second3DConfig: channels and strides must be positive, and depth not negative")

    def build(self, in_channels: int) -> VolumeNet:
        """The network for features of ``in_channels``."""
        return Second3D(in_channels, self)


class Second3D(VolumeNet):
    """Branches that do not see each other; their sum has the resolution of what went in."""

    def __init__(self, in_channels: int, config: Second3DConfig):
        super().__init__()
        self.out_channels = config.out_channels
        self.branches = nn.ModuleList(
            [
                _Branch(in_channels, width, stride, config)
                for width, stride in zip(config.channels, config.strides, strict=True)
            ]
        )

    def forward(self, volume: Volume) -> Volume:
        """Same grid, ``out_channels`` features."""
        x = channels_first(volume.feats)
        total = None
        for branch in self.branches:
            part = branch(x)
            total = part if total is None else total + part
        assert total is not None
        return Volume(volume.grid, channels_last(total))


class _Branch(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int, config: Second3DConfig):
        super().__init__()
        norm = config.norm_eps, config.norm_momentum
        step = (stride, stride, 1)
        first = ConvNorm(in_channels, channels, (3, 3, 1), *norm, stride=step)
        self.convs = nn.Sequential(
            first, *[ConvNorm(channels, channels, (3, 3, 1), *norm) for _ in range(config.depth)]
        )
        self.up = nn.ConvTranspose3d(channels, config.out_channels, step, step, bias=False)
        self.norm = nn.BatchNorm3d(config.out_channels, eps=norm[0], momentum=norm[1])

    def forward(self, x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D X Y Z"]:
        up = self.up(self.convs(x))
        # A volume that the stride does not divide has a last cell that reaches beyond it.
        up = up[:, :, : x.shape[2], : x.shape[3]]
        return F.relu(self.norm(up), inplace=True)
