"""Kernel maps: which input row meets which output row under which tap of a kernel.

All rows of a level are sorted by their exact 64-bit key, so a neighbour is a binary search, and the run of neighbours
along z behind it costs one comparison each: a 3x3x3 map needs 9 searches per row instead of 27.

Pairs are stored grouped by block of output rows, then by tap. A convolution works block by block: it gathers the rows
of a block once, multiplies them tap by tap into a buffer that stays in cache, and sums the products of each output row
in a fixed order. No pass ever holds the features of all pairs, and nothing is added at random places.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ponder3d.geometry.grid import key_offset, pack_keys, unpack_keys

_BLOCK_ROWS_CPU = 2048
"""2048 rows x about 10 neighbours x 64 channels x 4 B = 5 MB: the best of 512..8192 on a 2-core EPYC at 16..128 ch."""
_BLOCK_ROWS_GPU = 1 << 18
_TABLE_ROWS = 1 << 16
"""Rows whose neighbour table is built at once: 65536 x 125 taps x 8 B = 66 MB."""


@dataclass(frozen=True)
class Block:
    """Consecutive output rows and their pairs."""

    rows: tuple[int, int]
    """First output row and the one after the last."""
    first_pair: int
    counts: tuple[int, ...]
    """Number of pairs of each tap."""


@dataclass(frozen=True)
class KernelMap:
    """The pairs of one convolution. The order is (block of output rows, tap, output row)."""

    in_rows: Int[Tensor, " P"]
    out_rows: Int[Tensor, " P"]
    slots: Int[Tensor, " P"]
    """Positions of the pairs within their block, ordered by output row: the order in which products are summed."""
    row_starts: Int[Tensor, " M_out"]
    """Where each output row's slots start within its block."""
    blocks: tuple[Block, ...]
    num_in: int
    num_out: int

    @property
    def max_block_pairs(self) -> int:
        """Pairs of the fullest block: the rows a working buffer needs."""
        return max((sum(block.counts) for block in self.blocks), default=0)


@dataclass(frozen=True)
class ConvMap:
    """A kernel map and the map of its transpose, which the gradient (and the inverse convolution) follows."""

    forward: KernelMap
    transpose: KernelMap
    mirrored: bool
    """True if ``transpose`` numbers the taps in reverse: a submanifold map is its own transpose, mirrored."""

    def transposed(self) -> "ConvMap":
        """The map from the outputs back to the inputs."""
        return ConvMap(forward=self.transpose, transpose=self.forward, mirrored=self.mirrored)


def subm_map(keys: Int[Tensor, " M"], kernel: int) -> ConvMap:
    """Submanifold map of an odd kernel: outputs sit where inputs are (Graham et al. 2018).

    Tap ``((rx * k) + ry) * k + rz`` reads the input at ``p + r - k // 2`` (cross-correlation, as torch's conv3d).
    """
    if kernel % 2 == 0 or kernel < 1:
        raise ValueError(f"a submanifold convolution needs an odd kernel, not {kernel}")
    builder = _MapBuilder(kernel**3, len(keys), len(keys), keys.device)
    for start in range(0, len(keys), _TABLE_ROWS):
        builder.add(_neighbour_table(keys, keys[start : start + _TABLE_ROWS], kernel))
    both = builder.finish()
    return ConvMap(forward=both, transpose=both, mirrored=True)


def strided_map(
    coords: Int[Tensor, "M 4"], kernel: int, stride: int, padding: int
) -> tuple[Int[Tensor, "M_out 4"], Int[Tensor, " M_out"], ConvMap]:
    """Map of a strided convolution; output ``q`` exists where some input lies at ``stride * q - padding + r``.

    Returns:
        Output coordinates sorted by key, their keys, and the map. With ``kernel == stride`` every input has one output.
    """
    taps = torch.cartesian_prod(*[torch.arange(kernel, device=coords.device)] * 3)
    tap_of, row_of, key_of = [], [], []
    for tap, r in enumerate(taps):
        reached = coords[:, 1:] + padding - r
        rows = (reached.remainder(stride) == 0).all(1).nonzero()[:, 0]
        q = torch.cat([coords[rows, :1], reached[rows].div(stride, rounding_mode="floor")], dim=1)
        tap_of.append(torch.full_like(rows, tap))
        row_of.append(rows)
        key_of.append(pack_keys(q))
    tap, in_row, out_key = torch.cat(tap_of), torch.cat(row_of), torch.cat(key_of)
    out_keys, out_row = torch.unique(out_key, sorted=True, return_inverse=True)
    forward = _map_from_pairs(tap, in_row, out_row, len(taps), len(coords), len(out_keys))
    transpose = _map_from_pairs(tap, out_row, in_row, len(taps), len(out_keys), len(coords))
    return unpack_keys(out_keys), out_keys, ConvMap(forward=forward, transpose=transpose, mirrored=False)


