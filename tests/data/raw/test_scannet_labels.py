import io
import json
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.scannet_labels import LabelImages, label_points, read_categories, read_groups, read_segments

TABLE = (
    "id\traw_category\tcategory\tnyu40id\n1\twall\twall\t1\n22\tbook\tbook\t23\n22\tbooks\tbook\t23\n5\tdoor\tdoor\t8"
)
SEGS = {"segIndices": [7, 7, 3, 900000, 3, 12]}
GROUPS = {
    "segGroups": [
        {"id": 5, "objectId": 0, "segments": [7, 12], "label": "wall"},
        {"id": 6, "objectId": 4, "segments": [900000, 55], "label": "books"},
    ]
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "table.tsv").write_text(TABLE)
    (tmp_path / "segs.json").write_text(json.dumps(SEGS))
    (tmp_path / "agg.json").write_text(json.dumps(GROUPS))
    return tmp_path


def label(files, num: int = 6):
    categories = read_categories(files / "table.tsv")
    return label_points("scene0000_00", files / "segs.json", files / "agg.json", categories, num)


def test_segments_of_objects_become_labels(files):
    labels, instances, problems = label(files)
    assert labels.tolist() == [1, 1, 0, 22, 0, 1] and labels.dtype == np.int32
    assert instances.tolist() == [0, 0, -1, 4, -1, 0] and instances.dtype == np.int32
    assert problems == ()


def test_a_category_outside_the_table_is_listed(files):
    unknown = {"objectId": 9, "segments": [3], "label": "flux capacitor"}
    (files / "agg.json").write_text(json.dumps({"segGroups": [*GROUPS["segGroups"], unknown]}))
    labels, instances, (problem,) = label(files)
    assert labels.tolist() == [1, 1, 0, 22, 0, 1] and instances.tolist() == [0, 0, -1, 4, -1, 0]
    assert (problem.scene, problem.kind) == ("scene0000_00", "label")
    assert "agg.json: object 9 is a 'flux capacitor'" in problem.what and "table.tsv" in problem.what


def test_the_table(files):
    categories = read_categories(files / "table.tsv")
    assert categories.id_of == {"wall": 1, "book": 22, "books": 22, "door": 5}
    assert categories.nyu40_of == {1: 1, 22: 23, 5: 8} and categories.table_id_of == {}


OFFICIAL = """id raw_category category count nyu40id eigen13id nyuClass
188 shower_door x 1 8 12 door
188 shower_doors x 1 38 7 otherstructure
385 cabinet_door x 1 8 12 door
385 cabinet_doors x 1 3 6 cabinet
385 cabinet_doorsopen x 1 3 6 cabinet
107 pipe x 1 40 7 otherprop
107 pipes x 1 38 7 otherstructure
10001 nothing x 1 40 7 otherprop
"""


def test_names_that_differ_from_others_of_their_id(files):
    (files / "table.tsv").write_text(
        OFFICIAL.replace(" ", "\t").replace("_", " ").replace("raw category", "raw_category")
    )
    found = read_categories(files / "table.tsv")
    # (107, 38), (188, 38), (385, 3) have 10000, 10002 and 10003: 10001 is the table's.
    assert found.id_of == {
        **{"shower door": 188, "shower doors": 10002, "pipe": 107, "pipes": 10000, "nothing": 10001},
        **{"cabinet door": 385, "cabinet doors": 10003, "cabinet doorsopen": 10003},
    }
    assert found.nyu40_of == {188: 8, 385: 8, 107: 40, 10001: 40, 10000: 38, 10002: 38, 10003: 3}
    assert found.table_id_of == {10000: 107, 10002: 188, 10003: 385}


