"""Masked Scene Contrast (Wu et al. 2023, arXiv 2303.14191): two views of a scene, each with other parts hidden.

Blocks of space are hidden behind a learned token, no block in both views; coordinates stay. Features of one place are
to be alike in both views, as in ``point_contrast``, and colours and normals of what is hidden are to be told from the
features. Published: blocks of 10 cm on voxels of 2 cm, 40 % of them hidden in each view, pairs within 3 cm, 8192 of the
four scenes of a GPU, temperature 0.4, both weights 1; the released configuration leaves normals out. Of their data
pipeline, the mixing of scenes is not here, and each view is scaled by itself; recipes here drop a view's colour and
normals now and then, as all do.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ponder3d.encoders.encoder import EncoderConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.geometry.rows import take
from ponder3d.metrics.retrieval import check_radii
from ponder3d.tasks.contrast import TwoViewTask, info_nce
from ponder3d.tasks.masking import hidden_points
from ponder3d.tasks.pairs import PairsConfig, mine_pairs, second_view
from ponder3d.tasks.projection_heads import NoProjection, ProjectionHeadConfig
from ponder3d.tasks.task import StepLosses, Task, TaskConfig
from ponder3d.types import Batch, LabelSet, Points
from ponder3d.types.scene import INPUT_CHANNELS

_TOLD = ("rgb", "normal", "intensity")
"""Inputs that can be told of hidden points."""


@dataclass(frozen=True)
class MaskedSceneContrastConfig(TaskConfig):
    """Choices of the pretext task; its transforms contain ``TwoViews``."""

    encoder: EncoderConfig = SparseUNetConfig()
    """The encoder that is pre-trained."""
    projection: ProjectionHeadConfig = NoProjection()
    """What the compared features go through; the published method compares those of the encoder."""
    pairs: PairsConfig = PairsConfig(distance=0.03, max_pairs=2048)
    """Which points are pairs, and how many of them are used."""
    hidden: float = 0.4
    """Share of the occupied blocks that is hidden in each view; others in each, hence at most a half."""
    block: float = 0.1
    """Edge of a block in metres."""
    visible_pairs: bool = False
    """Whether only points that are hidden in neither view are compared; published: all."""
    temperature: float = 0.4
    """Cosines are divided by it."""
    contrast: float = 1.0
    """Weight of the contrastive term."""
    colour: float = 1.0
    """Weight of the squared error of hidden points' colours, from -1 to 1 and summed over channels, if the encoder
    reads colour."""
    normal: float = 1.0
    """Weight of 1 minus the cosine of hidden points' normals, if the encoder reads normals."""
    intensity: float = 1.0
    """Weight of the squared error of hidden points' intensities, if the encoder reads those: a laser's colour."""
    radii: tuple[float, ...] = (0.1, 0.2)
    """Metres within which a place counts as found, in evaluation."""

    def __post_init__(self):
        if not 0 < self.hidden <= 0.5 or self.block <= 0:
            raise ValueError(
                f"MaskedSceneContrastConfig: hidden must lie in (0, 0.5] and block be positive, they are {self.hidden} "
                f"and {self.block}"
            )
        if self.temperature <= 0:
            raise ValueError(f"MaskedSceneContrastConfig.temperature must be positive, it is {self.temperature}")
        check_radii("MaskedSceneContrastConfig", self.radii)

    def build(self, labels: LabelSet | None) -> Task:
        """The task; labels are not read."""
        return MaskedSceneContrast(self)


