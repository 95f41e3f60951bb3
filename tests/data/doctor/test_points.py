"""Clouds in other units, with strays and copies, or in another world than their views."""

import numpy as np
import pytest

from ponder3d.data.doctor.findings import Fault
from ponder3d.data.doctor.points import Near, overlap_faults, point_faults, spacing, view_overlap
from ponder3d.data.doctor.sketch import sketch
from ponder3d.data.raw.dataset import RawFrame, RawPoints
from ponder3d.data.raw.example_room import ExampleRoom
from ponder3d.data.raw.scannet_example import gridded_mesh

ROOM = ExampleRoom()
XYZ = ROOM.points()[0].astype(np.float32)


def topics(points: RawPoints, classes: frozenset[int] = frozenset()) -> list[str]:
    return [fault.topic for fault in point_faults(points, classes)]


def normals() -> np.ndarray:
    """Of the room's walls, towards its middle."""
    wall = ROOM.points()[1]
    out = np.concatenate([np.eye(3), -np.eye(3), [[0, 0, 1]]])[wall]
    return out.astype(np.float32)


def test_a_sound_cloud():
    rgb = np.tile(np.arange(200, dtype=np.uint8)[:, None], (len(XYZ) // 200 + 1, 3))[: len(XYZ)]
    points = RawPoints(XYZ, rgb, normals(), np.ones(len(XYZ), dtype=np.int32))
    assert not topics(points, frozenset({1}))


@pytest.mark.parametrize(("factor", "severity"), [(1000, "unusable"), (125, "suspect"), (0.03, "suspect")])
def test_units(factor, severity):
    """4 km is no scene; a tile of land has 500 m, and a thing on a table 12 cm."""
    (fault,) = point_faults(RawPoints(XYZ * np.float32(factor)), frozenset())
    assert (fault.topic, fault.severity) == ("extent", severity)
    assert float(fault.what.split()[2]) == pytest.approx(4 * factor, rel=0.01)


def test_seams_of_a_mesh_are_no_copies():
    vertices = gridded_mesh(ROOM)[0]
    assert len(np.unique(vertices, axis=0)) < 0.94 * len(vertices) and not topics(RawPoints(vertices))


def test_strays_copies_and_colours():
    assert topics(RawPoints(np.concatenate([XYZ, XYZ[:1] + 100]))) == ["stray"]
    assert topics(RawPoints(np.concatenate([XYZ, XYZ]))) == ["twice"]
    (fault,) = point_faults(RawPoints(np.concatenate([XYZ, XYZ])), frozenset())
    assert fault.what == "50% of the points are there more than once"
    assert topics(RawPoints(XYZ, rgb=np.ones((len(XYZ), 3), dtype=np.uint8))) == ["points"]
    assert topics(RawPoints(XYZ, rgb=np.full((len(XYZ), 3), 90, dtype=np.uint8))) == ["points"]
    assert topics(RawPoints(XYZ, labels=np.zeros(len(XYZ), dtype=np.int32)), frozenset({1, 2})) == ["empty points"]


def test_normals_and_up():
    assert topics(RawPoints(XYZ, normal=normals() * np.float32(0.5))) == ["normals"]
    assert topics(RawPoints(XYZ, normal=-normals())) == ["up"]
    low = XYZ[:, 2] == 0
    half = np.tile(np.array([[0, 1, 0]], dtype=np.float32), (len(XYZ), 1))
    assert low.any() and topics(RawPoints(XYZ, normal=half)) == ["up"]


def test_near():
    near = Near(np.array([[0.0, 0, 0], [1, 0, 0]]), 0.1)
    assert near(np.array([[0.05, 0, 0], [0.5, 0, 0], [1.09, 0.05, 0], [9, 9, 9], [-9, 0, 0]])).tolist() == [
        *(True, False, True, False, False)
    ]
    assert 0.1 <= spacing(XYZ) <= 0.3, "the points are 0.1 m apart"


def test_views_of_another_world():
    views = [
        sketch(RawFrame(str(i), ROOM.intrinsics, ROOM.pose(i), ROOM.colour(i), ROOM.trace(i)[0].astype(np.float32)))
        for i in range(8)
    ]
    shares = view_overlap(views, XYZ)
    assert shares.min() > 0.98 and not list(overlap_faults(views, shares))
    (fault,) = overlap_faults(views, view_overlap(views, XYZ + np.float32(20)))
    assert (fault.frame, fault.topic, fault.severity) == ("", "world", "unusable")
    moved = ROOM.pose(3)
    moved[0, 3] += 20
    views[3] = sketch(RawFrame("3", ROOM.intrinsics, moved, ROOM.colour(3), ROOM.trace(3)[0].astype(np.float32)))
    found = list(overlap_faults(views, view_overlap(views, XYZ)))
    what = "0% of its depth lies near the cloud, 100% of others' does"
    assert found == [Fault("3", "overlap", "stranger", what, "unusable")]
