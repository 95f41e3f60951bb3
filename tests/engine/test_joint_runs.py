"""Runs on several datasets as one: they train, go on to the bit, and are evaluated dataset by dataset."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from segmenting import BoardsConfig, semseg_run
from test_loop import StopError, stop_at
from tiny_runs import TinyRooms, TinyScenes, differences, final_state, ponder_run

from ponder3d.data.dataset import DataError
from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.predictions import read_prediction
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import (
    Centre,
    DropPoints,
    GridSample,
    KeepViews,
    Only,
    PickRays,
    PointsOnly,
    Rotate,
    SetCondition,
    SphereCrop,
)
from ponder3d.encoders.norms import PromptNormConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.evaluate import evaluate
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.log import read_table
from ponder3d.engine.loop import resume_experiment, train
from ponder3d.engine.optim import OptimConfig
from ponder3d.engine.predict import _other_split, predict
from ponder3d.engine.score import score
from ponder3d.tasks.class_vectors import ClassVectors, ClassVectorsConfig, FixedCodes
from ponder3d.tasks.heads import LanguageHeadConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.types import LabelSet, Scene

ROOMS = RoomsConfig(
    num_rooms=3, num_test_rooms=1, num_views=3, num_fused_views=2, image_size=(24, 32), max_points=400, cache="unset"
)
ENCODER = SparseUNetConfig(
    inputs=("rgb", "normal", "one"),
    grid_size=0.25,
    stem_channels=4,
    stem_kernel=3,
    channels=(4, 4),
    blocks=(1, 1),
    norm=PromptNormConfig(("fine", "coarse"), prompt_channels=4),
)


@dataclass(frozen=True)
class WallsConfig(TinyRooms):
    """Tiny rooms with classes: the axis that a wall is across, or whether it is upright."""

    names: tuple[str, ...] = ("x", "y", "z")

    def build(self) -> "Walls":
        return Walls(self)


class Walls(TinyScenes):
    def __init__(self, config: WallsConfig):
        super().__init__(config)
        self.labels = LabelSet(config.names, ((9, 9, 9),) * len(config.names))

    def __getitem__(self, index: int) -> Scene:
        scene = super().__getitem__(index)
        labels = scene.normal.abs().argmax(1)
        if len(self.labels) == 2:
            labels = (labels == 2).long()
        views = replace(scene.views, labels=torch.zeros(2, 8, 8, dtype=torch.int16))
        return replace(scene, labels=labels, views=views)


def walls() -> JointConfig:
    """Two sets with other classes, the second twice as often."""
    other = WallsConfig(num=2, first=50, names=("upright", "z"))
    return JointConfig((PartConfig("fine", WallsConfig(num=3), 1.0), PartConfig("coarse", other, 2.0)))


@pytest.fixture
def rooms(tmp_path) -> JointConfig:
    """Rooms with 37 classes, and others with 12 groups of them, twice as often."""
    data = replace(ROOMS, cache=str(tmp_path / "rooms"))
    grouped = replace(data, seed=1, num_rooms=2, classes="grouped")
    return JointConfig((PartConfig("fine", data, 1.0), PartConfig("coarse", grouped, 2.0)))


def pretraining(data: JointConfig, **changes) -> Experiment:
    base = ponder_run()
    task = replace(base.task, encoder=ENCODER, semantics=FixedCodes(40))
    crop = Only(("coarse",), (SphereCrop(share=0.8),))
    return replace(
        base,
        task=task,
        data=data,
        transforms=(DropPoints(0.3), Rotate(), crop, PickRays(views=2, rays_per_view=8)),
        validation_transforms=(KeepViews((0,)),),
        steps=4,
        batch_size=4,
        workers=0,
        **changes,
    )


def segmentation(data: JointConfig, **changes) -> Experiment:
    base = Experiment(
        task=SemSegConfig(encoder=ENCODER),
        data=data,
        transforms=(Centre(), PointsOnly(), GridSample()),
        validation_transforms=(Centre(), PointsOnly()),
        optim=OptimConfig(lr=1e-2),
        steps=4,
        batch_size=4,
        mix=0.5,
        save_every=2,
        log_every=1,
        workers=0,
    )
    return replace(base, **changes)


def check_goes_on_to_the_bit(tmp_path, experiment: Experiment) -> dict[str, float]:
    """A run, and one that is cut and goes on; returns the figures."""
    whole = train(experiment, tmp_path / "whole", quiet=True)
    with pytest.raises(StopError):
        train(experiment, tmp_path / "cut", report=stop_at(3))
    assert resume_experiment(tmp_path / "cut") == experiment
    again = train(experiment, tmp_path / "cut", resume=True, quiet=True)
    state = final_state(tmp_path / "cut")
    assert not differences(final_state(tmp_path / "whole"), state) and again.figures == whole.figures
    (statistics,) = (value for name, value in state["model"].items() if name.endswith("stem.norm.running_var"))
    assert bool((statistics != 1).any(1).all()), "both conditions have been seen"
    return whole.figures


def test_pretraining_goes_on_to_the_bit(tmp_path):
    figures = check_goes_on_to_the_bit(tmp_path, pretraining(walls()))
    assert "psnr" in figures
    assert {"semantic", "depth"} <= set(read_table(tmp_path / "whole" / "train.csv")[0])


def test_segmentation_goes_on_to_the_bit(tmp_path):
    figures = check_goes_on_to_the_bit(tmp_path, segmentation(walls()))
    assert {"miou", "miou/fine", "miou/coarse", "iou/fine/z", "iou/coarse/upright"} <= set(figures)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pretraining, segmentation])
def test_generated_rooms_go_on_to_the_bit(tmp_path, rooms, kind):
    figures = check_goes_on_to_the_bit(tmp_path, kind(rooms))
    assert ({"psnr"} if kind is pretraining else {"miou/fine", "miou/coarse", "iou/coarse/floor"}) <= set(figures)


def boards() -> JointConfig:
    """Two sets of boards whose scenes have the same names; the second's classes are in another order."""
    other = BoardsConfig(classes=("chair", "floor", "lamp"))
    return JointConfig((PartConfig("a", BoardsConfig()), PartConfig("b", other)))


