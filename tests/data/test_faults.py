"""Errors of the machine go through every reader: what becomes a DataError is left out for good."""

import errno
import io
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from ponder3d.data.archive import Archive
from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.limited import read_annotated_points, read_scene_list
from ponder3d.data.prepared.images import read_colour
from ponder3d.data.raw import text
from ponder3d.data.raw.folder import read_labels_file
from ponder3d.data.raw.ply import read_ply
from ponder3d.data.raw.point_files import read_points
from ponder3d.data.raw.rgbd import RGBDConfig
from ponder3d.data.raw.s3dis_frames import find_frames
from ponder3d.data.raw.scannet import ScanNetConfig
from ponder3d.data.raw.scannet_labels import LabelImages, read_categories, read_groups, read_segments
from ponder3d.data.raw.sens import SensFile, write_sens
from ponder3d.data.raw.structured3d_files import Place, list_rooms
from ponder3d.data.rgbd_images import read_image
from ponder3d.data.rgbd_layouts import read_matrix
from ponder3d.data.skip_list import read_skip_list


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.ETIMEDOUT, errno.EINTR]
)
def test_errors_of_the_machine(number):
    error = OSError(number, "it failed")
    with pytest.raises(OSError, match=r"it failed: 'a/b.png'") as caught:
        raise_if_of_machine(error, "a/b.png")
    assert caught.value is error and "a/b.png" in str(pickle.loads(pickle.dumps(error)))
    with pytest.raises(OSError, match=r"it failed: 'c.png'"):
        raise_if_of_machine(OSError(number, "it failed", "c.png"), "a/b.png")
    with pytest.raises(MemoryError):
        raise_if_of_machine(MemoryError(), "a/b.png")


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(n, "x") for n in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.ENAMETOOLONG)),
        *(OSError("truncated"), ValueError(), zipfile.BadZipFile("x"), RecursionError(), EOFError()),
    ],
    ids=repr,
)
def test_errors_of_the_data(error):
    raise_if_of_machine(error, "a/b.png")


READERS = {
    "a.png": lambda path: read_image(path, ("RGB",)),
    "b.png": lambda path: Place(path.parent, "").read(path.name),
    "b.txt": lambda path: Place(path.parent, "").read(path.name),
    "c.txt": text.read_small,
    "d.txt": text.read_points,
    "pose.txt": read_matrix,
    "intrinsics.txt": lambda path: read_matrix(path, shape=None),
    "area_1/3d/camera_to_room.json": lambda path: find_frames(path.parents[2], []),
    "skip.tsv": read_skip_list,
    "labels.json": read_labels_file,
    "table.tsv": read_categories,
    "segs.json": read_segments,
    "agg.json": read_groups,
    "a.ply": read_ply,
    "a.sens": SensFile,
    "scenes.txt": read_scene_list,
    **dict.fromkeys(("points20", "points.npz", "points.json"), read_annotated_points),
    **dict.fromkeys(("b.npy", "b.ply", "b.las", "b.xyz"), read_points),
}


@pytest.mark.parametrize("name", READERS)
def test_files_that_the_machine_cannot_read(unreadable, name):
    path = unreadable(name)
    if name.startswith("area_1"):
        (path.parents[1] / "raw").mkdir()
    with pytest.raises(OSError, match="Input/output error") as caught:
        READERS[name](path)
    assert caught.value.errno == errno.EIO and str(path) in str(caught.value)


def test_a_frame_is_not_lost_to_the_machine(unreadable, tmp_path, recording):
    """Neither a scene of ScanNet nor of a recording calls it a problem."""
    ScanNetConfig.write_example(tmp_path / "scannet")
    dataset = ScanNetConfig(root=str(tmp_path / "scannet"), every=1).build()
    for part in ("depth/0.png", "color/0.jpg", "pose/0.txt"):
        path = unreadable(f"scannet/scans/scene0001_00/{part}")
        with pytest.raises(OSError, match=f"Input/output error: '{path}'"):
            list(dataset.scenes[1].read_frames(["0"]))
    recording().write(tmp_path / "room", "scannet")
    unreadable("room/pose/3.txt")
    with pytest.raises(OSError, match=r"Input/output error: '.*/pose/3.txt'"):
        RGBDConfig(root=str(tmp_path / "room")).build()


def test_a_recording_that_fails_after_its_header(tmp_path, monkeypatch):
    frames = [(np.eye(4), np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), np.uint16))]
    write_sens(tmp_path / "a.sens", iter(frames), np.eye(3), np.eye(3))

    class Failing:
        def seek(self, offset: int):
            raise OSError(errno.ESTALE, "Stale file handle")

    with SensFile(tmp_path / "a.sens") as sens:
        with monkeypatch.context() as patch:
            patch.setattr(sens, "_file", Failing())
            with pytest.raises(OSError, match=r"Stale file handle: '.*a.sens'"):
                sens.depth(0)
        assert sens.depth(0).shape == (4, 6)


@pytest.fixture
def zips(tmp_path):
    """Readers of zip files, by the name of a file that is there."""
    scene = tmp_path / "scene0000_00"
    scene.mkdir()
    member = "scene_00000/2D_rendering/1/panorama/camera_xyz.txt"
    room, labels, points = (
        tmp_path / "Structured3D_0.zip",
        scene / f"{scene.name}_2d-label-filt.zip",
        tmp_path / "a.npz",
    )
    with zipfile.ZipFile(room, "w") as archive:
        archive.writestr(member, b"1 2 3")
    with zipfile.ZipFile(labels, "w") as archive:
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((4, 6), np.uint16)).save(buffer, "png")
        archive.writestr("label-filt/0.png", buffer.getvalue())
    np.savez(points, xyz=np.zeros((3, 3)))

    def images():
        with LabelImages(scene, "label-filt") as found:
            return found.read("0")

    readers = {
        room: lambda: Place(room, member.removesuffix("camera_xyz.txt")).read("camera_xyz.txt"),
        labels: images,
        points: lambda: read_points(points),
    }
    return readers, room


def test_zip_files_that_the_machine_cannot_read(zips, monkeypatch):
    readers, room = zips

    def fail(*args):
        raise OSError(errno.EIO, "Input/output error")

    for place in ((zipfile, "_EndRecData"), (zipfile.ZipExtFile, "read")):  # of the first, zipfile makes BadZipFile
        for path, read in readers.items():
            with monkeypatch.context() as patch:
                patch.setattr(*place, fail)
                with pytest.raises(OSError, match=f"Input/output error: '{path}'"):
                    read()
                if place[0] is zipfile:
                    with pytest.raises(OSError, match=f"Input/output error: '{room}'"):
                        list_rooms(room.parent, [])
    assert all(read() is not None for read in readers.values())


def test_too_little_memory_is_no_damage(zips, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise MemoryError

    readers, room = zips
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", fail)
        with pytest.raises(MemoryError):
            read_image("a.png", ("RGB",), b"")
        with pytest.raises(MemoryError):
            read_colour(b"", "a.jpg", (4, 6), (4, 6))
    monkeypatch.setattr(zipfile.ZipExtFile, "read", fail)
    for read in (*readers.values(), lambda: Archive(room).read(Archive(room).names[0], 100)):
        with pytest.raises(MemoryError):
            read()


def test_arrays_that_claim_to_be_huge_are_damage(tmp_path):
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "points.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(80))
    with pytest.raises(DataError, match=r"points.npz: a.npy: no array .*shape \(1000000000000,\)"):
        read_annotated_points(tmp_path / "points.npz")
