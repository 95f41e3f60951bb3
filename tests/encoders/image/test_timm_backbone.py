"""timm's networks, with a stand-in for timm: it is not needed to test what is done with it."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.image.masking import PatchMask
from ponder3d.encoders.image.timm_backbone import TimmConfig


class Maps(nn.Module):
    """Like a network of timm with ``features_only``: its stages are attributes with an underscore."""

    def __init__(self):
        super().__init__()
        self.stem_0 = nn.Conv2d(3, 4, 4, stride=4)
        self.stages_0 = nn.Sequential(nn.Conv2d(4, 6, 2, stride=2))
        self.feature_info = SimpleNamespace(channels=lambda: [6], reduction=lambda: [8])

    def forward(self, x):
        return [self.stages_0(self.stem_0(x))]


@pytest.fixture
def timm(monkeypatch):
    module = ModuleType("timm")

    def create_model(name, pretrained, features_only, out_indices):
        assert features_only and not pretrained and out_indices == (-1,)
        if name != "maps":
            raise RuntimeError(f"Unknown model ({name})")
        return Maps()

    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", module)


def test_its_maps_are_ours(timm):
    net = TimmConfig(name="maps").build()
    assert (net.channels, net.strides, net.multiple, net.masks) == ((6,), (8,), 8, False)
    assert net(torch.rand(2, 3, 15, 16))[0].shape == (2, 6, 2, 2)
    with pytest.raises(ValueError, match=r"cannot hide patches of images; set masking\.ratio to 0"):
        net(torch.rand(1, 3, 16, 16), PatchMask(torch.ones(1, 2, 2, dtype=torch.bool), 8))


def test_weights_of_the_whole_network(timm, tmp_path):
    net, source = TimmConfig(name="maps").build(), Maps()
    whole = {name.replace("_0", ".0", 1): value for name, value in source.state_dict().items()}
    save_file(whole | {"head.fc.weight": torch.ones(2)}, tmp_path / "net.safetensors")
    assert net.load(tmp_path / "net.safetensors") == {"head": (1, "it is for classes")}
    assert torch.equal(net.net.stages_0[0].weight, source.stages_0[0].weight)
    save_file(whole | {"stages.1.weight": torch.ones(2)}, tmp_path / "net.safetensors")
    with pytest.raises(EncoderFileError, match=r"stages\.1\.weight is in no part of Maps"):
        net.load(tmp_path / "net.safetensors")
    save_file({"stem.0.weight": whole["stem.0.weight"]}, tmp_path / "net.safetensors")
    with pytest.raises(EncoderFileError, match="3 weights are missing"):
        net.load(tmp_path / "net.safetensors")


def test_a_name_that_timm_does_not_know(timm):
    with pytest.raises(ValueError, match=r"timm makes no maps of 'nothing' \(Unknown model"):
        TimmConfig(name="nothing").build()


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm cannot be imported .*pip install 'ponder3d\[images\]'"):
        TimmConfig().build()
