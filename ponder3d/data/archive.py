"""Zip files that may be damaged or ill-meant: members are read in place and never more than was said before."""

import io
import zipfile
from pathlib import Path

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine

_MOST_DEFLATED = 1032
"""Bytes that a byte of deflated data can become at most; a member that claims more is damaged."""
_ENCRYPTED = 1


class Archive:
    """The members of a zip file, by name.

    Args:
        path: is read into memory as it is, compressed.
        content: the file, if it was read already.

    Raises:
        DataError: it is no zip file, or a member's name is absolute, leads out of it, or occurs twice.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, content: bytes | None = None):
        self.path = path
        data = io.BytesIO(path.read_bytes() if content is None else content)
        try:
            self._zip = zipfile.ZipFile(data)
            members = self._zip.infolist()
        except Exception as error:  # zipfile parses what it finds and raises what comes of it
            raise_if_of_machine(error, path)
            raise DataError(f"{path}: no zip file, or a damaged one ({type(error).__name__}: {error})") from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            name = member.orig_filename
            if name.startswith("/") or "\\" in name or "\0" in name or ":" in name or ".." in name.split("/"):
                raise DataError(f"{path}: member {name!r} lies outside of it; this is no file to be trusted")
            if name in self._members:
                raise DataError(f"{path}: member {name!r} is there twice")
            self._members[name] = member

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(self._members)

    def read(self, name: str, most: int) -> bytes:
        """A member, whose checksum is verified.

        Args:
            name: of the member.
            most: bytes it may have.

        Raises:
            DataError: there is none, it is larger, or it is damaged.
        """
        member = self._members.get(name)
        if member is None:
            raise DataError(f"{self.path}: has no member {name!r}")
        if member.file_size > min(most, _MOST_DEFLATED * (member.compress_size + 64)):
            raise DataError(f"{self.path}: member {name!r} claims {member.file_size} bytes, more than it can have")
        if member.flag_bits & _ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{self.path}: member {name!r} is encrypted or packed by another method than deflate")
        try:
            data = self._zip.read(member)
        except Exception as error:
            raise_if_of_machine(error, self.path)
            raise DataError(f"{self.path}: member {name!r} is damaged ({type(error).__name__}: {error})") from error
        if len(data) != member.file_size:
            raise DataError(f"{self.path}: member {name!r} is cut short")
        return data
