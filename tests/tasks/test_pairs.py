"""Pairs of two views: the nearest within a distance, in the same scene, and a choice that the keys decide."""

from dataclasses import replace

import pytest
import torch

from ponder3d.data.transforms import DropPoints, GridSample, Rotate, TwoViews, apply
from ponder3d.tasks.pairs import PairsConfig, choose_rows, mine_pairs
from ponder3d.types import Batch, Scene


def zeros(num: int) -> torch.Tensor:
    return torch.zeros(num, dtype=torch.int64)


def cloud(num: int, key: int) -> Scene:
    xyz = torch.rand(num, 3, generator=torch.Generator().manual_seed(key)) * torch.tensor([3.0, 2.0, 0.2]) - 1
    return Scene(xyz=xyz, rgb=xyz, normal=None, source=f"cloud {key}")


def two_views(*keys: int, num: int = 400) -> Batch:
    steps = (Rotate(probability=1.0), DropPoints(0.3), GridSample(0.06))
    return Batch.of([apply((TwoViews(steps),), cloud(num + 50 * key, key), key) for key in keys], ("rgb",))


def test_a_choice_has_as_many_slots_for_every_scene_and_no_row_twice():
    counts = torch.tensor([6, 0, 3])
    scene = counts.new_tensor([0] * 6 + [2] * 3)
    usable = torch.tensor([1, 0, 1, 1, 0, 1, 0, 0, 1]).bool()
    rows = choose_rows(usable, scene, counts, torch.tensor([5, 6, 7]), 3).view(3, 3)
    assert len(set(rows[0].tolist())) == 3 and set(rows[0].tolist()) <= {0, 2, 3, 5}
    assert rows[1].tolist() == [-1] * 3 and rows[2].tolist() == [8, -1, -1]
    assert choose_rows(usable, scene, counts, torch.tensor([5, 6, 7]), 100).shape == (3 * 9,)


def test_a_choice_is_uniform():
    usable, counts = torch.ones(10).bool(), torch.tensor([10])
    picked = [choose_rows(usable, zeros(10), counts, torch.tensor([key]), 4) for key in range(2000)]
    share = torch.bincount(torch.cat(picked), minlength=10) / 2000
    assert bool(((share - 0.4).abs() < 0.05).all()), share  # 4.5 standard deviations


def test_pairs_are_pairs_and_the_keys_decide_which():
    config = PairsConfig(0.05, 64)
    batch = two_views(3, 4)
    assert batch.pair is not None and batch.place is not None
    pairs = mine_pairs(batch, config)
    assert pairs.first.shape == (128,) and bool(pairs.valid.all())
    gap = (batch.place[pairs.first] - batch.pair.place[pairs.second]).norm(dim=1)
    assert float(gap.max()) <= 0.05
    assert torch.equal(batch.points.scene[pairs.first], pairs.scene)
    assert torch.equal(batch.pair.points.scene[pairs.second], pairs.scene)
    assert torch.equal(mine_pairs(batch, config).first, pairs.first)
    other = mine_pairs(replace(batch, keys=batch.keys + 1), config)
    assert not torch.equal(other.first, pairs.first)


def test_a_scene_has_the_same_pairs_in_any_batch():
    config = PairsConfig(0.05, 32)
    alone, both = two_views(4), two_views(3, 4)
    one, two = mine_pairs(alone, config), mine_pairs(both, config)
    begin, other = int(both.points.counts[0]), int(both.pair.points.counts[0])
    assert torch.equal(two.first[32:] - begin, one.first) and torch.equal(two.second[32:] - other, one.second)


def test_only_usable_points_are_chosen():
    batch = two_views(3)
    usable = torch.arange(len(batch.points.xyz)) % 2 == 0
    pairs = mine_pairs(batch, PairsConfig(0.05, 1000), usable)
    assert 0 < int(pairs.valid.sum()) < len(pairs.valid) and bool((pairs.first[pairs.valid] % 2 == 0).all())
    assert not bool(pairs.first[~pairs.valid].any()) and not bool(pairs.second[~pairs.valid].any())


def test_without_a_second_view():
    with pytest.raises(ValueError, match="no second view of cloud 1; put TwoViews among the transforms"):
        mine_pairs(Batch.of([cloud(10, 1)]), PairsConfig())


@pytest.mark.parametrize("wrong", [{"distance": 0.0}, {"max_pairs": 0}])
def test_wrong_choices(wrong):
    with pytest.raises(ValueError, match="PairsConfig: distance must be positive and max_pairs at least 1"):
        PairsConfig(**wrong)
