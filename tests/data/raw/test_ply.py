import struct

import numpy as np
import pytest
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.ply import read_ply
from ponder3d.geometry.ply import write_ply

HEADER = """ply
format {order} 1.0
comment made by hand
obj_info nothing
element camera 2
property double focal
property list uchar short marks
element vertex 4
property float x
property list uchar uint neighbours
property double y
property float z
property uchar red
property short label
element face 3
property uchar flags
property list uchar int vertex_indices
element edge 1
property int vertex1
property int vertex2
end_header
"""
CAMERAS = ((1.5, (7, -8)), (2.5, ()))
VERTICES = (
    (0.0, (1, 2), 0.25, -1.0, 255, -3),
    (1.0, (), 1.25, -2.0, 0, 4),
    (2.0, (3,), 2.25, -3.0, 7, 5),
    (3.0, (0, 1, 2), 3.25, -4.0, 8, 300),
)
FACES = ((1, (0, 1, 2)), (2, (0, 1, 2, 3)), (3, (3, 1)))


def binary(order: str = "<") -> bytes:
    """Everything the format has: lists of vertices, other elements before and after, polygons."""
    parts = [HEADER.format(order="binary_little_endian" if order == "<" else "binary_big_endian").encode()]
    for focal, marks in CAMERAS:
        parts.append(struct.pack(f"{order}dB{len(marks)}h", focal, len(marks), *marks))
    for x, neighbours, *rest in VERTICES:
        parts.append(struct.pack(f"{order}fB{len(neighbours)}IdfBh", x, len(neighbours), *neighbours, *rest))
    for flags, corners in FACES:
        parts.append(struct.pack(f"{order}BB{len(corners)}i", flags, len(corners), *corners))
    return b"".join([*parts, struct.pack(f"{order}ii", 0, 1)])


def ascii_text() -> bytes:
    lines = [f"{focal} {len(marks)} {' '.join(map(str, marks))}" for focal, marks in CAMERAS]
    for x, neighbours, *rest in VERTICES:
        lines.append(" ".join(map(str, (x, len(neighbours), *neighbours, *rest))))
    lines += [" ".join(map(str, (flags, len(corners), *corners))) for flags, corners in FACES]
    return (HEADER.format(order="ascii") + "\n".join([*lines, "0 1"]) + "\n").encode()


SIMPLE = b"""ply\r
format ascii 1.0\r
element vertex 3\r
property float x\r
property float y\r
property float z\r
element face 2\r
property list uchar int vertex_index\r
end_header\r
0 0 0\r
\r
1 0 0\r
0 1 nan\r
3 0 1 2\r
3 2 1 0\r
"""


@pytest.fixture
def read(tmp_path):
    def run(data: bytes):
        (tmp_path / "a.ply").write_bytes(data)
        return read_ply(tmp_path / "a.ply")

    return run


@pytest.mark.parametrize("data", [binary("<"), binary(">"), ascii_text()], ids=["little", "big", "ascii"])
def test_everything_that_the_format_has(read, data):
    ply = read(data)
    assert list(ply.vertices) == ["x", "y", "z", "red", "label"]
    assert ply.columns("x", "y", "z").tolist() == [[i, i + 0.25, -1 - i] for i in range(4)]
    assert ply.vertices["red"].tolist() == [255, 0, 7, 8] and ply.vertices["red"].dtype == np.uint8
    assert ply.vertices["label"].tolist() == [-3, 4, 5, 300] and ply.vertices["label"].dtype == np.int16
    assert ply.faces is not None and ply.faces.dtype == np.int32
    assert ply.faces.tolist() == [[0, 1, 2], [0, 1, 2], [0, 2, 3]], "a quad is a fan, two corners are no face"


def test_ascii_with_windows_line_ends_and_an_empty_line(read):
    ply = read(SIMPLE)
    np.testing.assert_array_equal(ply.columns("x", "y", "z"), [[0, 0, 0], [1, 0, 0], [0, 1, np.nan]])
    assert ply.faces.tolist() == [[0, 1, 2], [2, 1, 0]]


def test_what_is_written_is_read(tmp_path):
    xyz, rgb = torch.randn(500, 3), torch.randint(0, 256, (500, 3), dtype=torch.uint8)
    faces = torch.randint(0, 500, (900, 3))
    write_ply(tmp_path / "a.ply", xyz, rgb, faces)
    ply = read_ply(tmp_path / "a.ply")
    assert np.array_equal(ply.columns("x", "y", "z"), xyz) and np.array_equal(ply.faces, faces)
    assert np.array_equal(ply.columns("red", "green", "blue"), rgb)
    write_ply(tmp_path / "b.ply", xyz, rgb)
    assert read_ply(tmp_path / "b.ply").faces is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b"ply", b"obj"), "does not start"),
        ((b"element vertex 4", b"element vertex 4000000000000"), "element vertex: .* are left"),
        ((b"element face 3", b"element face 900000000"), "element face: .* are left"),
        ((b"element vertex 4", b"element point 4"), "no element vertex"),
        ((b"element vertex 4", b"element vertex -4"), "line 'element vertex -4'"),
        ((b"property float x", b"property half x"), "line 'property half x'"),
        ((b"property float x", b"property float y"), "two of vertex"),
        ((b"list uchar int", b"list float int"), "line 'property list float"),
        ((b"format ascii 1.0", b"comment none"), "no format"),
        ((b"end_header", b"comment"), "header:"),
        ((b"3 1\n0 1\n", b"3 9\n0 1\n"), "vertex_indices from 0 to 9, but there are 4"),
        ((b"3 1\n0 1\n", b"3 -1\n0 1\n"), "vertex_indices from -1 to 3"),
        ((b"3 1\n0 1\n", b"3 1\n"), "element edge"),
        ((b" 255 -3", b" 256 -3"), "red is 256, no whole number from 0 to 255"),
        ((b" 255 -3", b" 255 -3.5"), "label is -3.5"),
        ((b" 255 -3", b" 255 nan"), "label is nan"),
        ((b" 255 -3", b" 255"), "row 0"),
        ((b" 255 -3", b" 255 red"), "row 0"),
        ((b"list uchar int vertex_indices", b"list uchar float vertex_indices"), "fractions"),
    ],
)
def test_what_is_wrong_is_named(read, tmp_path, change, message):
    data = ascii_text()
    assert data.count(change[0]) == 1 or change[0] in (b"ply", b"end_header")
    with pytest.raises(DataError, match=message) as caught:
        read(data.replace(change[0], change[1], 1))
    assert str(tmp_path / "a.ply") in str(caught.value)


@pytest.mark.parametrize("cut", [10, 60, 400, 520, 560, 595])
def test_a_truncated_file(read, cut):
    assert cut < len(binary())
    with pytest.raises(DataError):
        read(binary()[:cut])


def test_no_file_and_no_property(read, tmp_path):
    for name in ("b.ply", "."):
        with pytest.raises(DataError, match="no such file"):
            read_ply(tmp_path / name)
    with pytest.raises(DataError, match=r"no property green, only x, y, z"):
        read(SIMPLE).columns("green")


SEEDS = [binary("<"), binary(">"), ascii_text(), SIMPLE]


def test_damaged_files(read, fuzz):
    assert fuzz(read, SEEDS) > 20


@pytest.mark.slow
def test_many_damaged_files(read, fuzz):
    assert fuzz(read, SEEDS, 4000, key=1) > 1500
