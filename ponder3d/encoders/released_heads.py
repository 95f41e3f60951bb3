"""Segmentation heads in released checkpoints, and the vocabulary that three datasets share there."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ponder3d.encoders.released_names import check, linear

TABLE_ORDER = ("Structured3D", "ScanNet", "S3DIS")
"""Conditions in the order of the rows of ``embedding_table`` and of the heads ``seg_heads``. The batch norms have
another: ("ScanNet", "S3DIS", "Structured3D")."""

UNION = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "bookcase"),
    *("picture", "counter", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "ceiling", "refrigerator"),
    *("television", "shower curtain", "nightstand", "toilet", "sink", "lamp", "bathtub", "garbagebin", "board"),
    *("beam", "column", "clutter", "otherstructure", "otherfurniture", "otherprop"),
)
"""The 36 classes that have a vector in a checkpoint of Point Prompt Training."""

UNION_ROWS = {
    "Structured3D": (*range(9), 11, *range(13, 22), 23, 25, 26, 33, 34, 35),
    "ScanNet": (*range(10), 11, 12, 13, 15, 20, 22, 24, 25, 27, 34),
    "S3DIS": (0, 1, 4, 5, 6, 7, 8, 10, 19, 29, 30, 31, 32),
}
"""The row of ``UNION`` with which each class of a dataset was trained. Those of S3DIS are sorted, and its classes are
not: its first class, ceiling, learnt the vector of "wall", and so on, all but floor and clutter. Weights that were
trained so need the same rows."""


@dataclass(frozen=True)
class LinearHead:
    """Scores of classes as a linear function of features."""

    weight: Float[Tensor, "K C"]
    bias: Float[Tensor, " K"]

    def logits(self, feats: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """Scores of every class."""
        return F.linear(feats, self.weight, self.bias)


@dataclass(frozen=True)
class LanguageHead:
    """Scores of classes by the angle between projected features and a vector per class."""

    project_weight: Float[Tensor, "E C"]
    project_bias: Float[Tensor, " E"]
    class_vectors: Float[Tensor, "K E"]
    """Unit vectors, made by a text encoder from the names of the classes."""
    log_scale: float
    """Logarithm of what the cosines are multiplied by."""

    def rows_for(self, condition: str) -> tuple[int, ...]:
        """Row of ``class_vectors`` of each class of a dataset, in its own order, as the weights were trained.

        Raises:
            ValueError: the rows are those of ``UNION`` and it does not name this dataset.
        """
        if len(self.class_vectors) != len(UNION):
            return tuple(range(len(self.class_vectors)))
        if condition not in UNION_ROWS:
            raise ValueError(f"no classes of {condition!r} among the shared ones; known are {', '.join(UNION_ROWS)}")
        return UNION_ROWS[condition]

    def logits(self, feats: Float[Tensor, "N C"], condition: str) -> Float[Tensor, "N K2"]:
        """Scores of the classes of a dataset, in its own order."""
        projected = F.normalize(F.linear(feats, self.project_weight, self.project_bias), dim=1)
        vectors = self.class_vectors[list(self.rows_for(condition))]
        return float(torch.tensor(self.log_scale).exp()) * projected @ vectors.T


@dataclass(frozen=True)
class DecoupledHead:
    """A linear head per condition."""

    heads: tuple[tuple[str, LinearHead], ...]
    """Condition and head."""


Head = LinearHead | LanguageHead | DecoupledHead


def final_head(weights: Mapping[str, Tensor], channels: int, where: str) -> LinearHead:
    """The head within a backbone: a convolution with one tap (``final``)."""
    weight, bias = weights["final.weight"], check(weights["final.bias"], [-1], "final.bias", where)
    shape = sorted(weight.shape) if weight.dim() == 5 else list(weight.shape)
    if shape != sorted([1, 1, 1, len(bias), channels]):
        check(weight, [len(bias), 1, 1, 1, channels], "final.weight", where)
    return LinearHead(linear(check(weight, list(weight.shape), "final.weight", where), channels), bias.float().clone())


def linear_head(weights: Mapping[str, Tensor], name: str, channels: int, where: str) -> LinearHead:
    """A linear layer as a head."""
    bias = check(weights[f"{name}.bias"], [-1], f"{name}.bias", where)
    weight = check(weights[f"{name}.weight"], [len(bias), channels], f"{name}.weight", where)
    return LinearHead(weight.float().clone(), bias.float().clone())


def language_head(weights: Mapping[str, Tensor], channels: int, where: str) -> LanguageHead:
    """The head of Point Prompt Training: a projection, a vector per class and a scale."""
    project = linear_head(weights, "proj_head", channels, where)
    vectors = check(weights["class_embedding"], [-1, len(project.bias)], "class_embedding", where)
    scale = check(weights["logit_scale"], [], "logit_scale", where)
    return LanguageHead(project.weight, project.bias, vectors.float().clone(), float(scale))
