"""The rivals of rendering on recordings, ``--data.root DIR``: PandaSet, as on generated streets, and prepared scenes,
as in generated rooms. Budgets, and the cells of those that fill a volume, are those of ``pretrain_driving.pandaset``
and ``pretrain_rgbd.prepared``. All are label-free."""

from dataclasses import replace

from ponder3d.data.transforms import KeepViews
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import pretrain_driving, pretrain_rgbd, rivals, rivals_masked
from ponder3d.tasks.also import ALSOConfig
from ponder3d.tasks.masked_occupancy import MaskedOccupancyConfig
from ponder3d.tasks.ponder import PonderConfig


def pandaset_point_contrast() -> Experiment:
    """``rivals.streets_point_contrast`` on PandaSet."""
    return _driven(rivals.streets_point_contrast())


def pandaset_masked_scene_contrast() -> Experiment:
    """``rivals.streets_masked_scene_contrast`` on PandaSet."""
    return _driven(rivals.streets_masked_scene_contrast())


def pandaset_pixel_contrast() -> Experiment:
    """``rivals.streets_pixel_contrast`` on PandaSet."""
    return _driven(rivals.streets_pixel_contrast())


def pandaset_superpixel_contrast() -> Experiment:
    """``rivals.streets_superpixel_contrast`` on PandaSet."""
    return _driven(rivals.streets_superpixel_contrast())


def pandaset_masked_occupancy() -> Experiment:
    """``rivals_masked.streets_masked_occupancy`` on PandaSet."""
    return _driven(rivals_masked.streets_masked_occupancy())


def pandaset_also() -> Experiment:
    """``rivals_masked.streets_also`` on PandaSet."""
    return _driven(rivals_masked.streets_also())


def pandaset_self_distil() -> Experiment:
    """``rivals_masked.streets_self_distil`` on PandaSet."""
    return _driven(rivals_masked.streets_self_distil())


def prepared_point_contrast() -> Experiment:
    """``rivals.rooms_point_contrast`` on prepared scenes."""
    return _filmed(rivals.rooms_point_contrast())


def prepared_masked_scene_contrast() -> Experiment:
    """``rivals.rooms_masked_scene_contrast`` on prepared scenes."""
    return _filmed(rivals.rooms_masked_scene_contrast())


def prepared_pixel_contrast() -> Experiment:
    """``rivals.rooms_pixel_contrast`` on prepared scenes."""
    return _filmed(rivals.rooms_pixel_contrast())


def prepared_superpixel_contrast() -> Experiment:
    """``rivals.rooms_superpixel_contrast`` on prepared scenes."""
    return _filmed(rivals.rooms_superpixel_contrast())


def prepared_masked_occupancy() -> Experiment:
    """``rivals_masked.rooms_masked_occupancy`` on prepared scenes."""
    return _filmed(rivals_masked.rooms_masked_occupancy())


def prepared_also() -> Experiment:
    """``rivals_masked.rooms_also`` on prepared scenes."""
    return _filmed(rivals_masked.rooms_also())


def prepared_self_distil() -> Experiment:
    """``rivals_masked.rooms_self_distil`` on prepared scenes."""
    return _filmed(rivals_masked.rooms_self_distil())


def _driven(rival: Experiment) -> Experiment:
    return _recorded(rival, pretrain_driving.pandaset())


def _filmed(rival: Experiment) -> Experiment:
    return _recorded(rival, pretrain_rgbd.prepared())


def _recorded(rival: Experiment, base: Experiment) -> Experiment:
    # Views that generated rooms hold out have numbers; of recordings, scenes or frames are held out.
    held_out = tuple(step for step in rival.validation_transforms if not isinstance(step, KeepViews))
    task = rival.task
    if isinstance(task, ALSOConfig | MaskedOccupancyConfig):
        assert isinstance(base.task, PonderConfig)
        task = replace(task, volume_shape=base.task.volume_shape)
    return replace(base, task=task, transforms=rival.transforms, validation_transforms=held_out)
