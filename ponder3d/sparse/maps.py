"""Kernel maps: which input row meets which output row under which tap of a kernel.

A map is a table: the input row that each tap of each output row reads. From it every way of computing a convolution
makes the form it needs, once, when it is first asked for: ``BlockedPairs`` (plain PyTorch on a CPU) and ``Tiles``
(Triton); the reference and the compiled kernels read the table itself.
"""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ponder3d.geometry import kernels
from ponder3d.geometry.grid import key_offset, pack_keys, unique_keys, unpack_keys
from ponder3d.sparse import compiled

BLOCK_ROWS = 2048
"""Rows of a block of pairs: 2048 x about 10 neighbours x 64 channels x 4 B = 5 MB, the best of 512..8192 at 16..128
channels on a 2-core EPYC."""
TILE_ROWS = 128
"""Rows of a tile: what a Triton program multiplies at once."""
TILE_WINDOW = 1 << 16
"""Consecutive rows among which tiles are put together: 65536 x 64 channels x 2 B = 8 MB, a share of a GPU's L2."""


@dataclass(frozen=True)
class Block:
    """Consecutive output rows and their pairs."""

    rows: tuple[int, int]
    """First output row and the one after the last."""
    first_pair: int
    counts: tuple[int, ...]
    """Number of pairs of each tap."""


@dataclass(frozen=True)
class BlockedPairs:
    """The pairs of a map in the order (block of output rows, tap, output row)."""

    in_rows: Int[Tensor, " P"]
    out_rows: Int[Tensor, " P"]
    slots: Int[Tensor, " P"]
    """Positions of the pairs within their block, ordered by output row: the order in which products are summed."""
    row_starts: Int[Tensor, " M_out"]
    """Where each output row's slots start within its block."""
    blocks: tuple[Block, ...]

    @property
    def max_block_pairs(self) -> int:
        """Pairs of the fullest block: the rows a working buffer needs."""
        return max((sum(block.counts) for block in self.blocks), default=0)


@dataclass(frozen=True)
class Tiles:
    """Output rows with like neighbours side by side, in tiles of ``TILE_ROWS``."""

    table: Int[Tensor, "K M_out"]
    """As ``TapTable.rows``, its columns in the order of ``order``."""
    order: Int[Tensor, " M_out"]
    """Output row of each place."""
    taps: Int[Tensor, "T K"]
    """The first ``counts[t]`` entries: the taps that any row of tile t has."""
    counts: Int[Tensor, " T"]


@dataclass(frozen=True)
class TapTable:
    """The pairs of one convolution as a table."""

    rows: Int[Tensor, "K M_out"]
    """int32: the input row that a tap of an output row reads; -1 where there is none."""
    num_in: int

    @functools.cached_property
    def pairs(self) -> BlockedPairs:
        """The table as pairs."""
        return _blocked_pairs(self.rows)

    @functools.cached_property
    def tiles(self) -> Tiles:
        """The table as tiles. Nothing waits for the GPU."""
        return _tiles(self.rows)


@dataclass(frozen=True)
class ConvMap:
    """A table and that of its transpose, which the gradient (and the inverse convolution) follows."""

    forward: TapTable
    transpose: TapTable
    mirrored: bool
    """True if ``transpose`` numbers the taps in reverse: a submanifold map is its own transpose, mirrored."""

    def transposed(self) -> "ConvMap":
        """The map from the outputs back to the inputs."""
        return ConvMap(forward=self.transpose, transpose=self.forward, mirrored=self.mirrored)


def subm_map(keys: Int[Tensor, " M"], kernel: int) -> ConvMap:
    """Submanifold map of an odd kernel: outputs sit where inputs are (Graham et al. 2018).

    Tap ``((rx * k) + ry) * k + rz`` reads the input at ``p + r - k // 2`` (cross-correlation, as torch's conv3d).

    Raises:
        ValueError: the kernel is even.
    """
    if kernel % 2 == 0 or kernel < 1:
        raise ValueError(f"a submanifold convolution needs an odd kernel, not {kernel}")
    return _subm(TapTable(_neighbour_table(keys, kernel), len(keys)))


