"""Tables that pandas pickled, without pandas and without trusting them.

A pickle is a program: it names functions and calls them. Here it may name only what a ``DataFrame`` of numbers and
texts is made of, in any version of pandas up to 2 (3: with columns of objects), and gets stand-ins of ours that hold
what they are given and do nothing. Arrays are made afterwards, from bytes whose number is known.
"""

import io
import math
import pickle
import pickletools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine

MAX_BYTES = 1 << 28
"""Of a table; a frame of PandaSet has 8 MB."""
_KINDS = {"f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"}
_REFUSED = frozenset(("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEXT_BUFFER", "READONLY_BUFFER"))
_MEMO = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))


class _Held:
    """What a pickle makes of a class: the arguments it was made with, and the state it was given."""

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any):
        self = super().__new__(cls)
        self.arguments, self.state = arguments, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Frame(_Held):
    pass


class _Manager(_Held):
    pass


class _Block(_Held):
    pass


class _Index(_Held):
    pass


class _Range(_Held):
    pass


class _Array(_Held):
    pass


class _Type(_Held):
    pass


class _Scalar(_Held):
    pass


class _Buffer(_Held):
    pass


def _reconstructed(*arguments: Any) -> _Array:
    """numpy's empty array that gets its state afterwards."""
    return _Array()


def _encoded(text: Any, encoding: Any) -> bytes:
    """How old protocols write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("text in another encoding than latin1")
    return text.encode("latin1")


def _index(cls: Any, state: Any) -> _Held:
    made = cls() if isinstance(cls, type) and issubclass(cls, _Held) else _Index()
    made.state = state
    return made


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "slice"): slice,
    ("__builtin__", "slice"): slice,
    ("_codecs", "encode"): _encoded,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    **{
        (f"numpy.{core}.{module}", name): made
        for core in ("core", "_core")
        for module, name, made in (
            ("multiarray", "_reconstruct", _reconstructed),
            ("multiarray", "scalar", _Scalar),
            ("numeric", "_frombuffer", _Buffer),
        )
    },
    ("pandas", "DataFrame"): _Frame,
    ("pandas", "Index"): _Index,
    ("pandas", "RangeIndex"): _Range,
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas.core.internals", "BlockManager"): _Manager,
    ("pandas.core.internals.managers", "BlockManager"): _Manager,
    ("pandas._libs.internals", "_unpickle_block"): _Block,
    ("pandas.core.indexes.base", "_new_Index"): _index,
    ("pandas.core.indexes.base", "Index"): _Index,
    ("pandas.core.indexes.range", "RangeIndex"): _Range,
    ("pandas.core.indexes.numeric", "Int64Index"): _Index,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, where: str):
        super().__init__(io.BytesIO(data))
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        made = _ALLOWED.get((module, name))
        if made is None:
            raise DataError(
                f"{self._where}: refused: it wants {module}.{name}, which is no part of a table of numbers and texts; "
                "if it is from pandas 3, write it with columns of type object"
            )
        return made


def read_table(path: Path) -> dict[str, np.ndarray]:
    """The columns of a ``.pkl`` or ``.pkl.gz`` of a ``DataFrame``, by name, in their order; texts are objects.

    Raises:
        DataError: it cannot be read, is damaged or too large, or asks for anything but a table (refused).
    """
    try:
        packed = path.stat().st_size
        if packed > MAX_BYTES:
            raise DataError(f"{path}: {packed} bytes; such a table has at most {MAX_BYTES}")
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = _unzipped(data, str(path))
        return parse_table(data, str(path))
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def parse_table(data: bytes, where: str) -> dict[str, np.ndarray]:
    """``read_table`` of a pickle that was read and unpacked already."""
    try:
        _scan(data, where)
        return _columns(_Unpickler(data, where).load())
    except DataError:
        raise
    except Exception as error:  # damaged pickles call our stand-ins with whatever they hold
        raise_if_of_machine(error, where)
        raise DataError(f"{where}: no table of pandas ({type(error).__name__}: {str(error)[:200]})") from error


def _unzipped(data: bytes, where: str) -> bytes:
    unzip = zlib.decompressobj(wbits=31)
    try:
        out = unzip.decompress(data, MAX_BYTES)
        if unzip.unconsumed_tail:
            raise DataError(f"{where}: more than {MAX_BYTES} bytes when unpacked")
        if not unzip.eof:
            raise DataError(f"{where}: cut short: its gzip has no end")
    except zlib.error as error:
        raise DataError(f"{where}: no gzip ({error})") from error
    return out


def _scan(data: bytes, where: str) -> None:
    """Look at a pickle's operations before any is carried out: a damaged one may ask for memory without end."""
    number = 0
    for number, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if operation.name in _REFUSED:
            raise DataError(f"{where}: refused: a table needs no {operation.name}")
        # The unpickler makes room for as many memos as the largest number says.
        if operation.name in _MEMO and not (argument is not None and 0 <= int(argument) <= number + 1):
            raise ValueError(f"memo {argument} at operation {number}")
    if number > 1 << 22:
        raise DataError(f"{where}: {number} operations; a table has far fewer")


