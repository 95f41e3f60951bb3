"""Single frames, and those unlike the others of their scene."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ponder3d.data.doctor.findings import Fault, gathered
from ponder3d.data.doctor.frames import empty_labels, frame_faults, pose_faults, series_faults, strange_labels
from ponder3d.data.doctor.sketch import Sketch, sketch
from ponder3d.data.raw.dataset import RawFrame
from ponder3d.data.raw.example_room import ExampleRoom

ROOM = ExampleRoom(num_frames=12)
SLOPE = np.repeat(1.5 + np.arange(24, dtype=np.float32)[:, None] / 50, 32, axis=1)


def frames() -> list[RawFrame]:
    return [
        RawFrame(str(i), ROOM.intrinsics, ROOM.pose(i), ROOM.colour(i), ROOM.trace(i)[0].astype(np.float32))
        for i in range(12)
    ]


def views(**changes) -> list[Sketch]:
    """Of the room, with changes to frame 4."""
    return [sketch(replace(frame, **changes) if frame.name == "4" else frame) for frame in frames()]


def told(found) -> list[tuple[str, str, str]]:
    return [(fault.frame, fault.kind, fault.topic) for fault in found]


def test_a_room_that_is_as_it_should_be():
    assert not list(frame_faults(views())) and not list(pose_faults(views()))


@pytest.mark.parametrize(
    ("changes", "kind", "topic"),
    [
        ({"rgb": np.zeros((24, 32, 3), dtype=np.uint8)}, "colour", "blank"),
        ({"rgb": np.full((24, 32, 3), 255, dtype=np.uint8)}, "colour", "blank"),
        ({"rgb": np.repeat(ROOM.colour(4)[..., :1], 3, axis=2)}, "colour", "grey"),
        ({"depth": np.full((24, 32), 1.5, dtype=np.float32)}, "depth", "flat"),
        ({"depth": np.minimum(ROOM.trace(4)[0], 1.2).astype(np.float32)}, "depth", "clipped"),
        ({"depth": np.where(np.arange(32) < 2, SLOPE, np.float32(0))}, "depth", "sparse"),
        ({"depth": np.random.default_rng(0).uniform(0.5, 9, (24, 32)).astype(np.float32)}, "depth", "noise"),
        ({"intrinsics": ROOM.intrinsics + np.array([[0, 0, 15], [0, 0, 0], [0, 0, 0]])}, "intrinsics", "centre"),
        ({"intrinsics": ROOM.intrinsics * np.array([[1.2], [1.2], [1]])}, "intrinsics", "lens"),
    ],
)
def test_one_frame_is_named(changes, kind, topic):
    found = told(frame_faults(views(**changes)))
    assert ("4", kind, topic) in found and {frame for frame, _, _ in found} == {"4"}


def test_units_of_depth():
    for factor, severity in ((100, "suspect"), (10_000, "unusable")):  # from the air, and from nowhere
        far = [sketch(replace(f, depth=f.depth * np.float32(factor))) for f in frames() if f.depth is not None]
        (fault,) = frame_faults(far)
        assert (fault.frame, fault.kind, fault.topic, fault.severity) == ("", "depth", "units", severity)


def test_a_camera_that_jumps():
    pose = ROOM.pose(4)
    pose[0, 3] += 3
    (fault,) = pose_faults(views(world_from_cam=pose))
    assert (fault.frame, fault.topic) == ("4", "jump") and "jumps 2.97 m away" in fault.what


@pytest.mark.parametrize(("length", "severity"), [(5e3, "suspect"), (5e6, "unusable")])
def test_a_long_way(length, severity):
    """A drive of 5 km, in metres and in millimetres."""
    drive = [replace(frame, world_from_cam=np.eye(4)) for frame in frames()]
    for number, frame in enumerate(drive):
        frame.world_from_cam[0, 3] = number / 11 * length
    (fault,) = pose_faults([sketch(frame) for frame in drive])
    assert (fault.topic, fault.severity) == ("units", severity)


def test_a_drawing_is_one_after_jpeg():
    file = io.BytesIO()
    Image.fromarray(ROOM.colour(4, (48, 64))).save(file, "jpeg", quality=95)
    noise = np.random.default_rng(0).integers(-9, 10, (48, 64, 3))
    drawn = np.array(Image.open(file))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 16
    for rgb, painted in ((drawn, True), ((drawn + noise).clip(0, 255).astype(np.uint8), False)):
        assert sketch(RawFrame("0", ROOM.intrinsics, ROOM.pose(4), rgb)).is_painted == painted


def test_empty_labels():
    full = np.full((24, 32), 7, dtype=np.int32)
    some = [sketch(replace(frame, labels=full * (frame.name != "4"))) for frame in frames()]
    assert told(empty_labels(some, frozenset({7}))) == [("4", "label", "empty")]
    assert told(empty_labels(some, frozenset({8}))) == [("", "label", "empty")]
    assert not told(empty_labels(some, frozenset()))


def test_ids_without_a_class_in_one_frame():
    some = np.where(np.arange(32) < 8, 250, 7) * np.ones((24, 1), dtype=np.int32)
    labelled = [sketch(replace(frame, labels=some if frame.name == "4" else some * 0 + 7)) for frame in frames()]
    (fault,) = strange_labels(labelled, frozenset({7}))
    assert (fault.frame, fault.kind) == ("4", "label") and fault.what.startswith("label 250 on 25% of its pixels")
    everywhere = [sketch(replace(frame, labels=some)) for frame in frames()]
    assert not list(strange_labels(everywhere, frozenset({7}))), "it means no label, as 0 does elsewhere"


def test_numbers_that_are_missing():
    (fault,) = series_faults([f"frame-{10 * i:06d}" for i in range(20) if i not in (4, 5, 9)])
    assert fault.what.endswith("in steps of 10, and some are missing: between 30 and 60, between 80 and 100")
    assert not list(series_faults(["1", "5", "7", "20", "21"])) and not list(series_faults(["a1", "b2", "a3", "b4"]))


def test_what_most_frames_share_is_said_once():
    faults = [Fault(str(i), "depth", "flat", f"frame {i} is flat", "unusable") for i in range(9)]
    (finding,) = gathered("hall", faults, 10)
    assert finding.problem.frame == "" and finding.problem.what == (
        "9 of 10 frames that were looked at, such as 0: frame 0 is flat"
    )
    assert len(gathered("hall", faults[:7], 10)) == 7
