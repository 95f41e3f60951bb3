"""Filling the cache of a generator in several processes."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ponder3d.processes import end_with_parent


def fill(
    calls: Sequence[tuple[Any, ...]],
    total: int,
    make: Callable[..., None],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Make what is missing, each with one thread of its own process. What is finished stays if this is interrupted.

    Args:
        calls: arguments of ``make`` for each thing that is missing.
        total: how many there are with those that are there already.
        make: puts one into the cache; a function of a module, as processes are spawned. It returns nothing: what is
            made would travel back and stay until all are done.
        workers: number of processes.
        progress: called with the number done and the total, at the start and after each.
    """
    done = total - len(calls)
    report = progress or (lambda done, total: None)
    report(done, total)
    if not calls:
        return
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(min(workers, len(calls)), context, _start_worker, (os.getpid(),))
    try:
        for future in concurrent.futures.as_completed([pool.submit(make, *arguments) for arguments in calls]):
            future.result()
            done += 1
            report(done, total)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int) -> None:
    end_with_parent(parent)
    torch.set_num_threads(1)
