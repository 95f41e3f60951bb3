"""What is left out, and why."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.dataset import Problem
from ponder3d.data.skip_list import SkipList, parse_skip_list, read_skip_list, skip_list_of, write_skip_list


def test_what_is_written_is_read_back(tmp_path):
    problems = [
        Problem("hall", "000007", "pose", "a/000007.txt: pose is\tnot finite\nat all"),
        Problem("attic", "", "file", "attic.sens: cut short"),
        Problem("hall", "000007", "depth", "empty"),
    ]
    write_skip_list(tmp_path / "new" / "skip.tsv", problems)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["skip.tsv"], "no temporary file is left"
    text = (tmp_path / "new" / "skip.tsv").read_text()
    assert text.split("\n")[1:] == [
        "attic\t\tfile: attic.sens: cut short",
        "hall\t000007\tpose: a/000007.txt: pose is not finite at all; depth: empty",
        "",
    ]
    skip = read_skip_list(tmp_path / "new" / "skip.tsv")
    assert skip.scene("attic") == "file: attic.sens: cut short" and skip.scene("hall") is None
    assert skip.frame("attic", "3") == skip.scene("attic"), "a frame goes with its scene"
    assert skip.frame("hall", "7") == skip.frame("hall", "000007") and "depth: empty" in str(skip.frame("hall", "7"))
    assert skip.frame("hall", "70") is None and skip.frame("cellar", "7") is None
    assert skip.strangers(["hall", "cellar"]) == ("attic",)


def test_entries_made_before_are_kept(tmp_path):
    keep = parse_skip_list("hall 7\nhall 8\n", "skip.lst")
    write_skip_list(tmp_path / "skip.tsv", [Problem("hall", "0008", "pose", "not finite")], keep)
    assert read_skip_list(tmp_path / "skip.tsv").entries == {
        ("hall", "7"): "listed without a reason",
        ("hall", "8"): "pose: not finite",
    }


def test_lists_of_words():
    skip = parse_skip_list("# by hand\n\nscene0000_00 000100\r\nscene0001_00\nscene0002_00\t\t\n", "skip.lst")
    assert skip.frame("scene0000_00", "100") == "listed without a reason" and skip.scene("scene0000_00") is None
    assert skip.scene("scene0001_00") and skip.scene("scene0002_00")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hall 7\nhall 7 is bad\n", "skip.lst: line 2 has 4 words"),
        ("hall 7\n\n../etc\t7\tx\n", r"skip.lst: line 3: '../etc' is no name of a scene"),
        ("\t7\treason\n", "line 1: '' is no name"),
    ],
)
def test_lines_that_are_no_entries(text, complaint):
    with pytest.raises(DataError, match=complaint):
        parse_skip_list(text, "skip.lst")


def test_files_that_are_no_lists(tmp_path):
    with pytest.raises(DataError, match="absent.tsv: cannot be read"):
        read_skip_list(tmp_path / "absent.tsv")
    with pytest.raises(DataError, match="cannot be read"):
        read_skip_list(tmp_path)
    (tmp_path / "skip.tsv").write_bytes(b"\xff\xfe\x00hall")
    with pytest.raises(DataError, match="skip.tsv: not a text"):
        read_skip_list(tmp_path / "skip.tsv")
    with pytest.raises(DataError, match="skip.tsv: not a text"):
        skip_list_of(tmp_path)


def test_which_list_holds(tmp_path):
    assert skip_list_of(tmp_path) == SkipList()
    (tmp_path / "skip.tsv").write_text("hall 7\n")
    (tmp_path / "other.lst").write_text("hall 8\n")
    assert skip_list_of(tmp_path).frame("hall", "7") and not skip_list_of(tmp_path).frame("hall", "8")
    other = skip_list_of(tmp_path, str(tmp_path / "other.lst"))
    assert other.frame("hall", "8") and not other.frame("hall", "7")


ODD = st.text(st.sampled_from("ab07_-#. \t\n\r\x0b\x1c\x85\u2028\ud800\xe9\0"), max_size=6)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(ODD, ODD, ODD, ODD), max_size=5), st.booleans())
def test_what_is_written_is_read_whatever_the_names(tmp_path_factory, rows, listed):
    path = tmp_path_factory.getbasetemp() / "odd.tsv"
    problems = [Problem(*row) for row in rows]
    write_skip_list(path, [*problems, Problem("hall", "7", "pose", "not finite")], SkipList({("a b", "\t"): "x"}))
    skip = read_skip_list(path)
    assert skip.entries == parse_skip_list(path.read_bytes().decode(), "").entries
    assert skip.frame("hall", "007") == "pose: not finite"
    for problem in problems:
        fits = re.fullmatch("[A-Za-z0-9_-]+", problem.scene) and problem.frame.strip() == problem.frame
        if fits and not set(problem.frame) & set("\t\n\r\ud800"):
            assert skip.frame(problem.scene, problem.frame) is not None
    assert {scene for scene, _ in skip.entries} <= {"hall", *(problem.scene for problem in problems)}


def test_what_cannot_be_listed_is_a_comment(tmp_path):
    problems = [
        Problem("my hall", "", "file", "empty"),
        Problem("hall", "a\tb", "pose", "x\ny"),
        Problem("hall\n", "", "a", ""),
    ]
    write_skip_list(tmp_path / "skip.tsv", problems)
    assert (tmp_path / "skip.tsv").read_text().split("\n")[1:] == [
        "# not listed, for its name: 'hall' 'a\\tb': pose: x y",
        "# not listed, for its name: 'hall\\n' '': a:",
        "# not listed, for its name: 'my hall' '': file: empty",
        "",
    ]
    assert read_skip_list(tmp_path / "skip.tsv").entries == {}
