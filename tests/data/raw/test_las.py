"""LAS and LAZ: against files that laspy writes, and damaged ones."""

import struct

import numpy as np
import pytest

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.las import read_las, write_las
from tests.data.fuzzing import NUMBER, QUICK, check_reader

N = 40
XYZ = np.random.default_rng(0).random((N, 3)) * 10
RGB = np.random.default_rng(1).integers(0, 256, (N, 3)).astype(np.uint8)
LABELS = np.arange(N) % 7


@pytest.fixture
def cloud(tmp_path):
    write_las(tmp_path / "a.las", XYZ, RGB, LABELS)
    return tmp_path / "a.las"


def laspy_file(path, point_format=3, version="1.2", extra=True):
    laspy = pytest.importorskip("laspy", reason="laspy is not installed: no independent writer of LAS")
    header = laspy.LasHeader(point_format=point_format, version=version)
    header.offsets, header.scales = [500_000, 4_000_000, 0], [0.001] * 3
    if extra:
        header.add_extra_dim(laspy.ExtraBytesParams(name="pair", type="2int16"))
        header.add_extra_dim(laspy.ExtraBytesParams(name="instance", type="uint16"))
        header.add_extra_dim(laspy.ExtraBytesParams(name="NormalX", type="float32"))
    las = laspy.LasData(header)
    las.x, las.y, las.z = (XYZ + [500_000, 4_000_000, 0]).T
    las.classification = LABELS
    if extra:
        las.instance, las.NormalX = LABELS * 100, XYZ[:, 0]
    if point_format in (2, 3, 5, 7, 8, 10):
        las.red, las.green, las.blue = RGB.T.astype(np.uint16) * 257
    las.write(path)


def test_what_is_written_is_read_back(cloud):
    columns = read_las(cloud)
    np.testing.assert_allclose(np.stack([columns[a] for a in "xyz"], 1), XYZ, atol=5.1e-4)
    assert (np.stack([columns[c] for c in ("red", "green", "blue")], 1) == RGB.astype(int) * 257).all()
    assert (columns["classification"] == LABELS).all()


def test_the_layout_is_that_of_the_specification(cloud):
    data = cloud.read_bytes()
    assert len(data) == 227 + 26 * N and data[:4] == b"LASF" and data[104] == 2
    x, y, z = struct.unpack_from("<3i", data, 227)
    np.testing.assert_allclose([x / 1000, y / 1000, z / 1000], XYZ[0], atol=5.1e-4)
    assert data[227 + 15] == LABELS[0] and struct.unpack_from("<H", data, 227 + 20)[0] == int(RGB[0, 0]) * 257


@pytest.mark.parametrize(("point_format", "version"), [(0, "1.2"), (2, "1.2"), (3, "1.2"), (6, "1.4"), (7, "1.4")])
@pytest.mark.parametrize("ending", ["las", "laz"])
def test_files_of_laspy(tmp_path, point_format, version, ending):
    path = tmp_path / f"b.{ending}"
    laspy_file(path, point_format, version)
    columns = read_las(path)
    expected = XYZ + [500_000, 4_000_000, 0]
    np.testing.assert_allclose(np.stack([columns[a] for a in "xyz"], 1), expected, atol=6e-4, rtol=0)
    assert (columns["classification"] == LABELS).all() and (columns["instance"] == LABELS * 100).all()
    np.testing.assert_allclose(columns["NormalX"], XYZ[:, 0], rtol=1e-6)
    assert "pair" not in columns and ("red" in columns) == (point_format in (2, 3, 7))
    assert point_format in (0, 6) or (columns["green"] == RGB[:, 1].astype(int) * 257).all()


def put(offset, layout, *values):
    def change(data):
        out = bytearray(data)
        struct.pack_into(layout, out, offset, *values)
        return bytes(out)

    return change


DAMAGE = {
    "text": (lambda data: b"hello", "does not begin with LASF"),
    "a short header": (lambda data: data[:200], "ends within its header"),
    "a version to come": (put(25, "<B", 9), "version 1.9"),
    "truncated": (lambda data: data[:-1], "40 points of 26 bytes, but 1039 bytes are left"),
    "too many points": (put(107, "<I", 2**32 - 1), "4294967295 points of 26 bytes"),
    "no points": (put(107, "<I", 0), "no points"),
    "a format that is none": (put(104, "<B", 11), "format 11"),
    "short points": (put(105, "<H", 25), "format 2 and 25 bytes"),
    "points beyond the end": (put(96, "<I", 10**9), "points from byte 1000000000 on"),
    "too many records": (put(100, "<I", 2**31), "2147483648 records"),
    "a record among the points": (put(100, "<I", 1), "record 0: begins where the points are"),
    "a scale of zero": (put(131, "<d", 0.0), "scale"),
    "a scale that is not finite": (put(131, "<d", float("nan")), "scale"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files(cloud, case):
    damage, message = DAMAGE[case]
    cloud.write_bytes(damage(cloud.read_bytes()))
    with pytest.raises(DataError, match=f"a.las: .*{message}"):
        read_las(cloud)


def test_damaged_laz(tmp_path):
    path = tmp_path / "a.laz"
    laspy_file(path)
    data = path.read_bytes()
    offset = struct.unpack_from("<I", data, 96)[0]
    (table,) = struct.unpack_from("<q", data, offset)
    for change, message in (
        (put(107, "<I", 2**31), "2147483648 points of .* its header is wrong"),
        (put(offset, "<q", 10**12), "table of chunks would be at byte 1000000000000"),
        (put(table + 4, "<I", 10**9), "table of chunks has 1000000000"),
        (lambda d: d.replace(b"laszip encoded", b"laszip decoded"), "no record of LASzip"),
        (lambda d: d[:offset] + d[offset : offset + 60], "table of chunks would be"),
    ):
        path.write_bytes(change(data))
        with pytest.raises(DataError, match=f"a.laz: .*{message}"):
            read_las(path)


def test_without_lazrs(tmp_path, monkeypatch):
    laspy_file(tmp_path / "a.laz")
    monkeypatch.setitem(__import__("sys").modules, "lazrs", None)
    with pytest.raises(DataError, match=r"a.laz: .*pip install 'ponder3d\[lidar\]'"):
        read_las(tmp_path / "a.laz")


@pytest.mark.parametrize("number", [QUICK, pytest.param(NUMBER, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ending", ["las", "laz"])
def test_mutated_files(tmp_path, cloud, number, ending, capfd):
    seeds = [cloud.read_bytes()] if ending == "las" else []
    for i, (point_format, version) in enumerate(((3, "1.2"), (7, "1.4"))):
        path = tmp_path / f"{i}.{ending}"
        laspy_file(path, point_format, version)
        seeds.append(path.read_bytes())
    target = tmp_path / f"m.{ending}"

    def read(data):
        target.write_bytes(data)
        return read_las(target)

    assert check_reader(read, seeds, number) > number / 10
