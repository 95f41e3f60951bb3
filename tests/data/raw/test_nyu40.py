import pytest

from ponder3d.data.raw import nyu40


def test_ids_are_those_of_the_official_list():
    names = dict(zip(nyu40.IDS, nyu40.NAMES, strict=True))
    assert len(names) == 40 and len(set(nyu40.PALETTE)) == 40 and (0, 0, 0) not in nyu40.PALETTE
    assert [names[i] for i in (1, 2, 10, 22, 24, 33, 36, 39, 40)] == [
        "wall",
        "floor",
        "bookshelf",
        "ceiling",
        "refrigerator",
        "toilet",
        "bathtub",
        "otherfurniture",
        "otherprop",
    ]


def test_a_choice_of_classes():
    labels = nyu40.label_set((22, 1))
    assert labels.names == ("ceiling", "wall")
    assert labels.palette == ((78, 71, 183), (174, 199, 232))
    with pytest.raises(IndexError):
        nyu40.label_set((41,))
