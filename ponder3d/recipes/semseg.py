"""Semantic segmentation of generated rooms, from few labels, from all, with the paper's settings; of prepared data."""

from dataclasses import replace

from ponder3d.data.elastic import ElasticDistortion
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import (
    AutoContrast,
    Centre,
    DropPoints,
    Flip,
    GridSample,
    Jitter,
    JitterColour,
    LimitLabels,
    Rotate,
    Scale,
    ShiftColour,
    Shuffle,
    SphereCrop,
    Transform,
)
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes.pretrain_indoor import small_encoder
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.tuning import DecoderOnly, HeadOnly, Lora, TuningConfig


def rooms() -> Experiment:
    """Segment generated rooms from 20 labelled points in each of 8 rooms, from scratch."""
    return Experiment(
        task=SemSegConfig(encoder=small_encoder()),
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
            GridSample(),
        ),
        # Every point is scored, which takes several passes over a room; with GridSample() it is one point per voxel.
        validation_transforms=(Centre(),),
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


def rooms_decoder() -> Experiment:
    """As ``rooms_finetune``, ``--init FILE``, with the encoder's first half frozen: decoder and head are trained."""
    return _tuned(DecoderOnly(), lr=3e-3)


def rooms_head() -> Experiment:
    """As ``rooms_finetune``, ``--init FILE``, with the encoder frozen: the head alone is trained."""
    return _tuned(HeadOnly(), lr=1e-2)


def rooms_lora() -> Experiment:
    """As ``rooms_finetune``, ``--init FILE``: the head is trained, and changes of the convolutions of rank 4."""
    return _tuned(Lora(), lr=3e-3)


def _tuned(tuning: TuningConfig, lr: float) -> Experiment:
    base = rooms_finetune()
    assert isinstance(base.task, SemSegConfig)
    return replace(base, task=replace(base.task, tuning=tuning), optim=OptimConfig(lr=lr))


def rooms_full() -> Experiment:
    """The same with every point of 64 rooms labelled, trained until it has converged."""
    few = rooms()
    assert isinstance(few.data, RoomsConfig)
    return replace(few, data=replace(few.data, num_rooms=64), transforms=few.transforms[1:], steps=3000)


def rooms_full_finetune() -> Experiment:
    """``rooms_full`` from a pre-trained encoder, ``--init FILE``, as in ``rooms_finetune``."""
    full, tuned = rooms_full(), rooms_finetune()
    return replace(full, task=tuned.task, optim=tuned.optim)


def rooms_paper() -> Experiment:
    """The paper's segmentation from scratch on generated rooms, for a GPU.

    39 million parameters, 2 cm voxels, 12 scenes of at most 100,000 points per step. There is no published number for
    generated rooms.
    """
    return Experiment(
        task=SemSegConfig(encoder=SparseUNetConfig(), lovasz=0.0),
        data=RoomsConfig(first=500_000, num_rooms=1200, cache="runs/rooms"),
        transforms=paper_augmentation(SphereCrop()),
        validation_transforms=(Centre(),),
        optim=OptimConfig(name="sgd", lr=0.05, weight_decay=1e-4, final=1e-4),
        steps=80_000,
        batch_size=12,
        mix=0.8,
        precision="bf16-mixed",
        validate_every=4000,
        validation_scenes=4,
        workers=8,
        save_every=1000,
    )


def prepared() -> Experiment:
    """The paper's segmentation of prepared scenes, ``--data.root DIR_OR_URL``, for a GPU.

    ``--data.classes`` chooses among the dataset's classes, ``--init FILE`` starts from a pre-trained encoder. Published
    for ScanNet, with augmentation at test time (``evaluate --augment scannet``): 72.3 mIoU from scratch, 77.0
    pre-trained on three datasets with labels. Not run here.
    """
    return replace(rooms_paper(), data=PreparedConfig(views=0), validate_every=4000, validation_scenes=20)


def paper_augmentation(*crop: Transform) -> tuple[Transform, ...]:
    """The paper's augmentation for segmentation, with a bound on the size of a scene."""
    return (
        Centre(),
        DropPoints(0.2, probability=0.2),
        Rotate(),
        Rotate("x", 0.049),
        Rotate("y", 0.049),
        Scale(),
        Flip(),
        Jitter(),
        ElasticDistortion(),
        AutoContrast(),
        ShiftColour(),
        JitterColour(),
        GridSample(),
        *crop,
        Shuffle(),
    )
