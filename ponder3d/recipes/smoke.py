"""Every recipe at a size of seconds: the same parts and the same path through the code, on a few small rooms.

They show that a recipe runs on this machine, and teach nothing.
"""

from dataclasses import replace

from ponder3d.config import Config
from ponder3d.data.dataset import DatasetConfig
from ponder3d.data.driving.dataset import DrivingConfig
from ponder3d.data.joint import JointConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.synthetic.streets import StreetsConfig
from ponder3d.data.transforms import Only, PickRays, Transform
from ponder3d.encoders.camera import CameraEncoderConfig
from ponder3d.encoders.encoder import EncoderConfig
from ponder3d.encoders.fusion import FusionEncoderConfig
from ponder3d.encoders.image.convnext import ConvNeXtConfig
from ponder3d.encoders.image.depth import SimpleDepth
from ponder3d.encoders.image.lift_splat import LiftSplat
from ponder3d.encoders.norms import PromptNormConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.encoders.voxelnet import VoxelNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.probe import OnlineProbes, ProbeConfig
from ponder3d.recipes import (
    joint_rooms,
    pretrain_datasets,
    pretrain_driving,
    pretrain_indoor,
    pretrain_rgbd,
    pretrain_streets,
    rooms_and_streets,
    semseg,
    semseg_datasets,
    semseg_driving,
)
from ponder3d.tasks.class_vectors import ClassVectorsConfig, FixedCodes, NoVectors
from ponder3d.tasks.heads import HeadConfig, LanguageHeadConfig
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.volume.projection import ProjectionConfig
from ponder3d.volume.second3d import Second3DConfig
from ponder3d.volume.unet3d import ShallowNet3DConfig, UNet3DConfig, VolumeNetConfig


def pretrain_indoor_rooms() -> Experiment:
    """``pretrain_indoor.rooms`` in seconds."""
    return _small(pretrain_indoor.rooms())


def pretrain_indoor_rooms_probed() -> Experiment:
    """``pretrain_indoor.rooms_probed`` in seconds."""
    return _small(pretrain_indoor.rooms_probed())


def pretrain_indoor_rooms_semantic() -> Experiment:
    """``pretrain_indoor.rooms_semantic`` in seconds."""
    return _small(pretrain_indoor.rooms_semantic())


def pretrain_indoor_rooms_paper() -> Experiment:
    """``pretrain_indoor.rooms_paper`` in seconds."""
    return _small(pretrain_indoor.rooms_paper())


def pretrain_rgbd_folder() -> Experiment:
    """``pretrain_rgbd.folder`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_rgbd.folder())


def pretrain_rgbd_folder_features() -> Experiment:
    """``pretrain_rgbd.folder_features`` in seconds; roots of data and maps as there."""
    return _small(pretrain_rgbd.folder_features())


def pretrain_rgbd_prepared() -> Experiment:
    """``pretrain_rgbd.prepared`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_rgbd.prepared())


def pretrain_rgbd_prepared_features() -> Experiment:
    """``pretrain_rgbd.prepared_features`` in seconds; roots of data and maps as there."""
    return _small(pretrain_rgbd.prepared_features())


def semseg_prepared() -> Experiment:
    """``semseg.prepared`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg.prepared())


def semseg_rooms() -> Experiment:
    """``semseg.rooms`` in seconds."""
    return _small(semseg.rooms())


def semseg_rooms_finetune() -> Experiment:
    """``semseg.rooms_finetune`` in seconds."""
    return _small(semseg.rooms_finetune())


def semseg_rooms_decoder() -> Experiment:
    """``semseg.rooms_decoder`` in seconds."""
    return _small(semseg.rooms_decoder())


def semseg_rooms_head() -> Experiment:
    """``semseg.rooms_head`` in seconds."""
    return _small(semseg.rooms_head())


def semseg_rooms_lora() -> Experiment:
    """``semseg.rooms_lora`` in seconds."""
    return _small(semseg.rooms_lora())


def semseg_rooms_full() -> Experiment:
    """``semseg.rooms_full`` in seconds."""
    return _small(semseg.rooms_full())


def semseg_rooms_paper() -> Experiment:
    """``semseg.rooms_paper`` in seconds."""
    return _small(semseg.rooms_paper())


def pretrain_datasets_joint() -> Experiment:
    """``pretrain_datasets.joint`` in seconds; ``--data.parts.0.data.root DIR`` and so on."""
    return _small(pretrain_datasets.joint())


