"""A prepared dataset read as a raw one, whole and damaged."""

from pathlib import Path

import numpy as np
import pytest
from raw_rooms import RawRoomsConfig

from ponder3d.data.dataset import DataError
from ponder3d.data.doctor.examine import examine
from ponder3d.data.doctor.opening import open_data
from ponder3d.data.prepared.as_raw import PreparedAsRaw
from ponder3d.data.prepared.manifest import FILE_NAME, parse_manifest
from ponder3d.data.prepared.prepare import Preparation, Preparing
from ponder3d.data.prepared.record import Records
from ponder3d.data.prepared.scene_file import PrepareOptions
from ponder3d.data.prepared.storage import Storage
from ponder3d.data.raw.dataset import RawFrame


@pytest.fixture
def prepared(tmp_path) -> Path:
    Preparing(Preparation(RawRoomsConfig(root="rooms"), PrepareOptions(workers=1)), tmp_path / "rooms").run()
    return tmp_path / "rooms"


def test_scenes_are_what_was_prepared(prepared):
    found, raw = PreparedAsRaw(str(prepared)), RawRoomsConfig(root="rooms").build()
    assert [scene.name for scene in found.scenes] == [scene.name for scene in raw.scenes]
    assert found.known_ids == raw.known_ids and len(found.tables) == len(raw.tables) and not found.problems
    scene, source = found.scenes[0], raw.scenes[0]
    points, expected = scene.read_points(), source.read_points()
    np.testing.assert_array_equal(points.xyz, expected.xyz)
    np.testing.assert_array_equal(points.labels, expected.labels)
    (frame,), (other,) = scene.read_frames(scene.frames[2:3]), source.read_frames(scene.frames[2:3])
    assert isinstance(frame, RawFrame) and isinstance(other, RawFrame) and frame.name == other.name
    np.testing.assert_array_equal(frame.world_from_cam, other.world_from_cam)
    np.testing.assert_allclose(frame.depth, other.depth, atol=0.6 / raw.depth_units)
    with pytest.raises(DataError, match="no frame named 99"):
        list(scene.read_frames(["99"]))


def test_damage_is_found_by_checksums_and_named(prepared):
    assert not [f for f in examine(open_data(str(prepared))).findings if f.severity == "unusable"]
    records = Records(Storage(str(prepared)))
    manifest = parse_manifest((prepared / FILE_NAME).read_bytes(), FILE_NAME)
    one, two, three = manifest.scenes
    for entry, member in ((one, "f000002.depth.png"), (two, "xyz.npy")):
        place = records.index(entry).members[member]
        with (prepared / entry.file).open("r+b") as file:
            file.seek(entry.start + place.offset + place.size // 2)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))
    frame = records.index(one).frames[2]
    data = open_data(str(prepared))
    assert [(p.scene, p.frame, p.kind) for p in data.problems] == [(one.name, frame, "file"), (two.name, "", "file")]
    assert f"{two.name}.xyz.npy" in data.problems[1].what
    assert [scene.name for scene in data.scenes] == [one.name, three.name] and frame not in data.scenes[0].frames
    found = {(p.scene, p.frame) for p in examine(data).unusable}
    assert found == {(one.name, frame), (two.name, "")}


def test_no_manifest(tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        PreparedAsRaw(str(tmp_path))
