import numpy as np
import pytest

from ponder3d.data.dataset import DataError
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
    places = offset + draw.uniform(-0.6, 0.6, (3000, 3))
    labels, instances, seen = Surface(cloud_of(points), "room").look_up(places)
    gap = np.linalg.norm(places[:, None] - points, axis=2)
    np.testing.assert_array_equal(seen, gap.min(1) <= NEAR)
    assert 0.2 < seen.mean() < 0.8
    np.testing.assert_allclose(gap[np.flatnonzero(seen), labels[seen]], gap.min(1)[seen], atol=1e-5)
    np.testing.assert_array_equal(instances[seen], labels[seen] + 1000)
    assert (labels[~seen] == 0).all() and (instances[~seen] == -1).all()


def test_a_dense_cloud_is_thinned():
    points = np.random.default_rng(0).uniform(0, 0.3, (5000, 3))
    surface = Surface(cloud_of(points), "room")
    labels, _, seen = surface.look_up(points)
    assert seen.all() and len(np.unique(labels)) < 2500
    assert np.linalg.norm(points[labels] - points, axis=1).max() < 0.025 * 3**0.5


def test_places_far_away_see_nothing():
    surface = Surface(cloud_of(np.zeros((1, 3))), "room")
    assert surface.look_up(np.array([[0, 0, 0.09], [0, 0, 0.11], [1e6, -1e6, 1e6], [1e30, 0, 0]]))[2].tolist() == [
        *(True, False, False, False)
    ]
    assert len(surface.look_up(np.zeros((0, 3)))[0]) == 0


def test_a_stray_point():
    with pytest.raises(DataError, match="room: points span 3000 m"):
        Surface(cloud_of(np.array([[0, 0, 0], [3000, 0, 0]])), "room")
