"""Checkpoints that survive a kill, a full disk and a flipped bit.

A checkpoint is a directory ``step-00001200`` with its files and ``MANIFEST.json`` (size and SHA-256 of each file). It
is written under a temporary name on the same filesystem, every file synced, then the directory, then renamed, then the
parent synced: at any instant there is either the old state or the new one. Loading takes the newest directory whose
files match its manifest and says which it skipped and why. A directory that this module did not write is never touched.
"""

import hashlib
import io
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ponder3d.files import sync_directory

MANIFEST = "MANIFEST.json"
_FORMAT = 1
_NAME = re.compile(r"step-(\d{8})$")
_TEMPORARY = re.compile(r"\.tmp-step-\d{8}-\d+$")
_CHUNK = 1 << 22


class CheckpointError(OSError):
    """A checkpoint that could not be written, or none that can be read; the message names the path."""


class NoCheckpointError(CheckpointError):
    """A directory without any checkpoint: no run, or one that has not begun."""


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that verified."""

    step: int
    path: Path
    state: dict[str, Any]
    experiment: dict[str, Any]
    """JSON of the experiment."""
    skipped: tuple[str, ...]
    """Newer checkpoints that did not verify, and why."""


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, folder: Path | str, keep: int = 2):
        self.folder, self.keep = Path(folder), keep
        self._trusted: set[int] = set()
        """Steps whose files this process wrote, or read and found intact."""

    def steps(self) -> list[int]:
        """Steps of the checkpoints that exist, verified or not, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [(_NAME.match(entry.name), entry) for entry in self.folder.iterdir()]
        return sorted(int(match.group(1)) for match, entry in found if match and entry.is_dir())

    def sweep(self) -> None:
        """Remove temporary directories that a killed run left behind."""
        if self.folder.is_dir():
            for entry in self.folder.iterdir():
                if _TEMPORARY.match(entry.name):
                    shutil.rmtree(entry, ignore_errors=True)

    def save(self, step: int, state: dict[str, Any], experiment: dict[str, Any]) -> Path:
        """Write a checkpoint and then remove the oldest beyond ``keep``.

        Args:
            step: optimiser steps done.
            state: tensors, numbers, strings, and containers of them (what ``torch.load(weights_only=True)`` reads).
            experiment: JSON of the experiment.

        Raises:
            CheckpointError: it could not be written; older checkpoints are as they were.
        """
        final = self.folder / f"step-{step:08d}"
        temporary = self.folder / f".tmp-{final.name}-{os.getpid()}"
        if self._is_intact(step):
            return final  # the same step is the same state: nothing to write, and nothing to put at risk
        # Serialised before the first write: torch.save hides an error of the file below it behind one of its own.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        files = {
            "state.pt": buffer.getbuffer(),
            "experiment.json": memoryview(json.dumps(experiment, indent=1).encode()),
        }
        try:
            os.makedirs(self.folder, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            os.mkdir(temporary)
            entries = {name: _write(temporary / name, data) for name, data in files.items()}
            manifest = {"format": _FORMAT, "step": step, "files": entries}
            _write(temporary / MANIFEST, memoryview(json.dumps(manifest, indent=1).encode()))
            sync_directory(temporary)
            if final.exists():  # damaged: the run fell back to an older one and came here again
                shutil.rmtree(final)
            os.rename(temporary, final)
            sync_directory(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            need = sum(len(data) for data in files.values()) >> 20
            raise CheckpointError(
                error.errno, f"could not save the checkpoint of step {step} ({need} MiB): {error.strerror}", str(final)
            ) from error
        self._trusted.add(step)
        self._prune()
        return final

    def load(self, map_location: str | torch.device = "cpu") -> Loaded:
        """The newest checkpoint that verifies.

        Raises:
            CheckpointError: there is none; the message lists what was found and why it was refused.
            NoCheckpointError: nothing was found.
        """
        skipped: list[str] = []
        for step in reversed(self.steps()):
            path = self.folder / f"step-{step:08d}"
            try:
                contents = read_verified(path)
                state = torch.load(io.BytesIO(contents["state.pt"]), map_location=map_location, weights_only=True)
                experiment = json.loads(contents["experiment.json"])
                self._trusted.add(step)
                return Loaded(step, path, state, experiment, tuple(skipped))
            except (CheckpointError, KeyError, ValueError) as error:
                skipped.append(f"{path}: {error}")
        if not skipped:
            raise NoCheckpointError(
                f"{self.folder}: no checkpoint that verifies (no step-* directory): this is no run, or one that was "
                "stopped before it began and has to be started again"
            )
        raise CheckpointError(f"{self.folder}: no checkpoint that verifies ({'; '.join(skipped)})")

    def _is_intact(self, step: int) -> bool:
        path = self.folder / f"step-{step:08d}"
        if step not in self._trusted and path.is_dir():
            try:
                read_verified(path)
                self._trusted.add(step)
            except CheckpointError:
                pass
        return step in self._trusted and path.is_dir()

    def _prune(self) -> None:
        """Remove what is older than the newest ``keep`` intact checkpoints; damaged ones do not count as kept."""
        kept = 0
        for step in reversed(self.steps()):
            if kept >= self.keep:
                # A leftover is harmless and the next save tries again.
                shutil.rmtree(self.folder / f"step-{step:08d}", ignore_errors=True)
            elif self._is_intact(step):
                kept += 1


def read_verified(path: Path) -> dict[str, bytes]:
    """The files of a checkpoint, checked against its manifest.

    Raises:
        CheckpointError: naming the file and what differs.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        entries = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
        name = f"step-{int(manifest['step']):08d}"
    except OSError as error:
        raise CheckpointError(f"{path / MANIFEST}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path / MANIFEST}: damaged ({error})") from error
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(f"{path / MANIFEST}: format {manifest.get('format')}, this version reads {_FORMAT}")
    if name != path.name:
        raise CheckpointError(f"{path / MANIFEST}: belongs to {name}; it is damaged, or the directory was renamed")
    contents = {}
    for name, (size, digest) in entries.items():
        try:
            data = (path / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path / name}: {error.strerror}") from error
        if len(data) != size:
            raise CheckpointError(f"{path / name}: {len(data)} bytes, the manifest says {size}")
        if hashlib.sha256(data).hexdigest() != digest:
            raise CheckpointError(f"{path / name}: its SHA-256 differs from the manifest's; the file is damaged")
        contents[name] = data
    return contents


def _write(path: Path, data: memoryview) -> dict[str, Any]:
    """Write a file and sync it to disk; its entry in the manifest."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        done = 0
        while done < len(data):
            done += os.write(handle, data[done : done + _CHUNK])
        os.fsync(handle)
    finally:
        os.close(handle)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
