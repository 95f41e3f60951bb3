"""An encoder of camera images: backbone, pyramid, lift into a volume around the vehicle (UniPAD; paper eq. 10)."""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponder3d.config import later
from ponder3d.encoders.encode import as_views, encode_scene
from ponder3d.encoders.encoder import Array, Encoder, EncoderConfig, EncoderFileError
from ponder3d.encoders.image.backbone import ImageBackboneConfig
from ponder3d.encoders.image.convnext import ConvNeXtConfig
from ponder3d.encoders.image.depth import depth_bin_loss
from ponder3d.encoders.image.lift import Lifted, ViewTransformConfig
from ponder3d.encoders.image.lift_splat import LiftSplat
from ponder3d.encoders.image.masking import ImageMaskingConfig
from ponder3d.encoders.image.neck import FPNConfig
from ponder3d.geometry.grid import check_box, fixed_grid
from ponder3d.types import Batch, Grid, Volume
from ponder3d.volume.projection import ConvNorm, channels_first, channels_last


@dataclass(frozen=True)
class CameraEncoderConfig(EncoderConfig):
    """Choices of an encoder of images; the defaults are UniPAD's, from scratch and without masks."""

    inputs: tuple[str, ...] = ()
    """None: points are not looked at."""
    grid_size: float = 0.1
    """Metres. The encoder has no use for it: clouds that features are asked for at are thinned to one point a voxel."""
    box: tuple[float, float, float, float, float, float] = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
    """Lower and upper corner of the volume in metres, in the frame of the scene; the same for every scene."""
    shape: tuple[int, int, int] = (180, 180, 5)
    """Cells of the volume along x, y and z."""
    backbone: ImageBackboneConfig = ConvNeXtConfig()
    """Network on images."""
    masking: ImageMaskingConfig = ImageMaskingConfig(ratio=0.0)
    """Hides patches from the backbone in training; UniPAD's pre-training has a ratio of 0.3."""
    neck: FPNConfig = FPNConfig()
    """What combines the backbone's maps."""
    lift: ViewTransformConfig = LiftSplat()
    """From maps to the volume."""
    convs: int = 0
    """3x3x3 convolutions of the volume, with batch norm and ReLU: 0 in UniPAD's pre-training, 3 in its fine-tuning."""
    depth_weight: float = later(0.0)
    """Weight of the loss on the lift's distribution of depth (``image.depth.depth_bin_loss``), against the depth that
    the images have (``SeeImages.depth``): 0 in UniPAD's pre-training, 1 in its fine-tuning of detectors. Only in
    training, by tasks with ``teaches_encoder``: rendering, segmentation, combinations."""

    def __post_init__(self):
        if self.inputs:
            raise ValueError(f"CameraEncoderConfig.inputs: it reads images alone, not {' and '.join(self.inputs)}")
        check_box("CameraEncoderConfig", self.box, self.shape)
        if not self.depth_weight >= 0:
            raise ValueError(f"CameraEncoderConfig.depth_weight must be at least 0, not {self.depth_weight}")
        if self.convs < 0 or not self.grid_size > 0:
            raise ValueError(
                f"CameraEncoderConfig: grid_size {self.grid_size} must be positive, convs {self.convs} not negative"
            )

    def build(self) -> "CameraEncoder":
        """A freshly initialised encoder; ``Encoder.start`` reads the weights of the backbone."""
        return CameraEncoder(self)


