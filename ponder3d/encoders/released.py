"""Weights that PonderV2 and Pointcept released, as encoders of this library.

Read are checkpoints with a SparseUNet (SpUNet-v1m1, v1m2, v1m3) in them: by itself, in the pre-training model
(PonderIndoor-v2), and in segmentation models (DefaultSegmentor, PPT-v1m1, PPT-v1m2, PG-v1m1). Every name in a file is
used, or listed with the reason why not; one that is neither is an error, and nothing is loaded then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.norms import NormConfig, PlainNormConfig, PromptNormConfig
from ponder3d.encoders.released_file import file_digest, read_state
from ponder3d.encoders.released_heads import (
    TABLE_ORDER,
    DecoupledHead,
    Head,
    LinearHead,
    final_head,
    language_head,
    linear_head,
)
from ponder3d.encoders.released_names import Structure, check, convert, is_stem, read_structure
from ponder3d.encoders.sparse_unet import SparseUNet, SparseUNetConfig
from ponder3d.types.scene import INPUT_CHANNELS

CONVERTER = 1
"""Version of what is done to weights on their way."""
BACKBONE_ORDER = ("ScanNet", "S3DIS", "Structured3D")
"""Conditions in the order of the batch norms of a backbone with three."""
_INPUTS = {6: ("rgb", "normal"), 4: ("xyz", "intensity"), 3: ("rgb",)}
_WITHIN = ("", "backbone.", "backbone.backbone.")
"""Where a backbone may be within a model."""
_OWN = ("conv_input.", "down.", "enc.", "up.", "dec.", "final.")
_LANGUAGE = ("proj_head.weight", "proj_head.bias", "class_embedding", "logit_scale")
_TABLE = "embedding_table.weight"

_LEFT_OUT: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("renderer", ("renderer.",), "it serves pre-training only"),
    ("projection network", ("proj_net.",), "it serves pre-training only"),
    ("mask token", ("mtoken", "mask_token"), "it serves pre-training only"),
    ("colour and normal heads", ("color_head.", "normal_head."), "they serve pre-training only"),
    ("prompts", (_TABLE,), "this backbone does not read them"),
    ("offset head", ("bias_head.",), "it serves PointGroup's instances, which are not computed here"),
)
"""What is in a model beside its backbone and head: how it is called, how its names begin, and why it is not used."""


@dataclass(frozen=True)
class Released:
    """What was found in a checkpoint."""

    encoder: SparseUNet
    """In evaluation mode."""
    kind: str
    """The model, as its makers call it, and the backbone."""
    head: Head | None
    """The head that gives classes of points; None if there is none that was trained."""
    used: tuple[str, ...]
    """Names in the file that went into encoder and head."""
    left_out: dict[str, tuple[int, str]]
    """What did not: number of names and the reason, by group."""
    untrained: tuple[str, ...]
    """Conditions whose batch norms have seen no batch: their features mean nothing."""
    sha256: str
    """Of the file."""

    def card(self, source: str) -> dict[str, Any]:
        """What goes with the encoder wherever it goes: the file that it is from, and what of that was not used."""
        return {
            "source": source,
            "source_sha256": self.sha256,
            "kind": self.kind,
            "left_out": {group: list(told) for group, told in self.left_out.items()},
            "untrained": list(self.untrained),
            "converter": CONVERTER,
        }


def read_released(
    path: Path | str,
    grid_size: float = 0.02,
    conditions: Sequence[str] = (),
    eps: float = 1e-3,
    momentum: float = 0.01,
    inputs: Sequence[str] = (),
    table: Sequence[str] = (),
) -> Released:
    """Read a checkpoint of PonderV2 or Pointcept; nothing in it is run.

    What the names and shapes of its weights do not say are arguments, whose defaults are those of PonderV2.

    Args:
        path: the file.
        grid_size: metres; edge of the voxels it was trained with. 0.02 in all of PonderV2; 0.05 in Pointcept's S3DIS.
        conditions: of a backbone that tells conditions apart, their names in the order of its batch norms. Empty: for
            three ``BACKBONE_ORDER``, for one "released".
        eps: added to the variance in batch norms; 1e-5 for SpUNet-v1m2.
        momentum: weight of new statistics in further training; 0.1 for SpUNet-v1m2.
        inputs: point channels that it reads. Empty: colour and normal where it has six, colour where it has three,
            coordinates and intensity where it has four (nuScenes); coordinates and colour where it has six and the head
            of a plain model tells S3DIS's 13 classes (Pointcept's from scratch). Coordinates are in the frame of its
            training: of the laser for nuScenes, of a room whose middle is at x = y = 0 and whose floor at z = 0.
        table: conditions in the order of the rows of ``embedding_table``; empty: ``TABLE_ORDER`` for its three names.

    Raises:
        OSError: the file cannot be read.
        EncoderFileError: it is damaged, holds code, or holds something else; weights are missing, unknown or of another
            shape; or the arguments do not fit it.
    """
    path = Path(path)
    where, model = str(path), _taken_apart(read_state(path), str(path))
    structure = read_structure(model.backbone, where)
    names = _names(structure, model.rest, conditions, where)
    in_head = [name for name in ("final.weight", "final.bias") if name in model.backbone]
    weights, of_backbone = convert(model.backbone, structure, in_head, where)
    of_rest: set[str] = set()
    if structure.norms.prompt_channels:
        weights["prompts.weight"] = _prompts(model.rest, structure, names, table, where)
        of_rest.add(_TABLE)
    head, of_head = _head(model, structure.channels[-1], names, table, where)
    if in_head:
        of_backbone |= of_head
    else:
        of_rest |= of_head
    left_out = _left_out(set(model.backbone) - of_backbone, set(model.rest) - of_rest, model.pretraining, where)
    config = SparseUNetConfig(
        inputs=_inputs(structure, inputs, head, where),
        grid_size=grid_size,
        stem_channels=structure.stem_channels,
        stem_kernel=structure.stem_kernel,
        channels=structure.channels,
        blocks=structure.blocks,
        norm_eps=eps,
        norm_momentum=momentum,
        norm=_norm_config(structure, names),
    )
    encoder = config.build()
    encoder.load_state_dict(weights)  # every name and shape has been checked against the file
    used = {model.prefix + name for name in of_backbone} | {model.full[name] for name in of_rest}
    kind, untrained = _kind(model, structure), _untrained(model.backbone, structure, names)
    return Released(encoder.eval(), kind, head, tuple(sorted(used)), left_out, untrained, file_digest(path))


@dataclass(frozen=True)
class _Model:
    """A model taken apart."""

    prefix: str
    """What stands before the names of the backbone."""
    backbone: dict[str, Tensor]
    rest: dict[str, Tensor]
    """Everything else, by the names it has in the model that is directly around the backbone."""
    full: dict[str, str]
    """Name in the file of everything in ``rest``."""

    @property
    def pretraining(self) -> bool:
        """Whether it is a model for pre-training by rendering."""
        return _has(self.rest, "renderer.")


def _taken_apart(state: Mapping[str, Tensor], where: str) -> _Model:
    stems = [name for name in state if is_stem(name)]
    prefix = stems[0].removesuffix("0.weight").removesuffix("conv.weight").removesuffix("conv_input.") if stems else ""
    if len(stems) != 1 or prefix not in _WITHIN:
        found = f"{len(stems)} of them" if len(stems) > 1 else f"one at {stems[0]}" if stems else "none"
        some = ", ".join(sorted(state)[:3])
        raise EncoderFileError(
            f"{where}: no model with one SparseUNet of PonderV2 (SpUNet): its first convolution, conv_input, is looked "
            f"for at the top, in backbone and in backbone.backbone, and there is {found}; the first names are {some}"
        )
    beginnings = tuple(prefix + own for own in _OWN)
    backbone = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(beginnings)}
    around = prefix.removesuffix("backbone.")
    full = {name.removeprefix(around): name for name in state if not name.startswith(beginnings)}
    return _Model(prefix, backbone, {name: state[path] for name, path in full.items()}, full)


def _kind(model: _Model, structure: Structure) -> str:
    """The model and its backbone, e.g. "PPT-v1m1 of SpUNet-v1m3"."""
    backbone = "SpUNet-v1m3" if structure.norms.wrapped else "SpUNet-v1m1"
    if not model.prefix:
        return backbone
    if model.pretraining:
        return f"PonderIndoor-v2 of {backbone}"
    if _has(model.rest, "color_head."):
        return f"MSC-v1m1 of {backbone}"
    if _has(model.rest, "seg_heads."):
        return f"PPT-v1m2 of {backbone}"
    if _has(model.rest, "class_embedding"):
        return f"PPT-v1m1 of {backbone}"
    if model.prefix == "backbone.":
        backbone, around = (f"PPT of {backbone}", "") if _TABLE in model.rest else (backbone, "DefaultSegmentor")
    else:
        backbone, around = f"PPT of {backbone}", "DefaultSegmentor"
    around = "PG-v1m1" if _has(model.rest, "bias_head.") else around
    return f"{around} of {backbone}" if around else backbone


def _names(structure: Structure, rest: Mapping[str, Tensor], given: Sequence[str], where: str) -> tuple[str, ...]:
    """The conditions of a backbone, in the order of its batch norms; of its heads, if only they tell them apart."""
    count = structure.norms.conditions
    if not count and structure.norms.prompt_channels and _TABLE in rest:
        count = len(rest[_TABLE])
    if not count:
        count = len({name.split(".")[1] for name in rest if name.startswith("seg_heads.")})
    if given:
        if len(given) != count or len(set(given)) != count:
            raise EncoderFileError(f"{where}: it tells {count} conditions apart, not those named: {', '.join(given)}")
        return tuple(given)
    if count not in (0, 1, len(BACKBONE_ORDER)):
        raise EncoderFileError(
            f"{where}: it tells {count} conditions apart; name them in the order of its batch norms (--conditions)"
        )
    return {0: (), 1: ("released",)}.get(count, BACKBONE_ORDER)


def _untrained(backbone: Mapping[str, Tensor], structure: Structure, names: tuple[str, ...]) -> tuple[str, ...]:
    """The conditions whose batch norms have counted no batch.

    Pointcept's models for ScanNet, alone and with Structured3D, have batch norms for S3DIS, too.
    """
    rows = range(structure.norms.conditions)
    counters = [backbone.get(f"conv_input.bn.bns.{k}.num_batches_tracked") for k in rows]
    return tuple(name for name, n in zip(names, counters, strict=False) if n is not None and int(n) == 0)


def _table_order(names: tuple[str, ...], given: Sequence[str], where: str) -> tuple[str, ...]:
    """The conditions in the order of the rows of ``embedding_table`` and of ``seg_heads``."""
    if given:
        if sorted(given) != sorted(names):
            raise EncoderFileError(f"{where}: the table's order ({', '.join(given)}) is not one of {', '.join(names)}")
        return tuple(given)
    if len(names) == 1:
        return names
    if set(names) != set(TABLE_ORDER):
        raise EncoderFileError(
            f"{where}: conditions {', '.join(names)}: say in which order the model around the backbone has them "
            "(--table)"
        )
    return TABLE_ORDER


def _prompts(
    rest: Mapping[str, Tensor], structure: Structure, names: tuple[str, ...], table: Sequence[str], where: str
) -> Tensor:
    """The table of prompts, its rows in the order of the batch norms."""
    if _TABLE not in rest:
        raise EncoderFileError(
            f"{where}: {_TABLE} is missing, the prompts that the norms of this backbone need: it is in the checkpoint "
            "of the whole model"
        )
    prompts = check(rest[_TABLE], [len(names), structure.norms.prompt_channels], _TABLE, where)
    order = _table_order(names, table, where)
    return prompts.float()[[order.index(name) for name in names]]


def _head(
    model: _Model, channels: int, names: tuple[str, ...], table: Sequence[str], where: str
) -> tuple[Head | None, set[str]]:
    """The head, and the names it was made from."""
    rest = model.rest
    if _whole("final", model.backbone, where):
        return final_head(model.backbone, channels, where), {"final.weight", "final.bias"}
    if _has(rest, "seg_heads."):
        used = {f"seg_heads.{k}.{part}" for k in range(len(names)) for part in ("weight", "bias")}
        if missing := sorted(used - set(rest)):
            raise EncoderFileError(f"{where}: {missing[0]} is missing, of a head for each of {', '.join(names)}")
        order = _table_order(names, table, where)
        heads = {name: linear_head(rest, f"seg_heads.{k}", channels, where) for k, name in enumerate(order)}
        return DecoupledHead(tuple((name, heads[name]) for name in names)), used
    if _whole("seg_head", rest, where):
        return linear_head(rest, "seg_head", channels, where), {"seg_head.weight", "seg_head.bias"}
    if _has(rest, "class_embedding") and not model.pretraining:
        if missing := [name for name in _LANGUAGE if name not in rest]:
            raise EncoderFileError(f"{where}: {missing[0]} is missing, a part of the head")
        return language_head(rest, channels, where), set(_LANGUAGE)
    return None, set()


def _whole(name: str, weights: Mapping[str, Tensor], where: str) -> bool:
    """Whether a linear head is there, with weight and bias."""
    present = [part for part in ("weight", "bias") if f"{name}.{part}" in weights]
    if len(present) == 1:
        raise EncoderFileError(f"{where}: of the head {name} only the {present[0]} is there")
    return bool(present)


def _left_out(backbone: set[str], rest: set[str], pretraining: bool, where: str) -> dict[str, tuple[int, str]]:
    """Number of names and the reason, by group.

    Raises:
        EncoderFileError: a name belongs to nothing that is known.
    """
    found = {}
    if backbone:
        found["counters of batches"] = (len(backbone), "the weight of new statistics is constant")
    text = ("text head", _LANGUAGE, "the loss that would have trained it was left out of the total")
    for group, beginnings, reason in (*_LEFT_OUT, text) if pretraining else _LEFT_OUT:
        members = {name for name in rest if name.startswith(beginnings)}
        if members:
            found[group] = (len(members), reason)
            rest = rest - members
    if rest:
        unknown = sorted(rest)
        raise EncoderFileError(
            f"{where}: {len(unknown)} unknown beside the backbone (first: {unknown[0]}): a model of another kind"
        )
    return found


def _inputs(structure: Structure, given: Sequence[str], head: Head | None, where: str) -> tuple[str, ...]:
    """The point channels it reads."""
    count = structure.in_channels
    if given:
        try:
            channels = sum(INPUT_CHANNELS[name] for name in given)
        except KeyError as error:
            raise EncoderFileError(f"{where}: no point input {error}; known are {', '.join(INPUT_CHANNELS)}") from None
        if channels != count:
            raise EncoderFileError(
                f"{where}: its first convolution reads {count} channels; {', '.join(given)} are {channels}"
            )
        return tuple(given)
    if count not in _INPUTS:
        raise EncoderFileError(
            f"{where}: its first convolution reads {count} channels; known are 6 (colour and normal), 4 (coordinates "
            "and intensity) and 3 (colour). Say which it reads (--inputs)"
        )
    if count == 6 and not structure.norms.wrapped and isinstance(head, LinearHead) and len(head.bias) == 13:
        return ("xyz", "rgb")
    return _INPUTS[count]


def _norm_config(structure: Structure, names: tuple[str, ...]) -> NormConfig:
    norms = structure.norms
    if not norms.prompted:
        return PlainNormConfig()
    adaptive = norms.prompt_channels > 0
    return PromptNormConfig(names, norms.conditions > 0, adaptive, norms.prompt_channels or 256)


def _has(names: Mapping[str, Tensor], beginning: str) -> bool:
    return any(name.startswith(beginning) for name in names)
