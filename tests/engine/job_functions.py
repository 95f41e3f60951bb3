"""Jobs for ``run_jobs``: importable, as they are called in other processes."""

import os
import signal
import time
from pathlib import Path


def note(path: Path, value: float) -> dict[str, float]:
    """Leave a line, so that runs can be counted."""
    with path.open("a") as file:
        file.write("ran\n")
    return {"value": value}


def fail() -> dict[str, float]:
    raise ZeroDivisionError("on purpose")


def meet(folder: Path, mine: str, other: str) -> dict[str, float]:
    """Succeed when another job runs at the same time."""
    (folder / f"{mine}.here").touch()
    limit = time.monotonic() + 60
    while not (folder / f"{other}.here").exists():
        if time.monotonic() > limit:
            raise TimeoutError(f"{other} never came")
        time.sleep(0.01)
    return {"met": 1.0}


def die(path: Path) -> dict[str, float]:
    """Be killed, as a system without memory does it."""
    note(path, 0.0)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def wait(begun: Path) -> dict[str, float]:
    """Leave a file, then take longer than anybody waits."""
    begun.touch()
    time.sleep(120)
    return {}
