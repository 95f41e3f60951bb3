"""Draws of scenes are a function of (seed, epoch, index) alone, whoever asks for them and in whatever order."""

from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

from ponder3d.data import transforms as tf
from ponder3d.data.dataset import DataError, SceneDataset
from ponder3d.data.loader import Batches, Collate, KeyedScenes, as_it_is
from ponder3d.engine.sampler import StepSampler
from ponder3d.types import Batch, Cameras, LabelSet, Scene, Views

STEPS = (tf.Centre(), tf.Rotate(), tf.Jitter(), tf.JitterColour(), tf.RemoveBlocks(0.1, 0.6), tf.PickRays(1, 8))


class Clouds(SceneDataset):
    """Six random clouds with an image each."""

    labels = None

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Scene:
        generator = torch.Generator().manual_seed(index)
        xyz = torch.rand(50 + index, 3, generator=generator)
        cameras = Cameras(torch.tensor([[[9.0, 0, 4], [0, 9, 4], [0, 0, 1]]]), torch.eye(4)[None], (9, 9))
        views = Views(cameras, torch.zeros(1, 9, 9, 3, dtype=torch.uint8), torch.ones(1, 9, 9), None, torch.tensor([1]))
        return Scene(xyz, torch.rand(50 + index, 3, generator=generator), None, f"cloud {index}", views=views)


def equal(a: Scene, b: Scene) -> bool:
    return (
        torch.equal(a.xyz, b.xyz)
        and torch.equal(a.rgb, b.rgb)
        and torch.equal(a.rays.directions, b.rays.directions)
        and a.key == b.key
        and a.source == b.source
    )


@pytest.fixture
def scenes() -> KeyedScenes:
    return KeyedScenes(Clouds(), STEPS, seed=3)


def test_a_draw_is_the_same_in_any_order(scenes):
    draws = [(epoch, index) for epoch in (0, 1) for index in range(6)]
    forward = {draw: scenes[draw] for draw in draws}
    backward = {draw: KeyedScenes(Clouds(), STEPS, seed=3)[draw] for draw in reversed(draws)}
    assert all(equal(forward[draw], backward[draw]) for draw in draws)


def test_draws_differ_between_epochs_scenes_and_seeds(scenes):
    assert not torch.equal(scenes[0, 2].xyz, scenes[1, 2].xyz)
    others = [scenes[0, 2], scenes[1, 2], scenes[0, 3], KeyedScenes(Clouds(), STEPS, seed=4)[0, 2]]
    assert len({scene.key for scene in others}) == 4
    # The same cloud drawn as another index would be augmented differently: epoch and index are not added up.
    assert scenes[1, 0].key != scenes[0, 1].key


def test_without_transforms_only_the_key_is_drawn():
    plain = KeyedScenes(Clouds(), (), seed=3)
    assert torch.equal(plain[0, 2].xyz, Clouds()[2].xyz) and plain[0, 2].key != plain[1, 2].key
    assert len(plain) == 6


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_and_the_size_of_batches_change_nothing(scenes, workers):
    steps = range(4)
    loader = DataLoader(
        scenes,
        batch_sampler=StepSampler(6, 3, 3, steps),
        num_workers=workers,
        collate_fn=Collate(("rgb", "one")),
    )
    draws = [draw for batch in StepSampler(6, 1, 3, range(12)) for draw in batch]
    expected = [scenes[draw] for draw in draws]
    seen = 0
    for batch in loader:
        for part in batch.points.xyz.split(batch.points.counts.tolist()):
            assert torch.equal(part, expected[seen].xyz)
            seen += 1
        assert batch.keys.tolist() == [s.key for s in expected[seen - 3 : seen]]
    assert seen == 12


