"""Rivals by masking and by self-distillation, at the budget of the recipes by rendering: encoder, scenes, optimiser,
steps and batches are those of ``pretrain_indoor.rooms`` and ``pretrain_streets.lidar``. All are label-free."""

from dataclasses import replace

from ponder3d.data.transforms import (
    Centre,
    DropModality,
    Flip,
    GridSample,
    PickRays,
    PointsOnly,
    RemoveBlocks,
    Rotate,
    Scale,
    Transform,
    TwoViews,
)
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import pretrain_indoor, pretrain_streets
from ponder3d.tasks.also import ALSOConfig
from ponder3d.tasks.masked_occupancy import MaskedOccupancyConfig
from ponder3d.tasks.self_distil import SelfDistilConfig
from ponder3d.tasks.task import TaskConfig
from ponder3d.volume.unet3d import UNet3DConfig

_DROP = DropModality(colour=0.1, normal=0.1)
STREET_CELL = 0.6
"""Metres; three voxels, as in rooms."""


def _rooms(
    task: TaskConfig, transforms: tuple[Transform, ...], validation_transforms: tuple[Transform, ...]
) -> Experiment:
    """Another task at the budget of ``pretrain_indoor.rooms``."""
    return replace(
        pretrain_indoor.rooms(), task=task, transforms=transforms, validation_transforms=validation_transforms
    )


def _streets(
    task: TaskConfig, transforms: tuple[Transform, ...], validation_transforms: tuple[Transform, ...]
) -> Experiment:
    """Another task at the budget of ``pretrain_streets.lidar``."""
    return replace(
        pretrain_streets.lidar(), task=task, transforms=transforms, validation_transforms=validation_transforms
    )


def rooms_masked_occupancy() -> Experiment:
    """Generated rooms of which 70 % of the blocks are taken away; which cells of 20 cm are full is learnt.

    Occupancy-MAE (Min et al. 2022, abstract) reports some 2 points of mIoU over training from scratch, outdoors; there
    is no published number for rooms.
    """
    whole = (PointsOnly(),)
    return _rooms(
        MaskedOccupancyConfig(encoder=pretrain_indoor.small_encoder()),
        (
            Centre(),
            Rotate(),
            Scale(),
            Flip(),
            GridSample(),
            TwoViews((RemoveBlocks(0.7, 0.7), _DROP, PointsOnly()), whole),
        ),
        (Centre(), GridSample(), TwoViews((RemoveBlocks(0.7, 0.7, corner=(0.0, 0.0, 0.0)), PointsOnly()), whole)),
    )


def rooms_also() -> Experiment:
    """Generated rooms: what is full behind what a camera sees, and empty in front of it.

    ALSO (Boulch et al. 2022) is made for lasers on vehicles; its figures are with ``streets_also``.
    """
    return _rooms(
        ALSOConfig(encoder=pretrain_indoor.small_encoder()),
        (Centre(), Rotate(), Scale(), Flip(), GridSample(), PickRays(views=6, rays_per_view=256), _DROP),
        (Centre(), GridSample(), PickRays(views=6, rays_per_view=256)),
    )


_TURNED = (Centre(), Rotate(probability=1.0), GridSample())
"""The teacher's view in evaluation."""
_STUDENT_OF_ROOMS = (Centre(), Rotate(probability=1.0), Scale(), Flip(), GridSample(), _DROP, PointsOnly())


def rooms_self_distil() -> Experiment:
    """Generated rooms: a student that sees parts of them says what its teacher says of the whole.

    Sonata (Wu et al. 2025) reports 72.5 mIoU by linear probing on ScanNet, pre-trained on 140,000 point clouds; not run
    here.
    """
    return _rooms(
        SelfDistilConfig(encoder=pretrain_indoor.small_encoder()),
        (TwoViews(_STUDENT_OF_ROOMS),),
        (TwoViews((Centre(), GridSample(), RemoveBlocks(0.5, 0.5, corner=(0.0, 0.0, 0.0)), PointsOnly()), _TURNED),),
    )


def streets_masked_occupancy() -> Experiment:
    """Generated streets of which 70 % of the blocks are taken away; which cells of 1 x 1 x 0.8 m are full is learnt.

    Occupancy-MAE (Min et al. 2022, arXiv 2206.09900, abstract) reports some 2 points of mIoU over training from scratch
    and half the labels for cars on KITTI; not run here.
    """
    whole, size = (PointsOnly(),), 1.6
    task = MaskedOccupancyConfig(
        encoder=pretrain_streets.small_encoder(),
        volume_box=pretrain_streets.BOX,
        volume_shape=pretrain_streets.SHAPE,
        volume_net=UNet3DConfig(channels=(16, 32), out_channels=16),
    )
    return _streets(
        task,
        (
            pretrain_streets.street_range(),
            Rotate(),
            Scale(),
            Flip(),
            GridSample(),
            TwoViews((RemoveBlocks(0.7, 0.7, size), PointsOnly()), whole),
        ),
        (
            pretrain_streets.street_range(),
            GridSample(),
            TwoViews((RemoveBlocks(0.7, 0.7, size, corner=(0.0, 0.0, 0.0)), PointsOnly()), whole),
        ),
    )


def streets_also() -> Experiment:
    """Generated streets: what is full behind what the laser hits, and empty on the way there.

    ALSO (Boulch et al. 2022) is made for this. TREND (Chen et al. 2024) measures it for detection on ONCE with all
    labels: 64.2 mAP, from scratch 65.0. Not run here. Rays run from the cameras to points of the laser that their
    images show, up to a metre beside the laser's own; places lie within half a metre of the surface, in the paper
    within 0.1 m, and intensities are not told.
    """
    task = ALSOConfig(
        encoder=pretrain_streets.small_encoder(),
        volume_box=pretrain_streets.BOX,
        volume_shape=pretrain_streets.SHAPE,
        reach=0.5,  # cells of a metre
    )
    rays = pretrain_streets.street_rays()
    return _streets(
        task,
        (pretrain_streets.street_range(), Rotate(), Scale(), Flip(), GridSample(), rays),
        (pretrain_streets.street_range(), GridSample(), rays),
    )


def streets_self_distil() -> Experiment:
    """Generated streets: a student that sees parts of a sweep says what its teacher says of the whole.

    There is no published figure of it outdoors that is comparable.
    """
    seen = pretrain_streets.street_range()
    student = (seen, Rotate(probability=1.0), Scale(), Flip(), GridSample(), PointsOnly())
    half = RemoveBlocks(0.5, 0.5, size=1.6, corner=(0.0, 0.0, 0.0))
    task = SelfDistilConfig(encoder=pretrain_streets.small_encoder(), block=(0.8, 3.2), cell=STREET_CELL)
    return _streets(
        task,
        (TwoViews(student),),
        (TwoViews((seen, GridSample(), half, PointsOnly()), (seen, Rotate(probability=1.0), GridSample())),),
    )
