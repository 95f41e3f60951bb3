"""The official splits: their sizes, that none shares a scene with another, and some of their members."""

import pytest

from ponder3d.data.driving.nuscenes_splits import split_scenes


def test_sizes_and_no_overlap():
    train, val = (split_scenes("v1.0-trainval", split) for split in ("train", "val"))
    test = split_scenes("v1.0-test", "test")
    assert (len(train), len(val), len(test)) == (700, 150, 150)
    assert len(train | val | test) == 1000


def test_mini_is_a_part_of_trainval():
    train, val = (split_scenes("v1.0-mini", split) for split in ("train", "val"))
    assert (len(train), val) == (8, {"scene-0103", "scene-0916"})
    assert val <= split_scenes("v1.0-trainval", "val")
    # Two of the mini set's training scenes are validation scenes of the whole: 553 and 796.
    assert val.isdisjoint(train)
    assert train - split_scenes("v1.0-trainval", "train") == {"scene-0553", "scene-0796"}


def test_a_version_without_the_split():
    with pytest.raises(ValueError, match=r"v1.0-mini has no split 'test'"):
        split_scenes("v1.0-mini", "test")
