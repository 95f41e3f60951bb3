"""Several pretext tasks on one encoder: their losses are added, weighted."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ponder3d.config import Config, later
from ponder3d.encoders.encoder import Encoder, EncoderConfig, Features
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.metrics.metric import Metric
from ponder3d.tasks.masked_occupancy import MaskedOccupancyConfig
from ponder3d.tasks.self_distil import SelfDistilConfig
from ponder3d.tasks.task import Picture, StepLosses, Task, TaskConfig
from ponder3d.types import Batch, LabelSet


@dataclass(frozen=True)
class PartConfig(Config):
    """One of several tasks."""

    name: str
    """Its terms, figures and pictures begin with it."""
    task: TaskConfig
    """The task. Its own ``encoder`` does not count: all have that of the whole."""
    weight: float = 1.0
    """Factor on all of its terms."""
    features: tuple[int, int] = later((0, 0))
    """The channels of the rays' target feature that are this task's: the first, and the one after the last, counted in
    what the combination itself gets; (0, 0): all of them. Those of two parts may be the same."""

    def __post_init__(self):
        if not self.name.isidentifier():
            raise ValueError(f"PartConfig.name must be a word of letters, digits and _, not {self.name!r}")
        if self.weight <= 0:
            raise ValueError(f"PartConfig.weight of {self.name} must be positive; leave the part out instead")
        (first, end), width = self.features, self.task.feature_width()
        if self.features != (0, 0) and not (0 <= first < end and end - first == width):
            raise ValueError(
                f"PartConfig.features of {self.name}: {first} to {end} are not the {width} channels that its task has "
                "to learn from; give (FIRST, FIRST + that many), or (0, 0) for all"
            )

    def feature_width(self) -> int:
        """The least width of the rays' target feature that its task can do with."""
        return self.features[1] or self.task.feature_width()

    def select(self, batch: Batch) -> Batch:
        """The batch with the target features that are this task's; with none if not all of them are there."""
        targets, (first, end) = batch.targets, self.features
        if self.features == (0, 0) or targets is None or targets.feature is None:
            return batch
        feature = targets.feature[:, first:end] if end <= targets.feature.shape[1] else None
        return replace(batch, targets=replace(targets, feature=feature))


@dataclass(frozen=True)
class CombinedConfig(TaskConfig):
    """Choices of a combination. The transforms must give each task what it wants: rays, a pair; those of validation
    too, and views beside the rays (``PickRays.keep_views``) where one part renders views and another reads rays."""

    encoder: EncoderConfig = SparseUNetConfig()
    """The encoder that all of them train."""
    parts: tuple[PartConfig, ...] = (
        PartConfig("occupancy", MaskedOccupancyConfig()),
        PartConfig("distil", SelfDistilConfig()),
    )
    """The tasks."""

    def __post_init__(self):
        names = [part.name for part in self.parts]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"CombinedConfig.parts: at least one part, each with a name of its own, not {names}")
        # A part that names its channels leaves others to the rest; one that does not wants the whole.
        whole = self.feature_width()
        widths = {part.feature_width() for part in self.parts if part.features == (0, 0)} - {0}
        if widths - {whole}:
            raise ValueError(
                f"CombinedConfig.parts: their rays have target features of {sorted(widths | {whole})} channels; say "
                "with PartConfig.features which are whose"
            )

    def feature_width(self) -> int:
        """Where the last channels end that a part learns from."""
        return max((part.feature_width() for part in self.parts), default=0)

    def build(self, labels: LabelSet | None) -> Task:
        """The tasks around one encoder."""
        return Combined(self, {part.name: part.task.build(labels) for part in self._parts()})

    def rebuild(self, labels: LabelSet | None, weights: Mapping[str, Tensor], facts: Mapping[str, str]) -> Task:
        """Each part with what is among its weights and facts."""
        tasks = {}
        for part in self._parts():
            own, known = _below(f"parts.{part.name}.", weights), _below(f"{part.name}_", facts)
            tasks[part.name] = part.task.rebuild(labels, own, known)
        return Combined(self, tasks)

    def _parts(self) -> list[PartConfig]:
        """With the encoder of the whole."""
        # Every TaskConfig has this field, which the base class cannot say of a dataclass that it is none of.
        return [
            replace(part, task=cast(TaskConfig, replace(cast(Any, part.task), encoder=self.encoder)))
            for part in self.parts
        ]


class _Once(Encoder):
    """The encoder of all parts, which encodes a batch once, however many of them ask for it in one step.

    Its weights are those of the encoder behind it, which is no module of its own: another one holds it.
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.behind: Encoder
        object.__setattr__(self, "behind", encoder)
        self.config, self.out_channels = encoder.config, encoder.out_channels
        self.reads_images, self.conditions = encoder.reads_images, encoder.conditions
        self.passes: list[tuple[Batch, Features]] = []
        self.own: list[dict[str, Tensor]] = []

    def forward(self, batch: Batch) -> Features:
        """What the encoder has made, or makes now, of this very batch, whatever its rays are."""
        for before, features in self.passes:
            if _same_input(batch, before):
                return features
        features, own = self.behind.learn(batch) if self.behind.training else (self.behind(batch), {})
        self.passes.append((batch, features))
        self.own.append(own)
        return features

    def all_levels(self) -> Encoder:
        """Of the encoder behind, in a pass of its own, whose terms (``learn``) nobody adds."""
        levels = self.behind.all_levels()
        return self if levels is self.behind else levels

    def terms(self) -> dict[str, Tensor]:
        """The terms by which the encoder learns itself: their mean over the passes, so that a weight means the same
        however many there are."""
        names = dict.fromkeys(name for own in self.own for name in own)
        found = {name: [own[name] for own in self.own if name in own] for name in names}
        return {name: torch.stack(values).mean() for name, values in found.items()}

    def forget(self) -> None:
        """Let go of what was encoded."""
        self.passes, self.own = [], []

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The encoder's."""
        return self.behind.state_dict(*args, **kwargs)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """The encoder's."""
        return self.behind.named_parameters(*args, **kwargs)


