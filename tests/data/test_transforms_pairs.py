"""Two views of a scene: the same points under two augmentations, known by where they were."""

from dataclasses import replace

import pytest
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.loader import Collate
from ponder3d.data.mix import mix_pairs
from ponder3d.data.transforms import DropModality, DropPoints, GridSample, RemoveBlocks, Rotate, Shift, TwoViews, apply
from ponder3d.engine.experiment import _dropped
from ponder3d.types import Batch, Scene

TURN = Rotate(probability=1.0)


def corner(num: int = 64) -> Scene:
    generator = torch.Generator().manual_seed(3)
    xyz = torch.rand(num, 3, generator=generator) * 2
    return Scene(xyz=xyz, rgb=xyz / 2, normal=None, source="corner", labels=torch.arange(num))


def test_both_views_hold_the_same_points_in_other_places() -> None:
    scene = apply((TwoViews((TURN,)),), corner(), 0, 0)
    assert scene.pair is not None
    assert not torch.allclose(scene.xyz, scene.pair.xyz, atol=1e-2)
    for view in (scene, scene.pair):
        torch.testing.assert_close(view.place, corner().xyz, rtol=0, atol=0)
        # A rotation about z leaves distances from the axis and heights as they were.
        torch.testing.assert_close(view.xyz[:, :2].norm(dim=1), corner().xyz[:, :2].norm(dim=1))
        torch.testing.assert_close(view.xyz[:, 2], corner().xyz[:, 2])


def test_places_follow_points_that_are_taken_away() -> None:
    scene = apply((TwoViews((DropPoints(0.5),), (GridSample(0.4),)),), corner(), 0, 1)
    assert scene.pair is not None and len(scene.xyz) != len(scene.pair.xyz)
    for view in (scene, scene.pair):
        assert view.labels is not None and view.place is not None
        torch.testing.assert_close(view.place, corner().xyz[view.labels], rtol=0, atol=0)


def test_keys_of_the_two_views_differ_and_are_the_same_every_time() -> None:
    one, again = (apply((TwoViews((TURN,)),), corner(), 5, 7) for _ in range(2))
    assert one.pair is not None and again.pair is not None
    assert one.key != one.pair.key and one.pair.key == again.pair.key
    torch.testing.assert_close(one.pair.xyz, again.pair.xyz, rtol=0, atol=0)


def test_steps_of_one_view_leave_the_other_as_it_was() -> None:
    one = apply((TwoViews((TURN,), (TURN,)),), corner(), 0, 2)
    other = apply((TwoViews((TURN, Shift()), (TURN,)),), corner(), 0, 2)
    assert one.pair is not None and other.pair is not None
    torch.testing.assert_close(one.pair.xyz, other.pair.xyz, rtol=0, atol=0)


def test_what_follows_is_done_to_the_first_view_only() -> None:
    scene = apply((TwoViews((TURN,)), DropPoints(0.5)), corner(), 0, 3)
    assert scene.pair is not None
    assert (len(scene.xyz), len(scene.pair.xyz)) == (32, 64)


def test_a_second_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="has a pair already"):
        apply((TwoViews(), TwoViews()), corner(), 0)


def test_a_grid_size_reaches_both_views() -> None:
    views = TwoViews((GridSample(),), (GridSample(), RemoveBlocks())).on_grid(0.1)
    assert [step.size for step in (*views.first, *views.second) if isinstance(step, GridSample)] == [0.1, 0.1]


def test_inputs_that_a_view_loses_are_known() -> None:
    assert _dropped((TwoViews((TURN,), (DropModality(colour=0.5),)),)) == {"rgb", "normal"}


def test_a_batch_keeps_pairs_in_the_order_of_its_scenes() -> None:
    scenes = [apply((TwoViews((TURN, DropPoints(0.5)), (TURN,)),), corner(n), 0, n) for n in (10, 20)]
    batch = Batch.of(scenes, ("rgb", "one"))
    assert batch.pair is not None and batch.place is not None and batch.pair.place is not None
    assert batch.points.counts.tolist() == [5, 10] and batch.pair.points.counts.tolist() == [10, 20]
    assert batch.pair.points.feats.shape == (30, 4)
    torch.testing.assert_close(batch.pair.place[:10], corner(10).xyz)
    assert Batch.of([scenes[0], corner()]).pair is None


def test_a_budget_of_points_counts_both_views() -> None:
    scenes = [apply((TwoViews((TURN,)),), corner(64), 0, n) for n in range(2)]
    batch = Collate(("one",), max_points=100)(scenes)
    assert batch.pair is not None
    assert batch.points.counts.tolist() == batch.pair.points.counts.tolist() == [25, 25]


def test_pairs_are_not_mixed() -> None:
    scenes = [apply((TwoViews(),), replace(corner(), source=f"corner {n}"), 0, n) for n in range(2)]
    with pytest.raises(DataError, match=r"corner 0: has two views.*Experiment.mix"):
        mix_pairs(scenes, 1.0)
