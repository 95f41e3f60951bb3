"""Layers on sparse tensors."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ponder3d.sparse.functional import sparse_conv
from ponder3d.sparse.maps import Triple
from ponder3d.sparse.tensor import SparseTensor


class SubmConv3d(nn.Module):
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
        feats = sparse_conv(x.feats, self.weight, x.maps.subm(x.stride, self.kernel))
        return x.with_feats(feats if self.bias is None else feats + self.bias)


class StridedConv3d(nn.Module):
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
        return x.at_stride(x.stride * self.stride, sparse_conv(x.feats, self.weight, maps))


class InverseConv3d(nn.Module):
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
        return x.at_stride(fine, sparse_conv(x.feats, self.weight, maps.transposed()))


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
