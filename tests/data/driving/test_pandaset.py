"""PandaSet: a tiny drive in its layout, and eight frames of the real one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pandaset_example import CAMERAS, SPEED, dump_table, write_example

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.classes import DETECTION_LABELS, STREET_LABELS
from ponder3d.data.driving.dataset import DrivingDataset
from ponder3d.data.driving.pandaset import PandaSetConfig, PandaSetDrive
from ponder3d.data.driving.projecting import hits


def example(tmp_path) -> PandaSetConfig:
    write_example(tmp_path)
    return PandaSetConfig(root=str(tmp_path), test_frames=(12, 12), sweeps=2, ahead=(1,))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write_example(folder)
    return folder


@pytest.fixture
def root(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "root"))


def read(root, index: int = 1, **fields):
    return PandaSetConfig(root=str(root), **fields).build()[index]


def test_points_and_boxes_in_the_frame_of_the_vehicle(root):
    scene = read(root, sweeps=3)
    moved = SPEED * 0.1
    ahead = torch.tensor([[0.0, 10, 0], [0, 20, 3], [2, 10, 0]])
    # Each sweep sees its points as far ahead of itself; those of the earlier one are behind by what was driven.
    torch.testing.assert_close(scene.xyz[:3], ahead, atol=1e-5, rtol=0)
    torch.testing.assert_close(scene.xyz[3:], ahead - torch.tensor([0.0, moved, 0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(scene.intensity[:3], torch.tensor([0.2, 1.0, 0.0]))
    torch.testing.assert_close(scene.time, torch.tensor([0.0] * 3 + [0.1] * 3))
    assert scene.labels.tolist() == [1, 0, 2, -1, -1, -1]  # of Vegetation, Road, Car
    assert scene.source.endswith("001/lidar/11.pkl.gz:001-11")
    # One of the twins, the sign is no class of boxes; it is longest along x, where it drives.
    boxes = scene.boxes
    assert boxes.label.tolist() == [DETECTION_LABELS.names.index("car")]
    torch.testing.assert_close(boxes.centre, torch.tensor([[2.2, 10, 0]]), atol=1e-5, rtol=0)
    assert boxes.size.tolist() == [[4.0, 2.0, 1.5]]
    torch.testing.assert_close(boxes.yaw, torch.zeros(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(boxes.velocity, torch.tensor([[2.0, SPEED]]), atol=1e-4, rtol=0)


def test_a_turned_vehicle_sees_a_turned_world(tmp_path):
    write_example(tmp_path, heading=np.pi / 2)  # it looks along the world's -x: ahead is to its right
    scene = read(tmp_path)
    torch.testing.assert_close(scene.xyz, torch.tensor([[10.0, 0, 0], [20, 0, 3], [10, -2, 0]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(scene.boxes.yaw, torch.tensor([-np.pi / 2], dtype=torch.float32), atol=1e-6, rtol=0)
    torch.testing.assert_close(scene.boxes.velocity, torch.tensor([[SPEED, -2.0]]), atol=1e-4, rtol=0)


def test_views_and_their_depth(root):
    views = read(root).views
    assert views.names == tuple(f"{name}/11" for name in CAMERAS)
    # Straight ahead at 10 m, at (15.7, 11.7); the car 2 m to the right is 3.2 pixels off, the plant 2.4 above.
    front = views.depth[0]
    assert front[12, 16] == 10 and front[12, 19] == 10 and int((front > 0).sum()) == 3
    assert front[9, 16] == 20 and views.labels[0, 12, 19] == 2
    assert views.rgb[2].to(torch.float32).mean((0, 1)).sub(torch.tensor([40.0, 50, 90])).abs().max() < 6  # JPEG


def test_lasers_classes_and_a_raised_origin(root):
    assert len(read(root, lasers="spinning").xyz) == 2 and len(read(root, lasers="forward").xyz) == 1
    # The box that the forward laser's annotation gave is 1 m further.
    torch.testing.assert_close(read(root, lasers="forward").boxes.centre[0, 0], torch.tensor(3.2))
    street = read(root, classes="nuscenes")
    names = [STREET_LABELS.names[row] for row in street.labels.tolist()]
    assert names == ["drivable surface", "vegetation", "car"]
    raised = read(root, raised=1.4)
    torch.testing.assert_close(raised.xyz, street.xyz - torch.tensor([0.0, 0, 1.4]))
    assert torch.equal(raised.views.depth, street.views.depth) and float(raised.boxes.centre[0, 2]) == pytest.approx(
        -1.4
    )


def test_a_drive_without_classes_beside_one_that_has_them(root):
    shutil.copytree(root / "001", root / "002")
    shutil.rmtree(root / "002" / "annotations" / "semseg")
    data = PandaSetConfig(root=str(root)).build()
    (line,) = data.skipped
    assert line.endswith("002/annotations/semseg: not there; the points of this drive have no class")
    labelled, bare = data[1], data[3]
    assert (labelled.recording, bare.recording) == ("001", "002") and data.labels is not None
    assert bare.labels.tolist() == [-1, -1, -1] and bool((bare.views.labels == -1).all())
    assert labelled.labels.tolist() == read(root, drives=("001",)).labels.tolist() != bare.labels.tolist()
    alone = PandaSetConfig(root=str(root), drives=("002",)).build()
    assert alone.labels is None and alone[1].labels is None and alone.skipped == ()


def test_frames_by_number(root):
    config = PandaSetConfig(root=str(root), frames=(10, 11), test_frames=(12, 20))
    train, held = config.build(), config.held_out().build()
    assert [train.view_names(i)[1][0] for i in range(len(train))] == ["front_camera/10", "front_camera/11"]
    assert len(held) == 1 and held.view_names(0)[1][0] == "front_camera/12"
    unsaid = PandaSetConfig(root=str(root))  # a fifth of three frames is one
    assert (len(unsaid.build()), len(unsaid.held_out().build())) == (2, 1)
    assert unsaid.held_out().build().view_names(0)[1][0] == "front_camera/12"
    for fields, message in (
        ({"frames": (30, 40)}, "no frame is left to train on: files are numbered from 10 to 12"),
        ({"split": "held_out", "test_frames": (30, 40)}, "no frame is held out: .* change .* --data.test-frames"),
        ({"drives": ("007",)}, "drives: no 007; there are 001"),
    ):
        with pytest.raises(DataError, match=message):
            PandaSetConfig(root=str(root), **fields).build()
    for fields in ({"frames": (3,)}, {"test_frames": (3, 2)}, {"frames": (1, 5), "test_frames": (5, 6)}):
        with pytest.raises(ValueError, match=r"PandaSetConfig\.(test_)?frames"):
            PandaSetConfig(**fields)


def test_a_velocity_that_nobody_knows_is_nan(tmp_path):
    write_example(tmp_path, num=1)
    assert bool(read(tmp_path, 0).boxes.velocity.isnan().all())


def table(name, **columns):
    return lambda drive: dump_table(drive / name, {key: np.array(value) for key, value in columns.items()})


def edited(name, change):
    def plant(drive):
        record = json.loads((drive / name).read_text())
        change(record)
        (drive / name).write_text(json.dumps(record))

    return plant


def removed(name):
    return lambda drive: (drive / name).unlink()


FAULTS = {
    "sweep": (removed("lidar/11.pkl.gz"), "lidar/11.pkl.gz: no such file, though there are later frames"),
    "last": (removed("lidar/12.pkl.gz"), "lidar/poses.json: 3 entries; lidar has 2 frames, from 10 to 11: is one"),
    "image": (removed("camera/back_camera/11.jpg"), "back_camera/11.jpg: no such file; get it, or leave"),
    "camera": (
        lambda drive: (drive / "camera/left_camera").rename(drive / "x"),
        "left_camera: no such .*--data.cam",
    ),
    "skewed": (
        edited("lidar/poses.json", lambda r: r[1]["heading"].update(w=0.5)),
        "lidar/poses.json: entry 1: heading: .* is no unit quaternion w x y z",
    ),
    "order": (
        edited("lidar/timestamps.json", lambda r: r.reverse()),
        "lidar/timestamps.json: timestamps: out",
    ),
    "times": (
        edited("camera/back_camera/timestamps.json", lambda r: r.__setitem__(2, r[0])),
        "back_camera/timestamps.json: timestamps: out of order: number 2",
    ),
    "intrinsics": (
        edited("camera/front_camera/intrinsics.json", lambda r: r.update(fx=-1)),
        "front_camera/intrinsics.json: intrinsics: .* with positive fx, fy",
    ),
    "columns": (table("lidar/11.pkl.gz", x=[1.0]), "lidar/11.pkl.gz: no column y, only x"),
    "empty": (
        lambda drive: (
            table("lidar/11.pkl.gz", **{key: np.zeros(0) for key in "xyzid"})(drive),
            table("annotations/semseg/11.pkl.gz", **{"class": np.zeros(0)})(drive),
        ),
        "lidar/11.pkl.gz: xyz: no points; leave this key frame out",
    ),
    "labels": (
        table("annotations/semseg/11.pkl.gz", **{"class": [7]}),
        "semseg/11.pkl.gz: class: 1 classes for 3",
    ),
    "class": (table("annotations/semseg/11.pkl.gz", **{"class": [7, 8, 7]}), "semseg/11.pkl.gz: class: 8 is not in"),
    "names": (edited("annotations/semseg/classes.json", lambda r: r.update({"x": "y"})), "classes.json: expected"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named(root, fault):
    plant, message = FAULTS[fault]
    plant(root / "001")
    with pytest.raises(DataError, match=message):
        read(root)


def test_directories_that_are_none(tmp_path):
    for fields, message in (
        ({}, "PandaSetConfig.root is empty"),
        ({"root": str(tmp_path / "none")}, "none: no such directory"),
        ({"root": str(tmp_path)}, "no drive such as 002"),
    ):
        with pytest.raises(DataError, match=message):
            PandaSetConfig(**fields).build()


def test_fewer_cameras_and_no_images(root):
    (root / "001" / "camera" / "left_camera").rename(root / "gone")
    assert read(root, cameras=("front_camera", "back_camera")).views.names == ("front_camera/11", "back_camera/11")
    assert read(root, images=False).views is None


def test_real_points_are_seen_and_stand_still(real_data):
    """Of all points 97.6 % fall into an image; buildings stand still in the world but not in the vehicle's frame."""
    drive = PandaSetDrive(real_data("pandaset") / "002")
    building = next(number for number, name in drive.names.items() if name == "Building")
    row = sorted(drive.names).index(building)
    world, ego = [], []
    for frame in (0, 7):
        sweep = drive.sweep(frame)
        points = sweep.xyz[sweep.labels == row].to(torch.float64)
        ego.append(points)
        world.append(points @ sweep.world_from_sensor[:3, :3].T + sweep.world_from_sensor[:3, 3])
    for clouds, expected in ((world, 0.042), (ego, 0.107)):
        some = clouds[0][ego[0].norm(dim=1) < 40][::40]  # further away points are sparser than they move
        gaps = torch.cdist(some, clouds[1]).amin(1)
        assert float(gaps.median()) == pytest.approx(expected, rel=0.2)
    sweep = drive.sweep(3)
    seen = torch.zeros(len(sweep.xyz), dtype=torch.bool)
    xyz = sweep.xyz.to(torch.float64) @ sweep.world_from_sensor[:3, :3].T + sweep.world_from_sensor[:3, 3]
    for shot in drive.shots(3, drive.cameras):
        seen[hits(xyz, shot.intrinsics, shot.world_from_cam, (1080, 1920)).row] = True
    assert float(seen.double().mean()) >= 0.976


def test_real_boxes_hold_points_and_drive_along_their_heading(real_data):
    config = PandaSetConfig(root=str(real_data("pandaset")), test_frames=(65, 66), images=False, classes="nuscenes")
    data = config.build()
    assert isinstance(data, DrivingDataset) and (len(data), len(config.held_out().build())) == (6, 2)
    scene = data[2]
    boxes = scene.boxes
    fast = boxes.velocity.norm(dim=1) > 2
    way = torch.atan2(boxes.velocity[:, 1], boxes.velocity[:, 0]) - boxes.yaw
    assert int(fast.sum()) > 10 and float(way[fast].cos().min()) > 0.95
    cars = scene.xyz[scene.labels == STREET_LABELS.names.index("car")]
    offset = cars[:, None] - boxes.centre[None]
    cos, sin = boxes.yaw.cos(), boxes.yaw.sin()
    along = torch.stack([offset[..., 0] * cos + offset[..., 1] * sin, offset[..., 1] * cos - offset[..., 0] * sin], -1)
    inside = (along.abs() <= boxes.size[:, :2] / 2 + 0.1).all(2) & (offset[..., 2].abs() <= boxes.size[:, 2] / 2 + 0.1)
    assert float(inside.any(1).double().mean()) > 0.9
