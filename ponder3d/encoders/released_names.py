"""Names and layouts of the weights of PonderV2's SparseUNets (SpUNet-v1m1, v1m2 and v1m3), and their way into ours.

The structure is read off names and shapes. spconv stores a convolution as ``[out, x, y, z, in]`` since its version
2.2; before, as ``[x, y, z, in, out]`` or ``[x, y, z, out, in]``. Where a kernel has one tap, spconv takes the numbers
as they lie for a matrix ``[in, out]``, whatever the shape says: not transposed, reinterpreted.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ponder3d.encoders.encoder import EncoderFileError

_LAYOUTS = {
    "out x y z in": (1, 2, 3, 4, 0),
    "x y z in out": (0, 1, 2, 3, 4),
    "x y z out in": (0, 1, 2, 4, 3),
}
"""How the axes of a stored weight are permuted to x, y, z, in, out."""


@dataclass(frozen=True)
class Norms:
    """What stands behind the name of a norm."""

    conditions: int = 0
    """Number of conditions that have statistics of their own (``bns.0``, ``bns.1``, ...); 0: one for all."""
    prompt_channels: int = 0
    """Inputs of the linear function of the prompt (``modulation.1``); 0: there is none."""
    wrapped: bool = False
    """Whether a norm is a module with batch norms in it (v1m3, which names the parts of modules), or a batch norm
    itself (v1m1, which numbers them)."""
    affine: bool = True
    """Whether it has scale and shift."""

    @property
    def prompted(self) -> bool:
        """Whether the norms tell conditions apart."""
        return self.conditions > 0 or self.prompt_channels > 0

    def parts(self) -> list[str]:
        """Where the batch norms are, below the name of the norm; each with its point."""
        return [f"bns.{k}." for k in range(self.conditions)] or ["bn." if self.wrapped else ""]


@dataclass(frozen=True)
class Structure:
    """What the names and shapes say about a SparseUNet."""

    in_channels: int
    stem_channels: int
    stem_kernel: int
    channels: tuple[int, ...]
    """As ``SparseUNetConfig.channels``: encoder, then decoder from deep to shallow."""
    blocks: tuple[int, ...]
    norms: Norms
    layout: str

    @property
    def stages(self) -> int:
        """Number of stages of the encoder, and of the decoder."""
        return len(self.channels) // 2


@dataclass(frozen=True)
class _Conv:
    ours: str
    theirs: str
    kernel: int
    """Taps along an edge; 1 becomes a matrix."""
    in_channels: int
    out_channels: int

    def shape(self, layout: str) -> list[int]:
        permuted = [self.kernel] * 3 + [self.in_channels, self.out_channels]
        return [permuted[_LAYOUTS[layout].index(axis)] for axis in range(5)]


@dataclass(frozen=True)
class _Norm:
    ours: str
    theirs: str
    channels: int


def _modules(structure: Structure) -> tuple[list[_Conv], list[_Norm]]:
    """All convolutions and norms: ours from the finest voxels down and up again, theirs by stage from fine to deep."""
    named = structure.norms.wrapped
    conv, norm = ("conv", "bn") if named else ("0", "1")
    project, project_norm = ("proj_conv", "proj_norm") if named else ("proj.0", "proj.1")
    s, stem = structure, structure.stem_channels
    convs = [_Conv("stem.conv.weight", f"conv_input.{conv}.weight", s.stem_kernel, s.in_channels, stem)]
    norms = [_Norm("stem.norm", f"conv_input.{norm}", stem)]

    def between(ours: str, theirs: str, inner: int, outer: int) -> None:
        convs.append(_Conv(f"{ours}.conv.weight", f"{theirs}.{conv}.weight", 2, inner, outer))
        norms.append(_Norm(f"{ours}.norm", f"{theirs}.{norm}", outer))

    def stage(ours: str, theirs: str, inner: int, outer: int, blocks: int) -> None:
        for i in range(blocks):
            for n, width in ((1, inner), (2, outer)):
                convs.append(_Conv(f"{ours}.{i}.conv{n}.weight", f"{theirs}.block{i}.conv{n}.weight", 3, width, outer))
                norms.append(_Norm(f"{ours}.{i}.norm{n}", f"{theirs}.block{i}.bn{n}", outer))
            if inner != outer:
                path = f"{theirs}.block{i}"
                convs.append(_Conv(f"{ours}.{i}.skip.0.weight", f"{path}.{project}.weight", 1, inner, outer))
                norms.append(_Norm(f"{ours}.{i}.skip.1", f"{path}.{project_norm}", outer))
            inner = outer

    widths = (stem, *s.channels[: s.stages])
    for n in range(s.stages):
        between(f"down.{n}", f"down.{n}", widths[n], widths[n + 1])
        stage(f"enc.{n}", f"enc.{n}", widths[n + 1], widths[n + 1], s.blocks[n])
    below = widths[-1]
    for n, width in enumerate(s.channels[s.stages :]):
        fine = s.stages - 1 - n
        between(f"up.{n}", f"up.{fine}", below, width)
        stage(f"dec.{n}", f"dec.{fine}", width + widths[fine], width, s.blocks[s.stages + n])
        below = width
    return convs, norms


def is_stem(name: str) -> bool:
    """Whether a name is that of the first convolution's weight, whatever stands before it."""
    return name.endswith(("conv_input.0.weight", "conv_input.conv.weight"))


