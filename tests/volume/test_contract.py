"""What every dense network of the package promises, found by walking it; a new one is tested without a word."""

import pytest
import torch
from torch import Tensor

from ponder3d.config import from_json, to_json
from ponder3d.types import Grid, Volume
from ponder3d.volume.unet3d import VolumeNet, VolumeNetConfig

FAMILY = VolumeNetConfig


def a_volume(*shape: int, scenes: int = 2) -> Volume:
    return Volume(Grid(torch.tensor([[[0.0] * 3, [1.0] * 3]] * scenes), shape), torch.randn(scenes, *shape, 5))


@pytest.fixture
def net(example) -> VolumeNet:
    return example.build(5)


def test_a_configuration_survives_json(example):
    assert from_json(VolumeNetConfig, to_json(example)) == example


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 7, 5), (16, 12, 6), (2, 3, 1)])
def test_any_grid_goes_in_and_comes_out(net, shape):
    volume = a_volume(*shape)
    out = net(volume)
    assert out.grid is volume.grid
    assert out.feats.shape == (2, *shape, net.out_channels) and out.feats.is_contiguous()
    assert bool(torch.isfinite(out.feats).all())


def test_every_parameter_is_trained(net):
    if not list(net.parameters()):
        pytest.skip("nothing to train")
    net(a_volume(12, 10, 8)).feats.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_scenes_of_a_batch_do_not_mix(net):
    net.eval()
    volume = a_volume(9, 7, 5, scenes=3)
    together = net(volume).feats
    for number in range(3):
        alone = net(Volume(Grid(volume.grid.box[number, None], volume.grid.shape), volume.feats[number, None]))
        torch.testing.assert_close(alone.feats[0], together[number], atol=1e-5, rtol=1e-4)


def test_an_empty_volume(net):
    """The volume of a scene whose points all lie elsewhere."""
    volume = a_volume(8, 8, 4)
    out = net(Volume(volume.grid, torch.zeros_like(volume.feats).requires_grad_())).feats
    out.sum().backward()
    assert bool(torch.isfinite(out).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in net.parameters() if p.grad is not None)


def centre_of_change(net: VolumeNet) -> Tensor:
    """Where the output changes, on average, when the input changes in cell (5, 12, 3)."""
    volume = a_volume(24, 16, 12, scenes=1)
    bumped = volume.feats.clone()
    bumped[0, 5, 12, 3] += 3
    change = (net(Volume(volume.grid, bumped)).feats - net(volume).feats).square().sum(-1)[0]
    cell = torch.stack(torch.meshgrid(*map(torch.arange, change.shape), indexing="ij"), dim=-1)
    return (cell * change[..., None]).sum((0, 1, 2)) / change.sum()


@torch.no_grad()
def test_axes_are_neither_swapped_nor_mirrored_nor_shifted(net):
    assert float((centre_of_change(net.eval()) - torch.tensor([5, 12, 3])).abs().max()) < 1


@torch.no_grad()
def test_evaluation_changes_nothing_and_repeats_to_the_bit(net):
    net.eval()
    volume = a_volume(9, 7, 5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert torch.equal(net(volume).feats, net(volume).feats)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_network_is_its_configuration_and_its_weights(net, example):
    net(a_volume(8, 8, 4))  # statistics that differ from the initial ones
    other = example.build(5)
    other.load_state_dict(net.state_dict())
    volume = a_volume(9, 7, 5)
    assert torch.equal(net.eval()(volume).feats, other.eval()(volume).feats)
