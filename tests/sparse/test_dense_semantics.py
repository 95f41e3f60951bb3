"""Meaning before speed: first that torch's conv3d does what we believe, then that sparse convolution equals it."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from ponder3d.geometry.grid import MAX_COORDINATE
from ponder3d.sparse import maps as maps_module
from ponder3d.sparse import sparse_tensor
from ponder3d.sparse.functional import sparse_conv
from ponder3d.sparse.maps import strided_map

SHAPE = (6, 5, 7)
SCENES = 2


@pytest.fixture(params=[2048, 7], ids=["one block", "many blocks"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(maps_module, "BLOCK_ROWS", request.param)


def some_voxels(share: float, lo=(0, 0, 0)) -> torch.Tensor:
    """Random occupied voxels of SCENES scenes in a box of SHAPE that starts at ``lo``."""
    every = torch.tensor(list(itertools.product(range(SCENES), *(range(n) for n in SHAPE))))
    kept = every[torch.rand(len(every)) < share]
    kept[:, 1:] += torch.tensor(lo)
    return kept[torch.randperm(len(kept))]


def to_dense(coords, feats, shape, lo=(0, 0, 0)) -> torch.Tensor:
    dense = torch.zeros(SCENES, feats.shape[1], *shape, dtype=feats.dtype)
    b, x, y, z = (coords - torch.tensor([0, *lo])).unbind(1)
    return dense.index_put((b, torch.arange(feats.shape[1])[:, None], x, y, z), feats.T)


def read_dense(dense, coords, lo=(0, 0, 0)) -> torch.Tensor:
    b, x, y, z = (coords - torch.tensor([0, *lo])).unbind(1)
    return dense[b, :, x, y, z]


def as_conv3d(weight, kernel) -> torch.Tensor:
    """[K, C_in, C_out] to conv3d's [C_out, C_in, k, k, k]."""
    k = (kernel,) * 3
    return weight.permute(2, 1, 0).reshape(weight.shape[2], weight.shape[1], *k)


