"""Mix3D: what becomes of a pair, and that it does not matter which process it is in."""

from dataclasses import replace

import pytest
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.loader import Collate
from ponder3d.data.mix import mix_pairs, mixture
from ponder3d.engine.sampler import StepSampler
from ponder3d.geometry import keyed
from ponder3d.types import Batch, Boxes, Cameras, Rays, Scene, Views


def a_scene(number: int = 0, num: int = 4) -> Scene:
    random = keyed.generator(number)
    return Scene(
        xyz=torch.rand(num, 3, generator=random) * 4 + number,
        rgb=torch.rand(num, 3, generator=random),
        normal=torch.nn.functional.normalize(torch.randn(num, 3, generator=random), dim=1),
        source=f"scene {number}",
        labels=torch.randint(-1, 3, (num,), generator=random),
        instances=torch.arange(num) - 1,
        key=keyed.derive(number),
        skipped=(f"frame of {number}",),
    )


def test_points_lie_over_each_other():
    a = Scene(torch.tensor([[10.0, 0, 1], [12, 2, 3]]), None, None, "a", key=5)
    b = Scene(torch.tensor([[0.0, 0, 0], [0, 8, 4], [4, 8, 4]]), None, None, "b", key=6)
    mixed = mixture(a, b)
    assert mixed.xyz.tolist() == [[-1, -1, 1], [1, 1, 3], [-2, -4, 0], [-2, 4, 4], [2, 4, 4]]
    assert (mixed.key, mixed.source) == (5, "a + b")
    assert mixed.rgb is mixed.normal is mixed.labels is mixed.instances is mixed.bounds is mixed.boxes is None


def test_columns_and_instances():
    a, b = a_scene(1), a_scene(2, 3)
    mixed = mixture(a, b)
    for name in ("rgb", "normal", "labels"):
        assert torch.equal(getattr(mixed, name), torch.cat([getattr(a, name), getattr(b, name)]))
    assert mixed.instances.tolist() == [-1, 0, 1, 2, -1, 3, 4]
    assert mixed.skipped == ("frame of 1", "frame of 2")
    nothing = replace(a, instances=torch.full((4,), -1))
    assert mixture(nothing, b).instances.tolist() == [-1] * 4 + [-1, 0, 1]


@pytest.mark.parametrize("first", [True, False])
def test_what_one_scene_lacks_is_unknown(first):
    bare = replace(a_scene(1), rgb=None, normal=None, labels=None, instances=None)
    pair = (bare, a_scene(2)) if first else (a_scene(2), bare)
    mixed = mixture(*pair)
    own = slice(0, 4) if first else slice(4, 8)
    feats = Batch.of([mixed], ("rgb", "normal")).points.feats
    assert torch.equal(feats, Batch.of(pair, ("rgb", "normal")).points.feats) and not feats[own].any()
    assert bool((mixed.labels[own] == -1).all()) and bool((mixed.instances[own] == -1).all())


def test_bounds_and_boxes_move_along():
    box = Boxes(torch.tensor([[1.0, 1, 0]]), torch.ones(1, 3), torch.zeros(1), torch.tensor([2]))
    xyz = torch.tensor([[0.0, 0, 0], [2, 2, 2]])
    a = Scene(xyz, None, None, "a", boxes=box, bounds=torch.tensor([[-8.0, 0, 0], [2, 2, 3]]))
    b = Scene(xyz + torch.tensor([5.0, 0, 0]), None, None, "b", boxes=replace(box, score=torch.ones(1)))
    mixed = mixture(a, b)
    assert mixed.boxes.centre.tolist() == [[0, 0, 0], [-5, 0, 0]] and mixed.boxes.score is None
    assert mixed.bounds.tolist() == [[-9, -1, 0], [1, 1, 3]]
    assert mixture(a, replace(b, boxes=None)).boxes is None


