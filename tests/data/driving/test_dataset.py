"""Scenes of a drive down a street that is known exactly: HEIGHT above flat ground, towards a wall."""

from dataclasses import replace

import pytest
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.dataset import DrivingDataset
from ponder3d.geometry.cameras import unproject

WALL_Y, HEIGHT, STEP = 30.0, 2.0, 1.5


@pytest.fixture
def scene_of(analytic, choices, street_labels):
    """A scene of a drive with these choices; by default of its key frame 1."""

    def read(frame: int = 1, drive=None, **fields):
        return DrivingDataset(choices(**fields), [analytic() if drive is None else drive], street_labels)[frame]

    return read


def off_surface(xyz: torch.Tensor, driven: float) -> torch.Tensor:
    """Distance of points, in the frame of a laser that drove so far, to ground or wall."""
    return torch.minimum((xyz[:, 2] + HEIGHT).abs(), (xyz[:, 1] + driven - WALL_Y).abs())


def test_the_cloud_is_in_the_frame_of_the_key_laser(scene_of, analytic):
    scene = scene_of()
    # The map's origin is 5 000 km away: in float32 points would be up to 0.25 m off.
    assert float(off_surface(scene.xyz, STEP).max()) < 1e-4
    assert scene.source == "sweep-2:street-0001" and scene.recording == "street" and scene.skipped == ()
    assert torch.equal(scene.labels == 1, scene.intensity == 0.75) and scene.normal is None and scene.rgb is None
    assert not bool(scene.time.any()) and scene.bounds is None


def test_earlier_sweeps_are_where_the_key_frame_sees_their_points(scene_of):
    one, three = scene_of(), scene_of(sweeps=3)
    num = len(one.xyz)
    assert torch.equal(three.xyz[:num], one.xyz)
    assert float(off_surface(three.xyz, STEP).max()) < 1e-4
    assert three.time.unique().tolist() == [0.0, 0.25, 0.5]  # two revolutions a key frame, half a second apart
    assert bool((three.labels[num:] == -1).all()) and bool((three.labels[:num] >= 0).all())


def test_fewer_sweeps_than_wanted_are_all_there_are(scene_of):
    assert scene_of(frame=0, sweeps=10).time.unique().tolist() == [0.0]
    assert len(scene_of(frame=1, sweeps=10).time.unique()) == 3


@pytest.mark.parametrize("closest", [0.0, 6.0])
def test_what_is_close_is_the_vehicle(scene_of, closest):
    xyz, all_xyz = scene_of(closest=closest).xyz, scene_of(closest=0.0).xyz
    near = (all_xyz[:, 0].abs() < closest) & (all_xyz[:, 1].abs() < closest)
    assert torch.equal(xyz, all_xyz[~near]) and bool(near.any()) == bool(closest)


def test_closeness_is_of_the_own_sweep(scene_of):
    """Points dropped around an earlier laser are not those around the key laser."""
    scene = scene_of(sweeps=3, closest=6.0)
    earlier = scene.xyz[scene.time == 0.5]
    around = earlier + torch.tensor([0.0, STEP, 0.0])
    assert bool((around[:, :2].abs() >= 6 - 1e-4).any(1).all()) and not bool((earlier[:, :2].abs() >= 6).any(1).all())


def test_depth_is_where_points_fall(scene_of):
    """The front camera sees the wall straight ahead, at the height of its centre."""
    views = scene_of().views
    assert views.names == ("front/1", "back/1") and views.counts.tolist() == [2]
    measured = views.depth > 0
    assert bool(measured.flatten(1).any(1).all())
    view, v, u = measured.nonzero().T
    uv = torch.stack([u, v], dim=1).to(torch.float32)
    xyz = unproject(views.cameras, uv, views.depth[measured], view)
    front = view == 0
    wall = views.labels[measured] == 1
    # Points of the wall have its distance exactly; on the ground half a pixel is up to depth^2 / (2 f HEIGHT).
    torch.testing.assert_close(xyz[front & wall][:, 1], torch.full((int((front & wall).sum()),), WALL_Y - STEP))
    depth = views.depth[measured][~wall]
    assert bool(((xyz[~wall][:, 2] + HEIGHT).abs() <= depth * 0.5 / 20 + 1e-4).all())
    assert not bool(wall[~front].any()) and bool((views.labels[~measured] == -1).all())
    assert views.labels.dtype == torch.int16


