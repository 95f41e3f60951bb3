import numpy as np
import pytest
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.raw import surface
from ponder3d.data.raw.dataset import RawPoints
from ponder3d.data.raw.surface import NEAR, Surface


def cloud_of(xyz: np.ndarray) -> RawPoints:
    number = np.arange(len(xyz), dtype=np.int32)
    return RawPoints(xyz=xyz.astype(np.float32), labels=number, instances=number + 1000)


def test_nearest_points_are_those_of_a_comparison_with_all():
    draw = np.random.default_rng(0)
    offset = np.array([30.0, -20.0, 5.0])
    steps = np.stack(np.meshgrid(*[np.arange(-6, 6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    points = offset + steps * 0.05 + 0.012  # wider than the voxels that thin them: each is kept
    places = offset + draw.uniform(-0.6, 0.6, (800, 3))
    labels, instances, seen = Surface(cloud_of(points), "room").look_up(places)
    gap = np.linalg.norm(places[:, None] - points, axis=2)
    np.testing.assert_array_equal(seen, gap.min(1) <= NEAR)
    assert 0.2 < seen.mean() < 0.8
    np.testing.assert_allclose(gap[np.flatnonzero(seen), labels[seen]], gap.min(1)[seen], atol=1e-5)
    np.testing.assert_array_equal(instances[seen], labels[seen] + 1000)
    assert (labels[~seen] == 0).all() and (instances[~seen] == -1).all()


def test_a_dense_cloud_is_thinned():
    points = np.random.default_rng(0).uniform(0, 0.3, (5000, 3))
    room = Surface(cloud_of(points), "room")
    labels, _, seen = room.look_up(points)
    assert seen.all() and len(np.unique(labels)) < 2500
    assert np.linalg.norm(points[labels] - points, axis=1).max() < 0.025 * 3**0.5


def test_places_far_away_see_nothing():
    room = Surface(cloud_of(np.zeros((1, 3))), "room")
    assert room.look_up(np.array([[0, 0, 0.09], [0, 0, 0.11], [1e6, -1e6, 1e6], [1e30, 0, 0]]))[2].tolist() == [
        *(True, False, False, False)
    ]
    assert len(room.look_up(np.zeros((0, 3)))[0]) == 0


def test_a_stray_point():
    with pytest.raises(DataError, match="room: points span 3000 m"):
        Surface(cloud_of(np.array([[0, 0, 0], [3000, 0, 0]])), "room")


def test_blocks_of_points_make_the_same_surface(monkeypatch):
    draw = np.random.default_rng(1)
    cloud = cloud_of(draw.uniform(0, 0.4, (5000, 3)))
    places = draw.uniform(-0.1, 0.5, (500, 3))
    whole = Surface(cloud, "room").look_up(places)
    monkeypatch.setattr(surface, "_BLOCK", 300)
    monkeypatch.setattr(surface, "_PAIRS", 50)
    for one, two in zip(whole, Surface(cloud, "room").look_up(places), strict=True):
        np.testing.assert_array_equal(one, two)


def arrays(value) -> list:
    if isinstance(value, np.ndarray | torch.Tensor):
        return [value]
    parts = value if isinstance(value, list) else vars(value).values() if hasattr(value, "__dict__") else []
    return [array for part in parts for array in arrays(part)]


def test_memory_follows_from_the_points():
    """16 m2 of a floor; lists of the 27 cells around each cell took 500 bytes a point."""
    points = np.stack(np.meshgrid(np.arange(160), np.arange(160), [0]), -1).reshape(-1, 3) * 0.025 + 0.01
    held = Surface(cloud_of(points), "room")
    assert 25 < sum(array.nbytes for array in arrays(held)) / len(points) < 60
