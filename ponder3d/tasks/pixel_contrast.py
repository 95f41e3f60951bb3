"""Pixels and points: the feature of a point is to tell its pixel from others, and nothing is rendered.

PPKT (Liu et al. 2021, arXiv 2104.04687) compares single pixels and points; SLidR (Sautier et al. 2022, arXiv
2203.16258) the means over superpixels, so that a wall counts once and not once for each of its points. Both distil from
a ResNet-50 that was trained on images without labels (MoCo v2, DINO and others); here any target feature of rays is
one (``PickRays.features``): maps of such a model, or oriented gradients. Published, in SLidR's configurations of both:
temperature 0.07, 64 channels, one linear layer on either side, 4096 pixels or superpixels of about 150 an image. They
also crop and flip the images, which is not here, and a superpixel is all of its pixels there, not those of the rays.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponder3d.encoders.encoder import EncoderConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.geometry.drawing import principal_colours, top_view
from ponder3d.geometry.neighbors import nearest_within
from ponder3d.geometry.rows import sum_rows, take
from ponder3d.metrics.retrieval import RetrievalMetric, Retrieved, check_radii
from ponder3d.tasks.contrast import info_nce, most_alike
from ponder3d.tasks.projection_heads import LinearProjection, ProjectionHeadConfig
from ponder3d.tasks.task import Picture, StepLosses, Task, TaskConfig
from ponder3d.types import Batch, LabelSet
from ponder3d.volume.convert import sample_at


@dataclass(frozen=True)
class PixelContrastConfig(TaskConfig):
    """Choices of the pretext task; its transforms end with ``PickRays``, whose ``features`` give rays a target."""

    encoder: EncoderConfig = SparseUNetConfig()
    """The encoder that is pre-trained."""
    feature_channels: int = 39
    """Width of the rays' target feature; ``data.gradient_features.GradientMaps`` has 39 channels."""
    projection: ProjectionHeadConfig = LinearProjection()
    """What the points' features go through."""
    pixel_projection: ProjectionHeadConfig = LinearProjection()
    """What the target features go through, to as many channels; it is trained along."""
    superpixels: bool = False
    """Whether means over regions are compared (SLidR), for which ``PickRays.features`` is ``SuperpixelMaps``, instead
    of single pixels and points (PPKT). Of the rays' pixels, that is: the others of a region have no part."""
    reach: float = 0.1
    """Metres from where a ray ends to the nearest point, at most, for the pixel to be that point's."""
    temperature: float = 0.07
    """Cosines are divided by it."""
    radii: tuple[float, ...] = (0.1, 0.2)
    """Metres within which a place counts as found, in evaluation."""

    def __post_init__(self):
        if self.feature_channels < 1:
            raise ValueError(f"PixelContrastConfig.feature_channels must be at least 1, not {self.feature_channels}")
        if self.reach <= 0 or self.temperature <= 0:
            raise ValueError(
                f"PixelContrastConfig: reach and temperature must be positive, they are {self.reach} and "
                f"{self.temperature}"
            )
        check_radii("PixelContrastConfig", self.radii)

    def feature_width(self) -> int:
        """``feature_channels``."""
        return self.feature_channels

    def build(self, labels: LabelSet | None) -> Task:
        """The task; labels are not read.

        Raises:
            ValueError: the two projections end in different widths.
        """
        return PixelContrast(self)


@dataclass(frozen=True)
class _Sides:
    """What is compared: pixels, or regions, and their points. No size depends on the data."""

    pixel: Float[Tensor, "R C"]
    point: Float[Tensor, "R C"]
    owner: Int[Tensor, " R"]
    """Which point it is, or which region."""
    place: Float[Tensor, "R 3"]
    scene: Int[Tensor, " R"]
    valid: Bool[Tensor, " R"]


@dataclass(frozen=True)
class Described(Retrieved):
    """Places that pixels were looked for at, and the features to look at."""

    pixels: Float[Tensor, "P C"]
    """Of the pixels, or regions."""
    points: Float[Tensor, "N C"]
    """Of all points."""


