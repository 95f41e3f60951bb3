"""ScanNet v2: the example, what it must give by hand, and everything that may be missing or damaged."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.checks import frame_problem, points_problem
from ponder3d.data.raw.dataset import Problem, RawFrame
from ponder3d.data.raw.example_room import COLOURS, SURFACES, ExampleRoom
from ponder3d.data.raw.scannet import ScanNet, ScanNetConfig
from ponder3d.data.raw.scannet_example import (
    COLOUR_SIZE,
    SCENES,
    TURN,
    UNKNOWN_SURFACE,
    colour_intrinsics,
    gridded_mesh,
    surface_ids,
)
from ponder3d.data.raw.sens import write_sens
from ponder3d.data.rgbd_layouts import read_matrix

FIRST, EXPORTED, VAL, TEST = SCENES


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scannet")
    ScanNetConfig.write_example(root)
    return root


@pytest.fixture
def root(written, tmp_path) -> Path:
    """A copy to be spoiled."""
    return Path(shutil.copytree(written, tmp_path / "scannet"))


def opened(root: Path, **options) -> ScanNet:
    return ScanNetConfig(**{"root": str(root), "every": 1, **options}).build()


def frame_of(dataset: ScanNet, scene: int, name: str) -> RawFrame:
    (frame,) = dataset.scenes[scene].read_frames([name])
    assert isinstance(frame, RawFrame), frame
    return frame


def test_scenes_and_splits(written):
    dataset = opened(written)
    assert [(s.name, s.split) for s in dataset.scenes] == [
        (FIRST, "train"),
        (EXPORTED, "train"),
        (VAL, "val"),
        (TEST, "test"),
    ]
    assert all(scene.frames == tuple("01234567") for scene in dataset.scenes) and not dataset.problems
    assert [scene.frames for scene in opened(written, every=20).scenes] == [("0",)] * 4
    assert opened(written / "scans").scenes[0].name == FIRST, "the directory of scans itself will do"


def test_points_are_the_mesh(written):
    vertices, _, surfaces = gridded_mesh(ExampleRoom(SCENES[FIRST]))
    points = opened(written).scenes[0].read_points()
    np.testing.assert_allclose(points.xyz, vertices, atol=1e-6)
    assert points.rgb is not None and np.array_equal(points.rgb, COLOURS[surfaces])
    inward = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]])
    assert points.normal is not None
    np.testing.assert_allclose(points.normal[surfaces < 6], inward[surfaces[surfaces < 6]], atol=1e-6)
    top = (surfaces == 6) & (np.abs(vertices[:, 2] - 0.7) < 1e-9) & (np.abs(vertices[:, 0] - 1.2) < 0.3)
    assert (points.normal[top] == [0, 0, 1]).all(1).sum() > 20


def test_labels_of_points(written):
    surfaces = gridded_mesh(ExampleRoom(SCENES[FIRST]))[2]
    dataset = opened(written)
    points = dataset.scenes[0].read_points()
    assert points.labels is not None and np.array_equal(points.labels, surface_ids()[surfaces])
    assert points.instances is not None
    assert np.array_equal(points.instances, np.where(surfaces == UNKNOWN_SURFACE, -1, surfaces))
    twenty = dataset.tables[0]
    row_of = dict(twenty.rows)
    named = [twenty.labels.names[row] if (row := row_of.get(i, -1)) >= 0 else "" for i in surface_ids().tolist()]
    assert named == ["wall", "wall", "floor", "wall", "", "", "table"], "ceiling is none of the 20"
    assert dataset.tables[1].labels.names[dict(dataset.tables[1].rows)[surface_ids()[5]]] == SURFACES[5]


def test_scenes_of_the_test_have_no_labels(written):
    scene = opened(written).scenes[3]
    points, frame = scene.read_points(), frame_of(opened(written), 3, "2")
    assert points.labels is None and points.instances is None and frame.labels is None and frame.instances is None


@pytest.mark.parametrize("scene", [0, 1], ids=["sens", "exported"])
def test_frames_are_what_the_depth_camera_sees(written, scene):
    """Colour and labels come from a camera of another focal length and size; they must lie on the depth."""
    room = ExampleRoom(list(SCENES.values())[scene])
    frame = frame_of(opened(written), scene, "3")
    depth, surface = room.trace(3)
    np.testing.assert_allclose(frame.intrinsics, room.intrinsics, atol=1e-6)
    np.testing.assert_allclose(frame.world_from_cam, room.pose(3), atol=1e-6)
    assert frame.depth is not None and frame.labels is not None and frame.instances is not None
    np.testing.assert_allclose(frame.depth, depth, atol=6e-4)
    assert (frame.labels == surface_ids()[surface]).mean() > 0.95
    instances = np.where(surface == UNKNOWN_SURFACE, -1, surface)
    assert (frame.instances == instances).mean() > 0.95
    assert (np.abs(frame.rgb.astype(int) - COLOURS[surface]).max(-1) < 20).mean() > 0.85


def test_images_are_made_smaller(written):
    frame = frame_of(opened(written, max_side=16), 0, "1")
    assert frame.rgb.shape == (12, 16, 3) and frame.depth is not None and frame.depth.shape == (12, 16)
    assert frame.intrinsics[0, 0] == pytest.approx(ExampleRoom().intrinsics[0, 0] / 2)


def test_axis_alignment(written):
    plain, turned = opened(written), opened(written, align_axis=True)
    turn = np.array([[np.cos(TURN), -np.sin(TURN), 0], [np.sin(TURN), np.cos(TURN), 0], [0, 0, 1]])
    before, after = plain.scenes[0].read_points(), turned.scenes[0].read_points()
    np.testing.assert_allclose(after.xyz, before.xyz @ turn.T, atol=1e-5)
    assert before.normal is not None and after.normal is not None
    np.testing.assert_allclose(after.normal, before.normal @ turn.T, atol=1e-5)
    pose = frame_of(turned, 0, "5").world_from_cam
    np.testing.assert_allclose(pose[:3, :3], turn @ ExampleRoom().pose(5)[:3, :3], atol=1e-6)
    assert np.array_equal(turned.scenes[3].read_points().xyz, plain.scenes[3].read_points().xyz)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file, and align_axis needs its axisAlignment"),
        ("sceneType = Bedroom", "expected a line with 16 numbers"),
        ("axisAlignment = 1 2 3", "expected a line with 16 numbers"),
        ("axisAlignment = " + "2 " * 16, "pose is no rotation"),
        ("axisAlignment = " + "nan " * 16, "pose is not finite"),
    ],
)
def test_no_axis_alignment(root, content, message):
    path = root / "scans" / FIRST / f"{FIRST}.txt"
    path.unlink()
    if content is not None:
        path.write_text(content)
    scene = opened(root, align_axis=True).scenes[0]
    for read in (scene.read_points, lambda: next(scene.read_frames(["0"]))):
        with pytest.raises(DataError, match=f"{FIRST}.txt.*{message}"):
            read()
    assert opened(root).scenes[0].read_points() is not None


def test_scenes_without_their_files_are_listed(root):
    scans = root / "scans"
    (scans / FIRST / f"{FIRST}_vh_clean_2.ply").unlink()
    (scans / EXPORTED / f"{EXPORTED}.aggregation.json").unlink()
    (scans / VAL / f"{VAL}.sens").unlink()
    dataset = opened(root)
    assert [s.name for s in dataset.scenes] == [TEST]
    assert [(p.scene, p.frame, p.kind) for p in dataset.problems] == [(s, "", "file") for s in (FIRST, EXPORTED, VAL)]
    for problem, part in zip(dataset.problems, ("vh_clean_2.ply", "aggregation.json", ".sens"), strict=True):
        assert part in problem.what and "no such file" in problem.what
    assert [s.name for s in opened(root, annotations=False).scenes] == [EXPORTED, TEST]
    alone, other = opened(root, need_frames=False).scenes
    assert (alone.name, alone.frames, other.name, len(other.frames)) == (VAL, (), TEST, 8)
    assert list(alone.read_frames([])) == []
    (root / "scans_test" / TEST / f"{TEST}.sens").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of 4 scenes can be used: .*no such file"):
        opened(root)


@pytest.mark.parametrize("part", ["depth", "pose"])
def test_exports_without_all_folders_are_no_frames(root, part):
    shutil.rmtree(root / "scans" / EXPORTED / part)
    assert [s.name for s in opened(root).scenes] == [FIRST, VAL, TEST]
    dataset = opened(root, need_frames=False)
    assert {s.name: len(s.frames) for s in dataset.scenes} == {FIRST: 8, EXPORTED: 0, VAL: 8, TEST: 8}
    assert not dataset.problems and dataset.scenes[1].read_points() is not None


def test_labels_go_by_names_and_label_images_by_ids(root):
    """Names of one id that differ in their NYU40 number, as cabinet door and cabinet doors do."""
    plain = opened(root).scenes[0].read_points().labels
    table = root / "scannetv2-labels.combined.tsv"
    wall = SURFACES.index("wall")
    (row,) = [line.split("\t") for line in table.read_text().splitlines() if line.split("\t")[1] == "wall"]
    table.write_text(table.read_text() + "\t".join([row[0], "walls", *row[2:4], "38"]) + "\n")
    path = root / "scans" / FIRST / f"{FIRST}.aggregation.json"
    groups = json.loads(path.read_text())
    next(group for group in groups["segGroups"] if group["objectId"] == wall)["label"] = "walls"
    path.write_text(json.dumps(groups))
    dataset = opened(root)
    points = dataset.scenes[0].read_points()
    assert points.labels is not None and plain is not None and points_problem(points, dataset.known_ids) is None
    renamed = points.instances == wall
    assert renamed.any() and set(points.labels[renamed].tolist()) == {10000}
    assert np.array_equal(points.labels[~renamed], plain[~renamed])
    twenty, two_hundred, nyu40 = (dict(t.rows) for t in dataset.tables)
    assert dataset.tables[2].labels.names[nyu40[10000]] == "otherstructure" and nyu40[1] != nyu40[10000]
    assert 10000 not in twenty and 1 in twenty and two_hundred[10000] == two_hundred[1]
    frame = frame_of(dataset, 0, "0")
    assert frame_problem(frame, dataset.known_ids) is None and frame.labels is not None
    assert np.array_equal(frame.labels, frame_of(opened(root), 0, "0").labels) and 10000 not in frame.labels


def test_the_other_name_of_the_aggregation(root):
    folder = root / "scans" / FIRST
    before = opened(root).scenes[0].read_points()
    (folder / f"{FIRST}.aggregation.json").rename(folder / f"{FIRST}_vh_clean.aggregation.json")
    after = opened(root).scenes[0].read_points()
    assert before.labels is not None and after.labels is not None and np.array_equal(before.labels, after.labels)


def test_a_category_outside_the_table(root):
    path = root / "scans" / FIRST / f"{FIRST}.aggregation.json"
    path.write_text(path.read_text().replace('"table"', '"tabel"'))
    points = opened(root).scenes[0].read_points()
    (problem,) = points.problems
    assert "'tabel'" in problem.what and str(path) in problem.what and problem.kind == "label"
    surfaces = gridded_mesh(ExampleRoom(SCENES[FIRST]))[2]
    assert points.labels is not None and (points.labels[surfaces == 6] == 0).all()


def test_the_table_may_lie_in_tasks(root):
    table = root / "scannetv2-labels.combined.tsv"
    (root / "tasks").mkdir()
    table.rename(root / "tasks" / table.name)
    assert opened(root).tables[0].name == "scannet20"
    (root / "tasks" / table.name).unlink()
    with pytest.raises(DataError, match=f"{table}: no such file, and none in tasks"):
        opened(root)
    assert opened(root, annotations=False).tables == ()
    shutil.rmtree(root / "scans")
    assert [s.name for s in opened(root).scenes] == [TEST], "scenes of the test need no table"


def test_lists_of_ones_own(root):
    (root / "scannetv2_train.txt").write_text(f"{VAL}\n")
    (root / "scannetv2_val.txt").write_text(f"{FIRST}\n{EXPORTED}\n")
    dataset = opened(root, splits=str(root))
    assert {s.name: s.split for s in dataset.scenes} == {FIRST: "val", EXPORTED: "val", VAL: "train"}
    (problem,) = dataset.problems
    assert problem.scene == TEST and "in none of the lists" in problem.what
    (root / "scannetv2_test.txt").write_text(f"{TEST}\n{VAL}\n")
    with pytest.raises(DataError, match=f"scannetv2_test.txt: scene {VAL} is in the list of train too"):
        opened(root, splits=str(root))


def rewritten(root: Path, poses: dict[int, np.ndarray] | None = None) -> Path:
    """The first scene's frames once more, some with other poses."""
    room = ExampleRoom(SCENES[FIRST])
    path = root / "scans" / FIRST / f"{FIRST}.sens"
    frames = (
        (
            (poses or {}).get(n, room.pose(n)),
            COLOURS[room.trace(n, COLOUR_SIZE, colour_intrinsics(room))[1]],
            np.round(room.trace(n)[0] * 1000).astype(np.uint16),
        )
        for n in range(room.num_frames)
    )
    write_sens(path, frames, colour_intrinsics(room), room.intrinsics)
    return path


