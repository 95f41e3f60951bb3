import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.sens import SensFile, write_sens

COLOUR = np.array([[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1.0]])
DEPTH = np.array([[30, 0, 7.5], [0, 31, 5.5], [0, 0, 1.0]])
NAME = 12 + 15
"""Where the fixed part of the header starts: after version, length and 'StructureSensor'."""
HEADER = NAME + 64 * 4 + 2 * 4 + 4 * 4 + 4 + 8


def frame(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(number)
    pose = np.eye(4)
    pose[:3, 3] = number, 2, 3
    rgb = np.broadcast_to(draw.integers(0, 256, 3, dtype=np.uint8), (24, 32, 3))
    return pose, np.ascontiguousarray(rgb), draw.integers(0, 9000, (12, 16)).astype(np.uint16)


@pytest.fixture
def sens(tmp_path):
    def write(num: int = 4, **options):
        path = tmp_path / "a.sens"
        write_sens(path, map(frame, range(num)), COLOUR, DEPTH, **options)
        return path

    return write


def by_hand() -> bytes:
    """One frame of 2x1 pixels, every byte of it from the description of the format."""
    image = io.BytesIO()
    Image.fromarray(np.array([[[10, 20, 30], [40, 50, 60]]], dtype=np.uint8)).save(image, "png")
    depth = zlib.compress(struct.pack("<2H", 1500, 0))
    eye = [1.0 if i % 5 == 0 else 0.0 for i in range(16)]
    parts = [struct.pack("<IQ", 4, 3), b"abc"]
    parts += [struct.pack("<16f", *matrix) for matrix in ([7.0, *eye[1:]], eye, eye, eye)]
    parts += [struct.pack("<ii", 1, 1), struct.pack("<IIII", 2, 1, 2, 1), struct.pack("<f", 1000), struct.pack("<Q", 1)]
    parts += [struct.pack("<16f", *range(16)), struct.pack("<QQ", 11, 12)]
    parts += [struct.pack("<QQ", len(image.getvalue()), len(depth)), image.getvalue(), depth]
    return b"".join([*parts, struct.pack("<Q", 0)])


def test_a_file_made_by_hand(tmp_path):
    (tmp_path / "a.sens").write_bytes(by_hand())
    with SensFile(tmp_path / "a.sens") as file:
        assert (file.header.sensor, file.header.num_frames) == ("abc", 1)
        assert file.header.colour_intrinsics[0, 0] == 7 and file.header.depth_intrinsics[0, 0] == 1
        assert file.pose(0).tolist() == np.arange(16.0).reshape(4, 4).tolist()
        assert file.colour(0).tolist() == [[[10, 20, 30], [40, 50, 60]]]
        np.testing.assert_array_equal(file.depth(0), np.array([[1.5, 0]], dtype=np.float32))


@pytest.mark.parametrize("colour", ["jpeg", "png", "raw"])
@pytest.mark.parametrize("depth", ["zlib_ushort", "raw_ushort"])
def test_what_is_written_is_read_in_any_order(sens, colour, depth):
    with SensFile(sens(colour_type=colour, depth_type=depth)) as file:
        assert file.header.colour_size == (24, 32) and file.header.depth_size == (12, 16) and file.most_frames >= 4
        np.testing.assert_allclose(file.header.colour_intrinsics, COLOUR)
        np.testing.assert_allclose(file.header.depth_intrinsics, DEPTH)
        for number in (3, 0, 2, 1):
            pose, rgb, units = frame(number)
            np.testing.assert_array_equal(file.pose(number), pose)
            np.testing.assert_array_equal(file.depth(number), (units / 1000).astype(np.float32))
            assert np.abs(file.colour(number).astype(int) - rgb).max() <= (3 if colour == "jpeg" else 0)


def test_whole_frames_of_a_truncated_file_stay_usable(sens):
    path = sens()
    path.write_bytes(path.read_bytes()[:-10])
    with SensFile(path) as file:
        for number in range(3):
            file.pose(number), file.colour(number), file.depth(number)
        for read in (file.pose, file.colour, file.depth):
            with pytest.raises(DataError, match=r"a\.sens: frame 3: the file is cut off within frame 3"):
                read(3)
    path.write_bytes(path.read_bytes()[: HEADER + 50])
    with SensFile(path) as file, pytest.raises(DataError, match="frame 2: the file ends after 0 of 4"):
        file.pose(2)


def patched(path, at: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("at", "data", "message"),
    [
        (0, struct.pack("<I", 5), "version 4: it says version 5"),
        (4, struct.pack("<Q", 1 << 50), "sensor name of 1125899906842624"),
        (NAME, struct.pack("<f", -1), "intrinsics of colour"),
        (NAME + 128, struct.pack("<f", np.nan), "intrinsics of depth"),
        (NAME + 256, struct.pack("<i", 7), "compression 7 of colour"),
        (NAME + 260, struct.pack("<i", -1), "compression -1 of depth"),
        (NAME + 260, struct.pack("<i", 2), "occi_ushort, which is not read"),
        (NAME + 264, struct.pack("<I", 1 << 31), "colour of 2147483648 pixels a side"),
        (NAME + 276, struct.pack("<I", 0), "depth of 0 pixels a side"),
        (NAME + 280, struct.pack("<f", 0), "0.0 depth units"),
    ],
)
def test_damaged_headers(sens, at, data, message):
    path = sens()
    patched(path, at, data)
    with pytest.raises(DataError, match=message) as caught:
        SensFile(path)
    assert str(caught.value).startswith(f"{path}: header: ")


def test_no_file_and_nothing_in_it(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        SensFile(tmp_path / "b.sens")
    for size in (0, 11, 100):
        (tmp_path / "b.sens").write_bytes(struct.pack("<IQ", 4, 15)[:size] + bytes(max(0, size - 12)))
        with pytest.raises(DataError, match="header"):
            SensFile(tmp_path / "b.sens")
    with pytest.raises(ValueError, match="no frames"):
        write_sens(tmp_path / "c.sens", [], COLOUR, DEPTH)
    assert [p.name for p in tmp_path.iterdir()] == ["b.sens"]


def test_sizes_are_checked_before_reading(sens):
    path = sens()
    patched(path, HEADER + 80, struct.pack("<Q", 1 << 40))
    with SensFile(path) as file, pytest.raises(DataError, match="1099511627776 bytes of colour in frame 0"):
        file.pose(1)


def test_a_bomb_of_depth_is_not_unpacked(tmp_path):
    """64 MB of zeros in 64 KB, where 2x1 pixels are promised."""
    good = by_hand()
    depth = zlib.compress(struct.pack("<2H", 1500, 0))
    bomb = zlib.compress(bytes(60 << 20), 9)
    start = good.index(depth)
    sizes = good[:start].rindex(struct.pack("<Q", len(depth)))
    data = good[:sizes] + struct.pack("<Q", len(bomb)) + good[sizes + 8 : start] + bomb
    (tmp_path / "a.sens").write_bytes(data)
    with SensFile(tmp_path / "a.sens") as file, pytest.raises(DataError, match="depth of frame 0: not the 4 bytes"):
        file.depth(0)


def test_images_that_are_not_what_the_header_says(sens):
    path = sens(colour_type="png")
    patched(path, NAME + 264, struct.pack("<I", 33))
    patched(path, NAME + 272, struct.pack("<I", 17))
    with SensFile(path) as file:
        with pytest.raises(DataError, match="colour of frame 1: an image of 32x24; the header says 33x24"):
            file.colour(1)
        with pytest.raises(DataError, match="depth of frame 1: not the 408 bytes of 17x12"):
            file.depth(1)
    patched(path, NAME + 256, struct.pack("<i", 0))
    with SensFile(path) as file, pytest.raises(DataError, match="colour of frame 0: .* bytes for 33x24"):
        file.colour(0)


@pytest.fixture
def read_all(tmp_path):
    def read(data: bytes) -> int:
        path = tmp_path / "mutated.sens"
        path.write_bytes(data)
        with SensFile(path) as file:
            for number in range(min(file.most_frames, 5)):
                file.pose(number), file.colour(number), file.depth(number)
            return file.most_frames

    return read


@pytest.fixture
def seeds(sens) -> list[bytes]:
    kinds = [("jpeg", "zlib_ushort"), ("png", "raw_ushort"), ("raw", "zlib_ushort")]
    return [by_hand()[:-8], *(sens(num=3, colour_type=c, depth_type=d).read_bytes() for c, d in kinds)]


def test_damaged_files(read_all, seeds, fuzz):
    assert fuzz(read_all, seeds) > 20


@pytest.mark.slow
def test_many_damaged_files(read_all, seeds, fuzz):
    assert fuzz(read_all, seeds, 2000, key=1) > 800
