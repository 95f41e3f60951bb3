from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ponder3d.geometry import keyed
from ponder3d.tasks.frozen import features_of
from ponder3d.tasks.heads import LinearHead
from ponder3d.tasks.linear_probe import LinearProbeConfig, fit_head, fit_linear, linear_probe
from ponder3d.types import Batch, Scene

FAST = LinearProbeConfig(points_per_scene=200, steps=150, batch_size=256, lr=0.05)


def coloured(key: int, noise: float = 0.05, num: int = 400) -> Scene:
    """Three classes, three colours; the colours of one class have nothing to do with where it is."""
    generator = torch.Generator().manual_seed(key)
    labels = torch.randint(0, 3, (num,), generator=generator)
    colours = torch.tensor([[0.8, 0.2, 0.2], [0.7, 0.3, 0.8], [0.2, 0.8, 0.4]])[labels]
    rgb = (colours + noise * torch.randn(num, 3, generator=generator)).clamp(0, 1)
    return Scene(torch.rand(num, 3, generator=generator), rgb, None, f"coloured {key}", labels=labels)


def test_separable_features_are_separated(pass_config, labels):
    figures = linear_probe(pass_config().build(), [coloured(1), coloured(2)], [coloured(3)], labels, FAST, seed=0)
    assert figures["miou"] > 0.99 and figures["allacc"] > 0.99


def test_features_without_information_give_chance(pass_config, labels):
    scenes = [replace(coloured(key), rgb=torch.rand(400, 3)) for key in (1, 2, 3)]
    figures = linear_probe(pass_config().build(), scenes[:2], scenes[2:], labels, FAST, seed=0)
    assert figures["allacc"] < 0.5


def test_the_encoder_stays_as_it_is(small_encoder, labels, room):
    encoder = small_encoder.build().train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    linear_probe(encoder, [room(1)], [room(2)], labels, replace(FAST, steps=5), seed=0)
    after = encoder.state_dict()
    assert set(before) == set(after) and any("running_mean" in name for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())


def test_the_same_seed_gives_the_same_figures(pass_config, labels):
    scenes = [coloured(key, noise=0.5) for key in range(3)]
    hasty = replace(FAST, points_per_scene=20, steps=10)
    runs = [linear_probe(pass_config().build(), scenes[:2], scenes[2:], labels, hasty, seed=s) for s in (0, 0, 1)]
    assert runs[0] == runs[1] and runs[0] != runs[2]


def test_unlabelled_points_are_neither_used_nor_counted(pass_config, labels):
    def half(key):
        scene = coloured(key)
        # The unlabelled half has the colours of other classes; with labels it could not be separated.
        keep = torch.arange(400) % 2 == 0
        rgb = torch.where(keep[:, None], scene.rgb, scene.rgb.flip(1))
        return replace(scene, rgb=rgb, labels=torch.where(keep, scene.labels, -1))

    figures = linear_probe(pass_config().build(), [half(1), half(2)], [half(3)], labels, FAST, seed=0)
    assert figures["allacc"] > 0.99


def test_no_labelled_point(pass_config, labels):
    blank = replace(coloured(1), labels=torch.full((400,), -1))
    with pytest.raises(ValueError, match="the training scenes have no labelled points"):
        linear_probe(pass_config().build(), [blank], [coloured(2)], labels, FAST, seed=0)
    # One empty scene among others is no reason to stop.
    assert linear_probe(pass_config().build(), [blank, coloured(1)], [coloured(2)], labels, FAST, 0)["miou"] > 0.99


def test_features_of_points_that_share_a_voxel(small_encoder):
    encoder = small_encoder.build().eval()
    scene = Scene(torch.tensor([[0.01, 0.01, 0.01], [0.02, 0.02, 0.02], [3.0, 3, 3]]), torch.rand(3, 3), None, "x")
    feats = features_of(encoder, scene)
    assert feats.shape == (3, encoder.out_channels) and not feats.requires_grad
    assert torch.equal(feats[0], feats[1]) and not torch.equal(feats[0], feats[2])


def test_logistic_regression_reaches_its_optimum():
    """Four points at +1 and four at -1, one exception each: the log odds are log 3, by symmetry without a bias."""
    x = torch.tensor([[1.0], [1], [1], [1], [-1], [-1], [-1], [-1]])
    y = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1])
    head = fit_linear(x, y, 2, LinearProbeConfig(steps=400, batch_size=4096, lr=0.05, weight_decay=0.0), seed=0)
    scores = head(x[:1])[0]
    assert float(scores[1] - scores[0]) == pytest.approx(torch.tensor(3.0).log().item(), abs=0.05)
    assert not any(p.requires_grad for p in head.parameters())


def test_the_head_is_the_one_of_standardised_features(pass_config, labels):
    """Fitted where the features have mean 0 and deviation 1, it says the same of the features themselves."""
    encoder = pass_config().build()
    batches = [Batch.of([coloured(key, noise=0.3)], ("rgb",)) for key in (1, 2)]
    few = replace(FAST, points_per_scene=1000)
    head = LinearHead(3, labels)
    fit_head(encoder, head, batches, few, seed=0)
    x, y = torch.cat([b.points.feats for b in batches]), torch.cat([b.labels for b in batches])
    order = torch.cat([400 * number + torch.randperm(400, generator=keyed.generator(0, number)) for number in range(2)])
    standard = (x - x.mean(0)) / x.std(0, correction=0)
    by_hand = fit_linear(standard[order], y[order], 3, few, seed=0)
    torch.testing.assert_close(F.linear(x, head.weight, head.bias), by_hand(standard), atol=1e-4, rtol=1e-4)