def test_poses_that_are_none(root):
    rewritten(root, {1: np.full((4, 4), -np.inf), 2: np.full((4, 4), np.nan), 5: np.diag([2.0, 2, 2, 1])})
    scene = opened(root).scenes[0]
    read = list(scene.read_frames(scene.frames))
    assert [f.name for f in read if isinstance(f, RawFrame)] == ["0", "3", "4", "6", "7"]
    wrong = [p for p in read if isinstance(p, Problem)]
    assert [(p.scene, p.frame, p.kind) for p in wrong] == [(FIRST, n, "pose") for n in "125"]
    assert "frame 1: pose is not finite" in wrong[0].what and "no rotation" in wrong[2].what


def test_a_truncated_recording(root):
    path = rewritten(root)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    scene = opened(root).scenes[0]
    read = list(scene.read_frames(scene.frames))
    whole = [f.name for f in read if isinstance(f, RawFrame)]
    wrong = [p for p in read if isinstance(p, Problem)]
    assert whole == list("01234567")[: len(whole)] and 2 <= len(whole) <= 5
    assert {p.kind for p in wrong} == {"file"} and all(str(path) in p.what for p in wrong)


def test_damaged_images(root):
    data = bytearray(rewritten(root).read_bytes())
    jpeg = data.index(b"\xff\xd8\xff")
    data[jpeg : jpeg + 3] = b"xxx"
    deflated = data.index(b"\x78\x9c", jpeg + 300)
    data[deflated : deflated + 40] = bytes(40)
    (root / "scans" / FIRST / f"{FIRST}.sens").write_bytes(data)
    scene = opened(root).scenes[0]
    first, *others = scene.read_frames(scene.frames)
    assert isinstance(first, Problem) and (first.frame, first.kind) == ("0", "colour")
    assert all(isinstance(f, RawFrame) for f in others)


