"""The benchmarks' counts of multiply-adds against counts made by hand."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from operations import dense_macs, distance_macs, num_pairs  # noqa: E402

from ponder3d.render.fields import FieldConfig
from ponder3d.sparse import sparse_tensor
from ponder3d.sparse.nn import SubmConv3d
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
