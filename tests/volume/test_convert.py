from dataclasses import replace

import pytest
import torch

from ponder3d.geometry.grid import fixed_grid
from ponder3d.sparse import sparse_tensor
from ponder3d.types import Grid, Points, Volume
from ponder3d.types.scene import to_device
from ponder3d.volume.convert import densify, densify_with_offsets, sample_at, voxel_centres

BOX = Grid(torch.tensor([[[0.0, 0, 0], [4, 4, 2]], [[-1, -1, -1], [1, 1, 1]]]), (4, 4, 2))


def test_points_are_averaged_in_their_cells():
    xyz = torch.tensor([[0.5, 0.5, 0.5], [0.9, 0.1, 0.2], [3.5, 3.5, 1.5], [5.0, 0, 0], [0.9, 0.9, 0.9]])
    points = Points(xyz, torch.tensor([[1.0], [3.0], [7.0], [100.0], [9.0]]), torch.tensor([4, 1]))
    volume = densify(points, BOX)
    assert float(volume.feats[0, 0, 0, 0]) == 2
    assert float(volume.feats[0, 3, 3, 1]) == 7
    assert float(volume.feats[1, 3, 3, 1]) == 9  # another scene, another box
    assert float(volume.feats.sum()) == 2 + 7 + 9  # what lies outside is dropped, empty cells are zero


def test_scatter_and_sampling_share_one_frame(device):
    """Regression against the two frames of the released code (spec 9.1, number 2): up to 6 cells apart there."""
    grid = Grid(torch.tensor([[[-3.0, -2, 0], [3, 3, 2.7]]]), (60, 50, 27))
    xyz = torch.rand(4000, 3) * torch.tensor([6, 5, 2.7]) + torch.tensor([-3.0, -2, 0])
    # Every cell holds the mean position of its points; reading it back must give about the position itself.
    filled = torch.stack(torch.meshgrid(*[(torch.arange(n) + 0.5) * 0.1 for n in grid.shape], indexing="ij"), dim=-1)
    centres = filled.view(-1, 3) + torch.tensor([-3.0, -2, 0])
    points = to_device(Points(centres, centres, torch.tensor([len(centres)])), device)
    volume = densify(points, to_device(grid, device))
    inner = ((xyz > grid.box[0, 0] + 0.05) & (xyz < grid.box[0, 1] - 0.05)).all(1)
    one_scene = torch.zeros(int(inner.sum()), dtype=torch.int64, device=device)
    read = sample_at(volume, xyz[inner].to(device), one_scene).cpu()
    torch.testing.assert_close(read, xyz[inner], atol=1e-4, rtol=0)


def test_a_room_fills_its_volume():
    """Regression against one extent for all axes (spec 9.1, number 3): a low room used a third of z there."""
    xyz = torch.rand(20000, 3) * torch.tensor([6.0, 5.0, 2.7])
    grid = Grid(torch.tensor([[[0.0, 0, 0], [6, 5, 2.7]]]), (12, 10, 6))
    volume = densify(Points(xyz, torch.ones(20000, 1), torch.tensor([20000])), grid)
    assert bool((volume.feats == 1).all())


def test_sparse_tensors_enter_by_their_voxel_centres(device):
    coords = torch.tensor([[0, 0, 0, 0], [0, -1, 5, 2], [1, 3, 3, 3]], device=device)
    x = sparse_tensor(coords, torch.tensor([[1.0], [2.0], [3.0]], device=device), 2, voxel_size=0.5)
    assert voxel_centres(x).tolist() == [[-0.25, 2.75, 1.25], [0.25, 0.25, 0.25], [1.75, 1.75, 1.75]]
    grid = Grid(torch.tensor([[[-1.0, 0, 0], [1, 4, 2]], [[0, 0, 0], [2, 2, 2]]]), (2, 4, 2))
    volume = densify(x, to_device(grid, device))
    assert float(volume.feats[0, 0, 2, 1]) == 2 and float(volume.feats[0, 1, 0, 0]) == 1
    assert float(volume.feats[1, 1, 3, 1]) == 3


def test_sample_at_a_sparse_tensor_finds_the_voxel_of_each_point(device):
    coords = torch.tensor([[0, 0, 0, 0], [0, -1, 0, 0]], device=device)
    x = sparse_tensor(coords, torch.tensor([[1.0], [2.0]], device=device), 1, voxel_size=0.5)
    xyz = torch.tensor([[0.4, 0.1, 0.2], [-0.01, 0.1, 0.1], [5.0, 5, 5]], device=device)
    one_scene = torch.zeros(3, dtype=torch.int64, device=device)
    assert sample_at(x, xyz, one_scene).tolist() == [[1.0], [2.0], [0.0]]
    none = sparse_tensor(coords[:0], torch.zeros(0, 1, device=device), 1)
    assert sample_at(none, xyz, one_scene).tolist() == [[0.0]] * 3