def test_missing_and_damaged_exports(root):
    folder = root / "scans" / EXPORTED
    (folder / "pose" / "0.txt").unlink()
    (folder / "depth" / "1.png").unlink()
    (folder / "color" / "2.jpg").write_bytes(b"nothing")
    (folder / "pose" / "3.txt").write_text("1 2 3")
    (folder / "pose" / "4.txt").write_text("-inf " * 16)
    scene = opened(root).scenes[1]
    read = list(scene.read_frames(scene.frames))
    kinds = {p.frame: p.kind for p in read if isinstance(p, Problem)}
    assert kinds == {"0": "file", "1": "depth", "2": "colour", "3": "file", "4": "pose"}
    assert [f.name for f in read if isinstance(f, RawFrame)] == ["5", "6", "7"]


def test_label_images_that_do_not_fit(root):
    folder = root / "scans" / EXPORTED
    for kind in ("label-filt", "instance-filt"):
        (folder / f"{EXPORTED}_2d-{kind}.zip").unlink()
    assert frame_of(opened(root), 1, "0").labels is None
    (folder / "label-filt").mkdir()
    Image.fromarray(np.ones((7, 9), np.uint16)).save(folder / "label-filt" / "0.png")
    Image.fromarray(np.full(COLOUR_SIZE, 3, np.uint16)).save(folder / "label-filt" / "1.png")
    small, fits, absent = opened(root).scenes[1].read_frames(["0", "1", "2"])
    assert isinstance(small, Problem) and small.kind == "label" and "labels of (7, 9)" in small.what
    assert isinstance(fits, RawFrame) and fits.labels is not None and set(fits.labels.flatten().tolist()) == {3}
    assert isinstance(absent, Problem) and absent.kind == "label"
    (folder / f"{EXPORTED}_2d-label-filt.zip").write_bytes(b"nothing")
    with pytest.raises(DataError, match="2d-label-filt.zip"):
        next(opened(root).scenes[1].read_frames(["0"]))


