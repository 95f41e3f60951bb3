"""Randomness as a function of a key: the same key gives the same numbers on any device, in any order, on any rank.

Nothing here has state, so nothing has to be stored to continue a run, and a batch that is split over more ranks draws
the same numbers for each of its scenes. The mixing function is the SplitMix64 finaliser (Steele et al., "Fast
splittable pseudorandom number generators", 2014).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.geometry import kernels

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def derive(*numbers: int) -> int:
    """One 63-bit key from several integers, e.g. ``derive(seed, epoch, index)``; the order of the integers matters."""
    state = 0
    for number in numbers:
        state = (state + _GOLDEN + (number & _MASK)) & _MASK
        state = ((state ^ (state >> 30)) * _MIX_1) & _MASK
        state = ((state ^ (state >> 27)) * _MIX_2) & _MASK
        state ^= state >> 31
    return state >> 1


def generator(*numbers: int) -> torch.Generator:
    """A CPU generator seeded by ``derive(*numbers)``."""
    return torch.Generator().manual_seed(derive(*numbers))


def uniform_from(state: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The top 24 bits of a hash as a float32 in [0, 1); 24 bits are what a float32 holds without rounding up to 1."""
    return _shift_right(state, 40).to(torch.float32) * 2.0**-24


def normals_from(state: Int[Tensor, "..."]) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Two independent standard normal float32 of a hash (Box and Muller 1958), at most 5.8 from 0."""
    radius = (-2 * torch.log1p(-uniform_from(state))).sqrt()
    angle = 2 * torch.pi * uniform_from(state << 24)
    return radius * angle.cos(), radius * angle.sin()


def hashed(*counters: Int[Tensor, "..."] | int) -> Int[Tensor, "..."]:
    """A 64-bit hash per element of the broadcast counters: integer tensors or ints, at least one of them a tensor."""
    tensors = [c for c in counters if isinstance(c, Tensor)]
    device = tensors[0].device
    if kernels.use_triton(device):
        from ponder3d.geometry import triton_keyed  # noqa: PLC0415

        # A number without dimensions may be on the CPU, which a kernel cannot read.
        fit = all(t.ndim <= 2 and t.device == device for t in tensors)
        if fit and len(counters) <= triton_keyed.MOST:
            return triton_keyed.hashed(*counters)
    state = torch.zeros((), dtype=torch.int64, device=device)
    for counter in counters:
        # A plain int64 tensor wraps around on overflow, which is what modular arithmetic needs; beside a number
        # without dimensions a narrower type would prevail.
        state = state + _signed(_GOLDEN) + (counter.to(torch.int64) if isinstance(counter, Tensor) else counter)
        state = (state ^ _shift_right(state, 30)) * _signed(_MIX_1)
        state = (state ^ _shift_right(state, 27)) * _signed(_MIX_2)
        state = state ^ _shift_right(state, 31)
    return state


def _shift_right(x: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x
