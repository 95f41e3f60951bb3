"""What a network on images is: the contract of backbones."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.encoders.image.masking import PatchMask

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LeftOut = dict[str, tuple[int, str]]
"""What of a file of weights was not used: number of names and the reason, by group."""


class ImageBackboneConfig(Config, ABC):
    """Choices of a backbone. Every leaf has the field below among its own."""

    weights: str
    """File of weights to start from; empty: from scratch. It is read when a run begins (``Encoder.start``), and by
    nobody afterwards: checkpoints and encoder files hold what was made of it."""

    @abstractmethod
    def build(self) -> "ImageBackbone":
        """A freshly initialised backbone; reads no file."""


class ImageBackbone(nn.Module, ABC):
    """Images in, feature maps out, from fine to coarse.

    A map of stride s covers the image padded to a multiple of ``multiple``: its cell (i, j) is at the pixel
    ``((j + 0.5) s - 0.5, (i + 0.5) s - 0.5)``.
    """

    channels: tuple[int, ...]
    """Of each map."""
    strides: tuple[int, ...]
    """Pixels per cell of each map."""
    multiple: int
    """Images are padded to a multiple of so many pixels, to the right and below, with the mean colour."""
    masks: bool = False
    """Whether it can keep hidden pixels out of the features of the others."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None], persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(
        self, images: Float[Tensor, "N 3 H W"], mask: PatchMask | None = None
    ) -> tuple[Float[Tensor, "N _ _ _"], ...]:
        """Maps of images with colours in [0, 1].

        Args:
            images: RGB.
            mask: which patches are seen, of a multiple of the coarsest stride; None: all.

        Returns:
            A map per stride; 0 where the cell lies in a hidden patch. No other value depends on hidden pixels.

        Raises:
            ValueError: patches of a backbone that cannot hide any.
        """
        if mask is not None and not self.masks:
            raise ValueError(f"{type(self).__name__} cannot hide patches of images; set masking.ratio to 0")
        height, width = images.shape[2:]
        x = (images - self.mean) / self.std
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        return self.features(x.contiguous(memory_format=torch.channels_last), mask)

    @abstractmethod
    def features(self, x: Float[Tensor, "N 3 H W"], mask: PatchMask | None) -> tuple[Float[Tensor, "N _ _ _"], ...]:
        """Maps of normalised and padded images."""

    @abstractmethod
    def load(self, path: Path | str) -> LeftOut:
        """Take the weights of a file (.safetensors, or .pth of ``torch.save``), of which nothing is run.

        Every name in the file is used, or among what is returned with the reason, or an error; nothing is loaded then.

        Raises:
            OSError: there is no such file, or it cannot be read.
            EncoderFileError: it is damaged, or holds weights of something else.
        """
