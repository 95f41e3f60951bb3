"""Pre-training on recordings of drives: nuScenes with the paper's settings, PandaSet, one's own.

nuScenes and PandaSet are read as they are published, ``--data.root DIR``. ``NAME_one_gpu`` takes the same steps on one
GPU, in several passes each. The recipes of nuScenes have not been run on all of it; the figures in their docstrings are
published ones, of detectors that started from these encoders. Where they differ from the released code is in
``docs/architecture.md``.
"""

from dataclasses import replace

from ponder3d.data.driving.folder import DriveFolderConfig
from ponder3d.data.driving.nuscenes import NuScenesConfig
from ponder3d.data.driving.pandaset import PandaSetConfig
from ponder3d.data.transforms import (
    Flip,
    GridSample,
    PickRays,
    PointRange,
    RemoveBlocks,
    Rotate,
    Scale,
    SeeImages,
    Shift,
)
from ponder3d.encoders.camera import CameraEncoderConfig
from ponder3d.encoders.encoder import EncoderConfig
from ponder3d.encoders.fusion import FusionEncoderConfig
from ponder3d.encoders.image.convnext import ConvNeXtConfig
from ponder3d.encoders.image.masking import ImageMaskingConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.encoders.voxelnet import VoxelNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes import pretrain_streets
from ponder3d.render.fields import FieldConfig
from ponder3d.render.losses import RenderLossConfig
from ponder3d.render.opacity import NeuS
from ponder3d.render.renderer import RenderConfig
from ponder3d.tasks.masking import BlockMasking
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.text_clip import ClipText
from ponder3d.volume.projection import ProjectionConfig

KEY_FRAMES = 28_130
"""Of nuScenes' training scenes."""
RANGE = 54.0
"""Metres from the laser to the sides of the volume. UniPAD's distances are shares of it; ours are metres, and so are
the weights of their terms: 10 becomes 10 / 54 per metre."""
BOX = (-RANGE, -RANGE, -5.0, RANGE, RANGE, 3.0)
SHAPE = (180, 180, 5)


def paper_ponder(encoder: EncoderConfig, colour: float = 10.0) -> PonderConfig:
    """The decoders, samples and terms of UniPAD, in metres."""
    return PonderConfig(
        encoder=encoder,
        volume_box=BOX,
        volume_shape=SHAPE,
        cell_offsets=False,
        volume_net=ProjectionConfig(),
        field=FieldConfig(
            hidden=16,
            sdf_layers=6,
            colour_layers=4,
            geometry_channels=16,
            shared_volume=True,
            use_position=True,
            inv_std=20.0 / RANGE,
        ),
        render=RenderConfig(num_uniform=72, num_importance=24, opacity=NeuS("slope", 64.0 / RANGE)),
        losses=RenderLossConfig(colour=colour, depth=10.0 / RANGE, sdf=0.0, free_space=0.0, eikonal=0.0),
        mesh_cell=0.0,
    )


def nuscenes_lidar() -> Experiment:
    """UniPAD-L: a VoxelNet on ten sweeps, 80 % of the occupied blocks of 8 x 8 x 8 voxels taken away, depth rendered.

    4 GPUs with 4 key frames each, 12 epochs. Published after fine-tuning: 70.6 NDS and 65.0 mAP on the validation set.
    """
    return Experiment(
        task=paper_ponder(VoxelNetConfig(), colour=0.0),
        data=NuScenesConfig(sweeps=10, depth_sweeps=10),
        transforms=(
            Rotate(max_turn=0.3925),
            Scale(0.95, 1.05),
            _in_range(),
            _paper_rays(),
            RemoveBlocks(0.8, 0.8, size=0.6, height=1.6, corner=BOX[:3]),
        ),
        validation_transforms=(_in_range(depth=True),),
        optim=OptimConfig(lr=2e-4, schedule="one_cycle", warmup=0.4, final=1e-5, clip=35.0),
        steps=12 * KEY_FRAMES // 16,
        batch_size=16,
        devices=4,
        precision="bf16-mixed",
        validate_every=5000,
        validation_scenes=4,
        workers=8,
        save_every=500,
    )


def nuscenes_lidar_one_gpu() -> Experiment:
    """``nuscenes_lidar`` on one GPU: the same 16 key frames a step, in 8 passes of 2."""
    return _on_one_gpu(nuscenes_lidar(), 8)


def nuscenes_camera() -> Experiment:
    """UniPAD-C: ConvNeXt-S and lift-splat on six images of 900 x 1600, of which 0.3 are hidden; colour and depth.

    Start the backbone from ImageNet: ``--task.encoder.backbone.weights FILE`` (timm's ``convnext_small.fb_in1k``). 4
    GPUs with a key frame each, 12 epochs. Published after fine-tuning: 47.4 NDS and 41.5 mAP on the validation set.
    """
    encoder = CameraEncoderConfig(backbone=ConvNeXtConfig(frozen_stages=1), masking=ImageMaskingConfig(ratio=0.3))
    lidar = nuscenes_lidar()
    return replace(
        lidar,
        task=paper_ponder(encoder),
        transforms=(_in_range(), SeeImages(), _paper_rays()),
        validation_transforms=(_in_range(depth=True), SeeImages()),
        optim=OptimConfig(lr=2e-4, backbone_lr_scale=0.1, warmup=500 * 4 / (12 * KEY_FRAMES), final=1e-3, clip=35.0),
        steps=12 * KEY_FRAMES // 4,
        batch_size=4,
    )


