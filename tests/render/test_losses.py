import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ponder3d.render import losses
from ponder3d.render.losses import RenderLossConfig, render_losses
from ponder3d.types import Rays, RayTargets, RenderOutput
from ponder3d.types.scene import to_device


def two_rays(far=(4.0, 4.0)) -> tuple[RenderOutput, Rays, RayTargets]:
    """Both rays see a surface at 2 m; four samples each."""
    t = torch.tensor([[1.0, 1.9, 2.1, 3.0]] * 2)
    out = RenderOutput(
        rgb=torch.tensor([[0.5, 0.5, 0.5], [0.0, 0.0, 0.0]]),
        t=torch.tensor([2.5, 1.0]),
        normal=torch.zeros(2, 3),
        opacity=torch.ones(2),
        semantic=None,
        feature=torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
        sample_t=t,
        weights=torch.full((2, 4), 0.25),
        sdf=torch.tensor([[0.1, 0.3, -0.1, -0.9], [0.5, 0.1, -0.1, 9.0]]),
        gradient=torch.tensor([0.0, 0.0, 2.0]).expand(2, 4, 3),
    )
    rays = Rays(
        torch.zeros(2, 3),
        torch.tensor([[0.0, 0, 1]] * 2),
        torch.zeros(2),
        torch.tensor(far),
        torch.zeros(2, dtype=torch.int64),
    )
    targets = RayTargets(
        torch.tensor([[0.5, 0.5, 0.8], [1.0, 1.0, 1.0]]), torch.tensor([2.0, 2.0]), feature=torch.zeros(2, 2)
    )
    return out, rays, targets


ONES = RenderLossConfig(
    colour=1.0, depth=1.0, sdf=1.0, free_space=1.0, eikonal=1.0, semantic=1.0, feature=1.0, truncation=0.2
)


def test_every_term_by_hand(device):
    terms = render_losses(*to_device(two_rays(), device), ONES)
    assert float(terms["colour"]) == pytest.approx((0.1 + 1.0) / 2)
    assert float(terms["depth"]) == pytest.approx((0.5 + 1.0) / 2)
    # Samples within 0.2 m of 2 m: |t + sdf - 2| of 1.9 and 2.1.
    assert float(terms["sdf"]) == pytest.approx((0.2 + 0.0 + 0.0 + 0.0) / 4, abs=1e-6)
    # Samples more than 0.2 m in front: relu(0.2 - sdf) at t = 1.
    assert float(terms["free_space"]) == pytest.approx((0.1 + 0.0) / 2)
    assert float(terms["eikonal"]) == pytest.approx(1.0)
    assert float(terms["feature"]) == pytest.approx((1.5 + 0.0) / 2)


def test_weights_multiply_and_zero_leaves_out():
    terms = render_losses(*two_rays(), replace(ONES, colour=10.0, depth=0.0))
    assert float(terms["colour"]) == pytest.approx(5.5) and "depth" not in terms


def test_a_ray_that_misses_counts_nowhere():
    """Regression: the released code trains such rays towards black (spec 9.1, numbers 10 and 12)."""
    out, rays, targets = two_rays(far=(4.0, -1.0))
    out = replace(out, semantic=torch.eye(2))
    targets = replace(targets, label=torch.tensor([0, 1]))
    terms = render_losses(out, rays, targets, ONES, torch.eye(2))
    assert float(terms["colour"]) == pytest.approx(0.1)
    assert float(terms["depth"]) == pytest.approx(0.5)
    assert float(terms["free_space"]) == pytest.approx(0.1)
    assert float(terms["feature"]) == pytest.approx(1.5)
    only_first = math.log(1 + math.exp(-1 / ONES.temperature))
    assert float(terms["semantic"]) == pytest.approx(only_first, rel=1e-3)


def test_unless_it_is_told_to():
    out, rays, targets = two_rays(far=(4.0, -1.0))
    out = replace(out, rgb=torch.tensor([[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]]), gradient=out.gradient.clone())
    out.gradient[1] = 0
    terms = render_losses(out, rays, targets, replace(ONES, misses=True))
    # The second ray should be black, whatever the camera saw, and its gradients are 1 too short.
    assert float(terms["colour"]) == pytest.approx((0.1 + 0.2) / 2)
    assert float(terms["eikonal"]) == pytest.approx(1.0)
    assert float(terms["depth"]) == pytest.approx(0.5)


def test_distances_in_units_of_the_scene():
    """In a room of 4 m: a quarter of every error, and the truncation of 0.05 units is the 0.2 m of before."""
    metres = render_losses(*two_rays(), ONES)
    units = replace(ONES, units="extent", truncation=0.05)
    found = render_losses(*two_rays(), units, extent=torch.tensor([4.0]))
    for name in ("depth", "sdf", "free_space"):
        torch.testing.assert_close(found[name], metres[name] / 4)
    for name in ("colour", "eikonal", "feature"):
        assert float(found[name]) == float(metres[name])


