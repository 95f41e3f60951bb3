"""Segmentation of published indoor datasets with the paper's settings.

From scratch and from a pre-trained encoder (``--init FILE``: one of our own, or released weights), on one dataset or on
several at once. Data are what ``ponder3d prepare`` has written: ``--data.root DIR``, jointly
``--data.parts.0.data.root DIR`` and so on. ``NAME_one_gpu`` takes the same steps on one GPU, in several passes each;
24 GB are what it is meant for, which has not been measured. Nothing here has been run on the datasets themselves; the
figures in the docstrings are published ones, of test-time augmentation (``ponder3d evaluate RUN --augment scannet``).
"""

from dataclasses import replace

from ponder3d.data.joint import JointConfig
from ponder3d.data.limited import AnnotatedPoints
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.transforms import (
    Centre,
    Only,
    SetCondition,
    SphereCrop,
)
from ponder3d.encoders.norms import PromptNormConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes import pretrain_datasets
from ponder3d.recipes.pretrain_datasets import S3DIS_ROOMS, SCANNET_SCENES, STRUCTURED3D_ROOMS
from ponder3d.recipes.semseg import paper_augmentation
from ponder3d.tasks.heads import LanguageHeadConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.text_clip import ClipText


def scannet() -> Experiment:
    """ScanNet from scratch: 800 passes over its scenes, 12 of at most 100,000 points a step. Published: 72.3 mIoU."""
    return Experiment(
        task=SemSegConfig(encoder=SparseUNetConfig(), lovasz=0.0),
        data=PreparedConfig(views=0),
        transforms=paper_augmentation(SphereCrop()),
        validation_transforms=(Centre(),),
        optim=OptimConfig(name="sgd", schedule="one_cycle", lr=0.05, weight_decay=1e-4, final=1e-5, clip=0.0),
        steps=800 * SCANNET_SCENES // 12,
        batch_size=12,
        mix=0.8,
        precision="bf16-mixed",
        workers=8,
        validate_every=4000,
        validation_scenes=20,
        save_every=1000,
    )


def scannet_one_gpu() -> Experiment:
    """``scannet`` on one GPU with 24 GB: the same 12 scenes a step, in 3 passes of 4."""
    return _on_one_gpu(scannet(), passes=3)


def scannet_finetune() -> Experiment:
    """ScanNet from an encoder of the joint pre-training, ``--init FILE``; otherwise as from scratch, with Lovasz.

    The encoder keeps the norms of ScanNet and leaves those of the other datasets behind. The paper fine-tunes on all
    three datasets at once (``ppt``).
    """
    return _of_joint(scannet(), "ScanNet")


def scannet_finetune_one_gpu() -> Experiment:
    """``scannet_finetune`` on one GPU with 24 GB: the same 12 scenes a step, in 3 passes of 4."""
    return _on_one_gpu(scannet_finetune(), passes=3)


