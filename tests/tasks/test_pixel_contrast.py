"""Pixels, regions and their points, in a box room whose colours say where a point is."""

import math
from dataclasses import replace

import pytest
import torch

from ponder3d.tasks.pixel_contrast import PixelContrastConfig, _pooled, _Sides
from ponder3d.tasks.projection_heads import LinearProjection, NoProjection
from ponder3d.types import Batch


@pytest.fixture
def batch(room) -> Batch:
    """Target features are the colours of where rays end."""
    made = Batch.of([room(1, num=2500, rays=60), room(2, num=2500, rays=60)], ("rgb",))
    return replace(made, targets=replace(made.targets, feature=2 * made.targets.rgb - 1))


@pytest.fixture
def plain(pass_config) -> PixelContrastConfig:
    return PixelContrastConfig(
        encoder=pass_config(), feature_channels=3, projection=NoProjection(), pixel_projection=NoProjection()
    )


def test_a_feature_that_says_where_a_pixel_is_finds_its_place(batch, plain):
    task = plain.build(None).eval()
    prediction = task.predict(batch)
    assert int((prediction.scene >= 0).sum()) > 100
    metric = task.metric()
    metric.update(prediction, batch)
    figures = metric.compute()
    assert figures["within_20cm"] > 0.95 and figures["chance_20cm"] < 0.1
    assert float(task.losses(batch, 0).monitors["matched"]) > 0.2, "both rooms are the same box: two right answers"


def test_rays_without_depth_feature_or_point_do_not_count(batch, plain):
    task = plain.build(None)
    every = float(task.losses(batch, 0).monitors["pairs"])
    t, feature = batch.targets.t.clone(), batch.targets.feature.clone()
    t[:20] = 0
    feature[20:40] = math.nan
    less = task.losses(replace(batch, targets=replace(batch.targets, t=t, feature=feature)), 0)
    assert every - 40 <= float(less.monitors["pairs"]) < every - 30
    assert math.isfinite(float(less.terms["contrast"].detach()))
    away = replace(batch.points, xyz=batch.points.xyz + 5)
    none = task.losses(replace(batch, points=away), 0)
    assert float(none.monitors["pairs"]) == 0 and float(none.terms["contrast"].detach()) == 0


@pytest.mark.parametrize("superpixels", [False, True])
def test_a_batch_of_a_dataset_without_maps_teaches_nothing(batch, plain, superpixels):
    task = replace(plain, superpixels=superpixels, projection=LinearProjection(3)).build(None)
    bare = replace(batch, targets=replace(batch.targets, feature=None))
    losses = task.losses(bare, 0)
    losses.terms["contrast"].backward()
    assert float(losses.monitors["pairs"]) == 0 and float(losses.terms["contrast"].detach()) == 0
    assert all(bool((p.grad == 0).all()) for p in task.projection.parameters())
    metric = task.metric()
    metric.update(task.eval().predict(bare), bare)
    assert metric.compute()["within_20cm"] == 0


def test_regions_are_means_of_directions_by_hand():
    pixel = torch.tensor([[2.0, 0], [0, 1], [1, 0], [9, 9], [0, 1]])
    point = torch.tensor([[1.0, 0], [1, 0], [0, 5], [9, 9], [1, 0]])
    place = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 9, 9], [4, 0, 0]])
    scene = torch.tensor([0, 0, 0, 0, 1])
    sides = _Sides(pixel, point, torch.arange(5), place, scene, torch.tensor([1, 1, 1, 0, 1]).bool())
    pooled = _pooled(sides, torch.tensor([7, 7, 3, 7, 7]))
    # Region 3 and 7 of scene 0, region 7 of scene 1; the ray that is not valid has no part in any.
    assert pooled.valid.tolist() == [True, True, True, False, False]
    assert pooled.scene[:3].tolist() == [0, 0, 1]
    torch.testing.assert_close(pooled.pixel[:3], torch.tensor([[1.0, 0], [0.5, 0.5], [0, 1]]))
    torch.testing.assert_close(pooled.point[:3], torch.tensor([[0.0, 1], [1, 0], [1, 0]]))
    torch.testing.assert_close(pooled.place[:3, 0], torch.tensor([2.0, 0.5, 4.0]))
    assert pooled.owner.tolist() == [0, 1, 2, 3, 4], "regions are negatives of each other"
    assert not bool(_pooled(sides, torch.full((5,), -1)).valid.any())


def test_each_region_counts_once(batch, plain):
    task = replace(plain, superpixels=True).build(None)
    group = torch.arange(120) % 60 // 6
    out = task.losses(replace(batch, targets=replace(batch.targets, group=group)), 0)
    assert float(out.monitors["pairs"]) == 20 and math.isfinite(float(out.terms["contrast"].detach()))


def test_training_finds_more_pixels(batch, pass_config):
    task = PixelContrastConfig(
        encoder=pass_config(), feature_channels=3, projection=LinearProjection(8), pixel_projection=LinearProjection(8)
    ).build(None)
    optimizer = torch.optim.AdamW(task.parameters(), 5e-2)
    losses = []
    for step in range(12):
        loss = task.losses(batch, step).terms["contrast"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1


def test_pictures_show_points_and_pixels(batch, plain):
    task = plain.build(None).eval()
    (picture,) = task.pictures(task.predict(batch), batch)
    assert picture.name == "features" and picture.rgb.shape == (400, 800, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rays": None}, "no rays with depth for box 1; put PickRays into transforms"),
        ({"feature": torch.zeros(120, 4)}, "feature_channels is 3, and the rays' features have 4; set it, or PickRays"),
        ({"t": None}, "no rays with depth"),
    ],
)
def test_what_is_missing_is_said(batch, plain, change, message):
    broken = replace(batch, rays=None) if "rays" in change else replace(batch, targets=replace(batch.targets, **change))
    with pytest.raises(ValueError, match=message):
        plain.build(None).losses(broken, 0)


def test_regions_that_are_missing(batch, plain):
    with pytest.raises(ValueError, match="no regions in box 1; set PickRays.features to SuperpixelMaps"):
        replace(plain, superpixels=True).build(None).losses(batch, 0)


def test_wrong_choices(plain):
    with pytest.raises(
        ValueError, match="projection ends in 3 channels and pixel_projection in 8; give them one width"
    ):
        replace(plain, pixel_projection=LinearProjection(8)).build(None)
    with pytest.raises(ValueError, match="feature_channels must be at least 1, not 0"):
        replace(plain, feature_channels=0)
    with pytest.raises(ValueError, match="reach and temperature must be positive, they are 0.0 and 0.07"):
        replace(plain, reach=0.0)
