"""One unit vector per class, which rendered features and language-guided heads are compared with.

They come from names through a text encoder (``text_clip``, ``text_bert``), from a file that was made elsewhere, or,
with no text at all, from fixed orthonormal codes. Names of classes are used as they are, underscores as spaces.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.config import Config
from ponder3d.types import LabelSet


@dataclass(frozen=True)
class ClassVectors:
    """A vector per class."""

    vectors: Float[Tensor, "K E"]
    """Unit rows, in the order of the classes; float32."""
    source: str
    """What made them: the model, a digest of its weights, the prompts. Results name it."""


class ClassVectorsConfig(Config, ABC):
    """Choices of the vectors that stand for classes."""

    @abstractmethod
    def build(self, labels: LabelSet) -> ClassVectors:
        """The vectors of these classes.

        Raises:
            ValueError: they cannot be made; the message names what is missing and how to get it.
        """


@dataclass(frozen=True)
class NoVectors(ClassVectorsConfig):
    """No semantics: vectors of width 0."""

    def build(self, labels: LabelSet) -> ClassVectors:
        """Rows without columns."""
        return ClassVectors(torch.zeros(len(labels), 0), "none")


@dataclass(frozen=True)
class FixedCodes(ClassVectorsConfig):
    """Orthonormal vectors, the same for everyone: classes are told apart, and none is like another."""

    channels: int = 32
    """Width of a vector, at least the number of classes."""

    def __post_init__(self):
        if self.channels < 1:
            raise ValueError(f"FixedCodes.channels must be at least 1, not {self.channels}")

    def build(self, labels: LabelSet) -> ClassVectors:
        """One code per class, drawn with seed 0."""
        return ClassVectors(class_codes(len(labels), self.channels), f"fixed orthonormal codes of {self.channels}")


def class_codes(num_classes: int, channels: int) -> Float[Tensor, "{num_classes} {channels}"]:
    """One fixed vector per class: orthonormal, the same for everyone (drawn with seed 0).

    Raises:
        ValueError: fewer channels than classes.
    """
    if channels < num_classes:
        raise ValueError(f"FixedCodes.channels is {channels}, but {num_classes} classes need at least as many")
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(channels, num_classes, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(random).Q.T.to(torch.float32).contiguous()


def words(name: str) -> str:
    """A class name as a text encoder gets it: underscores are spaces."""
    return name.replace("_", " ")


def spoken(names: Sequence[str]) -> list[str]:
    """``words`` of all names."""
    return [words(name) for name in names]
