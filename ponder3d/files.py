"""Files that are there whole or not at all: written under a temporary name beside their own, synced, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that takes the place of ``path`` when the context ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as file:
        file.write(data)


def sync_directory(path: Path) -> None:
    """Make sure that a rename in a directory survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a directory, which no other process writes to now."""
    for left in folder.glob(".tmp-*"):
        left.unlink(missing_ok=True)
