import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared.scene_file import PrepareOptions, write_scene
from ponder3d.data.raw import nyu40, structured3d
from ponder3d.data.raw.checks import frame_problem, points_problem
from ponder3d.data.raw.dataset import Problem, RawFrame
from ponder3d.data.raw.example_room import ExampleRoom, scaled
from ponder3d.data.raw.structured3d import Structured3D, Structured3DConfig
from ponder3d.data.raw.structured3d_files import Place
from ponder3d.data.raw.structured3d_images import (
    Images,
    grid_normals,
    label_ids,
    panorama_rays,
    parse_camera,
    perspective_rays,
    see,
)
from ponder3d.data.skip_list import SkipList

ROOM = ExampleRoom(half_width=2.0)
FRAMES, PANORAMAS = "Structured3D_perspective_full_00.zip", "Structured3D_panorama_00.zip"
FOLDER = "Structured3D/scene_00000/2D_rendering/485142/"
FRAME = f"{FOLDER}perspective/full/3/"


@pytest.fixture
def root(tmp_path):
    Structured3DConfig.write_example(tmp_path)
    return tmp_path


def opened(root, **choices) -> Structured3D:
    return Structured3DConfig(root=str(root), **choices).build()


def members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, changes: dict[str, bytes | None]) -> None:
    """Replace, add or (None) remove members of an archive."""
    kept = {**members(path), **changes}
    path.unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in kept.items():
            if content is not None:
                archive.writestr(name, content)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def unprojected(frame: RawFrame) -> np.ndarray:
    assert frame.depth is not None
    v, u = np.nonzero(frame.depth)
    rays = np.stack([u, v, np.ones_like(u)], axis=1) @ np.linalg.inv(frame.intrinsics).T
    return (rays * frame.depth[v, u, None]) @ frame.world_from_cam[:3, :3].T + frame.world_from_cam[:3, 3]


def test_a_camera_by_hand():
    """It looks along +y from (1, 2, 3) m with z up: right is +x, down is -z. tan 0.7853982 = 1, tan 0.4636476 = 0.5."""
    content = b"1000 2000 3000 0 2 0 0 0 1 0.7853982 0.4636476 1"
    pose, matrix = parse_camera(content, "camera_pose.txt", (40, 80))
    np.testing.assert_allclose(pose, [[1, 0, 0, 1], [0, 0, 1, 2], [0, -1, 0, 3], [0, 0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(matrix, [[40, 0, 39.5], [0, 40, 19.5], [0, 0, 1]], rtol=1e-6)
    # The outer edge of the first pixel is at the edge of the field of view.
    np.testing.assert_allclose(np.linalg.inv(matrix) @ [-0.5, -0.5, 1], [-1, -0.5, 1], rtol=1e-6)


def test_poses_are_rotations():
    draw = np.random.default_rng(0)
    for _ in range(20):
        front, other = draw.normal(size=(2, 3))
        text = " ".join(map(str, [0, 0, 0, *front, *other, 0.698132, 0.440992])).encode()
        turn = parse_camera(text, "x", (720, 1280))[0][:3, :3]
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)
        np.testing.assert_allclose(turn[:, 2], front / np.linalg.norm(front))
        assert turn[:, 1] @ other < 0, "down is against up"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 2 3", "3 numbers, expected 11 or 12"),
        (b"0 0 0 0 0 1 0 0 1 0.7 0.4", "no two directions"),
        (b"0 0 0 0 0 0 0 0 1 0.7 0.4", "no two directions"),
        (b"0 0 0 0 1 0 0 0 1 0.7 1.6", "half fields of view of 0.7 and 1.6 radians"),
        (b"0 0 nan 0 1 0 0 0 1 0.7 0.4", "not finite"),
    ],
)
def test_cameras_that_are_none(content, message):
    with pytest.raises(DataError, match=f"pose.txt: .*{message}"):
        parse_camera(content, "pose.txt", (720, 1280))


