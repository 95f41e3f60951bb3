"""The loop: what is skipped, what is saved when it is asked to stop, and what it continues."""

import errno
import itertools
import json
import os
import signal
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import (
    Plain,
    PlainConfig,
    PlainEncoder,
    PlainEncoderConfig,
    TinyRooms,
    before_each_call,
    differences,
    final_state,
    plain_run,
    ponder_run,
)

from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import GridSample
from ponder3d.encoders.files import FILE_NAME, EncoderFileError, load_encoder, read_card, save_encoder
from ponder3d.engine import loop, runner
from ponder3d.engine.checkpoint import CheckpointError, CheckpointStore, NoCheckpointError
from ponder3d.engine.evaluate import evaluate, load_task
from ponder3d.engine.experiment import first_difference
from ponder3d.engine.log import read_table
from ponder3d.engine.loop import NonFiniteError, PreemptedError, resume_experiment, train
from ponder3d.engine.optim import OptimConfig
from ponder3d.engine.sampler import StepSampler

ALL_SCENES = tuple(f"tiny/{index}" for index in range(5))


class StopError(Exception):
    """Stands for a kill, for everything that is on disk."""


def stop_at(*steps: int):
    """A report that stops the run after one of some steps."""

    def report(step: int, total: int, figures: dict[str, float]) -> None:
        if step in steps:
            raise StopError

    return report


def state_after(out: Path, step: int) -> dict:
    (path,) = [p for p in (out / "checkpoints").iterdir() if p.name == f"step-{step:08d}"]
    return torch.load(path / "state.pt", weights_only=True)


def column(path: Path, name: str = "step") -> list[str]:
    return [row[name] for row in read_table(path)]


# ------------------------------------------------------------------------------------------------------- not finite


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_and_names_its_scenes(tmp_path, capsys, bad):
    encoder = PlainEncoderConfig(norm=True)
    task = PlainConfig(encoder, bad_scenes=("tiny/3",), bad=bad)
    experiment = plain_run(task=task, steps=10, save_every=1, keep=100)
    result = train(experiment, tmp_path)
    drawn = list(StepSampler(5, 2, experiment.seed, range(10)))
    spoilt = [step for step, batch in enumerate(drawn) if 3 in [index for _, index in batch]]
    # 20 draws are 4 epochs; step 7 has the last draw of one and the first of the next.
    assert len(spoilt) == result.skipped_steps == 3
    for step in range(1, 10):
        found = differences(state_after(tmp_path, step), state_after(tmp_path, step + 1))
        # Every step sets the learning rate anew.
        changed = {name.split("/")[1] for name in found if not name.endswith("/lr")}
        if step in spoilt:
            assert changed == {"step", "skipped", "bad_in_a_row"}
        else:
            assert {"step", "model", "optimizer"} <= changed
    lines = (tmp_path / "skipped.log").read_text().splitlines()
    assert len(lines) == 3
    printed = capsys.readouterr().err
    for line, step in zip(lines, spoilt, strict=True):
        scenes = ", ".join(f"tiny/{index}" for _, index in drawn[step])
        assert line == f"step {step} skipped on all ranks; rank 0, {bad} not finite, scenes: {scenes}"
        assert line in printed
    assert column(tmp_path / "train.csv", "skipped_steps")[-1] == "3"


