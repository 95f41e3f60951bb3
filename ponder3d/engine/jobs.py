"""Several small runs side by side, one process and an equal share of the threads each.

Sparse networks on a CPU leave most of a second thread idle (1.3 times the speed for twice the threads), so two runs at
a time finish earlier than one after the other. A job that is already done is not run again, so that a set of jobs can
be interrupted and started again.
"""

import concurrent.futures
import multiprocessing
import os
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch

from ponder3d.config import fingerprint
from ponder3d.engine.evaluate import read_json, write_json
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.log import Progress
from ponder3d.engine.loop import train
from ponder3d.engine.memory import keep_freed_memory
from ponder3d.processes import end_with_parent

_RESULT = "result.json"


@dataclass(frozen=True)
class Job:
    """One run, or one function that is no run."""

    name: str
    out: Path
    """Its own directory; gets ``result.json`` when it is done."""
    experiment: Experiment | None = None
    """Is trained, if there is one."""
    function: Callable[..., dict[str, float]] | None = None
    """Otherwise called with ``arguments``; importable from its module. Returns figures."""
    arguments: tuple[Any, ...] = ()
    identity: str = ""
    """What makes the result of a function out of date when it changes."""

    def key(self) -> str:
        """A result under another key is not this job's."""
        return self.identity if self.experiment is None else fingerprint(self.experiment)


def run_jobs(jobs: Sequence[Job], processes: int, title: str, quiet: bool = False) -> dict[str, dict[str, float]]:
    """Run jobs, at most ``processes`` at a time, and return each one's figures by name.

    Interrupted jobs continue from their checkpoints when the same jobs are run again.

    Raises:
        Whatever a job raises; the others that have started finish first.
    """
    done = {job.name: figures for job in jobs if (figures := _finished(job)) is not None}
    waiting = [job for job in jobs if job.name not in done]
    if not waiting:
        return done
    context = multiprocessing.get_context("spawn")
    messages: Queue[tuple[str, int, int, dict[str, float]]] = context.Queue()
    threads = max(1, torch.get_num_threads() // min(processes, len(waiting)))  # of OMP_NUM_THREADS, if it is set
    progress = Progress(len(jobs), len(done), title, quiet)
    with concurrent.futures.ProcessPoolExecutor(
        min(processes, len(waiting)), context, initializer=_start_worker, initargs=(os.getpid(), threads, messages)
    ) as pool:
        futures = {pool.submit(_run, job): job for job in waiting}
        states: dict[str, tuple[int, int, dict[str, float]]] = {}
        try:
            while futures:
                finished, _ = concurrent.futures.wait(futures, timeout=0.5, return_when="FIRST_COMPLETED")
                for future in finished:
                    job = futures.pop(future)
                    done[job.name] = future.result()
                    states.pop(job.name, None)
                while True:
                    try:
                        name, step, steps, shown = messages.get_nowait()
                    except queue.Empty:
                        break
                    if name not in done:
                        states[name] = (step, steps, shown)
                progress.show_jobs(len(done), states, force=bool(finished))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            progress.close()
    return done


def _finished(job: Job) -> dict[str, float] | None:
    record = read_json(job.out / _RESULT)
    if record is None or record.get("key") != job.key():
        return None
    return record["figures"]


_messages: "Queue[tuple[str, int, int, dict[str, float]]] | None" = None
"""Set once in each worker process."""


def _start_worker(parent: int, threads: int, messages: "Queue[tuple[str, int, int, dict[str, float]]]") -> None:
    global _messages  # how a pool hands something to its workers
    end_with_parent(parent)
    _messages = messages
    keep_freed_memory()
    torch.set_num_threads(threads)


def _run(job: Job) -> dict[str, float]:
    def report(done: int, total: int, figures: dict[str, float]) -> None:
        assert _messages is not None
        _messages.put((job.name, done, total, figures))

    job.out.mkdir(parents=True, exist_ok=True)
    if job.experiment is not None:
        figures = train(job.experiment, job.out, resume=True, report=report).figures
    else:
        assert job.function is not None
        figures = job.function(*job.arguments)
    write_json(job.out / _RESULT, {"key": job.key(), "figures": figures})
    return figures