def test_directions_of_a_panorama():
    rays = panorama_rays((181, 360))
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-6)
    half = np.deg2rad(0.5)  # the middle lies between two columns
    np.testing.assert_allclose(rays[90, 180], [np.sin(half), np.cos(half), 0], atol=1e-6)  # +y, a little to the right
    np.testing.assert_allclose(rays[90, 270], [np.cos(half), -np.sin(half), 0], atol=1e-6)  # a quarter on: +x
    np.testing.assert_allclose(rays[90, 0], [-np.sin(half), -np.cos(half), 0], atol=1e-6)  # -y, just right of the seam
    assert rays[0, :, 2].min() > 0.999 and rays[-1, :, 2].max() < -0.999


def test_normals_of_an_image_of_points():
    """A floor that meets a wall: each pixel has the normal of its own surface up to the edge."""
    v, u = np.meshgrid(np.arange(8), np.arange(5), indexing="ij")
    floor = np.stack([u, v, 0 * u], -1).astype(np.float32)
    wall = np.stack([u, 0 * v + 3.5, 3 - v], -1).astype(np.float32)
    xyz = np.where((v < 4)[..., None], floor, wall)
    measured = np.ones((8, 5), dtype=bool)
    measured[0, 0] = measured[7, :3] = False
    normal = np.abs(grid_normals(xyz, measured, around=False))
    np.testing.assert_allclose(normal[:4][measured[:4]], np.tile([0, 0, 1], (19, 1)))
    np.testing.assert_allclose(normal[4:][measured[4:]], np.tile([0, 1, 0], (17, 1)))
    assert (normal[~measured] == 0).all()
    alone = np.zeros((3, 3), dtype=bool)
    alone[1, 1] = True
    assert (grid_normals(xyz[:3, :3], alone, around=True) == 0).all()
    ring = panorama_rays((8, 16)) / np.maximum(
        np.linalg.norm(panorama_rays((8, 16))[..., :2], axis=-1, keepdims=True), 0.1
    )
    seam = grid_normals(ring, np.ones((8, 16), dtype=bool), around=True)[3:5]  # a cylinder around z
    assert np.abs(seam[..., 2]).max() < 1e-5 and np.abs((seam * ring[3:5]).sum(-1)).min() > 0.97


def test_the_cloud_lies_on_the_room(root):
    for scene, half_width in zip(opened(root).scenes, (2.0, 1.8), strict=True):
        room, points = ExampleRoom(half_width=half_width), scene.read_points()
        assert points.problems == () and len(points.xyz) > 3000
        assert room.distance(points.xyz.astype(np.float64)).max() < 0.002, "depth is in whole mm"
        cells = np.floor(points.xyz / 0.01)
        assert len(np.unique(cells, axis=0)) == len(cells)
        # Normals point inwards and labels are right, but beside edges, of which images of 24 x 32 have many.
        assert points.normal is not None and points.labels is not None and points.instances is not None
        lo, hi = room.box
        for axis, bound, sign, raw in ((0, lo, 1, 1), (1, hi, -1, 1), (2, lo, 1, 2), (2, hi, -1, 22)):
            there = np.abs(points.xyz[:, axis] - bound[axis]) < 0.005
            assert there.sum() > 100
            assert (points.normal[there, axis] * sign > 0.99).mean() > 0.9
            assert (points.labels[there] == raw).mean() > 0.9
        assert (points.instances[points.labels == 22] == -1).all() and (points.instances[points.labels == 7] == 6).all()


def test_normals_face_the_camera_up_to_edges():
    size = (120, 160)
    matrix, pose = scaled(ROOM.intrinsics, ROOM.size, size), ROOM.pose(1)
    depth, surface = ROOM.trace(1, size, matrix)
    labels = np.ones(size, dtype=np.int32)
    images = Images(np.zeros((*size, 3), dtype=np.uint8), depth.astype(np.float32), labels, labels)
    seen = see(images, pose[:3, 3], perspective_rays(pose, matrix, size))
    inwards = {0: (1, 0, 0), 1: (0, 1, 0), 2: (0, 0, 1), 3: (-1, 0, 0), 4: (0, -1, 0)}
    faced = []
    for number, normal in inwards.items():
        there = seen.counts & (surface == number)
        if there.sum() > 100:
            faced.append(number)
            assert ((seen.normal[there] @ normal) > 0.999).mean() > 0.99
    assert len(faced) >= 3
    assert ROOM.distance(seen.xyz[seen.counts].astype(np.float64)).max() < 1e-5
    assert seen.counts.mean() > 0.95