@pytest.fixture
def lagging(monkeypatch):
    """As on a GPU: what was decided about a step is read while the next one runs."""
    init = loop._Run.__init__

    def init_lagging(self, *args):
        init(self, *args)
        self.lag = 1

    monkeypatch.setattr(loop._Run, "__init__", init_lagging)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_decisions_that_are_read_later_are_the_same(tmp_path, name, request):
    task = PlainConfig(PlainEncoderConfig(norm=True), bad_scenes=("tiny/3",))
    experiment = plain_run(task=task, steps=10, save_every=4, log_every=3, optim=OptimConfig(name))
    train(experiment, tmp_path / "at once", quiet=True)
    request.getfixturevalue("lagging")
    assert train(experiment, tmp_path / "later", quiet=True).skipped_steps == 3
    assert not differences(final_state(tmp_path / "at once"), final_state(tmp_path / "later"))
    for file in ("skipped.log", "validation.csv"):
        assert (tmp_path / "at once" / file).read_text() == (tmp_path / "later" / file).read_text()
    losses = [column(tmp_path / run / "train.csv", "loss") for run in ("at once", "later")]
    assert losses[0] == losses[1] and "nan" not in losses[0]


def test_decisions_that_are_read_later_end_a_run_too(tmp_path, lagging):
    experiment = plain_run(task=PlainConfig(bad_scenes=ALL_SCENES, bad_from=2), save_every=100, max_bad_steps=3)
    with pytest.raises(NonFiniteError, match="3 steps in a row were not finite, the last of them step 4"):
        train(experiment, tmp_path, quiet=True)


def test_a_request_to_stop_that_is_read_later_is_heeded(tmp_path, lagging):
    experiment = plain_run(steps=12, save_every=100, log_every=5)

    def ask(done: int, steps: int, figures: dict[str, float]) -> None:
        if done == 5:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(PreemptedError, match="after step 7"):  # asked in step 6, read in step 7
        train(experiment, tmp_path / "stopped", report=ask)
    train(experiment, tmp_path / "stopped", resume=True, quiet=True)
    train(experiment, tmp_path / "whole", quiet=True)
    assert not differences(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole"))


def test_too_many_such_steps_in_a_row_end_the_run_with_finite_checkpoints(tmp_path):
    task = PlainConfig(bad_scenes=ALL_SCENES, bad_from=5)
    experiment = plain_run(task=task, save_every=1, keep=100, max_bad_steps=3)
    with pytest.raises(NonFiniteError, match="3 steps in a row were not finite, the last of them step 7"):
        train(experiment, tmp_path, quiet=True)
    state = final_state(tmp_path)
    assert state["bad_in_a_row"] == 2
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    assert not differences(state["model"], state_after(tmp_path, 5)["model"])
    assert all(torch.isfinite(value).all() for value in load_encoder(tmp_path).state_dict().values())
    # The count goes on after a resume: the next bad step is the third again.
    with pytest.raises(NonFiniteError, match="step 7"):
        train(experiment, tmp_path, resume=True, quiet=True)


def test_bad_steps_that_are_not_in_a_row_do_not_end_the_run(tmp_path):
    # Steps 1 and 2, then 7: three, of which two are in a row.
    experiment = plain_run(task=PlainConfig(bad_scenes=("tiny/3",)), max_bad_steps=3)
    assert train(experiment, tmp_path / "three", quiet=True).skipped_steps == 3
    with pytest.raises(NonFiniteError, match="step 2"):
        train(replace(experiment, max_bad_steps=2), tmp_path / "two", quiet=True)


def test_too_many_bad_steps_of_a_run_end_it_also_if_they_are_not_in_a_row(tmp_path):
    experiment = plain_run(task=PlainConfig(bad_scenes=("tiny/3",)), max_skipped_steps=3, save_every=1)
    with pytest.raises(NonFiniteError, match="3 steps of the run were not finite, the last of them step 7"):
        train(experiment, tmp_path, quiet=True)
    assert final_state(tmp_path)["step"] == 7
    with pytest.raises(NonFiniteError, match="step 7"):  # the count goes on
        train(experiment, tmp_path, resume=True, quiet=True)
    assert train(replace(experiment, max_skipped_steps=4), tmp_path / "four", quiet=True).skipped_steps == 3


# ----------------------------------------------------------------------------------------------------------- resuming


def test_a_run_that_stops_around_the_end_of_an_epoch_once_or_more_ends_with_the_same_bits(tmp_path):
    experiment = plain_run(save_every=1, task=PlainConfig(PlainEncoderConfig(norm=True), noise=0.1))
    train(experiment, tmp_path / "whole", quiet=True)
    whole = final_state(tmp_path / "whole")
    # Epochs end within step 3 and at step 5, 7.5 and 10.
    stops = [(1,), (4,), (5,), (6,), (9,), (10,), (2, 3), (4, 5), (5, 6), (7, 8), (3, 5, 8)]
    for number, steps in enumerate(stops):
        out = tmp_path / str(number)
        for step in steps:
            with pytest.raises(StopError):
                train(experiment, out, resume=True, report=stop_at(step))
        train(experiment, out, resume=True, quiet=True)
        assert not differences(final_state(out), whole), steps
        assert column(out / "train.csv") == [str(step) for step in range(1, 11)]


def test_another_seed_ends_with_other_bits(tmp_path):
    for seed in (0, 1):
        train(plain_run(seed=seed), tmp_path / str(seed), quiet=True)
    assert "/model/head.weight" in differences(final_state(tmp_path / "0"), final_state(tmp_path / "1"))


def test_a_damaged_checkpoint_costs_steps_but_no_bits(tmp_path, capsys):
    experiment = plain_run()
    train(experiment, tmp_path / "whole", quiet=True)
    out = tmp_path / "damaged"
    with pytest.raises(StopError):
        train(experiment, out, report=stop_at(8))
    path = out / "checkpoints" / "step-00000006" / "state.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    train(experiment, out, resume=True, quiet=True)
    assert f"a damaged checkpoint was passed over: {path.parent}" in capsys.readouterr().err
    assert not differences(final_state(out), final_state(tmp_path / "whole"))


def test_with_damaged_checkpoints_only_the_run_does_not_start_over(tmp_path):
    train(plain_run(keep=1), tmp_path, quiet=True)
    (tmp_path / "checkpoints" / "step-00000010" / "state.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint that verifies"):
        train(plain_run(keep=1), tmp_path, resume=True, quiet=True)


def test_a_directory_that_holds_a_run_is_not_overwritten(tmp_path):
    train(plain_run(), tmp_path, quiet=True)
    before = final_state(tmp_path)
    with pytest.raises(ValueError, match="already holds a run"):
        train(plain_run(), tmp_path, quiet=True)
    assert not differences(final_state(tmp_path), before)


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 11), ("seed", 1), ("batch_size", 5), ("data", TinyRooms(num=6)), ("task", PlainConfig(bad="gradient"))],
)
def test_another_experiment_is_not_continued(tmp_path, field, value):
    train(plain_run(), tmp_path, quiet=True)
    with pytest.raises(ValueError, match=f"holds another experiment .it differs in {field}."):
        train(plain_run(**{field: value}), tmp_path, resume=True, quiet=True)


