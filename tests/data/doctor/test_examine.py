"""Faults that were planted are named, and little else is."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import planting
import pytest
from PIL import Image

from ponder3d.data.doctor import examine as doctor
from ponder3d.data.doctor.examine import examine
from ponder3d.data.doctor.findings import Examination
from ponder3d.data.doctor.opening import config_of, open_data
from ponder3d.data.prepared.prepare import Preparation, Preparing
from ponder3d.data.prepared.scene_file import PrepareOptions
from ponder3d.data.raw.example_room import ExampleRoom
from ponder3d.data.raw.scannet_example import write_scannet


def missed_and_more(examination: Examination, scene: str, expected: planting.Expected) -> tuple[list, list[str]]:
    """Planted faults that no finding names, and findings that name no planted fault."""
    left, missed = list(examination.findings), []
    for frame, kinds in expected:
        named = [f for f in left if (f.problem.scene, f.problem.frame) == (scene, frame) and f.problem.kind in kinds]
        missed += [] if named else [(frame, kinds)]
        left = [f for f in left if f not in named]
    return missed, [str(f.problem) for f in left]


def test_nothing_is_wrong_with_the_example_rooms(tmp_path):
    tree = planting.example_rooms(tmp_path / "rooms")
    examination = examine(open_data(str(tree.root)))
    assert not examination.findings
    hall = next(report for report in examination.scenes if report.name == "hall")
    assert (hall.num_frames, hall.num_examined, hall.num_usable) == (16, 16, 16)
    assert hall.agreement > 0.99 and hall.colours > 0.8 and hall.depth_share == 1 and np.isnan(hall.overlap)
    np.testing.assert_allclose(hall.size[:2], [4, 3], atol=0.05)  # the width and depth of the room


SINGLE = [
    *planting.POSES[:8],
    *(planting.depth_of_one_in_other_units, planting.depth_bytes_swapped, planting.truncated_depth),
    *(planting.missing_depth, planting.empty_depth, planting.constant_depth, planting.black_image),
    *(planting.grey_image, planting.truncated_colour, planting.colours_swapped, planting.images_of_another_frame),
    *(planting.missing_pose, planting.missing_frame, planting.duplicated_frame),
]
"""Faults of one or two frames."""


def test_many_faults_in_one_recording(tmp_path):
    num = 4 * len(SINGLE)
    tree = planting.example_rooms(tmp_path / "rooms", num=num, names=("hall",))
    expected = []
    for number, fault in enumerate(SINGLE):
        first = 4 * number + 1
        expected += fault(tree, tree.frames[first], tree.frames[(first + num // 2 + 1) % num])
    missed, more = missed_and_more(examine(open_data(str(tree.root)), 0), "hall", expected)
    assert not missed and not more


@pytest.mark.parametrize(
    "fault",
    [
        *planting.POSES[8:],
        *(planting.depth_of_all_in_other_units, planting.depth_of_all_in_centimetres, planting.wrong_intrinsics),
    ],
)
def test_a_recording_that_is_wrong_throughout(tmp_path, fault):
    tree = planting.example_rooms(tmp_path / "rooms")
    expected = fault(tree, "", "")
    examination = examine(open_data(str(tree.root)))
    missed, more = missed_and_more(examination, "hall", expected)
    assert not missed and not more
    assert examination.unusable[0].scene == "hall"


def test_what_the_messages_suggest(tmp_path):
    tree = planting.example_rooms(tmp_path / "rooms")
    planting.depth_of_all_in_other_units(tree, "", "")
    (finding,) = examine(open_data(str(tree.root))).findings
    assert "depth times 0.2 fits the poses" in finding.problem.what and "its unit is 1/5000 m" in finding.problem.what
    tree = planting.example_rooms(tmp_path / "more")
    planting.colours_swapped(tree, tree.frames[3], tree.frames[9])
    three, nine = examine(open_data(str(tree.root))).findings
    assert three.problem.what.endswith("the colour image of frame-000009 would fit")
    assert nine.problem.what.endswith("the colour image of frame-000003 would fit")
    tree = planting.example_rooms(tmp_path / "last")
    planting.millimetre_pose(tree, tree.frames[3], "")
    (finding,) = examine(open_data(str(tree.root))).findings
    assert finding.problem.what.endswith("with its position times 0.001 it would")


def test_pictures_show_a_frame_beside_one_that_fits(tmp_path):
    tree = planting.example_rooms(tmp_path / "rooms")
    planting.inverted_pose(tree, tree.frames[5], "")
    examination = examine(open_data(str(tree.root)))
    (picture,) = examination.pictures
    assert (picture.scene, picture.frame) == ("hall", "frame-000005") and picture.beside in tree.frames
    assert picture.rgb.shape == (24, 32, 3) and picture.beside_depth is not None


def test_only_scenes_that_are_drawn_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "DRAWN", 1)
    planting.example_rooms(tmp_path / "rooms", num=8)
    first, second = examine(open_data(str(tmp_path / "rooms"))).scenes
    assert len(first.xyz) == len(first.rgb) > 1000 and not len(second.xyz) and not len(second.rgb)
    assert [v.frame for v in first.views] == [f"frame-{i:06d}" for i in (1, 4, 6)] and not second.views
    assert first.size[0] > 3 and second.size[0] > 3, "the size is known without the points"


def test_nothing_is_wrong_with_the_example_of_scannet(tmp_path):
    """In one frame of each scene a single wall is seen, in one that nobody has annotated; meshes have seams."""
    write_scannet(tmp_path / "scannet")
    examination = examine(open_data(str(tmp_path / "scannet")), 0)
    assert not examination.findings
    assert all(report.rgb.base is None and len(report.rgb) for report in examination.scenes), "parts keep all"


def test_labels_that_are_empty_beside_others(tmp_path):
    write_scannet(tmp_path / "scannet")
    for name in ("scans/scene0000_00", "scans/scene0011_00", "scans_test"):
        shutil.rmtree(tmp_path / "scannet" / name)
    label = tmp_path / "scannet" / "scans" / "scene0001_00" / "label-filt"
    with zipfile.ZipFile(label.with_name("scene0001_00_2d-label-filt.zip")) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    image = io.BytesIO()
    Image.fromarray(np.zeros_like(np.array(Image.open(io.BytesIO(members["label-filt/5.png"]))))).save(image, "png")
    members["label-filt/5.png"] = image.getvalue()
    with zipfile.ZipFile(label.with_name("scene0001_00_2d-label-filt.zip"), "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    (finding,) = examine(open_data(str(tmp_path / "scannet")), 0).findings
    assert (finding.problem.frame, finding.problem.kind, finding.severity) == ("5", "label", "suspect")


@pytest.mark.slow
def test_nothing_is_wrong_with_the_example_that_was_prepared(tmp_path):
    write_scannet(tmp_path / "scannet")
    raw = config_of(str(tmp_path / "scannet"), "scannet")  # every frame
    Preparing(Preparation(raw, PrepareOptions(workers=1)), tmp_path / "out").run()
    assert not examine(open_data(str(tmp_path / "out")), 0).findings


def test_a_camera_that_stands_still(tmp_path):
    tree = planting.example_rooms(tmp_path / "rooms", num=8, names=("hall",))
    for i in range(8):
        rgb = ExampleRoom().colour(0)
        rgb[: 3 * i] = 255 - rgb[: 3 * i]
        planting.write_frame(tree.folder, i, ExampleRoom().trace(0)[0], rgb, tree.pose(tree.frames[0]))
    found = [f.problem for f in examine(open_data(str(tree.root))).findings if f.problem.kind == "duplicate"]
    assert [(p.frame, p.what.split(",")[0]) for p in found] == [("", "7 frames have exactly the pose of another")]


def test_a_part_of_the_frames(tmp_path):
    tree = planting.example_rooms(tmp_path / "rooms", names=("hall",))
    (report,) = examine(open_data(str(tree.root)), frames_per_scene=5).scenes
    assert (report.num_frames, report.num_examined) == (16, 5)


def test_a_scene_that_is_a_copy(tmp_path):
    tree = planting.example_rooms(tmp_path / "rooms", num=8)
    noise = np.random.default_rng(0)
    for frame in tree.frames:  # no two images of a camera are equal
        image = np.array(Image.open(tree.colour(frame))).astype(int)
        Image.fromarray((image + noise.integers(-9, 10, image.shape)).clip(0, 255).astype(np.uint8)).save(
            tree.colour(frame)
        )
    shutil.copytree(tree.folder, tree.root / "landing")
    (finding,) = examine(open_data(str(tree.root))).findings
    assert (finding.problem.scene, finding.problem.frame, finding.problem.kind) == ("landing", "", "duplicate")
    assert finding.problem.what == "8 of its 8 images are also in scene hall"


REAL = {
    "7scenes": ("redkitchen/seq-01", 40, planting.FAULTS, 10, 30),
    "hololens": (
        "hololens-dataset/000_clipA",
        0,
        (*planting.POSES, *planting.DEPTHS, *planting.COLOURS, planting.duplicated_frame, planting.wrong_intrinsics),
        *(7, 20),
    ),
    "aria": ("pinhole", 0, planting.LABELS, 2, 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["7scenes", "hololens", "aria", "apc_shelf"])
def test_nothing_is_wrong_with_real_recordings(real_data, name):
    assert not examine(open_data(str(real_data(name))), 0).findings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fault"),
    [(name, fault) for name, row in REAL.items() for fault in row[2]],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_faults_in_real_recordings(tmp_path, real_data, name, fault):
    below, keep, _, first, second = REAL[name]
    tree = planting.copied(real_data(name), tmp_path / "copy", below, keep)
    expected = fault(tree, tree.frames[first], tree.frames[second])
    examination = examine(open_data(str(tree.root)))
    missed, more = missed_and_more(examination, below.replace("/", "_"), expected)
    assert not missed and not more


@pytest.mark.slow
def test_a_frame_of_another_recording(tmp_path, real_data):
    tree = planting.copied(real_data("hololens"), tmp_path / "copy", "hololens-dataset/000_clipA")
    other = Path(tree.root) / "hololens-dataset" / "000_clipB"
    shutil.copyfile(next((other / "images").glob("*.png")), tree.colour(tree.frames[9]))
    shutil.copyfile(next((other / "depth").glob("*.png")), tree.depth(tree.frames[9]))
    examination = examine(open_data(str(tree.root)))
    expected = [(tree.frames[9], {"pose", "duplicate"})]
    assert missed_and_more(examination, "hololens-dataset_000_clipA", expected) == ([], [])