def read_structure(weights: Mapping[str, Tensor], where: str) -> Structure:
    """What names and shapes say about a backbone.

    Raises:
        EncoderFileError: something is missing, or has a shape that fits no SparseUNet.
    """
    wrapped = "conv_input.conv.weight" in weights
    stem_norm = "conv_input.bn" if wrapped else "conv_input.1"
    conditions = len(_indices(weights, f"{stem_norm}.bns."))
    inner = f"{stem_norm}.bns.0." if conditions else f"{stem_norm}.bn." if wrapped else f"{stem_norm}."
    modulation = weights.get(f"{stem_norm}.modulation.1.weight")
    prompt_channels = 0 if modulation is None or modulation.dim() != 2 else modulation.shape[1]
    norms = Norms(conditions, prompt_channels, wrapped, affine=f"{inner}weight" in weights)
    part = norms.parts()[0]
    norm = ".bn." if wrapped else ".1."

    def width(module: str) -> int:
        name = f"{module}{norm}{part}running_mean"
        if name not in weights:
            raise EncoderFileError(f"{where}: {name} is missing: the file is not a whole SparseUNet")
        if weights[name].dim() != 1 or not len(weights[name]):
            raise EncoderFileError(f"{where}: {name} has shape {list(weights[name].shape)}, not one number per channel")
        return len(weights[name])

    stages = len(_indices(weights, "down."))
    if not stages:
        raise EncoderFileError(f"{where}: a first convolution (conv_input), but no down.0: no SparseUNet of PonderV2")
    deep_to_shallow = range(stages - 1, -1, -1)
    stem = width("conv_input")
    channels = [width(f"down.{n}") for n in range(stages)] + [width(f"up.{n}") for n in deep_to_shallow]
    blocks = [len(_indices(weights, f"enc.{n}.block")) for n in range(stages)]
    blocks += [len(_indices(weights, f"dec.{n}.block")) for n in deep_to_shallow]
    blocks = [max(1, n) for n in blocks]  # one that is not there is then missed by its name
    in_channels, kernel = 0, 1  # to be read with the layout, which the other convolutions tell
    draft = Structure(in_channels, stem, kernel, tuple(channels), tuple(blocks), norms, "")
    layout = _layout(weights, _modules(draft)[0][1:], where)
    name = f"conv_input.{'conv' if wrapped else '0'}.weight"
    shape = list(weights[name].shape)
    if len(shape) == 5:
        kernel, *others, in_channels, out = (shape[axis] for axis in _LAYOUTS[layout])
        if others == [kernel, kernel] and kernel % 2 and out == stem and in_channels:
            return Structure(in_channels, stem, kernel, tuple(channels), tuple(blocks), norms, layout)
    raise EncoderFileError(
        f"{where}: {name} has shape {shape}, which is no odd kernel to {stem} channels in the layout [{layout}]"
    )


def _layout(weights: Mapping[str, Tensor], convs: Iterable[_Conv], where: str) -> str:
    """The layout that fits all convolutions.

    There is one at most. Layouts look alike where kernel and channels are equal, which they cannot be everywhere: the
    same channels come out of a convolution with 2 and of one with 3 taps along an edge, and the first block of a
    decoder stage has more inputs than outputs.
    """
    possible = list(_LAYOUTS)
    for conv in convs:
        if conv.kernel == 1 or conv.theirs not in weights:
            continue
        shape = list(weights[conv.theirs].shape)
        fitting = [layout for layout in possible if conv.shape(layout) == shape]
        if not fitting:
            expected = " or ".join(str(conv.shape(layout)) for layout in possible)
            raise EncoderFileError(f"{where}: {conv.theirs} has shape {shape}, and not {expected}")
        possible = fitting
    return possible[0]