def test_where_the_scenes_are_cached_may_change():
    """Rooms are the same wherever they are kept."""
    one, other = (plain_run(data=RoomsConfig(cache=name)) for name in ("here", "there"))
    assert first_difference(one, other) is None
    assert first_difference(one, plain_run(data=RoomsConfig(seed=1))) == "data"


def test_with_a_budget_of_points_a_batch_may_not_be_split_otherwise():
    """How far a scene is cropped depends on those that share its pass."""
    assert first_difference(plain_run(), plain_run(accumulate=2)) is None
    assert first_difference(plain_run(max_points=9), plain_run(max_points=9, accumulate=2)) == "accumulate"
    assert first_difference(plain_run(max_points=9), plain_run(max_points=9, accelerator="cpu")) is None


def test_clouds_are_as_dense_as_the_encoder_wants_them(tmp_path):
    """The grid size is named once: with the encoder."""

    def points(grid_size: float) -> list[int]:
        task = PlainConfig(PlainEncoderConfig(grid_size=grid_size), prepared=str(tmp_path / "prepared"))
        experiment = plain_run(task=task, transforms=(GridSample(),), validation_transforms=(GridSample(),), steps=1)
        sizes = []
        forward = PlainEncoder.forward

        def look(encoder, batch):
            sizes.append(len(batch.points.xyz))
            return forward(encoder, batch)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PlainEncoder, "forward", look)
            train(experiment, tmp_path / str(grid_size), quiet=True)
        return sizes

    coarse, fine = points(0.9), points(0.01)
    assert fine == [120, 60, 60], "a training batch of two scenes, and two to evaluate"
    assert coarse[0] < 80 and max(coarse[1:]) < 40


