"""One's own data in the documented schema."""

import json
import shutil

import numpy as np
import pytest

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.checks import frame_problem, points_problem
from ponder3d.data.raw.dataset import RawFrame
from ponder3d.data.raw.example_room import COLOURS, SURFACES, ExampleRoom
from ponder3d.data.raw.folder import FolderConfig, read_labels_file
from ponder3d.data.raw.rgbd import RGBDConfig, write_sequence
from tests.data.fuzzing import NUMBER, QUICK, check_reader

NAMES = sorted(set(SURFACES))
IDS = np.array([NAMES.index(name) + 1 for name in SURFACES])


@pytest.fixture
def tree(tmp_path):
    FolderConfig.write_example(tmp_path / "data")
    return tmp_path / "data"


def opened(root, **options):
    return FolderConfig(root=str(root), **options).build()


def test_the_example(tree):
    data = opened(tree)
    assert [(s.name, s.split, len(s.frames)) for s in data.scenes] == [
        ("attic", "train", 8),
        ("barn", "test", 0),
        ("cellar", "train", 0),
        ("hall", "train", 8),
        ("shed", "val", 0),
    ]
    assert data.tables[0].labels.names == tuple(NAMES) and data.tables[0].rows[0] == (1, 0)
    assert data.known_ids == {-1, 65535, *range(1, len(NAMES) + 1)}
    for scene, width in zip(data.scenes, (2.2, 2.8, 2.4, 2.0, 2.6), strict=True):
        points = scene.read_points()
        if scene.name == "attic":
            assert points is None
            continue
        xyz, surface = ExampleRoom(half_width=width).points()
        np.testing.assert_allclose(points.xyz, xyz, atol=6e-4)
        assert np.array_equal(points.rgb, COLOURS[surface]) and np.array_equal(points.labels, IDS[surface])
        assert (points.instances is not None) == (scene.name == "cellar") and not points.problems


def test_without_splits(tree):
    flat = tree.parent / "flat"
    flat.mkdir()
    for place in (tree / "train").iterdir():
        shutil.move(place, flat / place.name)
    data = opened(flat)
    assert [(s.name, s.split) for s in data.scenes] == [("attic", "train"), ("cellar", "train"), ("hall", "val")]


def test_units_up_and_origin_move_points_and_cameras_together(tmp_path):
    """A room in centimetres, y up, around (500, 20, -300): points and poses come back in metres, z up, around 0."""
    room = ExampleRoom()
    folder = tmp_path / "room"
    write_sequence(folder, room, "scannet")
    world = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    origin = np.array([500.0, 20.0, -300.0])
    for path in (folder / "pose").iterdir():
        pose = np.loadtxt(path)
        pose[:3, :3] = world @ pose[:3, :3]
        pose[:3, 3] = world @ pose[:3, 3] * 100 + origin
        np.savetxt(path, pose)
    xyz, surface = room.points()
    normal = np.tile([0.0, 1.0, 0.0], (len(xyz), 1))
    np.savez(folder / "points.npz", xyz=xyz @ world.T * 100 + origin, normal=normal)
    data = opened(tmp_path, up=(0.0, 1.0, 0.0), metres_per_unit=0.01, origin=(500.0, 20.0, -300.0))
    (scene,) = data.scenes
    points = scene.read_points()
    np.testing.assert_allclose(points.xyz, xyz, atol=1e-5)
    np.testing.assert_allclose(points.normal, np.tile([0, 0, 1.0], (len(xyz), 1)), atol=1e-6)
    for i, frame in enumerate(scene.read_frames(scene.frames)):
        np.testing.assert_allclose(frame.world_from_cam, room.pose(i), atol=1e-9)
        np.testing.assert_allclose(frame.depth, room.trace(i)[0], atol=6e-4)


