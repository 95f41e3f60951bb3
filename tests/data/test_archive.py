import io
import random
import zipfile

import pytest

from ponder3d.data.archive import Archive
from ponder3d.data.dataset import DataError


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def opened(folder, data: bytes) -> Archive:
    (folder / "a.zip").write_bytes(data)
    return Archive(folder / "a.zip")


def test_members_are_read(tmp_path):
    archive = opened(tmp_path, packed({"a.txt": b"abc" * 100, "sub/b": b""}))
    assert archive.names == ("a.txt", "sub/b")
    assert archive.read("a.txt", 300) == b"abc" * 100 and archive.read("sub/b", 0) == b""
    with pytest.raises(DataError, match=r"a\.zip: has no member 'c'"):
        archive.read("c", 10)
    with pytest.raises(DataError, match=r"a\.zip: member 'a\.txt' claims 300 bytes, more than"):
        archive.read("a.txt", 299)


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/a", "a\\b", "C:/a"])
def test_a_member_outside_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"a\.zip: member .* lies outside of it"):
        opened(tmp_path, packed({"good": b"", name: b"x"}))


def test_other_refusals(tmp_path):
    with pytest.raises(DataError, match=r"a\.zip: no zip file, or a damaged one"):
        opened(tmp_path, b"hello")
    with pytest.warns(UserWarning, match="Duplicate name"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a", b"1")
            file.writestr("a", b"2")
    with pytest.raises(DataError, match="member 'a' is there twice"):
        opened(tmp_path, buffer.getvalue())
    with pytest.raises(DataError, match="packed by another method than deflate"):
        opened(tmp_path, packed({"a": b"x" * 50}, zipfile.ZIP_BZIP2)).read("a", 100)
    with pytest.raises(FileNotFoundError):
        Archive(tmp_path / "missing.zip")


def test_a_changed_byte_is_found(tmp_path):
    data = packed({"a": random.Random(0).randbytes(1000)}, zipfile.ZIP_STORED)
    broken = data[:500] + bytes([data[500] ^ 1]) + data[501:]
    with pytest.raises(DataError, match=r"a\.zip: member 'a' is damaged \(BadZipFile: Bad CRC-32"):
        opened(tmp_path, broken).read("a", 1000)


def test_a_bomb_is_not_unpacked(tmp_path):
    """The size that a member claims, in the central directory, is not believed."""
    data = bytearray(packed({"a": b"x"}))
    central = data.rfind(b"PK\x01\x02")
    data[central + 24 : central + 28] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(DataError, match=r"claims 2147483648 bytes, more than it can have"):
        opened(tmp_path, bytes(data)).read("a", 1 << 40)


def check_damaged(tmp_path, fuzz, number: int) -> None:
    seeds = [packed({"a.txt": b"1\n2\n" * 50, "b/c.txt": random.Random(0).randbytes(300)}), packed({"x": b""})]

    def read(data: bytes) -> list[bytes]:
        archive = opened(tmp_path, data)
        return [archive.read(name, 1 << 20) for name in archive.names]

    assert fuzz(read, seeds, number=number) > number // 2


def test_damaged(tmp_path, fuzz):
    check_damaged(tmp_path, fuzz, 60)


@pytest.mark.slow
def test_many_damaged(tmp_path, fuzz):
    check_damaged(tmp_path, fuzz, 2000)
