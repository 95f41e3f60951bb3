import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ponder3d.data.transforms import GridSample
from ponder3d.geometry.drawing import UNLABELLED
from ponder3d.geometry.grid import voxelize
from ponder3d.metrics.segmentation import SegmentationMetric
from ponder3d.tasks.semseg import SemSegConfig, lovasz_softmax
from ponder3d.types import Batch, Boxes, Cameras, LabelSet, Scene, Views
from ponder3d.volume.convert import sample_at


@pytest.fixture
def task(pass_config, labels):
    """Logits are the inputs, 2 rgb - 1."""
    made = SemSegConfig(encoder=pass_config()).build(labels)
    with torch.no_grad():
        made.head.weight.copy_(torch.eye(3))
        made.head.bias.zero_()
    return made


def batch(logits: torch.Tensor, labels: list[int] | None) -> Batch:
    truth = None if labels is None else torch.tensor(labels, dtype=torch.int64)
    return Batch.of([Scene(torch.rand(len(logits), 3), (logits + 1) / 2, None, "few points", labels=truth)], ("rgb",))


def brute_force_lovasz(p: torch.Tensor, labels: torch.Tensor) -> float:
    """The Lovasz extension of the Jaccard loss by its definition on sets (Berman et al. 2018, eq. 5 and 9)."""
    points = [i for i in range(len(labels)) if labels[i] >= 0]
    per_class = []
    for c in sorted({int(labels[i]) for i in points}):
        truth = {i for i in points if labels[i] == c}

        def jaccard_loss(wrong, truth=truth):  # of the prediction that is wrong on these points only
            return len(wrong) / len(truth | wrong) if wrong else 0.0

        error = {i: 1 - float(p[i, c]) if i in truth else float(p[i, c]) for i in points}
        wrong, total = set(), 0.0
        for i in sorted(points, key=lambda i: -error[i]):
            total += error[i] * (jaccard_loss(wrong | {i}) - jaccard_loss(wrong))
            wrong.add(i)
        per_class.append(total)
    return sum(per_class) / len(per_class) if per_class else 0.0


@pytest.mark.parametrize("none", [-1, -2, -100])
def test_cross_entropy_over_labelled_points(task, none):
    logits = torch.tensor([[0.5, -0.2, 0.1], [0.9, 0.3, -1.0], [0.0, 0.0, 0.0], [-0.4, 0.7, 0.2]])
    terms = task.losses(batch(logits, [0, 2, none, 1]), 0).terms
    rows = logits[[0, 1, 3]]
    by_hand = -(rows[range(3), [0, 2, 1]] - rows.exp().sum(1).log()).mean()
    torch.testing.assert_close(terms["cross_entropy"], by_hand)
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(rows, torch.tensor([0, 2, 1])))
    torch.testing.assert_close(terms["lovasz"], lovasz_softmax(rows.softmax(1), torch.tensor([0, 2, 1])))


@pytest.mark.parametrize("num", [1, 2, 7, 40])
def test_lovasz_is_the_extension_of_the_jaccard_loss(num):
    for _ in range(5):
        p, labels = torch.randn(num, 4).softmax(1), torch.randint(-1, 4, (num,))
        assert float(lovasz_softmax(p, labels)) == pytest.approx(brute_force_lovasz(p, labels), abs=1e-5)


def test_lovasz_of_hard_predictions_is_one_minus_the_mean_iou():
    truth, predicted = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 0])
    loss = lovasz_softmax(F.one_hot(predicted, 3).float(), truth)
    assert float(loss) == pytest.approx(1 - (2 / 4 + 1 / 3) / 2)


def test_a_perfect_prediction_has_no_lovasz_loss():
    truth = torch.tensor([0, 2, 2, -1, 1])
    assert float(lovasz_softmax(F.one_hot(truth.clamp(min=0), 3).float(), truth)) == 0


def test_gradient_of_lovasz():
    p = torch.rand(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: lovasz_softmax(x, torch.tensor([0, 1, 1, 2, -1, 0])), p)


