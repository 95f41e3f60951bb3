"""Semantic segmentation of generated rooms from few labels."""

from dataclasses import replace

from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import Centre, Flip, GridSample, JitterColour, LimitLabels, Rotate, Scale, ShiftColour
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes.pretrain_indoor import small_encoder
from ponder3d.tasks.semseg import SemSegConfig


def rooms() -> Experiment:
    """Segment generated rooms from 20 labelled points in each of 8 rooms, from scratch."""
    encoder = small_encoder()
    return Experiment(
        task=SemSegConfig(encoder=encoder),
        data=RoomsConfig(
            first=500_000, num_rooms=8, num_test_rooms=16, classes="grouped", cloud_spacing=0.04, cache="runs/rooms"
        ),
        transforms=(
            LimitLabels(20),
            Centre(),
            Rotate(),
            Scale(),
            Flip(),
            ShiftColour(),
            JitterColour(),
            GridSample(encoder.grid_size),
        ),
        validation_transforms=(Centre(), GridSample(encoder.grid_size)),
        # The head starts from nothing whatever the encoder starts from, and has 80 steps.
        optim=OptimConfig(lr=1e-2, encoder_lr_scale=0.4),
        steps=80,
        batch_size=2,
        workers=0,
    )


def rooms_finetune() -> Experiment:
    """The same from a pre-trained encoder, ``--init FILE``: a head for its features first, then all is trained."""
    scratch = rooms()
    assert isinstance(scratch.task, SemSegConfig)
    return replace(scratch, task=replace(scratch.task, head_passes=4), optim=OptimConfig(lr=1.5e-3))


def rooms_full() -> Experiment:
    """The same with every point of 64 rooms labelled, trained until it has converged."""
    few = rooms()
    assert isinstance(few.data, RoomsConfig)
    return replace(few, data=replace(few.data, num_rooms=64), transforms=few.transforms[1:], steps=3000)
