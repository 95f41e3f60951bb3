"""Linear probe: how much a linear classifier can read from frozen features.

Features are computed once per scene, so a probe costs one pass over the data and then a few seconds of logistic
regression; nothing of the encoder is trained, its batch statistics included.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.encoders.encoder import Encoder
from ponder3d.geometry import keyed
from ponder3d.metrics.segmentation import SegmentationMetric
from ponder3d.tasks.heads import Head, LinearHead
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
    head = LinearHead(encoder.out_channels, labels)
    fit_head(encoder, head, batches, config, seed)
    metric = SegmentationMetric(labels)
    with torch.no_grad():
        for scene in test:
            feats = features_of(encoder, scene, device)
            scores = head(feats, torch.zeros(len(feats), dtype=torch.int64), (scene.condition,))
            metric.update(scores.argmax(1), Batch.of([scene], encoder.config.inputs))
    return metric.compute()


def fit_head(encoder: Encoder, head: Head, batches: Iterable[Batch], config: LinearProbeConfig, seed: int) -> None:
    """Fit a head to the frozen features of the labelled points of batches of one scene each.

    It is fitted to standardised features, on the CPU, and becomes the same function of the features themselves. A
    linear head starts from zero weights, any other from those that it has. The encoder is left in evaluation mode.

    Raises:
        ValueError: no labelled point in the batches.
    """
    encoder.eval()
    feats, truth, scenes, conditions = [], [], [], []
    with torch.no_grad():
        for number, batch in enumerate(batches):
            assert batch.labels is not None
            labels = batch.labels.cpu()
            rows = (labels >= 0).nonzero()[:, 0]
            pick = torch.randperm(len(rows), generator=keyed.generator(seed, number))[: config.points_per_scene]
            feats.append(_features(encoder, batch)[rows[pick]])
            truth.append(labels[rows[pick]])
            scenes.append(torch.full((len(pick),), number))
            conditions += batch.conditions
    if not sum(map(len, truth)):
        raise ValueError("linear probe: the training scenes have no labelled points")
    x, y, scene = torch.cat(feats), torch.cat(truth), torch.cat(scenes)
    mean, std = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    x = (x - mean) / std
    fitted = deepcopy(head).cpu()
    if fitted.reads is fitted:
        nn.init.zeros_(fitted.reads.weight)
        nn.init.zeros_(fitted.reads.bias)
    _regress(fitted, lambda rows: fitted(x[rows], scene[rows], tuple(conditions)), y, config, seed)
    with torch.no_grad():
        fitted.reads.weight.div_(std)
        fitted.reads.bias.sub_(fitted.reads.weight @ mean)
    head.load_state_dict(fitted.state_dict())


def fit_linear(
    x: Float[Tensor, "N C"], y: Int[Tensor, " N"], num_classes: int, config: LinearProbeConfig, seed: int
) -> nn.Linear:
    """Multinomial logistic regression from zero weights."""
    head = nn.Linear(x.shape[1], num_classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    _regress(head, lambda rows: head(x[rows]), y, config, seed)
    return head.requires_grad_(False)


def _regress(
    head: nn.Module, scores: Callable[[Tensor], Tensor], y: Tensor, config: LinearProbeConfig, seed: int
) -> None:
    """Cross-entropy of ``scores`` of random rows by AdamW with a cosine schedule."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    generator = keyed.generator(seed, 0x9B)
    for _ in range(config.steps):
        rows = torch.randint(len(y), (config.batch_size,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(scores(rows), y[rows]).backward()
        optimizer.step()
        schedule.step()
