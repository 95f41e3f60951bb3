"""What the benchmarks share: alternating timing, the spread of a ratio, peak memory of a phase, tables, ``--save``.

A benchmark's main function is

    args = parser(__doc__).parse_args()  # with the benchmark's own arguments
    with saved(args.save):
        ...  # print machine(args.threads) and the tables
"""

import argparse
import contextlib
import ctypes
import datetime
import gc
import io
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch

RESULTS = Path(__file__).parent / "results"
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


def timed(
    call: Callable[[], object],
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[], float]:
    """The call, returning its seconds; on a GPU those until it has done what it was asked."""

    def run() -> float:
        synchronize(device)
        start = clock()
        call()
        synchronize(device)
        return clock() - start

    return run


def synchronize(device: torch.device | str) -> None:
    """Wait for a GPU; a CPU has already done it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def gemm_rate(
    channels: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Multiply-adds per second of [rows C] by [C C]: out of cache on a CPU, large on a GPU. Median of nine."""
    cpu = torch.device(device).type == "cpu"
    rows = 1024 * torch.get_num_threads() if cpu else 1 << 16
    a = torch.randn(rows, channels, device=device, dtype=dtype)
    b = torch.randn(channels, channels, device=device, dtype=dtype)
    out = torch.empty_like(a)
    # A GPU: tens of milliseconds, or launching and waiting is what is timed.
    times = max(1, int((2e9 if cpu else 2e12) / (rows * channels**2)))

    def products() -> None:
        for _ in range(times):
            torch.mm(a, b, out=out)

    seconds = alternate({"": timed(products, device, clock)}, 9)[""]
    return times * rows * channels**2 / statistics.median(seconds)


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Median and quartiles of ``above / below`` round by round."""
    quotients = [a / b for a, b in zip(above, below, strict=True)]
    low, middle, high = statistics.quantiles(quotients, n=4) if len(quotients) > 1 else quotients * 3
    return Ratio(middle, low, high)


def milliseconds(seconds: Sequence[float]) -> float:
    """Median in ms."""
    return 1000 * statistics.median(seconds)


def peak_mb(call: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """Megabytes by which the resident memory of this process rises above its present size while ``call`` runs.

    On a GPU: the most that tensors take there, those that exist already included.

    Memory that an earlier step freed to malloc's lists, not to the system, would be used again without showing: glibc
    is told to give it back; elsewhere run this in a process that did nothing large before. Linux counts the peak per
    address space (VmHWM) and can restart the count, unlike ru_maxrss, which a child inherits from a large parent and
    which no call resets. Elsewhere ru_maxrss is what there is; its baseline is then the peak so far, and the figure is
    too small if that was above the present size.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() / 1e6
    if _STATUS.exists():
        gc.collect()
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
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
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"torch {torch.__version__}, {_processor()}, {threads} threads of {os.cpu_count()} cores{gpu}, "
        f"load {os.getloadavg()[0]:.1f} from all jobs"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that knows ``--save``."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--save", action="store_true", help="also write what is printed to benchmarks/results")
    return made


@contextlib.contextmanager
def saved(save: bool) -> Iterator[None]:
    """With ``save``, what is printed inside also goes to ``results/DATE-NAME.txt``, below the command.

    The file is written at the end, also of a run that breaks off. A second run on a day with the same arguments takes
    its place; others get names that say their arguments.
    """
    if not save:
        yield
        return
    # Where this machine keeps its data is of no interest.
    given = ["DIR" if os.path.isabs(word) else word for word in sys.argv[1:] if word != "--save"]
    script = Path(sys.argv[0])
    name = "-".join([str(datetime.date.today()), script.stem, *(word.strip("-").replace("/", "_") for word in given)])
    printed = _Tee(sys.stdout)
    try:
        with contextlib.redirect_stdout(printed):
            print(f"$ {' '.join(['python', f'benchmarks/{script.name}', *given])}")
            yield
    finally:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.txt").write_text(printed.getvalue())


class _Tee(io.StringIO):
    """Keeps what it is given, and shows it."""

    def __init__(self, screen: TextIO):
        super().__init__()
        self.screen = screen

    def write(self, text: str) -> int:
        self.screen.write(text)
        self.screen.flush()
        return super().write(text)
