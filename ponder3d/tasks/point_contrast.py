"""PointContrast (Xie et al. 2020, arXiv 2007.10985): points of two views that show one place are to have one feature.

Published: pairs of frames of ScanNet that overlap by 30 %; 4096 pairs of the four scenes of a GPU, temperature 0.4 (the
released scripts). Every other pair's point of the second view is a negative, wherever it is.
Recipes here take two crops of one cloud instead of two recordings of a place, so that in both views the sensor stood
where it stood; and 1024 pairs of each scene.
"""

from dataclasses import dataclass

import torch

from ponder3d.encoders.encoder import EncoderConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.geometry.rows import take
from ponder3d.metrics.retrieval import check_radii
from ponder3d.tasks.contrast import TwoViewTask, info_nce
from ponder3d.tasks.pairs import PairsConfig, mine_pairs, second_view
from ponder3d.tasks.projection_heads import NoProjection, ProjectionHeadConfig
from ponder3d.tasks.task import StepLosses, Task, TaskConfig
from ponder3d.types import Batch, LabelSet


@dataclass(frozen=True)
class PointContrastConfig(TaskConfig):
    """Choices of the pretext task; its transforms contain ``TwoViews``."""

    encoder: EncoderConfig = SparseUNetConfig()
    """The encoder that is pre-trained."""
    projection: ProjectionHeadConfig = NoProjection()
    """What the compared features go through; the published method compares those of the encoder."""
    pairs: PairsConfig = PairsConfig()
    """Which points are pairs, and how many of them are used."""
    temperature: float = 0.4
    """Cosines are divided by it."""
    radii: tuple[float, ...] = (0.1, 0.2)
    """Metres within which a place counts as found, in evaluation."""

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"PointContrastConfig.temperature must be positive, it is {self.temperature}")
        check_radii("PointContrastConfig", self.radii)

    def build(self, labels: LabelSet | None) -> Task:
        """The task; labels are not read."""
        return PointContrast(self)


class PointContrast(TwoViewTask):
    """An encoder whose features are compared between two views."""

    def __init__(self, config: PointContrastConfig):
        super().__init__()
        self.config, self.pairs, self.radii = config, config.pairs, config.radii
        self.encoder = config.encoder.build()
        self.projection = config.projection.build(self.encoder.out_channels)

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """PointInfoNCE. Monitors: ``matched``, the share of the pairs that would be found among all of the batch, and
        ``pairs``, their number.

        Raises:
            ValueError: the batch has no second view.
        """
        other = second_view(batch, "PointContrast.losses")
        pairs = mine_pairs(batch, self.pairs)
        first = take(self.projection(self.features(batch)), pairs.first)
        second = take(self.projection(self.features(other)), pairs.second)
        with torch.autocast(first.device.type, enabled=False):
            loss, matched = info_nce(first, second, pairs.valid, self.config.temperature)
        return StepLosses({"contrast": loss}, {"matched": matched, "pairs": pairs.valid.sum().to(torch.float32)})
