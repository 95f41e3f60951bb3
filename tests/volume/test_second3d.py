import pytest
import torch
import torch.nn.functional as F

from ponder3d.types import Grid, Volume
from ponder3d.volume.second3d import Second3DConfig


def example() -> Second3DConfig:
    """For the contract of dense networks."""
    return Second3DConfig((6, 8, 10), (1, 2, 4), 1, 7)


def a_volume(*shape: int, channels: int) -> Volume:
    return Volume(Grid(torch.tensor([[[0.0] * 3, [1.0] * 3]]), shape), torch.randn(1, *shape, channels))


def test_heights_do_not_mix():
    net = example().build(5).eval()
    volume = a_volume(8, 8, 4, channels=5)
    bumped = volume.feats.clone()
    bumped[0, 3, 4, 2] += 1
    change = (net(Volume(volume.grid, bumped)).feats - net(volume).feats).abs().sum(-1)[0]
    assert change[:, :, 2].count_nonzero() > 1 and change[:, :, [0, 1, 3]].count_nonzero() == 0


def test_branches_are_summed_each_at_its_resolution():
    """With constant weights a branch of stride 2 sees every second cell and says the same in each 2 x 2 of them."""
    net = Second3DConfig((1, 1), (1, 2), 0, 1, norm_eps=0.0).build(1).eval()
    for name, value in net.named_parameters():
        if "conv.weight" in name:
            torch.nn.init.constant_(value, 0)
            value.data[0, 0, 1, 1, 0] = 10.0 if name.startswith("branches.1") else 1.0  # the cell itself
        if "up.weight" in name:
            torch.nn.init.constant_(value, 1)
    volume = Volume(a_volume(4, 2, 1, channels=1).grid, torch.arange(8.0).view(1, 4, 2, 1, 1))
    out = net(volume).feats.flatten()
    own = torch.arange(8.0)
    coarse = 10 * torch.tensor([0.0, 0, 0, 0, 4, 4, 4, 4])  # cells (0, 0) and (2, 0)
    torch.testing.assert_close(out, own + coarse)


def test_none_of_the_sum_is_negative():
    out = example().build(5)(a_volume(9, 7, 2, channels=5)).feats
    assert bool((out >= 0).all()) and torch.equal(F.relu(out), out)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": (4,)}, "one entry per branch"),
        ({"strides": (1, 0, 4)}, "must be positive"),
        ({"depth": -1}, "depth"),
    ],
)
def test_bad_choices(wrong, message):
    with pytest.raises(ValueError, match=f"Second3DConfig.*{message}"):
        Second3DConfig(**wrong)
