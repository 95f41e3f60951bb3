"""Every way of computing a sparse convolution against the reference in float64."""

import pytest
import torch

from ponder3d.geometry.kernels import kernels
from ponder3d.sparse import compiled, reference, sparse_tensor
from ponder3d.sparse import maps as maps_module
from ponder3d.sparse.functional import sparse_conv
from ponder3d.sparse.maps import ConvMap, inner_subm_map, strided_map, subm_map

needs_compiler = pytest.mark.skipif(not compiled.LIBRARY.available, reason="no C compiler")
ENGINES = ["torch", pytest.param("compiled", marks=needs_compiler)]
CHANNELS = [(1, 1), (6, 16), (7, 33), (36, 32), (64, 96), (130, 20)]


def a_map(kind: str, num: int = 600) -> ConvMap:
    coords = torch.unique(torch.randint(-9, 9, (num, 3)), dim=0)
    coords = torch.cat([torch.arange(len(coords))[:, None] % 3, coords], dim=1)
    x = sparse_tensor(coords, torch.zeros(len(coords), 1), 3)
    if kind.startswith("subm"):
        return subm_map(x.keys, int(kind[4:]))
    maps = strided_map(x.coords, 3, 2, (1, 1, 0))[2] if kind == "overlapping" else strided_map(x.coords, 2, 2, 0)[2]
    return maps.transposed() if kind == "inverse" else maps


def relative_error(value: torch.Tensor, expected: torch.Tensor) -> float:
    return float((value.double() - expected).norm() / expected.norm().clamp(min=1e-300))


def run(feats, weight, maps, grad):
    feats, weight = feats.clone().requires_grad_(), weight.clone().requires_grad_()
    out = sparse_conv(feats, weight, maps)
    out.backward(grad)
    return out.detach(), feats.grad, weight.grad


def expected(feats, weight, maps, grad):
    feats, weight = (t.double().requires_grad_() for t in (feats, weight))
    out = reference.conv(feats, weight, maps.forward)
    out.backward(grad.double())
    return out.detach(), feats.grad, weight.grad


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["subm1", "subm3", "subm5", "strided", "overlapping", "inverse"])
@pytest.mark.parametrize(("c_in", "c_out"), CHANNELS)
def test_equals_the_reference(engine, kind, c_in, c_out):
    maps = a_map(kind)
    feats = torch.randn(maps.forward.num_in, c_in)
    weight = torch.randn(len(maps.forward.rows), c_in, c_out)
    grad = torch.randn(maps.forward.rows.shape[1], c_out)
    with kernels(engine):
        results = run(feats, weight, maps, grad)
    for value, right in zip(results, expected(feats, weight, maps, grad), strict=True):
        assert relative_error(value, right) < 1e-5


def test_the_reference_has_the_gradient_of_the_weights_that_autograd_has():
    maps = a_map("subm3")
    feats, weight = torch.randn(maps.forward.num_in, 5).double(), torch.randn(27, 5, 4).double()
    grad = torch.randn(maps.forward.rows.shape[1], 4).double()
    right = expected(feats, weight, maps, grad)[2]
    torch.testing.assert_close(reference.weight_gradient(feats, grad, maps.forward), right)


@needs_compiler
@pytest.mark.parametrize("rows", [0, 1, 5, 47, 48, 1031])
def test_compiled_leaves_no_row_out(rows):
    keys = torch.arange(rows) * 7  # no neighbours: every output is the middle tap's alone
    maps = subm_map(keys, 3)
    feats, weight = torch.randn(rows, 3), torch.randn(27, 3, 2)
    with kernels("compiled"):
        out, _, grad = run(feats, weight, maps, torch.ones(rows, 2))
    torch.testing.assert_close(out, feats @ weight[13])
    others = [tap for tap in range(27) if tap != 13]
    assert bool((grad[others] == 0).all())
    torch.testing.assert_close(grad[13], feats.sum(0)[:, None].expand(3, 2))


