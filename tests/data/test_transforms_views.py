"""What image encoders see, and rays of sparse depth; what holds for all transforms: ``test_transform_contract``."""

from dataclasses import replace

import pytest
import torch

from ponder3d.data.transforms import Flip, PickRays, PointsOnly, SeeImages, TwoViews
from ponder3d.geometry import keyed
from ponder3d.geometry.cameras import project, unproject
from ponder3d.types import Cameras, Scene, Views

HEIGHT, WIDTH = 20, 32


def a_scene(depth: torch.Tensor | None) -> Scene:
    pose = torch.eye(4).repeat(3, 1, 1)
    pose[:, 2, 3] = torch.tensor([0.0, 1.0, 2.0])
    matrix = torch.tensor([[16.0, 0, 15.5], [0, 16.0, 9.5], [0, 0, 1]]).repeat(3, 1, 1)
    rgb = torch.arange(3 * HEIGHT * WIDTH * 3).reshape(3, HEIGHT, WIDTH, 3).remainder(251).to(torch.uint8)
    labels = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.int16)
    cameras = Cameras(matrix, pose, (HEIGHT, WIDTH))
    views = Views(cameras, rgb, depth, labels, torch.tensor([3]), names=("a", "b", "c"))
    return Scene(torch.rand(10, 3), None, None, "here", views=views)


def sparse(num: int) -> torch.Tensor:
    """Depth 2 in ``num`` pixels of each of three views, from the bottom right."""
    depth = torch.zeros(3, HEIGHT * WIDTH)
    depth[:, HEIGHT * WIDTH - num :] = 2.0
    return depth.reshape(3, HEIGHT, WIDTH)


def pixels_of(scene: Scene, out: Scene) -> torch.Tensor:
    """[R] pixel numbers of the rays of one view."""
    assert out.rays is not None and scene.views is not None
    uv, _ = project(scene.views.cameras, out.rays.origins + out.rays.directions, torch.zeros(len(out.rays)).long())
    u, v = uv.round().long().unbind(1)
    return v * WIDTH + u


def one_view(scene: Scene) -> Scene:
    views = scene.views
    cameras = Cameras(views.cameras.intrinsics[:1], views.cameras.world_from_cam[:1], views.cameras.size)
    depth = None if views.depth is None else views.depth[:1]
    return replace(scene, views=Views(cameras, views.rgb[:1], depth, None, torch.tensor([1])))


def test_images_are_the_first_views():
    scene = a_scene(sparse(5))
    out = SeeImages(first=2)(scene, keyed.generator(0))
    assert out.views is scene.views
    assert out.images.names == ("a", "b") and out.images.counts.tolist() == [2]
    assert torch.equal(out.images.rgb, scene.views.rgb[:2])
    assert torch.equal(out.images.cameras.world_from_cam, scene.views.cameras.world_from_cam[:2])
    assert out.images.depth is None and out.images.labels is None
    assert len(SeeImages()(scene, keyed.generator(0)).images.cameras) == 3


def test_views_may_stay_beside_the_rays():
    scene = a_scene(sparse(5))
    left, kept = (PickRays(2, 4, keep_views=keep)(scene, keyed.generator(0)) for keep in (False, True))
    assert left.views is None and kept.views is scene.views
    assert torch.equal(left.rays.directions, kept.rays.directions)


def test_reduced_images_show_the_same_place_in_the_same_direction():
    scene = a_scene(None)
    out = SeeImages(size=(10, 8))(scene, keyed.generator(0))
    # Width by 4, height by 2: the pixel (u, v) covers 4u - 0.5 .. 4u + 3.5, its centre is at 4u + 1.5 and 2v + 0.5.
    assert out.images.cameras.intrinsics[0].tolist() == [[4.0, 0, (15.5 + 0.5) / 4 - 0.5], [0, 8.0, 4.5], [0, 0, 1]]
    uv, depth = torch.tensor([[3.0, 4.0]]), torch.tensor([5.0])
    place = unproject(out.images.cameras, uv, depth, torch.tensor([1]))
    before, _ = project(scene.views.cameras, place, torch.tensor([1]))
    torch.testing.assert_close(before, torch.tensor([[4 * 3 + 1.5, 2 * 4 + 0.5]]))
    mean = scene.views.rgb[1, 8:10, 12:16].double().mean((0, 1))
    assert (out.images.rgb[1, 4, 3] - mean).abs().max() <= 1  # Pillow rounds after each of two passes


def test_images_have_depth_where_an_encoder_learns_from_it():
    assert SeeImages(depth=True).gives_depth and not SeeImages().gives_depth
    assert TwoViews((SeeImages(depth=True),)).gives_depth and not TwoViews((SeeImages(),)).gives_depth
    scene = a_scene(sparse(5))
    assert torch.equal(SeeImages(depth=True)(scene, keyed.generator(0)).images.depth, scene.views.depth)
    depth = torch.zeros(3, HEIGHT, WIDTH)
    depth[0, 2, 4], depth[0, 3, 7], depth[2, 19, 31] = 5.0, 3.0, 8.0
    scene = replace(scene, views=replace(scene.views, depth=depth))
    out = SeeImages(size=(10, 8), depth=True)(scene, keyed.generator(0))
    expected = torch.zeros(3, 10, 8)
    expected[0, 1, 1], expected[2, 9, 7] = 3.0, 8.0
    assert torch.equal(out.images.depth, expected), "2 x 4 pixels to one, of which the nearest point counts"
    thirds = SeeImages(size=(7, 32), depth=True)(scene, keyed.generator(0))
    # Rows of 20 / 7 pixels: the middle of row 3 is 3.5 pixels down, in row 1 of 2.86 .. 5.71; that of row 2 in row 0.
    assert thirds.images.depth.nonzero().tolist() == [[0, 0, 4], [0, 1, 7], [2, 6, 31]]
    with pytest.raises(ValueError, match=r"SeeImages\.depth: views of here have no depth"):
        SeeImages(depth=True)(a_scene(None), keyed.generator(0))


