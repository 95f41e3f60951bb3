"""An experiment: everything that determines a run, as one value."""

from dataclasses import dataclass

from ponder3d.config import Config, essence, incidental
from ponder3d.data.dataset import DatasetConfig, HeldOut, SceneDataset
from ponder3d.data.transforms import DropModality, Only, PickRays, Transform, TwoViews, steps_of
from ponder3d.encoders.encoder import Encoder
from ponder3d.engine.checks import check_conditions, check_depth, check_images
from ponder3d.engine.optim import OptimConfig
from ponder3d.engine.probe import Off, ProbeConfig
from ponder3d.metrics.rendering import RenderingMetric
from ponder3d.metrics.segmentation import SegmentationMetric
from ponder3d.tasks.task import Task, TaskConfig
from ponder3d.types import LabelSet


@dataclass(frozen=True)
class Experiment(Config):
    """What to train, on what, and how. A recipe is a function that returns one; every checkpoint holds it."""

    task: TaskConfig
    """What is learnt."""
    data: DatasetConfig
    """Scenes to train on."""
    transforms: tuple[Transform, ...]
    """Augmentation, corruption and sampling of a training scene, in order."""
    validation_transforms: tuple[Transform, ...]
    """What is done to a scene before it is evaluated; drawn with the same numbers every time. Segmentation scores
    all points that are left."""
    validation: DatasetConfig = HeldOut()
    """Scenes to evaluate on; ``HeldOut()`` takes what ``data`` keeps back."""
    optim: OptimConfig = OptimConfig()
    """Optimiser and learning rate."""
    steps: int = 1000
    """Optimiser steps."""
    batch_size: int = 4
    """Scenes per optimiser step, over all ranks and accumulation."""
    accumulate: int = 1
    """Passes into which each rank splits its share of the batch, to save memory."""
    max_points: int = 0
    """Points of a training pass of a rank at most, whatever scenes come together: the largest are cropped around a
    random point of theirs, to one size (but keep a point). Memory follows from it, and from the rays of ``PickRays``. 0
    for any number. A run that has such a budget cannot go on with other ``devices`` or ``accumulate``."""
    mix: float = 0.0
    """Probability with which two successive scenes of a batch are laid over each other and learnt as one (Nekrasov et
    al. 2021, "Mix3D: Out-of-context data augmentation for 3D scenes": 0.8 in the paper's segmentation). For tasks on
    points; every pass of every rank needs an even number of scenes, and it does not matter then how many there are."""
    seed: int = 0
    """Every random number of the run follows from it."""
    init: str = ""
    """Encoder file to start from; empty starts from scratch. For an encoder of parts, such as one of points and images,
    also the files of its parts: ``lidar=FILE,camera=FILE``. A run that is resumed does not need them any more."""
    precision: str = "32-true"
    """``32-true`` or ``bf16-mixed``; rendering is always done in float32."""
    accelerator: str = "auto"
    """``cuda``, ``cpu``, or ``auto``: CUDA where there is some, else the CPU. Apple's GPUs are not used: they lack the
    float64 that geometry and metrics need."""
    workers: int = incidental(2)
    """Loader processes per rank; the data do not depend on it."""
    devices: int = 1
    """Processes (one per GPU) on this machine; ignored under torchrun, which says so itself."""
    validate_every: int = 0
    """Steps between evaluations; 0 evaluates at the end only."""
    validation_scenes: int = 0
    """Scenes per evaluation while training, from the first on; 0 takes all."""
    probe: ProbeConfig = incidental(Off())
    """What else each evaluation measures of the encoder: ``Off()`` for nothing, or ``OnlineProbes(...)``. No weight
    depends on it."""
    save_every: int = incidental(200)
    """Steps between checkpoints; one is always saved before the first step, at the end, and when asked to stop."""
    keep: int = incidental(2)
    """Newest checkpoints that are kept."""
    log_every: int = incidental(10)
    """Steps between rows in the log."""
    max_bad_steps: int = 10
    """Steps in a row without a finite loss and gradient before the run gives up."""
    max_skipped_steps: int = 100
    """Such steps in the whole run before it gives up."""

    def __post_init__(self):
        for name in (
            "steps",
            "batch_size",
            "accumulate",
            "devices",
            "save_every",
            "keep",
            "log_every",
            "max_bad_steps",
            "max_skipped_steps",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"Experiment.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("workers", "validate_every", "validation_scenes", "max_points"):
            if getattr(self, name) < 0:
                raise ValueError(f"Experiment.{name} must not be negative")
        if not 0 <= self.mix <= 1:
            raise ValueError(f"Experiment.mix must lie in [0, 1], it is {self.mix}")
        if self.precision not in ("32-true", "bf16-mixed"):
            raise ValueError(f"Experiment.precision must be 32-true or bf16-mixed, not {self.precision!r}")
        if self.accelerator not in ("auto", "cpu", "cuda"):
            raise ValueError(f"Experiment.accelerator must be auto, cpu or cuda, not {self.accelerator!r}")

    def on_grid(self, transforms: tuple[Transform, ...]) -> tuple[Transform, ...]:
        """Transforms of this experiment with what they leave to the encoder filled in: its grid size."""
        return tuple(transform.on_grid(self.task.encoder.grid_size) for transform in transforms)

    def check_data(self, dataset: SceneDataset) -> None:
        """Whether transforms and task go with the training data and each other, before hours are spent.

        Raises:
            ValueError: they do not.
        """
        for transform in self.transforms:
            transform.check(dataset)
        wanted = self.task.feature_width()
        steps = [steps_of(self.transforms, condition) for condition in dataset.conditions or ("",)]
        given = [sum(step.added_features() for step in of_one) for of_one in steps]
        if wanted and not any(given):
            raise ValueError(
                f"Experiment: the task renders a target feature of {wanted} channels, and no transform gives rays one; "
                "put ContextTarget among them, set PickRays.features, or set --task.feature-channels 0"
            )
        # Surroundings may be left unused; maps have been made to be learnt from.
        mapped = any(isinstance(step, PickRays) and step.added_features() for of_one in steps for step in of_one)
        wrong = [width for width in given if width and width != wanted]
        if wrong and (wanted or mapped):
            raise ValueError(
                f"Experiment: the transforms give rays a target feature of {wrong[0]} channels, and the task renders "
                f"one of {wanted}; set --task.feature-channels {wrong[0]}"
            )

    def dropped_inputs(self) -> list[str]:
        """Point channels of the encoder that it sometimes has to do without while it is trained."""
        dropped = _dropped(self.transforms)
        return [name for name in self.task.encoder.inputs if name in dropped]

    def check_pairs(self, ranks: int) -> None:
        """Whether scenes that are mixed are always in one pass of one rank.

        Raises:
            ValueError: they are not.
        """
        passes = ranks * self.accumulate
        if self.mix and self.batch_size % (2 * passes):
            raise ValueError(
                f"Experiment.mix takes pairs of scenes: batch_size must be a multiple of {2 * passes}, an even number "
                f"for each pass ({ranks} ranks, accumulate {self.accumulate}), it is {self.batch_size}"
            )

    def check_conditions(self, data: SceneDataset, validation: SceneDataset, encoder: Encoder) -> None:
        """Whether an encoder that tells conditions apart knows those of all scenes.

        It may know more: an encoder of several datasets can be trained further on one of them.

        Raises:
            ValueError: it does not, a scene has none, or ``Only`` names one that no scene has.
        """
        for name, scenes, transforms in (
            ("data", data, self.transforms),
            ("validation", validation, self.validation_transforms),
        ):
            check_conditions(name, scenes, transforms, encoder)

    def check_images(self, data: SceneDataset, validation: SceneDataset, task: Task) -> None:
        """Whether an encoder that reads images is given some, in training and in evaluation, and one that learns from
        their depth that too, in training.

        Raises:
            ValueError: it is not.
        """
        for name, scenes, transforms in (
            ("transforms", data, self.transforms),
            ("validation_transforms", validation, self.validation_transforms),
        ):
            check_images(name, scenes, transforms, task.encoder)
        check_depth(data, self.transforms, task)

    def check_classes(self, data: SceneDataset, validation: SceneDataset, task: Task) -> None:
        """Whether the classes that are evaluated are those that are taught, row by row.

        Raises:
            ValueError: they are not, or several datasets share them and no scene says of which it is.
        """
        metric = task.metric()
        rendered = isinstance(metric, RenderingMetric) and metric.num_classes > 0
        if not (rendered or isinstance(metric, SegmentationMetric)) or None in (data.labels, validation.labels):
            return
        assert data.labels is not None and validation.labels is not None
        if validation.labels.names != data.labels.names:
            raise ValueError(
                f"Experiment.validation: its classes ({_listed(validation.labels)}) are not those of the training data "
                f"({_listed(data.labels)}); evaluate on the same datasets"
            )
        found = validation.conditions
        for transform in self.validation_transforms:
            found = transform.conditions_after(found)
        if data.labels.subsets and not found:
            known = ", ".join(condition for condition, _ in data.labels.subsets)
            raise ValueError(
                f"Experiment.validation: the classes are those of {known}, and no scene says of which it is; put "
                "SetCondition among the validation_transforms"
            )

    def validation_data(self) -> DatasetConfig:
        """The configuration of the scenes to evaluate on."""
        return self.data.held_out() if isinstance(self.validation, HeldOut) else self.validation


def _dropped(transforms: tuple[Transform, ...]) -> set[str]:
    """Inputs that some scenes lose."""
    inputs: set[str] = set()
    for transform in transforms:
        inputs |= _dropped(transform.transforms) if isinstance(transform, Only) else set()
        inputs |= _dropped((*transform.first, *transform.second)) if isinstance(transform, TwoViews) else set()
        inputs |= set(transform.inputs) if isinstance(transform, DropModality) else set()
    return inputs


def _listed(labels: LabelSet) -> str:
    return f"{len(labels)}: {', '.join(labels.names[:3])}{', ...' if len(labels) > 3 else ''}"


_MAY_CHANGE = frozenset({"accelerator", "devices", "accumulate"})
"""Fields that say where a step is computed or how it is split: the samples stay, the result changes by rounding and
batch statistics. A run may go on with others."""


def first_difference(a: Experiment, b: Experiment) -> str | None:
    """Name of the first field in which two experiments would run differently; None if they are the same run."""
    one, other = essence(a), essence(b)
    # With a budget, how far a scene is cropped depends on those that share its pass.
    free = {"accelerator"} if a.max_points else _MAY_CHANGE
    names = [name for name in {**one, **other} if name not in free]  # a field may be in one alone: ``config.later``
    return next((name for name in names if one.get(name) != other.get(name)), None)
