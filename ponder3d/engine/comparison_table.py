"""The table of a comparison: what was asked for, and what came out."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ponder3d.engine.evaluate import read_json
from ponder3d.engine.log import read_table

SCRATCH = "scratch"
"""The method of those who do not pre-train."""
FINETUNE, PROBE = "finetune", "probe"
TUNED = (FINETUNE, "decoder", "head", "lora")
"""Ways that train: all weights, the decoder, the head alone, low-rank changes."""
FROZEN = (PROBE, "levels", "knn")
"""Ways that only read frozen features."""
RESULTS = "compare.json"
"""In the directory of a comparison that has finished."""
WAYS = (*TUNED, *FROZEN)
"""Ways to use an encoder."""


@dataclass(frozen=True)
class Labels:
    """How much is labelled."""

    text: str
    """As it was asked for."""
    share: float = 1.0
    """Of the scenes."""
    points: int = 0
    """In each scene; 0: all."""

    @classmethod
    def parse(cls, text: str) -> "Labels":
        """Read ``10%`` or ``20``.

        Raises:
            ValueError: it is neither a share above 0 and up to 100 percent nor a positive number of points.
        """
        number, percent = text.removesuffix("%"), text.endswith("%")
        try:
            value = float(number) if percent else int(number)
        except ValueError:
            value = 0
        if not 0 < value < math.inf or (percent and value > 100):
            raise ValueError(f"labels: {text!r} is neither a share of the scenes, as 10%, nor points a scene, as 20")
        return cls(text, share=value / 100) if percent else cls(text, points=int(value))


@dataclass(frozen=True)
class Row:
    """What one way of use gives from one method; mIoU in percent, over the seeds."""

    way: str
    method: str
    labels: str
    pretrain_steps: int
    """0 without pre-training."""
    steps: int
    """Of fine-tuning; 0 for probes."""
    mean: float | None
    """None if no seed came to an end."""
    spread: float | None
    """Standard deviation; None of fewer than two seeds."""
    gain: float | None
    """Mean difference, seed by seed, from all weights trained from scratch or, of frozen features, from random weights;
    None for these themselves."""
    gain_spread: float | None
    seconds: float
    """Of pre-training and fine-tuning together, on the mean of the seeds, without evaluations."""
    samples: int
    """Scenes seen in pre-training and fine-tuning, each as often as it was seen."""
    seeds: int
    """That came to an end."""
    failed: str = ""
    """Why the others did not: every reason once."""
    labelled: bool = False
    """Whether its pre-training is told classes."""
    file: bool = False
    """Whether its encoder came as a file: pre-trained elsewhere, which neither ``seconds`` nor ``samples`` count."""
    scenes: int = 0
    """How many scenes ``labels`` are; 0: not known, of an earlier version."""
    pretrain_seconds: float = 0.0
    """What of ``seconds`` is pre-training."""
    difference: float | None = None
    """Mean difference, seed by seed, from the method that the others are set against (``CompareConfig.against``), after
    as many steps of pre-training if it has such a row, else after its most; None for itself and ``scratch``."""
    difference_spread: float | None = None
    by_seed: Mapping[str, float] = field(default_factory=dict)
    """What ``mean`` is of, by seed."""

    @property
    def start(self) -> str:
        """What the encoder is in the beginning: ``scratch`` where nothing of it is trained is ``random``."""
        return "random" if self.way in FROZEN and self.method == SCRATCH else self.method

    @property
    def told_start(self) -> str:
        """The same, marked if it was told classes or came as a file."""
        return self.start + (" (classes)" if self.labelled else "") + (" (file)" if self.file else "")

    @property
    def told_labels(self) -> str:
        """What is labelled, with the number of scenes."""
        return self.labels + (f" ({self.scenes} scene{'s' * (self.scenes > 1)})" if self.scenes else "")


def table_cells(rows: Sequence[Row], against: str = "") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and cells of the table.

    Args:
        rows: what is told.
        against: the method that ``Row.difference`` is from; such a column is there if any row has one.
    """
    differ = any(row.difference is not None for row in rows)
    versus = (f"against {against}",) if differ else ()
    header = ("", "labels", "pre-training", "start", "steps", "mIoU %", "gain", *versus, "time", "scenes seen")
    cells = []
    for row in rows:
        difference = (_told_difference(row.difference, row.difference_spread),) if differ else ()
        result = "failed" if row.mean is None else f"{row.mean:.1f}{_told_spread(row.spread)}"
        result += f" ({row.seeds} seeds)" if row.seeds and row.failed else ""
        cells.append(
            (
                row.way,
                row.told_labels,
                str(row.pretrain_steps or ""),
                row.told_start,
                str(row.steps or ""),
                result,
                _told_difference(row.gain, row.gain_spread),
                *difference,
                f"{row.seconds:.0f} s",
                f"{row.samples:,}",
            )
        )
    return header, cells


