from dataclasses import replace

import pytest
import torch

from ponder3d.tasks.masking import BlockMasking, NoMasking
from ponder3d.types import Batch, Scene

INPUTS = ("rgb", "one")


def cloud(key: int, num: int = 3000) -> Scene:
    generator = torch.Generator().manual_seed(key)
    xyz = torch.rand(num, 3, generator=generator) * torch.tensor([4.0, 3.0, 2.0]) - 1
    return Scene(xyz, torch.rand(num, 3, generator=generator), None, f"cloud {key}", key=key)


def hidden(mask, batch: Batch) -> torch.Tensor:
    """Which points carry the token; every other one must be as it was."""
    feats = mask(batch).points.feats
    is_token = (feats == mask.token).all(1)
    assert torch.equal(feats[~is_token], batch.points.feats[~is_token])
    return is_token


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.8, 1.0])
def test_the_ratio_of_occupied_blocks_is_hidden_in_every_scene(ratio):
    batch = Batch.of([cloud(1), cloud(2, 40), cloud(3, 1)], INPUTS)
    is_token = hidden(BlockMasking(ratio, 0.4).build(4), batch)
    for scene in range(3):
        rows = batch.points.scene == scene
        blocks, owner = torch.unique(torch.floor(batch.points.xyz[rows] / 0.4), dim=0, return_inverse=True)
        share = torch.zeros(len(blocks)).index_add_(0, owner, is_token[rows].float()) / torch.bincount(owner)
        assert bool(((share == 0) | (share == 1)).all()), "blocks are hidden whole"
        assert int(share.sum()) == round(ratio * len(blocks))


def test_the_same_key_hides_the_same_and_another_something_else():
    mask, scene = BlockMasking().build(4), cloud(1)
    first, again, other = (hidden(mask, Batch.of([replace(scene, key=key)], INPUTS)) for key in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_what_else_is_in_the_batch_does_not_matter():
    mask, scenes = BlockMasking(0.5).build(4), [cloud(1), cloud(2), cloud(3)]
    alone = {scene.key: hidden(mask, Batch.of([scene], INPUTS)) for scene in scenes}
    for order in ([0, 1, 2], [2, 0, 1], [1, 0]):
        chosen = [scenes[i] for i in order]
        together = hidden(mask, Batch.of(chosen, INPUTS)).split([len(s.xyz) for s in chosen])
        assert all(torch.equal(part, alone[s.key]) for part, s in zip(together, chosen, strict=True))


def test_the_order_of_the_points_does_not_matter():
    mask, scene = BlockMasking(0.5).build(4), cloud(1)
    order = torch.randperm(len(scene.xyz))
    shuffled = replace(scene, xyz=scene.xyz[order], rgb=scene.rgb[order])
    assert torch.equal(hidden(mask, Batch.of([scene], INPUTS))[order], hidden(mask, Batch.of([shuffled], INPUTS)))


def test_every_block_is_hidden_for_some_key():
    mask, scene = BlockMasking(0.2, 1.0).build(4), cloud(1)
    times = sum(hidden(mask, Batch.of([replace(scene, key=key)], INPUTS)).long() for key in range(60))
    assert int(times.min()) > 0 and int(times.max()) < 40


def test_nothing_is_hidden_in_evaluation():
    mask, batch = BlockMasking().build(4).eval(), Batch.of([cloud(1)], INPUTS)
    assert mask(batch) is batch


def test_the_token_is_learned():
    mask, batch = BlockMasking(0.5).build(4), Batch.of([cloud(1)], INPUTS)
    num = int(hidden(mask, batch).sum())
    mask(batch).points.feats.sum().backward()
    assert mask.token.grad.tolist() == [num] * 4
    assert 0 < float(mask.token.detach().abs().max()) <= 0.02


def test_only_features_are_hidden():
    mask, batch = BlockMasking(0.5).build(4), Batch.of([cloud(1)], INPUTS)
    out = mask(batch)
    assert out.points.xyz is batch.points.xyz and out.bounds is batch.bounds and out.points.feats.shape == (3000, 4)


def test_no_masking():
    batch = Batch.of([cloud(1)], INPUTS)
    assert NoMasking().build(4)(batch) is batch


def test_an_empty_scene():
    mask = BlockMasking().build(4)
    assert mask(Batch.of([cloud(1, 0)], INPUTS)).points.feats.shape == (0, 4)
