"""Semantic segmentation of points: cross-entropy and Lovasz-softmax on a head of the encoder's features."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.config import later
from ponder3d.encoders.encoder import Encoder, EncoderConfig, Features
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.geometry.drawing import birds_eye, block_view, class_colours
from ponder3d.geometry.grid import fragments
from ponder3d.metrics.segmentation import SegmentationMetric
from ponder3d.tasks.heads import HeadConfig, LinearHeadConfig, point_cross_entropy
from ponder3d.tasks.linear_probe import LinearProbeConfig, fit_head
from ponder3d.tasks.task import Picture, StepLosses, Task, TaskConfig
from ponder3d.tasks.tuning import Full, TuningConfig
from ponder3d.types import Batch, LabelSet, Points
from ponder3d.types.scene import extent
from ponder3d.volume.convert import sample_at

_WIDE = 40.0
"""Metres along x and along y: what reaches farther is no room, but what a laser sees of a street around it."""


@dataclass(frozen=True)
class SemSegConfig(TaskConfig):
    """Choices of the task."""

    encoder: EncoderConfig = SparseUNetConfig()
    """The encoder, trained along (see ``tuning``); ``Experiment.init`` starts it from a pre-trained one."""
    cross_entropy: float = 1.0
    """Weight of the cross-entropy."""
    lovasz: float = 1.0
    """Weight of the Lovasz-softmax loss."""
    head_passes: int = 0
    """Passes over the training scenes to whose frozen features the head is fitted before the first step; 0 starts from
    a random head. Through a random head, few labelled points disturb a pre-trained encoder before the head means
    anything (Kumar et al. 2022, "Fine-tuning can distort pretrained features")."""
    head: HeadConfig = LinearHeadConfig()
    """What tells the classes from the features; they differ where several datasets are trained on together."""
    tuning: TuningConfig = later(Full())
    """What of the encoder is trained: ``Full()``, ``DecoderOnly()``, ``HeadOnly()``, ``Lora()``."""
    all_levels: bool = later(False)
    """Whether the head reads every level of the encoder's decoder (``Encoder.all_levels``), not the last one alone; for
    encoders that have several, such as a SparseUNet."""

    def __post_init__(self):
        if self.head_passes < 0:
            raise ValueError(f"SemSegConfig.head_passes must not be negative, but is {self.head_passes}")

    def build(self, labels: LabelSet | None) -> Task:
        """The task for a dataset with labels.

        Raises:
            ValueError: there are no labels; ``all_levels`` is asked of an encoder that has one.
        """
        if labels is None:
            raise ValueError("SemSeg: the dataset has no labels")
        return SemSeg(self, labels)

    def rebuild(self, labels: LabelSet | None, weights: Mapping[str, Tensor], facts: Mapping[str, str]) -> Task:
        """With the head's class vectors as they are among the weights."""
        head = self.head.with_kept(weights.get("head.vectors"), facts.get("class_vectors", ""))
        return replace(self, head=head).build(labels)