class PixelContrast(Task):
    """An encoder, and the two projections to where its features and those of pixels are compared."""

    def __init__(self, config: PixelContrastConfig):
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        widths = [
            config.projection.width(self.encoder.out_channels),
            config.pixel_projection.width(config.feature_channels),
        ]
        if widths[0] != widths[1]:
            raise ValueError(
                f"PixelContrastConfig: projection ends in {widths[0]} channels and pixel_projection in {widths[1]}; "
                "give them one width"
            )
        self.projection = config.projection.build(self.encoder.out_channels)
        self.pixel_projection = config.pixel_projection.build(config.feature_channels)

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """InfoNCE of finding the pixel of a point, or the region of its points, among those of the batch; other pixels
        that show the same point, from other views, are no negatives. Monitors:
        ``matched``, the share that would be found, and ``pairs``, their number. Without target features all are 0.

        Raises:
            ValueError: the batch has no rays with depth, or they have target features of another width, or without
                regions where these are compared.
        """
        points = self.projection(self._features(batch))
        with torch.autocast(points.device.type, enabled=False):
            sides = self._sides(batch, points.float())
            loss, matched = info_nce(sides.point, sides.pixel, sides.valid, self.config.temperature, sides.owner)
        return StepLosses({"contrast": loss}, {"matched": matched, "pairs": sides.valid.sum().to(torch.float32)})

    def _features(self, batch: Batch) -> Float[Tensor, "N C"]:
        points = batch.points
        return sample_at(self.encoder(batch), points.xyz, points.scene)

    def _sides(self, batch: Batch, points: Float[Tensor, "N C"]) -> _Sides:
        rays, targets, config = batch.rays, batch.targets, self.config
        if rays is None or targets is None or targets.t is None:
            raise ValueError(
                f"PixelContrast: no rays with depth for {batch.sources[0]}; put PickRays into transforms and "
                "validation_transforms"
            )
        feature = targets.feature
        if feature is None:  # of several datasets only some may have maps
            feature = targets.rgb.new_full((len(rays), config.feature_channels), math.nan)
        if feature.shape[1] != config.feature_channels:
            raise ValueError(
                f"PixelContrastConfig.feature_channels is {config.feature_channels}, and the rays' features have "
                f"{feature.shape[1]}; set it, or PickRays.features"
            )
        ends = rays.origins + targets.t[:, None] * rays.directions
        row, _ = nearest_within(ends, rays.scene, batch.points.xyz, batch.points.scene, config.reach)
        known = feature.isfinite().all(1)
        feature = torch.where(known[:, None], feature, 0.0)
        pixel, point = self.pixel_projection(feature), take(points, row.clamp(min=0))
        valid = (row >= 0) & (targets.t > 0) & known
        sides = _Sides(pixel, point, row, ends, rays.scene, valid)
        if not config.superpixels:
            return sides
        if targets.group is None and targets.feature is not None:
            raise ValueError(
                f"PixelContrastConfig.superpixels: no regions in {batch.sources[0]}; set PickRays.features to "
                "SuperpixelMaps"
            )
        # Without features no row is valid, whatever its region.
        return _pooled(sides, torch.zeros_like(row) if targets.group is None else targets.group)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Described:
        """For pixels, or regions, which of the places in the scene has the most similar feature.

        Raises:
            ValueError: as in ``losses``.
        """
        points = self.projection(self._features(batch)).float()
        sides = self._sides(batch, points)
        scene = torch.where(sides.valid, sides.scene, -1)
        found = most_alike(sides.pixel, sides.point, scene)
        return Described(sides.place, scene, found, sides.pixel, points)

    def metric(self) -> RetrievalMetric:
        """How often a pixel's place is found among those of all pixels, and how often by chance."""
        return RetrievalMetric(self.config.radii)

    def pictures(self, prediction: Described, batch: Batch) -> list[Picture]:
        """``features``: the first scene's points from above in the colours of three principal components of their
        features, and where rays end in those of the pixels' features: what is alike looks alike."""
        num = int(batch.points.counts[0])
        mine = (prediction.scene == 0).cpu()
        pixels = prediction.pixels.cpu()[mine]
        points = prediction.points[:num].cpu()
        colours = principal_colours(torch.cat([points, pixels])).split([num, len(pixels)])
        places = (batch.points.xyz[:num], prediction.place.cpu()[mine])
        views = [top_view(place, rgb) for place, rgb in zip(places, colours, strict=True)]
        return [Picture("features", torch.cat(views, dim=1))]


def _pooled(sides: _Sides, group: Int[Tensor, " R"]) -> _Sides:
    """Means over the rays of a region, of features of length 1; as many rows as rays, of which the last are empty."""
    num = len(group)
    counts = sides.valid & (group >= 0)
    key = torch.where(counts, (sides.scene << 32) | group.clamp(min=0), torch.iinfo(torch.int64).max)
    ordered, order = torch.sort(key, stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    region = torch.empty_like(key).scatter_(0, order, new.cumsum(0) - 1)
    weight = counts[:, None].to(sides.pixel.dtype)
    values = [F.normalize(sides.pixel, dim=1), F.normalize(sides.point, dim=1), sides.place, torch.ones_like(weight)]
    widths = [value.shape[1] for value in values]
    sums = sum_rows(torch.cat(values, dim=1) * weight, region, num).split(widths, dim=1)
    size = sums[3].clamp(min=1)
    scene = torch.zeros_like(region).scatter_(0, region, sides.scene)  # rays of a region are of one scene
    rows = torch.arange(num, device=key.device)
    return _Sides(sums[0] / size, sums[1] / size, rows, sums[2] / size, scene, sums[3][:, 0] > 0)
