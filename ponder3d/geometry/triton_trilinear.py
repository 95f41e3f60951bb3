"""Trilinear sampling on a GPU: the Triton twins of the functions of ``trilinear.py``.

All of it moves bytes. Counted for the default indoor step: 8 scenes, N = 1.35 M fine samples, a volume of 128 x 128 x
32 cells (M = 4.2 M rows) with 128 channels in float32 (2.15 GB), of which the SDF decoder sees 64. Bytes a point,
gigabytes, and the time they take at the 3.3 TB/s of an H100 and the 4.8 TB/s of an H200:

    corners       point 20, index 32 (int32), weight 32, slope 96                  0.24 GB    0.07 ms    0.05 ms
    read          index 32, weight 32, rows 400, features 512                      1.3        0.40       0.27
    read_along    index 32, slope 96, half rows 200, g 256, result 12              0.8        0.24       0.17
    forward                                                                        2.4        0.72       0.50
    factors       weight 32, slope 96, direction 12, result 64                     0.28       0.08       0.06
    read          index 32, weights 64, half rows 200, result 256                  0.75       0.23       0.16
    scatter       sort 140, weights 2 x 64, values 3 x 256; gradient 2.15 GB       3.6        1.08       0.74
    backward                                                                       4.6        1.40       0.96

These are floors: nothing here has run on a GPU yet. What rows cost depends on the caches. In a simulated room (5 views
of 256 rays) there are 0.8 rows to a sample if each is read once, as the table has it, but 2.3 if each is read once for
every ray: if the L2 cache kept nothing between rays, ``read`` would move 2.4 GB and ``read_along`` 1.3. A volume in
bfloat16 is read as it is: half the bytes of rows and of the gradient.

The derivative is a gather of its own, because the decoder finds ``g`` only after the features are there. Keeping the
three sums per channel of the first gather until then would write and read 1536 bytes a point; reading half of the rows
again takes 200 to 600.

A program is one warp, whose 16 loads of 16 bytes a lane are all under way before the first is used; sums over corners
and samples stay within a lane. It goes through several tiles: with one each, a million programs would start.

**Scatter.** A point's corners are its lowest cell plus eight offsets that all points share: sorting N lowest cells does
for sorting 8 N corners (11 M). What touches ``_ROWS`` successive rows are then four runs of the sorted samples, two
along x times two along y; along z they join. A program adds them up and writes its rows once, zeros where nothing
touches them: no fill, no atomics, one order of summation. Values are read 4 (1 + 1 / _ROWS) = 5 times, 5 GB in all, but
mostly from the L2 cache, for the four runs lie 32 and 4096 rows apart. Of the rows three quarters are touched by
nothing, the others by 10 samples on average, those near a camera by hundreds; and all samples of rays that miss the
volume may lie in one cell, 30 thousand of them. Four at a time, they would keep one program busy for several
milliseconds. Hence whole blocks of sorted samples that share a cell are summed beforehand, each by a program of its
own, and crowded rows add these sums.
"""

from dataclasses import dataclass
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.types import Grid

_INT32_ROWS = 2**31 - 2**16
"""Volumes of fewer rows have an index of 32 bits: half the bytes, and half the passes of the sort."""
_POINTS = 128
"""Points of a program of ``_corners_kernel``."""
_CHANNELS = 64
"""Channels of a tile, at most."""
_TILES = 8
"""Tiles that a program goes through."""
_ROWS = 4
"""Rows of the gradient in a tile. For 4 samples and two terms, 4 rows take 143 instructions of sm_90, 8 rows 227 (and
read a tenth less samples), 2 rows 95 (and read a fifth more)."""
_BLOCK = 128
"""Sorted samples that are summed beforehand if they share a cell."""
_CROWDED = 512
"""Samples of a tile of rows from which on it uses these sums: 128 rounds of 4 samples, an estimated 0.06 ms."""


