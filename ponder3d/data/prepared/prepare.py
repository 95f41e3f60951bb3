"""``ponder3d prepare``: every scene of a dataset, in parallel, to be stopped and continued at any instant.

A scene becomes ``scenes/SPLIT/NAME.tar``, written aside and renamed, so that what is there is whole. Nothing in it
depends on when or beside what it was made: a run that was killed, at whatever instant and however often, ends with the
bytes of one that was not. ``manifest.json`` comes last.
"""

import concurrent.futures
import contextlib
import errno
import fcntl
import hashlib
import importlib
import inspect
import multiprocessing
import os
import pkgutil
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path

import torch

import ponder3d.data.raw
from ponder3d.config import Config, essence, fingerprint
from ponder3d.data.dataset import DataError
from ponder3d.data.limited import read_scene_list
from ponder3d.data.prepared.container import END, find_index, parse_index, verify
from ponder3d.data.prepared.fusing import CloudBuilder
from ponder3d.data.prepared.manifest import FILE_NAME, Manifest, SceneEntry
from ponder3d.data.prepared.scene_file import PrepareOptions, encode_frame, without_root, write_scene
from ponder3d.data.raw.dataset import Problem, RawDataset, RawDatasetConfig, RawFrame, RawScene
from ponder3d.data.skip_list import skip_list_of
from ponder3d.files import sweep, write_whole
from ponder3d.processes import end_with_parent

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

    What cannot be read counts for nothing. How large a cloud becomes that is fused from frames shows only when it is
    done; it is taken to grow with the square root of their number, as views overlap.
    """
    seconds = size = frame_seconds = frame_size = 0.0
    read = taken = 0
    looks_at_frames = options.images
    for number in range(min(sample, len(scenes))):
        scene = scenes[number * len(scenes) // min(sample, len(scenes))]
        started = time.monotonic()
        try:
            with scene.keeping():
                points = scene.read_points()
                size += 0 if points is None else points.nbytes
                seconds += time.monotonic() - started
                taken += 1
                if not options.images and points is not None:
                    continue
                looks_at_frames = True
                started = time.monotonic()
                cloud = CloudBuilder(options.cloud_spacing, scene.source) if points is None else None
                names = scene.frames[:: max(1, len(scene.frames) // sample)][:sample]
                used = [frame for frame in scene.read_frames(names) if isinstance(frame, RawFrame)]
                for frame in used:
                    if options.images:
                        files = encode_frame(frame, dataset.depth_units, options.jpeg_quality)
                        # A tar header and half a block of padding for each file.
                        frame_size += sum(len(data) + 768 for data in files.values())
                    if cloud is not None:
                        cloud.add(frame)
                if cloud is not None and used:
                    size += cloud.points().nbytes * (len(scene.frames) / len(used)) ** 0.5
                read += len(used)
                frame_seconds += time.monotonic() - started
        except (DataError, OSError):
            continue
    frames = sum(len(scene.frames) for scene in scenes) if looks_at_frames else 0
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
        self.dataset = preparation.dataset.build()
        self.skip = skip_list_of(Path(preparation.dataset.root), preparation.options.skip)
        # What a scene becomes depends neither on where things are nor on which other scenes are taken.
        self.choices = _without_places(preparation)
        self._fingerprint = fingerprint(self.choices)
        chosen = _chosen(self.dataset, preparation.options)
        self.scenes = tuple(s for s in self.dataset.scenes if s.name in chosen or (out / self.file(s)).exists())
        """The scenes that were asked for, and those that are there from before."""
        self._refuse_other_contents()

    @staticmethod
    def file(scene: RawScene) -> str:
        """Where a scene is kept, relative to ``out``."""
        return f"scenes/{scene.split}/{scene.name}.tar"

    def identity(self, scene: str) -> str:
        """Fingerprint of all choices that a scene depends on."""
        entries = sorted(item for item in self.skip.entries.items() if item[0][0] == scene)
        digest = hashlib.sha256(repr(entries).encode()).hexdigest()[:12]
        return f"{self._fingerprint}-{digest}" if entries else self._fingerprint

    def estimate(self) -> Estimate:
        """What it will take for the scenes that are not there yet."""
        missing = [scene for scene in self.scenes if not (self.out / self.file(scene)).exists()]
        return estimate(self.dataset, missing, self.preparation.options)

    def run(self, report: Report = lambda done, total, figures: None) -> Manifest:
        """Prepare every scene that is not there yet, and write the manifest.

        A scene that cannot be used is left out and listed in the manifest. Scenes with a ``file`` problem are read
        again: somebody may have fetched the file anew.

        Raises:
            DataError: not a single scene could be used.
            OSError: the disk is full, or a scene's files cannot be reached; what is done stays, and the same call
                continues.
            ValueError: another process prepares into the same directory.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with alone(self.out):
            for split in {scene.split for scene in self.scenes}:
                sweep(self.out / "scenes" / split)
            sweep(self.out)
            problems = [*self.dataset.problems]
            waiting: list[RawScene] = []
            for scene in self.scenes:
                reason = self.skip.scene(scene.name)
                if reason:
                    problems.append(Problem(scene.name, "", "skipped", reason))
                else:
                    waiting.append(scene)
            done = self._run_all(waiting, report)
            entries, files = [], {}
            for scene in waiting:
                result = done[scene.name]
                if isinstance(result, _Failed):
                    problems.append(Problem(scene.name, "", "file", result.why))
                    continue
                entries.append(result.entry)
                files[result.entry.file] = result.digest
                problems += result.problems
            _raise_unreached([result for result in done.values() if isinstance(result, _Failed) and result.again])
            if not entries:
                raise DataError(
                    f"{self.preparation.dataset.root}: none of {len(self.scenes)} scenes can be used; {problems[0]}"
                )
            manifest = Manifest(
                dataset=type(self.preparation.dataset).__module__.rpartition(".")[2],
                written_by=f"ponder3d {version('ponder3d')}",
                options=essence(self.choices),
                tables=self.dataset.tables,
                known_ids=self.dataset.known_ids,
                scenes=tuple(entries),
                files=files,
                problems=tuple(sorted(self._placeless(problem) for problem in problems)),
            )
            write_whole(self.out / FILE_NAME, manifest.to_bytes())
            return manifest

    def _placeless(self, problem: Problem) -> Problem:
        return replace(problem, what=without_root(problem.what, self.preparation.dataset.root))

    def _run_all(self, scenes: Sequence[RawScene], report: Report) -> "dict[str, _Done | _Failed]":
        """What came of each scene."""
        processes = _processes(self.preparation.options, len(scenes))
        done: dict[str, _Done | _Failed] = {}
        frames = 0

        def note(name: str, result: _Done | _Failed) -> None:
            nonlocal frames
            done[name] = result
            frames += 0 if isinstance(result, _Failed) else result.entry.frames
            report(len(done), len(scenes), {"frames": float(frames)})

        report(0, len(scenes), {})
        if processes == 1:
            for scene in scenes:
                note(scene.name, self._prepare(scene))
            return done
        context = multiprocessing.get_context("spawn")
        arguments = (self.preparation, self.out, os.getpid())
        with concurrent.futures.ProcessPoolExecutor(processes, context, _start_worker, arguments) as pool:
            futures = {pool.submit(_prepare_one, scene.name): scene.name for scene in scenes}
            try:
                for future in concurrent.futures.as_completed(futures):
                    note(futures[future], future.result())
            except BrokenProcessPool as error:
                raise ChildProcessError(
                    f"a process that prepared scenes was killed, perhaps for its memory, or could not start; "
                    f"{len(done)} of {len(scenes)} scenes are done, and the same command continues"
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return done

    def _prepare(self, scene: RawScene) -> "_Done | _Failed":
        """Prepare one scene unless it is there already."""
        file = self.file(scene)
        path, identity = self.out / file, self.identity(scene.name)
        root = self.preparation.dataset.root
        try:
            with contextlib.suppress(FileNotFoundError, DataError):  # not there, or damaged since: made anew
                done = _finished(path, file, identity)
                if not any(problem.kind == "file" for problem in done.problems):
                    return done
            write_scene(path, scene, self.dataset, self.preparation.options, self.skip, identity, root)
            return _finished(path, file, identity)
        except DataError as error:
            return _Failed(str(error), again=False)
        except MemoryError:
            return _Failed(f"{scene.source}: not enough memory", again=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise  # no other scene would fare better
            return _Failed(f"{scene.source}: {error}", again=True)

    def _refuse_other_contents(self) -> None:
        """See that what is in ``out`` belongs to the same preparation."""
        if not self.out.exists():
            return
        if not self.out.is_dir():
            raise DataError(f"{self.out}: not a directory; choose another place")
        own = ("scenes", FILE_NAME, "skip.tsv", "lost+found")
        strangers = [p.name for p in self.out.iterdir() if p.name not in own and not p.name.startswith(".")]
        if strangers:
            raise DataError(f"{self.out}: holds {strangers[0]}, which is not of a prepared dataset; choose another")
        for path in sorted(self.out.glob("scenes/*/*.tar")):
            try:
                with path.open("rb") as file:
                    index = parse_index(find_index(file, str(path))[2], str(path))
            except DataError:
                continue  # damaged: it will be made anew
            before = index.options.partition("-")[0]
            if before != self._fingerprint:
                raise DataError(
                    f"{path}: prepared with other choices (fingerprint {before}, now {self._fingerprint}); choose an "
                    "empty directory, or the options of before"
                )
            return  # one stands for all: the others are looked at when their turn comes


@dataclass(frozen=True)
class _Done:
    """A scene that is there and whole."""

    entry: SceneEntry
    problems: tuple[Problem, ...]
    digest: tuple[int, str]
    """Bytes and SHA-256 of its file."""


@dataclass(frozen=True)
class _Failed:
    """A scene that is not there."""

    why: str
    again: bool
    """Whether it may well work the next time: its files could not be reached."""


def _raise_unreached(failed: Sequence[_Failed]) -> None:
    if failed:
        raise OSError(
            f"{len(failed)} scenes could not be read, the first: {failed[0].why}; the others are done, and the same "
            "command tries these again"
        )


def _chosen(dataset: RawDataset, options: PrepareOptions) -> frozenset[str]:
    """Names of the scenes that the options ask for.

    Raises:
        DataError: the list cannot be read, or names a scene that is not there.
    """
    there = frozenset(scene.name for scene in dataset.scenes)
    if not options.scenes:
        return there
    names = frozenset(read_scene_list(Path(options.scenes)))
    missing = sorted(names - there)
    if missing:
        raise DataError(f"{options.scenes}: {missing[0]} and {len(missing) - 1} more scenes are not in the dataset")
    return names


def _without_places(preparation: Preparation) -> Preparation:
    """The same choices wherever files lie: of directories it only matters whether they are given."""
    roots = [field.name for field in fields(preparation.dataset) if field.name.endswith("root")]  # type: ignore[arg-type]
    given = {name: "given" if getattr(preparation.dataset, name) else "" for name in roots}
    options = replace(preparation.options, scenes="", skip="")
    return Preparation(replace(preparation.dataset, **given), options)


def _processes(options: PrepareOptions, jobs: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(options.workers or cores, jobs))


@contextlib.contextmanager
def alone(out: Path):
    """Hold the directory's lock; the system lets go of it when the process ends, however it ends."""
    with (out / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{out}: another process is writing a dataset there") from error
        yield  # the file stays: removed, it could be locked by one process and made anew by another


_worker: tuple[Preparing, dict[str, RawScene]] | None = None
"""Set once in each worker process."""


def _start_worker(preparation: Preparation, out: Path, parent: int) -> None:
    global _worker  # how a pool hands something to its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    end_with_parent(parent)
    torch.set_num_threads(1)
    preparing = Preparing(preparation, out)
    _worker = preparing, {scene.name: scene for scene in preparing.scenes}


def _prepare_one(name: str) -> _Done | _Failed:
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
    return _Done(entry, index.problems, (length, digest))


def free_bytes(out: Path) -> int:
    """Free space where a directory is or will be."""
    place = out.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