def test_another_slope_by_hand():
    terms = render_losses(*two_rays(), replace(ONES, slope=0.5))
    assert float(terms["eikonal"]) == pytest.approx((2 - 0.5) ** 2)


@pytest.mark.parametrize("changes", [{"slope": 0.0}, {"truncation": -0.1}])
def test_impossible_numbers(changes):
    with pytest.raises(ValueError, match="slope must be above 0 and truncation at least 0"):
        RenderLossConfig(**changes)


def test_a_surface_beyond_the_volume_only_frees_the_way():
    out, rays, targets = two_rays(far=(1.5, 1.5))
    terms = render_losses(out, rays, targets, ONES)
    assert float(terms["depth"]) == 0 and float(terms["sdf"]) == 0 and float(terms["free_space"]) > 0


def test_rays_without_depth_train_colour_only():
    out, rays, targets = two_rays()
    blind = replace(targets, t=torch.zeros(2))
    terms = render_losses(out, rays, blind, ONES)
    assert float(terms["colour"]) > 0
    assert [float(terms[name]) for name in ("depth", "sdf", "free_space", "feature")] == [0, 0, 0, 0]
    assert set(render_losses(out, rays, replace(targets, t=None), ONES)) == {"colour", "eikonal", "feature"}


def test_no_rays_at_all():
    out, rays, targets = two_rays()

    def none(value):
        return None if value is None else value[:0].requires_grad_(value.is_floating_point())

    empty = [type(v)(**{k: none(getattr(v, k)) for k in v.__dataclass_fields__}) for v in (out, rays, targets)]
    terms = render_losses(*empty, ONES)
    total = sum(terms.values())
    total.backward()
    assert float(total.detach()) == 0


def test_semantic_loss_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    rendered = torch.tensor([[3.0, 0.0], [0.0, 2.0], [5.0, 5.0]])
    # Cosines 1 and 0 with temperature 0.5; class 0 counts, the unlabelled ray does not (spec 9.1, numbers 6 and 15).
    for none in (-1, -100):
        found = losses.semantic_loss(rendered, torch.tensor([0, 1, none]), vectors, 0.5)
        assert float(found) == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-3)
    wrong = losses.semantic_loss(rendered[:1], torch.tensor([1]), vectors, 0.5)
    assert float(wrong) == pytest.approx(2 + math.log(1 + math.exp(-2)), rel=1e-3)
    assert float(losses.semantic_loss(rendered, torch.tensor([-1, -1, -1]), vectors, 0.5)) == 0


def test_classes_that_a_ray_cannot_have_are_no_candidates():
    """Three classes, of which rays of scene 0 can have the first two and rays of scene 1 the last two."""
    vectors = torch.eye(3)
    rendered = torch.tensor([[2.0, 0, 0], [0, 1.5, 1.5], [0, 0, 4.0], [1.0, 1, 1]], requires_grad=True)
    possible = torch.tensor([[True, True, False], [False, True, True]])[torch.tensor([0, 1, 1, 0])]
    label = torch.tensor([0, 2, 1, -1])
    found = losses.semantic_loss(rendered, label, vectors, 0.5, "classes", possible)
    half = math.log(2)  # the second ray: equally far from the two classes that it can have
    others = [math.log(1 + math.exp(-2)), 2 + math.log(1 + math.exp(-2))]
    assert float(found.detach()) == pytest.approx((others[0] + half + others[1]) / 3, rel=1e-3)
    (gradient,) = torch.autograd.grad(found, rendered)
    assert bool(gradient.isfinite().all()) and bool((gradient[3] == 0).all()) and bool((gradient[1] != 0).any())
    legacy = losses.semantic_loss(rendered, label, vectors, 0.5, "rays", possible)
    assert torch.equal(legacy, losses.semantic_loss(rendered, label, vectors, 0.5, "rays"))
    everything = torch.ones(4, 3, dtype=torch.bool)
    plain = losses.semantic_loss(rendered, label, vectors, 0.5)
    assert torch.equal(losses.semantic_loss(rendered, label, vectors, 0.5, "classes", everything), plain)


@pytest.mark.parametrize("labels", [[0, 2, 2, -1, 0, 2, -100], [1, 1, 1], [-1, -1]])
def test_contrast_with_all_rays_by_the_numbers_of_their_classes(labels):
    """Against the R x R products of the released code (spec 2.11), value and gradient."""
    label, tau = torch.tensor(labels), 0.3
    vectors = F.normalize(torch.randn(4, 6, dtype=torch.float64), dim=1)
    rendered = (3 * torch.randn(len(labels), 6, dtype=torch.float64)).requires_grad_()
    found = losses.semantic_loss(rendered, label, vectors, tau, "rays")
    (gradient,) = torch.autograd.grad(found, rendered)
    targets = torch.where(label[:, None] >= 0, vectors[label.clamp(min=0)], 0)
    direction = rendered / (rendered.square().sum(1, keepdim=True) + 1e-4).sqrt()
    every = direction @ targets.T / tau
    own = torch.arange(len(labels)).masked_fill(label < 0, -100)
    expected = F.cross_entropy(every, own) if bool((label >= 0).any()) else 0 * rendered.sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, rendered)[0])


