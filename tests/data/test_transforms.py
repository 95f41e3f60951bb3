import colorsys
import math
from dataclasses import replace

import pytest
import torch

from ponder3d.data import transforms as tf
from ponder3d.data.elastic import ElasticDistortion
from ponder3d.geometry import keyed
from ponder3d.geometry.cameras import project
from ponder3d.geometry.grid import voxelize
from ponder3d.geometry.kernels import kernels
from ponder3d.geometry.transforms import Similarity, transform_directions, transform_points
from ponder3d.types import Boxes, Cameras, Scene, Views

GEOMETRIC = [
    tf.Centre(),
    tf.Rotate(probability=1.0),
    tf.Rotate("x", 0.05, 1.0),
    tf.RotateTo(),
    tf.Scale(),
    tf.Shift(),
    tf.Flip(1.0),
    tf.Flip(1.0, "x"),
]
OTHERS = [
    tf.Jitter(),
    tf.AutoContrast(1.0),
    tf.ShiftColour(1.0),
    tf.JitterColour(1.0),
    tf.VaryColour(1.0),
    tf.DropModality(0.5, 0.5),
    tf.DropPoints(0.8),
    tf.RemoveBlocks(0.2, 0.8),
    tf.SphereCrop(max_points=500),
    tf.Shuffle(),
    ElasticDistortion(probability=1.0),
    tf.GridSample(0.2),
    tf.LimitLabels(5),
    tf.KeepViews((0, -1)),
    tf.PointRange((1.0, 2.0, 0.0), (3.0, 4.0, 2.0)),
    tf.PointsOnly(),
    tf.PickRays(2, 16),
]


def a_scene(num=2000) -> Scene:
    """A room of random points, seen by two cameras whose depth is that of the points."""
    xyz = torch.rand(num, 3) * torch.tensor([4.0, 3.0, 2.5]) + torch.tensor([1.0, 2.0, 0.3])
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[:, :3, :3] = torch.linalg.qr(torch.randn(2, 3, 3)).Q
    pose[:, :3, 3] = torch.tensor([[3.0, 3.5, 1.5], [2.0, 3.0, 1.0]])
    cameras = Cameras(torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]).repeat(2, 1, 1), pose, (33, 49))
    depth = torch.zeros(2, 33, 49)
    labels = torch.full((2, 33, 49), -1, dtype=torch.int16)
    for view in range(2):
        uv, z = project(cameras, xyz, torch.full((num,), view))
        pixel = uv.round().to(torch.int64)
        seen = (z > 0.1) & (pixel >= 0).all(1) & (pixel[:, 0] < 49) & (pixel[:, 1] < 33)
        depth[view, pixel[seen, 1], pixel[seen, 0]] = z[seen]
        labels[view, pixel[seen, 1], pixel[seen, 0]] = 3
    rgb = torch.randint(0, 255, (2, 33, 49, 3), dtype=torch.uint8)
    return Scene(
        xyz,
        torch.rand(num, 3),
        torch.nn.functional.normalize(torch.randn(num, 3), dim=1),
        "box",
        labels=torch.randint(0, 4, (num,)),
        instances=torch.arange(num),
        views=Views(cameras, rgb, depth, labels, torch.tensor([2])),
    )


def run(transform, scene, *key) -> Scene:
    return transform(scene, keyed.generator(*(key or (1,))))


@pytest.mark.parametrize("transform", [*GEOMETRIC, *OTHERS], ids=lambda t: type(t).__name__)
def test_same_key_same_scene_other_key_other_scene(transform):
    scene = a_scene()

    def told(*key):
        out = run(transform, scene, *key)
        parts = [out.xyz, out.rgb, out.normal, out.labels]
        parts += [] if out.rays is None else [out.rays.directions]
        return [None if p is None else p.clone() for p in parts]

    first, again = told(1), told(1)
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(first, again, strict=True))
    deterministic = isinstance(
        transform, (tf.Centre, tf.Flip, tf.LimitLabels, tf.KeepViews, tf.PointRange, tf.PointsOnly)
    )
    others = [told(key) for key in range(2, 6)]
    changed = any(
        (a is None) != (b is None) or (a is not None and (a.shape != b.shape or not torch.equal(a, b)))
        for other in others
        for a, b in zip(first, other, strict=True)
    )
    assert changed != deterministic


