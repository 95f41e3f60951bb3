"""Projection heads have the width they say, and every layer of them learns."""

import pytest
import torch
from torch import nn

from ponder3d.config import from_json, to_json
from ponder3d.tasks.projection_heads import LinearProjection, MLPProjection, NoProjection, ProjectionHeadConfig

FAMILY = ProjectionHeadConfig


def test_the_width_is_what_comes_out(member):
    config = member()
    head = config.build(12)
    out = head(torch.randn(20, 12))
    assert out.shape == (20, config.width(12))
    assert from_json(ProjectionHeadConfig, to_json(config)) == config
    if list(head.parameters()):
        out.square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in head.parameters())


def test_layers():
    kinds = [type(layer) for layer in MLPProjection((8, 9), 7).build(3)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert [type(layer) for layer in MLPProjection((8,), 7, norm=False).build(3)] == [nn.Linear, nn.ReLU, nn.Linear]
    assert MLPProjection((), 7).build(3)(torch.zeros(1, 3)).shape == (1, 7)
    x = torch.randn(4, 5)
    assert torch.equal(NoProjection().build(5)(x), x)


def test_wrong_choices():
    with pytest.raises(ValueError, match=r"LinearProjection.out_channels must be at least 1, it is 0"):
        LinearProjection(0)
    with pytest.raises(ValueError, match=r"MLPProjection: channels must be at least 1, they are \(0,\) and 64"):
        MLPProjection((0,))
