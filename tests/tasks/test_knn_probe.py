import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ponder3d.tasks import knn_probe as module
from ponder3d.tasks.frozen import Labelled, labelled_features, scored
from ponder3d.tasks.knn_probe import KNNProbeConfig, Neighbours, knn_probe
from ponder3d.tasks.linear_probe import LinearProbeConfig, linear_probe
from ponder3d.types import Batch, LabelSet, Scene
from ponder3d.types.labels import IMPOSSIBLE


def coloured(key: int, noise: float = 0.05, num: int = 300) -> Scene:
    """Three classes, three colours."""
    generator = torch.Generator().manual_seed(key)
    labels = torch.randint(0, 3, (num,), generator=generator)
    colours = torch.tensor([[0.8, 0.2, 0.2], [0.7, 0.3, 0.8], [0.2, 0.8, 0.4]])[labels]
    rgb = (colours + noise * torch.randn(num, 3, generator=generator)).clamp(0, 1)
    return Scene(torch.rand(num, 3, generator=generator), rgb, None, f"coloured {key}", labels=labels)


def known(feats: list[list[float]], labels: list[int]) -> Labelled:
    return Labelled(torch.tensor(feats), torch.tensor(labels), torch.zeros(len(labels), dtype=torch.int64), ("",))


def test_votes_by_hand(labels):
    """Standardised, the four points are (+-1, +-1): cosines of the corner (1, 1) with them are 1, 0, 0 and -1."""
    four = known([[2.0, 10], [2, 30], [4, 10], [4, 30]], [2, 0, 0, 1])
    votes = Neighbours(four, labels, KNNProbeConfig(k=3, temperature=0.5))(torch.tensor([[40.0, 390], [3, 20]]), "")
    assert votes[0].tolist() == pytest.approx([2 * math.exp(-2), 1, 0], abs=1e-6), "the farthest has no vote"
    assert votes[1].sum().item() == pytest.approx(3 * math.exp(-2)), "the mean has no direction: all are as near"
    every = Neighbours(four, labels, KNNProbeConfig(k=100, temperature=0.5))(torch.tensor([[4.0, 30]]), "")
    assert every[0].tolist() == pytest.approx([2 * math.exp(-2), 1, math.exp(-4)], abs=1e-6)


def test_parts_are_the_whole(labels, monkeypatch):
    """Whatever fits into memory at a time, it is what a matrix of all similarities says."""
    torch.manual_seed(0)
    reference = known(torch.randn(50, 4).tolist(), torch.randint(0, 3, (50,)).tolist())
    config, queries = KNNProbeConfig(k=7), torch.randn(33, 4)
    whole = Neighbours(reference, labels, config)(queries, "")
    mean, std = reference.moments()
    cosine = F.normalize((queries - mean) / std, dim=1) @ F.normalize((reference.feats - mean) / std, dim=1).T
    for row, expected in zip(whole, cosine, strict=True):
        order = expected.argsort(descending=True)[:7]
        by_hand = torch.zeros(3).index_add_(0, reference.labels[order], ((expected[order] - 1) / 0.07).exp())
        torch.testing.assert_close(row, by_hand)
    sizes = []
    vote = Neighbours._vote
    monkeypatch.setattr(Neighbours, "_vote", lambda self, part: (sizes.append(len(part)), vote(self, part))[1])
    for cells in (1, 170, 50 * 33):
        monkeypatch.setattr(module, "_CELLS", cells)
        torch.testing.assert_close(Neighbours(reference, labels, config)(queries, ""), whole)
    assert sizes == [1] * 33 + [3] * 11 + [33]


def test_classes_are_told_and_chance_is_chance(pass_config, labels):
    encoder, config = pass_config().build(), KNNProbeConfig(points_per_scene=100)
    assert knn_probe(encoder, [coloured(1), coloured(2)], [coloured(3)], labels, config, seed=0)["miou"] > 0.99
    scenes = [replace(coloured(key), rgb=torch.rand(300, 3)) for key in (1, 2, 3)]
    assert knn_probe(encoder, scenes[:2], scenes[2:], labels, config, seed=0)["allacc"] < 0.5


