"""ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s"), which can be kept from seeing patches.

A stem of 4 x 4 pixels, stages of blocks (depthwise 7 x 7 convolution, layer norm, two linear layers with a GELU
between, a learnt scale), a 2 x 2 convolution with stride 2 between stages, and a layer norm on every map that is
returned. Norms are of one position, so that they see visible positions alone if the others are put aside.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ponder3d.encoders.image.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageBackbone,
    ImageBackboneConfig,
    LeftOut,
)
from ponder3d.encoders.image.convnext_names import convnext_weights
from ponder3d.encoders.image.masking import PatchMask
from ponder3d.encoders.image.weights import load_into, read_weights

_SIZES = {
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}
_EPS = 1e-6


@dataclass(frozen=True)
class ConvNeXtConfig(ImageBackboneConfig):
    """Choices of a ConvNeXt; the defaults are UniPAD's, but for ``weights`` and ``frozen_stages``."""

    size: Literal["atto", "tiny", "small", "base", "large"] = "small"
    """Blocks and channels of the paper's networks; ``atto`` (timm's) is for tries on a CPU."""
    depths: tuple[int, ...] = ()
    """Blocks of each stage, instead of those of ``size``."""
    dims: tuple[int, ...] = ()
    """Channels of each stage, instead of those of ``size``."""
    out_stages: tuple[int, ...] = (3,)
    """Stages whose maps are returned, ascending from 0; stage i has 4 * 2^i pixels a cell. Later ones are not built."""
    drop_path: float = 0.2
    """Chance that the last block leaves an image as it is in training; in the others in proportion to their number."""
    frozen_stages: int = 0
    """Stages that do not learn, the stem with the first of them; 1 in UniPAD. For pre-trained weights."""
    layer_scale: float = 1e-6
    """First value of the learnt scale of a block."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from colours in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """What they are divided by then."""
    weights: str = ""
    """File to start from: of timm, torchvision, MMPretrain or the paper's authors; empty: from scratch."""

    def __post_init__(self):
        depths, dims = self.stages()
        if len(depths) != len(dims) or min((*depths, *dims), default=0) < 1:
            raise ValueError(f"ConvNeXtConfig: depths {depths} and dims {dims} must be as many, and positive")
        stages = self.out_stages
        if not stages or list(stages) != sorted(set(stages)) or not 0 <= stages[0] <= stages[-1] < len(depths):
            raise ValueError(f"ConvNeXtConfig.out_stages: {stages} are no ascending stages of {len(depths)}")
        if not 0 <= self.frozen_stages <= stages[-1] + 1:
            raise ValueError(f"ConvNeXtConfig.frozen_stages: {self.frozen_stages} of {stages[-1] + 1} stages")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"ConvNeXtConfig.drop_path must lie in [0, 1), it is {self.drop_path}")

    def stages(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Blocks and channels of each stage."""
        depths, dims = _SIZES[self.size]
        return self.depths or depths, self.dims or dims

    def build(self) -> "ConvNeXt":
        """A freshly initialised network."""
        return ConvNeXt(self)


class ConvNeXt(ImageBackbone):
    """The network."""

    masks = True

    def __init__(self, config: ConvNeXtConfig):
        super().__init__(config.mean, config.std)
        self.config = config
        depths, dims = config.stages()
        num = config.out_stages[-1] + 1
        self.channels = tuple(dims[stage] for stage in config.out_stages)
        self.strides = tuple(4 << stage for stage in config.out_stages)
        self.multiple = 4 << (num - 1)
        blocks = sum(depths)  # of all stages, built or not
        rates = [config.drop_path * block / max(blocks - 1, 1) for block in range(blocks)]
        self.stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), _Norm(dims[0]))
        self.stages = nn.ModuleList()
        for stage in range(num):
            first = sum(depths[:stage])
            own = rates[first : first + depths[stage]]
            before = dims[stage - 1] if stage else 0
            self.stages.append(_Stage(before, dims[stage], own, config.layer_scale))
        self.norms = nn.ModuleDict({str(stage): _Norm(dims[stage]) for stage in config.out_stages})
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        self.frozen = [self.stem, *self.stages[: config.frozen_stages]] if config.frozen_stages else []
        for part in self.frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> "ConvNeXt":
        """Training or evaluation mode; frozen stages leave no block out in either."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def features(self, x: Float[Tensor, "N 3 H W"], mask: PatchMask | None) -> tuple[Float[Tensor, "N _ _ _"], ...]:
        """Maps of ``out_stages``."""
        x = _seen(x, mask, 1)
        x = self.stem(x)
        maps = []
        for number, stage in enumerate(self.stages):
            assert isinstance(stage, _Stage)
            x = stage(x, mask, 4 << number)
            if str(number) in self.norms:
                maps.append(_seen(self.norms[str(number)](x), mask, 4 << number))
        return tuple(maps)

    def load(self, path: Path | str) -> LeftOut:
        """Take the weights of a file of timm, torchvision, MMPretrain or the paper's authors, or of one's own."""
        weights, left_out = convnext_weights(read_weights(path), self.config.out_stages, str(path))
        # Norms of maps are nobody's: those of classifiers are for the mean of a map.
        load_into(self, weights, str(path), own=("norms.",))
        return left_out


class _Stage(nn.Module):
    def __init__(self, before: int, dim: int, rates: list[float], scale: float):
        super().__init__()
        self.downsample = nn.Sequential(_Norm(before), nn.Conv2d(before, dim, 2, stride=2)) if before else None
        self.blocks = nn.ModuleList([_Block(dim, rate, scale) for rate in rates])

    def forward(self, x: Tensor, mask: PatchMask | None, stride: int) -> Tensor:
        """Maps of this stage, whose pixels are ``stride`` of the image's; what ``mask`` hides stays 0."""
        if self.downsample is not None:
            norm, conv = self.downsample
            x = conv(_seen(norm(x), mask, stride // 2))
        # The biases of what came before.
        seen = None if mask is None else mask.cells((x.shape[2], x.shape[3]), stride).to(x.dtype)
        x = x if seen is None else x * seen
        for block in self.blocks:
            x = block(x)
            x = x if seen is None else x * seen
        return x


class _Block(nn.Module):
    def __init__(self, dim: int, rate: float, scale: float):
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.expand = nn.Linear(dim, 4 * dim)
        self.reduce = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))
        self.rate = rate

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.reduce(F.gelu(self.expand(y))) * self.gamma
        if self.training and self.rate:
            keep = torch.rand(len(y), 1, 1, 1, device=y.device) >= self.rate
            y = y * keep.to(y.dtype) / (1 - self.rate)
        return x + y.permute(0, 3, 1, 2)


class _Norm(nn.LayerNorm):
    """Layer norm over the channels of each cell."""

    def __init__(self, dim: int):
        super().__init__(dim, eps=_EPS)

    def forward(self, input: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _seen(x: Float[Tensor, "N C h w"], mask: PatchMask | None, stride: int) -> Float[Tensor, "N C h w"]:
    """Zero in hidden patches."""
    return x if mask is None else x * mask.cells((x.shape[2], x.shape[3]), stride).to(x.dtype)
