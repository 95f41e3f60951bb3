"""The page of a comparison."""

from pathlib import Path
from typing import Any

from ponder3d.engine.comparison_table import (
    FINETUNE,
    PROBE,
    SCRATCH,
    Labels,
    Row,
    convergence_told,
    items_of,
    read_results,
    table_cells,
)
from ponder3d.report.html import Page, chart
from ponder3d.report.svg import Dot, Series, dot_chart, line_chart, line_colours

_TITLES = {
    FINETUNE: "Fine-tuning of all weights",
    "decoder": "The decoder and the head trained, the rest frozen",
    "head": "The head trained, the encoder frozen",
    "lora": "Low-rank changes trained (LoRA)",
    PROBE: "Linear probe of frozen features",
    "levels": "Linear probe of frozen features of all levels",
    "knn": "Nearest neighbours of frozen features",
}


def write_compare_page(folder: Path | str) -> Path:
    """Write ``report/index.html`` into a comparison: the table, and quality against labels, steps and compute.

    Returns:
        The page.

    Raises:
        ValueError: the comparison has not finished.
    """
    folder = Path(folder)
    record = read_results(folder)
    rows = [Row(**row) for row in record["rows"]]
    page = Page("ponder3d: does pre-training pay?", f"{record['target']}, {folder.name}")
    page.heading("The table")
    page.text(_protocol(record))
    page.table(*table_cells(rows, record.get("against", "")), style="dense")
    for row in rows:
        if row.failed:
            page.text(f"Failed: {row.way} of {row.method}, {row.labels}: {row.failed}")
    shares = _shares_of_supervised(rows, record)
    if shares:
        page.text(shares)
    methods = list(dict.fromkeys(row.method for row in rows))
    for way, title in _TITLES.items():
        of_way = [row for row in rows if row.way == way and row.mean is not None]
        charts = [part for part in _charts(of_way, methods) if part] if of_way else []
        ranks = _ranks(of_way, methods)
        if charts or ranks:
            page.heading(title)
            if charts:
                drawn = {row.method for row in of_way}
                page.legend([(name, colour) for name, colour in line_colours(methods) if name in drawn])
            page.row([*charts, *ranks, *_differences(of_way, methods, record.get("against", ""))])
    if record["convergence"]:
        _convergence(page, record)
    page.heading("Configuration")
    page.code(record["config"])
    page.code(record["experiment"])
    path = folder / "report" / "index.html"
    page.write(path)
    return path


def _protocol(record: dict[str, Any]) -> str:
    config = record["config"]
    return (
        f"mIoU in percent on scenes never seen, one point per voxel; mean and standard deviation of {config['seeds']} "
        "seeds, which differ in what is labelled, in order and weights, and in the scenes to pre-train on where these "
        "are generated. Gains are taken seed by seed: from scratch or, of probes, from random weights; so are "
        "differences from the method that the others are set against. All methods pre-train the same encoder for as "
        "many steps of as many scenes, and all starts are fine-tuned for as many steps. Settings were chosen by one "
        f"rule, for every number of steps, on {record['withheld']} labelled scenes that are never fine-tuned or tested "
        "on. Time is that of the steps of pre-training and fine-tuning, without evaluations. Methods marked (classes) "
        "are told classes in pre-training; the others see no label."
        + (
            " Those marked (file) were pre-trained elsewhere, for other steps, on other scenes, perhaps with labels; "
            "their time and scenes are of fine-tuning alone."
            if any(row.get("file") for row in record["rows"])
            else ""
        )
        + (f" NOT on the same data as the first: {', '.join(record['other_data'])}." if record["other_data"] else "")
    )


def _shares_of_supervised(rows: list[Row], record: dict[str, Any]) -> str:
    """How near probes come to the same encoder trained with all labels."""
    supervised = [row for row in rows if (row.way, row.method, row.labels) == (FINETUNE, SCRATCH, "100%") and row.mean]
    probes = [row for row in rows if row.way in (PROBE, "levels") and row.labels == "100%" and row.mean is not None]
    most = max((row.pretrain_steps for row in probes), default=0)
    probes = [row for row in probes if row.method == SCRATCH or row.pretrain_steps == most]
    if not supervised or not probes:
        return ""
    best = max(row.mean for row in supervised if row.mean)
    told = ", ".join(
        f"{'random' if row.method == SCRATCH else row.method}{' (all levels)' if row.way == 'levels' else ''} "
        f"{100 * (row.mean or 0) / best:.0f} %"
        for row in probes
    )
    reached = [miou for _, miou in record["convergence"].get("100%", ())]
    whether = convergence_told(reached, record["config"]["converged"])
    return f"Linear probes as a share of the same encoder trained with all labels ({best:.1f}; {whether}): {told}."


