"""The doctor's page, table and skip list."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.example_room import ExampleRoom
from ponder3d.data.raw.rgbd import write_sequence
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.data.skip_list import read_skip_list
from ponder3d.report.doctor_page import doctor, summary_line, summary_table


@pytest.fixture
def house(tmp_path) -> Path:
    """A labelled sequence of eight frames, one of them black."""
    write_sequence(tmp_path / "house" / "hall", ExampleRoom(), "scannet")
    Image.fromarray(np.zeros((24, 32, 3), dtype=np.uint8)).save(tmp_path / "house" / "hall" / "color" / "30.png")
    return tmp_path / "house"


def test_page_table_and_skip_list(house, tmp_path):
    examination, page = doctor(str(house), out=str(tmp_path / "out"))
    text = page.read_text()
    assert page == tmp_path / "out" / "index.html" and "the image is black" in text
    assert len(re.findall("data:image/png", text)) == 4 + 1 + 6, (
        "two frames with depth, the view from above, and three usable frames with depth"
    )
    assert "share of labelled points or pixels" in text and ">floor</text>" in text and "showCloud(" in text
    assert not re.search(r"(src|href)=.(http|/)", text), "nothing is fetched from elsewhere"
    table = summary_table(examination)
    assert re.search(r"^hall +train +8 +8 +7 +100.0% ", table, re.MULTILINE)
    assert "unusable: hall/30: colour: the image is black" in table and table.endswith(summary_line(examination))
    assert summary_line(examination) == (
        "1 scenes, 8 of 8 frames looked at: 1 findings that make something unusable (in the skip list), 0 that are "
        "suspect."
    )
    assert read_skip_list(tmp_path / "out" / "skip.tsv").frame("hall", "30") == "colour: the image is black"
    assert not (house / "skip.tsv").exists()


def test_readers_leave_out_what_the_doctor_named(house, tmp_path):
    (house / "skip.tsv").write_text("hall\t70\tby hand: it is blurred\n")
    doctor(str(house), out=str(tmp_path / "out"), apply=True)
    data = RGBDFolderConfig(root=str(house), window=0, hold_out=0).build()
    assert data[0].views is not None and data[0].views.names == ("0", "10", "20", "40", "50", "60")
    assert [line.split(": ", 2)[2] for line in data.skipped] == ["colour: the image is black", "by hand: it is blurred"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"frames": -1}, "frames must be at least 0"),
        ({"data": "https://host/scenes", "apply": True}, "no directory to write skip.tsv into"),
        ({"data": "absent"}, "absent: no such directory"),
    ],
)
def test_what_cannot_be_examined(tmp_path, options, complaint):
    with pytest.raises(DataError, match=complaint):
        doctor(**{"data": str(tmp_path), "out": str(tmp_path / "out"), **options})


def test_nothing_wrong(tmp_path):
    write_sequence(tmp_path / "hall", ExampleRoom(), "hololens")
    examination, page = doctor(str(tmp_path / "hall"), out=str(tmp_path / "out"))
    assert summary_line(examination).endswith("8 of 8 frames looked at: nothing wrong was found.")
    text = page.read_text()
    assert "Findings" not in text and len(re.findall("data:image/png", text)) == 1 + 6
    assert len(examination.scenes[0].views) == 3
