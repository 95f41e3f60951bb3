"""Every recipe at a size of seconds: the same parts and the same path through the code, on a few small rooms.

They show that a recipe runs on this machine, and teach nothing.
"""

from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import (
    joint_rooms,
    methods,
    pretrain_datasets,
    pretrain_driving,
    pretrain_indoor,
    pretrain_rgbd,
    pretrain_streets,
    rooms_and_streets,
    semseg_datasets,
    semseg_driving,
    shipped,
)
from ponder3d.recipes import semseg as segmentation
from ponder3d.recipes.small import small as _small


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
    return _small(segmentation.prepared())


def semseg_rooms() -> Experiment:
    """``semseg.rooms`` in seconds."""
    return _small(segmentation.rooms())


def semseg_rooms_finetune() -> Experiment:
    """``semseg.rooms_finetune`` in seconds."""
    return _small(segmentation.rooms_finetune())


def semseg_rooms_decoder() -> Experiment:
    """``semseg.rooms_decoder`` in seconds."""
    return _small(segmentation.rooms_decoder())


def semseg_rooms_head() -> Experiment:
    """``semseg.rooms_head`` in seconds."""
    return _small(segmentation.rooms_head())


def semseg_rooms_lora() -> Experiment:
    """``semseg.rooms_lora`` in seconds."""
    return _small(segmentation.rooms_lora())


def semseg_rooms_full() -> Experiment:
    """``semseg.rooms_full`` in seconds."""
    return _small(segmentation.rooms_full())


def semseg_rooms_paper() -> Experiment:
    """``semseg.rooms_paper`` in seconds."""
    return _small(segmentation.rooms_paper())


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


def pretrain_streets_camera_depth() -> Experiment:
    """``pretrain_streets.camera_depth`` in seconds."""
    return _small(pretrain_streets.camera_depth())


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


def semseg() -> Experiment:
    """``semseg.rooms_full`` in seconds, for ``ponder3d compare``."""
    return _small(segmentation.rooms_full())


def semseg_finetune() -> Experiment:
    """``semseg.rooms_full_finetune`` in seconds, for ``ponder3d compare``."""
    return _small(segmentation.rooms_full_finetune())


def semseg_rooms_full_finetune() -> Experiment:
    """``semseg.rooms_full_finetune`` in seconds."""
    return _small(segmentation.rooms_full_finetune())


def semseg_driving_streets_full_finetune() -> Experiment:
    """``semseg_driving.streets_full_finetune`` in seconds."""
    return _small(semseg_driving.streets_full_finetune())


def methods_rooms_ponder() -> Experiment:
    """``methods.rooms_ponder`` in seconds."""
    return _small(methods.rooms_ponder())


def methods_streets_ponder() -> Experiment:
    """``methods.streets_ponder`` in seconds."""
    return _small(methods.streets_ponder())


def methods_pandaset_ponder() -> Experiment:
    """``methods.pandaset_ponder`` in seconds; ``--data.root DIR`` as there."""
    return _small(methods.pandaset_ponder())


def methods_prepared_ponder() -> Experiment:
    """``methods.prepared_ponder`` in seconds; ``--data.root DIR`` as there."""
    return _small(methods.prepared_ponder())


def shipped_indoor_small() -> Experiment:
    """``shipped.indoor_small`` in seconds."""
    return _small(shipped.indoor_small())


def shipped_outdoor_small() -> Experiment:
    """``shipped.outdoor_small`` in seconds."""
    return _small(shipped.outdoor_small())