def pretrain_datasets_joint_label_free() -> Experiment:
    """``pretrain_datasets.joint_label_free`` in seconds; ``--data.parts.0.data.root DIR`` and so on."""
    return _small(pretrain_datasets.joint_label_free())


def pretrain_datasets_scannet() -> Experiment:
    """``pretrain_datasets.scannet`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_datasets.scannet())


def pretrain_datasets_scannet_label_free() -> Experiment:
    """``pretrain_datasets.scannet_label_free`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_datasets.scannet_label_free())


def pretrain_datasets_s3dis() -> Experiment:
    """``pretrain_datasets.s3dis`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_datasets.s3dis())


def pretrain_datasets_s3dis_label_free() -> Experiment:
    """``pretrain_datasets.s3dis_label_free`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_datasets.s3dis_label_free())


def pretrain_datasets_structured3d() -> Experiment:
    """``pretrain_datasets.structured3d`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_datasets.structured3d())


def pretrain_datasets_structured3d_label_free() -> Experiment:
    """``pretrain_datasets.structured3d_label_free`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_datasets.structured3d_label_free())


def semseg_datasets_scannet() -> Experiment:
    """``semseg_datasets.scannet`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_datasets.scannet())


def semseg_datasets_scannet_finetune() -> Experiment:
    """``semseg_datasets.scannet_finetune`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_datasets.scannet_finetune())


def semseg_datasets_scannet200() -> Experiment:
    """``semseg_datasets.scannet200`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_datasets.scannet200())


def semseg_datasets_s3dis() -> Experiment:
    """``semseg_datasets.s3dis`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_datasets.s3dis())


def semseg_datasets_s3dis_finetune() -> Experiment:
    """``semseg_datasets.s3dis_finetune`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_datasets.s3dis_finetune())


def semseg_datasets_structured3d() -> Experiment:
    """``semseg_datasets.structured3d`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_datasets.structured3d())


def semseg_datasets_structured3d_finetune() -> Experiment:
    """``semseg_datasets.structured3d_finetune`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_datasets.structured3d_finetune())


def semseg_datasets_ppt() -> Experiment:
    """``semseg_datasets.ppt`` in seconds; ``--data.parts.0.data.root DIR`` and so on."""
    return _small(semseg_datasets.ppt())


def semseg_datasets_scannet_few_points() -> Experiment:
    """``semseg_datasets.scannet_few_points`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_datasets.scannet_few_points())


def semseg_datasets_scannet_few_scenes() -> Experiment:
    """``semseg_datasets.scannet_few_scenes`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_datasets.scannet_few_scenes())


def joint_rooms_homes() -> Experiment:
    """``joint_rooms.homes`` in seconds."""
    return _small(joint_rooms.homes())


def joint_rooms_offices() -> Experiment:
    """``joint_rooms.offices`` in seconds."""
    return _small(joint_rooms.offices())


def joint_rooms_renders() -> Experiment:
    """``joint_rooms.renders`` in seconds."""
    return _small(joint_rooms.renders())


def joint_rooms_naive() -> Experiment:
    """``joint_rooms.naive`` in seconds."""
    return _small(joint_rooms.naive())


def joint_rooms_prompted() -> Experiment:
    """``joint_rooms.prompted`` in seconds."""
    return _small(joint_rooms.prompted())


def joint_rooms_prompted_codes() -> Experiment:
    """``joint_rooms.prompted_codes`` in seconds."""
    return _small(joint_rooms.prompted_codes())


def joint_rooms_prompted_text() -> Experiment:
    """``joint_rooms.prompted_text`` in seconds."""
    return _small(joint_rooms.prompted_text())


def pretrain_streets_lidar() -> Experiment:
    """``pretrain_streets.lidar`` in seconds."""
    return _small(pretrain_streets.lidar())


def pretrain_streets_lidar_ahead() -> Experiment:
    """``pretrain_streets.lidar_ahead`` in seconds."""
    return _small(pretrain_streets.lidar_ahead())


def pretrain_streets_lidar_semantic() -> Experiment:
    """``pretrain_streets.lidar_semantic`` in seconds."""
    return _small(pretrain_streets.lidar_semantic())


def pretrain_streets_voxelnet() -> Experiment:
    """``pretrain_streets.voxelnet`` in seconds."""
    return _small(pretrain_streets.voxelnet())


