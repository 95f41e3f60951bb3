"""Prepared scenes as a dataset: what is in them, what is chosen, what is left out, from disk and from a bad server."""

import functools
import io
import pickle
import shutil
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared import dataset as module
from ponder3d.data.prepared.dataset import PreparedConfig, PreparedScenes
from ponder3d.data.raw.dataset import Problem
from ponder3d.data.raw.example_room import COLOURS, SURFACES
from ponder3d.data.skip_list import write_skip_list
from ponder3d.geometry import keyed
from ponder3d.geometry.cameras import pixel_grid, unproject
from ponder3d.types import Batch, Scene


def example(tmp_path, prepared_scenes) -> PreparedConfig:
    prepared_scenes.write_prepared(tmp_path / "prepared")
    return PreparedConfig(root=str(tmp_path / "prepared"), views=3)


@pytest.fixture
def root(tmp_path, prepared_scenes) -> Path:
    prepared_scenes.write_prepared(tmp_path / "prepared")
    return tmp_path / "prepared"


def tensors(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for f in fields(value) for t in tensors(getattr(value, f.name))] if is_dataclass(value) else []


def same(one: Scene, other: Scene) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    names = one.views is None or (other.views is not None and one.views.names == other.views.names)
    return names and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def name(scene: Scene) -> str:
    return scene.source.replace("/", ":").rpartition(":")[2]


def views_of(scene: Scene):
    assert scene.views is not None
    return scene.views


def test_scenes_hold_what_was_written(root, prepared_scenes):
    data = PreparedConfig(root=str(root), views=-1).build()
    assert data.labels == prepared_scenes.FINE.labels and len(data) == 3 and data.skipped == ()
    room, scene = prepared_scenes.room_of(1), data[1]
    xyz, surface = room.points(0.25)
    assert scene.source == f"{root}:room_1" and name(scene) == "room_1"
    assert scene.xyz.numpy().tobytes() == xyz.astype(np.float32).tobytes()
    rows = torch.tensor([["wall", "floor", "ceiling", "table"].index(s) for s in SURFACES])
    assert scene.labels is not None and torch.equal(scene.labels, rows[surface])
    assert scene.instances is not None and torch.equal(scene.instances, torch.from_numpy(surface))
    assert scene.rgb is not None and torch.equal(scene.rgb, torch.from_numpy(COLOURS[surface]).float() / 255)
    views = views_of(scene)
    assert views.names == tuple(f"{10 * i:06d}" for i in range(6)) and views.cameras.size == (24, 32)
    for i in range(6):
        depth, seen = room.trace(i)
        assert views.depth is not None and views.labels is not None and views.instances is not None
        np.testing.assert_allclose(views.depth[i], depth, atol=0.0006)  # millimetres
        assert torch.equal(views.labels[i].long(), rows[seen]) and views.labels.dtype == torch.int16
        assert torch.equal(views.instances[i].long(), torch.from_numpy(seen) - 1)  # surface 0 is none
        assert np.abs(views.rgb[i].numpy().astype(int) - COLOURS[seen]).mean() < 12  # JPEG
        np.testing.assert_allclose(views.cameras.world_from_cam[i], room.pose(i), atol=1e-6)
        np.testing.assert_allclose(views.cameras.intrinsics[i], room.intrinsics, rtol=1e-6)


@pytest.mark.parametrize(("views", "numbers"), [(1, [3]), (2, [1, 4]), (5, [0, 1, 3, 4, 5]), (9, range(6))])
def test_views_are_evenly_spread(root, views, numbers):
    scene = PreparedConfig(root=str(root), views=views).build()[0]
    assert views_of(scene).names == tuple(f"{10 * i:06d}" for i in numbers)


def test_a_draw_takes_random_views(root):
    data = PreparedConfig(root=str(root), views=2).build()
    draws = [data.draw(0, keyed.generator(epoch)) for epoch in range(40)]
    seen = {views_of(scene).names for scene in draws}
    assert len(seen) >= 10 and all(len(set(names)) == 2 and list(names) == sorted(names) for names in seen)
    assert same(draws[7], data.draw(0, keyed.generator(7)))
    assert all(torch.equal(scene.xyz, draws[0].xyz) for scene in draws)
    many = PreparedConfig(root=str(root), views=50).build()
    assert same(many.draw(0, keyed.generator(1)), many[0]) and len(views_of(many[0]).names) == 6
    assert PreparedConfig(root=str(root), views=0).build().draw(0, keyed.generator(1)).views is None