@pytest.mark.parametrize("transform", [*GEOMETRIC, *OTHERS], ids=lambda t: type(t).__name__)
def test_the_input_is_left_alone(transform):
    scene = a_scene()
    before = [
        scene.xyz.clone(),
        scene.rgb.clone(),
        scene.views.depth.clone(),
        scene.views.cameras.world_from_cam.clone(),
    ]
    run(transform, scene)
    after = [scene.xyz, scene.rgb, scene.views.depth, scene.views.cameras.world_from_cam]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("transform", GEOMETRIC, ids=lambda t: type(t).__name__)
def test_cameras_keep_seeing_the_points(transform):
    """Points moved and then projected fall on the pixels they fell on, at the depth the moved image says."""
    scene = a_scene(200)
    out = run(transform, scene)
    for view in range(2):
        rows = torch.full((200,), view)
        uv, z = project(scene.views.cameras, scene.xyz, rows)
        uv_out, z_out = project(out.views.cameras, out.xyz, rows)
        near = z > 0.2
        torch.testing.assert_close(uv_out[near], uv[near], atol=2e-2, rtol=1e-3)
        pixel = uv[near].round().to(torch.int64)
        inside = (pixel >= 0).all(1) & (pixel[:, 0] < 49) & (pixel[:, 1] < 33)
        recorded = out.views.depth[view, pixel[inside, 1], pixel[inside, 0]]
        first = (recorded - z_out[near][inside]).abs() < 1e-4  # several points may share a pixel
        assert float(first.float().mean()) > 0.9


def test_any_number_of_points():
    empty = replace(a_scene(0), views=None)
    for transform in [*GEOMETRIC, *OTHERS[:12]]:
        assert len(run(transform, empty).xyz) == 0
    one = replace(a_scene(1), views=None)
    for transform in [*GEOMETRIC, *OTHERS[:12]]:
        assert len(run(transform, one).xyz) <= 1


def test_centre():
    out = run(tf.Centre(), a_scene())
    assert float(out.xyz[:, 2].min()) == pytest.approx(0, abs=1e-6)
    middle = (out.xyz.amin(0) + out.xyz.amax(0)) / 2
    assert float(middle[:2].abs().max()) < 1e-5


def test_centre_without_the_floor():
    scene = a_scene()
    out = run(tf.Centre(floor=False), scene)
    assert torch.equal(out.xyz[:, 2], scene.xyz[:, 2])
    middle = (out.xyz.amin(0) + out.xyz.amax(0)) / 2
    assert float(middle[:2].abs().max()) < 1e-5


def test_rotate_to_the_angles_of_a_list():
    scene = Scene(torch.tensor([[2.0, 1.0, 5.0], [3.0, 0.0, -1.0]]), None, None, "two points")
    quarter = run(tf.RotateTo("z", (math.pi / 2,)), scene)
    # To the bit: points on the edges of voxels stay on them.
    assert quarter.xyz.tolist() == [[-1, 2, 5], [0, 3, -1]]
    assert run(tf.RotateTo("x", (math.pi / 2,)), scene).xyz.tolist() == [[2, -5, 1], [3, 1, 0]]
    seen = {tuple(run(tf.RotateTo(), scene, key).xyz[0].tolist()) for key in range(40)}
    assert seen == {(2, 1, 5), (-1, 2, 5), (-2, -1, 5), (1, -2, 5)}
    with pytest.raises(ValueError, match=r"RotateTo\.turns is empty"):
        tf.RotateTo("z", ())


def test_shift_moves_the_scene_as_one():
    scene = a_scene(50)
    moves = torch.stack([(run(tf.Shift((0.5, 2.0, 0.0)), scene, k).xyz - scene.xyz).mean(0) for k in range(400)])
    step = run(tf.Shift(), scene).xyz - scene.xyz
    assert float((step - step[0]).abs().max()) < 1e-5
    assert moves.std(0).tolist() == pytest.approx([0.5, 2.0, 0.0], rel=0.15, abs=1e-6)
    assert float(moves.mean(0).abs().max()) < 0.4


