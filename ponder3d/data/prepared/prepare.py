"""``ponder3d prepare``: every scene of a dataset, in parallel, to be stopped and continued at any instant.

A scene becomes ``scenes/SPLIT/NAME.tar``, written aside and renamed, so that what is there is whole. Nothing in it
depends on when or beside what it was made: a run that was killed, at whatever instant and however often, ends with the
bytes of one that was not. ``manifest.json`` comes last.
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import importlib
import inspect
import multiprocessing
import os
import pkgutil
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch

import ponder3d.data.raw
from ponder3d.config import Config, essence, fingerprint
from ponder3d.data.dataset import DataError
from ponder3d.data.prepared.container import END, SceneIndex, find_index, parse_index, verify
from ponder3d.data.prepared.manifest import FILE_NAME, Manifest, SceneEntry
from ponder3d.data.prepared.scene_file import PrepareOptions, encode_frame, write_scene
from ponder3d.data.raw.dataset import Problem, RawDataset, RawDatasetConfig, RawFrame, RawScene
from ponder3d.data.skip_list import SkipList, read_skip_list
from ponder3d.files import sweep, write_whole

Report = Callable[[int, int, dict[str, float]], None]
"""Told (scenes done, scenes in all, figures) now and then."""

LOCK = ".preparing"
"""File in a directory that is written to."""


@dataclass(frozen=True)
class Preparation(Config):
    """All that decides what a prepared dataset contains."""

    dataset: RawDatasetConfig
    """What is read."""
    options: PrepareOptions = PrepareOptions()
    """How it is kept."""


@dataclass(frozen=True)
class Estimate:
    """What preparing will take, from a sample of scenes and frames."""

    scenes: int
    frames: int
    bytes: int
    seconds: float
    """With all processes."""


def raw_datasets() -> dict[str, type[RawDatasetConfig]]:
    """Kinds of datasets that can be prepared, by the name of their module in ``ponder3d.data.raw``."""
    found = {}
    for info in pkgutil.iter_modules(ponder3d.data.raw.__path__):
        module = importlib.import_module(f"{ponder3d.data.raw.__name__}.{info.name}")
        for value in vars(module).values():
            is_kind = isinstance(value, type) and issubclass(value, RawDatasetConfig) and not inspect.isabstract(value)
            if is_kind and value.__module__ == module.__name__:
                found[info.name] = value
    return found


def estimate(dataset: RawDataset, scenes: Sequence[RawScene], options: PrepareOptions, sample: int = 3) -> Estimate:
    """Read and encode a few frames of a few scenes, and conclude from them to all.

    What cannot be read counts for nothing.
    """
    seconds = size = frame_seconds = frame_size = 0.0
    read = taken = 0
    for number in range(min(sample, len(scenes))):
        scene = scenes[number * len(scenes) // min(sample, len(scenes))]
        started = time.monotonic()
        try:
            with scene.keeping() if options.images else contextlib.nullcontext():
                points = scene.read_points()
                size += 0 if points is None else points.nbytes
                taken += 1
                seconds += time.monotonic() - started
                started = time.monotonic()
                names = scene.frames[:: max(1, len(scene.frames) // sample)][:sample]
                for frame in scene.read_frames(names) if options.images else ():
                    if isinstance(frame, RawFrame):
                        files = encode_frame(frame, dataset.depth_units, options.jpeg_quality)
                        # A tar header and half a block of padding for each file.
                        frame_size += sum(len(data) + 768 for data in files.values())
                        read += 1
                frame_seconds += time.monotonic() - started
        except DataError:
            continue
    frames = sum(len(scene.frames) for scene in scenes) if options.images else 0
    total = frame_seconds / max(read, 1) * frames + seconds / max(taken, 1) * len(scenes)
    return Estimate(
        scenes=len(scenes),
        frames=frames,
        bytes=round(frame_size / max(read, 1) * frames + size / max(taken, 1) * len(scenes)),
        seconds=total / _processes(options, len(scenes)),
    )


class Preparing:
    """One dataset on its way from ``config.root`` to ``out``.

    Raises:
        DataError: this is no such dataset, or ``out`` holds something else, or was prepared with other choices.
    """

    def __init__(self, preparation: Preparation, out: Path):
        self.preparation, self.out = preparation, out
        options = preparation.options
        self.dataset = preparation.dataset.build()
        self.skip = read_skip_list(Path(options.skip)) if options.skip else SkipList()
        # What a scene becomes does not depend on which others are taken, and on a skip list by what it says.
        self.identity = fingerprint(replace(preparation, options=replace(options, scenes="", skip=_digest(self.skip))))
        self.scenes = _chosen(self.dataset, preparation.options)
        self._refuse_other_contents()

    def estimate(self) -> Estimate:
        """What it will take, all scenes included."""
        return estimate(self.dataset, self.scenes, self.preparation.options)

    def run(self, report: Report = lambda done, total, figures: None) -> Manifest:
        """Prepare every scene that is not there yet, and write the manifest.

        A scene that cannot be used is left out and listed in the manifest.

        Raises:
            DataError: not a single scene could be used.
            OSError: the disk is full, or the like; what is done stays, and the same call continues.
            ValueError: another process prepares into the same directory.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with alone(self.out):
            for split in {scene.split for scene in self.scenes}:
                sweep(self.out / "scenes" / split)
            sweep(self.out)
            problems = [*self.dataset.problems]
            waiting, entries, files = [], [], {}
            for scene in self.scenes:
                reason = self.skip.scene(scene.name)
                if reason:
                    problems.append(Problem(scene.name, "", "skipped", reason))
                else:
                    waiting.append(scene)
            done = self._run_all(waiting, report)
            for scene in waiting:
                result = done[scene.name]
                if isinstance(result, str):
                    problems.append(Problem(scene.name, "", "file", result))
                    continue
                entry, index, digest = result
                entries.append(entry)
                files[entry.file] = digest
                problems += index.problems
            if not entries:
                raise DataError(
                    f"{self.preparation.dataset.root}: none of {len(self.scenes)} scenes can be used; {problems[0]}"
                )
            manifest = Manifest(
                dataset=type(self.preparation.dataset).__module__.rpartition(".")[2],
                written_by=f"ponder3d {version('ponder3d')}",
                options=essence(self.preparation),
                tables=self.dataset.tables,
                known_ids=self.dataset.known_ids,
                scenes=tuple(entries),
                files=files,
                problems=tuple(sorted(problems)),
            )
            write_whole(self.out / FILE_NAME, manifest.to_bytes())
            return manifest

    def _run_all(self, scenes: Sequence[RawScene], report: Report) -> dict[str, "_Done | str"]:
        """What came of each scene: where it is, or why it cannot be used."""
        processes = _processes(self.preparation.options, len(scenes))
        done: dict[str, _Done | str] = {}
        frames = 0
        report(0, len(scenes), {})
        if processes == 1:
            for scene in scenes:
                result = done[scene.name] = self._prepare(scene)
                frames += 0 if isinstance(result, str) else len(result[1].frames)
                report(len(done), len(scenes), {"frames": float(frames)})
            return done
        context = multiprocessing.get_context("spawn")
        arguments = (self.preparation, self.out, os.getpid())
        with concurrent.futures.ProcessPoolExecutor(processes, context, _start_worker, arguments) as pool:
            futures = {pool.submit(_prepare_one, scene.name): scene.name for scene in scenes}
            try:
                for future in concurrent.futures.as_completed(futures):
                    result = done[futures[future]] = future.result()
                    frames += 0 if isinstance(result, str) else len(result[1].frames)
                    report(len(done), len(scenes), {"frames": float(frames)})
            except BrokenProcessPool as error:
                raise ChildProcessError(
                    f"a process that prepared scenes was killed, perhaps for its memory; {len(done)} of {len(scenes)} "
                    "scenes are done, and the same command continues"
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return done

    def _prepare(self, scene: RawScene) -> "_Done | str":
        """Prepare one scene unless it is there already; where it is, or why it cannot be used."""
        file = f"scenes/{scene.split}/{scene.name}.tar"
        path = self.out / file
        try:
            with contextlib.suppress(FileNotFoundError, DataError):  # not there, or damaged since: made anew
                return _finished(path, file, self.identity)
            write_scene(path, scene, self.dataset, self.preparation.options, self.skip, self.identity)
            return _finished(path, file, self.identity)
        except DataError as error:
            return str(error)

    def _refuse_other_contents(self) -> None:
        """See that what is in ``out`` belongs to the same preparation."""
        if not self.out.exists():
            return
        if not self.out.is_dir():
            raise DataError(f"{self.out}: not a directory; choose another place")
        own = ("scenes", FILE_NAME, LOCK, "skip.tsv")
        strangers = [p.name for p in self.out.iterdir() if p.name not in own and not p.name.startswith(".tmp-")]
        if strangers:
            raise DataError(f"{self.out}: holds {strangers[0]}, which is not of a prepared dataset; choose another")
        for path in sorted(self.out.glob("scenes/*/*.tar")):
            try:
                with path.open("rb") as file:
                    index = parse_index(find_index(file, str(path))[2], str(path))
            except DataError:
                continue  # damaged: it will be made anew
            if index.options != self.identity:
                raise DataError(
                    f"{path}: prepared with other choices (fingerprint {index.options}, now {self.identity}); choose "
                    "an empty directory, or the options of before"
                )
            return  # one stands for all: the others are looked at when their turn comes


_Done = tuple[SceneEntry, SceneIndex, tuple[int, str]]
"""Where a scene is, its index, and bytes and SHA-256 of its file."""


def _chosen(dataset: RawDataset, options: PrepareOptions) -> tuple[RawScene, ...]:
    """The scenes that the options name.

    Raises:
        DataError: the list cannot be read, or names a scene that is not there.
    """
    if not options.scenes:
        return dataset.scenes
    try:
        names = {line.strip() for line in Path(options.scenes).read_text().splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{options.scenes}: cannot be read as a list of scenes ({error})") from error
    missing = sorted(names - {scene.name for scene in dataset.scenes})
    if missing:
        raise DataError(f"{options.scenes}: {missing[0]} and {len(missing) - 1} more scenes are not in the dataset")
    return tuple(scene for scene in dataset.scenes if scene.name in names)


def _digest(skip: SkipList) -> str:
    return hashlib.sha256(repr(sorted(skip.entries.items())).encode()).hexdigest() if skip.entries else ""


def _processes(options: PrepareOptions, jobs: int) -> int:
    return max(1, min(options.workers or os.cpu_count() or 1, jobs))


@contextlib.contextmanager
def alone(out: Path):
    """Hold the directory's lock; the system lets go of it when the process ends, however it ends."""
    with (out / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{out}: another process is writing a dataset there") from error
        yield
    (out / LOCK).unlink(missing_ok=True)


_worker: tuple[Preparing, dict[str, RawScene]] | None = None
"""Set once in each worker process."""


def _start_worker(preparation: Preparation, out: Path, parent: int) -> None:
    global _worker  # how a pool hands something to its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    preparing = Preparing(preparation, out)
    _worker = preparing, {scene.name: scene for scene in preparing.scenes}


def _leave_with(parent: int) -> None:
    """A worker whose parent was killed would otherwise wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _prepare_one(name: str) -> _Done | str:
    assert _worker is not None
    preparing, scenes = _worker
    return preparing._prepare(scenes[name])


def _finished(path: Path, file: str, identity: str) -> _Done:
    """A scene that is there and whole: every byte of it is what its index says."""
    with path.open("rb") as opened:
        size, place, data = find_index(opened, str(path))
        index = parse_index(data, str(path))
        if index.options != identity:
            raise DataError(f"{path}: prepared with other choices")
        opened.seek(0)
        verify(opened, index, place, str(path))
        if opened.tell() != size or opened.read() != END:
            raise DataError(f"{path}: does not end as it should")
        opened.seek(0)
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        length = opened.tell()
    entry = SceneEntry(index.name, index.split, file, 0, size, place, index.points, len(index.frames))
    return entry, index, (length, digest)


def free_bytes(out: Path) -> int:
    """Free space where a directory is or will be."""
    place = out.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
