"""A bounded directory of bytes by their SHA-256."""

import hashlib
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest

from ponder3d.data.prepared.cache import Cache


def content(number: int, size: int = 1000) -> tuple[str, bytes]:
    data = random.Random(number).randbytes(size)
    return hashlib.sha256(data).hexdigest(), data


def held(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("?/*"))


def test_what_was_put_is_got(tmp_path):
    cache = Cache(tmp_path / "new", 10_000)
    name, data = content(0)
    assert cache.get(name) is None
    cache.put(name, data)
    cache.put(name, data)
    assert cache.get(name) == data == Cache(tmp_path / "new", 10_000).get(name)
    assert held(tmp_path / "new") == 1000


def test_what_is_damaged_is_not_used(tmp_path):
    cache = Cache(tmp_path, 10_000)
    name, data = content(0)
    for damage in (data[:-1], data[:5] + b"x" + data[6:], b""):
        cache.put(name, data)
        (tmp_path / name[0] / name).write_bytes(damage)
        assert cache.get(name) is None and not (tmp_path / name[0] / name).exists()


def test_it_is_bounded(tmp_path):
    cache = Cache(tmp_path, 100_000)
    for number in range(250):
        cache.put(*content(number))
        assert held(tmp_path) <= 100_000 * 33 / 32 + 2000
    assert held(tmp_path) > 50_000
    assert cache.get(content(249)[0]) and not cache.get(content(0)[0])
    cache.put(*content(1000, 200_000))  # more than all of it
    assert cache.get(content(1000, 200_000)[0]) is None
    Cache(tmp_path, 20_000).put(*content(251))  # another bound holds from the first write on
    assert held(tmp_path) <= 20_000


def test_what_was_used_longest_ago_goes_first(tmp_path):
    cache = Cache(tmp_path, 10_000)
    for number in range(10):
        name, data = content(number)
        cache.put(name, data)
        os.utime(tmp_path / name[0] / name, (number, number))
    assert cache.get(content(0)[0])  # used now
    cache.put(*content(10))
    cache.put(*content(11))
    cache.trim()
    assert [number for number in range(12) if cache.get(content(number)[0])] == [0, *range(3, 12)]


def test_leftovers_of_killed_writers_are_swept_and_other_files_are_not(tmp_path):
    cache = Cache(tmp_path, 10_000)
    cache.put(*content(0))
    folder = tmp_path / content(0)[0][0]
    old, fresh, foreign = folder / f".tmp-{'a' * 16}", folder / f".tmp-{'b' * 16}", folder / "notes.txt"
    for path in (old, fresh, foreign, tmp_path / "mine.txt"):
        path.write_bytes(bytes(50_000))
    os.utime(old, (time.time() - 3600,) * 2)
    os.utime(foreign, (0, 0))
    cache.trim()
    assert not old.exists() and fresh.exists() and foreign.exists() and (tmp_path / "mine.txt").exists()
    assert cache.get(content(0)[0])


def test_a_cache_that_cannot_be_written_warns_once(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file", 10_000)
    with pytest.warns(UserWarning, match="file: cannot be used as a cache, reading goes on without"):
        cache.put(*content(0))
    cache.put(*content(1))
    assert cache.get(content(0)[0]) is None


def _use(root: Path, key: int, results):
    cache, draw, wrong, hits = Cache(root, 30_000), random.Random(key), 0, 0
    for _ in range(200):
        name, data = content(draw.randrange(60))
        found = cache.get(name)
        wrong += found not in (None, data)
        hits += found is not None
        if found is None:
            cache.put(name, data)
    results.put((wrong, hits))


def test_several_processes_share_one(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_use, args=(tmp_path, key, results)) for key in range(3)]
    for process in processes:
        process.start()
    ends = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(10)
    assert all(process.exitcode == 0 for process in processes)
    assert [wrong for wrong, _ in ends] == [0, 0, 0] and sum(hits for _, hits in ends) > 50
    assert held(tmp_path) <= 30_000 * 33 / 32 + 6000
