"""The C twins of trilinear sampling against PyTorch in float64."""

import numpy as np
import pytest
import torch

from ponder3d.geometry import compiled_trilinear as twin
from ponder3d.geometry.kernels import kernels
from ponder3d.geometry.trilinear import Corners, corners, factors, read, read_along, sample, scatter, twin_of
from ponder3d.types import Grid, Volume

pytestmark = pytest.mark.skipif(not twin.LIBRARY.available, reason="no C compiler")
SHAPES = [(5, 4, 3), (1, 1, 1), (3, 1, 2), (2, 9, 2)]
CHANNELS = [1, 7, 8, 33, 64]


def places(shape, num: int, scenes: int = 2) -> tuple[Grid, torch.Tensor, torch.Tensor]:
    """Points in and around boxes; some on a border, some far outside."""
    lo = torch.randn(scenes, 3)
    grid = Grid(torch.stack([lo, lo + torch.rand(scenes, 3) * 3 + 1], dim=1), shape)
    scene = torch.arange(num) % scenes
    share = torch.rand(num, 3) * 1.6 - 0.3
    share[: num // 8] = share[: num // 8].round()
    return grid, grid.box[scene, 0] + share * (grid.box[scene, 1] - grid.box[scene, 0]), scene


def as_float64(at: Corners) -> Corners:
    return Corners(at.index, at.weight.double(), at.slope.double())


def found_corners(shape, num: int) -> tuple[Corners, int]:
    grid, xyz, scene = places(shape, num)
    return corners(grid, xyz, scene), 2 * shape[0] * shape[1] * shape[2]


@pytest.mark.parametrize("num", [0, 1, 513, 2000])
@pytest.mark.parametrize("shape", SHAPES)
def test_corners(shape, num):
    grid, xyz, scene = places(shape, num)
    assert twin_of(xyz) is twin
    found = corners(grid, xyz, scene)
    with kernels("torch"):
        expected = corners(grid, xyz, scene)
    assert torch.equal(found.index, expected.index)
    torch.testing.assert_close(found.weight, expected.weight)
    torch.testing.assert_close(found.slope, expected.slope)


def test_a_point_that_is_not_a_number_reads_nothing_beyond_the_volume():
    grid, xyz, scene = places((3, 4, 5), 3)
    xyz[1, 2] = torch.nan
    xyz[2, 0] = torch.inf
    at = corners(grid, xyz, scene)
    assert 0 <= int(at.index.min()) and int(at.index.max()) < 120
    assert bool(at.weight[1].isnan().any()) and bool(at.weight[[0, 2]].isfinite().all())


@pytest.mark.parametrize("scene", [-1, 2])
def test_a_scene_that_is_not_there(scene):
    grid, xyz, scenes = places((2, 2, 2), 700)
    scenes[600] = scene
    with pytest.raises(IndexError, match="scene"):
        corners(grid, xyz, scenes)


@pytest.mark.parametrize("channels", CHANNELS)
def test_read_and_read_along(channels):
    at, num_rows = found_corners((5, 4, 3), 700)
    rows, g = torch.randn(num_rows, channels), torch.randn(700, channels)
    exact = as_float64(at)
    expected = read(rows.double(), exact.index, exact.weight)
    torch.testing.assert_close(read(rows, at.index, at.weight, twin).double(), expected, atol=1e-5, rtol=1e-5)
    expected = read_along(rows.double(), exact.index, exact.slope, g.double())
    found = read_along(rows, at.index, at.slope, g, twin)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_views_are_read_and_written_as_they_lie():
    at, num_rows = found_corners((4, 3, 3), 21)
    rows, pairs, out = torch.randn(num_rows, 12), torch.randn(21, 8, 2), torch.full((30, 9), 7.0)
    read(rows[:, 2:7], at.index, pairs[..., 1], twin, out=out[4:25, 1:6])
    expected = read(rows[:, 2:7].contiguous(), at.index, pairs[..., 1].contiguous())
    torch.testing.assert_close(out[4:25, 1:6], expected)
    out[4:25, 1:6] = 7
    assert bool((out == 7).all())
    turned = torch.randn(12, num_rows).T
    torch.testing.assert_close(read(turned, at.index, at.weight, twin), read(turned, at.index, at.weight))
    across = torch.empty(12, 21).T
    read(turned, at.index, at.weight, twin, out=across)
    torch.testing.assert_close(across, read(turned, at.index, at.weight))
    g = torch.randn(21, 5)
    along = read_along(rows[:, 2:7], at.index, at.slope, g, twin)
    torch.testing.assert_close(along, read_along(rows[:, 2:7], at.index, at.slope, g), atol=1e-5, rtol=1e-5)


def test_factors():
    at, _ = found_corners((5, 4, 3), 40)
    direction = torch.randn(40, 3)
    torch.testing.assert_close(factors(at.weight, at.slope, direction, twin), factors(at.weight, at.slope, direction))


@pytest.mark.parametrize("rest", [0, 3, 16])
@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("num", [0, 1, 900])
def test_scatter(num, channels, terms, rest):
    at, num_rows = found_corners((5, 4, 3), num)
    weight, values, others = torch.randn(num, 8, terms), torch.randn(terms, num, channels), torch.randn(num, rest + 2)
    others = others[:, 1 : rest + 1]
    found = scatter(at.index, weight, values, num_rows, others, twin=twin)
    expected = scatter(at.index, weight.double(), values.double(), num_rows, others.double())
    assert found.shape == (num_rows, channels + rest)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_sums_do_not_depend_on_the_number_of_threads():
    at, num_rows = found_corners((9, 8, 7), 3000)
    weight, values = torch.randn(3000, 8, 2), torch.randn(2, 3000, 24)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8, 1):
            torch.set_num_threads(threads)
            results.append(scatter(at.index, weight, values, num_rows, twin=twin))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_samples_of_another_type_have_the_same_gradient(dtype):
    grid, xyz, scene = places((5, 4, 3), 200)
    feats, gradients = torch.randn(2, 5, 4, 3, 6).requires_grad_(), []
    for which in ("compiled", "torch"):
        with kernels(which):
            out = sample(Volume(grid, feats), corners(grid, xyz, scene), dtype)
        assert out.dtype == dtype
        weight = torch.linspace(-1, 1, out.numel()).view_as(out)
        gradients.append(torch.autograd.grad((out.float() * weight).sum(), feats)[0])
    torch.testing.assert_close(*gradients, atol=0.1 if dtype == torch.bfloat16 else 1e-4, rtol=1e-2)


def test_narrow_integers_and_those_of_numpy():
    grid, xyz, scene = places((5, 4, 3), 50)
    expected = corners(grid, xyz, scene)
    object.__setattr__(grid, "shape", tuple(np.array(grid.shape)))  # which these tests' type checks would not let in
    narrow = corners(grid, xyz, scene.to(torch.int32))
    assert torch.equal(narrow.index, expected.index) and torch.equal(narrow.weight, expected.weight)
    rows = torch.randn(120, 8)
    found = read(rows, expected.index.to(torch.int32), expected.weight, twin)
    assert torch.equal(found, read(rows, expected.index, expected.weight, twin))


def test_what_is_usual_in_a_process_does_not_matter():
    at, num_rows = found_corners((5, 4, 3), 30)
    direction, values = torch.randn(30, 3), torch.randn(2, 30, 5)
    expected = factors(at.weight, at.slope, direction, twin)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        found = factors(at.weight, at.slope, direction, twin)
        total = scatter(at.index, found, values, num_rows, twin=twin)
        twin.LIBRARY.forget()
        assert twin.LIBRARY.available  # the check is not misled either
    finally:
        torch.set_default_dtype(before)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    assert torch.equal(total, scatter(at.index, expected, values, num_rows, twin=twin))