def convert(
    weights: Mapping[str, Tensor], structure: Structure, head: Iterable[str], where: str
) -> tuple[dict[str, Tensor], set[str]]:
    """The weights of our SparseUNet without its table of prompts, and the names that were used.

    Args:
        weights: those of the backbone.
        structure: ``read_structure`` of them.
        head: names in ``weights`` that belong to a head.
        where: the file, for messages.

    Raises:
        EncoderFileError: names are missing or unknown, a shape is wrong, a value is not finite, or a variance negative.
    """
    convs, norms = _modules(structure)
    of_norms = {norm.theirs: _entries(norm, structure.norms) for norm in norms}
    expected = {conv.theirs for conv in convs} | {name for entries in of_norms.values() for name in entries}
    counters = {name for entries in of_norms.values() for name in entries if name.endswith("num_batches_tracked")}
    missing = sorted(expected - counters - set(weights))  # PyTorch 0.4 kept no counters
    unknown = sorted(set(weights) - expected - set(head))
    if missing or unknown:
        told = [
            f"{len(names)} {what} (first: {names[0]})"
            for names, what in ((missing, "missing"), (unknown, "unknown"))
            if names
        ]
        raise EncoderFileError(f"{where}: its weights are not those of a SparseUNet of PonderV2: {', '.join(told)}")
    for entries in of_norms.values():
        for name, shape in entries.items():
            if name in weights:
                value = check(weights[name], shape, name, where)
                if name.endswith("running_var") and bool((value < 0).any()):
                    raise EncoderFileError(f"{where}: {name} holds negative variances")
    ours: dict[str, Tensor] = {}
    for conv in convs:
        value = check(weights[conv.theirs], conv.shape(structure.layout), conv.theirs, where)
        ours[conv.ours] = _taps(value, conv, structure.layout)
    for norm in norms:
        ours.update(_norm(weights, norm, structure.norms))
    used = expected & set(weights)
    return ours, used - counters if structure.norms.prompted else used


def linear(value: Tensor, in_channels: int) -> Tensor:
    """The matrix [out, in] of a convolution with one tap, which spconv reads as [in, out] in the order of memory."""
    return value.float().contiguous().reshape(in_channels, -1).T.contiguous()


def check(value: Tensor, shape: list[int], name: str, where: str) -> Tensor:
    """The value, if it has this shape (of any size where -1) and is finite in single precision.

    Raises:
        EncoderFileError: it has another, or holds NaN, infinity or what becomes that.
    """
    fits = value.dim() == len(shape) and all(wanted in (-1, n) for wanted, n in zip(shape, value.shape, strict=True))
    if not fits:
        raise EncoderFileError(f"{where}: {name} has shape {list(value.shape)}, and not {shape}")
    if value.is_complex() or not bool(torch.isfinite(value.float()).all()):
        raise EncoderFileError(f"{where}: {name} holds values that are no finite numbers")
    return value


def _taps(value: Tensor, conv: _Conv, layout: str) -> Tensor:
    if conv.kernel == 1:
        return linear(value, conv.in_channels)
    taps = value.float().permute(_LAYOUTS[layout])
    return taps.reshape(conv.kernel**3, conv.in_channels, conv.out_channels).contiguous()


def _entries(norm: _Norm, norms: Norms) -> dict[str, list[int]]:
    """Names and shapes of what a norm has in the file."""
    per_channel = ("running_mean", "running_var") + (("weight", "bias") if norms.affine else ())
    entries: dict[str, list[int]] = {}
    for part in norms.parts():
        entries |= {f"{norm.theirs}.{part}{name}": [norm.channels] for name in per_channel}
        entries[f"{norm.theirs}.{part}num_batches_tracked"] = []
    if norms.prompt_channels:
        entries[f"{norm.theirs}.modulation.1.weight"] = [2 * norm.channels, norms.prompt_channels]
        entries[f"{norm.theirs}.modulation.1.bias"] = [2 * norm.channels]
    return entries


def _norm(weights: Mapping[str, Tensor], norm: _Norm, norms: Norms) -> dict[str, Tensor]:
    """What our norm needs; scale 1 and shift 0 where theirs has none."""

    def rows(name: str, fill: float) -> Tensor:
        found = [weights.get(f"{norm.theirs}.{part}{name}") for part in norms.parts()]
        return torch.stack([torch.full((norm.channels,), fill) if row is None else row.float() for row in found])

    values = {name: rows(name, fill) for name, fill in _FILL.items()}
    if not norms.prompted:
        counter = weights.get(f"{norm.theirs}.{norms.parts()[0]}num_batches_tracked", torch.tensor(0))
        plain = {name: value[0].clone() for name, value in values.items()} | {"num_batches_tracked": counter.clone()}
        return {f"{norm.ours}.norm.{name}": value for name, value in plain.items()}
    if norms.prompt_channels:
        for name in ("weight", "bias"):
            values[f"modulation.{name}"] = weights[f"{norm.theirs}.modulation.1.{name}"].float().clone()
    return {f"{norm.ours}.{name}": value for name, value in values.items()}


_FILL = {"weight": 1.0, "bias": 0.0, "running_mean": math.nan, "running_var": math.nan}


def _indices(names: Iterable[str], start: str) -> set[str]:
    """The different words, up to a point, that follow a beginning."""
    return {name.removeprefix(start).partition(".")[0] for name in names if name.startswith(start)}
