"""Layers on sparse tensors."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ponder3d.sparse.functional import sparse_conv
from ponder3d.sparse.maps import Triple
from ponder3d.sparse.tensor import SparseTensor


class LowRank(nn.Module):
    """A change of a convolution's weights of low rank (Hu et al. 2022, "LoRA: Low-rank adaptation of large language
    models"): ``scale`` times the product of ``down [taps C_in, rank]`` and ``up [rank, C_out]``. ``up`` starts at 0, so
    the change does too.
    """

    def __init__(self, like: Float[Tensor, "K C_in C_out"], rank: int, scale: float):
        super().__init__()
        taps, in_channels, out_channels = like.shape
        self.scale = scale
        self.down = nn.Parameter(torch.empty(taps * in_channels, rank))
        self.up = nn.Parameter(torch.zeros(rank, out_channels))
        nn.init.normal_(self.down, std=(taps * in_channels) ** -0.5)

    def forward(self, weight: Float[Tensor, "K C_in C_out"]) -> Float[Tensor, "K C_in C_out"]:
        """The changed weights, in the precision of ``weight``."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.scale * (self.down @ self.up).view_as(weight)


class SparseConv(nn.Module):
    """What the convolutions have in common: ``weight``, and a change of it that they may be given."""

    weight: nn.Parameter

    def __init__(self) -> None:
        super().__init__()
        self._change: tuple[LowRank, ...] = ()
        """A tuple, so that the parameters of the change are not among the convolution's: they are their owner's."""

    def change(self, by: LowRank) -> None:
        """Convolve with the weights that ``by`` makes of ``weight``, from now on."""
        self._change = (by,)

    @property
    def changed(self) -> bool:
        """Whether it convolves with other weights than ``weight``."""
        return bool(self._change)

    @property
    def used_weight(self) -> Float[Tensor, "K C_in C_out"]:
        """The weights that it convolves with."""
        return self._change[0](self.weight) if self._change else self.weight


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """``state_dict`` in which the changes of convolutions (``SparseConv.change``) are in their weights.

    A module built afresh that loads it computes the same, without any change.
    """
    changed = {n: m for n, m in module.named_modules() if isinstance(m, SparseConv) and m.changed}
    with torch.no_grad():
        return module.state_dict() | {f"{name}.weight".lstrip("."): conv.used_weight for name, conv in changed.items()}


class SubmConv3d(SparseConv):
    """Submanifold convolution: outputs sit where inputs are.

    Weights start as a normal distribution of standard deviation 0.02 (PonderV2's SparseUNet).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, bias: bool = False):
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(kernel**3, in_channels, out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Same voxels, ``out_channels`` features."""
        feats = sparse_conv(x.feats, self.used_weight, x.maps.subm(x.stride, self.kernel))
        return x.with_feats(feats if self.bias is None else feats + self.bias)


class StridedConv3d(SparseConv):
    """Strided convolution to a coarser set of voxels: those that any input reaches, within ``limits`` if given.

    Weights start uniform in +-1/sqrt(fan in), as spconv's strided layers do in PonderV2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 2,
        stride: int = 2,
        padding: int | Triple = 0,
        limits: Triple | None = None,
    ):
        super().__init__()
        self.kernel, self.stride, self.padding, self.limits = kernel, stride, padding, limits
        self.weight = nn.Parameter(torch.empty(kernel**3, in_channels, out_channels))
        _init_uniform(self.weight)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Voxels of ``stride`` times the size."""
        maps = x.maps.strided(x.stride, self.kernel, self.stride, self.padding, self.limits)
        return x.at_stride(x.stride * self.stride, sparse_conv(x.feats, self.used_weight, maps))


class InverseConv3d(SparseConv):
    """The way back of a strided convolution: from its outputs to exactly its inputs, tap by tap the same pairs."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 2, stride: int = 2, padding: int = 0):
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.weight = nn.Parameter(torch.empty(kernel**3, in_channels, out_channels))
        _init_uniform(self.weight)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Voxels of 1/``stride`` times the size, those the matching StridedConv3d started from."""
        fine = x.stride // self.stride
        maps = x.maps.strided(fine, self.kernel, self.stride, self.padding)
        return x.at_stride(fine, sparse_conv(x.feats, self.used_weight, maps.transposed()))


class BatchNorm(nn.Module):
    """Batch normalisation over the rows of all scenes.

    With fewer than two rows there are no statistics to take: the running ones are used then, so that an empty or
    one-voxel batch trains like any other.
    """

    def __init__(self, channels: int, eps: float, momentum: float):
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, eps=eps, momentum=momentum)

    def forward(self, feats: Float[Tensor, "M C"]) -> Float[Tensor, "M C"]:
        """Normalised rows."""
        if self.training and len(feats) < 2:
            n = self.norm
            return F.batch_norm(feats, n.running_mean, n.running_var, n.weight, n.bias, training=False, eps=n.eps)
        return self.norm(feats)


def _init_uniform(weight: nn.Parameter) -> None:
    bound = 1 / math.sqrt(weight.shape[0] * weight.shape[1])
    nn.init.uniform_(weight, -bound, bound)
