"""Methods by name, and what a pre-training takes over from the target of a comparison."""

from dataclasses import replace

import pytest

from ponder3d.data.dataset import DatasetConfig
from ponder3d.data.driving.folder import DriveFolderConfig
from ponder3d.data.driving.nuscenes import NuScenesConfig
from ponder3d.data.driving.pandaset import PandaSetConfig
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import SetCondition
from ponder3d.encoders.norms import PromptNormConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.checks import check_conditions
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import combinations, pretrain_driving, semseg, semseg_datasets, semseg_driving
from ponder3d.recipes.catalogue import find_recipe
from ponder3d.recipes.methods import known_methods, pretraining
from ponder3d.render.opacity import UniSurf
from ponder3d.tasks.combined import CombinedConfig
from ponder3d.tasks.ponder import PonderConfig


def of_method(name: str, target: str, experiment: Experiment) -> Experiment:
    return pretraining(known_methods(target, experiment.data)[name], experiment, 1, 60, "unused")


def changed(target: str, **data: object) -> Experiment:
    experiment = find_recipe(target)()
    return replace(experiment, data=replace(experiment.data, **data))


def test_image_encoders_are_no_methods_of_points() -> None:
    known = known_methods("semseg_driving.pandaset", semseg_driving.pandaset().data)
    assert "ponder" in known and "camera" not in known


@pytest.mark.parametrize(
    "target", ["semseg.rooms", "semseg.prepared", "semseg_driving.streets", "semseg_driving.pandaset"]
)
def test_rivals_have_the_data_and_the_budget_of_rendering(target) -> None:
    """Each of them, indoors, outdoors and on recordings; what differs is what is learnt."""
    rivals = {"point_contrast", "masked_scene_contrast", "pixel_contrast", "superpixel_contrast", "masked_occupancy"}
    rivals |= {"also", "self_distil", "ponder_distil", "ponder_contrast"}
    known = known_methods(target, find_recipe(target)().data)
    assert set(known) >= rivals | {"ponder"}
    own = known["ponder"]()
    for name in rivals:
        rival = known[name]()
        assert replace(rival, task=own.task, transforms=own.transforms, validation_transforms=()) == replace(
            own, validation_transforms=()
        )
        assert rival.task.encoder == own.task.encoder and rival.task != own.task


def test_a_combination_has_the_budget_in_every_part() -> None:
    """Renderings within it too: what shrinks does so over the run, and nothing is spent on views that nobody reads."""
    own = combinations.streets_ponder_distil()
    assert isinstance(own.task, CombinedConfig)
    part = own.task.parts[0]
    assert isinstance(part.task, PonderConfig) and part.task.render.evaluation_factor == 4
    shrinking = replace(part.task, render=replace(part.task.render, opacity=UniSurf(shrinking=7)))
    mixed = replace(own, task=replace(own.task, parts=(replace(part, task=shrinking), *own.task.parts[1:])))
    made = pretraining(lambda: mixed, semseg_driving.streets(), 0, 60, "unused").task
    assert isinstance(made, CombinedConfig) and made.parts[1:] == mixed.task.parts[1:]
    assert made.parts[0].task.render == replace(shrinking.render, opacity=UniSurf(shrinking=60), evaluation_factor=1)


PANDASET = {"root": "DIR", "drives": ("002",), "test_frames": (0, 15), "lasers": "spinning", "raised": 1.0, "sweeps": 2}
PREPARED = {"root": "DIR", "fold": "Area_3", "scenes": "few.txt", "skip": "skip.tsv", "held_out_split": "test"}


@pytest.mark.parametrize(("target", "fields"), [("semseg_driving.pandaset", PANDASET), ("semseg.prepared", PREPARED)])
@pytest.mark.parametrize("method", ["ponder", "point_contrast", "self_distil"])
def test_nothing_that_is_tested_on_is_pretrained_on(method: str, target: str, fields: dict[str, object]) -> None:
    experiment = changed(target, **fields)
    own = known_methods(target, experiment.data)[method]().data
    made = of_method(method, target, experiment).data
    assert {name: getattr(made, name) for name in fields} == fields
    images = {name: getattr(own, name) for name in own.beside_points}
    assert {name: getattr(made, name) for name in own.beside_points} == images, "its images stay those of the recipe"
    assert replace(made, **{name: getattr(experiment.data, name) for name in own.beside_points}) == experiment.data


@pytest.mark.parametrize("method", ["ponder", "ponder_distil", "point_contrast"])
def test_nobody_is_pretrained_on_designs_that_are_held_out(method: str) -> None:
    """Rooms to pre-train on are the recipe's own, but for the furniture that is in the rooms to test on."""
    made = of_method(method, "semseg.rooms", changed("semseg.rooms", designs="seen", num_rooms=12)).data
    plain = of_method(method, "semseg.rooms", changed("semseg.rooms", num_rooms=12)).data
    assert made == replace(plain, designs="seen") and plain.designs == "all" and plain.num_rooms != 12


def test_a_recipe_with_recordings_of_its_own_keeps_them() -> None:
    own = pretrain_driving.pandaset()
    own = replace(own, data=replace(own.data, root="OTHER", test_frames=(1, 2)))
    target = changed("semseg_driving.pandaset", root="DIR", test_frames=(0, 15))
    assert pretraining(lambda: own, target, 1, 60, "unused").data == own.data
    of_same = replace(own, data=replace(own.data, root="DIR"))
    assert pretraining(lambda: of_same, target, 1, 60, "unused").data.test_frames == (0, 15)


def test_recordings_of_another_kind_lie_where_the_targets_do() -> None:
    folder = pretrain_driving.folder()
    target = changed("semseg_driving.pandaset", root="DIR", test_frames=(0, 15))
    assert pretraining(lambda: folder, target, 1, 60, "unused").data == replace(folder.data, root="DIR")


@pytest.mark.parametrize("config", [PandaSetConfig, NuScenesConfig, DriveFolderConfig, PreparedConfig])
def test_fields_beside_points_are_fields(config: type[DatasetConfig]) -> None:
    assert config.beside_points and all(hasattr(config(), name) for name in config.beside_points)


def test_it_runs_where_the_target_does() -> None:
    target = replace(semseg.rooms(), accelerator="cpu")
    assert of_method("ponder", "semseg.rooms", target).accelerator == "cpu"


def test_it_is_told_the_condition_that_the_encoder_has_norms_of() -> None:
    target = semseg_datasets.scannet_finetune()
    known = known_methods("semseg_datasets.scannet_finetune", target.data)
    assert {"ponder", "point_contrast", "ponder_distil"} <= set(known)
    for recipe in known.values():
        made = pretraining(recipe, target, 1, 60, "unused")
        encoder = made.task.encoder
        assert isinstance(encoder, SparseUNetConfig) and encoder.norm == PromptNormConfig(("ScanNet",))
        for steps in (made.transforms, made.validation_transforms):
            assert steps[0] == SetCondition("ScanNet")
            check_conditions("data", RoomsConfig(num_rooms=1).build(), steps, encoder.build())