def test_a_mesh_without_colour(root):
    path = root / "scans" / FIRST / f"{FIRST}_vh_clean_2.ply"
    path.write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n")
    with pytest.raises(DataError, match="vh_clean_2.ply: vertices have no property y"):
        opened(root).scenes[0].read_points()


def test_choices_that_cannot_be():
    for options in ({"every": 0}, {"max_side": 7}):
        with pytest.raises(ValueError, match=f"ScanNetConfig.{next(iter(options))} must be"):
            replace(ScanNetConfig(), **options)
    with pytest.raises(DataError, match="root is empty"):
        ScanNetConfig().build()


def test_a_real_recording_in_both_forms(real_data, tmp_path):
    """Exported frames, packed into a .sens file, come out the same but for what JPEG loses. One camera of the
    recording: a .sens file has one."""
    source = real_data("aria") / "pinhole"
    stems = ["000000_slamL", "000001_slamL"]
    exported, packed = tmp_path / "scans" / "scene0000_00", tmp_path / "scans" / "scene0001_00"
    packed.mkdir(parents=True)
    for part, ending in (("color", "png"), ("depth", "png"), ("pose", "txt"), ("intrinsic", "txt")):
        (exported / part).mkdir(parents=True)
        for stem in stems:
            shutil.copy(source / part / f"{stem}.{ending}", exported / part)
    for folder in (exported, packed):
        (folder / f"{folder.name}_vh_clean_2.ply").write_text("ply\n")
    config = {"annotations": False, "max_side": 0}
    frames = []
    for stem in stems:
        with Image.open(source / "color" / f"{stem}.png") as image:
            rgb = np.array(image.convert("RGB"))
        with Image.open(source / "depth" / f"{stem}.png") as image:
            depth = np.array(image).astype(np.uint16)
        frames.append((read_matrix(source / "pose" / f"{stem}.txt"), rgb, depth))
    matrix = read_matrix(source / "intrinsic" / f"{stems[0]}.txt", (3, 3))
    write_sens(packed / "scene0001_00.sens", frames, matrix, matrix)
    first, second = opened(tmp_path, **config).scenes
    assert first.frames == tuple(stems) and second.frames == ("0", "1")
    for a, b in zip(first.read_frames(first.frames), second.read_frames(second.frames), strict=True):
        assert isinstance(a, RawFrame) and isinstance(b, RawFrame) and a.depth is not None and b.depth is not None
        np.testing.assert_array_equal(a.depth, b.depth)
        np.testing.assert_allclose(a.world_from_cam, b.world_from_cam, atol=1e-5)
        np.testing.assert_allclose(a.intrinsics, b.intrinsics, rtol=1e-6)
        assert np.abs(a.rgb.astype(int) - b.rgb).mean() < 2 and (a.depth > 0).mean() > 0.5


