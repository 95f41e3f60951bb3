"""Linear probe: how much a linear classifier can read from frozen features.

Features are computed once per scene, so a probe costs one pass over the data and then a few seconds of logistic
regression; nothing of the encoder is trained, its batch statistics included.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.encoders.encoder import Encoder
from ponder3d.geometry import keyed
from ponder3d.metrics.segmentation import SegmentationMetric
from ponder3d.types import Batch, LabelSet, Scene
from ponder3d.types.scene import to_device
from ponder3d.volume.convert import sample_at


@dataclass(frozen=True)
class LinearProbeConfig(Config):
    """Choices of the probe."""

    points_per_scene: int = 4000
    """Labelled points of each training scene that are used, drawn at random."""
    steps: int = 400
    """Steps of AdamW."""
    batch_size: int = 4096
    """Points per step."""
    lr: float = 0.02
    """Learning rate at the start; it falls to 0 along half a cosine."""
    weight_decay: float = 1e-4
    """Of AdamW, on weights and biases of the classifier."""


@torch.no_grad()
def features_of(encoder: Encoder, scene: Scene, device: torch.device | str = "cpu") -> Float[Tensor, "N C"]:
    """Frozen features of every point of a scene."""
    return _features(encoder, to_device(Batch.of([scene], encoder.config.inputs), device))


def _features(encoder: Encoder, batch: Batch) -> Float[Tensor, "N C"]:
    points = batch.points
    return sample_at(encoder(batch), points.xyz, points.scene).float().cpu()


def linear_probe(
    encoder: Encoder,
    train: Sequence[Scene],
    test: Sequence[Scene],
    labels: LabelSet,
    config: LinearProbeConfig,
    seed: int,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Fit a linear classifier on frozen features of the training scenes and measure it on the test scenes.

    Features are standardised with the training scenes' mean and deviation. Scenes carry point labels.

    Returns:
        The figures of ``SegmentationMetric``.

    Raises:
        ValueError: no labelled point in the training scenes.
    """
    encoder.to(device)
    batches = (to_device(Batch.of([scene], encoder.config.inputs), device) for scene in train)
    head = fit_head(encoder, batches, len(labels), config, seed)
    metric = SegmentationMetric(labels)
    for scene in test:
        scores = head(features_of(encoder, scene, device))
        metric.update(scores.argmax(1), Batch.of([scene], encoder.config.inputs))
    return metric.compute()


def fit_head(
    encoder: Encoder, batches: Iterable[Batch], num_classes: int, config: LinearProbeConfig, seed: int
) -> nn.Linear:
    """A linear classifier of an encoder's features, fitted to the labelled points of batches of one scene each.

    It is fitted to standardised features and returned as the same function of the features themselves, on the CPU. The
    encoder is left in evaluation mode.

    Raises:
        ValueError: no labelled point in the batches.
    """
    encoder.eval()
    feats, truth = [], []
    with torch.no_grad():
        for number, batch in enumerate(batches):
            assert batch.labels is not None
            labels = batch.labels.cpu()
            rows = (labels >= 0).nonzero()[:, 0]
            pick = torch.randperm(len(rows), generator=keyed.generator(seed, number))[: config.points_per_scene]
            feats.append(_features(encoder, batch)[rows[pick]])
            truth.append(labels[rows[pick]])
    if not sum(map(len, truth)):
        raise ValueError("linear probe: the training scenes have no labelled points")
    x, y = torch.cat(feats), torch.cat(truth)
    mean, std = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    head = fit_linear((x - mean) / std, y, num_classes, config, seed)
    with torch.no_grad():
        head.weight.div_(std)
        head.bias.sub_(head.weight @ mean)
    return head


def fit_linear(
    x: Float[Tensor, "N C"], y: Int[Tensor, " N"], num_classes: int, config: LinearProbeConfig, seed: int
) -> nn.Linear:
    """Multinomial logistic regression by AdamW with a cosine schedule, from zero weights."""
    head = nn.Linear(x.shape[1], num_classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    generator = keyed.generator(seed, 0x9B)
    for _ in range(config.steps):
        rows = torch.randint(len(x), (config.batch_size,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(head(x[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()
    return head.requires_grad_(False)
