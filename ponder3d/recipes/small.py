"""How a recipe is brought to a size of seconds: few small rooms, a small network, four steps."""

from dataclasses import replace

from ponder3d.data.dataset import DatasetConfig
from ponder3d.data.driving.dataset import DrivingConfig
from ponder3d.data.joint import JointConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.synthetic.streets import StreetsConfig
from ponder3d.data.transforms import Only, PickRays, Transform, TwoViews
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
from ponder3d.tasks.also import ALSOConfig
from ponder3d.tasks.class_vectors import ClassVectorsConfig, FixedCodes, NoVectors
from ponder3d.tasks.combined import CombinedConfig
from ponder3d.tasks.heads import HeadConfig, LanguageHeadConfig
from ponder3d.tasks.masked_occupancy import MaskedOccupancyConfig
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.self_distil import SelfDistilConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.task import TaskConfig
from ponder3d.volume.projection import ProjectionConfig
from ponder3d.volume.second3d import Second3DConfig
from ponder3d.volume.unet3d import ShallowNet3DConfig, UNet3DConfig, VolumeNetConfig


def small(recipe: Experiment) -> Experiment:
    """The recipe with every part at a size of seconds; its parts stay of their kinds."""
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


def _small_task(task: TaskConfig) -> TaskConfig:
    if isinstance(task, SemSegConfig):
        return replace(task, encoder=_small_encoder(task.encoder), head=_small_head(task.head))
    if isinstance(task, CombinedConfig):
        parts = tuple(replace(part, task=_small_task(part.task)) for part in task.parts)
        return replace(task, encoder=_small_encoder(task.encoder), parts=parts)
    if isinstance(task, SelfDistilConfig):
        return replace(task, encoder=_small_encoder(task.encoder), prototypes=16)
    if isinstance(task, ALSOConfig | MaskedOccupancyConfig):
        return replace(
            task,
            encoder=_small_encoder(task.encoder),
            volume_shape=_small_shape(task.volume_shape),
            volume_net=_small_net(task.volume_net),
        )
    if not isinstance(task, PonderConfig):
        return replace(task, encoder=_small_encoder(task.encoder))  # pyright: ignore[reportCallIssue, reportArgumentType]
    return replace(
        task,
        encoder=_small_encoder(task.encoder),
        volume_shape=_small_shape(task.volume_shape),
        volume_net=_small_net(task.volume_net),
        render=replace(
            task.render, num_uniform=8, num_importance=4 if task.render.num_importance else 0, evaluation_factor=1
        ),
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
    if isinstance(transform, TwoViews):
        first, second = (tuple(map(_small_transform, steps)) for steps in (transform.first, transform.second))
        return replace(transform, first=first, second=second)
    return transform