def test_normals_survive_depth_in_whole_millimetres():
    size = (360, 640)
    matrix, pose = scaled(ROOM.intrinsics, (18, 32), size), ROOM.pose(2)
    depth, surface = ROOM.trace(2, size, matrix)
    labels = np.ones(size, dtype=np.int32)
    images = Images(np.zeros((*size, 3), dtype=np.uint8), np.round(depth, 3).astype(np.float32), labels, labels)
    seen = see(images, pose[:3, 3], perspective_rays(pose, matrix, size))
    wall = seen.counts & (surface == 4)
    cosine = np.clip(-seen.normal[wall][:, 1], -1, 1)
    assert wall.sum() > 10_000 and np.rad2deg(np.arccos(np.median(cosine))) < 4


def test_grazing_pixels_do_not_count():
    """A floor 1 m below a camera that looks along it: row v sees it at a cosine of sin(angle), 0.15 at 8.6 degrees."""
    size = (41, 9)
    rays = np.zeros((*size, 3), dtype=np.float32)
    angle = np.deg2rad(np.linspace(1, 21, 41))[:, None]
    across = np.deg2rad(np.linspace(-4, 4, 9))
    rays[...] = np.stack(np.broadcast_arrays(np.sin(across), np.cos(across) + 0 * angle, -np.tan(angle)), -1)
    depth = (1 / np.tan(angle) + 0 * across).astype(np.float32)
    ones = np.ones(size, dtype=np.int32)
    seen = see(Images(np.zeros((*size, 3), dtype=np.uint8), depth, ones, ones), np.zeros(3), rays)
    np.testing.assert_array_equal(seen.counts, np.broadcast_to(np.sin(angle) > 0.15, size))
    np.testing.assert_allclose(seen.normal, np.broadcast_to([0, 0, 1], (*size, 3)), atol=1e-3)


def test_panoramas_alone_and_frames_alone(root):
    both, frames = (opened(root, panoramas=flag).scenes[0].read_points() for flag in (True, False))
    assert len(frames.xyz) < len(both.xyz)
    (root / FRAMES).unlink()
    dataset = opened(root)
    assert [p.kind for p in dataset.problems] == ["file", "file"] and "no perspective frames" in str(
        dataset.problems[0]
    )
    panorama = dataset.scenes[0].read_points()
    assert dataset.scenes[0].frames == () and ROOM.distance(panorama.xyz.astype(np.float64)).max() < 0.002
    assert len(panorama.xyz) > 1800, "of 2048 pixels, some are seen at a grazing angle"
    with pytest.raises(DataError, match="no room that can be used"):
        opened(root, panoramas=False)


def test_frames_are_those_of_the_room(root):
    dataset = opened(root)
    scene = dataset.scenes[0]
    assert scene.name == "scene_00000-room_485142" and scene.frames == tuple("01234567")
    for number, frame in enumerate(scene.read_frames(scene.frames)):
        assert isinstance(frame, RawFrame) and frame_problem(frame, dataset.known_ids) is None
        np.testing.assert_allclose(frame.world_from_cam, ROOM.pose(number), atol=2e-6)
        np.testing.assert_allclose(frame.intrinsics, ROOM.intrinsics, rtol=1e-5)
        depth, surface = ROOM.trace(number)
        assert frame.depth is not None and frame.labels is not None and frame.instances is not None
        counts = frame.depth > 0
        np.testing.assert_allclose(frame.depth[counts], depth[counts], atol=0.0006)
        assert counts.mean() > 0.9
        np.testing.assert_array_equal(frame.labels, np.array([1, 1, 2, 1, 1, 22, 7])[surface])
        np.testing.assert_array_equal(frame.instances, np.where(surface == 5, -1, surface))
        np.testing.assert_array_equal(frame.rgb, ROOM.colour(number))
    (small,) = opened(root, max_side=16).scenes[0].read_frames(["2"])
    assert isinstance(small, RawFrame) and small.rgb.shape == (12, 16, 3)
    assert ROOM.distance(unprojected(small)).max() < 0.1


