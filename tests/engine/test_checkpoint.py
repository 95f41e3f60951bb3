"""Whatever happens during a save, or to its files afterwards: what loads is what was saved, or an error says so."""

import errno
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch
from saves import EXPERIMENT, NEW, OLD, InPlace, Ours, error, faults_found, kill, save_with_limit
from tiny_runs import before_each_call, differences

from ponder3d.engine import checkpoint
from ponder3d.engine.checkpoint import MANIFEST, CheckpointError, CheckpointStore, NoCheckpointError, read_verified

FILES = ("state.pt", "experiment.json", MANIFEST)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(checkpoint, "_CHUNK", 512)  # several writes per file


def state(step: int) -> dict:
    return {"step": step, "model": {"w": torch.full((300,), float(step))}}


def store_of(folder: Path, steps: range, keep: int = 2) -> CheckpointStore:
    store = CheckpointStore(folder, keep)
    for step in steps:
        store.save(step, state(step), EXPERIMENT)
    return store


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_what_is_saved_loads(tmp_path):
    store_of(tmp_path, range(1, 2))
    loaded = CheckpointStore(tmp_path).load()
    assert (loaded.step, loaded.experiment, loaded.skipped) == (1, EXPERIMENT, ())
    assert not differences(loaded.state, state(1))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_kill_at_any_call_of_a_save_leaves_a_checkpoint_that_loads(tmp_path, warm, damaged):
    calls, wrong = faults_found(Ours, tmp_path, kill, damaged)
    assert calls > 25
    assert wrong == []


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("damaged", [False, True])
def test_an_error_at_any_call_of_a_save_is_raised_and_leaves_a_checkpoint_that_loads(tmp_path, code, lasting, damaged):
    calls, wrong = faults_found(Ours, tmp_path, error(code, lasting), damaged)
    assert calls > 25
    assert wrong == []


def test_the_check_catches_a_saver_that_writes_in_place(tmp_path, warm):
    assert len(faults_found(InPlace, tmp_path / "kill", kill)[1]) > 3
    assert len(faults_found(InPlace, tmp_path / "full", error_of_in_place)[1]) > 3


def error_of_in_place(store: Ours, number: int) -> bool:
    try:
        return error(errno.ENOSPC, False)(store, number)
    except OSError:
        return True


def test_a_killed_save_can_be_repeated_and_its_remains_swept(tmp_path, warm):
    store = Ours(tmp_path)
    store.prepare()
    assert kill(store, 10)
    assert len(store.debris()) == 1
    CheckpointStore(tmp_path).sweep()
    assert store.debris() == []
    store.save(NEW)
    assert not differences(store.load(), NEW)


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    store_of(tmp_path, range(1, 2))
    monkeypatch.undo()
    assert not differences(CheckpointStore(tmp_path).load().state, state(1))


def test_a_file_that_outgrows_its_limit_is_an_error_and_leaves_the_old(tmp_path, warm):
    # The kernel's own short write and error, not one of ours.
    store = Ours(tmp_path)
    store.prepare()
    process = multiprocessing.get_context("forkserver").Process(target=save_with_limit, args=(store, 1000))
    process.start()
    process.join()
    assert process.exitcode == errno.EFBIG
    assert store.debris() == []
    assert not differences(store.load(), OLD)


