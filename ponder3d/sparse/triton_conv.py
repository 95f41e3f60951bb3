"""Sparse convolution as an implicit matrix product (Triton): the fast twin of ``functional._gather_multiply_sum``.

Output-stationary: a program owns a block of output rows and columns, walks the taps that any row of its tile has,
gathers the input rows of a tap and multiplies them by the tap's weight. Every sum is formed in one program, in the
order of the tile's list, in float32: no atomics, two runs agree to the bit. Rows with like neighbours lie in one tile,
so that few rows are multiplied for nothing. One kernel serves submanifold, strided and inverse convolutions and all
their input gradients (with the transposed weight, read in place); a second one makes the gradient of the weight.

What it must cost on an H100 (taken as 3.0 TB/s and 800 TFLOP/s in bfloat16, not measured by us) for
1 M voxels, 64 -> 64 channels, 27 taps, 10 neighbours a row, bfloat16:

    arithmetic      2 x 10 M x 64 x 64 = 82 GFLOP                                                     0.10 ms
    device memory   features 128 MB + outputs 128 MB + table 27 x 4 MB at most + order 4 MB           0.12 ms
    L2 to SM        gathered rows 10 M x 128 B = 1.3 GB; weights 8 KB a tap and tile: 7800 tiles of
                    128 rows x about 14 listed taps = 0.9 GB; at about 5.5 TB/s (a lead)              0.40 ms

So the floor is 0.12 ms, and traffic between L2 and the multiprocessors is what to save: blocks as wide as the output
channels gather a row once, blocks as tall as the tile read the weights once, blocks of one tile are neighbours in the
launch, and taps that no row of the tile has cost nothing. Gathers are 16 bytes wide where the channels are a multiple
of 8 (4 in float32), masked rows move no bytes, and (tap, block of input channels) is one flat loop, because the
compiler's software pipeline drains at the end of every inner loop. The gradient of the weight reads both rows of every
pair: 10 M x 256 B = 2.6 GB, 0.47 ms by the same lead.

Compiled for sm_90 without a GPU at hand, the main loop of the 128 x 64 x 64 block is 261 instructions a warp: 8 HGMMA,
12 asynchronous copies of 16 bytes, 2 plain loads, no spills. What it takes on an H200, at one size, is in
benchmarks/README.md.
"""

import math
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.sparse.triton_tuning import fit_conv, fit_weight_gradient, power_of_two, tuned

# Numbers of programs are chosen from shapes alone, with these, so that the order of every sum is the same on every GPU.
_MULTIPROCESSORS = 132
"""Of an H100; the same plan suits smaller GPUs."""
_NUM_SPLIT_STEPS = 8
"""Steps that a split of a convolution should have at least, or its start costs more than the split gains."""


