"""SparseUNet, the encoder of PonderV2 (eq. 2): a U-Net of submanifold and strided sparse convolutions.

Graham et al. 2018 (submanifold convolution) and Choy et al. 2019 (MinkUNet); numbers as in PonderV2's ``SpUNet-v1m1``.
With its defaults and six input channels it has 39,155,904 parameters. With ``PromptNormConfig`` it is ``SpUNet-v1m3``,
for scenes of several datasets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from ponder3d.config import incidental
from ponder3d.encoders.encoder import Encoder, EncoderConfig, check_inputs
from ponder3d.encoders.norms import NormConfig, PlainNormConfig, Prompted, PromptNorm, PromptNormConfig, rows_of
from ponder3d.encoders.sparse_blocks import ConvNormReLU, Norms, ResidualBlock, norms_of
from ponder3d.geometry.grid import voxelize
from ponder3d.geometry.rows import sum_rows
from ponder3d.sparse import SparseTensor
from ponder3d.sparse.nn import InverseConv3d, StridedConv3d, SubmConv3d
from ponder3d.sparse.tensor import MapCache
from ponder3d.types import Batch
from ponder3d.types.scene import INPUT_CHANNELS
from ponder3d.volume.convert import sample_at, voxel_centres
from ponder3d.volume.recompute import recomputed


@dataclass(frozen=True)
class SparseUNetConfig(EncoderConfig):
    """Choices of a SparseUNet; the defaults are the paper's."""

    inputs: tuple[str, ...] = ("rgb", "normal")
    """Point channels, in order."""
    grid_size: float = 0.02
    """Edge of a voxel in metres."""
    stem_channels: int = 32
    """Channels at the finest voxels, before the first stage; also those of the last skip."""
    stem_kernel: int = 5
    """Voxels along an edge of the first convolution, odd."""
    channels: tuple[int, ...] = (32, 64, 128, 256, 256, 128, 96, 96)
    """Channels of the encoder stages, then of the decoder stages from deep to shallow. Their number sets the depth."""
    blocks: tuple[int, ...] = (2, 3, 4, 6, 2, 2, 2, 2)
    """Residual blocks of each stage."""
    norm_eps: float = 1e-3
    """Added to the variance in every batch norm."""
    norm_momentum: float = 0.01
    """Weight of the new statistics."""
    norm: NormConfig = PlainNormConfig()
    """One batch norm for everything, or norms that know the condition of each scene."""
    recompute: bool = incidental(False)
    """Whether training keeps what goes into each residual block only, and computes the block again in the backward
    pass: 0.4 times the activations kept (default channels, 50 000 voxels) for 1.25 times the time."""

    def __post_init__(self):
        if len(self.channels) != len(self.blocks) or len(self.channels) % 2:
            raise ValueError(
                f"SparseUNetConfig: channels ({len(self.channels)}) and blocks ({len(self.blocks)}) need one entry per "
                "stage, as many for the decoder as for the encoder"
            )
        check_inputs("SparseUNetConfig", self.inputs)
        if self.grid_size <= 0:
            raise ValueError("SparseUNetConfig.grid_size must be positive")

    def build(self) -> "SparseUNet":
        """A freshly initialised encoder."""
        return SparseUNet(self)