def test_point_range():
    xyz = torch.tensor([[0.0, 0, 0], [0.9, 0.9, 0.9], [1, 0, 0], [-0.1, 0, 0], [0.5, 0.5, 2]])
    boxes = Boxes(xyz.clone(), torch.ones(5, 3), torch.zeros(5), torch.arange(5), velocity=torch.rand(5, 2))
    scene = Scene(xyz, None, None, "x", instances=torch.arange(5), boxes=boxes)
    crop = tf.PointRange((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    out = run(crop, scene)
    assert out.instances.tolist() == out.boxes.label.tolist() == [0, 1] and out.bounds is None
    assert torch.equal(out.boxes.velocity, boxes.velocity[:2]) and out.boxes.score is None
    whole = run(crop, replace(scene, bounds=torch.tensor([[-1.0, 0.2, 0.0], [2.0, 0.7, 3.0]])))
    torch.testing.assert_close(whole.bounds, torch.tensor([[0.0, 0.2, 0.0], [1.0, 0.7, 1.0]]))
    # A camera that looks along x from the origin: three pixels see x = 0.5, x = 2 and nothing.
    pose = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0.5], [0, -1, 0, 0.5], [0, 0, 0, 1]])
    cameras = Cameras(torch.eye(3)[None], pose[None], (1, 3))
    depth = torch.tensor([[[0.5, 2.0, 0.0]]])
    views = Views(cameras, torch.zeros(1, 1, 3, 3, dtype=torch.uint8), depth, None, torch.tensor([1]))
    seen = replace(scene, views=views)
    assert torch.equal(run(crop, seen).views.depth, depth)
    assert run(replace(crop, depth=True), seen).views.depth.tolist() == [[[0.5, 0.0, 0.0]]]
    with pytest.raises(ValueError, match=r"PointRange: lower .* must be below upper \(1\.0, 0\.0, 1\.0\)"):
        tf.PointRange((0.0, 0.0, 0.0), (1.0, 0.0, 1.0))


def test_points_only():
    rayed = replace(a_scene(), rays=run(tf.PickRays(1, 4), a_scene()).rays)
    out = run(tf.PointsOnly(), rayed)
    assert out.views is out.rays is out.targets is None and torch.equal(out.xyz, rayed.xyz)


def test_rotate_leaves_z_alone_and_reaches_all_angles():
    scene = a_scene(1)
    angles = []
    for key in range(200):
        out = run(tf.Rotate(probability=1.0), scene, key)
        assert float(out.xyz[0, 2]) == float(scene.xyz[0, 2])
        angles.append(math.atan2(float(out.xyz[0, 1]), float(out.xyz[0, 0])))
    assert min(angles) < -2.8 and max(angles) > 2.8
    moved = sum(not torch.equal(run(tf.Rotate(probability=0.5), scene, k).xyz, scene.xyz) for k in range(200))
    assert 70 < moved < 130


def test_scale_range():
    scene = a_scene(1)
    ratios = [float((run(tf.Scale(0.9, 1.1), scene, k).xyz / scene.xyz)[0, 0]) for k in range(200)]
    assert 0.9 <= min(ratios) < 0.91 and 1.09 < max(ratios) <= 1.1


def test_flip_mirrors_normals_too():
    scene = a_scene()
    out = run(tf.Flip(1.0), scene)
    assert torch.equal(out.xyz[:, :2], -scene.xyz[:, :2]) and torch.equal(out.normal[:, :2], -scene.normal[:, :2])
    assert torch.equal(out.xyz[:, 2], scene.xyz[:, 2])


