from dataclasses import dataclass, replace

import pytest
from segmenting import BoardsConfig, semseg_run
from tiny_runs import TinyRooms, final_state, plain_run, ponder_run

from ponder3d.data import loader
from ponder3d.data.context import ContextTarget
from ponder3d.data.image_features import FeatureMaps
from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.mix import mix_pairs
from ponder3d.data.transforms import DropModality, Only, PickRays, SetCondition
from ponder3d.engine.evaluate import load_task
from ponder3d.engine.experiment import first_difference
from ponder3d.engine.loop import train


def test_the_probability_of_mixing():
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"Experiment\.mix must lie in \[0, 1\], it is {wrong}"):
            plain_run(mix=wrong)


@pytest.mark.parametrize(("batch_size", "accumulate", "ranks"), [(2, 1, 1), (4, 2, 1), (8, 2, 2), (12, 1, 3)])
def test_pairs_that_stay_together(batch_size, accumulate, ranks):
    plain_run(batch_size=batch_size, accumulate=accumulate, mix=0.5).check_pairs(ranks)
    plain_run(batch_size=batch_size + ranks * accumulate, accumulate=accumulate).check_pairs(ranks)
    with pytest.raises(ValueError, match=rf"must be a multiple of {2 * accumulate * ranks}, an even number"):
        plain_run(batch_size=batch_size + ranks * accumulate, accumulate=accumulate, mix=0.5).check_pairs(ranks)


def test_pairs_that_do_not_are_refused_before_anything_is_done(tmp_path):
    with pytest.raises(ValueError, match=r"Experiment\.mix takes pairs of scenes: batch_size must be a multiple of 4"):
        train(semseg_run(batch_size=2, accumulate=2, mix=0.8), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_that_mixes(tmp_path, monkeypatch):
    mixed, plain = semseg_run(mix=1.0, steps=2), semseg_run(steps=2)
    assert first_difference(mixed, plain) == "mix"
    met = []

    def noted(scenes, probability):
        met.append((len(scenes), probability))
        return mix_pairs(scenes, probability)

    monkeypatch.setattr(loader, "mix_pairs", noted)
    train(plain, tmp_path / "plain", quiet=True)
    assert not met
    train(mixed, tmp_path / "mixed", quiet=True)
    assert met == [(2, 1.0)] * 2, "the steps, and not the evaluation"
    one, other = (final_state(tmp_path / name)["model"]["head.weight"] for name in ("mixed", "plain"))
    # The class of a point is told from its colour, and the loss is a mean over points: all is as it was.
    assert float((one - other).abs().max()) < 1e-5
    assert load_task(tmp_path / "mixed")[1] == mixed


def test_features_that_do_not_fit_the_task_are_refused_before_anything_is_done(tmp_path):
    run = ponder_run(workers=0)
    rays = PickRays(2, 8, features=Numbers())
    made = replace(run, transforms=(*run.transforms[:-1], rays), task=replace(run.task, feature_channels=3))
    with pytest.raises(ValueError, match=r"of 5 channels, .* one of 3; set --task\.feature-channels 5"):
        train(made, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    train(replace(made, steps=1, task=replace(made.task, feature_channels=5)), tmp_path / "run", quiet=True)
    header, row = (tmp_path / "run" / "train.csv").read_text().splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["feature"] != "0"


def test_features_that_nothing_gives_or_nothing_learns_from_are_refused():
    run = ponder_run(task=replace(ponder_run().task, feature_channels=5))
    rays = PickRays(2, 8, features=Numbers())
    data = JointConfig((PartConfig("a", TinyRooms()), PartConfig("b", TinyRooms(first=9)))).build()
    with pytest.raises(ValueError, match="renders a target feature of 5 channels, and no transform gives rays one"):
        run.check_data(data)
    with pytest.raises(ValueError, match="and no transform gives rays one"):
        replace(run, transforms=(Only(("c",), (rays,)),)).check_data(data)
    replace(run, transforms=(Only(("b",), (rays,)), Only(("a",), (PickRays(2, 8),)))).check_data(data)
    named = (SetCondition("c"), Only(("c",), (rays,)))
    replace(run, transforms=named).check_data(TinyRooms().build())
    one = replace(run, task=replace(run.task, feature_channels=4), transforms=(Only(("b",), (rays,)),))
    with pytest.raises(ValueError, match=r"of 5 channels, .* one of 4; set --task\.feature-channels 5"):
        one.check_data(data)
    with pytest.raises(ValueError, match=r"of 5 channels, .* one of 0; set --task\.feature-channels 5"):
        ponder_run(transforms=(rays,)).check_data(data)
    surroundings = (PickRays(2, 8), ContextTarget())
    ponder_run(transforms=surroundings).check_data(data)


def test_inputs_that_some_scenes_lose():
    drops = Only(("a",), (DropModality(colour=0.5, normal=0.0),))
    run = ponder_run(transforms=(drops,))
    assert "rgb" in run.task.encoder.inputs and run.dropped_inputs() == ["rgb"]
    assert ponder_run(transforms=(DropModality(colour=0.0, normal=0.0),)).dropped_inputs() == []


def test_other_classes_to_evaluate_on_are_refused_before_anything_is_done(tmp_path):
    run = semseg_run(validation=BoardsConfig(classes=("chair", "floor", "lamp")))
    message = r"Experiment\.validation: its classes \(3: chair, floor, lamp\) are not those of the training data \("
    with pytest.raises(ValueError, match=message):
        train(run, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    joint = replace(run, data=JointConfig((PartConfig("a", BoardsConfig()),)), validation=BoardsConfig())
    with pytest.raises(ValueError, match="classes are those of a, and no scene says of which it is; put SetCondition"):
        train(joint, tmp_path / "run", quiet=True)
    named = replace(joint, validation_transforms=(SetCondition("a"), *joint.validation_transforms), steps=1)
    assert "miou/a" in train(named, tmp_path / "run", quiet=True).figures


@dataclass(frozen=True)
class Numbers(FeatureMaps):
    """Features that need no files."""

    def num_channels(self):
        return 5

    def check(self, dataset):
        assert len(dataset)

    def look_up(self, scene, uv, view):
        return uv[:, :1].expand(-1, 5)