def test_predictions_and_scores(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    train(semseg_run(data=boards(), steps=8, batch_size=6), run, quiet=True)
    figures = evaluate(run, quiet=True, augment="scannet")
    assert json.loads((run / "evaluation-scannet.json").read_text())["figures"] == figures
    assert figures["miou"] == pytest.approx((figures["miou/a"] + figures["miou/b"]) / 2)
    assert {name for name in figures if name.startswith("iou/b/")} == {"iou/b/chair", "iou/b/floor", "iou/b/lamp"}
    predicted = predict(run, out=out, augment="scannet", formats=("npz",), quiet=True)
    assert {name: predicted[name] for name in figures} == pytest.approx(figures)
    names = ["a.scene0700_00", "a.scene0701_00", "b.scene0700_00", "b.scene0701_00"]
    assert sorted(path.stem for path in out.glob("*.npz")) == names
    made = read_prediction(out / "b.scene0700_00.npz")
    assert made.condition == "b" and made.labels.names == ("floor", "wall", "chair", "lamp")
    assert set(made.truth.tolist()) == {-1, 2, 0, 3}
    scored = score([out])
    assert {name: scored[name] for name in figures} == pytest.approx(figures)
    with pytest.raises(ValueError, match="no benchmark with numbers for their classes"):
        predict(run, out=tmp_path / "other", formats=("scannet",), quiet=True)
    with pytest.raises(ValueError, match="BoardsConfig has no splits to choose from"):
        predict(run, out=tmp_path / "other", split="test", quiet=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": TinyRooms()}, "Experiment.data: the encoder tells fine, coarse apart, and no scene says which"),
        (
            {"data": TinyRooms(), "transforms": (SetCondition("Fine"), PickRays())},
            "Experiment.data: scenes have the condition 'Fine', and the encoder knows fine, coarse; give parts",
        ),
        (
            {"data": TinyRooms(), "transforms": (SetCondition("fine"), PickRays())},
            "Experiment.validation: the encoder tells fine, coarse apart",
        ),
        ({"data": JointConfig((PartConfig("x", TinyRooms()),))}, "Experiment.data: scenes have the condition 'x'"),
        (
            {"data": JointConfig((PartConfig("fine", TinyRooms()),)), "transforms": (Only(("x",)), PickRays())},
            "Only.conditions: no scene has the condition 'x'; there are fine",
        ),
    ],
)
def test_conditions_that_do_not_fit_are_refused_before_training(tmp_path, changes, message):
    base = ponder_run(transforms=(PickRays(),), workers=0)
    experiment = replace(base, task=replace(base.task, encoder=ENCODER), **changes)
    with pytest.raises(ValueError, match=message):
        train(experiment, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_an_encoder_may_know_more_conditions(tmp_path):
    base = ponder_run(transforms=(PickRays(views=1, rays_per_view=4),), steps=1, workers=0)
    data = JointConfig((PartConfig("coarse", TinyRooms()),))
    train(replace(base, task=replace(base.task, encoder=ENCODER), data=data), tmp_path / "run", quiet=True)
    named = (SetCondition("coarse"), KeepViews((0,)))
    single = replace(
        base,
        task=replace(base.task, encoder=ENCODER),
        transforms=(SetCondition("coarse"), PickRays(views=1, rays_per_view=4)),
        validation_transforms=named,
    )
    train(single, tmp_path / "single", quiet=True)


def test_the_other_split_of_every_part(tmp_path):
    data = JointConfig((PartConfig("a", PreparedConfig(root="x")), PartConfig("b", PreparedConfig(root="y"))))
    assert [part.data.split for part in _other_split(data, "test").parts] == ["test", "test"]


def test_a_part_that_is_not_there(tmp_path):
    data = JointConfig((PartConfig("a", BoardsConfig()), PartConfig("b", PreparedConfig(root=str(tmp_path / "none")))))
    with pytest.raises(DataError, match=r"data.parts\[1\] \(b\): .*none/manifest.json: no such file"):
        train(semseg_run(data=data), tmp_path / "run", quiet=True)


def test_loader_processes_see_the_same(tmp_path):
    states = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        train(segmentation(walls(), steps=2, workers=workers), out, quiet=True)
        states.append(final_state(out))
    assert not differences(*states)


@dataclass(frozen=True)
class FromWords(ClassVectorsConfig):
    """Vectors of a text encoder that may be gone."""

    encoder: str = ""

    def build(self, labels: LabelSet) -> ClassVectors:
        if not Path(self.encoder).is_file():
            raise ValueError("there is no text encoder")
        generator = torch.Generator().manual_seed(5)
        return ClassVectors(F.normalize(torch.randn(len(labels), 2, generator=generator)), "a model of words")


def test_a_run_goes_on_and_is_evaluated_where_its_text_encoder_is_not(tmp_path):
    encoder = tmp_path / "encoder"
    encoder.touch()
    experiment = semseg_run(steps=4, save_every=2, log_every=1)
    head = LanguageHeadConfig(FromWords(str(encoder)))
    experiment = replace(experiment, task=replace(experiment.task, head=head))
    train(experiment, tmp_path / "whole", quiet=True)
    with pytest.raises(StopError):
        train(experiment, tmp_path / "cut", report=stop_at(3))
    encoder.unlink()
    result = train(resume_experiment(tmp_path / "cut"), tmp_path / "cut", resume=True, quiet=True)
    assert not differences(final_state(tmp_path / "whole"), final_state(tmp_path / "cut"))
    assert evaluate(tmp_path / "cut", quiet=True) == result.figures
    assert json.loads((tmp_path / "cut" / "evaluation.json").read_text())["class_vectors"] == "a model of words"
    with pytest.raises(ValueError, match="there is no text encoder"):
        train(experiment, tmp_path / "new", quiet=True)


def test_rendered_classes_too_are_rebuilt_without_their_text_encoder(tmp_path):
    encoder = tmp_path / "encoder"
    encoder.touch()
    words, labels = FromWords(str(encoder)), WallsConfig().build().labels
    config = replace(ponder_run().task, semantics=words, points=1.0, points_head=LanguageHeadConfig(words))
    made = config.build(labels)
    encoder.unlink()
    again = config.rebuild(labels, made.state_dict(), made.facts())
    assert again.facts() == made.facts() and len(made.facts()) == 2
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.class_vectors, made.class_vectors)
    with pytest.raises(ValueError, match="there is no text encoder"):
        config.rebuild(labels, made.state_dict(), {})
