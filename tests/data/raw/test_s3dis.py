import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared.scene_file import PrepareOptions, write_scene
from ponder3d.data.raw import s3dis
from ponder3d.data.raw.checks import frame_problem
from ponder3d.data.raw.dataset import Problem, RawFrame
from ponder3d.data.raw.example_room import COLOURS, ExampleRoom
from ponder3d.data.raw.s3dis import LABELS, S3DIS, TABLE, S3DISConfig
from ponder3d.data.raw.s3dis_frames import FROM_5B, bilinear_colour, distorted_pixels, nearest_depth, read_frame
from ponder3d.data.raw.surface import Surface
from ponder3d.data.raw.unusable import Unusable
from ponder3d.data.skip_list import SkipList

HALLWAY = ExampleRoom(half_width=1.8)


@pytest.fixture
def root(tmp_path):
    S3DISConfig.write_example(tmp_path)
    return tmp_path


def opened(root, **choices) -> S3DIS:
    return S3DISConfig(root=str(root), **choices).build()


def with_frames(root, **choices) -> S3DIS:
    return opened(root, frames_root=str(root / "frames"), **choices)


def unprojected(frame: RawFrame) -> np.ndarray:
    assert frame.depth is not None
    v, u = np.nonzero(frame.depth)
    rays = np.stack([u, v, np.ones_like(u)], axis=1) @ np.linalg.inv(frame.intrinsics).T
    return (rays * frame.depth[v, u, None]) @ frame.world_from_cam[:3, :3].T + frame.world_from_cam[:3, 3]


def test_points_are_the_files_in_the_order_of_their_names(root):
    points = opened(root).scenes[0].read_points()
    assert points.problems == () and points.normal is None
    words = ["ceiling_6", "floor_3", "table_7", "wall_1", "wall_2", "wall_4", "wall_5"]
    files = [np.loadtxt(root / "Area_1" / "office_1" / "Annotations" / f"{word}.txt") for word in words]
    np.testing.assert_array_equal(points.xyz, np.concatenate(files)[:, :3].astype(np.float32))
    np.testing.assert_array_equal(points.rgb, np.concatenate(files)[:, 3:])
    lengths = [len(file) for file in files]
    np.testing.assert_array_equal(points.instances, np.repeat(np.arange(7), lengths))
    np.testing.assert_array_equal(points.labels, np.repeat([1, 2, 8, 3, 3, 3, 3], lengths))


def test_classes_and_splits(root):
    assert LABELS.names.index("table") == 7 and LABELS.names.index("clutter") == 12
    assert dict(TABLE.rows)[1] == 0 and dict(TABLE.rows)[14] == 12, "stairs are clutter"
    assert [(s.name, s.split) for s in opened(root).scenes] == [
        ("Area_1-office_1", "train"),
        ("Area_5-hallway_6", "val"),
    ]
    assert [s.split for s in opened(root, val_area=1).scenes] == ["val", "train"]


def test_stairs_other_words_copies_and_rooms_without_files(root):
    folder = root / "Area_5" / "hallway_6" / "Annotations"
    for name in ("stairs_1.txt", "lamp_1.txt", "wall_1 (1).txt"):
        (folder / name).write_text("0 0 0 1 2 3\n")
    (root / "Area_1" / "lobby_1").mkdir()
    (root / "Area_1" / "lobby_2" / "Annotations").mkdir(parents=True)
    dataset = opened(root)
    points = dataset.scenes[1].read_points()
    assert 14 in points.labels and 15 in points.labels and len(points.xyz) == len(HALLWAY.points()[0]) + 2
    assert [(p.scene, p.kind) for p in dataset.problems] == [
        ("Area_1-lobby_1", "file"),
        ("Area_1-lobby_2", "file"),
        ("Area_5-hallway_6", "label"),
        ("Area_5-hallway_6", "duplicate"),
    ]
    assert "lamp_1.txt: 'lamp' is no class" in str(dataset.problems[2])
    assert "wall_1 (1).txt: a copy of wall_1.txt" in str(dataset.problems[3])


def test_what_is_hidden_is_no_room_and_no_points(root):
    before = [scene.name for scene in opened(root).scenes]
    (root / "Area_1" / ".ipynb_checkpoints" / "Annotations").mkdir(parents=True)
    (root / "Area_1" / ".ipynb_checkpoints" / "Annotations" / "wall_1.txt").write_text("0 0 0 1 2 3\n")
    (root / "Area_1" / ".Trash").mkdir()
    (root / "Area_1" / "office_1" / "Annotations" / "._wall_1.txt").write_bytes(b"\0\5\x16\7" * 50)
    dataset = opened(root)
    assert [scene.name for scene in dataset.scenes] == before and dataset.problems == ()
    assert len(dataset.scenes[0].read_points().xyz) == len(ExampleRoom().points()[0])


