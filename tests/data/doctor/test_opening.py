"""Which dataset a directory is."""

import planting
import pytest

from ponder3d.data.dataset import DataError
from ponder3d.data.doctor.opening import open_data
from ponder3d.data.raw.dataset import RawFrame


def test_frames_are_recognised_and_far_depth_is_kept(tmp_path):
    tree = planting.example_rooms(tmp_path / "rooms", num=4)
    planting.depth_of_one_in_other_units(tree, tree.frames[0], "")
    scene = next(scene for scene in open_data(str(tree.root)).scenes if scene.name == "hall")
    (frame,) = scene.read_frames(tree.frames[:1])
    assert isinstance(frame, RawFrame) and frame.depth is not None
    assert frame.depth.max() > 10, "a reader that trusts depth up to 8 m would hide the wrong unit"


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [("", "it looks like no dataset that is known; say which"), ("moon", "no kind of dataset is called 'moon'")],
)
def test_what_is_not_recognised(tmp_path, kind, complaint):
    with pytest.raises(DataError, match=complaint):
        open_data(str(tmp_path), kind)


def test_no_directory(tmp_path):
    with pytest.raises(DataError, match="absent: no such directory"):
        open_data(str(tmp_path / "absent"))
