"""Normals of bare point clouds: the plane through the neighbours of each point, turned to where it was seen from.

Neighbours are found without comparing points: the cloud is sorted into cells, and a neighbourhood is the block of 3 x 3
x 3 cells around a point's own. What a plane needs to know of a cell are ten sums, so a block costs 27 look-ups, however
many points it has; where it has too few, cells of twice the size have a turn.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.geometry.grid import MAX_COORDINATE, Voxels, key_offset, voxelize

Array = np.ndarray | Tensor

INDOORS = 50.0
"""Metres: a cloud that is longer along x or y is taken to be outdoors, see ``default_viewpoint``."""
LEVEL = 1e-4
"""Points whose second largest variance is a smaller share of the largest lie on a line: as thick as 1 % of its length.
"""

_CHUNK = 1 << 17
"""Blocks that are added up in one go: 40 MB."""
_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Row and column of the six second moments."""


def estimate_normals(
    xyz: Array, k: int = 24, radius: float | None = None, viewpoint: Array | None = None
) -> Float[Tensor, "N 3"]:
    """Unit normals of a point cloud by the direction in which its neighbourhoods are thinnest.

    A neighbourhood is a block of 3 x 3 x 3 cells, the same for all points of the cell in its middle. Cells begin at
    ``k / 9`` points each on average (a plane crosses nine of a block), and are doubled where a block has fewer than
    ``k``. Copies of a point count once. It takes 3 to 5 s per million points on one core; the result is the same every
    time, and up to rounding for every order of the points.

    Args:
        xyz: [N 3] coordinates in metres, z up, any distance from the origin; numpy or torch, any real type.
        k: points of a neighbourhood at least, the point itself included. More are smoother, at edges too.
        radius: metres; cells are not doubled beyond a third of it, and points that have fewer than ``k`` within their
            block then, but three at least, use these. None: they are doubled until there are enough.
        viewpoint: [3] where the points were seen from, or [N 3] for each point: normals point to that side of their
            plane. None: ``default_viewpoint``.

    Returns:
        float32, on the CPU. Zero ("unknown") where the neighbourhood has fewer than three points, or lies on a line.

    Raises:
        ValueError: an argument has the wrong shape, holds values that are not finite or is not positive.
    """
    points = torch.as_tensor(xyz).detach().cpu().to(torch.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"estimate_normals: xyz: expected shape [N 3], found {list(points.shape)}")
    if not bool(torch.isfinite(points).all()):
        raise ValueError("estimate_normals: xyz: a coordinate is not finite")
    if k < 3 or (radius is not None and not 0 < radius < math.inf):
        raise ValueError(f"estimate_normals: k must be at least 3 and radius positive, not {k} and {radius}")
    seen_from = _viewpoint(viewpoint, points)
    if len(points) < 3:
        return torch.zeros(len(points), 3)
    lo, hi = points.amin(0), points.amax(0)
    length = float((hi - lo).max())
    if length == 0:
        return torch.zeros(len(points), 3)
    middle = (lo + hi) / 2
    least = length / (2 * MAX_COORDINATE - 2)
    copies = voxelize((points - middle).to(torch.float32), torch.zeros(len(points), dtype=torch.int64), least)
    local = points.new_zeros(len(copies.keys), 3).index_add_(0, copies.voxel, points - middle) / copies.counts[:, None]
    direction = _directions(local, k, radius, length, least)[copies.voxel]
    towards = (direction * (seen_from - points)).sum(1) < 0
    return torch.where(towards[:, None], -direction, direction)


def _directions(
    local: Float[Tensor, "N 3"], k: int, radius: float | None, length: float, least: float
) -> Float[Tensor, "N 3"]:
    """Normals of points around 0, either way up; cells are at least ``least`` wide."""
    normal = torch.zeros(len(local), 3)
    size = _first_size(local, length, least, k / 9)
    most = max(length, size) if radius is None else max(radius / 3, least)
    size = min(size, most)
    open_points = torch.arange(len(local))
    while len(open_points):
        last = size >= most
        cells = voxelize(local.to(torch.float32), torch.zeros(len(local), dtype=torch.int64), size)
        moments = _moments(local / size, cells)
        rows = torch.unique(cells.voxel[open_points])
        direction = torch.zeros(len(moments), 3)
        done = torch.zeros(len(moments), dtype=torch.bool)
        for part in rows.split(_CHUNK):
            total = _blocks(cells.keys, moments, part)
            direction[part] = _thinnest(total).to(torch.float32)
            done[part] = (total[:, 0] >= k) | last
        own = cells.voxel[open_points]
        normal[open_points] = direction[own]
        open_points = open_points[~done[own]]
        size = min(2 * size, most)
    return normal


