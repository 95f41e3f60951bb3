"""The two doors out of every encoder: ``densify`` onto a grid, ``sample_at`` at points.

Whatever an encoder returns (points, a sparse tensor, a volume), everything downstream uses only these two, hence any
encoder works with any task.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.geometry.grid import cells_from_world, find_keys, pack_keys, ravel, shape_like
from ponder3d.geometry.trilinear import corners, sample
from ponder3d.sparse import SparseTensor
from ponder3d.types import Grid, Occupied, Points, Volume
from ponder3d.volume.scene_grid import cell_centres

Features = Points | SparseTensor | Volume


def densify(features: Features, grid: Grid) -> Volume:
    """Mean-pool features into the cells of a grid (the step before eq. 3); empty cells are zero.

    Points and voxel centres outside the grid's box are dropped. A volume is resampled trilinearly at the cell centres;
    on the same grid (``Grid.is_as``) it is returned as it is.
    """
    if isinstance(features, Volume):
        return _resample(features, grid)
    xyz, scene, feats = _located(features)
    return _pool(cells_from_world(grid, xyz, scene), scene, feats, grid)


def densify_with_offsets(features: Features, grid: Grid) -> Volume:
    """``densify``, with four more channels: where in its cell the pooled points lie on average, and that there are any.

    The offset is in cells from the cell's centre, each axis in [-0.5, 0.5]; the last channel is 1 in occupied cells.
    Pooling forgets where in a cell a feature came from, and an encoder that sees its input only relative to its own
    voxels cannot say it either. Without these channels a surface is known no better than the size of a cell. A volume
    has no points: its offsets are 0 and it occupies every cell.
    """
    if isinstance(features, Volume):
        feats = _resample(features, grid).feats
        return Volume(grid, F.pad(F.pad(feats, (0, 3)), (0, 1), value=1.0))
    xyz, scene, feats = _located(features)
    cells = cells_from_world(grid, xyz, scene)
    offset = cells - cells.floor() - 0.5
    feats = torch.cat([feats, offset.to(feats.dtype), feats.new_ones(len(feats), 1)], dim=1)
    return _pool(cells, scene, feats, grid)


def _located(features: Points | SparseTensor) -> tuple[Tensor, Tensor, Tensor]:
    """World coordinates, scene and features of every row."""
    if isinstance(features, SparseTensor):
        return voxel_centres(features), features.coords[:, 0], features.feats
    return features.xyz, features.scene, features.feats


def _pool(cells: Float[Tensor, "N 3"], scene: Int[Tensor, " N"], feats: Float[Tensor, "N C"], grid: Grid) -> Volume:
    num_scenes = len(grid.box)
    cell = torch.floor(cells).to(torch.int64)
    inside = ((cell >= 0) & (cell < shape_like(grid.shape, cell))).all(1)
    # What lies outside goes to one extra row, which is cut off: no data-dependent size, so nothing waits for the GPU.
    num_cells = num_scenes * grid.shape[0] * grid.shape[1] * grid.shape[2]
    row = torch.where(inside, ravel(cell, scene, grid.shape), num_cells)
    # At least float32: bfloat16 counts no further than 256.
    dtype = torch.promote_types(feats.dtype, torch.float32)
    count = torch.zeros(num_cells + 1, dtype=dtype, device=feats.device)
    count = count.index_add_(0, row, torch.ones_like(row, dtype=dtype))
    if not _may_wait_for(feats):  # how many cells are occupied is something that only the device knows
        total = feats.new_zeros(num_cells + 1, feats.shape[1], dtype=dtype).index_add_(0, row, feats.to(dtype))
        mean = (total[:-1] / count[:-1].clamp(min=1)[:, None]).to(feats.dtype)
        return Volume(grid, mean.view(num_scenes, *grid.shape, feats.shape[1]))
    rows = count[:-1].nonzero()[:, 0]
    number = torch.full_like(count, len(rows), dtype=torch.int64).index_copy_(0, rows, torch.arange(len(rows)))
    total = feats.new_zeros(len(rows) + 1, feats.shape[1], dtype=dtype).index_add_(0, number[row], feats.to(dtype))
    mean = (total[:-1] / count[rows, None]).to(feats.dtype)
    whole = feats.new_zeros(num_cells, feats.shape[1]).index_copy(0, rows, mean)
    return Volume(grid, whole.view(num_scenes, *grid.shape, feats.shape[1]), Occupied(rows, mean))


def _may_wait_for(x: Tensor) -> bool:
    """Whether the host may ask for values: on a CPU it has them."""
    return x.device.type == "cpu"


def sample_at(features: Features, xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"]) -> Float[Tensor, "N C"]:
    """Features at world points.

    A sparse tensor gives the voxel that contains the point, zero where there is none; a volume is sampled trilinearly;
    packed points give their own rows, so the points asked for must be the points they were made from.

    Raises:
        ValueError: packed points asked for at another number of points.
    """
    if isinstance(features, Volume):
        return sample(features, corners(features.grid, xyz, scene))
    if isinstance(features, SparseTensor):
        size = features.stride * features.voxel_size
        cells = torch.floor(xyz / size).to(torch.int64)
        row = find_keys(features.keys, pack_keys(torch.cat([scene[:, None], cells], dim=1)))
        # One zero row behind the last: absent voxels (-1) read it, and so does a tensor without any voxel.
        return F.pad(features.feats, (0, 0, 0, 1))[row]
    if len(features.xyz) != len(xyz):
        raise ValueError(f"sample_at: features of {len(features.xyz)} points asked for at {len(xyz)} points")
    return features.feats


def voxel_centres(features: SparseTensor) -> Float[Tensor, "M 3"]:
    """World coordinates of the centres of the voxels."""
    size = features.stride * features.voxel_size
    # Not in the features' precision: bfloat16 knows no position between 2.00 m and 2.016 m.
    dtype = torch.promote_types(features.feats.dtype, torch.float32)
    return (features.coords[:, 1:].to(dtype) + 0.5) * size


def _resample(volume: Volume, grid: Grid) -> Volume:
    if volume.grid.is_as(grid):
        return volume
    feats = sample(volume, corners(volume.grid, *cell_centres(grid)))
    return Volume(grid, feats.view(len(grid.box), *grid.shape, -1))
