"""Parts of the jobs of a comparison."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ponder3d.config import Config
from ponder3d.data.limited import AnnotatedPoints
from ponder3d.data.transforms import GridSample, LimitLabels, PointsOnly, Transform, apply
from ponder3d.encoders.encoder import EncoderConfig
from ponder3d.encoders.files import copy_weights, load_encoder
from ponder3d.engine.comparison_table import FINETUNE, PROBE
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes.catalogue import find_recipe
from ponder3d.tasks.class_vectors import NoVectors
from ponder3d.tasks.combined import CombinedConfig
from ponder3d.tasks.knn_probe import KNNProbeConfig, knn_probe
from ponder3d.tasks.linear_probe import LinearProbeConfig, linear_probe
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.task import TaskConfig
from ponder3d.tasks.tuning import DecoderOnly, Full, HeadOnly, Lora, TuningConfig

TUNINGS: dict[str, TuningConfig] = {FINETUNE: Full(), "decoder": DecoderOnly(), "head": HeadOnly(), "lora": Lora()}
"""What ways of use train."""


@dataclass(frozen=True)
class Candidate:
    """A way to fine-tune that all starts choose from."""

    twin: bool
    """Whether it is the recipe's twin for pre-trained encoders."""
    rate: float

    def __str__(self) -> str:
        return f"{'finetune' if self.twin else 'own'} x{self.rate:g}"


class Setting(NamedTuple):
    """What a candidate is chosen for."""

    way: str
    method: str
    labels: str
    factor: int
    """Multiple of the recipe's steps."""


@dataclass(frozen=True)
class Twin:
    """What the twin of a recipe, for encoders that are pre-trained, does otherwise."""

    task: dict[str, Any]
    optim: dict[str, Any]

    def applied(self, experiment: Experiment) -> Experiment:
        """An experiment, as its user wants it, with what the twin does otherwise."""
        task = replace(experiment.task, **self.task)  # pyright: ignore[reportArgumentType, reportCallIssue]
        return replace(experiment, task=task, optim=replace(experiment.optim, **self.optim))


def find_twin(target: str) -> Twin | None:
    """What the recipe ``TARGET_finetune`` has otherwise than the recipe; None if there is none."""
    try:
        twin = find_recipe(f"{target}_finetune")()
    except ValueError:
        return None
    base = find_recipe(target)()
    return Twin(_changed(base.task, twin.task, "encoder"), _changed(base.optim, twin.optim))


def _changed(base: Config, other: Config, *left: str) -> dict[str, Any]:
    names = [field.name for field in fields(base) if field.name not in left]  # type: ignore[arg-type]
    return {name: getattr(other, name) for name in names if getattr(other, name) != getattr(base, name)}


def learns_from_labels(task: TaskConfig) -> bool:
    """Whether a task is told classes."""
    if isinstance(task, CombinedConfig):
        return any(learns_from_labels(part.task) for part in task.parts)
    if isinstance(task, PonderConfig):
        return not isinstance(task.semantics, NoVectors) or task.points > 0
    return isinstance(task, SemSegConfig)


def check_files(files: Iterable[Path], encoder: EncoderConfig) -> None:
    """Before anything is trained: that encoders which come as files can be started from.

    Raises:
        EncoderFileError: one is no intact file, or holds another encoder.
    """
    for path in files:
        copy_weights(load_encoder(path), encoder.build(), str(path))


def scenes_set_aside(asked: int, scenes: int) -> int:
    """How many labelled scenes settings are chosen by: as many as are asked for, or a fifth, from one to four.

    Raises:
        ValueError: none would be left to train on.
    """
    aside = asked or max(1, min(4, scenes // 5))
    if aside >= scenes:
        raise ValueError(
            f"CompareConfig.withheld: {aside} of {scenes} labelled scenes would be set aside to choose settings by, "
            "and none left to train on; give more scenes" + (" or withhold fewer" if asked > 1 else "")
        )
    return aside


def on_one_device(experiment: Experiment) -> Experiment:
    """The same steps on one device, in more passes: jobs are side by side, each in a process of its own."""
    return replace(experiment, devices=1, accumulate=experiment.accumulate * experiment.devices)


def limited(steps: tuple[Transform, ...], points: int, seed: int) -> tuple[Transform, ...]:
    """Transforms of training that keep the labels of so many points of each scene (0: of all), of those that a
    published list has, if the recipe reads one."""
    listed = tuple(step for step in steps if isinstance(step, AnnotatedPoints))
    others = (step for step in steps if not isinstance(step, (AnnotatedPoints, LimitLabels)))
    return (*listed, *((LimitLabels(points, seed),) if points else ()), *others)


def one_point_per_voxel(steps: tuple[Transform, ...]) -> tuple[Transform, ...]:
    """Every point takes ten times as long, and says the same about an encoder."""
    return steps if any(isinstance(step, GridSample) for step in steps) else (*steps, GridSample())


def probe(experiment: Experiment, encoder_file: str, way: str = PROBE) -> dict[str, float]:
    """What frozen features of an encoder give, or those of random weights if there is no file.

    Args:
        experiment: a segmentation; its labelled scenes, those it is tested on, the encoder if it is random, the seed.
        encoder_file: of the encoder; may be empty.
        way: ``probe``, a linear classifier; ``levels``, one of ``Encoder.all_levels``; ``knn``, nearest neighbours.

    Returns:
        The figures of ``SegmentationMetric``, of one point per voxel.

    Raises:
        EncoderFileError: the file does not hold such an encoder.
        ValueError: the data have no labels; ``levels`` is asked of an encoder that has one.
    """
    torch.manual_seed(experiment.seed)
    encoder = experiment.task.encoder.build()
    if encoder_file:  # an encoder of another kind or voxel size is refused, as it is by fine-tuning
        copy_weights(load_encoder(encoder_file), encoder, encoder_file)
    limits = tuple(step for step in experiment.transforms if isinstance(step, (AnnotatedPoints, LimitLabels)))
    steps = experiment.on_grid((PointsOnly(), *experiment.validation_transforms))
    data, test = experiment.data.build(), experiment.validation_data().build()
    labels = data.labels
    if labels is None:
        raise ValueError("compare: the data have no labels")
    # Scene by scene, so that a probe of many has no more of them in memory than a training.
    train = (apply((*limits, *steps), data[i], experiment.seed, i) for i in range(len(data)))
    held_out = (apply(steps, test[i], experiment.seed, i) for i in range(len(test)))
    if way == "knn":
        return knn_probe(encoder, train, held_out, labels, KNNProbeConfig(), experiment.seed)
    if way == "levels":
        if encoder.all_levels() is encoder:
            raise ValueError(f"compare: a {type(encoder).__name__} has one level; its probe is the way probe")
        encoder = encoder.all_levels()
    return linear_probe(encoder, train, held_out, labels, LinearProbeConfig(), experiment.seed)