def default_viewpoint(xyz: Float[Tensor, "N 3"]) -> Float[Tensor, "3"]:
    """Where a cloud is taken to have been seen from, if nobody says.

    Indoors that is the middle of its box: of a room, walls point inwards, the floor up and the ceiling down, and so do
    things below and above half of its height. A cloud of more than ``INDOORS`` metres is seen from above its middle, as
    high as it is long: the ground and roofs point up. Neither can be right for the back of what stands in a room.
    """
    lo, hi = xyz.amin(0), xyz.amax(0)
    middle, length = (lo + hi) / 2, (hi - lo)[:2].max()
    if float(length) > INDOORS:
        middle[2] = hi[2] + length
    return middle


def _viewpoint(given: Array | None, points: Tensor) -> Tensor:
    if given is None:
        return default_viewpoint(points) if len(points) else points.new_zeros(3)
    viewpoint = torch.as_tensor(given).detach().cpu().to(torch.float64)
    if viewpoint.shape not in ((3,), tuple(points.shape)):
        raise ValueError(
            f"viewpoint: expected shape [3], or [{len(points)} 3] as there are {len(points)} points, found "
            f"{list(viewpoint.shape)}"
        )
    if not bool(torch.isfinite(viewpoint).all()):
        raise ValueError("viewpoint: a coordinate is not finite")
    return viewpoint


def _first_size(local: Tensor, length: float, least: float, per_cell: float) -> float:
    """Edge of cells that have at most ``per_cell`` points on average, or hardly fewer than cells of half of it."""
    flat, scene = local.to(torch.float32), torch.zeros(len(local), dtype=torch.int64)
    size, before = length, 1
    while size / 2 > least:
        now = len(voxelize(flat, scene, size / 2).keys)
        # A dense spot in a wide cloud would go on for ever: cells that hardly split any more are small enough.
        if now * per_cell > len(local) or (before > 64 and now < 1.2 * before):
            break
        size, before = size / 2, now
    return size


def _moments(scaled: Float[Tensor, "N 3"], cells: Voxels) -> Float[Tensor, "M 10"]:
    """Number, sums and sums of products of the points of each cell, from its centre and in units of its edge."""
    inside = scaled - (cells.coords[cells.voxel, 1:].to(torch.float64) + 0.5)
    columns = [torch.ones(len(inside), dtype=torch.float64), *inside.unbind(1)]
    columns += [inside[:, i] * inside[:, j] for i, j in _PAIRS]
    return torch.zeros(len(cells.keys), 10, dtype=torch.float64).index_add_(0, cells.voxel, torch.stack(columns, dim=1))


def _blocks(keys: Int[Tensor, " M"], moments: Float[Tensor, "M 10"], rows: Int[Tensor, " R"]) -> Float[Tensor, "R 10"]:
    """Moments of the 27 cells around each of ``rows``, from its centre."""
    total = moments.new_zeros(len(rows), 10)
    last = len(keys) - 1
    for x in (-1, 0, 1):
        for y in (-1, 0, 1):
            # Three cells above each other have successive keys, so those that exist are successive rows.
            wanted = keys[rows] + key_offset(x, y, -1)
            at = torch.searchsorted(keys, wanted).clamp_(max=last)
            for z in (-1, 0, 1):
                there = keys[at] == wanted
                total += _moved(moments[at] * there[:, None], (x, y, z))
                at = (at + there).clamp_(max=last)
                wanted = wanted + 1
    return total


def _moved(moments: Float[Tensor, "R 10"], shift: tuple[int, int, int]) -> Float[Tensor, "R 10"]:
    """Moments of points that are shifted by whole edges."""
    number, sums, moved = moments[:, 0], moments[:, 1:4].clone(), moments
    for axis in range(3):
        if shift[axis]:
            moved[:, 1 + axis] += shift[axis] * number
    for place, (i, j) in enumerate(_PAIRS):
        if shift[i] or shift[j]:
            moved[:, 4 + place] += shift[i] * sums[:, j] + shift[j] * sums[:, i] + shift[i] * shift[j] * number
    return moved


def _thinnest(moments: Float[Tensor, "R 10"]) -> Float[Tensor, "R 3"]:
    """Unit vector of the least variance; zero if there is no one such direction."""
    number = moments[:, 0].clamp(min=1)
    mean = moments[:, 1:4] / number[:, None]
    covariance = moments.new_empty(len(moments), 3, 3)
    for place, (i, j) in enumerate(_PAIRS):
        covariance[:, i, j] = covariance[:, j, i] = moments[:, 4 + place] / number - mean[:, i] * mean[:, j]
    variance, direction = torch.linalg.eigh(covariance)
    known = (moments[:, 0] >= 3) & (variance[:, 1] > LEVEL * variance[:, 2])
    return torch.where(known[:, None], direction[:, :, 0], 0.0)
