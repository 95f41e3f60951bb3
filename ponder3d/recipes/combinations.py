"""Rendering combined with its rivals, on one encoder, at the budget of rendering alone. All are label-free; recordings
need ``--data.root DIR``.

Rendering says what is there, the others what is alike. The rendered scene takes one pass of the encoder, which all
parts share.
"""

from dataclasses import replace

from ponder3d.data.transforms import (
    Centre,
    DropModality,
    Flip,
    GridSample,
    PickRays,
    Rotate,
    Scale,
    SphereCrop,
    Transform,
    TwoViews,
)
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import pretrain_driving, pretrain_indoor, pretrain_rgbd, pretrain_streets, rivals
from ponder3d.recipes.rivals_masked import STREET_CELL
from ponder3d.tasks.combined import CombinedConfig, PartConfig
from ponder3d.tasks.pixel_contrast import PixelContrastConfig
from ponder3d.tasks.point_contrast import PointContrastConfig
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.self_distil import SelfDistilConfig
from ponder3d.tasks.task import TaskConfig

_DROP = DropModality(colour=0.1, normal=0.1)
_TURN = Rotate(probability=1.0)
_WEIGHT = 5.0
"""Of the part beside rendering. It was chosen for self-distillation in rooms, where gradients of rendering are ten
times as large; on PandaSet they are five times those of PointContrast (docs/log.md). For pixel contrast it was not
chosen."""


def rooms_ponder_distil() -> Experiment:
    """``pretrain_indoor.rooms`` and self-distillation together."""
    return distilled(pretrain_indoor.rooms(), Centre())


def streets_ponder_distil() -> Experiment:
    """``pretrain_streets.lidar`` and self-distillation together.

    As frozen features it is worse than rendering alone (docs/log.md).
    """
    return distilled(pretrain_streets.lidar(), pretrain_streets.street_range(), STREET_CELL)


def pandaset_ponder_distil() -> Experiment:
    """``pretrain_driving.pandaset`` and self-distillation together."""
    return distilled(pretrain_driving.pandaset(), pretrain_streets.street_range(), STREET_CELL)


def prepared_ponder_distil() -> Experiment:
    """``pretrain_rgbd.prepared`` and self-distillation together."""
    return distilled(pretrain_rgbd.prepared(), Centre())


def rooms_ponder_contrast() -> Experiment:
    """``pretrain_indoor.rooms`` and PointContrast together."""
    return contrasted(pretrain_indoor.rooms(), rivals.rooms_point_contrast(), Centre(), _DROP)


def streets_ponder_contrast() -> Experiment:
    """``pretrain_streets.lidar`` and PointContrast together."""
    return contrasted(pretrain_streets.lidar(), rivals.streets_point_contrast(), pretrain_streets.street_range())


def pandaset_ponder_contrast() -> Experiment:
    """``pretrain_driving.pandaset`` and PointContrast together."""
    return contrasted(pretrain_driving.pandaset(), rivals.streets_point_contrast(), pretrain_streets.street_range())


def prepared_ponder_contrast() -> Experiment:
    """``pretrain_rgbd.prepared`` and PointContrast together."""
    return contrasted(pretrain_rgbd.prepared(), rivals.rooms_point_contrast(), Centre(), _DROP)


def streets_ponder_pixel() -> Experiment:
    """``pretrain_streets.lidar`` and pixel contrast together, with the same rays.

    Pixel contrast weighs 25: with 5 it teaches less here than by itself (docs/log.md).
    """
    return pictured(pretrain_streets.lidar(), rivals.streets_pixel_contrast(), 25.0)


def streets_ponder_superpixel() -> Experiment:
    """``pretrain_streets.lidar`` and superpixel contrast together, with the same rays."""
    return pictured(pretrain_streets.lidar(), rivals.streets_superpixel_contrast())


def pandaset_ponder_pixel() -> Experiment:
    """``pretrain_driving.pandaset`` and pixel contrast together, with the same rays."""
    return pictured(pretrain_driving.pandaset(), rivals.streets_pixel_contrast())


