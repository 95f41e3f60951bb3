"""Kernel maps: which input row meets which output row under which tap of a kernel.

A map is a table: the input row that each tap of each output row reads. From it every way of computing a convolution
makes the form it needs, once, when it is first asked for: ``BlockedPairs`` (plain PyTorch on a CPU) and ``Tiles``
(Triton); the reference and the compiled kernels read the table itself.
"""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ponder3d.geometry import kernels
from ponder3d.geometry.grid import AXIS_BITS, key_offset, pack_keys, unique_keys, unpack_keys
from ponder3d.sparse import compiled

Triple = tuple[int, int, int]

BLOCK_ROWS = 2048
"""Rows of a block of pairs: 2048 x about 10 neighbours x 64 channels x 4 B = 5 MB, the best of 512..8192 at 16..128
channels on a 2-core EPYC."""
TILE_ROWS = 128
"""Rows of a tile: what a Triton program multiplies at once."""
TILE_WINDOW = 1 << 16
"""Consecutive rows among which tiles are put together: 65536 x 64 channels x 2 B = 8 MB, a share of a GPU's L2."""
WORD_TAPS = 40
"""Taps in a word that rows are sorted by. 23 bits are left for the number of the window: 550 billion rows."""


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
    coords: Int[Tensor, "M 4"],
    kernel: int,
    stride: int,
    padding: int | Triple,
    limits: Triple | None = None,
) -> tuple[Int[Tensor, "M_out 4"], Int[Tensor, " M_out"], ConvMap]:
    """Map of a strided convolution; output ``q`` exists where some input lies at ``stride * q - padding + r``.

    The host waits for a GPU once, for the number of outputs.

    Args:
        coords: the inputs, sorted by key.
        kernel: taps along each axis.
        stride: step from one output to the next, in inputs.
        padding: by how many inputs the first output's taps begin before 0; one number, or one per axis.
        limits: outputs along each axis: those outside ``[0, limit)`` are left out, as where a volume of that shape is
            convolved. None: outputs are wherever an input reaches, negative coordinates included.

    Returns:
        Output coordinates sorted by key, their keys, and the map. With ``kernel == stride`` every input has one output.
    """
    if kernel == stride and padding == 0 and limits is None:
        # Each voxel has one parent: every pair counts.
        parent = coords[:, 1:].div(stride, rounding_mode="floor")
        x, y, z = (coords[:, 1:] - parent * stride).unbind(1)
        in_row = torch.arange(len(coords), device=coords.device)
        tap, out_key = (x * kernel + y) * kernel + z, pack_keys(torch.cat([coords[:, :1], parent], dim=1))
        found, _ = unique_keys(out_key)
        out_keys, out_row = found.keys, found.row
    else:
        tap, in_row, out_key = _candidates(coords, kernel, stride, triple(padding), limits)
        found, _ = unique_keys(out_key)
        # The last key stands for what is no pair: its pairs get a row that the tables do not have.
        out_keys, out_row = found.keys[:-1], found.row
    forward = _table_from_pairs(tap, out_row, in_row, kernel**3, len(coords), len(out_keys))
    transpose = _table_from_pairs(tap, in_row, out_row, kernel**3, len(out_keys), len(coords))
    return unpack_keys(out_keys), out_keys, ConvMap(forward=forward, transpose=transpose, mirrored=False)


def triple(value: int | Triple) -> Triple:
    """One number per axis."""
    return (value, value, value) if isinstance(value, int) else value


def _subm(table: TapTable) -> ConvMap:
    return ConvMap(forward=table, transpose=table, mirrored=True)


