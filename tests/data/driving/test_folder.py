"""Drives of one's own: what is written is read back, other axes and kinds of files, and what is wrong with folders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from analytic_drive import LABELS, AnalyticDrive
from fuzzing import QUICK, check_reader

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.dataset import DrivingDataset
from ponder3d.data.driving.folder import DriveFolderConfig
from ponder3d.data.driving.folder_writing import write_drive
from ponder3d.data.driving.json_files import read_poses


class KnownDrive(AnalyticDrive):
    """With velocities of all boxes, as the contract of datasets wants finite numbers."""

    def boxes(self, frame):
        boxes = super().boxes(frame)
        boxes.velocity[boxes.velocity.isnan()] = 0.0
        return boxes


def example(tmp_path) -> DriveFolderConfig:
    write_drive(KnownDrive(), tmp_path, LABELS, between=3)
    return DriveFolderConfig(root=str(tmp_path), sweeps=3, ahead=(1,), hold_out=0.25)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write_drive(AnalyticDrive(num=2), folder, LABELS)
    return folder


@pytest.fixture
def root(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "root"))


def edit(path: Path, change) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def read(root: Path, index: int = 1, **fields):
    return DriveFolderConfig(root=str(root), **{"hold_out": 0.0, **fields}).build()[index]


def assert_same_boxes(a, b) -> None:
    for name in ("centre", "size", "yaw", "label", "velocity"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), equal_nan=True, atol=1e-5, rtol=0)


def test_what_is_written_is_read_back(tmp_path, choices):
    write_drive(AnalyticDrive(), tmp_path, LABELS, between=3)
    fields = {"sweeps": 4, "ahead": (1,), "depth_sweeps": 2, "colours": True}
    scene = read(tmp_path, 2, **fields)
    true = DrivingDataset(choices(**fields), [AnalyticDrive()], LABELS)[2]
    for name in ("xyz", "rgb", "labels", "intensity", "time"):
        assert torch.equal(getattr(scene, name), getattr(true, name)), name
    assert torch.equal(scene.views.depth, true.views.depth) and torch.equal(scene.views.rgb, true.views.rgb)
    torch.testing.assert_close(scene.views.cameras.world_from_cam, true.views.cameras.world_from_cam)
    assert_same_boxes(scene.boxes, true.boxes)
    assert scene.source.endswith("street/lidar/000002.npy:street-000002")
    assert scene.views.names == ("front/000002", "back/000002", "front/000003", "back/000003")


def test_the_end_of_each_drive_or_whole_drives_are_held_out(tmp_path):
    for name, num in (("a", 4), ("b", 1)):
        write_drive(AnalyticDrive(num=num, name=name), tmp_path, LABELS)
    config = DriveFolderConfig(root=str(tmp_path), hold_out=0.3)
    names = [
        [data.view_names(i)[1][0] for i in range(len(data))] for data in (config.build(), config.held_out().build())
    ]
    assert names == [["front/000000", "front/000001", "front/000000"], ["front/000002", "front/000003"]]
    whole = DriveFolderConfig(root=str(tmp_path), test_drives=("a",))
    assert (len(whole.build()), len(whole.held_out().build())) == (1, 4)
    assert len(DriveFolderConfig(root=str(tmp_path), drives=("b",), hold_out=0.0).build()) == 1
    with pytest.raises(DataError, match="no key frame is held out; change --data.hold-out"):
        DriveFolderConfig(root=str(tmp_path), hold_out=0.0).held_out().build()


def test_other_axes_mean_the_same_scene(root):
    """Everything of the laser written x forward, y left: x of theirs is y of ours."""
    before = read(root)
    theirs = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # their axes from ours
    drive = root / "street"
    for path in (drive / "lidar").iterdir():
        table = np.load(path)
        table[:, :3] = table[:, :3] @ theirs[:3, :3].T
        np.save(path, table)
    rows = read_poses(drive / "poses.txt")
    text = [",".join(map(str, (r.name, r.seconds, *(r.pose @ theirs.T)[:3].flatten()))) for r in rows]
    (drive / "poses.csv").write_text("name,seconds,pose\n" + "\n".join(text))
    (drive / "poses.txt").unlink()

    def turn(boxes):
        for box in (box for own in boxes.values() for box in own):
            x, y, z = box["centre"]
            box["centre"], box["yaw"] = [y, -x, z], box["yaw"] - np.pi / 2
            if "velocity" in box:
                box["velocity"] = [box["velocity"][1], -box["velocity"][0]]

    edit(drive / "boxes.json", turn)
    edit(drive / "calibration.json", lambda record: record.update(laser={"axes": "forward left up"}))
    scene = read(root)
    torch.testing.assert_close(scene.xyz, before.xyz)
    torch.testing.assert_close(scene.views.depth, before.views.depth)
    assert_same_boxes(scene.boxes, before.boxes)


def test_cameras_fixed_to_the_vehicle(root):
    """Without poses of their own: the laser 1 m above the vehicle's origin, the camera at the laser."""
    before = read(root)
    drive = root / "street"
    up = np.eye(4)
    up[2, 3] = 1.0
    forward = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    backward = np.array([[-1.0, 0, 0, 0], [0, 0, -1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])

    def place(record):
        record["vehicle_from_laser"] = up.tolist()
        record["cameras"]["front"]["vehicle_from_camera"] = (up @ forward).tolist()
        record["cameras"]["back"]["laser_from_camera"] = backward.tolist()

    for name in ("front", "back"):
        (drive / "cameras" / name / "poses.txt").unlink()
    with pytest.raises(DataError, match="cameras: front: 0 of laser_from_camera and vehicle_from_camera are there"):
        read(root)
    edit(drive / "calibration.json", place)
    assert torch.equal(read(root).views.depth, before.views.depth)
    edit(drive / "calibration.json", lambda record: record.pop("vehicle_from_laser"))
    with pytest.raises(DataError, match="cameras: front: vehicle_from_camera needs vehicle_from_laser"):
        read(root)


def test_kinds_of_point_files(root):
    before, folder = read(root), root / "street" / "lidar"
    table = np.load(folder / "000001.npy")
    (folder / "000001.npy").unlink()
    wide = np.concatenate([table * [1, 1, 1, 255], np.zeros((len(table), 1))], axis=1).astype("<f4")
    (folder / "000001.bin").write_bytes(wide.tobytes())
    laser = {"columns": ["x", "y", "z", "intensity", "ring"], "brightest": 255}
    edit(root / "street" / "calibration.json", lambda record: record.update(laser=laser))
    assert torch.equal(read(root).xyz, before.xyz)
    torch.testing.assert_close(read(root).intensity, before.intensity)
    (folder / "000001.bin").write_bytes(wide.tobytes()[:-4])
    with pytest.raises(DataError, match="000001.bin: .* no whole number of points of 5 float32"):
        read(root)
    (folder / "000001.bin").unlink()
    header = "ply\nformat ascii 1.0\nelement vertex 2\n" + "".join(f"property float {c}\n" for c in ("x", "y", "z"))
    rows = "property float intensity\nend_header\n5 6 7 51\n8 9 1 0\n"
    (folder / "000001.ply").write_text(header + rows)
    (root / "street" / "labels" / "000001.npy").unlink()
    np.save(root / "street" / "labels" / "000001.npy", np.array([1, 0]))
    scene = read(root)
    assert scene.xyz.tolist() == [[5, 6, 7], [8, 9, 1]] and scene.labels.tolist() == [1, 0]
    torch.testing.assert_close(scene.intensity, torch.tensor([0.2, 0.0]))


def remove(name):
    return lambda drive: (drive / name).unlink()


def calibrate(change):
    return lambda drive: edit(drive / "calibration.json", change)


def boxes(change):
    return lambda drive: edit(drive / "boxes.json", lambda record: change(record["000001"][0]))


def save(name, array):
    return lambda drive: np.save(drive / name, array)


def write(name, text):
    return lambda drive: (drive / name).write_text(text)


def no_points(drive):
    np.save(drive / "lidar/000001.npy", np.zeros((0, 4)))
    np.save(drive / "labels/000001.npy", np.zeros(0, dtype=int))


FAULTS = {
    "laser": (remove("lidar/000001.npy"), r"street/lidar: no 000001 with an ending .npy, .bin"),
    "image": (remove("cameras/back/000001.png"), r"cameras/back: no 000001 with an ending .jpg"),
    "poses": (remove("poses.txt"), "poses.txt and poses.csv: 0 of them"),
    "classes": (lambda drive: (drive.parent / "classes.json").unlink(), "labels: .*no .*classes.json"),
    "empty": (no_points, "000001.npy: xyz: no points; leave this key frame out"),
    "columns": (save("lidar/000001.npy", np.zeros((5, 3))), r"000001.npy: an array of shape \(5, 3\)"),
    "intensity": (
        save("lidar/000001.npy", np.full((5, 4), 9.0)),
        "000001.npy: intensity: from 9 to 9, not from 0 to 1",
    ),
    "objects": (save("lidar/000001.npy", np.array([None])), "000001.npy: no array"),
    "labels": (save("labels/000001.npy", np.zeros(3, dtype=int)), r"000001.npy: labels: of shape \(3,\)"),
    "json": (write("calibration.json", '{"cameras": '), "calibration.json: no JSON"),
    "entry": (calibrate(lambda r: r.update(camera={})), "calibration.json: an entry 'camera'; known are laser"),
    "axes": (calibrate(lambda r: r.update(laser={"axes": "up"})), "laser: axes: 'up'; expected 'right forward up'"),
    "column": (calibrate(lambda r: r.update(laser={"columns": ["x", "y"]})), "columns: x, y; it takes x, y and z"),
    "bright": (calibrate(lambda r: r.update(laser={"brightest": 0})), "laser: brightest: 0; expected a positive"),
    "K": (calibrate(lambda r: r["cameras"]["front"].update(K=[[1]])), r"front: K: an array of shape \(1, 1\)"),
    "focal": (
        calibrate(lambda r: r["cameras"]["front"]["K"][0].__setitem__(0, -1)),
        "front: intrinsics: .* positive fx",
    ),
    "size": (calibrate(lambda r: r["cameras"]["front"].update(size=[20, 40])), "000001.png: an image of 40x24; cal"),
    "path": (calibrate(lambda r: r["cameras"].update({"../x": {}})), "'../x' is no name of a folder"),
    "word": (write("poses.txt", "a 1 2 3"), "poses.txt: line 1: 4 words; expected name, seconds, and 12 or 16"),
    "skewed": (write("poses.txt", "a 1 2 0 0 0 0 1 0 0 0 0 1 0"), "line 1: pose a: no rotation"),
    "mirror": (write("poses.txt", "a 1 -1 0 0 0 0 1 0 0 0 0 1 0"), r"line 1: pose a: it mirrors \(determinant -1\)"),
    "order": (
        write("poses.txt", "a 1 1 0 0 0 0 1 0 0 0 0 1 0\nb 1 1 0 0 0 0 1 0 0 0 0 1 0"),
        "poses.txt: timestamps: out of order: number 1 .1.000000 s. is not after number 0",
    ),
    "twice": (write("poses.txt", "a 1 1 0 0 0 0 1 0 0 0 0 1 0\na 2 1 0 0 0 0 1 0 0 0 0 1 0"), "a is there twice"),
    "exposures": (write("cameras/front/poses.txt", ""), "front/poses.txt: no pose 000000, which is a key frame"),
    "class": (boxes(lambda box: box.update({"class": "tank"})), "000001: box 0: class: 'tank' is none of car, truck"),
    "centre": (boxes(lambda box: box.pop("centre")), "boxes.json: 000001: box 0: no entry 'centre'"),
    "frame": (write("boxes.json", '{"7": []}'), "boxes.json: expected an object with an entry per key frame"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named(root, fault):
    plant, message = FAULTS[fault]
    plant(root / "street")
    with pytest.raises(DataError, match=message):
        read(root)


def test_boxes_without_size_are_told_and_unknown_velocities_stay_unknown(root):
    edit(root / "street" / "boxes.json", lambda record: record["000001"][0].update(size=[0, 1, 1]))
    scene = read(root)
    assert len(scene.boxes.label) == 1 and bool(scene.boxes.velocity.isnan().all())
    assert scene.skipped == (f"{root}/street/lidar/000001.npy: boxes: number 0 is left out: size [0.0, 1.0, 1.0]",)


def test_directories_that_are_none(tmp_path):
    for fields, message in (
        ({}, "DriveFolderConfig.root is empty"),
        ({"root": str(tmp_path / "none")}, "none: no such directory"),
        ({"root": str(tmp_path)}, "no folder with a calibration.json"),
    ):
        with pytest.raises(DataError, match=message):
            DriveFolderConfig(**fields).build()
    write_drive(AnalyticDrive(num=1), tmp_path)
    with pytest.raises(DataError, match="drives: no drive mine; there are street"):
        DriveFolderConfig(root=str(tmp_path), drives=("mine",)).build()
    with pytest.raises(ValueError, match="hold_out must be at least 0 and below 1"):
        DriveFolderConfig(hold_out=1.0)


def test_a_drive_is_not_written_twice_nor_beside_other_classes(tmp_path, street_labels):
    write_drive(AnalyticDrive(num=1), tmp_path, LABELS)
    with pytest.raises(DataError, match="street: it is there already"):
        write_drive(AnalyticDrive(num=1), tmp_path, LABELS)
    other = type(LABELS)(("x",), ((0, 0, 0),))
    with pytest.raises(DataError, match="classes.json: other classes than x"):
        write_drive(AnalyticDrive(num=1, name="lane"), tmp_path, other)
    with pytest.raises(DataError, match="'../up': no name of a folder"):
        write_drive(AnalyticDrive(num=1, name="../up"), tmp_path, LABELS)


@pytest.mark.parametrize("number", [QUICK // 3, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", ["calibration.json", "poses.txt", "boxes.json", "lidar/000001.npy", "labels/000001.npy"]
)
def test_damaged_files_are_errors_of_data(root, name, number):
    path = root / "street" / name

    def reader(data: bytes) -> None:
        path.write_bytes(data)
        read(root, images=False)

    check_reader(reader, [path.read_bytes()], number)
