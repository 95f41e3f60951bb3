"""The neighbour table against a dictionary of all voxels, tiles against PyTorch."""

import itertools

import pytest
import torch

from ponder3d.geometry.grid import pack_keys
from ponder3d.geometry.kernels import kernels
from ponder3d.sparse import maps as maps_module
from ponder3d.sparse.maps import TapTable
from ponder3d.sparse.triton_maps import neighbour_table


def voxels(share: float, lo: tuple[int, int, int], scenes: int = 3) -> torch.Tensor:
    """Random occupied voxels of a 6 x 4 x 7 box of each scene, in the order of their keys."""
    every = torch.tensor(list(itertools.product(range(scenes), range(6), range(4), range(7))))
    kept = every[torch.rand(len(every)) < share]
    kept[:, 1:] += torch.tensor(lo)
    return kept


def expected_table(coords: torch.Tensor, kernel: int) -> torch.Tensor:
    row_of = {tuple(c): row for row, c in enumerate(coords.tolist())}
    offsets = itertools.product(range(-(kernel // 2), kernel // 2 + 1), repeat=3)
    return torch.tensor(
        [[row_of.get((b, x + dx, y + dy, z + dz), -1) for b, x, y, z in row_of] for dx, dy, dz in offsets],
        dtype=torch.int32,
    ).reshape(kernel**3, len(coords))


@pytest.mark.parametrize(
    ("kernel", "share", "lo"),
    [
        (1, 0.4, (0, 0, 0)),
        (3, 0.4, (-3, -2, -4)),
        (3, 0.4, (-65472, 65469, -70)),
        (3, 1.0, (0, 0, 0)),  # 504 rows: four blocks
        (5, 0.4, (-65472, 65469, 65466)),
    ],
)
def test_neighbours_are_those_of_a_dictionary(kernel, share, lo, device):
    coords = voxels(share, lo)
    table = neighbour_table(pack_keys(coords).to(device), kernel)
    assert table.dtype == torch.int32
    assert torch.equal(table.cpu(), expected_table(coords, kernel))


@pytest.mark.parametrize("num", [0, 1])
def test_empty_and_single(num, device):
    keys = pack_keys(torch.tensor([[4095, -1, 2, 3]])).to(device)[:num]
    table = neighbour_table(keys, 3)
    assert table.shape == (27, num)
    assert table[13].tolist() == [0][:num]
    assert int((table >= 0).sum()) == num


def test_scenes_do_not_touch(device):
    # The highest voxel of scene 0 and the lowest of scene 1 have neighbouring keys but for the 64 that are kept free.
    coords = torch.tensor([[0, 65472, 65472, 65472], [1, -65472, -65472, -65472]])
    table = neighbour_table(pack_keys(coords).to(device), 5)
    assert int((table >= 0).sum()) == 2


def a_table(kernel: int, rows: int) -> torch.Tensor:
    """Input rows at random, with rows that nothing reads and taps that nothing has."""
    table = torch.where(torch.rand(kernel**3, rows) < 0.3, torch.randint(0, 1000, (kernel**3, rows)), -1)
    table[:, ::7] = -1
    table[kernel] = -1
    return table.to(torch.int32)


@pytest.mark.parametrize(("kernel", "rows"), [(2, 1000), (3, 128), (3, 1001), (5, 700), (3, 1), (3, 0)])
@pytest.mark.parametrize("window", [256, 1 << 16])
def test_tiles_are_pytorchs(kernel, rows, window, device, monkeypatch):
    monkeypatch.setattr(maps_module, "TILE_WINDOW", window)
    table = a_table(kernel, rows).to(device)
    with kernels("torch"):
        right = TapTable(table, 1000).tiles
    with kernels("triton"):
        tiles = TapTable(table, 1000).tiles
    for name in ("table", "order", "taps", "counts"):
        value = getattr(tiles, name)
        assert value.dtype == torch.int32
        assert torch.equal(value, getattr(right, name)), name


def test_many_windows_take_wide_keys(device, monkeypatch):
    """27 taps and 5 bits of windows are more than an int32 without its sign holds."""
    monkeypatch.setattr(maps_module, "TILE_WINDOW", 16)
    table = torch.full((27, 400), 5, dtype=torch.int32, device=device)
    with kernels("triton"):
        tiles = TapTable(table, 1000).tiles
    assert tiles.order.tolist() == list(range(400))