def test_neighbours_see_classes_that_no_plane_divides(pass_config):
    """Red and green alike, or opposite: a class is two opposite corners around grey."""
    sign, alike = torch.where(torch.rand(600) < 0.5, 0.3, -0.3), torch.arange(600) < 300
    rgb = torch.stack([0.5 + sign, 0.5 + torch.where(alike, sign, -sign), torch.full((600,), 0.5)], dim=1)
    scene = Scene(torch.rand(600, 3), rgb + 0.02 * torch.randn(600, 3), None, "corners", labels=alike.long())
    encoder, two = pass_config().build(), LabelSet(("opposite", "alike"), ((0, 0, 0), (1, 1, 1)))
    assert knn_probe(encoder, [scene], [scene], two, KNNProbeConfig(k=5), seed=0)["allacc"] > 0.95
    assert linear_probe(encoder, [scene], [scene], two, LinearProbeConfig(steps=50), seed=0)["allacc"] < 0.7


def test_the_encoder_stays_as_it_is_and_a_seed_decides(small_encoder, labels, room):
    encoder = small_encoder.build().train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    config = KNNProbeConfig(points_per_scene=30)
    state = torch.get_rng_state()
    runs = [knn_probe(encoder, [room(1)], [room(2)], labels, config, seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] and runs[0] != runs[2]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_points_of_each_scene_are_limited(pass_config, labels):
    encoder = pass_config().build()
    batches = [Batch.of([coloured(key, num=num)], ("rgb",)) for key, num in ((1, 40), (2, 5), (3, 40))]
    limited = labelled_features(encoder, batches, labels, 10, seed=4)
    assert torch.bincount(limited.scene).tolist() == [10, 5, 10]
    first = labelled_features(encoder, batches, labels, 25, seed=4).first(10)
    assert all(torch.equal(getattr(first, name), getattr(limited, name)) for name in ("feats", "labels", "scene"))


def test_unlabelled_points_are_neither_used_nor_counted(pass_config, labels):
    scene = coloured(1)
    keep = torch.arange(300) % 2 == 0
    half = replace(scene, rgb=torch.where(keep[:, None], scene.rgb, scene.rgb.flip(1)))
    half = replace(half, labels=torch.where(keep, scene.labels, -1))
    assert knn_probe(pass_config().build(), [half], [half], labels, KNNProbeConfig(), seed=0)["allacc"] > 0.99
    seen = []
    scored(pass_config().build(), [half], labels, {"x": lambda f, c: (seen.append(len(f)), torch.zeros(len(f), 3))[1]})
    assert seen == [150]


def test_of_several_datasets_a_scene_gets_its_own_classes(pass_config):
    joint = LabelSet(("a", "b", "c"), ((0, 0, 0),) * 3, (("one", (0, 1)), ("other", (2,))))
    votes = Neighbours(known([[0.0, 1], [1, 0], [1, 1]], [0, 1, 2]), joint, KNNProbeConfig())(torch.rand(5, 2), "other")
    assert bool((votes[:, :2] == IMPOSSIBLE).all()) and bool((votes.argmax(1) == 2).all())


def test_next_to_nothing(pass_config, labels):
    one = coloured(1, num=1)
    figures = knn_probe(pass_config().build(), [one], [one, coloured(2, num=0)], labels, KNNProbeConfig(), seed=0)
    assert figures["miou"] == figures["allacc"] == 1
    blank = replace(one, labels=torch.tensor([-1]))
    assert knn_probe(pass_config().build(), [one], [blank], labels, KNNProbeConfig(), seed=0)["miou"] == 0


@pytest.mark.parametrize("probe", [(knn_probe, KNNProbeConfig()), (linear_probe, LinearProbeConfig(steps=1))])
def test_scenes_that_cannot_be_used(pass_config, labels, probe):
    call, config = probe
    encoder, good = pass_config().build(), coloured(1)
    blank, bare = replace(good, labels=torch.full((300,), -1)), replace(good, labels=None)
    strange = replace(good, labels=torch.full((300,), 3))
    for train, test, message in (
        ([blank], [good], "the training scenes have no labelled points"),
        ([], [good], "the training scenes have no labelled points"),
        ([bare], [good], "coloured 1 has no point labels"),
        ([good], [bare], "coloured 1 has no point labels"),
        ([strange], [good], "coloured 1 has the label 3, and the classes are 0 to 2"),
        ([good], [strange], "coloured 1 has the label 3, and the classes are 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            call(encoder, train, test, labels, config, 0)
    for wrong in ({"k": 0}, {"temperature": 0.0}, {"points_per_scene": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            KNNProbeConfig(**wrong)
