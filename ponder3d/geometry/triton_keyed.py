"""Hashes on a GPU in one launch: the Triton twin of ``keyed.hashed``, equal to it to the bit.

PyTorch makes 14 launches of each counter, 8.4 us of the host's time each on the machine of ``docs/log.md``; a step of
rendering hashes six times.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

_BLOCK = 512
MOST = 4
"""Counters that the kernel takes, at most."""


def hashed(*counters: Int[Tensor, "..."] | int) -> Int[Tensor, "..."]:
    """As ``keyed.hashed``, of at most ``MOST`` counters of at most two dimensions."""
    tensors = [c for c in counters if isinstance(c, Tensor)]
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    out = torch.empty(shape, dtype=torch.int64, device=tensors[0].device)
    if out.numel() == 0:
        return out
    given: list[Tensor | int] = []
    of_tensors = 0
    for number, counter in enumerate((*counters, *[0] * (MOST - len(counters)))):
        if isinstance(counter, Tensor):
            counter = counter.expand(shape)
            of_tensors |= 1 << number
            given += [counter, *(0, 0, *counter.stride())[-2:]]
        else:
            given += [counter, 0, 0]
    _hash_kernel[(triton.cdiv(out.numel(), _BLOCK),)](
        out,
        *given,
        out.numel(),
        shape[-1] if shape else 1,
        COUNT=len(counters),
        TENSORS=of_tensors,
        BLOCK=_BLOCK,
    )
    return out


@triton.jit
@no_type_check
def _shift_right(x, bits: tl.constexpr):
    return (x.to(tl.uint64, bitcast=True) >> bits).to(tl.int64, bitcast=True)


@triton.jit
@no_type_check
def _mixed(state, counter, row, column, along, across, IS_TENSOR: tl.constexpr, valid):
    if IS_TENSOR:
        counter = tl.load(counter + row * along + column * across, mask=valid, other=0)
    # SplitMix64's three constants, as the signed numbers of the same bits.
    state += counter.to(tl.int64) + -0x61C8864680B583EB
    state = (state ^ _shift_right(state, 30)) * -0x40A7B892E31B1A47
    state = (state ^ _shift_right(state, 27)) * -0x6B2FB644ECCEEE15
    return state ^ _shift_right(state, 31)


# Counters are numbers of steps and keys of scenes: nothing about them is worth another compilation.
@triton.jit(
    do_not_specialize=[
        *("c0", "along0", "across0", "c1", "along1", "across1", "c2", "along2", "across2", "c3", "along3", "across3"),
        *("num", "width"),
    ]
)
@no_type_check
def _hash_kernel(
    out,
    c0,
    along0,
    across0,
    c1,
    along1,
    across1,
    c2,
    along2,
    across2,
    c3,
    along3,
    across3,
    num,
    width,
    COUNT: tl.constexpr,
    TENSORS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = at < num
    row, column = at // width, at % width
    state = tl.zeros([BLOCK], tl.int64)
    state = _mixed(state, c0, row, column, along0, across0, TENSORS & 1, valid)
    if COUNT > 1:
        state = _mixed(state, c1, row, column, along1, across1, TENSORS >> 1 & 1, valid)
    if COUNT > 2:
        state = _mixed(state, c2, row, column, along2, across2, TENSORS >> 2 & 1, valid)
    if COUNT > 3:
        state = _mixed(state, c3, row, column, along3, across3, TENSORS >> 3 & 1, valid)
    tl.store(out + at, state, mask=valid)