def test_flip_of_one_axis():
    scene = a_scene()
    out = run(tf.Flip(1.0, "y"), scene)
    assert torch.equal(out.xyz[:, 1], -scene.xyz[:, 1]) and torch.equal(out.xyz[:, ::2], scene.xyz[:, ::2])
    flipped = sum(not torch.equal(run(tf.Flip(0.5, "x"), scene, k).xyz, scene.xyz) for k in range(200))
    assert 70 < flipped < 130
    with pytest.raises(ValueError, match=r"Flip\.axes must be x, y or xy, not 'z'"):
        tf.Flip(axes="z")


def test_jitter_is_clipped():
    scene = a_scene()
    moved = run(tf.Jitter(0.05, 0.02), scene).xyz - scene.xyz
    assert float(moved.abs().max()) <= 0.02 + 1e-6 and float(moved.abs().mean()) > 0.01


def test_colours_stay_colours():
    scene = a_scene()
    for transform in (tf.AutoContrast(1.0), tf.ShiftColour(1.0, 0.5), tf.JitterColour(1.0, 0.5), tf.VaryColour(1.0)):
        out = run(transform, scene)
        assert 0 <= float(out.rgb.min()) and float(out.rgb.max()) <= 1
        assert not torch.equal(out.rgb, scene.rgb)
        assert run(transform, replace(scene, rgb=None)).rgb is None


def test_auto_contrast_fills_the_range():
    scene = a_scene()
    dull = replace(scene, rgb=scene.rgb * 0.2 + 0.4)
    spread = [float((out := run(tf.AutoContrast(1.0), dull, k)).rgb.max() - out.rgb.min()) for k in range(20)]
    assert min(spread) >= 0.19 and max(spread) > 0.8


