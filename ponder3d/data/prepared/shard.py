"""``ponder3d shard``: prepared scenes in files of a size that storage likes, each a WebDataset shard.

Shard ``train-000000.tar`` holds the first training scenes of the manifest, one after the other, as many as fit. Which
these are follows from the manifest and the size alone, a shard is renamed into place when it is whole, and one that is
there is compared with what it has to be: packing that was killed goes on, and ends with the same bytes.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared.container import END, SceneWriter
from ponder3d.data.prepared.manifest import FILE_NAME, Manifest, SceneEntry, parse_manifest
from ponder3d.data.prepared.prepare import LOCK, alone
from ponder3d.data.prepared.record import Records
from ponder3d.data.prepared.storage import NotStoredError, Storage, StorageError
from ponder3d.data.skip_list import FILE_NAME as SKIP_LIST
from ponder3d.files import replacing, sweep, write_whole

Report = Callable[[int, int, dict[str, float]], None]
"""Told (scenes done, scenes in all, figures) now and then."""
_CHUNK = 8 << 20


def pack(source: str, out: Path, shard_mb: int = 256, report: Report = lambda done, total, figures: None) -> Manifest:
    """Repack prepared scenes into shards, with a manifest of their own. Every member is verified on its way.

    Args:
        source: a prepared directory, or the URL of one.
        out: directory of the shards; may hold some of this packing already.
        shard_mb: millions of bytes of a shard at most; a larger scene has one to itself.
        report: told about the progress.

    Raises:
        DataError: the source is damaged, or ``out`` holds something else.
        StorageError: the source cannot be read.
        OSError: the disk is full, or the like; what is done stays, and the same call continues.
        ValueError: ``shard_mb`` is not positive, or another process writes to ``out``.
    """
    if shard_mb < 1:
        raise ValueError(f"shard_mb must be at least 1, it is {shard_mb}")
    storage = Storage(source)
    records = Records(storage)
    before = records.manifest()
    shards = _planned(before, shard_mb * 10**6)
    _refuse_other_contents(out, before, shards)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        sweep(out)
        files: dict[str, tuple[int, str]] = {}
        done = 0
        for shard in shards:
            path = out / shard.file
            if path.exists():
                files[shard.file] = _checked(path, shard)
            else:
                with replacing(path) as file:
                    files[shard.file] = _written(records, shard.sources, file)
            done += len(shard.placed)
            report(done, len(before.scenes), {"shards": float(len(files))})
        placed = {entry.name: entry for shard in shards for entry in shard.placed}
        after = replace(before, scenes=tuple(placed[scene.name] for scene in before.scenes), files=files)
        try:
            write_whole(out / SKIP_LIST, storage.read_all(SKIP_LIST))
        except NotStoredError:
            pass  # there is none
        write_whole(out / FILE_NAME, after.to_bytes())
    return after


def damages(root: str) -> Iterator[str]:
    """Read every byte of a prepared dataset, and say what is not as it was written: one line each, with the file, and
    the scene's member if it is in one.

    Args:
        root: a directory or a URL.

    Raises:
        DataError: the manifest is missing or damaged: nothing can be said about the rest.
    """
    storage = Storage(root)
    records = Records(storage)
    manifest = records.manifest()
    scenes: dict[str, list[SceneEntry]] = {}
    for scene in manifest.scenes:
        scenes.setdefault(scene.file, []).append(scene)
    for file, (size, sha256) in manifest.files.items():
        found = _file_damage(storage, file, size, sha256)
        if found is None:
            continue
        lines = [line for entry in scenes.get(file, []) if (line := _damage(records, entry))]
        yield from lines
        if not lines:
            yield f"{storage.where(file)}: {found}; not in a member of a scene, but between them"


def _file_damage(storage: Storage, file: str, size: int, sha256: str) -> str | None:
    actual = ""
    for _ in range(storage.retries.tries if storage.remote else 1):
        try:
            actual = _sha256(storage, file, size)
        except (DataError, StorageError) as error:
            return str(error)
        if actual == sha256:
            return None
    return f"its SHA-256 is {actual} instead of {sha256}"


def _sha256(storage: Storage, file: str, size: int) -> str:
    digest = hashlib.sha256()
    for start in range(0, size, _CHUNK):
        digest.update(storage.read(file, start, min(_CHUNK, size - start)))
    return digest.hexdigest()


def _damage(records: Records, entry: SceneEntry) -> str | None:
    try:
        for _ in records.all_members(entry, records.index(entry)):
            pass
    except (DataError, StorageError) as error:
        return str(error)
    return None


@dataclass(frozen=True)
class _Shard:
    file: str
    sources: tuple[SceneEntry, ...]
    """Its scenes, where they are now."""
    placed: tuple[SceneEntry, ...]
    """Its scenes, where they will be."""

    @property
    def size(self) -> int:
        return sum(scene.size for scene in self.placed) + len(END)


def _planned(manifest: Manifest, limit: int) -> list[_Shard]:
    """Which scenes go into which shard."""
    shards = []
    for split in sorted({scene.split for scene in manifest.scenes}):
        groups: list[list[SceneEntry]] = []
        room = 0
        for scene in manifest.scenes:
            if scene.split != split:
                continue
            if not groups or scene.size > room:
                groups.append([])
                room = limit - len(END)
            groups[-1].append(scene)
            room -= scene.size
        for number, group in enumerate(groups):
            file = f"{split}-{number:06d}.tar"
            placed, start = [], 0
            for scene in group:
                placed.append(replace(scene, file=file, start=start))
                start += scene.size
            shards.append(_Shard(file, tuple(group), tuple(placed)))
    return shards


def _refuse_other_contents(out: Path, before: Manifest, shards: list[_Shard]) -> None:
    if not out.exists():
        return
    own = {FILE_NAME, SKIP_LIST, LOCK, *(shard.file for shard in shards)}
    strangers = sorted(p.name for p in out.iterdir() if p.name not in own and not p.name.startswith(".tmp-"))
    if strangers:
        raise DataError(f"{out}: holds {strangers[0]}, which is not of this packing; choose another directory")
    if (out / FILE_NAME).exists():
        there = parse_manifest((out / FILE_NAME).read_bytes(), str(out / FILE_NAME))
        placed = {entry.name: entry for shard in shards for entry in shard.placed}
        if there.scenes != tuple(placed[scene.name] for scene in before.scenes):
            raise DataError(f"{out}: holds other scenes, or shards of another size; choose another directory")


def _written(records: Records, scenes: tuple[SceneEntry, ...], file: BinaryIO | None) -> tuple[int, str]:
    """Copy scenes to a file, or nowhere; returns bytes and SHA-256 of what was copied."""
    buffer, digest, size = io.BytesIO(), hashlib.sha256(), 0

    def drain() -> None:
        nonlocal size
        data = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        digest.update(data)
        size += len(data)
        if file is not None:
            file.write(data)

    for entry in scenes:
        index = records.index(entry)
        writer = SceneWriter(buffer, entry.name)
        for name, data in records.all_members(entry, index):
            writer.add(name, data)
            drain()
        copied = replace(index, members={name: writer.members[name] for name in index.members})
        if writer.finish(copied) != (entry.size, entry.index):
            where = records.storage.where(entry.file)
            raise DataError(f"{where}: scene {entry.name} is not laid out as this ponder3d does; prepare it again")
        drain()
    buffer.write(END)
    drain()
    return size, digest.hexdigest()


def _checked(path: Path, shard: _Shard) -> tuple[int, str]:
    """Bytes and SHA-256 of a shard that is there; every byte of it is what it has to be."""
    try:
        found = _written(Records(Storage(str(path.parent))), shard.placed, None)
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == found[1]
            found_size = file.tell()
        if not same or found_size != found[0]:
            raise DataError(f"{path}: not as it was written")
    except (DataError, StorageError) as error:
        raise DataError(
            f"{error} (it is of another packing, or damaged: remove it, or choose another place)"
        ) from error
    return found