@pytest.mark.parametrize("max_side", [8, 16, 20])
def test_smaller_images_see_the_same_room(root, prepared_scenes, max_side):
    views = views_of(PreparedConfig(root=str(root), views=-1, max_side=max_side).build()[0])
    whole = views_of(PreparedConfig(root=str(root), views=-1).build()[0])
    height, width = views.cameras.size
    assert (height, width) == (round(24 * max_side / 32), max_side) and views.rgb.shape == (6, height, width, 3)
    assert views.depth is not None and views.labels is not None and whole.labels is not None
    room = prepared_scenes.room_of(0)
    for i in range(6):
        view = torch.full((height * width,), i)
        at = unproject(views.cameras, pixel_grid((height, width)), views.depth[i].reshape(-1), view)
        # A pixel is the nearest one of the whole image: at most half a pixel away, 1/40 of the depth.
        assert float(np.median(room.distance(at.numpy()))) < 0.06
    v = [(2 * i + 1) * 24 // (2 * height) for i in range(height)]
    u = [(2 * i + 1) * 32 // (2 * width) for i in range(width)]
    assert torch.equal(views.labels, whole.labels[:, v][:, :, u])
    mean = whole.rgb.float().mean((1, 2))
    torch.testing.assert_close(views.rgb.float().mean((1, 2)), mean, atol=4, rtol=0)


def test_other_classes_of_the_same_files(root, prepared_scenes):
    data = PreparedConfig(root=str(root), classes="coarse").build()
    assert data.labels == prepared_scenes.COARSE.labels
    rows = torch.tensor([{"wall": 1, "floor": 0}.get(s, -1) for s in SURFACES])
    labels, surface = data[0].labels, prepared_scenes.room_of(0).points(0.25)[1]
    assert labels is not None and torch.equal(labels, rows[surface])
    seen = views_of(data[0]).labels
    assert seen is not None and set(seen.unique().tolist()) == {-1, 0, 1}
    with pytest.raises(DataError, match="prepared: no classes 'rooms'; there are fine, coarse"):
        PreparedConfig(root=str(root), classes="rooms").build()


def test_a_list_of_scenes(root, tmp_path):
    (tmp_path / "few.txt").write_text("room_2\n\nroom_0\n# room_1\n")
    config = PreparedConfig(root=str(root), scenes=str(tmp_path / "few.txt"))
    assert [name(scene) for scene in map(config.build().__getitem__, range(2))] == ["room_0", "room_2"]
    assert [name(config.held_out().build()[i]) for i in range(2)] == ["room_3", "room_4"]
    for text, says in (("room_3", "has no scene room_3 in split 'train'"), ("# none", "it names no scene")):
        (tmp_path / "few.txt").write_text(text)
        with pytest.raises(DataError, match=f"few.txt.*{says}"):
            config.build()


def test_a_fold_of_names_replaces_the_splits(root):
    config = PreparedConfig(root=str(root), fold="room_1")
    train, held_out = config.build(), config.held_out().build()
    assert [name(train[i]) for i in range(len(train))] == ["room_0", "room_2", "room_3", "room_4"]
    assert [name(held_out[i]) for i in range(len(held_out))] == ["room_1"]
    with pytest.raises(DataError, match="no scene in split 'val' of fold 'Area_7'"):
        replace(config, fold="Area_7").held_out().build()


def skipping(root: Path, *entries: tuple[str, str], path: Path | None = None):
    write_skip_list(path or root / "skip.tsv", [Problem(scene, frame, "pose", "off") for scene, frame in entries])


def test_what_is_on_the_skip_list_is_left_out_and_listed(root, tmp_path):
    skipping(root, ("room_0", ""), ("room_1", "000020"), ("room_1", "50"), ("elsewhere", ""))
    data = PreparedConfig(root=str(root), views=-1).build()
    assert [name(data[i]) for i in range(len(data))] == ["room_1", "room_2"]
    assert views_of(data[0]).names == ("000000", "000010", "000030", "000040")
    drawn = {n for epoch in range(9) for n in views_of(data.draw(0, keyed.generator(epoch))).names}
    assert drawn == set(views_of(data[0]).names)
    assert data.skipped == (
        f"{root}:room_0: pose: off",
        f"{root}:room_1/20: pose: off",
        f"{root}:room_1/50: pose: off",
        f"{root}/skip.tsv: no such scene: elsewhere: is it another dataset's list?",
    )
    skipping(root, ("room_2", ""), path=tmp_path / "mine.tsv")  # instead of the other
    assert len(PreparedConfig(root=str(root), skip=str(tmp_path / "mine.tsv")).build()) == 2
    (root / "skip.tsv").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match="skip.tsv: not a text"):
        PreparedConfig(root=str(root)).build()


def test_a_scene_without_any_usable_image_is_left_out_where_images_are_wanted(root):
    skipping(root, *(("room_1", f"{10 * i}") for i in range(6)))
    data = PreparedConfig(root=str(root)).build()
    assert [name(data[i]) for i in range(len(data))] == ["room_0", "room_2"]
    says = "all of its 6 images are on the skip list; --data.views 0 takes points only"
    assert data.skipped == (f"{root}:room_1: {says}",)
    assert len(PreparedConfig(root=str(root), views=0).build()) == 3
    skipping(root, *((f"room_{i}", "") for i in range(5)))
    with pytest.raises(DataError, match=r"no scene in split 'train' \(3 are left out, such as .*room_0: pose: off\)"):
        PreparedConfig(root=str(root)).build()


def test_points_without_images_or_labels(tmp_path, prepared_scenes):
    prepared_scenes.write_prepared(tmp_path, num_frames=0, labels=False)
    data = PreparedConfig(root=str(tmp_path)).build()
    assert data.labels is None and len(data) == 3 and data.skipped == ()
    scene = data.draw(1, keyed.generator(0))
    assert scene.views is None and scene.labels is None and scene.instances is None and len(scene.xyz) > 100
    assert Batch.of([data[0], data[1]]).views is None


def test_an_empty_split_and_other_directories(root, tmp_path):
    with pytest.raises(DataError, match="no scene in split 'test'; there are train, val"):
        PreparedConfig(root=str(root), split="test").build()
    with pytest.raises(DataError, match=r"manifest.json: no such file; ponder3d prepare makes one"):
        PreparedConfig(root=str(tmp_path)).build()
    with pytest.raises(DataError, match="root is empty"):
        PreparedConfig().build()
    (root / "scenes/train/room_1.tar").unlink()
    with pytest.raises(DataError, match="train/room_1.tar: no such file, where manifest.json puts scene room_1"):
        PreparedConfig(root=str(root)).build()[1]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("views", -2, "-1, 0 or a number"),
        ("max_side", 5, "0 or at least 8"),
        ("mix_shards", -1, "at least 0"),
        ("cache_gb", 0.0, "positive"),
        ("timeout", float("nan"), "positive"),
        ("keep_in_memory", -1, "at least 0"),
    ],
)
def test_wrong_choices_are_named(field, value, says):
    with pytest.raises(ValueError, match=f"PreparedConfig.{field} must be .*{says}"):
        PreparedConfig(**{field: value})


