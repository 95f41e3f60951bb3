"""Masked occupancy: which cells of space are full, of a scene of which blocks have been taken away.

Min et al. 2022, "Occupancy-MAE" (arXiv 2206.09900), and Voxel-MAE before it. The pair of a batch is the whole scene in
the same frame, e.g. ``TwoViews((RemoveBlocks(),), (PointsOnly(),))`` after everything that moves the scene.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from ponder3d.encoders.encoder import EncoderConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.geometry.drawing import block_view
from ponder3d.metrics.occupancy import Occupancy, OccupancyMetric
from ponder3d.tasks.pairs import second_view
from ponder3d.tasks.task import Picture, StepLosses, Task, TaskConfig
from ponder3d.types import Batch, Grid, LabelSet, Points
from ponder3d.types.scene import INPUT_CHANNELS
from ponder3d.volume.convert import densify, densify_with_offsets
from ponder3d.volume.scene_grid import cell_centres, check_grid, scene_grid
from ponder3d.volume.unet3d import UNet3DConfig, VolumeNetConfig

_OUTCOMES = ((60, 160, 75), (215, 60, 50), (70, 110, 200))
"""Colours of cells that are full and called so, called full and are empty, and full and called empty."""
_SEEN = (205, 205, 205)


@dataclass(frozen=True)
class MaskedOccupancyConfig(TaskConfig):
    """Choices of the pretext task."""

    encoder: EncoderConfig = SparseUNetConfig()
    """The encoder that is pre-trained."""
    volume_shape: tuple[int, int, int] = (32, 32, 16)
    """Cells along x, y and z of each scene's box."""
    volume_box: tuple[float, ...] = ()
    """Lower and upper corner of the volume in the scenes' frame, six numbers in metres, the same for all of
    them. Empty: each scene has a volume of its own, around its bounds."""
    volume_margin: float = 0.1
    """Metres by which the volume reaches beyond the scene's bounds, at least; never less than a cell."""
    volume_net: VolumeNetConfig = UNet3DConfig(channels=(16, 32), out_channels=16)
    """The light decoder between the encoder's pooled features and the occupancy. What is to be completed has to come
    from further away than a cell, so it needs some reach."""
    seen: float = 0.0
    """Weight of the cells in which the encoder sees points: it knows that they are full."""
    feats: float = 0.0
    """Weight of a second term: the mean input features (colour, normal, ...) of the points taken away, cell by cell."""

    def __post_init__(self):
        check_grid("MaskedOccupancyConfig", self.volume_shape, self.volume_box, self.volume_margin)
        for name in ("seen", "feats"):
            if getattr(self, name) < 0:
                raise ValueError(f"MaskedOccupancyConfig.{name} must not be negative, but is {getattr(self, name)}")

    def build(self, labels: LabelSet | None) -> Task:
        """The task; labels are not used."""
        return MaskedOccupancy(self)


