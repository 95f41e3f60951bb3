import itertools

import pytest
import torch

from ponder3d.geometry import grid as g
from ponder3d.types import Grid


def test_keys_round_trip_and_sort_like_rows():
    limit = g.MAX_COORDINATE
    rows = torch.tensor(list(itertools.product((0, 4095), (-limit, -1, 0, limit), (-limit, 0, 3), (-limit, 0, limit))))
    keys = g.pack_keys(rows)
    assert torch.equal(g.unpack_keys(keys), rows)
    assert bool((keys >= 0).all())
    order = sorted(range(len(rows)), key=lambda i: rows[i].tolist())
    assert torch.argsort(keys).tolist() == order


@pytest.mark.parametrize("shift", [(1, 0, 0), (0, -1, 0), (-2, 2, 1), (0, 0, -63)])
def test_key_offset_moves_a_voxel_also_at_the_limits(shift):
    for corner in itertools.product((-g.MAX_COORDINATE, -1, 0, g.MAX_COORDINATE), repeat=3):
        row = torch.tensor([[7, *corner]])
        moved = torch.tensor([[7, *(c + s for c, s in zip(corner, shift, strict=True))]])
        assert int(g.pack_keys(row) + g.key_offset(*shift)) == int(g.pack_keys(moved))


def test_voxelize_by_hand():
    xyz = torch.tensor([[0.05, 0.0, 0.0], [-0.05, 0.0, 0.0], [0.09, 0.01, 0.0], [0.05, 0.0, 0.0]])
    voxels = g.voxelize(xyz, torch.tensor([0, 0, 0, 1]), 0.1)
    assert voxels.coords.tolist() == [[0, -1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert voxels.voxel.tolist() == [1, 0, 1, 2]
    assert voxels.counts.tolist() == [1, 2, 1]


def test_voxelize_nothing():
    voxels = g.voxelize(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 0.1)
    assert voxels.coords.shape == (0, 4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e5])
def test_voxelize_refuses_what_has_no_key(bad):
    with pytest.raises(ValueError, match="not finite or beyond"):
        g.voxelize(torch.tensor([[0.0, bad, 0.0]]), torch.tensor([0]), 0.1)


def test_voxelize_refuses_too_many_scenes():
    with pytest.raises(ValueError, match="4096 scenes"):
        g.voxelize(torch.zeros(1, 3), torch.tensor([4096]), 0.1)


def test_find_keys():
    table = torch.tensor([2, 5, 9])
    assert g.find_keys(table, torch.tensor([5, 1, 9, 10])).tolist() == [1, -1, 2, -1]
    assert g.find_keys(torch.zeros(0, dtype=torch.int64), torch.tensor([5])).tolist() == [-1]


def test_cells_from_world_by_hand():
    grid = Grid(torch.tensor([[[-1.0, 0, 0], [1, 4, 1]], [[0, 0, 0], [4, 4, 4]]]), (4, 4, 2))
    xyz = torch.tensor([[-1.0, 0, 0], [0.0, 2, 0.5], [1.0, 4, 1], [2.0, 2, 2]])
    cells = g.cells_from_world(grid, xyz, torch.tensor([0, 0, 0, 1]))
    assert cells.tolist() == [[0, 0, 0], [2, 2, 1], [4, 4, 2], [2, 2, 1]]
    assert g.cells_per_metre(grid).tolist() == [[2, 1, 2], [1, 1, 0.5]]


def test_ravel_matches_a_volume():
    volume = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    row = g.ravel(torch.tensor([[2, 1, 4]]), torch.tensor([1]), (3, 4, 5))
    assert int(volume.flatten()[row]) == int(volume[1, 2, 1, 4])


def test_fragments_have_every_voxel_and_together_every_point():
    xyz, scene = torch.rand(3000, 3) * 2, torch.arange(3000) // 1200
    seen = torch.zeros(3000, dtype=torch.int64)
    voxels = g.voxelize(xyz, scene, 0.3)
    number = 0
    for rows in g.fragments(xyz, scene, 0.3):
        assert torch.equal(g.voxelize(xyz[rows], scene[rows], 0.3).keys, voxels.keys)
        assert len(rows) == len(voxels.keys), "one point per voxel"
        assert bool((rows.diff() > 0).all())
        seen[rows] += 1
        number += 1
    assert int(seen.min()) >= 1 and number == int(voxels.counts.max())
    # A voxel's points take turns.
    assert int(seen.max()) == number and bool((seen >= number // voxels.counts[voxels.voxel]).all())


def test_fragments_of_nothing():
    assert not list(g.fragments(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 0.3))


def test_a_fixed_grid_is_one_box_for_all(device):
    box = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
    grid = g.fixed_grid(box, (180, 180, 5), 2, device)
    assert grid.box.tolist() == [[[-54, -54, -5], [54, 54, 3]]] * 2 and grid.shape == (180, 180, 5)
    assert grid.box.device.type == device.type and grid.box.is_contiguous()
    assert grid.is_as(g.fixed_grid(box, (180, 180, 5), 2, device))
    assert not grid.is_as(g.fixed_grid(box, (180, 180, 5), 3, device))
    for wrong, shape in ((box[:5], (1, 1, 1)), ((*box[:5], -5.0), (1, 1, 1)), (box, (1, 0, 1))):
        with pytest.raises(ValueError, match="fixed_grid: "):
            g.fixed_grid(wrong, shape, 1)