class CameraEncoder(Encoder):
    """Turns the images of each scene into a volume around it. Points of a batch are not looked at."""

    config: CameraEncoderConfig
    reads_images = True

    def __init__(self, config: CameraEncoderConfig):
        super().__init__()
        self.config = config  # pyright: ignore[reportIncompatibleVariableOverride]
        self.box = config.box
        self._grid = partial(fixed_grid, config.box, config.shape)
        self._weights = config.backbone.weights
        self.backbone = config.backbone.build()
        if config.masking.ratio and not self.backbone.masks:
            raise ValueError(
                f"CameraEncoderConfig.masking: {type(self.backbone).__name__} cannot hide patches; set its ratio to 0, "
                "or take a ConvNeXtConfig"
            )
        self.masking = config.masking.build(self.backbone.channels, self.backbone.strides)
        self.neck = config.neck.build(self.backbone.channels, self.backbone.strides)
        self.lift = config.lift.build(self.neck.channels, self.neck.strides)
        self.reads_depth = config.depth_weight > 0
        if self.reads_depth and self.lift.bins is None:
            raise ValueError(
                f"CameraEncoderConfig.depth_weight: a {type(config.lift).__name__} has no distribution of depth to "
                "teach"
            )
        self.out_channels = width = self.lift.out_channels
        convs = [ConvNorm(width, width, (3, 3, 3), eps=1e-5, momentum=0.1) for _ in range(config.convs)]
        self.convs = nn.Sequential(*convs)

    def start(self) -> tuple[str, ...]:
        """Read the weights of the backbone, if its configuration names a file."""
        path = self._weights
        if not path:
            return ()
        try:
            left_out = self.backbone.load(path)
        except FileNotFoundError as error:
            raise EncoderFileError(f"CameraEncoderConfig.backbone.weights: {error}") from error
        told = "; ".join(f"{group} left out ({number} names): {why}" for group, (number, why) in left_out.items())
        return (f"{path}: {told or 'all of it is used'}",)

    def forward(self, batch: Batch) -> Volume:
        """The volume of each scene.

        Raises:
            ValueError: the batch has no images, or scenes have different numbers of them.
        """
        return self._volume(*self.lifted(batch))

    def learn(self, batch: Batch) -> tuple[Volume, dict[str, Float[Tensor, ""]]]:
        """The volume, and the term ``lift_depth`` if the configuration gives it a weight: the mean over the maps.

        Raises:
            ValueError: as ``forward``; the images have no depth to learn from.
        """
        weight, bins = self.config.depth_weight, self.lift.bins
        if not weight:
            return self(batch), {}
        depth = None if batch.images is None else batch.images.depth
        if batch.images is not None and depth is None:
            raise ValueError(
                f"CameraEncoderConfig.depth_weight: among {', '.join(batch.sources)} are images without depth; set "
                "SeeImages.depth"
            )
        grid, lifted = self.lifted(batch)
        assert bins is not None and depth is not None  # no images: ``lifted`` has refused
        maps = zip(lifted.depth, self.lift.strides, strict=True)
        losses = [depth_bin_loss(probability, depth, bins, stride) for probability, stride in maps]
        return self._volume(grid, lifted), {"lift_depth": weight * torch.stack(losses).mean()}

    def _volume(self, grid: Grid, lifted: Lifted) -> Volume:
        feats = lifted.feats
        if len(self.convs):
            feats = channels_last(self.convs(channels_first(feats)))
        return Volume(grid, feats)

    def lifted(self, batch: Batch) -> tuple[Grid, Lifted]:
        """What the lift makes of the images, before the convolutions of the volume, and the distribution of depth.

        Raises:
            ValueError: as ``forward``.
        """
        images = batch.images
        if images is None:
            raise ValueError(
                f"CameraEncoder: no images with {batch.sources[0] if batch.sources else 'an empty batch'}: put "
                "SeeImages among the transforms; images must be of one size"
            )
        num_views, rest = divmod(len(images.cameras), len(batch))
        if rest or not num_views:
            raise ValueError(
                f"CameraEncoder: {len(images.cameras)} images of {len(batch)} scenes; there must be as many of each"
            )
        cameras = images.cameras
        mask = self.masking.choose(batch.keys, num_views, cameras.size)
        maps = self.backbone(images.rgb.permute(0, 3, 1, 2).to(torch.float32) / 255, mask)
        maps = self.neck(self.masking.fill(maps, mask))
        grid = self._grid(len(batch), images.rgb.device)
        return grid, self.lift(maps, cameras, grid)

    @torch.no_grad()
    def encode_views(self, images: Array, intrinsics: Array, world_from_cam: Array) -> Volume:
        """The volume of one scene, for images from anywhere. Leaves the encoder in evaluation mode.

        Args:
            images: [V H W 3] uint8, RGB.
            intrinsics: [V 3 3] in pixels of these images, whose centres have integer coordinates.
            world_from_cam: [V 4 4], camera to the frame in which ``config.box`` is; OpenCV axes.

        Returns:
            The volume on the CPU. ``volume.convert.sample_at(volume, xyz, scene)`` reads it at points, scene 0 for all.

        Raises:
            ValueError: an argument has another type or shape, or is not finite.
        """
        config, views = self.config, as_views(images, intrinsics, world_from_cam)
        return encode_scene(self, config.inputs, None, config.grid_size, self.box, views)
