"""One encoder for rooms and streets: the aim that the paper names, at the size of a laptop.

Rooms are a few metres across and have colour and normals; streets are a hundred, and have the strength of echoes. The
encoder's norms know which of them a scene is, inputs that a scene lacks are zero, and a street is a room at 0.4 of its
size: a scene shrunk by s in voxels of g is the scene in voxels of g / s, so that drawing s for every scene is what
drawing the grid size is. ``encode(0.4 * xyz, condition="streets")`` is what it is used with.
"""

from dataclasses import replace

from ponder3d.data.context import ContextTarget
from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.synthetic.streets import StreetsConfig
from ponder3d.data.transforms import (
    Centre,
    DropModality,
    Flip,
    GridSample,
    KeepViews,
    Only,
    PickRays,
    RemoveBlocks,
    Rotate,
    Scale,
    SetCondition,
    Transform,
)
from ponder3d.encoders.norms import PromptNormConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes import pretrain_indoor, semseg, semseg_driving
from ponder3d.recipes.pretrain_streets import CAMERAS, street_range
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.semseg import SemSegConfig

SHRINK = 0.4
"""Of streets: their voxels of 20 cm are then of 8 cm, as those of rooms are."""
_SHRUNK = (Scale(SHRINK, SHRINK),)


def pretrain() -> Experiment:
    """Label-free pre-training on rooms and streets by turns, one encoder, norms by kind of scene."""
    small = pretrain_indoor.rooms()
    assert isinstance(small.task, PonderConfig) and isinstance(small.data, RoomsConfig)
    surroundings = ContextTarget(oriented=False)
    task = replace(small.task, encoder=_encoder(), volume_shape=(48, 48, 16), feature_channels=surroundings.channels)
    # The samples of a room are far apart on a street: views get more of them, as in ``pretrain_streets``.
    render = replace(task.render, evaluation_factor=4)
    task = replace(task, field=replace(task.field, inv_std=50.0), render=render, mesh_cell=0.0)
    rooms = (
        Centre(),
        Rotate(),
        Scale(0.9, 1.4),
        Flip(),
        GridSample(),
        PickRays(views=CAMERAS, rays_per_view=256),
    )
    streets = (
        street_range(),
        Rotate(),
        Scale(0.8 * SHRINK, 1.2 * SHRINK),
        Flip(),
        GridSample(),
        PickRays(views=CAMERAS, rays_per_view=256, fill=True, horizon=0.0, near=0.4, far=30.0),
    )
    both = (
        surroundings,
        RemoveBlocks(smallest=0.0, largest=0.3),
        DropModality(colour=0.2, normal=0.2),
    )
    return replace(
        small,
        task=task,
        data=JointConfig(
            (
                PartConfig("rooms", replace(small.data, num_rooms=48)),
                PartConfig("streets", StreetsConfig(num_towns=48, num_test_towns=4, frames=1, cache="runs/streets")),
            )
        ),
        transforms=(Only(("rooms",), rooms), Only(("streets",), streets), *both),
        validation_transforms=(
            Only(("rooms",), (Centre(), KeepViews((22, 27)))),
            Only(("streets",), (street_range(depth=True), *_SHRUNK)),
            GridSample(),
        ),
        optim=OptimConfig(lr=4e-3),
        batch_size=4,
    )


def rooms_finetune() -> Experiment:
    """``semseg.rooms_finetune`` with such an encoder, ``--init FILE``."""
    return _with_encoder(semseg.rooms_finetune(), "rooms")


def streets_finetune() -> Experiment:
    """``semseg_driving.streets_finetune`` with such an encoder, ``--init FILE``."""
    return _with_encoder(semseg_driving.streets_finetune(), "streets")


def _encoder() -> SparseUNetConfig:
    norm = PromptNormConfig(("rooms", "streets"), prompt_channels=32)
    return replace(pretrain_indoor.small_encoder(), inputs=("rgb", "normal", "intensity", "one"), norm=norm)


def _with_encoder(experiment: Experiment, condition: str) -> Experiment:
    assert isinstance(experiment.task, SemSegConfig)
    norm = PromptNormConfig((condition,), prompt_channels=32)
    first: tuple[Transform, ...] = (*(_SHRUNK if condition == "streets" else ()), SetCondition(condition))
    return replace(
        experiment,
        task=replace(experiment.task, encoder=replace(_encoder(), norm=norm)),
        transforms=(*experiment.transforms[:2], *first, *experiment.transforms[2:]),
        validation_transforms=(*experiment.validation_transforms, *first),
    )
