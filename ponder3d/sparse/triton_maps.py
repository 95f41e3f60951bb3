"""The tables of sparse convolutions: the Triton twins of ``maps._search_neighbours``, ``_row_keys`` and ``_filled``.

**Neighbours**, in one launch. Keys are sorted, so one binary search per row and (dx, dy) finds where the run of
neighbours along z begins, and one comparison finds each further one. Count for 1 M rows and a 3x3x3 kernel: 8 MB of
keys are read and 27 x 4 MB of table written, 0.04 ms at the 3.0 TB/s of an H100. The 9 searches make 20 steps each,
whose loads of 8 bytes stay in the caches, because neighbouring rows search for neighbouring keys; with the 27
comparisons they are 207 M loads, 32 to an instruction, so about 0.1 ms of instructions on 132 multiprocessors (an
estimate, not measured).

**Tiles**, in two launches around a sort. The table is read twice and written once, 3 x 108 MB, 0.11 ms for 1 M rows;
the second time it is read in the order of the sort, whose rows are at most 65536 apart: 7 MB, which L2 holds. Clouds of
small batches are below 50 000 rows, and there launches are what counts: PyTorch makes some 35 of this.
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


def row_keys(table: Int[Tensor, "K M"], word_taps: int, window: int, dtype: torch.dtype) -> Int[Tensor, "W M"]:
    """The words that rows are sorted by; arguments and result as of ``maps._row_keys``.

    Args:
        table: int32.
        word_taps: taps of a word.
        window: rows of a window.
        dtype: of the words: int32 if they fit, which halves the passes of the sort.
    """
    num_taps, num_rows = table.shape
    words = torch.empty(triton.cdiv(num_taps, word_taps), num_rows, dtype=dtype, device=table.device)
    if num_rows:
        _row_keys_kernel[(triton.cdiv(num_rows, _BLOCK), len(words))](
            table,
            words,
            num_rows,
            num_taps,
            window,
            WORD=word_taps,
            BLOCK_K=triton.next_power_of_2(min(num_taps, word_taps)),
            BLOCK=_BLOCK,
        )
    return words


def filled_tiles(
    table: Int[Tensor, "K M"], order: Int[Tensor, " M"], tile_rows: int
) -> tuple[Int[Tensor, "K M"], Int[Tensor, " M"], Int[Tensor, "T K"], Int[Tensor, " T"]]:
    """The fields of ``maps.Tiles``: the table in that order, the order, the taps of each tile and their number."""
    num_taps, num_rows = table.shape
    num_tiles = triton.cdiv(num_rows, tile_rows)
    ordered, places = torch.empty_like(table), torch.empty_like(order, dtype=torch.int32)
    taps, counts = places.new_empty(num_tiles, num_taps), places.new_empty(num_tiles)
    if num_rows:
        _fill_tiles_kernel[(num_tiles,)](
            table,
            order,
            ordered,
            places,
            taps,
            counts,
            num_rows,
            num_taps,
            TILE_ROWS=tile_rows,
            BLOCK_K=triton.next_power_of_2(num_taps),
            num_warps=4 if num_taps <= 32 else 8,
        )
    return ordered, places, taps, counts


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


@triton.jit(do_not_specialize=["num_rows", "num_taps", "window"])
@no_type_check
def _row_keys_kernel(
    table, words, num_rows, num_taps, window, WORD: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    word = tl.program_id(1)
    bit = tl.arange(0, BLOCK_K)
    tap = word * WORD + bit
    wanted = ((bit < WORD) & (tap < num_taps))[:, None] & (row < num_rows)[None, :]
    source = tl.load(table + tap.to(tl.int64)[:, None] * num_rows + row[None, :], mask=wanted, other=-1)
    key = tl.sum((source >= 0).to(tl.int64) << bit.to(tl.int64)[:, None], axis=0)
    if word == 0:
        key += (row // window).to(tl.int64) << tl.minimum(num_taps, WORD).to(tl.int64)
    out = words + word.to(tl.int64) * num_rows + row
    tl.store(out, key.to(words.dtype.element_ty), mask=row < num_rows)


@triton.jit(do_not_specialize=["num_rows", "num_taps"])
@no_type_check
def _fill_tiles_kernel(
    table,
    order,
    ordered,
    places,
    taps,
    counts,
    num_rows,
    num_taps,
    TILE_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    tile = tl.program_id(0)
    place = tile * TILE_ROWS + tl.arange(0, TILE_ROWS)
    tap = tl.arange(0, BLOCK_K)
    inside, known = place < num_rows, tap < num_taps
    row = tl.load(order + place, mask=inside, other=0)
    tl.store(places + place, row.to(tl.int32), mask=inside)

    both = known[:, None] & inside[None, :]
    line = tap.to(tl.int64)[:, None] * num_rows
    source = tl.load(table + line + row[None, :], mask=both, other=-1)
    tl.store(ordered + line + place[None, :], source, mask=both)

    # First the taps that a row has, then the others, both in order.
    has = (tl.max(source, axis=1) >= 0).to(tl.int32)
    lacks = known.to(tl.int32) - has
    count = tl.sum(has)
    entry = tl.where(has > 0, tl.cumsum(has) - has, count + tl.cumsum(lacks) - lacks)
    tl.store(taps + tile * num_taps + entry, tap, mask=known)
    tl.store(counts + tile, count)
