"""Shards: what they hold, that packing can be killed, and that others read them."""

import multiprocessing
import random
import signal
import tarfile
import time
from pathlib import Path

import pytest
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared import shard as module
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.prepared.manifest import FILE_NAME, parse_manifest
from ponder3d.data.prepared.prepare import LOCK
from ponder3d.data.prepared.shard import damages, pack
from ponder3d.data.prepared.storage import Retries, Storage
from ponder3d.geometry import keyed

SPLITS = ("train",) * 5 + ("val",) * 2


@pytest.fixture
def source(tmp_path, prepared_scenes) -> Path:
    prepared_scenes.write_prepared(tmp_path / "prepared", SPLITS, num_frames=3)
    return tmp_path / "prepared"


@pytest.fixture
def packed(prepared_scenes):
    """Packs into shards of two scenes, if they are as small as these."""

    def pack_small(source: Path | str, out: Path, limit: int = 130_000):
        return prepared_scenes.pack_small(source, out, limit)

    return pack_small


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK}


def test_the_same_scenes_in_fewer_files(source, packed, tmp_path):
    manifest = packed(source, tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == [
        FILE_NAME,
        *(f"train-00000{i}.tar" for i in range(3)),
        "val-000000.tar",
    ]
    assert parse_manifest((tmp_path / "out" / FILE_NAME).read_bytes(), "") == manifest
    assert list(damages(str(tmp_path / "out"))) == []
    assert all(p.stat().st_size <= 130_000 for p in (tmp_path / "out").glob("*.tar"))
    for split in ("train", "val"):
        before = PreparedConfig(root=str(source), split=split, views=2).build()
        after = PreparedConfig(root=str(tmp_path / "out"), split=split, views=2).build()
        assert len(before) == len(after) == SPLITS.count(split)
        for index in range(len(before)):
            one, two = before.draw(index, keyed.generator(index)), after.draw(index, keyed.generator(index))
            assert one.source.rpartition(":")[2] == two.source.rpartition(":")[2]
            assert torch.equal(one.xyz, two.xyz) and one.views is not None and two.views is not None
            assert torch.equal(one.views.rgb, two.views.rgb) and one.views.names == two.views.names


def test_blocks_are_the_shards(source, packed, tmp_path):
    packed(source, tmp_path / "out")
    data = PreparedConfig(root=str(tmp_path / "out"), mix_shards=2).build()
    assert (data.blocks, data.mix_blocks) == ((2, 2, 1), 2)
    (tmp_path / "few.txt").write_text("room_0\nroom_2\nroom_3\n")
    few = PreparedConfig(root=str(tmp_path / "out"), mix_shards=1, scenes=str(tmp_path / "few.txt")).build()
    assert (few.blocks, few.mix_blocks) == ((1, 2), 1)
    for mix in (0, 3, 16):  # all are mixed: in the order of a directory of one scene a file
        assert PreparedConfig(root=str(tmp_path / "out"), mix_shards=mix).build().blocks == ()


def test_one_shard_for_all_and_one_for_each(source, packed, tmp_path):
    pack(str(source), tmp_path / "one")
    assert sorted(contents(tmp_path / "one")) == [FILE_NAME, "train-000000.tar", "val-000000.tar"]
    packed(source, tmp_path / "each", 10_000)  # every scene is larger
    assert len(list((tmp_path / "each").glob("train-*.tar"))) == 5


def test_a_shard_is_a_tar_file_with_a_sample_per_scene(source, tmp_path):
    """What WebDataset's grouping asks for: members of a sample follow each other, and share the name up to a dot."""
    pack(str(source), tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "train-000000.tar", "r:") as tar:
        members = tar.getmembers()
        xyz = tar.extractfile("room_1.xyz.npy")
        assert xyz is not None and xyz.read(6) == b"\x93NUMPY"
    keys = [member.name.partition(".")[0] for member in members]
    assert list(dict.fromkeys(keys)) == [f"room_{i}" for i in range(5)] and keys == sorted(keys)
    assert all(member.isfile() and "/" not in member.name for member in members)
    assert members[-1].name == "room_4.index.json"


def test_the_webdataset_package_reads_a_shard(source, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    pack(str(source), tmp_path / "out")
    dataset = webdataset.WebDataset(str(tmp_path / "out" / "train-000000.tar"), shardshuffle=False)
    samples = list(dataset)
    assert [sample["__key__"] for sample in samples] == [f"room_{i}" for i in range(5)]
    assert {"xyz.npy", "f000002.color.jpg", "index.json"} <= set(samples[0])


def test_packing_again_changes_nothing(source, packed, tmp_path):
    packed(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    packed(source, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / FILE_NAME).unlink()  # as if it had been killed before the end
    (tmp_path / "out" / "train-000001.tar").unlink()
    (tmp_path / "out" / ".tmp-train-000001.tar-17").write_bytes(b"half")
    packed(source, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_what_packing_did_not_write_stays(source, packed, tmp_path):
    out = tmp_path / "out"
    packed(source, out)
    with pytest.raises(DataError, match="holds train-000001.tar, which is not of this packing"):
        pack(str(source), out)
    with pytest.raises(DataError, match="holds other scenes, or shards of another size"):
        packed(source, out, 10_000)
    (out / "train-000001.tar").write_bytes(b"x" + (out / "train-000001.tar").read_bytes()[1:])
    with pytest.raises(DataError, match="train-000001.tar: not as it was written.*remove it"):
        packed(source, out)
    with pytest.raises(DataError, match="prepared: holds scenes, which is not of this packing"):
        pack(str(source), source)
    with pytest.raises(ValueError, match="shard_mb must be at least 1"):
        pack(str(source), out, shard_mb=0)


def test_a_damaged_source_stops_it(source, packed, tmp_path):
    path = source / "scenes/train/room_3.tar"
    data = path.read_bytes()
    at = data.index(b"\x93NUMPY") + 300
    path.write_bytes(data[:at] + b"?" + data[at + 1 :])
    with pytest.raises(DataError, match=r"room_3.tar: room_3.xyz.npy has the SHA-256"):
        packed(source, tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == ["train-000000.tar"]  # and no manifest
    path.write_bytes(data)
    packed(source, tmp_path / "out")
    assert list(damages(str(tmp_path / "out"))) == []


def test_a_skip_list_goes_along(source, tmp_path):
    (source / "skip.tsv").write_text("room_1\t\toff\n")
    pack(str(source), tmp_path / "out")
    assert len(PreparedConfig(root=str(tmp_path / "out")).build()) == 4


def test_packing_from_a_bad_server(source, packed, tmp_path, prepared_scenes, monkeypatch):
    monkeypatch.setattr(module, "Storage", lambda root: Storage(root, Retries(pause=0.005)))
    packed(source, tmp_path / "local")
    with prepared_scenes.BadServer(source, ["503", "flipped", "truncated", "dropped"], share=0.5, most=3) as server:
        packed(server.url, tmp_path / "out")
        assert len(server.committed) >= 3
        assert list(damages(server.url)) == []
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


@pytest.mark.slow
def test_packing_that_is_killed_at_any_instant_ends_with_the_same_bytes(tmp_path, prepared_scenes):
    source, out = tmp_path / "prepared", tmp_path / "out"
    prepared_scenes.write_prepared(source, ("train",) * 40, num_frames=6, size=(96, 128))
    pack(str(source), tmp_path / "whole", shard_mb=1)
    draw, context, kills = random.Random(0), multiprocessing.get_context("fork"), 0
    for _ in range(20):
        child = context.Process(target=pack, args=(str(source), out), kwargs={"shard_mb": 1})
        child.start()
        time.sleep(draw.uniform(0, 0.3))
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        if (out / FILE_NAME).exists():  # it has finished: take some away, and go on
            for path in [out / FILE_NAME, *list(out.glob("*.tar"))[::2]]:
                path.unlink()
    assert kills >= 10
    pack(str(source), out, shard_mb=1)
    assert contents(out) == contents(tmp_path / "whole")