def test_masked_mean():
    assert float(losses.masked_mean(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False]))) == 1.5
    assert float(losses.masked_mean(torch.tensor([1.0]), torch.tensor([False]))) == 0


def heads(semantic: list[list[float]], feature: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(semantic), torch.tensor(feature)


def test_the_surface_share_by_hand():
    out, rays, targets = two_rays()
    out = replace(out, semantic=torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
    targets = replace(targets, label=torch.tensor([0, 1]))
    config, codes = replace(ONES, surface=0.75, temperature=1.0), torch.eye(2)
    rendered = render_losses(out, rays, targets, config, codes)
    assert float(rendered["feature"]) == pytest.approx(0.25 * 1.5 / 2)
    assert float(rendered["semantic"]) == pytest.approx(0.25 * math.log(2))
    semantic, feature = heads([[3.0, 0.0], [2.0, 0.0]], [[0.2, 0.2], [0.0, 0.4]])
    terms = losses.surface_losses(semantic, feature, rays, targets, config, codes)
    assert set(terms) == {"surface_semantic", "surface_feature"}
    # Cosines (1, 0) with classes 0 and 1: log(1 + e) - 1 and log(1 + e).
    assert float(terms["surface_semantic"]) == pytest.approx(0.75 * (math.log(1 + math.e) - 0.5), abs=1e-3)
    assert float(terms["surface_feature"]) == pytest.approx(0.75 * 0.2)


def test_with_all_on_the_surface_nothing_is_left_to_the_ray():
    terms = render_losses(*two_rays(), replace(ONES, surface=1.0))
    assert "feature" not in terms and "colour" in terms
    with pytest.raises(ValueError, match=r"RenderLossConfig\.surface must be in \[0, 1\], not 1\.5"):
        RenderLossConfig(surface=1.5)


@pytest.mark.parametrize("t", [0.0, 5.0], ids=["not measured", "outside the volume"])
def test_rays_without_an_end_in_the_volume_have_no_surface_term(t):
    _, rays, targets = two_rays()
    targets = replace(targets, t=torch.tensor([2.0, t]), label=torch.tensor([-1, 1]))
    _, feature = heads([[0.0]], [[0.2, 0.2], [9.0, 9.0]])
    terms = losses.surface_losses(torch.ones(2, 2), feature, rays, targets, replace(ONES, surface=1.0), torch.eye(2))
    assert float(terms["surface_feature"]) == pytest.approx(0.2) and float(terms["surface_semantic"]) == 0


def test_features_by_their_direction(device):
    """Cosines 1 / sqrt(2), with any length of either; a ray without a feature has none."""
    out, rays, targets = two_rays()
    out = replace(out, feature=torch.tensor([[30.0, 30.0], [0.0, 0.0]]))
    config = replace(ONES, feature=2.0, feature_distance="cosine")
    for length in (0.01, 1.0, 500.0):
        given = replace(targets, feature=torch.tensor([[0.0, length], [length, 0.0]]))
        found = render_losses(*to_device((out, rays, given), device), config)["feature"]
        assert float(found) == pytest.approx(2 * ((1 - 0.5**0.5) + 1) / 2, abs=1e-4)
        assert "feature" in render_losses(out, rays, given, ONES)
    # No direction, no target.
    given = replace(targets, feature=torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
    assert float(render_losses(out, rays, given, config)["feature"]) == pytest.approx(2 * (1 - 0.5**0.5), abs=1e-4)


@pytest.mark.parametrize("distance", ["l1", "cosine"])
@pytest.mark.parametrize("unknown", [math.nan, math.inf, -math.inf])
def test_a_ray_without_a_usable_feature_does_not_count(distance, unknown):
    out, rays, targets = two_rays()
    feature = torch.tensor([[1.0, 2.0], [3.0, 1.0]], requires_grad=True)
    config = replace(ONES, feature_distance=distance)

    def loss(target: list[list[float]]) -> torch.Tensor:
        made = replace(out, feature=feature)
        return render_losses(made, rays, replace(targets, feature=torch.tensor(target)), config)["feature"]

    found = loss([[2.0, 2.0], [1.0, unknown]])
    expected = 0.5 if distance == "l1" else 1 - 6 / (5 * 8) ** 0.5
    assert float(found.detach()) == pytest.approx(expected, abs=1e-4)
    gradient = torch.autograd.grad(found, feature)[0]
    assert bool(torch.isfinite(gradient).all()) and gradient[1].tolist() == [0, 0]
    none = loss([[unknown, 0.0], [1.0, unknown]])
    assert float(none.detach()) == 0 and torch.autograd.grad(none, feature)[0].abs().sum() == 0
