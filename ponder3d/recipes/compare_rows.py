"""From the figures of single runs to the rows of the table."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ponder3d.engine.comparison_table import FINETUNE, FROZEN, SCRATCH, Row, mean_and_spread, training_seconds
from ponder3d.engine.jobs import Job

_Group = tuple[str, str, str, int, int]
"""``Cell.row``: way, labels, method, steps of pre-training and of fine-tuning."""


@dataclass(frozen=True)
class Cell:
    """One figure of the table, of one seed."""

    job: Job
    way: str
    method: str
    labels: str
    pretrain_steps: int
    steps: int
    """Of fine-tuning; 0 for probes."""
    seed: int
    before: Path | None
    """Directory of its pre-training; None without one."""

    @property
    def row(self) -> _Group:
        """What cells of one row have in common."""
        return self.way, self.labels, self.method, self.pretrain_steps, self.steps


@dataclass(frozen=True)
class Facts:
    """What the rows of a comparison are told of it."""

    ways: Sequence[str]
    labels: Sequence[str]
    methods: Sequence[str]
    """These three in the order of the table."""
    scenes: Mapping[str, int]
    """How many scenes are trained on, by amount of labels."""
    batch: int
    """Scenes per step of fine-tuning."""
    pretrain_batch: int
    labelled: Collection[str]
    """Methods that are told classes."""
    files: Collection[str]
    """Methods that came as files."""
    against: str
    """The method that the others are set against; empty without one."""
    failed: Mapping[str, str]
    """Why jobs have failed, by name."""


def table_rows(cells: Sequence[Cell], figures: Mapping[str, Mapping[str, float]], facts: Facts) -> list[Row]:
    """The table, by way, amount of labels, steps, method and budget.

    Args:
        cells: all of them; those of a row in the order of their seeds.
        figures: of the jobs that came to an end, by name.
        facts: of the comparison.
    """
    groups: dict[_Group, dict[int, Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.row, {})[cell.seed] = cell
    values = {
        group: {seed: 100 * figures[one.job.name]["miou"] for seed, one in own.items() if one.job.name in figures}
        for group, own in groups.items()
    }
    rows = []
    for group, of_row in groups.items():
        way, labels, method, budget, steps = group
        base = values.get((way if way in FROZEN else FINETUNE, labels, SCRATCH, 0, steps), {})
        own = values[group]
        gains = _differences(own, base) if method != SCRATCH else []
        rival = _rival(values, group, facts.against) if method not in (SCRATCH, facts.against) else {}
        difference, difference_spread = mean_and_spread(_differences(own, rival))
        lost = [facts.failed[cell.job.name] for cell in of_row.values() if cell.job.name in facts.failed]
        trained = [training_seconds(of_row[seed].job.out, facts.batch) if steps else 0.0 for seed in own]
        before = [_seconds_before(of_row[seed], facts) for seed in own]
        rows.append(
            Row(
                way,
                method,
                labels,
                budget,
                steps,
                *mean_and_spread(list(own.values())),
                *mean_and_spread(gains),
                seconds=sum(trained + before) / max(1, len(own)),
                samples=budget * facts.pretrain_batch + steps * facts.batch,
                seeds=len(own),
                failed="; ".join(dict.fromkeys(lost)),
                labelled=method in facts.labelled,
                file=method in facts.files,
                scenes=facts.scenes[labels],
                pretrain_seconds=sum(before) / max(1, len(own)),
                difference=difference,
                difference_spread=difference_spread,
                by_seed={str(seed): value for seed, value in own.items()},
            )
        )

    def place(row: Row) -> tuple[int, int, int, int, int]:
        orders = facts.ways.index(row.way), facts.labels.index(row.labels), facts.methods.index(row.method)
        return orders[0], orders[1], row.steps, orders[2], row.pretrain_steps

    return sorted(rows, key=place)


def _differences(one: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    return [one[seed] - other[seed] for seed in one if seed in other]


def _rival(values: Mapping[_Group, Mapping[int, float]], group: _Group, against: str) -> Mapping[int, float]:
    """What the method that the others are set against gives where all else is equal, by seed; if it has no row of that
    budget, as where one of them is a file, that of its largest."""
    way, labels, _, budget, steps = group
    of_budget = {one[3]: own for one, own in values.items() if (*one[:3], one[4]) == (way, labels, against, steps)}
    return of_budget.get(budget, of_budget[max(of_budget)] if of_budget else {})


def _seconds_before(cell: Cell, facts: Facts) -> float:
    return training_seconds(cell.before, facts.pretrain_batch) if cell.before is not None else 0.0
