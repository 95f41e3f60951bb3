"""RGB-D trees as raw datasets: names, splits, worlds, labels, problems; and real recordings."""

import itertools
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.checks import frame_problem
from ponder3d.data.raw.dataset import Problem, RawFrame
from ponder3d.data.raw.example_room import SURFACES, ExampleRoom
from ponder3d.data.raw.rgbd import RGBDConfig, has_frames, splits_of, write_sequence
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from tests.data.fuzzing import NUMBER, QUICK, check_reader

LAYOUTS = ("scannet", "shelf", "seven-scenes", "hololens")
NAMES = sorted(set(SURFACES))
IDS = np.array([NAMES.index(name) + 1 for name in SURFACES])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("rgbd")
    RGBDConfig.write_example(root)
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_room(tree, layout):
    number = LAYOUTS.index(layout)
    room = ExampleRoom(half_width=2.0 + 0.2 * number)
    data = RGBDConfig(root=str(tree)).build()
    (scene,) = [scene for scene in data.scenes if scene.name == f"house_{layout}"]
    assert scene.read_points() is None and len(scene.frames) == 8
    for i, frame in enumerate(scene.read_frames(scene.frames)):
        assert isinstance(frame, RawFrame)
        depth, surface = room.trace(i)
        np.testing.assert_allclose(frame.depth, depth, atol=6e-4 if layout != "shelf" else 6e-5)
        np.testing.assert_allclose(frame.world_from_cam, room.pose(i), atol=1e-9)
        np.testing.assert_allclose(frame.intrinsics, room.intrinsics, atol=1e-9)
        assert np.array_equal(frame.rgb, room.colour(i))
        if layout in ("scannet", "shelf"):
            assert np.array_equal(frame.labels, IDS[surface])
        else:
            assert frame.labels is None
        assert (frame.instances is not None) == (layout == "scannet")
        if frame.instances is not None:
            assert np.array_equal(frame.instances, surface + 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_folder_of_frames_reads_the_same(tree, layout):
    """``RGBDFolder`` and the raw dataset share the finding of frames."""
    scene = RGBDFolderConfig(root=str(tree / "house" / layout), window=0, hold_out=0).build()[0]
    room = ExampleRoom(half_width=2.0 + 0.2 * LAYOUTS.index(layout))
    assert float(np.quantile(room.distance(scene.xyz.double().numpy()), 0.98)) < 5e-3
    assert (scene.labels is not None) == (layout in ("scannet", "shelf"))


def test_names_splits_and_units(tree, tmp_path):
    data = RGBDConfig(root=str(tree)).build()
    assert [(s.name, s.split) for s in data.scenes] == [
        ("house_hololens", "val"),
        ("house_scannet", "train"),
        ("house_seven-scenes", "train"),
        ("house_shelf", "train"),
    ]
    assert [s.split for s in RGBDConfig(root=str(tree), val_every=2).build().scenes] == [
        *("val", "train", "val", "train")
    ]
    assert {s.split for s in RGBDConfig(root=str(tree), val_every=0).build().scenes} == {"train"}
    assert data.depth_units == 8191, "tenths of millimetres up to 8 m do not fit into 16 bits"
    alone = RGBDConfig(root=str(tree / "house" / "shelf")).build()
    assert alone.depth_units == 10_000 and [(s.name, s.split) for s in alone.scenes] == [("shelf", "train")]
    assert RGBDConfig(root=str(tree / "house" / "hololens"), depth_scale=5000.0).build().depth_units == 5000


def test_a_split_stays_when_others_come_and_go():
    names = [f"walk_{number}" for number in range(400)]
    splits = splits_of(names, 8)
    assert splits == {name: "train" if zlib.crc32(name.encode()) % 8 else "val" for name in names}
    assert 30 < list(splits.values()).count("val") < 70
    assert splits_of(["new", *names[100:]], 8).items() >= {name: splits[name] for name in names[100:]}.items()
    # CRC-32 of a, b, c: e8b7be43, 71beeff9, 06b9df6f.
    assert splits_of("abc", 8) == splits_of("abc", 1) == {"a": "train", "b": "train", "c": "val"}
    assert splits_of("a", 1) == splits_of("a", 8) == {"a": "train"} and splits_of("", 8) == {}
    assert set(splits_of(names, 0).values()) == {"train"}


def test_folders_of_one_name_are_told_apart(tmp_path):
    for name in ("a/b", "a b", "a_b", "K\u00fcche"):
        write_sequence(tmp_path / name, ExampleRoom(num_frames=2), "hololens")
    found = [(s.name, s.source) for s in RGBDConfig(root=str(tmp_path)).build().scenes]
    assert [name for name, _ in found] == ["K_che", "a_b", "a_b-2", "a_b-3"]
    assert found[1][1].endswith("a b") or found[1][1].endswith("a/b")


@pytest.mark.parametrize(("up", "given"), [("y", ()), ("y", (0.0, 2.0, 0.0)), ("tilted", "file"), ("-y", ())])
def test_z_is_up(tmp_path, up, given):
    write_sequence(tmp_path / "s", ExampleRoom(), "seven-scenes")
    a = 0.3
    world = {
        "y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
        "-y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
        "tilted": np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]),
    }[up]
    for path in (tmp_path / "s").glob("*.pose.txt"):
        pose = np.loadtxt(path)
        pose[:3] = world @ pose[:3]
        np.savetxt(path, pose)
    if given == "file":
        np.savetxt(tmp_path / "gravity-direction.txt", world @ [0, 0, -1])
        given = ()
    (scene,) = RGBDConfig(root=str(tmp_path), up=given).build().scenes
    for i, frame in enumerate(scene.read_frames(scene.frames)):
        np.testing.assert_allclose(frame.world_from_cam[2], ExampleRoom().pose(i)[2], atol=1e-6)


