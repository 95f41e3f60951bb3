"""The pyramid."""

import pytest
import torch

from ponder3d.encoders.image.neck import FPNConfig


def identity(conv: torch.nn.Conv2d, scale: float) -> None:
    """The middle tap passes the first channel on."""
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = scale


def test_coarse_maps_are_added_to_finer_ones():
    neck = FPNConfig(channels=1, levels=2).build((5, 1, 1), (4, 8, 16))
    assert (neck.channels, neck.strides) == ((1, 1), (8, 16))
    for conv, scale in zip((*neck.lateral, *neck.out), (1.0, 10.0, 1.0, 1.0), strict=True):
        identity(conv, scale)
    fine, coarse = torch.arange(8.0).view(1, 1, 2, 4), torch.tensor([[[[1.0, 2.0]]]])
    found = neck((torch.zeros(1, 5, 4, 8), fine, coarse))
    assert found[1].flatten().tolist() == [10, 20]
    assert found[0][0, 0].tolist() == [[10, 11, 22, 23], [14, 15, 26, 27]]


def test_the_finest_alone():
    both = FPNConfig(channels=2, levels=2).build((3, 4), (8, 16))
    one = FPNConfig(channels=2, levels=2, finest=True).build((3, 4), (8, 16))
    one.load_state_dict({name: both.state_dict()[name] for name in one.state_dict()})
    maps = (torch.rand(1, 3, 4, 6), torch.rand(1, 4, 2, 3))
    (found,) = one(maps)
    assert (one.channels, one.strides) == ((2,), (8,)) and torch.equal(found, both(maps)[0])


def test_a_single_map_keeps_its_size():
    neck = FPNConfig(channels=6).build((4,), (32,))
    assert neck((torch.rand(2, 4, 3, 5),))[0].shape == (2, 6, 3, 5)


def test_more_levels_than_maps():
    with pytest.raises(ValueError, match="2 of 1 maps; see backbone.out_stages"):
        FPNConfig(levels=2).build((4,), (32,))
