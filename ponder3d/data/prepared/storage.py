"""Bytes of files below a root: a local directory, or any place that fsspec reads.

Remote reads ask for byte ranges and are tried again, with growing pauses, when they fail or bring something else than
what was asked for: streams from afar break off, stall and answer 503 as a matter of course. What comes back is compared
with its SHA-256 wherever one is known. What fails for good is an OSError that says what was asked for, how often, and
what the last answer was.

Every process and thread has its own connections. fsspec's shared event loop lives in a thread, which a forked loader
process does not have; here the calling thread runs the loop itself, and what a process inherits it leaves alone.
"""

import asyncio
import hashlib
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponder3d.data.dataset import DataError

_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$")
_GAP = 64 << 10
"""Bytes between two ranges that are read along rather than asked for separately: what 100 MB/s bring in 0.7 ms."""
_MOST = 16 << 20
"""Bytes of one request, unless one range is larger."""
_AT_ONCE = 8
"""Requests of one call that are under way at a time."""
_SLOWEST = 1e6
"""Bytes per second; a request may take the time limit and what its bytes need at this rate."""
_LARGEST = 1 << 30
"""Bytes of a file that is read as a whole; the manifest of a million scenes has 300 MB."""
_HTTP_RETRIED = frozenset({408, 425, 429})
"""Answers of the kind "your fault" that mean "later"."""


class StorageError(OSError):
    """Bytes that cannot be read. The message names the file, the range, the number of tries and the last error."""


class NotStoredError(StorageError):
    """There is no such file."""


@dataclass(frozen=True)
class Piece:
    """A range of bytes of a file."""

    start: int
    length: int
    sha256: str = ""
    """Hex digits of what it must be; empty: not known."""
    what: str = ""
    """What the bytes are, for messages."""


@dataclass(frozen=True)
class Retries:
    """How long a remote read is tried."""

    tries: int = 6
    """Requests at most."""
    timeout: float = 20.0
    """Seconds for an answer, and 1 s per megabyte more."""
    total: float = 55.0
    """Seconds after which no further request is made, and the last one is given up (with 1 s per megabyte more)."""
    pause: float = 0.2
    """Seconds before the second try; every further pause is twice as long. Times 0.5 to 1.5, so that many processes
    that failed together do not come back together."""


class _WrongBytesError(Exception):
    """Not what was asked for, such as another length."""


class _WrongSumError(_WrongBytesError):
    """As many bytes as were asked for, with another checksum."""


class _RefusedError(Exception):
    """An answer that trying again does not change."""