def test_how_a_run_is_stored_and_logged_may_change(tmp_path):
    train(plain_run(), tmp_path / "whole", quiet=True)
    with pytest.raises(StopError):
        train(plain_run(), tmp_path / "changed", report=stop_at(4))
    train(plain_run(save_every=1, keep=5, log_every=3), tmp_path / "changed", resume=True, quiet=True)
    assert not differences(final_state(tmp_path / "changed"), final_state(tmp_path / "whole"))


def test_the_experiment_of_a_run_is_in_its_checkpoint(tmp_path):
    train(plain_run(seed=3), tmp_path, quiet=True)
    assert resume_experiment(tmp_path) == plain_run(seed=3)
    with pytest.raises(NoCheckpointError, match="this is no run"):
        resume_experiment(tmp_path / "none")


def test_a_run_that_stops_before_its_first_periodic_checkpoint_is_resumed(tmp_path, monkeypatch):
    experiment = plain_run(save_every=100, task=PlainConfig(prepared=str(tmp_path / "prepared.txt")), validate_every=5)
    train(experiment, tmp_path / "whole", quiet=True)

    def stop(*args: object) -> None:
        raise StopError

    for number, place in enumerate(("_step", "_validate")):  # the first step, and the evaluation before it
        out = tmp_path / str(number)
        with monkeypatch.context() as patch, pytest.raises(StopError):
            patch.setattr(loop._Run, place, stop)
            train(experiment, out, quiet=True)
        assert not (out / FILE_NAME).exists()  # an encoder that has learnt nothing
        with pytest.raises(StopError):
            train(resume_experiment(out), out, resume=True, report=stop_at(2))
        train(resume_experiment(out), out, resume=True, quiet=True)
        assert not differences(final_state(out), final_state(tmp_path / "whole"))
        assert column(out / "validation.csv") == ["0", "5", "10"]


def test_a_resumed_run_does_not_need_the_encoder_it_started_from(tmp_path):
    train(plain_run(seed=1), tmp_path / "first", quiet=True)
    start = tmp_path / "start.safetensors"
    (tmp_path / "first" / FILE_NAME).rename(start)
    experiment = plain_run(init=str(start))
    train(experiment, tmp_path / "whole", quiet=True)
    with pytest.raises(StopError):
        train(experiment, tmp_path / "run", report=stop_at(5))
    start.unlink()
    train(experiment, tmp_path / "run", resume=True, quiet=True)
    assert not differences(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))
    with pytest.raises(ValueError, match="Experiment.init: .*start.safetensors: no such file"):
        train(experiment, tmp_path / "new", quiet=True)


def test_an_encoder_that_reads_something_else_is_no_start(tmp_path):
    train(plain_run(steps=1), tmp_path / "first", quiet=True)
    task = PlainConfig(PlainEncoderConfig(inputs=("normal", "rgb")))
    with pytest.raises(EncoderFileError, match="trained with inputs .'rgb', 'normal'."):
        train(plain_run(task=task, init=str(tmp_path / "first")), tmp_path / "second", quiet=True)


