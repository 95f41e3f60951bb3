"""Savers that are disturbed at every call to the operating system, and the check of what they leave behind."""

import io
import itertools
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny_runs import before_each_call, differences

from ponder3d.engine import checkpoint
from ponder3d.engine.checkpoint import CheckpointError, CheckpointStore

OLD = {"step": 1, "model": {"w": torch.arange(300.0)}, "optimizer": {"state": {0: {"m": torch.ones(3)}}}}
NEW = {"step": 2, "model": {"w": torch.arange(300.0) * 2}, "optimizer": {"state": {0: {"m": torch.zeros(3)}}}}
EXPERIMENT = {"name": "tiny", "steps": 2}


@dataclass
class Ours:
    """The store under test, behind the interface that the known-bad one has too. Each use is a new process's."""

    folder: Path
    damaged: bool = False
    """Whether a damaged checkpoint of the new step stands in the way."""

    def prepare(self) -> None:
        self.save(OLD)
        if self.damaged:
            path = CheckpointStore(self.folder, keep=2).save(2, NEW, EXPERIMENT) / "state.pt"
            path.write_bytes(path.read_bytes()[:-1])

    def save(self, state: dict[str, Any]) -> None:
        CheckpointStore(self.folder, keep=1).save(state["step"], state, EXPERIMENT)

    def load(self) -> dict[str, Any]:
        return CheckpointStore(self.folder).load().state

    def debris(self) -> list[str]:
        return [entry.name for entry in self.folder.iterdir() if not entry.name.startswith("step-")]


class InPlace(Ours):
    """Known to be bad: writes over its only file, without a manifest, as ``torch.save(state, path)`` does."""

    def save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / "last.pt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            for first in range(0, len(buffer.getvalue()), 512):
                os.write(handle, buffer.getvalue()[first : first + 512])
        finally:
            os.close(handle)

    def load(self) -> dict[str, Any]:
        return torch.load(self.folder / "last.pt", weights_only=True)


Fault = Callable[[Ours, int], bool]
"""Saves the new state and disturbs the call of a number; returns False if there was no such call."""


def faults_found(saver: type[Ours], base: Path, fault: Fault, damaged: bool = False) -> tuple[int, list[str]]:
    """Disturb a save at its first call to the operating system, at its second, and so on, each in a folder of its own.

    Returns:
        The number of calls, and for each after which neither the old nor the new state loads what is wrong.
    """
    wrong = []
    for number in itertools.count():
        store = saver(base / str(number), damaged)
        store.prepare()
        disturbed = fault(store, number)
        try:
            state = store.load()
            if differences(state, OLD) and differences(state, NEW):
                wrong.append(f"call {number}: a state loads that was never saved")
        except Exception as error:
            wrong.append(f"call {number}: {type(error).__name__}: {error}")
        if not disturbed:
            assert not differences(store.load(), NEW)
            return number, wrong
    raise AssertionError


def kill(store: Ours, number: int) -> bool:
    """SIGKILL at the call."""
    process = multiprocessing.get_context("forkserver").Process(target=_save_and_die, args=(store, number))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def error(code: int, lasting: bool) -> Fault:
    """An error of the operating system at the call; and, if it lasts, at every later one that would need space."""

    def fault(store: Ours, number: int) -> bool:
        calls = itertools.count()
        disturbed = [False]

        def hook(name: str) -> None:
            now = next(calls)
            if now == number or (lasting and now > number and name in ("write", "fsync", "mkdir", "rename")):
                disturbed[0] = True
                raise OSError(code, os.strerror(code))

        try:
            with before_each_call(hook):
                store.save(NEW)
        except CheckpointError as problem:
            assert problem.errno == code
            assert str(store.folder / "step-00000002") in str(problem)
            assert store.debris() == []
        return disturbed[0]

    return fault


def save_with_limit(store: Ours, limit: int) -> None:
    """In a child: save while no file may grow beyond a limit; the exit status is the error's number."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        store.save(NEW)
    except CheckpointError as problem:
        os._exit(problem.errno or 1)


def _save_and_die(store: Ours, number: int) -> None:
    checkpoint._CHUNK = 512  # several writes per file
    calls = itertools.count()

    def hook(name: str) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    with before_each_call(hook):
        store.save(NEW)
