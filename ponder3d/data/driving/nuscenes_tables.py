"""The tables of nuScenes: JSON files of up to 1.1 GB, read a row at a time; of the rows only what is needed is kept."""

import json
import math
import re
from array import array
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine

_CHUNK = 1 << 22
_LONGEST = 1 << 20
"""Characters of a row at most; the longest of the official files has about 2000."""
_MARK = re.compile(r"[ \t\r\n]{0,65536}([\[,\]]?)[ \t\r\n]{0,65536}")
"""What is between rows, and before and after all of them."""
_UNIT = 1e-3
"""By how much the length of a unit quaternion may differ from 1; files have 16 digits."""


def table_rows(path: Path, fields: Mapping[str, type]) -> Iterator[tuple[Any, ...]]:
    """The rows of a table, one after another; never more than a few MB of the file are in memory.

    Args:
        path: a JSON file: one list of objects.
        fields: what is wanted of each row, and of which type it is.

    Yields:
        The values of the fields, in their order.

    Raises:
        DataError: there is no such file, it is cut short or no list of objects, or a field is missing or of another
            type.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such table; unpack the metadata of this version of nuScenes into the data's root")
    take, kinds = itemgetter(*fields), tuple(fields.values())
    for number, row in enumerate(_objects(path)):
        try:
            values = take(row) if len(kinds) > 1 else (take(row),)
        except (KeyError, TypeError) as error:
            missing = next((name for name in fields if not isinstance(row, dict) or name not in row), "")
            raise DataError(f"{path}: row {number} has no field {missing!r}; get the table again") from error
        if tuple(map(type, values)) != kinds:
            wrong = next(name for name, value in zip(fields, values, strict=True) if type(value) is not fields[name])
            raise DataError(
                f"{path}: row {number}: {wrong} is {str(row[wrong])[:60]!r}, expected {fields[wrong].__name__}; get "
                "the table again"
            )
        yield values


class Vectors:
    """A column of vectors or matrices of numbers, kept as one array."""

    def __init__(self, path: Path, name: str, *shape: int):
        self.path, self.name, self.shape = path, name, shape
        self._numbers = array("d")
        self._nested, self._count = len(shape) == 2, math.prod(shape)

    def add(self, value: list[Any], token: str) -> None:
        """Append the value of a row.

        Raises:
            DataError: it is not of the shape, or of other things than numbers.
        """
        rows = value if self._nested else [value]
        before = len(self._numbers)
        try:
            for row in rows:
                if len(row) != self.shape[-1]:
                    raise TypeError
                self._numbers.extend(row)
        except (TypeError, OverflowError):
            rows = []
        if len(self._numbers) - before != self._count:
            raise self._bad(token, value)

    def array(self, tokens: list[str]) -> np.ndarray:
        """All rows, float64.

        Args:
            tokens: of the rows, for messages.

        Raises:
            DataError: a number is not finite.
        """
        if not len(self._numbers):
            return np.zeros((0, *self.shape))
        out = np.frombuffer(self._numbers, np.float64).reshape(-1, *self.shape)
        finite = np.isfinite(out).reshape(len(out), -1).all(1)
        if not finite.all():
            row = int(finite.argmin())
            raise self._bad(tokens[row], out[row].tolist())
        return out

    def _bad(self, token: str, value: object) -> DataError:
        shape = " x ".join(map(str, self.shape))
        return DataError(
            f"{self.path}: {token}: {self.name} is {str(value)[:60]}, expected {shape} finite numbers; get the table "
            "again"
        )


def rotations(quaternions: np.ndarray, tokens: list[str], path: Path) -> np.ndarray:
    """Rotation matrices [n 3 3] of quaternions [n 4], w first.

    Raises:
        DataError: one is not of length 1.
    """
    length = np.linalg.norm(quaternions, axis=1)
    wrong = np.abs(length - 1) > _UNIT
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{path}: {tokens[row]}: rotation has the length {length[row]:.6g}, and a rotation's quaternion has 1; get "
            "the table again"
        )
    w, x, y, z = (quaternions / length[:, None]).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1).reshape(-1, 3, 3)


class Poses:
    """Rows of a table with a token, a translation and a rotation."""

    def __init__(self, path: Path):
        self.path = path
        self.tokens: list[str] = []
        self.rows: dict[str, int] = {}
        self._translation, self._rotation = Vectors(path, "translation", 3), Vectors(path, "rotation", 4)

    def add(self, token: str, translation: list[Any], rotation: list[Any]) -> None:
        """Append a row.

        Raises:
            DataError: see ``Vectors.add``; or the token occurs twice.
        """
        if token in self.rows:
            raise DataError(f"{self.path}: token {token!r} occurs twice; get the table again")
        self.rows[token] = len(self.tokens)
        self.tokens.append(token)
        self._translation.add(translation, token)
        self._rotation.add(rotation, token)

    def done(self) -> None:
        """Check what was added, and make matrices of it: ``rotation`` [n 3 3], ``translation`` [n 3], float64.

        Raises:
            DataError: a number is not finite, or a quaternion is not of length 1.
        """
        self.translation = self._translation.array(self.tokens)
        self.rotation = rotations(self._rotation.array(self.tokens), self.tokens, self.path)

    def row(self, token: str, asked: str) -> int:
        """Number of a row.

        Args:
            token: of the row.
            asked: what names it, for the message.

        Raises:
            DataError: there is none.
        """
        found = self.rows.get(token)
        if found is None:
            raise DataError(f"{asked} names {token!r}, which {self.path} does not have; get the tables again")
        return found

    def forget_tokens(self) -> None:
        """Rows are found by their numbers from now on."""
        self.rows, self.tokens = {}, []

    def matrix(self, row: int) -> np.ndarray:
        """[4 4] float64: from the sensor (or vehicle) to what the table is about."""
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = self.rotation[row], self.translation[row]
        return out


def _objects(path: Path) -> Iterator[Any]:
    decode = json.JSONDecoder().raw_decode
    try:
        with path.open(encoding="utf-8") as file:
            text, at, last, expected = "", 0, False, "["
            while True:
                # Rows are parsed where the text lies; more is read when one might go on beyond its end.
                while not last and len(text) - at < _LONGEST:
                    more = file.read(_CHUNK)
                    text, at, last = text[at:] + more, 0, not more
                mark = _MARK.match(text, at)
                assert mark is not None  # it matches nothing too
                if mark[1] == "]" and expected == ",":
                    if text[mark.end() :].strip() or file.read(1).strip():
                        raise ValueError("something follows the list")
                    return
                if mark[1] != expected:
                    raise ValueError("it does not begin with a list" if expected == "[" else "the list does not end")
                at = mark.end()
                if expected == "[" and text[at : at + 1] == "]":
                    expected = ","
                    continue
                row, end = decode(text, at)
                if end - at > _LONGEST:
                    raise ValueError(f"a row has {end - at} characters")
                yield row
                at, expected = end, ","
    except DataError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5000 digits, brackets
        raise_if_of_machine(error, path)
        reason = getattr(error, "msg", error)  # of JSON without the place, which is one in memory
        raise DataError(f"{path}: damaged or cut short ({reason}); get the table again") from error