def _told_difference(mean: float | None, spread: float | None) -> str:
    return "" if mean is None else f"{mean:+.1f}{_told_spread(spread)}"


def _told_spread(spread: float | None) -> str:
    return "" if spread is None else f" +- {spread:.1f}"


def table_text(rows: Sequence[Row], against: str = "") -> str:
    """The table for the terminal (``table_cells``), and below it why cells failed."""
    header, cells = table_cells(rows, against)
    lines = [header, *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text += [f"failed: {row.way} of {row.method}, {row.labels}: {row.failed}" for row in rows if row.failed]
    return "\n".join(text)


def convergence_told(reached: Sequence[float], least: float) -> str:
    """Whether training from scratch has converged.

    Args:
        reached: mIoU in percent after numbers of steps of which each is twice the one before.
        least: a doubling that gains so much is not the last one.
    """
    if len(reached) < 2:
        return "convergence not tested"
    gained = reached[-1] - reached[-2]
    return "converged" if gained < least else f"NOT converged: {gained:+.1f} in the last doubling"


def mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation; None where there are too few values for one."""
    return statistics.mean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None


def distinct(labels: Sequence[Labels], scenes: dict[str, int]) -> list[Labels]:
    """Of shares that are the same number of scenes, hence the same scenes, the largest, which is nearest to them.

    Args:
        labels: amounts of labels.
        scenes: numbers of scenes, by amount.
    """
    largest: dict[int, Labels] = {}
    for one in labels:
        number = scenes[one.text]
        if not one.points and (number not in largest or one.share > largest[number].share):
            largest[number] = one
    return [one for one in labels if one.points or largest[scenes[one.text]] == one]


def items_of(text: str, field: str) -> list[str]:
    """What is listed between commas.

    Raises:
        ValueError: nothing is, or something twice.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise ValueError(f"CompareConfig.{field} is empty; name at least one, separated by commas")
    if len(set(items)) < len(items):
        raise ValueError(f"CompareConfig.{field}: {text!r} names one twice")
    return items


def numbers_of(text: str, field: str) -> list[float]:
    """The numbers between commas.

    Raises:
        ValueError: something is none.
    """
    numbers = []
    for item in items_of(text, field):
        try:
            numbers.append(float(item))
        except ValueError:
            raise ValueError(f"CompareConfig.{field}: {item!r} is no number") from None
    return numbers


def training_seconds(run: Path, batch_size: int) -> float:
    """Time of the steps of a run, from the rates in its log; 0 without one."""
    path = run / "train.csv"
    if not path.is_file():
        return 0.0
    seconds, before = 0.0, 0
    for line in read_table(path):
        steps, rate = int(line["step"]) - before, float(line["scenes_per_second"])
        seconds, before = seconds + steps * batch_size / rate, int(line["step"])
    return seconds


def read_results(folder: Path | str) -> dict[str, Any]:
    """What a finished comparison has written.

    Raises:
        ValueError: there is none, or an earlier version has written it.
    """
    record = read_json(Path(folder) / RESULTS)
    if record is None:
        raise ValueError(
            f"{folder}: no finished comparison ({RESULTS} is missing); run ponder3d compare --out {folder}"
        )
    if isinstance(record["chosen"], dict):
        raise ValueError(f"{folder}: {RESULTS} is of an earlier version; run the same ponder3d compare again")
    return record
