"""A bounded directory of bytes that were read from afar, found by their SHA-256.

Any number of processes, also on other machines, may share one. There are no locks: a file appears whole, by a rename;
its content is compared with its name at every read; and a file that is removed while it is read is still read to its
end. What was used longest ago goes first.
"""

import contextlib
import hashlib
import os
import re
import secrets
import time
import warnings
from pathlib import Path

_NAME = re.compile(r"[0-9a-f]{64}$")
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{16}$")
_LEDGER = ".written"
_ROUNDS = 32
"""A part of the bound; when as much has been written the directory is looked through."""
_ABANDONED = 600.0
"""Seconds after which a file that is still being written belongs to a killed process: a member takes milliseconds."""


class Cache:
    """Bytes by their SHA-256.

    Args:
        root: directory; made if it is not there. Files in it that are not the cache's are left alone.
        limit: bytes that it may hold. It is exceeded by a 32nd part at most, and by what is being written.
    """

    def __init__(self, root: Path | str, limit: int):
        self.root, self.limit = Path(root), limit
        self._works, self._trimmed = True, False

    def get(self, sha256: str) -> bytes | None:
        """What has this checksum; None if it is not here (any more), or not as it was written."""
        path = self._path(sha256)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != sha256:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of the last use; many file systems do not keep one
        return data

    def put(self, sha256: str, data: bytes | memoryview) -> None:
        """Keep bytes whose checksum was verified. A cache that cannot be written warns once and keeps nothing."""
        path = self._path(sha256)
        if not self._works or len(data) > self.limit or path.exists():
            return
        temporary = path.parent / f".tmp-{secrets.token_hex(8)}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            os.replace(temporary, path)
            if not self._trimmed:  # it may have been filled under another bound
                self._trimmed = True
                self.trim()
            self._account(len(data))
        except OSError as error:
            self._works = False
            with contextlib.suppress(OSError):
                temporary.unlink()
            warnings.warn(f"{self.root}: cannot be used as a cache, reading goes on without: {error}", stacklevel=2)

    def trim(self) -> None:
        """Remove what was used longest ago until the rest fits, and what killed processes left unfinished."""
        found, total, now = [], 0, time.time()
        for folder in self._folders():
            for entry in _scanned(folder):
                with contextlib.suppress(OSError):  # another process was faster
                    about = entry.stat(follow_symlinks=False)
                    if _NAME.match(entry.name):
                        found.append((about.st_mtime_ns, about.st_size, entry.path))
                        total += about.st_size
                    elif _TEMPORARY.match(entry.name) and now - about.st_mtime > _ABANDONED:
                        os.unlink(entry.path)
        for _, size, path in sorted(found):
            if total <= self.limit:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size

    def _path(self, sha256: str) -> Path:
        assert _NAME.match(sha256)
        return self.root / sha256[0] / sha256

    def _folders(self) -> list[str]:
        return [entry.path for entry in _scanned(self.root) if len(entry.name) == 1 and entry.is_dir()]

    def _account(self, size: int) -> None:
        """Count what all processes write, and trim when it is much.

        The count is the length of a file that everyone appends to, one byte for each ``unit`` written. Pieces smaller
        than that are counted with the probability that their size asks for: right on average, and nothing to share.
        """
        unit = max(1, self.limit // _ROUNDS // 64)
        whole, rest = divmod(size, unit)
        units = whole + (secrets.randbelow(unit) < rest)
        if not units:
            return
        handle = os.open(self.root / _LEDGER, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(handle, bytes(units))
            if os.fstat(handle).st_size >= 64:
                os.ftruncate(handle, 0)
                self.trim()
        finally:
            os.close(handle)


def _scanned(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
