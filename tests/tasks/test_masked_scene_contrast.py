"""Masks that cross out each other, and what is told of what they hide."""

from dataclasses import replace

import pytest
import torch

from ponder3d.data.transforms import DropModality, DropPoints, Rotate, TwoViews, apply
from ponder3d.geometry.grid import voxelize
from ponder3d.tasks.masked_scene_contrast import MaskedSceneContrastConfig, cross_masks
from ponder3d.tasks.pairs import PairsConfig
from ponder3d.types import Batch

STEPS = (Rotate(probability=1.0), DropPoints(0.2))


@pytest.fixture
def views(room):
    def make(*keys, inputs=("rgb", "normal"), steps=STEPS) -> Batch:
        scenes = [replace(room(key), rays=None, targets=None) for key in keys]
        return Batch.of([apply((TwoViews(steps),), s, k) for s, k in zip(scenes, keys, strict=True)], inputs)

    return make


def test_no_block_is_hidden_in_both_views(views):
    batch = views(1, 2)
    first, second = cross_masks(batch, batch.pair, 0.4, 0.5)
    place = torch.cat([batch.place, batch.pair.place])
    blocks = voxelize(place, torch.cat([batch.points.scene, batch.pair.points.scene]), 0.5)
    num = len(blocks.keys)
    hidden = torch.cat([first, second])
    which = torch.tensor([1] * len(first) + [2] * len(second))
    # Of each block all points of one view or none: 0 neither, 1 or 2 that view's.
    kinds = [set((hidden * which)[blocks.voxel == row].tolist()) - {0} for row in range(num)]
    assert all(len(kind) <= 1 for kind in kinds)
    for view, rows in ((1, first), (2, second)):
        mine = blocks.voxel.split([len(first), len(second)])[view - 1]
        for row in mine[rows].unique().tolist():
            assert bool(rows[mine == row].all()), "a block is hidden whole"
    # 40 % of the blocks of each scene, where each view has points in nearly all of them.
    per_scene = torch.bincount(blocks.coords[:, 0])
    for view in (1, 2):
        share = sum(kind == {view} for kind in kinds) / int(per_scene.sum())
        assert share == pytest.approx(0.4, abs=0.03)


def test_the_keys_decide_what_is_hidden(views):
    batch, both = views(2), views(1, 2)
    masks = cross_masks(batch, batch.pair, 0.3, 0.5)
    again = cross_masks(both, both.pair, 0.3, 0.5)
    begin = (int(both.points.counts[0]), int(both.pair.points.counts[0]))
    assert all(torch.equal(a, b[n:]) for a, b, n in zip(masks, again, begin, strict=True))
    other = cross_masks(replace(batch, keys=batch.keys + 1), batch.pair, 0.3, 0.5)
    assert not torch.equal(masks[0], other[0])


def quiet(task):
    """With layers that tell nothing: every error is that of zeros."""
    for layer in task.tell.values():
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return task


def test_terms_are_means_over_hidden_points_of_both_views(views, pass_config):
    batch = views(1)
    config = MaskedSceneContrastConfig(encoder=pass_config(("rgb", "normal")), block=0.5, colour=2.0, normal=3.0)
    terms = quiet(config.build(None)).losses(batch, 0).terms
    hidden = torch.cat(cross_masks(batch, batch.pair, 0.4, 0.5))
    colour = torch.cat([batch.points.feats, batch.pair.points.feats])[hidden, :3]
    assert float(terms["colour"].detach()) == pytest.approx(2 * float(colour.square().sum(1).mean()), rel=1e-5)
    assert float(terms["normal"].detach()) == pytest.approx(3)
    assert set(terms) == {"contrast", "colour", "normal"}


def test_what_a_layer_tells_is_compared_with_what_was_hidden(views, pass_config):
    """A bias of the one colour that everything has, and one along the one normal, make no error."""
    batch = views(1)

    def painted(view: Batch) -> Batch:
        feats = torch.tensor([0.2, -0.4, 0.6, 0.0, 0.6, 0.8]).repeat(len(view.points.xyz), 1)
        return replace(view, points=replace(view.points, feats=feats))

    batch = replace(painted(batch), pair=painted(batch.pair))
    task = quiet(MaskedSceneContrastConfig(encoder=pass_config(("rgb", "normal")), block=0.5).build(None))
    with torch.no_grad():
        task.tell["rgb"].bias.copy_(torch.tensor([0.2, -0.4, 0.6]))
        task.tell["normal"].bias.copy_(torch.tensor([0.0, 3.0, 4.0]))
    terms = task.losses(batch, 0).terms
    assert float(terms["colour"].detach()) == pytest.approx(0, abs=1e-10)
    assert float(terms["normal"].detach()) == pytest.approx(0, abs=1e-6)


