"""Files of others: every name is used, or left out for a reason, or an error."""

import pytest
import torch
from safetensors.torch import save_file

from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.image.convnext import ConvNeXtConfig

CONFIG = ConvNeXtConfig(depths=(1, 2), dims=(4, 6), out_stages=(1,))
BLOCKS = [(0, 0), (1, 0), (1, 1)]


def timm(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The network's weights by timm's names, as in ``convnext_small.fb_in1k``; written down beside the converter."""
    own, out = net.state_dict(), {}
    for n in (0, 1):
        for kind in ("weight", "bias"):
            out[f"stem.{n}.{kind}"] = own[f"stem.{n}.{kind}"]
            out[f"stages.1.downsample.{n}.{kind}"] = own[f"stages.1.downsample.{n}.{kind}"]
    for i, j in BLOCKS:
        parts = {"conv_dw": "depthwise", "norm": "norm", "mlp.fc1": "expand", "mlp.fc2": "reduce"}
        for theirs, ours in parts.items():
            for kind in ("weight", "bias"):
                out[f"stages.{i}.blocks.{j}.{theirs}.{kind}"] = own[f"stages.{i}.blocks.{j}.{ours}.{kind}"]
        out[f"stages.{i}.blocks.{j}.gamma"] = own[f"stages.{i}.blocks.{j}.gamma"]
    head = {"head.norm.weight": 6, "head.norm.bias": 6, "head.fc.bias": 10}
    return out | {name: torch.rand(num) for name, num in head.items()} | {"head.fc.weight": torch.rand(10, 6)}


def renamed(weights: dict[str, torch.Tensor], *pairs: tuple[str, str]) -> dict[str, torch.Tensor]:
    out = {}
    for name, value in weights.items():
        for old, new in pairs:
            name = name.replace(old, new)
        out[name] = value
    return out


def authors(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return renamed(
        timm(net),
        ("stem.", "downsample_layers.0."),
        ("stages.1.downsample.", "downsample_layers.1."),
        ("blocks.", ""),
        ("conv_dw", "dwconv"),
        ("mlp.fc", "pwconv"),
        ("head.norm.", "norm."),
        ("head.fc.", "head."),
    )


def mmpretrain(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    of_authors = {k: v for k, v in authors(net).items() if not k.startswith("head.")}
    made = renamed(of_authors, ("dwconv", "depthwise_conv"), ("pwconv", "pointwise_conv"))
    return {f"backbone.{k if not k.startswith('norm.') else k.replace('norm.', 'norm1.')}": v for k, v in made.items()}


def torchvision(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    pairs = [("stem.", "features.0."), ("stages.1.downsample.", "features.2.")]
    pairs += [("stages.0.blocks.", "features.1."), ("stages.1.blocks.", "features.3.")]
    pairs += [("conv_dw", "block.0"), ("mlp.fc1", "block.3"), ("mlp.fc2", "block.5")]
    pairs += [("head.norm.", "classifier.0."), ("head.fc.", "classifier.2."), (".gamma", ".layer_scale")]
    made = renamed(timm(net), *pairs)
    made = {k.replace(".norm.", ".block.2.") if k.startswith("features") else k: v for k, v in made.items()}
    return {k: v[:, None, None] if k.endswith("layer_scale") else v for k, v in made.items()}


def convolutional(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """timm's smaller networks, whose linear layers are 1x1 convolutions."""
    return {k: v[:, :, None, None] if k.endswith(("fc1.weight", "fc2.weight")) else v for k, v in timm(net).items()}


@pytest.fixture
def source() -> torch.nn.Module:
    net = CONFIG.build().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
    return net


def result(net: torch.nn.Module) -> torch.Tensor:
    torch.manual_seed(3)
    return net.eval()(torch.rand(1, 3, 32, 32))[0]


@pytest.mark.parametrize("layout", [timm, authors, mmpretrain, torchvision, convolutional])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_every_layout_gives_the_same_network(source, layout, ending, tmp_path):
    weights = {name: value.clone().contiguous() for name, value in layout(source).items()}
    path = tmp_path / f"net.{ending}"
    if ending == "pth":
        torch.save({"model": weights}, path)
    else:
        save_file(weights, path)
    net = CONFIG.build()
    num = 2 if layout is mmpretrain else 4
    assert net.load(path) == {"head": (num, "it is for classes, and its norm for the mean of a map")}
    net.norms.load_state_dict(source.norms.state_dict())
    assert torch.equal(result(net), result(source))


def test_its_own_names_and_later_stages(source, tmp_path):
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    net = CONFIG.build()
    assert net.load(tmp_path / "own.safetensors") == {}
    assert torch.equal(result(net), result(source))
    early = ConvNeXtConfig(depths=(1, 2), dims=(4, 6), out_stages=(0,)).build()
    assert early.load(tmp_path / "own.safetensors") == {
        "stages": (4 + 2 * 9, "no map of so late a stage is returned"),
        "norms": (2, "their maps are not returned"),
    }


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda w: w | {"stages.0.blocks.0.mlp.grn.weight": torch.ones(1)}, "no name of a ConvNeXt's weights"),
        (lambda w: w | {"stages.0.blocks.7.gamma": torch.ones(4)}, "not in this network .*blocks.7.gamma"),
        (lambda w: {k: v for k, v in w.items() if k != "stem.0.bias"}, "1 weights are missing .*stem.0.bias"),
        (lambda w: w | {"stem.1.bias": torch.ones(5)}, r"stem.1.bias has shape \[5\], this network needs \[4\]"),
        (lambda w: {"conv1.weight": torch.ones(1)}, "no name of a ConvNeXt's weights"),
    ],
)
def test_files_of_something_else_change_nothing(source, change, what, tmp_path):
    save_file(change(timm(source)), tmp_path / "net.safetensors")
    net = CONFIG.build()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(EncoderFileError, match=what):
        net.load(tmp_path / "net.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_no_file_and_damaged_ones(tmp_path):
    net = CONFIG.build()
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        net.load(tmp_path / "net.pth")
    (tmp_path / "net.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(EncoderFileError, match="no intact safetensors file"):
        net.load(tmp_path / "net.safetensors")
    (tmp_path / "net.pth").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(EncoderFileError, match="no intact file of torch.save"):
        net.load(tmp_path / "net.pth")
