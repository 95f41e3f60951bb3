"""Contract of every recipe: it is found, it survives JSON, its task builds, and a smoke size of it runs."""

from dataclasses import replace

import pytest
import torch

from ponder3d.config import from_json, to_json
from ponder3d.data.dataset import HeldOut
from ponder3d.data.driving.dataset import DrivingConfig
from ponder3d.data.joint import JointConfig
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.data.synthetic.streets import StreetsConfig
from ponder3d.data.transforms import apply
from ponder3d.encoders.files import FILE_NAME, load_encoder
from ponder3d.engine.evaluate import evaluate_scenes
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.log import SkippedFrames
from ponder3d.engine.loop import train
from ponder3d.recipes.catalogue import find_recipe, import_own, list_recipes

RECIPES = list_recipes()
FULL = sorted(name for name in RECIPES if not name.startswith("smoke."))
SMOKE = sorted(set(RECIPES) - set(FULL))
ONE_GPU = sorted(name for name in FULL if name.endswith("_one_gpu"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name):
    experiment = RECIPES[name]()
    assert from_json(Experiment, to_json(experiment)) == experiment


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is(name):
    first = (RECIPES[name].__doc__ or "").strip().splitlines()[0]
    assert first.endswith(".") and len(first) < 120


@pytest.mark.parametrize("name", ONE_GPU)
def test_one_gpu_takes_the_same_steps(name):
    """The same but for how a step is divided; every pass gets as many scenes, and pairs where they are mixed."""
    whole, divided = RECIPES[name.removesuffix("_one_gpu")](), RECIPES[name]()
    assert replace(divided, devices=whole.devices, accumulate=1) == whole
    assert divided.devices == 1 and divided.accumulate > 1 and divided.batch_size % divided.accumulate == 0
    assert f"in {divided.accumulate} passes of {divided.batch_size // divided.accumulate}" in RECIPES[name].__doc__
    divided.check_pairs(1)
    whole.check_pairs(whole.devices)


@pytest.mark.parametrize("name", [name for name in FULL if name not in ONE_GPU])
def test_a_recipe_has_a_smoke_size(name):
    small, full = RECIPES["smoke." + name.replace(".", "_")](), RECIPES[name]()
    assert type(small.task) is type(full.task) and type(small.data) is type(full.data)
    assert [type(t) for t in small.transforms] == [type(t) for t in full.transforms]
    assert small.steps <= 4


@pytest.mark.parametrize("name", FULL)
def test_training_and_evaluation_share_no_scene(name):
    experiment = RECIPES[name]()
    assert isinstance(experiment.validation, HeldOut)
    parts = [part.data for part in experiment.data.parts] if isinstance(experiment.data, JointConfig) else []
    for data in parts or [experiment.data]:
        if isinstance(data, PreparedConfig):
            assert data.held_out().split != data.split
        elif isinstance(data, StreetsConfig):
            assert data.held_out().first >= data.first + data.num_towns
        elif not isinstance(
            data, RGBDFolderConfig | DrivingConfig
        ):  # whose held-out frames are tested with the dataset
            assert data.held_out().first >= data.first + data.num_rooms


# Of recipes that differ in data or numbers alone some train by default, and these on request. The paper's sizes train
# in bf16 in tests/engine/test_precision.py, probes in tests/engine/test_probe.py.
TRAINED_ON_REQUEST = (
    "ablations",
    "methods",
    "rooms_homes",
    "rooms_offices",
    "rooms_renders",
    "rooms_prompted_codes",
    "datasets_s3dis",
    "datasets_structured3d",
    "datasets_scannet_label_free",
    "streets_lidar_semantic",
    "rivals_streets",
    "rivals_masked_streets_also",
    "rivals_masked_streets_masked",
    "rivals_masked_streets_self",
    "rivals_recorded",
    "semseg_finetune",
    "full_finetune",
    "shipped",
    "rooms_paper",
    "rooms_probed",
    "combinations_streets",
    "combinations_pandaset",
    "combinations_prepared",
    "scannet200",
    "scannet_few",
    "scannet_finetune",
)


# Ablations are ``pretrain_indoor.rooms`` with other numbers, and many; tests/tasks trains their renderers.
# Those that read frames or maps of features from a directory run in tests/data/test_rgbd_run.py.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if any(part in name for part in TRAINED_ON_REQUEST) else name
        for name in SMOKE
        if "rgbd_folder" not in name and "features" not in name
    ],
)
def test_a_smoke_recipe_trains(name, tmp_path, on_small_data):
    experiment = on_small_data(RECIPES[name](), name)
    result = train(experiment, tmp_path / "run", quiet=True)
    assert result.skipped_steps == 0 and result.figures
    assert load_encoder(tmp_path / "run" / FILE_NAME).config == experiment.task.encoder


# The tiny recordings of nuScenes and PandaSet have a dozen points.
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in SMOKE
        if "semseg" in name and not name.startswith(("smoke.semseg_driving_n", "smoke.semseg_driving_p"))
    ],
)
def test_segmentation_scores_every_point(name, on_small_data, tmp_path):
    experiment = on_small_data(RECIPES[name](), name)
    rooms = experiment.validation_data().build()
    task = experiment.task.build(rooms.labels)
    skipped = SkippedFrames(tmp_path / "skipped-frames.txt")
    state, _ = evaluate_scenes(task, experiment, torch.device("cpu"), skipped, range(1))
    seen = apply(experiment.validation_transforms, rooms[0], 0)  # streets end where the encoder's range does
    assert float(state.sum()) == int((seen.labels >= 0).sum()) > 1000


def test_a_recipe_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_recipes.py").write_text(
        "from ponder3d.engine.experiment import Experiment\n"
        "from ponder3d.recipes.semseg import rooms\n"
        "def bigger() -> Experiment:\n"
        "    return rooms()\n"
        "def other() -> int:\n"
        "    return 1\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_recipe("my_recipes.bigger")() == RECIPES["semseg.rooms"]()
    for wrong in ("my_recipes.other", "my_recipes.missing", "nowhere.at_all", "rooms"):
        with pytest.raises(ValueError, match="no recipe"):
            find_recipe(wrong)


def test_a_recipe_whose_annotations_are_strings(tmp_path, monkeypatch):
    (tmp_path / "later_recipes.py").write_text(
        "from __future__ import annotations\n"
        "from ponder3d.engine.experiment import Experiment\n"
        "from ponder3d.recipes.semseg import rooms\n"
        "def mine() -> Experiment:\n"
        "    return rooms()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_recipe("later_recipes.mine")() == RECIPES["semseg.rooms"]()


@pytest.mark.parametrize("name", ["./mine.py", "../no/dir", "a..b.c"])
def test_a_path_is_no_name_of_a_module(name):
    with pytest.raises(ValueError, match="is no name of a module: write mine for mine.py"):
        find_recipe(name)


def test_a_module_that_lacks_something_whose_name_begins_like_its_own(tmp_path, monkeypatch):
    (tmp_path / "absent3d_scans.py").write_text("import absent3d\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="absent3d"):
        import_own("absent3d_scans")
    assert import_own("absent3d.scans") is None and import_own("absent3d") is None


@pytest.mark.parametrize("name", [name for name in FULL if name.startswith("pretrain_datasets.")])
def test_pre_training_on_published_datasets_has_the_papers_temperature(name):
    """Vectors of text are so much alike that at 0.1 no loss tells them apart; points get the same vectors."""
    task = RECIPES[name]().task
    assert task.losses.temperature == 0.01
    if "label_free" not in name:
        assert task.semantics == task.points_head.vectors