def test_unpacked_files_are_read_alike(root, tmp_path):
    packed = opened(root)
    for folder in (tmp_path / "tree", tmp_path / "tree2" / "Structured3D"):
        for archive in (FRAMES, PANORAMAS):
            for name, content in members(root / archive).items():
                path = folder / name.removeprefix("Structured3D/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    for tree in (tmp_path / "tree", tmp_path / "tree2"):
        assert Structured3DConfig.recognises(tree)
        dataset = opened(tree)
        assert not dataset.problems and [s.name for s in dataset.scenes] == [s.name for s in packed.scenes]
    for one, two in zip(packed.scenes, dataset.scenes, strict=True):
        first, second = one.read_points(), two.read_points()
        assert np.array_equal(first.xyz, second.xyz) and np.array_equal(first.labels, second.labels)
        assert len(list(two.read_frames(two.frames))) == 8
    path = tmp_path / "tree" / "scene_00000" / "2D_rendering" / "485142" / "perspective" / "full" / "0" / "depth.png"
    scene = opened(tmp_path / "tree").scenes[0]
    path.unlink()
    (problem,) = scene.read_frames(["0"])
    assert isinstance(problem, Problem) and problem.kind == "depth" and str(path) in problem.what


def test_splits_follow_the_number_of_the_scene(root):
    for number, split in ((2999, "train"), (3000, "val"), (3249, "val"), (3250, "test")):
        content = members(root / FRAMES)
        moved = {name.replace("scene_00000", f"scene_{number:05}"): data for name, data in content.items()}
        rewrite(root / FRAMES, {name: data for name, data in moved.items() if name not in content})
        room = next(s for s in opened(root).scenes if s.name == f"scene_{number:05}-room_485142")
        assert room.split == split


def test_semantic_images_of_ids_and_of_colours():
    ids = np.array([[0, 1, 22], [40, 5, 34]], dtype=np.uint8)
    colours = np.array([(0, 0, 0), *nyu40.PALETTE], dtype=np.uint8)[ids]
    for image in (ids, colours, np.dstack([colours, np.full((2, 3), 255, dtype=np.uint8)])):
        assert label_ids(image, "x").tolist() == ids.tolist()
    with pytest.raises(DataError, match="semantic.png: label 41; NYU40 has 0 to 40"):
        label_ids(ids + np.uint8(1), "semantic.png")
    colours[1, 2] = 1, 2, 3
    with pytest.raises(DataError, match=r"semantic.png: the colour \(1, 2, 3\) of pixel \(2, 1\) is none of NYU40's"):
        label_ids(colours, "semantic.png")


def test_pixels_without_depth_or_label_do_not_count(root):
    depth, surface = ROOM.trace(3)
    raw = np.round(1000 * depth).astype(np.uint16)
    raw[:3], raw[3] = 0, 65535
    labels = np.full(surface.shape, 39, dtype=np.uint8)
    labels[4:6] = 0
    rewrite(root / FRAMES, {f"{FRAME}depth.png": png(raw), f"{FRAME}semantic.png": png(labels)})
    (frame,) = opened(root).scenes[0].read_frames(["3"])
    assert isinstance(frame, RawFrame) and frame.depth is not None and frame.labels is not None
    assert (frame.depth[:6] == 0).all() and (frame.depth[6:] > 0).mean() > 0.9
    assert (frame.labels[:4] == 39).all() and (frame.labels[4:6] == 0).all()


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("depth.png", b"\x89PNG\r\n", "depth", "depth.png: cannot be read as an image"),
        ("depth.png", png(np.ones((24, 32, 3), dtype=np.uint8)), "depth", "an image of kind RGB"),
        ("rgb_rawlight.png", png(np.ones((12, 32, 3), dtype=np.uint8)), "file", "beside depth of"),
        ("semantic.png", png(np.full((24, 32), 99, dtype=np.uint8)), "label", "label 99"),
        ("camera_pose.txt", b"1 2 3", "pose", "3 numbers"),
        ("camera_pose.txt", b"1e9 0 0 0 1 0 0 0 1 0.7 0.5", "pose", "beyond 654.72 m"),
    ],
)
def test_frames_that_cannot_be_used_are_problems(root, name, content, kind, message):
    rewrite(root / FRAMES, {f"{FRAME}{name}": content})
    scene = opened(root).scenes[0]
    (problem,) = [found for found in scene.read_frames(scene.frames) if isinstance(found, Problem)]
    assert (problem.scene, problem.frame, problem.kind) == (scene.name, "3", kind) and message in problem.what
    points = scene.read_points()
    assert points.problems == (problem,) and len(points.xyz) > 3000
    assert f"{FRAMES}:{FRAME}" in problem.what or kind == "pose"


