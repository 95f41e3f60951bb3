from dataclasses import replace

import pytest
import torch

from ponder3d.types import Batch, Cameras, LabelSet, Points, Rays, RayTargets, Scene, Views
from ponder3d.types.scene import extent, point_feats, to_device


def scene(num=3, rgb=True, rays=0, **more) -> Scene:
    some_rays = targets = None
    if rays:
        some_rays = Rays(
            torch.zeros(rays, 3),
            torch.ones(rays, 3),
            torch.zeros(rays),
            torch.ones(rays),
            torch.zeros(rays, dtype=torch.int64),
        )
        targets = RayTargets(torch.zeros(rays, 3), torch.ones(rays))
    return Scene(
        torch.rand(num, 3),
        torch.full((num, 3), 0.75) if rgb else None,
        torch.rand(num, 3),
        "s",
        rays=some_rays,
        targets=targets,
        **more,
    )


def test_points_know_their_scenes():
    points = Points(torch.zeros(5, 3), torch.zeros(5, 1), torch.tensor([2, 0, 3]))
    assert points.scene.tolist() == [0, 0, 2, 2, 2]


def test_inputs_in_order_and_missing_ones_zero():
    xyz = torch.rand(2, 3)
    feats = point_feats(xyz, torch.tensor([[0.0, 0.5, 1.0]] * 2), None, ("one", "normal", "rgb"))
    assert feats.tolist() == [[1, 0, 0, 0, -1, 0, 1]] * 2


def test_unknown_input():
    with pytest.raises(ValueError, match="unknown point input 'colour'"):
        point_feats(torch.rand(2, 3), None, None, ("colour",))


def test_batch_packs_scenes():
    batch = Batch.of([scene(2, rays=2, key=5), scene(0, rays=0 or 1), scene(3, rays=3)], ("rgb",))
    assert batch.points.counts.tolist() == [2, 0, 3] and len(batch) == 3
    assert batch.rays is not None and batch.rays.scene.tolist() == [0, 0, 1, 2, 2, 2]
    assert batch.targets is not None and batch.targets.t is not None and len(batch.targets.t) == 6
    assert batch.keys.tolist() == [5, 0, 0]
    assert batch.bounds[1].tolist() == [[0, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(batch.bounds[0], extent(batch.points.xyz[:2]))
    assert batch.points.feats.tolist() == [[0.5] * 3] * 5


def test_what_one_scene_lacks_the_batch_lacks():
    labels = torch.zeros(3, dtype=torch.int64)
    batch = Batch.of([scene(3, labels=labels), scene(3)])
    assert batch.labels is None and batch.rays is None and batch.targets is None and batch.views is None


def test_bounds_of_the_whole_scene_win():
    bounds = torch.tensor([[-1.0, -1, -1], [2, 2, 2]])
    assert torch.equal(Batch.of([scene(3, bounds=bounds)]).bounds[0], bounds)


def test_views_are_packed_when_they_have_one_size():
    def views(num, size):
        cameras = Cameras(torch.eye(3).repeat(num, 1, 1), torch.eye(4).repeat(num, 1, 1), size)
        return Views(
            cameras, torch.zeros(num, *size, 3, dtype=torch.uint8), torch.ones(num, *size), None, torch.tensor([num])
        )

    batch = Batch.of([scene(2, views=views(2, (4, 5))), scene(2, views=views(3, (4, 5)))])
    assert batch.views is not None and batch.views.counts.tolist() == [2, 3] and len(batch.views.cameras) == 5
    assert Batch.of([scene(2, views=views(2, (4, 5))), scene(2, views=views(1, (5, 4)))]).views is None


def test_nothing_to_pack():
    with pytest.raises(ValueError, match="no scenes"):
        Batch.of([])


def test_to_device_moves_everything(device):
    moved = to_device(Batch.of([scene(3, rays=2)]), device)
    assert moved.points.xyz.device.type == device.type
    assert moved.rays is not None and moved.rays.origins.device.type == device.type
    assert moved.sources == ("s",)


def test_rays_that_miss():
    rays = Rays(
        torch.zeros(3, 3),
        torch.ones(3, 3),
        torch.tensor([0.0, 1, 2]),
        torch.tensor([1.0, 1, 1]),
        torch.zeros(3, dtype=torch.int64),
    )
    assert rays.hits.tolist() == [True, False, False] and len(rays) == 3


def test_label_sets_are_checked():
    with pytest.raises(ValueError, match="2 names but 1 colours"):
        LabelSet(("a", "b"), ((0, 0, 0),))
    with pytest.raises(ValueError, match="twice"):
        LabelSet(("a", "a"), ((0, 0, 0), (1, 1, 1)))


def test_what_lasers_measure_is_packed_and_what_is_missing_is_zero():
    xyz = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    first = Scene(xyz, None, None, "a", intensity=torch.tensor([0.5, 1.0]), time=torch.tensor([0.0, 0.1]))
    batch = Batch.of([first, Scene(xyz[:1], None, None, "b")], ("xyz", "intensity", "time"))
    expected = [[1.0, 2.0, 3.0, 0.5, 0.0], [4.0, 5.0, 6.0, 1.0, 0.1], [1.0, 2.0, 3.0, 0.0, 0.0]]
    torch.testing.assert_close(batch.points.feats, torch.tensor(expected))


def test_images_are_packed_where_every_scene_has_them():
    cameras = Cameras(torch.eye(3).expand(2, 3, 3), torch.eye(4).expand(2, 4, 4), (4, 5))
    images = Views(cameras, torch.zeros(2, 4, 5, 3, dtype=torch.uint8), None, None, torch.tensor([2]))
    scene = Scene(torch.zeros(1, 3), None, None, "a", images=images)
    packed = Batch.of([scene, scene]).images
    assert packed is not None and packed.counts.tolist() == [2, 2] and packed.rgb.shape == (4, 4, 5, 3)
    assert Batch.of([scene, Scene(torch.zeros(1, 3), None, None, "b")]).images is None
    cameras = Cameras(cameras.intrinsics.repeat(2, 1, 1), cameras.world_from_cam.repeat(2, 1, 1), (4, 5))
    more = replace(scene, source="c", images=Views(cameras, images.rgb.repeat(2, 1, 1, 1), None, None, images.counts))
    with pytest.raises(ValueError, match="as many images of every scene; choose them: a 2, c 4"):
        Batch.of([scene, more])
