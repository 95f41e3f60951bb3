"""The contract of a metric."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from jaxtyping import Float
from torch import Tensor

from ponder3d.types import Batch

P = TypeVar("P")


class Metric(ABC, Generic[P]):
    """Collects predictions scene by scene. Its whole state is one tensor of sums, so ranks are merged by adding."""

    state: Float[Tensor, "..."]
    """Sums so far, float64."""

    @abstractmethod
    def update(self, prediction: P, batch: Batch) -> None:
        """Add what a task predicted for a batch."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The figures by name."""
