"""Self-distillation: balanced assignments, a teacher that moves once a step, cells of one place, hidden blocks."""

from dataclasses import replace

import pytest
import torch

from ponder3d.data.transforms import DropPoints, GridSample, Rotate, Scale, TwoViews, apply
from ponder3d.tasks.projection_heads import MLPProjection
from ponder3d.tasks.self_distil import SelfDistilConfig, sinkhorn
from ponder3d.types import Batch

TURNED = (Rotate(probability=1.0), GridSample(0.15))


def two_views(room, *keys: int, first=TURNED, second=()) -> Batch:
    scenes = [
        apply((TwoViews(first, second),), replace(room(key, num=800), rays=None, targets=None), key) for key in keys
    ]
    return Batch.of(scenes)


@pytest.fixture
def config(small_encoder) -> SelfDistilConfig:
    return SelfDistilConfig(
        small_encoder,
        prototypes=6,
        cell=0.4,
        block=(0.3, 0.6),
        head=MLPProjection((8,), 4),
        ramp=10,
        momentum=(0.5, 0.5),
    )


def test_assignments_are_balanced_and_follow_the_scores():
    scores = torch.randn(400, 5, generator=torch.Generator().manual_seed(1)) + torch.tensor([3.0, 0, 0, 0, 0])
    assigned = sinkhorn(scores, 50)
    torch.testing.assert_close(assigned.sum(1), torch.ones(400))
    torch.testing.assert_close(assigned.sum(0), torch.full((5,), 80.0), rtol=1e-3, atol=0.1)
    # Scaling rows and columns keeps the cross ratios of what went in.
    ratio = (assigned[0, 0] * assigned[1, 1]) / (assigned[0, 1] * assigned[1, 0])
    given = (scores[0, 0] + scores[1, 1] - scores[0, 1] - scores[1, 0]).exp()
    torch.testing.assert_close(ratio, given, rtol=1e-3, atol=0)


def test_two_cells_and_two_prototypes_by_hand():
    """exp: [[1, 1/2], [1, 1/4]]; columns by 2 and 3/4: [[1/2, 2/3], [1/2, 1/3]]; rows by 7/6 and 5/6."""
    scores = torch.tensor([[1.0, 0.5], [1.0, 0.25]]).log()
    torch.testing.assert_close(sinkhorn(scores, 1), torch.tensor([[3 / 7, 4 / 7], [3 / 5, 2 / 5]]))


def test_large_scores_stay_finite():
    assert bool(torch.isfinite(sinkhorn(torch.tensor([[900.0, 0.0], [890.0, 1.0]]), 3)).all())


def test_assignments_are_balanced_over_all_ranks(monkeypatch):
    """Two ranks with the same cells: each gets its half of what one would get with all of them."""
    scores = torch.randn(30, 4, generator=torch.Generator().manual_seed(2))
    whole = sinkhorn(torch.cat([scores, scores]), 3)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.mul_(2))
    torch.testing.assert_close(sinkhorn(scores, 3), whole[:30])


def test_the_teacher_moves_once_a_step_and_not_in_evaluation(room, config):
    task, batch = config.build(None), two_views(room, 1, 2)
    with torch.no_grad():
        task.head.prototypes.add_(1.0)
    old = task.teacher_head.prototypes.clone()
    task.eval().losses(batch, 3)
    assert torch.equal(task.teacher_head.prototypes, old)
    task.train()
    for _ in range(2):  # two passes of one step
        task.losses(batch, 3)
        torch.testing.assert_close(task.teacher_head.prototypes, old + 0.5)
    task.losses(batch, 4)
    torch.testing.assert_close(task.teacher_head.prototypes, old + 0.75)


def test_a_new_run_begins_with_equal_networks(room, config):
    task = config.build(None)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.1)
    task.prepare(iter(()))
    assert all(torch.equal(task.teacher_encoder.state_dict()[n], v) for n, v in task.encoder.state_dict().items())
    assert all(torch.equal(task.teacher_head.state_dict()[n], v) for n, v in task.head.state_dict().items())


def test_cells_meet_whatever_has_turned_the_views(room, config):
    task = replace(config, hide=(0.0, 0.0)).build(None)
    assert task.token is None
    batch = two_views(room, 1, 2, first=(Rotate(probability=1.0), Scale(0.5, 2.0)), second=(Rotate(probability=1.0),))
    assert float(task.losses(batch, 0).monitors["matched"]) == 1.0, "all points are in both views"
    half = two_views(room, 1, 2, first=(Rotate(probability=1.0),), second=(DropPoints(0.995),))
    assert 0 < float(task.losses(half, 0).monitors["matched"]) < 0.2


def test_a_student_that_is_its_teacher_agrees(room, config):
    task = replace(config, hide=(0.0, 0.0)).build(None)
    batch = two_views(room, 1, first=(Scale(1.0, 1.0),), second=(Scale(1.0, 1.0),))
    found = task.eval().predict(batch)
    assert torch.equal(found.student, found.teacher) and len(found.student) > 50
    metric = task.metric()
    metric.update(found, batch)
    assert metric.compute()["agreement"] == 1.0
    torch.testing.assert_close(found.xyz.abs().amax(1), torch.ones(len(found.xyz)), rtol=0, atol=0.21)  # on the walls


def test_hidden_points_are_moved_and_carry_the_token(room, config):
    task, batch = config.build(None), two_views(room, 1, 2)
    seen = task._hidden(batch, 10)
    moved = (seen.points.xyz != batch.points.xyz).any(1)
    assert 0.5 < float(moved.float().mean()) < 0.9  # 70 % of the blocks
    assert torch.equal(seen.points.feats[moved], task.token.expand(int(moved.sum()), -1))
    assert torch.equal(seen.points.feats[~moved], batch.points.feats[~moved])
    gap = (seen.points.xyz - batch.points.xyz)[moved]
    assert 0.06 < float(gap.std()) < 0.09  # half a voxel of 0.15 m
    few = (task._hidden(batch, 0).points.xyz != batch.points.xyz).any(1).float().mean()
    assert 0.2 < float(few) < 0.4
    assert task.eval()._hidden(batch, 10) is batch


def test_it_learns_to_agree_and_does_not_collapse(room, config):
    task, batch = config.build(None), two_views(room, 1, 2)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    first = None
    for step in range(14):
        out = task.losses(batch, step)
        loss = out.terms["distil"]
        first = loss.detach() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.9 * float(first)
    assert float(out.monitors["used"]) > 0.5 and float(out.monitors["spread"]) > 0.5


def test_without_a_second_view(room, config):
    with pytest.raises(ValueError, match="SelfDistil: no second view of box 1; put TwoViews"):
        config.build(None).losses(Batch.of([room(1)]), 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"hide": (0.0, 1.5)}, "hide must be shares"),
        ({"momentum": (-0.1, 1.0)}, "momentum must be shares"),
        ({"block": (0.0, 1.0)}, "block must be positive"),
        ({"teacher_temperature": (0.1, 0.0)}, "teacher_temperature must be positive"),
        ({"cell": 0.0}, "cell must be positive"),
        ({"prototypes": 1}, "prototypes must be at least 2"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"jitter": -1.0}, "jitter must not be negative"),
    ],
)
def test_wrong_choices(wrong, words):
    with pytest.raises(ValueError, match=f"SelfDistilConfig.{words}"):
        SelfDistilConfig(**wrong)