def test_conv3d_is_cross_correlation_with_x_slowest():
    # An impulse at the centre of a 3^3 grid shows the kernel mirrored; tap (2, 1, 1) reads the input at x + 1.
    weight = torch.arange(27.0).view(1, 1, 3, 3, 3)
    impulse = torch.zeros(1, 1, 3, 3, 3)
    impulse[0, 0, 2, 1, 1] = 1
    assert float(F.conv3d(impulse, weight, padding=1)[0, 0, 1, 1, 1]) == 2 * 9 + 1 * 3 + 1


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("lo", [(0, 0, 0), (-4, -70, 65000)])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_submanifold_equals_dense(kernel, lo, share, device):
    coords = some_voxels(share, lo)
    feats = torch.randn(len(coords), 3, dtype=torch.float64)
    weight = torch.randn(kernel**3, 3, 4, dtype=torch.float64, requires_grad=True)
    moved = sparse_tensor(coords.to(device), feats.to(device), SCENES)
    sparse_in = moved.feats.clone().requires_grad_()
    out = sparse_conv(sparse_in, weight.to(device), moved.maps.subm(1, kernel)).cpu()
    x = sparse_tensor(coords, feats, SCENES)
    dense_feats = x.feats.clone().requires_grad_()
    dense_weight = weight.detach().clone().requires_grad_()
    dense = F.conv3d(to_dense(x.coords, dense_feats, SHAPE, lo), as_conv3d(dense_weight, kernel), padding=kernel // 2)
    expected = read_dense(dense, x.coords, lo)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(sparse_in.grad.cpu(), dense_feats.grad)
    torch.testing.assert_close(weight.grad, dense_weight.grad)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 2, (0, 1, 1)), (4, 4, 0), (3, 1, 1), (5, 3, (2, 0, 1))]
)
@pytest.mark.parametrize("lo", [(0, 0, 0), (-8, -8, -8)])
def test_strided_and_inverse_equal_dense(kernel, stride, padding, lo, device):
    coords = some_voxels(0.3, lo)
    x = sparse_tensor(coords, torch.randn(len(coords), 3, dtype=torch.float64), SCENES)
    out_coords, out_keys, maps = strided_map(x.coords.to(device), kernel, stride, padding)
    out_coords = out_coords.cpu()
    assert bool((out_keys[1:] > out_keys[:-1]).all())
    # Dense: a box large enough on both sides, aligned with the stride.
    base = (-12, -12, -12)
    shape = tuple(n + 24 for n in SHAPE)
    weight = torch.randn(kernel**3, 3, 4, dtype=torch.float64, requires_grad=True)
    sparse_in = x.feats.clone().requires_grad_()
    out = sparse_conv(sparse_in.to(device), weight.to(device), maps).cpu()
    dense_feats, dense_weight = (t.detach().clone().requires_grad_() for t in (x.feats, weight))
    dense = F.conv3d(
        to_dense(x.coords, dense_feats, shape, base), as_conv3d(dense_weight, kernel), stride=stride, padding=padding
    )
    out_base = tuple(b // stride for b in base)
    expected = read_dense(dense, out_coords, out_base)
    torch.testing.assert_close(out, expected)
    # Nothing is lost: the dense result is zero wherever there is no output voxel.
    covered = to_dense(out_coords, torch.ones(len(out_coords), 1), dense.shape[2:], out_base) > 0
    assert float(dense.detach().masked_fill(covered, 0).abs().max()) == 0
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(sparse_in.grad, dense_feats.grad)
    torch.testing.assert_close(weight.grad, dense_weight.grad)
    # The inverse is the transpose: <conv(x), y> = <x, inverse(y)> with the taps' matrices transposed.
    y = torch.randn(len(out_coords), 4, dtype=torch.float64)
    back = sparse_conv(y.to(device), weight.detach().to(device).transpose(1, 2), maps.transposed()).cpu()
    torch.testing.assert_close((out.detach() * y).sum(), (x.feats * back).sum())


@pytest.mark.parametrize("padding", [1, (1, 1, 0), (0, 1, 2)])
def test_limits_are_those_of_a_volume(padding, device):
    """As where a volume is convolved: no output beyond its last, and none before its first."""
    coords = some_voxels(0.4)
    x = sparse_tensor(coords, torch.randn(len(coords), 3, dtype=torch.float64), SCENES)
    weight = torch.randn(27, 3, 4, dtype=torch.float64)
    dense = F.conv3d(to_dense(x.coords, x.feats, SHAPE), as_conv3d(weight, 3), stride=2, padding=padding)
    out_coords, _, maps = strided_map(x.coords.to(device), 3, 2, padding, tuple(dense.shape[2:]))
    out_coords = out_coords.cpu()
    out = sparse_conv(x.feats.to(device), weight.to(device), maps).cpu()
    torch.testing.assert_close(to_dense(out_coords, out, dense.shape[2:]), dense)
    unlimited = strided_map(x.coords, 3, 2, padding)[0]
    assert len(unlimited) > len(out_coords), "this test cannot fail"


def test_a_strided_map_of_the_last_scenes_and_the_farthest_voxels():
    far = MAX_COORDINATE
    coords = torch.tensor([[4094, -far, 0, 0], [4095, far, far, far], [4095, -far, far, -far]])
    x = sparse_tensor(coords, torch.ones(3, 1), 4096)
    out_coords, out_keys, maps = strided_map(x.coords, 3, 2, 1)
    # An even coordinate is read by one output along its axis.
    half = far // 2
    assert out_coords.tolist() == [[4094, -half, 0, 0], [4095, -half, half, -half], [4095, half, half, half]]
    assert bool((out_keys[1:] > out_keys[:-1]).all())
    assert maps.forward.rows[13].tolist() == [0, 1, 2] and int((maps.forward.rows >= 0).sum()) == 3


def test_inverse_equals_transposed_conv3d():
    coords = some_voxels(0.3)
    x = sparse_tensor(coords, torch.randn(len(coords), 3, dtype=torch.float64), SCENES)
    out_coords, _, maps = strided_map(x.coords, 2, 2, 0)
    coarse = torch.randn(len(out_coords), 4, dtype=torch.float64)
    weight = torch.randn(8, 4, 3, dtype=torch.float64)
    fine = sparse_conv(coarse, weight, maps.transposed())
    kernel = weight.permute(1, 2, 0).reshape(4, 3, 2, 2, 2)
    dense = F.conv_transpose3d(to_dense(out_coords, coarse, (3, 3, 4)), kernel, stride=2)
    torch.testing.assert_close(fine, read_dense(dense, x.coords))


@pytest.mark.parametrize("num", [0, 1])
def test_empty_and_single(num):
    coords = torch.tensor([[0, 3, 4, 5]])[:num]
    x = sparse_tensor(coords, torch.randn(num, 3), 1)
    feats = x.feats.clone().requires_grad_()
    weight = torch.randn(27, 3, 4, requires_grad=True)
    out = sparse_conv(feats, weight, x.maps.subm(1, 3))
    out.sum().backward()
    assert out.shape == (num, 4)
    assert weight.grad is not None and feats.grad is not None
    torch.testing.assert_close(out, feats.detach() @ weight.detach()[13])
    for kernel, reached in ((2, [[0, 1, 2, 2]]), (3, [[0, 1, 2, 2], [0, 1, 2, 3], [0, 2, 2, 2], [0, 2, 2, 3]])):
        coarse, _, maps = strided_map(x.coords, kernel, 2, kernel - 2)
        assert coarse.tolist() == (reached if num else [])
        assert sparse_conv(x.feats, torch.randn(kernel**3, 3, 4), maps).shape == (len(coarse), 4)


def test_scenes_do_not_touch():
    coords = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 1]])
    x = sparse_tensor(coords, torch.eye(2), 2)
    weight = torch.ones(27, 2, 1)
    assert sparse_conv(x.feats, weight, x.maps.subm(1, 3)).tolist() == [[1.0], [1.0]]


