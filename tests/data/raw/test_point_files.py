"""Clouds in every kind of file, and what is refused."""

import io
import struct
import zipfile

import numpy as np
import pytest

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.las import write_las
from ponder3d.data.raw.point_files import read_points
from tests.data.fuzzing import NUMBER, QUICK, check_reader

XYZ = np.array([[500_000.125, 0, 1], [2, 3, 4], [5, 6, 7]])
RGB = np.array([[0, 128, 255], [1, 2, 3], [200, 100, 50]], dtype=np.uint8)
NORMAL = np.array([[0, 0, 2.0], [0, 3, 4], [0, 0, 0]])


def ply(path, names, table):
    head = "\n".join(["ply", "format ascii 1.0", f"element vertex {len(table)}", *(f"property {n}" for n in names)])
    rows = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in table)
    path.write_text(f"{head}\nend_header\n{rows}\n")
    return path


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def npy(path, array):
    np.save(path, array)
    return path


def test_ply(tmp_path):
    names = [f"double {a}" for a in "xyz"] + [f"uchar {c}" for c in ("red", "green", "blue")]
    names += ["float nx", "float ny", "float nz", "float scalar_Label", "int instance", "float quality"]
    table = np.column_stack([XYZ, RGB, NORMAL, [3, -1, 40], [7, 8, -1], [0.5, np.nan, 1]])
    points = read_points(ply(tmp_path / "a.PLY", names, table))
    assert points.xyz.dtype == np.float64 and np.array_equal(points.xyz, XYZ)
    assert points.rgb.dtype == np.uint8 and np.array_equal(points.rgb, RGB)
    np.testing.assert_allclose(points.normal, [[0, 0, 1], [0, 0.6, 0.8], [0, 0, 0]], atol=1e-7)
    assert points.labels.dtype == np.int32 and points.labels.tolist() == [3, -1, 40]
    assert points.instances.tolist() == [7, 8, -1]


@pytest.mark.parametrize("names", [("xyz", "rgb", "normal", "labels", "instances"), ("coord", "color", "normal"), ()])
def test_npz(tmp_path, names):
    short = dict(zip(("xyz", "rgb", "normal", "labels", "instances"), names, strict=False))
    short.update({"labels": "segment", "instances": "instance"} if names and len(names) == 3 else {})
    arrays = {"xyz": XYZ, "rgb": RGB, "normal": NORMAL, "labels": [[1], [2], [3]], "instances": [4, 5, 6]}
    if not names:
        arrays, short = {"xyz": XYZ}, {"xyz": "points"}
    points = read_points(npz(tmp_path / "a.npz", extra=[1], **{short[k]: v for k, v in arrays.items()}))
    assert np.array_equal(points.xyz, XYZ)
    if not names:
        assert points.rgb is None and points.normal is None and points.labels is None and points.instances is None
    else:
        assert np.array_equal(points.rgb, RGB) and points.labels.tolist() == [1, 2, 3]
        assert points.instances.tolist() == [4, 5, 6]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("columns", [3, 6, 7, 8, 9, 10, 11])
def test_npy_by_the_number_of_columns(tmp_path, columns, order):
    labels = [[1, 10], [2, 20], [3, 30]]
    wide = columns >= 9
    table = np.column_stack([XYZ, RGB, *([NORMAL] if wide else []), labels])[:, :columns]
    points = read_points(npy(tmp_path / "a.npy", np.asarray(table, order=order)))
    assert np.array_equal(points.xyz, XYZ)
    assert (points.rgb is not None) == (columns > 3) and (points.normal is not None) == wide
    assert (points.labels is not None) == (columns in (7, 8, 10, 11))
    assert (points.instances is not None) == (columns in (8, 11))
    if points.rgb is not None:
        assert np.array_equal(points.rgb, RGB)
    if points.labels is not None:
        assert points.labels.tolist() == [1, 2, 3]


def test_big_endian_npy(tmp_path):
    assert np.array_equal(read_points(npy(tmp_path / "a.npy", XYZ.astype(">f8"))).xyz, XYZ)


def test_text(tmp_path):
    (tmp_path / "a.txt").write_text("//X,Y,Z,R,G,B\n" + "\n".join("1,2,3,255,0,9" for _ in range(2)))
    assert read_points(tmp_path / "a.txt").rgb.tolist() == [[255, 0, 9]] * 2
    (tmp_path / "a.xyz").write_text("# x y z\n1 2 3\n4 5 6\n")
    assert read_points(tmp_path / "a.xyz").xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    (tmp_path / "a.pts").write_text("2\n1 2 3 -1000 9 8 7\n4 5 6 -900 6 5 4\n")
    points = read_points(tmp_path / "a.pts")
    assert points.rgb.tolist() == [[9, 8, 7], [6, 5, 4]] and points.labels is None
    (tmp_path / "a.pts").write_text("3\n1 2 3\n4 5 6\n")
    with pytest.raises(DataError, match="a.pts: 2 rows; its first line says 3"):
        read_points(tmp_path / "a.pts")


