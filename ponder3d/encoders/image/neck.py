"""Feature pyramids: what coarse maps say, told to the finer ones."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ponder3d.config import Config


@dataclass(frozen=True)
class FPNConfig(Config):
    """A feature pyramid (Lin et al. 2017, "Feature pyramid networks for object detection"), for any number of maps.

    1x1 convolutions to one width, sums from coarse to fine, a 3x3 convolution of each sum; no norms, which would see
    hidden patches. Of a single map (UniPAD) the two convolutions are left.
    """

    channels: int = 256
    """Of every map that comes out."""
    levels: int = 1
    """How many maps are combined, the coarsest ones."""
    finest: bool = False
    """Whether only the finest of them comes out, for lifts that take one map; otherwise all do."""

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> "FPN":
        """A pyramid on maps with these channels and strides, from fine to coarse.

        Raises:
            ValueError: there are fewer maps than levels.
        """
        if not 1 <= self.levels <= len(channels):
            raise ValueError(f"FPNConfig.levels: {self.levels} of {len(channels)} maps; see backbone.out_stages")
        return FPN(channels, strides, self)


class FPN(nn.Module):
    """The pyramid."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], config: FPNConfig):
        super().__init__()
        num, width = config.levels, config.channels
        given = 1 if config.finest else num
        self.channels, self.strides = (width,) * given, strides[-num:][:given]
        self.lateral = nn.ModuleList([nn.Conv2d(c, width, 1) for c in channels[-num:]])
        self.out = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(given)])
        for conv in (*self.lateral, *self.out):
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: tuple[Float[Tensor, "N _ _ _"], ...]) -> tuple[Float[Tensor, "N C _ _"], ...]:
        """The maps, from fine to coarse."""
        sums = [conv(x) for conv, x in zip(self.lateral, maps[-len(self.lateral) :], strict=True)]
        for level in range(len(sums) - 1, 0, -1):
            finer = sums[level - 1]
            # Nearest: the sizes of maps are multiples of each other, as images are padded.
            sums[level - 1] = finer + F.interpolate(sums[level], size=finer.shape[2:], mode="nearest")
        return tuple(conv(x) for conv, x in zip(self.out, sums[: len(self.out)], strict=True))
