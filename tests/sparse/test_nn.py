import pytest
import torch

from ponder3d.sparse import nn as snn
from ponder3d.sparse import sparse_tensor


def a_tensor(num=200, channels=4, device=None):
    coords = torch.unique(torch.randint(-6, 6, (num, 3)), dim=0)
    coords = torch.cat([torch.zeros(len(coords), 1, dtype=torch.int64), coords], dim=1)
    return sparse_tensor(coords.to(device), torch.randn(len(coords), channels).to(device), 1, voxel_size=0.1)


def test_down_and_up_again_restores_the_voxels(device):
    x = a_tensor(device=device)
    down, up = snn.StridedConv3d(4, 6).to(device), snn.InverseConv3d(6, 5).to(device)
    coarse = down(x)
    assert coarse.stride == 2 and coarse.feats.shape[1] == 6
    assert torch.equal(torch.unique(x.coords[:, 1:].div(2, rounding_mode="floor"), dim=0), coarse.coords[:, 1:])
    fine = up(coarse)
    assert torch.equal(fine.coords, x.coords) and fine.stride == 1 and fine.feats.shape == (len(x.feats), 5)


def test_maps_are_built_once_per_family():
    x = a_tensor()
    first, second = snn.SubmConv3d(4, 4), snn.SubmConv3d(4, 4)
    y = second(first(x))
    assert y.maps is x.maps
    assert x.maps.subm(1, 3) is y.maps.subm(1, 3)
    assert x.maps.strided(1, 2, 2, 0) is y.maps.strided(1, 2, 2, 0)


def test_a_wide_map_is_let_go_once_a_narrower_one_was_cut_from_it():
    maps = a_tensor().maps
    wide, narrow = maps.subm(1, 5), maps.subm(1, 3)
    assert maps.subm(1, 3) is narrow
    again = maps.subm(1, 5)
    assert again is not wide and torch.equal(again.forward.rows, wide.forward.rows)
    assert maps.subm(1, 5) is again and maps.subm(1, 3) is narrow


def test_one_set_of_voxels_per_stride():
    x = a_tensor()
    snn.StridedConv3d(4, 4)(x)
    with pytest.raises(ValueError, match="one set of voxels per stride"):
        snn.StridedConv3d(4, 4, kernel=3, stride=2, padding=1)(x)


def test_bias():
    x = a_tensor()
    layer = snn.SubmConv3d(4, 3, bias=True)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, 2, 3]))
    assert bool((layer(x).feats == torch.tensor([1.0, 2, 3])).all())


@pytest.mark.parametrize("rows", [0, 1])
def test_batch_norm_of_too_few_rows_uses_the_running_statistics(rows):
    norm = snn.BatchNorm(3, eps=1e-3, momentum=0.1).train()
    out = norm(torch.full((rows, 3), 2.0))
    torch.testing.assert_close(out, torch.full((rows, 3), 2 / (1 + 1e-3) ** 0.5))
    assert int(norm.norm.num_batches_tracked or 0) == 0


def test_initial_weights():
    weight = snn.SubmConv3d(64, 64).weight.detach()
    assert float(weight.std()) == pytest.approx(0.02, rel=0.02)
    bound = 1 / (8 * 32) ** 0.5
    for layer in (snn.StridedConv3d(32, 64), snn.InverseConv3d(32, 64)):
        weight = layer.weight.detach()
        assert float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.03)
