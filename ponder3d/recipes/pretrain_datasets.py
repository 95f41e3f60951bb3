"""Pre-training on published indoor datasets with the paper's settings: jointly, and each by itself.

Data are what ``ponder3d prepare`` has written: ``--data.root DIR``, jointly ``--data.parts.0.data.root DIR`` and so on.
Recipes are the paper's in the number of scenes they see and in how, and differ where the released code is in error
(``docs/architecture.md``). ``NAME_one_gpu`` takes the same steps on one GPU, in several passes each; 24 GB are what it
is meant for, which has not been measured. Nothing here has been run on the datasets themselves; the figures in the
docstrings are published ones.
"""

from dataclasses import replace

from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.transforms import Centre, GridSample
from ponder3d.encoders.norms import PromptNormConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes.pretrain_indoor import PAPER_TRANSFORMS
from ponder3d.render.losses import RenderLossConfig
from ponder3d.tasks.class_vectors import NoVectors
from ponder3d.tasks.heads import LanguageHeadConfig
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.text_clip import ClipText

SCANNET_SCENES, S3DIS_ROOMS, STRUCTURED3D_ROOMS = 1201, 204, 18_300
"""Training scenes: 1,201 of ScanNet, the rooms of S3DIS without area 5, about so many rooms of Structured3D."""


def joint() -> Experiment:
    """Joint pre-training on Structured3D, ScanNet and S3DIS with rendered semantics: the paper's main result.

    One SparseUNet whose norms know the dataset; classes of all three in one vocabulary of 35, told apart by CLIP's
    vectors of their names. 8 GPUs with 8 scenes each. Published after
    fine-tuning: 77.0 mIoU on ScanNet's validation scenes and 73.2 on S3DIS' area 5 (``semseg_datasets.ppt``), 32.3 on
    ScanNet200 (``semseg_datasets.scannet200``). ``--task.points 1`` adds the supervised loss on points, which the
    released code computes and drops.
    """
    parts = (
        PartConfig("Structured3D", PreparedConfig(), share=4.0),
        PartConfig("ScanNet", PreparedConfig(), share=2.0),
        PartConfig("S3DIS", PreparedConfig(), share=1.0),
    )
    base = scannet()
    assert isinstance(base.task, PonderConfig)
    encoder = SparseUNetConfig(norm=PromptNormConfig(("ScanNet", "S3DIS", "Structured3D")))
    return replace(
        base,
        task=replace(base.task, encoder=encoder),
        data=JointConfig(parts),
        optim=replace(base.optim, lr=8e-4),
        # An epoch has each room of Structured3D once and 3/4 as many scenes of the other two; the paper has 400.
        steps=400 * STRUCTURED3D_ROOMS * 7 // (4 * 64),
        batch_size=64,
        precision="32-true",
        devices=8,
    )


def joint_one_gpu() -> Experiment:
    """``joint`` on one GPU with 24 GB: the same 64 scenes a step, in 16 passes of 4."""
    return _on_one_gpu(joint(), passes=16)


def joint_label_free() -> Experiment:
    """``joint`` without labels: colour and depth only. The paper reports no figure for it."""
    return _label_free(joint())


def joint_label_free_one_gpu() -> Experiment:
    """``joint_label_free`` on one GPU with 24 GB: the same 64 scenes a step, in 16 passes of 4."""
    return _on_one_gpu(joint_label_free(), passes=16)


def scannet() -> Experiment:
    """Pre-training on ScanNet with rendered semantics: 2,000 passes over its scenes, 4 GPUs with 8 scenes each.

    There is no released checkpoint of it to compare with. Released with mixed precision of 16 bits, of which users
    report losses that are not finite; rendering is always done in 32 here.
    """
    return Experiment(
        task=PonderConfig(
            encoder=SparseUNetConfig(),
            losses=RenderLossConfig(temperature=0.01),
            semantics=ClipText(),
            points_head=LanguageHeadConfig(ClipText()),
        ),
        data=PreparedConfig(),
        transforms=PAPER_TRANSFORMS,
        validation_transforms=(Centre(), GridSample()),
        optim=OptimConfig(name="sgd", schedule="one_cycle", lr=2e-3, weight_decay=1e-4, final=1e-5, clip=0.0),
        steps=2000 * SCANNET_SCENES // 32,
        batch_size=32,
        precision="bf16-mixed",
        devices=4,
        workers=8,
        validate_every=5000,
        validation_scenes=6,
        save_every=1000,
    )


def scannet_one_gpu() -> Experiment:
    """``scannet`` on one GPU with 24 GB: the same 32 scenes a step, in 8 passes of 4."""
    return _on_one_gpu(scannet(), passes=8)


def scannet_label_free() -> Experiment:
    """``scannet`` without labels: colour and depth only."""
    return _label_free(scannet())


def scannet_label_free_one_gpu() -> Experiment:
    """``scannet_label_free`` on one GPU with 24 GB: the same 32 scenes a step, in 8 passes of 4."""
    return _on_one_gpu(scannet_label_free(), passes=8)


def s3dis() -> Experiment:
    """Pre-training on S3DIS without area 5, with rendered semantics: 800 passes over its rooms, 8 GPUs with 8 each.

    Images are those of 2D-3D-S. The released configuration of it does not start, so there is no figure.
    """
    optim = replace(scannet().optim, lr=8e-4)
    return replace(scannet(), optim=optim, steps=800 * S3DIS_ROOMS // 64, batch_size=64, devices=8, validate_every=500)


def s3dis_one_gpu() -> Experiment:
    """``s3dis`` on one GPU with 24 GB: the same 64 rooms a step, in 16 passes of 4."""
    return _on_one_gpu(s3dis(), passes=16)


def s3dis_label_free() -> Experiment:
    """``s3dis`` without labels: colour and depth only."""
    return _label_free(s3dis())


def s3dis_label_free_one_gpu() -> Experiment:
    """``s3dis_label_free`` on one GPU with 24 GB: the same 64 rooms a step, in 16 passes of 4."""
    return _on_one_gpu(s3dis_label_free(), passes=16)


def structured3d() -> Experiment:
    """Pre-training on Structured3D with rendered semantics: 800 passes over its rooms, 8 GPUs with 8 rooms each.

    The released configuration of it does not start, so there is no figure.
    """
    return replace(s3dis(), steps=800 * STRUCTURED3D_ROOMS // 64, validate_every=5000)


def structured3d_one_gpu() -> Experiment:
    """``structured3d`` on one GPU with 24 GB: the same 64 rooms a step, in 16 passes of 4."""
    return _on_one_gpu(structured3d(), passes=16)


def structured3d_label_free() -> Experiment:
    """``structured3d`` without labels: colour and depth only."""
    return _label_free(structured3d())


def structured3d_label_free_one_gpu() -> Experiment:
    """``structured3d_label_free`` on one GPU with 24 GB: the same 64 rooms a step, in 16 passes of 4."""
    return _on_one_gpu(structured3d_label_free(), passes=16)


def _label_free(recipe: Experiment) -> Experiment:
    assert isinstance(recipe.task, PonderConfig)
    return replace(recipe, task=replace(recipe.task, semantics=NoVectors()))


def _on_one_gpu(recipe: Experiment, passes: int) -> Experiment:
    """The same scenes in each step, pass after pass; batch norms see those of a pass, as they see those of a GPU."""
    return replace(recipe, devices=1, accumulate=passes)
