"""Checkpoints with the names and shapes of the released ones, and random weights; and the network that wrote them.

The names are written down here a second time, from the description of the released files, and the network is built of
spconv's own layers: it takes the weights under those names (``load_state_dict`` is strict) and says what they mean.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BACKBONE = ("ScanNet", "S3DIS", "Structured3D")
OUTER = ("Structured3D", "ScanNet", "S3DIS")


@dataclass(frozen=True)
class Net:
    """Sizes of a SpUNet. The defaults are small; ``FULL`` is the released one."""

    inputs: int = 6
    stem: int = 4
    channels: tuple[int, ...] = (6, 8, 8, 5)
    blocks: tuple[int, ...] = (1, 2, 2, 1)
    conditions: int = 0
    """Batch norms of each norm; 0 makes it v1m1."""
    adaptive: bool = True
    affine: bool = True
    prompt: int = 7
    classes: int = 0

    @property
    def prompted(self) -> bool:
        return self.conditions > 0


FULL = Net(stem=32, channels=(32, 64, 128, 256, 256, 128, 96, 96), blocks=(2, 3, 4, 6, 2, 2, 2, 2), prompt=256)


@dataclass
class Writer:
    """Collects random weights under names."""

    seed: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        self.generator = torch.Generator().manual_seed(self.seed)

    def normal(self, name: str, *shape: int, std: float = 0.2) -> None:
        self.weights[name] = torch.randn(*shape, generator=self.generator) * std

    def conv(self, name: str, kernel: int, inner: int, outer: int) -> None:
        # He's scale, so that values stay of order 1 through all layers.
        self.normal(name, outer, kernel, kernel, kernel, inner, std=(2 / (inner * min(kernel**3, 8))) ** 0.5)

    def linear(self, name: str, inner: int, outer: int) -> None:
        self.normal(f"{name}.weight", outer, inner, std=0.5 * inner**-0.5)
        self.normal(f"{name}.bias", outer)

    def batch_norm(self, name: str, channels: int, affine: bool = True) -> None:
        if affine:
            self.weights[f"{name}.weight"] = torch.rand(channels, generator=self.generator) / 2 + 0.25
            self.normal(f"{name}.bias", channels)
        self.normal(f"{name}.running_mean", channels)
        self.weights[f"{name}.running_var"] = torch.rand(channels, generator=self.generator) + 0.5
        self.weights[f"{name}.num_batches_tracked"] = torch.tensor(1234)

    def norm(self, name: str, channels: int, net: Net) -> None:
        if not net.prompted:
            return self.batch_norm(name, channels)
        for k in range(net.conditions):
            self.batch_norm(f"{name}.bns.{k}", channels, net.affine)
        if net.adaptive:
            self.linear(f"{name}.modulation.1", net.prompt, 2 * channels)
        return None


def backbone(net: Net, seed: int = 0, prefix: str = "") -> dict[str, Tensor]:
    """``state_dict`` of a SpUNet-v1m1 or v1m3."""
    w = Writer(seed)
    conv, bn, proj, proj_bn = (
        ("conv", "bn", "proj_conv", "proj_norm") if net.prompted else ("0", "1", "proj.0", "proj.1")
    )
    half = len(net.channels) // 2

    def sequential(name: str, kernel: int, inner: int, outer: int) -> None:
        w.conv(f"{name}.{conv}.weight", kernel, inner, outer)
        w.norm(f"{name}.{bn}", outer, net)

    def blocks(name: str, number: int, inner: int, outer: int) -> None:
        for i in range(number):
            path = f"{name}.block{i}"
            if inner != outer:
                w.conv(f"{path}.{proj}.weight", 1, inner, outer)
                w.norm(f"{path}.{proj_bn}", outer, net)
            w.conv(f"{path}.conv1.weight", 3, inner, outer)
            w.norm(f"{path}.bn1", outer, net)
            w.conv(f"{path}.conv2.weight", 3, outer, outer)
            w.norm(f"{path}.bn2", outer, net)
            inner = outer

    sequential("conv_input", 5, net.inputs, net.stem)
    encoder, decoder = net.channels[:half], net.channels[half:]
    fine = (net.stem, *encoder)
    for s in range(half):
        sequential(f"down.{s}", 2, fine[s], encoder[s])
        blocks(f"enc.{s}", net.blocks[s], encoder[s], encoder[s])
    for s in range(half):
        out = decoder[half - 1 - s]
        below = encoder[-1] if s == half - 1 else decoder[half - 2 - s]
        sequential(f"up.{s}", 2, below, out)
        blocks(f"dec.{s}", net.blocks[-1 - s], out + fine[s], out)
    if net.classes:
        w.conv("final.weight", 1, net.channels[-1], net.classes)
        w.normal("final.bias", net.classes)
    return {prefix + name: value for name, value in w.weights.items()}


def table(net: Net) -> dict[str, Tensor]:
    """The prompts of the model around a backbone; rows in its own order, ``OUTER``."""
    w = Writer(seed=1)
    w.normal("embedding_table.weight", net.conditions, net.prompt, std=1.0)
    return w.weights


def language(net: Net, classes: int = 36, width: int = 16) -> dict[str, Tensor]:
    """The head of PPT-v1m1."""
    w = Writer(seed=2)
    w.linear("proj_head", net.channels[-1], width)
    w.normal("class_embedding", classes, width)
    w.weights["class_embedding"] = nn.functional.normalize(w.weights["class_embedding"], dim=1)
    w.weights["logit_scale"] = torch.tensor(4.6052)
    return w.weights


def rendering() -> dict[str, Tensor]:
    """What PonderIndoor-v2 adds: 31 weights of the renderer and the projection network, at small widths."""
    w = Writer(seed=3)
    for decoder, names in {
        "sdf": ("lin0", "lin1", "fc_c.0", "fc_c.1", "fc_p"),
        "rgb": ("lin0", "fc_c.0", "fc_p"),
        "semantic": ("lin0", "fc_c.0", "fc_p"),
    }.items():
        for name in names:
            w.linear(f"renderer.field.{decoder}_decoder.{name}", 3, 4)
    w.normal("renderer.field.laplace_density.beta_min", 1)
    w.normal("renderer.field.laplace_density.beta", 1)
    w.normal("renderer.field.deviation_network.variance", 1)
    for n in range(4):
        w.batch_norm(f"proj_net.encoders.{n}.basic_module.batchnorm", 3)
        w.normal(f"proj_net.encoders.{n}.basic_module.conv.weight", 4, 3, 3, 3, 3)
    for n in range(3):
        w.linear(f"proj_net.decoders.{n}.upsampling.upsample", 3, 4)
        w.batch_norm(f"proj_net.decoders.{n}.basic_module.batchnorm", 3)
        w.normal(f"proj_net.decoders.{n}.basic_module.conv.weight", 4, 3, 3, 3, 3)
    w.linear("proj_net.final_conv", 4, 3)
    return w.weights


def point_group(net: Net, classes: int) -> dict[str, Tensor]:
    """The heads of PG-v1m1."""
    w, width = Writer(seed=4), net.channels[-1]
    w.linear("bias_head.0", width, width)
    w.batch_norm("bias_head.1", width)
    w.linear("bias_head.3", width, 3)
    w.linear("seg_head", width, classes)
    return w.weights


def decoupled(net: Net, classes: tuple[int, ...] = (25, 20, 13)) -> dict[str, Tensor]:
    """The heads of PPT-v1m2, in the order ``OUTER``."""
    w = Writer(seed=5)
    for k, number in enumerate(classes):
        w.linear(f"seg_heads.{k}", net.channels[-1], number)
    return w.weights


def saved(path: Path, weights: dict[str, Tensor], module: bool = True) -> Path:
    """Write a checkpoint as PonderV2's trainer does, with its optimiser, its scheduler and a best figure from NumPy."""
    state: dict[str, Any] = {
        "epoch": 100,
        "state_dict": {("module." if module else "") + name: value for name, value in weights.items()},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(5)}}, "param_groups": [{"lr": 0.05, "params": [0]}]},
        # Before PyTorch 2.0 the scheduler's state had this function in it.
        "scheduler": {"total_steps": 10, "anneal_func": torch.optim.lr_scheduler.OneCycleLR._annealing_cos},  # type: ignore[attr-defined]
        "scaler": {"scale": 65536.0, "growth_interval": 2000},
        "best_metric_value": np.float64(0.77),
    }
    torch.save(state, path)
    return path


