"""The page about one run: figures, curves, what it rendered as it learnt, and its configuration."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ponder3d.config import fingerprint, to_json
from ponder3d.encoders.files import FILE_NAME, read_card
from ponder3d.engine.evaluate import read_json
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.log import read_table
from ponder3d.engine.loop import resume_experiment
from ponder3d.geometry.drawing import UNLABELLED
from ponder3d.report.html import Page, chart, picture
from ponder3d.report.svg import Series, line_chart
from ponder3d.tasks.class_vectors import NoVectors
from ponder3d.tasks.combined import CombinedConfig
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.task import TaskConfig

_CURVES = (
    ("loss", "loss", ""),
    ("psnr", "PSNR", "dB"),
    ("depth_error", "depth error", "m"),
    ("accuracy", "accuracy on the batch", ""),
    ("semantic_accuracy", "accuracy of rendered classes", ""),
    ("semantic_miou", "mIoU of rendered classes", ""),
    ("miou", "mIoU", ""),
    ("probe/miou", "mIoU of a linear probe", ""),
    ("knn/miou", "mIoU of nearest neighbours", ""),
    ("retrieval", "places found again", ""),
    ("agreement", "agreement of student and teacher", ""),
    ("iou", "IoU of occupied cells", ""),
)
_DRAWN = {
    "prototypes": "Likeliest prototypes from above: of the student, of the teacher",
    "features": "Features from above, of two views or of points and pixels, in their principal colours",
    "occupancy": "Cells from above: grey seen, green found, red made up, blue missed",
}
"""Pictures of pretext tasks that do not render, and what they show."""
_FACTS = ("class_vectors", "points_class_vectors")
"""Of ``Task.facts``, those that figures depend on."""


def write_run_page(run: Path | str) -> Path:
    """Write ``report/index.html`` into a run.

    Returns:
        The page.

    Raises:
        CheckpointError: the run has no checkpoint that verifies.
        EncoderFileError: its encoder file is damaged.
    """
    run = Path(run)
    experiment = resume_experiment(run)
    about = [f"experiment {fingerprint(experiment)}, {experiment.steps} steps"]
    card = read_card(run)["card"] if (run / FILE_NAME).is_file() else {}
    about += [f"{name.replace('_', ' ')}: {card[name]}" for name in _FACTS if name in card]
    page = Page(f"Run {run.name}", "; ".join(about))
    evaluation = read_json(run / "evaluation.json")
    if evaluation is not None:
        page.heading("Evaluation on what was held out")
        rows = [(name, f"{value:.4g}") for name, value in evaluation["figures"].items()]
        rows += [(name.replace("_", " "), evaluation[name]) for name in _FACTS if name in evaluation]
        page.table(("figure", "value"), rows)
    matrices = confusion_pictures(run)
    if matrices:
        page.heading("What classes are taken for")
        page.row(matrices)
    page.heading("Learning")
    parts = _parts(experiment.task)
    tables = {"training": run / "train.csv", "held out": run / "validation.csv"}
    page.row([chart for where in parts for chart in curves(tables, "_".join(where))])
    for where, task in parts.items():
        _pictures(page, run, experiment, where, task)
    page.heading("Configuration")
    page.code(to_json(experiment))
    path = run / "report" / "index.html"
    page.write(path)
    return path


def _parts(task: TaskConfig) -> dict[tuple[str, ...], TaskConfig]:
    """The tasks of a run by the names that lead to them: of the whole, none."""
    found: dict[tuple[str, ...], TaskConfig] = {(): task}
    for part in task.parts if isinstance(task, CombinedConfig) else ():
        found |= {(part.name, *below): each for below, each in _parts(part.task).items()}
    return found


def _pictures(page: Page, run: Path, experiment: Experiment, part: tuple[str, ...], task: TaskConfig) -> None:
    """What one task of a run drew at each evaluation."""
    of_part, prefix = (f" ({'_'.join(part)})", "".join(f"{name}-" for name in part)) if part else ("", "")
    semantic = isinstance(task, PonderConfig) and not isinstance(task.semantics, NoVectors)
    stages = render_stages(run, f"{prefix}view-0", semantic)
    if stages:
        page.heading(f"Rendered while learning{of_part}: {_columns(semantic)}")
        page.row(stages)
        page.legend(class_legend(experiment, run.glob(f"renders/step-*/{prefix}view-0-*.png"), 4) if semantic else ())
    stages = drawn_stages(run, f"{prefix}classes")
    if stages:
        page.heading(f"Classes of a scene from above{of_part}: predicted, true")
        page.row(stages)
        page.legend(class_legend(experiment, run.glob(f"renders/step-*/{prefix}classes.png"), 1))
        page.row(points_picture(run, f"{prefix}points"))
    for name, title in _DRAWN.items():
        stages = drawn_stages(run, prefix + name)
        if stages:
            page.heading(title + of_part)
            page.row(stages)


def curves(tables: dict[str, Path], part: str = "") -> list[str]:
    """Charts of the figures that tables have in common with ``_CURVES``, one line per table; of a task's part."""
    rows = {name: read_table(path) for name, path in tables.items() if path.is_file()}
    prefix, of_part = (f"{part}_", f" ({part})") if part else ("", "")
    charts = []
    for figure, title, unit in _CURVES:
        series, column = [], prefix + figure
        for name, table in rows.items():
            points = tuple((float(row["step"]), float(row[column])) for row in table if row.get(column))
            series.append(Series(name, points, markers=len(points) <= 12))
        charts.append(chart(line_chart(title + of_part, series, "step", unit)))
    return [c for c in charts if c]