def test_a_thousand_scenes_with_empty_ones():
    scene = torch.arange(0, 4096, 4)
    coords = torch.cat([scene[:, None], torch.zeros(1024, 3, dtype=torch.int64)], dim=1)
    coords = torch.cat([coords, coords + torch.tensor([0, 0, 0, 1])])
    x = sparse_tensor(coords, torch.ones(2048, 1), 4096)
    out = sparse_conv(x.feats, torch.ones(27, 1, 1), x.maps.subm(1, 3))
    assert bool((out == 2).all())


def test_order_of_the_input_rows_does_not_matter():
    coords = some_voxels(0.4)
    feats = torch.randn(len(coords), 3)
    shuffle = torch.randperm(len(coords))
    a, b = sparse_tensor(coords, feats, SCENES), sparse_tensor(coords[shuffle], feats[shuffle], SCENES)
    assert torch.equal(a.coords, b.coords) and torch.equal(a.feats, b.feats)


def test_two_runs_agree_to_the_bit(_blocks, device):
    coords = some_voxels(0.7)
    x = sparse_tensor(coords.to(device), torch.randn(len(coords), 8).to(device), SCENES)
    results = []
    for _ in range(2):
        feats, weight = x.feats.clone().requires_grad_(), torch.full((27, 8, 8), 0.1, device=device).requires_grad_()
        sparse_conv(feats, weight, x.maps.subm(1, 3)).square().sum().backward()
        results.append((feats.grad, weight.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_autocast_multiplies_in_bfloat16_and_stays_close(device):
    coords = some_voxels(0.5)
    x = sparse_tensor(coords.to(device), torch.randn(len(coords), 16).to(device), SCENES)
    weight = (torch.randn(27, 16, 8) * 0.1).to(device).requires_grad_()
    exact = sparse_conv(x.feats, weight, x.maps.subm(1, 3))
    with torch.autocast(device.type, torch.bfloat16):
        rounded = sparse_conv(x.feats, weight, x.maps.subm(1, 3))
    assert rounded.dtype == torch.bfloat16
    assert float(((rounded.float() - exact).norm() / exact.norm()).detach()) < 0.01
    rounded.float().square().sum().backward()
    assert weight.grad is not None and weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("coords", "scenes", "message"),
    [
        ([[0, 0, 0, 0], [0, 0, 0, 0]], 1, "occurs twice"),
        ([[0, 70000, 0, 0]], 1, "beyond"),
        ([[2, 0, 0, 0]], 2, "scene index"),
        ([[-1, 0, 0, 0]], 2, "scene index"),
    ],
)
def test_bad_voxels(coords, scenes, message):
    with pytest.raises(ValueError, match=message):
        sparse_tensor(torch.tensor(coords), torch.zeros(len(coords), 1), scenes)


def test_even_submanifold_kernel_is_refused():
    x = sparse_tensor(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 1), 1)
    with pytest.raises(ValueError, match="odd kernel"):
        x.maps.subm(1, 2)
