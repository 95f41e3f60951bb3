"""Pre-training on generated streets, at a size that a laptop trains in minutes: laser, cameras, and both.

A volume of 64 x 64 x 6.4 m around the vehicle, cells of 1 x 1 x 0.8 m, rays of all six cameras.
"""

from dataclasses import replace

from ponder3d.data.context import ContextTarget
from ponder3d.data.synthetic.streets import StreetsConfig
from ponder3d.data.transforms import (
    Flip,
    GridSample,
    PickRays,
    PointRange,
    RemoveBlocks,
    Rotate,
    Scale,
    SeeImages,
)
from ponder3d.encoders.camera import CameraEncoderConfig
from ponder3d.encoders.encoder import EncoderConfig
from ponder3d.encoders.fusion import FusionEncoderConfig
from ponder3d.encoders.image.convnext import ConvNeXtConfig
from ponder3d.encoders.image.depth import DepthBins, SimpleDepth
from ponder3d.encoders.image.lift_splat import LiftSplat
from ponder3d.encoders.image.masking import ImageMaskingConfig
from ponder3d.encoders.image.neck import FPNConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.encoders.voxelnet import VoxelNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.render.fields import FieldConfig
from ponder3d.render.losses import RenderLossConfig
from ponder3d.render.opacity import NeuS
from ponder3d.render.renderer import RenderConfig
from ponder3d.tasks.class_vectors import FixedCodes
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.volume.second3d import Second3DConfig
from ponder3d.volume.unet3d import ShallowNet3DConfig

BOX = (-32.0, -32.0, -2.6, 32.0, 32.0, 3.8)
SHAPE = (64, 64, 8)
CAMERAS = 6


def small_encoder() -> SparseUNetConfig:
    """A SparseUNet with 1.2 million parameters on voxels of 20 cm."""
    return SparseUNetConfig(
        inputs=("intensity", "one"),
        grid_size=0.2,
        stem_channels=16,
        stem_kernel=3,
        channels=(16, 32, 48, 64, 64, 48, 32, 32),
        blocks=(1, 1, 1, 1, 1, 1, 1, 1),
        norm_momentum=0.1,  # runs of a few hundred steps: the statistics must keep up with the weights
    )


def small_camera() -> CameraEncoderConfig:
    """A ConvNeXt whose features are spread along the rays of its pixels; 3.5 million parameters with all of it."""
    return CameraEncoderConfig(
        grid_size=0.2,
        box=BOX,
        shape=SHAPE,
        backbone=ConvNeXtConfig(size="atto", out_stages=(1, 2, 3), drop_path=0.0, layer_scale=0.1),
        neck=FPNConfig(channels=64, levels=3, finest=True),
        lift=LiftSplat(channels=32, bins=DepthBins(near=1.0, far=45.0, num=44), depth=SimpleDepth()),
    )


def street_range(depth: bool = False) -> PointRange:
    """The part of a sweep that the volume holds."""
    return PointRange(BOX[:3], BOX[3:], depth=depth)


def street_rays(views: int = CAMERAS, rays_per_view: int = 256) -> PickRays:
    """Rays through pixels on which a point of the laser falls, and where those run out through any others, sky too."""
    return PickRays(views=views, rays_per_view=rays_per_view, fill=True, horizon=0.0, near=1.0, far=60.0)


def street_surroundings() -> ContextTarget:
    """The surroundings of where a ray ends: rings up to 6 m, layers from 3 m below to 3 m above."""
    return ContextTarget(
        cell=0.2,
        radii=(0.5, 1.3, 2.9, 6.1),
        heights=(-3.0, -1.6, -0.8, -0.2, 0.2, 0.8, 1.6, 3.0),
        oriented=False,
    )


def small_ponder(encoder: EncoderConfig) -> PonderConfig:
    """Pre-training at a size of minutes: colour, the laser's depth, and the surroundings as a feature."""
    return PonderConfig(
        encoder=encoder,
        volume_box=BOX,
        volume_shape=SHAPE,
        volume_net=ShallowNet3DConfig(channels=32, depth=1, out_channels=32, bypass="add"),
        # Cells of a metre: sharper surfaces than this are never learnt, softer ones stay soft.
        field=FieldConfig(hidden=64, geometry_channels=16, inv_std=20.0, learn_inv_std=False),
        # 32 samples are up to 1.4 m apart: enough to learn from, while held-out views need four times as many.
        render=RenderConfig(
            num_uniform=32,
            num_importance=8,
            num_guided=8,
            guide_spread=1.0,
            opacity=NeuS(proposal_inv_std=8.0),
            evaluation_factor=4,
        ),
        losses=RenderLossConfig(
            depth=0.05, sdf=1.0, free_space=0.5, eikonal=0.1, truncation=1.0, feature=30.0, surface=0.5
        ),
        feature_channels=street_surroundings().channels,
        render_every=4,
        mesh_cell=0.0,
    )


