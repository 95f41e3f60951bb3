"""InfoNCE by hand, and contrast between two views of a box room whose colours say where a point is."""

import math
from dataclasses import replace

import pytest
import torch

from ponder3d.data.transforms import DropPoints, Rotate, TwoViews, apply
from ponder3d.tasks.contrast import info_nce, most_alike
from ponder3d.tasks.pairs import PairsConfig
from ponder3d.tasks.point_contrast import PointContrastConfig
from ponder3d.tasks.projection_heads import MLPProjection
from ponder3d.types import Batch

TURNED = TwoViews((Rotate(probability=1.0), DropPoints(0.2)))


@pytest.fixture
def views(room) -> Batch:
    scenes = [apply((TURNED,), replace(room(key), rays=None, targets=None), key) for key in (1, 2)]
    return Batch.of(scenes, ("rgb",))


def test_info_nce_by_hand():
    basis, valid = torch.eye(2), torch.ones(2, dtype=torch.bool)
    loss, right = info_nce(3 * basis, basis, valid, 0.5)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-2))) and float(right) == 1
    loss, right = info_nce(basis, basis.flip(0), valid, 0.5)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(2))) and float(right) == 0


def test_rows_of_one_owner_are_no_negatives():
    """Three rows that are all alike: of two of one owner neither is told from the other."""
    same, valid = torch.ones(3, 2), torch.ones(3, dtype=torch.bool)
    assert float(info_nce(same, same, valid, 1.0)[0]) == pytest.approx(math.log(3))
    owner = torch.tensor([4, 4, 9])
    assert float(info_nce(same, same, valid, 1.0, owner)[0]) == pytest.approx((2 * math.log(2) + math.log(3)) / 3)


def test_rows_that_are_not_valid_have_no_part():
    torch.manual_seed(1)
    a, b = torch.randn(2, 5, 4)
    valid = torch.tensor([True, True, False, True, False])
    a.requires_grad_()
    loss, right = info_nce(a, b, valid, 0.1)
    alone, right_alone = info_nce(a[valid], b[valid], valid[valid], 0.1)
    torch.testing.assert_close(loss, alone)
    assert float(right) == float(right_alone)
    loss.backward()
    assert a.grad is not None and bool((a.grad.abs().sum(1) > 0).equal(valid))


def test_without_any_valid_row_there_is_nothing_to_learn():
    a = torch.randn(3, 4, requires_grad=True)
    loss, right = info_nce(a, torch.randn(3, 4), torch.zeros(3, dtype=torch.bool), 0.1)
    loss.backward()
    assert a.grad is not None and float(a.grad.abs().max()) == 0
    assert float(loss.detach()) == 0 and float(right) == 0


def test_the_most_alike_is_of_the_same_scene():
    queries = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    targets = torch.tensor([[0.0, 5], [1, 1], [1, 0]])
    assert most_alike(queries, targets, torch.tensor([0, 0, 0])).tolist() == [2, 0, 2]
    assert most_alike(queries, targets, torch.tensor([0, 0, 1])).tolist() == [1, 0, 2]


def test_features_that_say_where_a_point_is_find_every_place(views, pass_config):
    """Colours are places from the middle of the box, and no two points lie in one direction from it."""
    task = PointContrastConfig(encoder=pass_config(), pairs=PairsConfig(1e-4, 100)).build(None).eval()
    prediction = task.predict(views)
    assert prediction.scene.tolist() == [0] * 100 + [1] * 100
    assert prediction.found.tolist() == list(range(200))
    metric = task.metric()
    metric.update(prediction, views)
    figures = metric.compute()
    assert figures["within_10cm"] == 1 and 0.01 <= figures["chance_10cm"] < 0.05


def test_places_are_found_by_chance_when_features_say_nothing(views, pass_config):
    task = PointContrastConfig(encoder=pass_config(("one",)), pairs=PairsConfig(1e-4, 100)).build(None).eval()
    batch = replace(views, points=replace(views.points, feats=views.points.feats[:, :1] * 0 + 1))
    pair = replace(views.pair, points=replace(views.pair.points, feats=views.pair.points.feats[:, :1] * 0 + 1))
    metric = task.metric()
    metric.update(task.predict(replace(batch, pair=pair)), views)
    figures = metric.compute()
    assert figures["within_20cm"] < 0.1
    loss = task.losses(replace(batch, pair=pair), 0)
    assert float(loss.terms["contrast"].detach()) == pytest.approx(math.log(200), rel=1e-4)


def test_training_makes_pairs_alike(views, pass_config):
    """Through a layer that starts at random: colours alone tell one place from another."""
    head = MLPProjection((32,), 16)
    config = PointContrastConfig(encoder=pass_config(), projection=head, temperature=0.1)
    task = replace(config, pairs=PairsConfig(max_pairs=128)).build(None)
    optimizer = torch.optim.AdamW(task.parameters(), 2e-2)
    losses = []
    for step in range(12):
        out = task.losses(views, step)
        optimizer.zero_grad()
        out.terms["contrast"].backward()
        optimizer.step()
        assert float(out.monitors["pairs"]) == 256
        losses.append(float(out.terms["contrast"].detach()))
    assert losses[-1] < losses[0] - 0.5


def test_pictures_show_both_views(views, pass_config):
    task = PointContrastConfig(encoder=pass_config()).build(None).eval()
    (picture,) = task.pictures(task.predict(views), views)
    assert picture.name == "features" and picture.rgb.shape == (400, 800, 3)
    # Seen in the frame of before they were turned, both views look alike where both have points.
    left, right = picture.rgb.split(400, dim=1)
    both = (left != 255).any(2) & (right != 255).any(2)
    assert int(both.sum()) > 100
    assert float((left[both].float() - right[both].float()).abs().mean()) < 20


def test_without_a_second_view(room, pass_config):
    task = PointContrastConfig(encoder=pass_config()).build(None)
    batch = Batch.of([room()], ("rgb",))
    with pytest.raises(ValueError, match="PointContrast.losses: no second view of box 1; put TwoViews"):
        task.losses(batch, 0)
    with pytest.raises(ValueError, match="PointContrast.predict: no second view of box 1; put TwoViews"):
        task.predict(batch)


def test_wrong_choices():
    with pytest.raises(ValueError, match="PointContrastConfig.temperature must be positive, it is 0.0"):
        PointContrastConfig(temperature=0.0)
    with pytest.raises(ValueError, match="PointContrastConfig: radii"):
        PointContrastConfig(radii=())
