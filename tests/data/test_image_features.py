import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ponder3d.data.context import ContextTarget
from ponder3d.data.dataset import DataError, SceneDataset
from ponder3d.data.image_features import (
    MapFolder,
    MapsRecord,
    all_views,
    map_path,
    map_shape,
    read_map,
    read_record,
    sample_map,
    write_map,
    write_record,
)
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.data.transforms import Centre, Flip, PickRays, Rotate, Scale
from ponder3d.geometry import keyed
from ponder3d.geometry.cameras import pixel_grid, unproject
from ponder3d.types import Cameras, Scene, Views

RECORD = MapsRecord("m:f", "00", 2, reduced=True, origin=(1.0, 2.0, 3.0), axes=((1.0, 0.0), (0.0, 1.0), (0.5, 0.5)))


def a_scene(names=("a", "b"), source: str = "/data/x:room 1", size=(4, 6)) -> Scene:
    """Two views, all of whose pixels have a depth of 2 m."""
    num = len(names)
    cameras = Cameras(
        torch.tensor([[5.0, 0, 2.5], [0, 5, 1.5], [0, 0, 1]]).repeat(num, 1, 1), torch.eye(4).repeat(num, 1, 1), size
    )
    rgb = torch.zeros(num, *size, 3, dtype=torch.uint8)
    views = Views(cameras, rgb, torch.full((num, *size), 2.0), None, torch.tensor([num]), names=tuple(names))
    return Scene(torch.rand(10, 3), None, F.normalize(torch.randn(10, 3), dim=1), source, views=views)


def numbered_maps(root, scene: Scene, channels: int = 3, shape=(2, 3)) -> None:
    """Map k of the scene is k everywhere."""
    for number, name in enumerate(scene.views.names):
        write_map(map_path(root, scene.recording or scene.source, name), torch.full((*shape, channels), float(number)))


@dataclass
class Listed(SceneDataset):
    """Recording and names of views of each scene, and nothing else."""

    lists: list

    def __len__(self):
        return len(self.lists)

    def __getitem__(self, index):
        raise AssertionError("a scene is read")

    def view_names(self, index):
        return self.lists[index]


def test_values_between_cell_centres_by_hand():
    """Two cells across four pixels: their centres are at u = 0.5 and 2.5."""
    values = np.array([[[0.0], [8.0]]], dtype=np.float16)
    uv = torch.tensor([[0.0, 0], [0.5, 0], [1, 0], [2, 1], [2.5, 1], [3, 1], [-0.5, 0]])
    found = sample_map(values, uv, (2, 4))
    assert found[:, 0].tolist() == [0, 0, 2, 6, 8, 8, 0]


@pytest.mark.parametrize("shape", [(3, 5), (7, 4), (30, 40), (1, 1), (12, 16)])
def test_sampling_is_torchs_without_aligned_corners(shape):
    values = np.random.default_rng(0).normal(size=(*shape, 4)).astype(np.float32)
    uv = pixel_grid((12, 16)) + torch.rand(192, 2) * 0.4
    grid = (uv + 0.5) / torch.tensor([16.0, 12.0]) * 2 - 1
    picture = torch.from_numpy(values).permute(2, 0, 1)[None]
    expected = F.grid_sample(picture, grid[None, None], padding_mode="border", align_corners=False)[0, :, 0].T
    torch.testing.assert_close(sample_map(values, uv, (12, 16)), expected, atol=2e-5, rtol=1e-4)


def test_a_map_as_large_as_the_image_is_read_pixel_by_pixel():
    values = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float16)
    found = sample_map(values, pixel_grid((5, 7)), (5, 7))
    assert torch.equal(found, torch.from_numpy(values.reshape(-1, 3).astype(np.float32)))


def test_a_value_that_is_not_finite_reaches_as_far_as_its_cell_takes_part():
    values = np.zeros((1, 4, 2), dtype=np.float16)
    values[0, 1, 1], values[0, 3, 0] = np.nan, np.inf
    uv = torch.tensor([[0.0, 0], [0.5, 0], [1, 0], [1.5, 0], [2, 0], [2.5, 0]])
    known = torch.isfinite(sample_map(values, uv, (1, 4)))
    assert known[:, 0].tolist() == known[:, 1].tolist() == [True, False, False, False, True, False]


