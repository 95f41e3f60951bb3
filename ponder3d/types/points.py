"""Packed point clouds."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Points:
    """The point clouds of a batch of scenes, one after another."""

    xyz: Float[Tensor, "N 3"]
    """World coordinates in metres."""
    feats: Float[Tensor, "N C"]
    """One feature row per point."""
    counts: Int[Tensor, " B"]
    """Number of points of each scene; sums to N. A scene may be empty."""

    @property
    def scene(self) -> Int[Tensor, " N"]:
        """Scene index of every point."""
        return scene_index(self.counts, len(self.xyz))


def scene_index(counts: Int[Tensor, " B"], total: int) -> Int[Tensor, " N"]:
    """Scene index of each of ``total`` packed rows; ``total`` is passed: reading it from ``counts`` would sync."""
    scenes = torch.arange(len(counts), device=counts.device)
    return torch.repeat_interleave(scenes, counts, output_size=total)