def spconv_net(net: Net) -> nn.Module:
    """The network of ``backbone``, of spconv's layers; ``forward(coords, feats, condition, prompt)``."""
    import spconv.pytorch as spconv  # noqa: PLC0415

    class Norm(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            self.bns = nn.ModuleList(
                nn.BatchNorm1d(channels, eps=1e-3, affine=net.affine) for _ in range(net.conditions)
            )
            if net.adaptive:
                self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(net.prompt, 2 * channels))

        def forward(self, feats: Tensor, condition: int, prompt: Tensor) -> Tensor:
            feats = self.bns[condition](feats)
            if net.adaptive:
                shift, scale = self.modulation(prompt).split(feats.shape[1])
                feats = feats * (1 + scale) + shift
            return feats

    def norm(channels: int) -> nn.Module:
        return Norm(channels) if net.prompted else nn.BatchNorm1d(channels, eps=1e-3)

    def call(norm: nn.Module, x: Any, *given: Any) -> Any:
        return x.replace_feature(norm(x.features, *given) if net.prompted else norm(x.features))

    class Unit(nn.Module):
        """Convolution, norm, ReLU."""

        def __init__(self, conv: nn.Module, channels: int):
            super().__init__()
            first, second = ("conv", "bn") if net.prompted else ("0", "1")
            self.add_module(first, conv)
            self.add_module(second, norm(channels))

        def forward(self, x: Any, *given: Any) -> Any:
            conv, norm_ = self.children()
            x = call(norm_, conv(x), *given)
            return x.replace_feature(x.features.relu())

    class Block(nn.Module):
        def __init__(self, inner: int, outer: int, key: str):
            super().__init__()
            if inner != outer:
                proj, proj_norm = spconv.SubMConv3d(inner, outer, 1, bias=False), norm(outer)
                if net.prompted:
                    self.proj_conv, self.proj_norm = proj, proj_norm
                else:
                    self.proj = nn.Sequential()
                    self.proj.append(proj)
                    self.proj.append(proj_norm)
            self.conv1 = spconv.SubMConv3d(inner, outer, 3, bias=False, indice_key=key)
            self.bn1 = norm(outer)
            self.conv2 = spconv.SubMConv3d(outer, outer, 3, bias=False, indice_key=key)
            self.bn2 = norm(outer)

        def forward(self, x: Any, *given: Any) -> Any:
            out = call(self.bn1, self.conv1(x), *given)
            out = out.replace_feature(out.features.relu())
            out = call(self.bn2, self.conv2(out), *given)
            if hasattr(self, "proj_conv"):
                x = call(self.proj_norm, self.proj_conv(x), *given)
            elif hasattr(self, "proj"):
                x = call(self.proj[1], self.proj[0](x), *given)
            return out.replace_feature((out.features + x.features).relu())

    class Blocks(nn.Module):
        def __init__(self, number: int, inner: int, outer: int, key: str):
            super().__init__()
            for i in range(number):
                self.add_module(f"block{i}", Block(inner if i == 0 else outer, outer, key))

        def forward(self, x: Any, *given: Any) -> Any:
            for block in self.children():
                x = block(x, *given)
            return x

    class SpUNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            half = len(net.channels) // 2
            encoder, decoder = net.channels[:half], net.channels[half:]
            fine = (net.stem, *encoder)
            stem = spconv.SubMConv3d(net.inputs, net.stem, 5, bias=False, indice_key="stem")
            self.conv_input = Unit(stem, net.stem)
            self.down, self.enc, self.up, self.dec = (nn.ModuleList() for _ in range(4))
            for s in range(half):
                key, out = f"spconv{s + 1}", decoder[half - 1 - s]
                down = spconv.SparseConv3d(fine[s], encoder[s], 2, stride=2, bias=False, indice_key=key)
                self.down.append(Unit(down, encoder[s]))
                self.enc.append(Blocks(net.blocks[s], encoder[s], encoder[s], f"subm{s + 1}"))
                below = encoder[-1] if s == half - 1 else decoder[half - 2 - s]
                self.up.append(Unit(spconv.SparseInverseConv3d(below, out, 2, bias=False, indice_key=key), out))
                self.dec.append(Blocks(net.blocks[-1 - s], out + fine[s], out, f"subm{s}"))
            if net.classes:
                self.final = spconv.SubMConv3d(net.channels[-1], net.classes, 1, bias=True)

        @torch.no_grad()
        def forward(self, coords: Tensor, feats: Tensor, *given: Any) -> tuple[Tensor, Tensor | None]:
            """Features, and class scores if there is a head; rows in the order of ``coords`` [M 4]."""
            shape = (coords[:, 1:].max(0).values + 96).tolist()
            x = spconv.SparseConvTensor(feats, coords.int(), shape, int(coords[:, 0].max()) + 1)
            x = self.conv_input(x, *given)
            skips = [x]
            for down, enc in zip(self.down, self.enc, strict=True):
                x = enc(down(x, *given), *given)
                skips.append(x)
            skips.pop()
            for up, dec in zip(reversed(self.up), reversed(self.dec), strict=True):
                x = up(x, *given)
                x = x.replace_feature(torch.cat([x.features, skips.pop().features], dim=1))
                x = dec(x, *given)
            return x.features, self.final(x).features if net.classes else None

    return SpUNet().eval()
