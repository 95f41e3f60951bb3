"""What every transform of the package promises, found by walking it; a new one is tested, with its defaults, without a
word.
"""

import random
from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ponder3d.config import from_json, to_json
from ponder3d.data.transforms import PickRays, Transform, select_points
from ponder3d.geometry import keyed
from ponder3d.geometry.cameras import project
from ponder3d.types import Boxes, Cameras, Scene, Views

FAMILY = Transform
DRAWS = range(10)
"""Keys to try; what happens with a probability happens in some of them."""


@pytest.fixture
def transform(member) -> Transform:
    return member().on_grid(0.02)


def a_scene(num: int = 2000) -> Scene:
    """A room of random pairs of points with everything a scene can have. Two cameras see it; instances are the rows."""
    first = torch.rand(num - num // 2, 3) * torch.tensor([4.0, 3.0, 2.5]) + torch.tensor([1.0, 2.0, 0.3])
    xyz = torch.cat([first, first[: num // 2] + 0.005 * torch.rand(num // 2, 3)])
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[:, :3, :3] = torch.linalg.qr(torch.randn(2, 3, 3)).Q
    pose[:, :3, 3] = torch.tensor([[3.0, 3.5, 1.5], [2.0, 3.0, 1.0]])
    cameras = Cameras(torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]).repeat(2, 1, 1), pose, (33, 49))
    depth = torch.zeros(2, 33, 49)
    for view in range(2):
        uv, z = project(cameras, xyz, torch.full((num,), view))
        pixel = uv.round().to(torch.int64)
        seen = (z > 0.1) & (pixel >= 0).all(1) & (pixel[:, 0] < 49) & (pixel[:, 1] < 33)
        depth[view, pixel[seen, 1], pixel[seen, 0]] = z[seen]
    images = torch.randint(0, 255, (2, 33, 49, 3), dtype=torch.uint8)
    labels = torch.randint(0, 4, (2, 33, 49))
    scene = Scene(
        xyz,
        torch.rand(num, 3),
        torch.nn.functional.normalize(torch.randn(num, 3), dim=1),
        "box",
        labels=torch.randint(0, 4, (num,)),
        instances=torch.arange(num),
        views=Views(cameras, images, depth, labels, torch.tensor([2])),
        boxes=Boxes(torch.rand(2, 3) + 2, torch.rand(2, 3), torch.rand(2), torch.tensor([0, 1])),
    )
    rayed = PickRays(2, 16)(scene, keyed.generator(0))
    return replace(scene, rays=rayed.rays, targets=rayed.targets)


def scene_for(transform: Transform, num: int = 2000) -> Scene:
    """Without rays for a transform that says it cannot move them."""
    try:
        run(transform, a_scene(num))
    except ValueError as error:
        assert str(error).startswith(f"{type(transform).__name__}: box has rays")
        return replace(a_scene(num), rays=None, targets=None)
    return a_scene(num)


def run(transform: Transform, scene: Scene, key: int = 0) -> Scene:
    return transform(scene, keyed.generator(key))


def tensors(value, name: str = "scene") -> dict[str, Tensor]:
    """Everything that a scene holds, by name."""
    if isinstance(value, Tensor):
        return {name: value}
    parts = [tensors(getattr(value, f.name), f"{name}.{f.name}") for f in fields(value)] if is_dataclass(value) else []
    return {name: tensor for part in parts for name, tensor in part.items()}


def same(a: Scene, b: Scene) -> bool:
    left, right = tensors(a), tensors(b)
    keys = [None if scene.pair is None else scene.pair.key for scene in (a, b)]
    equal = left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    return equal and keys[0] == keys[1]


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def test_a_configuration_survives_json(transform):
    assert from_json(Transform, to_json(transform)) == transform


def test_the_result_is_a_function_of_scene_and_generator(transform):
    scene = scene_for(transform)
    results, drew = [], False
    for key in DRAWS:
        seed_everything(1)
        generator = keyed.generator(key)
        results.append(transform(scene, generator))
        drew |= not torch.equal(generator.get_state(), keyed.generator(key).get_state())
        seed_everything(2)
        assert same(run(transform, scene, key), results[-1])
    assert drew != all(same(result, results[0]) for result in results), "numbers that are drawn change something"


def test_the_input_is_left_alone(transform):
    scene = scene_for(transform)
    before = {name: value.clone() for name, value in tensors(scene).items()}
    for key in DRAWS:
        run(transform, scene, key)
    assert all(torch.equal(value, before[name]) for name, value in tensors(scene).items())


def test_the_columns_of_a_point_stay_together(transform):
    scene = scene_for(transform)
    for key in DRAWS:
        out = run(transform, scene, key)
        rows = out.instances
        assert 0 < len(rows) == len(out.xyz) <= len(scene.xyz)
        assert bool(((out.labels == scene.labels[rows]) | (out.labels < 0)).all())
        for name in ("xyz", "rgb", "normal"):
            column = getattr(out, name)
            assert column is None or alike(column, getattr(scene, name)[rows]), name


def test_points_that_are_said_to_be_kept_are_kept(transform):
    scene = scene_for(transform)
    if transform.keeps_points:
        assert all(torch.equal(run(transform, scene, key).instances, scene.instances) for key in DRAWS)


def alike(a: Tensor, b: Tensor) -> bool:
    """Whether rows that are far apart in one are so in the other, however they were turned, stretched or shaken."""
    assert len(a) == len(b)
    pairs = torch.stack([torch.cdist(x[:300], x[:300]).flatten() for x in (a, b)])
    return float(torch.corrcoef(pairs)[0, 1]) > 0.5


def test_what_moves_the_world_moves_all_of_it(transform):
    """Points moved by one affine map, not each by its own noise: everything else has to follow."""
    scene = scene_for(transform)
    for key in DRAWS:
        out = run(transform, scene, key)
        rows = out.instances
        old = torch.cat([scene.xyz[rows], torch.ones(len(rows), 1)], dim=1).double()
        affine = torch.linalg.lstsq(old, out.xyz.double()).solution
        is_one_map = float((old @ affine - out.xyz).abs().max()) < 1e-4
        if is_one_map and not torch.allclose(out.xyz, scene.xyz[rows], atol=1e-4):
            check_moved(scene, out, affine.float())
        elif out.views is not None and len(out.views.cameras) == len(scene.views.cameras):
            assert torch.equal(out.views.cameras.world_from_cam, scene.views.cameras.world_from_cam)


def check_moved(scene: Scene, out: Scene, affine: Tensor) -> None:
    """``affine`` has the images of the axes as its first rows, and that of the origin as its last."""
    rows, linear, shift = out.instances, affine[:3], affine[3]
    scale = float(torch.linalg.det(linear).abs() ** (1 / 3))
    torch.testing.assert_close(out.normal, scene.normal[rows] @ linear / scale, atol=1e-4, rtol=1e-4)
    if out.boxes is not None:
        torch.testing.assert_close(out.boxes.centre, scene.boxes.centre @ linear + shift, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(out.boxes.size, scene.boxes.size * scale)
    if out.rays is not None:
        ends, moved = (s.rays.origins + s.targets.t[:, None] * s.rays.directions for s in (scene, out))
        torch.testing.assert_close(moved, ends @ linear + shift, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(out.rays.directions, scene.rays.directions @ linear / scale, atol=1e-4, rtol=1e-4)
    if out.views is not None:
        torch.testing.assert_close(out.views.depth, scene.views.depth * scale)
        check_seen_alike(scene, out, scale)


def check_seen_alike(scene: Scene, out: Scene, scale: float) -> None:
    """Points moved and then projected fall on the pixels they fell on."""
    for view in range(len(scene.views.cameras)):
        number = torch.full_like(out.instances, view)
        uv, z = project(scene.views.cameras, scene.xyz[out.instances], number)
        uv_out, z_out = project(out.views.cameras, out.xyz, number)
        torch.testing.assert_close(z_out, z * scale, atol=1e-4, rtol=1e-4)
        near = z > 0.2
        torch.testing.assert_close(uv_out[near], uv[near], atol=2e-2, rtol=1e-3)


@pytest.mark.parametrize("num", [0, 1])
def test_no_point_and_one_point(transform, num):
    scene = scene_for(transform, num)
    for key in DRAWS:
        out = run(transform, scene, key)
        assert len(out.xyz) <= num and all(bool(torch.isfinite(value).all()) for value in tensors(out).values())


@pytest.mark.parametrize("part", ["rgb", "normal", "labels", "instances", "views", "rays", "boxes"])
def test_what_is_missing_is_named_or_not_needed(transform, part):
    scene = replace(scene_for(transform), **{part: None})
    if part == "rays":
        scene = replace(scene, targets=None)
    try:
        results = [run(transform, scene, key) for key in DRAWS]
    except ValueError as error:
        assert str(error).startswith(f"{type(transform).__name__}: box has no ")
    else:
        made = isinstance(transform, PickRays) and part == "rays"
        assert made or all(getattr(out, part) is None for out in results)


@dataclass(frozen=True)
class _ForgetsCameras(Transform):
    def __call__(self, scene, generator):
        return replace(scene, xyz=scene.xyz.flip(1) * 2, normal=scene.normal.flip(1))


@dataclass(frozen=True)
class _OwnNumbers(Transform):
    def __call__(self, scene, generator):
        return replace(scene, xyz=scene.xyz + torch.randn_like(scene.xyz) * 0.01)


@dataclass(frozen=True)
class _InPlace(Transform):
    def __call__(self, scene, generator):
        scene.rgb.clamp_(0.1, 0.9)
        return scene


@dataclass(frozen=True)
class _LosesTrack(Transform):
    def __call__(self, scene, generator):
        order = torch.randperm(len(scene.xyz), generator=generator)
        return replace(select_points(scene, order), rgb=scene.rgb)


@dataclass(frozen=True)
class _Reverses(Transform):
    def __call__(self, scene, generator):
        return select_points(scene, torch.arange(len(scene.xyz)).flip(0))


@pytest.mark.parametrize(
    ("careless", "test"),
    [
        (_ForgetsCameras(), test_what_moves_the_world_moves_all_of_it),
        (_OwnNumbers(), test_the_result_is_a_function_of_scene_and_generator),
        (_InPlace(), test_the_input_is_left_alone),
        (_LosesTrack(), test_the_columns_of_a_point_stay_together),
        (_Reverses(), test_points_that_are_said_to_be_kept_are_kept),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_careless_transform_is_found(careless, test):
    with pytest.raises(AssertionError):
        test(careless)


def test_it_says_whether_it_gives_images(transform):
    scene = scene_for(transform)
    assert scene.images is None
    assert (run(transform, scene).images is not None) == transform.gives_images
