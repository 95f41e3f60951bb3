import math

import pytest
import torch

from ponder3d.metrics.assignment import Assignment, AssignmentMetric
from ponder3d.types import Batch, Scene

NOTHING = Batch.of([Scene(torch.zeros(0, 3), None, None, "nothing")])
"""What the metric does not look at."""


def seen(student, teacher, found) -> Assignment:
    num = len(student)
    return Assignment(
        torch.tensor(student),
        torch.tensor(teacher),
        torch.tensor(found).bool(),
        torch.zeros(num, 3),
        torch.zeros(num).long(),
    )


def test_figures_by_hand():
    metric = AssignmentMetric(3)
    metric.update(seen([0, 1, 2], [0, 1, 1], [1, 0]), NOTHING)
    metric.update(seen([0], [0], [1, 1]), NOTHING)
    assert metric.state.tolist() == [4, 3, 4, 3, 2, 2, 0]
    assert metric.compute() == pytest.approx(
        {"agreement": 0.75, "agreement_chance": 0.5, "retrieval": 0.75, "prototypes_used": 2.0}
    )


def test_one_prototype_for_everything():
    metric = AssignmentMetric(3)
    metric.update(seen([2, 2], [2, 2], [0]), NOTHING)
    assert metric.compute()["prototypes_used"] == pytest.approx(1.0) and metric.compute()["agreement_chance"] == 1.0
    assert all(math.isfinite(value) for value in AssignmentMetric(3).compute().values())