def test_images_of_one_scene_have_one_size(tree, tmp_path):
    write_sequence(tmp_path / "s", ExampleRoom(), "scannet")
    small = ExampleRoom(size=(12, 16))
    Image.fromarray(np.round(small.trace(3)[0] * 1000).astype(np.uint16)).save(tmp_path / "s" / "depth" / "30.png")
    (scene,) = RGBDConfig(root=str(tmp_path), max_side=16).build().scenes
    frames = list(scene.read_frames(scene.frames))
    assert {frame.depth.shape for frame in frames} == {(12, 16)} == {frame.rgb.shape[:2] for frame in frames}
    np.testing.assert_allclose(frames[0].intrinsics, small.intrinsics)
    np.testing.assert_allclose(frames[3].depth, small.trace(3)[0], atol=6e-4)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


FAULTS = {
    "pose": (lambda s: (s / "pose/30.txt").write_text("inf " * 16), "color/30.png: pose is not finite"),
    "no pose": (lambda s: (s / "pose/30.txt").unlink(), "color/30.png: no pose file"),
    "no depth": (lambda s: (s / "depth/30.png").unlink(), "color/30.png: no depth image"),
    "depth": (lambda s: cut(s / "depth/30.png"), "depth/30.png: cannot be read as an image"),
    "no depth in depth": (
        lambda s: Image.fromarray(np.zeros((24, 32), np.uint16)).save(s / "depth/30.png"),
        "depth/30.png: only 0.00% of the pixels",
    ),
    "colour": (lambda s: (s / "color/30.png").write_text("hello"), "color/30.png: cannot be read as an image"),
    "label": (lambda s: cut(s / "label/30.png"), "label/30.png: cannot be read as an image"),
    "label of instances": (lambda s: cut(s / "instance/30.png"), "instance/30.png: cannot be read as an image"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_frame_that_cannot_be_used_is_a_problem(tmp_path, case):
    write_sequence(tmp_path / "s", ExampleRoom(), "scannet")
    damage, what = FAULTS[case]
    damage(tmp_path / "s")
    data = RGBDConfig(root=str(tmp_path)).build()
    (scene,) = data.scenes
    frames = list(scene.read_frames(scene.frames))
    problems = [*data.problems, *(frame for frame in frames if isinstance(frame, Problem))]
    (problem,) = problems
    kind = next(kind for kind in ("pose", "depth", "colour", "label") if kind in case)
    assert (problem.scene, problem.frame, problem.kind) == ("s", "30", kind) and what in problem.what
    assert len([frame for frame in frames if isinstance(frame, RawFrame)]) == 7


def test_a_sequence_that_cannot_be_used_is_a_problem(tmp_path):
    for name in ("a", "b", "c"):
        write_sequence(tmp_path / name, ExampleRoom(), "hololens")
    (tmp_path / "a" / "K.txt").write_text("1 2 3")
    (tmp_path / "c" / "poses.txt").write_text("nan " * 16 * 8)
    data = RGBDConfig(root=str(tmp_path)).build()
    assert [scene.name for scene in data.scenes] == ["b"]
    whole = [problem for problem in data.problems if not problem.frame]
    assert [(p.scene, p.kind) for p in whole] == [("a", "file"), ("c", "file")]
    assert "K.txt: 3 numbers" in whole[0].what and "c: no usable frame" in whole[1].what
    assert sum(p.scene == "c" for p in data.problems) == 9
    for name in ("b", "c"):
        (tmp_path / name / "poses.txt").write_text("1 2")
    with pytest.raises(DataError, match=r"no posed RGB-D frames found \(3 problems, the first: a: file: .*K.txt"):
        RGBDConfig(root=str(tmp_path)).build()


def test_classes_of_all_sequences_together(tmp_path):
    for name in ("a", "b"):
        write_sequence(tmp_path / name, ExampleRoom(num_frames=2), "scannet")
    write = lambda name, names: (tmp_path / name / "label_map.json").write_text(  # noqa: E731
        json.dumps({"label_id_to_category": names})
    )
    write("a", {"1": "ceiling", "4": "wall"})
    write("b", {"1": "ceiling", "9": "wall", "300": "sky"})
    (table,) = RGBDConfig(root=str(tmp_path)).build().tables
    assert table.labels.names == ("ceiling", "wall", "sky") and table.rows == ((1, 0), (4, 1), (9, 1), (300, 2))
    write("b", {"1": "floor"})
    with pytest.raises(DataError, match="b: its label map calls 1 'floor', that of another sequence 'ceiling'"):
        RGBDConfig(root=str(tmp_path)).build()


def test_pixels_that_labels_do_not_reach(tmp_path):
    """A colour camera that sees less than the depth camera: beyond it there is no label, which is no named number."""
    room = ExampleRoom()
    write_sequence(tmp_path / "s", room, "scannet")
    narrow = room.intrinsics.copy()
    narrow[:2, :2] *= 2
    np.savetxt(tmp_path / "s/intrinsic/intrinsic_color.txt", narrow)
    np.savetxt(tmp_path / "s/intrinsic/intrinsic_depth.txt", room.intrinsics)
    for path in (tmp_path / "s" / "label").iterdir():  # labels of the depth image's size would belong to it
        Image.open(path).resize((48, 36), Image.Resampling.NEAREST).save(path)
    data = RGBDConfig(root=str(tmp_path)).build()
    frame = next(data.scenes[0].read_frames(data.scenes[0].frames))
    assert frame.labels[0, 0] == 65535 and (frame.instances[0, 0], frame.labels[12, 16] in IDS) != (-1, False)
    assert (frame.labels == 65535).mean() > 0.5 and 65535 not in dict(data.tables[0].rows)


@pytest.mark.parametrize(
    "options",
    [{"every": 0}, {"val_every": -1}, {"depth_scale": 0.0}, {"max_depth": np.inf}, {"max_side": 5}]
    + [{"intrinsics": (1.0,)}, {"up": (0.0, 0.0, 0.0)}],
    ids=str,
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=f"RGBDConfig.{next(iter(options))} must be"):
        RGBDConfig(root="x", **options)


def test_a_root_is_needed():
    with pytest.raises(DataError, match="RGBDConfig.root is empty"):
        RGBDConfig().build()


def test_what_is_recognised(tree, tmp_path):
    assert RGBDConfig.recognises(tree / "house" / "shelf") and RGBDConfig.recognises(tree)
    assert not has_frames(tmp_path / "absent")
    (tmp_path / "a/b/c/d/e").mkdir(parents=True)
    write_sequence(tmp_path / "a/b/c/d/e", ExampleRoom(num_frames=1), "hololens")
    assert not has_frames(tmp_path) and has_frames(tmp_path / "a")


def test_the_shelf_says_what_is_missing(tmp_path):
    write_sequence(tmp_path, ExampleRoom(num_frames=3), "shelf")
    info = tmp_path / "cam.info.txt"
    text = info.read_text()
    info.write_text(text.replace("frame-000010", "frame-000011"))
    data = RGBDConfig(root=str(tmp_path)).build()
    assert [(p.frame, p.kind) for p in data.problems] == [("frame-000010", "pose")]
    for broken, message in ((text.replace("# Color", "# Grey"), "no '# Color"), (text + "x", "matrices below titles")):
        info.write_text(broken)
        with pytest.raises(DataError, match=f"cam.info.txt: .*{message}"):
            RGBDConfig(root=str(tmp_path)).build()
    info.write_text(text)
    (tmp_path / "segm_label_map.json").write_text("[1]")
    with pytest.raises(DataError, match=r"segm_label_map.json: expected \{id: name\}"):
        RGBDConfig(root=str(tmp_path)).build()


FILES = {
    "scannet": ["pose/0.txt", "depth/0.png", "color/0.png", "label/0.png", "instance/0.png", "label_map.json"]
    + ["intrinsic/intrinsic_color.txt"],
    "shelf": ["cam.info.txt", "frame-000000.depth.png", "segm/frame-000000.segm.png", "segm_label_map.json"],
    "hololens": ["poses.txt", "K.txt"],
}


@pytest.mark.parametrize("number", [QUICK, pytest.param(NUMBER, marks=pytest.mark.slow)])
@pytest.mark.parametrize("layout", FILES)
def test_mutated_files(tmp_path, layout, number):
    write_sequence(tmp_path / "s", ExampleRoom(num_frames=1, size=(12, 16)), layout)
    share = -(-number // len(FILES[layout]))
    for name in FILES[layout]:
        target = tmp_path / "s" / name
        good = target.read_bytes()

        def read(data, target=target):
            target.write_bytes(data)
            dataset = RGBDConfig(root=str(tmp_path)).build()
            (frame,) = dataset.scenes[0].read_frames(dataset.scenes[0].frames)
            assert isinstance(frame, (RawFrame, Problem))

        check_reader(read, [good], share)
        target.write_bytes(good)


def agreement(frames, within: float) -> tuple[float, int]:
    """Of the pixels of a frame whose depth agrees with that of another frame where they are seen there (up to
    ``within`` metres): the share that has the same label there, and their number.
    """
    same = total = 0
    for one, other in itertools.permutations(frames, 2):
        v, u = np.nonzero(one.depth)
        rays = np.stack([u, v, np.ones_like(u)], axis=1) @ np.linalg.inv(one.intrinsics).T
        world = rays * one.depth[v, u, None] @ one.world_from_cam[:3, :3].T + one.world_from_cam[:3, 3]
        camera = (world - other.world_from_cam[:3, 3]) @ other.world_from_cam[:3, :3]
        ahead = camera[:, 2] > 0.05
        v, u, camera = v[ahead], u[ahead], camera[ahead]
        pixel = np.round((camera @ other.intrinsics.T)[:, :2] / camera[:, 2:]).astype(int)
        height, width = other.depth.shape
        inside = (pixel >= 0).all(1) & (pixel < [width, height]).all(1)
        x, y = pixel[inside].T
        seen = (other.depth[y, x] > 0) & (np.abs(other.depth[y, x] - camera[inside, 2]) < within)
        equal = one.labels[v, u][inside][seen] == other.labels[y, x][seen]
        same, total = same + int(equal.sum()), total + len(equal)
    return same / total, total


@pytest.mark.parametrize(
    ("name", "step", "close", "loose"), [("apc_shelf", 2, 0.979, 0.963), ("aria", 1, 0.998, 0.981)]
)
def test_real_labels_agree_across_views(real_data, name, step, close, loose):
    """Depth within 2 cm; and within 20 cm, where some of what is compared lies on other things."""
    data = RGBDConfig(root=str(real_data(name)), max_side=320, every=step).build()
    (scene,) = data.scenes
    frames = list(scene.read_frames(scene.frames))
    assert not data.problems and all(isinstance(frame, RawFrame) for frame in frames)
    for within, expected in ((0.02, close), (0.2, loose)):
        share, number = agreement(frames, within)
        assert number > 100_000 and share == pytest.approx(expected, abs=0.008)


@pytest.mark.parametrize(
    ("name", "scenes", "num_frames", "units"),
    [("7scenes", ["redkitchen_seq-01"], 100, 1000), ("apc_shelf", ["scene-0000"], 15, 10_000)]
    + [("hololens", ["hololens-dataset_000_clipA", "hololens-dataset_000_clipB"], 30, 1000)]
    + [("aria", ["pinhole"], 6, 1000)],
)
def test_real_recordings(real_data, name, scenes, num_frames, units):
    config = RGBDConfig(root=str(real_data(name)), max_side=160)
    assert RGBDConfig.recognises(real_data(name))
    data = config.build()
    assert [scene.name for scene in data.scenes] == scenes and not data.problems
    assert data.depth_units == units and {len(scene.frames) for scene in data.scenes} == {num_frames}
    for scene in replace(config, every=7).build().scenes:
        frames = list(scene.read_frames(scene.frames[:3]))
        assert all(isinstance(frame, RawFrame) for frame in frames)
        assert all(frame_problem(frame, data.known_ids) is None for frame in frames)
        upwards = [-frame.world_from_cam[2, 1] for frame in frames]
        assert name == "aria" or min(upwards) > 0.5, "the upper edge of an image is up; Aria's lie on their side"
    if name == "aria":
        assert frames[0].instances is not None and frames[0].instances.max() > 255
        assert len(data.tables[0].labels) > 100


def test_depth_of_a_shelf_is_rotated_by_three_bits(tmp_path):
    """The format's own words: metres = ((raw << 13) | (raw >> 3)) as 16 bit, by 10,000."""
    write_sequence(tmp_path, ExampleRoom(num_frames=1), "shelf")
    raw = np.array(Image.open(tmp_path / "frame-000000.depth.png")).astype(int)
    metres = (((raw << 13) | (raw >> 3)) & 0xFFFF) / 10_000
    np.testing.assert_allclose(metres, ExampleRoom(num_frames=1).trace(0)[0], atol=6e-5)
