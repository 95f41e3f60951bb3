"""Voxels compiled for the CPU (``cpu_grid.c``): the twins of functions of ``grid.py``, equal to them to the bit.

For float32 points. ``benchmarks/transforms.py`` has the times and what they could be.
"""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ponder3d.geometry.compiled import Functions, Library


def pack_points(
    xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"], size: float, limit: int, max_scenes: int
) -> tuple[Int[Tensor, " N"], bool]:
    """Keys of the voxels of points, and whether all have one: cells in [-limit, limit], scenes below ``max_scenes``.

    Raises:
        ValueError: not one scene for each point.
    """
    if len(scene) != len(xyz) or xyz.shape[1:] != (3,):
        raise ValueError(f"voxelize: points of shape {list(xyz.shape)} and scenes of {len(scene)}")
    keys = scene.new_empty(len(xyz), dtype=torch.int64)
    given = xyz.contiguous(), _longs(scene), keys
    return keys, not LIBRARY.run("pack", *given, len(xyz), float(size), limit, max_scenes)


def unpack(keys: Int[Tensor, " M"]) -> Int[Tensor, "M 4"]:
    """As ``grid.unpack_keys``."""
    keys = _longs(keys)
    coords = keys.new_empty(len(keys), 4)
    LIBRARY.run("unpack", keys, coords, len(keys))
    return coords


def unique_keys(
    keys: Int[Tensor, " N"],
) -> tuple[Int[Tensor, " M"], Int[Tensor, " N"], Int[Tensor, " M"], Int[Tensor, " N"]]:
    """The fields of ``grid.Unique``."""
    return _unique(LIBRARY, _longs(keys))


def one_per_voxel(
    order: Int[Tensor, " N"],
    counts: Int[Tensor, " M"],
    share: Float[Tensor, " M"],
    preferred: Bool[Tensor, " N"] | None,
) -> Int[Tensor, " M"]:
    """As ``grid.one_per_voxel``."""
    assert len(share) == len(counts) and (preferred is None or len(preferred) == len(order))
    rows = torch.empty_like(counts)
    given = 0 if preferred is None else preferred.contiguous()
    LIBRARY.run("pick", order, counts, share.contiguous(), given, rows, len(rows))
    return rows


def fragment(order: Int[Tensor, " N"], counts: Int[Tensor, " M"], turn: int) -> Int[Tensor, " M"]:
    """Point ``turn mod n`` of each voxel with n points, in ascending order."""
    rows = torch.empty_like(counts)
    LIBRARY.run("fragment", order, counts, rows, turn, len(rows), len(order))
    return rows


def take(x: Shaped[Tensor, "N C"], rows: Int[Tensor, " K"]) -> Shaped[Tensor, "K C"]:
    """As ``rows.take``, of any type of ``x``.

    Raises:
        IndexError: a row that is not there, or ``rows`` are no whole numbers, such as a mask.
    """
    if rows.is_floating_point() or rows.dtype == torch.bool:
        raise IndexError(
            f"take: rows must be whole numbers, they are {rows.dtype}; of a mask take mask.nonzero()[:, 0]"
        )
    x, rows = x.contiguous(), _longs(rows)
    out = x.new_empty(len(rows), x.shape[1])
    if LIBRARY.run("rows", x, rows, out, len(rows), len(x), x.shape[1] * x.element_size()):
        raise IndexError(f"take: a row is not in [0, {len(x)})")
    return out


def _longs(x: Tensor) -> Tensor:
    return x.to(torch.int64).contiguous()


def _unique(
    library: Library | Functions, keys: Int[Tensor, " N"]
) -> tuple[Int[Tensor, " M"], Int[Tensor, " N"], Int[Tensor, " M"], Int[Tensor, " N"]]:
    order, row, num = torch.empty_like(keys), torch.empty_like(keys), keys.new_zeros(1)
    # As long as they can get; pages that nothing is written to take no memory, and the results are copies.
    unique, counts = torch.empty_like(keys), torch.empty_like(keys)
    library.run("unique", keys, order, row, unique, counts, num, len(keys))
    found = int(num)
    return unique[:found].clone(), row, counts[:found].clone(), order


def _is_right(functions: Functions) -> bool:
    """Two points in a voxel of the second scene, one in another, one in the first scene, by hand."""
    xyz = torch.tensor([[0.25, -0.25, 1.75], [-7.0, 0.0, 2.0], [0.3, -0.1, 1.9], [0.25, -0.25, 1.75]])
    scene, keys, coords = torch.tensor([1, 1, 1, 0]), torch.empty(4, dtype=torch.int64), torch.empty(3, 4).long()
    refused = [functions.run("pack", xyz, scene, keys, 4, 0.5, limit, 2) for limit in (13, 14)]
    unique, row, counts, order = _unique(functions, keys)
    if refused != [2, 0] or len(unique) != 3:
        return False
    functions.run("unpack", unique, coords, 3)
    rows, part, column = torch.empty(3).long(), torch.empty(3).long(), torch.empty(3, 3)
    functions.run("pick", order, counts, torch.full((3,), 0.4), torch.tensor([False, True, True, True]), rows, 3)
    functions.run("fragment", order, counts, part, 1, 3, 4)
    functions.run("rows", xyz, rows, column, 3, 4, 12)
    found = [coords, row, counts, order, rows, part]
    expected = [[[0, 0, -1, 3], [1, -14, 0, 4], [1, 0, -1, 3]], [2, 1, 2, 0], [1, 1, 2], [3, 1, 0, 2], [3, 1, 2]]
    return [x.tolist() for x in found] == [*expected, [1, 2, 3]] and torch.equal(column, xyz[rows])


LIBRARY = Library("ponder3d.geometry", "cpu_grid.c", _is_right)
