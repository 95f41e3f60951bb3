"""The rivals, and rendering combined with them, at a size of seconds: a part of ``smoke``, and named like it."""

from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import combinations, rivals, rivals_masked, rivals_recorded
from ponder3d.recipes.small import small as _small


def rivals_rooms_point_contrast() -> Experiment:
    """``rivals.rooms_point_contrast`` in seconds."""
    return _small(rivals.rooms_point_contrast())


def rivals_rooms_masked_scene_contrast() -> Experiment:
    """``rivals.rooms_masked_scene_contrast`` in seconds."""
    return _small(rivals.rooms_masked_scene_contrast())


def rivals_rooms_pixel_contrast() -> Experiment:
    """``rivals.rooms_pixel_contrast`` in seconds."""
    return _small(rivals.rooms_pixel_contrast())


def rivals_rooms_superpixel_contrast() -> Experiment:
    """``rivals.rooms_superpixel_contrast`` in seconds."""
    return _small(rivals.rooms_superpixel_contrast())


def rivals_streets_point_contrast() -> Experiment:
    """``rivals.streets_point_contrast`` in seconds."""
    return _small(rivals.streets_point_contrast())


def rivals_streets_masked_scene_contrast() -> Experiment:
    """``rivals.streets_masked_scene_contrast`` in seconds."""
    return _small(rivals.streets_masked_scene_contrast())


def rivals_streets_pixel_contrast() -> Experiment:
    """``rivals.streets_pixel_contrast`` in seconds."""
    return _small(rivals.streets_pixel_contrast())


def rivals_streets_superpixel_contrast() -> Experiment:
    """``rivals.streets_superpixel_contrast`` in seconds."""
    return _small(rivals.streets_superpixel_contrast())


def rivals_masked_rooms_masked_occupancy() -> Experiment:
    """``rivals_masked.rooms_masked_occupancy`` in seconds."""
    return _small(rivals_masked.rooms_masked_occupancy())


def rivals_masked_rooms_also() -> Experiment:
    """``rivals_masked.rooms_also`` in seconds."""
    return _small(rivals_masked.rooms_also())


def rivals_masked_rooms_self_distil() -> Experiment:
    """``rivals_masked.rooms_self_distil`` in seconds."""
    return _small(rivals_masked.rooms_self_distil())


def rivals_masked_streets_masked_occupancy() -> Experiment:
    """``rivals_masked.streets_masked_occupancy`` in seconds."""
    return _small(rivals_masked.streets_masked_occupancy())


def rivals_masked_streets_also() -> Experiment:
    """``rivals_masked.streets_also`` in seconds."""
    return _small(rivals_masked.streets_also())


def rivals_masked_streets_self_distil() -> Experiment:
    """``rivals_masked.streets_self_distil`` in seconds."""
    return _small(rivals_masked.streets_self_distil())


def rivals_recorded_pandaset_point_contrast() -> Experiment:
    """``rivals_recorded.pandaset_point_contrast`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.pandaset_point_contrast())


def rivals_recorded_pandaset_masked_scene_contrast() -> Experiment:
    """``rivals_recorded.pandaset_masked_scene_contrast`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.pandaset_masked_scene_contrast())


def rivals_recorded_pandaset_pixel_contrast() -> Experiment:
    """``rivals_recorded.pandaset_pixel_contrast`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.pandaset_pixel_contrast())


def rivals_recorded_pandaset_superpixel_contrast() -> Experiment:
    """``rivals_recorded.pandaset_superpixel_contrast`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.pandaset_superpixel_contrast())


def rivals_recorded_pandaset_masked_occupancy() -> Experiment:
    """``rivals_recorded.pandaset_masked_occupancy`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.pandaset_masked_occupancy())


def rivals_recorded_pandaset_also() -> Experiment:
    """``rivals_recorded.pandaset_also`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.pandaset_also())


def rivals_recorded_pandaset_self_distil() -> Experiment:
    """``rivals_recorded.pandaset_self_distil`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.pandaset_self_distil())


def rivals_recorded_prepared_point_contrast() -> Experiment:
    """``rivals_recorded.prepared_point_contrast`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.prepared_point_contrast())


def rivals_recorded_prepared_masked_scene_contrast() -> Experiment:
    """``rivals_recorded.prepared_masked_scene_contrast`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.prepared_masked_scene_contrast())


def rivals_recorded_prepared_pixel_contrast() -> Experiment:
    """``rivals_recorded.prepared_pixel_contrast`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.prepared_pixel_contrast())


def rivals_recorded_prepared_superpixel_contrast() -> Experiment:
    """``rivals_recorded.prepared_superpixel_contrast`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.prepared_superpixel_contrast())


def rivals_recorded_prepared_masked_occupancy() -> Experiment:
    """``rivals_recorded.prepared_masked_occupancy`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.prepared_masked_occupancy())


def rivals_recorded_prepared_also() -> Experiment:
    """``rivals_recorded.prepared_also`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.prepared_also())


def rivals_recorded_prepared_self_distil() -> Experiment:
    """``rivals_recorded.prepared_self_distil`` in seconds; ``--data.root DIR`` as there."""
    return _small(rivals_recorded.prepared_self_distil())


def combinations_rooms_ponder_distil() -> Experiment:
    """``combinations.rooms_ponder_distil`` in seconds."""
    return _small(combinations.rooms_ponder_distil())


def combinations_rooms_ponder_contrast() -> Experiment:
    """``combinations.rooms_ponder_contrast`` in seconds."""
    return _small(combinations.rooms_ponder_contrast())


def combinations_streets_ponder_distil() -> Experiment:
    """``combinations.streets_ponder_distil`` in seconds."""
    return _small(combinations.streets_ponder_distil())


def combinations_streets_ponder_contrast() -> Experiment:
    """``combinations.streets_ponder_contrast`` in seconds."""
    return _small(combinations.streets_ponder_contrast())


def combinations_streets_ponder_pixel() -> Experiment:
    """``combinations.streets_ponder_pixel`` in seconds."""
    return _small(combinations.streets_ponder_pixel())


def combinations_streets_ponder_superpixel() -> Experiment:
    """``combinations.streets_ponder_superpixel`` in seconds."""
    return _small(combinations.streets_ponder_superpixel())


def combinations_pandaset_ponder_pixel() -> Experiment:
    """``combinations.pandaset_ponder_pixel`` in seconds; ``--data.root DIR`` as there."""
    return _small(combinations.pandaset_ponder_pixel())


def combinations_pandaset_ponder_superpixel() -> Experiment:
    """``combinations.pandaset_ponder_superpixel`` in seconds; ``--data.root DIR`` as there."""
    return _small(combinations.pandaset_ponder_superpixel())


def combinations_pandaset_ponder_distil() -> Experiment:
    """``combinations.pandaset_ponder_distil`` in seconds; ``--data.root DIR`` as there."""
    return _small(combinations.pandaset_ponder_distil())


def combinations_pandaset_ponder_contrast() -> Experiment:
    """``combinations.pandaset_ponder_contrast`` in seconds; ``--data.root DIR`` as there."""
    return _small(combinations.pandaset_ponder_contrast())


def combinations_prepared_ponder_distil() -> Experiment:
    """``combinations.prepared_ponder_distil`` in seconds; ``--data.root DIR`` as there."""
    return _small(combinations.prepared_ponder_distil())


def combinations_prepared_ponder_contrast() -> Experiment:
    """``combinations.prepared_ponder_contrast`` in seconds; ``--data.root DIR`` as there."""
    return _small(combinations.prepared_ponder_contrast())
