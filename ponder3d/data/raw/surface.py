"""Which point of a room a pixel sees, for the hundreds of thousands of pixels of each of many frames."""

from dataclasses import dataclass

import numpy as np
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.dataset import RawPoints
from ponder3d.geometry.grid import find_keys, key_offset, pack_keys, unique_keys, voxelize

NEAR = 0.1
"""Metres; a pixel farther from the room's points sees something else: the next room, or a person passing."""

_THIN = 0.025
"""Metres between the points that pixels are compared with: 4 times finer than ``NEAR``, some 10 times fewer."""
_CELLS = (NEAR / 2, NEAR)
"""Cells and those around them hold all points within an edge; pixels that are not done with the first take the next."""
_PAIRS = 1 << 18
"""Pairs of pixel and point in one go: their temporary arrays stay in the cache."""
_REACH = 1000.0
"""Metres from the middle of the room: keys of the thinned points reach 1.6 km."""


@dataclass(frozen=True, eq=False)
class _Level:
    """For every cell in or beside the surface, the points in the 27 cells around it."""

    size: float
    keys: torch.Tensor
    """Sorted."""
    first: np.ndarray
    """Where in ``points`` those of each cell begin, and where the last ones end."""
    points: np.ndarray


class Surface:
    """The points of a room, thinned to one of every voxel of 2.5 cm, with their labels and instances."""

    def __init__(self, cloud: RawPoints, where: str):
        """Sort the points.

        Raises:
            DataError: the cloud reaches farther than a kilometre from its middle.
        """
        assert cloud.labels is not None and cloud.instances is not None
        # float32 is exact to 0.1 mm a kilometre from the origin, and this one is the room's.
        self._centre = (cloud.xyz.max(0).astype(np.float64) + cloud.xyz.min(0)) / 2
        xyz = torch.from_numpy((cloud.xyz - self._centre).astype(np.float32))
        if not float(xyz.abs().max()) < _REACH:
            raise DataError(f"{where}: points span {2 * float(xyz.abs().max()):.6g} m; is there a stray one?")
        voxels = voxelize(xyz, torch.zeros(len(xyz), dtype=torch.int64), _THIN)
        chosen = torch.full((len(voxels.keys),), len(xyz))
        chosen.scatter_reduce_(0, voxels.voxel, torch.arange(len(xyz)), "amin")
        self._columns = np.ascontiguousarray(xyz[chosen].numpy().T)
        self._labels, self._instances = cloud.labels[chosen.numpy()], cloud.instances[chosen.numpy()]
        self._levels = [_level(xyz[chosen], size) for size in _CELLS]

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
            cell = find_keys(level.keys, _keys(torch.from_numpy(local[rows]), level.size)).numpy()
            done = np.zeros(len(rows), dtype=bool)
            beside = np.flatnonzero(cell >= 0)
            counts = level.first[cell[beside] + 1] - level.first[cell[beside]]
            cuts = np.flatnonzero(np.diff(np.cumsum(counts) // _PAIRS)) + 1
            for part, num in zip(np.split(beside, cuts), np.split(counts, cuts), strict=True) if len(beside) else ():
                found, distance = self._nearest(local[rows[part]], level, level.first[cell[part]], num)
                done[part] = distance <= level.size
                nearest[rows[part][done[part]]] = found[done[part]]
            rows = rows[~done]
        seen = nearest >= 0
        labels = np.where(seen, self._labels[nearest], 0).astype(np.int32)
        return labels, np.where(seen, self._instances[nearest], -1).astype(np.int32), seen

    def _nearest(
        self, local: np.ndarray, level: _Level, first: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest of each place's candidates, and its distance."""
        begins = np.cumsum(counts) - counts
        offset = np.repeat(first - begins, counts)
        candidate = level.points[np.arange(len(offset)) + offset]
        gap = np.zeros(len(candidate), dtype=np.float32)
        for axis in range(3):
            gap += np.square(np.take(self._columns[axis], candidate) - np.repeat(local[:, axis], counts))
        # The bits of a float32 that is not negative order like the number: one minimum finds the point as well.
        best = np.minimum.reduceat(gap.view(np.int32).astype(np.int64) << 32 | candidate, begins)
        return best & 0xFFFFFFFF, np.sqrt((best >> 32).astype(np.int32).view(np.float32))


def _level(xyz: torch.Tensor, size: float) -> _Level:
    steps = torch.tensor([key_offset(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)])
    found, _ = unique_keys((_keys(xyz, size)[:, None] + steps).flatten())
    first = np.concatenate([[0], found.counts.cumsum(0).numpy()])
    return _Level(size, found.keys, first, (found.order // len(steps)).numpy())


def _keys(xyz: torch.Tensor, size: float) -> torch.Tensor:
    cells = torch.floor(xyz / size).to(torch.int64)
    return pack_keys(torch.nn.functional.pad(cells, (1, 0)))
