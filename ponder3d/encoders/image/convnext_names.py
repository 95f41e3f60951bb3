"""Names of a ConvNeXt's weights in files of timm, torchvision, MMPretrain and the paper's authors, and of this library.

Names and their order are facts about those files; a name that is neither translated nor left out for a reason is an
error.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.image.backbone import LeftOut

_PREFIXES = ("backbone.", "img_backbone.")

_BLOCK = {
    "conv_dw": "depthwise",
    "dwconv": "depthwise",
    "depthwise_conv": "depthwise",
    "depthwise": "depthwise",
    "norm": "norm",
    "mlp.fc1": "expand",
    "pwconv1": "expand",
    "pointwise_conv1": "expand",
    "expand": "expand",
    "mlp.fc2": "reduce",
    "pwconv2": "reduce",
    "pointwise_conv2": "reduce",
    "reduce": "reduce",
}
_NUMBERED = {"0": "depthwise", "2": "norm", "3": "expand", "5": "reduce"}
"""torchvision's block is a sequence, with permutations and the activation between."""

_HEADS = re.compile(r"(norm|head|fc|classifier|norm_pre)[.\d]")
_STEM = re.compile(r"(?:stem|downsample_layers\.0|features\.0)\.([01])\.(weight|bias)")
_DOWN = re.compile(r"(?:stages\.(\d+)\.downsample|downsample_layers\.(\d+))\.([01])\.(weight|bias)")
_OF_BLOCK = re.compile(r"stages\.(\d+)\.(?:blocks\.)?(\d+)\.(?:(.+)\.(weight|bias)|(gamma))")
_NUMBERED_DOWN = re.compile(r"features\.(\d+)\.([01])\.(weight|bias)")
_NUMBERED_BLOCK = re.compile(r"features\.(\d+)\.(\d+)\.(?:block\.(\d)\.(weight|bias)|(layer_scale))")
_OWN_NORM = re.compile(r"norms\.(\d+)\.(weight|bias)")


def convnext_weights(
    found: Mapping[str, Tensor], out_stages: Sequence[int], name: str
) -> tuple[dict[str, Tensor], LeftOut]:
    """Weights by the names of ``encoders.image.convnext``, and what of a file is left out.

    Args:
        found: tensors of the file.
        out_stages: whose maps the network returns; later stages are left out.
        name: of the file.

    Raises:
        EncoderFileError: a name that no ConvNeXt has.
    """
    prefix = next((p for p in _PREFIXES if found and all(key.startswith(p) for key in found)), "")
    weights: dict[str, Tensor] = {}
    counts = {"head": 0, "stages": 0, "norms": 0}
    for key, value in found.items():
        ours = _translated(key.removeprefix(prefix))
        if ours is None:
            raise EncoderFileError(f"{name}: {key} is no name of a ConvNeXt's weights; nothing has been loaded")
        head, _, rest = ours.partition(".")
        number = int(rest.split(".")[0]) if head in ("stages", "norms") else 0
        if head == "head" or (head == "stages" and number > max(out_stages)):
            counts[head] += 1
        elif head == "norms" and number not in out_stages:
            counts["norms"] += 1
        else:
            weights[ours] = value.flatten() if ours.endswith("gamma") else value
    reasons = {
        "head": "it is for classes, and its norm for the mean of a map",
        "stages": "no map of so late a stage is returned",
        "norms": "their maps are not returned",
    }
    return weights, {group: (count, reasons[group]) for group, count in counts.items() if count}


def _translated(key: str) -> str | None:
    """Our name of a weight; ``head`` for what belongs to a classifier; None if it is unknown."""
    if match := _STEM.fullmatch(key):
        return f"stem.{match[1]}.{match[2]}"
    if match := _DOWN.fullmatch(key):
        return f"stages.{match[1] or match[2]}.downsample.{match[3]}.{match[4]}"
    if match := _OF_BLOCK.fullmatch(key):
        part = "gamma" if match[5] else _BLOCK.get(match[3])
        return None if part is None else f"stages.{match[1]}.blocks.{match[2]}.{_joined(part, match[4])}"
    if match := _NUMBERED_BLOCK.fullmatch(key):
        part = "gamma" if match[5] else _NUMBERED.get(match[3])
        odd = int(match[1]) % 2 == 1
        return f"stages.{int(match[1]) // 2}.blocks.{match[2]}.{_joined(part, match[4])}" if odd and part else None
    if match := _NUMBERED_DOWN.fullmatch(key):
        return None if int(match[1]) % 2 else f"stages.{int(match[1]) // 2}.downsample.{match[2]}.{match[3]}"
    if _OWN_NORM.fullmatch(key):
        return key
    return "head" if _HEADS.match(key) else None


def _joined(part: str, kind: str | None) -> str:
    return f"{part}.{kind}" if kind else part
