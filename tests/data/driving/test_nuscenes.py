"""nuScenes: scenes of a tiny one in the official layout against numbers by hand, faults, and real key frames."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from nuscenes_files import LANDMARKS, SCENES, read_table, sweep_points, write_nuscenes, write_table

from ponder3d.data.dataset import DataError
from ponder3d.data.driving import nuscenes_index
from ponder3d.data.driving.classes import DETECTION_LABELS, STREET_LABELS
from ponder3d.data.driving.nuscenes import NuScenesConfig, NuScenesDrive
from ponder3d.data.driving.nuscenes_index import CAMERAS, NuScenesIndex
from ponder3d.data.driving.nuscenes_tables import table_rows
from ponder3d.geometry.boxes import points_in_boxes
from ponder3d.geometry.cameras import project
from ponder3d.types import Boxes

BASE = NuScenesConfig(version="v1.0-mini", split="train")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Where a whole one is; not to be changed."""
    root = tmp_path_factory.mktemp("nuscenes")
    write_nuscenes(root)
    return root


@pytest.fixture
def files(tmp_path):
    """One to damage."""
    write_nuscenes(tmp_path)
    return tmp_path


def example(tmp_path):
    write_nuscenes(tmp_path)
    return replace(BASE, root=str(tmp_path))


def drive_of(root, labels: bool = True) -> NuScenesDrive:
    index = NuScenesIndex(root / "v1.0-mini", None, frozenset(), labels)
    return NuScenesDrive(root, index, index.scenes[0])


def in_laser(scene: int, seconds: float) -> torch.Tensor:
    x, y, z = torch.tensor(LANDMARKS[scene], dtype=torch.float32).T
    return torch.stack([50 - y, x - 101 - 4 * seconds, z - 1.8], dim=1)


def test_splits_are_scenes(written):
    root = str(written)
    train, val = (replace(BASE, root=root, split=split).build() for split in ("train", "val"))
    assert (len(train), len(val)) == (3, 3)
    assert [train[i].source.rpartition(":")[2] for i in (0, 2)] == ["scene-0061-0000", "scene-0061-0002"]
    assert val[1].recording == "scene-0103"
    everything = replace(BASE, root=root, split="")
    assert len(everything.build()) == 6
    with pytest.raises(DataError, match=r"split is empty: all scenes are trained on"):
        everything.held_out()
    ours = replace(BASE, root=root, test_drives=("scene-0061",))
    assert {ours.build()[i].recording for i in range(3)} == {"scene-0103"}
    assert {ours.held_out().build()[i].recording for i in range(3)} == {"scene-0061"}
    assert replace(BASE, root=root).held_out() == replace(BASE, root=root, split="val")


def test_the_cloud_of_a_key_frame_by_hand(written):
    scene = replace(BASE, root=str(written)).build()[1]
    # Half a second on: the laser is at (103, 50, 1.8), its y axis along world x. Two points are the vehicle's own.
    torch.testing.assert_close(scene.xyz, in_laser(0, 0.5), atol=1e-5, rtol=0)
    assert scene.xyz[0].tolist() == [0, 17, 0]
    assert scene.time is not None and not bool(scene.time.any())
    expected = torch.tensor([1, 3, 4, 5, 6, 7, 8, 9]) * 25.5 / 255
    torch.testing.assert_close(scene.intensity, expected, atol=1e-6, rtol=0)
    names = [STREET_LABELS.names[row] for row in scene.labels.tolist()]
    assert names == [
        *("car", "manmade", "drivable surface", "sidewalk", "vegetation", "vegetation", "drivable surface"),
        "traffic cone",
    ]


def test_earlier_sweeps_come_to_where_the_vehicle_is(written):
    scene = replace(BASE, root=str(written), sweeps=4).build()[2]
    assert len(scene.xyz) == 32
    for part, age in zip(scene.xyz.split(8), (0, 0.25, 0.5, 0.75), strict=True):
        torch.testing.assert_close(part, in_laser(0, 1.0), atol=1e-4, rtol=0)
        assert scene.time is not None and float(scene.time[8 * round(4 * age)]) == pytest.approx(age)
    assert scene.labels is not None and scene.labels[8:].tolist() == [-1] * 24
    at_start = replace(BASE, root=str(written), sweeps=4).build()[0]
    assert len(at_start.xyz) == 8, "there is none before the first"