def pretrain_streets_camera() -> Experiment:
    """``pretrain_streets.camera`` in seconds."""
    return _small(pretrain_streets.camera())


def pretrain_streets_fusion() -> Experiment:
    """``pretrain_streets.fusion`` in seconds."""
    return _small(pretrain_streets.fusion())


def pretrain_driving_nuscenes_lidar() -> Experiment:
    """``pretrain_driving.nuscenes_lidar`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_driving.nuscenes_lidar())


def pretrain_driving_nuscenes_camera() -> Experiment:
    """``pretrain_driving.nuscenes_camera`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_driving.nuscenes_camera())


def pretrain_driving_nuscenes_fusion() -> Experiment:
    """``pretrain_driving.nuscenes_fusion`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_driving.nuscenes_fusion())


def pretrain_driving_nuscenes_sparse_unet() -> Experiment:
    """``pretrain_driving.nuscenes_sparse_unet`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_driving.nuscenes_sparse_unet())


def pretrain_driving_nuscenes_sparse_unet_semantic() -> Experiment:
    """``pretrain_driving.nuscenes_sparse_unet_semantic`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_driving.nuscenes_sparse_unet_semantic())


def pretrain_driving_pandaset() -> Experiment:
    """``pretrain_driving.pandaset`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_driving.pandaset())


def pretrain_driving_pandaset_camera() -> Experiment:
    """``pretrain_driving.pandaset_camera`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_driving.pandaset_camera())


def pretrain_driving_folder() -> Experiment:
    """``pretrain_driving.folder`` in seconds; ``--data.root DIR`` as there."""
    return _small(pretrain_driving.folder())


def semseg_driving_streets() -> Experiment:
    """``semseg_driving.streets`` in seconds."""
    return _small(semseg_driving.streets())


def semseg_driving_streets_finetune() -> Experiment:
    """``semseg_driving.streets_finetune`` in seconds."""
    return _small(semseg_driving.streets_finetune())


def semseg_driving_streets_full() -> Experiment:
    """``semseg_driving.streets_full`` in seconds."""
    return _small(semseg_driving.streets_full())


def semseg_driving_pandaset() -> Experiment:
    """``semseg_driving.pandaset`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_driving.pandaset())


def semseg_driving_pandaset_finetune() -> Experiment:
    """``semseg_driving.pandaset_finetune`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_driving.pandaset_finetune())


def semseg_driving_nuscenes() -> Experiment:
    """``semseg_driving.nuscenes`` in seconds; ``--data.root DIR`` as there."""
    return _small(semseg_driving.nuscenes())


def pandaset() -> Experiment:
    """``pretrain_driving.pandaset`` in seconds; ``--data.root DIR`` as there."""
    return pretrain_driving_pandaset()


def rooms_and_streets_pretrain() -> Experiment:
    """``rooms_and_streets.pretrain`` in seconds."""
    return _small(rooms_and_streets.pretrain())


def rooms_and_streets_rooms_finetune() -> Experiment:
    """``rooms_and_streets.rooms_finetune`` in seconds."""
    return _small(rooms_and_streets.rooms_finetune())


def rooms_and_streets_streets_finetune() -> Experiment:
    """``rooms_and_streets.streets_finetune`` in seconds."""
    return _small(rooms_and_streets.streets_finetune())


def _small(recipe: Experiment) -> Experiment:
    return replace(
        recipe,
        task=_small_task(recipe.task),
        data=_small_data(recipe.data),
        transforms=tuple(_small_transform(t) for t in recipe.transforms),
        validation_transforms=tuple(_small_transform(t) for t in recipe.validation_transforms),
        steps=4,
        batch_size=2,
        devices=1,
        workers=0,
        precision="32-true",
        validate_every=2 if recipe.validate_every else 0,
        validation_scenes=1,
        save_every=2,
        log_every=1,
        probe=_small_probe(recipe.probe),
    )


def _small_probe(probe: ProbeConfig) -> ProbeConfig:
    if not isinstance(probe, OnlineProbes):
        return probe
    return replace(probe, train=_small_data(probe.train), train_scenes=1, test_scenes=1)


