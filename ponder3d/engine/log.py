"""Where the figures of a run go: CSV always, TensorBoard if it is installed, and one line in the terminal."""

import csv
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

Report = Callable[[int, int, dict[str, float]], None]
"""Told (steps done, steps in all, figures) now and then."""


class TableLog:
    """A CSV file with one row per step, cut back on resume so that no step is in it twice."""

    def __init__(self, path: Path, position: int):
        self.path = path
        self._rows: list[dict[str, str]] = []
        self._columns: list[str] = ["step"]
        if path.is_file():
            self._rows = [row for row in read_table(path) if int(row["step"]) <= position]
            for row in self._rows:
                self._add_columns(row)
        self._rewrite()

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Append a row; a new figure adds a column. Rows of this step and later ones are replaced."""
        row = {"step": str(step)} | {name: f"{value:.6g}" for name, value in figures.items()}
        earlier = [old for old in self._rows if int(old["step"]) < step]
        repeated = len(earlier) < len(self._rows)
        self._rows = [*earlier, row]
        if self._add_columns(row) or repeated:
            self._rewrite()
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def has(self, step: int) -> bool:
        """Whether there is a row of this step."""
        return any(int(row["step"]) == step for row in self._rows)

    def _add_columns(self, row: dict[str, str]) -> bool:
        new = [name for name in row if name not in self._columns]
        self._columns += new
        return bool(new)

    def _rewrite(self) -> None:
        temporary = self.path.with_name(f".tmp-{self.path.name}-{os.getpid()}")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self._rows)
        os.replace(temporary, self.path)


def read_table(path: Path) -> list[dict[str, str]]:
    """The complete rows of a table; a row that a kill cut short is left out."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values() and None not in row]
    return [row for row in rows if (row.get("step") or "").isdigit()]


SKIPPED_FRAMES = "skipped-frames.txt"
"""In the directory of a run: the frames that it could not use, one line each."""


class SkippedFrames:
    """What a run leaves out of its data: every line once in a file, the first few on the terminal too.

    All processes of a run, and those that continue it, write to one file.
    """

    def __init__(self, path: Path, shown: int = 3):
        self.path, self.shown = path, shown
        self._known: set[str] = set()

    def add(self, lines: Iterable[str]) -> None:
        """Note what a dataset or a scene left out (``SceneDataset.skipped``, ``Scene.skipped``)."""
        new = [line for line in dict.fromkeys(lines) if line not in self._known]
        if not new:
            return
        self._known.update(new)
        listed = self.path.read_text().splitlines() if self.path.is_file() else []
        with self.path.open("a") as file:
            file.writelines(f"{line}\n" for line in new if line not in listed)
        text = [f"ponder3d: {len(new)} frame(s) cannot be used and are left out; all are listed in {self.path}"]
        text += [f"  {line}" for line in new[: self.shown]]
        text += [f"  and {len(new) - self.shown} more"] if len(new) > self.shown else []
        print("\n".join(text), file=sys.stderr)


class TensorBoard:
    """Event files for TensorBoard; says so if tensorboardX is not installed (extra ``tensorboard``)."""

    def __init__(self, folder: Path, position: int, quiet: bool = False):
        self._writer: Any = None
        if importlib.util.find_spec("tensorboardX") is not None:
            from tensorboardX import SummaryWriter  # noqa: PLC0415

            # What is there of this step stays: the run goes on after it.
            self._writer = SummaryWriter(str(folder), purge_step=position + 1 if position else 0)
        elif not quiet:
            print("ponder3d: CSV logs only; pip install tensorboardX for TensorBoard's too", file=sys.stderr)

    def write(self, step: int, figures: dict[str, float], prefix: str) -> None:
        """Add scalars."""
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        """Flush to disk."""
        if self._writer is not None:
            self._writer.close()


class Progress:
    """One line that is rewritten on a terminal, and a line now and then elsewhere."""

    def __init__(self, total: int, done: int = 0, label: str = "", quiet: bool = False, stream: TextIO | None = None):
        self.total, self.label, self.quiet = total, label, quiet
        self._stream = stream or sys.stderr
        self._start_done, self._start = done, time.monotonic()
        self._last = -1e9
        self._interactive = self._stream.isatty()

    def show(self, done: int, figures: dict[str, float], rate: str = "", force: bool = False) -> None:
        """Show where the work is."""
        elapsed = time.monotonic() - self._start
        left = elapsed / max(done - self._start_done, 1) * (self.total - done)
        texts = [f"{name} {value:.4g}" for name, value in figures.items()]
        parts = [f"{self.label} {done}/{self.total}".strip(), *texts, rate, f"{_clock(elapsed)} left {_clock(left)}"]
        self._write("  ".join(part for part in parts if part), force or done == self.total)

    def show_jobs(self, done: int, states: dict[str, tuple[int, int, dict[str, float]]], force: bool = False) -> None:
        """Show how many jobs are done, and where those that run are."""
        parts = []
        for name, (step, total, figures) in states.items():
            shown = "".join(f" {figure} {value:.3g}" for figure, value in list(figures.items())[:2])
            parts.append(f"[{name} {step}/{total}{shown}]")
        elapsed = time.monotonic() - self._start
        line = "  ".join([f"{self.label}: {done}/{self.total} done", *parts, _clock(elapsed)])
        self._write(line, force)

    def _write(self, line: str, force: bool) -> None:
        now = time.monotonic()
        if self.quiet or (not force and now - self._last < (0.2 if self._interactive else 10.0)):
            return
        self._last = now
        if self._interactive:
            self._stream.write(f"\r\x1b[2K{line[:160]}")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._interactive and not self.quiet and self._last > 0:
            self._stream.write("\n")
            self._stream.flush()


def _clock(seconds: float) -> str:
    whole = int(seconds + 0.5)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
