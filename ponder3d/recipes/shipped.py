"""How the encoders that come with the package were pre-trained: ``ponder3d.load("indoor-small")`` and the like."""

from dataclasses import replace

from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import DropModality, Transform, TwoViews
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import combinations, pretrain_streets


def indoor_small() -> Experiment:
    """``indoor-small``: rendering and self-distillation on generated rooms.

    As ``combinations.rooms_ponder_distil``, for longer and on more rooms. Colour and normals are each missing in 40 %
    of what is rendered from, which is what the student sees, so that coordinates alone are something the encoder knows.
    Half an hour on one core.

    Linear probe on rooms never seen (docs/numbers.md): 36.4 +- 2.0 mIoU, 36.2 +- 2.1 of coordinates alone; of all
    levels 42.4 +- 2.0. Random weights: 16.7 +- 1.3 and 26.9 +- 1.7; the same network trained with the labels for 2,560
    steps: 70.7 +- 3.7.
    """
    base = combinations.rooms_ponder_distil()
    assert isinstance(base.data, RoomsConfig)
    return replace(
        base,
        data=replace(base.data, num_rooms=128),
        transforms=tuple(_often_without_colour(t) for t in base.transforms),
        steps=2000,
        validate_every=0,
        save_every=500,
    )


def outdoor_small() -> Experiment:
    """``outdoor-small``: colour, depth and surroundings of generated streets, rendered from one sweep of a laser.

    ``pretrain_streets.lidar`` for longer; a quarter of an hour on one core. Self-distillation beside it makes it worse
    (docs/log.md).

    Linear probe on towns never seen (docs/numbers.md): 20.5 +- 0.9 mIoU, of all levels 32.9 +- 1.4. Random weights: 8.2
    +- 0.7 and 20.1 +- 0.5.
    """
    return replace(pretrain_streets.lidar(), steps=900, validate_every=0, save_every=300)


def _often_without_colour(transform: Transform) -> Transform:
    if isinstance(transform, TwoViews):
        first, second = (tuple(map(_often_without_colour, steps)) for steps in (transform.first, transform.second))
        return replace(transform, first=first, second=second)
    return replace(transform, colour=0.4, normal=0.4) if isinstance(transform, DropModality) else transform