def _candidates(
    coords: Int[Tensor, "M 4"], kernel: int, stride: int, padding: Triple, limits: Triple | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Tap, input row and output key of every pair, and of others, whose key is greater than any output's.

    Along an axis an input is read by the taps that are congruent to ``coordinate + padding`` modulo the stride, at most
    ``ceil(kernel / stride)`` of them: with 3 and 2 that is 8 candidates an input, not 27, of which 27 / 8 are pairs on
    average. One more candidate, which is no pair, makes sure that the last of the keys is not an output.
    """
    if len(coords) == 0:
        nothing = coords.new_zeros(0)
        return nothing, nothing, coords.new_zeros(1)
    turns = torch.arange(-(-kernel // stride), device=coords.device) * stride
    taps, outs, fits = [], [], []
    for axis in range(3):
        reached = coords[:, axis + 1, None] + padding[axis]
        tap = reached.remainder(stride) + turns  # [M, J]
        out = (reached - tap).div(stride, rounding_mode="floor")
        fit = tap < kernel
        if limits is not None:
            fit = fit & (out >= 0) & (out < limits[axis])
        taps.append(tap)
        outs.append(out)
        fits.append(fit)
    j = len(turns)
    views = [(-1, j, 1, 1), (-1, 1, j, 1), (-1, 1, 1, j)]
    (tx, ty, tz), (ox, oy, oz), (fx, fy, fz) = (
        [x.view(shape) for x, shape in zip(part, views, strict=True)] for part in (taps, outs, fits)
    )
    fit = (fx & fy & fz).flatten()
    tap = ((tx * kernel + ty) * kernel + tz).flatten()
    in_row = torch.arange(len(coords), device=coords.device).repeat_interleave(j**3, output_size=len(tap))
    cells = torch.broadcast_tensors(coords[:, 0].view(-1, 1, 1, 1), ox, oy, oz)
    key = pack_keys(torch.stack([cell.flatten() for cell in cells], dim=1))
    # Beyond all others of the last scene, the other fields within their range: compiled sorting skips equal bits.
    beyond = pack_keys(coords[-1:]) | (((1 << AXIS_BITS) - 1) << 2 * AXIS_BITS)
    return torch.where(fit, tap, -1), in_row, torch.cat([torch.where(fit, key, beyond), beyond])


def _table_from_pairs(
    tap: Int[Tensor, " P"], row: Tensor, value: Tensor, num_taps: int, num_in: int, num_rows: int
) -> TapTable:
    """``rows[tap, row] = value``; a negative tap is no pair."""
    place = torch.where(tap < 0, num_taps * num_rows, tap * num_rows + row[: len(tap)])
    rows = torch.full((num_taps * num_rows + 1,), -1, dtype=torch.int32, device=tap.device)
    # An output and a tap determine the input, so no two pairs write to one place; the last place is cut off.
    rows[place] = value[: len(tap)].to(torch.int32)
    return TapTable(rows[:-1].view(num_taps, num_rows), num_in)


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
    row_keys, filled = _row_keys, _filled
    if kernels.use_triton(table.device):
        from ponder3d.sparse import triton_maps  # noqa: PLC0415

        row_keys, filled = triton_maps.row_keys, triton_maps.filled_tiles
    num_taps, num_rows = table.shape
    bits = min(num_taps, WORD_TAPS) + (num_rows // TILE_WINDOW).bit_length()
    words = row_keys(table, WORD_TAPS, TILE_WINDOW, torch.int32 if bits < 32 else torch.int64)
    order = torch.argsort(words[-1], stable=True)
    for word in reversed(words[:-1].unbind()):
        order = order[torch.argsort(word[order], stable=True)]
    return Tiles(*filled(table, order, TILE_ROWS))


def _row_keys(table: Int[Tensor, "K M"], word_taps: int, window: int, dtype: torch.dtype) -> Int[Tensor, "W M"]:
    """What rows are sorted by: the taps that each has as bits, the first taps in the first word, which begins with the
    number of the row's window."""
    present, rows = table >= 0, torch.arange(table.shape[1], device=table.device)
    words = []
    for part in present.split(word_taps):
        bits = 1 << torch.arange(len(part), device=table.device)
        words.append((part * bits[:, None]).sum(0))
    words[0] = words[0] | (rows // window << min(len(table), word_taps))
    return torch.stack(words).to(dtype)


def _filled(
    table: Int[Tensor, "K M"], order: Int[Tensor, " M"], tile_rows: int
) -> tuple[Int[Tensor, "K M"], Int[Tensor, " M"], Int[Tensor, "T K"], Int[Tensor, " T"]]:
    """The fields of ``Tiles``."""
    num_taps, num_rows = table.shape
    num_tiles = -(-num_rows // tile_rows)
    table = table[:, order]
    padded = torch.nn.functional.pad(table, (0, num_tiles * tile_rows - num_rows), value=-1)
    has = (padded.view(num_taps, num_tiles, tile_rows) >= 0).any(2).T
    taps = torch.argsort(has.logical_not().to(torch.uint8), dim=1, stable=True)
    return table, order.to(torch.int32), taps.to(torch.int32), has.sum(1, dtype=torch.int32)