@pytest.mark.parametrize("problem", [StopError(), OSError(errno.ENOSPC, "No space left on device")])
def test_whatever_happens_while_the_encoder_is_written_the_resumed_run_has_it(tmp_path, monkeypatch, problem):
    experiment = plain_run(steps=2, save_every=1)
    for last in range(2, 20):  # call to the operating system within the last save
        out, calls = tmp_path / str(last), itertools.count()

        def disturb(name: str) -> None:
            if next(calls) == last:  # noqa: B023
                raise problem

        def disturbed(encoder, path, card):
            with before_each_call(disturb):  # noqa: B023
                save_encoder(encoder, path, card)

        def write(encoder, path, card):
            (disturbed if card["step"] == 2 else save_encoder)(encoder, path, card)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(loop, "save_encoder", write)
            try:
                train(experiment, out, quiet=True)
                break
            except StopError:
                pass
            except OSError as error:
                assert error.errno == errno.ENOSPC and str(out / FILE_NAME) in str(error)
                assert not list(out.glob(".tmp-*"))
        train(experiment, out, resume=True, quiet=True)
        assert read_card(out)["card"]["step"] == 2
        model = final_state(out)["model"]
        weights = {f"encoder.{name}": value for name, value in load_encoder(out).state_dict().items()}
        assert not differences(weights, {name: model[name] for name in weights})
        assert not list(out.glob(".tmp-*"))
    assert last >= 4


def test_no_step_is_in_a_table_twice(tmp_path):
    experiment = plain_run(validate_every=4, save_every=3)
    for stop in (2, 5, 9):  # before the first checkpoint, and after evaluations that are done again
        with pytest.raises(StopError):
            train(experiment, tmp_path, resume=True, report=stop_at(stop))
    for _ in range(2):  # a run that is done evaluates again
        train(experiment, tmp_path, resume=True, quiet=True)
    assert column(tmp_path / "train.csv") == [str(step) for step in range(1, 11)]
    assert column(tmp_path / "validation.csv") == ["0", "4", "8", "10"]


# ----------------------------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_resumed_run_ends_with_the_same_bits(tmp_path, number):
    experiment = plain_run(save_every=100)
    train(experiment, tmp_path / "whole", quiet=True)

    def report(step: int, total: int, figures: dict[str, float]) -> None:
        if step == 4:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(PreemptedError, match="stopped after step 5"):
        train(experiment, tmp_path / "out", report=report)
    assert signal.getsignal(number) == before
    assert CheckpointStore(tmp_path / "out" / "checkpoints").steps() == [0, 5]
    train(experiment, tmp_path / "out", resume=True, quiet=True)
    assert not differences(final_state(tmp_path / "out"), final_state(tmp_path / "whole"))


def test_a_run_that_is_asked_to_stop_does_not_evaluate_first(tmp_path):
    """Asked in the fourth step, it is at the fifth that it stops; the evaluation there is made up for."""
    experiment = plain_run(save_every=100, validate_every=5)
    train(experiment, tmp_path / "whole", quiet=True)

    def report(step: int, total: int, figures: dict[str, float]) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(PreemptedError, match="stopped after step 5"):
        train(experiment, tmp_path / "out", report=report)
    assert column(tmp_path / "out" / "validation.csv") == ["0"]
    train(experiment, tmp_path / "out", resume=True, quiet=True)
    assert column(tmp_path / "out" / "validation.csv") == ["0", "5", "10"]
    assert read_table(tmp_path / "out" / "validation.csv") == read_table(tmp_path / "whole" / "validation.csv")
    assert not differences(final_state(tmp_path / "out"), final_state(tmp_path / "whole"))


