"""Generated streets: the same bits everywhere; points, boxes, images and depth that agree; a way that is free."""

import hashlib
import math
from dataclasses import astuple, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ponder3d.config import from_json, to_json
from ponder3d.data.dataset import DataError
from ponder3d.data.driving.classes import DETECTION_LABELS, STREET_LABELS
from ponder3d.data.synthetic import streets
from ponder3d.data.synthetic.pieces import Draw
from ponder3d.data.synthetic.street_light import draw_weather
from ponder3d.data.synthetic.street_sensors import CAMERAS, LASER_HEIGHT, LaserConfig, instant, laser_pose, photograph
from ponder3d.data.synthetic.street_site import EGO_LENGTH, EGO_WIDTH
from ponder3d.data.synthetic.streets import Street, StreetsConfig, generate, make_sweep, town_path
from ponder3d.geometry.cameras import project
from ponder3d.types import Boxes, Scene

TINY = StreetsConfig(
    num_towns=2, num_test_towns=1, frames=2, image_size=(18, 32), laser=LaserConfig(beams=16, azimuths=180)
)
TOWNS = StreetsConfig(num_towns=4, frames=2, image_size=(45, 80), sweeps=2)
PERFECT = LaserConfig(noise=0.0, dropout=0.0)


def example() -> StreetsConfig:
    """For the contract of datasets."""
    return replace(TINY, num_towns=1)


@pytest.fixture(scope="module")
def towns(tmp_path_factory) -> StreetsConfig:
    """``TOWNS``, made by another process."""
    config = replace(TOWNS, cache=str(tmp_path_factory.mktemp("streets")))
    seen = []
    generate(config, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 4) for done in range(5)]
    return config


@pytest.fixture(scope="module")
def scenes(towns) -> list[Scene]:
    """The second key frame of some towns."""
    dataset = towns.build()
    return [dataset[2 * i + 1] for i in range(towns.num_towns)]


def digest(scene: Scene) -> str:
    """One number for every bit of a scene."""
    sha = hashlib.sha256()

    def add(value):
        if isinstance(value, Tensor):
            sha.update(f"{value.dtype} {tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
        elif isinstance(value, tuple):
            for item in value:
                add(item)
        else:
            sha.update(repr(value).encode())

    add(astuple(scene))
    return sha.hexdigest()


def inside(boxes: Boxes, xyz: Tensor, margin: float) -> Tensor:
    """[K N]: which points are in which boxes, the boxes larger by a margin."""
    cos, sin = boxes.yaw.cos()[:, None], boxes.yaw.sin()[:, None]
    x, y, z = (xyz[:, k] - boxes.centre[:, k, None] for k in range(3))
    reach = boxes.size[:, :, None] / 2 + margin
    aside = (cos * y - sin * x).abs() < reach[:, 1]
    return aside & ((cos * x + sin * y).abs() < reach[:, 0]) & (z.abs() < reach[:, 2])


def test_streets_do_not_depend_on_order_range_or_threads():
    dataset = TINY.build()
    forward = [digest(dataset[i]) for i in (2, 3)]
    for cached in (streets._town, streets._made_sweep, streets._made_shots):
        cached.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert [digest(replace(TINY, first=1, num_towns=1).build()[i]) for i in (1, 0)] == [forward[1], forward[0]]
    finally:
        torch.set_num_threads(threads)
    assert forward[0] != forward[1]


def test_another_process_makes_the_same_towns(towns, tmp_path):
    files = sorted(path.name for path in town_path(towns, 0).parent.iterdir())
    assert len({file.stat().st_size for file in town_path(towns, 0).parent.iterdir()}) == 4
    assert files == [f"town-{number:06d}.npz" for number in range(4)]
    cached, fresh = replace(towns, ahead=(1,)).build(), replace(towns, ahead=(1,), cache="").build()
    assert digest(cached[2]) == digest(fresh[2])
    seen = []
    generate(towns, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 4)]