def test_rays_carry_the_feature_of_the_place_they_end_at(recording, tmp_path):
    """The map holds the place that each pixel sees, so wherever the world is moved, the ends of rays follow from it."""
    recording(num=6).write(tmp_path / "rec", "seven_scenes")
    dataset = RGBDFolderConfig(root=str(tmp_path / "rec"), hold_out=0).build()
    scene = dataset[0]
    views = scene.views
    for row, name in enumerate(views.names):
        depth = views.depth[row].flatten()
        place = unproject(views.cameras, pixel_grid((12, 16)), depth, torch.full_like(depth, row, dtype=torch.int64))
        path = map_path(tmp_path / "maps", scene.recording, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, torch.cat([place, depth[:, None]], dim=1).view(12, 16, 4).numpy())
    maps = MapFolder(str(tmp_path / "maps"))
    maps.check(dataset)
    pick = PickRays(views=4, rays_per_view=32, features=maps)
    assert pick.added_features() == 4
    for key in range(3):
        moved, old = scene, scene.xyz
        for number, transform in enumerate((Centre(), Rotate(), Rotate("x"), Scale(), Flip())):
            moved = transform(moved, keyed.generator(key, number))
        one = torch.ones(len(old), 1)
        affine = torch.linalg.lstsq(torch.cat([old, one], 1).double(), moved.xyz.double()).solution
        rayed = pick(moved, keyed.generator(key))
        feature = rayed.targets.feature
        assert feature.shape == (128, 4) and feature.dtype == torch.float32
        ends = rayed.rays.origins + rayed.targets.t[:, None] * rayed.rays.directions
        expected = torch.cat([feature[:, :3], torch.ones(128, 1)], dim=1).double() @ affine
        torch.testing.assert_close(ends.double(), expected, atol=1e-4, rtol=1e-4)


def test_only_the_maps_of_views_that_are_picked_are_read(tmp_path):
    scene = a_scene(names=("a", "b", "c"))
    numbered_maps(tmp_path, scene)
    uv, view = torch.zeros(4, 2), torch.tensor([2, 0, 2, 0])
    map_path(tmp_path, scene.source, "b").write_bytes(b"damaged")
    found = MapFolder(str(tmp_path)).look_up(scene, uv, view)
    assert found.tolist() == [[2.0] * 3, [0.0] * 3, [2.0] * 3, [0.0] * 3]
    map_path(tmp_path, scene.source, "b").unlink()
    with pytest.raises(DataError, match=r"room_1/b\.npy: no such map"):
        MapFolder(str(tmp_path)).look_up(scene, uv, torch.ones(4, dtype=torch.int64))
    assert MapFolder(str(tmp_path)).look_up(scene, uv[:0], view[:0]).shape == (0, 3)


def test_the_pick_of_pixels_does_not_depend_on_maps(tmp_path):
    scene = a_scene()
    numbered_maps(tmp_path, scene)
    plain, mapped = (
        PickRays(2, 8, features=f)(scene, keyed.generator(3)) for f in (PickRays().features, MapFolder(str(tmp_path)))
    )
    assert torch.equal(plain.rays.directions, mapped.rays.directions) and plain.targets.feature is None
    assert plain.targets.t is not None and mapped.targets.feature.shape == (16, 3)


def test_surroundings_come_after_the_features_of_images(tmp_path):
    scene = a_scene()
    numbered_maps(tmp_path, scene)
    context = ContextTarget(spacing=0.1)
    rayed = PickRays(2, 8, features=MapFolder(str(tmp_path)))(scene, keyed.generator(0))
    alone = context(PickRays(2, 8)(scene, keyed.generator(0)), keyed.generator(0))
    both = context(rayed, keyed.generator(0)).targets.feature
    assert torch.equal(both, torch.cat([rayed.targets.feature, alone.targets.feature], dim=1))
    assert both.shape[1] == 3 + context.added_features()


