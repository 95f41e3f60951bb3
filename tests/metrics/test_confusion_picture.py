"""Pixels of a confusion matrix, and what is written beside it."""

import pytest
import torch
from PIL import ImageDraw

from ponder3d.metrics import confusion_picture as module
from ponder3d.metrics.confusion_picture import confusion_picture
from ponder3d.metrics.segmentation import SegmentationMetric
from ponder3d.types import LabelSet

LABELS = LabelSet(("floor", "chair", "lamp"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))


@pytest.fixture
def written(monkeypatch):
    """Texts that are drawn."""
    texts, text = [], ImageDraw.ImageDraw.text

    def note(self, place, string, *args, **kwargs):
        texts.append(string)
        return text(self, place, string, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    return texts


def cells(picture: torch.Tensor, num: int) -> torch.Tensor:
    """The colour of a corner of each cell: there is no number."""
    edge = module._LARGE[0] if num <= module._FEW else module._SMALL[0]
    flat = (picture.int().amax(2) - picture.int().amin(2)) > 12  # coloured
    rows, columns = flat.any(1).nonzero()[:, 0], flat.any(0).nonzero()[:, 0]
    top, left = int(rows[0]), int(columns[0])
    place = torch.arange(num) * edge + 1
    return picture[top + place][:, left + place]


def test_cells_and_numbers_by_hand(written):
    matrix = torch.tensor([[3.0, 1, 0], [0, 2, 0], [0, 999, 1]]).double()
    picture = confusion_picture(matrix, LABELS)
    assert picture.dtype == torch.uint8 and picture.shape[2] == 3
    found = cells(picture, 3)
    # The root of the share leads from (247, 247, 247) to blue on the diagonal and to red beside it.
    assert found[1, 1].tolist() == [24, 78, 150] and found[0, 2].tolist() == found[1, 0].tolist() == [247, 247, 247]
    assert found[0, 1].tolist() == [round(247 + 0.5 * (c - 247)) for c in (178, 40, 30)]
    numbers = [text for text in written if text[0] in "<0123456789"]
    assert numbers == ["75", "25", "100", "100", "<1"]
    assert sorted(set(written) & set(LABELS.names)) == ["chair", "floor", "lamp"]
    assert not any("not in the truth" in text for text in written)


def test_classes_that_are_not_in_the_truth_are_grey_and_named(written):
    matrix = torch.tensor([[4.0, 0, 4], [0, 0, 0], [0, 0, 0]]).double()
    found = cells(confusion_picture(matrix, LABELS), 3)
    assert found[1:].reshape(-1, 3).unique(dim=0).tolist() == [[226, 226, 226]]
    assert "not in the truth (grey): chair, lamp" in " ".join(written)
    assert [text for text in written if text.isdigit()] == ["50", "50"]


@pytest.mark.parametrize("num", [0, 1, 40, 41, 200])
def test_any_number_of_classes(num, written):
    names = tuple(f"class {i} with a name that is rather longer than names are" for i in range(num))
    labels = LabelSet(names, ((0, 0, 0),) * num)
    picture = confusion_picture(torch.eye(num).double(), labels)
    edge = 44 if num <= 40 else 15
    assert min(picture.shape[:2]) >= num * edge
    assert sum(text.isdigit() for text in written) == (num if num <= 40 else 0)
    assert all(len(text) <= 28 for text in written if text.startswith("class"))


def test_nothing_at_all(written):
    assert confusion_picture(torch.zeros(3, 3).double(), LABELS).float().mean() > 200
    assert "not in the truth (grey): floor, chair, lamp" in " ".join(written)


def test_a_metric_of_several_datasets_shows_all_together():
    joint, single = LabelSet(LABELS.names, LABELS.palette, (("a", (0, 1)), ("b", (2, 0)))), SegmentationMetric(LABELS)
    several = SegmentationMetric(joint)
    for condition, predicted, truth in (("a", [0, 1, 1], [0, 0, 1]), ("b", [2, 0], [2, 2])):
        several.add(torch.tensor(predicted), torch.tensor(truth), condition)
        single.add(torch.tensor(predicted), torch.tensor(truth))
    assert torch.equal(several.picture(), single.picture())
