"""``manifest.json``: what a prepared dataset consists of. Through the scenes' indices it vouches for every byte."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared.container import Member, count, parse_problem, problem_json, text
from ponder3d.data.raw.dataset import SCENE_NAME, LabelTable, Problem
from ponder3d.types import LabelSet

FILE_NAME = "manifest.json"
FORMAT, VERSION = "ponder3d-scenes", 1
_SEAL = b',\n"sha256": '
"""Begins the last entry, the checksum of all bytes before it: what vouches for everything else has to be whole."""


@dataclass(frozen=True)
class SceneEntry:
    """Where a scene is."""

    name: str
    split: str
    file: str
    """Relative to the manifest, with forward slashes."""
    start: int
    """Its first byte in the file."""
    size: int
    index: Member
    """Its index; the offset counts from ``start``."""
    points: int
    frames: int


@dataclass(frozen=True)
class Manifest:
    """A prepared dataset."""

    dataset: str
    written_by: str
    options: dict[str, Any]
    """JSON of the choices that it was prepared with."""
    tables: tuple[LabelTable, ...]
    known_ids: frozenset[int] | None
    scenes: tuple[SceneEntry, ...]
    files: dict[str, tuple[int, str]]
    """Bytes and SHA-256 of each file."""
    problems: tuple[Problem, ...]
    """Scenes and frames that were left out."""

    def to_bytes(self) -> bytes:
        """As JSON; the same manifest gives the same bytes."""
        record = {
            "format": FORMAT,
            "version": VERSION,
            "dataset": self.dataset,
            "written_by": self.written_by,
            "options": self.options,
            "tables": [_table_json(table) for table in self.tables],
            "known_ids": None if self.known_ids is None else sorted(self.known_ids),
            "scenes": [
                {
                    **{key: getattr(s, key) for key in ("name", "split", "file", "start", "size", "points", "frames")},
                    "index": [s.index.offset, s.index.size, s.index.sha256],
                }
                for s in self.scenes
            ],
            "files": {name: list(self.files[name]) for name in sorted(self.files)},
            "problems": [problem_json(problem) for problem in self.problems],
        }
        lines = [f"{json.dumps(key)}: {_lines(value)}" for key, value in record.items()]
        return _sealed(("{\n" + ",\n".join(lines)).encode())


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest back.

    Args:
        data: JSON.
        where: the file, for messages.

    Raises:
        DataError: it is no manifest of this version.
    """
    try:
        record = json.loads(data)
        if record["format"] != FORMAT or record["version"] != VERSION:
            raise DataError(
                f"{where}: format {record['format']!r}, version {record['version']!r}; "
                f"this ponder3d reads {FORMAT!r}, version {VERSION}"
            )
        if not is_intact(data):
            actual = hashlib.sha256(_body(data)).hexdigest()
            raise DataError(
                f"{where}: damaged, or changed by hand: what it lists has the SHA-256 {actual} instead of "
                f"{record['sha256']}; copy it again, or run ponder3d prepare again"
            )
        known = record["known_ids"]
        manifest = Manifest(
            dataset=text(record["dataset"]),
            written_by=text(record["written_by"]),
            options=dict(record["options"]),
            tables=tuple(_parse_table(table) for table in record["tables"]),
            known_ids=None if known is None else frozenset(int(i) for i in known),
            scenes=tuple(_parse_entry(entry) for entry in record["scenes"]),
            files={_path(name): (count(size), text(sha)) for name, (size, sha) in record["files"].items()},
            problems=tuple(parse_problem(problem) for problem in record["problems"]),
        )
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{where}: no manifest of prepared scenes, or a damaged one ({type(error).__name__}: {error})"
        ) from error
    for scene in manifest.scenes:
        size = manifest.files.get(scene.file, (-1, ""))[0]
        if (
            not 0
            <= scene.start
            <= scene.start + scene.index.offset + scene.index.size
            <= scene.start + scene.size
            <= size
        ):
            raise DataError(f"{where}: scene {scene.name} does not lie within a listed file")
    return manifest


def is_intact(data: bytes) -> bool:
    """Whether the bytes of a manifest are as they were written."""
    return data == _sealed(_body(data))


def _body(data: bytes) -> bytes:
    return data[: data.rfind(_SEAL)]


def _sealed(body: bytes) -> bytes:
    return body + _SEAL + json.dumps(hashlib.sha256(body).hexdigest()).encode() + b"\n}\n"


def _lines(value: Any) -> str:
    """One entry of a list per line: a manifest can be read, compared and searched."""
    if isinstance(value, list) and value and not isinstance(value[0], int):
        return "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]"
    return json.dumps(value)


def _table_json(table: LabelTable) -> dict[str, Any]:
    return {
        "name": table.name,
        "names": list(table.labels.names),
        "palette": [list(colour) for colour in table.labels.palette],
        "rows": [list(pair) for pair in table.rows],
        "benchmark_ids": list(table.benchmark_ids),
    }


def _parse_table(record: dict[str, Any]) -> LabelTable:
    palette = tuple((int(r), int(g), int(b)) for r, g, b in record["palette"])
    labels = LabelSet(tuple(text(name) for name in record["names"]), palette)
    rows = tuple((int(raw), int(row)) for raw, row in record["rows"])
    if any(not 0 <= row < len(labels) for _, row in rows):
        raise ValueError("a class that does not exist")
    return LabelTable(text(record["name"]), labels, rows, tuple(int(i) for i in record["benchmark_ids"]))


def _parse_entry(record: dict[str, Any]) -> SceneEntry:
    offset, size, sha = record["index"]
    name = text(record["name"])
    if not SCENE_NAME.match(name):
        raise ValueError(f"{name!r} is no name of a scene")
    return SceneEntry(
        name,
        text(record["split"]),
        _path(record["file"]),
        count(record["start"]),
        count(record["size"]),
        Member(count(offset), count(size), text(sha)),
        count(record["points"]),
        count(record["frames"]),
    )


def _path(value: Any) -> str:
    """A relative path that stays below the manifest."""
    parts = text(value).split("/")
    if "\\" in value or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{value!r} is no relative path below the manifest")
    return value