def scenes_of(data: PreparedScenes) -> list[Scene]:
    return [data.draw(i, keyed.generator(i, epoch)) for epoch in range(2) for i in range(len(data))]


@pytest.fixture
def impatient(monkeypatch):
    """Short pauses between tries."""
    monkeypatch.setattr(module, "Retries", functools.partial(module.Retries, pause=0.005))


def test_a_bad_server_brings_the_same_scenes_as_the_disk(root, tmp_path, prepared_scenes, impatient):
    local = PreparedConfig(root=str(root), views=3)
    expected = scenes_of(local.build())
    with prepared_scenes.BadServer(root, prepared_scenes.BadServer.FAULTS, share=0.5, most=3, stall=0.25) as server:
        config = replace(local, root=server.url, timeout=0.12)
        data = config.build()
        assert all(same(a, b) for a, b in zip(scenes_of(data), expected, strict=True))
        assert sum(server.committed.values()) > 5
        assert name(data[0]) == "room_0"
        server.asked.clear()
        cached = replace(config, cache_dir=str(tmp_path / "cache"), keep_in_memory=2).build()
        assert all(same(a, b) for a, b in zip(scenes_of(cached), expected, strict=True))
        seen = sum(server.asked.values())
        again = replace(config, cache_dir=str(tmp_path / "cache")).build()
        assert all(same(a, b) for a, b in zip(scenes_of(again), expected, strict=True))
        # All from the cache, but for the manifest and the question whether there is a skip list.
        new = sum(server.asked.values()) - seen
        assert new <= 5 and {path for path, part in server.asked if not part} == {"/manifest.json", "/skip.tsv"}