def corners(
    grid: Grid, xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"]
) -> tuple[Int[Tensor, "N 8"], Float[Tensor, "N 8"], Float[Tensor, "N 3 8"]]:
    """Index, weight and slope of the eight cells around each point; the index has 32 bits where these suffice."""
    num, (x, y, z) = len(xyz), grid.shape
    num_rows = len(grid.box) * x * y * z
    index = torch.empty(num, 8, dtype=torch.int32 if num_rows < _INT32_ROWS else torch.int64, device=xyz.device)
    weight = xyz.new_empty(num, 8)
    slope = xyz.new_empty(num, 3, 8)
    if num:
        given = xyz.contiguous(), scene.contiguous(), grid.box.contiguous()
        with torch.cuda.device_of(xyz):
            _corners_kernel[(triton.cdiv(num, _POINTS),)](*given, index, weight, slope, num, x, y, z, _POINTS)
    return index, weight, slope


def read(
    rows: Float[Tensor, "M C"],
    index: Int[Tensor, "N 8"],
    weight: Float[Tensor, "N 8"],
    out: Float[Tensor, "N C"] | None = None,
) -> Float[Tensor, "N C"]:
    """Weighted sum of each point's eight rows, in float32 at least.

    Rows need not be contiguous: ``rows[:, :64]`` of 128 channels costs no copy. The channels of ``out`` must be.
    """
    num, channels = len(index), rows.shape[1]
    if out is None:
        out = rows.new_empty(num, channels, dtype=_wide(rows.dtype))
    tile, points = _tile(channels)
    if num and channels:
        rows = _channels_last(rows)
        with torch.cuda.device_of(rows):
            _read_kernel[(triton.cdiv(num, _TILES * points),)](
                *(rows, index.contiguous(), weight, out, num, channels),
                *(rows.stride(0), weight.stride(0), weight.stride(1), out.stride(0)),
                **{"TILES": _TILES, "POINTS": points, "CHANNELS": tile, "SUM": _sum_type(rows.dtype), "num_warps": 1},
            )
    return out


def read_along(
    rows: Float[Tensor, "M C"], index: Int[Tensor, "N 8"], slope: Float[Tensor, "N 3 8"], g: Float[Tensor, "N D"]
) -> Float[Tensor, "N 3"]:
    """Derivative by the position of ``<g, f>`` with f the first D channels, in float32 at least."""
    num, channels = g.shape
    out = rows.new_zeros(num, 3, dtype=_wide(rows.dtype))
    tile, points = _tile(channels)
    if num and channels:
        rows, g = _channels_last(rows), _channels_last(g)
        with torch.cuda.device_of(rows):
            _read_along_kernel[(triton.cdiv(num, _TILES * points),)](
                *(rows, index.contiguous(), slope.contiguous(), g, out, num, channels, rows.stride(0), g.stride(0)),
                **{"TILES": _TILES, "POINTS": points, "CHANNELS": tile, "SUM": _sum_type(rows.dtype), "num_warps": 1},
            )
    return out


def factors(
    weight: Float[Tensor, "N 8"], slope: Float[Tensor, "N 3 8"], direction: Float[Tensor, "N 3"]
) -> Float[Tensor, "N 8 2"]:
    """Weight and ``<slope, direction>`` of each corner, in one pass."""
    num = len(weight)
    out = direction.new_empty(num, 8, 2)
    if num:
        given = weight.contiguous(), slope.contiguous(), direction.contiguous()
        with torch.cuda.device_of(weight):
            _factors_kernel[(triton.cdiv(num, _POINTS),)](*given, out, num, _POINTS)
    return out


def scatter(
    index: Int[Tensor, "N 8"],
    weight: Float[Tensor, "N 8 T"],
    values: Float[Tensor, "T N C"],
    num_rows: int,
    rest: Float[Tensor, "N D"] | None,
    dtype: torch.dtype,
) -> Float[Tensor, "{num_rows} E"]:
    """See ``trilinear.scatter``; sums are taken in float32 at least."""
    if rest is None:
        rest = values[0, :, :0]
    widths = [values.shape[2], rest.shape[1]]
    if not len(index):
        return torch.zeros(num_rows, sum(widths), dtype=dtype, device=index.device)
    into = torch.empty(num_rows, sum(widths), dtype=dtype, device=index.device)
    runs, weight = _sorted(index, num_rows), weight.contiguous()
    for terms, part in zip((values, rest[None]), into.split(widths, dim=1), strict=True):
        if part.shape[1]:
            _sum_runs(runs, weight, terms, part)
    return into


