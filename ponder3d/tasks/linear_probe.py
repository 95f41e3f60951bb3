"""Linear probe: how much a linear classifier can read from frozen features.

Features are computed once per scene, so a probe costs one pass over the data and then a few seconds of logistic
regression; nothing of the encoder is trained, its batch statistics included.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.encoders.encoder import Encoder
from ponder3d.geometry import keyed
from ponder3d.tasks.frozen import Labelled, Scorer, labelled_features, scored, single_batches
from ponder3d.tasks.heads import Head, LinearHead
from ponder3d.types import Batch, LabelSet, Scene


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


def linear_probe(
    encoder: Encoder,
    train: Iterable[Scene],
    test: Iterable[Scene],
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
        ValueError: no labelled point in the training scenes; a scene has no labels, or one that is none of the classes.
    """
    encoder.to(device)
    head = LinearHead(encoder.out_channels, labels)
    fit_head(encoder, head, single_batches(encoder, train, device), config, seed)
    return scored(encoder, test, labels, {"linear": scorer_of(head)}, device)["linear"]


def scorer_of(head: Head) -> Scorer:
    """The scores that a head on the CPU gives the points of a scene."""
    return lambda feats, condition: head(feats, torch.zeros(len(feats), dtype=torch.int64), (condition,))


def fit_head(encoder: Encoder, head: Head, batches: Iterable[Batch], config: LinearProbeConfig, seed: int) -> None:
    """Fit a head to the frozen features of the labelled points of batches of one scene each: ``fit_to``. The encoder is
    left in evaluation mode.

    Raises:
        ValueError: no labelled point in the batches, a batch without labels, or a label that is none of the classes.
    """
    fit_to(labelled_features(encoder, batches, head.labels, config.points_per_scene, seed), head, config, seed)


def fit_to(known: Labelled, head: Head, config: LinearProbeConfig, seed: int) -> None:
    """Fit a head to features.

    It is fitted to standardised features, on the CPU, and becomes the same function of the features themselves. A
    linear head starts from zero weights, any other from those that it has.
    """
    mean, std = known.moments()
    x, scene = (known.feats - mean) / std, known.scene
    fitted = deepcopy(head).cpu()
    if fitted.reads is fitted:
        nn.init.zeros_(fitted.reads.weight)
        nn.init.zeros_(fitted.reads.bias)
    _regress(fitted, lambda rows: fitted(x[rows], scene[rows], known.conditions), known.labels, config, seed)
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
