"""Figures of predictions that have been saved: of whole sets, of the six areas of S3DIS, of a benchmark's files."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.data.dataset import DataError
from ponder3d.data.predictions import ScenePrediction, list_predictions, read_prediction
from ponder3d.data.submission import read_submission
from ponder3d.data.submission_nuscenes import read_results
from ponder3d.metrics.segmentation import SegmentationMetric, confusion, ious, means_of_all, per_class
from ponder3d.types import LabelSet

AREAS = tuple(f"Area_{number}" for number in range(1, 7))
"""Of S3DIS; its rooms are named after them."""
_AREA = re.compile(r"(Area_[1-6])(?![0-9])")


def score(
    paths: Sequence[Path | str],
    truth: Path | str | None = None,
    six_fold: bool = False,
    groups: Mapping[str, Sequence[str]] | None = None,
    benchmark_ids: Sequence[int] = (),
) -> dict[str, float]:
    """Figures over all points of saved predictions: one confusion matrix, the sum over all scenes.

    Args:
        paths: directories of npz files with labels (``data.predictions``); or one submission to a benchmark
            (``data.submission``, ``data.submission_nuscenes``), a directory or a zip file.
        truth: of a submission, a directory of npz files with the labels of all of its scenes.
        six_fold: the paths together hold the six areas of S3DIS, each predicted by a run that did not train on it;
            adds the figures of each area.
        groups: names of classes whose mean IoU is wanted too, by the name of the group (head, common, tail).
        benchmark_ids: number of each class in a submission; by default those in the files of ``truth``.

    Returns:
        See ``figures_of``; and ``scenes`` and ``points``, which have a label. Of several datasets (predictions of a run
        on ``data.joint``) ``miou``, ``macc`` and ``allacc`` are the means of theirs, which are there too, as in
        ``metrics.segmentation``; the other figures are over all points together.

    Raises:
        DataError: a file is damaged or has no labels, files are of different classes, a scene is there twice, or an
            area is missing or in two of the paths.
        ValueError: there is nothing to score, or ``truth`` is missing or in the way.
        OSError: a file cannot be read, or a path is not there.
    """
    folders = [Path(path) for path in paths]
    if not folders:
        raise ValueError("score: name at least one directory of predictions")
    for path in (*folders, *([] if truth is None else [Path(truth)])):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or directory")
    submitted = [path for path in folders if not list_predictions(path)]
    if not submitted:
        if truth is not None:
            raise ValueError("score: predictions as npz bring their own labels; leave out truth")
        return _score_files(folders, six_fold, groups)
    if len(folders) > 1 or six_fold:
        raise DataError(f"{submitted[0]}: holds no predictions (npz files); a submission is scored alone")
    if truth is None:
        raise ValueError(
            f"score: {submitted[0]} holds no npz files; if it is a submission, say where the truth is: a directory of "
            "npz predictions of the same scenes"
        )
    return _score_submission(folders[0], Path(truth), groups, benchmark_ids)


def figures_of(
    matrix: Float[Tensor, "K K"], labels: LabelSet, groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, float]:
    """What a confusion matrix (true class, predicted class) says.

    Returns:
        ``miou``, ``macc`` (mean class accuracy), ``allacc`` (share of points), and ``iou/CLASS`` and ``acc/CLASS``.
        They take the classes that occur in the truth. Of the others there are three rules, which agree if all occur:
        ``miou_benchmark`` counts a class that is predicted and occurs nowhere as 0, as ScanNet's script does;
        ``miou_all`` every class that occurs nowhere, as PonderV2 does. ``miou/GROUP`` is as ``miou``; a group whose
        classes do not occur is left out.

    Raises:
        ValueError: a group names a class that there is not.
    """
    metric = SegmentationMetric(labels)
    metric.state = matrix
    iou, accuracy, present = per_class(matrix)
    occurs = present | (matrix.sum(0) > 0)
    figures = metric.compute()
    means = {name: figures.pop(name) for name in ("miou", "macc", "allacc")}
    means["miou_benchmark"] = float(iou[occurs].mean()) if bool(occurs.any()) else 0.0
    means["miou_all"] = float(iou.mean()) if len(labels) else 0.0
    for group, names in (groups or {}).items():
        unknown = [name for name in names if name not in labels.names]
        if unknown:
            raise ValueError(
                f"group {group}: there is no class {unknown[0]!r} among the {len(labels)} of these predictions; groups "
                "are of one set of classes, and --groups are those of ScanNet200"
            )
        rows = torch.tensor([labels.names.index(name) for name in names], dtype=torch.int64)
        rows = rows[present[rows]]
        if len(rows):
            means[f"miou/{group}"] = float(iou[rows].mean())
    accuracies = zip(labels.names, accuracy.tolist(), present.tolist(), strict=True)
    return means | figures | {f"acc/{name}": value for name, value, there in accuracies if there}


class _Sums:
    """Confusion matrices of scenes that have one set of classes."""

    def __init__(self) -> None:
        self.labels: LabelSet | None = None
        self.scenes: dict[str, Path] = {}
        self.matrices: dict[str, Tensor] = {}
        """By the condition of the scenes: one for each of several datasets."""

    def add(self, path: Path, prediction: ScenePrediction) -> Float[Tensor, "K K"]:
        """Add a scene; returns its matrix."""
        if self.labels is None:
            self.labels = prediction.labels
        if prediction.labels.names != self.labels.names:
            first = next(iter(self.scenes.values()))
            raise DataError(f"{path}: has other classes than {first}; they cannot be scored together")
        if prediction.name in self.scenes:
            raise DataError(f"{path}: this scene is in {self.scenes[prediction.name].parent} too; take one of them")
        if prediction.truth is None:
            raise DataError(f"{path}: holds no labels to score against; predict on data that have some")
        self.scenes[prediction.name] = path
        truth, predicted = torch.from_numpy(prediction.truth).long(), torch.from_numpy(prediction.prediction).long()
        own = confusion(predicted, truth, len(self.labels))
        self.matrices[prediction.condition] = self.matrices.get(prediction.condition, torch.zeros_like(own)) + own
        return own

    def figures(self, groups: Mapping[str, Sequence[str]] | None) -> dict[str, float]:
        assert self.labels is not None
        matrix = torch.stack(list(self.matrices.values())).sum(0)
        figures = {"scenes": float(len(self.scenes)), "points": float(matrix.sum())}
        figures |= figures_of(matrix, self.labels, groups)
        if len(self.matrices) > 1:
            figures |= means_of_all(self.matrices)
            for condition, own in self.matrices.items():
                figures |= ious(own, self.labels, f"iou/{condition}")
        return figures


def _score_files(
    folders: Sequence[Path], six_fold: bool, groups: Mapping[str, Sequence[str]] | None
) -> dict[str, float]:
    sums = _Sums()
    areas: dict[str, tuple[Path, Float[Tensor, "K K"]]] = {}
    for folder in folders:
        for name, path in list_predictions(folder).items():
            own = sums.add(path, read_prediction(path, probabilities=False))
            if not six_fold:
                continue
            match = _AREA.match(name)
            if match is None:
                raise DataError(f"{path}: the name does not begin with an area of S3DIS, {AREAS[0]} to {AREAS[-1]}")
            where, matrix = areas.get(match[1], (folder, torch.zeros_like(own)))
            if where != folder:
                raise DataError(f"{folder}: has rooms of {match[1]}, and so has {where}; each area is scored once")
            areas[match[1]] = (folder, matrix + own)
    missing = [area for area in AREAS if area not in areas]
    if six_fold and missing:
        raise DataError(f"score: no rooms of {', '.join(missing)} in {', '.join(str(folder) for folder in folders)}")
    figures = sums.figures(groups)
    assert sums.labels is not None
    for area in AREAS if six_fold else ():
        own_figures = figures_of(areas[area][1], sums.labels)
        figures |= {f"{area}/{name}": own_figures[name] for name in ("miou", "macc", "allacc")}
    return figures


def _score_submission(
    path: Path, truth: Path, groups: Mapping[str, Sequence[str]] | None, benchmark_ids: Sequence[int]
) -> dict[str, float]:
    files = list_predictions(truth)
    if not files:
        raise DataError(f"{truth}: holds no npz files with labels")
    # Twice, so that the whole submission is checked before, with the labels of one scene at a time in memory.
    sizes: dict[str, int] = {}
    names: dict[str, str] = {}
    """Scene of each file of the submission."""
    own_points = False
    for name, file in files.items():
        known = read_prediction(file, probabilities=False)
        benchmark_ids = benchmark_ids or known.benchmark_ids
        if len(benchmark_ids) != len(known.labels):
            raise DataError(f"{file}: {len(known.labels)} classes, and benchmark numbers for {len(benchmark_ids)}")
        if names and own_points != (known.file is not None):
            raise DataError(f"{file}: is of another benchmark than {next(iter(files))}; score them apart")
        own_points = known.file is not None
        result = name if known.file is None else known.file.path
        if result in names:
            raise DataError(f"{file}: has the results of {names[result]} too; take one of them")
        names[result], sizes[result] = name, len(known.of_file())
    sums = _Sums()
    read = read_results if own_points else read_submission
    for result, rows in read(path, sizes, benchmark_ids):
        name = names[result]
        known = read_prediction(files[name], probabilities=False)
        if known.file is not None:
            own = known.file.own.numpy()
            # Points that the benchmark does not ask for have no label, so that it does not matter what they get.
            spread = np.zeros(len(known.prediction), np.int32)
            spread[known.file.rows.numpy()[own]] = rows[own]
            rows = spread
        sums.add(files[name], ScenePrediction(name, known.xyz, rows, known.labels, known.truth))
    return sums.figures(groups)
