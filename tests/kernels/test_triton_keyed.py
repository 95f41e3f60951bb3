"""Hashes against PyTorch's."""

import pytest
import torch

from ponder3d.geometry.kernels import kernels
from ponder3d.geometry.keyed import derive, hashed

BIG = (1 << 63) - 1


@pytest.mark.parametrize(
    "counters",
    [
        (torch.arange(1000),),
        (torch.tensor([BIG, -BIG, -1, 0]), torch.tensor([3, -3, BIG, 5])),
        (torch.arange(40)[:, None], torch.arange(30)),
        (torch.arange(40)[::3, None], torch.arange(60).view(30, 2)[:, 1], 0x717),
        (torch.tensor(7), torch.arange(5, dtype=torch.int32)),
        (torch.tensor(7), 9),
        (torch.arange(6), BIG, -5, torch.arange(12).view(2, 6)),
        (torch.arange(3), torch.arange(3), torch.arange(3), torch.arange(3), torch.arange(3)),
        (torch.arange(8).view(2, 2, 2), 1),
        (torch.arange(0), 1),
    ],
    ids=range(10),
)
def test_hashes_are_pytorchs(counters, device):
    moved = [c.to(device) if isinstance(c, torch.Tensor) else c for c in counters]
    with kernels("torch"):
        right = hashed(*moved)
    with kernels("triton"):
        found = hashed(*moved)
    assert torch.equal(found, right)


def test_they_are_those_of_integers(device):
    with kernels("triton"):
        found = hashed(torch.tensor([3, 3], device=device), torch.tensor([5, 6], device=device))
    assert [(int(h) & (2**64 - 1)) >> 1 for h in found] == [derive(3, 5), derive(3, 6)]
