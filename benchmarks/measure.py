"""What the benchmarks share: alternating timing, the spread of a ratio, peak memory of a phase, tables."""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Ratio:
    """A ratio of two times that were taken right after each other, over all rounds."""

    median: float
    low: float
    """Quarter of the rounds below this."""
    high: float
    """Quarter of the rounds above this."""

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}..{self.high:.2f})"


def alternate(calls: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call in each round. A round makes every call once: A B C A B C ..., after one that is dropped.

    What else the machine does then slows neighbours alike, and the ratio within a round means something although the
    times themselves do not. A call returns its own seconds, so that it can leave its preparation out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 1):
        for name, call in calls.items():
            spent = call()
            if number:
                seconds[name].append(spent)
    return seconds


def timed(call: Callable[[], object]) -> Callable[[], float]:
    """The call, returning its seconds."""

    def run() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return run


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Median and quartiles of ``above / below`` round by round."""
    quotients = [a / b for a, b in zip(above, below, strict=True)]
    low, middle, high = statistics.quantiles(quotients, n=4) if len(quotients) > 1 else quotients * 3
    return Ratio(middle, low, high)


def milliseconds(seconds: Sequence[float]) -> float:
    """Median in ms."""
    return 1000 * statistics.median(seconds)


def peak_mb(call: Callable[[], object]) -> float:
    """Megabytes by which the resident memory of this process rises above its present size while ``call`` runs.

    Run it in a process that did nothing large before: memory that an earlier step freed to malloc's lists, not to the
    system, would be used again without showing. Linux counts the peak per address space (VmHWM) and can restart the
    count, unlike ru_maxrss, which a child inherits from a large parent and which no call resets. Elsewhere ru_maxrss is
    what there is; its baseline is then the peak so far, and the figure is too small if that was above the present size.
    """
    if _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_kb("VmRSS")
        call()
        return (_status_kb("VmHWM") - before) / 1e3
    unit = 1e6 if sys.platform == "darwin" else 1e3
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit


def _status_kb(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1])


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns, the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def machine(threads: int) -> str:
    """One line on the circumstances."""
    load = os.getloadavg()[0]
    return f"torch {torch.__version__}, {threads} threads of {os.cpu_count()} cores, load {load:.1f} from all jobs"
