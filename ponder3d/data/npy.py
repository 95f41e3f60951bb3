"""Arrays in numpy's format that may be damaged: nothing is allocated beyond the bytes that are there."""

import io
import math
import warnings

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine


def npy_header(file: io.BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first index runs fastest, and type of an array; the file is left at its first number.

    Of a damaged file whatever numpy raises, as it evaluates the header as Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers of Python 2, which are fine
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"format {version}")
        return readers[version](file)


def npy_array(data: bytes, where: str) -> np.ndarray:
    """The array of a npy file; it cannot be written to.

    Args:
        data: the file.
        where: what it is, for messages.

    Raises:
        DataError: it is none, an array of objects, or shorter than its header says.
    """
    file = io.BytesIO(data)
    try:
        shape, fortran, dtype = npy_header(file)
        num, start = math.prod(shape), file.tell()
        if dtype.hasobject or min(shape, default=0) < 0 or num * dtype.itemsize > len(data) - start:
            raise ValueError(f"shape {shape} and type {dtype} in {len(data) - start} bytes")
        return np.frombuffer(data, dtype, num, start).reshape(shape, order="F" if fortran else "C")
    except Exception as error:  # numpy parses the header with ast and tokenize, which raise what they like
        raise_if_of_machine(error, where)
        raise DataError(f"{where}: no array ({type(error).__name__}: {error})") from error
