"""What every head promises, and what each of them computes."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ponder3d.config import from_json, to_json
from ponder3d.tasks.class_vectors import FixedCodes, NoVectors
from ponder3d.tasks.heads import (
    DecoupledHeadsConfig,
    HeadConfig,
    LanguageHeadConfig,
    LinearHeadConfig,
    mask_impossible,
    point_cross_entropy,
)
from ponder3d.tasks.linear_probe import LinearProbeConfig, fit_head
from ponder3d.tasks.semseg import SemSegConfig, lovasz_softmax
from ponder3d.types import Batch, LabelSet, Scene
from ponder3d.types.labels import IMPOSSIBLE

FAMILY = HeadConfig
SUBSETS = (("big", (2, 0, 1, 4)), ("small", (3, 1)))
UNION = LabelSet(("a", "b", "c", "d", "e"), tuple((i, i, i) for i in range(5)), SUBSETS)
POSSIBLE = {"big": [0, 1, 2, 4], "small": [1, 3]}
MIXED = ("small", "big", "small")


def built(config, labels=UNION, channels=6):
    torch.manual_seed(0)
    return config.build(channels, labels)


def rows(counts=(4, 7, 3), channels=6):
    return torch.randn(sum(counts), channels), torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def test_there_are_members(members):
    assert {cls.__name__ for cls in members(FAMILY)} >= {"LinearHeadConfig", "DecoupledHeadsConfig"}


def test_a_scene_has_the_classes_of_its_dataset(example):
    feats, scene = rows()
    scores = built(example)(feats, scene, MIXED)
    assert scores.shape == (14, 5) and bool(scores.isfinite().all())
    for number, condition in enumerate(MIXED):
        mine = scores[scene == number]
        for k in range(5):
            assert bool((mine[:, k] == IMPOSSIBLE).all()) == (k not in POSSIBLE[condition])
            assert bool((mine.softmax(1)[:, k] == 0).all()) == (k not in POSSIBLE[condition])
    assert built(example)(feats[:0], scene[:0], MIXED).shape == (0, 5)


def test_scenes_of_a_mixed_batch_are_as_alone(example):
    feats, scene = rows()
    head = built(example)
    together = head(feats, scene, MIXED)
    for number, condition in enumerate(MIXED):
        part = feats[scene == number]
        alone = head(part, torch.zeros(len(part), dtype=torch.int64), (condition,))
        torch.testing.assert_close(together[scene == number], alone)


def test_gradients_are_finite_and_reach_everything(example):
    """Also with unlabelled points and Lovasz-softmax, and none from a class that is not possible."""
    feats, scene = rows()
    feats.requires_grad_()
    head = built(example)
    labels = torch.tensor([1, 3, 3, -1, 0, 1, 2, 4, 0, -1, -1, 1, 1, 3])
    scores = head(feats, scene, MIXED)
    scores.retain_grad()
    (point_cross_entropy(scores, labels) + lovasz_softmax(scores.softmax(1), labels)).backward()
    assert bool(scores.grad.isfinite().all()) and bool((scores.grad[scores == IMPOSSIBLE] == 0).all())
    assert bool((scores.grad[labels < 0] == 0).all()), "unlabelled"
    assert bool(feats.grad.isfinite().all()) and bool((feats.grad[labels >= 0].abs().sum(1) > 0).all())
    for name, parameter in head.named_parameters():
        assert bool(parameter.grad.isfinite().all()) and float(parameter.grad.abs().max()) > 0, name


def test_no_label_and_features_of_zero(example):
    head = built(example)
    feats = torch.zeros(4, 6, requires_grad=True)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
    scores = head(feats, torch.zeros(4, dtype=torch.int64), ("big",))
    loss = point_cross_entropy(scores, torch.full((4,), -1))
    assert float(loss.detach()) == 0
    loss.backward()
    assert bool((feats.grad == 0).all())
    point_cross_entropy(head(feats, torch.zeros(4, dtype=torch.int64), ("big",)), torch.zeros(4).long()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in head.parameters())


def test_json_and_weights(example):
    assert from_json(HeadConfig, to_json(example)) == example
    feats, scene = rows()
    head, other = built(example), example.build(6, UNION)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(feats, scene, MIXED), head(feats, scene, MIXED))


def test_a_head_is_fitted_to_frozen_features(example, pass_config):
    """Colours tell the classes. In scenes of "big" two classes look like the two of "small"."""
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9], [0.9, 0.1, 0.1], [0.8, 0.8, 0.1]])

    def scene(key, condition):
        labels = torch.tensor(POSSIBLE[condition])[torch.arange(80) % len(POSSIBLE[condition])]
        rgb = colours[labels] + 0.03 * torch.randn(80, 3)
        return Scene(torch.rand(80, 3), rgb, None, f"{key}", labels=labels, condition=condition)

    batches = [Batch.of([scene(i, name)], ("rgb",)) for i, name in enumerate(("big", "small", "big", "small"))]
    task = SemSegConfig(pass_config(), head=example, head_passes=1).build(UNION)
    kept = task.encoder.state_dict()
    fit_head(task.encoder, task.head, batches, LinearProbeConfig(steps=60, lr=0.1, batch_size=128), seed=0)
    mixed = Batch.of([scene(8, "small"), scene(9, "big")], ("rgb",))
    with torch.no_grad():
        assert float((task.predict(mixed) == mixed.labels).float().mean()) > 0.97
    assert task.encoder.state_dict() == kept and all(p.requires_grad for p in task.head.parameters())


def test_the_linear_head_is_pytorchs():
    """The same numbers from the same random state, and the same names."""
    one = LabelSet(UNION.names, UNION.palette)
    head = built(LinearHeadConfig(), one)
    torch.manual_seed(0)
    plain = torch.nn.Linear(6, 5)
    assert list(head.state_dict()) == ["weight", "bias"]
    assert all(torch.equal(head.state_dict()[name], value) for name, value in plain.state_dict().items())
    feats, scene = rows()
    assert torch.equal(head(feats, scene, ("x", "y", "z")), plain(feats))
    assert mask_impossible(feats, scene, ("x",), one) is feats
    assert torch.equal(built(LinearHeadConfig())(feats, scene, ()), plain(feats)), "no conditions: all is possible"


def test_a_condition_of_its_own_can_have_all_classes():
    feats, scene = rows((2, 2))
    scores = built(LinearHeadConfig())(feats, scene, ("small", "new"))
    assert bool((scores[:2] == IMPOSSIBLE).any()) and not bool((scores[2:] == IMPOSSIBLE).any())


def test_what_evaluation_made_can_be_trained_with(example):
    head, (feats, scene) = built(example), rows((1, 1, 1, 1))
    conditions = ("big", "big", "small", "big")
    with torch.inference_mode():
        head(feats, scene, conditions)
    point_cross_entropy(head(feats, scene, conditions), torch.tensor([0, 1, 3, 4])).backward()


def test_decoupled_heads_by_hand():
    head = built(DecoupledHeadsConfig())
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == {"weight": (6, 6), "bias": (6,)}
    feats, scene = rows((2, 3))
    scores = head(feats, scene, ("small", "big"))
    first = {"big": 0, "small": 4}
    for number, condition in enumerate(("small", "big")):
        classes = dict(SUBSETS)[condition]
        start = first[condition]
        local = F.linear(
            feats[scene == number],
            head.weight[start : start + len(classes)],
            head.bias[start : start + len(classes)],
        )
        torch.testing.assert_close(scores[scene == number][:, list(classes)], local)
    # Points of one condition teach nothing to the head of another.
    point_cross_entropy(scores[:2], torch.tensor([1, 3])).backward()
    assert bool((head.weight.grad[:4] == 0).all()) and bool((head.weight.grad[4:] != 0).any())


def test_decoupled_heads_need_conditions():
    head = built(DecoupledHeadsConfig())
    feats, scene = rows((2,))
    with pytest.raises(ValueError, match="the condition 'new' has no head; there are heads for big, small"):
        head(feats, scene, ("new",))
    for conditions in ((), ("",)):
        with pytest.raises(ValueError, match="the condition of a scene is missing; there are heads for big, small"):
            head(feats, scene, conditions)
    with pytest.raises(ValueError, match=r"LabelSet.subsets is empty\); take LinearHeadConfig"):
        DecoupledHeadsConfig().build(6, replace(UNION, subsets=()))


def test_the_language_head_by_hand():
    head = built(LanguageHeadConfig(FixedCodes(5), scale=20.0))
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes == {"project.weight": (5, 6), "project.bias": (5,), "vectors": (5, 5), "log_scale": ()}
    assert {name for name, _ in head.named_parameters()} == {"project.weight", "project.bias"}
    assert float(head.log_scale) == pytest.approx(math.log(20)) and head.source == "fixed orthonormal codes of 5"
    feats, scene = rows((3,))
    cosines = torch.cosine_similarity(head.project(feats)[:, None], head.vectors, dim=2)
    torch.testing.assert_close(head(feats, scene, ()), 20 * cosines, atol=1e-4, rtol=1e-4)
    assert float(LanguageHeadConfig().build(6, UNION).log_scale) == pytest.approx(math.log(100))


def test_impossible_language_heads():
    with pytest.raises(ValueError, match="scale must be positive, not 0"):
        LanguageHeadConfig(scale=0.0)
    with pytest.raises(ValueError, match="a vector per class, and NoVectors has none"):
        LanguageHeadConfig(NoVectors())
    with pytest.raises(ValueError, match="FixedCodes.channels is 4, but 5 classes"):
        LanguageHeadConfig(FixedCodes(4)).build(6, UNION)


@pytest.mark.parametrize("all_levels", [False, True], ids=["last_level", "all_levels"])
def test_segmentation_with_several_datasets(example, all_levels, small_encoder, room):
    """Only classes of a scene's dataset are predicted, for every point of a dense cloud."""
    task = SemSegConfig(encoder=small_encoder, head=example, all_levels=all_levels).build(UNION)
    scenes = [replace(room(i, num=900), condition=name) for i, name in enumerate(("small", "big"))]
    scenes = [replace(s, labels=torch.tensor(POSSIBLE[s.condition])[s.labels.clamp(max=1)]) for s in scenes]
    batch = Batch.of(scenes, small_encoder.inputs)
    out = task.losses(batch, 0)
    assert all(0 < float(v.detach()) < 100 for v in out.terms.values()), "no label is impossible"
    predicted = task.eval().predict(batch)
    assert set(predicted[:900].tolist()) <= {1, 3} and set(predicted[900:].tolist()) <= {0, 1, 2, 4}
    named = {"class_vectors": task.head.source} if task.head.source else {}
    assert task.facts() == named and bool(named) == isinstance(example, LanguageHeadConfig)