OFF = {"probability": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def test_each_change_of_colour_is_what_it_says():
    """Alone, with the other ranges 0, by one amount for all points; the amounts fill the range."""
    scene = a_scene()
    dull = replace(scene, rgb=scene.rgb * 0.4 + 0.3)  # nothing is cut off at 0 or 1
    grey = (dull.rgb @ torch.tensor([0.299, 0.587, 0.114]))[:, None]
    torch.testing.assert_close(run(tf.VaryColour(**OFF), dull).rgb, dull.rgb)
    for name, reach, centre in (
        ("brightness", 0.4, torch.zeros(1)), ("contrast", 0.4, grey.mean()), ("saturation", 0.2, grey),
    ):  # fmt: skip
        factors = []
        for key in range(40):
            out = run(tf.VaryColour(**(OFF | {name: reach})), dull, key).rgb
            factor = float(((out - centre) / (dull.rgb - centre)).median())
            torch.testing.assert_close(out, centre + factor * (dull.rgb - centre), rtol=0, atol=1e-5)
            factors.append(factor)
        assert -1.02 <= (min(factors) - 1) / reach < -0.6 and 0.6 < (max(factors) - 1) / reach <= 1.02, name
    before, turns = [colorsys.rgb_to_hsv(*row) for row in dull.rgb.tolist()], []
    turned = tf.VaryColour(**(OFF | {"hue": 0.1}))
    for key in range(40):
        after = [colorsys.rgb_to_hsv(*row) for row in run(turned, dull, key).rgb.tolist()]
        own = [(a[0] - b[0] + 0.5) % 1 - 0.5 for a, b in zip(after, before, strict=True) if b[1] > 0.1]
        assert len(own) > 100 and max(own) - min(own) < 1e-3
        for a, b in zip(after, before, strict=True):
            assert a[1:] == pytest.approx(b[1:], abs=1e-4)
        turns.append(own[0])
    assert -0.1001 <= min(turns) < -0.06 and 0.06 < max(turns) <= 0.1001
    flat = replace(scene, rgb=torch.full_like(scene.rgb, 0.5))
    torch.testing.assert_close(run(tf.VaryColour(**(OFF | {"hue": 0.5})), flat).rgb, flat.rgb)
    with pytest.raises(ValueError, match=r"VaryColour\.hue must lie in \[0, 0\.5\], it is 0\.6"):
        tf.VaryColour(hue=0.6)


def test_each_change_of_colour_comes_with_its_probability():
    scene = a_scene()
    for name in ("brightness", "contrast", "saturation", "hue"):
        one = tf.VaryColour(**(OFF | {"probability": 0.8, name: 0.1}))
        changed = sum(not torch.allclose(run(one, scene, key).rgb, scene.rgb, atol=1e-5) for key in range(200))
        assert 140 < changed < 180, name


def test_changes_of_colour_come_in_any_order():
    """Greys of 0.9, 0.5 and 0.1: the middle one says by how much all are dimmed, and where contrast cuts the highest
    off, it ends at twice that if it was cut off before, and above if after."""
    scene = replace(a_scene(3), rgb=torch.tensor([[0.9], [0.5], [0.1]]).expand(3, 3).contiguous())
    both = tf.VaryColour(**(OFF | {"brightness": 0.5, "contrast": 1.0}))
    ratios = set()
    for key in range(100):
        high, middle, low = run(both, scene, key).rgb[:, 0].tolist()
        if low == 0 and high < 0.99:
            ratios.add(round(high / (2 * middle), 1))
    assert min(ratios) == 1.0 and max(ratios) > 1.1


def test_drop_points_keeps_the_bounds():
    scene = a_scene()
    out = run(tf.DropPoints(0.8), scene)
    assert len(out.xyz) == 400
    torch.testing.assert_close(out.bounds, torch.stack([scene.xyz.amin(0), scene.xyz.amax(0)]))
    assert bool(torch.isin(out.instances, scene.instances).all())
    assert torch.equal(scene.xyz[out.instances], out.xyz), "every column is selected alike"


def test_remove_blocks_takes_whole_blocks_away():
    scene = a_scene(20000)
    out = run(tf.RemoveBlocks(0.7, 0.7, 0.5), scene)
    assert 0.2 < len(out.xyz) / 20000 < 0.4
    torch.testing.assert_close(out.bounds, torch.stack([scene.xyz.amin(0), scene.xyz.amax(0)]))
    # The remaining points fill their blocks: in cells well inside, either nearly all points are left or none.
    cell = torch.floor(scene.xyz / 0.125).to(torch.int64)
    kept = torch.zeros(20000)
    kept[out.instances] = 1
    _, which = torch.unique(cell, dim=0, return_inverse=True)
    share = torch.zeros(int(which.max()) + 1).index_add_(0, which, kept) / torch.bincount(which)
    assert float(((share < 0.01) | (share > 0.99)).float().mean()) > 0.5


def test_the_share_of_removed_blocks_is_drawn():
    scene = a_scene(20000)
    left = [len(run(tf.RemoveBlocks(0.0, 0.9, 0.5), scene, k).xyz) / 20000 for k in range(12)]
    assert min(left) < 0.4 and max(left) > 0.7
    assert len(run(tf.RemoveBlocks(0.0, 0.0, 0.5), scene).xyz) == 20000


def test_blocks_that_are_cells_of_a_volume():
    """Of the cells of an outdoor volume a fifth is left, each whole: none is cut in two."""
    xyz = torch.rand(30_000, 3) * torch.tensor([6.0, 6.0, 8.0]) + torch.tensor([-54.0, -54.0, -5.0])
    scene = Scene(xyz, None, None, "sweep")
    transform = tf.RemoveBlocks(0.8, 0.8, 0.6, 1.6, (-54.0, -54.0, -5.0))
    left = run(transform, scene).xyz
    cells = ((xyz - torch.tensor([-54.0, -54.0, -5.0])) / torch.tensor([0.6, 0.6, 1.6])).floor()
    kept = torch.unique(((left - torch.tensor([-54.0, -54.0, -5.0])) / torch.tensor([0.6, 0.6, 1.6])).floor(), dim=0)
    assert len(kept) == 100, "a fifth of 10 x 10 x 5 cells"
    assert len(left) == int((cells[:, None] == kept).all(2).any(1).sum())
    assert not torch.equal(run(transform, scene, 2).xyz, left)


@pytest.mark.parametrize(
    "wrong", [{"smallest": 0.8, "largest": 0.7}, {"largest": 1.2}, {"size": 0.0}, {"height": -1.0}, {"corner": (1.0,)}]
)
def test_blocks_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="RemoveBlocks: "):
        tf.RemoveBlocks(**wrong)


