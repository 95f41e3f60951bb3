"""What every lift promises, and voxels that look at images."""

from dataclasses import replace

import pytest
import torch
from camera_rigs import ALONG_Y, cameras, grid, mirrored, turned

from ponder3d.encoders.image.depth import DepthBins, SimpleDepth
from ponder3d.encoders.image.lift import (
    BilinearLift,
    DepthWeightedLift,
    ViewTransform,
    ViewTransformConfig,
    cell_centres,
)
from ponder3d.encoders.image.lift_splat import LiftSplat
from ponder3d.geometry.cameras import project, project_to_all
from ponder3d.types import Cameras, Grid

FAMILY = ViewTransformConfig
BINS = DepthBins(near=0.0, far=8.0, num=8)


def built(member: type, channels: int = 3) -> ViewTransform:
    config = member(channels=channels)
    if hasattr(config, "bins"):
        config = replace(config, bins=BINS, depth=SimpleDepth())
    return config.build((channels,), (4,))


def plain(lift: ViewTransform) -> ViewTransform:
    """Features are those of the map, and every bin is as likely."""
    for name, parameter in lift.named_parameters():
        torch.nn.init.zeros_(parameter)
        if name.startswith("content") and parameter.ndim == 4:
            parameter.data[:, :, 0, 0] = torch.eye(len(parameter))
    return lift


def test_a_scene_does_not_see_another(member):
    lift, rig = built(member), cameras(torch.stack([turned(0), turned(20), turned(-10), turned(5)]))
    x, where = torch.randn(4, 3, 4, 8), grid(num=2)
    both = lift((x,), rig, where).feats
    for scene in (0, 1):
        part = slice(2 * scene, 2 * scene + 2)
        own = Cameras(rig.intrinsics[part], rig.world_from_cam[part], rig.size)
        torch.testing.assert_close(lift((x[part],), own, grid()).feats[0], both[scene])
    assert float(both.detach().abs().max()) > 0 and both.shape == (2, 4, 4, 2, 3)


def test_a_mirrored_world_gives_the_mirrored_volume(member):
    """Cameras keep a left-handed pose then; images stay as they are."""
    lift, rig, where = built(member), cameras(torch.stack([turned(11), turned(-17)])), grid((8, 8, 3))
    x = torch.randn(2, 3, 4, 8)
    expected = lift((x,), rig, where).feats.flip(1)
    rig, where = mirrored(rig, where)
    assert float(torch.linalg.det(rig.world_from_cam[0, :3, :3])) == pytest.approx(-1)
    found = lift((x,), rig, where).feats
    assert float(expected.detach().abs().max()) > 0
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_what_is_behind_or_beside_the_camera_gets_nothing(member):
    lift = built(member)
    feats = lift(
        (torch.randn(1, 3, 4, 8),), cameras(ALONG_Y[None]), grid(box=((-4.0, -8.0, -2.0), (4.0, 0.0, 2.0)))
    ).feats
    assert float(feats.detach().abs().max()) == 0
    feats = lift(
        (torch.randn(1, 3, 4, 8),), cameras(ALONG_Y[None]), grid(box=((9.0, 0.0, -2.0), (17.0, 8.0, 2.0)))
    ).feats
    assert float(feats.detach().abs().max()) == 0


def test_everything_trains_and_gradients_are_true(member):
    lift = built(member).double()
    rig, where = cameras(torch.stack([turned(0), turned(20)])), grid()
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 4, 2, 3)
    (lift((x,), rig, where).feats[0] * weight).sum().backward()
    for name, parameter in lift.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0, name
    step = torch.randn_like(x) * 1e-2
    with torch.no_grad():
        ahead, behind = (lift((x + sign * step,), rig, where).feats[0] for sign in (1, -1))
    assert float(((ahead - behind) * weight).sum() / 2) == pytest.approx(float((x.grad * step).sum()), rel=2e-2)


def test_cells_beyond_the_image_say_nothing(member):
    """A map of four rows, an image of 9 pixels: the centres of the first two rows lie in it, at 1.5 and 5.5."""
    lift, rig = built(member), cameras(ALONG_Y[None])
    low = Cameras(rig.intrinsics, rig.world_from_cam, (9, 32))
    x = torch.randn(1, 3, 4, 8)
    other = x.clone()
    other[:, :, 3] = 9.0
    where = grid((8, 8, 8))
    assert torch.equal(lift((x,), low, where).feats, lift((other,), low, where).feats)
    assert not torch.equal(lift((x,), rig, where).feats, lift((other,), rig, where).feats)


def test_centres_of_cells():
    centres = cell_centres(grid())
    assert centres.shape == (1, 32, 3)
    assert centres[0, :3].tolist() == [[-3, 1, -1], [-3, 1, 1], [-3, 3, -1]]