def _charts(rows: list[Row], methods: list[str]) -> list[str]:
    """Lines of ``methods``, of which one that has no figure in a chart leaves its colour to no other."""
    longest = {row.labels: max(r.steps for r in rows if r.labels == row.labels) for row in rows}
    most = max(row.pretrain_steps for row in rows)
    full = [row for row in rows if row.pretrain_steps in (0, most)]
    parts = []
    for kind, name in (("share", "labelled scenes, percent"), ("points", "labelled points in each scene")):
        of_kind = [row for row in full if _is(kind, row) and row.steps == longest[row.labels]]
        parts.append(_chart(f"mIoU against {name}", of_kind, methods, _amount, name))
    for labels in dict.fromkeys(row.labels for row in rows):
        of_labels = [row for row in full if row.labels == labels]
        if len({row.steps for row in of_labels}) > 1:
            title = f"{labels} labelled: against fine-tuning"
            parts.append(_chart(title, of_labels, methods, lambda row: row.steps, "steps"))
        of_labels = [r for r in rows if r.labels == labels and r.steps == longest[labels]]
        if len({row.pretrain_steps for row in of_labels}) > 2:
            title = f"{labels} labelled: against pre-training"
            parts.append(_chart(title, of_labels, methods, lambda row: row.pretrain_steps, "steps of pre-training"))
            title = f"{labels} labelled: against the time of pre-training"
            parts.append(_chart(title, of_labels, methods, lambda row: row.pretrain_seconds, "seconds", log_x=False))
    return parts


def _ranks(rows: list[Row], methods: list[str]) -> list[str]:
    """The methods from best to worst at each amount of labels, after the most steps; the dashed line is ``scratch``,
    or random weights where nothing of the encoder is trained."""
    parts, colours = [], {method: number for number, method in enumerate(methods)}
    for labels in dict.fromkeys(row.labels for row in rows):
        last = _last(rows, labels)
        steps = last[0].steps
        known = sorted(((row.mean, row) for row in last if row.mean is not None), key=lambda pair: -pair[0])
        dots = [Dot(row.told_start, mean, row.spread or 0.0, colours[row.method]) for mean, row in known]
        reference = next((mean for mean, row in known if row.method == SCRATCH), None)
        if len(dots) > 1:
            title = f"{labels} labelled" + (f": after {steps} steps" if steps else "")
            parts.append(chart(dot_chart(title, dots, "%", reference)))
    return parts


def _differences(rows: list[Row], methods: list[str], against: str) -> list[str]:
    """How far the methods are above or below the one that they are set against, after the most steps."""
    parts, colours = [], {method: number for number, method in enumerate(methods)}
    for labels in dict.fromkeys(row.labels for row in rows):
        last = [(row.difference, row) for row in _last(rows, labels) if row.difference is not None]
        known = sorted(last, key=lambda pair: -pair[0])
        dots = [Dot(row.told_start, mean, row.difference_spread or 0.0, colours[row.method]) for mean, row in known]
        if dots:
            parts.append(chart(dot_chart(f"{labels} labelled: against {against}, seed by seed", dots, "points", 0.0)))
    return parts


def _last(rows: list[Row], labels: str) -> list[Row]:
    """Those of an amount of labels after the most steps, of fine-tuning and of pre-training."""
    rows = [row for row in rows if row.labels == labels]
    steps, most = max(row.steps for row in rows), max(row.pretrain_steps for row in rows)
    return [row for row in rows if row.steps == steps and row.pretrain_steps in (0, most)]


def _is(kind: str, row: Row) -> bool:
    return (Labels.parse(row.labels).points > 0) == (kind == "points")


def _amount(row: Row) -> float:
    labels = Labels.parse(row.labels)
    return float(labels.points or 100 * labels.share)


def _chart(title: str, rows: list[Row], methods: list[str], x_of: Any, x_label: str, log_x: bool = True) -> str:
    if len({x_of(row) for row in rows}) < 2:
        return ""
    series = []
    for method in methods:
        of_method = [row for row in rows if row.method == method]
        own = sorted((x_of(row), row.mean, row.spread or 0.0) for row in of_method if row.mean is not None)
        points = tuple((float(x), mean) for x, mean, _ in own)
        series.append(Series(method, points, markers=True, spreads=tuple(spread for *_, spread in own)))
    return chart(line_chart(title, series, x_label, "%", log_x=log_x, legend=False))


def _convergence(page: Page, record: dict[str, Any]) -> None:
    config = record["config"]
    page.heading("When scratch has converged")
    page.text(
        "On the scenes set aside, with the best settings for each number of steps, training from scratch was doubled "
        "until that gained less than "
        f"{config['converged']:g} points of mIoU, at most {config['longest']} times the recipe's. Every start was then "
        "fine-tuned for as many steps."
    )
    most = max((len(steps) for steps in record["convergence"].values()), default=0)
    header = ("labels", *(f"x{2**i}" for i in range(most)), "steps taken", "has it converged")
    rows = []
    for labels, steps in record["convergence"].items():
        reached = [f"{miou:.1f}" for _, miou in steps]
        told = convergence_told([miou for _, miou in steps], config["converged"])
        taken = str(record["steps"].get(labels, ""))
        rows.append((labels, *reached, *[""] * (most - len(reached)), taken, told))
    page.table(header, rows)
    twin = "as it is or with what its twin for pre-trained encoders does otherwise, and" if record["twin"] else "and"
    page.text(f"Chosen by one rule, for every number of steps: the recipe {twin} the learning rate.")
    methods = [name.partition("=")[0] for name in items_of(config["methods"], "methods")]
    labels = list(record["convergence"])
    chosen = {(way, method, amount, steps): one for way, method, amount, steps, one in record["chosen"]}
    ways = [way for way in items_of(config["ways"], "ways") if any(key[0] == way for key in chosen)]
    columns = sorted({key[2:] for key in chosen}, key=lambda column: (labels.index(column[0]), column[1]))
    page.table(
        ("", "", *(f"{amount}, {steps} steps" for amount, steps in columns)),
        [
            (way, method, *(chosen.get((way, method, *column), "") for column in columns))
            for way in ways
            for method in methods
        ],
    )