class MaskedOccupancy(Task):
    """Encoder and a decoder of dense volumes, trained together."""

    def __init__(self, config: MaskedOccupancyConfig):
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.unet = config.volume_net.build(self.encoder.out_channels + 4)
        channels = sum(INPUT_CHANNELS[name] for name in config.encoder.inputs) if config.feats else 0
        self.head = nn.Linear(self.unet.out_channels, 1 + channels)
        self.full_share: Tensor
        # The loss makes full cells weigh as much as empty ones; to tell which is likelier their share is needed.
        self.register_buffer("full_share", torch.full((), 0.5))

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """Balanced cross-entropy of the occupancy of unseen cells, and what else has a weight.

        Full and empty cells count for a half each, however rare the former are. Monitors: ``accuracy``, the mean of the
        shares told right of both, and ``full``, the share of the unseen cells that are full.

        Raises:
            ValueError: the batch has no pair.
        """
        out = self._decoded(batch)
        truth, seen, feats = self._truth(batch)
        logit, weight = out[:, 0], torch.where(seen, self.config.seen, 1.0)
        cross = F.binary_cross_entropy_with_logits(logit, truth.float(), reduction="none")
        full, empty = weight * truth, weight * ~truth
        terms = {"occupancy": (weighted_mean(cross, full) + weighted_mean(cross, empty)) / 2}
        hidden = truth & ~seen
        if self.config.feats:
            gap = F.smooth_l1_loss(out[:, 1:], feats, beta=0.1, reduction="none").mean(1)
            terms["feats"] = self.config.feats * weighted_mean(gap, hidden.float())
        with torch.no_grad():
            free = ~truth & ~seen
            share = hidden.sum() / (~seen).sum().clamp(min=1)
            if self.training:
                self.full_share.lerp_(share, 0.1)
            accuracy = (
                weighted_mean((logit > 0).float(), hidden.float()) + weighted_mean((logit <= 0).float(), free.float())
            ) / 2
        return StepLosses(terms, {"accuracy": accuracy, "full": share})

    def grid(self, batch: Batch) -> Grid:
        """The cells of the batch."""
        config = self.config
        return scene_grid(batch.bounds, config.volume_shape, config.volume_box, config.volume_margin)

    def _decoded(self, batch: Batch) -> Float[Tensor, "Q C"]:
        """Logit of every cell, and its features; the volumes of all scenes row by row."""
        volume = self.unet(densify_with_offsets(self.encoder(batch), self.grid(batch)))
        return self.head(volume.feats.flatten(0, 3)).float()

    def _truth(self, batch: Batch) -> tuple[Bool[Tensor, " Q"], Bool[Tensor, " Q"], Float[Tensor, "Q C"]]:
        """Whether each cell is full, and whether the encoder sees points in it; mean features of all of its points."""
        whole, grid = second_view(batch, "MaskedOccupancy"), self.grid(batch)
        of_all, of_seen = _pooled(whole.points, grid), _pooled(batch.points, grid)
        return of_all[:, -1] > 0, of_seen[:, -1] > 0, of_all[:, :-1]

    @torch.no_grad()
    def predict(self, batch: Batch) -> Occupancy:
        """Which of the cells are full in which the encoder sees nothing.

        Raises:
            ValueError: the batch has no pair.
        """
        truth, seen, _ = self._truth(batch)
        share = self.full_share.clamp(1e-4, 1 - 1e-4)
        full = self._decoded(batch)[:, 0] + (share / (1 - share)).log() > 0
        rows = (~seen).nonzero()[:, 0]
        xyz, scene = cell_centres(self.grid(batch))
        return Occupancy(full[rows], truth[rows], xyz[rows], scene[rows])

    def metric(self) -> OccupancyMetric:
        """IoU and accuracies of the unseen cells."""
        return OccupancyMetric()

    def pictures(self, prediction: Occupancy, batch: Batch) -> list[Picture]:
        """``occupancy``: the first scene from above, what the encoder saw in grey; cells that are full and were called
        so in green, called full by mistake in red, missed in blue."""
        lo, hi = self.grid(batch).box[0, :, :2]
        cell = float(((hi - lo) / torch.tensor(self.config.volume_shape[:2], device=lo.device)).max())
        return [Picture("occupancy", outcome_view(prediction, batch, cell))]


def outcome_view(prediction: Occupancy, batch: Batch, cell: float) -> UInt8[Tensor, "H W 3"]:
    """The first scene of a batch from above, in the colours of ``MaskedOccupancy.pictures``, cell by cell."""
    shown = (prediction.scene == 0) & (prediction.full | prediction.truth)
    case = torch.where(prediction.full & prediction.truth, 0, torch.where(prediction.full, 1, 2))[shown]
    num = int(batch.points.counts[0])
    xyz = torch.cat([batch.points.xyz[:num].cpu(), prediction.xyz[shown].cpu()])
    grey = torch.tensor([_SEEN], dtype=torch.uint8).expand(num, 3)
    return block_view(xyz, torch.cat([grey, torch.tensor(_OUTCOMES, dtype=torch.uint8)[case.cpu()]]), cell)


def _pooled(points: Points, grid: Grid) -> Float[Tensor, "Q C"]:
    """Mean features of the points of every cell, and behind them 1 where there are any."""
    feats = F.pad(points.feats, (0, 1), value=1.0)
    return densify(Points(points.xyz, feats, points.counts), grid).feats.flatten(0, 3)


def weighted_mean(values: Float[Tensor, " Q"], weight: Float[Tensor, " Q"]) -> Float[Tensor, ""]:
    """Weighted mean; 0 without any weight."""
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)
