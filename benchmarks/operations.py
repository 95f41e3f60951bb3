"""How many multiply-adds a step of pre-training needs: the matrix products of its forward pass, counted from shapes.

Counted are products alone, each once. A backward pass needs two more for each (the gradients of both factors), hence
``trained`` is three times the forward pass; what is computed again to save memory counts as overhead, and so does all
that is not a product: interpolation, norms, activations, sorting. A multiply-add (MAC) is two operations.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from ponder3d.render.fields import SDFField
from ponder3d.sparse.nn import InverseConv3d, StridedConv3d, SubmConv3d
from ponder3d.sparse.tensor import SparseTensor
from ponder3d.tasks.ponder import Ponder
from ponder3d.types import Batch
from ponder3d.volume.convert import densify, densify_with_offsets
from ponder3d.volume.projection import Projection
from ponder3d.volume.unet3d import ShallowNet3D, UNet3D, VolumeNet

Shape = tuple[int, int, int]
SparseConv = SubmConv3d | StridedConv3d | InverseConv3d


@dataclass(frozen=True)
class Operations:
    """Multiply-adds of the forward pass of one batch."""

    encoder: float
    dense: float
    field: float
    """Distance, gradient and colour at all samples, and the heads once per ray."""

    @property
    def trained(self) -> dict[str, float]:
        """Of forward and backward pass, by part."""
        return {"encoder": 3 * self.encoder, "dense network": 3 * self.dense, "field": 3 * self.field}


def count(task: Ponder, batch: Batch) -> Operations:
    """Of one step; runs the encoder once to see its voxels."""
    assert batch.rays is not None
    with torch.no_grad(), counting(task.encoder) as macs:
        features = task.encoder(batch)
        pool = densify_with_offsets if task.config.cell_offsets else densify
        occupied = pool(features, task.grid(batch)).occupied
    cells = len(batch) * prod(task.config.volume_shape)
    share = 1.0 if occupied is None else len(occupied.rows) / cells
    config, field = task.config, task.field
    rays = len(batch.rays.every(config.render_every))
    ends = len(batch.rays) if config.losses.surface and head_macs(field) else 0
    samples = rays * (config.render.num_uniform + config.render.num_importance + config.render.num_guided)
    return Operations(
        encoder=sum(macs),
        dense=len(batch) * dense_macs(task.unet, config.volume_shape, share),
        field=samples * sample_macs(field) + ends * gradient_macs(field) + (rays + ends) * head_macs(field),
    )


@contextmanager
def counting(module: nn.Module) -> Iterator[list[int]]:
    """A list to which every layer of ``module`` that runs inside adds its multiply-adds."""
    macs: list[int] = []

    def sparse(layer: SparseConv, inputs: tuple[SparseTensor], _: object) -> None:
        macs.append(num_pairs(layer, inputs[0]) * layer.weight.shape[1] * layer.weight.shape[2])

    def linear(layer: nn.Linear, inputs: tuple[torch.Tensor], _: object) -> None:
        macs.append(inputs[0].numel() * layer.out_features)

    def dense(layer: nn.Conv3d, _: object, output: torch.Tensor) -> None:
        macs.append(output.numel() // layer.out_channels * layer.weight.numel())

    def spread(layer: nn.ConvTranspose3d, inputs: tuple[torch.Tensor], _: object) -> None:
        macs.append(inputs[0].numel() // layer.in_channels * layer.weight.numel())

    kinds = [(SparseConv, sparse), (nn.Linear, linear), (nn.Conv3d, dense), (nn.ConvTranspose3d, spread)]
    hooks = [m.register_forward_hook(hook) for m in module.modules() for kind, hook in kinds if isinstance(m, kind)]
    try:
        yield macs
    finally:
        for hook in hooks:
            hook.remove()


def num_pairs(layer: SparseConv, x: SparseTensor) -> int:
    """Pairs of input and output rows of a layer on ``x``."""
    if isinstance(layer, SubmConv3d):
        maps = x.maps.subm(x.stride, layer.kernel)
    else:
        fine = x.stride // layer.stride if isinstance(layer, InverseConv3d) else x.stride
        limits = layer.limits if isinstance(layer, StridedConv3d) else None
        maps = x.maps.strided(fine, layer.kernel, layer.stride, layer.padding, limits)
    return int((maps.forward.rows >= 0).sum())


def dense_macs(net: VolumeNet, shape: Shape, occupied: float = 1.0) -> float:
    """A dense network on one scene; its first convolution, and its bypass, on the ``occupied`` share of the cells only.

    At the border of the volume all taps of a convolution are counted.
    """
    if isinstance(net, ShallowNet3D):
        first, *others = net.blocks
        bypass = 0 if net.bypass is None else net.bypass.weight.numel() * prod(shape) * occupied
        return (
            _conv(first.conv, shape) * occupied
            + sum(_conv(b.conv, shape) for b in others)
            + _conv(net.head, shape)
            + bypass
        )
    if isinstance(net, Projection):
        return _conv(net.conv.conv, shape)
    if not isinstance(net, UNet3D):
        raise TypeError(f"dense_macs: cannot count {type(net).__name__}")
    shapes = [shape]
    for _ in net.down[1:]:
        x, y, z = shapes[-1]
        shapes.append((-(-x // 2), -(-y // 2), -(-z // 2)))
    first, *others = net.down
    total = _conv(first.conv, shape) * occupied + _conv(net.head, shape)
    total += sum(_conv(block.conv, at) for block, at in zip(others, shapes[1:], strict=True))
    # A transposed convolution spreads every coarse cell over its taps.
    total += sum(_conv(up, at) for up, at in zip(net.up, shapes[:0:-1], strict=True))
    return total + sum(_conv(block.conv, at) for block, at in zip(net.fuse, shapes[-2::-1], strict=True))


def _conv(layer: nn.Module, cells: Shape) -> float:
    assert isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)
    return float(layer.weight.numel() * prod(cells))


def distance_macs(field: SDFField) -> int:
    """The SDF decoder at a point."""
    return _weights(field.sdf.modules())


def gradient_macs(field: SDFField) -> int:
    """The SDF decoder at a point, and its derivative: back through all layers, of whose last one row matters."""
    *features, _ = field.sdf.feature_layers
    position = [] if field.sdf.position_layer is None else [field.sdf.position_layer]
    return distance_macs(field) + _weights([*features, *list(field.sdf.hidden_layers)[:-1], *position])


def sample_macs(field: SDFField) -> int:
    """Distance, gradient and colour at a sample."""
    return gradient_macs(field) + _weights(field.colour)


def head_macs(field: SDFField) -> int:
    """The semantic and the feature head, once per ray."""
    return _weights(head for head in (field.semantic, field.feature) if head is not None)


def _weights(layers: Iterable[nn.Module]) -> int:
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))