def test_the_encoder_sees_the_token_where_points_are_hidden(views, pass_config):
    batch = views(1)
    task = MaskedSceneContrastConfig(encoder=pass_config(("rgb", "normal")), block=0.5).build(None)
    seen = []
    task.encoder.register_forward_hook(lambda module, args, out: seen.append(args[0].points.feats.detach()))
    task.losses(batch, 0)
    for feats, hidden, view in zip(seen, cross_masks(batch, batch.pair, 0.4, 0.5), (batch, batch.pair), strict=True):
        assert 0.3 < float(hidden.float().mean()) < 0.5
        assert torch.equal(feats[hidden], task.token.detach().expand(int(hidden.sum()), -1))
        assert torch.equal(feats[~hidden], view.points.feats[~hidden])
    seen.clear()
    task.eval().predict(batch)
    assert torch.equal(seen[0], batch.points.feats), "nothing is hidden in evaluation"


def test_colours_that_a_view_has_lost_are_not_told(views, pass_config):
    steps = (DropPoints(0.2), DropModality(colour=1.0, normal=0.0))
    batch = views(1, steps=steps)
    task = quiet(MaskedSceneContrastConfig(encoder=pass_config(("rgb", "normal")), block=0.5).build(None))
    terms = task.losses(batch, 0).terms
    assert float(terms["colour"].detach()) == 0 and float(terms["normal"].detach()) == pytest.approx(1)


def test_a_dark_echo_is_told_and_lost_intensities_are_not(views, pass_config):
    """Two scenes: one with an echo of 2 and zeros, in both views, one whose first view has lost its intensities."""
    batch = views(1, 2, inputs=("intensity",))
    counts, others = batch.points.counts.tolist(), batch.pair.points.counts.tolist()

    def with_intensity(view: Batch, column: torch.Tensor) -> Batch:
        return replace(view, points=replace(view.points, feats=column[:, None]))

    first, second = torch.zeros(sum(counts)), torch.zeros(sum(others))
    first[0] = second[0] = 2.0
    second[others[0] :] = 3.0
    batch = replace(with_intensity(batch, first), pair=with_intensity(batch.pair, second))
    task = quiet(MaskedSceneContrastConfig(encoder=pass_config(("intensity",)), block=0.5, intensity=1.0).build(None))
    hidden = cross_masks(batch, batch.pair, 0.4, 0.5)
    given = torch.cat([hidden[0][: counts[0]], hidden[1]])
    truth = torch.cat([first[: counts[0]], second])
    loss = float(task.losses(batch, 0).terms["intensity"].detach())
    assert loss == pytest.approx(float(truth[given].square().sum() / given.sum()), rel=1e-5)


def test_only_what_the_encoder_reads_is_told(views, pass_config):
    assert set(MaskedSceneContrastConfig(encoder=pass_config(("one",))).build(None).tell) == set()
    task = MaskedSceneContrastConfig(encoder=pass_config(("rgb", "intensity")), colour=0.0).build(None)
    assert set(task.tell) == {"intensity"}
    assert set(task.losses(views(1, inputs=("rgb", "intensity")), 0).terms) == {"contrast", "intensity"}


def test_only_visible_points_are_compared_if_asked(views, pass_config):
    batch = views(1, inputs=("rgb",))
    config = MaskedSceneContrastConfig(encoder=pass_config(), pairs=PairsConfig(1e-4, 1000), block=0.5)
    every = config.build(None).losses(batch, 0).monitors
    visible = replace(config, visible_pairs=True).build(None).losses(batch, 0).monitors
    # 40 % of the blocks are hidden in one view and other 40 % in the other: 20 % are in neither.
    assert float(visible["pairs"] / every["pairs"]) == pytest.approx(0.2, abs=0.08)
    assert float(visible["matched"]) == 1, "colours are places"


def test_wrong_choices():
    with pytest.raises(ValueError, match=r"hidden must lie in \(0, 0.5\] and block be positive, they are 0.6 and 0.1"):
        MaskedSceneContrastConfig(hidden=0.6)
    with pytest.raises(ValueError, match="MaskedSceneContrastConfig.temperature must be positive"):
        MaskedSceneContrastConfig(temperature=-1.0)
