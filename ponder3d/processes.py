"""Worker processes that do not outlive the process that started them, and signals that ask to stop."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any


def end_with_parent(parent: int) -> None:
    """Have this process end soon after ``parent`` has. A worker whose parent was killed would otherwise work through
    what it was given, or wait for more for ever.

    Args:
        parent: process id of who started it, from before: it may be gone already.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextlib.contextmanager
def signals_set_flag(interrupts: bool = True) -> Iterator[threading.Event]:
    """Within this context SIGTERM and, with ``interrupts``, a first SIGINT set the flag it yields. Only the main thread
    gets signals.

    Where SIGINT does something else than it does by default (ignored in the background, say), it is left alone.
    """
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            if flag.is_set():
                raise KeyboardInterrupt
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\nponder3d: saving after this step, then stopping; Ctrl-C again to stop at once\n")
        flag.set()

    old = {signal.SIGTERM: signal.signal(signal.SIGTERM, note)}
    if interrupts and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        old[signal.SIGINT] = signal.signal(signal.SIGINT, note)
    try:
        yield flag
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