def render_stages(run: Path, view: str, semantic: bool = False) -> list[str]:
    """What a held-out view, such as ``view-0``, looked like at each evaluation, the truth first; with classes if
    ``semantic``."""
    found = sorted((run / "renders").glob(f"step-*/{view}-rendered.png"))
    if not found:
        return []
    truth = found[-1].with_name(f"{view}-truth.png")
    parts = [_enlarged(truth, f"truth: {_columns(semantic, ' from depth')}")] if truth.is_file() else []
    return parts + [_enlarged(path, f"rendered after {_step(path)} steps") for path in found]


def confusion_pictures(run: Path) -> list[str]:
    """Of each evaluation with its confusion matrix, the picture."""
    found = [
        ("confusion.png", "confusion matrix"),
        *((p.name, f"with the augmentations {p.stem.split('-', 1)[1]}") for p in sorted(run.glob("confusion-*.png"))),
    ]
    return [picture(run / name, caption) for name, caption in found if (run / name).is_file()]


def drawn_stages(run: Path, name: str) -> list[str]:
    """The picture of a name at each evaluation."""
    return [picture(path, f"after {_step(path)} steps") for path in sorted(run.glob(f"renders/step-*/{name}.png"))]


def points_picture(run: Path, name: str = "points") -> list[str]:
    """The points of the scene whose classes are drawn, where the task draws them."""
    found = sorted(run.glob(f"renders/step-*/{name}.png"))
    return (
        [picture(found[-1], "its points, from dark blue 3 m below the laser to dark red 5 m above, and its boxes")]
        if found
        else []
    )


def class_legend(
    experiment: Experiment, pictures: Iterable[Path], columns: int
) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and colours of the classes in the last of the columns of pictures; none if the data are not here."""
    try:
        labels = experiment.data.build().labels
    except (OSError, ValueError):
        return []
    seen: set[tuple[int, ...]] = set()
    for path in pictures:
        with Image.open(path) as file:
            part = np.asarray(file.convert("RGB"))[:, file.width * (columns - 1) // columns :]
        seen.update(map(tuple, np.unique(part.reshape(-1, 3), axis=0).tolist()))
    named = [*zip(labels.names, labels.palette, strict=True), ("no label", UNLABELLED)] if labels else []
    return [(name, colour) for name, colour in named if colour in seen]


def _columns(semantic: bool, of_normals: str = "") -> str:
    return f"colour, depth, normals{of_normals}" + (", classes" if semantic else "")


def _enlarged(path: Path, caption: str) -> str:
    """A picture, a small one as many times larger as leaves two beside each other."""
    with Image.open(path) as file:
        width = file.width
    return picture(path, caption, width * max(1, 530 // width))


def _step(path: Path) -> int:
    return int(path.parent.name.split("-")[1])