class SemSeg(Task):
    """An encoder and a classifier of its point features."""

    teaches_encoder = True

    def __init__(self, config: SemSegConfig, labels: LabelSet):
        super().__init__()
        self.config, self.labels = config, labels
        self.encoder = config.encoder.build()
        if config.all_levels and self.reader is self.encoder:
            raise ValueError(f"SemSeg: all_levels: a {type(self.encoder).__name__} has one level")
        self.head = config.head.build(self.reader.out_channels, labels)
        self.tuning = config.tuning.build(self.encoder)

    @property
    def reader(self) -> Encoder:
        """What the head reads: the encoder, or all of its levels."""
        return self.encoder.all_levels() if self.config.all_levels else self.encoder

    def train(self, mode: bool = True) -> "SemSeg":
        """Set the mode, but for what ``SemSegConfig.tuning`` freezes: that stays in evaluation mode."""
        super().train(mode)
        self.tuning.hold()
        return self

    def prepare(self, passes: Iterator[Iterable[Batch]]) -> None:
        """Fit the head to the encoder's features as they are, if ``head_passes`` asks for it."""
        if self.config.head_passes:
            batches = chain.from_iterable(islice(passes, self.config.head_passes))
            fit_head(self.reader, self.head, batches, LinearProbeConfig(), seed=0)

    def facts(self) -> dict[str, str]:
        """``class_vectors``: what made those of the head, if it has some."""
        return {"class_vectors": self.head.source} if self.head.source else {}

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """Cross-entropy and Lovasz-softmax over the labelled points.

        The loader has seen to it that labels are below the number of classes, and names the scene where they are not:
        to look at them here would make the host wait for a GPU.

        Raises:
            ValueError: the batch has no labels.
            IndexError: of PyTorch, a label is no class; on a GPU an assertion of the device ends the process.
        """
        if batch.labels is None:
            raise ValueError(f"SemSeg.losses: no point labels in {batch.sources[0]}")
        features, terms = self.learn(batch)
        logits = self._scores(features, batch).float()
        if self.config.cross_entropy:
            terms["cross_entropy"] = self.config.cross_entropy * point_cross_entropy(logits, batch.labels)
        if self.config.lovasz:
            terms["lovasz"] = self.config.lovasz * lovasz_softmax(logits.softmax(1), batch.labels)
        with torch.no_grad():
            told = batch.labels >= 0
            right = (logits.argmax(1) == batch.labels) & told  # a confusion matrix would make the host wait for a GPU
            return StepLosses(terms, {"accuracy": right.sum() / told.sum().clamp(min=1)})

    def logits(self, batch: Batch) -> Float[Tensor, "N K"]:
        """Class scores of every point; of classes that its scene's condition does not have, ``IMPOSSIBLE``."""
        return self._scores(self.reader(batch), batch)

    def _scores(self, features: Features, batch: Batch) -> Float[Tensor, "N K"]:
        points = batch.points
        return self.head(sample_at(features, points.xyz, points.scene), points.scene, batch.conditions)

    def predict(self, batch: Batch) -> Int[Tensor, " N"]:
        """The class of every point, however many share a voxel of the encoder: the likeliest of ``probabilities``."""
        return self.probabilities(batch).argmax(1).to(batch.points.xyz.device)

    @torch.no_grad()
    def probabilities(self, batch: Batch) -> Float[Tensor, "N K"]:
        """How likely each class is at every point, on the CPU: large clouds with many classes fill a GPU.

        The encoder sees one point per voxel at a time, as in training, in as many passes as the fullest voxel has
        points (``geometry.grid.fragments``); for a point that is in several of them it is the mean. A batch that has
        been through ``GridSample`` takes one pass.
        """
        points = batch.points
        total = torch.zeros(len(points.xyz), len(self.labels))
        times = torch.zeros(len(points.xyz), 1)
        for rows in fragments(points.xyz, points.scene, self.config.encoder.grid_size):
            seen = rows.cpu()
            total[seen] += self.logits(_part(batch, rows)).float().softmax(1).cpu()
            times[seen] += 1
        return total.div_(times)

    def metric(self) -> SegmentationMetric:
        """mIoU and accuracies."""
        return SegmentationMetric(self.labels)

    def pictures(self, prediction: Int[Tensor, " N"], batch: Batch) -> list[Picture]:
        """The points from above: predicted and true classes side by side. Of a street, the first scene's surroundings
        of 100 m with its boxes, if it has some, and ``points``: the same in colours of heights."""
        assert batch.labels is not None
        num = int(batch.points.counts[0])
        xyz, boxes = batch.points.xyz[:num], None if batch.boxes is None else batch.boxes[0]
        if bool((extent(xyz).diff(dim=0)[0, :2] > _WIDE).all()):
            seen = [birds_eye(xyz, labels[:num], self.labels.palette, boxes) for labels in (prediction, batch.labels)]
            return [Picture("classes", torch.cat(seen, dim=1)), Picture("points", birds_eye(xyz, None, boxes=boxes))]
        colours = [class_colours(labels, self.labels.palette) for labels in (prediction, batch.labels)]
        columns = [block_view(batch.points.xyz, rgb, self.config.encoder.grid_size) for rgb in colours]
        return [Picture("classes", torch.cat(columns, dim=1))]


def _part(batch: Batch, rows: Int[Tensor, " P"]) -> Batch:
    """What an encoder sees of some of the points; ``rows`` ascend, so that scenes stay together."""
    points = batch.points
    counts = torch.bincount(points.scene[rows], minlength=len(batch))
    part = Points(points.xyz[rows], points.feats[rows], counts)
    return Batch(part, batch.bounds, batch.keys, batch.sources, images=batch.images, conditions=batch.conditions)


def lovasz_softmax(probabilities: Float[Tensor, "N K"], labels: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Lovasz-softmax loss (Berman et al. 2018) over the classes present; negative labels do not count.

    For each class, the errors sorted from large to small are weighted by how much each step lowers the Jaccard index.
    All classes are sorted in one call.
    """
    num_classes = probabilities.shape[1]
    labelled = labels >= 0
    truth = F.one_hot(labels.clamp(min=0), num_classes).to(probabilities.dtype) * labelled[:, None]
    # An unlabelled point has error 0: it sorts last and adds nothing.
    errors = (truth - probabilities).abs() * labelled[:, None]
    sorted_errors, order = errors.sort(dim=0, descending=True)
    sorted_truth = truth.gather(0, order)
    total = truth.sum(0)
    intersection = total - sorted_truth.cumsum(0)
    union = total + (1 - sorted_truth).cumsum(0)
    jaccard = 1 - intersection / union
    steps = torch.diff(jaccard, dim=0, prepend=torch.zeros_like(jaccard[:1]))
    per_class = (sorted_errors * steps).sum(0)
    present = total > 0
    return (per_class * present).sum() / present.sum().clamp(min=1)