def test_a_room_is_read_once_for_points_and_frames(root, tmp_path, monkeypatch):
    read, files = s3dis.read_points, []
    monkeypatch.setattr(s3dis, "read_points", lambda path: files.append(path) or read(path))
    dataset = with_frames(root, every=4)
    for scene in dataset.scenes:
        write_scene(tmp_path / f"{scene.name}.tar", scene, dataset, PrepareOptions(), SkipList(), "x")
        assert scene._kept is None, "scenes live as long as the dataset"
    assert len(files) == len(set(files)) == 14
    scene = dataset.scenes[0]
    with pytest.raises(KeyError), scene.keeping():
        assert scene.read_points() is scene.read_points()
        raise KeyError
    assert scene.read_points() is not scene.read_points()


def test_a_damaged_line_is_repaired_and_told(root):
    path = root / "Area_5" / "hallway_6" / "Annotations" / "ceiling_6.txt"
    lines = path.read_bytes().splitlines()
    lines[2] = b"0.5 0.5 2.5 185\x00187 182"
    lines[3] = b"0.5 0.5"
    path.write_bytes(b"\n".join(lines))
    points = opened(root).scenes[1].read_points()
    assert len(points.xyz) == len(HALLWAY.points()[0]) - 1 and points.rgb[2].tolist() == [185, 187, 182]
    assert [p.kind for p in points.problems] == ["points", "points"]
    assert f"{path}: line 3: '0.5 0.5 2.5 185\\x00187 182': read as" in str(points.problems[0])
    assert f"{path}: line 4: '0.5 0.5' is not x y z r g b; left out" in str(points.problems[1])
    path.write_bytes(b"\x89PNG" * 1000)
    with pytest.raises(DataError, match=str(path)):
        opened(root).scenes[1].read_points()


def test_frames_see_the_room(root):
    dataset = with_frames(root)
    assert dataset.problems == ()
    for scene, half_width in zip(dataset.scenes, (2.0, 1.8), strict=True):
        room = ExampleRoom(half_width=half_width)
        frames = list(scene.read_frames(scene.frames))
        assert len(frames) == room.num_frames
        for number, frame in enumerate(frames):
            assert isinstance(frame, RawFrame) and frame_problem(frame, dataset.known_ids) is None
            np.testing.assert_allclose(frame.world_from_cam, room.pose(number), atol=1e-6)
            # Half a pixel of 1/20 rad is what the nearest depth can be beside the point.
            assert room.distance(unprojected(frame)).max() < 0.03
            assert frame.depth is not None and frame.labels is not None and frame.instances is not None
            assert 0.95 < (frame.depth > 0).mean() < 1, "the upper left pixel has no depth"
            surface = room.trace(number)[1]
            expected = np.array([3, 3, 2, 3, 3, 1, 8])[surface]
            measured = frame.depth > 0
            assert (frame.labels == expected)[measured].mean() > 0.9
            assert (frame.labels[~measured] == 0).all() and (frame.instances[~measured] == -1).all()
            assert ((frame.instances >= 0) == measured).all()
            assert np.median(np.abs(frame.rgb.astype(int) - COLOURS[surface]).max(-1)) < 8


def test_frames_of_5b_are_moved_to_the_world_of_the_area():
    np.testing.assert_allclose(FROM_5B @ [1, 2, 3, 1], [2 - 4.09703582, -1 + 6.22617759, 3, 1])


def test_turning_a_room_turns_its_cameras(root):
    plain, turned = with_frames(root).scenes[1], with_frames(root, align_angle=True).scenes[1]
    before, after = plain.read_points().xyz, turned.read_points().xyz
    # The angle in the file is 90: (2 - 90 / 180) pi turns x to -y, about the middle of the room.
    middle = np.array([0, 0, 1.25])
    expected = (before - middle)[:, [1, 0, 2]] * [1, -1, 1] + middle
    np.testing.assert_allclose(after, expected, atol=1e-5)
    for frame in turned.read_frames(turned.frames):
        assert isinstance(frame, RawFrame)
        back = (unprojected(frame) - middle)[:, [1, 0, 2]] * [-1, 1, 1] + middle
        assert HALLWAY.distance(back).max() < 0.03
    np.testing.assert_array_equal(
        opened(root, align_angle=True).scenes[0].read_points().xyz, opened(root).scenes[0].read_points().xyz
    )