def test_clouds_on_a_map(tmp_path):
    xyz = ExampleRoom().points()[0]
    east = xyz + [512_345.0, 5_400_321.0, 120.0]
    np.save(tmp_path / "field.npy", east)
    points = opened(tmp_path).scenes[0].read_points()
    np.testing.assert_allclose(points.xyz, xyz + [345.0, 321.0, 120.0], atol=1e-4)
    write_sequence(tmp_path / "room", ExampleRoom(), "hololens")
    np.save(tmp_path / "room" / "points.npy", east)
    data = opened(tmp_path)
    with pytest.raises(DataError, match=r"points.npy: xyz: points up to 540\d+ m from 0, .* such as 51234\d 540032\d"):
        data.scenes[1].read_points()
    points = opened(tmp_path, origin=(512_345.0, 5_400_321.0, 120.0)).scenes[1].read_points()
    np.testing.assert_allclose(points.xyz, xyz, atol=1e-6)


def test_a_scene_of_several_sequences(tmp_path):
    for name in ("morning", "noon"):
        write_sequence(tmp_path / "room" / name, ExampleRoom(num_frames=4), "hololens")
    np.save(tmp_path / "room" / "points.npy", ExampleRoom().points()[0])
    (scene,) = opened(tmp_path).scenes
    assert scene.frames[0] == "morning_0" and len(scene.frames) == 8
    frames = list(scene.read_frames(scene.frames))
    assert [frame.name for frame in frames] == list(scene.frames)
    assert all(frame_problem(frame, None) is None for frame in frames)
    assert opened(tmp_path, every=3).scenes[0].frames == scene.frames[::3]


def test_frames_follow_labels_json_or_their_own_map(tmp_path):
    write_sequence(tmp_path / "room", ExampleRoom(), "scannet")
    data = opened(tmp_path)
    assert data.tables[0].labels.names == tuple(NAMES) and data.known_ids is None
    (tmp_path / "labels.json").write_text('{"names": {"1": "up", "2": "down", "3": "up"}, "ignore": [4]}')
    data = opened(tmp_path)
    assert data.tables[0].labels.names == ("up", "down") and data.tables[0].rows == ((1, 0), (2, 1), (3, 0))
    assert all(frame_problem(f, data.known_ids) is None for f in data.scenes[0].read_frames(data.scenes[0].frames))
    (tmp_path / "labels.json").write_text('{"1": "up", "2": "down"}')
    data = opened(tmp_path)
    problems = [frame_problem(f, data.known_ids) for f in data.scenes[0].read_frames(data.scenes[0].frames)]
    assert ("label", "label 3, 4, which the dataset does not know") in problems


def test_labels_without_names_are_left_out_and_that_is_said(tmp_path):
    np.save(tmp_path / "a.npy", np.column_stack([np.eye(3), np.zeros((3, 3)), [1, 2, 3]]))
    data = opened(tmp_path)
    points = data.scenes[0].read_points()
    assert points.labels is None and not data.tables
    (problem,) = points.problems
    assert problem.kind == "label" and "a.npy: labels are left out, as there is no labels.json" in problem.what
    (tmp_path / "labels.json").write_text('["zero", "one", "two"]'.replace("[", '{"names": [').replace("]", "]}"))
    data = opened(tmp_path)
    assert points_problem(data.scenes[0].read_points(), data.known_ids) == (
        "label",
        "label 3, which the dataset does not know",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "not a list"),
        ("{", "property name"),
        ("{}", "no names"),
        ('{"a": "wall"}', "invalid literal"),
        ('{"1": 2}', "a name that is no text"),
        ('{"1": "a", "01": "b"}', "a number twice"),
        ('{"names": ["a"], "ignored": [1]}', "an entry ignored"),
        ('{"names": ["a"], "ignore": [0]}', "0 has a name and is ignored"),
        ('{"names": ["a"], "ignore": ["x"]}', "'x' is no number of a label"),
        ('{"names": ["a", "b"], "palette": [[1, 2, 3]]}', "1 colours for 2 classes"),
        ('{"names": ["a"], "palette": [[1, 2, 300]]}', "a colour"),
        ('{"99999999999": "a"}', "no number of a label"),
    ],
)
def test_labels_json_that_is_none(tmp_path, text, message):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(DataError, match=rf"labels.json: expected .*{message}"):
        read_labels_file(tmp_path / "labels.json")


