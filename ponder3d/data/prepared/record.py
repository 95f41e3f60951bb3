"""Scenes of a prepared dataset as they are kept: the index of a scene, and its members. Nothing is believed unverified:
the manifest vouches for the index, and the index for every member, each time that one is read.
"""

import re
from collections.abc import Iterator, Sequence

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared.cache import Cache
from ponder3d.data.prepared.container import Member, SceneIndex, parse_index
from ponder3d.data.prepared.manifest import FILE_NAME, Manifest, SceneEntry, is_intact, parse_manifest
from ponder3d.data.prepared.storage import NotStoredError, Piece, Storage

_SHA256 = re.compile(r"[0-9a-f]{64}$")
_GROUP = 8 << 20
"""Bytes of members that are read together where all are wanted."""


class Records:
    """What is kept below a root.

    Args:
        storage: the root.
        cache: keeps what was read; None reads everything where it is.
    """

    def __init__(self, storage: Storage, cache: Cache | None = None):
        self.storage, self.cache = storage, cache

    def manifest(self) -> Manifest:
        """What there is.

        Raises:
            DataError: there is no manifest, or a damaged one.
            StorageError: it cannot be read.
        """
        where = self.storage.where(FILE_NAME)
        try:
            data = self.storage.read_all(FILE_NAME, is_intact)
        except NotStoredError as error:
            raise DataError(f"{where}: no such file; ponder3d prepare makes one, and its scenes") from error
        return parse_manifest(data, where)

    def index(self, entry: SceneEntry) -> SceneIndex:
        """The index of a scene.

        Raises:
            DataError: it is damaged or missing, or of another scene.
            StorageError: it cannot be read.
        """
        where = f"{self.storage.where(entry.file)}: {entry.name}.index.json"
        if not _SHA256.match(entry.index.sha256):
            raise DataError(f"{where}: {FILE_NAME} has no SHA-256 of it")
        (data,) = self._read(entry, [("index.json", entry.index)])
        index = parse_index(data, where)
        for name, found, listed in (
            ("name", index.name, entry.name),
            ("split", index.split, entry.split),
            ("points", index.points, entry.points),
            ("frames", len(index.frames), entry.frames),
        ):
            if found != listed:
                raise DataError(f"{where}: {name} is {found!r}; the manifest says {listed!r}: one of them is damaged")
        for name, member in index.members.items():
            if member.offset + member.size > entry.size or not _SHA256.match(member.sha256):
                raise DataError(f"{where}: {name} does not lie within the scene; prepare it again")
        return index

    def members(self, entry: SceneEntry, index: SceneIndex, names: Sequence[str]) -> dict[str, bytes]:
        """Members of a scene by their names after the scene's; those that lie close to each other in one read.

        Raises:
            DataError: one is damaged or missing.
            StorageError: it cannot be read.
        """
        missing = [name for name in names if name not in index.members]
        if missing:
            raise DataError(
                f"{self.storage.where(entry.file)}: {entry.name} has no member {missing[0]}; prepare it again"
            )
        return dict(zip(names, self._read(entry, [(name, index.members[name]) for name in names]), strict=True))

    def all_members(self, entry: SceneEntry, index: SceneIndex) -> Iterator[tuple[str, bytes]]:
        """Every member of a scene in the order of the file, a few megabytes at a time.

        Raises:
            DataError, StorageError: see ``members``.
        """
        names = sorted(index.members, key=lambda name: index.members[name].offset)
        group: list[str] = []
        size = 0
        for name in names:
            if group and size + index.members[name].size > _GROUP:
                yield from self.members(entry, index, group).items()
                group, size = [], 0
            group.append(name)
            size += index.members[name].size
        yield from self.members(entry, index, group).items()

    def _read(self, entry: SceneEntry, wanted: Sequence[tuple[str, Member]]) -> list[bytes]:
        pieces = [
            Piece(entry.start + member.offset, member.size, member.sha256, f"{entry.name}.{name}")
            for name, member in wanted
        ]
        found = {piece: self.cache.get(piece.sha256) for piece in pieces} if self.cache else dict.fromkeys(pieces)
        missing = [piece for piece, data in found.items() if data is None]
        if missing:
            try:
                read = self.storage.read_pieces(entry.file, missing)
            except NotStoredError as error:
                raise DataError(
                    f"{self.storage.where(entry.file)}: no such file, where {FILE_NAME} puts scene {entry.name}; copy "
                    "the directory again, or prepare it again"
                ) from error
            for piece, view in zip(missing, read, strict=True):
                found[piece] = bytes(view)
                if self.cache:
                    self.cache.put(piece.sha256, view)
        return [data for piece in pieces if (data := found[piece]) is not None]