def with_sky(experiment: Experiment) -> Experiment:
    """An experiment whose rays see the sky too, a fifth of them, with a background for it, and more weight on depth:
    for pictures that look like those of the cameras."""
    task = experiment.task
    assert isinstance(task, PonderConfig)
    task = replace(
        task, field=replace(task.field, background=True), losses=replace(task.losses, depth=4 * task.losses.depth)
    )
    transforms = tuple(replace(t, unmeasured=0.2) if isinstance(t, PickRays) else t for t in experiment.transforms)
    return replace(experiment, task=task, transforms=transforms)


def lidar() -> Experiment:
    """Label-free, from sweeps of the laser: colour, depth and surroundings, parts of the sweep taken away."""
    return Experiment(
        task=small_ponder(small_encoder()),
        data=StreetsConfig(num_towns=48, num_test_towns=4, cache="runs/streets"),
        transforms=(
            street_range(),
            Rotate(),
            Scale(),
            Flip(),
            GridSample(),
            street_rays(),
            street_surroundings(),
            RemoveBlocks(smallest=0.0, largest=0.5, size=1.6),
        ),
        validation_transforms=(street_range(depth=True), GridSample()),
        optim=OptimConfig(lr=4e-3),
        steps=600,
        batch_size=2,
        validate_every=200,
        validation_scenes=2,
        workers=0,
    )


def lidar_ahead() -> Experiment:
    """As ``lidar``, and what the cameras see in the next two key frames is rendered too, half a second and a second on.

    The volume of now is looked at from where the vehicle will be. What stands still is where it was.
    """
    base = lidar()
    assert isinstance(base.data, StreetsConfig)
    rays = street_rays(views=3 * CAMERAS, rays_per_view=96)
    transforms = tuple(rays if isinstance(t, PickRays) else t for t in base.transforms)
    return replace(base, data=replace(base.data, ahead=(1, 2)), transforms=transforms)


def lidar_semantic() -> Experiment:
    """As ``lidar``, and the classes of the laser's points are rendered too (eq. 9)."""
    base = lidar()
    assert isinstance(base.task, PonderConfig)
    losses = replace(base.task.losses, semantic=10.0, temperature=0.05)
    return replace(base, task=replace(base.task, semantics=FixedCodes(32), losses=losses))


def voxelnet() -> Experiment:
    """As ``lidar``, with the encoder of outdoor detectors: sparse convolutions down to a volume, then dense ones."""
    encoder = VoxelNetConfig(
        inputs=("xyz", "intensity", "one"),
        grid_size=0.125,
        box=BOX,
        shape=SHAPE,
        channels=(16, 16, 32, 48),
        blocks=(1, 1, 1, 1),
        volume_channels=64,
        net=Second3DConfig(channels=(32, 48), strides=(1, 2), depth=1, out_channels=64, norm_momentum=0.1),
        norm_momentum=0.1,
    )
    return replace(lidar(), task=replace(small_ponder(encoder), cell_offsets=False))


def camera() -> Experiment:
    """Label-free, from six images, of which 0.3 are hidden: colour and the laser's depth. The laser is no input."""
    encoder = replace(small_camera(), masking=ImageMaskingConfig(ratio=0.3))
    base = lidar()
    return with_sky(
        replace(
            base,
            task=_without_surroundings(small_ponder(encoder)),
            transforms=(street_range(), SeeImages(CAMERAS), street_rays(rays_per_view=96)),
            validation_transforms=(street_range(depth=True), SeeImages(CAMERAS)),
            optim=OptimConfig(lr=1e-3),
        )
    )


def camera_depth() -> Experiment:
    """As ``camera``, and the laser also teaches the lift (``depth_weight``), as in BEVDepth (Li et al. 2023).

    It says in which bin of depth each cell of the images' map is.
    """
    base = camera()
    assert isinstance(base.task, PonderConfig) and isinstance(base.task.encoder, CameraEncoderConfig)
    task = replace(base.task, encoder=replace(base.task.encoder, depth_weight=1.0))
    transforms = tuple(replace(t, depth=True) if isinstance(t, SeeImages) else t for t in base.transforms)
    return replace(base, task=task, transforms=transforms)


def fusion() -> Experiment:
    """Label-free, from both: the sum of what ``lidar`` and ``camera`` put into the volume; either may be missing."""
    encoder = FusionEncoderConfig(
        lidar=small_encoder(),
        camera=small_camera(),
        box=BOX,
        shape=SHAPE,
        channels=32,
        out_channels=32,
        drop_lidar=0.2,
        drop_camera=0.2,
    )
    base = lidar()
    experiment = replace(
        base,
        task=_without_surroundings(small_ponder(encoder)),
        transforms=(
            street_range(),
            SeeImages(CAMERAS),
            GridSample(),
            street_rays(rays_per_view=96),
            RemoveBlocks(smallest=0.0, largest=0.5, size=1.6),
        ),
        validation_transforms=(street_range(depth=True), SeeImages(CAMERAS), GridSample()),
        optim=OptimConfig(lr=2e-3),
    )
    return with_sky(experiment)


def _without_surroundings(task: PonderConfig) -> PonderConfig:
    return replace(
        task, feature_channels=0, render_every=1, cell_offsets=False, losses=replace(task.losses, surface=0.0)
    )