def test_images_move_with_the_world_and_outlive_rays():
    scene = SeeImages()(a_scene(sparse(30)), keyed.generator(0))
    out = Flip(1.0, "x")(scene, keyed.generator(0))
    assert torch.equal(out.images.cameras.world_from_cam, out.views.cameras.world_from_cam)
    assert not torch.equal(out.images.cameras.world_from_cam, scene.images.cameras.world_from_cam)
    for transform in (PickRays(2, 8), PointsOnly()):
        after = transform(out, keyed.generator(1))
        assert after.images is out.images and after.views is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"first": 4}, "SeeImages.first: here has 3 images, not 4"),
        ({"size": (40, 32)}, "SeeImages.size: here is of .20, 32.; images are only reduced"),
    ],
)
def test_what_cannot_be_seen(fields, message):
    with pytest.raises(ValueError, match=message):
        SeeImages(**fields)(a_scene(None), keyed.generator(0))


@pytest.mark.parametrize("fields", [{"first": -1}, {"size": (3,)}, {"size": (0, 4)}])
def test_choices_of_images_are_checked(fields):
    with pytest.raises(ValueError, match=r"SeeImages\.(first|size) must be"):
        SeeImages(**fields)


def test_filled_rays_are_all_different_and_below_the_horizon():
    scene = one_view(a_scene(sparse(50)))
    out = PickRays(1, 80, fill=True, horizon=0.4)(scene, keyed.generator(0))
    pixels = pixels_of(scene, out)
    assert len(pixels) == 80 == len(pixels.unique())
    measured = out.targets.t > 0
    # 50 with depth, all of them, then 30 without, in the lower 12 of 20 rows.
    assert measured.tolist() == [True] * 50 + [False] * 30
    assert sorted(pixels[:50].tolist()) == list(range(HEIGHT * WIDTH - 50, HEIGHT * WIDTH))
    assert int(pixels[50:].min()) >= 8 * WIDTH and int(pixels[50:].max()) < HEIGHT * WIDTH - 50


def test_enough_depth_needs_no_filling():
    scene = one_view(a_scene(sparse(50)))
    out = PickRays(1, 40, fill=True)(scene, keyed.generator(0))
    assert len(pixels_of(scene, out).unique()) == 40 and bool((out.targets.t > 0).all())


def test_a_share_without_depth():
    out = PickRays(1, 40, fill=True, unmeasured=0.25, horizon=0.0)(one_view(a_scene(sparse(60))), keyed.generator(0))
    assert int((out.targets.t > 0).sum()) == 30 and len(out.rays) == 40
    with pytest.raises(ValueError, match="PickRays.unmeasured must be from 0 to 1"):
        PickRays(fill=True, unmeasured=1.5)


@pytest.mark.parametrize("depth", [None, sparse(0)])
def test_filling_without_any_depth(depth):
    out = PickRays(3, 16, fill=True)(a_scene(depth), keyed.generator(0))
    assert len(out.rays) == 48 and (out.targets.t is None or not bool(out.targets.t.any()))


def test_filling_ends_where_pixels_do():
    out = PickRays(1, 1000, fill=True, horizon=0.5)(one_view(a_scene(sparse(5))), keyed.generator(0))
    assert len(out.rays) == 10 * WIDTH


def test_filling_at_the_top_and_bottom_of_an_image():
    whole = PickRays(1, 1000, fill=True, horizon=0.0)(one_view(a_scene(None)), keyed.generator(0))
    none = PickRays(1, 1000, fill=True, horizon=1.0)(one_view(a_scene(None)), keyed.generator(0))
    assert len(whole.rays) == HEIGHT * WIDTH and len(none.rays) == 0


@pytest.mark.parametrize(
    "fields", [{"need_depth": False}, {"by_area": True}, {"edge_share": 0.5}, {"fill": False, "horizon": 1.1}]
)
def test_what_filling_does_not_go_with(fields):
    with pytest.raises(ValueError, match=r"PickRays\.(fill|horizon)"):
        PickRays(**{"fill": True, **fields})


def test_rays_of_before_are_drawn_as_before():
    """The first draws of the generator, as long as there is no filling."""
    scene = one_view(a_scene(sparse(50)))
    pixels = pixels_of(scene, PickRays(1, 12)(scene, keyed.generator(3)))
    generator = keyed.generator(3)
    torch.randperm(1, generator=generator)
    assert torch.equal(pixels, HEIGHT * WIDTH - 50 + torch.randint(50, (12,), generator=generator))
