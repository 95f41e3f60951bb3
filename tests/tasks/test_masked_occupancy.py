"""Masked occupancy: which cells count, what they weigh, and that blocks that were taken away are learnt."""

import math
from dataclasses import replace

import pytest
import torch

from ponder3d.data.transforms import PointsOnly, RemoveBlocks, TwoViews, apply
from ponder3d.tasks.masked_occupancy import MaskedOccupancyConfig
from ponder3d.types import Batch, Scene
from ponder3d.volume.unet3d import NoNet3DConfig, UNet3DConfig

BOX = (0.0, 0.0, 0.0, 3.0, 3.0, 3.0)


def by_hand(pass_config) -> tuple[MaskedOccupancyConfig, Batch]:
    """27 cells of a metre; the whole scene has points in cells 0, 13 and 26, of which the encoder sees the first."""
    whole = torch.tensor([[0.5, 0.5, 0.5], [1.5, 1.5, 1.5], [1.6, 1.6, 1.6], [2.5, 2.5, 2.5]])
    rgb = torch.tensor([[0.0, 0, 0], [1.0, 1, 1], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
    pair = Scene(whole, rgb, None, "by hand", place=whole)
    seen = Scene(whole[:1], rgb[:1], None, "by hand", place=whole[:1], pair=pair)
    config = MaskedOccupancyConfig(
        pass_config(), volume_box=BOX, volume_shape=(3, 3, 3), volume_net=NoNet3DConfig(), feats=2.0
    )
    return config, Batch.of([seen], ("rgb",))


def constant(task, logit: float, *feats: float) -> None:
    with torch.no_grad():
        task.head.weight.zero_()
        task.head.bias.copy_(torch.tensor([logit, *feats]))


def test_losses_by_hand(pass_config):
    config, batch = by_hand(pass_config)
    task = config.build(None)
    constant(task, 2.0, 0.25, 0.25, 0.25)
    with torch.no_grad():
        out = task.losses(batch, 0)
    full, empty = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert float(out.terms["occupancy"]) == pytest.approx((full + empty) / 2), "a half each, for 2 and for 24 cells"
    # Colours from -1 to 1: cell 13 has the mean of 1 and 0, cell 26 has 0; smooth L1 of 0.25 is 0.25 - 0.05.
    assert float(out.terms["feats"]) == pytest.approx(2 * 0.2)
    assert float(out.monitors["full"]) == pytest.approx(2 / 26) and float(out.monitors["accuracy"]) == 0.5


def test_cells_that_are_seen_count_if_they_have_a_weight(pass_config):
    config, batch = by_hand(pass_config)
    task = replace(config, seen=1.0, feats=0.0).build(None)
    with torch.no_grad():
        task.head.weight.zero_()
        task.head.weight[0, -1] = 3.0  # the channel that says that the encoder sees something
        task.head.bias.zero_()
    full = (math.log1p(math.exp(-3)) + 2 * math.log(2)) / 3
    assert float(task.losses(batch, 0).terms["occupancy"].detach()) == pytest.approx((full + math.log(2)) / 2)


def test_what_is_likelier_depends_on_how_many_cells_are_full(pass_config):
    config, batch = by_hand(pass_config)
    task = replace(config, feats=0.0).build(None)
    task.losses(batch, 0)
    assert float(task.full_share) == pytest.approx(0.9 * 0.5 + 0.1 * 2 / 26)
    task.full_share.fill_(0.2)  # odds 1 : 4, so the balanced odds must be above 4 : 1
    for odds, full in ((3.9, False), (4.1, True)):
        constant(task, math.log(odds))
        found = task.eval().predict(batch)
        assert len(found.full) == 26 and bool(found.full.all()) is full and int(found.truth.sum()) == 2
    torch.testing.assert_close(found.xyz[found.truth], torch.tensor([[1.5, 1.5, 1.5], [2.5, 2.5, 2.5]]))


def test_nothing_taken_away_is_no_fault(pass_config):
    config, batch = by_hand(pass_config)
    batch = replace(batch, points=batch.pair.points)
    terms = config.build(None).losses(batch, 0).terms
    assert float(terms["feats"].detach()) == 0 and math.isfinite(float(terms["occupancy"].detach()))


def test_walls_are_completed(room, pass_config):
    """Of the box half of the blocks are taken away; walls are planes, and the blocks differ in each scene."""
    config = MaskedOccupancyConfig(
        pass_config(), volume_shape=(10, 10, 10), volume_net=UNet3DConfig(channels=(8, 16), out_channels=8)
    )
    steps = (TwoViews((RemoveBlocks(0.5, 0.5), PointsOnly()), (PointsOnly(),)),)
    batches = [Batch.of([apply(steps, room(key, num=3000), key) for key in (i, i + 1)], ("rgb",)) for i in range(4)]
    task = config.build(None)
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-2)
    for step in range(30):
        optimizer.zero_grad()
        task.losses(batches[step % 3], step).terms["occupancy"].backward()
        optimizer.step()
    metric = task.metric()
    metric.update(task.predict(batches[3]), batches[3])
    figures = metric.compute()
    assert figures["iou"] > figures["iou_all_full"] + 0.2 and figures["accuracy"] > 0.8, figures


def test_without_a_second_view(room, small_encoder):
    with pytest.raises(ValueError, match="MaskedOccupancy: no second view of box 1; put TwoViews"):
        MaskedOccupancyConfig(small_encoder).build(None).losses(Batch.of([room(1)]), 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"volume_shape": (2, 8, 8)}, "volume_shape: at least 3"),
        ({"volume_box": (0.0,) * 6}, "volume_box: a lower and an upper"),
        ({"volume_margin": 0.0}, "volume_margin must be positive"),
        ({"seen": -1.0}, "seen must not be negative"),
        ({"feats": -1.0}, "feats must not be negative"),
    ],
)
def test_wrong_choices(wrong, words):
    with pytest.raises(ValueError, match=f"MaskedOccupancyConfig.{words}"):
        MaskedOccupancyConfig(**wrong)
