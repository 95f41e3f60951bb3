"""Computing again in the backward pass: the same results, the same running statistics, less kept."""

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.geometry.kernels import kernels
from ponder3d.types import Batch, Grid, Points, Volume
from ponder3d.volume.unet3d import UNet3DConfig

ENCODER = SparseUNetConfig(("rgb", "one"), 0.1, 8, 3, (8, 12, 12, 8), (2, 2, 2, 2))
NET = UNet3DConfig((8, 12), 6)


def a_batch() -> Batch:
    points = Points(torch.rand(3000, 3), torch.rand(3000, 4), torch.tensor([1000, 2000]))
    return Batch(points, torch.zeros(2, 2, 3), torch.zeros(2, dtype=torch.int64), ("a", "b"))


def a_volume() -> Volume:
    return Volume(Grid(torch.tensor([[[0.0, 0, 0], [1, 1, 1]]]), (6, 5, 4)), torch.rand(1, 6, 5, 4, 40))


@pytest.mark.parametrize("which", ["encoder", "net"])
@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_nothing_changes_but_what_is_kept(which, engine):
    config, given = (ENCODER, a_batch()) if which == "encoder" else (NET, a_volume())
    results, kept = [], []
    for recompute in (False, True):
        torch.manual_seed(1)
        made = replace(config, recompute=recompute)
        module = made.build() if isinstance(made, SparseUNetConfig) else made.build(40)
        sizes: dict[int, int] = {}

        def pack(x, sizes=sizes):
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with kernels(engine), saved_tensors_hooks(pack, lambda x: x):
            feats = module(given).feats
        (feats * torch.linspace(-1, 1, feats.numel()).view_as(feats)).sum().backward()
        results.append([feats.detach(), *(p.grad for p in module.parameters()), *module.buffers()])
        kept.append(sum(sizes.values()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert kept[1] < 0.8 * kept[0]


def test_nothing_is_computed_again_without_gradients():
    net = replace(NET, recompute=True).build(40)
    with torch.no_grad():
        assert not net(a_volume()).feats.requires_grad
