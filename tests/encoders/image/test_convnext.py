"""ConvNeXt: what a block computes, what masks keep out, and the sizes of the paper."""

import pytest
import torch
import torch.nn.functional as F

from ponder3d.encoders.image.convnext import ConvNeXtConfig, _Block
from ponder3d.encoders.image.masking import PatchMask

TINY = ConvNeXtConfig(depths=(1, 2, 1, 1), dims=(4, 8, 8, 12), out_stages=(0, 1, 2, 3), layer_scale=1.0, drop_path=0.0)


def test_a_block_by_hand():
    """One channel pair, a delta as depthwise kernel: layer norm, two linear layers, scale and sum remain."""
    block = _Block(2, 0.0, 0.5)
    with torch.no_grad():
        block.depthwise.weight.zero_()
        block.depthwise.weight[:, 0, 3, 3] = 1
        block.depthwise.weight[1, 0, 3, 4] = 1  # and the neighbour to the right
        block.depthwise.bias.zero_()
        block.expand.weight.zero_()
        block.expand.weight[0, 0] = block.expand.weight[1, 1] = 1
        block.expand.bias.zero_()
        block.reduce.weight.zero_()
        block.reduce.weight[0, 0], block.reduce.weight[1, 1] = 2, 3
        block.reduce.bias.copy_(torch.tensor([0.0, 1.0]))
    x = torch.tensor([[[[1.0, 5.0]], [[3.0, 7.0]]]])
    # First pixel: (1, 3 + 7) -> norm (-1, 1) up to eps; second: (5, 7) -> (-1, 1).
    gelu = F.gelu(torch.tensor([-1.0, 1.0]))
    expected = x + 0.5 * torch.tensor([2 * gelu[0], 3 * gelu[1] + 1])[:, None, None]
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=0)


def test_a_block_left_out_is_the_identity_and_the_others_are_scaled():
    block = _Block(4, 0.5, 1.0)
    x = torch.randn(64, 4, 2, 2)
    whole = block.eval()(x) - x
    change = block.train()(x) - x
    left_out = change.flatten(1).abs().amax(1) == 0
    assert 10 < int(left_out.sum()) < 54
    torch.testing.assert_close(change[~left_out], 2 * whole[~left_out])


@pytest.mark.parametrize(
    ("size", "millions"), [("tiny", 27.82), ("small", 49.45), ("base", 87.57), ("large", 196.23), ("atto", 3.37)]
)
def test_numbers_of_parameters(size, millions):
    """Those of the paper without the classifier's 1000 rows and with one norm, of the last map (atto: of timm, whose
    stem and blocks are the same)."""
    with torch.device("meta"):
        net = ConvNeXtConfig(size=size).build()
    found = sum(p.numel() for p in net.parameters()) / 1e6
    assert found == pytest.approx(millions, abs=0.01)


def test_maps_and_padding():
    net = TINY.build().eval()
    assert (net.strides, net.channels, net.multiple) == ((4, 8, 16, 32), (4, 8, 8, 12), 32)
    images = torch.rand(2, 3, 33, 64)
    maps = net(images)
    assert [tuple(m.shape) for m in maps] == [(2, 4, 16, 16), (2, 8, 8, 8), (2, 8, 4, 4), (2, 12, 2, 2)]
    padded = torch.cat([images, net.mean.expand(2, 3, 1, 64).repeat(1, 1, 31, 1)], dim=2)
    for a, b in zip(net(padded), maps, strict=True):
        torch.testing.assert_close(a, b)  # the padding has the mean colour


def test_colours_are_normalised():
    net = ConvNeXtConfig(depths=(1,), dims=(4,), out_stages=(0,), mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.5)).build()
    net.stem.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    seen: list[torch.Tensor] = []
    net(torch.tensor([0.3, 0.3, 0.9])[None, :, None, None].expand(1, 3, 4, 4))
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([1.0, 0.0, 1.0]))


@pytest.mark.parametrize("training", [True, False])
def test_hidden_pixels_cannot_be_seen(training):
    net = TINY.build().train(training)
    visible = torch.ones(2, 3, 3, dtype=torch.bool)
    visible[0, 1, 1] = visible[1, 0, 0] = visible[1, 2, 1] = False
    mask = PatchMask(visible, 32)
    images = torch.rand(2, 3, 90, 96)
    changed = images.clone()
    changed[0, :, 32:64, 32:64] = torch.rand(3, 32, 32)
    changed[1, :, :32, :32] = 0
    changed[1, :, 64:, 32:64] = 1
    ours, others, seen = net(images, mask), net(changed, mask), net(images)
    for a, b, c, stride in zip(ours, others, seen, net.strides, strict=True):
        assert torch.equal(a, b)
        hidden = ~mask.cells((a.shape[2], a.shape[3]), stride).expand_as(a)
        assert bool((a[hidden] == 0).all()) and int(hidden.sum()) == 3 * a.shape[1] * (32 // stride) ** 2
        assert bool((a[~hidden] != 0).any()) and not torch.allclose(a[~hidden], c[~hidden]), "the mask does nothing"


def test_a_mask_that_hides_nothing_changes_nothing():
    net = TINY.build().eval()
    images = torch.rand(1, 3, 64, 64)
    mask = PatchMask(torch.ones(1, 2, 2, dtype=torch.bool), 32)
    for a, b in zip(net(images, mask), net(images), strict=True):
        assert torch.equal(a, b)


def test_a_hole_is_no_black_patch():
    """Hidden cells stay zero, where biases would make something else of a patch of the mean colour."""
    net = TINY.build().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = net.mean.expand(1, 3, 64, 64).clone()
    images[:, :, :, :32] = torch.rand(3, 64, 32)
    mask = PatchMask(torch.tensor([[[True, False], [True, False]]]), 32)
    a, b = net(images, mask)[0].detach(), net(images)[0].detach()
    assert float((a[..., :8] - b[..., :8]).abs().max()) > 1e-3


def test_frozen_stages_do_not_learn_and_leave_nothing_out():
    net = ConvNeXtConfig(depths=(2, 2), dims=(4, 8), out_stages=(1,), drop_path=0.9, frozen_stages=1).build().train()
    assert not net.stages[0].training and net.stages[1].training
    net(torch.rand(2, 3, 16, 16))[0].square().sum().backward()
    learn = {name for name, p in net.named_parameters() if p.requires_grad}
    assert learn == {name for name, _ in net.named_parameters() if name.startswith(("stages.1.", "norms."))}
    assert all((p.grad is not None) == (name in learn) for name, p in net.named_parameters())


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"depths": (1, 1)}, "must be as many"),
        ({"out_stages": (4,)}, "no ascending stages of 4"),
        ({"out_stages": (2, 1)}, "no ascending stages"),
        ({"out_stages": ()}, "no ascending stages"),
        ({"frozen_stages": 5}, "frozen_stages"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_choices_that_make_no_network(wrong, what):
    with pytest.raises(ValueError, match=what):
        ConvNeXtConfig(**wrong)
