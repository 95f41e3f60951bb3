"""Preparing: what is kept is what was read; stopped and continued, it ends with the same bytes."""

import errno
import io
import multiprocessing
import os
import random
import shutil
import signal
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from raw_rooms import RAW_IDS, RawRoom, RawRoomsConfig

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared import prepare
from ponder3d.data.prepared.container import SceneIndex, find_index, parse_index, read_array
from ponder3d.data.prepared.manifest import FILE_NAME, parse_manifest
from ponder3d.data.prepared.prepare import Preparation, Preparing
from ponder3d.data.prepared.scene_file import PrepareOptions
from ponder3d.data.raw.dataset import Problem
from ponder3d.data.raw.rgbd import RGBDConfig
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.geometry.grid import voxelize


def preparation(**options) -> Preparation:
    own = {key: options.pop(key) for key in list(options) if key in vars(PrepareOptions())}
    return Preparation(RawRoomsConfig(root="rooms", **options), PrepareOptions(**{"workers": 1, **own}))


def contents(path: Path) -> tuple[SceneIndex, dict[str, bytes]]:
    """The index of a scene's file, and its members by their offsets."""
    data = path.read_bytes()
    with path.open("rb") as file:
        index = parse_index(find_index(file, str(path))[2], str(path))
    return index, {name: data[m.offset : m.offset + m.size] for name, m in index.members.items()}


def tree(out: Path) -> dict[str, bytes]:
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != prepare.LOCK]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "rooms"
    Preparing(preparation(workers=2), out).run()
    return out


def test_the_manifest(prepared):
    manifest = parse_manifest((prepared / FILE_NAME).read_bytes(), "m")
    assert [(s.name, s.split, s.frames, s.points) for s in manifest.scenes] == [
        ("room_00", "train", 7, 6210),
        ("room_01", "train", 7, manifest.scenes[1].points),
        ("room_02", "val", 7, manifest.scenes[2].points),
    ]
    assert manifest.dataset == "raw_rooms" and manifest.known_ids == {0, 10, 20, 30, 400}
    assert [table.name for table in manifest.tables] == ["all", "things"]
    assert manifest.problems == tuple(
        Problem(f"room_0{i}", "30", "pose", f"room {i}, frame 30: pose is not finite") for i in range(3)
    )
    assert (manifest.to_bytes(), sorted(manifest.files)) == (
        (prepared / FILE_NAME).read_bytes(),
        ["scenes/train/room_00.tar", "scenes/train/room_01.tar", "scenes/val/room_02.tar"],
    )


def test_a_scene_is_kept_as_it_is(prepared):
    scene = RawRoomsConfig().build().scenes[0]
    index, members = contents(prepared / "scenes/train/room_00.tar")
    points = scene.read_points()
    for name in ("xyz", "rgb", "labels", "instances"):
        column = getattr(points, name)
        kept = read_array(members[f"{name}.npy"], name, (len(points.xyz), *column.shape[1:]), column.dtype.kind)
        assert kept.dtype == column.dtype and np.array_equal(kept, column)
    assert "normal.npy" not in members and index.size == (24, 32) and index.depth_units == 4000
    frames = [frame for frame in scene.read_frames(scene.frames) if not isinstance(frame, Problem)]
    assert index.frames == tuple(frame.name for frame in frames) == ("0", "10", "20", "40", "50", "60", "70")
    poses = read_array(members["world_from_cam.npy"], "poses", (7, 4, 4), "f")
    assert np.array_equal(poses, np.stack([frame.world_from_cam for frame in frames]))
    for number, frame in enumerate(frames):
        images = {
            kind: np.array(Image.open(io.BytesIO(members[f"f{number:06d}.{kind}"])))
            for kind in ("color.jpg", "depth.png", "label.png", "instance.png")
        }
        assert np.abs(images["depth.png"] / 4000 - frame.depth).max() <= 0.5 / 4000 + 1e-6
        assert np.array_equal(images["label.png"], frame.labels)
        assert np.array_equal(images["instance.png"], frame.instances + 1)
        # Edges of saturated colours, which JPEG keeps at half the resolution.
        assert np.abs(images["color.jpg"].astype(int) - frame.rgb).mean() < 12


