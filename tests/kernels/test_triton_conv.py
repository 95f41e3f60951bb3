"""The convolution kernels against sums over pairs in float64; new memory is NaN (deterministic mode)."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ponder3d.geometry.grid import key_offset, pack_keys
from ponder3d.sparse import triton_conv, triton_tuning
from ponder3d.sparse.triton_conv import conv, weight_gradient

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@dataclass
class Map:
    """The arguments that say which rows meet."""

    table: Tensor
    num_in: int
    order: Tensor
    tile_taps: Tensor
    tile_counts: Tensor
    tile_rows: int

    @property
    def args(self) -> tuple:
        return self.table, self.order, self.tile_taps, self.tile_counts, self.tile_rows


def tiled(table: Tensor, num_in: int, tile_rows: int, device: torch.device) -> Map:
    num_taps, num_rows = table.shape
    present = table >= 0
    order = torch.tensor(sorted(range(num_rows), key=lambda row: present[:, row].tolist()), dtype=torch.int32)
    taps = [present[:, rows].any(1).nonzero()[:, 0] for rows in order.long().split(tile_rows)] if num_rows else []
    tile_taps = torch.full((len(taps), num_taps), 1 << 20, dtype=torch.int32)  # what is not listed must not be used
    for tile, listed in enumerate(taps):
        tile_taps[tile, : len(listed)] = listed
    counts = torch.tensor([len(listed) for listed in taps], dtype=torch.int32)
    moved = [x.to(device) for x in (table.to(torch.int32), order, tile_taps, counts)]
    return Map(moved[0], num_in, moved[1], moved[2], moved[3], tile_rows)


def random_keys(share: float) -> Tensor:
    """Sorted keys of random voxels of two scenes, on both sides of the origin."""
    every = torch.tensor(list(itertools.product(range(2), range(-2, 3), range(-3, 2), range(-2, 4))))
    return pack_keys(every[torch.rand(len(every)) < share])


def submanifold(kernel: int, share: float, tile_rows: int, device: torch.device) -> Map:
    keys = random_keys(share)
    half = kernel // 2
    offsets = [key_offset(*r) for r in itertools.product(range(-half, half + 1), repeat=3)]
    equal = keys[:, None, None] == keys[:, None] + torch.tensor(offsets)  # [M_in, M_out, K]
    table = torch.where(equal.any(0), equal.int().argmax(0), -1).T
    return tiled(table, len(keys), tile_rows, device)


def strided(tile_rows: int, device: torch.device, inverse: bool = False) -> Map:
    """2 x 2 x 2 voxels to one, 40 of which each has up to 8 children; or back, where every output has one input."""
    child = torch.rand(8, 40) < 0.4
    table = torch.where(child, child.flatten().cumsum(0).view(8, 40) - 1, -1)
    if not inverse:
        return tiled(table, int(child.sum()), tile_rows, device)
    back = torch.full((8, int(child.sum())), -1)
    tap, parent = child.nonzero().T
    back[tap, table[tap, parent]] = parent
    return tiled(back, 40, tile_rows, device)


def exact_conv(feats: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    gathered = feats.double()[table.long().clamp(min=0)] * (table >= 0)[:, :, None] if len(feats) else None
    if gathered is None:
        return torch.zeros(table.shape[1], weight.shape[2], dtype=torch.float64, device=feats.device)
    return torch.einsum("kmi,kio->mo", gathered, weight.double())


def exact_weight_gradient(feats: Tensor, grad_out: Tensor, table: Tensor) -> Tensor:
    gathered = feats.double()[table.long().clamp(min=0)] * (table >= 0)[:, :, None]
    return torch.einsum("kmi,mo->kio", gathered, grad_out.double())


def assert_close(out: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    assert bool(out.isfinite().all())
    assert float((out.double() - exact).norm()) <= TOLERANCE[dtype] * float(exact.norm())


@pytest.fixture(params=[12, 1], ids=["split", "whole"])
def _splits(request, monkeypatch):
    """Small inputs are split among the programs of a larger GPU; on one of a single multiprocessor they are not."""
    monkeypatch.setattr(triton_conv, "_MULTIPROCESSORS", request.param)


CASES = [
    (1, 16, 16, torch.float32),
    (3, 6, 20, torch.float32),
    (3, 36, 40, torch.bfloat16),
    (3, 20, 6, torch.float16),
    (5, 6, 16, torch.bfloat16),
]


@pytest.mark.usefixtures("_splits")
@pytest.mark.parametrize(("kernel", "c_in", "c_out", "dtype"), CASES)
def test_submanifold(kernel, c_in, c_out, dtype, device):
    m = submanifold(kernel, 0.2, 32, device)
    feats = torch.randn(m.num_in, c_in, device=device).to(dtype)
    weight = torch.randn(kernel**3, c_in, c_out, device=device).to(dtype)
    out = conv(feats, weight, *m.args)
    assert out.dtype == dtype
    assert_close(out, exact_conv(feats, weight, m.table), dtype)


@pytest.mark.usefixtures("_splits")
@pytest.mark.parametrize(("kernel", "c_in", "c_out", "dtype"), CASES)
def test_weight_gradient(kernel, c_in, c_out, dtype, device):
    m = submanifold(kernel, 0.2, 32, device)
    feats = torch.randn(m.num_in, c_in, device=device).to(dtype)
    grad_out = torch.randn(m.table.shape[1], c_out, device=device).to(dtype)
    grad = weight_gradient(feats, grad_out, *m.args)
    assert grad.dtype == torch.float32
    assert_close(grad, exact_weight_gradient(feats, grad_out, m.table), dtype)


@pytest.mark.parametrize("inverse", [False, True])
def test_strided_and_inverse(inverse, device):
    m = strided(16, device, inverse)
    feats, weight = torch.randn(m.num_in, 12, device=device), torch.randn(8, 12, 24, device=device)
    assert_close(conv(feats, weight, *m.args), exact_conv(feats, weight, m.table), torch.float32)
    grad_out = torch.randn(m.table.shape[1], 24, device=device)
    expected = exact_weight_gradient(feats, grad_out, m.table)
    assert_close(weight_gradient(feats, grad_out, *m.args), expected, torch.float32)


def test_input_gradient_is_a_convolution_with_the_mirrored_transposed_weight(device):
    m = submanifold(3, 0.2, 16, device)
    grad_out, weight = torch.randn(m.num_in, 10, device=device), torch.randn(27, 20, 10, device=device)
    grad_feats = conv(grad_out, weight.flip(0).transpose(1, 2), *m.args)
    feats = torch.zeros(m.num_in, 20, device=device, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(exact_conv(feats, weight, m.table), feats, grad_out.double())
    assert_close(grad_feats, expected, torch.float32)


@pytest.mark.usefixtures("_splits")
@pytest.mark.parametrize("has_scale", [False, True])
@pytest.mark.parametrize("has_shift", [False, True])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_epilogue(has_scale, has_shift, has_residual, relu, device):
    m = strided(16, device)
    feats, weight = torch.randn(m.num_in, 6, device=device), torch.randn(8, 6, 20, device=device)
    scale = torch.randn(20, device=device) if has_scale else None
    shift = torch.randn(20, device=device) if has_shift else None
    residual = torch.randn(40, 20, device=device) if has_residual else None
    out = conv(feats, weight, *m.args, scale, shift, residual, relu)
    exact = exact_conv(feats, weight, m.table)
    exact = exact if scale is None else exact * scale.double()
    exact = exact if shift is None else exact + shift.double()
    exact = exact if residual is None else exact + residual.double()
    assert_close(out, exact.relu() if relu else exact, torch.float32)


def test_epilogue_is_computed_before_rounding(device):
    # 256 * 257 / 256 - 256 = 1, but 257 is 256 in bfloat16.
    m = tiled(torch.zeros(1, 1, dtype=torch.int64), 1, 16, device)
    feats = torch.ones(1, 16, device=device, dtype=torch.bfloat16)
    scale, shift = torch.full((16,), 257 / 256, device=device), torch.full((16,), -256.0, device=device)
    assert conv(feats, 16 * feats.expand(1, 16, 16), *m.args, scale, shift).tolist() == [[1.0] * 16]


@pytest.mark.usefixtures("_splits")
def test_relu_keeps_nan(device):
    m = tiled(torch.tensor([[0, 1]]), 2, 16, device)
    feats = torch.tensor([[float("nan")], [-1.0]], device=device)
    out = conv(feats, torch.ones(1, 1, 1, device=device), *m.args, relu=True)
    assert bool(out[0].isnan()) and float(out[1]) == 0


def test_ordered_table_gives_the_same_bits(device):
    m = strided(16, device)
    feats, weight = torch.randn(m.num_in, 8, device=device), torch.randn(8, 8, 16, device=device)
    grad_out = torch.randn(len(m.order), 16, device=device)
    ordered = (m.table[:, m.order.long()], *m.args[1:])
    assert torch.equal(conv(feats, weight, *m.args), conv(feats, weight, *ordered, ordered=True))
    grad = weight_gradient(feats, grad_out, *m.args)
    assert torch.equal(grad, weight_gradient(feats, grad_out, *ordered, ordered=True))


@pytest.mark.usefixtures("_splits")
def test_two_runs_agree_to_the_bit(device):
    m = strided(16, device)
    feats, weight = torch.randn(m.num_in, 40, device=device), torch.randn(8, 40, 16, device=device)
    grad_out = torch.randn(len(m.order), 16, device=device)
    assert torch.equal(*(conv(feats, weight, *m.args) for _ in range(2)))
    assert torch.equal(*(weight_gradient(feats, grad_out, *m.args) for _ in range(2)))


@pytest.mark.usefixtures("_splits")
@pytest.mark.parametrize("num_out", [0, 1])
def test_no_and_one_row(num_out, device):
    m = tiled(torch.arange(27)[:, None].eq(13).long()[:, :num_out] - 1, num_out, 16, device)
    feats, weight = torch.randn(num_out, 3, device=device), torch.randn(27, 3, 5, device=device)
    out = conv(feats, weight, *m.args)
    assert out.shape == (num_out, 5)
    torch.testing.assert_close(out, feats @ weight[13])
    grad_out = torch.randn(num_out, 5, device=device)
    expected = torch.zeros(27, 3, 5, device=device)
    expected[13] = feats.T @ grad_out
    torch.testing.assert_close(weight_gradient(feats, grad_out, *m.args), expected)


@pytest.mark.usefixtures("_splits")
def test_rows_without_any_neighbour_are_zero(device):
    m = tiled(torch.full((27, 40), -1), 0, 16, device)
    feats, weight = torch.randn(0, 4, device=device), torch.randn(27, 4, 5, device=device)
    assert torch.equal(conv(feats, weight, *m.args), torch.zeros(40, 5, device=device))
    assert torch.equal(weight_gradient(feats, torch.randn(40, 5, device=device), *m.args), torch.zeros_like(weight))


def test_what_does_not_suit_is_refused(device):
    m = submanifold(1, 0.1, 16, device)
    feats, weight = torch.randn(m.num_in, 4, device=device), torch.randn(1, 4, 4, device=device)
    with pytest.raises(ValueError, match="one for all"):
        conv(feats.half(), weight, *m.args)
    with pytest.raises(ValueError, match="float64"):
        conv(feats.double(), weight.double(), *m.args)
    with pytest.raises(ValueError, match="power of two"):
        conv(feats, weight, *m.args[:-1], 24)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("units", "align"), [(3, 2), (9, 4), (6, 16), (16, 16)])
def test_configurations_fit_the_shape(dtype, units, align):
    args = {
        "in_units": units,
        "IN_ALIGN": align,
        "out_units": units,
        "OUT_ALIGN": align,
        "feats": torch.zeros(0, dtype=dtype),
    }
    tried = [triton_tuning.triton.Config({"BLOCK_M": 128, "BLOCK_N": n, "BLOCK_K": 64}) for n in (64, 256)]
    fitted = triton_tuning.fit_conv(tried, args, TILE_ROWS=32, PRECISION="ieee")
    for config in fitted:
        assert config.kwargs["BLOCK_M"] == 32
        assert 16 <= config.kwargs["BLOCK_N"] < max(32, 2 * units * align)
        assert config.kwargs["BLOCK_K"] <= (16 if dtype == torch.float32 else 64)
    assert len(fitted) == (1 if units * align <= 64 else 2)
