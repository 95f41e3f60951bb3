"""From a directory to a dataset that can be examined, prepared or raw."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ponder3d.data.dataset import DataError
from ponder3d.data.prepared.as_raw import PreparedAsRaw
from ponder3d.data.prepared.manifest import FILE_NAME
from ponder3d.data.prepared.prepare import raw_datasets
from ponder3d.data.raw.dataset import RawDataset

PREPARED = "prepared"
"""Kind of what ``ponder3d prepare`` writes."""
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
    kinds = raw_datasets()
    if kind not in ("", PREPARED, *kinds):
        raise DataError(f"no kind of dataset is called {kind!r}; known are {', '.join((PREPARED, *sorted(kinds)))}")
    if kind == PREPARED or not kind and ("://" in path or (Path(path) / FILE_NAME).is_file()):
        return PreparedAsRaw(path)
    if not Path(path).is_dir():
        raise DataError(f"{path}: no such directory")
    if not kind:
        found = [name for name, config in kinds.items() if config.recognises(Path(path))]
        if len(found) != 1:
            like = f"it looks like {' and like '.join(found)}" if found else "it looks like no dataset that is known"
            choice = ", ".join((PREPARED, *sorted(found or kinds)))
            raise DataError(f"{path}: {like}; say which it is with --kind: one of {choice}")
        kind = found[0]
    config = kinds[kind]
    options: dict[str, Any] = {"root": path}
    if any(field.name == "max_depth" for field in fields(config)):
        options["max_depth"] = _FAR
    return replace(config(), **options).build()
