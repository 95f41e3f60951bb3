import numpy as np
import pytest

from ponder3d.data.dataset import DataError
from ponder3d.data.raw import text

# The three damaged lines of the release, as they are there; neighbours of the second have -9.160.
DAMAGED = b"22.350 6.692 3.048 185\x00187 182\n19.302 -9.1\x160 1.785 146 137 106\n1 2 3 103.0\x100000 4 5\n"


def test_known_damages_are_repaired_and_named():
    points = text.parse_points(b"1 2 3 4 5 6\n" + DAMAGED, "ceiling_1.txt")
    np.testing.assert_array_equal(
        points.xyz[1:], np.float32([[22.35, 6.692, 3.048], [19.302, -9.16, 1.785], [1, 2, 3]])
    )
    assert points.rgb.tolist() == [[4, 5, 6], [185, 187, 182], [146, 137, 106], [103, 4, 5]]
    assert [note.split(":")[0] for note in points.notes] == ["line 2", "line 3", "line 4"]
    assert points.notes[0] == "line 2: '22.350 6.692 3.048 185\\x00187 182': read as 22.350 6.692 3.048 185 187 182"


@pytest.mark.parametrize(
    "line",
    [
        b"1 2 3 4 5",
        b"1 2 3 4 5 6 7",
        b"1 2 3 4 5 256",
        b"1 2 3 4 5 -1",
        b"1-2 2 3 4 5 6",
        b"- 2 3 4 5 6",
        b". 2 3 4 5 6",
    ]
    + [b"1.2.3 2 3 4 5 6", b"nan 2 3 4 5 6", b"1e999 2 3 4 5 6", b"x 2 3 4 5 6", b"1\xff 2 3 4 5 6", b"--1 2 3 4 5 6"],
)
def test_what_is_no_point_is_left_out_and_named(line):
    points = text.parse_points(b"9 8 7 6 5 4\n" + line + b"\n0 0 0 1 1 1\n", "wall_1.txt")
    assert points.xyz.tolist() == [[9, 8, 7], [0, 0, 0]] and points.rgb.tolist() == [[6, 5, 4], [1, 1, 1]]
    (note,) = points.notes
    assert note.startswith("line 2: ") and note.endswith("is not x y z r g b; left out")


def test_other_ways_to_write_a_point():
    points = text.parse_points(b"\n \r\n-.5 +2 1e-1\t255.000000 0.4 7.\r\n\n1.123456789012345678 0 -0 1 2 3", "x")
    np.testing.assert_allclose(points.xyz, [[-0.5, 2, 0.1], [1.1234568, 0, 0]])
    assert points.rgb.tolist() == [[255, 0, 7], [1, 2, 3]] and points.notes == ()


@pytest.mark.parametrize("chunk", [1, 50, 1000, 1 << 20])
def test_values_are_those_of_loadtxt_wherever_the_text_is_cut(chunk, monkeypatch):
    monkeypatch.setattr(text, "_CHUNK", chunk)
    draw = np.random.default_rng(0)
    rows = [
        f"{x:.{n}f} {y:.6f} {z:.3f} {r} {g} {b}.000000"
        for (x, y, z), (r, g, b), n in zip(
            draw.uniform(-99, 99, (200, 3)), draw.integers(0, 256, (200, 3)), draw.integers(0, 12, 200), strict=True
        )
    ]
    rows[57] = "1 2 3"
    points = text.parse_points("\n".join(rows).encode(), "x")
    expected = np.loadtxt([row for row in rows if row != "1 2 3"])
    np.testing.assert_array_equal(points.xyz, expected[:, :3].astype(np.float32))
    np.testing.assert_array_equal(points.rgb, expected[:, 3:])
    assert len(points.notes) == 1 and points.notes[0].startswith("line 58:")


def test_files_of_something_else(tmp_path):
    with pytest.raises(DataError, match=r"x: line 1: 'a b' is not x y z r g b; left out; and so are 100 more"):
        text.parse_points(b"a b\n" * 101, "x")
    with pytest.raises(DataError, match="no points in it"):
        text.parse_points(b" \n", "x")
    with pytest.raises(DataError, match=r"absent\.txt: cannot be read"):
        text.read_points(tmp_path / "absent.txt")
    (tmp_path / "large.txt").write_bytes(b"1 " * (1 << 16))
    with pytest.raises(DataError, match=r"large\.txt: more than 64 KiB"):
        text.read_small(tmp_path / "large.txt")


def test_a_few_numbers():
    assert text.parse_numbers(b"1 -2.5\n3e1", "x", (3,), "position").tolist() == [1, -2.5, 30]
    for content, message in ((b"1 2", "x: position: 2 numbers, expected 3"), (b"1 2 nan", "not finite")):
        with pytest.raises(DataError, match=message):
            text.parse_numbers(content, "x", (3,), "position")
    with pytest.raises(DataError, match="x: position: could not convert"):
        text.parse_numbers(b"1 \xff 3", "x", (3,), "position")


SEEDS = [
    b"1.250 -2.500 0.125 10 20 30\n" * 5,
    DAMAGED,
    b"0.577500 -12.407500 2.604000 167.000000 175.000000 177.000000",
]


def test_mutated_texts(fuzz):
    fuzz(lambda data: text.parse_points(data, "x"), SEEDS)
    fuzz(lambda data: text.parse_numbers(data, "x", (18,), "numbers"), [b"1.5 -2 3\n" * 6])


@pytest.mark.slow
def test_many_mutated_texts(fuzz):
    fuzz(lambda data: text.parse_points(data, "x"), SEEDS, 4000)
    fuzz(lambda data: text.parse_numbers(data, "x", (18,), "numbers"), [b"1.5 -2 3\n" * 6], 2000)
