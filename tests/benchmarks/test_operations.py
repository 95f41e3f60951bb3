"""The benchmarks' counts of multiply-adds against counts made by hand."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from operations import counting, dense_macs, distance_macs, num_pairs  # noqa: E402

from ponder3d.geometry.grid import fixed_grid
from ponder3d.render.fields import FieldConfig
from ponder3d.sparse import sparse_tensor
from ponder3d.sparse.nn import StridedConv3d, SubmConv3d
from ponder3d.types import Volume
from ponder3d.volume.projection import ProjectionConfig
from ponder3d.volume.second3d import Second3DConfig
from ponder3d.volume.unet3d import ShallowNet3DConfig, UNet3DConfig


def test_the_dense_network_of_the_paper():
    """Spec 2.6: 83.68 G a scene; 43.5 G of them in the first convolution."""
    net = UNet3DConfig().build(96)
    whole = dense_macs(net, (128, 128, 32))
    assert whole == pytest.approx(83.68e9, rel=1e-4)
    assert whole - dense_macs(net, (128, 128, 32), occupied=0.0) == 27 * 96 * 32 * 128 * 128 * 32


def test_the_shallow_network():
    net = ShallowNet3DConfig(4, 1, 6, "add").build(5)
    assert dense_macs(net, (2, 3, 4), occupied=0.5) == (27 * 5 * 4 + 5 * 6) * 12 + 4 * 6 * 24


def test_the_distance():
    # 64 to 128, 128 to 65, and 64 to 65 past the hidden layer.
    assert distance_macs(FieldConfig().build(128, 512)) == 64 * 128 + 128 * 65 + 64 * 65


def test_pairs_of_a_row_of_voxels():
    coords = torch.tensor([[0, x, 0, 0] for x in range(5)])
    assert num_pairs(SubmConv3d(1, 1, 3), sparse_tensor(coords, torch.zeros(5, 1), 1)) == 5 + 2 * 4


def test_pairs_within_limits():
    x = sparse_tensor(torch.tensor([[0, x, 0, 0] for x in range(4)]), torch.zeros(4, 1), 1)
    # Taps of 2q - 1 .. 2q + 1: outputs 0 (of inputs 0, 1), 1 (of 1, 2, 3) and, beyond the limit, 2 (of 3).
    assert num_pairs(StridedConv3d(1, 1, 3, 2, 1, (2, 1, 1)), x) == 5


def test_dense_convolutions_within_an_encoder():
    net = Second3DConfig((4,), (2,), 1, 3).build(5)
    with counting(net) as macs:
        net(Volume(fixed_grid((0.0, 0.0, 0.0, 1.0, 1.0, 1.0), (4, 4, 2), 1), torch.zeros(1, 4, 4, 2, 5)))
    # At 2 x 2 x 2 cells, 3 x 3 x 1 taps; up again by 2 x 2 taps.
    assert macs == [8 * 9 * 5 * 4, 8 * 9 * 4 * 4, 8 * 4 * 4 * 3]
    assert dense_macs(ProjectionConfig(6).build(5), (4, 3, 2)) == 24 * 27 * 5 * 6