def test_loader_processes_read_after_their_parent_has(root, prepared_scenes, impatient):
    expected = [PreparedConfig(root=str(root)).build()[i] for i in range(3)]
    with prepared_scenes.BadServer(root, ["503", "truncated", "flipped"], share=0.5, most=2) as server:
        data = PreparedConfig(root=server.url).build()
        assert same(data[0], expected[0])
        loader = DataLoader(data, batch_size=None, num_workers=2, collate_fn=tensors, multiprocessing_context="fork")  # type: ignore[arg-type]
        for got, scene in zip(loader, expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, tensors(scene), strict=True))
    assert same(pickle.loads(pickle.dumps(PreparedConfig(root=str(root)).build()))[1], expected[1])


def test_points_are_kept_in_memory(root, prepared_scenes):
    with prepared_scenes.BadServer(root) as server:
        data = PreparedConfig(root=server.url, views=0, keep_in_memory=2).build()
        for index in (0, 1, 0, 1):
            data[index]
        assert len(server.asked) == 2 + 2 * 2  # manifest, skip list; index and points of two scenes
        data[2]
        before = sum(server.asked.values())
        data[0]
        assert sum(server.asked.values()) == before + 1  # the index is still there


def test_a_directory_of_one_scene_per_file_has_no_blocks(root):
    data = PreparedConfig(root=str(root), mix_shards=1).build()
    assert data.blocks == ()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
@pytest.mark.parametrize("part", ["xyz.npy", "normal.npy", "world_from_cam.npy", "intrinsics.npy"])
def test_numbers_that_are_none(root, part, value):
    """The checksum is right: such a file was made so."""
    data = PreparedConfig(root=str(root)).build()
    read = data._records.members

    def spoilt(entry, index, names):
        members = read(entry, index, names)
        array = np.load(io.BytesIO(members[part]))
        array.reshape(-1)[5] = value
        buffer = io.BytesIO()
        np.save(buffer, array)
        return {**members, part: buffer.getvalue()}

    data._records.members = spoilt  # type: ignore[method-assign]
    with pytest.raises(DataError, match=rf"room_0.tar: room_0.{part}: a number that is not finite, or beyond 1e\+09"):
        data[0]


def test_a_scene_that_is_damaged_on_disk(root):
    path = root / "scenes/train/room_0.tar"
    data = path.read_bytes()
    at = data.index(b"\x93NUMPY")  # the first array: the coordinates
    path.write_bytes(data[: at + 200] + b"?" + data[at + 201 :])
    with pytest.raises(DataError, match=r"train/room_0.tar: room_0.xyz.npy has the SHA-256 \w{64} instead of"):
        PreparedConfig(root=str(root)).build()[0]
    shutil.copy(root / "scenes/train/room_1.tar", path)
    with pytest.raises(DataError, match=r"room_0.tar: room_0.index.json has the SHA-256"):
        PreparedConfig(root=str(root)).build()[0]


def test_what_a_scene_has_is_found_once(root, monkeypatch):
    looks = []
    kinds = PreparedScenes._kinds
    monkeypatch.setattr(PreparedScenes, "_kinds", lambda data, index: looks.append(index.name) or kinds(data, index))
    data = PreparedConfig(root=str(root), views=4).build()
    for epoch in range(3):
        for number in range(3):
            assert views_of(data.draw(number, keyed.generator(epoch))).labels is not None
    assert looks == ["room_0", "room_1", "room_2"]


def test_indices_are_kept_as_far_as_their_members_go(root, monkeypatch):
    data = PreparedConfig(root=str(root), views=1).build()
    read, reads = data._records.index, []
    monkeypatch.setattr(data._records, "index", lambda entry: reads.append(entry.name) or read(entry))
    num = len(read(data._entries[0]).members)
    monkeypatch.setattr(module, "_MEMBERS", 2 * num)
    for number in (0, 1, 0, 2, 0, 1):  # 2 takes the place of 1, which was used before 0
        assert name(data[number]) == f"room_{number}"
        assert sum(len(opened.index.members) for opened in data._opened.values()) == data._held <= 2 * num
    assert reads == ["room_0", "room_1", "room_2", "room_1"]
    monkeypatch.setattr(module, "_MEMBERS", 1)
    data[2], data[2]
    assert reads[4:] == ["room_2"] and list(data._opened) == ["room_2"], "the last one always"
