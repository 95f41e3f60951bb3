import pytest
import torch

from ponder3d.metrics.occupancy import Occupancy, OccupancyMetric
from ponder3d.types import Batch, Scene

NOTHING = Batch.of([Scene(torch.zeros(0, 3), None, None, "nothing")])
"""What the metric does not look at."""


def test_figures_by_hand():
    """Three full, of which two are found, and five empty, of which one is called full."""
    full = torch.tensor([1, 1, 0, 1, 0, 0, 0, 0]).bool()
    truth = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0]).bool()
    metric = OccupancyMetric()
    for part in (slice(0, 3), slice(3, 8)):
        num = len(full[part])
        metric.update(Occupancy(full[part], truth[part], torch.zeros(num, 3), torch.zeros(num).long()), NOTHING)
    assert metric.state.tolist() == [2, 1, 1, 4]
    assert metric.compute() == pytest.approx(
        {"iou": 2 / 4, "iou_all_full": 3 / 8, "precision": 2 / 3, "recall": 2 / 3, "accuracy": (2 / 3 + 4 / 5) / 2}
    )
