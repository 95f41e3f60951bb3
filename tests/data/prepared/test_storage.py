"""Bytes from a directory, from a server that errs, and from memory."""

import asyncio
import hashlib
import os
import pickle
import time

import fsspec
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared import storage as module
from ponder3d.data.prepared.storage import NotStoredError, Piece, Retries, Storage, StorageError

DATA = bytes(i * 7 % 251 for i in range(100_000))
FAST = Retries(tries=6, timeout=0.15, pause=0.005)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.bin").write_bytes(DATA)
    return tmp_path


def piece(start: int, length: int, what: str = "") -> Piece:
    return Piece(start, length, hashlib.sha256(DATA[start : start + length]).hexdigest(), what)


PIECES = [piece(90_000, 10_000), piece(5, 100, "second"), piece(0, 10), piece(200, 0), piece(50, 100)]


def check(storage: Storage):
    assert storage.read("sub/a.bin", 17, 1000) == DATA[17:1017]
    assert storage.read_all("sub/a.bin") == DATA
    read = storage.read_pieces("sub/a.bin", PIECES)
    assert [bytes(view) for view in read] == [DATA[p.start : p.start + p.length] for p in PIECES]
    assert storage.read_pieces("sub/a.bin", []) == []


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_directory(root, prefix):
    check(Storage(f"{prefix}{root}"))
    check(Storage(f"{prefix}{root}/"))


def test_memory(root):
    fsspec.filesystem("memory").pipe_file("/scans/sub/a.bin", DATA)
    storage = Storage("memory://scans")
    check(storage)
    with pytest.raises(NotStoredError, match="memory://scans/b: no such file"):
        storage.read_all("b")
    with pytest.raises(StorageError, match="bytes 99990-100089 cannot be read in 6 tries.*10 bytes instead of"):
        Storage("memory://scans", FAST).read("sub/a.bin", 99_990, 100)


def test_ranges_that_are_close_are_read_together(root, prepared_scenes):
    with prepared_scenes.BadServer(root) as server:
        Storage(server.url).read_pieces("sub/a.bin", PIECES)
        assert sorted(part for _, part in server.asked) == ["bytes=0-199", "bytes=90000-99999"]
    runs = module._runs([Piece(0, 10 << 20), Piece(10 << 20, 10 << 20), Piece(1 << 20, 1 << 20)])
    assert [(run.start >> 20, run.length >> 20) for run in runs] == [(0, 10), (10, 10)]  # none of more than 16 MiB
    assert len(module._runs([Piece(0, 40 << 20), Piece(5, 10)])) == 1  # unless one piece is larger


@pytest.mark.parametrize(
    "fault", ["500", "503", "stall", "truncated", "short", "long", "flipped", "dropped", "garbage"]
)
def test_what_goes_wrong_twice_comes_right(root, prepared_scenes, fault):
    with prepared_scenes.BadServer(root, [fault], most=2, stall=0.3) as server:
        storage = Storage(server.url, FAST)
        read = storage.read_pieces("sub/a.bin", PIECES)
        assert [bytes(view) for view in read] == [DATA[p.start : p.start + p.length] for p in PIECES]
        assert storage.read_all("sub/a.bin", lambda data: data == DATA) == DATA
        assert server.committed == {fault: 6}


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("503", r"ClientResponseError: 503"),
        ("stall", "timed out"),
        ("truncated", "ClientPayloadError"),
        ("short", r"WrongBytesError: 5000 bytes instead of bytes 90000-99999"),
        ("dropped", "Disconnected"),
    ],
)
def test_what_never_comes_right_is_an_error_in_bounded_time(root, prepared_scenes, fault, says):
    with prepared_scenes.BadServer(root, [fault], stall=0.3) as server:
        storage = Storage(server.url, FAST)
        start = time.monotonic()
        with pytest.raises(StorageError, match=says) as caught:
            storage.read("sub/a.bin", 90_000, 10_000)
        assert time.monotonic() - start < 3
        message = f"{server.url}/sub/a.bin: bytes 90000-99999 cannot be read in 6 tries; the last error: "
        assert str(caught.value).startswith(message)
        assert sum(server.committed.values()) >= 6
        assert isinstance(caught.value, OSError) and not isinstance(caught.value, NotStoredError)


def test_time_ends_the_tries_too(root, prepared_scenes):
    with prepared_scenes.BadServer(root, ["stall"], stall=2) as server:
        storage = Storage(server.url, Retries(tries=100, timeout=0.1, total=0.5, pause=0.01))
        start = time.monotonic()
        with pytest.raises(StorageError, match=r"cannot be read in [2-5] tries"):
            storage.read("sub/a.bin", 0, 10)
        assert time.monotonic() - start < 1.5


