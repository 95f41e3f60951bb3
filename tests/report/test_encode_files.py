"""Features of files: rows, frames of reference, pictures, and what is refused."""

import shutil

import numpy as np
import pytest
import torch

import ponder3d
from ponder3d.data.dataset import DataError
from ponder3d.data.raw.example_room import COLOURS, ExampleRoom
from ponder3d.data.raw.folder import FolderConfig
from ponder3d.data.raw.las import write_las
from ponder3d.data.raw.ply import read_ply
from ponder3d.data.raw.rgbd import write_sequence
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.report.encode_files import encode_files

CONFIG = SparseUNetConfig(
    inputs=("rgb", "normal", "one"), grid_size=0.2, stem_channels=3, channels=(4, 5), blocks=(1, 1)
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    ponder3d.save(CONFIG.build(), path, card={"modality_dropout": ["rgb", "normal"]})
    return path


XYZ, SURFACE = ExampleRoom().points()
RGB = COLOURS[SURFACE]


def test_rows_are_those_of_the_file(tmp_path, encoder):
    np.savez(tmp_path / "room.npz", xyz=XYZ, rgb=RGB, normal=np.tile([0, 0, 1.0], (len(XYZ), 1)))
    npz, ply = encode_files(encoder, [tmp_path / "room.npz"], tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["room.npz", "room.ply"] == [npz.name, ply.name]
    found = np.load(npz)
    assert np.array_equal(found["xyz"], XYZ) and np.array_equal(found["rgb"], RGB)
    normal = np.tile(np.float32([0, 0, 1]), (len(XYZ), 1))
    expected = ponder3d.load(encoder).encode(XYZ, rgb=RGB, normal=normal).numpy()
    assert found["features"].dtype == np.float32 and np.array_equal(found["features"], expected)
    vertices = read_ply(ply).columns("x", "y", "z")
    np.testing.assert_allclose(vertices, XYZ, atol=1e-6)
    colours = read_ply(ply).columns("red", "green", "blue")
    assert len(np.unique(colours, axis=0)) > 20 and colours.max() > 200 and colours.min() < 50
    encode_files(encoder, [tmp_path / "room.npz"], tmp_path / "half", normals=False, half=True)
    half = np.load(tmp_path / "half" / "room.npz")["features"]
    assert half.dtype == np.float16
    without = ponder3d.load(encoder).encode(XYZ, rgb=RGB).numpy()
    np.testing.assert_allclose(half, without, atol=2e-3)
    assert np.abs(without - expected).max() > 0.01, "normals make a difference"


def test_up_and_units_are_the_encoders_alone(tmp_path, encoder):
    """Features of a room in centimetres with y up are those of the room; its coordinates stay what they were."""
    world = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    normal = np.tile([0.0, 0.6, 0.8], (len(XYZ), 1))
    # Coordinates in the middle between the borders of voxels: rounding of the turn must not decide.
    xyz = np.floor(XYZ * 10) / 10 + 0.05
    np.savez(tmp_path / "a.npz", xyz=xyz, normal=normal)
    np.savez(tmp_path / "b.npz", xyz=xyz @ world.T * 100, normal=normal @ world.T)
    one = np.load(encode_files(encoder, [tmp_path / "a.npz"], tmp_path / "out")[0])
    two = np.load(
        encode_files(encoder, [tmp_path / "b.npz"], tmp_path / "out", up=(0.0, 1.0, 0.0), metres_per_unit=0.01)[0]
    )
    assert np.array_equal(two["xyz"], xyz @ world.T * 100)
    assert (np.abs(two["features"] - one["features"]).max(1) < 1e-4).mean() > 0.99


def test_map_coordinates_keep_their_digits(tmp_path, encoder):
    far = XYZ + [512_345.0, 5_400_321.0, 120.0]
    write_las(tmp_path / "field.las", far / 100, RGB, SURFACE)  # the writer's range ends at 2147 km
    np.save(tmp_path / "map.npy", far)
    npz, ply = encode_files(encoder, [tmp_path / "map.npy"], tmp_path / "out")
    assert np.array_equal(np.load(npz)["xyz"], far) and "rgb" not in np.load(npz)
    np.testing.assert_allclose(read_ply(ply).columns("x", "y", "z"), XYZ + [345, 321, 120], atol=1e-3)
    assert len(encode_files(encoder, [tmp_path / "field.las"], tmp_path / "out")) == 2


def test_directories(tmp_path, encoder, capsys):
    FolderConfig.write_example(tmp_path / "data")
    files = encode_files(encoder, [tmp_path / "data"], tmp_path / "out")
    names = ["attic", "barn", "cellar", "hall", "shed"]
    assert [path.name for path in files] == [f"{name}.{ending}" for name in names for ending in ("npz", "ply")]
    assert "encode 5/5" in capsys.readouterr().err
    fused = np.load(tmp_path / "out" / "attic.npz")
    assert len(fused["features"]) == len(fused["xyz"]) == len(fused["rgb"]) > 1000
    assert np.quantile(ExampleRoom(half_width=2.2).distance(fused["xyz"]), 0.98) < 0.01
    hall = np.load(tmp_path / "out" / "hall.npz")
    np.testing.assert_allclose(hall["xyz"], XYZ, atol=1e-6)
    write_sequence(tmp_path / "walk", ExampleRoom(), "seven-scenes")
    (npz, _) = encode_files(encoder, [tmp_path / "walk"], tmp_path / "out", quiet=True)
    assert npz.name == "walk.npz" and len(np.load(npz)["features"]) > 1000


def test_a_skip_list_is_honoured(tmp_path, encoder):
    room = ExampleRoom(num_frames=2)
    for name in ("one", "two"):
        write_sequence(tmp_path / "walks" / name, room, "scannet")
    skips = tmp_path / "walks" / "skip.tsv"
    skips.write_text("one\t\tframe: blurred\ntwo\t10\tpose: wrong\n")
    npz, _ = encode_files(encoder, [tmp_path / "walks"], tmp_path / "out")
    assert npz.name == "two.npz"
    shutil.rmtree(tmp_path / "walks" / "one")
    for kind in ("color", "depth", "pose", "label", "instance"):  # without the frame, the same
        for path in (tmp_path / "walks" / "two" / kind).glob("10.*"):
            path.unlink()
    skips.unlink()
    same, _ = encode_files(encoder, [tmp_path / "walks"], tmp_path / "same")
    assert np.array_equal(np.load(npz)["xyz"], np.load(tmp_path / "same" / "two.npz")["xyz"]) and same.name == npz.name
    skips.write_text("two\t0\tx: y\n")
    with pytest.raises(DataError, match=r"two: .*skip.tsv leaves out every frame"):
        encode_files(encoder, [tmp_path / "walks"], tmp_path / "none")
    skips.write_text("two\t\tx: y\n")
    with pytest.raises(DataError, match=r"walks: .*skip.tsv leaves out every scene"):
        encode_files(encoder, [tmp_path / "walks"], tmp_path / "none")
    # What could not be opened is no fault if it is left out.
    write_sequence(tmp_path / "walks" / "one", room, "scannet")
    for path in (tmp_path / "walks" / "two" / "pose").iterdir():
        path.write_text("x")
    assert [p.name for p in encode_files(encoder, [tmp_path / "walks"], tmp_path / "left")] == ["one.npz", "one.ply"]
    skips.unlink()
    with pytest.raises(DataError, match="two"):
        encode_files(encoder, [tmp_path / "walks"], tmp_path / "none")


def test_what_is_refused(tmp_path, encoder):
    np.save(tmp_path / "a.npy", XYZ)
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "a.npy", XYZ)
    np.savez(tmp_path / "c.npz", xyz=XYZ)
    with pytest.raises(DataError, match=r"b/a.npy: would be written to a.npz, and so would .*/a.npy; rename"):
        encode_files(encoder, [tmp_path / "a.npy", tmp_path / "b" / "a.npy"], tmp_path / "out")
    with pytest.raises(DataError, match="c.npz: would be written over; choose another directory"):
        encode_files(encoder, [tmp_path / "c.npz"], tmp_path)
    with pytest.raises(DataError, match="nothing to encode"):
        encode_files(encoder, [], tmp_path / "out")
    with pytest.raises(DataError, match="d.ply: no such file"):
        encode_files(encoder, [tmp_path / "d.ply"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no posed RGB-D frames found"):
        encode_files(encoder, [tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(ValueError, match="up must be x y z"):
        encode_files(encoder, [tmp_path / "a.npy"], tmp_path / "out", up=(0.0, 0.0, 0.0))
    with pytest.raises(FileNotFoundError, match="no such file; a run writes it"):
        encode_files(tmp_path / "none", [tmp_path / "a.npy"], tmp_path / "out")
    with pytest.raises(ValueError, match="--device potato: cannot be used here"):
        encode_files(encoder, [tmp_path / "a.npy"], tmp_path / "out", device="potato")
    assert not (tmp_path / "out").exists()


def test_an_encoder_of_colours_needs_them(tmp_path):
    ponder3d.save(
        SparseUNetConfig(inputs=("rgb",), grid_size=0.2, stem_channels=3, channels=(4, 5), blocks=(1, 1)).build(),
        tmp_path / "e.safetensors",
    )
    np.save(tmp_path / "a.npy", XYZ)
    with pytest.raises(DataError, match="a.npy: this encoder reads rgb and got neither"):
        encode_files(tmp_path / "e.safetensors", [tmp_path / "a.npy"], tmp_path / "out")


def test_choices_reach_the_encoder(tmp_path, encoder):
    """In a file with y up and centimetres, the viewpoint is where the file has it."""
    world = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    np.savez(tmp_path / "a.npz", xyz=XYZ @ world.T * 100, rgb=RGB)
    options = {"up": (0.0, 1.0, 0.0), "metres_per_unit": 0.01, "estimate_normals": True, "missing": "error"}
    place = np.array([0.3, 0.2, 50.0])
    files = encode_files(
        encoder, [tmp_path / "a.npz"], tmp_path / "out", viewpoint=(*(world @ place * 100),), **options
    )
    expected = ponder3d.load(encoder).encode(XYZ, rgb=RGB, estimate_normals=True, viewpoint=place)
    other = ponder3d.load(encoder).encode(XYZ, rgb=RGB, estimate_normals=True)
    found = torch.from_numpy(np.load(files[0])["features"])
    assert float(((found - expected).abs().amax(1) < 1e-4).float().mean()) > 0.95
    assert float(((found - other).abs().amax(1) < 1e-4).float().mean()) < 0.9
    with pytest.raises(DataError, match=r"a.npz: encode: this encoder reads normal, which the cloud lacks"):
        encode_files(encoder, [tmp_path / "a.npz"], tmp_path / "out", missing="error")
    with pytest.raises(DataError, match=r"a.npz: encode: condition 'x': this encoder tells no conditions apart"):
        encode_files(encoder, [tmp_path / "a.npz"], tmp_path / "out", condition="x")
    with pytest.raises(ValueError, match="viewpoint must be x y z"):
        encode_files(encoder, [tmp_path / "a.npz"], tmp_path / "out", viewpoint=(1.0, 2.0))


def test_intensities_reach_the_encoder(tmp_path):
    torch.manual_seed(0)
    config = SparseUNetConfig(("xyz", "intensity"), 0.2, 3, channels=(4, 5), blocks=(1, 1))
    ponder3d.save(config.build(), tmp_path / "encoder.safetensors")
    strength = np.arange(len(XYZ), dtype=np.uint16) % 60_000
    np.savez(tmp_path / "room.npz", xyz=XYZ, intensity=strength)
    npz, _ = encode_files(tmp_path / "encoder.safetensors", [tmp_path / "room.npz"], tmp_path / "out", missing="error")
    white = 255 if strength.max() <= 255 else 65535
    expected = ponder3d.load(tmp_path / "encoder.safetensors").encode(XYZ, intensity=strength / white).numpy()
    np.testing.assert_allclose(np.load(npz)["features"], expected, atol=1e-5)
    np.savez(tmp_path / "dark.npz", xyz=XYZ)
    with pytest.raises(DataError, match="dark.npz: encode: this encoder reads intensity, which the cloud lacks"):
        encode_files(tmp_path / "encoder.safetensors", [tmp_path / "dark.npz"], tmp_path / "out", missing="error")