def test_intensity_is_forgotten_as_often_as_it_says():
    scene = Scene(torch.rand(4, 3), torch.rand(4, 3), torch.rand(4, 3), "sweep", intensity=torch.rand(4))
    plain, both = tf.DropModality(0.3, 0.6), tf.DropModality(0.3, 0.6, 0.25)
    assert plain.inputs == ("rgb", "normal") and both.inputs == ("rgb", "normal", "intensity")
    runs = [(run(plain, scene, key), run(both, scene, key)) for key in range(400)]
    assert all((a.rgb is None, a.normal is None) == (b.rgb is None, b.normal is None) for a, b in runs)
    assert all(a.intensity is not None for a, _ in runs)
    assert sum(b.intensity is None for _, b in runs) / 400 == pytest.approx(0.25, abs=0.06)


def test_grid_sample_takes_one_point_per_voxel():
    scene = replace(a_scene(20000), labels=None)
    out = run(tf.GridSample(0.2), scene)
    cells = torch.unique(torch.floor(scene.xyz / 0.2), dim=0)
    assert len(out.xyz) == len(cells)
    assert len(torch.unique(torch.floor(out.xyz / 0.2), dim=0)) == len(cells)


def test_grid_sample_chooses_evenly():
    scene = Scene(torch.tensor([[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]]), None, None, "x", instances=torch.arange(3))
    picks = torch.bincount(torch.cat([run(tf.GridSample(1.0), scene, k).instances for k in range(900)]))
    assert picks.min() > 240 and picks.max() < 360


def test_grid_sample_prefers_labelled_points():
    labels = torch.full((20000,), -1)
    labels[::500] = 2
    scene = replace(a_scene(20000), labels=labels)
    out = run(tf.GridSample(0.4), scene)
    labelled_voxels = torch.unique(torch.floor(scene.xyz[::500] / 0.4), dim=0)
    assert int((out.labels >= 0).sum()) == len(labelled_voxels)


def test_limit_labels_keeps_the_same_points_every_time():
    scene = a_scene()
    first, again = (run(tf.LimitLabels(20), scene, key).labels for key in (1, 2))
    assert torch.equal(first, again) and int((first >= 0).sum()) == 20
    assert torch.equal(first[first >= 0], scene.labels[first >= 0])
    assert not torch.equal(first, run(tf.LimitLabels(20, seed=1), scene).labels)
    assert not torch.equal(first, run(tf.LimitLabels(20), replace(scene, source="other")).labels)
    with pytest.raises(ValueError, match="box has no point labels"):
        run(tf.LimitLabels(20), replace(scene, labels=None))


def test_keep_views():
    out = run(tf.KeepViews((-1, 7)), a_scene())
    assert len(out.views.cameras) == 1
    with pytest.raises(ValueError, match="box has no images"):
        run(tf.KeepViews(), replace(a_scene(), views=None))
    with pytest.raises(ValueError, match=r"KeepViews.views: box has 2 views, none of \(2, -3\)"):
        run(tf.KeepViews((2, -3)), a_scene())
    with pytest.raises(ValueError, match=r"KeepViews.views is empty"):
        tf.KeepViews(())


def test_rays_end_at_measured_points():
    scene = a_scene(20000)
    out = run(tf.PickRays(2, 64), scene)
    assert out.views is None and len(out.rays) == 128
    ends = out.rays.origins + out.targets.t[:, None] * out.rays.directions
    gap = torch.cdist(ends, scene.xyz).amin(1)
    # A pixel is 1/40 of the depth wide and its point may lie anywhere in it.
    assert float((gap / out.targets.t).max()) < 0.02
    assert bool((out.targets.label == 3).all())
    assert float(out.targets.rgb.max()) <= 1


