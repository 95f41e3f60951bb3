"""Exact k nearest neighbours of packed point clouds, without a loop over scenes."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.geometry.grid import Voxels, find_keys, key_offset, pack_keys, voxelize

_PAIRS = 1 << 22
"""Candidate pairs looked at in one go; 4 M pairs take about 100 MB."""

_PAIR_COST = 20
"""A candidate pair found through voxels costs as much as so many of a plain comparison of all with all."""


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
    query whose k-th neighbour is that close is done, and the others are looked up again with voxels of twice the size,
    until comparing with every point is cheaper.
    """
    index = torch.full((len(query), k), -1, dtype=torch.int64, device=query.device)
    distance = query.new_full((len(query), k), torch.inf)
    if len(query) == 0 or len(points) == 0:
        return index, distance
    everything = torch.cat([query, points])
    extent = float((everything.amax(0) - everything.amin(0)).max())
    origin = (everything.amax(0) + everything.amin(0)) / 2
    # Start where a voxel of a surface-like cloud holds about k points; 1e-6 keeps coincident points in one voxel.
    size = max(extent * (k / len(points)) ** 0.5, extent * 1e-4, 1e-6)
    open_rows = torch.arange(len(query), device=query.device)
    while len(open_rows):
        voxels = voxelize(points - origin, point_scene, size)
        covers_all = size >= extent
        pairs = _around(open_rows, query - origin, query_scene, voxels, size)[1].sum(1)
        if int(pairs.sum()) * _PAIR_COST >= len(open_rows) * len(points):
            for rows in open_rows.split(max(1, _PAIRS // len(points))):
                index[rows], distance[rows] = _compare_all(query[rows], query_scene[rows], points, point_scene, k)
            break
        left = []
        # No chunk has more candidate pairs than _PAIRS, unless one query alone has.
        chunk_sizes = torch.unique_consecutive(pairs.cumsum(0) // _PAIRS, return_counts=True)[1]
        for rows in open_rows.split(chunk_sizes.tolist()):
            found, near = _search(rows, query, query_scene, points, voxels, origin, size, k)
            done = (near[:, -1] <= size) | covers_all
            index[rows[done]], distance[rows[done]] = found[done], near[done]
            left.append(rows[~done])
        open_rows = torch.cat(left)
        size *= 2
    return index, distance


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
    rows: Tensor, query: Tensor, query_scene: Tensor, voxels: Voxels, size: float
) -> tuple[Int[Tensor, "Q 27"], Int[Tensor, "Q 27"]]:
    """First position (in voxel order) and number of the points in the 27 voxels around queries."""
    cells = torch.floor(query[rows] / size).to(torch.int64)
    keys = pack_keys(torch.cat([query_scene[rows, None], cells], dim=1))
    offsets = [key_offset(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    voxel = find_keys(voxels.keys, keys[:, None] + torch.tensor(offsets, device=keys.device))
    first = voxels.counts.cumsum(0) - voxels.counts
    present = voxel >= 0
    return first[voxel] * present, voxels.counts[voxel] * present


def _compare_all(
    query: Tensor, query_scene: Tensor, points: Tensor, point_scene: Tensor, k: int
) -> tuple[Int[Tensor, "Q {k}"], Float[Tensor, "Q {k}"]]:
    """Every query against every point: what is left when the points are far away or spread through space."""
    # By differences: the matrix product |q|^2 - 2 <q, p> + |p|^2 is faster but in float32 it cannot tell close pairs
    # apart, and Apple's GPUs have no float64.
    gap = torch.cdist(query, points, compute_mode="donot_use_mm_for_euclid_dist")
    gap.masked_fill_(query_scene[:, None] != point_scene, torch.inf)
    near, found = gap.topk(min(k, len(points)), largest=False)
    missing = k - near.shape[1]
    near = F.pad(near, (0, missing), value=torch.inf)
    return F.pad(found, (0, missing), value=-1).masked_fill(near.isinf(), -1), near


def _search(
    rows: Tensor,
    query: Tensor,
    query_scene: Tensor,
    points: Tensor,
    voxels: Voxels,
    origin: Tensor,
    size: float,
    k: int,
) -> tuple[Tensor, Tensor]:
    first, counts = _around(rows, query - origin, query_scene, voxels, size)
    total = int(counts.sum())
    # Expand the ragged ranges [first, first + count) into one list of (query, point) pairs.
    flat_first, flat_counts = first.flatten(), counts.flatten()
    owner = torch.repeat_interleave(torch.arange(len(flat_counts), device=rows.device), flat_counts, output_size=total)
    within = torch.arange(total, device=rows.device) - (flat_counts.cumsum(0) - flat_counts)[owner]
    candidate = voxels.order[flat_first[owner] + within]
    local = owner // 27
    gap = (points[candidate] - query[rows[local]]).norm(dim=1)
    # One sort by (query, distance): the bits of a non-negative float32 order like the number itself.
    order = torch.argsort((local << 32) | gap.to(torch.float32).view(torch.int32), stable=True)
    per_query = counts.sum(1)
    rank = torch.arange(total, device=rows.device) - (per_query.cumsum(0) - per_query)[local[order]]
    keep = rank < k
    found = torch.full((len(rows), k), -1, dtype=torch.int64, device=rows.device)
    near = query.new_full((len(rows), k), torch.inf)
    kept = order[keep]
    found[local[kept], rank[keep]] = candidate[kept]
    near[local[kept], rank[keep]] = gap[kept]
    return found, near
