"""The neighbour table of a submanifold convolution in one launch: the Triton twin of ``maps._neighbour_table``.

Keys are sorted, so one binary search per row and (dx, dy) finds where the run of neighbours along z begins, and one
comparison finds each further one. Count for 1 M rows and a 3x3x3 kernel: 8 MB of keys are read and 27 x 4 MB of table
written, 0.04 ms at the 3.0 TB/s of an H100. The 9 searches make 20 steps each, whose loads of 8 bytes stay in the
caches, because neighbouring rows search for neighbouring keys; with the 27 comparisons they are 207 M loads, 32 to an
instruction, so about 0.1 ms of instructions on 132 multiprocessors (an estimate, not measured).
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from ponder3d.geometry.grid import AXIS_BITS

_AXIS_BITS = tl.constexpr(AXIS_BITS)
_BLOCK = 128
"""Rows of a program: one for each of its 128 threads. With two a thread the table goes through shared memory."""


def neighbour_table(keys: Int[Tensor, " M"], kernel: int) -> Int[Tensor, "K M"]:
    """Row of each tap's neighbour of each row, -1 where there is none; int32.

    Tap ``((rx * k) + ry) * k + rz`` is the neighbour at ``p + r - k // 2``.

    Args:
        keys: sorted unique keys of the voxels (``geometry.grid.pack_keys``).
        kernel: edge of the kernel in voxels, odd.
    """
    table = torch.empty(kernel**3, len(keys), dtype=torch.int32, device=keys.device)
    if len(keys):
        grid = (-(-len(keys) // _BLOCK), kernel * kernel)
        _neighbour_table_kernel[grid](keys, table, len(keys), len(keys).bit_length(), KERNEL=kernel, BLOCK=_BLOCK)
    return table


# The number of rows changes with every batch: without do_not_specialize it would be compiled twice, once for multiples
# of 16. no_type_check: tl.constexpr is an annotation for Triton's compiler, which the type checker of the tests is not.
@triton.jit(do_not_specialize=["num_rows", "num_steps"])
@no_type_check
def _neighbour_table_kernel(keys, table, num_rows, num_steps, KERNEL: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = row < num_rows
    column = tl.program_id(1)  # (rx, ry)
    radius: tl.constexpr = KERNEL // 2
    dx = (column // KERNEL - radius).to(tl.int64)
    dy = (column % KERNEL - radius).to(tl.int64)
    wanted = tl.load(keys + row, mask=valid, other=0) + (dx << 2 * _AXIS_BITS) + (dy << _AXIS_BITS) - radius

    # First row whose key is not below the wanted one. A finished search has lo == hi and loads nothing.
    lo = tl.zeros([BLOCK], tl.int32)
    hi = tl.where(valid, num_rows, 0)
    for _ in range(num_steps):
        middle = lo + (hi - lo) // 2
        open = lo < hi
        below = (tl.load(keys + middle, mask=open, other=0) < wanted) & open
        lo = tl.where(below, middle + 1, lo)
        hi = tl.where(below, hi, middle)

    # Tap by tap along z: the next neighbour, if there is one, is the next row.
    out = table + (column * KERNEL).to(tl.int64) * num_rows + row
    for _ in tl.static_range(KERNEL):
        inside = lo < num_rows
        hit = (tl.load(keys + lo, mask=inside, other=0) == wanted) & inside
        tl.store(out, tl.where(hit, lo, -1), mask=valid)
        lo += hit.to(tl.int32)
        wanted += 1
        out += num_rows