def test_rays_of_pixels_without_depth():
    scene = a_scene(300)
    everywhere = run(tf.PickRays(2, 200, need_depth=False), scene)
    assert bool((everywhere.targets.t == 0).any()) and bool((everywhere.targets.t > 0).any())
    colour_only = run(tf.PickRays(2, 50), replace(scene, views=replace(scene.views, depth=None)))
    assert colour_only.targets.t is None and len(colour_only.rays) == 100


def test_a_view_without_depth_gives_no_rays():
    """The reference stops with an error there (spec 9.2, number 22)."""
    scene = a_scene(300)
    depth = scene.views.depth.clone()
    depth[0] = 0
    out = run(tf.PickRays(2, 50), replace(scene, views=replace(scene.views, depth=depth)))
    assert len(out.rays) == 50
    nothing = run(tf.PickRays(2, 50), replace(scene, views=replace(scene.views, depth=depth * 0)))
    assert len(nothing.rays) == 0


def test_edge_rays_lie_near_depth_edges():
    scene = a_scene()
    depth = torch.full((2, 33, 49), 2.0)
    depth[:, :, 25:] = 4.0
    out = run(tf.PickRays(2, 100, edge_share=1.0), replace(scene, views=replace(scene.views, depth=depth)))
    local = torch.einsum("nij,ni->nj", _pose_of(scene, out), out.rays.directions)
    u = local[:, 0] / local[:, 2] * 40 + 24
    assert float((u - 24.5).abs().max()) <= 5.01


def test_rays_by_area():
    """Half of the pixels are three times as far: they see nine times the area, and those without depth none."""
    scene = a_scene()
    depth = torch.full((2, 33, 49), 1.0)
    depth[:, :, 24:] = 3.0
    depth[:, :, 48] = 0.0
    scene = replace(scene, views=replace(scene.views, depth=depth))
    for pick, share in ((tf.PickRays(2, 2000, by_area=True), 0.9), (tf.PickRays(2, 2000), 0.5)):
        out = run(pick, scene)
        local = torch.einsum("nij,ni->nj", _pose_of(scene, out), out.rays.directions)
        z = out.targets.t * local[:, 2]
        assert float((z > 2).float().mean()) == pytest.approx(share, abs=0.03)
        assert float(z.min()) > 0.9
    with pytest.raises(ValueError, match=r"PickRays\.by_area needs depth"):
        tf.PickRays(by_area=True, need_depth=False)


def _pose_of(scene, out) -> torch.Tensor:
    """The rotation of the camera that each ray starts at."""
    centres = scene.views.cameras.world_from_cam[:, :3, 3]
    owner = torch.cdist(out.rays.origins, centres).argmin(1)
    return scene.views.cameras.world_from_cam[owner, :3, :3]


def test_grid_sample_without_a_size():
    with pytest.raises(ValueError, match=r"GridSample\.size is left to the encoder"):
        run(tf.GridSample(), a_scene())
    with pytest.raises(ValueError, match=r"GridSample\.size must not be negative"):
        tf.GridSample(-0.1)
    assert tf.GridSample().on_grid(0.3) == tf.GridSample(0.3)
    assert tf.GridSample(0.2).on_grid(0.3) == tf.GridSample(0.2)
    assert all(transform.on_grid(0.3) is transform for transform in (*GEOMETRIC, *OTHERS))


def test_sphere_crop_keeps_the_nearest():
    scene = a_scene()
    out = run(tf.SphereCrop(max_points=300), scene)
    assert torch.equal(scene.xyz[out.instances], out.xyz) and len(out.xyz) == 300
    assert bool((out.instances.diff() > 0).all()), "the order stays"
    away = torch.cdist(scene.xyz, out.xyz)
    left_out = torch.ones(len(scene.xyz), dtype=torch.bool)
    left_out[out.instances] = False
    # One of the points is the centre: everything that is kept is nearer to it than everything else.
    inside, outside = away[out.instances].amax(0), away[left_out].amin(0)
    assert int((inside <= outside).sum()) >= 1
    torch.testing.assert_close(out.bounds, torch.stack([scene.xyz.amin(0), scene.xyz.amax(0)]))
    assert out.views is scene.views