def test_packed_points_give_their_own_rows():
    points = Points(torch.rand(5, 3), torch.rand(5, 2), torch.tensor([5]))
    assert sample_at(points, points.xyz, points.scene) is points.feats
    with pytest.raises(ValueError, match="5 points asked for at 3"):
        sample_at(points, points.xyz[:3], points.scene[:3])


def test_a_volume_is_resampled(device):
    grid = Grid(torch.tensor([[[0.0, 0, 0], [8, 8, 8]]]), (8, 8, 8))
    ramp = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 8, 8, 1)[None] + 0.5
    other = Grid(torch.tensor([[[2.0, 2, 2], [6, 6, 6]]]), (8, 4, 4))
    found = densify(to_device(Volume(grid, ramp), device), to_device(other, device)).feats[0, :, 0, 0, 0].cpu()
    torch.testing.assert_close(found, torch.arange(8) * 0.5 + 2.25)


def test_a_volume_on_the_same_grid_is_not_touched():
    box = (0.0, -1.0, 0.0, 4.0, 1.0, 2.0)
    feats = torch.randn(2, 4, 3, 2, 5)
    volume = Volume(fixed_grid(box, (4, 3, 2), 2), feats)
    assert densify(volume, fixed_grid(box, (4, 3, 2), 2)) is volume
    assert densify(volume, volume.grid) is volume
    padded = densify_with_offsets(volume, fixed_grid(box, (4, 3, 2), 2)).feats
    assert torch.equal(padded[..., :5], feats)
    assert torch.equal(padded[..., 5:], torch.tensor([0.0, 0, 0, 1]).expand(2, 4, 3, 2, 4))
    for other in (
        fixed_grid((*box[:5], 2.5), (4, 3, 2), 2),
        fixed_grid(box, (4, 3, 4), 2),
        Grid(volume.grid.box + 0.5, (4, 3, 2)),
        replace(volume.grid, box=volume.grid.box.clone(), fixed=None),  # nobody knows
    ):
        found = densify(volume, other)
        assert found is not volume and found.grid is other
    torch.testing.assert_close(densify(volume, other).feats, feats)


def test_gradient_reaches_the_points(device):
    feats = torch.randn(50, 3).to(device).requires_grad_()
    points = Points(torch.rand(50, 3).to(device), feats, torch.tensor([50], device=device))
    grid = Grid(torch.tensor([[[0.0, 0, 0], [1, 1, 1]]], device=device), (2, 2, 2))
    densify(points, grid).feats.sum().backward()
    count = densify(Points(points.xyz, torch.ones(50, 1, device=device), points.counts), grid)
    assert points.feats.grad is not None and bool((points.feats.grad > 0).all())
    assert float(points.feats.grad[:, 0].sum()) == pytest.approx(float((count.feats > 0).sum()), rel=1e-5)


def test_the_occupied_cells_are_those_that_points_lie_in():
    xyz = torch.tensor([[0.5, 0.5, 0.5], [0.9, 0.1, 0.2], [3.5, 3.5, 1.5], [5.0, 0, 0], [0.9, 0.9, 0.9]])
    feats = torch.tensor([[1.0], [2], [5], [7], [0]])
    volume = densify(Points(xyz, feats, torch.tensor([4, 1])), BOX)
    assert volume.occupied.rows.tolist() == [0, 31, 63]
    assert volume.occupied.feats.tolist() == [[1.5], [5], [0]]  # the last holds a point whose feature is zero
    assert torch.equal(volume.feats.flatten(0, 3)[volume.occupied.rows], volume.occupied.feats)


def test_half_precision_features_lie_and_count_as_exactly():
    """bfloat16 has 8 bits: 3.98 m would become 4 m, and 257 points would count as 256."""
    num, size = 300, 0.02
    coords = torch.zeros(num, 4, dtype=torch.int64)
    coords[:, 1] = torch.arange(num)
    x = sparse_tensor(coords, torch.ones(num, 1, dtype=torch.bfloat16), 1, size)
    assert voxel_centres(x).dtype == torch.float32
    torch.testing.assert_close(voxel_centres(x)[:, 0], (torch.arange(num) + 0.5) * size)
    grid = Grid(torch.tensor([[[0.0, 0, 0], [6.0, 1, 1]]]), (1, 1, 1))
    volume = densify(x, grid)
    assert volume.feats.dtype == torch.bfloat16 and float(volume.feats) == 1