class Storage:
    """Files below a root, read by ranges. Safe to use in forked processes, in threads and in spawned processes.

    Args:
        root: a directory, or a URL such as ``s3://bucket/scenes`` or ``https://host/scenes``; what fsspec needs to know
            beside it (keys, endpoints) comes from its configuration files and environment variables.
        retries: of remote reads. Local ones are not repeated.
    """

    def __init__(self, root: str, retries: Retries = Retries()):
        self.root = root.removeprefix("file://").rstrip("/") or root
        self.retries = retries
        self.remote = "://" in self.root
        self._mine = threading.local()

    def __reduce__(self):
        return type(self), (self.root, self.retries)

    def where(self, path: str) -> str:
        """Full name of a file, for messages."""
        return f"{self.root}/{path}"

    def read(self, path: str, start: int, length: int) -> bytes:
        """A range of a file.

        Raises:
            NotStoredError: there is no such file.
            StorageError: it cannot be read, or ends before.
        """
        return bytes(self.read_pieces(path, [Piece(start, length)])[0])

    def read_pieces(self, path: str, pieces: Sequence[Piece]) -> list[memoryview]:
        """Ranges of a file, each compared with its checksum; neighbours are read together.

        Raises:
            NotStoredError: there is no such file.
            StorageError: it cannot be read, or ends before.
            DataError: a checksum differs, remotely again and again.
        """
        self._check(path)
        runs = _runs(pieces)
        if self.remote:
            read = self._run(self._fetch_all(path, runs))
        else:
            read = self._read_local(path, runs)
        found = {id(piece): view for run, data in zip(runs, read, strict=True) for piece, view in run.split(data)}
        return [found[id(piece)] for piece in pieces]

    def read_all(self, path: str, is_intact: Callable[[bytes], bool] | None = None) -> bytes:
        """A whole file.

        Args:
            path: the file.
            is_intact: whether its content shows that nothing happened to it on the way. What does not after the last
                try is returned as it is.

        Raises:
            NotStoredError: there is no such file.
            StorageError: it cannot be read.
        """
        self._check(path)
        if self.remote:
            return self._run(self._fetch_whole(path, is_intact))
        try:
            with (Path(self.root) / path).open("rb") as file:
                data = file.read(_LARGEST + 1)
            if len(data) > _LARGEST:
                raise OSError(f"more than {_LARGEST} bytes")
            return data
        except OSError as error:
            raise self._failed(path, "all of it", 1, error) from error

    def _check(self, path: str) -> None:
        if not _NAME.match(path) or ".." in path.split("/"):
            raise DataError(f"{self.root}: {path!r} is no name of a file below it")

    def _read_local(self, path: str, runs: "list[_Run]") -> list[bytes]:
        what = ""
        try:
            handle = os.open(self.where(path), os.O_RDONLY | os.O_CLOEXEC)
            try:
                read = []
                for run in runs:
                    what = run.asked
                    read.append(_pread(handle, run.start, run.length))
                    run.verify(read[-1])
            finally:
                os.close(handle)
        except OSError as error:
            raise self._failed(path, what or "any range", 1, error) from error
        except _WrongBytesError as error:
            raise self._damaged(path, error) from error
        return read

    async def _fetch_all(self, path: str, runs: "list[_Run]") -> list[bytes]:
        free = asyncio.Semaphore(_AT_ONCE)

        async def fetch(run: _Run) -> bytes:
            async with free:
                return await self._tried(
                    path, run.asked, run.length, lambda client: client.get(path, (run.start, run.length)), run.verify
                )

        tasks = [asyncio.ensure_future(fetch(run)) for run in runs]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _fetch_whole(self, path: str, is_intact: Callable[[bytes], bool] | None) -> bytes:
        seen = b""

        def verify(data: bytes) -> None:
            nonlocal seen
            seen = data
            if is_intact is not None and not is_intact(data):
                raise _WrongSumError("not as it was written")

        try:
            return await self._tried(path, "all of it", 0, lambda client: client.get(path, None), verify)
        except DataError:
            return seen

    async def _tried(
        self,
        path: str,
        asked: str,
        length: int,
        get: "Callable[[_Client], Awaitable[bytes]]",
        verify: Callable[[bytes], None],
    ) -> bytes:
        """What ``get`` brings and ``verify`` accepts, from the first try that succeeds."""
        limits, extra = self.retries, length / _SLOWEST
        deadline = time.monotonic() + limits.total + extra
        tries = 0
        while True:
            tries += 1
            left = deadline - time.monotonic()
            try:
                data = await asyncio.wait_for(get(self._client()), max(0.001, min(limits.timeout + extra, left)))
                verify(data)
                return data
            except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, _RefusedError) as error:
                raise self._failed(path, asked, tries, error) from error
            except (ImportError, NotImplementedError, TypeError, AttributeError):
                raise  # of the program, not of the network
            except Exception as error:  # each kind of storage has its own
                pause = limits.pause * 2 ** (tries - 1) * random.uniform(0.5, 1.5)
                if tries < limits.tries and time.monotonic() + pause < deadline:
                    await asyncio.sleep(pause)
                    continue
                if isinstance(error, _WrongSumError):
                    raise self._damaged(path, error, tries) from error
                raise self._failed(path, asked, tries, error) from error

    def _failed(self, path: str, asked: str, tries: int, error: Exception) -> StorageError:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return NotStoredError(f"{self.where(path)}: no such file")
        name = "timed out" if isinstance(error, TimeoutError) else f"{type(error).__name__.strip('_')}: {error}"
        times = f" in {tries} tries" if self.remote else ""
        return StorageError(f"{self.where(path)}: {asked} cannot be read{times}; the last error: {name}")

    def _damaged(self, path: str, error: _WrongBytesError, tries: int = 1) -> DataError:
        times = f", {tries} times" if tries > 1 else ""
        return DataError(f"{self.where(path)}: {error}{times}; the file is damaged: copy or prepare it again")

    def _client(self) -> "_Client":
        client = getattr(self._mine, "client", None)
        if client is None or client.pid != os.getpid():
            client = self._mine.client = _Client(self.root)
        return client

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        if not _loop_runs():
            return self._run_here(work)
        with ThreadPoolExecutor(1) as aside:  # a notebook runs a loop in this thread already
            return aside.submit(self._run_here, work).result()

    def _run_here(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            client = self._client()
        except BaseException:
            work.close()
            raise
        try:
            return client.loop.run_until_complete(work)
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C in the middle of it: no such connection is used again
                self._mine.client = None
            raise


@dataclass(frozen=True)
class _Run:
    """Pieces that are read together."""

    start: int
    length: int
    pieces: tuple[Piece, ...]

    @property
    def asked(self) -> str:
        names = [piece.what for piece in self.pieces if piece.what]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return _bytes(self.start, self.length) + (f" ({names[0]}{more})" if names else "")

    def split(self, data: bytes) -> list[tuple[Piece, memoryview]]:
        view = memoryview(data)
        return [(p, view[p.start - self.start : p.start - self.start + p.length]) for p in self.pieces]

    def verify(self, data: bytes) -> None:
        if len(data) != self.length:
            raise _WrongBytesError(f"{len(data)} bytes instead of {self.asked}")
        for piece, view in self.split(data):
            if piece.sha256 and (actual := hashlib.sha256(view).hexdigest()) != piece.sha256:
                what = piece.what or _bytes(piece.start, piece.length)
                raise _WrongSumError(f"{what} has the SHA-256 {actual} instead of {piece.sha256}")


def _bytes(start: int, length: int) -> str:
    return f"bytes {start}-{start + length - 1}"


def _runs(pieces: Sequence[Piece]) -> list[_Run]:
    """Pieces in the order of their places, those that are close to each other in one run."""
    groups: list[list[Piece]] = []
    start = end = 0
    for piece in sorted(pieces, key=lambda piece: (piece.start, piece.length)):
        after = max(end, piece.start + piece.length)
        near = piece.start - end <= _GAP and after - start <= _MOST
        if groups and (near or after == end):
            groups[-1].append(piece)
            end = after
        else:
            groups.append([piece])
            start, end = piece.start, piece.start + piece.length
    return [
        _Run(group[0].start, max(p.start + p.length for p in group) - group[0].start, tuple(group)) for group in groups
    ]


def _pread(handle: int, start: int, length: int) -> bytes:
    """As much as there is of a range; a call to the system brings 2 GiB at most."""
    left = min(length, max(0, os.fstat(handle).st_size - start))
    data = os.pread(handle, left, start)
    if len(data) == left:
        return data
    parts = [data]
    while parts[-1] and (left := left - len(parts[-1])):
        start += len(parts[-1])
        parts.append(os.pread(handle, left, start))
    return b"".join(parts)


class _Client:
    """The connections of one thread of one process."""

    def __init__(self, root: str):
        import fsspec  # noqa: PLC0415  (0.1 s, for remote roots only)

        self.pid = os.getpid()
        protocol = root.partition("://")[0]
        try:
            kind = fsspec.get_filesystem_class(protocol)
            options = {"asynchronous": True} if kind.async_impl else {}
            # Cached instances belong to the process that made them.
            self.fs, base = fsspec.core.url_to_fs(root, skip_instance_cache=True, **options)
        except (ImportError, ValueError) as error:
            raise DataError(f"{root}: storage of this kind cannot be read here: {error}") from error
        self.base = base.rstrip("/")
        self.http = protocol in ("http", "https")
        self.loop = asyncio.new_event_loop()
        weakref.finalize(self, _close, self.pid, self.loop, self.fs)

    async def get(self, path: str, part: tuple[int, int] | None) -> bytes:
        """All of a file, or ``(start, length)`` of it: what the storage answers, whatever that is."""
        name = f"{self.base}/{path}"
        if self.http:
            return await self._get_http(name, part)
        bounds = {} if part is None else {"start": part[0], "end": part[0] + part[1]}
        if part is not None and not part[1]:
            return b""
        return await self.fs._cat_file(name, **bounds) if self.fs.async_impl else self.fs.cat_file(name, **bounds)

    async def _get_http(self, url: str, part: tuple[int, int] | None) -> bytes:
        """fsspec's own would take a server that ignores ranges at its word, and read a shard of any size."""
        headers = {"Accept-Encoding": "identity"}  # ranges of a compressed stream are not ranges of the file
        if part is not None:
            if not part[1]:
                return b""
            headers["Range"] = f"bytes={part[0]}-{part[0] + part[1] - 1}"
        session = await self.fs.set_session()
        async with session.get(self.fs.encode_url(url), headers=headers, **self.fs.kwargs) as answer:
            if answer.status == 404:
                raise FileNotFoundError(url)
            if 400 <= answer.status < 500 and answer.status not in _HTTP_RETRIED:
                raise _RefusedError(f"status {answer.status} {answer.reason}")
            answer.raise_for_status()
            if part is not None:
                if answer.status == 200:
                    raise _RefusedError("the server ignores byte ranges")
                if (answer.content_length or 0) > part[1]:
                    raise _WrongBytesError(f"{answer.content_length} bytes where {part[1]} were asked for")
            data = bytearray()
            async for chunk in answer.content.iter_any():
                data += chunk
                if len(data) > (_LARGEST if part is None else part[1]):
                    raise _WrongBytesError(f"more than {len(data) - len(chunk)} bytes")
            return bytes(data)


_INHERITED: list[Any] = []
"""What belongs to the parent process. Even to take it apart would disturb the parent: an epoll instance is shared."""


def _close(pid: int, loop: asyncio.AbstractEventLoop, fs: Any) -> None:
    if pid != os.getpid():
        _INHERITED.append((loop, fs))
    elif not _loop_runs():
        _shut(loop, fs)
    else:  # the garbage collector has come by while this thread runs another loop
        thread = threading.Thread(target=_shut, args=(loop, fs))
        thread.start()
        thread.join()


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _shut(loop: asyncio.AbstractEventLoop, fs: Any) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
    close = getattr(getattr(fs, "_session", None), "close", None)
    if asyncio.iscoroutinefunction(close):
        loop.run_until_complete(close())
    loop.close()
