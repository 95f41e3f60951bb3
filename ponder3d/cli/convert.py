"""``ponder3d convert``: encoders and segmentation models of others, and one condition of an encoder."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.files import load_encoder, read_card, save_encoder
from ponder3d.encoders.released import Released, read_released
from ponder3d.encoders.released_file import is_torch_file
from ponder3d.encoders.sparse_unet import SparseUNet
from ponder3d.engine.adopt import adopt
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes.catalogue import find_recipe


@dataclass(frozen=True)
class _ConvertOptions:
    """An encoder from a checkpoint of PonderV2 or Pointcept (.pth), or from a file of ponder3d, into OUT.

    Says what the file holds, what of it went into the encoder and what did not, and why. With --condition, an encoder
    for one of the datasets that a checkpoint was trained on: it has plain norms, gives the same features, and starts
    any recipe with a SparseUNet of the same size (--init).

    With --recipe NAME, a recipe of segmentation whose options may follow, OUT is the directory of a run that ends with
    the released model, its head included: ponder3d evaluate OUT, ponder3d predict OUT.
    """

    file: Annotated[str, tyro.conf.Positional] = ""
    """Checkpoint, encoder file, or the directory of a run."""
    out: Annotated[str, tyro.conf.Positional] = ""
    """File to write, NAME.safetensors; with --recipe, the directory of the run."""
    condition: str = ""
    """Keep what belongs to one condition, and fold it into plain norms."""
    grid_size: float = 0.02
    """Of a checkpoint: edge of the voxels it was trained with, in metres."""
    conditions: tuple[str, ...] = ()
    """Of a checkpoint: names of its conditions, in the order of its batch norms; empty: those of PonderV2."""
    table: tuple[str, ...] = ()
    """Of a checkpoint: its conditions in the order of the model around the backbone; empty: that of PonderV2."""
    inputs: tuple[str, ...] = ()
    """Of a checkpoint: point channels that it reads; empty: rgb normal where it has six, xyz intensity where it has
    four, rgb where it has three, xyz rgb where it is Pointcept's for S3DIS."""
    eps: float = 1e-3
    """Of a checkpoint: what its batch norms add to the variance; 1e-5 for SpUNet-v1m2."""
    momentum: float = 0.01
    """Of a checkpoint: weight of new statistics; 0.1 for SpUNet-v1m2."""


@dataclass(frozen=True)
class _AdoptOptions:
    convert: Annotated[_ConvertOptions, tyro.conf.arg(name="")]
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]


def convert(arguments: list[str]) -> int:
    """``ponder3d convert``."""
    arguments = [part for one in arguments for part in (one.split("=", 1) if one.startswith("--recipe=") else [one])]
    if "--recipe" in arguments:
        return _convert_to_run(arguments)
    o = tyro.cli(_ConvertOptions, args=arguments, prog="ponder3d convert", description=inspect.getdoc(_ConvertOptions))
    _check_places(o)
    source, out = Path(o.file), Path(o.out)
    if out.suffix != ".safetensors":
        raise ValueError(f"convert: {out}: the file to write must be called NAME.safetensors")
    if not out.parent.is_dir():
        raise ValueError(f"convert: {out.parent} is no directory")
    if source.is_file() and is_torch_file(source):
        released = _read(o)
        encoder, card = released.encoder, released.card(source.name)
    else:
        loaded = load_encoder(source)
        _check_left_alone(o)
        if not isinstance(loaded, SparseUNet):
            raise EncoderFileError(f"{source}: a {type(loaded).__name__}; convert is for SparseUNets")
        encoder, card = loaded, {**read_card(source)["card"], "source": source.name}
    if o.condition:
        if not encoder.conditions:
            raise ValueError(
                f"convert: --condition {o.condition}: this encoder tells no conditions apart; leave it out"
            )
        encoder = encoder.folded(o.condition)
        card["condition"] = o.condition
    save_encoder(encoder, out, card)
    number = sum(parameter.numel() for parameter in encoder.parameters())
    told = f"conditions {', '.join(encoder.conditions)}" if encoder.conditions else "no conditions"
    print(f"{out}: {number:,} parameters, reads {' and '.join(encoder.config.inputs)}, {told}")
    return 0


def _convert_to_run(arguments: list[str]) -> int:
    place = arguments.index("--recipe")
    if place + 1 == len(arguments):
        raise ValueError("convert: --recipe needs the name of a recipe; ponder3d recipes lists them")
    name = arguments[place + 1]
    options = tyro.cli(
        _AdoptOptions,
        default=_AdoptOptions(_ConvertOptions(), find_recipe(name)()),
        args=arguments[:place] + arguments[place + 2 :],
        prog=f"ponder3d convert --recipe {name}",
        description=inspect.getdoc(_ConvertOptions),
    )
    o = options.convert
    _check_places(o)
    released = _read(o)
    experiment = adopt(released, options.experiment, o.out, o.condition, released.card(Path(o.file).name))
    print(f"run: {o.out}   data: {type(experiment.data).__name__}")
    return 0


def _check_places(o: _ConvertOptions) -> None:
    if not o.file or not o.out:
        raise ValueError("usage: ponder3d convert FILE OUT.safetensors, or convert FILE RUN --recipe NAME; see --help")


def _check_left_alone(o: _ConvertOptions) -> None:
    """Refuse options that say what an encoder's own file says itself."""
    for field in ("grid_size", "conditions", "table", "inputs", "eps", "momentum"):
        if getattr(o, field) != getattr(_ConvertOptions(), field):
            option = field.replace("_", "-")
            raise ValueError(
                f"convert: --{option} is about checkpoints; {o.file} is an encoder that knows it. Leave it out"
            )


def _read(o: _ConvertOptions) -> Released:
    """Read a checkpoint, and say what is in it."""
    released = read_released(o.file, o.grid_size, o.conditions, o.eps, o.momentum, o.inputs, o.table)
    print(f"{o.file}: {released.kind}, {len(released.used)} names used")
    for group, (number, reason) in released.left_out.items():
        print(f"  left out: {group} ({number} names): {reason}")
    if released.untrained:
        print(f"  never trained: the batch norms of {', '.join(released.untrained)}")
    return released
