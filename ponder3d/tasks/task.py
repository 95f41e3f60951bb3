"""The contract of a task."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.encoders.encoder import Encoder, EncoderConfig, Features
from ponder3d.metrics.metric import Metric
from ponder3d.types import Batch, LabelSet


@dataclass(frozen=True)
class StepLosses:
    """What a task makes of a batch."""

    terms: dict[str, Float[Tensor, ""]]
    """Weighted terms; the loss is their sum."""
    monitors: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Figures worth logging that are not minimised; without gradient."""


@dataclass(frozen=True)
class Picture:
    """Something to look at."""

    name: str
    """File name without ending."""
    rgb: UInt8[Tensor, "H W 3"]


class TaskConfig(Config, ABC):
    """Choices of a task. Every leaf has an ``encoder`` among its own fields."""

    encoder: EncoderConfig

    def feature_width(self) -> int:
        """Channels of the target feature of rays (``RayTargets.feature``) that it learns from; 0: from none."""
        return 0

    @abstractmethod
    def build(self, labels: LabelSet | None) -> "Task":
        """The task for a dataset with these classes.

        Raises:
            ValueError: the task needs labels and there are none.
        """

    def rebuild(self, labels: LabelSet | None, weights: Mapping[str, Tensor], facts: Mapping[str, str]) -> "Task":
        """The task for these weights, which are loaded next, and these ``Task.facts`` of the one that had them.

        Without either it is ``build``. What is among the weights need not be made again, e.g. by a text encoder that is
        not on this machine.
        """
        return self.build(labels)


class Task(nn.Module, ABC):
    """Owns its networks, its loss, its prediction and its metric. The engine knows none of them."""

    encoder: Encoder
    teaches_encoder: bool = False
    """Whether its losses have the terms of the encoder's own (``learn``)."""

    def prepare(self, passes: Iterator[Iterable[Batch]]) -> None:
        """Called once, before the first step of a new run, with the initial weights in place and on the device.

        ``passes`` go on for ever; each goes through the training scenes once, in order, one scene per batch,
        transformed as in training with other random numbers than any step. Has to do the same on every rank. By
        default nothing.
        """

    def borrow(self, encoder: Encoder) -> None:
        """Work with the encoder of another task, which owns it: its weights are no longer among this task's own."""
        del self.encoder
        object.__setattr__(self, "encoder", encoder)  # past nn.Module, which would register it

    @property
    def reader(self) -> Encoder:
        """The encoder as the task reads it."""
        return self.encoder

    def learn(self, batch: Batch) -> tuple[Features, dict[str, Float[Tensor, ""]]]:
        """What the encoder makes of a batch, and in training the terms of its own, for the losses."""
        return self.reader.learn(batch) if self.training else (self.reader(batch), {})

    def facts(self) -> dict[str, str]:
        """What a result should name beside its configuration: the encoder's card and the evaluation carry it."""
        return {}

    @abstractmethod
    def losses(self, batch: Batch, step: int) -> StepLosses:
        """Loss terms of a batch at a step; schedules are functions of ``step``."""

    @abstractmethod
    def predict(self, batch: Batch) -> Any:
        """What the task's metric takes. Call under ``torch.no_grad`` in evaluation mode."""

    @abstractmethod
    def metric(self) -> Metric[Any]:
        """A fresh accumulator of the task's figures."""

    @abstractmethod
    def pictures(self, prediction: Any, batch: Batch) -> list[Picture]:
        """Pictures of a prediction beside the truth; may be none."""