def test_every_point_of_the_file_in_order(written):
    sweep = drive_of(written).sweep(1)
    np.testing.assert_allclose(sweep.xyz.numpy(), sweep_points(0, 0.5)[:, :3])
    assert sweep.labels is not None and sweep.labels[[0, 2]].tolist() == [-1, -1]
    assert sweep.seconds == 0.5 and sweep.source.endswith("1532402927500000.pcd.bin")
    torch.testing.assert_close(sweep.world_from_sensor[:3, 3], torch.tensor([103.0, 50, 1.8], dtype=torch.float64))
    before = drive_of(written).earlier(1, 9)
    assert [round(s.seconds, 6) for s in before] == [0.25, 0.0] and before[0].labels is None
    assert "sweeps" in before[0].source and "samples" in before[1].source
    assert drive_of(written).earlier(1, 1)[0].seconds == 0.25
    assert drive_of(written).token(1) == "lidar-0-2"


def test_cameras_have_their_own_instants(written):
    shots = drive_of(written).shots(1, CAMERAS)
    assert [shot.name.split("__")[1] for shot in shots] == list(CAMERAS)
    back = shots[3]  # 30 ms after the laser: 0.12 m on
    torch.testing.assert_close(
        back.world_from_cam,
        torch.tensor([[0.0, 0, -1, 102.62], [1, 0, 0, 50], [0, -1, 0, 1.5], [0, 0, 0, 1]], dtype=torch.float64),
        atol=1e-9,
        rtol=0,
    )
    assert back.rgb.shape == (18, 32, 3) and (back.rgb[0, 0] - torch.tensor([110, 70, 10])).abs().max() <= 3
    assert drive_of(written).shot_names(1, CAMERAS) == tuple(shot.name for shot in shots)


def test_the_views_see_what_the_laser_measures(written):
    views = replace(BASE, root=str(written), depth_closest=0.0).build()[0].views
    assert views is not None and views.depth is not None
    # (120, 50, 1.8) is 19.5 m before the front camera at (100.5, 50, 1.5): v = 8.5 - 20 * 0.3 / 19.5 = 8.19.
    assert float(views.depth[0, 8, 15:17].max()) == pytest.approx(19.5)
    # (104, 57, 1), seen by the camera turned to the left by 55 degrees at (100.7, 50, 1.5), 50 ms later.
    turn = math.radians(55)
    depth = math.cos(turn) * 3.3 + math.sin(turn) * 7
    assert float((views.depth[5] - depth).abs().min()) < 1e-4


def test_boxes_by_hand(written):
    boxes = drive_of(written).boxes(1)
    assert boxes is not None and [DETECTION_LABELS.names[i] for i in boxes.label.tolist()] == ["car", "pedestrian"]
    # The car at (111, 50, 1), the laser at (103, 50, 1.8); turned 30 degrees to the left of ahead, which is y.
    torch.testing.assert_close(boxes.centre[0], torch.tensor([0.0, 8, -0.8]), atol=1e-6, rtol=0)
    torch.testing.assert_close(boxes.yaw, torch.tensor([math.radians(120), math.radians(90)]), atol=1e-6, rtol=0)
    assert boxes.size[0].tolist() == pytest.approx([4.5, 1.8, 1.5])  # along itself, across, up
    # From the sample before to the one after: 2 m in 1 s, ahead; and 1 m in 1 s, to the right.
    torch.testing.assert_close(boxes.velocity, torch.tensor([[0.0, 2], [1, 0]]), atol=1e-6, rtol=0)
    assert drive_of(written).points_in_boxes(2).tolist() == [2, 2]