def nuscenes_camera_one_gpu() -> Experiment:
    """``nuscenes_camera`` on one GPU: the same 4 key frames a step, in 4 passes of 1."""
    return _on_one_gpu(nuscenes_camera(), 4)


def nuscenes_fusion() -> Experiment:
    """Both modalities in one volume, pre-trained together.

    Published after fine-tuning detectors that started from UniPAD-L and UniPAD-C, pre-trained apart: 73.2 NDS and 69.9
    mAP on the validation set. ``encoders.fusion.merge`` makes one encoder of two.
    """
    camera, lidar = nuscenes_camera(), nuscenes_lidar()
    assert isinstance(camera.task, PonderConfig)
    encoder = FusionEncoderConfig(lidar=lidar.task.encoder, camera=camera.task.encoder, box=BOX, shape=SHAPE)
    return replace(
        camera,
        task=replace(camera.task, encoder=encoder),
        data=lidar.data,
        transforms=(*camera.transforms, lidar.transforms[-1]),
        optim=replace(camera.optim, lr=4e-5),
    )


def nuscenes_fusion_one_gpu() -> Experiment:
    """``nuscenes_fusion`` on one GPU: the same 4 key frames a step, in 4 passes of 1."""
    return _on_one_gpu(nuscenes_fusion(), 4)


def nuscenes_sparse_unet() -> Experiment:
    """PonderOutdoor: a SparseUNet on the key sweep, 80 % of the blocks hidden behind a token; colour and depth.

    There is no published figure of it; UniPAD reports 79.4 mIoU in LiDAR segmentation with a SparseUNet of its own.
    """
    encoder = SparseUNetConfig(inputs=("xyz", "intensity"), grid_size=0.1)
    return Experiment(
        task=replace(paper_ponder(encoder), masking=BlockMasking()),
        data=NuScenesConfig(),
        transforms=(
            Rotate(max_turn=0.785),
            Scale(),
            Shift((0.5, 0.5, 0.5)),
            Flip(),
            _in_range(),
            GridSample(),
            _paper_rays(),
        ),
        validation_transforms=(_in_range(depth=True), GridSample()),
        optim=OptimConfig(lr=2e-3, schedule="one_cycle", weight_decay=5e-3, final=1e-4, clip=35.0),
        steps=12 * KEY_FRAMES // 16,
        batch_size=16,
        devices=4,
        precision="bf16-mixed",
        validate_every=5000,
        validation_scenes=4,
        workers=8,
        save_every=500,
    )


def nuscenes_sparse_unet_one_gpu() -> Experiment:
    """``nuscenes_sparse_unet`` on one GPU: the same 16 key frames a step, in 4 passes of 4."""
    return _on_one_gpu(nuscenes_sparse_unet(), 4)


def nuscenes_sparse_unet_semantic() -> Experiment:
    """As ``nuscenes_sparse_unet``, and the classes of lidarseg are rendered too, told apart by CLIP's vectors."""
    base = nuscenes_sparse_unet()
    assert isinstance(base.task, PonderConfig)
    losses = replace(base.task.losses, semantic=0.1, temperature=0.01)
    return replace(base, task=replace(base.task, semantics=ClipText(), losses=losses))


def pandaset() -> Experiment:
    """Label-free, from the laser, at a size for a CPU; of each drive in ``--data.root DIR`` the last fifth is held out.

    The network and the terms of ``pretrain_streets.lidar``, with the sky, in a finer volume.
    """
    lidar = pretrain_streets.with_sky(pretrain_streets.lidar())
    base = _recorded(lidar, PandaSetConfig(image_size=(180, 320), raised=1.4, keep_in_memory=8))
    assert isinstance(base.task, PonderConfig)
    # Cells of 0.8 x 0.8 x 0.53 m: these lasers see 165,000 points, that of the streets 30,000.
    return replace(base, task=replace(base.task, volume_shape=(80, 80, 12)))


def pandaset_camera() -> Experiment:
    """As ``pandaset``, from the six images; see ``pretrain_streets.camera``."""
    return _recorded(pretrain_streets.camera(), PandaSetConfig(image_size=(180, 320), raised=1.4, keep_in_memory=8))


def folder() -> Experiment:
    """As ``pandaset``, on drives of one's own; how they have to lie in a directory says ``data.driving.folder``."""
    lidar = pretrain_streets.with_sky(pretrain_streets.lidar())
    return _recorded(lidar, DriveFolderConfig(image_size=(180, 320)))


def _recorded(base: Experiment, data: PandaSetConfig | DriveFolderConfig) -> Experiment:
    return replace(base, data=data, steps=400, workers=1)


def _in_range(depth: bool = False) -> PointRange:
    return PointRange(BOX[:3], BOX[3:], depth=depth)


def _paper_rays() -> PickRays:
    return PickRays(views=6, rays_per_view=512, fill=True, near=1.0, far=100.0)


def _on_one_gpu(recipe: Experiment, passes: int) -> Experiment:
    return replace(recipe, devices=1, accumulate=passes)
