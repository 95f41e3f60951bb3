"""Several small runs side by side, one process and an equal share of the threads each.

Sparse networks on a CPU leave most of a second thread idle (1.3 times the speed for twice the threads), so two runs at
a time finish earlier than one after the other. A job that is already done is not run again, so that a set of jobs can
be interrupted and started again.
"""

import concurrent.futures
import concurrent.futures.process
import contextlib
import functools
import multiprocessing
import os
import queue
import signal
import threading
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
from ponder3d.engine.loop import PreemptedError, train
from ponder3d.engine.memory import keep_freed_memory
from ponder3d.processes import end_with_parent, signals_set_flag

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


def run_jobs(
    jobs: Sequence[Job], processes: int, title: str, quiet: bool = False, failed: dict[str, str] | None = None
) -> dict[str, dict[str, float]]:
    """Run jobs, at most ``processes`` at a time, and return each one's figures by name.

    Interrupted jobs continue from their checkpoints when the same jobs are run again. SIGTERM has those that run save
    and stop.

    Args:
        jobs: with names of their own.
        processes: at a time.
        title: of the progress.
        quiet: no progress.
        failed: gets, by name, in a line what went wrong with a job; the others go on. Jobs whose process was killed are
            run once more, alone, before they count as failed. None: the first failure is raised.

    Raises:
        PreemptedError: these jobs, or one of them, were asked to stop.
        ValueError: a job wants several devices.
        ChildProcessError: a job's process was killed, without ``failed``.
        Whatever a job raises, without ``failed``; the others that have started finish first.
    """
    for job in jobs:
        if job.experiment is not None and job.experiment.devices > 1:  # its ranks would be this whole command again
            raise ValueError(f"{job.name}: Experiment.devices must be 1 where runs are side by side")
    done = {job.name: figures for job in jobs if (figures := _finished(job)) is not None}
    waiting = [job for job in jobs if job.name not in done]
    if not waiting:
        return done
    progress = Progress(len(jobs), len(done), title, quiet)
    try:
        while waiting:
            killed, running = _run_round(waiting, processes, done, progress, failed)
            # Which of the jobs that ran made the system kill one is not known: each is tried by itself.
            suspects = [job for job in killed if job.name in running] or killed
            for job in suspects:
                assert failed is not None
                if _run_round([job], 1, done, progress, failed)[0]:
                    failed[job.name] = "its process was killed, also when it ran alone: there may be too little memory"
            waiting = [job for job in killed if job not in suspects]
    finally:
        progress.close()
    return done


def is_finished(job: Job) -> bool:
    """Whether a job, with this key, has been done before; ``run_jobs`` would not run it again."""
    return _finished(job) is not None


def _run_round(
    jobs: Sequence[Job],
    processes: int,
    done: dict[str, dict[str, float]],
    progress: Progress,
    failed: dict[str, str] | None,
) -> tuple[list[Job], set[str]]:
    """Run jobs in one pool.

    Returns:
        The jobs that were lost with a process that was killed, and the names of those that were running then.
    """
    context = multiprocessing.get_context("spawn")
    # (job, step, steps, figures), and once of each worker ("", its process id, ...).
    messages: Queue[tuple[str, int, int, dict[str, float]]] = context.Queue()
    processes = min(processes, len(jobs))
    threads = max(1, torch.get_num_threads() // processes)  # of OMP_NUM_THREADS, if it is set
    killed: list[Job] = []
    running: set[str] = set()
    workers: set[int] = set()
    with (
        signals_set_flag(interrupts=False) as asked_to_stop,
        concurrent.futures.ProcessPoolExecutor(
            processes, context, initializer=_start_worker, initargs=(os.getpid(), threads, messages)
        ) as pool,
    ):
        futures = {pool.submit(_run, job): job for job in jobs}
        states: dict[str, tuple[int, int, dict[str, float]]] = {}
        # The pool itself gives up what waits: futures that are cancelled from outside are still its own when a worker
        # dies of the signal, and its thread would fail on them. It is then waited for, as at the interpreter's own end
        # that thread may close what it is about to be told through.
        giving_up = threading.Thread(target=functools.partial(pool.shutdown, cancel_futures=True))
        try:
            while futures:
                finished, _ = concurrent.futures.wait(futures, timeout=0.5, return_when="FIRST_COMPLETED")
                if asked_to_stop.is_set():
                    if giving_up.ident is None:
                        giving_up.start()
                    # Those that came to an end are looked at as always.
                    finished = {f for f in finished if not f.cancelled() and f.exception() is None}
                    futures = {
                        future: job for future, job in futures.items() if future in finished or not future.done()
                    }
                    _ask_to_stop(workers)  # again and again: one may have been between two jobs
                for future in finished:
                    job = futures.pop(future)
                    states.pop(job.name, None)
                    try:
                        done[job.name] = future.result()
                    except concurrent.futures.process.BrokenProcessPool as error:
                        if failed is None:
                            raise ChildProcessError(
                                f"the process of {job.name} or of one beside it was killed; there may be too little "
                                "memory. What is done stays: the same command goes on"
                            ) from error
                        killed.append(job)
                    except PreemptedError:
                        raise
                    except Exception as error:
                        if failed is None:
                            raise
                        failed[job.name] = _one_line(error)
                if not killed:
                    running = {job.name for future, job in futures.items() if future.running()}
                while True:
                    try:
                        name, step, steps, shown = messages.get_nowait()
                    except queue.Empty:
                        break
                    if not name:
                        workers.add(step)
                    elif name not in done:
                        states[name] = (step, steps, shown)
                progress.show_jobs(len(done), states, force=bool(finished))
            if asked_to_stop.is_set():
                if giving_up.ident is None:  # asked when all had come to an end
                    giving_up.start()
                while giving_up.is_alive():
                    _ask_to_stop(workers)
                    giving_up.join(0.5)
                raise PreemptedError("stopped; what is done stays, and the same command goes on")
        except BaseException:
            # Whoever gives up does not wait for jobs that still run; at the end of all the pool is waited for, or its
            # thread would meet the interpreter's shutdown.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return killed, running


def _ask_to_stop(workers: set[int]) -> None:
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGTERM)


def _one_line(error: Exception) -> str:
    """What went wrong, for a cell of a table."""
    text = " ".join(str(error).split()) or type(error).__name__
    # The package's own errors say what to do; of others the kind of the error says more than its text.
    own = isinstance(error, (ValueError, OSError))
    return text if own else f"{type(error).__name__}: {text}"


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
    messages.put(("", os.getpid(), 0, {}))
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
