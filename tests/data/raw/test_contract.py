"""What every dataset in its publisher's layout promises, found by walking the package.

A module writes a tiny dataset of example rooms in the official layout, and reads it back here.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ponder3d.config import from_json, to_json
from ponder3d.data.dataset import DataError
from ponder3d.data.raw.checks import frame_problem, points_problem
from ponder3d.data.raw.dataset import SCENE_NAME, RawDataset, RawDatasetConfig, RawFrame

FAMILY = RawDatasetConfig


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> dict[type, Path]:
    return {}


@pytest.fixture
def root(member, examples, tmp_path_factory) -> Path:
    """The example of a dataset, written once."""
    if member not in examples:
        examples[member] = tmp_path_factory.mktemp(member.__name__) / "new" / "data"  # it makes the directory
        member.write_example(examples[member])
    return examples[member]


@pytest.fixture
def dataset(member, root) -> RawDataset:
    return replace(member(), root=str(root), every=1).build()


def test_scenes_are_listed_in_order(dataset):
    names = [scene.name for scene in dataset.scenes]
    assert len(names) >= 2 and names == sorted(set(names)) and all(SCENE_NAME.match(name) for name in names)
    assert {scene.split for scene in dataset.scenes} <= {"train", "val", "test"}
    assert "train" in {scene.split for scene in dataset.scenes} and not dataset.problems
    assert all(scene.source for scene in dataset.scenes)


def test_clouds_are_usable(dataset):
    clouds = [points for scene in dataset.scenes if (points := scene.read_points()) is not None]
    assert clouds or all(scene.frames for scene in dataset.scenes)
    for points in clouds:
        assert points_problem(points, dataset.known_ids) is None
        assert points.xyz.dtype == np.float32
        assert points.rgb is None or points.rgb.dtype == np.uint8
        assert points.labels is None or points.labels.dtype == np.int32
        assert points.instances is None or points.instances.dtype == np.int32
        if points.normal is not None:
            np.testing.assert_allclose(np.linalg.norm(points.normal, axis=1), 1, atol=1e-3)


def test_frames_see_the_cloud(dataset):
    """A pixel's depth, put back into the world, lies where the room is."""
    for scene in dataset.scenes:
        frames = list(scene.read_frames(scene.frames))
        assert [frame.name for frame in frames if isinstance(frame, RawFrame)] == list(scene.frames)
        cloud = scene.read_points()
        for frame in frames:
            assert frame_problem(frame, dataset.known_ids) is None
            if frame.depth is None or cloud is None:
                continue
            seen = unprojected(frame)
            lo, hi = cloud.xyz.min(0), cloud.xyz.max(0)
            assert (np.maximum(lo - seen, seen - hi).max(1) < 0.1).mean() > 0.95
            nearest = np.linalg.norm(seen[::7, None] - cloud.xyz[None], axis=2).min(1)
            assert np.median(nearest) < 0.12, "the spacing of the example's points is 0.1 m"


def unprojected(frame: RawFrame) -> np.ndarray:
    assert frame.depth is not None
    v, u = np.nonzero(frame.depth)
    rays = np.stack([u, v, np.ones_like(u)], axis=1) @ np.linalg.inv(frame.intrinsics).T
    camera = rays * frame.depth[v, u, None]
    return camera @ frame.world_from_cam[:3, :3].T + frame.world_from_cam[:3, 3]


def test_frames_can_be_asked_for_one_by_one(dataset):
    scene = next((scene for scene in dataset.scenes if len(scene.frames) > 2), None)
    if scene is None:
        pytest.skip("no frames")
    (alone,) = scene.read_frames(scene.frames[2:3])
    together = list(scene.read_frames(scene.frames))[2]
    assert isinstance(alone, RawFrame) and isinstance(together, RawFrame)
    assert np.array_equal(alone.rgb, together.rgb) and np.array_equal(alone.world_from_cam, together.world_from_cam)


def test_labels_have_names(dataset):
    for table in dataset.tables:
        rows = dict(table.rows)
        assert set(rows.values()) == set(range(len(table.labels))), "every class has a raw id"
        assert len(rows) == len(table.rows) and list(table.rows) == sorted(table.rows)
        assert dataset.known_ids is None or set(rows) <= dataset.known_ids
        assert len(table.benchmark_ids) in (0, len(table.labels))
    labelled = [p for s in dataset.scenes if (p := s.read_points()) is not None and p.labels is not None]
    assert not labelled or dataset.tables
    for table in dataset.tables:
        used = {dict(table.rows).get(int(i), -1) for points in labelled for i in np.unique(points.labels)}
        assert not labelled or len(used - {-1}) >= 2


def test_every_nth_frame(member, root, dataset):
    thinned = replace(member(), root=str(root), every=3).build()
    for all_of, some in zip(dataset.scenes, thinned.scenes, strict=True):
        assert some.frames == all_of.frames[::3]


def test_its_own_example_is_recognised(member, root, tmp_path):
    assert member.recognises(root) and not member.recognises(tmp_path)


def test_a_directory_of_something_else(member, tmp_path):
    (tmp_path / "readme.txt").write_text("hello")
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=str(root)):
            replace(member(), root=str(root)).build()


def test_configurations_survive_json(member):
    assert from_json(RawDatasetConfig, to_json(member())) == member()
