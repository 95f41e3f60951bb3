"""The rivals of rendering on PandaSet: those of generated streets, on the frames that ``--data.root DIR`` has, at the
budget of ``pretrain_driving.pandaset``. All are label-free."""

from dataclasses import replace

from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import pretrain_driving, rivals, rivals_masked


def pandaset_point_contrast() -> Experiment:
    """``rivals.streets_point_contrast`` on PandaSet."""
    return _recorded(rivals.streets_point_contrast())


def pandaset_masked_scene_contrast() -> Experiment:
    """``rivals.streets_masked_scene_contrast`` on PandaSet."""
    return _recorded(rivals.streets_masked_scene_contrast())


def pandaset_pixel_contrast() -> Experiment:
    """``rivals.streets_pixel_contrast`` on PandaSet."""
    return _recorded(rivals.streets_pixel_contrast())


def pandaset_superpixel_contrast() -> Experiment:
    """``rivals.streets_superpixel_contrast`` on PandaSet."""
    return _recorded(rivals.streets_superpixel_contrast())


def pandaset_masked_occupancy() -> Experiment:
    """``rivals_masked.streets_masked_occupancy`` on PandaSet."""
    return _recorded(rivals_masked.streets_masked_occupancy())


def pandaset_also() -> Experiment:
    """``rivals_masked.streets_also`` on PandaSet."""
    return _recorded(rivals_masked.streets_also())


def pandaset_self_distil() -> Experiment:
    """``rivals_masked.streets_self_distil`` on PandaSet."""
    return _recorded(rivals_masked.streets_self_distil())


def pandaset_ponder_distil() -> Experiment:
    """``pretrain_driving.pandaset`` and self-distillation together."""
    return rivals_masked.distilled(pretrain_driving.pandaset())


def _recorded(rival: Experiment) -> Experiment:
    base = pretrain_driving.pandaset()
    return replace(rival, data=base.data, steps=base.steps, workers=base.workers)
