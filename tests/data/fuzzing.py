"""Damaged files: mutations of good ones, and a check that a reader answers each with a value or its documented error.

A reader that raises anything else, takes longer than a few seconds, or needs more than 2 GiB is at fault.
"""

import random
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import contextmanager

from ponder3d.data.dataset import DataError

NUMBER = 2000
"""Mutated files of a full test; a quick one takes ``QUICK``."""
QUICK = 60
_SECONDS = 5
_MEMORY = 2 << 30
_INTERESTING = (
    *(b"\x00", b"\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x7f\xf8" + bytes(6)),
    *(b"-1", b"nan", b"1e999", b"99999999999", b"null", b"../", b"\n", b" ", b'"', b"{", b"}", b"[", b"\x1f\x8b"),
)


def mutated(data: bytes, draw: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """A file with one to four faults: bits flipped, bytes changed, cut, put in, repeated, or taken from elsewhere."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(out) + 1)
        if draw.random() < 0.4:
            at = min(at, draw.randrange(200))  # headers deserve more
        kind = draw.randrange(8)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = draw.randrange(256)
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            del out[at : at + draw.choice((1, 2, 4, 8, 64))]
        elif kind == 4:
            piece = draw.choice(_INTERESTING)
            out[at : at + len(piece)] = piece
        elif kind == 5:
            out[at:at] = draw.choice(_INTERESTING)
        elif kind == 6:
            size = draw.choice((1, 4, 16, 256))
            out[at:at] = out[max(0, at - size) : at]
        else:
            other = draw.choice([data, *others])
            start = draw.randrange(len(other) + 1)
            out[at : at + 16] = other[start : start + draw.choice((4, 16, 64))]
    return bytes(out)


def check_reader(read: Callable[[bytes], object], seeds: Sequence[bytes], number: int, key: int = 0) -> int:
    """Give a reader mutations of the seeds; returns how many of them it refused.

    Args:
        read: takes the content of a file (puts it where it belongs and reads it); every seed must be readable.
        seeds: good files.
        number: mutated files.
        key: other numbers give other mutations.

    Raises:
        AssertionError: another exception than ``DataError``, more than 5 s, or more than 2 GiB.
    """
    for seed in seeds:
        read(seed)
    draw = random.Random(key)
    refused = 0
    with _bounded_memory():
        for trial in range(number):
            data = mutated(draw.choice(list(seeds)), draw, seeds)
            try:
                with _bounded_time():
                    read(data)
            except DataError as error:
                refused += 1
                assert str(error).strip()
            except Exception as error:
                raise AssertionError(f"trial {trial} of key {key}: {type(error).__name__}: {error}") from error
    return refused


class _TooSlow(BaseException):
    """Not an Exception: a reader that catches those must not catch this."""


@contextmanager
def _bounded_time():
    def stop(number, frame):
        raise _TooSlow(f"more than {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    except _TooSlow as error:
        raise AssertionError(str(error)) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _bounded_memory():
    """Allocations beyond what the process has now and 2 GiB fail."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
