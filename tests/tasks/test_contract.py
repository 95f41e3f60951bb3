"""What every task and every metric of the package promises, found by walking it; a new one is tested without a word."""

import math
from dataclasses import replace

import pytest
import torch

from ponder3d.config import from_json, to_json
from ponder3d.data import transforms as tf
from ponder3d.data.gradient_features import GradientMaps
from ponder3d.data.synthetic.rooms import ROOMS_LABELS, RoomsConfig
from ponder3d.metrics.metric import Metric
from ponder3d.tasks.class_vectors import FixedCodes
from ponder3d.tasks.task import Picture, StepLosses, TaskConfig
from ponder3d.types import Batch

FAMILY = TaskConfig


@pytest.fixture(scope="module")
def rooms() -> tuple[Batch, Batch]:
    """A training batch of two generated rooms with rays and pairs, and a batch of one with its views besides."""
    data = RoomsConfig(num_rooms=2, num_views=3, num_fused_views=2, image_size=(24, 32), cloud_spacing=0.08).build()
    thin = (tf.Centre(), tf.GridSample(0.15))
    seen = (tf.PickRays(2, 32, features=GradientMaps()), tf.TwoViews((tf.RemoveBlocks(0.5, 0.5),), (tf.PointsOnly(),)))
    train = [tf.apply((*thin, *seen), data[i], i) for i in range(2)]
    whole = tf.apply(thin, data[0], 0)
    return Batch.of(train), Batch.of([replace(tf.apply(seen, whole, 0), views=whole.views)])


@pytest.fixture
def build(small_encoder, small_ponder):
    """Builds a task with a small encoder; tasks that are slow otherwise get small parts too."""
    small_parts = {type(small_ponder): replace(small_ponder, semantics=FixedCodes(len(ROOMS_LABELS)), points=1.0)}

    def make(config: type[TaskConfig]):
        made = small_parts.get(config) or replace(config(), encoder=small_encoder)
        torch.manual_seed(0)
        return made, made.build(ROOMS_LABELS)

    return make


def test_there_are_tasks_and_metrics(members):
    assert {c.__name__ for c in members(TaskConfig)} >= {"PonderConfig", "SemSegConfig"}
    assert {c.__name__ for c in members(Metric)} >= {"RenderingMetric", "SegmentationMetric"}


def test_losses_are_finite_and_train_every_parameter(rooms, build, member):
    _, task = build(member)
    out = task.losses(rooms[0], 0)
    assert isinstance(out, StepLosses) and out.terms
    assert all(
        v.shape == () and math.isfinite(float(v.detach())) for v in [*out.terms.values(), *out.monitors.values()]
    )
    assert all(v.requires_grad for v in out.terms.values())
    assert not any(v.requires_grad for v in out.monitors.values())
    sum(out.terms.values()).backward()
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_a_step_is_a_function_of_weights_and_batch(rooms, build, member):
    """Not of the state of torch's random numbers: a run can be continued anywhere."""
    totals = []
    for seed in (1, 2):
        _, task = build(member)
        torch.manual_seed(seed)
        totals.append({name: float(v.detach()) for name, v in task.losses(rooms[0], 0).terms.items()})
    assert totals[0] == totals[1]


def test_evaluation_changes_nothing(rooms, build, member):
    _, task = build(member)
    task.eval()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    with torch.no_grad():
        first, again = (task.predict(rooms[1]) for _ in range(2))
        task.losses(rooms[0], 0)
    metrics = [task.metric(), task.metric()]
    for metric, prediction in zip(metrics, (first, again), strict=True):
        metric.update(prediction, rooms[1])
    assert torch.equal(metrics[0].state, metrics[1].state)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    for picture in task.pictures(first, rooms[1]):
        assert isinstance(picture, Picture) and picture.name and picture.rgb.ndim == 3 and picture.rgb.numel() > 0


def test_a_task_is_its_configuration_and_its_weights(rooms, build, member):
    made, task = build(member)
    assert from_json(TaskConfig, to_json(made)) == made
    assert isinstance(task.encoder, torch.nn.Module) and task.encoder.config == made.encoder
    torch.manual_seed(5)
    other = made.build(ROOMS_LABELS)
    other.load_state_dict(task.state_dict())
    a, b = (t.eval().losses(rooms[0], 0).terms for t in (task, other))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_metrics_are_sums(rooms, build, member):
    """Merging ranks is adding their states, and a fresh state adds nothing."""
    _, task = build(member)
    with torch.no_grad():
        prediction = task.eval().predict(rooms[1])
    metric, fresh = task.metric(), task.metric()
    assert metric.state.dtype == torch.float64 and float(fresh.state.abs().sum()) == 0
    assert all(math.isfinite(v) for v in fresh.compute().values()), "nothing seen yet"
    metric.update(prediction, rooms[1])
    once = metric.state.clone()
    figures = metric.compute()
    assert figures and all(isinstance(k, str) and isinstance(v, float) for k, v in figures.items())
    assert all(math.isfinite(v) for v in figures.values())
    assert torch.equal(metric.state, once), "computing changes nothing"
    metric.update(prediction, rooms[1])
    torch.testing.assert_close(metric.state, 2 * once)
    fresh.state = once + torch.zeros_like(once)
    assert fresh.compute() == figures
    assert metric.compute() == pytest.approx(figures), "the same scene twice has the same figures"


def test_every_metric_is_the_metric_of_a_task(build, members):
    used = {type(build(config)[1].metric()) for config in members(TaskConfig)}
    assert set(members(Metric)) <= used, "a metric of its own needs a test of its own: see test_metrics_are_sums"