def test_angles_that_are_missing_or_damaged(root):
    path = root / "Area_5" / "Area_5_alignmentAngle.txt"
    path.write_text("# nothing\n")
    with pytest.raises(DataError, match=f"{path}: no angle of hallway_6"):
        opened(root, align_angle=True)
    path.write_text("hallway_6 east\n")
    with pytest.raises(DataError, match=f"{path}: line 1 is not the name of a room and an angle"):
        opened(root, align_angle=True)
    path.unlink()
    with pytest.raises(DataError, match=str(path)):
        opened(root, align_angle=True)


def test_rooms_that_were_turned_already_fit_no_frames(root):
    aligned = root / "Stanford3dDataset_v1.2_Aligned_Version"
    aligned.mkdir()
    (root / "Area_1").rename(aligned / "Area_1")
    assert len(opened(aligned).scenes) == 1
    for choices in ({"align_angle": True}, {"frames_root": str(root / "frames")}):
        with pytest.raises(DataError, match=f"{next(iter(choices))} needs Stanford3dDataset_v1.2"):
            opened(aligned, **choices)


def test_pixels_of_a_distorting_camera():
    """By hand: ray (0.5, 0.25), r2 = 0.3125; k1 = 0.32 makes it 1.1 times as long."""
    matrix = np.array([[10, 0, 8], [0, 20, 4], [0, 0, 1.0]])
    only = np.array([[1, 0, -0.5], [0, 1, -0.25], [0, 0, 1.0]])  # pixel (0, 0) looks along (0.5, 0.25)
    cases = {
        (0, 0, 0, 0, 0): (0.5, 0.25),
        (0.32, 0, 0, 0, 0): (0.55, 0.275),
        (0, 1.024, 0, 0, 0): (0.55, 0.275),
        (0, 0, 0, 0, 3.2768): (0.55, 0.275),
        (0, 0, 0.1, 0, 0): (0.5 + 2 * 0.1 * 0.125, 0.25 + 0.1 * (0.3125 + 2 * 0.0625)),
        (0, 0, 0, 0.1, 0): (0.5 + 0.1 * (0.3125 + 2 * 0.25), 0.25 + 2 * 0.1 * 0.125),
    }
    for distortion, (x, y) in cases.items():
        seen = distorted_pixels(matrix, np.array(distortion, dtype=float), only, (1, 1))
        np.testing.assert_allclose(seen[0, 0], [10 * x + 8, 20 * y + 4], atol=1e-12)


def test_depth_is_never_mixed_and_colour_is():
    depth = np.array([[4000, 65535, 8000, 0]], dtype=np.uint16)
    where = np.array([[[0.4, 0], [0.6, 0], [1.51, 0], [2.9, 0], [-0.4, 0.4], [-0.6, 0], [3.6, 0], [1e30, 0]]])
    assert nearest_depth(depth, where).tolist() == [[1, 0, 2, 0, 1, 0, 0, 0]]
    rgb = np.array([[[0, 0, 0], [100, 200, 40]]], dtype=np.uint8)
    seen = bilinear_colour(rgb, np.array([[[0.25, 0], [-3, 0]]]))
    assert seen.tolist() == [[[25, 50, 10], [0, 0, 0]]]


def test_smaller_frames_see_the_same(root):
    (large,) = with_frames(root).scenes[0].read_frames(with_frames(root).scenes[0].frames[1:2])
    scene = with_frames(root, max_side=16).scenes[0]
    (small,) = scene.read_frames(scene.frames[1:2])
    assert isinstance(large, RawFrame) and isinstance(small, RawFrame) and small.rgb.shape == (12, 16, 3)
    assert ExampleRoom().distance(unprojected(small)).max() < 0.06
    np.testing.assert_allclose(small.rgb.mean((0, 1)), large.rgb.mean((0, 1)), atol=6)


def broken(root, scene: int = 0, **choices) -> list[Problem]:
    room = with_frames(root, **choices).scenes[scene]
    return [found for found in room.read_frames(room.frames) if isinstance(found, Problem)]


def test_frames_that_cannot_be_used_are_problems(root):
    raw = root / "frames" / "area_1" / "raw"
    (uuid,) = {path.name.split("_")[0] for path in raw.iterdir()}
    (raw / f"{uuid}_i1_0.jpg").unlink()
    (raw / f"{uuid}_pose_1_1.txt").write_text("1 2 3\n")
    np.savetxt(raw / f"{uuid}_pose_1_2.txt", 2 * np.eye(4))
    content = (raw / f"{uuid}_d1_3.png").read_bytes()
    (raw / f"{uuid}_d1_3.png").write_bytes(content[:100])
    Image.fromarray(np.full((24, 32), 40000, dtype=np.uint16)).save(raw / f"{uuid}_d1_4.png")  # 10 m: behind the walls
    Image.fromarray(np.full((12, 32), 4000, dtype=np.uint16)).save(raw / f"{uuid}_d1_5.png")
    before = sorted(path.name for path in raw.iterdir())
    found = broken(root)
    assert [(p.frame[-1], p.kind) for p in found] == [
        *(("0", "colour"), ("1", "pose"), ("2", "pose"), ("3", "depth"), ("4", "depth"), ("5", "colour"))
    ]
    for problem, part in zip(found, ("i1_0.jpg", "3 numbers, expected 16", "no rotation", "d1_3.png"), strict=False):
        assert part in problem.what
    assert "of the pixels are within 0.1 m of the room's points" in found[4].what
    assert sorted(path.name for path in raw.iterdir()) == before, "nothing is renamed"
    assert len(broken(root, min_seen=0.0)) == 5
    numbers = (raw / f"{uuid}_intrinsics_1.txt").read_text().split()
    (raw / f"{uuid}_intrinsics_1.txt").write_text(" ".join(["1024", "1280", *numbers[2:]]))
    assert all("a camera of 1024 by 1280 pixels" in p.what for p in broken(root)[6:])
    assert len(broken(root)) == 8