def test_a_file_is_a_tar_and_a_webdataset_shard(prepared):
    with tarfile.open(prepared / "scenes/train/room_00.tar") as file:
        names = file.getnames()
        index = parse_index(file.extractfile("room_00.index.json").read(), "index")
    assert {name.split(".")[0] for name in names} == {"room_00"} and names[-1] == "room_00.index.json"
    assert {f"room_00.{member}" for member in index.members} == set(names[:-1])


def test_a_cloud_is_fused_from_frames(tmp_path):
    Preparing(preparation(clouds=False, cloud_spacing=0.05, num=1), tmp_path / "out").run()
    index, members = contents(tmp_path / "out/scenes/train/room_00.tar")
    xyz = read_array(members["xyz.npy"], "xyz", (None, 3), "f")
    room = RawRoomsConfig().build().scenes[0].room
    assert len(xyz) == index.points > 1500 and room.distance(xyz).max() < 0.05
    voxels = voxelize(torch.from_numpy(xyz), torch.zeros(len(xyz), dtype=torch.int64), 0.05)
    assert len(voxels.keys) > 0.98 * len(xyz), "one point per voxel, but for a mean on its border"
    normal = read_array(members["normal.npy"], "normal", (len(xyz), 3), "f")
    floor = read_array(members["labels.npy"], "labels", (len(xyz),), "i") == RAW_IDS["floor"]
    assert floor.sum() > 100 and np.median(normal[floor, 2]) > 0.99 and np.abs(np.median(xyz[floor, 2])) < 1e-3


def test_without_images(tmp_path):
    manifest = Preparing(preparation(images=False, num=1), tmp_path / "out").run()
    assert manifest.scenes[0].frames == 0 and manifest.scenes[0].points == 6210
    index, members = contents(tmp_path / "out/scenes/train/room_00.tar")
    assert index.size is None and sorted(members) == ["instances.npy", "labels.npy", "rgb.npy", "xyz.npy"]


def test_scenes_that_cannot_be_read_are_listed(tmp_path):
    manifest = Preparing(preparation(broken=(1,)), tmp_path / "out").run()
    assert [scene.name for scene in manifest.scenes] == ["room_00", "room_02"]
    assert Problem("room_01", "", "file", "room 1: the file is cut short") in manifest.problems
    with pytest.raises(DataError, match=r"rooms: none of 1 scenes can be used; room_00: file: .* cut short"):
        Preparing(preparation(broken=(0,), num=1), tmp_path / "none").run()
    assert not (tmp_path / "none" / FILE_NAME).exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_recording_far_from_the_origin_is_listed_and_the_others_go_on(tmp_path, recording, workers):
    """Poses in map coordinates: no voxel of 2 cm is there."""
    for name in ("far", "near"):
        recording().write(tmp_path / "in" / name, "seven_scenes")
    for path in (tmp_path / "in" / "far").rglob("*.pose.txt"):
        pose = np.loadtxt(path)
        pose[:2, 3] += [4500, 5400]
        np.savetxt(path, pose)
    own = Preparation(RGBDConfig(root=str(tmp_path / "in")), PrepareOptions(workers=workers))
    preparing = Preparing(own, tmp_path / "out")
    preparing.estimate()
    manifest = preparing.run()
    assert [scene.name for scene in manifest.scenes] == ["near_seq-01"]
    (problem,) = [problem for problem in manifest.problems if problem.scene == "far_seq-01"]
    assert problem.what.startswith("far/seq-01: points of its depth lie up to 5401.5 m from the origin")
    assert "are the poses in metres? Subtract one place from all poses" in problem.what
    with pytest.raises(DataError, match=r"in/far/seq-01: points of its depth lie"):
        RGBDFolderConfig(root=str(tmp_path / "in"), window=0, hold_out=0).build()[0]


