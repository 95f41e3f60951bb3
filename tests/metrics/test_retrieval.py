"""Shares of places that were found, by hand."""

import pytest
import torch

from ponder3d.metrics.retrieval import RetrievalMetric, Retrieved
from ponder3d.types import Batch, Points

NONE = Points(torch.zeros(0, 3), torch.zeros(0, 1), torch.tensor([0]))
BATCH = Batch(NONE, torch.zeros(1, 2, 3), torch.tensor([0]), ("none",))


def retrieved(found: list[int], scene: list[int]) -> Retrieved:
    place = torch.tensor([[0.0, 0, 0], [0.0, 0, 0.08], [1.0, 0, 0], [0.0, 0.15, 0]])
    return Retrieved(place, torch.tensor(scene), torch.tensor(found))


def test_by_hand():
    metric = RetrievalMetric((0.1, 0.2))
    # Row 0 finds its neighbour 8 cm away, row 1 itself, row 2 something a metre away, row 3 one 15 cm away.
    metric.update(retrieved([1, 1, 0, 0], [0, 0, 0, 0]), BATCH)
    figures = metric.compute()
    assert figures["within_10cm"] == pytest.approx(2 / 4) and figures["within_20cm"] == pytest.approx(3 / 4)
    # Within 10 cm of rows 0 to 3 lie 2, 2, 1 and 1 of the four candidates; within 20 cm 3, 3, 1 and 3.
    assert figures["chance_10cm"] == pytest.approx(6 / 16) and figures["chance_20cm"] == pytest.approx(10 / 16)


def test_empty_rows_and_other_scenes_do_not_count():
    metric = RetrievalMetric((0.1,))
    metric.update(retrieved([0, 1, 0, 0], [0, 1, -1, 1]), BATCH)
    # Rows 1 and 3 are 17 cm apart, row 0 is alone in its scene; row 3 found row 0, 15 cm away.
    assert metric.compute() == pytest.approx({"within_10cm": 2 / 3, "chance_10cm": (1 + 0.5 + 0.5) / 3})
    metric.update(retrieved([0, 0, 0, 0], [-1] * 4), BATCH)
    assert float(metric.state[0]) == 3


def test_nothing_seen():
    assert RetrievalMetric((0.1,)).compute() == {"within_10cm": 0.0, "chance_10cm": 0.0}


@pytest.mark.parametrize("radii", [(), (0.1, 0.1), (0.001,), (0.101, 0.099)])
def test_radii_have_names_of_their_own(radii):
    with pytest.raises(ValueError, match="RetrievalMetric: radii must be different, of 1 cm or more"):
        RetrievalMetric(radii)
