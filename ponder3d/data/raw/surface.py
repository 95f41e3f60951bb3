"""Which point of a room a pixel sees, for the hundreds of thousands of pixels of each of many frames."""

from dataclasses import dataclass

import numpy as np
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.dataset import RawPoints
from ponder3d.geometry.grid import key_offset, pack_keys, unique_keys, voxelize

NEAR = 0.1
"""Metres; a pixel farther from the room's points sees something else: the next room, or a person passing."""

_THIN = 0.025
"""Metres between the points that pixels are compared with: 4 times finer than ``NEAR``, some 10 times fewer."""
_CELLS = (NEAR / 2, NEAR)
"""Cells and those around them hold all points within an edge; pixels that are not done with the first take the next."""
_PAIRS = 1 << 15
"""Pairs of pixel and point in one go: their temporary arrays stay in the cache."""
_BLOCK = 1 << 20
"""Points that are thinned in one go: sorting takes some 100 bytes for each."""
_REACH = 1000.0
"""Metres from the middle of the room: keys of the thinned points reach 1.6 km."""
_MIDDLES = torch.tensor([key_offset(x, y, 0) for x in (-1, 0, 1) for y in (-1, 0, 1)])
"""From a cell to the middles of the 9 columns of 3 cells around it; the keys of a column follow each other."""


@dataclass(frozen=True, eq=False)
class _Level:
    """The thinned points by cells. Lists of what is around each cell would take 27 times as much."""

    size: float
    keys: torch.Tensor
    """Of cells that have points; sorted."""
    first: np.ndarray
    """Where in ``points`` those of each cell begin, and where the last ones end."""
    points: np.ndarray


class Surface:
    """The points of a room, thinned to one of every voxel of 2.5 cm, with their labels and instances.

    It keeps some 50 bytes for each thinned point: 0.2 GB for a room of 1500 m2.
    """

    def __init__(self, cloud: RawPoints, where: str):
        """Sort the points.

        Raises:
            DataError: the cloud reaches farther than a kilometre from its middle.
        """
        assert cloud.labels is not None and cloud.instances is not None
        lo, hi = cloud.xyz.min(0).astype(np.float64), cloud.xyz.max(0).astype(np.float64)
        if not (reach := float((hi - lo).max()) / 2) < _REACH:
            raise DataError(f"{where}: points span {2 * reach:.6g} m; is there a stray one?")
        # float32 is exact to 0.1 mm a kilometre from the origin, and this one is the room's.
        self._centre = (hi + lo) / 2
        chosen, xyz = self._thinned(cloud.xyz)
        self._columns = np.ascontiguousarray(xyz.numpy().T)
        self._labels, self._instances = cloud.labels[chosen], cloud.instances[chosen]
        self._levels = [_level(xyz, size) for size in _CELLS]

    def look_up(self, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is at [N 3] places of the world.

        Returns:
            [N] label and [N] instance of the nearest point, 0 and -1 if it is not within ``NEAR``; [N] whether it is.
        """
        # Places far away are far from everything; their keys need not be right but must exist.
        local = np.clip(xyz - self._centre, -2 * _REACH, 2 * _REACH).astype(np.float32)
        nearest = np.full(len(local), -1)
        rows = np.arange(len(local))
        for level in self._levels:
            found, distance = self._nearest(local[rows], level)
            done = distance <= level.size
            nearest[rows[done]] = found[done]
            rows = rows[~done]
        seen = nearest >= 0
        labels = np.where(seen, self._labels[nearest], 0).astype(np.int32)
        return labels, np.where(seen, self._instances[nearest], -1).astype(np.int32), seen

    def _thinned(self, xyz: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
        """The first point of every voxel, in the order of the voxels, and [M 3] where it is from the centre."""
        chosen, where = np.zeros(0, dtype=np.int64), torch.zeros(0, 3)
        kept: list[tuple[np.ndarray, torch.Tensor]] = []
        for start in range(0, len(xyz), _BLOCK):
            block = torch.from_numpy((xyz[start : start + _BLOCK] - self._centre).astype(np.float32))
            first = _first_of_voxels(block)
            kept.append((first.numpy() + start, block[first]))
        if kept:
            chosen, where = np.concatenate([rows for rows, _ in kept]), torch.cat([block for _, block in kept])
        if len(kept) > 1:
            first = _first_of_voxels(where)
            chosen, where = chosen[first.numpy()], where[first]
        return chosen, where

    def _nearest(self, local: np.ndarray, level: _Level) -> tuple[np.ndarray, np.ndarray]:
        """The nearest of the points in the 27 cells around each place, and its distance; infinite if there is none."""
        nearest, distance = np.full(len(local), -1), np.full(len(local), np.inf, dtype=np.float32)
        if not len(local):
            return nearest, distance
        # Pixels share cells, 20 of them one in a frame: what is around a cell is looked for once.
        cells, _ = unique_keys(_keys(torch.from_numpy(local), level.size))
        columns = cells.keys[:, None] + _MIDDLES
        begin = level.first[torch.searchsorted(level.keys, columns - 1).numpy()]
        num = level.first[torch.searchsorted(level.keys, columns + 1, right=True).numpy()] - begin
        around = num.sum(1)
        rows, cell = cells.order.numpy(), np.repeat(np.arange(len(around)), cells.counts.numpy())
        beside = around[cell] > 0
        rows, cell = rows[beside], cell[beside]
        counts = around[cell]
        cuts = np.flatnonzero(np.diff(np.cumsum(counts) // _PAIRS)) + 1
        for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True) if len(rows) else ():
            part, of, pairs = rows[start:end], cell[start:end], counts[start:end]
            low, high = of[0], of[-1] + 1
            points = level.points[_ranges(begin[low:high].reshape(-1), num[low:high].reshape(-1))]
            first = np.cumsum(around[low:high]) - around[low:high]
            pair = _ranges(first[of - low], pairs)
            gap = np.zeros(len(pair), dtype=np.float32)
            for axis in range(3):
                away = self._columns[axis][points][pair]
                away -= np.repeat(local[part, axis], pairs)
                away *= away
                gap += away
            # The bits of a float32 that is not negative order like the number: one minimum finds the point as well.
            order = gap.view(np.int32).astype(np.int64)
            order <<= 32
            order |= points[pair]
            best = np.minimum.reduceat(order, np.cumsum(pairs) - pairs)
            nearest[part], distance[part] = best & 0xFFFFFFFF, np.sqrt((best >> 32).astype(np.int32).view(np.float32))
        return nearest, distance


def _ranges(begin: np.ndarray, num: np.ndarray) -> np.ndarray:
    """``num[i]`` numbers from ``begin[i]`` on, for every i."""
    ranges = np.repeat(begin - (np.cumsum(num) - num), num)
    ranges += np.arange(len(ranges))
    return ranges


def _first_of_voxels(xyz: torch.Tensor) -> torch.Tensor:
    voxels = voxelize(xyz, torch.zeros(len(xyz), dtype=torch.int64), _THIN)
    return voxels.order[voxels.counts.cumsum(0) - voxels.counts]


def _level(xyz: torch.Tensor, size: float) -> _Level:
    found, _ = unique_keys(_keys(xyz, size))
    first = np.concatenate([[0], found.counts.cumsum(0).numpy()])
    return _Level(size, found.keys, first, found.order.numpy().astype(np.int32))


def _keys(xyz: torch.Tensor, size: float) -> torch.Tensor:
    cells = torch.floor(xyz / size).to(torch.int64)
    return pack_keys(torch.nn.functional.pad(cells, (1, 0)))