def test_a_skip_list_and_a_list_of_scenes(tmp_path, prepared):
    (tmp_path / "skip.tsv").write_text("room_00\t\tpose: all wrong\nroom_01\t20\tcolour: black\n")
    (tmp_path / "some.txt").write_text("room_00\nroom_01\n")
    options = {"skip": str(tmp_path / "skip.tsv"), "scenes": str(tmp_path / "some.txt")}
    manifest = Preparing(preparation(**options), tmp_path / "out").run()
    assert [(scene.name, scene.frames) for scene in manifest.scenes] == [("room_01", 6)]
    assert {(p.scene, p.frame, p.kind) for p in manifest.problems} == {
        ("room_00", "", "skipped"),
        ("room_01", "20", "skipped"),
        ("room_01", "30", "pose"),
    }
    (tmp_path / "some.txt").write_text("room_07\n")
    with pytest.raises(DataError, match=r"some\.txt: .*room_07"):
        Preparing(preparation(**options), tmp_path / "out")


def test_more_scenes_can_be_added(tmp_path, prepared):
    for name in ("room_02", "room_00"):
        (tmp_path / "some.txt").write_text(f"{name}\n")
        Preparing(preparation(scenes=str(tmp_path / "some.txt")), tmp_path / "out").run()
    manifest = parse_manifest((tmp_path / "out" / FILE_NAME).read_bytes(), "m")
    assert [scene.name for scene in manifest.scenes] == ["room_00", "room_02"], "those of before stay"
    first = (tmp_path / "out/scenes/val/room_02.tar").stat().st_ino
    rest = Preparing(preparation(), tmp_path / "out")
    assert rest.estimate().scenes == 1
    rest.run()
    assert tree(tmp_path / "out") == tree(prepared)
    assert (tmp_path / "out/scenes/val/room_02.tar").stat().st_ino == first, "not made again"


def test_a_new_entry_of_the_skip_list_concerns_its_scene_alone(tmp_path, prepared):
    shutil.copytree(prepared, tmp_path / "out")
    paths = [tmp_path / "out/scenes/train" / f"room_0{i}.tar" for i in (0, 1)]
    before = [path.stat().st_ino for path in paths]
    (tmp_path / "skip.tsv").write_text("room_01\t20\tcolour: black\n")
    manifest = Preparing(preparation(skip=str(tmp_path / "skip.tsv")), tmp_path / "out").run()
    assert [scene.frames for scene in manifest.scenes] == [7, 6, 7]
    assert [path.stat().st_ino == inode for path, inode in zip(paths, before, strict=True)] == [True, False]


def test_the_skip_list_beside_the_data_is_taken(tmp_path):
    (tmp_path / "skip.tsv").write_text("room_01\t\tpose: all wrong\n")
    one = preparation()
    one = replace(one, dataset=replace(one.dataset, root=str(tmp_path)))
    assert [scene.name for scene in Preparing(one, tmp_path / "out").run().scenes] == ["room_00", "room_02"]


def test_bytes_do_not_depend_on_where_the_data_are(tmp_path, prepared):
    one = preparation()
    moved = Preparing(replace(one, dataset=replace(one.dataset, root="/elsewhere/rooms")), tmp_path / "out")
    moved.run()
    assert tree(tmp_path / "out") == tree(prepared) and b"elsewhere" not in b"".join(tree(tmp_path / "out").values())