def test_files_of_others(tmp_path):
    """Any floats, either order of axes, no record."""
    values = np.random.default_rng(0).normal(size=(5, 3, 4))
    (tmp_path / "room_1").mkdir()
    for number, dtype in enumerate(("<f2", "<f4", ">f4", "<f8")):
        for order in ("C", "F"):
            np.save(tmp_path / "room_1" / f"v{number}.npy", np.asarray(values, dtype=dtype, order=order))
            path = map_path(tmp_path, "/data/x:room 1", f"v{number}")
            np.testing.assert_array_equal(read_map(path), values.astype(dtype))
            assert read_map(path, "chw").shape == (3, 4, 5) and map_shape(path, "chw") == (3, 4, 5)
    assert MapFolder(str(tmp_path)).num_channels() == 4 and MapFolder(str(tmp_path), "chw").num_channels() == 5


def test_names_of_views_cannot_meet_or_leave_the_directory(tmp_path):
    names = [
        "a b",
        "a_b",
        "a%20b",
        "a/b",
        "../a",
        "..",
        ".",
        "a\\b",
        "\u00e9",
        "e\u0301",
        "a:b",
        "color/0001.jpg",
        "\udcff",
    ]
    paths = [map_path(tmp_path, "x:rec", name) for name in names]
    assert len(set(paths)) == len(names)
    for path in paths:
        assert path.parent == tmp_path / "rec" and not path.name.startswith(".")
        write_map(path, torch.zeros(1, 1, 2))
    assert len(list((tmp_path / "rec").iterdir())) == len(names)
    assert map_path(tmp_path, "x:rec", "frame-000010").name == "frame-000010.npy"
    for wrong in ("", "x" * 241):
        with pytest.raises(DataError, match="cannot name a file"):
            map_path(tmp_path, "x:rec", wrong)


def test_every_missing_map_is_found_before_training(tmp_path):
    dataset = Listed([("x:one", ("a", "b", "c")), ("x:one", ("b", "c", "d")), ("x:two", ("a",))])
    assert list(all_views(dataset)) == [("x:one", name) for name in "abcd"] + [("x:two", "a")]
    for view in "acd":
        write_map(map_path(tmp_path, "x:one", view), torch.zeros(1, 1, 2))
    with pytest.raises(DataError, match=r"one/b\.npy: no such map; 2 of 5 views have none .* skip list"):
        MapFolder(str(tmp_path)).check(dataset)
    # Images that cannot be decoded are on record: training never sees them either.
    write_record(tmp_path, replace(RECORD, unreadable=(("one", "b"), ("two", "a"))))
    MapFolder(str(tmp_path)).check(dataset)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([("x:one", ())], "x:one: it has no views, or views without names"),
        ([("x:one", ("a", "a"))], "x:one: two views have one name"),
        ([("x:a b", ("a",)), ("x:a_b", ("a",))], "x:a_b: its maps would lie in one directory with those of x:a b"),
    ],
)
def test_views_that_cannot_be_told_apart(tmp_path, lists, message):
    with pytest.raises(DataError, match=message):
        MapFolder(str(tmp_path)).check(Listed(lists))


def test_a_scene_whose_views_have_no_names(tmp_path):
    scene = a_scene()
    numbered_maps(tmp_path, scene)
    nameless = replace(scene, views=replace(scene.views, names=()))
    with pytest.raises(DataError, match=r"room 1: its views have no names .* Views\.names"):
        PickRays(features=MapFolder(str(tmp_path)))(nameless, keyed.generator(0))


def test_where_there_are_no_maps(tmp_path):
    for maps, message in (
        (MapFolder(), "MapFolder.root is empty"),
        (MapFolder(str(tmp_path / "absent")), "absent: no such directory; make the maps with ponder3d features"),
        (MapFolder(str(tmp_path)), "no maps in it; expected RECORDING/VIEW.npy"),
    ):
        with pytest.raises(DataError, match=message):
            maps.num_channels()


