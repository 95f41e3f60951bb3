"""The tables and the progress line."""

from pathlib import Path

import pytest

from ponder3d.engine.log import Progress, SkippedFrames, TableLog, TensorBoard, read_table


def filled(path: Path, steps: range) -> TableLog:
    table = TableLog(path, 0)
    for step in steps:
        table.write(step, {"loss": step / 4})
    return table


def test_what_is_written_is_read(tmp_path):
    filled(tmp_path / "t.csv", range(1, 4))
    assert (tmp_path / "t.csv").read_text().splitlines() == ["step,loss", "1,0.25", "2,0.5", "3,0.75"]
    assert read_table(tmp_path / "t.csv")[2] == {"step": "3", "loss": "0.75"}


def test_skipped_frames_are_listed_once_whoever_finds_them(tmp_path, capsys):
    path = tmp_path / "skipped-frames.txt"
    first, other = SkippedFrames(path, shown=2), SkippedFrames(path, shown=2)
    first.add(())
    assert not path.exists() and capsys.readouterr().err == ""
    first.add(["a: bad", "b: bad", "a: bad", "c: bad"])
    assert capsys.readouterr().err.splitlines() == [
        f"ponder3d: 3 frame(s) cannot be used and are left out; all are listed in {path}",
        "  a: bad",
        "  b: bad",
        "  and 1 more",
    ]
    first.add(["b: bad"])
    assert capsys.readouterr().err == ""
    other.add(["b: bad", "d: bad"])  # another process, or the same run continued: said again, listed once
    assert capsys.readouterr().err.splitlines()[1:] == ["  b: bad", "  d: bad"]
    assert path.read_text().splitlines() == ["a: bad", "b: bad", "c: bad", "d: bad"]


def test_on_resume_the_table_is_cut_back_to_the_position(tmp_path):
    filled(tmp_path / "t.csv", range(1, 8))
    table = TableLog(tmp_path / "t.csv", 4)
    assert [row["step"] for row in read_table(tmp_path / "t.csv")] == ["1", "2", "3", "4"]
    table.write(5, {"loss": 9.0})
    assert (tmp_path / "t.csv").read_text().splitlines()[-2:] == ["4,1", "5,9"]


def test_a_step_that_is_written_again_replaces_its_row(tmp_path):
    # A run that was killed after its last evaluation, or before its first checkpoint, evaluates once more.
    filled(tmp_path / "t.csv", range(1, 4))
    table = TableLog(tmp_path / "t.csv", 3)
    table.write(3, {"loss": 7.0})
    table.write(4, {"loss": 8.0})
    assert (tmp_path / "t.csv").read_text().splitlines() == ["step,loss", "1,0.25", "2,0.5", "3,7", "4,8"]


def test_a_new_figure_adds_a_column(tmp_path):
    table = filled(tmp_path / "t.csv", range(1, 3))
    table.write(3, {"loss": 1.0, "psnr": 20.0})
    table.write(4, {"psnr": 21.0})
    lines = ["step,loss,psnr", "1,0.25,", "2,0.5,", "3,1,20", "4,,21"]
    assert (tmp_path / "t.csv").read_text().splitlines() == lines
    assert TableLog(tmp_path / "t.csv", 4) and (tmp_path / "t.csv").read_text().splitlines() == lines


@pytest.mark.parametrize("rest", ["", "3", "3,", "\x00", "step,loss", "3,1,2,3"])
def test_a_row_that_a_kill_cut_short_is_left_out(tmp_path, rest):
    table = filled(tmp_path / "t.csv", range(1, 3))
    table.write(3, {"loss": 1.0, "psnr": 20.0})
    path = tmp_path / "t.csv"
    path.write_text("step,loss,psnr\n1,0.25,5\n2,0.5,5\n" + rest)
    assert [row["step"] for row in read_table(path)] == ["1", "2"]


def test_no_temporary_file_stays(tmp_path):
    filled(tmp_path / "t.csv", range(1, 3)).write(3, {"new": 1.0})
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.csv"]


def test_tensorboard_gets_the_scalars(tmp_path):
    pytest.importorskip("tensorboardX")
    board = TensorBoard(tmp_path, 0)
    board.write(1, {"loss": 2.0}, "train")
    board.close()
    (events,) = tmp_path.iterdir()
    assert b"train/loss" in events.read_bytes()


@pytest.mark.parametrize(("position", "first_to_go"), [(0, 0), (4, 5)])
def test_tensorboard_keeps_what_there_is_of_the_step_that_a_run_goes_on_from(
    tmp_path, monkeypatch, position, first_to_go
):
    """TensorBoard forgets steps from ``purge_step`` on."""
    tensorboardx = pytest.importorskip("tensorboardX")
    asked = []
    monkeypatch.setattr(tensorboardx, "SummaryWriter", lambda folder, purge_step: asked.append(purge_step))
    TensorBoard(tmp_path, position)
    assert asked == [first_to_go]


@pytest.mark.parametrize("quiet", [False, True])
def test_without_tensorboard_it_says_so_once(tmp_path, monkeypatch, capsys, quiet):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    board = TensorBoard(tmp_path / "events", 0, quiet)
    board.write(1, {"loss": 2.0}, "train")
    board.close()
    assert capsys.readouterr().err.count("pip install tensorboardX") == (0 if quiet else 1)
    assert not (tmp_path / "events").exists()


def test_the_progress_line_says_where_the_work_is(capsys):
    Progress(10, label="ponder").show(10, {"loss": 0.5}, "3.0 scenes/s")
    assert capsys.readouterr().err == "ponder 10/10  loss 0.5  3.0 scenes/s  0:00 left 0:00\n"


def test_a_quiet_progress_line_says_nothing(capsys):
    progress = Progress(10, quiet=True)
    progress.show(10, {}, force=True)
    progress.close()
    assert capsys.readouterr().err == ""