@pytest.mark.parametrize("step", [0, 5])
def test_a_run_that_is_asked_to_stop_leaves_its_evaluation(tmp_path, monkeypatch, step):
    experiment = plain_run(save_every=100, validate_every=5)
    seen, last = [], -1
    predict = Plain.predict

    def look(self, batch):
        if not self.training:
            seen.append(batch.sources[0])
            if len(seen) == last:
                os.kill(os.getpid(), signal.SIGTERM)
        return predict(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Plain, "predict", look)
        train(experiment, tmp_path / "whole", quiet=True)
        scenes = len(seen) // 3  # of each of three evaluations
        assert scenes > 1
        last = 1 if step == 0 else scenes + 1
        seen.clear()
        with pytest.raises(PreemptedError, match=f"stopped after step {step}"):
            train(experiment, tmp_path / "out", quiet=True)
    assert len(seen) == last
    assert CheckpointStore(tmp_path / "out" / "checkpoints").steps() == sorted({0, step})
    train(experiment, tmp_path / "out", resume=True, quiet=True)
    assert read_table(tmp_path / "out" / "validation.csv") == read_table(tmp_path / "whole" / "validation.csv")
    assert not differences(final_state(tmp_path / "out"), final_state(tmp_path / "whole"))


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def report(step: int, total: int, figures: dict[str, float]) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(plain_run(save_every=100), tmp_path, report=report)
    assert CheckpointStore(tmp_path / "checkpoints").steps() == [0]


def test_where_sigint_is_ignored_it_stays_so(tmp_path):
    # As a shell does for what it starts in the background.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(plain_run(), tmp_path, report=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_to_all_processes_does_not_take_the_loader_away_before_the_save(launch, tmp_path):
    # A terminal sends it to the loader processes too.
    child = launch(ponder_run(steps=200, save_every=1000), tmp_path)
    assert child.wait_for_step(3)
    child.send(signal.SIGINT)
    assert child.wait()[0]["end"] == "PreemptedError"
    assert final_state(tmp_path)["step"] >= 4


def test_sigterm_to_all_processes_does_not_take_the_loader_away_before_the_save(launch, tmp_path):
    # Batch systems send it to the loader processes too.
    experiment = ponder_run(steps=14, save_every=100)
    assert launch(experiment, tmp_path / "whole").wait()[0]["end"] == "done"
    for number in range(3):
        out = tmp_path / str(number)
        child = launch(experiment, out)
        assert child.wait_for_step(3 + number)
        child.send(signal.SIGTERM)
        assert child.wait()[0]["end"] == "PreemptedError"
        assert final_state(out)["step"] >= 4 + number
        assert launch(experiment, out).wait()[0]["end"] == "done"
        assert not differences(final_state(out), final_state(tmp_path / "whole"))


@pytest.mark.parametrize("while_", ["stepping", "waiting"])
def test_a_killed_loader_process_is_named_as_such_and_the_run_can_go_on(launch, tmp_path, while_):
    experiment = plain_run(workers=2, steps=20)
    for number in range(3):
        child = launch(experiment, tmp_path, kill_worker_at=5 * number + 5, kill_worker_while=while_)
        (end,) = child.wait()
        assert end["end"] == "LoaderError", end
        assert "a loader process died" in end["message"]
    assert launch(experiment, tmp_path).wait()[0]["end"] == "done"
    train(replace(experiment, workers=0), tmp_path / "whole", quiet=True)
    assert not differences(final_state(tmp_path), final_state(tmp_path / "whole"))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("trouble", ["RuntimeError", "EOFError", "ConnectionError", "ValueError", "DataError"])
def test_an_error_of_the_dataset_comes_with_its_own_type(launch, tmp_path, trouble, workers):
    experiment = plain_run(data=TinyRooms(trouble=trouble), workers=workers)
    (end,) = launch(experiment, tmp_path).wait()
    assert end["end"] == trouble
    assert "scene 3 is broken" in end["message"]
    if trouble == "DataError":  # which is for users: no word of processes, no traceback
        assert end["message"] == "scene 3 is broken"


# --------------------------------------------------------------------------------------------------------- the device