def _small_data(data: DatasetConfig) -> DatasetConfig:
    if isinstance(data, JointConfig):
        return replace(data, parts=tuple(replace(part, data=_small_data(part.data)) for part in data.parts))
    if isinstance(data, RoomsConfig):
        num = min(data.num_rooms, 4)
        return replace(
            data, num_rooms=num, num_test_rooms=2, image_size=(48, 64), max_points=4000, cache="runs/smoke-rooms"
        )
    if isinstance(data, StreetsConfig):
        return replace(
            data,
            num_towns=2,
            num_test_towns=1,
            frames=min(data.frames, 2),
            image_size=(48, 64),
            laser=replace(data.laser, azimuths=180),
            cache="runs/smoke-streets",
        )
    if isinstance(data, DrivingConfig):
        return replace(data, image_size=(64, 96) if data.images else ())
    return data


def _small_task(task: Config) -> PonderConfig | SemSegConfig:
    if isinstance(task, SemSegConfig):
        return replace(task, encoder=_small_encoder(task.encoder), head=_small_head(task.head))
    assert isinstance(task, PonderConfig)
    return replace(
        task,
        encoder=_small_encoder(task.encoder),
        volume_shape=_small_shape(task.volume_shape),
        volume_net=_small_net(task.volume_net),
        render=replace(task.render, num_uniform=8, num_importance=4 if task.render.num_importance else 0),
        mesh_cell=0.2 if task.mesh_cell else 0.0,
        semantics=_small_vectors(task.semantics),
        points_head=_small_head(task.points_head),
    )


def _small_head(head: HeadConfig) -> HeadConfig:
    return replace(head, vectors=_small_vectors(head.vectors)) if isinstance(head, LanguageHeadConfig) else head


def _small_vectors(vectors: ClassVectorsConfig) -> ClassVectorsConfig:
    """Of no text encoder: its weights are not everywhere."""
    return vectors if isinstance(vectors, NoVectors) else FixedCodes(64)


def _small_net(net: VolumeNetConfig) -> VolumeNetConfig:
    if isinstance(net, UNet3DConfig):
        return replace(net, channels=(8, 16), out_channels=16)
    if isinstance(net, ProjectionConfig):
        return replace(net, out_channels=16)
    if isinstance(net, Second3DConfig):
        return replace(net, channels=tuple(8 for _ in net.channels), depth=1, out_channels=16)
    assert isinstance(net, ShallowNet3DConfig)
    return replace(net, channels=16, out_channels=16)


def _small_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Of a volume; what is flat stays flat."""
    return (16, 16, min(shape[2], 8))


def _small_encoder(encoder: EncoderConfig) -> EncoderConfig:
    if isinstance(encoder, FusionEncoderConfig):
        return replace(
            encoder,
            lidar=_small_encoder(encoder.lidar),
            camera=_small_encoder(encoder.camera),
            shape=_small_shape(encoder.shape),
            channels=16,
            out_channels=16,
        )
    if isinstance(encoder, CameraEncoderConfig):
        return _small_camera(encoder)
    if isinstance(encoder, VoxelNetConfig):
        return replace(
            encoder,
            shape=_small_shape(encoder.shape),
            channels=tuple(8 for _ in encoder.channels),
            blocks=tuple(1 for _ in encoder.blocks),
            volume_channels=16,
            net=_small_net(encoder.net),
        )
    assert isinstance(encoder, SparseUNetConfig)
    norm = encoder.norm
    return replace(
        encoder,
        norm=replace(norm, prompt_channels=8) if isinstance(norm, PromptNormConfig) else norm,
        grid_size=max(encoder.grid_size, 0.16),
        stem_channels=8,
        channels=tuple(8 for _ in encoder.channels),
        blocks=tuple(1 for _ in encoder.blocks),
    )


def _small_camera(encoder: CameraEncoderConfig) -> CameraEncoderConfig:
    backbone, lift = encoder.backbone, encoder.lift
    assert isinstance(backbone, ConvNeXtConfig) and isinstance(lift, LiftSplat)
    return replace(
        encoder,
        shape=_small_shape(encoder.shape),
        backbone=replace(backbone, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), drop_path=0.0),
        neck=replace(encoder.neck, channels=16),
        lift=replace(lift, channels=16, bins=replace(lift.bins, num=16), depth=SimpleDepth()),
    )


def _small_transform(transform: Transform) -> Transform:
    if isinstance(transform, PickRays):
        return replace(transform, views=2, rays_per_view=16)
    if isinstance(transform, Only):
        return replace(transform, transforms=tuple(_small_transform(step) for step in transform.transforms))
    return transform
