"""From a directory to a dataset that can be examined, prepared or raw."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared.as_raw import PreparedAsRaw
from ponder3d.data.prepared.manifest import FILE_NAME
from ponder3d.data.prepared.prepare import raw_datasets
from ponder3d.data.raw.dataset import RawDataset, RawDatasetConfig

PREPARED = "prepared"
"""Kind of what ``ponder3d prepare`` writes."""
_GENERAL = ("rgbd", "folder")
"""Kinds that read what other datasets also consist of; those know better what it means."""
_FAR = 1000.0
"""Metres. Readers drop depth beyond some distance; with wrong units that is all of it, and nothing would be left to
find the right ones with."""


def open_data(path: str, kind: str = "") -> RawDataset:
    """Open a dataset, so that what is wrong with it can be found.

    Args:
        path: a directory, or the URL of a prepared dataset.
        kind: ``prepared`` or the name of a raw dataset, as ``ponder3d prepare`` takes it. Empty: whichever recognises
            the directory.

    Raises:
        DataError: there is no such directory or kind, none or several recognise it, or it cannot be read.
        StorageError: files of a prepared dataset cannot be read.
    """
    kind = kind_of(path, kind)
    return PreparedAsRaw(path) if kind == PREPARED else config_of(path, kind).build()


def kind_of(path: str, kind: str = "") -> str:
    """The kind of a dataset, found out from the names of its files if it is not given.

    Raises:
        DataError: see ``open_data``.
    """
    kinds = raw_datasets()
    if kind not in ("", PREPARED, *kinds):
        raise DataError(f"no kind of dataset is called {kind!r}; known are {', '.join((PREPARED, *sorted(kinds)))}")
    if kind == PREPARED or not kind and ("://" in path or (Path(path) / FILE_NAME).is_file()):
        return PREPARED
    if not Path(path).is_dir():
        raise DataError(f"{path}: no such directory")
    if kind:
        return kind
    found = [name for name, config in kinds.items() if config.recognises(Path(path))]
    found = [name for name in found if name not in _GENERAL] or found
    if len(found) != 1:
        like = f"it looks like {' and like '.join(found)}" if found else "it looks like no dataset that is known"
        choice = ", ".join((PREPARED, *sorted(found or kinds)))
        raise DataError(f"{path}: {like}; say which it is with --kind: one of {choice}")
    return found[0]


def config_of(path: str, kind: str) -> RawDatasetConfig:
    """How a raw dataset is read to be examined: every frame, and depth however far."""
    config = raw_datasets()[kind]
    options: dict[str, Any] = {"root": path, "every": 1}
    if any(field.name == "max_depth" for field in fields(config)):
        options["max_depth"] = _FAR
    return replace(config(), **options)
