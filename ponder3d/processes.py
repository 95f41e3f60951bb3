"""Worker processes that do not outlive the process that started them."""

import os
import threading
import time


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
