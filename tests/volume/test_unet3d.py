import pytest
import torch

from ponder3d.types import Grid, Occupied, Volume
from ponder3d.types.scene import to_device
from ponder3d.volume.unet3d import ShallowNet3DConfig, UNet3DConfig


def a_volume(shape, channels=5, scenes=2) -> Volume:
    return Volume(Grid(torch.tensor([[[0.0] * 3, [1.0] * 3]] * scenes), shape), torch.randn(scenes, *shape, channels))


def test_parameters_of_the_papers_network():
    assert sum(p.numel() for p in UNet3DConfig().build(96).parameters()) == 2_991_520


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 7, 5), (16, 12, 6)])
@pytest.mark.parametrize(
    "config", [UNet3DConfig((4, 8, 12), 6), ShallowNet3DConfig(4, 2, 6), ShallowNet3DConfig(4, 1, 6, "add")]
)
def test_any_shape_goes_in_and_comes_out(config, shape):
    net = config.build(5)
    out = net(a_volume(shape))
    assert out.feats.shape == (2, *shape, 6) and net.out_channels == 6
    assert out.feats.is_contiguous()
    out.feats.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_axes_are_not_swapped():
    """An impulse spreads by one cell along each axis and nowhere else through one 3x3x3 convolution."""
    net = ShallowNet3DConfig(4, 1, 3).build(1).eval()
    volume = a_volume((5, 6, 7), channels=1, scenes=1)
    base = net(volume).feats
    bumped = volume.feats.clone()
    bumped[0, 3, 1, 5] += 1
    changed = (net(Volume(volume.grid, bumped)).feats - base).abs().sum(-1)[0] > 1e-7
    rows = changed.nonzero()
    assert rows.amin(0).tolist() == [2, 0, 4] and rows.amax(0).tolist() == [4, 2, 6]


def test_the_bypass_is_linear_in_the_cell():
    """Three channels: the first from the convolutions, the others a linear map of the cell."""
    net = ShallowNet3DConfig(4, 1, 3, bypass="appearance").build(2)
    volume = a_volume((3, 4, 5), channels=2)
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.fill_(0.5)
        net.bypass.weight.copy_(torch.tensor([[0.0, 2], [1, 1]]))
        net.bypass.bias.zero_()
    a, b = volume.feats.unbind(-1)
    torch.testing.assert_close(net(volume).feats, torch.stack([0 * a + 0.5, 2 * b, a + b], dim=-1))


def test_the_bypass_may_be_added():
    net = ShallowNet3DConfig(4, 1, 3, bypass="add").build(2)
    plain = ShallowNet3DConfig(4, 1, 3).build(2)
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if not name.startswith("bypass")})
    volume = a_volume((3, 4, 5), channels=2)
    torch.testing.assert_close(net(volume).feats, plain(volume).feats + net.bypass(volume.feats))


def a_sparse_volume(shape, share=0.15, channels=5, scenes=2, dtype=torch.float64) -> Volume:
    volume = a_volume(shape, channels, scenes)
    kept = torch.rand(scenes, *shape, 1) < share
    feats = torch.where(kept, volume.feats, 0).to(dtype)
    rows = kept.flatten().nonzero()[:, 0]
    return Volume(Grid(volume.grid.box.to(dtype), shape), feats, Occupied(rows, feats.flatten(0, 3)[rows]))


@pytest.mark.parametrize("shape", [(8, 6, 5), (3, 3, 3), (2, 1, 4), (1, 1, 1)])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_knowing_the_occupied_cells_changes_nothing(shape, share, training):
    config = ShallowNet3DConfig(4, 1, 6, "add")
    known = config.build(5).double().train(training)
    norm = known.blocks[0].norm
    for values in (norm.weight, norm.bias, norm.running_mean):
        torch.nn.init.normal_(values)
    unknown = config.build(5).double().train(training)
    unknown.load_state_dict(known.state_dict())
    sparse = a_sparse_volume(shape, share)
    results = []
    rows = sparse.occupied.rows
    for net in (known, unknown):
        feats = sparse.feats.clone().requires_grad_()
        occupied = Occupied(rows, feats.flatten(0, 3)[rows]) if net is known else None
        out = net(Volume(sparse.grid, feats, occupied)).feats
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        (out * weight).sum().backward()
        # What an empty cell would change is of no use to anybody: nothing computed it.
        at = feats.grad.flatten(0, 3)[rows]
        results.append([out.detach(), at, *(p.grad for p in net.parameters()), *net.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_the_unet_too():
    config = UNet3DConfig((4, 8), 6)
    known, unknown = config.build(5).double(), config.build(5).double()
    unknown.load_state_dict(known.state_dict())
    sparse = a_sparse_volume((9, 7, 5))
    torch.testing.assert_close(known(sparse).feats, unknown(Volume(sparse.grid, sparse.feats)).feats)


@pytest.mark.parametrize("config", [UNet3DConfig((4, 8, 12), 6), ShallowNet3DConfig(4, 2, 6, "appearance")])
def test_any_device_gives_the_same(config, device):
    net, volume = config.build(5).double().eval(), a_volume((9, 7, 5))
    volume = Volume(volume.grid, volume.feats.double())
    with torch.no_grad():
        expected = net(volume).feats
        torch.testing.assert_close(net.to(device)(to_device(volume, device)).feats.cpu(), expected)
