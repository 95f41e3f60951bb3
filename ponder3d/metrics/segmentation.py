"""Semantic segmentation: confusion matrix, IoU and accuracy."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ponder3d.metrics.confusion_picture import confusion_picture
from ponder3d.metrics.metric import Metric
from ponder3d.types import Batch, LabelSet


class SegmentationMetric(Metric[Int[Tensor, " N"]]):
    """Confusion matrix over points.

    ``miou`` is the mean over the classes that occur in the ground truth; a class that is nowhere does not count as 0.

    Where several datasets share the classes (``LabelSet.subsets``) there is a matrix for each, by the condition of the
    scenes. ``miou``, ``macc`` and ``allacc`` are the means of theirs then, whatever the numbers of their points.
    """

    def __init__(self, labels: LabelSet):
        self.labels = labels
        self.conditions = tuple(condition for condition, _ in labels.subsets)
        """Those that are told apart; empty: none are."""
        shape = (len(self.conditions),) if self.conditions else ()
        self.state = torch.zeros(*shape, len(labels), len(labels), dtype=torch.float64)

    def update(self, prediction: Int[Tensor, " N"], batch: Batch) -> None:
        """Add the predicted class of every point.

        Raises:
            ValueError: the batch has no labels; and see ``add``.
        """
        if batch.labels is None:
            raise ValueError(f"{batch.sources[0]} has no point labels to compare predictions with")
        if len(prediction) != len(batch.labels):
            raise ValueError(_lengths(prediction, batch.labels, ", ".join(batch.sources)))
        if not self.conditions:
            self.add(prediction, batch.labels)
            return
        counts = batch.points.counts.tolist()
        parts = zip(batch.conditions, prediction.split(counts), batch.labels.split(counts), strict=True)
        for condition, predicted, truth in parts:
            self.add(predicted, truth, condition)

    def add(self, prediction: Int[Tensor, " P"], truth: Int[Tensor, " N"], condition: str = "") -> None:
        """Add the points of a scene. What is predicted where there is no label does not matter.

        Raises:
            ValueError: there are more or fewer predictions than labels, a label or the prediction of a labelled point
                is none of the classes, or labelled points are of a condition that is none of those of the classes.
        """
        if len(prediction) != len(truth):
            raise ValueError(_lengths(prediction, truth, "the scene"))
        prediction, truth = prediction.cpu().long(), truth.cpu().long()
        for what, values in (("label", truth), ("prediction", prediction[truth >= 0])):
            wrong = values[(values >= len(self.labels)) | ((values < 0) & (what == "prediction"))]
            if len(wrong):
                raise ValueError(f"a {what} is {int(wrong[0])}, and the classes are 0 to {len(self.labels) - 1}")
        own = confusion(prediction, truth, len(self.labels))
        if not self.conditions:
            self.state += own
        elif condition in self.conditions:
            self.state[self.conditions.index(condition)] += own
        elif bool(own.any()):
            known = ", ".join(self.conditions)
            raise ValueError(f"a labelled scene of the condition {condition!r}; the classes are those of {known}")

    def picture(self) -> UInt8[Tensor, "H W 3"]:
        """The confusion matrix, of all datasets together (``metrics.confusion_picture``)."""
        return confusion_picture(self.state.sum(0) if self.conditions else self.state, self.labels)

    def compute(self) -> dict[str, float]:
        """``miou``, ``macc`` (mean class accuracy), ``allacc`` (share of points), and ``iou/CLASS``, over all points.

        With several datasets the first three are means, ``miou/CONDITION`` and so on are each one's own, and there is
        ``iou/CONDITION/CLASS`` too. One without a labelled point is left out.
        """
        if not self.conditions:
            return means(self.state) | ious(self.state, self.labels, "iou")
        matrices = dict(zip(self.conditions, self.state, strict=True))
        figures = means_of_all(matrices) | ious(self.state.sum(0), self.labels, "iou")
        for condition, matrix in matrices.items():
            figures |= ious(matrix, self.labels, f"iou/{condition}")
        return figures


def _lengths(prediction: Tensor, truth: Tensor, of: str) -> str:
    return f"{len(prediction)} predictions for the {len(truth)} points of {of}; every point needs one, in their order"


def means(matrix: Float[Tensor, "K K"]) -> dict[str, float]:
    """``miou``, ``macc`` and ``allacc`` of a confusion matrix; 0 if it is empty."""
    iou, accuracy, present = per_class(matrix)
    return {
        "miou": float(iou[present].mean()) if bool(present.any()) else 0.0,
        "macc": float(accuracy[present].mean()) if bool(present.any()) else 0.0,
        "allacc": float(matrix.diagonal().sum() / matrix.sum().clamp(min=1)),
    }


def means_of_all(matrices: Mapping[str, Float[Tensor, "K K"]]) -> dict[str, float]:
    """``means`` of several datasets' matrices: the mean of each figure over the datasets that have labelled points, and
    ``FIGURE/DATASET`` of each of those."""
    found = {name: means(matrix) for name, matrix in matrices.items() if bool(matrix.any())}
    empty = means(torch.zeros(0, 0, dtype=torch.float64))
    figures = {figure: sum(of[figure] for of in found.values()) / max(1, len(found)) for figure in empty}
    return figures | {f"{figure}/{name}": value for name, of in found.items() for figure, value in of.items()}


def ious(matrix: Float[Tensor, "K K"], labels: LabelSet, prefix: str) -> dict[str, float]:
    """``PREFIX/CLASS`` of the classes that occur in the truth."""
    iou, _, present = per_class(matrix)
    names = zip(labels.names, iou.tolist(), present.tolist(), strict=True)
    return {f"{prefix}/{name}": value for name, value, there in names if there}


def confusion(
    prediction: Int[Tensor, " N"], truth: Int[Tensor, " N"], num_classes: int
) -> Float[Tensor, "{num_classes} {num_classes}"]:
    """Counts by (true class, predicted class); points with a negative true label do not count.

    The others' labels and predictions have to be classes, which is not checked: the host would wait for a GPU.
    """
    keep = truth >= 0
    cell = truth[keep] * num_classes + prediction[keep]
    counts = torch.bincount(cell, minlength=num_classes * num_classes)
    return counts.view(num_classes, num_classes).to(torch.float64)


def per_class(
    matrix: Float[Tensor, "K K"],
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"], Bool[Tensor, " K"]]:
    """IoU and accuracy of each class, and whether it occurs in the ground truth."""
    right, true, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    iou = right / (true + predicted - right).clamp(min=1)
    return iou, right / true.clamp(min=1), true > 0
