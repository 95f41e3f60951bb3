"""``ponder3d features``: what a 2D model says of every image of a dataset, as a target for pre-training."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from torch import nn

from ponder3d.data.dataset import DatasetConfig
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.prepared.manifest import FILE_NAME as MANIFEST
from ponder3d.data.prepared.prepare import free_bytes
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.engine.image_features import FeatureOptions, MakingMaps
from ponder3d.engine.log import Progress
from ponder3d.engine.runner import device_type
from ponder3d.recipes.catalogue import find_recipe, import_own

USAGE = """\
usage: ponder3d features RECIPE_OR_DIR --out MAPS [options]

Runs a model of images over all images of a dataset and writes maps of their features. Pre-training renders them:

  ponder3d train pretrain_rgbd.folder_features --data.root DIR --transforms.5.features.root MAPS --out RUN

RECIPE_OR_DIR is a recipe, whose data have the options that they have there (--data.root DIR), or a directory: of what
ponder3d prepare has written, or of posed RGB-D frames. Stopped at whatever instant, the same command continues.
RECIPE_OR_DIR --help lists the options.
"""


@dataclass(frozen=True)
class _FeaturesOptions:
    """Maps of the features that a 2D model has of all images of a dataset."""

    data: DatasetConfig
    """Whose images."""
    options: Annotated[FeatureOptions, tyro.conf.arg(name="")]
    out: str = "maps"
    """Directory for the maps."""
    backbone: str = "ponder3d.data.gradient_features:oriented_gradients"
    """MODULE:FUNCTION, a function of your own that returns the model, a torch.nn.Module; the default needs no weights.
    ponder3d/engine/image_features.py shows what to write for models of timm."""
    device: str = "auto"
    """Where the model works: cuda, cpu, or auto."""
    estimate: bool = False
    """Say what it would take, and stop there."""


def features(arguments: list[str]) -> int:
    """``ponder3d features``."""
    if not arguments or arguments[0].startswith("-"):
        print(USAGE)
        return 0 if not arguments or arguments[0] in ("-h", "--help") else 2
    source, *rest = arguments
    o = tyro.cli(
        _FeaturesOptions,
        default=_FeaturesOptions(_data_of(source), FeatureOptions()),
        args=rest,
        prog=f"ponder3d features {source}",
        description=inspect.getdoc(_FeaturesOptions),
    )
    device = device_type(o.device) if o.device in ("auto", "cuda") else o.device
    making = MakingMaps(o.data, _model(o.backbone), o.backbone, o.out, o.options, device)
    needed, free = making.estimate(), free_bytes(Path(o.out))
    height, width, channels = needed.shape
    there = f", {needed.images - needed.missing:,} of them done" if needed.missing < needed.images else ""
    print(
        f"{needed.images:,} images{there}; maps of {height} x {width} x {channels}, about {needed.bytes / 1e6:.1f} MB; "
        f"{free / 1e9:.1f} GB are free at {o.out}"
    )
    if o.estimate:
        return 0
    if needed.bytes > free:
        raise OSError(f"{o.out}: too little space; ask for fewer --channels")
    progress = Progress(needed.images, needed.images - needed.missing, label="maps")
    try:
        made = making.run(lambda done, total: progress.show(done, {}))
    finally:
        progress.close()
    assert making.record is not None
    print(f"{made:,} maps made, of {making.record.channels} channels, in {o.out}")
    left_out = len(making.record.unreadable)
    if left_out:
        print(f"{left_out:,} images cannot be decoded and have none; {Path(o.out) / 'features.json'} lists them")
    return 0


def _data_of(source: str) -> DatasetConfig:
    path = Path(source)
    if (path / MANIFEST).is_file():
        return PreparedConfig(root=source)
    if path.is_dir():
        return RGBDFolderConfig(root=source)
    return find_recipe(source)().data


def _model(address: str) -> nn.Module:
    """The model that a function of somebody's own returns.

    Raises:
        ValueError: there is no such function, or it returns something else.
    """
    module_name, _, function_name = address.partition(":")
    module = import_own(module_name) if module_name and function_name else None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"--backbone {address}: no such function; write MODULE:FUNCTION, e.g. mine:resnet of mine.py")
    model = function()
    if not isinstance(model, nn.Module):
        raise ValueError(f"--backbone {address}: returns a {type(model).__name__}; wanted is a torch.nn.Module")
    return model
