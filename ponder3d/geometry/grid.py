"""Voxels and grids: exact 64-bit keys, voxelisation, and the one map from the world into a grid.

Keys pack (scene, x, y, z) into 12 + 3 x 17 bits, so that every key is exact (no hash that can collide), scenes sort
before coordinates, and a neighbour's key is the key plus a constant.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponder3d.geometry import compiled_grid
from ponder3d.types import Grid

AXIS_BITS = 17
SCENE_BITS = 12
MAX_SCENES = 1 << SCENE_BITS
MAX_COORDINATE = (1 << (AXIS_BITS - 1)) - 64
"""Coordinates lie in [-MAX_COORDINATE, MAX_COORDINATE]; the 64 left over keep a kernel's offsets inside their field."""


@dataclass(frozen=True)
class Voxels:
    """Occupied voxels of a batch, sorted by (scene, x, y, z), and which point lies in which."""

    coords: Int[Tensor, "M 4"]
    """Scene, x, y, z; ``floor(xyz / size)``."""
    keys: Int[Tensor, " M"]
    """Sorted, unique."""
    voxel: Int[Tensor, " N"]
    """Row of ``coords`` in which each point lies."""
    counts: Int[Tensor, " M"]
    """Number of points in each voxel, at least 1."""
    order: Int[Tensor, " N"]
    """The points voxel by voxel, and within a voxel as they came."""


@dataclass(frozen=True)
class Unique:
    """Keys, each once."""

    keys: Int[Tensor, " M"]
    """Sorted."""
    row: Int[Tensor, " N"]
    """Row of ``keys`` of each given key."""
    counts: Int[Tensor, " M"]
    """How often each was given."""
    order: Int[Tensor, " N"]
    """What sorts the given keys; equal ones stay as they came."""


def pack_keys(coords: Int[Tensor, "M 4"]) -> Int[Tensor, " M"]:
    """(scene, x, y, z) to int64 keys whose order is the lexicographic order of the rows."""
    wide = coords.to(torch.int64)
    half = 1 << (AXIS_BITS - 1)
    key = wide[:, 0]
    for axis in (1, 2, 3):
        key = (key << AXIS_BITS) | (wide[:, axis] + half)
    return key


def unpack_keys(keys: Int[Tensor, " M"]) -> Int[Tensor, "M 4"]:
    """The inverse of ``pack_keys``."""
    if compiled_grid.LIBRARY.wanted(keys.device):
        return compiled_grid.unpack(keys)
    half, mask = 1 << (AXIS_BITS - 1), (1 << AXIS_BITS) - 1
    axes = [((keys >> (AXIS_BITS * shift)) & mask) - half for shift in (2, 1, 0)]
    return torch.stack([keys >> (3 * AXIS_BITS), *axes], dim=1)


def key_offset(dx: int, dy: int, dz: int) -> int:
    """What to add to a key to get that of the voxel shifted by (dx, dy, dz)."""
    return (dx << (2 * AXIS_BITS)) + (dy << AXIS_BITS) + dz


