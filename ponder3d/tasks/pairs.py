"""Rows of the two views of a scene that show the same place: what contrastive pretext tasks compare.

``data.transforms.TwoViews`` remembers where each point was before anything turned or moved it (``Batch.place``).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponder3d.config import Config
from ponder3d.geometry.grid import key_offset, pack_keys, voxelize
from ponder3d.geometry.keyed import hashed
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
def match_places(
    place: Float[Tensor, "N 3"],
    scene: Int[Tensor, " N"],
    other_place: Float[Tensor, "M 3"],
    other_scene: Int[Tensor, " M"],
    distance: float,
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """For every point the nearest of the other points that are of the same scene and at most ``distance`` metres away.

    The other points are sorted into voxels of that size; the 27 around a point hold all of its candidates. The host
    waits for a GPU twice: for the number of voxels and for that of candidates.

    Returns:
        Its row, of equally near ones the first, -1 where there is none; its distance in metres, infinite there.

    Raises:
        ValueError: see ``geometry.grid.voxelize``.
    """
    voxels = voxelize(other_place, other_scene, distance)
    until = F.pad(voxels.counts.cumsum(0), (1, 0))
    cells = torch.floor(place / distance).to(torch.int64)
    keys = pack_keys(torch.cat([scene[:, None], cells], dim=1))
    # Keys of the voxels below and above are those before and after: a column of three is one range of sorted points.
    columns = torch.stack([keys + key_offset(x, y, 0) for x in (-1, 0, 1) for y in (-1, 0, 1)], dim=1).flatten()
    begin = until[torch.searchsorted(voxels.keys, columns - 1)]
    num = until[torch.searchsorted(voxels.keys, columns + 1, right=True)] - begin
    total = int(num.sum())
    owner = torch.repeat_interleave(torch.arange(len(num), device=num.device), num, output_size=total)
    within = torch.arange(total, device=num.device) - (num.cumsum(0) - num)[owner]
    candidate = voxels.order[begin[owner] + within]
    row = owner // 9
    gap = (other_place[candidate] - place[row]).norm(dim=1)
    gap = torch.where(gap <= distance, gap, torch.inf)
    nearest = place.new_full((len(place),), torch.inf).scatter_reduce_(0, row, gap, "amin")
    none = len(other_place)
    candidate = torch.where((gap == nearest[row]) & gap.isfinite(), candidate, none)
    found = torch.full_like(scene, none).scatter_reduce_(0, row, candidate, "amin")
    return torch.where(found < none, found, -1), nearest


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
    partner, _ = match_places(batch.place, scene, other.place, other.points.scene, config.distance)
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
