"""Damaged and incomplete recordings: one clear error that names the file, or a frame that is skipped and listed."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.rgbd_folder import RGBDFolder, RGBDFolderConfig, fuse_cloud
from ponder3d.data.rgbd_images import read_colour, read_depth, read_image, read_labels
from ponder3d.data.rgbd_layouts import Frame, read_matrix
from ponder3d.types import Batch, Cameras, Views


def opened(root, **options) -> RGBDFolder:
    return RGBDFolderConfig(**{"root": str(root), "window": 0, "hold_out": 0, **options}).build()


def write_pose(root, change):
    path = root / "pose" / "3.txt"
    np.savetxt(path, change(np.loadtxt(path)))


def spoiled(pose, value):
    pose[1, 3] = value
    return pose


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def save(array, path):
    Image.fromarray(array).save(path)


BAD_FRAMES = {
    "infinite pose": (lambda r: write_pose(r, lambda p: np.full((4, 4), -np.inf)), "color/3.png: pose is not finite"),
    "nan pose": (lambda r: write_pose(r, lambda p: spoiled(p, np.nan)), "color/3.png: pose is not finite"),
    "no pose": (lambda r: (r / "pose/3.txt").unlink(), "color/3.png: no pose file"),
    "wrong shape": (lambda r: write_pose(r, lambda p: p[:3]), "color/3.png: no pose file, or one that is not 4x4"),
    "words": (lambda r: (r / "pose/3.txt").write_text("not a pose " * 16), "not 4x4 numbers"),
    "scaled pose": (lambda r: write_pose(r, lambda p: p * 1.1), "color/3.png: pose is no rotation"),
    "mirrored pose": (lambda r: write_pose(r, lambda p: p @ np.diag([-1.0, 1, 1, 1])), "or it mirrors"),
    "no depth": (lambda r: (r / "depth/3.png").unlink(), "color/3.png: no depth image 3.png"),
    "empty depth": (lambda r: save(np.zeros((12, 16), np.uint16), r / "depth/3.png"), "depth/3.png: only 0.00%"),
    "far depth": (lambda r: save(np.full((12, 16), 9000, np.uint16), r / "depth/3.png"), "have a depth up to 8 m"),
    "8-bit depth": (lambda r: save(np.ones((12, 16), np.uint8), r / "depth/3.png"), "depth/3.png: an image of kind L"),
    "truncated depth": (lambda r: cut(r / "depth/3.png"), "depth/3.png: cannot be read as an image"),
    "truncated colour": (lambda r: cut(r / "color/3.png"), "color/3.png: cannot be read as an image"),
    "text as colour": (lambda r: (r / "color/3.png").write_text("hello"), "color/3.png: cannot be read as an image"),
    "empty file": (lambda r: (r / "color/3.png").write_bytes(b""), "color/3.png: cannot be read as an image"),
    "truncated labels": (lambda r: cut(r / "label/3.png"), "label/3.png: cannot be read as an image"),
}

ONLY_SEEN_WHEN_READ = {"empty depth", "far depth", "truncated depth", "truncated colour", "truncated labels"}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_a_bad_frame_is_left_out_and_listed(tmp_path, recording, case):
    root = recording().write(tmp_path / "rec", "scannet")
    damage, message = BAD_FRAMES[case]
    damage(root)
    data = opened(root)
    scene = data[0]
    assert scene.views.names == ("0", "1", "2", "4", "5", "6", "7")
    assert bool(torch.isfinite(scene.xyz).all())
    (line,) = scene.skipped if case in ONLY_SEEN_WHEN_READ else data.skipped
    assert str(root) in line and message in line
    assert len(data.skipped) + len(scene.skipped) == 1 and Batch.of([scene, scene]).skipped == scene.skipped * 2


def test_a_frame_that_is_not_used_is_not_looked_at(tmp_path, recording):
    root = recording().write(tmp_path / "rec", "scannet")
    (root / "color" / "3.png").write_text("hello")
    assert opened(root, every=2).skipped == () and len(opened(root, every=3).skipped) == 1


def test_held_out_frames_are_chosen_among_the_usable(tmp_path, recording):
    root = recording().write(tmp_path / "rec", "scannet")
    (root / "color" / "2.png").write_text("hello")
    held = RGBDFolderConfig(root=str(root), window=0, hold_out=4).held_out().build()
    assert held[0].views.names == ("3", "7")


@pytest.mark.parametrize(
    ("num", "options", "message"),
    [
        (8, {"hold_out": 0}, "rec: no frame is held out to evaluate on, as hold_out is 0; set --data.hold-out to 2"),
        (4, {}, "the longest sequence has 4 usable frames, and of 8 frames number 5 is held out; make --data.hold-out"),
        (4, {"every": 2, "hold_out": 4}, "the longest sequence has 2 usable frames, and of 4 frames number 3"),
    ],
)
def test_nothing_to_evaluate_on(tmp_path, recording, num, options, message):
    config = RGBDFolderConfig(root=str(recording(num=num).write(tmp_path / "rec", "scannet")), **options)
    config.build()
    with pytest.raises(DataError, match=message) as error:
        config.held_out().build()
    assert "skipped" not in str(error.value), "nothing was"


def test_an_infinite_pose_in_one_long_file_is_left_out(tmp_path, recording):
    root = recording().write(tmp_path / "rec", "hololens")
    poses = np.loadtxt(root / "poses.txt")
    poses[5] = np.inf
    np.savetxt(root / "poses.txt", poses)
    data = opened(root)
    assert data[0].views.names == ("00000", "00001", "00002", "00003", "00004", "00006", "00007")
    assert "00005.png: pose is not finite" in data.skipped[0]


def on_all(root, folder, change):
    for path in (root / folder).iterdir():
        change(path)


BAD_FOLDERS = {
    "missing": (lambda r: shutil.rmtree(r), "rec: no such directory"),
    "a file": (lambda r: (shutil.rmtree(r), r.write_text("")), "rec: no such directory"),
    "no frames": (lambda r: shutil.rmtree(r / "color"), "rec: no posed RGB-D frames found; see"),
    "no images": (lambda r: on_all(r, "color", lambda p: p.unlink()), "rec: no posed RGB-D frames found"),
    "one frame": (
        lambda r: on_all(r, "color", lambda p: p.stem != "2" and p.unlink()),
        "no scene of at least two usable frames; the longest sequence has 1",
    ),
    "no poses": (
        lambda r: on_all(r, "pose", lambda p: p.unlink()),
        "color/2.png: no pose file, or one that is not 4x4 numbers; and 5 more); see",
    ),
    "no intrinsics": (lambda r: shutil.rmtree(r / "intrinsic"), "--data.intrinsics FX FY CX CY"),
    "short intrinsics": (
        lambda r: np.savetxt(r / "intrinsic/intrinsic_depth.txt", [[1, 2, 3]]),
        "depth.txt: 3 numbers",
    ),
    "no numbers": (lambda r: (r / "intrinsic/intrinsic_color.txt").write_text("f=10"), "cannot be read as numbers"),
    "no focal length": (
        lambda r: np.savetxt(r / "intrinsic/intrinsic_color.txt", np.zeros((3, 3))),
        "must be positive",
    ),
    "no label map": (lambda r: (r / "label_map.json").write_text("[1]"), "label_map.json: expected {'label_id_to_cat"),
    "bad label map": (lambda r: (r / "label_map.json").write_text("{"), "label_map.json: expected"),
    "two of a name": (
        lambda r: (r / "label_map.json").write_text('{"label_id_to_category": {"1": "wall", "2": "wall"}}'),
        "label_map.json: ",
    ),
    "no gravity": (lambda r: (r / "gravity-direction.txt").write_text("0 0 0"), "the direction of gravity is three"),
    "nan gravity": (lambda r: (r / "gravity-direction.txt").write_text("0 nan 1"), "the direction of gravity is three"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_folder_that_cannot_be_used_is_one_error(tmp_path, recording, case):
    root = recording().write(tmp_path / "rec", "scannet")
    damage, message = BAD_FOLDERS[case]
    damage(root)
    with pytest.raises(DataError) as error:
        opened(root)
    assert message in str(error.value) and "rec" in str(error.value)


@pytest.mark.parametrize("folder", ["color", "depth"])
def test_a_scene_without_a_legible_frame_is_one_error(tmp_path, recording, folder):
    root = recording().write(tmp_path / "rec", "scannet")
    on_all(root, folder, cut)
    # The smallest file has lost its header too, and is left out before.
    with pytest.raises(DataError, match=rf"rec: none of [78] frames can be read .*{folder}/\d.png.*; and [45] more\)"):
        opened(root)[0]


def test_a_scene_none_of_whose_points_can_be_made_is_one_error(tmp_path, recording):
    root = recording().write(tmp_path / "rec", "scannet")
    for number in (1, 3, 5, 7):  # those that make the points at a share of a half
        cut(root / "depth" / f"{number}.png")
    message = r"rec: the scene from 1 on has no usable frame to make points of \(4 skipped: .*1.png"
    with pytest.raises(DataError, match=message):
        opened(root, fused_share=0.5)[0]


def test_the_number_of_poses_must_fit(tmp_path, recording):
    root = recording().write(tmp_path / "rec", "hololens")
    (root / "images" / "00007.png").unlink()
    with pytest.raises(DataError, match="poses.txt: 128 numbers for 7 images"):
        opened(root)


def test_sequences_of_different_classes_are_refused(tmp_path, recording):
    for name in ("a", "b"):
        recording().write(tmp_path / name, "scannet")
    assert len(opened(tmp_path)) == 2
    (tmp_path / "b" / "label_map.json").write_text(json.dumps({"label_id_to_category": {"10": "sky"}}))
    with pytest.raises(DataError, match=r"b/label_map.json: .*other classes"):
        opened(tmp_path)


def test_classes_are_found_in_whichever_sequence_has_them(tmp_path, recording):
    recording().write(tmp_path / "a", "hololens")
    recording().write(tmp_path / "b", "scannet")
    assert opened(tmp_path).labels.names == ("floor", "ceiling", "wall")


def test_label_images_without_a_map_are_no_labels(tmp_path, recording):
    root = recording().write(tmp_path / "rec", "scannet")
    (root / "label_map.json").unlink()
    data = opened(root)
    assert data.labels is None and data[0].labels is None and data[0].views.labels is None


@pytest.mark.parametrize(
    "options",
    [{"window": -1}, {"window": 1}, {"window_step": 0}, {"every": 0}, {"hold_out": 1}, {"hold_out": -2}]
    + [{"intrinsics": (1.0, 2.0)}, {"intrinsics": (1.0, 0.0, 5.0, 5.0)}, {"intrinsics": (np.nan, 1.0, 5.0, 5.0)}]
    + [{"up": (0.0, 1.0)}, {"up": (0.0, 0.0, 0.0)}, {"up": (0.0, np.inf, 0.0)}]
    + [{"depth_scale": value} for value in (0.0, -1000.0, np.nan, np.inf)]
    + [{"fused_share": value} for value in (0.0, 1.1, np.nan)]
    + [{"cloud_spacing": value} for value in (0.0, -0.02, np.nan, np.inf)]
    + [{"max_depth": 0.0}, {"max_depth": np.nan}, {"max_side": -1}, {"max_side": 3}, {"keep_in_memory": -1}],
    ids=str,
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=f"RGBDFolderConfig.{next(iter(options))} must be"):
        RGBDFolderConfig(root="somewhere", **options)


def test_a_root_is_needed():
    with pytest.raises(DataError, match=r"RGBDFolderConfig.root is empty: .*--data.root DIR"):
        RGBDFolderConfig().build()


def units(scale=1000.0, invalid=(0, 65535), far=8.0):
    class Units:
        depth_scale, invalid_depth, max_depth = scale, invalid, far

    return Units()


def test_depth_in_metres(tmp_path):
    path = tmp_path / "d.png"
    save(np.array([[0, 65535, 1000], [8000, 8001, 1]], np.uint16), path)
    size, depth = read_depth(path, units())
    assert size == (2, 3)
    torch.testing.assert_close(depth, torch.tensor([[0, 0, 1.0], [8, 0, 0.001]]))
    # 65535 is 6.5 m in tenths of a millimetre: only the list says that it means nothing.
    assert read_depth(path, units(1e4))[1][0, 1] == 0
    torch.testing.assert_close(
        read_depth(path, units(1e4, (0, 1)))[1], torch.tensor([[0, 6.5535, 0.1], [0.8, 0.8001, 0]])
    )


def test_grey_and_transparent_colour(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    save(grey, tmp_path / "grey.png")
    save(np.stack([grey, grey // 2, grey // 4, 255 - grey], axis=-1), tmp_path / "alpha.png")
    frames = [Frame(name, tmp_path / f"{name}.png", tmp_path, np.eye(4), np.eye(3), None) for name in ("grey", "alpha")]
    as_grey, as_rgb = (read_colour(frame, (3, 4), (3, 4))[1].numpy() for frame in frames)
    assert (as_grey == grey[..., None]).all()
    assert (as_rgb == np.stack([grey, grey // 2, grey // 4], axis=-1)).all()


def test_label_images(tmp_path):
    save(np.array([[7, 9], [8, 300]], np.uint16), tmp_path / "l.png")
    frame = Frame("l", tmp_path, tmp_path, np.eye(4), np.eye(3), None, tmp_path / "l.png")

    def read(rows, size):
        return read_labels(frame, rows, (2, 2), (2, 2), size).tolist()

    assert read({7: 0, 9: 1}, (2, 2)) == [[0, 1], [-1, -1]]
    assert read({7: 0, 300: 1}, (4, 2)) == [[0, -1]] * 2 + [[-1, 1]] * 2
    assert read({}, (2, 2)) == [[-1, -1]] * 2
    assert read_labels(replace(frame, label=None), {7: 0}, (2, 2), (2, 2), (2, 2)) is None


def test_an_absurdly_large_image_is_refused(tmp_path, monkeypatch):
    save(np.zeros((20, 20), np.uint8), tmp_path / "bomb.png")
    assert read_image(tmp_path / "bomb.png", ("L",)).shape == (20, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # 400 pixels are more, though less than twice that
    with pytest.raises(DataError, match="bomb.png: cannot be read as an image .*exceeds limit"):
        read_image(tmp_path / "bomb.png", ("L",))


def test_numbers_may_be_separated_by_commas_and_lines(tmp_path):
    path = tmp_path / "m.txt"
    path.write_text("1, 2\n3,4")
    assert read_matrix(path, (2, 2)).tolist() == [[1, 2], [3, 4]]
    assert read_matrix(path).size == 0 and read_matrix(tmp_path / "none.txt").size == 0
    with pytest.raises(DataError, match="none.txt: cannot be read as numbers"):
        read_matrix(tmp_path / "none.txt", None)


def test_depth_without_neighbours_makes_no_cloud():
    depth = torch.zeros(1, 12, 16)
    depth[0, ::2, ::2] = 1
    cameras = Cameras(torch.eye(3)[None] * 10, torch.eye(4)[None], (12, 16))
    views = Views(cameras, torch.zeros(1, 12, 16, 3, dtype=torch.uint8), depth, None, torch.tensor([1]), names=("f7",))
    with pytest.raises(DataError, match="kitchen: f7: no pixel with a usable depth"):
        fuse_cloud(views, 0.02, "kitchen")
