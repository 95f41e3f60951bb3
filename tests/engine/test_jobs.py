"""Jobs: side by side, not twice, and not silently wrong."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import job_functions
import pytest
import tiny_runs

from ponder3d.engine.checkpoint import CheckpointStore
from ponder3d.engine.evaluate import read_json
from ponder3d.engine.jobs import Job, run_jobs
from ponder3d.engine.loop import PreemptedError


def job(name: str, folder: Path, function, *arguments, identity: str = "1") -> Job:
    return Job(name, folder / name, function=function, arguments=arguments, identity=identity)


def runs_of(folder: Path, name: str) -> int:
    """How often a job that uses ``job_functions.note`` has run."""
    return len((folder / f"{name}.txt").read_text().splitlines())


def stopped_when(begun: Callable[[], bool], jobs: list[Job]) -> None:
    """Run jobs one at a time, and ask them to stop once they have begun; nothing of their pool is left."""

    def ask() -> None:
        limit = time.monotonic() + 120
        while not begun():
            assert time.monotonic() < limit
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(PreemptedError, match="the same command goes on"):
        run_jobs(jobs, 1, "asked to stop", quiet=True)
    asking.join()
    left = [thread for thread in threading.enumerate() if "Executor" in type(thread).__name__]
    assert not left, "the pool's thread would meet the end of the interpreter"


def test_jobs_run_at_the_same_time(tmp_path):
    # Each waits for the other: one after the other they would never end.
    jobs = [job("a", tmp_path, job_functions.meet, tmp_path, "a", "b")]
    jobs += [job("b", tmp_path, job_functions.meet, tmp_path, "b", "a")]
    assert run_jobs(jobs, 2, "two", quiet=True) == {"a": {"met": 1.0}, "b": {"met": 1.0}}


def test_a_finished_job_is_not_run_again_unless_its_identity_changes(tmp_path):
    def jobs(identity: str) -> list[Job]:
        return [job("a", tmp_path, job_functions.note, tmp_path / "a.txt", 2.5, identity=identity)]

    assert run_jobs(jobs("1"), 1, "first", quiet=True) == {"a": {"value": 2.5}}
    assert read_json(tmp_path / "a" / "result.json") == {"key": "1", "figures": {"value": 2.5}}
    assert run_jobs(jobs("1"), 1, "again", quiet=True) == {"a": {"value": 2.5}}
    assert runs_of(tmp_path, "a") == 1
    run_jobs(jobs("2"), 1, "changed", quiet=True)
    assert runs_of(tmp_path, "a") == 2


def test_a_failing_job_raises_and_the_others_keep_their_results(tmp_path):
    good = job("good", tmp_path, job_functions.note, tmp_path / "good.txt", 1.0)
    bad = job("bad", tmp_path, job_functions.fail)
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        run_jobs([good, bad], 1, "one at a time", quiet=True)
    assert not (tmp_path / "bad" / "result.json").exists()
    assert run_jobs([good], 1, "good", quiet=True) == {"good": {"value": 1.0}}
    assert runs_of(tmp_path, "good") == 1


def test_an_experiment_is_trained_and_its_key_is_its_fingerprint(tmp_path):
    experiment = tiny_runs.plain_run(steps=4)
    one = Job("run", tmp_path / "run", experiment)
    figures = run_jobs([one], 1, "train", quiet=True)["run"]
    assert set(figures) == {"height_error"}
    assert tiny_runs.final_state(tmp_path / "run")["step"] == 4
    assert one.key() != Job("run", tmp_path / "run", tiny_runs.plain_run(steps=5)).key()


def test_failures_are_told_and_the_others_go_on(tmp_path):
    good = [job(name, tmp_path, job_functions.note, tmp_path / f"{name}.txt", 1.0) for name in ("a", "b")]
    bad = job("bad", tmp_path, job_functions.fail)
    killed = job("killed", tmp_path, job_functions.die, tmp_path / "killed.txt")
    failed: dict[str, str] = {}
    figures = run_jobs([good[0], bad, killed, good[1]], 2, "some fail", quiet=True, failed=failed)
    assert figures == {"a": {"value": 1.0}, "b": {"value": 1.0}}
    assert failed["bad"] == "ZeroDivisionError: on purpose"
    assert "was killed, also when it ran alone" in failed["killed"]
    assert runs_of(tmp_path, "killed") >= 2  # beside others, and by itself
    assert sorted(failed) == ["bad", "killed"]


def test_a_killed_process_is_told_where_failures_end_it_all(tmp_path):
    killed = job("killed", tmp_path, job_functions.die, tmp_path / "killed.txt")
    with pytest.raises(ChildProcessError, match="the process of killed or of one beside it was killed"):
        run_jobs([killed], 1, "one", quiet=True)


def test_ranks_side_by_side_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"two: Experiment\.devices must be 1"):
        run_jobs([Job("two", tmp_path / "two", tiny_runs.plain_run(devices=2))], 1, "two", quiet=True)


def test_asked_to_stop_jobs_save_and_the_same_jobs_go_on(tmp_path):
    """One runs, one waits for it, and a third has a function, which is not waited for."""
    long = tiny_runs.plain_run(steps=3000, save_every=10**6, log_every=20)
    jobs = [Job(name, tmp_path / name, long) for name in ("a", "b")]
    jobs.append(job("c", tmp_path, job_functions.note, tmp_path / "c.txt", 1.0))

    log = tmp_path / "a" / "train.csv"
    stopped_when(lambda: log.is_file() and len(log.read_text()) >= 200, jobs)
    assert 0 < max(CheckpointStore(tmp_path / "a" / "checkpoints").steps()) < 3000
    assert not (tmp_path / "c.txt").exists()
    short = [jobs[0], jobs[2]]
    assert set(run_jobs(short, 2, "again", quiet=True)) == {"a", "c"}
    assert tiny_runs.final_state(tmp_path / "a")["step"] == 3000


def test_asked_to_stop_a_job_that_cannot_save_ends_at_once_and_quietly(tmp_path):
    """What is waiting is given up before its pool breaks: else the pool's thread fails, which here is an error."""
    jobs = [job("long", tmp_path, job_functions.wait, tmp_path / "long.txt")]
    jobs += [job(f"late-{i}", tmp_path, job_functions.note, tmp_path / f"{i}.txt", 1.0) for i in range(4)]
    stopped_when((tmp_path / "long.txt").is_file, jobs)
    assert not list(tmp_path.glob("[0-9].txt"))
