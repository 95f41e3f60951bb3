"""Whose fault it is that a file cannot be read: its own, or that of the machine, which may do better next time."""

import errno
import zipfile
from pathlib import Path

_OF_DATA = frozenset((None, errno.EINVAL, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG))
"""No number: a decoder raised it. EINVAL: a damaged file made one seek to before its start."""


def raise_if_of_machine(error: Exception, where: Path | str) -> None:
    """Raise an error again unless the data caused it. Readers call this before they make a ``DataError`` of whatever a
    decoder raised: what is a ``DataError`` is left out for good.

    The machine's are ``MemoryError`` and each ``OSError`` whose number is none of a missing or damaged file's, such as
    ``EIO``, ``ESTALE``, ``EMFILE`` or ``EACCES``. Readers bound what they allocate by the size of the file, so that
    damaged ones do not run out of memory.

    Args:
        error: the one that is being handled.
        where: the file; named by an ``OSError`` that names none, as those of reading from an open file.
    """
    if isinstance(error, zipfile.BadZipFile) and isinstance(error.__context__, OSError):
        error = error.__context__  # zipfile calls a file that it fails to read no zip file
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, OSError) and error.errno not in _OF_DATA:
        if error.filename is None:
            error.filename = str(where)
        raise error