def test_files_that_come_later(tmp_path, prepared, monkeypatch):
    """A scene that lacked a file is read again, one whose disk failed is an error at the end."""
    whole, fault = RawRoom.read_frames, [lambda: Problem("room_01", "20", "file", "20.jpg: no such file")]

    def read(self, names):
        for name, frame in zip(names, whole(self, names), strict=True):
            yield fault[0]() if (self.number, name) == (1, "20") else frame

    def broken_disk():
        raise OSError(errno.EIO, "Input/output error", "20.jpg")

    monkeypatch.setattr(RawRoom, "read_frames", read)
    assert [s.frames for s in Preparing(preparation(), tmp_path / "out").run().scenes] == [7, 6, 7]
    fault[0] = broken_disk
    with pytest.raises(OSError, match=r"1 scenes could not be read, the first: .*20\.jpg.*tries these again"):
        Preparing(preparation(), tmp_path / "new").run()
    assert (tmp_path / "new/scenes/val/room_02.tar").exists() and not (tmp_path / "new" / FILE_NAME).exists()
    monkeypatch.undo()
    for name in ("out", "new"):
        Preparing(preparation(), tmp_path / name).run()
        assert tree(tmp_path / name) == tree(prepared)


def test_a_full_disk_stops_at_once(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepare, "write_scene", full)
    with pytest.raises(OSError, match="No space left"):
        Preparing(preparation(), tmp_path / "out").run()


def test_other_choices_need_another_directory(prepared, tmp_path):
    with pytest.raises(DataError, match="prepared with other choices"):
        Preparing(preparation(jpeg_quality=50), prepared)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match=r"holds thesis\.tex"):
        Preparing(preparation(), tmp_path)
    with pytest.raises(DataError, match="not a directory"):
        Preparing(preparation(), tmp_path / "thesis.tex")


@pytest.mark.parametrize("place", [0, 200, 600, 5000, -700, -1])
def test_a_damaged_scene_is_made_again(prepared, tmp_path, place):
    shutil.copytree(prepared, tmp_path / "out")
    path = tmp_path / "out/scenes/train/room_01.tar"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    Preparing(preparation(), tmp_path / "out").run()
    assert tree(tmp_path / "out") == tree(prepared)


def test_only_one_process_prepares(tmp_path):
    with prepare.alone(tmp_path), pytest.raises(ValueError, match="another process is writing a dataset there"):
        Preparing(preparation(), tmp_path).run()


def test_the_estimate_is_about_right(prepared, tmp_path):
    found = Preparing(preparation(), tmp_path).estimate()
    size = sum(path.stat().st_size for path in prepared.rglob("*.tar"))
    assert (found.scenes, found.frames) == (3, 24) and 0.7 < found.bytes / size < 1.3 and found.seconds > 0


def run_until_killed(one: Preparation, out: Path) -> None:
    os.setpgid(0, 0)
    Preparing(one, out).run()


def killed_and_continued(one: Preparation, out: Path, kills: int, seconds: float, draw: random.Random) -> int:
    """Prepare with as many kills as asked for, then to the end; returns how many hit a run that was at work."""
    context = multiprocessing.get_context("spawn")
    hits = 0
    for _ in range(kills):
        process = context.Process(target=run_until_killed, args=(one, out))
        process.start()
        process.join(draw.uniform(0, seconds))
        if process.is_alive() and process.pid is not None:
            hits += 1
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has not made its group yet
                os.kill(process.pid, signal.SIGKILL)
        process.join()
    time.sleep(1.2)  # workers whose parent was killed before they were in its group leave by themselves
    Preparing(one, out).run()
    return hits


def check_kills(tmp_path: Path, kills: int, one: Preparation, seconds: float) -> None:
    Preparing(one, tmp_path / "clean").run()
    hits = killed_and_continued(one, tmp_path / "killed", kills, seconds, random.Random(kills))
    assert hits >= kills // 2
    assert tree(tmp_path / "killed") == tree(tmp_path / "clean")


def test_killed_twice_it_ends_with_the_same_bytes(tmp_path):
    check_kills(tmp_path, 2, preparation(seconds=0.1, num=4), seconds=5)


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_same_bytes(tmp_path):
    check_kills(tmp_path, 20, preparation(seconds=0.02, num=40, workers=2), seconds=12)


def test_how_many_processes_share_the_work_is_no_choice(prepared):
    one = preparation()
    other = replace(one, options=replace(one.options, workers=7))
    assert Preparing(other, prepared).identity("room_00") == Preparing(one, prepared).identity("room_00")
