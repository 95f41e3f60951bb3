import math

import pytest
import torch

from ponder3d.render.weights import (
    alpha_from_sdf,
    alpha_from_slope,
    composite,
    laplace_density,
    weights_from_alpha,
    weights_from_thickness,
)


def logistic(x):
    return 1 / (1 + math.exp(-x))


def test_papers_alpha_by_hand():
    # Eq. 7 with s = 10 at distances 0.1, -0.05, 0.2: the last interval leaves a surface, so its opacity is 0.
    alpha = alpha_from_sdf(torch.tensor([[0.1, -0.05, 0.2]]), torch.tensor(10.0))
    first = (logistic(1) - logistic(-0.5)) / logistic(1)
    torch.testing.assert_close(alpha, torch.tensor([[first, 0.0, 0.0]]))


def test_slope_alpha_by_hand():
    # A ray that meets a wall at 60 degrees: the distance falls by cos 60 = 0.5 per metre.
    alpha = alpha_from_slope(torch.tensor([[0.02]]), torch.tensor([[-0.5]]), torch.tensor([[0.2]]), torch.tensor(30.0))
    before, after = logistic(30 * 0.07), logistic(30 * -0.03)
    torch.testing.assert_close(alpha, torch.tensor([[(before - after) / before]]))


def test_slope_alpha_is_zero_for_a_ray_that_leaves():
    alpha = alpha_from_slope(torch.tensor([[0.0]]), torch.tensor([[0.7]]), torch.tensor([[0.2]]), torch.tensor(30.0))
    assert float(alpha) == 0


def test_weights_by_hand():
    weights = weights_from_alpha(torch.tensor([[0.4, 0.3, 1.0, 0.8]]))
    torch.testing.assert_close(weights, torch.tensor([[0.4, 0.6 * 0.3, 0.6 * 0.7 * 1.0, 0.0]]))


def test_composite_by_hand():
    weights = torch.tensor([[0.25, 0.5]])
    assert composite(weights, torch.tensor([[4.0, 2.0]])).tolist() == [2.0]
    assert composite(weights, torch.tensor([[[4.0, 0.0], [2.0, 1.0]]])).tolist() == [[2.0, 0.5]]


@pytest.mark.parametrize("inv_std", [5.0, 50.0, 500.0])
def test_both_alphas_agree_where_samples_are_dense(inv_std):
    t = torch.linspace(0, 2, 4001, dtype=torch.float64)[None]
    sdf = (1.2 - t) * 0.8  # a plane met at cosine -0.8
    s = torch.tensor(inv_std, dtype=torch.float64)
    delta, cosine = torch.full_like(t, 2 / 4000), torch.full_like(t, -0.8)
    paper = weights_from_alpha(alpha_from_sdf(sdf, s))
    slope = weights_from_alpha(alpha_from_slope(sdf, cosine, delta, s))
    # The paper's interval starts where the slope's is centred, half a step on; the steepest the logistic gets is s / 4.
    half_step = inv_std / 4 * 0.8 * (1 / 4000)
    gap = (paper.cumsum(1)[:, 1:-1] - slope.cumsum(1)[:, 1:-1]).abs().max()
    assert float(gap) < 1.05 * half_step + 1e-4


@pytest.mark.parametrize("inv_std", [20.0, 200.0])
def test_weights_of_a_plane_peak_on_it(inv_std):
    t = torch.linspace(0.1, 3, 117)[None]
    weights = weights_from_alpha(alpha_from_sdf(1.7 - t, torch.tensor(inv_std)))
    peak = int(weights.argmax())
    assert t[0, peak] <= 1.7 <= t[0, peak + 1]
    assert float(weights.sum()) == pytest.approx(1, abs=1e-3)


def test_deep_behind_a_surface_nothing_overflows():
    sdf = torch.tensor([[3.0, -50.0, -400.0, -400.0]], requires_grad=True)
    weights = weights_from_alpha(alpha_from_sdf(sdf, torch.tensor(1000.0)))
    weights.sum().backward()
    assert sdf.grad is not None and bool(torch.isfinite(sdf.grad).all())
    torch.testing.assert_close(weights[0, 0].detach(), torch.tensor(1.0))


def test_gradients():
    sdf = torch.randn(3, 6, dtype=torch.float64).mul(0.1).requires_grad_()
    s = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d, v: weights_from_alpha(alpha_from_sdf(d, v)), (sdf, s))


def test_laplace_density_by_hand():
    sdf = torch.tensor([0.1, 0.0, -0.1, 1e3, -1e3], dtype=torch.float64)
    expected = torch.tensor([5 * math.exp(-1), 5.0, 10 - 5 * math.exp(-1), 0.0, 10.0], dtype=torch.float64)
    torch.testing.assert_close(laplace_density(sdf, torch.tensor(0.1, dtype=torch.float64)), expected)


def test_weights_from_thickness_are_those_of_its_alpha():
    thickness = torch.rand(20, 9, dtype=torch.float64) * 2
    expected = weights_from_alpha(1 - torch.exp(-thickness))
    torch.testing.assert_close(weights_from_thickness(thickness), expected)
    # Also where single precision has no more room below 1.
    opaque = torch.tensor([[0.5, 1e3, 2.0]], requires_grad=True)
    weights = weights_from_thickness(opaque)
    torch.testing.assert_close(weights.detach(), torch.tensor([[1 - math.exp(-0.5), math.exp(-0.5), 0.0]]))
    weights.sum().backward()
    assert opaque.grad is not None and bool(torch.isfinite(opaque.grad).all())