def test_the_cache_is_read_and_damage_is_repaired(tmp_path, monkeypatch):
    config = replace(TINY, cache=str(tmp_path), cameras=("front",))
    dataset, path, made = config.build(), town_path(config, 1), []
    wanted = digest(dataset[3])
    arrays = dict(np.load(path, allow_pickle=False))

    def fill(config, number):
        made.append(number)
        streets._save(town_path(config, number), arrays)
        return arrays

    monkeypatch.setattr(streets, "_fill", fill)
    good = path.read_bytes()
    assert digest(dataset[3]) == wanted and not made
    for content in (b"", b"PK", good[: len(good) // 2], good[:-30], b"\0" * len(good)):
        made.clear()
        path.write_bytes(content)
        assert digest(dataset[3]) == wanted and made == [1] and len(path.read_bytes()) == len(good)
    # A flipped byte is either one that does not matter (a date) or found by the checksums.
    for at in np.random.default_rng(0).integers(0, len(good), 6):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        assert digest(dataset[3]) == wanted
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"cannot be written .*; set StreetsConfig.cache to a writable folder"):
        replace(config, cache=str(blocked)).build()[2]


def test_only_what_decides_the_content_names_the_cache():
    path = town_path(TINY, 0)
    for same in (
        replace(TINY, sweeps=5, ahead=(1,), images=False, dense_depth=True, num_towns=9, colours=False),
        replace(TINY, cameras=("front",), depth_sweeps=2, num_test_towns=3),
    ):
        assert town_path(same, 0) == path
    for other in (
        replace(TINY, seed=1),
        replace(TINY, style="dusk"),
        replace(TINY, laser=PERFECT),
        replace(TINY, frames=4),
    ):
        assert town_path(other, 0) != path
    assert town_path(replace(TINY, first=3), 2).name == "town-000005.npz"


def test_every_class_appears(scenes):
    points = torch.stack([torch.bincount(s.labels[s.labels >= 0], minlength=16) for s in scenes]).sum(0)
    absent = [name for name, number in zip(STREET_LABELS.names, points.tolist(), strict=True) if number < 5]
    assert not absent
    boxes = torch.cat([s.boxes.label for s in scenes])
    assert set(boxes.tolist()) == set(range(len(DETECTION_LABELS)))
    assert all(tuple(s.views.rgb.shape) == (6, 45, 80, 3) for s in scenes)
    assert all(float(view.to(torch.float32).std()) > 10 for s in scenes for view in s.views.rgb)


def test_scenes_hold_what_the_laser_measured(scenes):
    for scene in scenes:
        key = scene.time == 0
        assert scene.time.unique().tolist() == [0.0, 0.5] and bool((scene.labels[~key] == -1).all())
        assert bool((scene.labels[key] >= 0).all()) and 20_000 < int(key.sum()) <= 32 * 1080
        ranges = scene.xyz[key].norm(dim=1)
        assert 1 < float(ranges.min()) and float(ranges.max()) <= 70.01
        assert 0 <= float(scene.intensity.min()) and float(scene.intensity.max()) <= 1
        road = key & (scene.labels == STREET_LABELS.names.index("drivable surface"))
        height = scene.xyz[road, 2] + LASER_HEIGHT
        assert abs(float(height.mean())) < 0.005 and float(height.abs().max()) < 0.1
        walk = key & (scene.labels == STREET_LABELS.names.index("sidewalk"))
        assert float(scene.xyz[walk, 2].max()) + LASER_HEIGHT < 0.15 + 0.1


def test_points_in_boxes_have_their_class(scenes):
    # Cars stand alone; other things may be in one another's boxes (a tractor below its trailer).
    right, found = 0, 0
    for scene in scenes:
        classes = torch.tensor([STREET_LABELS.names.index(name) for name in DETECTION_LABELS.names])[scene.boxes.label]
        key = scene.time == 0
        xyz, labels = scene.xyz[key], scene.labels[key]
        within = inside(scene.boxes, xyz, 0.12) & (labels == classes[:, None])
        assert bool(within.any(1).all())
        things = torch.isin(labels, torch.arange(10))
        assert bool(within.any(0)[things].all())
        core = inside(scene.boxes, xyz, -0.1)[classes == STREET_LABELS.names.index("car")]
        right += int((core & (labels == STREET_LABELS.names.index("car"))).sum())
        found += int(core.sum())
    assert found > 1000 and right > 0.99 * found


def test_velocities_are_those_of_the_boxes(towns):
    moving = 0
    for index in range(towns.num_towns):
        street = Street(towns, index)
        now, later = street.boxes(0), street.boxes(1)
        world = [street.sweep(frame).world_from_sensor for frame in (0, 1)]
        for row in range(len(now.yaw)):
            # A thing is known by its size, which no two share, but for cycles.
            if DETECTION_LABELS.names[int(now.label[row])] in ("bicycle", "motorcycle"):
                continue
            same = (later.size == now.size[row]).all(1).nonzero()[:, 0]
            if len(same) != 1:
                continue
            old = world[0][:3, :3] @ now.centre[row].double() + world[0][:3, 3]
            new = world[1][:3, :3] @ later.centre[same[0]].double() + world[1][:3, 3]
            speed = world[0][:2, :2] @ now.velocity[row].double()
            assert (new - old)[:2].sub(speed * 0.5).norm() < 0.15
            moving += int(speed.norm() > 1)
            if speed.norm() > 1 and DETECTION_LABELS.names[int(now.label[row])] in ("car", "truck", "bus"):
                yaw = now.yaw[row]
                ahead = torch.stack([yaw.cos(), yaw.sin()]) @ now.velocity[row] / now.velocity[row].norm()
                assert ahead > 0.99
    assert moving > 10


def test_the_way_is_free():
    y, x, z = np.meshgrid(
        np.linspace(-0.5, 0.5, 12) * EGO_LENGTH, np.linspace(-0.5, 0.5, 6) * EGO_WIDTH, (0.3, 0.9, 1.6)
    )
    ego = np.stack([x, y, z - LASER_HEIGHT], axis=-1).reshape(-1, 3)
    town = streets._town(0, 1, TOWNS.frames, "mixed")
    names = np.array([thing.piece.label for thing in town.site.things])
    cars = np.isin(names[town.thing], ["car", "bus", "truck"])
    for seconds in (0.0, 0.2, 0.35, 0.5):
        pose, shapes = laser_pose(town, seconds), instant(town, seconds)
        at = ego @ pose[:3, :3].T + pose[:3, 3]
        local = np.einsum("ski,spk->spi", shapes.rotation, at[None] - shapes.centre[:, None])
        assert not (np.abs(local) < shapes.half[:, None]).all(2).any()
        # Nothing floats or sinks: cars stand on the road or on what is as high as a kerb.
        low = shapes.corners()[..., 2].min(1)
        lowest = np.full(len(names), np.inf)
        np.minimum.at(lowest, town.thing[cars], low[cars])
        stands = lowest[np.isfinite(lowest)]
        assert ((np.abs(stands) < 0.01) | (np.abs(stands - 0.15) < 0.01)).all()


def test_points_and_true_depth_agree():
    config = replace(TOWNS, num_towns=2, sweeps=1, laser=PERFECT, image_size=(90, 160))
    sparse, dense = config.build(), replace(config, dense_depth=True).build()
    measured, true = sparse[3].views, dense[3].views
    assert true.labels is None and torch.equal(measured.rgb, true.rgb)
    at = (measured.depth > 0) & (true.depth > 0)
    assert float(at.to(torch.float32).mean()) > 0.05
    error = (measured.depth[at] - true.depth[at]).abs() / true.depth[at]
    # What the laser sees over the top of things, and pixels on slanted ground, differ.
    assert float(error.median()) < 0.01 and float((error < 0.05).to(torch.float32).mean()) > 0.85
    assert 0 < float((true.depth == 0).to(torch.float32).mean()) < 0.7


def test_cameras_look_where_their_names_say():
    scene = TINY.build()[2]
    cameras = scene.views.cameras
    assert scene.views.names[:2] == ("front-0000", "front-right-0000") and len(cameras) == len(CAMERAS) == 6
    assert (
        cameras.world_from_cam[:, :3, 2]
        .isclose(
            torch.tensor([[math.sin(math.radians(c[3])), math.cos(math.radians(c[3])), 0.0] for c in CAMERAS.values()]),
            atol=1e-6,
        )
        .all()
    )
    uv, depth = project(cameras, torch.tensor([[0.0, 10.75, -0.33]]), torch.tensor([0]))
    assert uv.flatten().tolist() == pytest.approx([15.5, 8.5], abs=1e-3)
    assert float(depth) == pytest.approx(10.0, abs=1e-4)


def test_sweeps_between_key_frames():
    config = replace(TINY, sweeps_between=4, sweeps=4)
    street = Street(config, 1)
    before = street.earlier(1, 9)
    assert [sweep.seconds for sweep in before] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])
    assert [sweep.labels is None for sweep in before] == [True, True, True, True, False]
    assert street.earlier(0, 3) == [] and len(street.earlier(1, 2)) == 2
    assert config.build()[3].time.unique().tolist() == pytest.approx([0, 0.1, 0.2, 0.3])