def test_a_panorama_that_cannot_be_used_is_a_problem(root):
    rewrite(root / PANORAMAS, {f"{FOLDER}panorama/camera_xyz.txt": b"1 2"})
    points = opened(root).scenes[0].read_points()
    (problem,) = points.problems
    assert problem.frame == "panorama" and "position in mm: 2 numbers" in problem.what


def test_a_room_of_which_nothing_can_be_used(root):
    broken = {name: b"" for name in members(root / FRAMES) if name.startswith(FOLDER) and name.endswith("depth.png")}
    rewrite(root / FRAMES, broken)
    with pytest.raises(DataError, match=r"485142: no image of the room can be used \(scene_00000.*/0: depth"):
        opened(root, panoramas=False).scenes[0].read_points()


def test_missing_files_are_problems(root):
    rewrite(root / FRAMES, {f"{FRAME}depth.png": None, f"{FRAME}instance.png": None})
    rewrite(root / PANORAMAS, {f"{FOLDER}panorama/full/depth.png": None})
    dataset = opened(root)
    assert dataset.scenes[0].frames == tuple("0124567") and len(dataset.scenes[0].read_points().xyz) > 1000
    frame, panorama = dataset.problems
    assert frame.frame == "3" and "no depth.png and no instance.png; left out" in frame.what
    assert panorama.frame == "panorama" and "no panorama/full/depth.png" in panorama.what
    early = {name: None for name in members(root / FRAMES) if name.endswith("instance.png")}
    rewrite(root / FRAMES, {**early, f"{FRAME}depth.png": png(np.full((24, 32), 2000, dtype=np.uint16))})
    (problem,) = opened(root).problems
    assert problem.frame == "panorama"
    (found,) = opened(root).scenes[0].read_frames(["0"])
    assert isinstance(found, RawFrame) and found.instances is not None and (found.instances == -1).all()


def test_missing_and_damaged_archives_are_problems(root):
    (root / FRAMES).rename(root / FRAMES.replace("00", "02"))
    assert [p.scene for p in opened(root).problems] == [
        "Structured3D_perspective_full_00",
        "Structured3D_perspective_full_01",
    ]
    (root / FRAMES).write_bytes(b"PK" * 100)
    first, second = opened(root).problems
    assert f"{root / FRAMES}: no zip that can be read" in first.what and second.scene.endswith("01")
    for path in root.glob("*.zip"):
        path.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"no room that can be used in its files \(4 problems, first: Structured3D_pano"
    ):
        opened(root)


def test_a_second_download_is_left_out(root):
    names = [scene.name for scene in opened(root).scenes]
    copy = root / "Structured3D_panorama_00 (1).zip"
    copy.write_bytes((root / PANORAMAS).read_bytes()[:500])
    dataset = opened(root)
    assert [scene.name for scene in dataset.scenes] == names
    (problem,) = dataset.problems
    assert (problem.scene, problem.kind) == ("Structured3D_panorama_00", "duplicate")
    assert f"{copy}: left out" in problem.what and "rename it" in problem.what
    for path in root.glob("*.zip"):
        path.rename(root / f"{path.stem} (2).zip")
    with pytest.raises(DataError, match=r"no room that can be used in its files \(3 problems.*left out"):
        opened(root)


def test_images_are_read_once_for_points_and_frames(root, tmp_path, monkeypatch):
    rewrite(root / FRAMES, {f"{FRAME}depth.png": b""})
    expected = list(opened(root, every=3).scenes[0].read_frames(("0", "3", "6")))
    read, files = Place.read, []
    monkeypatch.setattr(Place, "read", lambda place, name: files.append(place.where(name)) or read(place, name))
    dataset = opened(root, every=3)
    scene = dataset.scenes[0]
    write_scene(tmp_path / "a.tar", scene, dataset, PrepareOptions(), SkipList(), "x")
    assert len(files) - len(set(files)) <= 1 and len(set(files)) > 36, "only the damaged one is tried again"
    assert scene._kept is None
    for limit in (1 << 28, 1):
        monkeypatch.setattr(structured3d, "_KEPT", limit)
        with scene.keeping():
            scene.read_points()
            assert list(scene._kept) == (["0", "6"] if limit > 1 else ["0"])
            found = list(scene.read_frames(scene.frames))
            assert not scene._kept, "a frame that was handed out is not kept"
        for one, two in zip(found, expected, strict=True):
            if isinstance(two, Problem):
                assert one == two
            else:
                assert one.name == two.name and np.array_equal(one.rgb, two.rgb)
                assert np.array_equal(one.depth, two.depth) and np.array_equal(one.labels, two.labels)


