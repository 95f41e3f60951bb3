"""What sparse encoders are made of: convolution, norm and ReLU, and the residual block of two of them."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ponder3d.encoders.norms import NormConfig, PlainNorm, Prompted, PromptNorm
from ponder3d.sparse import SparseTensor
from ponder3d.sparse.nn import InverseConv3d, StridedConv3d, SubmConv3d

Norms = Callable[[int], PlainNorm | PromptNorm]
"""Makes the norm of so many channels."""


def norms_of(config: NormConfig, eps: float, momentum: float) -> Norms:
    """Norms of one kind, with these numbers in all of them."""
    return partial(config.build, eps=eps, momentum=momentum)


class ConvNormReLU(nn.Module):
    """A sparse convolution, its norm, ReLU."""

    def __init__(self, conv: SubmConv3d | StridedConv3d | InverseConv3d, norms: Norms):
        super().__init__()
        self.conv = conv
        self.norm = norms(conv.weight.shape[2])

    def forward(self, x: SparseTensor, prompted: Prompted | None) -> SparseTensor:
        """Features at the voxels to which the convolution leads."""
        x = self.conv(x)
        return x.with_feats(F.relu(self.norm(x, prompted), inplace=True))


class ResidualBlock(nn.Module):
    """Residual block of two 3x3x3 submanifold convolutions, activated after the sum."""

    def __init__(self, in_channels: int, out_channels: int, norms: Norms):
        super().__init__()
        self.conv1 = SubmConv3d(in_channels, out_channels)
        self.norm1 = norms(out_channels)
        self.conv2 = SubmConv3d(out_channels, out_channels)
        self.norm2 = norms(out_channels)
        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels:
            project = nn.Linear(in_channels, out_channels, bias=False)  # a 1x1x1 convolution
            nn.init.trunc_normal_(project.weight, std=0.02)
            norm = norms(out_channels)
            self.skip = nn.Sequential(project, norm)

    def forward(self, x: SparseTensor, prompted: Prompted | None) -> SparseTensor:
        """Same voxels, ``out_channels`` features."""
        # In place, and no name for what is no longer needed: these rows are most of the memory of ``encode``. Backward
        # needs what a batch norm read, not what it wrote.
        inner = self.conv1(x)
        inner = inner.with_feats(F.relu(self.norm1(inner, prompted), inplace=True))
        inner = self.conv2(inner)
        inner = inner.with_feats(self.norm2(inner, prompted))
        return x.with_feats(F.relu(inner.feats.add_(self._skipped(x, prompted)), inplace=True))

    def _skipped(self, x: SparseTensor, prompted: Prompted | None) -> torch.Tensor:
        if isinstance(self.skip, nn.Identity):
            return x.feats
        project, norm = self.skip.children()
        return norm(x.with_feats(project(x.feats)), prompted)
