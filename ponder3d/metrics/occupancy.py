"""How well places are told to be full or empty."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponder3d.metrics.metric import Metric
from ponder3d.types import Batch


@dataclass(frozen=True)
class Occupancy:
    """Places that were judged."""

    full: Bool[Tensor, " Q"]
    """What was predicted."""
    truth: Bool[Tensor, " Q"]
    xyz: Float[Tensor, "Q 3"]
    """World coordinates, metres."""
    scene: Int[Tensor, " Q"]


class OccupancyMetric(Metric[Occupancy]):
    """Counts over places.

    ``iou`` is of the full ones, ``iou_all_full`` what it would be if all were called full; ``accuracy`` is the mean of
    the shares of full and of empty ones that are told right, 0.5 by chance.
    """

    def __init__(self) -> None:
        # Called full and full, called full and empty, called empty and full, called empty and empty.
        self.state = torch.zeros(4, dtype=torch.float64)

    def update(self, prediction: Occupancy, batch: Batch) -> None:
        """Add the places of a batch."""
        case = 2 * (~prediction.full).to(torch.int64) + (~prediction.truth)
        self.state += torch.bincount(case.cpu(), minlength=4)

    def compute(self) -> dict[str, float]:
        """The figures; 0 where nothing was judged."""
        hit, wrong, missed, empty = self.state.tolist()
        recall, precision = hit / max(hit + missed, 1.0), hit / max(hit + wrong, 1.0)
        return {
            "iou": hit / max(hit + wrong + missed, 1.0),
            "iou_all_full": (hit + missed) / max(float(self.state.sum()), 1.0),
            "precision": precision,
            "recall": recall,
            "accuracy": (recall + empty / max(empty + wrong, 1.0)) / 2,
        }