def conv(
    feats: Float[Tensor, "M_in C_in"],
    weight: Float[Tensor, "K C_in C_out"],
    table: Int[Tensor, "K M_out"],
    order: Int[Tensor, " M_out"],
    tile_taps: Int[Tensor, "T K"],
    tile_counts: Int[Tensor, " T"],
    tile_rows: int,
    scale: Float[Tensor, " C_out"] | None = None,
    shift: Float[Tensor, " C_out"] | None = None,
    residual: Float[Tensor, "M_out C_out"] | None = None,
    relu: bool = False,
    *,
    ordered: bool = False,
) -> Float[Tensor, "M_out C_out"]:
    """``out[q] = relu(sum over taps r of feats[table[r, q]] @ weight[r] * scale + shift + residual)``.

    Args:
        feats: float32, bfloat16 or float16; sums and the epilogue are float32, the result has this dtype.
        weight: same dtype; a transposed view (``weight.transpose(1, 2)``) is read in place.
        table: int32 input row of each tap and output row, negative where there is none.
        order: int32 permutation of the output rows; rows with like neighbours are adjacent.
        tile_taps: int32; the first ``tile_counts[t]`` entries of row ``t`` are the taps that any of the rows
            ``order[t * tile_rows : (t + 1) * tile_rows]`` has.
        tile_counts: int32.
        tile_rows: a power of two, at least 16.
        scale: factor of each channel.
        shift: summand of each channel.
        residual: summand of each element.
        relu: whether negative results become 0.
        ordered: column ``j`` of ``table`` is that of output row ``order[j]``, not ``j``: its reads are then contiguous.

    Raises:
        ValueError: the dtypes differ or are not among the three, or ``tile_rows`` does not suit.
    """
    _check(feats, weight, tile_rows)
    num_taps, c_in, c_out = weight.shape
    num_rows, num_tiles = table.shape[1], len(tile_counts)
    if num_rows == 0:
        return feats.new_empty(0, c_out)
    transposed = not weight.is_contiguous() and weight.transpose(1, 2).is_contiguous()
    programs = num_tiles * _cdiv(c_out, 128)
    split = programs < _MULTIPROCESSORS
    steps = num_taps * _cdiv(c_in, 64)
    num_splits = max(1, min(2 * _MULTIPROCESSORS // programs, steps // _NUM_SPLIT_STEPS)) if split else 1
    # Few tiles leave most of the GPU idle: their taps are split among programs, and the parts are added up afterwards.
    shape, dtype = ((num_splits, num_rows, c_out), torch.float32) if split else ((num_rows, c_out), feats.dtype)
    out = feats.new_empty(shape, dtype=dtype)
    epilogue = (None, None, None) if split else (scale, shift, residual)

    def grid(meta: dict[str, Any]) -> tuple[int, int]:
        return num_tiles * (tile_rows // meta["BLOCK_M"]) * _cdiv(c_out, meta["BLOCK_N"]), num_splits

    _conv_kernel[grid](
        feats.contiguous(),
        weight if transposed else weight.contiguous(),
        *(x.contiguous() for x in (table, order, tile_taps, tile_counts)),
        out,
        *(x if x is None else x.contiguous() for x in epilogue),
        num_rows,
        num_splits,
        num_taps,
        *_units(c_in, c_out),
        TILE_ROWS=tile_rows,
        TRANSPOSED=transposed,
        ORDERED=ordered,
        RELU=relu and not split,
        SPLIT=split,
        PRECISION=_precision(feats.dtype),
    )
    return _finish(out, scale, shift, residual, relu).to(feats.dtype) if split else out


def weight_gradient(
    feats: Float[Tensor, "M_in C_in"],
    grad_out: Float[Tensor, "M_out C_out"],
    table: Int[Tensor, "K M_out"],
    order: Int[Tensor, " M_out"],
    tile_taps: Int[Tensor, "T K"],
    tile_counts: Int[Tensor, " T"],
    tile_rows: int,
    *,
    ordered: bool = False,
) -> Float[Tensor, "K C_in C_out"]:
    """``grad[r] = sum over output rows q of feats[table[r, q]] outer grad_out[q]``, in float32; arguments as ``conv``.

    The tiles are cut into equal ranges; every tap and range is summed by itself, then the ranges in order.

    Raises:
        ValueError: see ``conv``.
    """
    _check(feats, grad_out, tile_rows)
    (num_taps, num_rows), num_tiles = table.shape, len(tile_counts)
    c_in, c_out = feats.shape[1], grad_out.shape[1]
    if num_rows == 0:
        return feats.new_zeros(num_taps, c_in, c_out, dtype=torch.float32)
    # Eight programs for each multiprocessor even out that some taps (the centre) meet many more rows than others.
    blocks = num_taps * _cdiv(c_in, 64) * _cdiv(c_out, 64)
    range_tiles = _cdiv(num_tiles, min(num_tiles, _cdiv(8 * _MULTIPROCESSORS, blocks)))
    num_ranges = _cdiv(num_tiles, range_tiles)
    tap_tiles = tile_taps.new_empty(num_taps, num_tiles)
    tap_counts = tile_taps.new_empty(num_taps, num_ranges)
    _list_tiles_kernel[num_taps, num_ranges](
        tile_taps.contiguous(),
        tile_counts.contiguous(),
        tap_tiles,
        tap_counts,
        num_tiles,
        range_tiles,
        num_taps,
        BLOCK_L=power_of_two(num_taps),
        BLOCK_T=max(1, 4096 // power_of_two(num_taps)),
    )
    parts = feats.new_empty(num_ranges, num_taps, c_in, c_out, dtype=torch.float32)

    def grid(meta: dict[str, Any]) -> tuple[int, int]:
        return num_taps * _cdiv(c_in, meta["BLOCK_I"]) * _cdiv(c_out, meta["BLOCK_O"]), num_ranges

    _weight_gradient_kernel[grid](
        feats.contiguous(),
        grad_out.contiguous(),
        table.contiguous(),
        order.contiguous(),
        tap_tiles,
        tap_counts,
        parts,
        num_rows,
        num_tiles,
        range_tiles,
        num_taps,
        *_units(c_in, c_out),
        TILE_ROWS=tile_rows,
        ORDERED=ordered,
        FEW=range_tiles * tile_rows < 1024,
        PRECISION=_precision(feats.dtype),
    )
    return parts.sum(0) if num_ranges > 1 else parts[0]


def _check(feats: Tensor, other: Tensor, tile_rows: int) -> None:
    if feats.dtype not in (torch.float32, torch.bfloat16, torch.float16) or other.dtype != feats.dtype:
        raise ValueError(
            f"a Triton convolution needs float32, bfloat16 or float16, one for all: got {feats.dtype} and {other.dtype}"
        )
    if tile_rows < 16 or tile_rows & (tile_rows - 1):
        raise ValueError(f"tile_rows must be a power of two from 16, not {tile_rows}")


def _units(c_in: int, c_out: int) -> tuple[int, int, int, int]:
    """Channels as (number of units, channels of a unit): the compiler sees how they are aligned, whatever they are.

    It knows of an argument only whether 16 divides it; 24 channels of float16 would be read by 2 bytes instead of 16.
    """
    in_align, out_align = math.gcd(c_in, 16), math.gcd(c_out, 16)
    return c_in // in_align, in_align, c_out // out_align, out_align


def _precision(dtype: torch.dtype) -> str:
    """How float32 is multiplied, as ``torch.set_float32_matmul_precision`` says. AMD's compiler knows 'ieee' only."""
    exact = torch.get_float32_matmul_precision() == "highest" or torch.version.hip is not None
    return "ieee" if exact or dtype != torch.float32 else "tf32"


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _finish(parts: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
    """The sum of the parts of a split convolution and its epilogue, in float32."""
    out = parts.sum(0)
    if scale is not None:
        out *= scale
    if shift is not None:
        out += shift
    if residual is not None:
        out += residual
    return out.relu_() if relu else out


# no_type_check: tl.constexpr is an annotation for Triton's compiler, which the type checker of the tests is not.
# Numbers that change with the batch or the layer are not specialised: they would be compiled again for multiples of 16.
@tuned(
    [
        triton.Config({"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 64}, num_warps=4, num_stages=3),
        triton.Config({"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 64}, num_warps=4, num_stages=4),
        triton.Config({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64}, num_warps=4, num_stages=4),
        triton.Config({"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_K": 64}, num_warps=4, num_stages=3),
        triton.Config({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}, num_warps=8, num_stages=3),
        triton.Config({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=8, num_stages=4),
        triton.Config({"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64}, num_warps=8, num_stages=3),
        triton.Config({"BLOCK_M": 64, "BLOCK_N": 256, "BLOCK_K": 64}, num_warps=8, num_stages=3),
    ],
    fit_conv,
    key=["num_taps", "in_units", "IN_ALIGN", "out_units", "OUT_ALIGN", "TILE_ROWS", "TRANSPOSED", "SPLIT", "PRECISION"],
)
@triton.jit(do_not_specialize=["num_rows", "num_splits", "num_taps", "in_units", "out_units"])
@no_type_check
def _conv_kernel(
    feats,
    weight,
    table,
    order,
    tile_taps,
    tile_counts,
    out,
    scale,
    shift,
    residual,
    num_rows,
    num_splits,
    num_taps,
    in_units,
    IN_ALIGN: tl.constexpr,
    out_units,
    OUT_ALIGN: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ORDERED: tl.constexpr,
    RELU: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    c_in, c_out = in_units * IN_ALIGN, out_units * OUT_ALIGN
    num_n, num_k = tl.cdiv(c_out, BLOCK_N), tl.cdiv(c_in, BLOCK_K)
    # Programs of one tile are neighbours in the launch: the second one finds the gathered rows in the L2 cache.
    first = tl.program_id(0) // num_n * BLOCK_M
    n = tl.program_id(0) % num_n * BLOCK_N + tl.arange(0, BLOCK_N)
    tile = first // TILE_ROWS
    place = first + tl.arange(0, BLOCK_M)
    valid = place < num_rows
    row = tl.load(order + place, mask=valid, other=0)
    column = table + (place if ORDERED else row)

    # A step is a listed tap and a block of input channels. Its tap and rows are loaded one step ahead: with the rows at
    # hand, the pipeline fetches the features of num_stages - 1 steps while it multiplies (left to itself it gives each
    # of the three dependent loads one stage, and the features arrive when they are needed, not before).
    steps = tl.load(tile_counts + tile) * num_k
    begin, end = 0, steps
    if SPLIT:
        split = tl.program_id(1)
        out += split.to(tl.int64) * num_rows * c_out
        begin, end = steps * split // num_splits, steps * (split + 1) // num_splits
    entry = tile_taps + tile * num_taps + begin // num_k
    k0 = begin % num_k * BLOCK_K
    tap = tl.load(entry, mask=begin < end, other=0).to(tl.int64)
    source = tl.load(column + tap * num_rows, mask=valid & (begin < end), other=-1)
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for step in range(begin, end):
        k = k0 + tl.arange(0, BLOCK_K)
        gathered = tl.load(
            feats + (source.to(tl.int64) * c_in)[:, None] + k[None, :],
            mask=(source >= 0)[:, None] & (k < c_in)[None, :],
            other=0.0,
        )
        at = k[:, None] + n[None, :] * c_in if TRANSPOSED else k[:, None] * c_out + n[None, :]
        factors = tl.load(
            weight + tap * (c_in * c_out) + at, mask=(k < c_in)[:, None] & (n < c_out)[None, :], other=0.0
        )
        sums = tl.dot(gathered, factors, sums, input_precision=PRECISION)
        k0 += BLOCK_K
        entry += (k0 >= c_in).to(tl.int32)
        k0 = tl.where(k0 >= c_in, 0, k0)
        tap = tl.load(entry, mask=step + 1 < end, other=0).to(tl.int64)
        source = tl.load(column + tap * num_rows, mask=valid & (step + 1 < end), other=-1)

    if scale is not None:
        sums *= tl.load(scale + n, mask=n < c_out, other=0.0).to(tl.float32)[None, :]
    if shift is not None:
        sums += tl.load(shift + n, mask=n < c_out, other=0.0).to(tl.float32)[None, :]
    at = (row.to(tl.int64) * c_out)[:, None] + n[None, :]
    mask = valid[:, None] & (n < c_out)[None, :]
    if residual is not None:
        sums += tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
    if RELU:
        sums = tl.where(sums < 0, 0.0, sums)  # tl.maximum would turn NaN into 0
    tl.store(out + at, sums.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["num_tiles", "range_tiles", "num_taps"])
@no_type_check
def _list_tiles_kernel(
    tile_taps,
    tile_counts,
    tap_tiles,
    tap_counts,
    num_tiles,
    range_tiles,
    num_taps,
    BLOCK_L: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """The tiles of a range that contain a tap, in order, at the range's place in the tap's row of ``tap_tiles``."""
    tap = tl.program_id(0)
    begin = tl.program_id(1) * range_tiles
    end = tl.minimum(begin + range_tiles, num_tiles)
    entry = tl.arange(0, BLOCK_L)
    out = tap_tiles + tap.to(tl.int64) * num_tiles + begin
    found = 0
    for first in range(begin, end, BLOCK_T):
        tile = first + tl.arange(0, BLOCK_T)
        count = tl.load(tile_counts + tile, mask=tile < end, other=0)
        taps = tl.load(tile_taps + tile[:, None] * num_taps + entry[None, :], mask=entry[None, :] < count[:, None])
        has = tl.max(((taps == tap) & (entry[None, :] < count[:, None])).to(tl.int32), axis=1)
        tl.store(out + found + tl.cumsum(has) - has, tile, mask=has > 0)
        found += tl.sum(has)
    tl.store(tap_counts + tap * tl.num_programs(1) + tl.program_id(1), found)


@tuned(
    [
        triton.Config({"BLOCK_R": 64, "BLOCK_I": 64, "BLOCK_O": 64}, num_warps=4, num_stages=3),
        triton.Config({"BLOCK_R": 64, "BLOCK_I": 64, "BLOCK_O": 64}, num_warps=4, num_stages=4),
        triton.Config({"BLOCK_R": 128, "BLOCK_I": 64, "BLOCK_O": 64}, num_warps=4, num_stages=3),
        triton.Config({"BLOCK_R": 32, "BLOCK_I": 64, "BLOCK_O": 128}, num_warps=4, num_stages=4),
        triton.Config({"BLOCK_R": 64, "BLOCK_I": 128, "BLOCK_O": 64}, num_warps=4, num_stages=3),
        triton.Config({"BLOCK_R": 64, "BLOCK_I": 128, "BLOCK_O": 128}, num_warps=8, num_stages=3),
        triton.Config({"BLOCK_R": 64, "BLOCK_I": 128, "BLOCK_O": 256}, num_warps=8, num_stages=3),
    ],
    fit_weight_gradient,
    key=["num_taps", "in_units", "IN_ALIGN", "out_units", "OUT_ALIGN", "TILE_ROWS", "FEW", "PRECISION"],
)
@triton.jit(do_not_specialize=["num_rows", "num_tiles", "range_tiles", "num_taps", "in_units", "out_units"])
@no_type_check
def _weight_gradient_kernel(
    feats,
    grad_out,
    table,
    order,
    tap_tiles,
    tap_counts,
    parts,
    num_rows,
    num_tiles,
    range_tiles,
    num_taps,
    in_units,
    IN_ALIGN: tl.constexpr,
    out_units,
    OUT_ALIGN: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    ORDERED: tl.constexpr,
    FEW: tl.constexpr,  # only part of the tuning key: ranges of a few tiles are tuned apart
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    c_in, c_out = in_units * IN_ALIGN, out_units * OUT_ALIGN
    num_i, num_o = tl.cdiv(c_in, BLOCK_I), tl.cdiv(c_out, BLOCK_O)
    # All taps of a range are neighbours in the launch: they read the same rows at about the same time, from L2.
    tap = tl.program_id(0) // (num_o * num_i)
    i = tl.program_id(0) // num_o % num_i * BLOCK_I + tl.arange(0, BLOCK_I)
    o = tl.program_id(0) % num_o * BLOCK_O + tl.arange(0, BLOCK_O)
    part = tl.program_id(1)
    tiles = tap_tiles + tap.to(tl.int64) * num_tiles + part * range_tiles
    column = table + tap.to(tl.int64) * num_rows
    per_tile: tl.constexpr = TILE_ROWS // BLOCK_R
    sums = tl.zeros([BLOCK_I, BLOCK_O], tl.float32)
    steps = tl.load(tap_counts + tap * tl.num_programs(1) + part) * per_tile
    place = tl.load(tiles, mask=steps > 0, other=0) * TILE_ROWS + tl.arange(0, BLOCK_R)
    valid = (place < num_rows) & (steps > 0)
    row = tl.load(order + place, mask=valid, other=0)
    source = tl.load(column + (place if ORDERED else row), mask=valid, other=-1)
    for step in range(steps):
        met = source >= 0
        inputs = tl.load(  # [BLOCK_I, BLOCK_R]: loaded as its transpose it would miss the pipeline before Hopper
            feats + (source.to(tl.int64) * c_in)[None, :] + i[:, None],
            mask=(i < c_in)[:, None] & met[None, :],
            other=0.0,
        )
        grads = tl.load(
            grad_out + (row.to(tl.int64) * c_out)[:, None] + o[None, :],
            mask=met[:, None] & (o < c_out)[None, :],
            other=0.0,
        )
        sums = tl.dot(inputs, grads, sums, input_precision=PRECISION)
        ahead = step + 1
        place = tl.load(tiles + ahead // per_tile, mask=ahead < steps, other=0) * TILE_ROWS
        place += ahead % per_tile * BLOCK_R + tl.arange(0, BLOCK_R)
        valid = (place < num_rows) & (ahead < steps)
        row = tl.load(order + place, mask=valid, other=0)
        source = tl.load(column + (place if ORDERED else row), mask=valid, other=-1)
    at = ((part.to(tl.int64) * num_taps + tap) * c_in + i[:, None]) * c_out + o[None, :]
    tl.store(parts + at, sums, mask=(i < c_in)[:, None] & (o < c_out)[None, :])