@dataclass(frozen=True)
class _Runs:
    """Samples in the order of their lowest cell."""

    index: Int[Tensor, "N 8"]
    order: Int[Tensor, " N"]
    low: Int[Tensor, " N"]
    """Lowest cell of each, ascending."""
    starts: Int[Tensor, " S"]
    """Where each cell's samples begin, and where the last ones end."""


def _sorted(index: Int[Tensor, "N 8"], num_rows: int) -> _Runs:
    low, order = torch.sort(index[:, 0], stable=True)
    cells = torch.arange(num_rows + 1, dtype=low.dtype, device=low.device)
    return _Runs(index.contiguous(), order.to(torch.int32), low, torch.searchsorted(low, cells, out_int32=True))


def _sum_runs(
    runs: _Runs, weight: Float[Tensor, "N 8 S"], values: Float[Tensor, "T N C"], into: Float[Tensor, "M C"]
) -> None:
    """The first T of S weights go with the values."""
    values = _channels_last(values)
    num_terms, num_samples, channels = values.shape
    tile, _ = _tile(channels)
    width = min(tile, _CHANNELS // 2)
    num_blocks, num_tiles = num_samples // _BLOCK, triton.cdiv(channels, tile)
    blocks = values.new_empty(num_blocks, 8, channels, dtype=_wide(values.dtype))
    given = weight, values, blocks, channels, values.stride(0), values.stride(1)
    sizes = {"SAMPLES": min(8, 2 * _CHANNELS // width), "PARTS": tile // width, "WIDTH": width, "BLOCK": _BLOCK}
    sizes |= {"TERMS": num_terms, "WEIGHTS": weight.shape[2], "SUM": _sum_type(values.dtype), "num_warps": 1}
    with torch.cuda.device_of(into):
        if num_blocks:
            _sum_blocks_kernel[(num_blocks, num_tiles)](runs.order, runs.low, *given, **sizes)
        _sum_runs_kernel[(triton.cdiv(len(into), _TILES * _ROWS), num_tiles)](
            *(runs.index, runs.order, runs.low, runs.starts, *given, into, len(into), into.stride(0)),
            **sizes,
            **{"WHOLE": channels % tile == 0, "CROWDED": _CROWDED, "TILES": _TILES, "ROWS": _ROWS},
        )


def _tile(channels: int) -> tuple[int, int]:
    """Channels and points of a tile."""
    tile = min(_CHANNELS, 1 << max(channels - 1, 0).bit_length())
    return tile, min(32, 4 * _CHANNELS // tile)


def _channels_last(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _sum_type(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32


# no_type_check: tl.constexpr is an annotation for Triton's compiler, which the type checker of the tests is not.
# do_not_specialize: these numbers change from call to call, and would be compiled again where they divide by 16.
@triton.jit(do_not_specialize=["num"])
@no_type_check
def _corners_kernel(
    xyz, scene, box, index, weight, slope, num, X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, POINTS: tl.constexpr
):
    point = (tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS))[:, None]
    corner = tl.arange(0, 8)[None, :]
    inside = point < num
    of_scene = tl.load(scene + point, mask=inside, other=0).to(tl.int64)
    x, wx, sx = _axis(xyz + point * 3, box + of_scene * 6, inside, corner // 4 == 1, X)
    y, wy, sy = _axis(xyz + point * 3 + 1, box + of_scene * 6 + 1, inside, corner // 2 % 2 == 1, Y)
    z, wz, sz = _axis(xyz + point * 3 + 2, box + of_scene * 6 + 2, inside, corner % 2 == 1, Z)
    row = ((of_scene * X + x) * Y + y) * Z + z
    tl.store(index + point * 8 + corner, row.to(index.dtype.element_ty), mask=inside)
    tl.store(weight + point * 8 + corner, wx * wy * wz, mask=inside)
    tl.store(slope + point * 24 + corner, sx * wy * wz, mask=inside)
    tl.store(slope + point * 24 + 8 + corner, wx * sy * wz, mask=inside)
    tl.store(slope + point * 24 + 16 + corner, wx * wy * sz, mask=inside)


@triton.jit
@no_type_check
def _axis(xyz, box, inside, upper, CELLS: tl.constexpr):
    """Cell, weight and slope of the corners along one axis; see ``trilinear.corners``."""
    lo = tl.load(box)
    size = tl.load(box + 3) - lo
    position = (tl.load(xyz, mask=inside, other=0.0) - lo) / size * CELLS - 0.5
    free = (position >= 0) & (position <= CELLS - 1) & (CELLS > 1)
    # A position that is no number must show in the weights, but may not lead any read out of the volume.
    within = tl.minimum(tl.where(position >= 0, position, 0.0), CELLS - 1.0)
    low = tl.minimum(tl.floor(within), CELLS - 2.0 if CELLS > 1 else 0.0)
    fraction = tl.where((position >= 0) | (position < 0), within - low, position)
    slope = tl.where(free, CELLS / size, 0.0)
    cell = low.to(tl.int64) + (upper & (CELLS > 1)).to(tl.int64)
    return cell, tl.where(upper, fraction, 1 - fraction), tl.where(upper, slope, -slope)


@triton.jit(do_not_specialize=["num"])
@no_type_check
def _factors_kernel(weight, slope, direction, out, num, POINTS: tl.constexpr):
    point = (tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS))[:, None]
    corner = tl.arange(0, 8)[None, :]
    inside = point < num
    along = tl.zeros([POINTS, 8], out.dtype.element_ty)
    for axis in tl.static_range(3):
        share = tl.load(slope + point * 24 + axis * 8 + corner, mask=inside, other=0.0)
        along += share * tl.load(direction + point * 3 + axis, mask=inside, other=0.0)
    value = tl.load(weight + point * 8 + corner, mask=inside, other=0.0).to(out.dtype.element_ty)
    # One store of pairs: two stores would each fill half of every sector.
    pair = (point * 8 + corner)[:, :, None] * 2 + tl.arange(0, 2)[None, None, :]
    tl.store(out + pair, tl.join(value, along), mask=inside[:, :, None])


@triton.jit(do_not_specialize=["num"])
@no_type_check
def _read_kernel(
    rows, index, weight, out, num, channels, row_stride, weight_stride, corner_stride, out_stride,
    TILES: tl.constexpr, POINTS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    corner = tl.arange(0, 8)[None, :, None]
    for tile in range(TILES):
        point = (tl.program_id(0) * TILES + tile).to(tl.int64) * POINTS + tl.arange(0, POINTS)[:, None, None]
        inside = point < num
        row = tl.load(index + point * 8 + corner, mask=inside, other=0).to(tl.int64) * row_stride
        share = tl.load(weight + point * weight_stride + corner * corner_stride, mask=inside, other=0.0).to(SUM)
        for start in range(0, channels, CHANNELS):
            channel = start + tl.arange(0, CHANNELS)[None, None, :]
            seen = inside & (channel < channels)
            # One load of all eight corners: they are all under way before the first is used.
            value = tl.load(rows + row + channel, mask=seen, other=0.0).to(SUM)
            total = tl.sum(share * value, axis=1, keep_dims=True)
            tl.store(out + point * out_stride + channel, total, mask=seen)


@triton.jit(do_not_specialize=["num"])
@no_type_check
def _read_along_kernel(
    rows, index, slope, g, out, num, channels, row_stride, g_stride,
    TILES: tl.constexpr, POINTS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    corner = tl.arange(0, 8)[None, :, None]
    for tile in range(TILES):
        point = (tl.program_id(0) * TILES + tile).to(tl.int64) * POINTS + tl.arange(0, POINTS)[:, None, None]
        inside = point < num
        row = tl.load(index + point * 8 + corner, mask=inside, other=0).to(tl.int64) * row_stride
        inner = tl.zeros([POINTS, 8, 1], SUM)
        for start in range(0, channels, CHANNELS):
            channel = start + tl.arange(0, CHANNELS)[None, None, :]
            seen = inside & (channel < channels)
            value = tl.load(rows + row + channel, mask=seen, other=0.0).to(SUM)
            along = tl.load(g + point * g_stride + channel, mask=seen, other=0.0).to(SUM)
            inner += tl.sum(value * along, axis=2, keep_dims=True)
        for axis in tl.static_range(3):
            share = tl.load(slope + point * 24 + axis * 8 + corner, mask=inside, other=0.0).to(SUM)
            tl.store(out + point * 3 + axis, tl.sum(share * inner, axis=1, keep_dims=True), mask=inside)


@triton.jit
@no_type_check
def _sum_blocks_kernel(
    order, low, weight, values, blocks, channels, term_stride, sample_stride,
    PARTS: tl.constexpr, SAMPLES: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, TERMS: tl.constexpr,
    WEIGHTS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """What a block of sorted samples adds to each of the eight corners, if all of it lies in one cell."""
    first = tl.program_id(0) * BLOCK
    corner = tl.arange(0, 8)[:, None, None, None]
    slot = tl.arange(0, SAMPLES)[None, :, None, None]
    channel = _channel(PARTS, WIDTH)
    seen = channel < channels
    if tl.load(low + first) == tl.load(low + first + BLOCK - 1):
        total = tl.zeros([8, SAMPLES, PARTS, WIDTH], SUM)
        for start in range(first, first + BLOCK, SAMPLES):
            sample = tl.load(order + start + slot).to(tl.int64)
            for term in tl.static_range(TERMS):
                share = tl.load(weight + (sample * 8 + corner) * WEIGHTS + term).to(SUM)
                at = values + term * term_stride + sample * sample_stride + channel
                total += share * tl.load(at, mask=seen, other=0.0).to(SUM)
        out = blocks + (tl.program_id(0).to(tl.int64) * 8 + corner) * channels + channel
        tl.store(out, tl.sum(total, axis=1, keep_dims=True), mask=seen)


@triton.jit(do_not_specialize=["num_rows"])
@no_type_check
def _sum_runs_kernel(
    index, order, low, starts, weight, values, blocks, channels, term_stride, sample_stride, out, num_rows, out_stride,
    PARTS: tl.constexpr, SAMPLES: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, TERMS: tl.constexpr,
    WEIGHTS: tl.constexpr, SUM: tl.constexpr, WHOLE: tl.constexpr, CROWDED: tl.constexpr, TILES: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Rows of the gradient: what touches them are the samples whose lowest cell is the row, or 1 to 7 offsets below.

    An offset never leads to a cell of another line or scene: the last cell of an axis is no sample's lowest, unless it
    is the only one, and then the offset is 0. (If that axis is z, upper corners do not follow, but weigh nothing.)
    """
    dz = tl.load(index + 1) - tl.load(index)
    dy = tl.load(index + 2) - tl.load(index)
    dx = tl.load(index + 4) - tl.load(index)
    row = tl.arange(0, ROWS)[:, None, None, None]
    slot = tl.arange(0, SAMPLES)[None, :, None, None]
    channel = _channel(PARTS, WIDTH)
    seen = (channel < channels) | WHOLE
    given = (order, low, weight, values, term_stride, sample_stride, row, channel, seen)
    for tile in range(TILES):
        first = (tl.program_id(0) * TILES + tile).to(dz.dtype) * ROWS
        # Runs (x, y) = (0, 0), (0, 1), (1, 0), (1, 1), and where each ends if they are put one behind the other.
        begin_0, end_0 = _run(starts, first, dz, ROWS, num_rows)
        begin_1, end_1 = _run(starts, first - dy, dz, ROWS, num_rows)
        begin_2, end_2 = _run(starts, first - dx, dz, ROWS, num_rows)
        begin_3, end_3 = _run(starts, first - dx - dy, dz, ROWS, num_rows)
        end_0 -= begin_0
        end_1 += end_0 - begin_1
        end_2 += end_1 - begin_2
        end_3 += end_2 - begin_3
        sums = tl.zeros([ROWS, 1, PARTS, WIDTH], SUM)
        if end_3 > 0:
            total = tl.zeros([ROWS, SAMPLES, PARTS, WIDTH], SUM)
            if end_3 < CROWDED:
                for start in range(0, end_3, SAMPLES):
                    # Slots behind the end repeat the last sample, and share no row with it: cheaper than masks.
                    place = tl.minimum(start + slot, end_3 - 1)
                    in_1, in_2, in_3 = place >= end_0, place >= end_1, place >= end_2
                    shift = tl.where(in_1, tl.where(in_2, begin_2 - end_1, begin_1 - end_0), begin_0)
                    place += tl.where(in_3, begin_3 - end_2, shift)
                    offset = tl.where(in_1, tl.where(in_2, dx, dy), 0)
                    offset = tl.where(in_3, dx + dy, offset) - first
                    corner = tl.where(in_3, 6, tl.where(in_1, tl.where(in_2, 4, 2), 0))
                    total = _add(total, given, place, start + slot < end_3, offset, corner, TERMS, WEIGHTS, SUM)
            else:
                for run in range(4):
                    offset = (run // 2) * dx + (run % 2) * dy - first
                    begin, end = _run(starts, -offset, dz, ROWS, num_rows)
                    for block in range(begin // BLOCK, (end + BLOCK - 1) // BLOCK):
                        left, right = tl.maximum(begin, block * BLOCK), tl.minimum(end, block * BLOCK + BLOCK)
                        total = _add_block(
                            total, given, left, right, offset, run * 2, slot, blocks, channels,
                            SAMPLES, BLOCK, TERMS, WEIGHTS, SUM,
                        )  # fmt: skip
            sums = tl.sum(total, axis=1, keep_dims=True)
        into = out + (first + row).to(tl.int64) * out_stride + channel
        tl.store(into, sums, mask=(first + row < num_rows) & seen)


@triton.jit
@no_type_check
def _run(starts, first, dz, ROWS: tl.constexpr, num_rows):
    """Sorted samples that have a corner in rows first to first + ROWS, of the two that are dz apart."""
    begin = tl.load(starts + tl.minimum(tl.maximum(first - dz, 0), num_rows))
    return begin, tl.load(starts + tl.minimum(tl.maximum(first + ROWS, 0), num_rows))


@triton.jit
@no_type_check
def _add(total, given, place, valid, offset, corner, TERMS: tl.constexpr, WEIGHTS: tl.constexpr, SUM: tl.constexpr):
    """Add sorted samples to the rows of their corners ``corner`` and ``corner + 1``, the lower and upper along z."""
    order, low, weight, values, term_stride, sample_stride, row, channel, seen = given
    near = tl.where(valid, tl.load(low + place) + offset, -2)
    sample = tl.load(order + place).to(tl.int64)
    for term in tl.static_range(TERMS):
        at = weight + (sample * 8 + corner) * WEIGHTS + term
        lower, upper = tl.load(at).to(SUM), tl.load(at + WEIGHTS).to(SUM)
        share = tl.where(near == row, lower, tl.where(near + 1 == row, upper, 0.0))
        of_sample = values + term * term_stride + sample * sample_stride + channel
        total += share * tl.load(of_sample, mask=seen, other=0.0).to(SUM)
    return total


@triton.jit
@no_type_check
def _add_block(
    total, given, left, right, offset, corner, slot, blocks, channels,
    SAMPLES: tl.constexpr, BLOCK: tl.constexpr, TERMS: tl.constexpr, WEIGHTS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Add the samples of a block, or of a part of one: by their sums if the block is whole and of one cell."""
    low, row, channel, seen = given[1], given[6], given[7], given[8]
    near = tl.load(low + left) + offset
    if (right - left == BLOCK) & (tl.load(low + right - 1) + offset == near):
        ready = blocks + ((left // BLOCK).to(tl.int64) * 8 + corner) * channels + channel
        lower, upper = tl.load(ready, mask=seen, other=0.0), tl.load(ready + channels, mask=seen, other=0.0)
        share = tl.where(near == row, lower, tl.where(near + 1 == row, upper, 0.0))
        total += tl.where(slot == 0, share, 0.0)
    else:
        for start in range(left, right, SAMPLES):
            place = tl.minimum(start + slot, right - 1)
            total = _add(total, given, place, start + slot < right, offset, corner, TERMS, WEIGHTS, SUM)
    return total


@triton.jit
@no_type_check
def _channel(PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """Channels of this program as ``PARTS x WIDTH``.

    A lane gets 4 channels of each part, and the warp 4 samples. With 64 channels in one part they would be 2, and what
    depends on the sample alone two thirds of the instructions instead of half.
    """
    part = tl.program_id(1) * PARTS + tl.arange(0, PARTS)[None, None, :, None]
    return part * WIDTH + tl.arange(0, WIDTH)[None, None, None, :]