def test_auto_takes_cuda_or_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [runner.device_type(a) for a in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)  # an Apple GPU is not asked for
    assert [runner.device_type(a) for a in ("auto", "cpu")] == ["cpu", "cpu"]
    assert runner.Runner(1, "32-true").device.type == "cpu"
    with pytest.raises(ValueError, match="Experiment.accelerator: torch finds no CUDA device"):
        runner.device_type("cuda")


def test_another_accelerator_is_refused():
    with pytest.raises(ValueError, match="Experiment.accelerator must be auto, cpu or cuda, not 'mps'"):
        plain_run(accelerator="mps")


def test_a_run_of_a_gpu_is_evaluated_where_there_is_none(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runner, "device_type", lambda accelerator: "cpu")
        result = train(plain_run(accelerator="cuda"), tmp_path, quiet=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert evaluate(tmp_path, quiet=True) == result.figures


# ------------------------------------------------------------------------------------------------------ what is logged


def test_what_is_logged_is_the_mean_of_all_passes(tmp_path):
    for accumulate in (1, 2):
        train(plain_run(batch_size=4, accumulate=accumulate), tmp_path / str(accumulate), quiet=True)
    one, two = ([float(x) for x in column(tmp_path / n / "train.csv", "height")] for n in ("1", "2"))
    assert two == pytest.approx(one, rel=1e-4)
    assert two == [float(x) for x in column(tmp_path / "2" / "train.csv", "loss")]  # of which it is the only term


def test_a_figure_that_a_pass_has_not_got_does_not_count():
    sums = loop._Sums()
    for value in (1.0, float("nan"), 4.0):
        sums.add({"psnr": torch.tensor(value), "nothing": torch.tensor(float("nan"))})
    sums.add({"loss": torch.tensor(2.0)})
    assert loop._means([sums.totals()]) == {"psnr": 2.5, "loss": 2.0}
    assert loop._means([sums.totals(), {"psnr": (7.0, 1.0), "depth": (3.0, 2.0)}]) == {
        "psnr": 4.0,
        "loss": 2.0,
        "depth": 1.5,
    }


def test_the_rate_is_that_of_the_steps_alone(tmp_path, monkeypatch):
    now = [0.0]  # a clock that goes on only where it is told to
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    step, validate = loop._Run._step, loop._Run._validate

    def step_of_a_second(*args):
        now[0] += 1
        return step(*args)

    def evaluation_of_a_minute(*args):
        now[0] += 60
        return validate(*args)

    monkeypatch.setattr(loop._Run, "_step", step_of_a_second)
    monkeypatch.setattr(loop._Run, "_validate", evaluation_of_a_minute)
    # Rows after 4 steps, 4 steps and 2 steps; evaluations after 0, 3, 6 and 9.
    train(plain_run(log_every=4, validate_every=3), tmp_path, quiet=True)
    assert column(tmp_path / "train.csv", "scenes_per_second") == ["2", "2", "2"]


# --------------------------------------------------------------------------------------------------- what is computed


def test_two_passes_are_one_batch_of_double_size(tmp_path):
    # The loss is a mean over scenes: only the order of the sum differs.
    for accumulate in (1, 2, 4):
        train(plain_run(batch_size=4, accumulate=accumulate), tmp_path / str(accumulate), quiet=True)
    one, two, four = (final_state(tmp_path / str(accumulate))["model"] for accumulate in (1, 2, 4))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6)
        torch.testing.assert_close(four[name], one[name], rtol=0, atol=1e-6)
    train(plain_run(batch_size=2), tmp_path / "half", quiet=True)  # the comparison can fail
    assert (final_state(tmp_path / "half")["model"]["head.weight"] - one["head.weight"]).abs().max() > 1e-3