def test_a_palette(tmp_path):
    (tmp_path / "labels.json").write_text('{"names": ["a", "b"], "palette": [[1, 2, 3], [4, 5, 6]], "ignore": [255]}')
    known, table = read_labels_file(tmp_path / "labels.json")
    assert known == {0, 1, 255} and table.labels.palette == ((1, 2, 3), (4, 5, 6))


def test_places_that_are_no_scenes(tree):
    (tree / "train" / "empty").mkdir()
    shutil.copy(tree / "train/cellar/points.npz", tree / "train/hall/points.npz")
    (tree / "train" / ".hidden").mkdir()
    (tree / "train" / "notes.txt").write_text("hello")
    data = opened(tree)
    assert [s.name for s in data.scenes] == ["attic", "barn", "cellar", "shed"]
    assert [(p.scene, p.frame, p.kind) for p in data.problems] == [("empty", "", "file"), ("hall", "", "file")]
    assert "neither points.(ply|las|laz|npz|npy) nor usable RGB-D frames" in data.problems[0].what
    assert "a scene has one cloud, and points.npz is there too" in data.problems[1].what


def test_one_name_twice(tree):
    shutil.copy(tree / "val/shed.npy", tree / "train/shed.npy")
    with pytest.raises(DataError, match="a scene named shed is also in"):
        opened(tree)


def test_a_scene_beside_the_splits(tree):
    shutil.copy(tree / "val/shed.npy", tree / "lost.npy")
    with pytest.raises(DataError, match=r"lost.npy: a scene beside the folders train, val, test; move it"):
        opened(tree)


def test_what_is_recognised(tree, tmp_path):
    """Frames alone are ``rgbd``, unless a labels.json says otherwise."""
    assert FolderConfig.recognises(tree) and not RGBDConfig.recognises(tree)
    write_sequence(tmp_path / "walks" / "one", ExampleRoom(num_frames=2), "hololens")
    assert RGBDConfig.recognises(tmp_path / "walks") and not FolderConfig.recognises(tmp_path / "walks")
    (tmp_path / "walks" / "labels.json").write_text(json.dumps({"0": "wall"}))
    assert FolderConfig.recognises(tmp_path / "walks") and not RGBDConfig.recognises(tmp_path / "walks")
    assert not FolderConfig.recognises(tmp_path / "absent")


@pytest.mark.parametrize(
    "options",
    [{"metres_per_unit": 0.0}, {"metres_per_unit": np.inf}, {"origin": (1.0,)}, {"up": (0.0, 0.0, 0.0)}, {"every": 0}],
    ids=str,
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=f"FolderConfig.{next(iter(options))} must be"):
        FolderConfig(root="x", **options)


@pytest.mark.parametrize("number", [QUICK, pytest.param(NUMBER, marks=pytest.mark.slow)])
def test_mutated_labels(tmp_path, number):
    target = tmp_path / "labels.json"

    def read(data):
        target.write_bytes(data)
        return read_labels_file(target)

    seeds = [
        b'{"0": "wall", "1": "floor", "40": "otherfurniture"}',
        b'{"names": ["wall", "floor"], "ignore": [-1, 255], "palette": [[200, 60, 60], [60, 200, 60]]}',
    ]
    assert check_reader(read, seeds, number) > number / 10


def test_frames_of_a_damaged_scene_are_problems(tree):
    (tree / "train/attic/walk/images/30.png").write_text("hello")
    scene = opened(tree).scenes[0]
    found = list(scene.read_frames(scene.frames))
    bad = [frame for frame in found if not isinstance(frame, RawFrame)]
    assert [(p.scene, p.frame, p.kind) for p in bad] == [("attic", "30", "colour")]
    with pytest.raises(DataError, match="attic: no frame named 31"):
        list(scene.read_frames(["31"]))
