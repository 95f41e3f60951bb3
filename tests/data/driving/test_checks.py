"""What drives have to satisfy, on matrices, times and boxes made by hand."""

import math

import numpy as np
import pytest
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.checks import check_pinhole, check_times, checked_shot, rigid, rotation_of, usable_boxes
from ponder3d.data.driving.drive import Shot
from ponder3d.types import Boxes


def test_a_pose_becomes_orthonormal_to_the_last_digit():
    rounded = np.array([[0.866025, -0.5, 0, 4], [0.5, 0.866025, 0, 5e6], [0, 0, 1, -1]])
    pose = rigid(rounded, "file", "pose")
    turn = pose[:3, :3]
    torch.testing.assert_close(turn @ turn.T, torch.eye(3, dtype=torch.float64), atol=1e-15, rtol=0)
    assert pose[:, 3].tolist() == [4, 5e6, -1, 1] and abs(float(turn[1, 0]) - 0.5) < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({(0, 0): 1.002}, "file: pose: no rotation: R R.T is 0.004 off the identity, 0.001 is allowed"),
        ({(0, 0): -1.0}, "file: pose: it mirrors .determinant -1."),
        ({(1, 3): math.nan}, "file: pose: a number is not finite"),
        ({(3, 0): 4.0}, "file: pose: its last row is .4.0, 0.0, 0.0, 1.0., not 0 0 0 1; is it transposed"),
        ({(0, 1): 1e200}, "file: pose: no rotation"),
    ],
)
def test_what_is_no_pose(change, message):
    matrix = np.eye(4)
    for place, value in change.items():
        matrix[place] = value
    with pytest.raises(DataError, match=message):
        rigid(matrix, "file", "pose")
    with pytest.raises(DataError, match="file: pose: of shape .3, 3.; expected a 4x4 matrix"):
        rigid(np.eye(3), "file", "pose")


def test_quaternions():
    half = math.sqrt(0.5)
    # A quarter turn about z takes x to y.
    np.testing.assert_allclose(rotation_of([half, 0.0, 0.0, half], "f", "q") @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    for wrong in ([1.0, 0.0, 0.0], [0.9, 0.0, 0.0, 0.0], [math.nan, 0.0, 0.0, 1.0], [0.0] * 4):
        with pytest.raises(DataError, match="f: q: .* is no unit quaternion w x y z"):
            rotation_of(wrong, "f", "q")


@pytest.mark.parametrize(
    "matrix",
    [
        [[-1, 0, 5], [0, 1, 5], [0, 0, 1]],
        [[1, 0, 5], [0, 1, 5], [0, 0, 2]],
        [[1, 0, 500], [0, 1, 5], [0, 0, 1]],
        [[1, 0, math.nan], [0, 1, 5], [0, 0, 1]],
        [[1, 0], [0, 1]],
    ],
)
def test_what_is_no_camera(matrix):
    with pytest.raises(DataError, match="^file: intrinsics: "):
        check_pinhole(np.array(matrix, dtype=np.float64), (10, 10), "file")


@pytest.mark.parametrize(("times", "message"), [([0.0, 1.0, 1.0], "number 2"), ([0.0, math.nan], "number 1 is not")])
def test_times_out_of_order(times, message):
    check_times([0.0, 0.1, 5.0], "file")
    with pytest.raises(DataError, match=f"file: timestamps: .*{message}"):
        check_times(times, "file")


def test_an_image_has_pixels_and_a_pose():
    matrix = torch.tensor([[2.0, 0, 1], [0, 2, 1], [0, 0, 1]])
    pose = torch.eye(4, dtype=torch.float64)
    with pytest.raises(DataError, match="sweep: a: an image of 0x3"):
        checked_shot(Shot(torch.zeros(3, 0, 3, dtype=torch.uint8), matrix, pose, "a"), "sweep")
    with pytest.raises(DataError, match="sweep: a: world_from_cam: it mirrors"):
        checked_shot(
            Shot(torch.zeros(3, 3, 3, dtype=torch.uint8), matrix, torch.diag(torch.tensor([-1.0, 1, 1, 1])), "a"),
            "sweep",
        )


def test_boxes_without_size_or_place_are_left_out_and_told():
    nan, inf = math.nan, math.inf
    boxes = Boxes(
        centre=torch.tensor([[1.0, 2, 3], [1, nan, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]]),
        size=torch.tensor([[1.0, 1, 1], [1, 1, 1], [1, 0, 1], [2, 2, 2], [1, 1, 1]]),
        yaw=torch.zeros(5),
        label=torch.tensor([0, 1, 2, 3, 4]),
        velocity=torch.tensor([[1.0, 2], [0, 0], [0, 0], [nan, nan], [inf, 0]]),
    )
    kept, notes = usable_boxes(boxes, "file", 5)
    assert kept.label.tolist() == [0, 3] and bool(kept.velocity[1].isnan().all())
    assert notes == (
        "file: boxes: number 1 is left out: a number is not finite",
        "file: boxes: number 2 is left out: size [1.0, 0.0, 1.0]",
        "file: boxes: number 4 is left out: a number is not finite",
    )
    with pytest.raises(DataError, match="file: boxes: classes from 0 to 4; there are 4"):
        usable_boxes(boxes, "file", 4)
