"""Rows of the two views of a scene that show the same place: what contrastive pretext tasks compare.

``data.transforms.TwoViews`` remembers where each point was before anything turned or moved it (``Batch.place``).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ponder3d.config import Config
from ponder3d.geometry.keyed import hashed
from ponder3d.geometry.neighbors import nearest_within
from ponder3d.types import Batch

_SALT = 0x5061
"""Tells the choice of pairs from other choices that are made with the same keys."""


@dataclass(frozen=True)
class PairsConfig(Config):
    """Which points of two views are a pair, and how many pairs are used."""

    distance: float = 0.05
    """Metres between the places of two points, at most, for them to show the same place."""
    max_pairs: int = 1024
    """Pairs of each scene that are used, chosen at random; PointContrast takes 4096 of the four scenes of a GPU."""

    def __post_init__(self):
        if self.distance <= 0 or self.max_pairs < 1:
            raise ValueError(
                f"PairsConfig: distance must be positive and max_pairs at least 1, they are {self.distance} and "
                f"{self.max_pairs}"
            )


@dataclass(frozen=True)
class Pairs:
    """Pairs of all scenes of a batch, as many slots for each: P = B * slots, and no size depends on the data."""

    first: Int[Tensor, " P"]
    """Row of the first view's points; 0 in an empty slot."""
    second: Int[Tensor, " P"]
    """Row of the second view's points; 0 in an empty slot."""
    scene: Int[Tensor, " P"]
    """Scene of each slot."""
    valid: Bool[Tensor, " P"]
    """Whether the slot holds a pair; the empty slots of a scene are its last."""


def second_view(batch: Batch, name: str) -> Batch:
    """The other view of a batch's scenes.

    Raises:
        ValueError: naming the task ``name``: there is none, or places are missing.
    """
    if batch.pair is None or batch.place is None or batch.pair.place is None:
        raise ValueError(f"{name}: no second view of {batch.sources[0]}; put TwoViews among the transforms")
    return batch.pair


@torch.no_grad()
def mine_pairs(batch: Batch, config: PairsConfig, usable: Bool[Tensor, " N"] | None = None) -> Pairs:
    """Pairs of the two views: of the points of the first that have a partner, a random choice in each scene.

    Which are chosen is a function of the scene's key and of the number of a point in its scene: the same on any device,
    for any split of a batch, and in every evaluation.

    Args:
        batch: with ``place`` and ``pair``.
        config: how near partners are, and how many pairs are used.
        usable: points of the first view that may be chosen; all by default.

    Raises:
        ValueError: the batch has no second view.
    """
    other = second_view(batch, "mine_pairs")
    assert batch.place is not None and other.place is not None
    scene, counts = batch.points.scene, batch.points.counts
    partner, _ = nearest_within(batch.place, scene, other.place, other.points.scene, config.distance)
    matched = partner >= 0 if usable is None else (partner >= 0) & usable
    rows = choose_rows(matched, scene, counts, batch.keys, config.max_pairs)
    valid, first = rows >= 0, rows.clamp(min=0)
    num_slots = len(rows) // len(counts)
    return Pairs(
        first=first,
        second=torch.where(valid, partner[first], 0),
        scene=torch.arange(len(counts), device=scene.device).repeat_interleave(num_slots, output_size=len(rows)),
        valid=valid,
    )


def choose_rows(
    usable: Bool[Tensor, " N"],
    scene: Int[Tensor, " N"],
    counts: Int[Tensor, " B"],
    keys: Int[Tensor, " B"],
    num: int,
) -> Int[Tensor, " P"]:
    """At most ``num`` usable rows of each scene, chosen at random by the scenes' keys; nothing waits for a GPU.

    Returns:
        As many slots of each scene, P = B * min(num, N); -1 in the last of them where there are fewer usable rows.
    """
    total = len(scene)
    begin = counts.cumsum(0) - counts
    number = torch.arange(total, device=scene.device) - begin[scene]
    order = torch.argsort(hashed(keys[scene], number, _SALT), stable=True)
    # Scene by scene, and in each the usable ones before the others.
    group = 2 * scene + (~usable).to(torch.int64)
    order = order[torch.argsort(group[order], stable=True)]
    num_usable = torch.zeros_like(counts).index_add_(0, scene, usable.to(counts.dtype))
    slot = torch.arange(min(num, total), device=scene.device)
    chosen = order[(begin[:, None] + slot).clamp(max=max(total - 1, 0))]
    return torch.where(slot < num_usable[:, None], chosen, -1).flatten()