def test_unlabelled_points_contribute_nothing(task):
    logits = (torch.rand(20, 3) * 2 - 1).requires_grad_()
    labels = torch.randint(0, 3, (20,))
    labels[::3] = -1
    sum(task.losses(batch(logits, labels.tolist()), 0).terms.values()).backward()
    assert bool((logits.grad[::3] == 0).all()) and bool((logits.grad[1::3].abs().sum(1) > 0).all())
    changed = torch.where(labels[:, None] < 0, -logits.detach(), logits.detach())
    before, after = (task.losses(batch(x, labels.tolist()), 0) for x in (logits.detach(), changed))
    assert all(before.terms[k] == after.terms[k] for k in before.terms)
    assert before.monitors["accuracy"] == after.monitors["accuracy"]


@pytest.mark.parametrize("num", [0, 9])
def test_without_any_label_the_gradient_is_zero(task, num):
    logits = torch.randn(num, 3).requires_grad_()
    out = task.losses(batch(logits, [-1] * num), 0)
    assert {k: float(v.detach()) for k, v in out.terms.items()} == {"cross_entropy": 0, "lovasz": 0}
    sum(out.terms.values()).backward()
    assert bool((logits.grad == 0).all()) and float(task.head.weight.grad.abs().max()) == 0
    assert float(out.monitors["accuracy"]) == 0


def test_weights_of_the_terms(task, pass_config, labels):
    data = batch(torch.randn(9, 3), [0, 1, 2] * 3)
    plain = task.losses(data, 0).terms
    for cross_entropy, lovasz in ((2.0, 0.5), (1.0, 0.0), (0.0, 3.0)):
        other = SemSegConfig(pass_config(), cross_entropy, lovasz).build(labels)
        other.load_state_dict(task.state_dict())
        terms = other.losses(data, 0).terms
        expected = {"cross_entropy": cross_entropy, "lovasz": lovasz}
        assert set(terms) == {name for name, weight in expected.items() if weight}
        for name, value in terms.items():
            torch.testing.assert_close(value, expected[name] * plain[name])


def test_prediction_metric_and_pictures(task):
    logits = torch.tensor([[0.5, 0.1, 0], [0, 0.1, 0.9], [0.2, 0.7, 0], [0, 0, 0.1]])
    data = batch(logits, [0, 2, 0, -1])
    predicted = task.predict(data)
    assert predicted.tolist() == [0, 2, 1, 2]
    metric = task.metric()
    assert isinstance(metric, SegmentationMetric)
    metric.update(predicted, data)
    assert metric.compute()["allacc"] == pytest.approx(2 / 3)
    assert float(task.losses(data, 0).monitors["accuracy"]) == pytest.approx(2 / 3)
    (picture,) = task.pictures(predicted, data)
    assert picture.rgb.dtype == torch.uint8 and picture.rgb.shape[2] == 3


def test_a_street_is_drawn_from_above_with_its_boxes(task):
    data = batch(torch.zeros(4, 3), [0, 1, 2, -1])
    xyz = torch.tensor([[-30.0, 30, 0], [30.0, -30, 1], [10.0, 10, 0], [-10.0, -10, 0]])
    boxes = Boxes(torch.zeros(1, 3), torch.full((1, 3), 4.0), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    street = replace(data, points=replace(data.points, xyz=xyz), boxes=(boxes,))
    classes, points = task.pictures(torch.tensor([0, 1, 1, 2]), street)
    assert (classes.name, points.name) == ("classes", "points") and classes.rgb.shape == (400, 800, 3)
    predicted, true = classes.rgb[:, :400], classes.rgb[:, 400:]
    differ = (predicted != true).any(-1).nonzero()
    # The third and the last point, 10 m to the right and ahead, and to the left and behind: 4 pixels a metre.
    assert differ.tolist() == [[159, 240], [239, 160]]
    assert true[239, 160].tolist() == list(UNLABELLED)
    assert predicted[199, 200].tolist() == points.rgb[199, 200].tolist() == [0, 0, 0]  # the middle of the box
    narrow = replace(data, points=replace(data.points, xyz=xyz * torch.tensor([0.5, 1, 1])))
    assert len(task.pictures(torch.tensor([0, 1, 1, 2]), narrow)) == 1, "a corridor is no street"


def test_encoders_see_the_images_of_a_scene_in_every_pass(task):
    pose, size = torch.eye(4)[None], (2, 3)
    cameras = Cameras(torch.eye(3)[None], pose, size)
    images = Views(cameras, torch.zeros(1, *size, 3, dtype=torch.uint8), None, None, torch.tensor([1]))
    seen = []
    with task.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].images)):
        task.eval().predict(replace(batch(torch.zeros(4, 3), None), images=images))
    assert seen and all(shown is images for shown in seen)