def test_the_loss_goes_down(tmp_path):
    train(plain_run(steps=60, optim=OptimConfig(lr=5e-2), save_every=60), tmp_path, quiet=True)
    losses = [float(value) for value in column(tmp_path / "train.csv", "loss")]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_the_gradient_is_clipped(tmp_path):
    # SGD at a rate of 1 moves the weights by 1.9 times the gradient (Nesterov's first step), clipped to norm 0.01.
    optim = OptimConfig(name="sgd", lr=1.0, weight_decay=0.0, warmup=0.0, clip=0.01)
    experiment = plain_run(optim=optim, steps=1, save_every=1)
    train(experiment, tmp_path / "one", quiet=True)
    train(replace(experiment, optim=replace(optim, lr=0.0)), tmp_path / "none", quiet=True)
    after, before = (final_state(tmp_path / name)["model"] for name in ("one", "none"))
    moved = torch.cat([(after[name] - before[name]).flatten() for name in after])
    assert moved.norm().item() == pytest.approx(0.019, rel=1e-3)
    assert float(column(tmp_path / "one" / "train.csv", "gradient_norm")[0]) > 0.01


def test_the_encoder_file_holds_the_weights_of_the_last_checkpoint(tmp_path):
    train(plain_run(), tmp_path, quiet=True)
    weights = {f"encoder.{name}": value for name, value in load_encoder(tmp_path).state_dict().items()}
    model = final_state(tmp_path)["model"]
    assert len(weights) == 2
    assert not differences(weights, {name: model[name] for name in weights})


def test_evaluating_a_run_gives_the_figures_it_ended_with(tmp_path):
    result = train(plain_run(), tmp_path, quiet=True)
    assert evaluate(tmp_path, quiet=True) == result.figures
    assert float(column(tmp_path / "validation.csv", "height_error")[-1]) == pytest.approx(
        result.figures["height_error"], rel=1e-5
    )
    task, experiment, step = load_task(tmp_path)
    assert (experiment, step, task.training) == (plain_run(), 10, False)


def test_a_batch_larger_than_the_dataset_trains(tmp_path):
    train(plain_run(data=TinyRooms(num=3), batch_size=8, steps=3), tmp_path, quiet=True)
    assert final_state(tmp_path)["step"] == 3


# --------------------------------------------------------------------------------------------------------- preparing


def test_a_task_is_prepared_once_with_transformed_scenes(tmp_path):
    log = tmp_path / "prepared.txt"
    experiment = plain_run(task=PlainConfig(prepared=str(log)), steps=6, save_every=2)
    with pytest.raises(StopError):
        train(experiment, tmp_path / "run", report=stop_at(5))
    lines = log.read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [[str(n), source] for n in (0, 1) for source in ALL_SCENES]
    places = {line.split(maxsplit=2)[2] for line in lines}
    assert len(places) == 10, "the second pass turns the scenes differently"
    train(experiment, tmp_path / "run", resume=True)
    assert log.read_text().splitlines() == lines, "a run that goes on is not prepared again"
    train(experiment, tmp_path / "again")
    assert log.read_text().splitlines() == lines * 2, "the same scenes for every run"
    assert not differences(final_state(tmp_path / "run"), final_state(tmp_path / "again"))


def test_results_name_what_the_task_says(tmp_path, monkeypatch, capsys):
    fact = {"class_vectors": "a model of words"}
    train(plain_run(steps=2, save_every=1), tmp_path / "plain", quiet=True)
    monkeypatch.setattr(Plain, "facts", lambda self: fact)
    train(plain_run(steps=2, save_every=1), tmp_path / "named", quiet=True)
    note = "ponder3d: class vectors: a model of words\n"
    assert note not in capsys.readouterr().err
    train(plain_run(steps=2, save_every=1), tmp_path / "noted")
    assert capsys.readouterr().err.count(note) == 1
    for name, expected in (("plain", {}), ("named", fact)):
        card = read_card(tmp_path / name)["card"]
        assert {key: value for key, value in card.items() if key == "class_vectors"} == expected
    evaluate(tmp_path / "named", quiet=True)
    assert json.loads((tmp_path / "named" / "evaluation.json").read_text())["class_vectors"] == "a model of words"
