"""Conversions between colour models, against Python's own."""

import colorsys

import numpy as np
import pytest

from ponder3d.data.hsv import hsv_from_rgb, rgb_from_hsv


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_ways_are_those_of_colorsys(dtype):
    ends = [[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)]  # black, white, and the pure colours
    rgb = np.concatenate([np.random.default_rng(0).random((200, 3)), ends, [[0.5, 0.5, 0.5]]]).astype(dtype)
    hsv = hsv_from_rgb(rgb)
    np.testing.assert_allclose(hsv, [colorsys.rgb_to_hsv(*row) for row in rgb.tolist()], atol=1e-5)
    np.testing.assert_allclose(rgb_from_hsv(hsv), rgb, atol=1e-6)
    np.testing.assert_allclose(rgb_from_hsv(hsv), [colorsys.hsv_to_rgb(*row) for row in hsv.tolist()], atol=1e-6)


def test_no_colours_stay_none():
    assert hsv_from_rgb(np.zeros((0, 3))).shape == rgb_from_hsv(np.zeros((0, 3))).shape == (0, 3)
