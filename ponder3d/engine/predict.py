"""Predicted classes for every point of every scene of a dataset, as files."""

from collections.abc import Container, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ponder3d.config import essence, fingerprint
from ponder3d.data.dataset import BenchmarkFile, DataError, DatasetConfig, SceneDataset, scene_name
from ponder3d.data.joint import JointConfig
from ponder3d.data.predictions import (
    ScenePrediction,
    list_predictions,
    read_prediction,
    write_coloured,
    write_prediction,
)
from ponder3d.data.submission import read_submission, write_ids, zip_scenes
from ponder3d.data.submission_nuscenes import read_results, write_lidarseg, write_meta, zip_results
from ponder3d.encoders.files import weights_digest
from ponder3d.engine.augmented import Looks
from ponder3d.engine.evaluate import load_task, read_json, write_json
from ponder3d.engine.log import SKIPPED_FRAMES, Progress, SkippedFrames
from ponder3d.engine.runner import device_type
from ponder3d.files import sweep, write_whole
from ponder3d.metrics.segmentation import SegmentationMetric
from ponder3d.types import LabelSet, Scene

FORMATS = ("npz", "ply", "scannet", "nuscenes")
_BENCHMARKS = ("scannet", "nuscenes")
"""Those that are files of benchmarks, see ``SceneDataset.benchmark``."""
_NAMED = ("npz", "ply", "scannet")
"""Those whose files are named by the scene."""
RECORD = "predictions.json"
"""In a directory of predictions: what they are of."""
_DONE = "scenes.txt"
"""One line for each scene that is done: its name, and a digest of what was predicted from."""


