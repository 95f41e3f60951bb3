"""The harness itself: it tells a careful reader from careless ones."""

import json
import time

import pytest

from ponder3d.data.dataset import DataError

SEED = json.dumps({"name": "chair", "points": [[0.5, 1.0], [2.0, 3.0]]}).encode()


def careful(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError as error:
        raise DataError(f"file: {error}") from error


def test_a_careful_reader_passes(fuzz):
    assert 30 < fuzz(careful, [SEED]) <= 60
    assert fuzz(careful, [SEED]) == fuzz(careful, [SEED]) != fuzz(careful, [SEED], key=1)


def careless_key(data: bytes) -> object:
    value = careful(data)
    return value["name"] if isinstance(value, dict) else None


def greedy(data: bytes) -> object:
    return bytes(3 << 30) if data != SEED else None


@pytest.mark.parametrize(
    ("read", "message"), [(json.loads, "trial"), (careless_key, "KeyError"), (greedy, "MemoryError")]
)
def test_careless_readers_are_found(fuzz, read, message):
    with pytest.raises(AssertionError, match=message):
        fuzz(read, [SEED], number=400)


def test_slow_readers_are_found(fuzz, monkeypatch):
    import fuzzing  # noqa: PLC0415

    monkeypatch.setattr(fuzzing, "_SECONDS", 0.1)

    def slow(data: bytes) -> None:
        if data != SEED:
            try:
                time.sleep(5)
            except Exception as error:
                raise DataError("tired") from error

    with pytest.raises(AssertionError, match=r"more than 0\.1 s"):
        fuzz(slow, [SEED], number=5)
