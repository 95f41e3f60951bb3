"""Exact k nearest neighbours of packed point clouds, without a loop over scenes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.geometry.grid import Voxels, find_keys, key_offset, pack_keys, unique_keys, unpack_keys, voxelize

_PAIRS = 1 << 22
"""Candidate pairs looked at in one go; 4 M pairs take 100 MB, and to be sorted three times more."""

_PAIR_COST = 20
"""A candidate pair found through voxels costs as much as so many of a plain comparison of all with all."""

_QUERIES = 1 << 14
"""Far queries looked up in one go; of a surface they have some hundreds of candidates each."""


def knn(
    query: Float[Tensor, "Q 3"],
    query_scene: Int[Tensor, " Q"],
    points: Float[Tensor, "N 3"],
    point_scene: Int[Tensor, " N"],
    k: int,
) -> tuple[Int[Tensor, "Q {k}"], Float[Tensor, "Q {k}"]]:
    """Indices into ``points`` and distances of the k nearest points of the same scene, nearest first.

    Where a scene has fewer than k points, the index is -1 and the distance infinite. The order of equally distant
    points is fixed but not specified.

    The points are sorted into voxels; the 27 voxels around a query hold every point closer than one voxel edge, so a
    query whose k-th neighbour is that close is done. The others go down a tree of voxels in voxels, only into those
    that may hold something nearer than what others hold for certain; where those are too many (all points equally far
    from a query, a small cloud), every point is compared.

    Raises:
        ValueError: coordinates are not finite; see ``geometry.grid.voxelize`` for the rest.
    """
    index = torch.full((len(query), k), -1, dtype=torch.int64, device=query.device)
    distance = query.new_full((len(query), k), torch.inf)
    if len(query) == 0 or len(points) == 0:
        return index, distance
    if not bool(query.isfinite().all() & points.isfinite().all()):
        raise ValueError("knn: coordinates of queries and points must be finite")
    lowest = points.amin(0)
    extent = float((points.amax(0) - lowest).max())
    # A voxel of a surface-like cloud holds about k points; 1e-6 keeps coincident points in one voxel.
    size = max(extent * (k / len(points)) ** 0.5, extent * 1e-4, 1e-6)
    shifted = query - lowest  # for voxels alone: it rounds, and distances are to be those of what was given
    voxels = voxelize(points - lowest, point_scene, size)
    pairs = _around(shifted, query_scene, voxels, size)[1].sum(1)
    left = []
    # No chunk has more candidate pairs than _PAIRS, unless one query alone has.
    chunk_sizes = torch.unique_consecutive(pairs.cumsum(0) // _PAIRS, return_counts=True)[1]
    for rows in torch.arange(len(query), device=query.device).split(chunk_sizes.tolist()):
        first, counts = _around(shifted[rows], query_scene[rows], voxels, size)
        owner, candidate = _expand(first.flatten(), counts.flatten())
        found, near = _nearest(query[rows], owner // 27, points, voxels.order[candidate], k)
        done = near[:, -1] <= size
        index[rows[done]], distance[rows[done]] = found[done], near[done]
        left.append(rows[~done])
    far = torch.cat(left)
    if len(far) == 0:
        return index, distance
    levels = _tree(voxels, size)
    chunks = list(far.split(_QUERIES))
    while chunks:
        rows = chunks.pop()
        worth = len(rows) * len(points) // _PAIR_COST
        pairs = _descend(levels, shifted[rows], query_scene[rows], k, min(worth, _PAIRS))
        if pairs is not None:
            index[rows], distance[rows] = _nearest(query[rows], pairs[0], points, pairs[1], k)
        elif worth > _PAIRS and len(rows) > 1:
            chunks += rows.split((len(rows) + 1) // 2)
        else:
            for few in rows.split(max(1, _PAIRS // len(points))):
                index[few], distance[few] = _compare_all(query[few], query_scene[few], points, point_scene, k)
    return index, distance


@dataclass(frozen=True)
class _Level:
    """Voxels of one size, each of which holds smaller ones, or points."""

    coords: Int[Tensor, "M 4"]
    """Scene, x, y, z, sorted; the lower corner is at x, y, z times ``size``."""
    size: float
    counts: Int[Tensor, " M"]
    """Points in each voxel, however deep below it."""
    children: Int[Tensor, " C"]
    """Rows of the next level, or of points, voxel by voxel."""
    num_children: Int[Tensor, " M"]


def _tree(voxels: Voxels, size: float) -> list[_Level]:
    """Levels from one voxel for each scene to these; no coordinate may be negative, so that halving ends at zero."""
    levels = [_Level(voxels.coords, size, voxels.counts, voxels.order, voxels.counts)]
    while int(levels[0].coords[:, 1:].max()) > 0:
        below = levels[0]
        parents = torch.cat([below.coords[:, :1], below.coords[:, 1:] >> 1], dim=1)
        unique, _ = unique_keys(pack_keys(parents))
        counts = torch.zeros_like(unique.counts).index_add_(0, unique.row, below.counts)
        coords = unpack_keys(unique.keys).to(below.coords.dtype)
        levels.insert(0, _Level(coords, 2 * below.size, counts, unique.order, unique.counts))
    return levels


def _descend(
    levels: list[_Level], query: Float[Tensor, "Q 3"], query_scene: Int[Tensor, " Q"], k: int, most: int
) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]] | None:
    """Queries and their candidates, among which are the k nearest; None if there are more than ``most``."""
    scenes = levels[0].coords[:, 0].to(torch.int64).contiguous()
    voxel = find_keys(scenes, query_scene.to(torch.int64))
    owner = torch.arange(len(query), device=query.device)[voxel >= 0]
    voxel = voxel[voxel >= 0]
    # A point may lie outside of its voxel by the rounding of its coordinates.
    slack = 1e-6 * levels[0].size
    for level in levels:
        place = query[owner] - level.coords[voxel, 1:] * level.size
        nearest = (place - place.clamp(0, level.size)).norm(dim=1)
        farthest = torch.maximum(place.abs(), (place - level.size).abs()).norm(dim=1)
        bound = _kth(owner, farthest, level.counts[voxel], len(query), k)
        keep = nearest <= bound[owner] * (1 + 1e-6) + slack
        owner, voxel = owner[keep], voxel[keep]
        if int(level.num_children[voxel].sum()) > most:
            return None
        first = level.num_children.cumsum(0) - level.num_children
        which, position = _expand(first[voxel], level.num_children[voxel])
        owner, voxel = owner[which], level.children[position]
    return owner, voxel


def _kth(owner: Tensor, distance: Tensor, counts: Tensor, num: int, k: int) -> Tensor:
    """For every query the distance within which its voxels hold k points; infinite if they hold fewer."""
    if k == 1:
        return distance.new_full((num,), torch.inf).scatter_reduce_(0, owner, distance, "amin")
    order = _by_owner_and_distance(owner, distance)
    held = counts[order].cumsum(0)
    of = owner[order]
    before = torch.zeros(num, dtype=held.dtype, device=held.device).index_add_(0, of, counts[order])
    before = before.cumsum(0) - before
    enough = held - before[of] >= k
    far = torch.where(enough, distance[order], torch.inf)
    return distance.new_full((num,), torch.inf).scatter_reduce_(0, of, far, "amin")


@torch.no_grad()
def nearest_within(
    query: Float[Tensor, "N 3"],
    query_scene: Int[Tensor, " N"],
    points: Float[Tensor, "M 3"],
    point_scene: Int[Tensor, " M"],
    distance: float,
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """For every query the nearest of the points that are of the same scene and at most ``distance`` metres away.

    The points are sorted into voxels of that size; the 27 around a query hold all of its candidates. The host
    waits for a GPU twice: for the number of voxels and for that of candidates.

    Returns:
        Its row, of equally near ones the first, -1 where there is none; its distance in metres, infinite there.

    Raises:
        ValueError: see ``geometry.grid.voxelize``.
    """
    voxels = voxelize(points, point_scene, distance)
    until = F.pad(voxels.counts.cumsum(0), (1, 0))
    cells = torch.floor(query / distance).to(torch.int64)
    keys = pack_keys(torch.cat([query_scene[:, None], cells], dim=1))
    # Keys of the voxels below and above are those before and after: a column of three is one range of sorted points.
    columns = torch.stack([keys + key_offset(x, y, 0) for x in (-1, 0, 1) for y in (-1, 0, 1)], dim=1).flatten()
    begin = until[torch.searchsorted(voxels.keys, columns - 1)]
    num = until[torch.searchsorted(voxels.keys, columns + 1, right=True)] - begin
    total = int(num.sum())
    owner = torch.repeat_interleave(torch.arange(len(num), device=num.device), num, output_size=total)
    within = torch.arange(total, device=num.device) - (num.cumsum(0) - num)[owner]
    candidate = voxels.order[begin[owner] + within]
    row = owner // 9
    gap = (points[candidate] - query[row]).norm(dim=1)
    gap = torch.where(gap <= distance, gap, torch.inf)
    nearest = query.new_full((len(query),), torch.inf).scatter_reduce_(0, row, gap, "amin")
    none = len(points)
    candidate = torch.where((gap == nearest[row]) & gap.isfinite(), candidate, none)
    found = torch.full_like(query_scene, none).scatter_reduce_(0, row, candidate, "amin")
    return torch.where(found < none, found, -1), nearest


def _around(
    query: Tensor, query_scene: Tensor, voxels: Voxels, size: float
) -> tuple[Int[Tensor, "Q 27"], Int[Tensor, "Q 27"]]:
    """First position (in voxel order) and number of the points in the 27 voxels around queries."""
    cells = torch.floor(query / size).to(torch.int64)
    keys = pack_keys(torch.cat([query_scene[:, None], cells], dim=1))
    offsets = [key_offset(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    voxel = find_keys(voxels.keys, keys[:, None] + torch.tensor(offsets, device=keys.device))
    first = voxels.counts.cumsum(0) - voxels.counts
    present = voxel >= 0
    return first[voxel] * present, voxels.counts[voxel] * present


def _compare_all(
    query: Tensor, query_scene: Tensor, points: Tensor, point_scene: Tensor, k: int
) -> tuple[Int[Tensor, "Q {k}"], Float[Tensor, "Q {k}"]]:
    """Every query against every point."""
    # By differences: the matrix product |q|^2 - 2 <q, p> + |p|^2 is faster but in float32 it cannot tell close pairs
    # apart, and Apple's GPUs have no float64.
    gap = torch.cdist(query, points, compute_mode="donot_use_mm_for_euclid_dist")
    gap.masked_fill_(query_scene[:, None] != point_scene, torch.inf)
    near, found = gap.topk(min(k, len(points)), largest=False)
    missing = k - near.shape[1]
    near = F.pad(near, (0, missing), value=torch.inf)
    return F.pad(found, (0, missing), value=-1).masked_fill(near.isinf(), -1), near


def _expand(first: Int[Tensor, " R"], counts: Int[Tensor, " R"]) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """Ragged ranges [first, first + count) as one list: of which range each is, and what it says."""
    total = int(counts.sum())
    which = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts, output_size=total)
    within = torch.arange(total, device=counts.device) - (counts.cumsum(0) - counts)[which]
    return which, first[which] + within


def _by_owner_and_distance(owner: Tensor, distance: Tensor) -> Int[Tensor, " P"]:
    # One sort: the bits of a non-negative float32 order like the number itself.
    return torch.argsort((owner << 32) | distance.to(torch.float32).view(torch.int32), stable=True)


def _nearest(
    query: Tensor, owner: Tensor, points: Tensor, candidate: Tensor, k: int
) -> tuple[Int[Tensor, "Q {k}"], Float[Tensor, "Q {k}"]]:
    """The k nearest of each query's candidates; -1 and infinite where it has fewer."""
    gap = (points[candidate] - query[owner]).norm(dim=1)
    order = _by_owner_and_distance(owner, gap)
    num = torch.bincount(owner, minlength=len(query))
    rank = torch.arange(len(owner), device=owner.device) - (num.cumsum(0) - num)[owner[order]]
    keep = rank < k
    found = torch.full((len(query), k), -1, dtype=torch.int64, device=query.device)
    near = query.new_full((len(query), k), torch.inf)
    kept = order[keep]
    found[owner[kept], rank[keep]] = candidate[kept]
    near[owner[kept], rank[keep]] = gap[kept]
    return found, near
