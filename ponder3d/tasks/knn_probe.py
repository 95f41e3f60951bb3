"""k-NN probe: how well the classes of the nearest labelled features tell those of others. Nothing at all is trained.

The weighted vote is that of Wu et al. 2018 ("Unsupervised feature learning via non-parametric instance discrimination")
and of Caron et al. 2021 (DINO: k = 20, temperature 0.07).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ponder3d.config import Config
from ponder3d.encoders.encoder import Encoder
from ponder3d.tasks.frozen import Labelled, labelled_features, scored, single_batches
from ponder3d.tasks.heads import mask_impossible
from ponder3d.types import LabelSet, Scene

_CELLS = 1 << 23
"""Similarities that are in memory at a time, 32 MiB of them."""


@dataclass(frozen=True)
class KNNProbeConfig(Config):
    """Choices of the probe."""

    k: int = 20
    """Neighbours that vote; all, if there are fewer."""
    temperature: float = 0.07
    """A neighbour of cosine c votes with the weight ``exp(c / temperature)``."""
    points_per_scene: int = 2000
    """Labelled points of each training scene among which neighbours are looked for, drawn at random."""

    def __post_init__(self):
        if self.k < 1 or self.points_per_scene < 1 or self.temperature <= 0:
            raise ValueError(
                "KNNProbeConfig: k, temperature and points_per_scene must be positive, not "
                f"{self.k}, {self.temperature} and {self.points_per_scene}"
            )


def knn_probe(
    encoder: Encoder,
    train: Iterable[Scene],
    test: Iterable[Scene],
    labels: LabelSet,
    config: KNNProbeConfig,
    seed: int,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Classify the labelled points of the test scenes by their nearest neighbours among points of the training scenes.

    Features are standardised with the training points' mean and deviation, and compared by their cosine. Neighbours are
    exact. The encoder is left in evaluation mode.

    Args:
        encoder: whose features they are.
        train: scenes with point labels, from which ``config.points_per_scene`` points each are drawn.
        test: scenes with point labels.
        labels: the classes.
        config: choices of the probe.
        seed: of the points that are drawn.
        device: where features and similarities are computed.

    Returns:
        The figures of ``SegmentationMetric``.

    Raises:
        ValueError: no labelled point in the training scenes; a scene has no labels, or one that is none of the classes.
    """
    encoder.to(device)
    batches = single_batches(encoder, train, device)
    known = labelled_features(encoder, batches, labels, config.points_per_scene, seed)
    return scored(encoder, test, labels, {"knn": Neighbours(known, labels, config, device)}, device)["knn"]


class Neighbours:
    """The vote of the nearest of some labelled points; a ``Scorer``."""

    def __init__(self, known: Labelled, labels: LabelSet, config: KNNProbeConfig, device: torch.device | str = "cpu"):
        self.labels, self.config, self.device = labels, config, device
        self.mean, self.std = known.moments()
        self.known = self._directions(known.feats)
        self.votes = known.labels.to(device)

    def __call__(self, feats: Float[Tensor, "N C"], condition: str) -> Float[Tensor, "N K"]:
        """The sum of the weights of each class among the nearest; of a class that the condition does not have,
        ``IMPOSSIBLE``. On the CPU."""
        rows = max(1, _CELLS // len(self.known))
        parts = [self._vote(self._directions(part)) for part in feats.split(rows)] if len(feats) else []
        scores = torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.labels))
        return mask_impossible(scores, torch.zeros(len(feats), dtype=torch.int64), (condition,), self.labels)

    def _directions(self, feats: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return F.normalize((feats - self.mean) / self.std, dim=1).to(self.device)

    def _vote(self, directions: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        cosine, nearest = (directions @ self.known.T).topk(min(self.config.k, len(self.known)), dim=1)
        # Relative to a cosine of 1, so that no temperature overflows.
        weight = ((cosine - 1) / self.config.temperature).exp()
        return (F.one_hot(self.votes[nearest], len(self.labels)) * weight[:, :, None]).sum(1)
