"""Semantic segmentation: confusion matrix, IoU and accuracy."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponder3d.metrics.metric import Metric
from ponder3d.types import Batch, LabelSet


class SegmentationMetric(Metric[Int[Tensor, " N"]]):
    """Confusion matrix over points.

    ``miou`` is the mean over the classes that occur in the ground truth; a class that is nowhere does not count as 0.
    """

    def __init__(self, labels: LabelSet):
        self.labels = labels
        self.state = torch.zeros(len(labels), len(labels), dtype=torch.float64)

    def update(self, prediction: Int[Tensor, " N"], batch: Batch) -> None:
        """Add the predicted class of every point."""
        assert batch.labels is not None
        self.state += confusion(prediction.cpu(), batch.labels.cpu(), len(self.labels))

    def compute(self) -> dict[str, float]:
        """``miou``, ``macc`` (mean class accuracy), ``allacc`` (share of points), and ``iou/<class>``."""
        iou, accuracy, present = per_class(self.state)
        share = self.state.diagonal().sum() / self.state.sum().clamp(min=1)
        figures = {
            "miou": float(iou[present].mean()) if bool(present.any()) else 0.0,
            "macc": float(accuracy[present].mean()) if bool(present.any()) else 0.0,
            "allacc": float(share),
        }
        names = zip(self.labels.names, iou.tolist(), present.tolist(), strict=True)
        return figures | {f"iou/{name}": value for name, value, there in names if there}


def confusion(
    prediction: Int[Tensor, " N"], truth: Int[Tensor, " N"], num_classes: int
) -> Float[Tensor, "{num_classes} {num_classes}"]:
    """Counts by (true class, predicted class); points with a negative true label do not count."""
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