def test_a_voxel_reads_where_its_centre_is_seen():
    """The centre (1, 3, 1): u = 16 / 3 + 15.5, v = -16 / 3 + 7.5; the map holds the pixel coordinates of its cells."""
    lift = plain(BilinearLift(channels=2).build((2,), (4,)))
    v, u = torch.meshgrid(torch.arange(4) * 4 + 1.5, torch.arange(8) * 4 + 1.5, indexing="ij")
    feats = lift((torch.stack([u, v])[None],), cameras(ALONG_Y[None]), grid()).feats[0]
    torch.testing.assert_close(feats[2, 1, 1], torch.tensor([16 / 3 + 15.5, 7.5 - 16 / 3]))
    assert feats[0, 0, 0].tolist() == [0, 0]  # (-3, 1, -1): 48 pixels to the left
    # (1, 1, 1) is at (31.5, -8.5): half a pixel beyond the last column is still in the image, the row is not.
    assert feats[2, 0, 1].tolist() == [0, 0]


def test_several_cameras_are_averaged_or_summed():
    rig = cameras(torch.stack([ALONG_Y, ALONG_Y, turned(180)]))
    x = torch.tensor([2.0, 4.0, 100.0]).view(3, 1, 1, 1).expand(3, 1, 4, 8)
    for mean, value in ((True, 3), (False, 6)):
        lift = plain(BilinearLift(channels=1, mean=mean).build((1,), (4,)))
        feats = lift((x,), rig, grid()).feats[0]
        assert feats[2, 1, 1, 0].item() == pytest.approx(value), "the third looks elsewhere"


def test_a_voxel_gets_the_share_of_its_depth():
    """Depth 3 is at 3 in bins of 1 m with middles at 2.5 and 3.5: half of each."""
    lift = plain(DepthWeightedLift(channels=1, bins=BINS, depth=SimpleDepth()).build((1,), (4,)))
    scores = torch.tensor([0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    lift.heads[0].bias.data.copy_(scores)
    lifted = lift((torch.full((1, 1, 4, 8), 5.0),), cameras(ALONG_Y[None]), grid())
    p = scores.softmax(0)
    assert lifted.feats[0, 2, 1, 1, 0].item() == pytest.approx(5 * float(p[2] + p[3]) / 2, rel=1e-5)
    assert lifted.depth[0].shape == (1, 8, 4, 8) and torch.allclose(lifted.depth[0][0, :, 1, 1], p)
    near = replace(BINS, far=2.0, num=8)
    lift = plain(DepthWeightedLift(channels=1, bins=near, depth=SimpleDepth()).build((1,), (4,)))
    feats = lift((torch.ones(1, 1, 4, 8),), cameras(ALONG_Y[None]), grid()).feats[0]
    assert float(feats[:, 1:].detach().abs().max()) == 0, "depth 3 and more is beyond the bins"


@pytest.mark.parametrize("kind", [BilinearLift, DepthWeightedLift])
def test_maps_of_several_strides_are_summed(kind):
    lift = plain(kind(channels=1).build((1, 1), (4, 8)))
    rig, x, y = cameras(ALONG_Y[None]), torch.rand(1, 1, 4, 8), torch.rand(1, 1, 2, 4)
    zero = [torch.zeros_like(x), torch.zeros_like(y)]
    both = lift((x, y), rig, grid()).feats
    torch.testing.assert_close(both, lift((x, zero[1]), rig, grid()).feats + lift((zero[0], y), rig, grid()).feats)


def test_lift_splat_takes_one_map():
    with pytest.raises(ValueError, match=r"one map, not 2; set neck\.levels to 1"):
        LiftSplat().build((4, 4), (8, 16))


def test_projections_to_all_cameras_are_those_of_each(device):
    rig = cameras(torch.stack([turned(3), turned(50), turned(-20), turned(70)]))
    xyz = torch.randn(2, 7, 3)
    on_device = Cameras(rig.intrinsics.to(device), rig.world_from_cam.to(device), rig.size)
    uv, depth = project_to_all(on_device, xyz.to(device))
    for scene in range(2):
        for view in range(2):
            at = torch.full((7,), 2 * scene + view)
            expected = project(rig, xyz[scene], at)
            torch.testing.assert_close(uv[scene, :, view].cpu(), expected[0], rtol=1e-4, atol=1e-3)
            torch.testing.assert_close(depth[scene, :, view].cpu(), expected[1], rtol=1e-5, atol=1e-5)


def test_a_grid_may_differ_from_scene_to_scene(member):
    lift, rig = built(member), cameras(torch.stack([ALONG_Y, ALONG_Y]))
    box = torch.tensor([[[-4.0, 0, -2], [4, 8, 2]], [[-4.0, 2, -2], [4, 10, 2]]])
    x = torch.randn(1, 3, 4, 8).repeat(2, 1, 1, 1)
    feats = lift((x,), rig, Grid(box, (4, 4, 2))).feats
    torch.testing.assert_close(feats[0, :, 1:], feats[1, :, :-1])  # shifted by one cell


def test_half_precision_is_for_networks_alone(member):
    """Places of points are those of float32: bfloat16 knows no metre between 54 and 54.25."""
    lift, rig = built(member).eval().requires_grad_(False), cameras(torch.stack([turned(8), turned(-30)]))
    x, where = torch.randn(2, 3, 4, 8), grid()
    expected = lift((x,), rig, where).feats
    with torch.autocast("cpu", torch.bfloat16):
        found = lift((x,), rig, where).feats
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    assert torch.equal(found != 0, expected != 0)
    assert float((found - expected).norm() / expected.norm()) < 0.02
