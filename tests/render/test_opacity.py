"""NeuS, VolSDF and UniSurf where weights, transmittance and depth are known: a plane, a ball."""

import math

import pytest
import torch
import torch.nn.functional as F

from ponder3d.render import samplers
from ponder3d.render.error_bound import opacity_error
from ponder3d.render.opacity import NeuS, UniSurf, VolSDF
from ponder3d.render.weights import alpha_from_sdf, composite, weights_from_alpha
from ponder3d.types import Rays

ALL = [NeuS(), NeuS("slope"), VolSDF(), UniSurf()]


def along_x(num=1, far=4.0, dtype=torch.float64) -> Rays:
    directions = torch.tensor([[1.0, 0, 0]], dtype=dtype).expand(num, 3)
    ends = torch.zeros(num, dtype=dtype), torch.full((num,), far, dtype=dtype)
    return Rays(torch.zeros(num, 3, dtype=dtype), directions, *ends, torch.zeros(num, dtype=torch.int64))


def weights(opacity, t, sdf, inv_std, slope=-1.0):
    gradient = torch.tensor([slope, 0, 0], dtype=t.dtype).expand(*t.shape, 3)
    return opacity.weights(t, sdf, gradient, along_x(len(t), dtype=t.dtype), torch.tensor(inv_std, dtype=t.dtype))


def test_neus_is_what_it_was():
    """Eq. 7 between adjacent samples, seen at the middle, and proposals of sharpness 64: to the bit."""
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(50, 20, generator=generator).sort(dim=1).values * 3
    sdf, rays = 1.5 - t + 0.1 * torch.randn(50, 20, generator=generator), along_x(50, dtype=torch.float32)
    s = torch.tensor(100.0)
    found, seen_at = NeuS().weights(t, sdf, torch.zeros(50, 20, 3), rays, s)
    assert torch.equal(found, weights_from_alpha(alpha_from_sdf(sdf, s)))
    assert torch.equal(seen_at, t + samplers.interval_lengths(t, rays.far) / 2)
    placed = NeuS().place(t, sdf, lambda t: 1 / 0, rays, s, 12, None, None)
    proposal = weights_from_alpha(alpha_from_sdf(sdf, torch.tensor(64.0)))
    assert torch.equal(placed, samplers.importance(t, proposal, 12))


def test_volsdf_by_hand():
    # beta = 0.1. Densities: 10 exp(-2) / 2 at 0.2, 10 / 2 on the surface, 10 (1 - exp(-1) / 2) at -0.1.
    t, sdf = torch.tensor([[3.0, 3.2, 3.3]], dtype=torch.float64), torch.tensor([[0.2, 0.0, -0.1]]).double()
    thickness = [10 * math.exp(-2) / 2 * 0.2, 5 * 0.1, 10 * (1 - math.exp(-1) / 2) * 0.7]  # the last up to far = 4
    expected, through = [], 1.0
    for each in thickness:
        expected.append(through * (1 - math.exp(-each)))
        through *= math.exp(-each)
    found, seen_at = weights(VolSDF(), t, sdf, 10.0)
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64))
    assert torch.equal(seen_at, t)


def test_volsdf_in_front_of_a_plane():
    """Met head-on, the optical depth is exp(-d / beta) / 2 at d in front, and 1/2 + d / beta - (1 - exp(-d / beta)) / 2
    behind: e^-0.5 of the light comes as far as the surface."""
    t = torch.linspace(0, 4, 40_001, dtype=torch.float64)[None]
    found, _ = weights(VolSDF(), t, 2.0 - t, 10.0)
    opacity = F.pad(found.cumsum(1)[:, :-1], (1, 0))[0]
    for at, depth in ((1.9, math.exp(-1) / 2), (2.0, 0.5), (2.1, 0.5 + 1 - (1 - math.exp(-1)) / 2)):
        assert float(opacity[round(at * 10_000)]) == pytest.approx(1 - math.exp(-depth), abs=5e-4)


def test_unisurf_by_hand():
    t, sdf = torch.tensor([[1.0, 2.0, 2.5]], dtype=torch.float64), torch.tensor([[0.3, 0.0, -0.2]]).double()
    one, last = 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-2))
    expected = [one, (1 - one) * 0.5, (1 - one) * 0.5 * last]
    found, seen_at = weights(UniSurf(), t, sdf, 10.0)
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64))
    assert torch.equal(seen_at, t)


def plane_at_60_degrees(t):
    return (2.0 - t) * 0.5


def ball(t):
    """Of radius 0.7 around 2.7 on the ray's line."""
    return (t - 2.7).abs() - 0.7


@pytest.mark.parametrize("sdf", [plane_at_60_degrees, ball])
@pytest.mark.parametrize("opacity", ALL)
def test_depth_comes_to_the_surface_as_it_gets_sharper(opacity, sdf):
    """Both surfaces are met at 2; ten times the sharpness is a tenth of the error."""
    t = torch.linspace(0, 4, 40_001, dtype=torch.float64)[None]
    slope = float(sdf(torch.tensor(1.9)) - sdf(torch.tensor(1.8))) * 10
    errors = []
    for inv_std in (20.0, 200.0, 2000.0):
        # UniSurf counts samples, not metres: their spacing follows the sharpness.
        own = t if not isinstance(opacity, UniSurf) else torch.linspace(0, 4, int(20 * inv_std) + 1).double()[None]
        found, seen_at = weights(opacity, own, sdf(own), inv_std, slope)
        assert float(found.sum()) == pytest.approx(1, abs=1e-2)
        errors.append(abs(float(composite(found, seen_at) + (1 - found.sum()) * 4) - 2))
    assert errors[0] < 0.3 and errors[1] < 0.2 * errors[0] + 1e-3 and errors[2] < 3e-3