def test_every_point_of_a_dense_cloud_is_scored(room, small_encoder, labels):
    """A fragment is what the encoder is trained on; the scores of a point in several of them are added."""
    task = SemSegConfig(encoder=small_encoder).build(labels).eval()
    data = Batch.of([room(1, num=2000), room(2, num=900)], small_encoder.inputs)
    points, size = data.points, small_encoder.grid_size
    voxels = voxelize(points.xyz, points.scene, size)
    assert int(voxels.counts.max()) > 4
    seen = []

    def look(module, args):
        seen.append(args[0])

    with task.encoder.register_forward_pre_hook(look):
        predicted = task.predict(data)
    assert len(seen) == int(voxels.counts.max())
    total, rows_of = torch.zeros(2900, 3), {tuple(p): i for i, p in enumerate(points.xyz.tolist())}
    for part in seen:
        assert int(voxelize(part.points.xyz, part.points.scene, size).counts.max()) == 1
        rows = torch.tensor([rows_of[tuple(p)] for p in part.points.xyz.tolist()])
        assert torch.equal(part.points.scene, points.scene[rows])
        with torch.no_grad():
            total[rows] += task.logits(part).softmax(1)
    assert bool((total.sum(1) > 0.99).all()), "every point"
    assert torch.equal(predicted, total.argmax(1))
    metric = task.metric()
    metric.update(predicted, data)
    assert float(metric.state.sum()) == 2900


def test_a_sampled_cloud_takes_one_pass(room, small_encoder, labels):
    task = SemSegConfig(encoder=small_encoder).build(labels).eval()
    scene = GridSample(small_encoder.grid_size)(room(1, num=2000), torch.Generator())
    data = Batch.of([scene], small_encoder.inputs)
    calls = []
    with task.encoder.register_forward_pre_hook(lambda module, args: calls.append(args)):
        predicted = task.predict(data)
    assert len(calls) == 1
    with torch.no_grad():
        assert torch.equal(predicted, task.logits(data).argmax(1))


def test_errors(task, pass_config):
    with pytest.raises(ValueError, match="no point labels in few points"):
        task.losses(batch(torch.randn(4, 3), None), 0)
    with pytest.raises(ValueError, match="the dataset has no labels"):
        SemSegConfig(encoder=pass_config()).build(None)


def test_the_encoder_is_trained_through_voxels(room, small_encoder, labels):
    task = SemSegConfig(encoder=small_encoder).build(labels)
    data = Batch.of([room(1), replace(room(2), labels=None)], small_encoder.inputs)
    data = replace(data, labels=torch.cat([room(1).labels, torch.full((500,), -1)]))
    sum(task.losses(data, 0).terms.values()).backward()
    assert all(bool(torch.isfinite(p.grad).all()) and float(p.grad.abs().max()) > 0 for p in task.parameters())


def test_the_number_of_classes_is_that_of_the_dataset(pass_config):
    two = LabelSet(("a", "b"), ((0, 0, 0), (1, 1, 1)))
    assert SemSegConfig(encoder=pass_config()).build(two).head.out_features == 2


