"""Bins of depth, the networks that tell them, and their loss."""

import math

import pytest
import torch

from ponder3d.encoders.image.depth import DepthBins, DepthHeadConfig, DepthNet, depth_bin_loss

FAMILY = DepthHeadConfig


def test_the_bins_of_unipad():
    bins = DepthBins()
    middles = bins.middles(torch.device("cpu"))
    assert len(middles) == 118 and middles[:2].tolist() == [1.25, 1.75] and float(middles[-1]) == 59.75
    assert bins.of(torch.tensor([0.99, 1.0, 1.49, 1.5, 59.99, 60.0])).tolist() == [-1, 0, 0, 1, 117, -1]


@pytest.mark.parametrize("wrong", [{"near": 2.0, "far": 1.0}, {"num": 0}, {"near": -1.0}])
def test_no_bins(wrong):
    with pytest.raises(ValueError, match="DepthBins"):
        DepthBins(**wrong)


def test_a_head_keeps_the_map_and_trains(member):
    config = member(channels=8, blocks=1, pyramid=4) if member is DepthNet else member()
    head = config.build(6, 5).train()
    scores = head(torch.rand(1, 6, 1, 2))  # one image of two cells
    assert scores.shape == (1, 5, 1, 2)
    head(torch.rand(2, 6, 4, 5)).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in head.parameters())


def test_the_loss_by_hand():
    """Two cells of two pixels; the second's nearest point is in bin 1, the first has none."""
    bins = DepthBins(near=0.0, far=3.0, num=3)
    depth = torch.tensor([[[0.0, 0.0, 2.5, 1.5], [0.0, 0.0, 0.0, 2.9]]])
    probability = torch.tensor([0.2, 0.7, 0.1]).view(1, 3, 1, 1).repeat(1, 1, 1, 2).requires_grad_()
    loss = depth_bin_loss(probability, depth, bins, 2)
    assert loss.item() == pytest.approx(-math.log(0.8) - math.log(0.7) - math.log(0.9), rel=1e-5)
    loss.backward()
    assert float(probability.grad[..., 0].abs().max()) == 0


def test_the_loss_of_nothing_and_of_a_padded_map():
    bins = DepthBins(near=1.0, far=3.0, num=2)
    probability = torch.full((1, 2, 2, 2), 0.5, requires_grad=True)
    loss = depth_bin_loss(probability, torch.zeros(1, 3, 3), bins, 2)
    loss.backward()
    assert loss.item() == 0 and bool(torch.isfinite(probability.grad).all())
    depth = torch.zeros(1, 3, 3)
    depth[0, 2, 2] = 1.5  # in the cell that is mostly padding
    assert depth_bin_loss(probability, depth, bins, 2).item() == pytest.approx(2 * math.log(2))
    depth[0, 2, 2] = 5.0
    assert depth_bin_loss(probability, depth, bins, 2).item() == 0
