"""Contrastive rivals of rendering, with the encoder, the data, the steps and the batches of its recipes.

Two views of a scene take two passes of the encoder. Published figures are of the methods' own encoders and data; what
is run here says so in the log.
"""

from dataclasses import replace

from ponder3d.data.gradient_features import GradientMaps
from ponder3d.data.image_features import FeatureMaps
from ponder3d.data.superpixels import SuperpixelMaps
from ponder3d.data.transforms import (
    Centre,
    DropModality,
    Flip,
    GridSample,
    Jitter,
    JitterColour,
    KeepViews,
    PickRays,
    Rotate,
    Scale,
    SphereCrop,
    Transform,
    TwoViews,
    VaryColour,
)
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import pretrain_indoor, pretrain_streets
from ponder3d.tasks.masked_scene_contrast import MaskedSceneContrastConfig
from ponder3d.tasks.pairs import PairsConfig
from ponder3d.tasks.pixel_contrast import PixelContrastConfig
from ponder3d.tasks.point_contrast import PointContrastConfig

_TURNS: tuple[Transform, ...] = (
    Rotate(probability=1.0),
    Rotate("x", 0.049, 1.0),
    Rotate("y", 0.049, 1.0),
    Scale(),
    Flip(),
    Jitter(),
)
"""How Masked Scene Contrast moves a view."""

_DYES: tuple[Transform, ...] = (VaryColour(), JitterColour())
"""How it changes the colours of one."""

_ROOM_PAIRS = PairsConfig(distance=0.08)
"""Within a voxel of the encoder."""

_STREET_PAIRS = PairsConfig(distance=0.2)

_MASKED_ROOM_PAIRS = replace(_ROOM_PAIRS, max_pairs=2048)
"""Masked Scene Contrast takes 8192 of the four scenes of a GPU."""

_MASKED_STREET_PAIRS = replace(_STREET_PAIRS, max_pairs=2048)


def rooms_point_contrast() -> Experiment:
    """PointContrast on generated rooms: points of two parts of a room that overlap, turned and scaled.

    Published, with a SparseUNet on ScanNet: 72.3 mIoU after fine-tuning where scratch has 72.3, and 5.6 with a linear
    probe (tables of Concerto, arXiv 2510.23607). Not run here at that size.
    """
    base = pretrain_indoor.rooms()
    view = (SphereCrop(0.6, 0), Rotate(probability=1.0), Scale(), Flip(), GridSample())
    return replace(
        base,
        task=PointContrastConfig(encoder=pretrain_indoor.small_encoder(), pairs=_ROOM_PAIRS),
        transforms=(Centre(), TwoViews((*view, DropModality(colour=0.1, normal=0.1)))),
        validation_transforms=(Centre(), TwoViews(view)),
    )


def rooms_masked_scene_contrast() -> Experiment:
    """Masked Scene Contrast on generated rooms: two views in other colours, each with 40 % of its blocks hidden.

    Blocks are five voxels wide, as published. Published, with a SparseUNet on ScanNet: 75.7 mIoU after fine-tuning
    where scratch has 72.3, and 14.1 with a linear probe (tables of Concerto, arXiv 2510.23607). Not run here at that
    size.
    """
    base = pretrain_indoor.rooms()
    view = (SphereCrop(0.6, 0), *_TURNS, GridSample())
    return replace(
        base,
        task=MaskedSceneContrastConfig(encoder=pretrain_indoor.small_encoder(), pairs=_MASKED_ROOM_PAIRS, block=0.4),
        transforms=(Centre(), TwoViews((*_DYES, *view, DropModality(colour=0.1, normal=0.1)))),
        validation_transforms=(Centre(), TwoViews(view)),
    )


def rooms_pixel_contrast() -> Experiment:
    """PPKT on generated rooms: a point's feature tells its pixel's oriented gradients from those of other pixels.

    The published method distils from a network of images. Published, on nuScenes with 1 % of the labels: 37.8 mIoU
    where scratch has 30.3, and 35.9 with a linear probe (README of Seal). Not run here.
    """
    return _pixels(GradientMaps(), PixelContrastConfig(encoder=pretrain_indoor.small_encoder()))