def inner_subm_map(wider: ConvMap, kernel: int) -> ConvMap:
    """The submanifold map of a smaller kernel: the middle of one that exists, without another search."""
    rows = wider.forward.rows
    wide = round(len(rows) ** (1 / 3))
    middle = slice((wide - kernel) // 2, (wide + kernel) // 2)
    taps = torch.arange(len(rows), device=rows.device).view(wide, wide, wide)[middle, middle, middle]
    return _subm(TapTable(rows.index_select(0, taps.flatten()), wider.forward.num_in))


def strided_map(
    coords: Int[Tensor, "M 4"], kernel: int, stride: int, padding: int
) -> tuple[Int[Tensor, "M_out 4"], Int[Tensor, " M_out"], ConvMap]:
    """Map of a strided convolution; output ``q`` exists where some input lies at ``stride * q - padding + r``.

    Returns:
        Output coordinates sorted by key, their keys, and the map. With ``kernel == stride`` every input has one output.
    """
    tap, in_row, out_key = _strided_pairs(coords, kernel, stride, padding)
    found, _ = unique_keys(out_key)
    out_keys, out_row = found.keys, found.row
    forward = _table_from_pairs(tap, in_row, out_row, kernel**3, len(coords), len(out_keys))
    transpose = _table_from_pairs(tap, out_row, in_row, kernel**3, len(out_keys), len(coords))
    return unpack_keys(out_keys), out_keys, ConvMap(forward=forward, transpose=transpose, mirrored=False)


def _subm(table: TapTable) -> ConvMap:
    return ConvMap(forward=table, transpose=table, mirrored=True)


def _strided_pairs(coords: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tap, input row and output key of every pair."""
    if kernel == stride and padding == 0:
        # Each voxel has one parent: no search, and no size that only the device knows.
        parent = coords[:, 1:].div(stride, rounding_mode="floor")
        x, y, z = (coords[:, 1:] - parent * stride).unbind(1)
        rows = torch.arange(len(coords), device=coords.device)
        return (x * kernel + y) * kernel + z, rows, pack_keys(torch.cat([coords[:, :1], parent], dim=1))
    taps = torch.cartesian_prod(*[torch.arange(kernel, device=coords.device)] * 3)
    tap_of, row_of, key_of = [], [], []
    for tap, r in enumerate(taps):
        reached = coords[:, 1:] + padding - r
        rows = (reached.remainder(stride) == 0).all(1).nonzero()[:, 0]
        q = torch.cat([coords[rows, :1], reached[rows].div(stride, rounding_mode="floor")], dim=1)
        tap_of.append(torch.full_like(rows, tap))
        row_of.append(rows)
        key_of.append(pack_keys(q))
    return torch.cat(tap_of), torch.cat(row_of), torch.cat(key_of)


def _table_from_pairs(
    tap: Tensor, in_row: Tensor, out_row: Tensor, num_taps: int, num_in: int, num_out: int
) -> TapTable:
    rows = torch.full((num_taps, num_out), -1, dtype=torch.int32, device=tap.device)
    # An output and a tap determine the input, so no two pairs write to one place.
    rows[tap, out_row] = in_row.to(torch.int32)
    return TapTable(rows, num_in)


def _neighbour_table(keys: Int[Tensor, " M"], kernel: int) -> Int[Tensor, "K M"]:
    """Row of each tap's neighbour of each row, -1 where there is none."""
    if kernels.use_triton(keys.device):
        from ponder3d.sparse import triton_maps  # noqa: PLC0415

        return triton_maps.neighbour_table(keys, kernel)
    if compiled.wanted(keys.device):
        return compiled.neighbour_table(keys, kernel)
    return _search_neighbours(keys, kernel)


def _search_neighbours(keys: Int[Tensor, " M"], kernel: int) -> Int[Tensor, "K M"]:
    """All rows are sorted by their exact 64-bit key, so a neighbour is a binary search.

    The run of neighbours along z behind it costs one comparison each: a 3x3x3 map needs 9 searches a row, not 27.
    """
    radius, end = kernel // 2, len(keys) - 1
    table = torch.full((kernel**3, len(keys)), -1, dtype=torch.int32, device=keys.device)
    for dx in range(-radius, radius + 1):
        for dy in range(-radius, radius + 1):
            wanted = keys + key_offset(dx, dy, -radius)
            position = torch.searchsorted(keys, wanted)
            first = ((dx + radius) * kernel + dy + radius) * kernel
            for dz in range(kernel):
                at = position.clamp(max=end)
                hit = keys[at] == wanted + dz
                table[first + dz] = torch.where(hit, at, -1)
                position = position + hit
    return table


def _blocked_pairs(table: Int[Tensor, "K M_out"]) -> BlockedPairs:
    empty = torch.zeros(0, dtype=torch.int32, device=table.device)
    in_rows, out_rows, slots, row_starts = [empty], [empty], [empty], [empty]
    blocks: list[Block] = []
    rows_done = pairs_done = 0
    for part in table.split(BLOCK_ROWS, dim=1) if table.shape[1] else ():
        num_rows = part.shape[1]
        present = part >= 0
        position = (present.flatten().cumsum(0, dtype=torch.int32) - 1).view_as(part)
        per_row = present.sum(0, dtype=torch.int32)
        rows = torch.arange(rows_done, rows_done + num_rows, dtype=torch.int32, device=table.device)
        in_rows.append(part[present])
        out_rows.append(rows.expand_as(part)[present])
        slots.append(position.T[present.T])
        row_starts.append(per_row.cumsum(0, dtype=torch.int32) - per_row)
        counts = tuple(present.sum(1).tolist())
        blocks.append(Block((rows_done, rows_done + num_rows), pairs_done, counts))
        rows_done += num_rows
        pairs_done += sum(counts)
    return BlockedPairs(torch.cat(in_rows), torch.cat(out_rows), torch.cat(slots), torch.cat(row_starts), tuple(blocks))


def _tiles(table: Int[Tensor, "K M_out"]) -> Tiles:
    num_taps, num_rows = table.shape
    device = table.device
    present = table >= 0
    order = torch.arange(num_rows, device=device)
    # A stable sort by each word of the row's taps, and last by its window.
    for word in reversed(_words(present)):
        order = order[torch.argsort(word[order], stable=True)]
    order = order[torch.argsort(order // TILE_WINDOW, stable=True)]
    num_tiles = -(-num_rows // TILE_ROWS)
    padded = torch.nn.functional.pad(present[:, order], (0, num_tiles * TILE_ROWS - num_rows))
    has = padded.view(num_taps, num_tiles, TILE_ROWS).any(2).T
    taps = torch.argsort(has.logical_not().to(torch.uint8), dim=1, stable=True)
    return Tiles(
        table=table[:, order].contiguous(),
        order=order.to(torch.int32),
        taps=taps.to(torch.int32),
        counts=has.sum(1, dtype=torch.int32),
    )


def _words(present: Bool[Tensor, "K M"]) -> list[Int[Tensor, " M"]]:
    """The taps of each row as bits of int64 words, the first taps in the first word."""
    words = []
    for part in present.split(62):
        bits = 1 << torch.arange(len(part), device=present.device)
        words.append((part * bits[:, None]).sum(0))
    return words