@needs_compiler
def test_compiled_results_do_not_depend_on_the_number_of_threads():
    maps = a_map("subm3", 3000)
    feats, weight = torch.randn(maps.forward.num_in, 24), torch.randn(27, 24, 40)
    grad = torch.randn(maps.forward.rows.shape[1], 40)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8, 1):
            torch.set_num_threads(threads)
            with kernels("compiled"):
                results.append(run(feats, weight, maps, grad))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_compiler
def test_compiled_keeps_the_digits_of_long_sums():
    """100 000 terms added to one float one by one would lose two digits."""
    rows = 100_000
    table = torch.arange(rows, dtype=torch.int32)[None]
    feats, grad = torch.rand(rows, 4), torch.rand(rows, 8)
    right = feats.double().T @ grad.double()
    assert relative_error(compiled.weight_gradient(feats, grad, table)[0], right) < 2e-6


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_neighbours_are_found_by_every_engine(engine, kernel):
    coords = torch.unique(torch.randint(-5, 5, (300, 4)).abs_().sub_(torch.tensor([0, 3, 3, 3])), dim=0)
    keys = sparse_tensor(coords, torch.zeros(len(coords), 1), 8).keys
    with kernels(engine):
        rows = subm_map(keys, kernel).forward.rows
    places = {tuple(c): i for i, c in enumerate(sparse_tensor(coords, torch.zeros(len(coords), 1), 8).coords.tolist())}
    ordered = sorted(places, key=places.__getitem__)
    offsets = torch.cartesian_prod(*[torch.arange(kernel) - kernel // 2] * 3).view(-1, 3).tolist()
    for tap, (dx, dy, dz) in enumerate(offsets):
        right = [places.get((b, x + dx, y + dy, z + dz), -1) for b, x, y, z in ordered]
        assert rows[tap].tolist() == right


def test_the_middle_of_a_wide_map_is_the_narrow_one():
    keys = a_map_keys()
    wide = subm_map(keys, 5)
    assert torch.equal(inner_subm_map(wide, 3).forward.rows, subm_map(keys, 3).forward.rows)
    assert torch.equal(inner_subm_map(wide, 1).forward.rows, subm_map(keys, 1).forward.rows)


def a_map_keys() -> torch.Tensor:
    coords = torch.unique(torch.randint(0, 9, (300, 4)) % torch.tensor([2, 9, 9, 9]), dim=0)
    return sparse_tensor(coords, torch.zeros(len(coords), 1), 2).keys


@pytest.mark.parametrize("kernel", [3, 5])
def test_tiles_hold_every_row_once_and_list_their_taps(kernel, monkeypatch):
    monkeypatch.setattr(maps_module, "TILE_ROWS", 16)
    monkeypatch.setattr(maps_module, "TILE_WINDOW", 100)
    table = subm_map(a_map_keys(), kernel).forward
    tiles = table.tiles
    assert torch.equal(tiles.order.sort().values.long(), torch.arange(table.rows.shape[1]))
    assert torch.equal(tiles.table, table.rows[:, tiles.order.long()])
    for tile in range(len(tiles.counts)):
        present = (tiles.table[:, tile * 16 : (tile + 1) * 16] >= 0).any(1).nonzero()[:, 0].tolist()
        assert tiles.taps[tile, : tiles.counts[tile]].tolist() == present


def test_tiles_of_nothing():
    tiles = subm_map(torch.zeros(0, dtype=torch.int64), 3).forward.tiles
    assert len(tiles.order) == len(tiles.counts) == 0


def test_without_a_compiler_pytorch_does_the_same(no_compiler):
    maps = a_map("subm3")
    feats, weight = torch.randn(maps.forward.num_in, 4), torch.randn(27, 4, 4)
    grad = torch.ones(maps.forward.rows.shape[1], 4)
    results = run(feats, weight, maps, grad)
    for value, right in zip(results, expected(feats, weight, maps, grad), strict=True):
        assert relative_error(value, right) < 1e-5
    with kernels("compiled"), pytest.raises(RuntimeError, match="C compiler"):
        sparse_conv(feats, weight, maps)
