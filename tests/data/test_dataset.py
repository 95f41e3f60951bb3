"""The contract of datasets, for every one that the package has."""

import importlib
import pkgutil
from dataclasses import fields

import pytest
import torch

import ponder3d
from ponder3d.config import from_json, to_json
from ponder3d.data.dataset import DataError, DatasetConfig, HeldOut, SceneDataset
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.types import Batch, Scene


@pytest.fixture(params=["RoomsConfig", "RGBDFolderConfig"])
def config(request, tmp_path, recording) -> DatasetConfig:
    """A small instance of every kind of dataset; a new one joins here."""
    if request.param == "RoomsConfig":
        return RoomsConfig(num_rooms=2, num_test_rooms=2, num_views=3, num_fused_views=2, image_size=(24, 32))
    root = recording().write(tmp_path / "rec", "scannet")
    return RGBDFolderConfig(root=str(root), window=5, window_step=3, hold_out=4)


def test_every_dataset_of_the_package_is_tested_here():
    for module in pkgutil.walk_packages(ponder3d.__path__, "ponder3d."):
        importlib.import_module(module.name)
    found = {c.__name__ for c in DatasetConfig.__subclasses__() if c.__module__.startswith("ponder3d.")}
    assert found == {"RoomsConfig", "RGBDFolderConfig", "HeldOut"}


def tensors(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for f in fields(value) for t in tensors(getattr(value, f.name))] if hasattr(value, "xyz") else []


def check_scene(scene: Scene, dataset: SceneDataset):
    assert len(scene.xyz) > 0 and all(bool(torch.isfinite(t).all()) for t in tensors(scene))
    assert 0 <= float(scene.rgb.min()) and float(scene.rgb.max()) <= 1
    torch.testing.assert_close(scene.normal.norm(dim=1), torch.ones(len(scene.xyz)), atol=1e-4, rtol=0)
    views = scene.views
    height, width = views.cameras.size
    assert views.counts.tolist() == [len(views.cameras)] and views.rgb.shape == (len(views.cameras), height, width, 3)
    turn = views.cameras.world_from_cam[:, :3, :3]
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand_as(turn), atol=1e-4, rtol=0)
    assert float(views.depth.min()) >= 0 and float(views.depth.max()) > 0
    for labels in (scene.labels, views.labels):
        assert int(labels.min()) >= -1 and int(labels.max()) < len(dataset.labels)
    assert bool((scene.labels >= 0).any()) and scene.source


def test_scenes_are_valid_and_a_function_of_their_index(config):
    data, again = config.build(), config.build()
    for index in reversed(range(len(data))):
        scene = data[index]
        check_scene(scene, data)
        torch.testing.assert_close(scene.xyz, again[index].xyz, rtol=0, atol=0)
        assert torch.equal(scene.views.rgb, again[index].views.rgb) and scene.source == again[index].source
    with pytest.raises(IndexError):
        data[len(data)]


def test_scenes_can_be_packed(config):
    data = config.build()
    batch = Batch.of([data[i] for i in range(len(data))])
    assert len(batch) == len(data) and batch.labels is not None and batch.views is not None


def test_the_held_out_part_is_other_data(config):
    data, held = config.build(), config.held_out().build()
    assert held.labels == data.labels and len(held) > 0
    check_scene(held[0], held)
    images = {view.numpy().tobytes() for i in range(len(data)) for view in data[i].views.rgb}
    assert all(view.numpy().tobytes() not in images for i in range(len(held)) for view in held[i].views.rgb)


def test_configurations_survive_json(config):
    for one in (config, config.held_out(), HeldOut()):
        assert from_json(DatasetConfig, to_json(one)) == one


def test_held_out_is_a_word_not_a_dataset():
    assert HeldOut().held_out() == HeldOut()
    with pytest.raises(DataError, match="ask Experiment.validation_data"):
        HeldOut().build()


def test_a_data_error_is_a_value_error():
    assert issubclass(DataError, ValueError)