def test_the_two_sides_of_an_image_may_be_told_in_either_order(root):
    path = next((root / "frames" / "area_1" / "raw").glob("*_intrinsics_1.txt"))
    first, second, *others = path.read_text().split()
    path.write_text(" ".join([second, first, *others]))
    assert broken(root) == []


def test_areas_whose_cameras_have_no_room(root):
    rooms = root / "frames" / "area_1" / "3d" / "camera_to_room.json"
    (uuid,) = json.loads(rooms.read_text())
    rooms.write_text("{}")
    (problem,) = with_frames(root).problems
    assert problem.scene == "Area_1" and f"{rooms}: no room for camera {uuid}" in problem.what
    rooms.write_text(json.dumps({uuid: "attic_3_1"}))
    (problem,) = with_frames(root).problems
    assert problem.scene == "Area_1-attic_3" and "8 frames of a room without points" in problem.what
    for content in ("[1]", "{", '{"a": 1}', "[" * 100000):
        rooms.write_text(content)
        (problem,) = with_frames(root).problems
        assert str(rooms) in problem.what
    rooms.unlink()
    assert not with_frames(root).scenes[0].frames and with_frames(root).scenes[1].frames


def test_choices_that_cannot_be(root):
    for choices in ({"every": 0}, {"max_side": 5}, {"min_seen": 2.0}, {"val_area": 0}, {"val_area": 7}):
        with pytest.raises(ValueError, match=rf"S3DISConfig\.{next(iter(choices))} must be"):
            replace(S3DISConfig(), **choices)
    with pytest.raises(DataError, match="no such directory"):
        S3DISConfig().build()
    with pytest.raises(DataError, match=r"no area_1/raw, area_2/raw"):
        opened(root, frames_root=str(root))


def fuzz_frame(fuzz, root, pattern: str, number: int) -> None:
    dataset = with_frames(root)
    area = root / "frames" / "area_1"
    path = next(iter(sorted(area.glob(pattern))))
    surface = Surface(dataset.scenes[0].read_points(), "room")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            frame = read_frame(area, dataset.scenes[0].frames[0], np.eye(4), surface, 16, 0.25)
        except Unusable as error:
            raise DataError(str(error)) from error
        assert frame_problem(frame, dataset.known_ids) is None

    fuzz(read, [path.read_bytes()], number)


FRAME_FILES = ("raw/*_pose_1_0.txt", "raw/*_intrinsics_1.txt", "raw/*_d1_0.png", "raw/*_i1_0.jpg")


@pytest.mark.parametrize("pattern", FRAME_FILES)
def test_mutated_files_of_a_frame(fuzz, root, pattern):
    fuzz_frame(fuzz, root, pattern, 60)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", FRAME_FILES)
def test_many_mutated_files_of_a_frame(fuzz, root, pattern):
    fuzz_frame(fuzz, root, pattern, 2000)


def fuzz_room(fuzz, root, number: int) -> None:
    path = root / "Area_1" / "office_1" / "Annotations" / "table_7.txt"
    fuzz(lambda data: (path.write_bytes(data), opened(root).scenes[0].read_points()), [path.read_bytes()], number)
    path = root / "Area_1" / "Area_1_alignmentAngle.txt"
    fuzz(lambda data: (path.write_bytes(data), opened(root, align_angle=True)), [path.read_bytes()], number)
    path = root / "frames" / "area_1" / "3d" / "camera_to_room.json"
    fuzz(lambda data: (path.write_bytes(data), with_frames(root)), [path.read_bytes()], number)


def test_mutated_files_of_a_room(fuzz, root):
    fuzz_room(fuzz, root, 30)


@pytest.mark.slow
def test_many_mutated_files_of_a_room(fuzz, root):
    fuzz_room(fuzz, root, 2000)
