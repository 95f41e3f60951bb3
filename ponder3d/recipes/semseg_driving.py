"""Segmentation of what lasers see: generated streets from few labels, PandaSet, nuScenes with the usual settings."""

from dataclasses import replace

from ponder3d.data.driving.nuscenes import NuScenesConfig
from ponder3d.data.driving.pandaset import PandaSetConfig
from ponder3d.data.synthetic.streets import StreetsConfig
from ponder3d.data.transforms import Flip, GridSample, Jitter, LimitLabels, PointRange, Rotate, Scale, Shuffle
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes.pretrain_driving import KEY_FRAMES
from ponder3d.recipes.pretrain_streets import small_encoder, street_range
from ponder3d.tasks.semseg import SemSegConfig


def streets() -> Experiment:
    """Segment generated streets from 20 labelled points in each of 8 sweeps, of 8 towns, from scratch."""
    return Experiment(
        task=SemSegConfig(encoder=small_encoder()),
        data=StreetsConfig(first=500_000, num_towns=8, num_test_towns=8, frames=1, images=False, cache="runs/streets"),
        transforms=(LimitLabels(20), street_range(), Rotate(), Scale(), Flip(), GridSample()),
        validation_transforms=(street_range(),),
        # As in ``semseg.rooms``: the head starts from nothing, and has 80 steps.
        optim=OptimConfig(lr=1e-2, encoder_lr_scale=0.4),
        steps=80,
        batch_size=2,
        workers=0,
    )


def streets_finetune() -> Experiment:
    """The same from a pre-trained encoder, ``--init FILE``: a head for its features first, then all is trained.

    With ``--task.all-levels`` a pre-trained encoder gains a point or two more (``docs/log.md``).
    """
    scratch = streets()
    assert isinstance(scratch.task, SemSegConfig)
    return replace(scratch, task=replace(scratch.task, head_passes=4), optim=OptimConfig(lr=1.5e-3))


def streets_full() -> Experiment:
    """The same with every point of 6 sweeps in each of 48 towns labelled, trained until it has converged."""
    few = streets()
    assert isinstance(few.data, StreetsConfig)
    data = replace(few.data, num_towns=48, frames=6)
    return replace(few, data=data, transforms=few.transforms[1:], steps=3000)


def streets_full_finetune() -> Experiment:
    """``streets_full`` from a pre-trained encoder, ``--init FILE``, as in ``streets_finetune``."""
    full, tuned = streets_full(), streets_finetune()
    return replace(full, task=tuned.task, optim=tuned.optim)


def pandaset() -> Experiment:
    """Segment PandaSet from 20 labelled points in each frame of ``--data.root DIR``, in nuScenes' 16 classes.

    ``--data.classes native`` takes PandaSet's 42.
    """
    return replace(streets(), data=PandaSetConfig(images=False, classes="nuscenes", raised=1.4, keep_in_memory=8))


def pandaset_finetune() -> Experiment:
    """The same from a pre-trained encoder, ``--init FILE``."""
    return replace(streets_finetune(), data=pandaset().data)


def nuscenes() -> Experiment:
    """nuScenes' lidarseg, all labels, from scratch or from ``--init FILE``; ``--data.root DIR``.

    4 GPUs with 3 sweeps each, 50 epochs. UniPAD reports 79.4 mIoU with a pre-trained SparseUNet on the validation set.
    Not run here.
    """
    in_range = PointRange((-51.2, -51.2, -4.0), (51.2, 51.2, 2.4))
    return Experiment(
        task=SemSegConfig(encoder=SparseUNetConfig(inputs=("xyz", "intensity"), grid_size=0.05)),
        data=NuScenesConfig(images=False),
        transforms=(in_range, Rotate(probability=1.0), Scale(), Flip(), Jitter(), GridSample(), Shuffle()),
        # Every point of a sweep is to have a class, however far it is.
        validation_transforms=(),
        optim=OptimConfig(lr=2e-3, schedule="one_cycle", weight_decay=5e-3, warmup=0.04, final=1e-3),
        steps=50 * KEY_FRAMES // 12,
        batch_size=12,
        devices=4,
        precision="bf16-mixed",
        validate_every=5000,
        validation_scenes=100,
        workers=8,
        save_every=1000,
    )


def nuscenes_one_gpu() -> Experiment:
    """``nuscenes`` on one GPU: the same 12 sweeps a step, in 3 passes of 4."""
    return replace(nuscenes(), devices=1, accumulate=3)