class SparseUNet(Encoder):
    """Features at the occupied voxels; one row per voxel, sorted. ``sample_at`` finds the voxel of each point."""

    decoder = ("up", "dec")

    def __init__(self, config: SparseUNetConfig):
        super().__init__()
        self.config, self.recompute = config, config.recompute
        self.conditions = config.norm.conditions
        half = len(config.channels) // 2
        widths, deep_to_shallow = config.channels[:half], config.channels[half:]
        norms = norms_of(config.norm, config.norm_eps, config.norm_momentum)
        in_channels = sum(INPUT_CHANNELS[name] for name in config.inputs)
        fine_widths = (config.stem_channels, *widths[:-1])
        self.stem = ConvNormReLU(SubmConv3d(in_channels, config.stem_channels, config.stem_kernel), norms)
        self.down = nn.ModuleList(
            [ConvNormReLU(StridedConv3d(i, o), norms) for i, o in zip(fine_widths, widths, strict=True)]
        )
        self.enc = nn.ModuleList(
            [_stage(width, width, n, norms) for width, n in zip(widths, config.blocks[:half], strict=True)]
        )
        up_in = (widths[-1], *deep_to_shallow[:-1])
        self.up = nn.ModuleList(
            [ConvNormReLU(InverseConv3d(i, o), norms) for i, o in zip(up_in, deep_to_shallow, strict=True)]
        )
        self.dec = nn.ModuleList(
            [
                _stage(width + skip, width, n, norms)
                for width, skip, n in zip(deep_to_shallow, reversed(fine_widths), config.blocks[half:], strict=True)
            ]
        )
        self.out_channels = deep_to_shallow[-1]
        self.prompts = None
        if isinstance(config.norm, PromptNormConfig) and config.norm.adaptive:
            self.prompts = nn.Embedding(len(self.conditions), config.norm.prompt_channels)
        # Two points whose voxels are n apart along an axis are less than n + 1 voxels apart.
        self.reach = (_reach_voxels(config) + 1) * config.grid_size

    def forward(self, batch: Batch) -> SparseTensor:
        """Features at the occupied voxels of the batch; points that share a voxel enter as their mean.

        Raises:
            ValueError: the encoder has conditions, and a scene has none of them.
        """
        return self._decoded(batch, None)

    def all_levels(self) -> "Encoder":
        """Features of the whole decoder, from deep to shallow: with the default channels 256 + 128 + 96 + 96."""
        return _AllLevels(self)

    def _decoded(self, batch: Batch, levels: list[SparseTensor] | None) -> SparseTensor:
        """The last level; every level, in the order of the decoder, joins ``levels`` if there is such a list."""
        prompted = self._prompted(batch)
        x = self.stem(pool_to_voxels(batch, self.config.grid_size), prompted)
        skips = []
        for down, stage in zip(self.down, self.enc, strict=True):
            skips.append(x)
            x = self._through(stage, down(x, prompted), prompted)
        for up, stage in zip(self.up, self.dec, strict=True):
            x = up(x, prompted)
            x = x.with_feats(torch.cat([x.feats, skips.pop().feats], dim=1))
            x = self._through(stage, x, prompted)
            if levels is not None:
                levels.append(x)
        return x

    def only(self, conditions: Sequence[str]) -> "SparseUNet":
        """A copy that knows some of this encoder's conditions, in this order.

        Raises:
            ValueError: it does not know one of them.
        """
        rows = rows_of(conditions, self.conditions)
        config = self.config
        assert isinstance(config, SparseUNetConfig) and isinstance(config.norm, PromptNormConfig)
        norm = config.norm
        kept = replace(config, norm=replace(norm, names=tuple(conditions))).build()
        weights = self.state_dict()
        for path, module in self.named_modules():
            if isinstance(module, PromptNorm) and norm.decouple:
                weights |= {
                    f"{path}.{name}": weights[f"{path}.{name}"][rows]
                    for name in ("weight", "bias", "running_mean", "running_var")
                }
        if self.prompts is not None:
            weights["prompts.weight"] = weights["prompts.weight"][rows]
        kept.load_state_dict(weights)
        return kept.train(self.training)

    def folded(self, condition: str) -> "SparseUNet":
        """A copy with plain norms that treats every scene as one of a condition: the same features in evaluation mode.

        Raises:
            ValueError: this encoder does not know it.
        """
        (row,) = rows_of([condition], self.conditions)
        prompts = None if self.prompts is None else F.silu(self.prompts.weight)
        weights = {name: value for name, value in self.state_dict().items() if name != "prompts.weight"}
        for path, module in self.named_modules():
            if isinstance(module, PromptNorm):
                weights = {name: value for name, value in weights.items() if not name.startswith(f"{path}.")}
                weights |= {f"{path}.{name}": value for name, value in module.folded(prompts, row).state_dict().items()}
        assert isinstance(self.config, SparseUNetConfig)
        plain = replace(self.config, norm=PlainNormConfig()).build()
        plain.load_state_dict(weights)
        return plain.train(self.training)

    def _prompted(self, batch: Batch) -> Prompted | None:
        if not self.conditions:
            return None
        rows = rows_of(batch.conditions, self.conditions)
        prompts = None if self.prompts is None else F.silu(self.prompts.weight)
        return Prompted(rows, len(self.conditions), prompts, batch.points.feats.device)

    def _through(self, stage: nn.Module, x: SparseTensor, prompted: Prompted | None) -> SparseTensor:
        # Not stage(x), which holds its input to the end: the last one sets the peak of memory.
        for block in stage.children():
            x = _recomputed(block, x, prompted) if self.recompute else block(x, prompted)
        return x


