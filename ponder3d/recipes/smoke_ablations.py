"""The ablations at a size of seconds: a part of ``smoke``, and named like it."""

from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import ablations
from ponder3d.recipes.small import small as _small


def ablations_rooms_volsdf() -> Experiment:
    """``ablations.rooms_volsdf`` in seconds."""
    return _small(ablations.rooms_volsdf())


def ablations_rooms_unisurf() -> Experiment:
    """``ablations.rooms_unisurf`` in seconds."""
    return _small(ablations.rooms_unisurf())


def ablations_rooms_colour_only() -> Experiment:
    """``ablations.rooms_colour_only`` in seconds."""
    return _small(ablations.rooms_colour_only())


def ablations_rooms_depth_only() -> Experiment:
    """``ablations.rooms_depth_only`` in seconds."""
    return _small(ablations.rooms_depth_only())


def ablations_rooms_semantic_only() -> Experiment:
    """``ablations.rooms_semantic_only`` in seconds."""
    return _small(ablations.rooms_semantic_only())


def ablations_rooms_feature_only() -> Experiment:
    """``ablations.rooms_feature_only`` in seconds."""
    return _small(ablations.rooms_feature_only())


def ablations_rooms_feature_at_surface() -> Experiment:
    """``ablations.rooms_feature_at_surface`` in seconds."""
    return _small(ablations.rooms_feature_at_surface())


def ablations_rooms_no_colour() -> Experiment:
    """``ablations.rooms_no_colour`` in seconds."""
    return _small(ablations.rooms_no_colour())


def ablations_rooms_colour_and_depth() -> Experiment:
    """``ablations.rooms_colour_and_depth`` in seconds."""
    return _small(ablations.rooms_colour_and_depth())


def ablations_rooms_mask_0() -> Experiment:
    """``ablations.rooms_mask_0`` in seconds."""
    return _small(ablations.rooms_mask_0())


def ablations_rooms_mask_15() -> Experiment:
    """``ablations.rooms_mask_15`` in seconds."""
    return _small(ablations.rooms_mask_15())


def ablations_rooms_mask_30() -> Experiment:
    """``ablations.rooms_mask_30`` in seconds."""
    return _small(ablations.rooms_mask_30())


def ablations_rooms_mask_60() -> Experiment:
    """``ablations.rooms_mask_60`` in seconds."""
    return _small(ablations.rooms_mask_60())


def ablations_rooms_mask_80() -> Experiment:
    """``ablations.rooms_mask_80`` in seconds."""
    return _small(ablations.rooms_mask_80())


def ablations_rooms_decoder_linear() -> Experiment:
    """``ablations.rooms_decoder_linear`` in seconds."""
    return _small(ablations.rooms_decoder_linear())


def ablations_rooms_decoder_deep() -> Experiment:
    """``ablations.rooms_decoder_deep`` in seconds."""
    return _small(ablations.rooms_decoder_deep())


def ablations_rooms_decoder_narrow() -> Experiment:
    """``ablations.rooms_decoder_narrow`` in seconds."""
    return _small(ablations.rooms_decoder_narrow())


def ablations_rooms_decoder_wide() -> Experiment:
    """``ablations.rooms_decoder_wide`` in seconds."""
    return _small(ablations.rooms_decoder_wide())


def ablations_rooms_views_1() -> Experiment:
    """``ablations.rooms_views_1`` in seconds."""
    return _small(ablations.rooms_views_1())


def ablations_rooms_views_3() -> Experiment:
    """``ablations.rooms_views_3`` in seconds."""
    return _small(ablations.rooms_views_3())


def ablations_rooms_views_12() -> Experiment:
    """``ablations.rooms_views_12`` in seconds."""
    return _small(ablations.rooms_views_12())


def ablations_rooms_sparse_50() -> Experiment:
    """``ablations.rooms_sparse_50`` in seconds."""
    return _small(ablations.rooms_sparse_50())


def ablations_rooms_sparse_80() -> Experiment:
    """``ablations.rooms_sparse_80`` in seconds."""
    return _small(ablations.rooms_sparse_80())


def ablations_rooms_released() -> Experiment:
    """``ablations.rooms_released`` in seconds."""
    return _small(ablations.rooms_released())


def ablations_rooms_released_alpha() -> Experiment:
    """``ablations.rooms_released_alpha`` in seconds."""
    return _small(ablations.rooms_released_alpha())


def ablations_rooms_released_samples() -> Experiment:
    """``ablations.rooms_released_samples`` in seconds."""
    return _small(ablations.rooms_released_samples())


def ablations_rooms_released_cube() -> Experiment:
    """``ablations.rooms_released_cube`` in seconds."""
    return _small(ablations.rooms_released_cube())


def ablations_rooms_released_frames() -> Experiment:
    """``ablations.rooms_released_frames`` in seconds."""
    return _small(ablations.rooms_released_frames())


def ablations_rooms_released_units() -> Experiment:
    """``ablations.rooms_released_units`` in seconds."""
    return _small(ablations.rooms_released_units())