def _columns(frame: Any) -> dict[str, np.ndarray]:
    if not isinstance(frame, _Frame) or not isinstance(frame.state, dict):
        raise ValueError("something else than a DataFrame")
    manager = frame.state.get("_mgr", frame.state.get("_data"))
    if not isinstance(manager, _Manager):
        raise ValueError("a DataFrame without its data")
    if manager.arguments:  # pandas 1.3 and later
        blocks, axes = manager.arguments
        parts = [(_array(block.arguments[0]), block.arguments[1]) for block in blocks]
    else:
        told = manager.state[3]["0.14.1"]
        axes, parts = told["axes"], [(_array(block["values"]), block["mgr_locs"]) for block in told["blocks"]]
    names = _array(axes[0].state["data"])
    if not all(isinstance(name, str) for name in names.tolist()) or len(set(names.tolist())) < len(names):
        raise ValueError("columns without different names")
    columns: dict[int, np.ndarray] = {}
    for values, place in parts:
        numbers = range(len(names))[place] if isinstance(place, slice) else _array(place).tolist()
        if values.ndim != 2 or len(values) != len(numbers):
            raise ValueError(f"{len(numbers)} columns of shape {values.shape}")
        columns.update(zip(numbers, values, strict=True))
    lengths = {len(column) for column in columns.values()}
    if sorted(columns) != list(range(len(names))) or len(lengths) > 1:
        raise ValueError("a column is missing, or longer than others")
    return {name: np.ascontiguousarray(columns[i]) for i, name in enumerate(names.tolist())}


def _array(held: Any) -> np.ndarray:
    """The array that a stand-in stands for."""
    if isinstance(held, np.ndarray):
        return held
    if isinstance(held, _Buffer):
        data, kind, shape, order = held.arguments
        return _made(bytes(data), kind, shape, order == "F")
    if not isinstance(held, _Array) or held.state is None:
        raise ValueError(f"{type(held).__name__} for an array")
    _, shape, kind, is_fortran, data = held.state
    return _made(data, kind, shape, bool(is_fortran))


def _made(data: Any, kind: Any, shape: Any, is_fortran: bool) -> np.ndarray:
    shape = tuple(shape)
    if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 2 or not isinstance(kind, _Type):
        raise ValueError(f"an array of shape {shape}")
    num, order = math.prod(shape), "F" if is_fortran else "C"
    if str(kind.arguments[0]).lstrip("|") in ("O8", "O4", "O"):
        if not isinstance(data, list) or len(data) != num:
            raise ValueError(f"objects that are not {num}")
        out = np.empty(num, dtype=object)
        out[:] = [_value(item) for item in data]
        return out.reshape(shape, order=order)
    dtype = _dtype(kind)
    if not isinstance(data, bytes) or len(data) != num * dtype.itemsize:
        raise ValueError(f"shape {shape} of {dtype} without its bytes")
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _dtype(kind: _Type) -> np.dtype:
    name = kind.arguments[0]
    if name not in _KINDS:
        raise ValueError(f"numbers of type {name!r}")
    return np.dtype(name).newbyteorder(">" if kind.state and kind.state[1] == ">" else "<")


def _value(item: Any) -> Any:
    """A text, a number or nothing; anything else in a cell is not read."""
    if isinstance(item, _Scalar):
        kind, data = item.arguments
        return np.frombuffer(data, _dtype(kind), 1)[0].item()
    return item if item is None or isinstance(item, (str, int, float, bool)) else None