class _AllLevels(Encoder):
    """A SparseUNet whose features are those of all levels of its decoder."""

    derived = True
    decoder = ("unet.up", "unet.dec")

    def __init__(self, unet: SparseUNet):
        super().__init__()
        self.unet, self.config, self.reach, self.card = unet, unet.config, unet.reach, unet.card
        self.conditions, self.training, self._told = unet.conditions, unet.training, unet._told
        assert isinstance(unet.config, SparseUNetConfig)
        self.out_channels = sum(unet.config.channels[len(unet.config.channels) // 2 :])

    def forward(self, batch: Batch) -> SparseTensor:
        """One row per voxel of the input, as of the SparseUNet itself; its features are the last channels."""
        levels: list[SparseTensor] = []
        last = self.unet._decoded(batch, levels)
        centres, scene = voxel_centres(last), last.coords[:, 0].to(torch.int64)
        if torch.is_grad_enabled():
            return last.with_feats(torch.cat([sample_at(level, centres, scene) for level in levels], dim=1))
        # Filled level by level: putting them together at the end would take twice the memory.
        feats = last.feats.new_empty(len(last.feats), self.out_channels)
        columns = feats.split([level.feats.shape[1] for level in levels], dim=1)
        for into, level in zip(columns, levels, strict=True):
            into.copy_(sample_at(level, centres, scene))
        return last.with_feats(feats)


def _recomputed(block: nn.Module, x: SparseTensor, prompted: Prompted | None) -> SparseTensor:
    return x.with_feats(recomputed(block, lambda feats: block(x.with_feats(feats), prompted).feats, x.feats))


def _reach_voxels(config: SparseUNetConfig) -> int:
    """How many voxels of the input, along an axis, lie between a voxel and the farthest that its feature depends on.

    A path to a feature goes down and up again through every level; it takes part in each 3x3x3 convolution on its way,
    which moves it by one voxel of that level, of ``2**level`` voxels of the input. Strided convolutions move it within
    a coarsest voxel: from its last to its first, at most.
    """
    half = len(config.blocks) // 2
    down = {level: 2 * n for level, n in enumerate(config.blocks[:half], start=1)}
    up = {half - level: 2 * n for level, n in enumerate(config.blocks[half:], start=1)}
    steps = sum(n << level for level, n in [*down.items(), *up.items()])
    return config.stem_kernel // 2 + steps + (1 << half) - 1


def pool_to_voxels(batch: Batch, voxel_size: float) -> SparseTensor:
    """The points of a batch as a sparse tensor of their mean features.

    Raises:
        ValueError: see ``geometry.grid.voxelize``.
    """
    points = batch.points
    voxels = voxelize(points.xyz, points.scene, voxel_size)
    total = sum_rows(points.feats, voxels.voxel, len(voxels.keys))
    maps = MapCache()
    maps.add_level(1, voxels.coords, voxels.keys)
    return SparseTensor(voxels.coords, total / voxels.counts[:, None], len(batch), 1, voxel_size, maps)


def _stage(in_channels: int, out_channels: int, num_blocks: int, norms: Norms) -> nn.Sequential:
    widths = [in_channels, *[out_channels] * num_blocks]
    return nn.Sequential(*[ResidualBlock(i, o, norms) for i, o in zip(widths[:-1], widths[1:], strict=True)])