def test_velocities_over_long_gaps_are_unknown(files):
    samples = read_table(files, "sample")
    for row in samples:
        if row["token"] == "sample-0-2":
            row["timestamp"] += 1_100_000  # 1.6 s after the second, 2.1 s after the first
    write_table(files, "sample", samples)
    rows = [row for row in read_table(files, "sample_annotation") if row["token"] != "walker-0-1"]
    for row in rows:
        if row["token"].startswith("walker"):
            row["prev"] = row["next"] = ""
    write_table(files, "sample_annotation", rows)
    drive = drive_of(files)
    first, second, last = (drive.boxes(k).velocity for k in range(3))
    assert first[0].tolist() == pytest.approx([0, 2], abs=1e-5)  # over 0.5 s
    assert second[0].tolist() == pytest.approx([0, 2 / 2.1], abs=1e-5)  # both sides: up to 3 s
    assert bool(last[0].isnan().all())  # 1.6 s
    assert bool(first[1].isnan().all())  # alone


def test_without_lidarseg(tmp_path):
    write_nuscenes(tmp_path, lidarseg=False)
    config = replace(BASE, root=str(tmp_path))
    data = config.build()
    assert data.labels is None and data[0].labels is None and data[0].boxes is not None
    with pytest.raises(DataError, match=r"lidarseg.json: no classes of points; get nuScenes-lidarseg .*labels none"):
        replace(config, labels="required").build()


def test_labels_may_be_left_out(written):
    data = replace(BASE, root=str(written), labels="none").build()
    assert data.labels is None and data[0].labels is None


def test_the_test_split_has_tables_of_its_own_and_no_annotations(tmp_path):
    write_nuscenes(tmp_path, version="v1.0-test")
    for table in ("sample_annotation", "instance"):
        write_table(tmp_path, table, [], "v1.0-test")
    scenes = read_table(tmp_path, "scene", "v1.0-test")
    scenes[0]["name"] = "scene-0077"
    write_table(tmp_path, "scene", scenes, "v1.0-test")
    data = NuScenesConfig(root=str(tmp_path), split="test", labels="required").build()
    assert len(data) == 3 and data.labels is None and data[0].boxes is None
    found = data.benchmark_file(0, data[0])
    assert found is not None and found.path == "lidarseg/test/lidar-0-0_lidarseg.bin"


def test_what_the_benchmark_wants(written):
    data = replace(BASE, root=str(written), sweeps=2).build()
    scene = data[1]
    assert data.benchmark == "nuscenes" and data.benchmark_ids == tuple(range(1, 17))
    found = data.benchmark_file(1, scene)
    assert found is not None and found.path == "lidarseg/mini_train/lidar-0-2_lidarseg.bin"
    assert found.own.tolist() == [False, True, False, *[True] * 7]
    assert found.rows[found.own].tolist() == list(range(8))
    # The first dropped point (0.2, -0.3, -0.5) is nearest to (5, 2, -1.8), of either sweep; the other to (-7, 1, -0.8).
    nearest = scene.xyz[found.rows[~found.own]]
    torch.testing.assert_close(nearest, torch.tensor([[5.0, 2, -1.8], [-7.0, 1, -0.8]]), atol=1e-5, rtol=0)
    ours = replace(BASE, root=str(written), test_drives=SCENES[:1]).build()
    assert ours.benchmark_ids == () and ours.benchmark_file(0, ours[0]) is None


def changed(table: str, own: str, **values):
    """A fault: fields of a row are other ones."""

    def change(root):
        rows = read_table(root, table)
        next(row for row in rows if row["token"] == own).update(values)
        write_table(root, table, rows)

    return change


def cut(name: str, size: int):
    def change(root):
        path = next(root.rglob(name))
        path.write_bytes(path.read_bytes()[:size])

    return change


def removed(name: str):
    return lambda root: next(root.rglob(name)).unlink()


def without_field(root):
    rows = read_table(root, "sample")
    del rows[1]["timestamp"]
    write_table(root, "sample", rows)


def spoilt_intensity(root):
    path = next(root.rglob("*LIDAR_TOP__1532402927000000.pcd.bin"))
    points = np.frombuffer(path.read_bytes(), "<f4").copy()
    points[3] = 256
    path.write_bytes(points.tobytes())


def spoilt_label(root):
    path = next(root.rglob("lidar-0-0_lidarseg.bin"))
    path.write_bytes(bytes([99]) + path.read_bytes()[1:])