def test_odd_names_in_archives_are_refused(root):
    odd = ("../../etc/x.png", f"/{FRAME}depth.png", f"{FOLDER}../485142/perspective/full/9/depth.png", "C:/x.png")
    rewrite(root / FRAMES, dict.fromkeys(odd, b"x"))
    dataset = opened(root)
    assert len(dataset.problems) == len(odd) and all("is no name of a file below" in p.what for p in dataset.problems)
    assert dataset.scenes[0].frames == tuple("01234567")


def test_members_that_unpack_to_too_much_are_refused(root):
    rewrite(root / FRAMES, {f"{FRAME}depth.png": bytes(1 << 27)})
    (problem,) = opened(root).scenes[0].read_frames(["3"])
    assert isinstance(problem, Problem) and "not a deflated file of at most 64 MiB" in problem.what


def test_choices_that_cannot_be():
    for choices in ({"every": 0}, {"max_side": 5}):
        with pytest.raises(ValueError, match=rf"Structured3DConfig\.{next(iter(choices))} must be"):
            replace(Structured3DConfig(), **choices)
    with pytest.raises(DataError, match="no such directory"):
        Structured3DConfig().build()


def fuzz_member(fuzz, root, archive: str, name: str, number: int) -> None:
    original = members(root / archive)
    folder = FRAME if archive == FRAMES else f"{FOLDER}panorama/"
    kept = {key: data for key, data in original.items() if key.startswith(folder)}

    def read(data: bytes) -> None:
        with zipfile.ZipFile(root / archive, "w") as target:
            for key, content in kept.items():
                target.writestr(key, data if key == name else content)
        look(opened(root))

    fuzz(read, [original[name]], number)


def look(dataset: Structured3D) -> None:
    """Read all of the first room."""
    scene = dataset.scenes[0]
    points = scene.read_points()
    assert points_problem(points, dataset.known_ids) is None
    for found in scene.read_frames(scene.frames):
        assert isinstance(found, Problem | RawFrame) and str(found)
    if points.problems:
        raise DataError("; ".join(map(str, points.problems)))


def fuzz_archive(fuzz, root, number: int) -> None:
    path = root / FRAMES
    content = {name: data for name, data in members(path).items() if name.startswith(FRAME)}
    path.unlink()
    (root / PANORAMAS).unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    fuzz(lambda data: (path.write_bytes(data), look(opened(root, panoramas=False))), [path.read_bytes()], number)


FILES = (
    *((FRAMES, f"{FRAME}{name}") for name in ("camera_pose.txt", "depth.png", "semantic.png", "instance.png")),
    *(
        (PANORAMAS, f"{FOLDER}panorama/{name}")
        for name in ("camera_xyz.txt", "full/depth.png", "full/rgb_rawlight.png")
    ),
)


@pytest.mark.parametrize(("archive", "name"), FILES)
def test_mutated_files(fuzz, root, archive, name):
    fuzz_member(fuzz, alone(root, archive), archive, name, 30)


@pytest.mark.slow
@pytest.mark.parametrize(("archive", "name"), FILES)
def test_many_mutated_files(fuzz, root, archive, name):
    fuzz_member(fuzz, alone(root, archive), archive, name, 2000)


def alone(root, archive: str):
    """The directory without its other archive."""
    (root / (FRAMES if archive == PANORAMAS else PANORAMAS)).unlink()
    return root


def test_mutated_archives(fuzz, root):
    fuzz_archive(fuzz, root, 60)


@pytest.mark.slow
def test_many_mutated_archives(fuzz, root):
    fuzz_archive(fuzz, root, 4000)
