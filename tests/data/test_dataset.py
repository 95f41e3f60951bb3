"""What every dataset of the package promises, found by walking it.

A dataset that needs files, or whose defaults are not small, has a function ``example`` in the test file of its module.
"""

from dataclasses import fields, is_dataclass

import pytest
import torch

from ponder3d.config import from_json, to_json
from ponder3d.data.dataset import DataError, DatasetConfig, HeldOut, SceneDataset, scene_name
from ponder3d.geometry import keyed
from ponder3d.types import Batch, LabelSet, Scene, Views

FAMILY = DatasetConfig
OUTSIDERS = (HeldOut,)
"""A word for a part of other data, not a dataset."""


def indices(data: SceneDataset) -> range:
    """A few scenes; a dataset may be endless."""
    return range(min(len(data), 4))


def tensors(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for f in fields(value) for t in tensors(getattr(value, f.name))] if is_dataclass(value) else []


def contents(scene: Scene) -> set[bytes]:
    """Its images; of a scene without any, its points."""
    return {part.numpy().tobytes() for part in ([scene.xyz] if scene.views is None else scene.views.rgb)}


def check_scene(scene: Scene, dataset: SceneDataset):
    assert scene.source and len(scene.xyz) > 0 and all(bool(torch.isfinite(t).all()) for t in tensors(scene))
    if scene.rgb is not None:
        assert 0 <= float(scene.rgb.min()) and float(scene.rgb.max()) <= 1
    if scene.normal is not None:
        torch.testing.assert_close(scene.normal.norm(dim=1), torch.ones(len(scene.xyz)), atol=1e-4, rtol=0)
    if scene.labels is not None:
        check_labels(scene.labels, dataset.labels)
        assert bool((scene.labels >= 0).any())
    if scene.views is not None:
        check_views(scene.views, dataset)


def check_views(views: Views, dataset: SceneDataset):
    height, width = views.cameras.size
    assert views.counts.tolist() == [len(views.cameras)] and views.rgb.shape == (len(views.cameras), height, width, 3)
    turn = views.cameras.world_from_cam[:, :3, :3]
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand_as(turn), atol=1e-4, rtol=0)
    if views.depth is not None:
        assert float(views.depth.min()) >= 0 and float(views.depth.max()) > 0
    if views.labels is not None:
        check_labels(views.labels, dataset.labels)


def check_labels(labels: torch.Tensor, names: LabelSet | None):
    assert names is not None and int(labels.min()) >= -1 and int(labels.max()) < len(names)


def test_scenes_are_valid_and_a_function_of_their_index(example):
    data, again = example.build(), example.build()
    assert len(data) > 0
    for index in reversed(indices(data)):
        torch.manual_seed(index)
        scene, other = data[index], again[index]
        check_scene(scene, data)
        assert scene.source == other.source and contents(scene) == contents(other)
        assert all(torch.equal(a, b) for a, b in zip(tensors(scene), tensors(other), strict=True))
    with pytest.raises(IndexError):
        data[len(data)]


def test_views_have_names_that_tell_them_apart(example):
    data, whole = example.build(), example.all_images().build()
    every = {whole.view_names(i)[0]: set() for i in range(len(whole))} if len(whole) <= 64 else None
    for index in indices(data):
        recording, names = data.view_names(index)
        for scene in (data[index], data.draw(index, keyed.generator(index))):
            assert recording == (scene.recording or scene.source)
            shown = () if scene.views is None else scene.views.names
            assert scene.views is None or len(set(shown)) == len(shown) == len(scene.views.cameras)
            assert set(shown) <= set(names)
    if every is not None:
        for i in range(len(whole)):
            recording, names = whole.view_names(i)
            shown = whole[i].views
            assert set(names) == (set() if shown is None else set(shown.names))
            every[recording] |= set(names)
        assert all(set(data.view_names(i)[1]) <= every[data.view_names(i)[0]] for i in range(len(data)))


def test_scenes_can_be_packed(example):
    data = example.build()
    scenes = [data[i] for i in indices(data)]
    batch = Batch.of(scenes)
    assert len(batch) == len(scenes)
    assert (batch.labels is None) == (scenes[0].labels is None) and (batch.views is None) == (scenes[0].views is None)


def test_the_held_out_part_is_other_data(example):
    data, held = example.build(), example.held_out().build()
    assert held.labels == data.labels and len(held) > 0
    check_scene(held[0], held)
    seen = set().union(*(contents(data[i]) for i in indices(data)))
    assert not any(seen & contents(held[i]) for i in indices(held))


def test_configurations_survive_json(example):
    for one in (example, example.held_out()):
        assert from_json(DatasetConfig, to_json(one)) == one


def test_held_out_is_a_word_not_a_dataset():
    assert HeldOut().held_out() == HeldOut() == from_json(DatasetConfig, to_json(HeldOut()))
    with pytest.raises(DataError, match="ask Experiment.validation_data"):
        HeldOut().build()


def test_a_data_error_is_a_value_error():
    assert issubclass(DataError, ValueError)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/data/prepared:scene0000_00", "scene0000_00"),
        ("data/shard-000.tar:scene0011_01", "scene0011_01"),
        ("s3://bucket/Area_1/office_3", "office_3"),
        ("room 3 of seed 0", "room_3_of_seed_0"),
        ("C:\\scans\\my.scan", "my.scan"),
        ("/x/.hidden", "hidden"),
    ],
)
def test_names(source, name):
    assert scene_name(source) == name


@pytest.mark.parametrize("source", ["", "a/", "x:", "a/.."])
def test_a_source_without_a_name(source):
    with pytest.raises(DataError, match="the source of a scene must end with a name"):
        scene_name(source)
