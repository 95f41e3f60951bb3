"""Features of an encoder as it is, for the probes that tell what can be read from them; nothing of it is trained."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.encoders.encoder import Encoder
from ponder3d.geometry import keyed
from ponder3d.metrics.segmentation import SegmentationMetric
from ponder3d.types import Batch, LabelSet, Scene
from ponder3d.types.scene import to_device
from ponder3d.volume.convert import sample_at

Scorer = Callable[[Float[Tensor, "N C"], str], Float[Tensor, "N K"]]
"""Class scores of the points of a scene, from their features and the scene's condition."""


@dataclass(frozen=True)
class Labelled:
    """Features of labelled points of several scenes, on the CPU."""

    feats: Float[Tensor, "N C"]
    labels: Int[Tensor, " N"]
    scene: Int[Tensor, " N"]
    conditions: tuple[str, ...]
    """Of each scene."""

    def moments(self) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        """Mean and deviation of each channel, the latter at least 1e-6."""
        return self.feats.mean(0), self.feats.std(0, correction=0).clamp(min=1e-6)

    def first(self, points_per_scene: int) -> "Labelled":
        """The first so many points of each scene: what ``labelled_features`` gives for that number."""
        counts = torch.bincount(self.scene, minlength=len(self.conditions))
        place = torch.arange(len(self.scene)) - (counts.cumsum(0) - counts)[self.scene]
        rows = place < points_per_scene
        return Labelled(self.feats[rows], self.labels[rows], self.scene[rows], self.conditions)


@torch.no_grad()
def features_of(encoder: Encoder, scene: Scene, device: torch.device | str = "cpu") -> Float[Tensor, "N C"]:
    """Frozen features of every point of a scene, on the CPU."""
    return features_of_batch(encoder, to_device(Batch.of([scene], encoder.config.inputs), device))


@torch.no_grad()
def features_of_batch(encoder: Encoder, batch: Batch) -> Float[Tensor, "N C"]:
    """Frozen features of every point of a batch, on the CPU."""
    points = batch.points
    return sample_at(encoder(batch), points.xyz, points.scene).float().cpu()


def labelled_features(
    encoder: Encoder, batches: Iterable[Batch], labels: LabelSet, points_per_scene: int, seed: int
) -> Labelled:
    """Features of labelled points, drawn at random from batches of one scene each. The encoder is left in evaluation
    mode.

    Raises:
        ValueError: a batch has no labels or one that is none of the classes, or no point of any has a label.
    """
    encoder.eval()
    feats, truth, scenes, conditions = [], [], [], []
    for number, batch in enumerate(batches):
        own = known_labels(batch.labels, labels, batch.sources[0]).cpu()
        rows = (own >= 0).nonzero()[:, 0]
        pick = torch.randperm(len(rows), generator=keyed.generator(seed, number))[:points_per_scene]
        feats.append(features_of_batch(encoder, batch)[rows[pick]])
        truth.append(own[rows[pick]])
        scenes.append(torch.full((len(pick),), number))
        conditions += batch.conditions
    if not sum(map(len, truth)):
        raise ValueError("probe: the training scenes have no labelled points")
    return Labelled(torch.cat(feats), torch.cat(truth), torch.cat(scenes), tuple(conditions))


def known_labels(labels: Int[Tensor, " N"] | None, classes: LabelSet, source: str) -> Int[Tensor, " N"]:
    """The labels, if there are some and all are classes, or negative.

    Raises:
        ValueError: naming the scene.
    """
    if labels is None:
        raise ValueError(f"probe: {source} has no point labels")
    if len(labels) and int(labels.max()) >= len(classes):
        raise ValueError(
            f"probe: {source} has the label {int(labels.max())}, and the classes are 0 to {len(classes) - 1}; points "
            "without a class have a negative one"
        )
    return labels


def single_batches(encoder: Encoder, scenes: Iterable[Scene], device: torch.device | str) -> Iterable[Batch]:
    """A batch of each scene."""
    return (to_device(Batch.of([scene], encoder.config.inputs), device) for scene in scenes)


@torch.no_grad()
def scored(
    encoder: Encoder,
    scenes: Iterable[Scene],
    labels: LabelSet,
    scorers: Mapping[str, Scorer],
    device: torch.device | str = "cpu",
) -> dict[str, dict[str, float]]:
    """Figures of ``SegmentationMetric`` over all labelled points of scenes, of each of the scorers by name.

    Raises:
        ValueError: a scene has no labels, or one that is none of the classes.
    """
    metrics = {name: SegmentationMetric(labels) for name in scorers}
    for scene in scenes:
        truth = known_labels(scene.labels, labels, scene.source)
        rows = truth >= 0
        feats = features_of(encoder, scene, device)[rows]
        for name, scorer in scorers.items():
            metrics[name].add(scorer(feats, scene.condition).argmax(1), truth[rows], scene.condition)
    return {name: metric.compute() for name, metric in metrics.items()}
