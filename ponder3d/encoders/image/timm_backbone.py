"""Any network of timm (PyTorch Image Models) that gives feature maps, where timm is installed."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.image.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageBackbone,
    ImageBackboneConfig,
    LeftOut,
)
from ponder3d.encoders.image.masking import PatchMask
from ponder3d.encoders.image.weights import load_into, read_weights

_HEADS = re.compile(r"(head|head_drop|fc|classifier|norm|norm_pre|conv_head|bn2|fc_norm)\.")
"""How names of what stands behind the last map begin."""


@dataclass(frozen=True)
class TimmConfig(ImageBackboneConfig):
    """Choices of a network of timm. Nothing is downloaded: ``weights`` is a file on this machine. It cannot hide
    patches of images; ``ConvNeXtConfig`` can."""

    name: str = "resnet50"
    """Its name in timm."""
    out_indices: tuple[int, ...] = (-1,)
    """Which of its maps are returned, by timm's numbers; negative ones count from the end."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from colours in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """What they are divided by then."""
    weights: str = ""
    """File of timm to start from (model.safetensors, pytorch_model.bin); empty: from scratch."""

    def build(self) -> "TimmBackbone":
        """The network with random weights.

        Raises:
            ValueError: timm is not there, or does not know the name.
        """
        return TimmBackbone(self)


class TimmBackbone(ImageBackbone):
    """A network of timm."""

    def __init__(self, config: TimmConfig):
        super().__init__(config.mean, config.std)
        try:
            timm = importlib.import_module("timm")
        except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises the latter
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"TimmConfig: timm cannot be imported ({reason}); pip install 'ponder3d[images]', with the torchvision "
                "that goes with your torch, or take a ConvNeXtConfig"
            ) from error
        try:
            self.net: Any = timm.create_model(
                config.name, pretrained=False, features_only=True, out_indices=config.out_indices
            )
        except (RuntimeError, ValueError, AttributeError, AssertionError, IndexError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"TimmConfig: timm makes no maps of {config.name!r} ({reason})") from error
        self.channels = tuple(self.net.feature_info.channels())
        self.strides = tuple(self.net.feature_info.reduction())
        self.multiple = max(self.strides)

    def features(self, x: Float[Tensor, "N 3 H W"], mask: PatchMask | None) -> tuple[Float[Tensor, "N _ _ _"], ...]:
        """Maps of ``out_indices``."""
        return tuple(self.net(x))

    def load(self, path: Path | str) -> LeftOut:
        """Take the weights of a file of timm for a network of this name, its classifier left out."""
        found = read_weights(path)
        # A network of maps has stages_0 where the whole one has stages.0.
        names = {}
        for name in self.net.state_dict():
            first, *rest = name.split(".")
            names[name if name in found else ".".join([first.replace("_", ".", 1), *rest])] = name
        weights = {names[key]: value for key, value in found.items() if key in names}
        rest = sorted(key for key in found if key not in names)
        strange = [key for key in rest if not _HEADS.match(key)]
        if strange:
            raise EncoderFileError(
                f"{path}: {strange[0]} is in no part of {type(self.net).__name__}; nothing has been loaded. Is the "
                "name right?"
            )
        load_into(self.net, weights, str(path))
        return {"head": (len(rest), "it is for classes")} if rest else {}
