"""The page of a comparison: whose lines have which colour, and what it says of methods that are told more."""

import re
from dataclasses import asdict, replace

import pytest

from ponder3d.config import to_json
from ponder3d.engine.comparison_table import RESULTS, Row
from ponder3d.engine.evaluate import write_json
from ponder3d.recipes import smoke
from ponder3d.recipes.compare_config import CompareConfig
from ponder3d.report.compare_page import write_compare_page
from ponder3d.report.svg import line_colours

METHODS = ("scratch", "failing", "better")
MEANS = {"scratch": 10.0, "failing": 20.0, "better": 25.0}


@pytest.fixture
def page(tmp_path):
    def make(rows: list[Row]) -> str:
        record = {
            "config": to_json(CompareConfig(methods=",".join(METHODS), labels="10%,100%")),
            "target": "smoke.semseg",
            "experiment": to_json(smoke.semseg()),
            "chosen": [],
            "steps": {},
            "convergence": {},
            "twin": True,
            "withheld": 1,
            "other_data": [],
            "against": "better",
            "rows": [asdict(row) for row in rows],
        }
        write_json(tmp_path / RESULTS, record)
        return write_compare_page(tmp_path).read_text()

    return make


def a_row(method: str, labels: str, steps: int, mean: float | None) -> Row:
    pretrained = 0 if method == "scratch" else 5
    return Row("finetune", method, labels, pretrained, steps, mean, 0.0, None, None, 1.0, 4, 2)


def test_a_line_has_its_methods_colour_wherever_another_has_failed(page) -> None:
    rows = [
        a_row(method, labels, steps, None if (method, labels) == ("failing", "10%") else MEANS[method] + steps)
        for labels in ("10%", "100%")
        for steps in (1, 2)
        for method in METHODS
    ]
    text = page(rows)
    colours = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in line_colours(METHODS)}
    charts = {re.findall(r'aria-label="([^"]*)"', svg)[0]: svg for svg in re.findall(r"<svg.*?</svg>", text, re.S)}
    for title, drawn in (
        ("10% labelled: against fine-tuning", ("scratch", "better")),
        ("100% labelled: against fine-tuning", METHODS),
    ):
        lines = re.findall(r'<polyline[^>]*points="([^"]*)"[^>]*stroke="([^"]*)"', charts[title])
        heights = {colour: -float(points.split()[0].split(",")[1]) for points, colour in lines}
        assert sorted(heights, key=heights.__getitem__) == [colours[name] for name in drawn]


def test_what_came_as_a_file_is_told(page) -> None:
    rows = [a_row("scratch", "10%", 1, 10.0), a_row("better", "10%", 1, 20.0)]
    assert "(file)" not in page(rows)
    text = page([rows[0], replace(rows[1], file=True)])
    assert "better (file)" in text and "Those marked (file) were pre-trained elsewhere" in text


def test_the_others_are_set_against_a_method(page) -> None:
    scratch, better, other = (a_row(method, "10%", 1, 10.0) for method in ("scratch", "better", "failing"))
    assert "against better" not in page([scratch, better])
    text = page([scratch, better, replace(other, difference=-1.25, difference_spread=0.5)])
    assert "<th>against better</th>" in text and "<td>-1.2 +- 0.5</td>" in text
    chart = next(svg for svg in re.findall(r"<svg.*?</svg>", text, re.S) if "against better, seed by seed" in svg)
    assert ">failing<" in chart and ">scratch<" not in chart and "stroke-dasharray" in chart
