import pytest
import torch

from ponder3d.metrics.segmentation import SegmentationMetric, confusion, per_class
from ponder3d.types import Batch, LabelSet, Scene
from ponder3d.types.scene import to_device

LABELS = LabelSet(("floor", "chair", "lamp"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))


def batch(labels: list[int]) -> Batch:
    return Batch.of(
        [Scene(torch.zeros(len(labels), 3), None, None, "x", labels=torch.tensor(labels, dtype=torch.int64))]
    )


def test_confusion_counts_by_true_and_predicted_class():
    matrix = confusion(torch.tensor([0, 1, 1, 2, 0, 2]), torch.tensor([0, 0, 1, 1, -1, -100]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]] and matrix.dtype == torch.float64


def test_figures_by_hand(device):
    metric = SegmentationMetric(LABELS)
    # Floor: 3 of 4 found, 1 too many. Chair: 1 of 2 found, 2 too many. Lamp: 1 of 2 found, none too many.
    predicted, truth = torch.tensor([0, 0, 0, 1, 1, 0, 2, 1, 2]), batch([0, 0, 0, 0, 1, 1, 2, 2, -1])
    metric.update(*to_device((predicted, truth), device))
    figures = metric.compute()
    ious = {"iou/floor": 3 / 5, "iou/chair": 1 / 4, "iou/lamp": 1 / 2}
    expected = {"miou": sum(ious.values()) / 3, "macc": (3 / 4 + 1 / 2 + 1 / 2) / 3, "allacc": 5 / 8, **ious}
    assert figures == pytest.approx(expected)


def test_a_class_that_is_nowhere_counts_for_nothing():
    metric = SegmentationMetric(LABELS)
    metric.update(torch.tensor([0, 0, 1, 2]), batch([0, 0, 1, 1]))  # a lamp is predicted where there is none
    figures = metric.compute()
    assert figures == pytest.approx({"miou": 0.75, "macc": 0.75, "allacc": 0.75, "iou/floor": 1, "iou/chair": 0.5})


def test_nothing_labelled_gives_zeros():
    metric = SegmentationMetric(LABELS)
    assert metric.compute() == {"miou": 0, "macc": 0, "allacc": 0}
    metric.update(torch.tensor([0, 2]), batch([-1, -1]))
    assert metric.compute() == {"miou": 0, "macc": 0, "allacc": 0}
    metric.update(torch.zeros(0, dtype=torch.int64), batch([]))
    assert float(metric.state.sum()) == 0


def test_unlabelled_points_may_be_predicted_as_anything():
    labels = torch.randint(-1, 3, (500,))
    first, second = torch.randint(0, 3, (2, 500))
    second = torch.where(labels < 0, second, first)
    assert torch.equal(confusion(first, labels, 3), confusion(second, labels, 3))


def test_states_added_up_are_one_pass():
    labels, predicted = torch.randint(-1, 3, (300,)), torch.randint(0, 3, (300,))
    whole, parts = SegmentationMetric(LABELS), [SegmentationMetric(LABELS) for _ in range(3)]
    whole.update(predicted, batch(labels.tolist()))
    for part, p, t in zip(parts, predicted.split(100), labels.split(100), strict=True):
        part.update(p, batch(t.tolist()))
    merged = SegmentationMetric(LABELS)
    merged.state = sum(part.state for part in parts)
    assert merged.compute() == whole.compute()


def test_a_perfect_prediction():
    iou, accuracy, present = per_class(torch.diag(torch.tensor([5.0, 0, 3])).double())
    assert iou.tolist() == accuracy.tolist() == [1, 0, 1] and present.tolist() == [True, False, True]


JOINT = LabelSet(LABELS.names, LABELS.palette, (("a", (0, 1)), ("b", (2, 0)), ("c", (1,))))


def scene(condition: str, labels: list[int]) -> Scene:
    return Scene(torch.zeros(len(labels), 3), None, None, "x", labels=torch.tensor(labels), condition=condition)


def test_several_datasets_by_hand(device):
    metric = SegmentationMetric(JOINT)
    assert metric.state.shape == (3, 3, 3)
    mixed = Batch.of([scene("b", [0, 2]), scene("a", [0, 0, 0, 1]), scene("b", [0, -1]), scene("none", [-1])])
    metric.update(*to_device((torch.tensor([0, 0, 0, 0, 0, 1, 2, 1, 1]), mixed), device))
    figures = metric.compute()
    a, b = (3 / 3 + 1 / 1) / 2, (1 / 3 + 0) / 2
    assert figures == pytest.approx(
        {
            "miou": (a + b) / 2,
            "macc": (1 + 1 / 4) / 2,
            "allacc": (1 + 1 / 3) / 2,
            "miou/a": a,
            "miou/b": b,
            "macc/a": 1,
            "macc/b": 1 / 4,
            "allacc/a": 1,
            "allacc/b": 1 / 3,
            "iou/floor": 4 / 6,
            "iou/chair": 1,
            "iou/lamp": 0,
            "iou/a/floor": 1,
            "iou/a/chair": 1,
            "iou/b/floor": 1 / 3,
            "iou/b/lamp": 0,
        }
    )
    with pytest.raises(ValueError, match="a labelled scene of the condition 'd'; the classes are those of a, b, c"):
        metric.update(torch.tensor([0]), Batch.of([scene("d", [0])]))


def test_several_datasets_without_a_label():
    assert SegmentationMetric(JOINT).compute() == {"miou": 0, "macc": 0, "allacc": 0}


def test_predictions_that_cannot_be_compared():
    metric = SegmentationMetric(LABELS)
    short = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="2 predictions for the 3 points of x; every point needs one"):
        metric.update(short, batch([0, 1, 2]))
    with pytest.raises(ValueError, match="2 predictions for the 3 points of the scene"):
        metric.add(short, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="2 predictions for the 1 points of x"):
        SegmentationMetric(JOINT).update(short, Batch.of([scene("a", [0])]))
    with pytest.raises(ValueError, match="a label is 3, and the classes are 0 to 2"):
        metric.add(short, torch.tensor([0, 3]))
    for wrong in (3, -1, 2**40):
        with pytest.raises(ValueError, match=f"a prediction is {wrong}, and the classes are 0 to 2"):
            metric.add(torch.tensor([0, wrong]), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="x has no point labels"):
        metric.update(short, Batch.of([Scene(torch.zeros(2, 3), None, None, "x")]))
    assert float(metric.state.sum()) == 0, "nothing of them has been added"
    metric.add(torch.tensor([1, 9]), torch.tensor([1, -1]))  # what is said of a point without a label does not matter
    assert float(metric.state.sum()) == 1


def test_a_single_point():
    metric = SegmentationMetric(LABELS)
    metric.update(torch.tensor([1]), batch([1]))
    assert metric.compute() == {"miou": 1, "macc": 1, "allacc": 1, "iou/chair": 1}
