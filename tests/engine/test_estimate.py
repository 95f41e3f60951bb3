"""What a run is said to take, beside what it takes; and that saying so changes nothing."""

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
import torch
from tiny_runs import PlainConfig, PlainEncoderConfig, TinyRooms, plain_run, ponder_run

from ponder3d.data.dataset import DataError
from ponder3d.engine import estimate as module
from ponder3d.engine.estimate import Estimate, TooLargeError, estimate, is_long
from ponder3d.engine.loop import train

NORMED = PlainConfig(PlainEncoderConfig(norm=True), noise=0.1)


def left_by(out: Path) -> int:
    """Bytes of a run's files; TensorBoard's double the logs and are there only with an extra package."""
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file() and "tensorboard" not in path.parts)


def states() -> list:
    name, keys, *rest = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), name, keys.tolist(), *rest]


@pytest.mark.parametrize("run", [plain_run(task=NORMED), ponder_run(steps=3, workers=0)], ids=["plain", "ponder"])
def test_a_run_is_the_same_with_and_without(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(run, tmp_path / "without", quiet=True)
    before = states()
    found = estimate(run)
    assert states() == before and [path.name for path in tmp_path.iterdir()] == ["without"], "no trace"
    train(run, tmp_path / "with", quiet=True)
    assert not tiny_runs.differences(*(tiny_runs.final_state(tmp_path / name) for name in ("with", "without")))
    left = left_by(tmp_path / "with")
    assert abs(found.disk_bytes - left) < 0.1 * left


def test_figures_fit_each_other():
    run = plain_run(steps=600, batch_size=4, accumulate=2, validate_every=200, validation_scenes=1)
    found = estimate(run)
    assert found.steps == 600 and found.timed_steps == 3 and found.device == "cpu"
    assert 0 < found.scene_seconds < 0.5 and found.loading_seconds == pytest.approx(4 * found.scene_seconds)
    assert found.step_seconds == pytest.approx(found.compute_seconds + found.loading_seconds), "one after the other"
    side = estimate(replace(run, workers=2))
    assert side.loading_seconds == pytest.approx(2 * side.scene_seconds)
    assert side.step_seconds == max(side.compute_seconds, side.loading_seconds)
    # Three evaluations of one scene, before steps 0, 200 and 400, and one of both.
    assert found.evaluation_seconds > 0
    rest = found.total_seconds - 600 * found.step_seconds - found.first_seconds
    assert rest == pytest.approx(found.evaluation_seconds)
    assert 1e7 < found.memory_bytes < 1e10
    assert is_long(run) and not is_long(plain_run())


def test_memory_grows_with_what_a_step_takes(monkeypatch):
    losses = tiny_runs.Plain.losses

    def greedy(self, batch, step):
        torch.ones(100_000_000).sum()
        return losses(self, batch, step)

    least = estimate(plain_run()).memory_bytes
    monkeypatch.setattr(tiny_runs.Plain, "losses", greedy)
    assert estimate(plain_run()).memory_bytes > least + 2e8


def test_it_stops_early():
    found = estimate(plain_run(), seconds=0.0)
    assert found.timed_steps == 0 and found.step_seconds > 0 and math.isnan(found.evaluation_seconds)
    assert found.total_seconds > 0 and "evaluations" not in found.lines(".")[0]


def test_scenes_that_are_made_when_first_read(monkeypatch):
    """The first reading of each of 5 scenes takes 0.3 s; it is added once, not in every step."""
    made, read = set(), tiny_runs.TinyScenes.__getitem__

    def slow(self, index):
        if index not in made and self.config.first == 0:
            made.add(index)
            module.time.sleep(0.3)
        return read(self, index)

    monkeypatch.setattr(tiny_runs.TinyScenes, "__getitem__", slow)
    found = estimate(plain_run(steps=1000, batch_size=1))
    assert 1.0 < found.first_seconds < 8.0 and found.scene_seconds < 0.2
    assert "scenes for the first time" in found.lines(".")[0]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_a_step_that_does_not_fit(error, monkeypatch):
    def refuse(self, batch, step):
        raise error

    monkeypatch.setattr(tiny_runs.Plain, "losses", refuse)
    with pytest.raises(TooLargeError, match=r"does not fit into the memory of cpu: try a larger --accumulate \(now 1"):
        estimate(plain_run())


def test_other_faults_are_what_they_are(monkeypatch):
    with pytest.raises(DataError, match="scene 3 is broken"):
        estimate(plain_run(data=TinyRooms(trouble="DataError"), batch_size=5))
    with pytest.raises(ValueError, match="batch_size 2 cannot be split over 1 ranks and 3"):
        estimate(plain_run(accumulate=3))

    def refuse(self, batch, step):
        raise RuntimeError("something else")

    monkeypatch.setattr(tiny_runs.Plain, "losses", refuse)
    with pytest.raises(RuntimeError, match="something else"):
        estimate(plain_run())


def test_what_is_told(monkeypatch):
    monkeypatch.setattr(module, "free_bytes", lambda out: 3_500_000_000)
    found = Estimate(20_000, 1.5, 0.5, 0.6, 0.0, 1.5, 7200.0, 21_000_000_000, 500_000_000, 1_100_000_000, "cuda:0", 3)
    assert found.total_seconds == 37_200
    assert found.lines("runs/a") == [
        "about 10.3 h: 20,000 steps of 1.5 s, evaluations 2.0 h; loading takes longer than computing (500 ms): more "
        "--workers",
        "memory 21.0 GB (cuda:0); disk 1.1 GB, 3.5 GB are free",
    ]
    monkeypatch.setattr(module, "free_bytes", lambda out: 1_500_000_000)
    warning = found.lines("runs/a")[2]
    assert warning == "WARNING: runs/a needs 1.6 GB while it saves; make room, or keep fewer with --keep 1"
