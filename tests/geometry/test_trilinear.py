import pytest
import torch
import torch.nn.functional as F

from ponder3d.geometry.grid import cells_from_world
from ponder3d.geometry.trilinear import corners, read_slopes, sample, sample_derivative, scatter
from ponder3d.types import Grid, Volume


def a_volume(shape=(5, 4, 3), channels=3, scenes=2, dtype=torch.float64) -> Volume:
    lo = torch.randn(scenes, 3, dtype=dtype)
    box = torch.stack([lo, lo + torch.rand(scenes, 3, dtype=dtype) * 3 + 1], dim=1)
    return Volume(Grid(box, shape), torch.randn(scenes, *shape, channels, dtype=dtype))


def points_in(volume: Volume, num: int, reach: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    scene = torch.arange(num) % len(volume.grid.box)
    lo, hi = volume.grid.box[:, 0][scene], volume.grid.box[:, 1][scene]
    share = (torch.rand(num, 3, dtype=lo.dtype) - 0.5) * reach + 0.5
    return lo + share * (hi - lo), scene


def test_equals_grid_sample():
    volume = a_volume()
    xyz, scene = points_in(volume, 200, reach=1.5)
    found = sample(volume, corners(volume.grid, xyz, scene))
    for b in range(2):
        rows = scene == b
        share = cells_from_world(volume.grid, xyz[rows], scene[rows]) / torch.tensor(volume.grid.shape)
        grid = (share * 2 - 1).view(1, 1, 1, -1, 3).flip(-1)  # grid_sample wants (z, y, x)
        expected = F.grid_sample(
            volume.feats[b].permute(3, 0, 1, 2)[None], grid, align_corners=False, padding_mode="border"
        )
        torch.testing.assert_close(found[rows], expected[0, :, 0, 0].T)


def test_linear_function_is_exact_between_the_outermost_centres():
    grid = Grid(torch.tensor([[[0.0, 0, 0], [4, 4, 4]]]), (4, 4, 4))
    centres = torch.stack(torch.meshgrid(*[torch.arange(4) + 0.5] * 3, indexing="ij"), dim=-1)
    volume = Volume(grid, (centres @ torch.tensor([1.0, 2.0, -3.0]) + 7)[None, ..., None])
    xyz = torch.rand(50, 3) * 3 + 0.5
    at = corners(grid, xyz, torch.zeros(50, dtype=torch.int64))
    torch.testing.assert_close(sample(volume, at)[:, 0], xyz @ torch.tensor([1.0, 2.0, -3.0]) + 7)
    slope = sample_derivative(volume, at, torch.ones(50, 1))
    torch.testing.assert_close(slope, torch.tensor([1.0, 2.0, -3.0]).expand(50, 3), atol=1e-4, rtol=0)


def test_weights_sum_to_one_and_slopes_to_zero():
    volume = a_volume()
    at = corners(volume.grid, *points_in(volume, 100, reach=2.0))
    torch.testing.assert_close(at.weight.sum(1), torch.ones(100, dtype=torch.float64))
    torch.testing.assert_close(at.slope.sum(2), torch.zeros(100, 3, dtype=torch.float64))


def test_derivative_equals_finite_differences():
    volume = a_volume()
    xyz, scene = points_in(volume, 60)
    g = torch.randn(60, 3, dtype=torch.float64)
    at = corners(volume.grid, xyz, scene)
    # Stay away from the planes between cells and the border, where the derivative jumps.
    position = cells_from_world(volume.grid, xyz, scene) - 0.5
    smooth = ((position - position.round()).abs() > 1e-4).all(1)
    found = sample_derivative(volume, at, g)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-6
        ahead, behind = (sample(volume, corners(volume.grid, xyz + s * step, scene)) for s in (1, -1))
        expected = ((ahead - behind) * g).sum(1) / 2e-6
        torch.testing.assert_close(found[smooth, axis], expected[smooth], atol=1e-6, rtol=1e-5)


def test_gradients():
    volume = a_volume(shape=(3, 2, 2), channels=2)
    xyz, scene = points_in(volume, 9, reach=1.3)
    at = corners(volume.grid, xyz, scene)
    g = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    feats = volume.feats.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: sample(Volume(volume.grid, f), at), feats)
    assert torch.autograd.gradcheck(lambda f, v: sample_derivative(Volume(volume.grid, f), at, v), (feats, g))


@pytest.mark.parametrize("shape", [(1, 4, 3), (1, 1, 1)])
def test_an_axis_with_one_cell_is_constant(shape):
    volume = a_volume(shape=shape)
    xyz, scene = points_in(volume, 20)
    at = corners(volume.grid, xyz, scene)
    assert float(sample_derivative(volume, at, torch.ones(20, 3, dtype=torch.float64))[:, 0].abs().max()) == 0
    assert bool((at.index < volume.feats[..., 0].numel()).all())
    torch.testing.assert_close(at.weight.sum(1), torch.ones(20, dtype=torch.float64))


def test_outside_is_the_nearest_value_with_no_slope():
    volume = a_volume(scenes=1)
    far = volume.grid.box[0, 1] + 10
    at = corners(volume.grid, far[None], torch.tensor([0]))
    torch.testing.assert_close(sample(volume, at)[0], volume.feats[0, -1, -1, -1])
    assert float(at.slope.abs().max()) == 0


def test_no_points():
    volume = a_volume()
    at = corners(volume.grid, torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.int64))
    feats = volume.feats.requires_grad_()
    out = sample(Volume(volume.grid, feats), at)
    out.sum().backward()
    assert out.shape == (0, 3) and feats.grad is not None and float(feats.grad.abs().max()) == 0
    assert sample_derivative(volume, at, torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 3)


def test_backward_is_the_same_to_the_bit():
    volume = a_volume(dtype=torch.float32)
    xyz, scene = points_in(volume, 5000)
    at = corners(volume.grid, xyz, scene)
    grads = []
    for _ in range(2):
        feats = volume.feats.clone().requires_grad_()
        sample(Volume(volume.grid, feats), at).square().sum().backward()
        grads.append(feats.grad)
    assert torch.equal(grads[0], grads[1])


@pytest.mark.parametrize("num", [0, 1, 5000])
def test_scatter_sums_every_term_into_its_row(num):
    index = torch.randint(0, 50, (num, 8))
    weight = torch.randn(num, 8, 3, dtype=torch.float64)
    values = torch.randn(3, num, 4, dtype=torch.float64)
    terms = torch.einsum("nkt,tnc->nkc", weight, values)
    expected = torch.zeros(60, 4, dtype=torch.float64).index_add_(0, index.flatten(), terms.flatten(0, 1))
    torch.testing.assert_close(scatter(index, weight, values, 60), expected)


def test_slopes_are_those_of_every_channel():
    volume = a_volume()
    at = corners(volume.grid, *points_in(volume, 50))
    slopes = read_slopes(volume.feats.flatten(0, 3), at.index, at.slope)
    for channel in range(3):
        g = torch.nn.functional.one_hot(torch.full((50,), channel), 3).double()
        torch.testing.assert_close(slopes[..., channel], sample_derivative(volume, at, g))
