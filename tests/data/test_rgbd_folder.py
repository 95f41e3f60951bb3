"""A recording of an empty box room, whose every pixel is known, read back from each layout on disk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.loader import Collate
from ponder3d.data.rgbd_folder import RGBDFolder, RGBDFolderConfig, fitted_size
from ponder3d.data.rgbd_layouts import sequence_name
from ponder3d.geometry.cameras import pixel_grid, unproject

LAYOUTS = ["seven_scenes", "hololens", "hololens_four_lines", "scannet", "per_frame"]
TILT = np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])
LABEL_OF_WALL = np.array([2, 2, 0, 2, 2, 1])


def example(tmp_path, recording) -> RGBDFolderConfig:
    """For the contract of datasets."""
    root = recording().write(tmp_path / "rec", "scannet")
    return RGBDFolderConfig(root=str(root), window=5, window_step=3, hold_out=4)


def whole(root, **options) -> RGBDFolder:
    """One scene of all frames."""
    return RGBDFolderConfig(**{"root": str(root), "window": 0, "hold_out": 0, **options}).build()


def names(scene) -> list[str]:
    return list(scene.views.names)


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_points_lie_on_the_walls_in_every_layout(tmp_path, recording, box_room, layout, ending):
    wall_of, colours = box_room
    truth = recording(colour_ending=ending)
    data = whole(truth.write(tmp_path / "rec", layout))
    assert len(data) == 1 and not data.skipped
    scene = data[0]
    wall, gap = wall_of(scene.xyz.double().numpy())
    assert len(wall) > 500 and set(wall) == {0, 1, 2, 3, 4}, "the ceiling is above what the cameras see"
    assert gap.mean() < 5e-4 and gap.max() < 0.02, "depth is in millimetres; a voxel in a corner averages two walls"
    inward = np.concatenate([np.eye(3), -np.eye(3)])[wall]
    cosine = (scene.normal.numpy() * inward).sum(1)
    assert np.median(cosine) > 0.999 and (cosine > 0.99).mean() > 0.6, "central differences round off the corners"
    right = np.abs(scene.rgb.numpy() * 255 - colours[wall]).max(1) < (2 if ending == "png" else 60)
    assert right.mean() > 0.95


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cameras_are_opencv_cameras_in_the_world_of_the_points(tmp_path, recording, box_room, layout):
    truth = recording()
    views = whole(truth.write(tmp_path / "rec", layout))[0].views
    poses = torch.tensor(np.stack([truth.pose(i) for i in range(8)]), dtype=torch.float32)
    torch.testing.assert_close(views.cameras.world_from_cam, poses)
    torch.testing.assert_close(views.cameras.intrinsics[3], torch.tensor(truth.matrix, dtype=torch.float32))
    uv = pixel_grid((12, 16)).repeat(8, 1)
    ends = unproject(views.cameras, uv, views.depth.flatten(), torch.arange(8).repeat_interleave(192))
    assert box_room[0](ends.double().numpy())[1].max() < 2e-3


def test_sequences_may_lie_behind_links(tmp_path, recording):
    """On other disks, say. A link into itself ends nowhere, and what two links lead to is one sequence."""
    recording().write(tmp_path / "disk" / "b", "hololens")
    root = tmp_path / "root"
    recording().write(root / "a", "scannet")
    (root / "c").symlink_to(tmp_path / "disk")
    (root / "again").symlink_to(tmp_path / "disk" / "b")
    (root / "a" / "loop").symlink_to(root)
    assert sorted(scene.recording for scene in (whole(root)[i] for i in range(2))) == ["a", "again"]
    assert len(whole(root)) == 2


def test_frames_follow_their_numbers(tmp_path, recording):
    """ScanNet writes 2 and 10 without leading zeros."""
    root = recording(num=11).write(tmp_path / "rec", "scannet")
    assert names(whole(root)[0]) == [str(i) for i in range(11)]


def test_sequences_lie_anywhere_below_the_root(tmp_path, recording):
    recording().write(tmp_path / "a" / "deep", "scannet")
    recording().write(tmp_path / "b", "seven_scenes")
    data = whole(tmp_path)
    assert len(data) == 2 and "deep" in data[0].source and "seq-01" in data[1].source


@pytest.mark.parametrize("units", [1000.0, 5000.0])
def test_depth_scale(tmp_path, recording, box_room, units):
    root = recording(units=units).write(tmp_path / "rec", "scannet")
    gap = box_room[0](whole(root, depth_scale=units)[0].xyz.numpy())[1]
    assert gap.mean() < 5e-4


def test_intrinsics_belong_to_the_colour_image_if_there_is_one_set_only(tmp_path, recording, box_room):
    """A colour image of twice the size, as in ``RGBDFolderConfig.intrinsics``; the depth camera's follow from it."""
    truth = recording(colour_size=(24, 32), colour_matrix=recording.pinhole(24, 32, 20.0))
    root = truth.write(tmp_path / "rec", "hololens")
    (root / "K.txt").unlink()
    fx, fy, cx, cy = truth.colour_matrix[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()
    scene = whole(root, intrinsics=(fx, fy, cx, cy))[0]
    torch.testing.assert_close(scene.views.cameras.intrinsics[0], torch.tensor(truth.matrix, dtype=torch.float32))
    assert scene.views.rgb.shape == (8, 12, 16, 3)
    assert box_room[0](scene.xyz.numpy())[1].mean() < 5e-4


def test_each_depth_pixel_takes_the_colour_of_its_direction(tmp_path, recording):
    """The colour camera sees further to the sides. Its images are linear in the direction, so the answer is exact."""
    wide = np.array([[16.0, 0, 14.5], [0, 15.0, 12.5], [0, 0, 1]])
    truth = recording(colour_size=(24, 32), colour_matrix=wide)
    root = truth.write(tmp_path / "rec", "scannet")

    def gradient(size, matrix):
        uv1 = np.pad(pixel_grid(size).numpy().reshape(*size, 2), ((0, 0), (0, 0), (0, 1)), constant_values=1)
        x, y, _ = np.moveaxis(uv1 @ np.linalg.inv(matrix).T, -1, 0)
        return np.stack([128 + 80 * x, 128 + 80 * y, np.full(size, 90)], axis=-1)

    for path in (root / "color").iterdir():
        Image.fromarray(gradient((24, 32), wide).round().astype(np.uint8)).save(path)
    rgb = whole(root)[0].views.rgb[5].numpy().astype(float)
    assert np.abs(rgb - gradient((12, 16), truth.matrix)).max() < 1.5


def test_colours_are_in_place_where_pixels_are_left_over(tmp_path, recording):
    """64 x 82 pixels are averaged three by three, which leaves one column and one row: nothing may slide for it."""
    matrix = np.array([[50.0, 0, 41.2], [0, 50.0, 31.7], [0, 0, 1]])
    truth = recording(colour_size=(64, 82), colour_matrix=matrix)
    root = truth.write(tmp_path / "rec", "scannet")
    uv1 = np.pad(pixel_grid((64, 82)).numpy().reshape(64, 82, 2), ((0, 0), (0, 0), (0, 1)), constant_values=1)
    x, y, _ = np.moveaxis(uv1 @ np.linalg.inv(matrix).T, -1, 0)
    for path in (root / "color").iterdir():
        Image.fromarray(np.stack([128 + 130 * x, 128 + 130 * y, 0 * x], -1).round().astype(np.uint8)).save(path)
    rgb = whole(root)[0].views.rgb[5].numpy().astype(float)
    uv1 = np.pad(pixel_grid((12, 16)).numpy().reshape(12, 16, 2), ((0, 0), (0, 0), (0, 1)), constant_values=1)
    seen = (uv1 @ np.linalg.inv(truth.matrix).T)[..., :2]
    inside = (np.abs(seen) < [0.7, 0.5]).all(-1)
    assert inside.sum() > 100
    # A pixel of the colour image, 2.6 in value, had slid at the edge; 0.6 is what rounding does.
    assert np.abs(rgb[..., :2] - (128 + 130 * seen))[inside].max() < 1.0


@pytest.mark.parametrize("missing", ["color", "depth"])
def test_one_file_of_intrinsics_serves_both_cameras(tmp_path, recording, box_room, missing):
    truth = recording(colour_size=(24, 32), colour_matrix=recording.pinhole(24, 32, 20.0))
    root = truth.write(tmp_path / "rec", "scannet")
    (root / "intrinsic" / f"intrinsic_{missing}.txt").unlink()
    scene = whole(root)[0]
    torch.testing.assert_close(scene.views.cameras.intrinsics[0], torch.tensor(truth.matrix, dtype=torch.float32))
    assert box_room[0](scene.xyz.numpy())[1].mean() < 5e-4
    exact = box_room[1][truth.trace(5, (12, 16), truth.matrix)[1]]
    assert (np.abs(scene.views.rgb[5].numpy() - exact).max(-1) < 2).mean() > 0.9


def test_images_are_made_smaller_about_their_edges(tmp_path, recording):
    """Three times as many pixels, shrunk by three: depth and camera of the small recording, exactly."""
    matrix = recording.pinhole(36, 48, 30.0)
    fine = recording(size=(36, 48), colour_size=(36, 48), matrix=matrix, colour_matrix=matrix)
    views = whole(fine.write(tmp_path / "rec", "seven_scenes"), max_side=16)[0].views
    torch.testing.assert_close(views.cameras.intrinsics[0], torch.tensor(recording().matrix, dtype=torch.float32))
    expected = recording().trace(2, (12, 16), recording().matrix)[0]
    assert np.abs(views.depth[2].numpy() - expected).max() < 6e-4
    assert fitted_size((480, 640), 320) == (240, 320) and fitted_size((10, 5), 0) == (10, 5)
    assert fitted_size((10, 5), 10) == (10, 5)


def check_room(scene, truth, wall_of):
    assert wall_of(scene.xyz.double().numpy())[1].max() < 0.02
    poses = torch.tensor(np.stack([truth.pose(i) for i in range(8)]), dtype=torch.float32)
    torch.testing.assert_close(scene.views.cameras.world_from_cam, poses, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("world", "up"),
    [(np.eye(3), ()), (((1, 0, 0), (0, 0, 1), (0, -1, 0)), ()), (((1, 0, 0), (0, 0, -1), (0, 1, 0)), ())]
    + [(((1, 0, 0), (0, 0, 1), (0, -1, 0)), (0.0, 2.0, 0.0))],
)
def test_z_is_up_whichever_axis_was(tmp_path, recording, box_room, world, up):
    truth = recording(world=np.array(world, dtype=float))
    check_room(whole(truth.write(tmp_path / "rec", "scannet"), up=up)[0], truth, box_room[0])


def test_gravity_levels_a_tilted_world(tmp_path, recording, box_room):
    truth = recording(world=TILT)
    root = truth.write(tmp_path / "rec", "seven_scenes")
    assert box_room[0](whole(root)[0].xyz.numpy())[1].max() > 0.1, "an axis alone cannot level it"
    np.savetxt(root / "gravity-direction.txt", TILT @ [0, 0, -9.8])
    check_room(whole(root)[0], truth, box_room[0])


def test_labels_follow_the_walls(tmp_path, recording, box_room):
    root = recording().write(tmp_path / "rec", "scannet")
    raw = np.asarray(Image.open(root / "label" / "0.png")).copy()
    raw[0, 0], raw[1, 1] = 77, 255  # no classes
    Image.fromarray(raw).save(root / "label" / "0.png")
    data = whole(root)
    scene = data[0]
    assert data.labels.names == ("floor", "ceiling", "wall")
    expected = LABEL_OF_WALL[box_room[0](scene.xyz.numpy())[0]]
    labels = scene.labels.numpy()
    assert (labels == expected).mean() > 0.97 and (labels[labels >= 0] == expected[labels >= 0]).mean() > 0.98
    assert scene.views.labels[0, 0, 0] == -1 and scene.views.labels[0, 1, 1] == -1
    assert bool((scene.views.labels[1] >= 0).all())


@pytest.mark.parametrize("size", [(24, 32), (48, 64)], ids=["the colour image's", "another"])
def test_label_images_are_seen_by_the_colour_camera(tmp_path, recording, size):
    """A narrow colour camera that looks to the side: each depth pixel takes the label in its direction, or none."""
    narrow = np.array([[36.0, 0, 10.2], [0, 36.0, 14.3], [0, 0, 1]])
    truth = recording(colour_size=(24, 32), colour_matrix=narrow)
    root = truth.write(tmp_path / "rec", "scannet")
    scaled = np.diag([size[1] / 32, size[0] / 24, 1]) @ narrow
    scaled[:2, 2] += (size[0] / 24 - 1) / 2
    for i in range(8):
        label = np.array([30, 30, 10, 30, 30, 20], np.uint8)[truth.trace(i, size, scaled)[1]]
        Image.fromarray(label).save(root / "label" / f"{i}.png")
    found = torch.stack(list(whole(root)[0].views.labels)).numpy()
    expected = np.stack([LABEL_OF_WALL[truth.trace(i, (12, 16), truth.matrix)[1]] for i in range(8)])
    uv1 = np.pad(pixel_grid((12, 16)).numpy().reshape(12, 16, 2), ((0, 0), (0, 0), (0, 1)), constant_values=1)
    u, v, _ = np.moveaxis(uv1 @ (narrow @ np.linalg.inv(truth.matrix)).T, -1, 0)
    inside = (u > 0) & (u < 31) & (v > 0) & (v < 23)
    outside = (u < -1) | (u > 32) | (v < -1) | (v > 24)
    assert inside.sum() > 20 and outside.sum() > 20
    assert (found[:, outside] == -1).all() and (found[:, inside] == expected[:, inside]).mean() > 0.95


def test_label_images_of_the_depth_image_are_not_moved(tmp_path, recording):
    truth = recording(colour_size=(24, 32), colour_matrix=np.array([[36.0, 0, 10.2], [0, 36.0, 14.3], [0, 0, 1]]))
    labels = whole(truth.write(tmp_path / "rec", "scannet"))[0].views.labels
    for i in range(8):
        assert (labels[i].numpy() == LABEL_OF_WALL[truth.trace(i, (12, 16), truth.matrix)[1]]).all()


def test_frames_without_a_label_image_have_no_classes(tmp_path, recording, box_room):
    """The others keep theirs, and so do the points that they see."""
    root = recording().write(tmp_path / "rec", "scannet")
    for number in (2, 7):  # 7 is the last to see its points
        (root / "label" / f"{number}.png").unlink()
    scene = whole(root)[0]
    none = [not bool((labels >= 0).any()) for labels in scene.views.labels]
    assert [name for name, empty in zip(scene.views.names, none, strict=True) if empty] == ["2", "7"]
    expected = LABEL_OF_WALL[box_room[0](scene.xyz.numpy())[0]]
    known = scene.labels.numpy() >= 0
    assert 0.5 < known.mean() < 1 and (scene.labels.numpy() == expected)[known].mean() > 0.98
    (line,) = scene.skipped
    assert "2 of 8 frames" in line and "no label image, such as" in line


def test_a_sequence_that_nobody_has_labelled_has_no_classes_beside_one_that_has(tmp_path, recording):
    recording().write(tmp_path / "a", "hololens")
    recording().write(tmp_path / "b", "scannet")
    data = whole(tmp_path)
    bare, labelled = data[0], data[1]
    assert bare.labels.tolist() == [-1] * len(bare.xyz) and bool((labelled.labels >= 0).any())
    batch = Collate(("rgb",))([bare, labelled])
    assert batch.labels.tolist() == [-1] * len(bare.xyz) + labelled.labels.tolist()
    assert torch.equal(batch.views.labels[-8:], labelled.views.labels) and bool((batch.views.labels[:-8] == -1).all())


def test_labels_are_absent_without_label_images(tmp_path, recording):
    data = whole(recording().write(tmp_path / "rec", "hololens"))
    assert data.labels is None and data[0].labels is None and data[0].views.labels is None


def test_held_out_frames_are_shown_to_nobody_in_training(tmp_path, recording):
    root = recording().write(tmp_path / "rec", "scannet")
    config = RGBDFolderConfig(root=str(root), window=0, hold_out=4, fused_share=1.0)
    train, held = config.build()[0], config.held_out().build()[0]
    assert names(train) == ["0", "1", "3", "4", "5", "7"] and names(held) == ["2", "6"]
    assert torch.equal(train.xyz, held.xyz), "the held-out views look at the cloud of the training frames"
    # What the held-out files say makes no difference.
    for number in (2, 6):
        Image.fromarray(np.full((12, 16), 500, np.uint16)).save(root / "depth" / f"{number}.png")
        Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(root / "color" / f"{number}.png")
    again = config.build()[0]
    assert torch.equal(again.xyz, train.xyz) and torch.equal(again.rgb, train.rgb)
    assert torch.equal(config.held_out().build()[0].views.depth, torch.full((2, 12, 16), 0.5))


def test_a_frame_held_out_of_one_window_is_held_out_of_all(tmp_path, recording):
    config = RGBDFolderConfig(
        root=str(recording(num=10).write(tmp_path / "rec", "scannet")), window=5, window_step=2, hold_out=3
    )
    train, held = config.build(), config.held_out().build()
    assert [names(train[i]) for i in range(len(train))] == [
        ["0", "2", "3"],
        ["2", "3", "5", "6"],
        ["5", "6", "8"],
        ["5", "6", "8", "9"],
    ]
    assert [names(held[i]) for i in range(len(held))] == [["1", "4"], ["4"], ["4", "7"], ["7"]]


@pytest.mark.parametrize(("num", "first"), [(9, ["0", "3"]), (10, ["0", "3", "4"]), (6, ["0"]), (4, ["0"])])
def test_the_last_window_ends_with_the_sequence(tmp_path, recording, num, first):
    data = whole(recording(num=num).write(tmp_path / "rec", "scannet"), window=6, window_step=3)
    assert [names(data[i])[0] for i in range(len(data))] == first
    assert names(data[len(data) - 1])[-1] == str(num - 1)


def test_every_and_the_whole_sequence(tmp_path, recording):
    root = recording(num=10).write(tmp_path / "rec", "scannet")
    assert names(whole(root, every=3)[0]) == ["0", "3", "6", "9"]
    assert len(whole(root, window=4, window_step=3)) == 3
    assert len(whole(root, window=40)) == 1, "a sequence shorter than the window is one scene"


def test_some_frames_supervise_without_making_points(tmp_path, recording):
    root = recording().write(tmp_path / "rec", "scannet")
    before = whole(root, fused_share=0.5)[0]
    assert len(names(before)) == 8
    Image.fromarray(np.full((12, 16), 500, np.uint16)).save(root / "depth" / "0.png")
    after = whole(root, fused_share=0.5)[0]
    assert torch.equal(after.xyz, before.xyz)
    assert float(after.views.depth[names(after).index("0")].max()) == 0.5
    Image.fromarray(np.full((12, 16), 500, np.uint16)).save(root / "depth" / "1.png")
    assert not torch.equal(whole(root, fused_share=0.5)[0].xyz, before.xyz)


def test_scenes_stay_in_memory(tmp_path, recording):
    root = recording().write(tmp_path / "rec", "scannet")
    kept, fresh = (whole(root, window=4, window_step=4, keep_in_memory=n) for n in (1, 0))
    assert kept[0] is kept[0] and fresh[0] is not fresh[0]
    first = kept[0]
    assert kept[1].source != first.source and kept[0] is not first
    assert torch.equal(kept[0].xyz, first.xyz) and torch.equal(fresh[0].xyz, first.xyz)


def test_a_skip_list_is_honoured(tmp_path, recording):
    for name in ("kitchen/one", "kitchen/two"):
        recording().write(tmp_path / "house" / name, "scannet")
    (tmp_path / "house" / "skip.tsv").write_text(
        "kitchen_one\t2\tpose: it jumps\nkitchen_two\t\tdepth: other units\nhall\t\tfile: absent\n"
    )
    data = whole(tmp_path / "house")
    assert len(data) == 1 and names(data[0]) == ["0", "1", "3", "4", "5", "6", "7"]
    assert len(data.skipped) == 1 + 1 + 8 and "skip.tsv: it names hall" in data.skipped[0]
    assert "color/2.png: left out by" in data.skipped[1] and data.skipped[1].endswith("skip.tsv: pose: it jumps")
    (tmp_path / "mine.lst").write_text("kitchen_one 000000\n")
    data = whole(tmp_path / "house", skip=str(tmp_path / "mine.lst"))
    assert [names(scene)[0] for scene in data] == ["1", "0"]
    (tmp_path / "mine.lst").write_text("a line of many words\n")
    with pytest.raises(DataError, match="mine.lst: line 1 has 5 words"):
        whole(tmp_path / "house", skip=str(tmp_path / "mine.lst"))


@pytest.mark.parametrize(
    ("below", "name"), [("", "my_house"), ("kitchen/seq-01", "kitchen_seq-01"), ("K\u00fcche.1", "K_che_1")]
)
def test_what_sequences_are_called(tmp_path, below, name):
    assert sequence_name(tmp_path / "my house" / below, tmp_path / "my house") == name


def test_held_out_keeps_everything_else():
    config = RGBDFolderConfig(root="x", every=3)
    assert config.held_out() == replace(config, split="held_out")
