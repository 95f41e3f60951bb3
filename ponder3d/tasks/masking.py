"""Hiding the features of blocks of space behind a learned token.

The coordinates stay, so the geometry remains visible; ``data.transforms.RemoveBlocks`` takes it away. Which blocks are
hidden is a function of each scene's key, so it is the same on any device and for any split of a batch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.geometry.grid import voxelize
from ponder3d.geometry.keyed import hashed
from ponder3d.types import Batch, Points


class MaskingConfig(Config, ABC):
    """Choices of a corruption that the task applies to a batch."""

    @abstractmethod
    def build(self, in_channels: int) -> nn.Module:
        """A module from Batch to Batch. It is the identity in evaluation mode."""


@dataclass(frozen=True)
class NoMasking(MaskingConfig):
    """Nothing is hidden."""

    def build(self, in_channels: int) -> nn.Module:
        """The identity."""
        return nn.Identity()


@dataclass(frozen=True)
class BlockMasking(MaskingConfig):
    """PonderV2 outdoors: blocks of 8 voxels of 0.1 m, 80 % of those occupied."""

    ratio: float = 0.8
    """Share of the occupied blocks of each scene whose features are hidden."""
    size: float = 0.8
    """Edge of a block in metres."""

    def build(self, in_channels: int) -> nn.Module:
        """A module with one learned token."""
        return MaskBlocks(in_channels, self)


class MaskBlocks(nn.Module):
    """Replaces the features of the points in hidden blocks by a learned token."""

    def __init__(self, in_channels: int, config: BlockMasking):
        super().__init__()
        self.config = config
        self.token = nn.Parameter(torch.empty(in_channels))
        nn.init.trunc_normal_(self.token, std=0.02, a=-0.02, b=0.02)

    def forward(self, batch: Batch) -> Batch:
        """The batch with hidden features; unchanged in evaluation mode."""
        if not self.training:
            return batch
        points, config = batch.points, self.config
        hidden = hidden_points(points, batch.keys, config.ratio, config.size)
        feats = torch.where(hidden[:, None], self.token.to(points.feats.dtype), points.feats)
        return replace(batch, points=replace(points, feats=feats))


def hidden_points(points: Points, keys: Int[Tensor, " B"], ratio: float, size: float) -> Bool[Tensor, " N"]:
    """Whether each point lies in a hidden block.

    Args:
        points: of all scenes.
        keys: key of each scene; with the block's place it decides which blocks are hidden.
        ratio: share of the occupied blocks of each scene that is hidden.
        size: edge of a block in metres.
    """
    blocks = voxelize(points.xyz, points.scene, size)
    scene = blocks.coords[:, 0]
    # A block's place in its scene's random order: sorted by (scene, hash), minus where the scene starts.
    # A block is known by its place alone: ``blocks.keys`` would tell which number its scene has in the batch.
    draw = hashed(keys[scene], *blocks.coords[:, 1:].unbind(1))
    order = torch.argsort(draw, stable=True)
    order = order[torch.argsort(scene[order], stable=True)]
    per_scene = torch.zeros_like(keys).index_add_(0, scene, torch.ones_like(scene))
    first = per_scene.cumsum(0) - per_scene
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - first[scene[order]]
    num_hidden = torch.round(per_scene * ratio)
    return (place < num_hidden[scene])[blocks.voxel]