def test_a_head_for_frozen_features(pass_config, labels):
    """Classes are told by their colour: after one pass over it the head tells them, and the encoder is as it was."""
    colours = torch.tensor([[0.9, 0.2, 0.2], [0.2, 0.9, 0.2], [0.2, 0.2, 0.9]])
    truth = torch.arange(60) % 3
    data = batch(2 * colours[truth] - 1 + 0.1 * torch.randn(60, 3), truth.tolist())
    drawn = []

    def passes():
        for number in itertools.count():
            drawn.append(number)
            yield [data]

    task = SemSegConfig(pass_config(), head_passes=2).build(labels)
    assert float((task.predict(data) == truth).float().mean()) < 0.9
    task.prepare(passes())
    assert bool((task.predict(data) == truth).all()) and drawn == [0, 1]
    assert all(p.requires_grad for p in task.parameters())
    plain = SemSegConfig(pass_config()).build(labels)
    before = plain.head.weight.clone()
    plain.prepare(passes())
    assert torch.equal(plain.head.weight, before) and drawn == [0, 1]


def test_a_head_needs_labels(pass_config, labels):
    task = SemSegConfig(pass_config(), head_passes=1).build(labels)
    with pytest.raises(ValueError, match="no labelled points"):
        task.prepare(iter([[batch(torch.randn(4, 3), [-1] * 4)]]))
    with pytest.raises(ValueError, match="head_passes must not be negative"):
        SemSegConfig(pass_config(), head_passes=-1)


@pytest.mark.parametrize("truth", [1, -1])
def test_a_scene_of_one_point(small_encoder, labels, truth):
    """Alone, in training and in evaluation, with a class and without one."""
    task = SemSegConfig(encoder=small_encoder).build(labels)
    one = Scene(torch.rand(1, 3), torch.rand(1, 3), torch.eye(3)[:1], "one", labels=torch.tensor([truth]))
    data = Batch.of([one], small_encoder.inputs)
    out = task.train().losses(data, 0)
    sum(out.terms.values()).backward()
    assert all(bool(torch.isfinite(v.detach())) for v in [*out.terms.values(), *out.monitors.values()])
    assert all(bool(torch.isfinite(p.grad).all()) for p in task.parameters())
    predicted = task.eval().predict(data)
    metric = task.metric()
    metric.update(predicted, data)
    assert predicted.shape == (1,) and float(metric.state.sum()) == (truth >= 0)
    (picture,) = task.pictures(predicted, data)
    assert picture.rgb.numel() > 0


def test_a_head_is_fitted_to_labels_that_are_classes(pass_config, labels):
    task = SemSegConfig(pass_config(), head_passes=1).build(labels)
    for given, message in (([0, 3], "few points has the label 3"), (None, "few points has no point labels")):
        with pytest.raises(ValueError, match=message):
            task.prepare(iter([[batch(torch.randn(2, 3), given)]]))


def test_a_head_that_reads_all_levels(room, small_encoder, labels, pass_config):
    """The head sees every level, is fitted to them beforehand, and through it every level is trained at once."""
    torch.manual_seed(0)
    task = SemSegConfig(encoder=small_encoder, head_passes=1, all_levels=True).build(labels)
    half = len(small_encoder.channels) // 2
    assert task.head.in_features == sum(small_encoder.channels[half:]) > task.encoder.out_channels
    assert set(task.state_dict()) == set(SemSegConfig(encoder=small_encoder).build(labels).state_dict())
    data = Batch.of([room(1), room(2)], small_encoder.inputs)
    before = task.head.weight.clone()
    task.prepare(iter([[data]]))
    assert bool((task.head.weight != before).any(0).all()), "of every level"
    with torch.no_grad():
        levels = sample_at(task.eval().encoder.all_levels()(data), data.points.xyz, data.points.scene)
        torch.testing.assert_close(task.logits(data), levels @ task.head.weight.T + task.head.bias)
        task.head.weight[:, -task.encoder.out_channels :] = 0  # nothing comes through the last level
    task.train().losses(data, 0).terms["cross_entropy"].backward()
    assert float(next(task.encoder.dec[-1].parameters()).grad.abs().max()) == 0
    for stage in task.encoder.dec[:-1]:
        assert float(next(stage.parameters()).grad.abs().max()) > 0
    with pytest.raises(ValueError, match="all_levels: a \\w+ has one level"):
        SemSegConfig(encoder=pass_config(), all_levels=True).build(labels)