def test_las_classes_and_colours(tmp_path):
    write_las(tmp_path / "a.las", XYZ, RGB, np.array([2, 6, 2]))
    points = read_points(tmp_path / "a.las")
    np.testing.assert_allclose(points.xyz, XYZ, atol=5e-4)
    assert np.array_equal(points.rgb, RGB) and points.labels.tolist() == [2, 6, 2]
    write_las(tmp_path / "a.las", XYZ, RGB, np.zeros(3))
    assert read_points(tmp_path / "a.las").labels is None, "nobody classified it"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (np.array([0.0, 0.25, 1.0]), [0, 0.25, 1]),
        (np.array([0.0, 51.0, 200.5]), [0, 0.2, 200.5 / 255]),
        (np.uint8([0, 51, 255]), [0, 0.2, 1]),
        (np.uint8([0, 1, 1]), [0, 1 / 255, 1 / 255]),
        (np.uint16([0, 13107, 65535]), [0, 0.2, 1]),
        (np.array([-1.0, 0.5, 1.0]), None),
        (np.array([0.5, np.nan, 1.0]), None),
        (np.uint16([0, 0, 0]), None),
        (np.int32([0, 1, 70000]), None),
    ],
)
def test_intensities_become_shares(tmp_path, raw, expected):
    found = read_points(npz(tmp_path / "a.npz", xyz=XYZ, intensity=raw)).intensity
    if expected is None:
        assert found is None
    else:
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_intensities_of_other_files(tmp_path):
    names = ["double x", "double y", "double z", "float scalar_Intensity", "float reflectance"]
    points = read_points(ply(tmp_path / "a.ply", names, np.column_stack([XYZ, [0.1, 0.2, 0.4], [1, 1, 1]])))
    np.testing.assert_allclose(points.intensity, [0.1, 0.2, 0.4], rtol=1e-6)
    (tmp_path / "a.pts").write_text("2\n1 2 3 51\n4 5 6 255\n")
    np.testing.assert_allclose(read_points(tmp_path / "a.pts").intensity, [0.2, 1], rtol=1e-6)
    (tmp_path / "a.pts").write_text("1 2 3 -51 9 9 9\n4 5 6 255 9 9 9\n")
    assert read_points(tmp_path / "a.pts").intensity is None
    write_las(tmp_path / "a.las", XYZ, RGB, np.zeros(3))
    assert read_points(tmp_path / "a.las").intensity is None, "nobody measured it"
    data = bytearray((tmp_path / "a.las").read_bytes())
    for row, strength in enumerate((0, 13107, 65535)):
        data[227 + 26 * row + 12 : 227 + 26 * row + 14] = strength.to_bytes(2, "little")
    (tmp_path / "a.las").write_bytes(data)
    np.testing.assert_allclose(read_points(tmp_path / "a.las").intensity, [0, 0.2, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("raw", "colour", "expected"),
    [
        (np.uint8([0, 1, 255]), "auto", [0, 1, 255]),
        (np.uint16([0, 257, 65535]), "auto", [0, 1, 255]),
        (np.uint16([0, 100, 255]), "auto", [0, 100, 255]),
        (np.int64([0, 1, 255]), "auto", [0, 1, 255]),
        (np.float32([0, 0.5, 1]), "auto", [0, 128, 255]),
        (np.float32([0, 17.4, 255]), "auto", [0, 17, 255]),
        (np.float64([0, 0, 1]), "auto", [0, 0, 255]),
        (np.float64([0, 0, 1]), "0..255", [0, 0, 1]),
        (np.uint16([0, 100, 255]), "0..65535", [0, 0, 1]),
        (np.uint8([0, 1, 1]), "0..1", [0, 255, 255]),
        (np.float64([0, 257, 65535]), "0..65535", [0, 1, 255]),
    ],
    ids=str,
)
def test_colours(tmp_path, raw, colour, expected):
    points = read_points(npz(tmp_path / "a.npz", xyz=np.eye(3), rgb=np.tile(raw[:, None], (1, 3))), colour)
    assert points.rgb.tolist() == [[value] * 3 for value in expected]


@pytest.mark.parametrize(
    ("raw", "colour", "message"),
    [
        (np.float32([0, 0.5, 1.2]), "auto", "float32 values from 0 to 1.2 fit no range; say which with colour: 0..1, "),
        (np.float32([0, 0.5, 300]), "auto", "fit no range"),
        (np.float32([-1, 0.5, 1]), "auto", "from -1 to 1 fit no range.*Normals belong"),
        (np.int64([0, 5, 70000]), "auto", "from 0 to 70000 fit no range"),
        (np.int64([0, 5, 7]), "0..1", "from 0 to 7 are not 0..1"),
        (np.float32([0, 0.5, np.nan]), "auto", "rgb: 1 of 3 rows are not finite, the first is row 2"),
    ],
    ids=str,
)
def test_colours_that_fit_nothing(tmp_path, raw, colour, message):
    path = npz(tmp_path / "a.npz", xyz=np.eye(3), rgb=np.tile(raw[:, None], (1, 3)))
    with pytest.raises(DataError, match=f"a.npz: .*{message}"):
        read_points(path, colour)


def objects(path):
    np.savez(path, xyz=np.array([{}, {}], dtype=object))
    return path


def bomb(path):
    """A member that claims to be a terabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**11, 3)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xyz.npy", header.getvalue())
    return path


def lying_size(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xyz.npy", bytes(5000))
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 5000), struct.pack("<I", 2**31)))
    return path


def flipped(path):
    npz(path, xyz=XYZ)
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<d", 7.0))] ^= 1
    path.write_bytes(data)
    return path


BAD = {
    "nan": (lambda d: npy(d / "a.npy", [[0, 0, 0], [1, np.nan, 0], [np.inf, 0, 0]]), "xyz: 2 of 3 rows.* is row 1"),
    "nan normal": (lambda d: npz(d / "a.npz", xyz=XYZ, normal=NORMAL * np.nan), "normal: 3 of 3 rows are not finite"),
    "no points": (lambda d: npy(d / "a.npy", np.zeros((0, 3))), r"xyz: of shape \(0, 3\)"),
    "4 columns": (lambda d: npy(d / "a.npy", np.zeros((5, 4))), "columns can be 3, 6, 7.*npz with named"),
    "one row": (lambda d: npy(d / "a.npy", np.zeros(3)), r"an array of shape \(3,\)"),
    "text as npy": (lambda d: npy(d / "a.npy", np.array(["a"])), "of type <U1; expected numbers"),
    "complex": (lambda d: npy(d / "a.npy", np.zeros((2, 3), complex)), "of type complex128"),
    "objects": (lambda d: objects(d / "a.npz"), "xyz.npy: of type object; .*objects are never read"),
    "no xyz": (lambda d: npz(d / "a.npz", features=XYZ), "no array xyz or coord, only features"),
    "two names": (lambda d: npz(d / "a.npz", xyz=XYZ, coord=XYZ), "xyz are there twice, as xyz and coord"),
    "fewer colours": (lambda d: npz(d / "a.npz", xyz=XYZ, rgb=RGB[:2]), r"rgb: of shape \(2, 3\); expected \(3, 3\)"),
    "fractions": (lambda d: npz(d / "a.npz", xyz=XYZ, labels=[0, 0.5, 1]), "labels: row 1 is 0.5, no whole number"),
    "huge labels": (lambda d: npz(d / "a.npz", xyz=XYZ, labels=[0, 2**40, 1]), "labels: .* fit into 32 bits"),
    "a bomb": (lambda d: bomb(d / "a.npz"), r"xyz.npy: of shape \(100000000000, 3\) and type float64, but"),
    "a size that lies": (lambda d: lying_size(d / "a.npz"), "xyz.npy: a size that it cannot have"),
    "a flipped bit": (lambda d: flipped(d / "a.npz"), "Bad CRC-32"),
    "no columns": (lambda d: ply(d / "a.ply", ["float u"], [[1]]), "no columns x, y and z, only u"),
    "two labels": (
        lambda d: ply(d / "a.ply", [*(f"float {a}" for a in "xyz"), "int label", "int class"], np.ones((1, 5))),
        "labels are there twice, as label and class",
    ),
    "another ending": (lambda d: d / "a.pcd", "ends in one of .ply, .las"),
    "absent": (lambda d: d / "a.ply", "no such file"),
    "a folder": (lambda d: d, "ends in one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(tmp_path, case):
    make, message = BAD[case]
    path = make(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        read_points(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("text", ["", "a b c\n", "1 2\n3\n", "\x00\xff"])
def test_text_that_is_no_table(tmp_path, text):
    (tmp_path / "a.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="a.txt: "):
        read_points(tmp_path / "a.txt")


@pytest.mark.parametrize("number", [QUICK, pytest.param(NUMBER, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ending", [".npz", ".npy", ".ply", ".xyz", ".pts"])
def test_mutated_files(tmp_path, number, ending):
    table = np.column_stack([XYZ, RGB])
    np.savez(tmp_path / "1.npz", xyz=XYZ, rgb=RGB, labels=[1, 2, 3])
    np.savez_compressed(tmp_path / "2.npz", coord=np.zeros((500, 3)), normal=np.ones((500, 3)))
    np.save(tmp_path / "1.npy", table)
    ply(tmp_path / "1.ply", [f"float {a}" for a in "xyz"] + [f"uchar {c}" for c in "rgb"], table)
    np.savetxt(tmp_path / "1.xyz", table)
    (tmp_path / "1.pts").write_text("2\n1 2 3 4\n5 6 7 8\n")
    target = tmp_path / f"m{ending}"

    def read(data):
        target.write_bytes(data)
        return read_points(target)

    seeds = [path.read_bytes() for path in sorted(tmp_path.glob(f"?{ending}"))]
    assert check_reader(read, seeds, number) > number / 20