@pytest.fixture
def seeds(root):
    """Every kind of file that a scene is read from, and how to read the scene with another in its place."""
    folder = root / "scans" / FIRST

    def through(path: Path):
        def run(data: bytes):
            path.write_bytes(data)
            scene = next(s for s in opened(root, align_axis=True).scenes if s.name == FIRST) if listed() else None
            return scene and (scene.read_points(), list(scene.read_frames(scene.frames[:3])))

        def listed() -> bool:
            return FIRST in {s.name for s in opened(root).scenes}

        return run, [path.read_bytes()]

    endings = (".sens", ".txt", ".aggregation.json", "_2d-label-filt.zip")
    return [through(folder / f"{FIRST}{ending}") for ending in endings]


LONG = """
import re, sys, time
from pathlib import Path
from ponder3d.data.raw.dataset import RawFrame
from ponder3d.data.raw.scannet import ScanNetConfig

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

before, start = peak(), time.perf_counter()
(scene,) = ScanNetConfig(root=sys.argv[1], every=20, annotations=False).build().scenes
listed = time.perf_counter() - start
read = sum(isinstance(frame, RawFrame) for frame in scene.read_frames(scene.frames))
print(len(scene.frames), read, peak() - before, listed, time.perf_counter() - start - listed)
"""


@pytest.mark.slow
def test_five_thousand_frames_in_little_memory(tmp_path):
    """1296x968 colour and 640x480 depth, 5,000 times. Every 20th is read; the memory is that of one."""
    folder = tmp_path / "scans" / "scene0000_00"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    rgb = np.array(Image.fromarray(draw.integers(0, 256, (13, 17, 3), dtype=np.uint8)).resize((1296, 968)))
    depth = np.round(draw.normal(2000, 0.7, (480, 640))).astype(np.uint16)
    one = folder / "one.sens"
    write_sens(one, [(np.eye(4), rgb, depth)], np.diag([1170.0, 1170, 1]), np.diag([570.0, 570, 1]))
    data = one.read_bytes()
    start = 12 + 15 + 64 * 4 + 2 * 4 + 4 * 4 + 4 + 8  # where frames start
    with (folder / "scene0000_00.sens").open("wb") as file:
        file.write(data[: start - 8] + (5000).to_bytes(8, "little"))
        for _ in range(5000):
            file.write(data[start:])
    (folder / "scene0000_00_vh_clean_2.ply").write_text("ply\n")
    command = [sys.executable, "-c", LONG, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    print(file.name, (folder / "scene0000_00.sens").stat().st_size >> 20, "MiB:", done.stdout)
    listed, read, megabytes, seconds, _ = map(float, done.stdout.split())
    assert listed == read == 250 and megabytes < 300 and seconds < 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", range(4))
def test_scenes_with_a_damaged_file(seeds, fuzz, kind):
    fuzz(*seeds[kind], 150, key=2)


def test_json_of_the_example_is_json(written):
    path = written / "scans" / FIRST / f"{FIRST}.aggregation.json"
    assert [g["label"] for g in json.loads(path.read_text())["segGroups"]] == [*SURFACES[:4], *SURFACES[5:]]