def voxelize(xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"], size: float) -> Voxels:
    """Sort points into cubic voxels of ``size`` metres. Convention: voxel i covers [i*size, (i+1)*size).

    Raises:
        ValueError: a coordinate is not finite, or too far from the origin for the 17 bits of an axis.
    """
    if xyz.dtype == torch.float32 and compiled_grid.LIBRARY.wanted(xyz.device):
        keys, fine = compiled_grid.pack_points(xyz, scene, size, MAX_COORDINATE, MAX_SCENES)
        found = unique_keys(keys)[0] if fine else None
    else:
        cells = torch.floor(xyz / size)
        # NaN fails the comparison too.
        flag = (cells.abs() <= MAX_COORDINATE).all() & (scene < MAX_SCENES).all()
        found, fine = unique_keys(pack_keys(torch.cat([scene[:, None], cells.to(torch.int64)], dim=1)), flag)
    if found is None or not fine:
        if int(scene.max()) >= MAX_SCENES:
            raise ValueError(f"voxelize: more than {MAX_SCENES} scenes in a batch")
        raise ValueError(
            f"voxelize: a coordinate is not finite or beyond {MAX_COORDINATE * size:g} m from the origin, the reach of "
            f"voxels of {size:g} m; centre the scene or use larger voxels"
        )
    return Voxels(unpack_keys(found.keys), found.keys, found.row, found.counts, found.order)


def unique_keys(keys: Int[Tensor, " N"], flag: Bool[Tensor, ""] | None = None) -> tuple[Unique, bool]:
    """``torch.unique`` that makes the host wait for a GPU once: for M and, along with it, for the value of a flag.

    Returns:
        The keys; the flag, True without one.
    """
    if compiled_grid.LIBRARY.wanted(keys.device):
        return Unique(*compiled_grid.unique_keys(keys)), flag is None or bool(flag)
    ordered, order = torch.sort(keys, stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    read = [new.sum()] if flag is None else [new.sum(), flag.to(torch.int64)]
    num, *given = torch.stack(read).tolist()
    row = new.cumsum(0) - 1
    unique = ordered.new_empty(num).scatter_(0, row, ordered)  # equal rows get equal keys
    counts = torch.zeros_like(unique).scatter_add_(0, row, torch.ones_like(row))
    return Unique(unique, torch.empty_like(row).scatter_(0, order, row), counts, order), bool(all(given))


def one_per_voxel(
    voxels: Voxels, share: Float[Tensor, " M"], preferred: Bool[Tensor, " N"] | None = None
) -> Int[Tensor, " M"]:
    """A point of each voxel: number ``floor(share * n)`` of its n points, or of the preferred ones if it has any.

    Args:
        voxels: the voxels.
        share: in [0, 1). Of a uniform share the number is uniform over 0 .. n - 1 for every n, unlike a common random
            integer modulo n.
        preferred: points that stand before the others of their voxel.
    """
    order, choices = voxels.order, voxels.counts
    if share.dtype == torch.float32 and compiled_grid.LIBRARY.wanted(share.device):
        return compiled_grid.one_per_voxel(order, choices, share, preferred)
    if preferred is not None:
        num = torch.zeros_like(choices).index_add_(0, voxels.voxel, preferred.to(torch.int64))
        usable = preferred | (num == 0)[voxels.voxel]
        order, choices = order[usable[order]], torch.where(num > 0, num, choices)
    number = torch.minimum((share * choices).to(torch.int64), choices - 1)  # the product may round up to n
    return order[choices.cumsum(0) - choices + number]


def fragments(xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"], size: float) -> Iterator[Int[Tensor, " P"]]:
    """Parts of a batch that have one point in every occupied voxel, and together every point: test-time grid sampling.

    Part i takes point ``i mod n`` of a voxel with n points, so there are as many parts as the fullest voxel has points.

    Yields:
        Rows of the points of a part, in ascending order.
    """
    voxels = voxelize(xyz, scene, size)
    order, counts = voxels.order, voxels.counts
    compiled = compiled_grid.LIBRARY.wanted(xyz.device)
    first = counts.cumsum(0) - counts
    for number in range(int(counts.max()) if len(counts) else 0):
        if compiled:
            yield compiled_grid.fragment(order, counts, number)
        else:
            yield order[first + number % counts].sort().values


def find_keys(table: Int[Tensor, " M"], keys: Int[Tensor, "*N"]) -> Int[Tensor, "*N"]:
    """Row of each key in a sorted table of unique keys; -1 where it is absent."""
    if len(table) == 0:
        return torch.full_like(keys, -1)
    row = torch.searchsorted(table, keys).clamp_(max=len(table) - 1)
    return torch.where(table[row] == keys, row, torch.full_like(row, -1))


def ravel(cells: Int[Tensor, "N 3"], scene: Int[Tensor, " N"], shape: tuple[int, int, int]) -> Int[Tensor, " N"]:
    """Row of a cell in a volume stored as [B X Y Z] rows."""
    return ((scene * shape[0] + cells[:, 0]) * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]


def shape_like(shape: tuple[int, int, int], x: Tensor) -> Tensor:
    """A shape as a tensor of the type and on the device of another; filled in, for a copy makes the host wait."""
    return torch.stack([x.new_full((), n) for n in shape])


def fixed_grid(
    box: tuple[float, ...], shape: tuple[int, int, int], num_scenes: int, device: torch.device | str = "cpu"
) -> Grid:
    """The grid of a model that looks at the same place around its sensor in every scene. Nothing waits for a GPU.

    Args:
        box: lower x, y, z, upper x, y, z in metres, in the scenes' frame.
        shape: cells along x, y and z.
        num_scenes: how many scenes have this grid.
        device: where its box is needed.

    Raises:
        ValueError: the box is not two corners, the lower below the upper, or a cell count is not positive.
    """
    check_box("fixed_grid", box, shape)
    # Filled in: a copy from the host would make it wait.
    corners = torch.stack([torch.full((), float(value), device=device) for value in box])
    return Grid(corners.view(1, 2, 3).repeat(num_scenes, 1, 1), shape, tuple(float(value) for value in box))


def check_box(name: str, box: tuple[float, ...], shape: tuple[int, int, int]) -> None:
    """Refuse a box that is none.

    Raises:
        ValueError: naming ``name``: it is not two corners, the lower below the upper, or a cell count is not positive.
    """
    if len(box) != 6 or not all(-math.inf < lo < hi < math.inf for lo, hi in zip(box[:3], box[3:], strict=True)):
        raise ValueError(f"{name}: a box is lower x, y, z and upper x, y, z with lower < upper, not {box}")
    if min(shape) < 1:
        raise ValueError(f"{name}: the number of cells must be positive along each axis, not {shape}")


def cells_from_world(grid: Grid, xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"]) -> Float[Tensor, "N 3"]:
    """World points to continuous cell coordinates: the one map used by scatter and by sampling alike.

    Convention: cell i covers [i, i + 1) and its value sits at i + 0.5.
    """
    lo, hi = grid.box[:, 0][scene], grid.box[:, 1][scene]
    return (xyz - lo) / (hi - lo) * shape_like(grid.shape, xyz)


def cells_per_metre(grid: Grid) -> Float[Tensor, "B 3"]:
    """Derivative of ``cells_from_world`` along each axis."""
    return shape_like(grid.shape, grid.box) / (grid.box[:, 1] - grid.box[:, 0])
