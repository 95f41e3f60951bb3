"""An encoder of points and images: a volume of each over the same box, fused by a convolution (UVTR, UniPAD).

Li et al. 2022, "Unifying Voxel-based Representation with Transformer for 3D Object Detection": modalities meet in one
volume, are added, and a 3x3x3 convolution with batch norm and ReLU follows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ponder3d.encoders.camera import CameraEncoderConfig
from ponder3d.encoders.encode import Array, as_cloud, as_views, encode_scene
from ponder3d.encoders.encoder import Encoder, EncoderConfig
from ponder3d.encoders.voxelnet import VoxelNetConfig
from ponder3d.geometry.grid import check_box, fixed_grid
from ponder3d.geometry.keyed import hashed, uniform_from
from ponder3d.types import Batch, Volume
from ponder3d.volume.convert import Features, densify
from ponder3d.volume.projection import ConvNorm, channels_first, channels_last

_DROPPING = 0xF05E
"""Tells this use of a scene's key from others."""


@dataclass(frozen=True)
class FusionEncoderConfig(EncoderConfig):
    """Choices of an encoder of points and images; the defaults are UniPAD's. Its point channels and its grid size are
    those of ``lidar``."""

    lidar: EncoderConfig = VoxelNetConfig()
    """Encoder of the points, any that there is."""
    camera: EncoderConfig = CameraEncoderConfig()
    """Encoder of the images; it reads no points."""
    box: tuple[float, float, float, float, float, float] = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
    """Lower x, y, z, upper x, y, z of the common volume in metres, in the scenes' frame."""
    shape: tuple[int, int, int] = (180, 180, 5)
    """Cells of the common volume along x, y and z."""
    channels: int = 256
    """Channels to which each part is mapped, cell by cell, before they meet."""
    how: Literal["sum", "concat"] = "sum"
    """Whether the parts are added, or lie side by side."""
    out_channels: int = 256
    """Channels of the fused volume."""
    drop_lidar: float = 0.0
    """Probability, in training, that a scene is shown without its points; drawn by scene."""
    drop_camera: float = 0.0
    """Probability that it is shown without its images. No scene loses both. Above 0 a batch may lack images."""

    def __post_init__(self):
        check_box("FusionEncoderConfig", self.box, self.shape)
        if not self.lidar.inputs or self.camera.inputs:
            raise ValueError(
                "FusionEncoderConfig: lidar must be an encoder that reads points, and camera one that reads none, not "
                f"{type(self.lidar).__name__} and {type(self.camera).__name__}"
            )
        if min(self.drop_lidar, self.drop_camera) < 0 or self.drop_lidar + self.drop_camera > 1:
            raise ValueError(
                "FusionEncoderConfig: drop_lidar and drop_camera are probabilities of two things of which one happens, "
                f"not {self.drop_lidar} and {self.drop_camera}"
            )

    @property
    def inputs(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The point channels of ``lidar``."""
        return self.lidar.inputs

    @property
    def grid_size(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The grid size of ``lidar``."""
        return self.lidar.grid_size

    def with_inputs(self, inputs: tuple[str, ...]) -> "FusionEncoderConfig":
        """With other point channels of ``lidar``."""
        return replace(self, lidar=self.lidar.with_inputs(inputs))

    def build(self) -> "FusionEncoder":
        """A freshly initialised encoder. ``encoders.files.start_from`` gives its parts the weights of files."""
        return FusionEncoder(self)


class FusionEncoder(Encoder):
    """A volume in which both were seen. A part that is missing, or left out, is zero where they meet."""

    config: FusionEncoderConfig

    def __init__(self, config: FusionEncoderConfig):
        super().__init__()
        self.config = config  # pyright: ignore[reportIncompatibleVariableOverride]
        self.box, self.out_channels = config.box, config.out_channels
        self.lidar, self.camera = config.lidar.build(), config.camera.build()
        self.reads_images = self.lidar.reads_images or self.camera.reads_images
        self.reads_depth = self.lidar.reads_depth or self.camera.reads_depth
        self.conditions = self.lidar.conditions
        width = config.channels
        self.of_lidar = nn.Linear(self.lidar.out_channels, width)
        self.of_camera = nn.Linear(self.camera.out_channels, width)
        met = width if config.how == "sum" else 2 * width
        self.fuse = ConvNorm(met, config.out_channels, (3, 3, 3), eps=1e-5, momentum=0.1)

    def start(self) -> tuple[str, ...]:
        """Start both parts."""
        return tuple(line for part in self.parts().values() for line in part.start())

    def parts(self) -> dict[str, Encoder]:
        """``lidar`` and ``camera``."""
        return {"lidar": self.lidar, "camera": self.camera}

    def forward(self, batch: Batch) -> Volume:
        """The fused volume of each scene. A scene without any point counts as one whose points are missing.

        Raises:
            ValueError: there are no images, and the encoder does not learn to do without; and what its parts raise.
        """
        return self._fused(batch, self.lidar, self.camera)

    def learn(self, batch: Batch) -> tuple[Volume, dict[str, Float[Tensor, ""]]]:
        """The fused volume, and what its parts learn by.

        Raises:
            ValueError: as ``forward``, and what its parts raise.
        """
        terms: dict[str, Tensor] = {}

        def learning(part: Encoder) -> Callable[[Batch], Features]:
            def seen(batch: Batch) -> Features:
                features, own = part.learn(batch)
                terms.update(own)
                return features

            return seen

        return self._fused(batch, learning(self.lidar), learning(self.camera)), terms

    def _fused(self, batch: Batch, lidar: Callable[[Batch], Features], camera: Callable[[Batch], Features]) -> Volume:
        config = self.config
        grid = fixed_grid(config.box, config.shape, len(batch), batch.points.xyz.device)
        has_points, has_images = batch.points.counts > 0, torch.ones_like(batch.points.counts, dtype=torch.bool)
        if self.training:
            with_lidar, with_camera = shown(batch.keys, config.drop_lidar, config.drop_camera)
            has_points, has_images = has_points & with_lidar, has_images & with_camera
        points = _where(has_points, self.of_lidar(densify(lidar(batch), grid).feats))
        if batch.images is None and config.drop_camera > 0:
            images = torch.zeros_like(points)
        else:
            images = _where(has_images, self.of_camera(densify(camera(batch), grid).feats))
        met = points + images if config.how == "sum" else torch.cat([points, images], dim=-1)
        return Volume(grid, channels_last(self.fuse(channels_first(met))))

    @torch.no_grad()
    def encode_views(
        self,
        images: Array | None = None,
        intrinsics: Array | None = None,
        world_from_cam: Array | None = None,
        xyz: Array | None = None,
        rgb: Array | None = None,
        normal: Array | None = None,
        intensity: Array | None = None,
        time: Array | None = None,
        condition: str = "",
    ) -> Volume:
        """The volume of one scene, from images, a cloud, or both. Leaves the encoder in evaluation mode.

        Args:
            images: as of ``CameraEncoder.encode_views``, with the two that follow; all None for a cloud alone.
            intrinsics: see there.
            world_from_cam: see there.
            xyz: as of ``Encoder.encode``, with those that follow, in the frame of ``config.box``; None for images
                alone.
            rgb: see there.
            normal: see there.
            intensity: see there.
            time: see there.
            condition: see there.

        Returns:
            The volume on the CPU. ``volume.convert.sample_at(volume, xyz, scene)`` reads it at points, scene 0 for all.

        Raises:
            ValueError: an argument has another type or shape, or is not finite; there are no points, or no images, and
                the encoder did not learn to do without; no point is in the encoder's box; what ``encode`` refuses.
        """
        config, of_views = self.config, (images, intrinsics, world_from_cam)
        extras = {"rgb": rgb, "normal": normal, "intensity": intensity, "time": time}
        views, cloud = None, None
        if images is not None and intrinsics is not None and world_from_cam is not None:
            views = as_views(images, intrinsics, world_from_cam)
        elif any(part is not None for part in of_views):
            raise ValueError("encode_views: images, intrinsics and world_from_cam go together")
        if xyz is not None and len(xyz):
            given = {name: value is not None for name, value in extras.items() if name != "time"}
            self._miss(given, caller="encode_views")
            cloud = as_cloud(xyz, **extras)
        elif any(value is not None and len(value) for value in extras.values()):
            names = ", ".join(name for name, value in extras.items() if value is not None)
            raise ValueError(f"encode_views: {names} of points without xyz")
        if views is None and cloud is None:
            raise ValueError("encode_views: there are neither images nor points")
        for what, missing, share in (("points", cloud, config.drop_lidar), ("images", views, config.drop_camera)):
            if missing is None and not share > 0:
                raise ValueError(
                    f"encode_views: no {what}, and this encoder did not learn to do without (FusionEncoderConfig."
                    f"{'drop_lidar' if what == 'points' else 'drop_camera'} is 0)"
                )
        condition = self._condition(condition)
        return encode_scene(self, config.inputs, cloud, config.grid_size, self.box, views, condition)


def shown(
    keys: Int[Tensor, " B"], drop_lidar: float, drop_camera: float
) -> tuple[Bool[Tensor, " B"], Bool[Tensor, " B"]]:
    """Whether each scene is shown with its points, and whether with its images, by its key; never with neither."""
    share = uniform_from(hashed(keys, _DROPPING))
    return share >= drop_lidar, share < 1 - drop_camera


def _where(kept: Bool[Tensor, " B"], feats: Tensor) -> Tensor:
    return torch.where(kept.view(-1, 1, 1, 1, 1), feats, 0)
