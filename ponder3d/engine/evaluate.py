"""Evaluation: every scene of the validation set through the task's prediction and metric."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ponder3d.config import fingerprint, from_json
from ponder3d.data.loader import Collate, KeyedScenes
from ponder3d.engine.augmented import Looks
from ponder3d.engine.checkpoint import CheckpointStore
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.log import SKIPPED_FRAMES, Progress, SkippedFrames
from ponder3d.engine.runner import device_type
from ponder3d.metrics.metric import Metric
from ponder3d.metrics.segmentation import SegmentationMetric
from ponder3d.tasks.task import Picture, Task
from ponder3d.types.scene import to_device


def evaluate_scenes(
    task: Task,
    experiment: Experiment,
    device: torch.device,
    skipped: SkippedFrames,
    rows: range | None = None,
    progress: Progress | None = None,
    stops: Callable[[], bool] = lambda: False,
) -> tuple[torch.Tensor, list[Picture]]:
    """Run some scenes of the validation set through a task.

    Args:
        task: is put into evaluation mode.
        experiment: says which scenes, and what happens to them beforehand; the latter is drawn with the same random
            numbers in every evaluation.
        device: where the task is.
        skipped: told about frames that cannot be read.
        rows: which scenes; all by default.
        progress: shown per scene.
        stops: asked before each scene; no more are evaluated once it says yes.

    Returns:
        The state of the task's metric, and pictures of the first of the scenes.
    """
    task.eval()
    dataset = experiment.validation_data().build()
    scenes = KeyedScenes(dataset, experiment.on_grid(experiment.validation_transforms), experiment.seed, True)
    collate = Collate(experiment.task.encoder.inputs)
    metric = task.metric()
    pictures: list[Picture] = []
    rows = range(len(dataset)) if rows is None else rows
    for number, index in enumerate(rows):
        if stops():
            break
        batch = to_device(collate([scenes[0, index]]), device)
        skipped.add(batch.skipped)
        with torch.no_grad():
            prediction = task.predict(batch)
        metric.update(prediction, batch)
        if number == 0:
            pictures = task.pictures(prediction, batch)
        if progress is not None:
            progress.show(number + 1, {})
    return metric.state, pictures


def load_task(run: Path | str, device: torch.device | str = "cpu") -> tuple[Task, Experiment, int]:
    """The task of a run with its trained weights, its experiment, and its step.

    Raises:
        CheckpointError: the run has no checkpoint that verifies.
        ConfigError: it was written by another version, or with classes of a module that is not imported.
    """
    loaded = CheckpointStore(Path(run) / "checkpoints").load()
    experiment = from_json(Experiment, loaded.experiment)
    labels, facts = experiment.data.build().labels, loaded.state.get("facts", {})
    task = experiment.task.rebuild(labels, loaded.state["model"], facts)
    task.load_state_dict(loaded.state["model"])
    return task.to(device).eval(), experiment, loaded.step


def evaluate(run: Path | str, quiet: bool = False, augment: str = "") -> dict[str, float]:
    """Evaluate a run on its validation scenes; also written to ``evaluation.json`` in the run, and the confusion matrix
    of segmentation to ``confusion.png``.

    Args:
        run: directory of the run.
        quiet: no progress line.
        augment: set of ``data.augmentation_sets`` over which probabilities are summed, for segmentation; every point
            of the dataset is scored then, and the files are ``evaluation-SET.json`` and ``confusion-SET.png``.

    Raises:
        CheckpointError: the run has no checkpoint that verifies.
        ConfigError: it was written by another version, or with classes of a module that is not imported.
        DataError: the validation data are not there.
        ValueError: there is no such set, the task does not tell classes of points, or a scene has no labels.
    """
    task, experiment, step = load_task(run)
    # A run trained on a GPU can be evaluated where there is none.
    device = torch.device(device_type("cpu" if experiment.accelerator == "cpu" else "auto"))
    task.to(device)
    total = len(experiment.validation_data().build())
    progress = Progress(total, label="evaluate", quiet=quiet)
    skipped = SkippedFrames(Path(run) / SKIPPED_FRAMES)
    if augment:
        state = _evaluate_augmented(Looks(task, experiment, augment, device), skipped, progress)
    else:
        state, _ = evaluate_scenes(task, experiment, device, skipped, progress=progress)
    progress.close()
    metric = task.metric()
    metric.state = state
    figures = metric.compute()
    record = {"step": step, "scenes": total, "experiment": fingerprint(experiment), "augment": augment}
    record |= task.facts()
    suffix = f"-{augment}" if augment else ""
    write_json(Path(run) / f"evaluation{suffix}.json", record | {"figures": figures})
    write_confusion(Path(run) / f"confusion{suffix}.png", metric)
    return figures


def _evaluate_augmented(looks: Looks, skipped: SkippedFrames, progress: Progress) -> torch.Tensor:
    """The state of the metric over all points of the validation scenes."""
    dataset = looks.experiment.validation_data().build()
    metric = looks.task.metric()
    for index in range(len(dataset)):
        scene = dataset[index]
        skipped.add(scene.skipped)
        if scene.labels is None:
            raise ValueError(f"evaluate: {scene.source} has no point labels")
        metric.add(looks.probabilities(scene, index).argmax(1), scene.labels, scene.condition)
        progress.show(index + 1, {})
    return metric.state


def write_confusion(path: Path, metric: Metric[Any]) -> None:
    """Write a picture of the confusion matrix, whole or not at all, if that is what the metric is."""
    if isinstance(metric, SegmentationMetric):
        temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
        Image.fromarray(metric.picture().numpy()).save(temporary, format="PNG")
        os.replace(temporary, path)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """A record written by ``write_json``; None if there is none, or something else."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None
