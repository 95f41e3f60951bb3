"""Every damage is found, and the file and the member are named."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.prepared.manifest import FILE_NAME, is_intact, parse_manifest
from ponder3d.data.prepared.record import Records
from ponder3d.data.prepared.shard import damages, pack
from ponder3d.data.prepared.storage import Storage, StorageError


@pytest.fixture
def root(tmp_path, prepared_scenes) -> Path:
    """Two shards with three scenes."""
    prepared_scenes.write_prepared(tmp_path / "prepared", ("train", "train", "val"), num_frames=2, spacing=0.5)
    pack(str(tmp_path / "prepared"), tmp_path / "shards")
    return tmp_path / "shards"


def places(root: Path, file: str) -> list[tuple[int, int, str]]:
    """First byte, end and name of every member of a shard."""
    records = Records(Storage(str(root)))
    found = []
    for entry in records.manifest().scenes:
        if entry.file == file:
            members = {**records.index(entry).members, "index.json": entry.index}
            for name, member in members.items():
                first = entry.start + member.offset
                found.append((first, first + member.size, f"{entry.name}.{name}"))
    return found


@pytest.mark.parametrize("number", [25, pytest.param(250, marks=pytest.mark.slow)])
def test_random_flips_and_truncations_are_found_and_named(root, number):
    draw = random.Random(7)
    files = {file: (root / file).read_bytes() for file in ("train-000000.tar", "val-000000.tar", FILE_NAME)}
    members = {file: places(root, file) for file in files}
    before = [scene_bytes(root, split) for split in ("train", "val")]
    assert list(damages(str(root))) == []
    between = 0
    for trial in range(number):
        file = draw.choice(list(files))
        data = bytearray(files[file])
        at = draw.randrange(len(data))
        cut = trial % 5 == 0
        if cut:
            del data[at:]
        else:
            data[at] ^= 1 << draw.randrange(8)
        (root / file).write_bytes(data)
        hit = [name for first, end, name in members[file] if (end > at if cut else first <= at < end)]
        lines = found(root)
        assert lines and all(str(root / file) in line for line in lines), (trial, file, at)
        if file != FILE_NAME and hit:
            assert any(name in line for name in hit for line in lines), (trial, hit, lines)
            # Who only reads scenes is told, or reads others.
            scene = hit[0].split(".")[0]
            with pytest.raises(DataError, match=f"{file}.*{scene}"):
                read_scene(root, file.partition("-")[0], scene)
        elif file != FILE_NAME:
            between += 1
            assert "not in a member of a scene, but between them" in lines[0]
            assert [scene_bytes(root, split) for split in ("train", "val")] == before
        (root / file).write_bytes(files[file])
    assert 0 < between < number / 2 and found(root) == []


def found(root: Path) -> list[str]:
    try:
        return list(damages(str(root)))
    except DataError as error:
        return [str(error)]


def scene_bytes(root: Path, split: str) -> list[bytes]:
    data = PreparedConfig(root=str(root), split=split, views=-1).build()
    scenes = [data[i] for i in range(len(data))]
    return [s.xyz.numpy().tobytes() + (b"" if s.views is None else s.views.rgb.numpy().tobytes()) for s in scenes]


def read_scene(root: Path, split: str, name: str):
    data = PreparedConfig(root=str(root), split=split, views=-1).build()
    for i in range(len(data)):
        if data._entries[i].name == name:
            data[i]


def test_a_damaged_index_that_says_it_is_whole(root, prepared_scenes):
    """What the manifest and the index say of each other is compared, whatever their checksums say."""
    records = Records(Storage(str(root)))
    entry = records.manifest().scenes[0]
    for change, says in (
        ({"name": "room_9"}, "name is 'room_0'; the manifest says 'room_9'"),
        ({"points": 3}, "points is .*; the manifest says 3"),
        ({"frames": 9}, "frames is 2; the manifest says 9"),
        ({"size": 2000}, "does not lie within the scene"),
    ):
        with pytest.raises(DataError, match=says):
            records.index(replace(entry, **change))
    with pytest.raises(DataError, match="manifest.json has no SHA-256 of it"):
        records.index(replace(entry, index=replace(entry.index, sha256="../../x")))


@pytest.mark.parametrize("number", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_manifests_that_are_damaged(root, fuzz, number):
    seed = (root / FILE_NAME).read_bytes()
    assert is_intact(seed)
    assert fuzz(lambda data: parse_manifest(data, "manifest.json"), [seed], number) > 0.9 * number


@pytest.mark.parametrize("number", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_shards_that_are_damaged(root, fuzz, number):
    path = root / "val-000000.tar"

    def read(data: bytes):
        path.write_bytes(data)
        try:
            return scene_bytes(root, "val")
        except StorageError as error:
            raise DataError(str(error)) from error

    assert fuzz(read, [path.read_bytes()], number) > 0.5 * number


@pytest.mark.parametrize("number", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_scenes_whose_checksums_are_right_and_whose_content_is_not(tmp_path, prepared_scenes, fuzz, number):
    """Whoever makes the files can make the checksums: readers behind them believe nothing either."""
    manifest = prepared_scenes.write_prepared(tmp_path, ("train",), num_frames=2, spacing=0.5)
    data = PreparedConfig(root=str(tmp_path), views=-1).build()
    entry, index = manifest.scenes[0], data._records.index(manifest.scenes[0])
    whole = data._records.members(entry, index, list(index.members))
    names = [name for name in whole if "color" in name or "depth" in name or name.endswith("npy")]
    seeds = [whole[name] for name in names]
    turn = iter(range(10**9))

    def read(content: bytes):
        name = names[next(turn) % len(names)] if content not in seeds else names[seeds.index(content)]
        data._records.members = lambda *_: {**whole, name: content}  # type: ignore[method-assign]
        return data[0]

    assert fuzz(read, seeds, number) > 0.5 * number
