import io
import zipfile

import numpy as np
import pytest

from ponder3d.data.dataset import DataError
from ponder3d.data.submission import read_submission, write_ids, zip_scenes

IDS = (1, 2, 39)
ROWS = {"scene0700_00": np.array([0, 1, 2, 2]), "scene0701_00": np.array([2]), "scene0702_00": np.zeros(0, np.int64)}
SIZES = {name: len(rows) for name, rows in ROWS.items()}


@pytest.fixture
def folder(tmp_path):
    for name, rows in ROWS.items():
        write_ids(tmp_path / "txt" / f"{name}.txt", rows, IDS)
    return tmp_path / "txt"


def test_what_a_file_holds(folder):
    assert (folder / "scene0700_00.txt").read_bytes() == b"1\n2\n39\n39\n"
    assert (folder / "scene0702_00.txt").read_bytes() == b""
    with pytest.raises(ValueError, match="a class without a number; there are 3"):
        write_ids(folder / "a.txt", np.array([3]), IDS)


@pytest.mark.parametrize("zipped", [False, True])
def test_written_and_read_back(folder, tmp_path, zipped):
    path = tmp_path / "all.zip" if zipped else folder
    if zipped:
        zip_scenes(folder, list(SIZES), path)
        first = path.read_bytes()
        zip_scenes(folder, list(SIZES)[::-1], path)
        assert path.read_bytes() == first
        with zipfile.ZipFile(path) as file:
            assert file.namelist() == [f"{name}.txt" for name in SIZES]
    for (name, rows), (expected, truth) in zip(read_submission(path, SIZES, IDS), ROWS.items(), strict=True):
        assert name == expected and np.array_equal(rows, truth)


def test_other_line_ends_are_read(folder):
    (folder / "scene0700_00.txt").write_bytes(b"1\r\n2\r\n39\r\n39")
    assert dict(read_submission(folder, SIZES, IDS))["scene0700_00"].tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("scene0700_00", b"1\n2\n39\n", r"scene0700_00\.txt: has 3 lines, and the scene has 4 points"),
        ("scene0700_00", b"1\n2\n39\n39\n1\n", r"scene0700_00\.txt: has 5 lines"),
        ("scene0700_00", b"1\n13\n39\n39\n", r"scene0700_00\.txt: line 2 is b'13', which is no class"),
        ("scene0700_00", b"1\n2\n039\n39\n", r"line 3 is b'039'"),
        ("scene0700_00", b"1\n2\n\n39\n", r"line 3 is b''"),
        ("scene0700_00", b"1\n2\nchair\n39\n", r"line 3 is b'chair'"),
        ("scene0701_00", b"1" * 100, r"scene0701_00.*(claims 100 bytes|more than 18 bytes)"),
        ("scene0700_00", None, r"has no scene0700_00\.txt$"),
        ("scene0711_00", b"1\n", r"has a file of no scene of this set: scene0711_00\.txt"),
    ],
)
def test_damage_is_named(folder, tmp_path, name, text, message, zipped):
    if text is None:
        (folder / f"{name}.txt").unlink()
    else:
        (folder / f"{name}.txt").write_bytes(text)
    path = folder
    if zipped:
        path = tmp_path / "all.zip"
        zip_scenes(folder, [file.stem for file in folder.iterdir()], path)
    with pytest.raises(DataError, match=message):
        list(read_submission(path, SIZES, IDS))


def test_several_missing_scenes_are_counted(folder):
    (folder / "scene0701_00.txt").unlink()
    (folder / "scene0702_00.txt").unlink()
    with pytest.raises(DataError, match=r"has no scene0701_00\.txt and 1 more"):
        list(read_submission(folder, SIZES, IDS))


def test_a_zip_that_leads_outside(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        file.writestr("../scene0700_00.txt", "1\n")
    with pytest.raises(DataError, match="lies outside of it"):
        list(read_submission(tmp_path / "all.zip", SIZES, IDS))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for name in SIZES:
            file.writestr(f"submission/{name}.txt", (folder / f"{name}.txt").read_bytes())
    with pytest.raises(DataError, match=r"has no scene0700_00\.txt and 2 more"):
        list(read_submission(tmp_path / "all.zip", SIZES, IDS))


def check_damaged(tmp_path, fuzz, number: int) -> None:
    def packed(method: int) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as file:
            for name, rows in ROWS.items():
                file.writestr(zipfile.ZipInfo(f"{name}.txt"), b"".join(b"%d\n" % IDS[row] for row in rows), method)
        return buffer.getvalue()

    def read(data: bytes) -> list:
        (tmp_path / "a.zip").write_bytes(data)
        return list(read_submission(tmp_path / "a.zip", SIZES, IDS))

    assert fuzz(read, [packed(zipfile.ZIP_DEFLATED), packed(zipfile.ZIP_STORED)], number=number) > number // 2


def test_damaged(tmp_path, fuzz):
    check_damaged(tmp_path, fuzz, 60)


@pytest.mark.slow
def test_many_damaged(tmp_path, fuzz):
    check_damaged(tmp_path, fuzz, 2000)
