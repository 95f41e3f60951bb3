"""The classes of drives: counts, order, and that every category is in the right one."""

import json

from ponder3d.data.driving.classes import (
    DETECTION_LABELS,
    NUSCENES_BOXES,
    NUSCENES_POINTS,
    PANDASET_BOXES,
    PANDASET_POINTS,
    STREET_LABELS,
)


def test_the_benchmarks_order():
    assert (len(STREET_LABELS), len(DETECTION_LABELS)) == (16, 10)
    assert [STREET_LABELS.names[i] for i in (0, 3, 10, 15)] == ["barrier", "car", "drivable surface", "vegetation"]
    assert DETECTION_LABELS.names[0] == "car"
    assert set(DETECTION_LABELS.names) <= set(STREET_LABELS.names)
    assert len(set(STREET_LABELS.palette)) == 16


def test_every_class_has_a_category():
    assert (len(NUSCENES_POINTS), len(NUSCENES_BOXES), len(PANDASET_POINTS)) == (32, 23, 42)
    for found, most in ((NUSCENES_POINTS, 16), (NUSCENES_BOXES, 10)):
        assert set(found.values()) == set(range(-1, most))
    # PandaSet tells no other flat ground.
    assert set(range(16)) - set(PANDASET_POINTS.values()) == {STREET_LABELS.names.index("other flat")}


def test_the_official_merges():
    left_out = [name for name, row in NUSCENES_POINTS.items() if row < 0]
    assert len(left_out) == 12  # noise, animal, ego, ambulance, police, wheelchair, stroller, ... of 32
    assert {"noise", "animal", "vehicle.ego", "static.other", "static_object.bicycle_rack"} <= set(left_out)
    pedestrian = [name for name, row in NUSCENES_POINTS.items() if row == STREET_LABELS.names.index("pedestrian")]
    assert len(pedestrian) == 4
    assert NUSCENES_POINTS["vehicle.bus.bendy"] == NUSCENES_POINTS["vehicle.bus.rigid"] == 2


def test_both_maps_name_the_same_class():
    for points, boxes in ((NUSCENES_POINTS, NUSCENES_BOXES), (PANDASET_POINTS, PANDASET_BOXES)):
        for name, row in boxes.items():
            if row >= 0:
                assert STREET_LABELS.names[points[name]] == DETECTION_LABELS.names[row]


def test_names_are_those_of_pandaset(real_data):
    path = real_data("pandaset") / "002" / "annotations" / "semseg" / "classes.json"
    assert set(json.loads(path.read_text()).values()) == set(PANDASET_POINTS)