def test_empty_scenes():
    empty, full = a_scene(1, 0), a_scene(2)
    for pair, num in (((empty, full), 4), ((full, empty), 4), ((empty, empty), 0)):
        mixed = mixture(*pair)
        assert len(mixed.xyz) == len(mixed.labels) == len(mixed.instances) == num
    assert mixture(empty, full).instances.tolist() == full.instances.tolist()


def test_how_often():
    scenes = [Scene(torch.zeros(1, 3), None, None, "x", key=keyed.derive(number)) for number in range(160)]
    num = len(mix_pairs(scenes, 0.8))
    assert 160 - 0.9 * 80 < num < 160 - 0.7 * 80
    assert len(mix_pairs(scenes[:20], 1.0)) == 10 and mix_pairs(scenes[:20], 0.0) == scenes[:20]
    # The coin is the first scene's, whatever follows it.
    pairs = [mix_pairs([scenes[0], other], 0.5) for other in scenes[1:20]]
    assert len({len(pair) for pair in pairs}) == 1


@pytest.mark.parametrize("max_points", [0, 30])
@pytest.mark.parametrize("split", [(1, 2), (2, 1), (2, 2)])
def test_ranks_and_passes_change_nothing(split, max_points):
    def batches(world: int, accumulate: int) -> list[Batch]:
        # Without a budget of its own for the pass: how far a scene is cropped depends on those that share it.
        collate = Collate(("rgb", "normal"), max_points // (world * accumulate) if max_points else 0, mix=0.5)
        samplers = [StepSampler(9, 8, 3, range(6), accumulate, rank, world) for rank in range(world)]
        passes = [list(sampler) for sampler in samplers]
        order = [passes[rank][number] for number in range(6 * accumulate) for rank in range(world)]
        return [collate([replace(a_scene(i), key=keyed.derive(e, i)) for e, i in draws]) for draws in order]

    def told(parts: list[Batch]) -> list:
        return [(s, k) for part in parts for s, k in zip(part.sources, part.keys.tolist(), strict=True)]

    whole, parts = batches(1, 1), batches(*split)
    assert told(whole) == told(parts) and 24 < len(told(whole)) < 48
    if not max_points:
        for name in ("xyz", "feats", "counts"):
            one, other = (torch.cat([getattr(p.points, name) for p in side]) for side in (whole, parts))
            assert torch.equal(one, other)


def test_a_budget_holds_for_the_mixture():
    scenes = [a_scene(number, 40) for number in range(4)]
    batch = Collate(("rgb",), max_points=60, mix=1.0)(scenes)
    assert batch.points.counts.tolist() == [30, 30]
    assert Collate(("rgb",), mix=0.0)(scenes[:3]).points.counts.tolist() == [40] * 3


def test_what_cannot_be_mixed():
    cameras = Cameras(torch.eye(3)[None], torch.eye(4)[None], (2, 2))
    views = Views(cameras, torch.zeros(1, 2, 2, 3, dtype=torch.uint8), None, None, torch.tensor([1]))
    ray = torch.ones(1)
    rays = Rays(torch.zeros(1, 3), torch.eye(3)[:1], ray, ray * 2, torch.zeros(1, dtype=torch.int64))
    for extra, what in (({"views": views}, "images"), ({"rays": rays}, "rays")):
        with pytest.raises(DataError, match=f"scene 2: has {what}, and no camera sees .* put PointsOnly\\(\\)"):
            mix_pairs([a_scene(1), replace(a_scene(2), **extra)], 1e-9)
    with pytest.raises(ValueError, match="3 scenes cannot be paired"):
        mix_pairs([a_scene(n) for n in range(3)], 0.5)


def test_scenes_of_two_datasets_stay_two():
    pairs = [replace(a_scene(n), condition=condition) for n, condition in enumerate("aabaab")]
    out = mix_pairs(pairs, 1.0)
    assert [scene.source for scene in out] == ["scene 0 + scene 1", "scene 2", "scene 3", "scene 4", "scene 5"]
    assert [scene.condition for scene in out] == ["a", "b", "a", "a", "b"]