def test_the_size_of_a_sphere_crop():
    scene = a_scene()
    sizes = [
        len(run(crop, scene).xyz)
        for crop in (tf.SphereCrop(), tf.SphereCrop(0.6), tf.SphereCrop(0.6, 100), tf.SphereCrop(0.6, 0))
    ]
    assert sizes == [2000, 1200, 100, 1200]
    for share, points in ((0.0, 1), (1.1, 1), (0.5, -1)):
        with pytest.raises(ValueError, match="SphereCrop: share must lie in"):
            tf.SphereCrop(share, points)


def test_shuffle_moves_all_columns_alike():
    scene = a_scene()
    out = run(tf.Shuffle(), scene)
    assert not torch.equal(out.instances, scene.instances)
    assert torch.equal(out.instances.sort().values, scene.instances)
    for name in ("xyz", "rgb", "normal", "labels"):
        assert torch.equal(getattr(out, name), getattr(scene, name)[out.instances]), name


def test_apply_gives_each_step_its_own_numbers():
    scene = a_scene()
    steps = (tf.Rotate(probability=1.0), tf.Jitter())
    both = tf.apply(steps, scene, 1, 2)
    assert torch.equal(both.xyz, tf.apply(steps, scene, 1, 2).xyz)
    assert not torch.equal(both.xyz, tf.apply(steps, scene, 1, 3).xyz)
    assert both.key == keyed.derive(1, 2)
    # Leaving the last step out does not change the first.
    turned = tf.apply(steps[:1], scene, 1, 2)
    assert float((turned.xyz - both.xyz).abs().max()) <= 0.02 + 1e-6


@pytest.mark.parametrize("which", ["auto", "torch"])
@pytest.mark.parametrize("labels", [None, "some", "none"])
def test_what_grid_sampling_draws_is_fixed(which, labels):
    """Runs are repeated and published figures hold only while the same numbers choose the same points."""
    scene = a_scene(5000)
    given = {None: None, "some": torch.randint(-3, 2, (5000,)), "none": torch.full((5000,), -1)}[labels]
    with kernels(which):
        found = run(tf.GridSample(0.3), replace(scene, labels=given, instances=torch.arange(5000)))
    voxels = voxelize(scene.xyz, torch.zeros(5000, dtype=torch.int64), 0.3)
    share, rows = torch.rand(len(voxels.keys), generator=keyed.generator(1)), []
    for voxel in range(len(voxels.keys)):
        inside = (voxels.voxel == voxel).nonzero()[:, 0].tolist()
        usable = [i for i in inside if given is not None and given[i] >= 0] or inside
        rows.append(usable[min(int(share[voxel] * len(usable)), len(usable) - 1)])
    assert found.instances.tolist() == rows
    assert torch.equal(found.xyz, scene.xyz[rows]) and torch.equal(found.normal, scene.normal[rows])


@pytest.mark.parametrize("spread", [0.0, 0.2, 100.0])
def test_sphere_crop_selects_what_a_sort_would(spread):
    """Many points at one distance, too: of them the first."""
    scene = a_scene(3000)
    scene = replace(scene, xyz=(scene.xyz * spread).round(), instances=torch.arange(3000))
    found = run(tf.SphereCrop(max_points=700), scene)
    centre = scene.xyz[int(torch.randint(3000, (), generator=keyed.generator(1)))]
    nearest = torch.argsort((scene.xyz - centre).square().sum(1), stable=True)[:700]
    assert torch.equal(found.instances, nearest.sort().values)


def test_shifts_and_mirrors_are_exact():
    xyz = torch.randn(500, 3)
    for signs in ([1.0, 1, 1], [-1.0, 1, 1], [-1.0, -1, 1]):
        matrix = torch.diag(torch.tensor(signs))
        assert torch.equal(transform_directions(Similarity(matrix, torch.zeros(3)), xyz), xyz @ matrix.T)
        moved = transform_points(Similarity(matrix, torch.ones(3), 1.3), xyz)
        assert torch.equal(moved, 1.3 * (xyz @ matrix.T) + torch.ones(3))
