"""The page about one run: figures, curves, what it rendered as it learnt, and its configuration."""

from pathlib import Path

from ponder3d.config import fingerprint, to_json
from ponder3d.engine.evaluate import read_json
from ponder3d.engine.log import read_table
from ponder3d.engine.loop import resume_experiment
from ponder3d.report.html import Page, chart, picture
from ponder3d.report.svg import Series, line_chart

_CURVES = (
    ("loss", "loss", ""),
    ("psnr", "PSNR", "dB"),
    ("depth_error", "depth error", "m"),
    ("accuracy", "accuracy on the batch", ""),
    ("semantic_accuracy", "accuracy of rendered classes", ""),
    ("semantic_miou", "mIoU of rendered classes", ""),
    ("miou", "mIoU", ""),
)
_FACTS = ("class_vectors", "points_class_vectors")
"""Of ``Task.facts``, those that figures depend on."""


def write_run_page(run: Path | str) -> Path:
    """Write ``report/index.html`` into a run.

    Returns:
        The page.

    Raises:
        CheckpointError: the run has no checkpoint that verifies.
    """
    run = Path(run)
    experiment = resume_experiment(run)
    page = Page(f"Run {run.name}", f"experiment {fingerprint(experiment)}, {experiment.steps} steps")
    evaluation = read_json(run / "evaluation.json")
    if evaluation is not None:
        page.heading("Evaluation on what was held out")
        rows = [(name, f"{value:.4g}") for name, value in evaluation["figures"].items()]
        rows += [(name.replace("_", " "), evaluation[name]) for name in _FACTS if name in evaluation]
        page.table(("figure", "value"), rows)
    page.heading("Learning")
    page.row(curves({"training": run / "train.csv", "held out": run / "validation.csv"}))
    stages = render_stages(run, 0)
    if stages:
        page.heading("Rendered while learning: colour, depth, normals, and classes where they are learnt")
        page.row(stages)
    page.heading("Configuration")
    page.code(to_json(experiment))
    path = run / "report" / "index.html"
    page.write(path)
    return path


def curves(tables: dict[str, Path]) -> list[str]:
    """Charts of the figures that tables have in common with ``_CURVES``, one line per table."""
    rows = {name: read_table(path) for name, path in tables.items() if path.is_file()}
    charts = []
    for column, title, unit in _CURVES:
        series = []
        for name, table in rows.items():
            points = tuple((float(row["step"]), float(row[column])) for row in table if row.get(column))
            series.append(Series(name, points, markers=len(points) <= 12))
        charts.append(chart(line_chart(title, series, "step", unit)))
    return [c for c in charts if c]


def render_stages(run: Path, view: int) -> list[str]:
    """What a held-out view looked like at each evaluation, the truth first."""
    found = sorted((run / "renders").glob(f"step-*/view-{view}-rendered.png"))
    if not found:
        return []
    truth = found[-1].with_name(f"view-{view}-truth.png")
    parts = [picture(truth, "truth: colour, depth, normals from depth, classes if any")] if truth.is_file() else []
    return parts + [picture(path, f"rendered after {int(path.parent.name.split('-')[1])} steps") for path in found]