def rooms_superpixel_contrast() -> Experiment:
    """SLidR on generated rooms: as ``rooms_pixel_contrast``, with means over regions of an image and their points.

    The published method distils from a network of images. Published, on nuScenes with 1 % of the labels: 38.3 mIoU
    where scratch has 30.3, and 38.8 with a linear probe (README of Seal). Not run here.
    """
    task = PixelContrastConfig(encoder=pretrain_indoor.small_encoder(), superpixels=True)
    return _pixels(SuperpixelMaps(), task)


def _pixels(features: FeatureMaps, task: PixelContrastConfig) -> Experiment:
    base = pretrain_indoor.rooms()
    return replace(
        base,
        task=task,
        transforms=(
            Centre(),
            Rotate(),
            Scale(),
            Flip(),
            GridSample(),
            PickRays(views=6, rays_per_view=256, features=features),
            DropModality(colour=0.1, normal=0.1),
        ),
        validation_transforms=(
            Centre(),
            GridSample(),
            KeepViews((22, 27)),
            PickRays(views=2, rays_per_view=512, features=features),
        ),
    )


def streets_point_contrast() -> Experiment:
    """PointContrast on generated streets: points of two parts of a sweep that overlap, turned and scaled.

    Published, on nuScenes with 1 % of the labels: 32.5 mIoU where scratch has 30.3, and 21.9 with a linear probe
    (README of Seal). Not run here.
    """
    base = pretrain_streets.lidar()
    view = (SphereCrop(0.6, 0), Rotate(probability=1.0), Scale(), Flip(), GridSample())
    task = PointContrastConfig(encoder=pretrain_streets.small_encoder(), pairs=_STREET_PAIRS, radii=(0.2, 0.5))
    return _streets(base, task, view)


def streets_masked_scene_contrast() -> Experiment:
    """Masked Scene Contrast on generated streets: two views of a sweep, each with 40 % of its blocks of a metre hidden.

    What is told of hidden points are their intensities. There is no published figure of the method outdoors.
    """
    base = pretrain_streets.lidar()
    view = (SphereCrop(0.6, 0), *_TURNS, GridSample())
    task = MaskedSceneContrastConfig(
        encoder=pretrain_streets.small_encoder(),
        pairs=_MASKED_STREET_PAIRS,
        block=1.0,
        radii=(0.2, 0.5),
    )
    return _streets(base, task, view)


def streets_pixel_contrast() -> Experiment:
    """PPKT on generated streets: as ``rooms_pixel_contrast``, with the pixels on which points of the laser fall.

    Published figures are with ``rooms_pixel_contrast``. Not run here.
    """
    return _street_pixels(GradientMaps(), superpixels=False)


def streets_superpixel_contrast() -> Experiment:
    """SLidR on generated streets: as ``streets_pixel_contrast``, with means over regions of an image and their points.

    Published figures are with ``rooms_superpixel_contrast``. Not run here.
    """
    return _street_pixels(SuperpixelMaps(), superpixels=True)


def _street_pixels(features: FeatureMaps, superpixels: bool) -> Experiment:
    base = pretrain_streets.lidar()
    rays = replace(pretrain_streets.street_rays(), features=features)
    # A ray ends at a point of the laser, but for the half of a pixel: 29 cm at 32 m in the widest of the cameras.
    task = PixelContrastConfig(
        encoder=pretrain_streets.small_encoder(), superpixels=superpixels, reach=0.3, radii=(0.2, 0.5)
    )
    seen = pretrain_streets.street_range()
    return replace(
        base,
        task=task,
        transforms=(seen, Rotate(), Scale(), Flip(), GridSample(), rays),
        validation_transforms=(seen, GridSample(), rays),
    )


def _streets(
    base: Experiment, task: PointContrastConfig | MaskedSceneContrastConfig, view: tuple[Transform, ...]
) -> Experiment:
    transforms = (pretrain_streets.street_range(), TwoViews(view))
    return replace(base, task=task, transforms=transforms, validation_transforms=transforms)
