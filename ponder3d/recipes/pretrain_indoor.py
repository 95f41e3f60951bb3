"""Pre-training on generated rooms, at a size that a laptop trains in minutes, and at the paper's."""

from dataclasses import replace

from ponder3d.data.context import ContextTarget
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import (
    Centre,
    DropModality,
    DropPoints,
    Flip,
    GridSample,
    KeepViews,
    PickRays,
    RemoveBlocks,
    Rotate,
    Scale,
    Transform,
)
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.engine.probe import OnlineProbes
from ponder3d.render.fields import FieldConfig
from ponder3d.render.losses import RenderLossConfig
from ponder3d.render.renderer import RenderConfig
from ponder3d.tasks.class_vectors import FixedCodes
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.volume.unet3d import ShallowNet3DConfig

PAPER_TRANSFORMS: tuple[Transform, ...] = (
    Centre(),
    DropPoints(0.8),
    Rotate(),
    Rotate("x", 0.049),
    Rotate("y", 0.049),
    Scale(),
    Flip(),
    GridSample(),
    PickRays(),
)
"""Augmentation, corruption and rays of the paper's indoor pre-training."""


def small_encoder() -> SparseUNetConfig:
    """A SparseUNet with 1.2 million parameters on voxels of 8 cm. ``one`` lets it see geometry without any colour."""
    return SparseUNetConfig(
        inputs=("rgb", "normal", "one"),
        grid_size=0.08,
        stem_channels=16,
        stem_kernel=3,
        channels=(16, 32, 48, 64, 64, 48, 32, 32),
        blocks=(1, 1, 1, 1, 1, 1, 1, 1),
        norm_momentum=0.1,  # runs of a few hundred steps: the statistics must keep up with the weights
    )


def small_ponder() -> PonderConfig:
    """Pre-training at a size of minutes: colour, depth, and the surroundings (``ContextTarget``) as a feature."""
    return PonderConfig(
        encoder=small_encoder(),
        volume_shape=(32, 32, 16),
        volume_net=_small_net(),
        # Cells are 20 cm: a surface that is learnt to be softer than this never becomes sharp again.
        field=FieldConfig(hidden=64, geometry_channels=16, inv_std=100.0, learn_inv_std=False),
        render=RenderConfig(num_uniform=20, num_importance=4, num_guided=8),
        losses=RenderLossConfig(depth=0.3, sdf=3.0, eikonal=0.1, feature=30.0),
        feature_channels=ContextTarget().channels,
        mesh_cell=0.06,
    )


def _small_net() -> ShallowNet3DConfig:
    return ShallowNet3DConfig(channels=32, depth=1, out_channels=32)


def rooms() -> Experiment:
    """Label-free: colour, depth and surroundings of generated rooms, parts of them taken away. Minutes on a laptop."""
    small = small_ponder()
    task = replace(
        small,
        # Heads that read the features past the convolution leave more of the work to the encoder. Half of the feature
        # term is rendered along the rays, half read where they end, which many more rays can take part in (log.md).
        volume_net=replace(_small_net(), bypass="add"),
        losses=replace(small.losses, surface=0.5),
        render_every=4,
    )
    return Experiment(
        task=task,
        data=RoomsConfig(num_rooms=64, num_test_rooms=8, classes="grouped", cloud_spacing=0.04, cache="runs/rooms"),
        transforms=(
            Centre(),
            Rotate(),
            Scale(),
            Flip(),
            GridSample(),
            PickRays(views=6, rays_per_view=256),
            ContextTarget(),
            RemoveBlocks(smallest=0.0, largest=0.3),
            DropModality(colour=0.1, normal=0.1),
        ),
        # Views 20 to 29 do not contribute to the cloud (RoomsConfig.num_fused_views).
        validation_transforms=(Centre(), GridSample(), KeepViews((22, 27))),
        optim=OptimConfig(lr=4e-3),
        steps=800,
        batch_size=2,
        validate_every=200,
        validation_scenes=2,
        workers=0,
    )


def rooms_probed() -> Experiment:
    """As ``rooms``; every evaluation fits a linear probe and asks nearest neighbours, on rooms of their own."""
    return replace(rooms(), probe=room_probes())


def room_probes() -> OnlineProbes:
    """Probes on generated rooms that nothing else is trained or tested on."""
    return OnlineProbes(
        train=RoomsConfig(
            first=700_000,
            num_rooms=8,
            num_test_rooms=8,
            num_views=20,
            classes="grouped",
            cloud_spacing=0.04,
            cache="runs/rooms",
        )
    )


def rooms_semantic() -> Experiment:
    """As ``rooms``, and the 2D labels of the pre-training rooms are rendered too (eq. 9)."""
    base = rooms()
    assert isinstance(base.task, PonderConfig)
    task = replace(
        base.task,
        semantics=FixedCodes(32),
        # The heads see nothing but a linear map of the pooled features: probe 0.43 instead of 0.39, and 0.31 without
        # any bypass. Label-free the same costs few-label transfer 2 points.
        volume_net=replace(_small_net(), bypass="appearance"),
        field=replace(base.task.field, heads_see="appearance"),
        losses=replace(base.task.losses, semantic=10.0, temperature=0.05),
    )
    transforms = tuple(
        PickRays(views=12, rays_per_view=128, by_area=True) if isinstance(t, PickRays) else t for t in base.transforms
    )
    return replace(base, task=task, transforms=transforms)


def rooms_paper() -> Experiment:
    """The paper's indoor settings on generated rooms: 39 million parameters, 2 cm voxels, for a GPU.

    Eight scenes of five views and 256 rays per step, 96 + 36 samples, volume of 128 x 128 x 32, 80 % of the points
    dropped. PonderV2 reports 77.0 mIoU on ScanNet after joint training with labels on three datasets; there is no
    published number for generated rooms.
    """
    return Experiment(
        task=PonderConfig(encoder=SparseUNetConfig()),
        data=RoomsConfig(num_rooms=1500, image_size=(240, 320), cache="runs/rooms"),
        transforms=PAPER_TRANSFORMS,
        validation_transforms=(Centre(), GridSample(), KeepViews((22, 27))),
        optim=OptimConfig(name="sgd", lr=8e-4, weight_decay=1e-4, final=1e-4),
        steps=20_000,
        batch_size=8,
        precision="bf16-mixed",
        validate_every=1000,
        validation_scenes=4,
        workers=8,
        save_every=1000,
    )