def test_maps_of_different_models(tmp_path):
    scene = a_scene()
    numbered_maps(tmp_path, scene)
    write_map(map_path(tmp_path, scene.source, "b"), torch.zeros(2, 2, 5))
    with pytest.raises(DataError, match=r"room_1/b\.npy: 5 channels, and others in .* have 3"):
        PickRays(features=MapFolder(str(tmp_path)))(scene, keyed.generator(0))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4)), r"shape \(3, 4\) of float64; a map is"),
        (np.zeros((3, 0, 4)), "a map is"),
        (np.zeros((3, 4, 2), dtype=np.int32), "of floats"),
        (np.zeros((3, 4, 2), dtype=complex), "of floats"),
        (np.array(["x"], dtype=object), "no array"),
    ],
)
def test_arrays_that_are_no_maps(tmp_path, array, message):
    np.save(tmp_path / "m.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=rf"m\.npy.*{message}"):
        read_map(tmp_path / "m.npy")
    with pytest.raises(DataError, match=r"m\.npy"):
        map_shape(tmp_path / "m.npy")


def test_what_does_not_fit_half_precision_is_not_written(tmp_path):
    for value in (7e4, math.nan):
        with pytest.raises(DataError, match="do not fit half precision"):
            write_map(tmp_path / "rec" / "a.npy", torch.full((1, 1, 2), value))
    assert not (tmp_path / "rec").exists()


def check_damaged_maps(tmp_path, fuzz, number: int) -> None:
    path = tmp_path / "m.npy"
    write_map(path, torch.randn(3, 4, 5))
    seeds = [path.read_bytes()]
    np.save(path, np.random.default_rng(0).normal(size=(2, 3, 4)).astype(">f4"))
    seeds.append(path.read_bytes())

    def read(data: bytes) -> None:
        path.write_bytes(data)
        sample_map(read_map(path), torch.zeros(3, 2), (4, 4))

    def look(data: bytes) -> None:
        path.write_bytes(data)
        map_shape(path)

    assert fuzz(read, seeds, number) > number // 10
    assert fuzz(look, seeds, number) > number // 10


def check_damaged_records(tmp_path, fuzz, number: int) -> None:
    write_record(tmp_path, replace(RECORD, size=(4, 6), grid=(2, 3), unreadable=(("room", "a"),)))
    path = tmp_path / "features.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_record(tmp_path)

    assert fuzz(read, [path.read_bytes()], number) > number // 2


def test_damaged_files(tmp_path, fuzz):
    check_damaged_maps(tmp_path, fuzz, 60)
    check_damaged_records(tmp_path, fuzz, 60)


@pytest.mark.slow
def test_many_damaged_files(tmp_path, fuzz):
    check_damaged_maps(tmp_path, fuzz, 2000)
    check_damaged_records(tmp_path, fuzz, 2000)


def test_a_map_cut_short_is_not_whole(tmp_path):
    path = tmp_path / "m.npy"
    write_map(path, torch.randn(3, 4, 5))
    assert map_shape(path) == (3, 4, 5)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"x", whole[:40], b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"m\.npy: no map, or a damaged one"):
            map_shape(path)


def test_the_record_survives_its_file(tmp_path):
    assert read_record(tmp_path) is None
    write_record(tmp_path, RECORD)
    assert read_record(tmp_path) == RECORD and MapFolder(str(tmp_path)).num_channels() == 2
    write_record(tmp_path, replace(RECORD, channels=3, reduced=False, axes=()))
    assert MapFolder(str(tmp_path)).num_channels() == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "ponder3d.data.image_features:MapFolder"}, "is not one of MapsRecord"),
        ({"more": 1}, "more: MapsRecord has no such field"),
        ({"channels": 0}, "not positive"),
        ({"mean": [1, "x", 2]}, "expected float, found 'x'"),
        ({"std": [1.0, float("inf"), 2.0]}, "not finite"),
        ({"axes": [[1.0, 2.0]]}, "the reduction does not go with 2 channels"),
        ({"channels": 3}, "the reduction does not go with 3 channels"),
        ({"unreadable": [["a"]]}, "expected 2 values, found 1"),
    ],
)
def test_a_record_that_says_something_else(tmp_path, change, message):
    write_record(tmp_path, RECORD)
    path = tmp_path / "features.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=rf"features\.json: .*{message}"):
        read_record(tmp_path)


def test_a_machine_that_fails_is_not_the_files_fault(unreadable):
    path = unreadable("maps/m.npy")
    with pytest.raises(OSError, match="maps/m.npy"):
        read_map(path)
    with pytest.raises(OSError, match="maps/m.npy"):
        map_shape(path)