KEY, BETWEEN = "n0__LIDAR_TOP__1532402927000000.pcd.bin", "n0__LIDAR_TOP__1532402927250000.pcd.bin"
FAULTS = {
    "no table": (removed("ego_pose.json"), r"ego_pose.json: no such table; unpack the metadata"),
    "cut table": (cut("sample_data.json", 4000), r"sample_data.json: damaged or cut short .*; get the table again"),
    "empty table": (cut("sensor.json", 0), r"sensor.json: damaged or cut short \(it does not begin with a list\)"),
    "no field": (without_field, r"sample.json: row 1 has no field 'timestamp'"),
    "other type": (changed("sample", "sample-0-0", timestamp="x"), r"row 0: timestamp is 'x', expected int"),
    "nowhere: sensor": (
        changed("calibrated_sensor", "c-CAM_BACK", sensor_token="?"),
        r"calibrated_sensor.json: c-CAM_BACK: sensor_token names '\?', which .*sensor.json does not have",
    ),
    "nowhere: pose": (
        changed("sample_data", "lidar-0-1", ego_pose_token="?"),
        r"sample_data.json: lidar-0-1: ego_pose_token names '\?', which .*ego_pose.json does not have",
    ),
    "nowhere: sweep": (changed("sample_data", "lidar-0-1", prev="?"), r"lidar-0-1: prev names '\?', which"),
    "nowhere: instance": (
        changed("sample_annotation", "car-0-1", instance_token="?"),
        r"sample_annotation.json: car-0-1: instance_token names '\?', which .*instance.json does not have",
    ),
    "nowhere: annotation": (changed("sample_annotation", "car-0-1", next="?"), r"car-0-1: next names '\?', which"),
    "nowhere: category": (changed("instance", "car-0", category_token="?"), r"car-0: category_token names '\?'"),
    "category": (changed("category", "cat-noise", name="noises"), r"'noises' is no category of nuScenes"),
    "no rotation": (
        changed("calibrated_sensor", "c-LIDAR_TOP", rotation=[1, 1, 0, 0]),
        r"calibrated_sensor.json: c-LIDAR_TOP: rotation has the length 1.41421, and a rotation's quaternion has 1",
    ),
    "no vector": (
        changed("ego_pose", "ego-lidar-0-0", translation=[1, 2]),
        r"ego_pose.json: ego-lidar-0-0: translation is \[1, 2\], expected 3 finite numbers",
    ),
    "not finite": (
        changed("ego_pose", "ego-lidar-0-0", translation=[1, 2, math.nan]),
        r"ego-lidar-0-0: translation is \[1.0, 2.0, nan\], expected 3 finite numbers",
    ),
    "no camera matrix": (
        changed("calibrated_sensor", "c-CAM_BACK", camera_intrinsic=[[20, 0, 1], [0, -20, 1], [0, 0, 1]]),
        r"c-CAM_BACK: camera_intrinsic is no pinhole camera's matrix",
    ),
    "samples out of order": (
        changed("sample", "sample-0-1", timestamp=1),
        r"sample.json: sample-0-\d of scene-0061: its timestamp is out of order with those of its prev and next",
    ),
    "sweeps out of order": (
        changed("sample_data", "lidar-0-2", timestamp=5),
        r"sample_data.json: lidar-0-2: its timestamp is not after that of its prev",
    ),
    "samples missing": (
        changed("scene", "scene0", nbr_samples=4),
        r"sample.json: scene-0061 has 3 samples, and .*scene.json says 4",
    ),
    "no laser": (changed("sample_data", "lidar-0-0", is_key_frame=False), r"has no LIDAR_TOP of the sample sample-0-0"),
    "two of a sample": (
        changed("sample_data", "lidar-0-1", is_key_frame=True),
        r"lidar-0-1: a second key frame of LIDAR_TOP|lidar-0-2: a second key frame of LIDAR_TOP",
    ),
    "no camera": (changed("sample_data", "CAM_BACK-0-0", is_key_frame=False), r"has no CAM_BACK of the sample"),
    "image outside": (changed("sample_data", "CAM_BACK-0-0", filename="../x.jpg"), r"filename '../x.jpg' is no file"),
    "no image": (removed("n0__CAM_BACK__1532402927030000.jpg"), r"CAM_BACK__1532402927030000.jpg: cannot be read"),
    "no key sweep": (removed(KEY), r"1532402927000000.pcd.bin: cannot be read \(FileNotFoundError\); unpack the part"),
    "no earlier sweep": (removed(BETWEEN), r"1532402927250000.pcd.bin: cannot be read .* or ask for fewer sweeps"),
    "cut sweep": (cut(KEY, 39), r"1532402927000000.pcd.bin: 39 bytes are no whole number of points of 20 bytes"),
    "empty sweep": (cut(KEY, 0), r"1532402927000000.pcd.bin: .*no points"),
    "intensity": (spoilt_intensity, r"1532402927000000.pcd.bin: intensity is not from 0 to 255"),
    "other labels": (
        cut("lidar-0-0_lidarseg.bin", 7),
        r"0-0_lidarseg.bin: 7 labels, and the sweep has 10 points",
    ),
    "unknown label": (
        spoilt_label,
        r"0-0_lidarseg.bin: point 0 has the label 99, which .*category.json does not",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_have_a_message(files, fault):
    change, message = FAULTS[fault]
    change(files)
    with pytest.raises(DataError, match=message):
        data = replace(BASE, root=str(files), sweeps=2).build()
        assert [data[i] for i in range(len(data))]


def test_a_box_without_a_size_is_left_out_and_told(files):
    changed("sample_annotation", "car-0-0", size=[0.0, 1.0, 1.0])(files)
    scene = replace(BASE, root=str(files)).build()[0]
    assert scene.boxes is not None and scene.boxes.label.tolist() == [DETECTION_LABELS.names.index("pedestrian")]
    assert len(scene.skipped) == 1 and "size" in scene.skipped[0]


def test_choices_have_messages(written):
    with pytest.raises(DataError, match=r"root is empty"):
        BASE.build()
    config = replace(BASE, root=str(written))
    with pytest.raises(DataError, match=r"v1.0-trainval: no such folder of tables; there is v1.0-mini"):
        replace(config, version="v1.0-trainval").build()
    with pytest.raises(DataError, match=r"no such folder of tables; unpack nuScenes' metadata"):
        replace(config, root=str(written / "samples")).build()
    with pytest.raises(DataError, match=r"has no scene-9999, which test_drives names"):
        replace(config, test_drives=("scene-9999",)).build()
    with pytest.raises(DataError, match=r"none of its 2 scenes is of the split 'val'; choose another"):
        changed("scene", "scene1", name="scene-0104")(written)
        try:
            replace(config, split="val").build()
        finally:
            changed("scene", "scene1", name="scene-0103")(written)


@pytest.mark.parametrize("table", ["calibrated_sensor", "sample", "sample_data", "sample_annotation", "lidarseg"])
def test_damaged_tables(files, fuzz, table):
    path = files / "v1.0-mini" / f"{table}.json"
    config = replace(BASE, root=str(files), images=False)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        nuscenes_index._kept_index.cache_clear()  # the clock of files is coarser than this loop
        config.build()[1]

    assert fuzz(read, [path.read_bytes()]) > 10


def test_tables_are_read_once_for_a_split(files, monkeypatch):
    reads = []
    original = NuScenesIndex._read_samples
    monkeypatch.setattr(NuScenesIndex, "_read_samples", lambda self, *a: reads.append(0) or original(self, *a))
    config = replace(BASE, root=str(files))
    for _ in range(2):
        config.build()
        config.held_out().build()
    assert len(reads) == 2
    changed("scene", "scene0", name="scene-0553")(files)
    assert config.build()[0].recording == "scene-0553" and len(reads) == 3


def test_rows_are_found_across_the_parts_of_a_file(files, monkeypatch):
    whole = drive_of(files)
    monkeypatch.setattr("ponder3d.data.driving.nuscenes_tables._CHUNK", 37)
    monkeypatch.setattr("ponder3d.data.driving.nuscenes_tables._LONGEST", 2000)
    parts = drive_of(files)
    assert torch.equal(whole.sweep(2).world_from_sensor, parts.sweep(2).world_from_sensor)
    monkeypatch.setattr("ponder3d.data.driving.nuscenes_tables._LONGEST", 20)
    with pytest.raises(DataError, match="a row has|damaged"):
        drive_of(files)


@pytest.mark.parametrize(
    ("text", "rows"),
    [("[]", 0), (" \n[ ] \n", 0), ('[{"a": 1}]', 1), ('[\n{"a": 1} ,\n {"a": 2}\n]\n', 2)],
)
def test_tables_are_lists(tmp_path, text, rows):
    (tmp_path / "t.json").write_text(text)
    assert len(list(table_rows(tmp_path / "t.json", {"a": int}))) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with a list"),
        ("{}", "does not begin with a list"),
        ("[", "damaged"),
        ('[{"a": 1}', "the list does not end"),
        ('[{"a": 1} {"a": 2}]', "the list does not end"),
        ('[{"a": 1},]', "damaged"),
        ("[,]", "damaged"),
        ('[{"a": 1}] x', "something follows the list"),
        ('[{"a": 1}, 5]', "row 1 has no field 'a'"),
        ('[{"a": 1.5}]', "row 0: a is '1.5', expected int"),
        ('[{"a": true}]', "expected int"),
        ("[" * 100_000, "damaged"),
        ('[{"a": ' + "9" * 5000 + "}]", "damaged"),
        ('[{"a": 1', "damaged"),
    ],
)
def test_what_is_no_table(tmp_path, text, message):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match=rf"t\.json: .*{message}"):
        list(table_rows(tmp_path / "t.json", {"a": int}))