class Combined(Task):
    """Tasks that share an encoder."""

    teaches_encoder = True

    def __init__(self, config: CombinedConfig, tasks: Mapping[str, Task]):
        super().__init__()
        self.config = config
        self.encoder = next(iter(tasks.values())).encoder
        self.parts = nn.ModuleDict(tasks)
        self.once: _Once
        object.__setattr__(self, "once", _Once(self.encoder))  # past nn.Module: it has no weights
        for task in tasks.values():
            task.borrow(self.once)

    def _tasks(self) -> dict[str, Task]:
        return cast(dict[str, Task], dict(self.parts.items()))

    def borrow(self, encoder: Encoder) -> None:
        """Also for the parts, which ask for features by way of this task."""
        super().borrow(encoder)
        object.__setattr__(self.once, "behind", encoder)

    def prepare(self, passes: Iterator[Iterable[Batch]]) -> None:
        """Each part in turn."""
        for task in self._tasks().values():
            task.prepare(passes)
        self.once.forget()

    def facts(self) -> dict[str, str]:
        """Those of all parts, ``PART_NAME``."""
        return {f"{part}_{name}": fact for part, task in self._tasks().items() for name, fact in task.facts().items()}

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """The terms and monitors of all parts, ``PART_NAME``, each times the weight of its part, and those of the
        encoder's own, ``encoder_NAME``, averaged over its passes.

        Parts that give the encoder the batch as it is share one pass of it.

        Raises:
            ValueError: parts have channels of their own, and the rays' target feature is narrower or wider than these
                say.
        """
        self._check_width(batch)
        terms: dict[str, Tensor] = {}
        monitors: dict[str, Tensor] = {}
        self.once.forget()
        for part in self.config.parts:
            out = self._tasks()[part.name].losses(part.select(batch), step)
            terms |= {f"{part.name}_{name}": part.weight * value for name, value in out.terms.items()}
            monitors |= {f"{part.name}_{name}": value for name, value in out.monitors.items()}
        terms |= {f"encoder_{name}": value for name, value in self.once.terms().items()}
        self.once.forget()
        return StepLosses(terms, monitors)

    def _check_width(self, batch: Batch) -> None:
        claimed = {part.name: part.features for part in self.config.parts if part.features != (0, 0)}
        feature, width = None if batch.targets is None else batch.targets.feature, self.config.feature_width()
        if claimed and feature is not None and feature.shape[1] != width:
            raise ValueError(
                f"PartConfig.features: the rays' target feature has {feature.shape[1]} channels, not the {width} of "
                f"{claimed}; set these to what the transforms give"
            )

    @torch.no_grad()
    def predict(self, batch: Batch) -> dict[str, Any]:
        """The prediction of each part, by name."""
        self.once.forget()
        tasks = self._tasks()
        predicted = {part.name: tasks[part.name].predict(part.select(batch)) for part in self.config.parts}
        self.once.forget()
        return predicted

    def metric(self) -> "CombinedMetric":
        """Those of all parts."""
        return CombinedMetric({name: task.metric() for name, task in self._tasks().items()})

    def pictures(self, prediction: dict[str, Any], batch: Batch) -> list[Picture]:
        """Those of all parts."""
        return [
            Picture(f"{name}-{picture.name}", picture.rgb)
            for name, task in self._tasks().items()
            for picture in task.pictures(prediction[name], batch)
        ]


class CombinedMetric(Metric[dict[str, Any]]):
    """The metrics of several tasks; the state is theirs, one after the other."""

    def __init__(self, parts: dict[str, Metric[Any]]):
        self.parts = parts
        self._shapes = [part.state.shape for part in parts.values()]
        self.state = self._joined()

    def update(self, prediction: dict[str, Any], batch: Batch) -> None:
        """Add the prediction of each part."""
        self._hand_out()
        for name, part in self.parts.items():
            part.update(prediction[name], batch)
        self.state = self._joined()

    def compute(self) -> dict[str, float]:
        """The figures of all parts, ``PART_NAME``."""
        self._hand_out()
        return {f"{name}_{key}": value for name, part in self.parts.items() for key, value in part.compute().items()}

    def _joined(self) -> Tensor:
        return torch.cat([part.state.flatten() for part in self.parts.values()])

    def _hand_out(self) -> None:
        """Give each part its piece of the state, which may have been set from outside."""
        pieces = self.state.split([shape.numel() for shape in self._shapes])
        for part, piece, shape in zip(self.parts.values(), pieces, self._shapes, strict=True):
            part.state = piece.view(shape).clone()


def _same_input(one: Batch, other: Batch) -> bool:
    """Whether two batches are the same to an encoder: all but their rays is the very same."""
    names = [field.name for field in fields(Batch) if field.name not in ("rays", "targets")]
    return all(getattr(one, name) is getattr(other, name) for name in names)


def _below(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Entries under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