def test_a_server_that_is_not_there(root):
    with pytest.raises(StorageError, match=r"cannot be read in 6 tries; the last error: ClientConnector"):
        Storage("http://127.0.0.1:9", FAST).read("sub/a.bin", 0, 10)


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("403", StorageError, "in 1 tries; the last error: RefusedError: status 403 Forbidden"),
        ("whole", StorageError, "the server ignores byte ranges"),
    ],
)
def test_what_trying_again_does_not_change_is_tried_once(root, prepared_scenes, fault, error, says):
    with prepared_scenes.BadServer(root, [fault]) as server:
        with pytest.raises(error, match=says):
            Storage(server.url, FAST).read("sub/a.bin", 0, 10)
        assert sum(server.asked.values()) == 1


def test_a_file_that_is_not_there_is_asked_for_once(root, prepared_scenes):
    with prepared_scenes.BadServer(root) as server:
        with pytest.raises(NotStoredError, match=f"{server.url}/sub/b.bin: no such file"):
            Storage(server.url, FAST).read("sub/b.bin", 0, 10)
        assert sum(server.asked.values()) == 1
    with pytest.raises(NotStoredError, match="b.bin: no such file"):
        Storage(str(root)).read("sub/b.bin", 0, 10)
    with pytest.raises(NotStoredError):
        Storage(str(root / "absent")).read_all("x")


def test_another_checksum(root, prepared_scenes):
    wrong = Piece(3, 5, "0" * 64, "room.xyz.npy")
    actual = hashlib.sha256(DATA[3:8]).hexdigest()
    says = f"sub/a.bin: room.xyz.npy has the SHA-256 {actual} instead of {'0' * 64}"
    with pytest.raises(DataError, match=f"{says}; the file is damaged"):
        Storage(str(root)).read_pieces("sub/a.bin", [PIECES[0], wrong])
    with prepared_scenes.BadServer(root) as server, pytest.raises(DataError, match=f"{says}, 6 times; the file is dam"):
        Storage(server.url, FAST).read_pieces("sub/a.bin", [PIECES[0], wrong])


def test_a_file_that_ends_before(root):
    for start in (99_990, 200_000):
        with pytest.raises(DataError, match=rf"a.bin: \d+ bytes instead of bytes {start}-{start + 99}; the file"):
            Storage(str(root)).read("sub/a.bin", start, 100)
    with pytest.raises(DataError, match="10 bytes instead of"):  # does not ask for the memory
        Storage(str(root)).read("sub/a.bin", 99_990, 1 << 50)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "a\\b", "a?b", "", "a//b", "http://x/y"])
def test_names_that_leave_the_root_are_refused(root, name):
    with pytest.raises(DataError, match="no name of a file below it"):
        Storage(str(root)).read(name, 0, 1)


def test_storage_that_cannot_be_read_here(root):
    with pytest.raises(DataError, match="nosuch://bucket: storage of this kind cannot be read here"):
        Storage("nosuch://bucket").read("a", 0, 1)
    (root / "closed").mkdir()
    with pytest.raises(StorageError, match="closed: bytes 0-0 cannot be read; the last error: IsADirectoryError"):
        Storage(str(root)).read("closed", 0, 1)


class Ranges(Dataset):
    def __init__(self, storage: Storage):
        self.storage = storage

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(list(self.storage.read_pieces("sub/a.bin", [piece(index * 100, 100)])[0]))


def test_forked_loader_processes_have_connections_of_their_own(root, prepared_scenes):
    with prepared_scenes.BadServer(root, prepared_scenes.BadServer.FAULTS, share=0.3, most=3, stall=0.3) as server:
        storage = Storage(server.url, FAST)
        parents = piece(0, 10), piece(99_000, 10)
        before = storage.read_pieces("sub/a.bin", parents)  # the parent's connections exist before the fork
        for _ in range(2):
            loader = DataLoader(Ranges(storage), batch_size=None, num_workers=2, multiprocessing_context="fork")
            got = torch.cat(list(loader))
            assert bytes(got.tolist()) == DATA[:2000]
            assert storage.read_pieces("sub/a.bin", parents) == before  # and are as they were
        assert len(server.committed) > 2


def test_a_forked_process_leaves_what_it_inherits_alone(root, prepared_scenes):
    with prepared_scenes.BadServer(root) as server:
        storage = Storage(server.url, FAST)
        storage.read("sub/a.bin", 0, 10)
        child = os.fork()
        if child == 0:
            read = storage.read("sub/a.bin", 20, 10)
            del storage
            os._exit(0 if read == DATA[20:30] and module._INHERITED else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert not module._INHERITED
        assert storage.read("sub/a.bin", 30, 10) == DATA[30:40]


def test_where_an_event_loop_runs_already(root, prepared_scenes):
    async def notebook(storage: Storage) -> bytes:
        return storage.read("sub/a.bin", 1, 10)

    with prepared_scenes.BadServer(root) as server:
        assert asyncio.run(notebook(Storage(server.url))) == DATA[1:11]


def test_another_process_gets_the_root(root):
    check(pickle.loads(pickle.dumps(Storage(str(root)))))