def test_everything_is_synced_before_the_rename_and_the_folder_after(tmp_path):
    calls = []
    with before_each_call(calls.append):
        store_of(tmp_path, range(1, 2))
    renamed = calls.index("rename")
    assert calls[:renamed].count("fsync") == 4  # three files, and the directory that holds them
    assert calls[renamed:].count("fsync") == 1


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_and_the_older_checkpoint_used(tmp_path, name):
    store_of(tmp_path, range(1, 3))
    path = tmp_path / "step-00000002" / name
    bits = 8 * path.stat().st_size
    # 3 and 8 have no common divisor: of the small files every byte, and over them every bit of a byte.
    for bit in range(0, bits, bits // 200 if name == "state.pt" else 3):
        flip(path, bit)
        with pytest.raises(CheckpointError, match="step-00000002"):
            read_verified(path.parent)
        flip(path, bit)
    flip(path, bits - 1)
    loaded = CheckpointStore(tmp_path).load()
    assert not differences(loaded.state, state(1))
    assert len(loaded.skipped) == 1
    assert str(path) in loaded.skipped[0]


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_missing_file_is_found_and_the_older_checkpoint_used(tmp_path, name):
    store_of(tmp_path, range(1, 3))
    path = tmp_path / "step-00000002" / name
    size = path.stat().st_size
    for length in (size - 1, size // 2, 1, 0):
        os.truncate(path, length)
        loaded = CheckpointStore(tmp_path).load()
        assert loaded.step == 1
        assert str(path) in loaded.skipped[0]
    path.unlink()
    assert "No such file" in CheckpointStore(tmp_path).load().skipped[0]


def test_a_checkpoint_under_another_name_is_refused(tmp_path):
    store_of(tmp_path, range(1, 3))
    (tmp_path / "step-00000002").rename(tmp_path / "step-00000009")
    loaded = CheckpointStore(tmp_path).load()
    assert loaded.step == 1
    assert "belongs to step-00000002" in loaded.skipped[0]


def test_a_damaged_checkpoint_is_written_again_when_the_run_comes_back_to_it(tmp_path):
    store_of(tmp_path, range(1, 3))
    flip(tmp_path / "step-00000002" / "state.pt", 999)
    store_of(tmp_path, range(2, 3))
    loaded = CheckpointStore(tmp_path).load()
    assert (loaded.step, loaded.skipped) == (2, ())


def test_without_any_checkpoint_the_error_names_the_folder(tmp_path):
    with pytest.raises(NoCheckpointError, match=f"{tmp_path}/none: no checkpoint that verifies .no step-"):
        CheckpointStore(tmp_path / "none").load()
    store_of(tmp_path, range(1, 2))
    flip(tmp_path / "step-00000001" / "state.pt", 0)
    with pytest.raises(CheckpointError, match="step-00000001/state.pt: its SHA-256 differs") as caught:
        CheckpointStore(tmp_path).load()
    assert caught.type is CheckpointError  # there is a run, which is damaged


def test_the_newest_two_are_kept(tmp_path):
    assert store_of(tmp_path, range(1, 6)).steps() == [4, 5]
    assert store_of(tmp_path / "one", range(1, 6), keep=1).steps() == [5]


def test_a_damaged_checkpoint_does_not_count_as_kept(tmp_path):
    store_of(tmp_path, range(1, 4))
    flip(tmp_path / "step-00000003" / "state.pt", 0)
    assert store_of(tmp_path, range(4, 5)).steps() == [2, 3, 4]
    shutil.rmtree(tmp_path / "step-00000004")
    assert CheckpointStore(tmp_path).load().step == 2


def test_what_the_store_did_not_write_is_never_touched(tmp_path):
    store_of(tmp_path, range(1, 3))
    foreign = ["best", "step-1", "step-00000000-copy", "my-step-00000000", ".tmp-step-00000001", ".tmp-mine", "step-x"]
    for name in foreign:
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_text("mine")
    (tmp_path / "step-00000000").write_text("a file")
    (tmp_path / ".tmp-step-00000007-123").write_text("a file")
    store = store_of(tmp_path, range(3, 6))
    store.sweep()
    assert store.steps() == [4, 5]
    assert all((tmp_path / name / "data").read_text() == "mine" for name in foreign)
    assert (tmp_path / "step-00000000").read_text() == "a file"
    assert (tmp_path / ".tmp-step-00000007-123").read_text() == "a file"


def test_sweeping_removes_the_remains_of_any_process(tmp_path):
    (tmp_path / ".tmp-step-00000007-123").mkdir()
    (tmp_path / ".tmp-step-00000007-123" / "state.pt").write_text("half")
    CheckpointStore(tmp_path).sweep()
    assert list(tmp_path.iterdir()) == []