def test_a_table_without_tabs_at_the_ends_of_lines(files):
    text = OFFICIAL.replace(" ", "\t")
    (files / "table.tsv").write_text(text + "9\tfurnace\tx\t1\t40\n")
    assert read_categories(files / "table.tsv").id_of["furnace"] == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line: no column raw_category"),
        (TABLE.replace("nyu40id", "nyu"), "first line: no column nyu40id"),
        (TABLE.replace("5\tdoor\tdoor\t8", "5\tdoor"), "line 5: 2 cells; raw_category, id, nyu40id need 4"),
        (TABLE.replace("5\tdoor", "x\tdoor"), "line 5: id is 'x'"),
        (TABLE.replace("5\tdoor", "65536\tdoor"), "line 5: id is '65536', no whole number below 65536"),
        (TABLE.replace("door\t8", "door\t-8"), "line 5: nyu40id is '-8'"),
        (TABLE.splitlines()[0], "no categories"),
    ],
)
def test_a_table_that_is_none(files, text, message):
    (files / "table.tsv").write_text(text)
    with pytest.raises(DataError, match=f"table.tsv: {message}"):
        read_categories(files / "table.tsv")
    with pytest.raises(DataError, match="no such file"):
        read_categories(files / "absent.tsv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("segs.json", "[1, 2", "cannot be read as JSON"),
        ("segs.json", "[" * 100_000, "cannot be read as JSON"),
        ("segs.json", "[1, 2]", "segIndices: expected a list"),
        ("segs.json", '{"segIndices": [1, 2.5]}', "segIndices: expected a list of whole numbers"),
        ("segs.json", '{"segIndices": [1, 2]}', "segIndices: 2 entries for 6 vertices"),
        ("agg.json", '{"segGroups": 3}', "segGroups: expected a list"),
        ("agg.json", '{"segGroups": [3]}', r"segGroups\[0\].objectId: None"),
        ("agg.json", '{"segGroups": [{"id": true}]}', r"segGroups\[0\].objectId: True"),
        ("agg.json", '{"segGroups": [{"id": -1}]}', r"segGroups\[0\].objectId: -1"),
        ("agg.json", '{"segGroups": [{"id": 1}]}', r"segGroups\[0\].label"),
        ("agg.json", '{"segGroups": [{"id": 1, "label": "wall"}]}', r"segGroups\[0\].segments"),
        ("agg.json", '{"segGroups": [{"id": 1, "label": "wall", "segments": [77]}]}', "none of its segments is in"),
    ],
)
def test_annotations_that_are_none(files, name, content, message):
    (files / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        label(files)
    assert str(files / name) in str(caught.value)
    (files / name).unlink()
    with pytest.raises(DataError, match=f"{name}: no such file"):
        label(files)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


IDS = np.array([[0, 1163], [22, 5]], dtype=np.uint16)


@pytest.fixture
def scene(tmp_path):
    folder = tmp_path / "scene0000_00"
    folder.mkdir()
    with zipfile.ZipFile(folder / "scene0000_00_2d-label-filt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("label-filt/0.png", png(IDS))
        archive.writestr("label-filt/20.png", png(IDS.T.copy()))
        archive.writestr("label-filt/40.png", b"no image")
    return folder


def test_label_images(scene):
    with LabelImages(scene, "label-filt") as images:
        read = images.read("20")
        assert read is not None and read.tolist() == IDS.T.tolist() and read.dtype == np.int32
        with pytest.raises(DataError, match=r"2d-label-filt.zip: label-filt/30.png: no such member"):
            images.read("30")
        with pytest.raises(DataError, match=r"2d-label-filt.zip: label-filt/40.png: cannot be read as an image"):
            images.read("40")
    with LabelImages(scene, "instance-filt") as images:
        assert images.read("0") is None
    with LabelImages(None, "label-filt") as images:
        assert images.read("0") is None


def test_label_images_that_somebody_unpacked(scene):
    (scene / "instance-filt").mkdir()
    (scene / "instance-filt" / "0.png").write_bytes(png(IDS.astype(np.uint8)))
    with LabelImages(scene, "instance-filt") as images:
        assert np.array_equal(images.read("0"), IDS.astype(np.uint8))
        with pytest.raises(DataError, match="1.png"):
            images.read("1")


@pytest.mark.parametrize("name", ["../0.png", "/label-filt/0.png", "label-filt\\0.png", "label-filt/../../0.png"])
def test_members_that_lead_out(scene, name):
    with zipfile.ZipFile(scene / "scene0000_00_2d-label-filt.zip", "a") as archive:
        archive.writestr(name, png(IDS))
    with pytest.raises(DataError, match="which leads out of it"):
        LabelImages(scene, "label-filt")


def test_no_zip_file_and_a_bomb(scene):
    path = scene / "scene0000_00_2d-label-filt.zip"
    data = path.read_bytes()
    entry = data.rindex(b"label-filt/0.png") - 46
    size = struct.pack("<I", 1 << 30)
    path.write_bytes(data[: entry + 24] + size + data[entry + 28 :])
    with LabelImages(scene, "label-filt") as images, pytest.raises(DataError, match="an image of 1073741824 bytes"):
        images.read("0")
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read from the zip file"):
        LabelImages(scene, "label-filt")


@pytest.fixture
def readers(files, scene):
    """Readers of each kind of file, and a good file for each."""

    def through(name: str, read):
        def run(data: bytes):
            (files / name).write_bytes(data)
            return read(files / name)

        return run, [(files / name).read_bytes()]

    path = scene / "scene0000_00_2d-label-filt.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("label-filt/0.png", png(IDS))
        archive.writestr("label-filt/20.png", png(np.arange(600, dtype=np.uint16).reshape(20, 30)))

    def images(data: bytes):
        path.write_bytes(data)
        with LabelImages(scene, "label-filt") as found:
            return [found.read(frame) for frame in ("0", "20")]

    return [
        (images, [path.read_bytes()]),
        through("table.tsv", read_categories),
        through("segs.json", read_segments),
        through("agg.json", read_groups),
    ]


@pytest.mark.parametrize("kind", range(4))
def test_damaged_files(readers, fuzz, kind):
    assert fuzz(*readers[kind]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", range(4))
def test_many_damaged_files(readers, fuzz, kind):
    assert fuzz(*readers[kind], 2000, key=1) > 400