def test_depth_of_more_sweeps_is_denser_and_as_right(scene_of):
    one, two = scene_of().views, scene_of(depth_sweeps=2).views
    assert int((two.depth > 0).sum()) > int((one.depth > 0).sum())
    both = (one.depth > 0) & (two.depth > 0)
    assert bool((two.depth[both] <= one.depth[both]).all())  # the nearest point wins
    assert len(scene_of(depth_sweeps=2).xyz) == len(scene_of().xyz)


def test_close_points_give_no_depth(scene_of):
    """Ground 8 m away, seen from above, is 8 m deep straight ahead, and nothing nearer is left."""
    assert float(scene_of().views.depth[scene_of().views.depth > 0].min()) < 8
    depth = scene_of(depth_closest=8.0).views.depth[0][:, 19:21]
    assert float(depth[depth > 0].min()) > 7.9


def test_views_ahead_are_in_the_frame_of_now(scene_of):
    alone, scene = scene_of(frame=2).views, scene_of(frame=1, ahead=(1,)).views
    assert scene.names == ("front/1", "back/1", "front/2", "back/2")
    assert torch.equal(scene.depth[2:], alone.depth) and torch.equal(scene.rgb[2:], alone.rgb)
    moved = scene.cameras.world_from_cam[2:, :3, 3] - alone.cameras.world_from_cam[:, :3, 3]
    torch.testing.assert_close(moved, torch.tensor([[0.0, STEP, 0.0]] * 2))


def test_frames_ahead_end_with_the_recording_and_with_what_is_held_out(analytic, choices, street_labels):
    config = choices(ahead=(1, 2))
    whole = DrivingDataset(config, [analytic()], street_labels)
    assert [len(whole.view_names(i)[1]) for i in range(4)] == [6, 6, 4, 2]
    train = DrivingDataset(config, [analytic()], street_labels, [[0, 1]])
    assert train[1].views.names == train.view_names(1)[1] == ("front/1", "back/1")
    assert train.view_names(0) == ("street", ("front/0", "back/0", "front/1", "back/1"))
    assert config.all_images().ahead == ()


def test_cameras_by_name_and_reduced(scene_of):
    full, scene = scene_of().views, scene_of(cameras=("back",), image_size=(12, 20)).views
    assert scene.names == ("back/1",) and scene.cameras.size == (12, 20) == tuple(scene.depth.shape[1:])
    # Half the size: centres of pixels stay where they look. (19.5 + 0.5) / 2 - 0.5 = 9.5.
    assert scene.cameras.intrinsics[0].tolist() == [[10.0, 0, 9.5], [0, 10.0, 5.5], [0, 0, 1]]
    mean = full.rgb[1].to(torch.float32).reshape(12, 2, 20, 2, 3).mean((1, 3))
    assert float((scene.rgb[0] - mean).abs().max()) <= 1


def test_points_in_the_colours_that_cameras_see(scene_of):
    scene = scene_of(colours=True, sweeps=2)
    # Straight ahead the front camera sees to 44 degrees to the sides; further it sees nothing, nor does the back one.
    ahead = (scene.xyz[:, 1] > 8) & (scene.xyz[:, 0].abs() < 0.9 * scene.xyz[:, 1])
    ground = ahead & (scene.xyz[:, 1] < 20)  # away from the edge between ground and wall
    wall = ahead & (scene.xyz[:, 1] > 28.4) & (scene.xyz[:, 2] > -1)
    beside = scene.xyz[:, 1].abs() < 0.9 * scene.xyz[:, 0].abs()
    for rows, colour in ((ground, (90, 90, 90)), (wall, (200, 120, 40)), (beside, (127.5, 127.5, 127.5))):
        assert bool(rows.any())
        torch.testing.assert_close(scene.rgb[rows], (torch.tensor(colour) / 255).expand(int(rows.sum()), 3))


def test_without_images(scene_of):
    scene = scene_of(images=False, cameras=("none",))
    assert scene.views is None and len(scene.xyz) == len(scene_of().xyz)


def test_boxes_come_with_the_scene(scene_of):
    boxes = scene_of().boxes
    torch.testing.assert_close(boxes.centre[0], torch.tensor([1.0, 11 - STEP, -1.2]))
    assert boxes.velocity[0].tolist() == [0, 2] and bool(boxes.velocity[1].isnan().all())


def test_scenes_are_kept_in_memory_as_told(analytic, choices, street_labels):
    drive = analytic()
    data = DrivingDataset(choices(keep_in_memory=2), [drive], street_labels)
    for index in (0, 1, 0, 2, 0):
        data[index]
    assert drive.sweeps_read == [0, 2, 4, 0]