class MaskedSceneContrast(TwoViewTask):
    """An encoder, the token that stands for what is hidden, and a linear layer for each thing that is told."""

    def __init__(self, config: MaskedSceneContrastConfig):
        super().__init__()
        self.config, self.pairs, self.radii = config, config.pairs, config.radii
        inputs = config.encoder.inputs
        self.encoder = config.encoder.build()
        self.projection = config.projection.build(self.encoder.out_channels)
        self.token = nn.Parameter(torch.empty(sum(INPUT_CHANNELS[name] for name in inputs)))
        nn.init.trunc_normal_(self.token, std=0.02, a=-0.02, b=0.02)
        self.weights = {"rgb": config.colour, "normal": config.normal, "intensity": config.intensity}
        self.tell = nn.ModuleDict(
            {
                name: nn.Linear(self.encoder.out_channels, INPUT_CHANNELS[name])
                for name in _TOLD
                if name in inputs and self.weights[name]
            }
        )

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """The contrastive term, and one for each thing that is told of hidden points. Monitors as in PointContrast.

        Raises:
            ValueError: the batch has no second view.
        """
        other = second_view(batch, "MaskedSceneContrast.losses")
        config = self.config
        hidden = cross_masks(batch, other, config.hidden, config.block)
        features = [self.features(self._hide(view, rows)) for view, rows in zip((batch, other), hidden, strict=True)]
        with torch.autocast(features[0].device.type, enabled=False):
            features = [each.float() for each in features]
            terms = self._told(features, (batch, other), hidden)
            pairs = mine_pairs(batch, self.pairs, ~hidden[0] if config.visible_pairs else None)
            valid = pairs.valid & ~hidden[1][pairs.second] if config.visible_pairs else pairs.valid
            first = take(self.projection(features[0]), pairs.first)
            second = take(self.projection(features[1]), pairs.second)
            loss, matched = info_nce(first, second, valid, config.temperature)
        terms |= {"contrast": config.contrast * loss} if config.contrast else {}
        return StepLosses(terms, {"matched": matched, "pairs": valid.sum().to(torch.float32)})

    def _hide(self, batch: Batch, hidden: Bool[Tensor, " N"]) -> Batch:
        points = batch.points
        feats = torch.where(hidden[:, None], self.token.to(points.feats.dtype), points.feats)
        return replace(batch, points=replace(points, feats=feats))

    def _told(
        self, features: list[Tensor], views: tuple[Batch, Batch], hidden: tuple[Tensor, Tensor]
    ) -> dict[str, Float[Tensor, ""]]:
        """Terms of what is told of the hidden points of both views together."""
        names = {"rgb": "colour", "normal": "normal", "intensity": "intensity"}
        feats, truth = torch.cat(features), torch.cat([view.points.feats for view in views]).float()
        # A view has each scene once: those of the second are counted on.
        scene = torch.cat([views[0].points.scene, views[1].points.scene + len(views[0].points.counts)])
        clouds = 2 * len(views[0].points.counts)
        asked, first, terms = torch.cat(hidden), 0, {}
        for name in self.config.encoder.inputs:
            column = truth[:, first : first + INPUT_CHANNELS[name]]
            first += INPUT_CHANNELS[name]
            if name not in self.tell:
                continue
            told = self.tell[name](feats)
            if name == "normal":
                error = 1 - (F.normalize(told, dim=1) * column).sum(1)
            else:
                error = (told - column).square().sum(1)
            # Zeros throughout are what a cloud has that lost its colour (``DropModality``). A single zero is black, or
            # an echo too weak to be told from none, which every tenth is of PandaSet's spinning laser; but no normal.
            given = (column != 0).any(1)
            if name != "normal":
                given = torch.zeros(clouds, device=scene.device).index_add_(0, scene, given.float())[scene] > 0
            counts = asked & given
            terms[names[name]] = self.weights[name] * (error * counts).sum() / counts.sum().clamp(min=1)
        return terms


@torch.no_grad()
def cross_masks(batch: Batch, other: Batch, ratio: float, size: float) -> tuple[Bool[Tensor, " N"], Bool[Tensor, " M"]]:
    """Which points of each of two views are hidden: blocks of the places of both, ``ratio`` of them in each, none in
    both. The scenes' keys and the blocks' places decide which.

    Args:
        batch: the first view, with ``place``.
        other: the second.
        ratio: at most 0.5.
        size: edge of a block in metres.
    """
    assert batch.place is not None and other.place is not None
    place, scene = torch.cat([batch.place, other.place]), torch.cat([batch.points.scene, other.points.scene])
    # Rows scene by scene, as packed points have to be.
    order = torch.argsort(scene, stable=True)
    union = Points(place[order], place.new_zeros(len(place), 0), batch.points.counts + other.points.counts)
    # The blocks that a smaller share hides are among those that a larger one does.
    once, twice = (hidden_points(union, batch.keys, share, size) for share in (ratio, 2 * ratio))
    split = (len(batch.place), len(other.place))
    first, second = (torch.empty_like(rows).index_copy_(0, order, rows) for rows in (once, twice & ~once))
    return first.split(split)[0], second.split(split)[1]
