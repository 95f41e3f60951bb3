"""The warm server that child processes are forked from, and the way to the helper module that they import."""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
from pathlib import Path

import pytest

# The tests and the children import ``tiny_runs`` under one name. Not here: ponder3d must not be imported before
# jaxtyping's hook is in place.
sys.path.insert(0, str(Path(__file__).parent))


@contextlib.contextmanager
def _heeding_ctrl_c():
    """Whoever starts pytest in the background has it ignore SIGINT, and so do the processes that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


@pytest.fixture(autouse=True)
def _ctrl_c_reaches_us():
    with _heeding_ctrl_c():
        yield


@pytest.fixture(scope="session")
def warm():
    """The server: processes of the context ``forkserver`` find everything imported."""
    with pytest.MonkeyPatch.context() as patch:
        # The server does not get this process's sys.path.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        multiprocessing.set_forkserver_preload(["tiny_runs", "saves"])
        with _heeding_ctrl_c():
            multiprocessing.forkserver.ensure_running()


@pytest.fixture
def launch(warm):
    """Starts an attempt at a run in child processes; whatever is left of it is killed when the test ends."""
    import tiny_runs  # noqa: PLC0415

    children = []

    def start(*args, **kwargs) -> tiny_runs.Child:
        children.append(tiny_runs.start(tiny_runs.Attempt(*args, **kwargs)))
        return children[-1]

    yield start
    for child in children:
        child.end()
