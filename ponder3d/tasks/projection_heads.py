"""Projection heads: what stands between an encoder's features and the loss of a pretext task, and is thrown away.

With one, the features need not forget what the loss is told to ignore (Chen et al. 2020, "A Simple Framework for
Contrastive Learning of Visual Representations").
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from ponder3d.config import Config


class ProjectionHeadConfig(Config, ABC):
    """Choices of a projection head."""

    @abstractmethod
    def build(self, in_channels: int) -> nn.Module:
        """A module from ``[N in_channels]`` to ``[N width(in_channels)]``."""

    @abstractmethod
    def width(self, in_channels: int) -> int:
        """Channels that come out."""


@dataclass(frozen=True)
class NoProjection(ProjectionHeadConfig):
    """The features as they are: PointContrast and Masked Scene Contrast compare those."""

    def build(self, in_channels: int) -> nn.Module:
        """The identity."""
        return nn.Identity()

    def width(self, in_channels: int) -> int:
        """Those that go in."""
        return in_channels


@dataclass(frozen=True)
class LinearProjection(ProjectionHeadConfig):
    """One linear layer: PPKT and SLidR."""

    out_channels: int = 64
    """Channels that come out."""

    def __post_init__(self):
        if self.out_channels < 1:
            raise ValueError(f"LinearProjection.out_channels must be at least 1, it is {self.out_channels}")

    def build(self, in_channels: int) -> nn.Module:
        """The layer."""
        return nn.Linear(in_channels, self.out_channels)

    def width(self, in_channels: int) -> int:
        """``out_channels``."""
        return self.out_channels


@dataclass(frozen=True)
class MLPProjection(ProjectionHeadConfig):
    """Linear, batch norm, ReLU, as often as there are hidden layers, and a linear layer."""

    hidden: tuple[int, ...] = (64,)
    """Channels of the hidden layers."""
    out_channels: int = 64
    """Channels that come out."""
    norm: bool = True
    """Whether hidden layers have a batch norm."""

    def __post_init__(self):
        if min((*self.hidden, self.out_channels)) < 1:
            raise ValueError(
                f"MLPProjection: channels must be at least 1, they are {self.hidden} and {self.out_channels}"
            )

    def build(self, in_channels: int) -> nn.Module:
        """The layers."""
        layers: list[nn.Module] = []
        for width in self.hidden:
            # A bias before a batch norm changes nothing.
            layers += [nn.Linear(in_channels, width, bias=not self.norm)]
            layers += [nn.BatchNorm1d(width)] if self.norm else []
            layers += [nn.ReLU()]
            in_channels = width
        return nn.Sequential(*layers, nn.Linear(in_channels, self.out_channels))

    def width(self, in_channels: int) -> int:
        """``out_channels``."""
        return self.out_channels
