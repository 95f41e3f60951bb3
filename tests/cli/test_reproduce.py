"""``ponder3d reproduce``: rows are the documented ones, and a figure is inside its band or outside."""

from pathlib import Path

import pytest

from ponder3d.cli import main
from ponder3d.cli.reproduce import reproduce
from ponder3d.engine.evaluate import write_json
from ponder3d.recipes.numbers import NUMBERS

DOCUMENT = Path(__file__).parents[2] / "docs" / "numbers.md"


@pytest.mark.parametrize("name", NUMBERS)
def test_a_row_is_documented(name: str) -> None:
    number = NUMBERS[name]
    line = next(line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    assert line.endswith(f"| {number.value:g} +- {number.band:g} |")
    assert number.command[0] in ("train", "demo", "compare") and ("DATA" in number.command) == bool(number.where)


def test_all_rows_are_listed(capsys) -> None:
    assert main(["reproduce", "list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in NUMBERS) and "--data: PandaSet" in said


def run(psnr: float):
    """Stands for the command line: a training that ends with a figure."""

    def command(arguments: list[str]) -> int:
        assert arguments[:2] == ["train", "smoke.pretrain_indoor_rooms"]
        out = Path(arguments[arguments.index("--out") + 1])
        (out / "validation.csv").write_text(f"step,psnr\n2,1.0\n4,{psnr}\n")
        return 0

    return command


@pytest.mark.parametrize(("off", "code", "said"), [(0.1, 0, "INSIDE"), (-0.5, 1, "OUTSIDE")])
def test_a_figure_is_inside_or_outside(tmp_path, capsys, off: float, code: int, said: str) -> None:
    value = NUMBERS["smoke"].value + off
    assert reproduce(["smoke", "--out", str(tmp_path / "run")], run(value)) == code
    assert f"{value:.4g}, published 11.35 +- 0.3: {said} the band" in capsys.readouterr().out


def test_a_run_that_is_there_goes_on_and_another_is_left_alone(tmp_path) -> None:
    out = tmp_path / "run"

    def first(arguments: list[str]) -> int:
        (out / "checkpoints").mkdir()
        (out / "validation.csv").write_text("step,psnr\n4,11.35\n")
        return 0

    said: list[list[str]] = []
    assert reproduce(["smoke", "--out", str(out)], first) == 0
    assert reproduce(["smoke", "--out", str(out)], lambda words: said.append(words) or 0) == 0
    assert said == [["train", "--resume", str(out)]]
    with pytest.raises(ValueError, match="holds something else, or was run by other code"):
        reproduce(["demo-probe", "--out", str(out)], first)
    with pytest.raises(ValueError, match="holds something else"):
        reproduce(["smoke", "--out", str(tmp_path)], first)


def test_a_command_that_fails_at_once_leaves_its_directory_to_the_next(tmp_path) -> None:
    """A wrong directory of data, then the right one."""
    out = str(tmp_path / "run")
    assert reproduce(["7scenes-depth", "--data", "nowhere", "--out", out], lambda words: 3) == 3
    said: list[list[str]] = []
    assert reproduce(["7scenes-depth", "--data", "DIR", "--out", out], lambda words: said.append(words) or 3) == 3
    assert "DIR" in said[0] and "nowhere" not in said[0]


def test_a_command_that_fails_is_no_figure(tmp_path) -> None:
    assert reproduce(["smoke", "--out", str(tmp_path / "run")], lambda words: 143) == 143


def test_the_demos_gain_is_read_by_way_and_start(tmp_path) -> None:
    gains = (("probe", "random", 0.0), ("probe", "label-free", 9.1), ("finetune", "label-free", 2.9))
    rows = [{"way": way, "start": start, "gain": gain} for way, start, gain in gains]
    write_json(tmp_path / "results.json", {"rows": rows})
    assert NUMBERS["demo-probe"].figure(tmp_path) == 9.1
    assert NUMBERS["demo-finetune"].figure(tmp_path) == 2.9


def test_a_ratio_is_of_the_last_evaluation(tmp_path) -> None:
    (tmp_path / "validation.csv").write_text("step,depth_error,depth_error_median\n1,9,1\n2,1.5,4.5\n")
    assert NUMBERS["pandaset-depth"].figure(tmp_path) == pytest.approx(1 / 3)


def test_recordings_are_asked_for_and_unknown_rows_refused(capsys) -> None:
    assert main(["reproduce", "pandaset-depth"]) == 2
    assert "needs a recording of PandaSet" in capsys.readouterr().err
    assert main(["reproduce", "nothing"]) == 2
    assert "no row 'nothing'; there are smoke, demo-probe" in capsys.readouterr().err


def test_a_gain_of_a_comparison_and_a_cell_that_failed(tmp_path) -> None:
    rows = [{"way": "probe", "method": "small", "gain": 18.5, "failed": ""}]
    rows.append({"way": "levels", "method": "small", "gain": 13.5, "failed": ""})
    write_json(tmp_path / "compare.json", {"rows": rows})
    assert NUMBERS["indoor-small"].figure(tmp_path) == 13.5
    rows[1] |= {"gain": None, "failed": "no memory"}
    write_json(tmp_path / "compare.json", {"rows": rows})
    with pytest.raises(ValueError, match="small was not measured: no memory"):
        NUMBERS["indoor-small"].figure(tmp_path)