def _neighbour_table(keys: Tensor, centres: Tensor, kernel: int) -> Int[Tensor, "K rows"]:
    """Row of each tap's neighbour of some of the rows, -1 where there is none."""
    radius = kernel // 2
    table = torch.full((kernel**3, len(centres)), -1, dtype=torch.int64, device=keys.device)
    end = len(keys) - 1
    for dx in range(-radius, radius + 1):
        for dy in range(-radius, radius + 1):
            wanted = centres + key_offset(dx, dy, -radius)
            position = torch.searchsorted(keys, wanted)
            first = ((dx + radius) * kernel + dy + radius) * kernel
            for dz in range(kernel):
                at = position.clamp(max=end)
                hit = keys[at] == wanted + dz
                table[first + dz] = torch.where(hit, at, -1)
                position = position + hit
    return table


def _map_from_pairs(
    tap: Tensor, in_row: Tensor, out_row: Tensor, num_taps: int, num_in: int, num_out: int
) -> KernelMap:
    builder = _MapBuilder(num_taps, num_in, num_out, tap.device)
    for start in range(0, num_out, _TABLE_ROWS):
        stop = min(start + _TABLE_ROWS, num_out)
        here = ((out_row >= start) & (out_row < stop)).nonzero()[:, 0]
        table = torch.full((num_taps, stop - start), -1, dtype=torch.int64, device=tap.device)
        # An output and a tap determine the input, so no two pairs write to one place.
        table[tap[here], out_row[here] - start] = in_row[here]
        builder.add(table)
    return builder.finish()


class _MapBuilder:
    """Turns neighbour tables, given chunk by chunk of output rows, into one KernelMap."""

    def __init__(self, num_taps: int, num_in: int, num_out: int, device: torch.device):
        self.num_taps, self.num_in, self.num_out = num_taps, num_in, num_out
        self.block_rows = _BLOCK_ROWS_CPU if device.type == "cpu" else _BLOCK_ROWS_GPU
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        self.in_rows, self.out_rows, self.slots, self.row_starts = [empty], [empty], [empty], [empty]
        self.blocks: list[Block] = []
        self.rows_done = self.pairs_done = 0

    def add(self, table: Tensor) -> None:
        for part in table.split(self.block_rows, dim=1):
            self._add_block(part)

    def _add_block(self, table: Tensor) -> None:
        num_rows = table.shape[1]
        present = table >= 0
        rows = torch.arange(num_rows, device=table.device)
        position = (present.flatten().cumsum(0) - 1).view_as(table)
        per_row = present.sum(0)
        self.in_rows.append(table[present])
        self.out_rows.append((rows + self.rows_done).expand_as(table)[present])
        self.slots.append(position.T[present.T])
        self.row_starts.append(per_row.cumsum(0) - per_row)
        counts = tuple(present.sum(1).tolist())
        self.blocks.append(Block((self.rows_done, self.rows_done + num_rows), self.pairs_done, counts))
        self.rows_done += num_rows
        self.pairs_done += sum(counts)

    def finish(self) -> KernelMap:
        return KernelMap(
            in_rows=torch.cat(self.in_rows),
            out_rows=torch.cat(self.out_rows),
            slots=torch.cat(self.slots),
            row_starts=torch.cat(self.row_starts),
            blocks=tuple(self.blocks),
            num_in=self.num_in,
            num_out=self.num_out,
        )