def test_an_empty_earlier_sweep_is_left_out_and_told(analytic, scene_of):
    drive = analytic()
    sweep = drive._sweep(1, False)
    drive.changed[1] = replace(sweep, xyz=sweep.xyz[:0], intensity=sweep.intensity[:0])
    scene = scene_of(drive=drive, sweeps=3)
    assert scene.skipped == ("sweep-1: xyz: no points; this earlier sweep is left out",)
    assert scene.time.unique().tolist() == [0.0, 0.5]


def test_points_that_are_nowhere_are_left_out_and_told(analytic, scene_of):
    drive = analytic()
    sweep = drive._sweep(2, True)
    sweep.xyz[3, 1] = float("nan")
    drive.changed[2] = sweep
    scene = scene_of(drive=drive, closest=0.0)
    assert scene.skipped == (f"sweep-2: xyz: 1 of {len(sweep.xyz)} points are not finite and left out",)
    assert len(scene.xyz) == len(sweep.xyz) - 1 and bool(scene.xyz.isfinite().all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xyz": torch.zeros(0, 3), "intensity": torch.zeros(0), "labels": None}, "sweep-2: xyz: no points; leave"),
        ({"xyz": torch.zeros(1, 3), "intensity": torch.zeros(1), "labels": None}, "sweep-2: xyz: no point is farther"),
        ({"labels": None, "seconds": float("inf")}, "sweep-2: timestamps: inf is not finite"),
        ({"world_from_sensor": 2 * torch.eye(4, dtype=torch.float64)}, "sweep-2: world_from_sensor: its last row"),
        ({"seconds": 100.25}, "sweep-1: timestamps: out of order: 100.250000 s is not before 100.250000 s of sweep-2"),
    ],
    ids=["empty", "vehicle", "time", "pose", "order"],
)
def test_sweeps_that_make_a_scene_unusable(analytic, scene_of, change, message):
    drive = analytic()
    drive.changed[2] = replace(drive._sweep(2, True), **change)
    with pytest.raises(DataError, match=message):
        scene_of(drive=drive, sweeps=2)


def test_labels_and_intensities_that_there_are_not(analytic, scene_of):
    drive = analytic()
    sweep = drive._sweep(2, True)
    for name, values, message in (
        ("labels", sweep.labels + 1, "sweep-2: labels: from 1 to 2; there are 2 classes"),
        ("intensity", sweep.intensity * 255, "sweep-2: intensity: from 63.75 to 191.25; it has to be in .0, 1."),
    ):
        drive.changed[2] = replace(sweep, **{name: values})
        with pytest.raises(DataError, match=message):
            scene_of(drive=drive)


@pytest.mark.parametrize(
    ("fields", "drive", "message"),
    [
        ({"cameras": ("side",)}, {}, "street: cameras: no side; it has front, back"),
        ({}, {"sizes": {"back": (12, 40)}}, "sweep-2: images of sizes 40x12, 40x24; views need one: say --data.image"),
        ({"image_size": (48, 80)}, {}, "sweep-2: front/1: image_size 48 80 is larger than the image, 24 40"),
        ({}, {"num": 0}, "no key frame of street is a scene"),
    ],
)
def test_choices_that_a_drive_does_not_have(analytic, scene_of, fields, drive, message):
    with pytest.raises(DataError, match=message):
        scene_of(drive=analytic(**drive), **fields)


def test_drives_are_told_apart_and_in_order_of_time(analytic, choices):
    with pytest.raises(DataError, match="street: two drives of this name"):
        DrivingDataset(choices(), [analytic(), analytic()], None)
    backwards = analytic()
    backwards.seconds = lambda frame: -float(frame)
    with pytest.raises(DataError, match="street: timestamps: out of order: number 1 .-1.000000 s. is not"):
        DrivingDataset(choices(), [backwards], None)


@pytest.mark.parametrize(
    "fields",
    [
        {"sweeps": 0},
        {"closest": -1.0},
        {"cameras": ("a", "a")},
        {"image_size": (3,)},
        {"image_size": (0, 3)},
        {"depth_sweeps": 0},
        {"depth_closest": float("nan")},
        {"ahead": (0,)},
        {"ahead": (1, 1)},
        {"colours": True, "images": False},
        {"keep_in_memory": -1},
    ],
    ids=str,
)
def test_choices_are_checked(choices, fields):
    with pytest.raises(ValueError, match=rf"Choices\.{next(iter(fields))} must be"):
        choices(**fields)
