import torch

from ponder3d.types import Grid, Volume
from ponder3d.volume.projection import ProjectionConfig


def test_convolution_norm_relu():
    net = ProjectionConfig(3).build(2)
    volume = Volume(Grid(torch.tensor([[[0.0] * 3, [1.0] * 3]]), (4, 5, 3)), torch.randn(1, 4, 5, 3, 2))
    x = torch.nn.functional.conv3d(volume.feats.permute(0, 4, 1, 2, 3), net.conv.conv.weight, padding=1)
    x = (x - x.mean((0, 2, 3, 4), keepdim=True)) / (x.var((0, 2, 3, 4), unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(net(volume).feats, x.clamp(min=0).permute(0, 2, 3, 4, 1))
