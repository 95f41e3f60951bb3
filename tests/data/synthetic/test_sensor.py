"""The depth camera's faults have the promised size, and fusion keeps what is near."""

import numpy as np
import pytest

from ponder3d.data.synthetic.fusion import fuse
from ponder3d.data.synthetic.sensor import SensorConfig, colour_image, depth_image
from ponder3d.data.synthetic.tracing import Lens
from ponder3d.data.synthetic.walk import pose

SIZE = (60, 80)
NO_HOLES = SensorConfig(holes=0.0)


def filmed(depth: np.ndarray, config: SensorConfig, facing: float = 1.0, dropout: float = 0.0) -> np.ndarray:
    full = np.float32(1) * np.ones(depth.shape, np.float32)
    return depth_image(
        depth.astype(np.float32),
        full * np.float32(facing),
        full * np.float32(dropout),
        config,
        np.random.default_rng(0),
    )


@pytest.mark.parametrize(("distance", "sigma"), [(1.0, 1.5), (2.0, 6.0), (4.0, 24.0)])
def test_noise_grows_with_the_square_of_depth(distance, sigma):
    millimetres = filmed(np.full(SIZE, distance), NO_HOLES).astype(float)
    # 4800 samples: the standard deviation is good to 3 % at three sigma; rounding to 1 mm adds 0.3 mm in quadrature.
    assert millimetres.std() == pytest.approx(np.hypot(sigma, 0.29), rel=0.05)
    assert millimetres.mean() == pytest.approx(distance * 1000, abs=3 * sigma / np.sqrt(4800) + 0.1)


def test_nothing_seen_and_out_of_range_is_no_depth():
    depth = np.full(SIZE, 2.0)
    depth[:, :20], depth[:, 20:40], depth[:, 60:] = np.inf, 0.3, 9.0
    seen = filmed(depth, SensorConfig(depth_noise=0.0)) > 0
    assert not seen[:, :40].any() and not seen[:, 60:].any() and seen[:, 42:58].mean() > 0.98
    assert (filmed(depth, NO_HOLES) > 0).mean(0).tolist() == [0.0] * 20 + [1.0] * 60


def test_holes_behind_edges_at_grazing_angles_and_on_glass():
    depth = np.full(SIZE, 2.0)
    depth[:, 40:] = 3.0
    lost = (filmed(depth, SensorConfig()) == 0).mean(0)
    assert lost[40] > 0.5 and np.delete(lost, 40).max() < 0.1
    flat = np.full(SIZE, 2.0)
    shares = [float((filmed(flat, SensorConfig(), facing=f) == 0).mean()) for f in (1.0, 0.3, 0.1, 0.01)]
    assert shares[1] < 0.01 and 0.3 < shares[2] < 0.6 and shares[3] > 0.8
    assert (filmed(flat, SensorConfig(), dropout=0.65) == 0).mean() == pytest.approx(0.65, abs=0.08)


def test_exposure_adapts_and_noise_is_small():
    ramp = np.broadcast_to(np.linspace(0.1, 1.0, SIZE[1]), (3, *SIZE)).astype(np.float32)
    plain = SensorConfig(exposure=0.0, white_balance=0.0, colour_noise=0.0)
    dim, bright = (colour_image(ramp * np.float32(k), plain, np.random.default_rng(0)) for k in (0.1, 10.0))
    # The 1e-3 that keeps a black image finite is 1 % of the dim one's white.
    assert np.abs(dim.astype(int) - bright).max() <= 3
    assert bright.min() < 90 and bright.max() > 180
    noisy = colour_image(ramp, SensorConfig(exposure=0.0, white_balance=0.0), np.random.default_rng(0))
    clean = colour_image(ramp, plain, np.random.default_rng(0))
    assert (noisy.astype(float) - clean).std() == pytest.approx(0.012 * 255, rel=0.1)


@pytest.mark.parametrize("field", ["depth_noise", "holes", "colour_noise", "exposure", "white_balance", "near", "far"])
def test_bad_values_are_named(field):
    with pytest.raises(ValueError, match=f"SensorConfig.{field}"):
        SensorConfig(**{field: -1.0})


def cameras() -> Lens:
    """Two cameras that look along +x at a wall at x = 2, from 2 m and from 4 m."""
    intrinsics = np.array([[60.0, 0, 39.5], [0, 60.0, 29.5], [0, 0, 1]])
    poses = np.stack([pose(np.array([x, 0.0, 0.0]), 0.0, 0.0, 0.0) for x in (0.0, -2.0)])
    return Lens(np.repeat(intrinsics[None], 2, 0), poses, SIZE)


def fused(depth: np.ndarray, spacing: float = 0.02, max_points: int = 10**6):
    lens = cameras()
    eyes = lens.world_from_cam[:, :3, 3]
    return fuse(depth.reshape(2, -1), lens.rays(), eyes, SIZE[1], spacing, max_points, np.random.default_rng(0))


def test_fusion_puts_points_where_they_were_seen_and_prefers_near_views():
    depth = np.stack([np.full(SIZE, 2000), np.full(SIZE, 4000)]).astype(np.uint16)
    cloud = fused(depth)
    assert cloud.xyz[:, 0] == pytest.approx(2.0, abs=1e-5)
    # At 2 m and f = 60 pixels are 33 mm apart, so that none shares a voxel; the far view adds what is outside.
    near = cloud.view == 0
    assert near.sum() == SIZE[0] * SIZE[1]
    inside = (np.abs(cloud.xyz[:, 1]) < 1.2) & (np.abs(cloud.xyz[:, 2]) < 0.9)
    assert near[inside].all() and (~near).sum() > 1000
    cells = np.unique(np.floor((cloud.xyz - cloud.xyz.min(0)) / 0.02).astype(int), axis=0)
    assert len(cells) == len(cloud.xyz)


def test_fusion_drops_ghosts_smooths_noise_and_limits_points():
    rng = np.random.default_rng(1)
    depth = np.zeros((2, *SIZE), np.uint16)
    depth[0] = np.rint(2000 + 6 * rng.standard_normal(SIZE))
    cloud = fused(depth)
    assert cloud.xyz[:, 0].std() == pytest.approx(0.006 / 3, rel=0.35)
    assert len(fused(depth, max_points=100).xyz) == 100
    empty = fused(np.zeros((2, *SIZE), np.uint16))
    assert empty.xyz.shape == (0, 3) and len(empty.view) == 0
    with pytest.raises(ValueError, match="spacing"):
        fused(depth, spacing=1e-7)
