"""Killed at random instants and resumed, a run ends with the bits of one that was left alone.

Everything that draws random numbers is on: shuffling, augmentation, dropped points, removed blocks, masking with a
learned token, stratified samples along rays; 2 loader processes; 1 or 2 ranks.
"""

import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_runs import Child, differences, final_state, ponder_run

from ponder3d.engine.log import read_table

EXPERIMENT = ponder_run(steps=40, save_every=2, validate_every=7)


@dataclass
class Soak:
    """What many kills have led to."""

    kills: dict[str, int]
    """Number of kills by kind."""
    runs: int
    most: int
    """Largest number of kills of one run."""
    wrong: list[str]
    """What differs from the undisturbed run."""


def soak(launch, folder: Path, kills: int, seed: int, **attempt) -> Soak:
    """Kill runs until there were enough kills; each run that gets to its end is compared with an undisturbed one.

    Kinds of kills: ``early`` at an instant of the start-up, ``steps`` at an instant of the training, ``alone`` as
    that, but of one rank only (its loader processes and the other ranks find out by themselves), ``save`` at a random
    call to the operating system inside a save.
    """
    assert launch(EXPERIMENT, folder / "whole", **attempt).wait()[0]["end"] == "done"
    whole, draw = final_state(folder / "whole"), random.Random(seed)
    done = Soak({"early": 0, "steps": 0, "alone": 0, "save": 0}, 0, 0, [])
    while sum(done.kills.values()) < kills:
        out, of_this = folder / f"run-{done.runs}", 0
        while True:
            kind = draw.choice([*done.kills, "steps"]) if sum(done.kills.values()) < kills else "none"
            call = draw.randrange(100) if kind == "save" else -1
            child = launch(EXPERIMENT, out, die_in_save=call, **attempt)
            _disturb(child, kind, draw, attempt.get("world", 1))
            ends = [end["end"] for end in child.wait()]
            if "killed" in ends:
                done.kills[kind] += 1
                of_this += 1
            elif ends[0] == "done":
                break
            else:
                raise AssertionError(ends)
        done.runs += 1
        done.most = max(done.most, of_this)
        done.wrong += [f"{out.name}{name}" for name in differences(final_state(out), whole)]
        for table, steps in (("train.csv", range(1, 41)), ("validation.csv", [*range(0, 40, 7), 40])):
            if [row["step"] for row in read_table(out / table)] != [str(step) for step in steps]:
                done.wrong.append(f"{out.name}/{table}")
    return done


def _disturb(child: Child, kind: str, draw: random.Random, world: int) -> None:
    if kind == "early":
        time.sleep(draw.uniform(0, 0.5 * world))
        child.send(signal.SIGKILL)
    elif kind in ("steps", "alone") and child.wait_for_step():
        # A few steps; not many more than lie between two saves, so that a run is killed many times.
        time.sleep(draw.uniform(0, 0.25))
        child.send(signal.SIGKILL, rank=draw.randrange(world) if kind == "alone" else None)


def test_20_kills_leave_no_trace(launch, tmp_path):
    found = soak(launch, tmp_path, kills=14, seed=1)
    assert found.wrong == []
    assert found.most >= 4, found  # several in one run
    pair = soak(launch, tmp_path / "ranks", kills=6, seed=2, world=2)
    assert pair.wrong == []
    assert sum(found.kills.values()) + sum(pair.kills.values()) >= 20
    assert found.kills["save"] + pair.kills["save"] >= 2, (found, pair)


def test_the_check_catches_a_sampler_that_forgets_its_place(launch, tmp_path):
    assert launch(EXPERIMENT, tmp_path / "whole", bad_sampler=True).wait()[0]["end"] == "done"
    child = launch(EXPERIMENT, tmp_path / "killed", bad_sampler=True)
    assert child.wait_for_step(5)  # there is a place to forget, however slow the machine
    child.send(signal.SIGKILL)
    assert child.wait()[0]["end"] == "killed"
    assert launch(EXPERIMENT, tmp_path / "killed", bad_sampler=True).wait()[0]["end"] == "done"
    wrong = differences(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))
    assert any("/model/" in name for name in wrong)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kills", "world"), [(150, 1), (50, 2)])
def test_200_kills_leave_no_trace(launch, tmp_path, kills, world):
    found = soak(launch, tmp_path, kills, seed=world, world=world)
    print(found)
    assert found.wrong == []
    assert min(found.kills.values()) > 0
