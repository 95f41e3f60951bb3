"""Results for nuScenes' LiDAR segmentation challenge, byte for byte."""

import json
import zipfile

import numpy as np
import pytest

from ponder3d.data.dataset import DataError
from ponder3d.data.submission_nuscenes import read_results, write_lidarseg, write_meta, zip_results

IDS = tuple(range(1, 17))
ROWS = {
    "lidarseg/val/0aF_lidarseg.bin": np.array([0, 15, 3, 3]),
    "lidarseg/val/1b_lidarseg.bin": np.array([7]),
    "lidarseg/mini_val/2c_lidarseg.bin": np.zeros(0, np.int64),
}
SIZES = {name: len(rows) for name, rows in ROWS.items()}


@pytest.fixture
def folder(tmp_path):
    for name, rows in ROWS.items():
        write_lidarseg(tmp_path / "results" / name, rows, IDS)
    write_meta(tmp_path / "results", list(ROWS), cameras=False, external=True)
    return tmp_path / "results"


def test_what_files_hold(folder):
    assert (folder / "lidarseg" / "val" / "0aF_lidarseg.bin").read_bytes() == bytes([1, 16, 4, 4])
    meta = json.loads((folder / "val" / "submission.json").read_text())
    assert meta == {
        "meta": {
            "use_camera": False,
            "use_lidar": True,
            "use_radar": False,
            "use_map": False,
            "use_external": True,
        }
    }
    assert (folder / "mini_val" / "submission.json").is_file()
    with pytest.raises(ValueError, match="a class without a number; there are 16"):
        write_lidarseg(folder / "a.bin", np.array([16]), IDS)


@pytest.mark.parametrize("zipped", [False, True])
def test_written_and_read_back(folder, tmp_path, zipped):
    path = tmp_path / "all.zip" if zipped else folder
    if zipped:
        zip_results(folder, list(ROWS), path)
        first = path.read_bytes()
        zip_results(folder, list(ROWS)[::-1], path)
        assert path.read_bytes() == first
        with zipfile.ZipFile(path) as file:
            assert file.namelist() == sorted([*ROWS, "val/submission.json", "mini_val/submission.json"])
    for (name, rows), (expected, truth) in zip(read_results(path, SIZES, IDS), ROWS.items(), strict=True):
        assert name == expected and np.array_equal(rows, truth)


ONE = "lidarseg/val/1b_lidarseg.bin"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / ONE).unlink(), r"results: has no lidarseg/val/1b_lidarseg.bin"),
        (lambda f: write_lidarseg(f / "lidarseg/val/x.bin", np.array([1]), IDS), r"a file of no scene .*val/x.bin"),
        (lambda f: write_lidarseg(f / ONE, np.array([1, 1]), IDS), r"has 2 bytes or more, and the key frame has 1"),
        (lambda f: (f / ONE).write_bytes(b"\0"), r"1b_lidarseg.bin: point 0 is 0, which is no class"),
    ],
)
def test_what_is_refused(folder, change, message):
    change(folder)
    with pytest.raises(DataError, match=message):
        list(read_results(folder, SIZES, IDS))


def test_numbers_that_are_no_bytes(folder):
    with pytest.raises(DataError, match=r"numbers of classes up to 1163, and files have one byte"):
        list(read_results(folder, SIZES, (1, 1163)))


def test_damaged_zip_files(folder, tmp_path, fuzz):
    zip_results(folder, list(ROWS), tmp_path / "all.zip")

    def read(data: bytes) -> None:
        (tmp_path / "x.zip").write_bytes(data)
        list(read_results(tmp_path / "x.zip", SIZES, IDS))

    assert fuzz(read, [(tmp_path / "all.zip").read_bytes()]) > 20