def scannet200() -> Experiment:
    """ScanNet200 from the joint pre-training, ``--init FILE``: 600 passes over the scenes. Published: 32.3 mIoU."""
    base = scannet_finetune()
    return replace(base, data=PreparedConfig(views=0, classes="scannet200"), steps=600 * SCANNET_SCENES // 12)


def scannet200_one_gpu() -> Experiment:
    """``scannet200`` on one GPU with 24 GB: the same 12 scenes a step, in 3 passes of 4."""
    return _on_one_gpu(scannet200(), passes=3)


def s3dis() -> Experiment:
    """S3DIS from scratch, area 5 held out: 3,000 passes over the other areas, voxels of 5 cm.

    The six folds: ``--data.fold Area_1`` to ``Area_6``, a run each, then ``ponder3d predict`` for each and ``ponder3d
    score RUN1/predictions ... --six-fold``. Predictions sum over ``--augment s3dis``. The reference reads coordinates
    instead of normals; without normals in the data this encoder reads colour and that a place is occupied.
    """
    base = scannet()
    encoder = SparseUNetConfig(inputs=("rgb", "normal", "one"), grid_size=0.05)
    return replace(
        base,
        task=SemSegConfig(encoder=encoder, lovasz=0.0),
        data=PreparedConfig(views=0),
        optim=replace(base.optim, schedule="poly", lr=0.1),
        steps=3000 * S3DIS_ROOMS // 12,
        validation_scenes=10,
    )


def s3dis_one_gpu() -> Experiment:
    """``s3dis`` on one GPU with 24 GB: the same 12 rooms a step, in 3 passes of 4."""
    return _on_one_gpu(s3dis(), passes=3)


def s3dis_finetune() -> Experiment:
    """S3DIS from an encoder of the joint pre-training, ``--init FILE``: voxels of 2 cm, 60 % of a room at a time.

    The encoder keeps the norms of S3DIS. The paper fine-tunes on all three datasets at once (``ppt``: 73.2 on area 5).
    """
    base = _of_joint(replace(scannet(), transforms=paper_augmentation(SphereCrop(share=0.6, max_points=0))), "S3DIS")
    return replace(base, steps=800 * S3DIS_ROOMS // 12, validation_scenes=10)


def s3dis_finetune_one_gpu() -> Experiment:
    """``s3dis_finetune`` on one GPU with 24 GB: the same 12 rooms a step, in 6 passes of 2."""
    return _on_one_gpu(s3dis_finetune(), passes=6)


def structured3d() -> Experiment:
    """Structured3D from scratch: 100 passes over its rooms, of which 60 % of the points are seen at a time."""
    return replace(
        scannet(),
        transforms=paper_augmentation(SphereCrop(share=0.6, max_points=0)),
        steps=100 * STRUCTURED3D_ROOMS // 12,
    )


def structured3d_one_gpu() -> Experiment:
    """``structured3d`` on one GPU with 24 GB: the same 12 rooms a step, in 3 passes of 4."""
    return _on_one_gpu(structured3d(), passes=3)


def structured3d_finetune() -> Experiment:
    """Structured3D from an encoder of the joint pre-training, ``--init FILE``, whose norms of it are kept."""
    return _of_joint(structured3d(), "Structured3D")


def structured3d_finetune_one_gpu() -> Experiment:
    """``structured3d_finetune`` on one GPU with 24 GB: the same 12 rooms a step, in 3 passes of 4."""
    return _on_one_gpu(structured3d_finetune(), passes=3)


def ppt() -> Experiment:
    """Point Prompt Training: Structured3D, ScanNet and S3DIS at once, with one language-guided head.

    From the joint pre-training (``--init FILE``): 77.0 mIoU published on ScanNet, 73.2 on area 5 of S3DIS; from
    scratch too. Scores are cosines with CLIP's vectors of class names. A
    step is 24 scenes in the proportion of 4 to 2 to 1, which may share a batch; figures come for each dataset.
    """
    joint = pretrain_datasets.joint()
    assert isinstance(joint.data, JointConfig)
    parts = tuple(replace(part, data=PreparedConfig(views=0)) for part in joint.data.parts)
    base = scannet()
    return replace(
        base,
        task=SemSegConfig(encoder=joint.task.encoder, head=LanguageHeadConfig(vectors=ClipText())),
        data=JointConfig(parts),
        transforms=paper_augmentation(
            Only(("ScanNet",), (SphereCrop(),)),
            Only(("Structured3D",), (SphereCrop(share=0.8, max_points=0),)),
            Only(("S3DIS",), (SphereCrop(share=0.6, max_points=0),)),
        ),
        # As in ``pretrain_datasets.joint``; the paper has 100 epochs.
        steps=100 * STRUCTURED3D_ROOMS * 7 // (4 * 24),
        batch_size=24,
        validation_scenes=30,
    )


def ppt_one_gpu() -> Experiment:
    """``ppt`` on one GPU with 24 GB: the same 24 scenes a step, in 6 passes of 4."""
    return _on_one_gpu(ppt(), passes=6)


def scannet_few_points() -> Experiment:
    """ScanNet with the labels of few points of each scene (the data-efficient benchmark), from ``--init FILE``.

    ``--transforms.0.file LIST`` is the benchmark's list of 20, 50, 100 or 200 points. The encoder is one of the joint
    pre-training, of which ScanNet's norms are kept. 100 passes over the scenes, and no Mix3D: of one labelled point
    in a thousand little is left to mix.
    """
    base = scannet_finetune()
    return replace(
        base,
        transforms=(AnnotatedPoints(), *base.transforms),
        steps=100 * SCANNET_SCENES // 12,
        mix=0.0,
    )


def scannet_few_points_one_gpu() -> Experiment:
    """``scannet_few_points`` on one GPU with 24 GB: the same 12 scenes a step, in 3 passes of 4."""
    return _on_one_gpu(scannet_few_points(), passes=3)


def scannet_few_scenes() -> Experiment:
    """ScanNet with few of its scenes (the data-efficient benchmark), from ``--init FILE``.

    ``--data.scenes LIST`` is the benchmark's list of 1, 5, 10 or 20 % of the training scenes. The steps are those of
    100 passes over all scenes, whatever the list.
    """
    return replace(scannet_finetune(), steps=100 * SCANNET_SCENES // 12)


def scannet_few_scenes_one_gpu() -> Experiment:
    """``scannet_few_scenes`` on one GPU with 24 GB: the same 12 scenes a step, in 3 passes of 4."""
    return _on_one_gpu(scannet_few_scenes(), passes=3)


def _of_joint(recipe: Experiment, condition: str) -> Experiment:
    """For an encoder of the joint pre-training: with the norms of one dataset, and Lovasz-softmax beside."""
    encoder = SparseUNetConfig(norm=PromptNormConfig((condition,)))
    return replace(
        recipe,
        task=SemSegConfig(encoder=encoder),
        transforms=(SetCondition(condition), *recipe.transforms),
        validation_transforms=(SetCondition(condition), *recipe.validation_transforms),
    )


def _on_one_gpu(recipe: Experiment, passes: int) -> Experiment:
    """The same scenes in each step, pass after pass; batch norms see those of a pass."""
    return replace(recipe, devices=1, accumulate=passes)