def test_collate_packs_the_channels_of_the_encoder(scenes):
    drawn = [scenes[0, 0], scenes[0, 1]]
    batch = Collate(["one", "rgb", "normal"])(drawn)
    assert batch.points.counts.tolist() == [len(s.xyz) for s in drawn]
    expected = torch.cat(
        [torch.cat([torch.ones(len(s.xyz), 1), s.rgb * 2 - 1, torch.zeros(len(s.xyz), 3)], 1) for s in drawn]
    )
    torch.testing.assert_close(batch.points.feats, expected)
    assert batch.rays.scene.tolist() == [0] * 8 + [1] * 8 and batch.sources == ("cloud 0", "cloud 1")
    with pytest.raises(ValueError, match="unknown point input 'colour'"):
        Collate(["colour"])(drawn)


@pytest.mark.parametrize(
    ("sizes", "budget", "expected"),
    [
        ((10, 20, 30), 60, (10, 20, 30)),
        ((10, 20, 30), 59, (10, 20, 29)),
        ((30, 10, 20), 45, (17, 10, 17)),
        ((50, 50), 60, (30, 30)),
        ((5, 40, 40), 15, (5, 5, 5)),
        ((3, 3), 1, (1, 1)),  # no scene is left empty
        ((0, 9), 4, (0, 4)),
    ],
)
def test_the_largest_scenes_are_cropped_until_a_batch_is_within_its_budget(sizes, budget, expected):
    scenes = [Scene(torch.rand(n, 3), None, None, str(i), key=i) for i, n in enumerate(sizes)]
    batch = Collate(("one",), max_points=budget)(scenes)
    assert tuple(batch.points.counts.tolist()) == expected
    assert Collate(("one",))(scenes).points.counts.tolist() == list(sizes)
    again = Collate(("one",), max_points=budget)(scenes)
    assert torch.equal(batch.points.xyz, again.points.xyz)


class Stray(Clouds):
    """The fourth cloud has a point far away."""

    def __getitem__(self, index: int) -> Scene:
        scene = super().__getitem__(index)
        if index == 3:
            scene.xyz[7] = 1e6
        return scene


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_transform_cannot_use_names_the_scene(workers):
    scenes = KeyedScenes(Stray(), (tf.GridSample(0.02),), seed=3)
    batches = Batches(scenes, Collate(("one",)))
    loader = DataLoader(
        batches, batch_size=None, sampler=[[(0, 0)], [(0, 3)]], num_workers=workers, collate_fn=as_it_is
    )
    good, bad = loader
    assert isinstance(good, Batch)
    assert type(bad) is DataError and str(bad).startswith("cloud 3: voxelize: a coordinate is not finite or beyond")
    with pytest.raises(DataError, match="cloud 3: voxelize"):
        _ = scenes[0, 3]


def test_scenes_that_do_not_go_together_are_an_error_of_the_data():
    """As a value: raised in a loader process, it would be a traceback."""
    scenes = []
    for number in (1, 2):
        cameras = Cameras(torch.eye(3).expand(number, 3, 3), torch.eye(4).expand(number, 4, 4), (4, 5))
        images = Views(cameras, torch.zeros(number, 4, 5, 3, dtype=torch.uint8), None, None, torch.tensor([number]))
        scenes.append(replace(Clouds()[0], source=f"scene with {number}", images=images))
    with pytest.raises(DataError, match="choose them: scene with 1 1, scene with 2 2"):
        Collate(("one",))(scenes)


class Labelled(Clouds):
    """Clouds of three classes, whose labels are ``given``."""

    labels = LabelSet(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))

    def __init__(self, given: int | None):
        self.given = given

    def __getitem__(self, index: int) -> Scene:
        scene = super().__getitem__(index)
        return scene if self.given is None else replace(scene, labels=torch.full((len(scene.xyz),), self.given))


def test_a_label_that_is_no_class_is_named():
    for good in (None, -1, -100, 0, 2):
        assert len(KeyedScenes(Labelled(good), (), seed=0)[0, 1].xyz) == 51
    with pytest.raises(DataError, match="cloud 1: labels: 3 is none of the classes, which are 0 to 2"):
        KeyedScenes(Labelled(3), (), seed=0)[0, 1]
    found = Batches(KeyedScenes(Labelled(255), (), seed=0), Collate(("rgb",)))[[(0, 0), (0, 2)]]
    assert isinstance(found, DataError) and "cloud 0: labels: 255" in str(found)