REAL = NuScenesConfig(version="v1.0-mini", split="", image_size=(90, 160))


def test_real_key_frames(real_data):
    root = real_data("nuscenes")
    data = replace(REAL, root=str(root)).build()
    assert len(data) == 2 and data.labels is None
    num_boxes, seen_by, cameras_with_points = 0, [], 0
    for index, (in_boxes, annotated) in enumerate(((985, 999), (1533, 1541))):
        scene = data[index]
        drive = data._drives[index]
        assert isinstance(drive, NuScenesDrive) and scene.views is not None and scene.boxes is not None
        num_boxes += len(scene.boxes.label)
        assert int(drive.points_in_boxes(0).sum()) == annotated
        # A millimetre more to each side: points lie on the boxes' surfaces.
        grown = replace(scene.boxes, size=scene.boxes.size + 2e-3)
        assert int(points_in_boxes(drive.sweep(0).xyz, grown)[0].sum()) == in_boxes
        # Upright in the world instead of the laser's frame, which is tilted by 2 degrees, they hold every point.
        inside, _ = points_in_boxes(*_in_world(drive))
        assert torch.equal(inside, drive.points_in_boxes(0))
        far = scene.xyz[scene.xyz.norm(dim=1) > 2]
        seen = torch.zeros(len(far), dtype=torch.bool)
        cameras = scene.views.cameras
        for view in range(6):
            uv, depth = project(cameras, far, torch.full((len(far),), view))
            inside_image = ((uv > -0.5) & (uv < torch.tensor([159.5, 89.5]))).all(1) & (depth > 0)
            cameras_with_points += bool(inside_image.any())
            seen |= inside_image
        seen_by.append(float(seen.float().mean()))
    assert (num_boxes, cameras_with_points) == (105, 12)
    assert all(0.765 <= share <= 0.785 for share in seen_by)


def _in_world(drive: NuScenesDrive) -> tuple[torch.Tensor, Boxes]:
    """Points and boxes with the axes of the world and the origin of the laser."""
    sweep, index = drive.sweep(0), drive._index
    rows = index.boxes_of(drive._samples[0])
    turn, origin = sweep.world_from_sensor[:3, :3], sweep.world_from_sensor[:3, 3]
    heading = index.box_rotation[rows][:, :, 0]
    boxes = Boxes(
        centre=(torch.from_numpy(index.box_centre[rows]) - origin).float(),
        size=torch.from_numpy(index.box_size[rows]).float(),
        yaw=torch.from_numpy(np.arctan2(heading[:, 1], heading[:, 0])).float(),
        label=torch.from_numpy(index.box_label[rows]),
    )
    return (sweep.xyz.double() @ turn.T).float(), boxes