def predict(
    run: Path | str,
    data: DatasetConfig | None = None,
    augment: str = "",
    out: Path | str | None = None,
    formats: Sequence[str] = ("npz", "ply"),
    probabilities: bool = False,
    quiet: bool = False,
    split: str = "",
) -> dict[str, float]:
    """Predict the class of every point of every scene of a dataset, and write it to files.

    The points are the dataset's own, all of them, in their order (see ``engine.augmented``). Of several datasets
    (``data.joint``) files are named ``CONDITION.NAME``, and classes are those of the vocabulary that they share.

    Scenes that are done are kept when the same is asked for again and the dataset still has them, unchanged; those that
    it no longer has are removed. Files that hold anything else are never mixed with them.

    Args:
        run: directory of a run of a segmentation task.
        data: scenes; by default the run's validation data. Need not have labels.
        augment: set of ``data.augmentation_sets`` to sum over: ``scannet``, ``scannet200``, ``s3dis``; empty for none.
        out: directory for the files; by default ``predictions`` in the run, with the set's name after it.
        formats: ``npz`` (``data.predictions``; always written, the others are made from it), ``ply`` (points in the
            colours of their classes), ``scannet`` (the benchmark's files in ``scannet/``, and ``scannet.zip``). Data of
            nuScenes, a split of whose is predicted, always give those of its benchmark (``nuscenes/``,
            ``nuscenes.zip``): every point of each key frame's file has its class there, and no other point.
        probabilities: keep those of all classes in the npz files.
        quiet: no progress line.
        split: another split of ``data``, whose configuration has a field of that name; empty: its own.

    Returns:
        Numbers of ``scenes`` and ``points``; where there are labels, the figures of ``metrics.segmentation`` over all
        points. Also written to ``figures.json``.

    Raises:
        ValueError: an unknown format or set, a task or a dataset that this does not go with, or ``out`` holds other
            predictions.
        CheckpointError: the run has no checkpoint that verifies.
        DataError: the data cannot be read.
        OSError: storage failed.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"predict: no format {unknown[0]!r}; there are {', '.join(FORMATS)}")
    task, experiment, step = load_task(run)
    weights = weights_digest(task.state_dict())
    device = torch.device(device_type("cpu" if experiment.accelerator == "cpu" else "auto"))
    looks = Looks(task.to(device), experiment, augment, device)
    data = experiment.validation_data() if data is None else data
    data = _other_split(data, split) if split else data
    labels = looks.task.labels
    dataset = _with_classes(data, labels)
    formats = _with_benchmark(formats, dataset)
    folder = Path(out) if out is not None else Path(run) / ("predictions" + (f"-{augment}" if augment else ""))
    about = {"experiment": fingerprint(experiment), "step": step, "weights": weights, "data": essence(data)}
    ways = {"augment": augment, "left_out": list(looks.left_out), "probabilities": probabilities}
    record = about | ways | looks.task.facts()
    files = _Files(folder, record, formats, labels, dataset.benchmark_ids)
    skipped = SkippedFrames(Path(run) / SKIPPED_FRAMES)
    skipped.add(dataset.skipped)
    metric = SegmentationMetric(labels)
    sizes: dict[str, int] = {}
    progress = Progress(len(dataset), label="predict", quiet=quiet)
    for index in range(len(dataset)):
        scene = dataset[index]
        skipped.add(scene.skipped)
        name, digest = scene_name(scene.source), _digest(scene)
        if len(dataset.conditions) > 1:  # two datasets may have scenes of one name
            name = f"{scene.condition}.{name}"
        if name in sizes:
            raise DataError(f"{scene.source}: an earlier scene is named {name} too; their files would be one")
        made = files.kept(name, digest, scene)
        if made is None:
            file = dataset.benchmark_file(index, scene)
            made = _prediction(name, looks.probabilities(scene, index), scene, labels, dataset.benchmark_ids, file)
            files.write(made, digest, probabilities)
        files.complete(made)
        sizes[made.name] = len(made.xyz)
        if made.truth is not None:
            truth, predicted = torch.from_numpy(made.truth), torch.from_numpy(made.prediction)
            metric.add(predicted, truth, made.condition)
        progress.show(index + 1, {"miou": metric.compute()["miou"]} if bool(metric.state.any()) else {})
    progress.close()
    files.drop_others(sizes)
    files.pack(sizes, looks.task.encoder.reads_images, bool(experiment.init))
    figures = {"scenes": float(len(sizes)), "points": float(sum(sizes.values()))}
    figures |= metric.compute() if bool(metric.state.any()) else {}
    write_json(folder / "figures.json", figures)
    return figures


def _with_classes(data: DatasetConfig, labels: LabelSet) -> SceneDataset:
    """The data, opened.

    Raises:
        ValueError: they have labels of other classes.
    """
    dataset = data.build()
    if dataset.labels is not None and dataset.labels.names != labels.names:
        raise ValueError(
            f"predict: the data have {len(dataset.labels)} classes and the run was trained on {len(labels)} others; "
            "choose the same classes for both"
        )
    return dataset


def _with_benchmark(formats: Sequence[str], dataset: SceneDataset) -> tuple[str, ...]:
    """The formats, and that of nuScenes' benchmark for its data: from scenes alone its files could not be made later.

    Raises:
        ValueError: the files of a benchmark are asked for that is not the data's.
    """
    own = dataset.benchmark if dataset.benchmark_ids else ""
    for name in formats:
        if name in _BENCHMARKS and not own:
            raise ValueError(f"predict: these data have no benchmark with numbers for their classes; leave out {name}")
        if name in _BENCHMARKS and name != own:
            raise ValueError(f"predict: the benchmark of these data is that of {own}; leave out {name}")
    return tuple(dict.fromkeys((*formats, *(("nuscenes",) if own == "nuscenes" else ()))))


def _prediction(
    name: str,
    probabilities: torch.Tensor,
    scene: Scene,
    labels: LabelSet,
    benchmark_ids: tuple[int, ...],
    file: BenchmarkFile | None,
) -> ScenePrediction:
    return ScenePrediction(
        name=name,
        xyz=scene.xyz.numpy(),
        prediction=probabilities.argmax(1).to(torch.int32).numpy(),
        labels=labels,
        truth=None if scene.labels is None else scene.labels.clamp(min=-1).to(torch.int32).numpy(),
        probabilities=probabilities.to(torch.float16).numpy(),
        benchmark_ids=benchmark_ids,
        condition=scene.condition,
        file=file,
    )


def _digest(scene: Scene) -> str:
    """SHA-256 over what a prediction of a scene and its figures come from."""
    parts = {"xyz": scene.xyz, "rgb": scene.rgb, "normal": scene.normal, "labels": scene.labels}
    parts |= {"intensity": scene.intensity, "time": scene.time}
    for name, views in (("views", scene.views), ("images", scene.images)):
        if views is not None:
            cameras = {"rgb": views.rgb, "k": views.cameras.intrinsics, "pose": views.cameras.world_from_cam}
            parts |= {f"{name}.{part}": value for part, value in cameras.items()}
    return weights_digest({name: value for name, value in parts.items() if value is not None})


def _other_split(data: DatasetConfig, split: str) -> DatasetConfig:
    if isinstance(data, JointConfig):
        return replace(data, parts=tuple(replace(part, data=_other_split(part.data, split)) for part in data.parts))
    if not is_dataclass(data) or "split" not in {field.name for field in fields(data)}:
        raise ValueError(f"predict: {type(data).__name__} has no splits to choose from")
    return replace(data, split=split)


class _Files:
    """A directory of predictions: what is there already, and what is added."""

    def __init__(
        self,
        folder: Path,
        record: dict[str, Any],
        formats: Sequence[str],
        labels: LabelSet,
        benchmark_ids: tuple[int, ...],
    ):
        self.folder, self.formats, self.labels, self.benchmark_ids = folder, formats, labels, benchmark_ids
        self._digests: dict[str, str] = {}
        """Of the scenes that are done, by their name."""
        self._wanted: dict[str, str] = {}
        """Scene of each file of results for nuScenes."""
        earlier = read_json(folder / RECORD)
        if earlier is None and list_predictions(folder):
            raise ValueError(f"{folder} holds predictions and no {RECORD} that says of what; choose another --out")
        if earlier is not None and earlier != record:
            differs = next(name for name in (*record, *earlier) if earlier.get(name) != record.get(name))
            raise ValueError(
                f"{folder} holds other predictions ({differs} differs); choose another --out, or remove the directory"
            )
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        if earlier is None:
            write_json(folder / RECORD, record)
            (folder / _DONE).unlink(missing_ok=True)
        elif (folder / _DONE).is_file():
            # A kill may have cut the last line short; cut off here, it cannot run into the next one.
            text = (folder / _DONE).read_text()
            whole = text[: text.rfind("\n") + 1]
            (folder / _DONE).write_text(whole)
            # Of two lines for a scene, the last is of its files.
            self._digests = {line.split(" ")[0]: line.partition(" ")[2] for line in whole.splitlines()}

    def kept(self, name: str, digest: str, scene: Scene) -> ScenePrediction | None:
        """What an earlier call has predicted for a scene; None if it has not, the scene is another now, or its file is
        gone, damaged or of other points."""
        path = self._path(name, "npz")
        if self._digests.get(name) != digest or not path.is_file():
            return None
        try:
            made = read_prediction(path, probabilities=False)
        except DataError:
            return None
        if "nuscenes" in self.formats and made.file is None:
            return None
        return made if np.array_equal(made.xyz, scene.xyz.numpy()) else None

    def write(self, made: ScenePrediction, digest: str, probabilities: bool) -> None:
        """Write what is predicted for a scene; files that were made from an earlier one go."""
        for kind in _NAMED:
            self._path(made.name, kind).unlink(missing_ok=True)
        if made.file is not None:
            self._results(made.file).unlink(missing_ok=True)
        kept = made if probabilities else replace(made, probabilities=None)
        write_prediction(self._path(made.name, "npz"), kept)
        if self._digests.get(made.name) != digest:
            with (self.folder / _DONE).open("a") as file:
                file.write(f"{made.name} {digest}\n")
            self._digests[made.name] = digest

    def drop_others(self, scenes: Container[str]) -> None:
        """Remove what was written for scenes that the dataset no longer has."""
        gone = [name for name in self._digests if name not in scenes]
        for name in gone:
            for kind in _NAMED:
                self._path(name, kind).unlink(missing_ok=True)
            del self._digests[name]
        if gone:
            lines = [f"{name} {digest}\n" for name, digest in self._digests.items()]
            write_whole(self.folder / _DONE, "".join(lines).encode())

    def complete(self, made: ScenePrediction) -> None:
        """Write what is missing of the other formats."""
        if "ply" in self.formats and not self._path(made.name, "ply").is_file():
            write_coloured(self._path(made.name, "ply"), made)
        if "scannet" in self.formats and not self._path(made.name, "scannet").is_file():
            write_ids(self._path(made.name, "scannet"), made.prediction, self.benchmark_ids)
        if "nuscenes" in self.formats and made.file is not None:
            self._wanted[made.file.path] = made.name
            if not self._results(made.file).is_file():
                write_lidarseg(self._results(made.file), made.of_file(), self.benchmark_ids)

    def pack(self, sizes: dict[str, int], cameras: bool, external: bool) -> None:
        """The zip files of the benchmarks among the formats.

        Args:
            sizes: points of each scene.
            cameras: whether the encoder reads images, which nuScenes asks.
            external: whether other data were used to pre-train, which it asks too.
        """
        if "scannet" in self.formats:
            self._pack_scannet(sizes)
        if "nuscenes" in self.formats:
            self._pack_nuscenes(cameras, external)

    def _pack_scannet(self, sizes: dict[str, int]) -> None:
        """Write ScanNet's zip file, and read it back."""
        path = self.folder / "scannet.zip"
        zip_scenes(self.folder / "scannet", list(sizes), path)
        for name, rows in read_submission(path, sizes, self.benchmark_ids):
            assert np.array_equal(rows, read_prediction(self._path(name, "npz"), probabilities=False).prediction)

    def _pack_nuscenes(self, cameras: bool, external: bool) -> None:
        """Write nuScenes' zip file, and read it back; results of scenes that are gone are removed."""
        folder, path, names = self.folder / "nuscenes", self.folder / "nuscenes.zip", list(self._wanted)
        for old in folder.rglob("*_lidarseg.bin"):
            if old.relative_to(folder).as_posix() not in self._wanted:
                old.unlink()
        write_meta(folder, names, cameras, external)
        zip_results(folder, names, path)
        sizes = {name: (folder / name).stat().st_size for name in names}
        for name, rows in read_results(path, sizes, self.benchmark_ids):
            made = read_prediction(self._path(self._wanted[name], "npz"), probabilities=False)
            assert np.array_equal(rows, made.of_file())

    def _results(self, file: BenchmarkFile) -> Path:
        return self.folder / "nuscenes" / file.path

    def _path(self, name: str, kind: str) -> Path:
        return self.folder / "scannet" / f"{name}.txt" if kind == "scannet" else self.folder / f"{name}.{kind}"
