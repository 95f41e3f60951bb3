"""Lift, splat: hand-computed cells, and the plain version that makes every product of feature and probability."""

import pytest
import torch
from camera_rigs import ALONG_Y, cameras, grid, turned

from ponder3d.encoders.image.depth import DepthBins, SimpleDepth
from ponder3d.encoders.image.lift_splat import LiftSplat, frustum_rows
from ponder3d.geometry.cameras import unproject
from ponder3d.geometry.grid import cells_from_world
from ponder3d.geometry.incidence import scatter_rows
from ponder3d.types import Cameras, Grid

BINS = DepthBins(near=1.0, far=9.0, num=16)


def materialised(
    feats: torch.Tensor, probability: torch.Tensor, rig: Cameras, stride: int, bins: DepthBins, where: Grid
) -> torch.Tensor:
    """Features [N C h w] times probabilities [N D h w]: every product is made, then added to its cell."""
    num, channels, h, w = feats.shape
    n, d, i, j = torch.meshgrid(*[torch.arange(size) for size in (num, bins.num, h, w)], indexing="ij")
    n, d, i, j = (x.flatten() for x in (n, d, i, j))
    uv = torch.stack([(j + 0.5) * stride - 0.5, (i + 0.5) * stride - 0.5], dim=1)
    depth = bins.near + (d + 0.5) * (bins.far - bins.near) / bins.num
    scene = torch.div(n, num // len(where.box), rounding_mode="floor")
    cell = cells_from_world(where, unproject(rig, uv, depth, n), scene).floor().long()
    inside = ((cell >= 0) & (cell < torch.tensor(where.shape))).all(1)
    products = feats[n, :, i, j] * probability[n, d, i, j, None]
    volume = torch.zeros(len(where.box), *where.shape, channels, dtype=feats.dtype)
    return volume.index_put((scene[inside], *cell[inside].unbind(1)), products[inside], accumulate=True)


def test_one_pixel_by_hand():
    """An image of one cell whose centre is the optical axis: its points are at y = 1.25, 1.75, ..., 8.75 and x = z = 0,
    which is cell 2 along x and cell 1 along z. Cells of 2 m along y get 2, 4, 4 and 4 of the bins; two lie beyond."""
    rows = frustum_rows(cameras(ALONG_Y[None], size=(4, 4)), (1, 1), 4, BINS, grid())
    expected = [((2 * 4 + y) * 2) + 1 for y in (0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)] + [-1, -1]
    assert rows.tolist() == [expected]


def test_points_just_below_the_volume_are_dropped_not_moved_into_its_first_cell():
    low = ((0.1, 0.0, -2.0), (8.1, 8.0, 2.0))  # x = 0 is 0.05 cells below
    assert frustum_rows(cameras(ALONG_Y[None], size=(4, 4)), (1, 1), 4, BINS, grid(box=low)).unique().tolist() == [-1]
    behind = ((-4.0, 1.3, -2.0), (4.0, 9.3, 2.0))
    rows = frustum_rows(cameras(ALONG_Y[None], size=(4, 4)), (1, 1), 4, BINS, grid(box=behind))[0]
    assert int(rows[0]) == -1 and int(rows[1]) == (2 * 4 + 0) * 2 + 1


def test_equals_the_materialising_version_with_gradients(device):
    rig = cameras(torch.stack([turned(8), turned(-30), turned(0), turned(21)]))
    where, stride, h, w = grid((5, 4, 3), num=2), 4, 3, 7
    feats = torch.randn(4, 6, h, w, requires_grad=True)
    scores = torch.randn(4, BINS.num, h, w, requires_grad=True)
    expected = materialised(feats, scores.softmax(1), rig, stride, BINS, where)
    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    there = Cameras(rig.intrinsics.to(device), rig.world_from_cam.to(device), rig.size)
    rows = frustum_rows(there, (h, w), stride, BINS, Grid(where.box.to(device), where.shape))
    assert 0.2 < float((rows >= 0).float().mean()) < 0.95
    f, s = (x.detach().clone().to(device).requires_grad_() for x in (feats, scores))
    rows_of = [x.permute(0, 2, 3, 1).flatten(0, 2) for x in (f, s.softmax(1))]
    found = scatter_rows(rows_of[0], rows, rows_of[1], 2 * 60).view(expected.shape)
    (found * weight.to(device)).sum().backward()
    torch.testing.assert_close(found.detach().cpu(), expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(f.grad.cpu(), feats.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(s.grad.cpu(), scores.grad, atol=1e-5, rtol=1e-5)


def test_the_module_is_that_of_its_parts():
    rig, where = cameras(torch.stack([turned(8), turned(-30)])), grid()
    lift = LiftSplat(5, BINS, SimpleDepth()).build((3,), (4,))
    x = torch.randn(2, 3, 4, 8)
    lifted = lift((x,), rig, where)
    torch.testing.assert_close(lifted.depth[0].sum(1), torch.ones(2, 4, 8))
    expected = materialised(lift.content(x), lift.head(x).softmax(1), rig, 4, BINS, where)
    torch.testing.assert_close(lifted.feats, expected, atol=1e-5, rtol=1e-5)
    lifted.feats.square().sum().backward()
    found = {name: p.grad.clone() for name, p in lift.named_parameters()}
    lift.zero_grad()
    expected.square().sum().backward()
    for name, parameter in lift.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-4, rtol=1e-4)


def test_what_is_lifted_is_what_is_seen():
    """All probability in the bin of a known depth: the volume holds each pixel's feature where unproject puts it."""
    rig, where = cameras(ALONG_Y[None]), grid((16, 16, 8))
    lift = LiftSplat(1, BINS, SimpleDepth()).build((1,), (4,))
    torch.nn.init.ones_(lift.content.weight), torch.nn.init.zeros_(lift.content.bias)
    torch.nn.init.zeros_(lift.head.weight), torch.nn.init.zeros_(lift.head.bias)
    lift.head.bias.data[5] = 100.0  # 3.75 m
    feats = lift((torch.ones(1, 1, 4, 8),), rig, where).feats[0, ..., 0].detach()
    # y = 3.75 is cell 7 of 0.5 m; the columns of pixels 1.5 ... 29.5 are at x = +-3.28, +-2.34, +-1.41, +-0.47.
    assert float(feats.sum()) == pytest.approx(32)
    assert (feats.sum((0, 2)) > 0.5).nonzero().flatten().tolist() == [7]
    assert (feats.sum((1, 2)) > 0.5).nonzero().flatten().tolist() == [1, 3, 5, 7, 8, 10, 12, 14]
