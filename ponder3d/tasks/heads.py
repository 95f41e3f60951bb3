"""Heads: class scores of points, which differ in what they share between datasets.

Scenes of several datasets are labelled with rows of one vocabulary, and a scene can have the classes of its own dataset
only (``LabelSet.possible``): the scores of the others are ``IMPOSSIBLE``, so that no loss asks for what a label cannot
be. With one dataset nothing is masked.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.tasks.class_vectors import ClassVectorsConfig, FixedCodes, NoVectors
from ponder3d.tasks.kept_vectors import kept
from ponder3d.types import LabelSet
from ponder3d.types.labels import IMPOSSIBLE


class Head(nn.Module, ABC):
    """Point features to class scores."""

    source: str = ""
    """What made the vectors that stand for classes; empty if there are none."""
    labels: LabelSet
    """The classes."""

    @abstractmethod
    def forward(self, feats: Float[Tensor, "N C"], scene: Int[Tensor, " N"], conditions: tuple[str, ...]) -> Tensor:
        """Scores ``[N K]`` of N points of the scenes ``scene``, whose conditions are ``conditions [B]``.

        Classes that a scene cannot have get ``IMPOSSIBLE``. Empty ``conditions`` allow all classes.
        """

    @property
    @abstractmethod
    def reads(self) -> nn.Linear:
        """The affine layer that the features enter; nothing else of the head sees them."""


class HeadConfig(Config, ABC):
    """Choices of a head."""

    def with_kept(self, vectors: Float[Tensor, "K E"] | None, source: str) -> "HeadConfig":
        """The same with class vectors that a checkpoint has, if it has some (``kept_vectors.kept``)."""
        return self

    @abstractmethod
    def build(self, in_channels: int, labels: LabelSet) -> Head:
        """A head for features of ``in_channels`` and these classes.

        Raises:
            ValueError: the classes do not fit the head, or its vectors cannot be made.
        """


@dataclass(frozen=True)
class LinearHeadConfig(HeadConfig):
    """A linear classifier that all datasets share."""

    def build(self, in_channels: int, labels: LabelSet) -> "LinearHead":
        """With a row per class."""
        return LinearHead(in_channels, labels)


@dataclass(frozen=True)
class DecoupledHeadsConfig(HeadConfig):
    """A linear classifier per dataset, of its own classes (``PPT-v1m2``): they share the encoder and nothing else."""

    def build(self, in_channels: int, labels: LabelSet) -> "DecoupledHeads":
        """With a row per class of each of ``LabelSet.subsets``."""
        return DecoupledHeads(in_channels, labels)


@dataclass(frozen=True)
class LanguageHeadConfig(HeadConfig):
    """Features are projected to where the classes have vectors; the score is a cosine, scaled (``PPT-v1m1``)."""

    vectors: ClassVectorsConfig = FixedCodes(64)
    """What stands for the classes."""
    scale: float = 100.0
    """What a cosine is multiplied by; not trained."""

    def __post_init__(self):
        if self.scale <= 0:
            raise ValueError(f"LanguageHeadConfig.scale must be positive, not {self.scale}")
        if isinstance(self.vectors, NoVectors):
            raise ValueError("LanguageHeadConfig.vectors: the head needs a vector per class, and NoVectors has none")

    def with_kept(self, vectors: Float[Tensor, "K E"] | None, source: str) -> "LanguageHeadConfig":
        """With those instead of what ``vectors`` makes."""
        return replace(self, vectors=kept(self.vectors, vectors, source))

    def build(self, in_channels: int, labels: LabelSet) -> "LanguageHead":
        """With a projection to the width of the vectors."""
        return LanguageHead(in_channels, labels, self)


class LinearHead(nn.Linear, Head):
    """``W x + b``. Its parameters are ``weight [K C]`` and ``bias [K]``."""

    def __init__(self, in_channels: int, labels: LabelSet):
        super().__init__(in_channels, len(labels))
        self.labels = labels

    def forward(  # type: ignore[override]
        self, feats: Float[Tensor, "N C"], scene: Int[Tensor, " N"], conditions: tuple[str, ...]
    ) -> Float[Tensor, "N K"]:
        """Scores."""
        return mask_impossible(super().forward(feats), scene, conditions, self.labels)

    @property
    def reads(self) -> nn.Linear:
        """Itself."""
        return self


class DecoupledHeads(nn.Linear, Head):
    """``W_k x + b_k`` for points of condition k: ``weight [T C]`` and ``bias [T]`` hold the rows of all conditions one
    after the other, in the order of ``LabelSet.subsets``. All points are multiplied by all rows at once.
    """

    def __init__(self, in_channels: int, labels: LabelSet):
        if not labels.subsets:
            raise ValueError(
                "DecoupledHeads: the classes belong to one dataset, not to several (LabelSet.subsets is empty); take "
                "LinearHeadConfig"
            )
        super().__init__(in_channels, sum(len(rows) for _, rows in labels.subsets))
        self.labels = labels
        self.names = tuple(name for name, _ in labels.subsets)
        columns = torch.zeros(len(self.names), len(labels), dtype=torch.int64)
        possible = torch.zeros(len(self.names), len(labels), dtype=torch.bool)
        first = 0
        for k, (_, rows) in enumerate(labels.subsets):
            columns[k, list(rows)] = torch.arange(first, first + len(rows))
            possible[k, list(rows)] = True
            first += len(rows)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("possible", possible, persistent=False)
        self.columns: Tensor
        self.possible: Tensor

    def forward(  # type: ignore[override]
        self, feats: Float[Tensor, "N C"], scene: Int[Tensor, " N"], conditions: tuple[str, ...]
    ) -> Float[Tensor, "N K"]:
        """Scores.

        Raises:
            ValueError: a scene's condition has no head.
        """
        unknown = [name for name in conditions or ("",) if name not in self.names]
        if unknown:
            what = f"the condition {unknown[0]!r} has no head" if unknown[0] else "the condition of a scene is missing"
            raise ValueError(f"{what}; there are heads for {', '.join(self.names)} (transforms.SetCondition names one)")
        condition = _rows(self.names, conditions, feats.device)[scene]
        scores = super().forward(feats).gather(1, self.columns[condition])
        return scores.masked_fill(~self.possible[condition], IMPOSSIBLE)

    @property
    def reads(self) -> nn.Linear:
        """Itself."""
        return self


class LanguageHead(Head):
    """``scale * cos(W x + b, vector of the class)``, in float32."""

    def __init__(self, in_channels: int, labels: LabelSet, config: LanguageHeadConfig):
        super().__init__()
        self.labels = labels
        made = config.vectors.build(labels)
        self.source = made.source
        self.project = nn.Linear(in_channels, made.vectors.shape[1])
        self.register_buffer("vectors", made.vectors)
        self.register_buffer("log_scale", torch.tensor(math.log(config.scale)))
        self.vectors: Tensor
        self.log_scale: Tensor

    def forward(
        self, feats: Float[Tensor, "N C"], scene: Int[Tensor, " N"], conditions: tuple[str, ...]
    ) -> Float[Tensor, "N K"]:
        """Scores."""
        with torch.autocast(feats.device.type, enabled=False):
            projected = self.project(feats.float())
            # The floor bounds the gradient of a point whose projection is almost 0, and is below rounding elsewhere.
            direction = projected / (projected.square().sum(1, keepdim=True) + 1e-6).sqrt()
            scores = self.log_scale.exp() * (direction @ self.vectors.T)
        return mask_impossible(scores, scene, conditions, self.labels)

    @property
    def reads(self) -> nn.Linear:
        """The projection."""
        return self.project


def mask_impossible(
    scores: Float[Tensor, "N K"], scene: Int[Tensor, " N"], conditions: tuple[str, ...], labels: LabelSet
) -> Float[Tensor, "N K"]:
    """Scores with ``IMPOSSIBLE`` where the condition of a point's scene does not have the class.

    They are returned as they are if the classes belong to one dataset, or if no conditions are given.
    """
    possible = possible_classes(labels, conditions, scores.device)
    return scores if possible is None else scores.masked_fill(~possible[scene], IMPOSSIBLE)


def possible_classes(labels: LabelSet, conditions: tuple[str, ...], device: torch.device) -> Bool[Tensor, "B K"] | None:
    """``LabelSet.possible`` on a device; None if the classes belong to one dataset, or no conditions are given."""
    return _possible(labels, conditions, device) if labels.subsets and conditions else None


# Kept, so that few batches have to wait for a copy to a GPU: a handful of datasets in a batch of 8 come in few orders.
# Outside of inference mode, so that what evaluation makes can be used in training.
@lru_cache(maxsize=4096)
@torch.inference_mode(False)
def _possible(labels: LabelSet, conditions: tuple[str, ...], device: torch.device) -> Bool[Tensor, "B K"]:
    return labels.possible(conditions).to(device)


@lru_cache(maxsize=4096)
@torch.inference_mode(False)
def _rows(names: tuple[str, ...], conditions: tuple[str, ...], device: torch.device) -> Int[Tensor, " B"]:
    return torch.tensor([names.index(name) for name in conditions], device=device)


def point_cross_entropy(scores: Float[Tensor, "N K"], labels: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the labelled points; 0 (with a gradient of 0) if there are none."""
    per_point = F.cross_entropy(scores, labels.clamp(min=-1), ignore_index=-1, reduction="none")
    return per_point.sum() / (labels >= 0).sum().clamp(min=1)
