"""Who disagrees with whom."""

import numpy as np
import pytest

from ponder3d.data.doctor.agreement import Meeting, meet, score
from ponder3d.data.doctor.sketch import Sketch, sketch
from ponder3d.data.doctor.views import compare, inverted, outliers
from ponder3d.data.raw.dataset import RawFrame
from ponder3d.data.raw.example_room import ExampleRoom


def wall(distance: float, back: float = 0.0) -> Sketch:
    """A view of a wall at right angles; the camera stands ``back`` metres behind the origin."""
    pose = np.eye(4)
    pose[2, 3] = -back
    matrix = np.array([[20.0, 0, 15.5], [0, 20, 11.5], [0, 0, 1]])
    depth = np.full((24, 32), distance, dtype=np.float32)
    return sketch(RawFrame("wall", matrix, pose, np.zeros((24, 32, 3), dtype=np.uint8), depth))


def test_a_wall_seen_from_two_distances():
    near, far = wall(2.0), wall(3.0, back=1.0)
    assert len(near.solid) == 22 * 30, "pixels at the border have no surroundings"
    there = meet(near, far)
    np.testing.assert_allclose(there.ratio, 1)
    # Of pixel (u, v) the wall is 2 (u - 15.5) / 20 m aside, and two thirds of that many pixels in the far view.
    row = list(there.pixel).index(5 * 32 + 4)
    np.testing.assert_allclose(there.uv[row], [15.5 - 11.5 * 2 / 3, 11.5 - 6.5 * 2 / 3])
    found = score([there, meet(far, near)])
    assert found.contrary == 0 and found.share == 1


@pytest.mark.parametrize(("distance", "share"), [(2.04, 1.0), (2.2, 0.0), (1.8, 0.0)])
def test_walls_that_are_not_one(distance, share):
    one, two = wall(2.0), wall(distance)
    assert score([meet(one, two), meet(two, one)]).share == share


def test_a_factor_brings_units_together():
    one, two = wall(2.0), wall(10.0)
    np.testing.assert_allclose(meet(one, two, scale_two=0.2).ratio, 1)
    np.testing.assert_allclose(meet(two, one, scale_one=0.2).ratio, 1)


def test_hidden_pixels_say_nothing():
    nothing = np.zeros((0,), dtype=np.int64)
    hidden = Meeting(nothing, np.zeros((0, 2)), np.full(50, 1.5), 100)
    assert np.isnan(score([hidden]).share)


def test_the_view_that_disagrees_is_named_and_not_its_neighbours():
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6) if j - i <= 2]
    assert outliers(6, {pair: 3 in pair for pair in pairs}) == [3]
    assert outliers(6, {pair: bool({2, 3} & set(pair)) for pair in pairs}) == [2, 3]
    assert outliers(6, dict.fromkeys(pairs, False)) == []
    assert outliers(2, {(0, 1): True}) == [], "of two nobody can tell which is wrong"


def turning(numbers: list[int], num: int = 16, colour_of: dict[int, int] | None = None) -> list[Sketch]:
    """Frames of a full turn in ``num`` steps, some with the colour image of another."""
    room = ExampleRoom(num_frames=num)
    frames = []
    for i in numbers:
        rgb = room.colour((colour_of or {}).get(i, i))
        frames.append(RawFrame(str(i), room.intrinsics, room.pose(i), rgb, room.trace(i)[0].astype(np.float32)))
    return [sketch(frame) for frame in frames]


def test_views_that_hardly_overlap_are_not_unusable():
    """A camera turned away between two frames of a sparse sequence: what it saw before it sees no more."""
    assert not compare(turning([0, 1, 7, 8, 9, 10, 11])).faults, "frame 1 agrees with 0, and that is all it can"
    (fault,) = compare(turning([0, 1, 2, 3, 4, 9])).faults
    assert (fault.frame, fault.topic, fault.severity) == ("9", "stranger", "suspect")


@pytest.mark.parametrize(("num", "severity"), [(32, "unusable"), (8, "suspect")])
def test_a_colour_image_that_few_can_judge(num, severity):
    swapped = {num // 4: 3 * num // 4}
    faults = [f for f in compare(turning(list(range(num)), num, swapped)).faults if f.kind == "colour"]
    assert [(f.frame, f.severity) for f in faults] == [(str(num // 4), severity)]


def test_the_inverse_of_a_pose_that_was_made_upright():
    angle, turn = 0.3, np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = [1, 2, 3]
    upright = np.eye(4)
    upright[:3, :3] = turn
    np.testing.assert_allclose(inverted(upright @ np.linalg.inv(pose), turn), upright @ pose, atol=1e-12)