def pandaset_ponder_superpixel() -> Experiment:
    """``pretrain_driving.pandaset`` and superpixel contrast together, with the same rays."""
    return pictured(pretrain_driving.pandaset(), rivals.streets_superpixel_contrast())


def distilled(base: Experiment, first: Transform, cell: float = SelfDistilConfig.cell) -> Experiment:
    """Rendering, and self-distillation together with it: what is taken away from the rendered scene is what the student
    misses.

    Args:
        base: the pre-training by rendering.
        first: what its transforms begin with, and those of the teacher's view.
        cell: ``SelfDistilConfig.cell`` in metres.
    """
    assert isinstance(base.task, PonderConfig)
    task = SelfDistilConfig(encoder=base.task.encoder, hide=(0.0, 0.0), cell=cell)
    return _beside(base, "distil", task, (first, _TURN, Scale(), Flip(), GridSample()), first)


def contrasted(base: Experiment, rival: Experiment, first: Transform, *last: Transform) -> Experiment:
    """Rendering, and PointContrast together with it: points of the rendered scene find themselves in a part of the
    scene that is turned and scaled in another way.

    Args:
        base: the pre-training by rendering.
        rival: the pre-training by PointContrast, of which the task is taken.
        first: what the transforms of both begin with.
        last: what those of the other view end with.
    """
    assert isinstance(base.task, PonderConfig) and isinstance(rival.task, PointContrastConfig)
    task = replace(rival.task, encoder=base.task.encoder)
    other = (first, SphereCrop(0.6, 0), _TURN, Scale(), Flip(), GridSample(), *last)
    return _beside(base, "contrast", task, other, first)


def pictured(base: Experiment, rival: Experiment, weight: float = _WEIGHT) -> Experiment:
    """Rendering and pixel contrast on the same rays: the features of a ray's pixel are compared with that of the point
    where the ray ends. A ray whose point was taken away counts in rendering alone.

    Args:
        base: the pre-training by rendering, of which rays have the surroundings as target feature. Its validation also
            chooses the rays by which pixels are looked for, so that figures are not those of ``rival``.
        rival: the pre-training by pixel contrast, of which task and image features are taken.
        weight: of pixel contrast.
    """
    assert isinstance(base.task, PonderConfig) and isinstance(rival.task, PixelContrastConfig)
    assert base.task.feature_channels and not any(
        t.added_features() for t in base.transforms if isinstance(t, PickRays)
    )
    (maps,) = (step.features for step in rival.transforms if isinstance(step, PickRays))
    pixels, surroundings = rival.task.feature_channels, base.task.feature_channels
    transforms = tuple(replace(t, features=maps) if isinstance(t, PickRays) else t for t in base.transforms)
    (rays,) = (step for step in transforms if isinstance(step, PickRays))
    parts = (
        PartConfig("ponder", base.task, features=(pixels, pixels + surroundings)),
        PartConfig("pixel", replace(rival.task, encoder=base.task.encoder), weight, features=(0, pixels)),
    )
    return replace(
        base,
        task=CombinedConfig(encoder=base.task.encoder, parts=parts),
        transforms=transforms,
        validation_transforms=(*base.validation_transforms, replace(rays, keep_views=True)),
    )


def _beside(
    base: Experiment, name: str, task: TaskConfig, other: tuple[Transform, ...], first: Transform
) -> Experiment:
    """Rendering beside a task of two views, of which the second is ``other``."""
    assert isinstance(base.task, PonderConfig)
    parts = (PartConfig("ponder", base.task), PartConfig(name, task, weight=_WEIGHT))
    return replace(
        base,
        task=CombinedConfig(encoder=base.task.encoder, parts=parts),
        transforms=(TwoViews(base.transforms, other),),
        validation_transforms=(TwoViews(base.validation_transforms, (first, _TURN, GridSample())),),
    )