def test_views_of_key_frames_ahead_come_with_their_true_depth():
    scene = replace(TINY, ahead=(1, 5), dense_depth=True).build()[2]
    assert scene.views.depth.shape == (12, 18, 32) and scene.views.names[6] == "front-0001"
    second = replace(TINY, dense_depth=True).build()[3]
    assert torch.equal(scene.views.depth[6:], second.views.depth)
    without = replace(TINY, images=False, dense_depth=True).build()[2]
    assert without.views is None


def test_streets_are_a_function_of_their_content():
    one, other = make_sweep(TINY, 1, 1), make_sweep(replace(TINY, num_towns=9, cache="elsewhere"), 1, 1)
    assert np.array_equal(one.steps, other.steps) and np.array_equal(one.boxes, other.boxes)
    town = streets._town(0, 1, 2, "mixed")
    rng = np.random.default_rng(0)
    light = [
        photograph(replace(town, weather=draw_weather(Draw(rng), style)), (18, 32), 0.0, rng)
        for style in ("sunny", "dusk")
    ]
    assert np.array_equal(light[0].depth, light[1].depth) and not np.array_equal(light[0].rgb, light[1].rgb)


def test_configurations_survive_json_and_say_what_is_wrong():
    assert from_json(StreetsConfig, to_json(TINY)) == TINY
    for fields, message in (
        ({"num_towns": 0}, "StreetsConfig.num_towns must be at least 1, it is 0"),
        ({"frames": 0}, "StreetsConfig.frames must be at least 1"),
        ({"image_size": (4, 100)}, r"StreetsConfig.image_size must be \(height, width\) of at least 8 pixels"),
        ({"sweeps": 0}, "StreetsConfig.sweeps must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(TINY, **fields)
    for fields, message in (
        ({"beams": 0}, "LaserConfig.beams must be from 1 to 256, it is 0"),
        ({"noise": math.nan}, "LaserConfig.noise must be from 0 to 1, it is nan"),
        ({"reach": 200.0}, "LaserConfig.reach must be from 2 to 130"),
    ):
        with pytest.raises(ValueError, match=message):
            LaserConfig(**fields)
    with pytest.raises(ValueError, match="generate: StreetsConfig.cache is empty; name a directory"):
        generate(TINY)
    with pytest.raises(ValueError, match="generate: workers must be at least 1"):
        generate(replace(TINY, cache="x"), workers=0)