@pytest.mark.parametrize("opacity", ALL)
def test_gradients_against_finite_differences(opacity):
    generator = torch.Generator().manual_seed(5)
    t = torch.rand(4, 7, generator=generator, dtype=torch.float64).sort(dim=1).values * 3
    sdf = (torch.randn(4, 7, generator=generator, dtype=torch.float64) * 0.2).requires_grad_()
    gradient = torch.randn(4, 7, 3, generator=generator, dtype=torch.float64).requires_grad_()
    s = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    rays = along_x(4)
    assert torch.autograd.gradcheck(lambda d, g, v: opacity.weights(t, d, g, rays, v)[0], (sdf, gradient, s))


def test_volsdf_has_a_gradient_on_the_surface():
    sdf = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    found, _ = weights(VolSDF(), torch.tensor([[1.0, 2.0]], dtype=torch.float64), sdf, 4.0)
    found[0, 0].backward()
    # w = 1 - exp(-2), and the density falls by 1 / (2 beta^2) = 8 per metre.
    assert sdf.grad is not None and float(sdf.grad[0, 0]) == pytest.approx(-8 * math.exp(-2))


@pytest.mark.parametrize("opacity", ALL)
def test_far_on_both_sides_nothing_overflows(opacity):
    sdf = torch.tensor([[400.0, 3.0, 0.0, -50.0, -400.0, -400.0]], requires_grad=True)
    s = torch.tensor(1e4, requires_grad=True)
    t = torch.linspace(0.5, 3, 6)[None]
    gradient = torch.tensor([-1.0, 0, 0]).expand(1, 6, 3)
    found, seen_at = opacity.weights(t, sdf, gradient, along_x(dtype=torch.float32), s)
    composite(found, seen_at).sum().backward()
    assert sdf.grad is not None and s.grad is not None
    assert bool(torch.isfinite(sdf.grad).all()) and bool(torch.isfinite(s.grad))
    assert float(found.sum().detach()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("beta", [0.02, 0.002])
def test_volsdf_looks_until_its_samples_err_little(beta):
    """Rays at many distances from a plane and a ball: within five rounds the tolerance is kept at the beta wanted."""
    rays = along_x(100)
    shift = torch.linspace(0.3, 2.5, 100, dtype=torch.float64)[:, None]

    def distance(t):
        return torch.minimum((t - shift - 0.5).abs() - 0.4, 3.7 - t)

    t = samplers.uniform(rays.near, rays.far, 20)
    wanted = torch.tensor(beta, dtype=torch.float64)
    found, sdf, reached = VolSDF().search(t, distance(t), distance, wanted)
    assert found.shape == (100, 20 + 5 * 64) and bool((torch.diff(found, dim=1) >= 0).all())
    torch.testing.assert_close(sdf, distance(found))
    assert bool((reached == wanted).all())
    assert float(opacity_error(found, sdf, reached).amax()) <= 0.1
    # Without rounds no sharp surface is trusted.
    softest = VolSDF(rounds=0).search(t, distance(t), distance, wanted)[2]
    assert float(softest.min()) > 5 * beta


@pytest.mark.parametrize("opacity", [VolSDF(), UniSurf()])
def test_samples_are_put_around_the_surface(opacity):
    rays = along_x(30)
    surface = torch.linspace(0.3, 3.3, 30, dtype=torch.float64)[:, None]
    t = samplers.uniform(rays.near, rays.far, 10)

    def distance(t):
        return torch.minimum((t - surface - 0.2).abs() - 0.2, 3.9 - t)  # a ball in front of a wall

    s = torch.tensor(200.0, dtype=torch.float64)
    jitter = torch.rand(30, 16, dtype=torch.float64)
    for numbers in (None, jitter):
        placed = opacity.place(t, distance(t), distance, rays, s, 16, numbers, None)
        assert placed.shape == (30, 16)
        assert float(((placed - surface).abs() < 0.051).double().mean()) > 0.9
        assert bool((placed >= 0).all()) and bool((placed <= 4).all())


def test_unisurf_searches_a_shrinking_interval():
    opacity = UniSurf(widest=0.8, narrowest=0.05, shrinking=100)
    assert opacity.interval(0) == 0.8 and opacity.interval(50) == pytest.approx(0.2)
    assert opacity.interval(100) == opacity.interval(10**6) == opacity.interval(None) == pytest.approx(0.05)
    rays, t = along_x(), torch.linspace(0.5, 3.5, 7, dtype=torch.float64)[None]
    s = torch.tensor(20.0, dtype=torch.float64)

    def placed(surface, step):
        return opacity.place(t, surface - t, lambda t: surface - t, rays, s, 4, None, step)[0].tolist()

    assert placed(2.2, 0) == pytest.approx([1.6, 2.0, 2.4, 2.8])
    assert placed(2.2, 50) == pytest.approx([2.05, 2.15, 2.25, 2.35])
    assert placed(3.9, 0) == pytest.approx([3.1 + 0.1125 + 0.225 * i for i in range(4)])  # cut off where the ray ends
    assert placed(9.0, 0) == pytest.approx([0.5, 1.5, 2.5, 3.5])  # no surface: the whole ray


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (VolSDF, {"rounds": -1}, "rounds must be at least 0"),
        (VolSDF, {"per_round": 0}, "per_round at least 1"),
        (VolSDF, {"tolerance": 0.0}, "tolerance above 0"),
        (UniSurf, {"narrowest": 0.0}, "narrowest must be above 0"),
        (UniSurf, {"widest": 0.01}, "at most widest"),
        (UniSurf, {"shrinking": 0}, "shrinking at least 1"),
        (UniSurf, {"refinements": -1}, "refinements at least 0"),
    ],
)
def test_bad_numbers(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind(**fields)
