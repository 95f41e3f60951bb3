"""Two ranks (gloo, in child processes): one batch, one decision, one set of weights."""

import signal
from pathlib import Path

import pytest
import torch
from tiny_runs import PatientProbeConfig, PlainConfig, differences, final_state, plain_run, ponder_run, recorded_batches

from ponder3d.engine.evaluate import evaluate
from ponder3d.engine.log import read_table


def ends(child) -> list[str]:
    return [end["end"] for end in child.wait()]


def weights(out: Path, rank: int) -> dict:
    """Parameters and buffers as a rank ended with them."""
    return torch.load(out / f"rank-{rank}.pt", weights_only=True)


def test_two_ranks_end_with_one_set_of_weights_close_to_those_of_one_rank(launch, tmp_path):
    experiment = plain_run(steps=20, batch_size=4)
    assert ends(launch(experiment, tmp_path / "one", record_batches=True)) == ["done"]
    assert ends(launch(experiment, tmp_path / "two", world=2, record_batches=True)) == ["done", "done"]
    assert not differences(weights(tmp_path / "two", 0), weights(tmp_path / "two", 1))
    one, two = final_state(tmp_path / "one")["model"], final_state(tmp_path / "two")["model"]
    for name in one:  # the sums are taken in another order
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6)
    logs = [read_table(tmp_path / name / "train.csv") for name in ("one", "two")]
    for name in ("loss", "height"):  # what is logged is the mean over the ranks
        assert [float(row[name]) for row in logs[1]] == pytest.approx([float(row[name]) for row in logs[0]], rel=1e-4)
    # Together they have seen what one rank sees, in its order.
    whole = recorded_batches(tmp_path / "one")
    parts = [recorded_batches(tmp_path / "two", rank) for rank in (0, 1)]
    assert [step[0]["sources"] for step in whole] == [
        a[0]["sources"] + b[0]["sources"] for a, b in zip(*parts, strict=True)
    ]
    assert not differences(whole[0][0]["keys"], torch.cat([part[0][0]["keys"] for part in parts]))


def test_figures_of_two_ranks_are_those_of_the_checkpoint(launch, tmp_path):
    # Each rank has its own running statistics in training; evaluation must not depend on who evaluates a scene.
    child = launch(ponder_run(steps=6), tmp_path, world=2)
    one, two = child.wait()
    assert one["figures"] == two["figures"]
    assert evaluate(tmp_path, quiet=True) == pytest.approx(one["figures"], rel=1e-4)


def test_a_bad_step_of_one_rank_is_skipped_by_both(launch, tmp_path):
    experiment = plain_run(task=PlainConfig(bad_scenes=("tiny/3",)), steps=10)
    found = launch(experiment, tmp_path, world=2).wait()
    assert [(end["end"], end["skipped"]) for end in found] == [("done", 3), ("done", 3)]
    assert not differences(weights(tmp_path, 0), weights(tmp_path, 1))
    assert all(torch.isfinite(value).all() for value in weights(tmp_path, 0).values())
    lines = (tmp_path / "skipped.log").read_text().splitlines()
    assert len(lines) == 6  # both ranks name their scenes
    assert sum("loss not finite, scenes: tiny/3" in line for line in lines) == 4  # in step 7 both have scene 3


@pytest.mark.parametrize("rank", [0, 1, None])
def test_sigterm_to_any_rank_saves_and_the_resumed_run_ends_with_the_same_bits(launch, tmp_path, rank):
    experiment = ponder_run(steps=12, save_every=100)
    assert ends(launch(experiment, tmp_path / "whole", world=2)) == ["done", "done"]
    child = launch(experiment, tmp_path / "out", world=2)
    assert child.wait_for_step(3)
    child.send(signal.SIGTERM, rank)
    assert ends(child) == ["PreemptedError", "PreemptedError"]
    assert 4 <= final_state(tmp_path / "out")["step"] < 12
    assert ends(launch(experiment, tmp_path / "out", world=2)) == ["done", "done"]
    assert not differences(final_state(tmp_path / "out"), final_state(tmp_path / "whole"))


@pytest.mark.parametrize("rank", [0, 1])
def test_when_a_rank_is_killed_the_other_does_not_hang(launch, tmp_path, rank):
    child = launch(plain_run(steps=2000, workers=0), tmp_path, world=2)
    assert child.wait_for_step(3)
    child.send(signal.SIGKILL, rank)
    found = [end["end"] for end in child.wait(seconds=30)]
    assert found[rank] == "killed"
    assert found[1 - rank] not in ("killed", "done")


def test_a_probe_may_take_longer_than_a_rank_waits_for_a_dead_one(launch, tmp_path):
    experiment = plain_run(steps=2, probe=PatientProbeConfig(8.0))
    found = launch(experiment, tmp_path, world=2, timeout=5.0).wait()
    assert [end["end"] for end in found] == ["done", "done"]
    assert [end["figures"]["probed"] for end in found] == [8.0, 8.0]


@pytest.mark.parametrize("save", [0, 2])
def test_when_the_first_rank_cannot_save_all_say_so(launch, tmp_path, save):
    child = launch(plain_run(steps=20), tmp_path, world=2, no_space_in_save=save)
    one, two = child.wait(seconds=30)
    assert (one["end"], two["end"]) == ("CheckpointError", "CheckpointError")
    assert "No space left" in one["message"]
    assert f"rank 0 could not save step {3 * save}" in two["message"]
