import re
import xml.etree.ElementTree as ET

import pytest

from ponder3d.report.svg import Dot, Series, dot_chart, line_chart, line_colours, round_ticks


@pytest.mark.parametrize(
    ("lo", "hi", "ticks"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (5.3, 11.9, [4, 6, 8, 10, 12]),
        (0.03, 0.11, [0.02, 0.04, 0.06, 0.08, 0.1, 0.12]),
        (-1.0, 1.0, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_cover_the_range(lo, hi, ticks):
    assert round_ticks(lo, hi) == pytest.approx(ticks)


@pytest.mark.parametrize("value", [0.0, 3.0, -2e-7])
def test_a_constant_has_ticks_around_it(value):
    ticks = round_ticks(value, value)
    assert len(ticks) >= 2 and ticks[0] <= value <= ticks[-1]


def test_points_go_where_their_values_are():
    root = ET.fromstring(line_chart("loss", [Series("a", ((0.0, 0.0), (50.0, 10.0), (100.0, 5.0)))], "step", ""))
    (line,) = root.findall("polyline")
    points = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
    xs, ys = zip(*points, strict=True)
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2)
    assert ys[2] == pytest.approx((ys[0] + ys[1]) / 2) and ys[1] < ys[0]  # up is up


def test_what_is_not_finite_is_left_out():
    assert line_chart("x", [Series("a", ((0.0, float("nan")), (1.0, float("inf"))))], "", "") == ""
    drawn = line_chart("x", [Series("a", ((0.0, 1.0), (1.0, float("nan")), (2.0, 3.0)))], "", "")
    assert "nan" not in drawn and len(ET.fromstring(drawn).find("polyline").get("points").split()) == 2


def test_names_are_escaped():
    ET.fromstring(line_chart("a < b & c", [Series("<x>", ((0.0, 1.0),)), Series("y", ((0.0, 1.0),))], "<", "&"))


def test_equal_factors_are_equally_far_apart_on_a_logarithmic_axis():
    drawn = line_chart(
        "x", [Series("a", ((1.0, 1.0), (10.0, 2.0), (100.0, 3.0)), markers=True)], "labels", "%", log_x=True
    )
    across = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn)]
    assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=0.11)
    assert all(f">{tick}</text>" in drawn for tick in ("1", "10", "100"))
    from_nothing = line_chart("x", [Series("a", ((0.0, 1.0), (8.0, 2.0)), markers=True)], "steps", "%", log_x=True)
    assert ">0</text>" in from_nothing and ">8</text>" in from_nothing


def test_whiskers_reach_as_far_as_the_spread():
    drawn = line_chart("x", [Series("a", ((0.0, 0.0), (1.0, 10.0)), markers=True, spreads=(0.0, 5.0))], "x", "y")
    low, high = map(float, re.search(r'd="M[\d.]+ ([\d.]+)V([\d.]+)"', drawn).groups())
    bottom, middle = (float(y) for y in re.findall(r'cy="([\d.]+)"', drawn))
    assert (low - middle, middle - high) == pytest.approx(((bottom - middle) / 2,) * 2, abs=0.11)


def test_a_legend_beside_the_chart_has_the_colours_of_its_lines():
    lines = [Series(name, ((0.0, 0.0), (1.0, 1.0))) for name in ("first", "second")]
    drawn = line_chart("x", lines, "x", "y", legend=False)
    assert "first" not in drawn and "first" in line_chart("x", lines, "x", "y")
    named = line_colours(["first", "second"])
    assert [name for name, _ in named] == ["first", "second"]
    for _, (red, green, blue) in named:
        assert f'stroke="#{red:02x}{green:02x}{blue:02x}"' in drawn


def test_twelve_lines_have_twelve_colours_whatever_is_empty():
    lines = [Series(str(number), ((0.0, 0.0), (1.0, float(number)))) for number in range(12)]
    lines[3] = Series("3", ((0.0, float("nan")),))
    drawn = line_chart("x", lines, "x", "y", legend=False)
    shades = ["#{:02x}{:02x}{:02x}".format(*rgb) for _, rgb in line_colours([line.name for line in lines])]
    assert len(set(shades)) == 12
    strokes = re.findall(r'<polyline [^>]*stroke="([^"]+)"', drawn)
    assert strokes == shades[:3] + shades[4:]
    assert drawn.count("stroke-dasharray") == 4


def test_forty_colours_differ_and_none_is_too_pale_to_see():
    shades = [rgb for _, rgb in line_colours([str(number) for number in range(40)])]
    assert len(set(shades)) == 40
    # Relative luminance (sRGB, gamma 2.2) of 0.65 leaves a contrast of 1.5 with white.
    for rgb in shades:
        red, green, blue = ((part / 255) ** 2.2 for part in rgb)
        assert 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.65


def test_dots_stand_where_their_values_are():
    dots = [Dot("one", 10.0, 5.0), Dot("two", 20.0), Dot("none", float("nan")), Dot("a < b", 40.0)]
    drawn = dot_chart("mIoU", dots, "%", reference=10.0)
    ET.fromstring(drawn)
    assert "nan" not in drawn and "none" not in drawn and "a &lt; b" in drawn
    across = [float(x) for x in re.findall(r'cx="([\d.]+)"', drawn)]
    assert across[2] - across[1] == pytest.approx(2 * (across[1] - across[0]), abs=0.2)
    low, high = map(float, re.search(r'd="M([\d.]+) [\d.]+H([\d.]+)"', drawn).groups())
    assert (across[0] - low, high - across[0]) == pytest.approx(((across[1] - across[0]) / 2,) * 2, abs=0.2)
    assert float(re.search(r'd="M([\d.]+) \d+V', drawn)[1]) == across[0]
    assert dot_chart("mIoU", [Dot("none", float("nan"))], "%") == ""
    for close in ([Dot("one", 26.4), Dot("two", 26.400000000000002)], [Dot("one", 26.4)]):
        ET.fromstring(dot_chart("mIoU", close, "%", reference=float("nan")))
    coloured = dot_chart("mIoU", [Dot("one", 1.0, colour=1), Dot("two", 2.0)], "%")
    shades = ["#{:02x}{:02x}{:02x}".format(*rgb) for _, rgb in line_colours(["first", "second"])]
    assert re.findall(r'r="3.5" fill="([^"]+)"', coloured) == shades[::-1]


def test_a_long_number_below_the_last_point_is_not_cut_off():
    drawn = line_chart("x", [Series("one", ((500.0, 1.0), (200_000.0, 2.0)), markers=True)], "steps", "%", log_x=True)
    width = float(re.search(r'viewBox="0 0 (\d+)', drawn)[1])
    places = {
        name: float(x) for x, name in re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="middle">(\d+)<', drawn)
    }
    assert places["200000"] == pytest.approx(width - 21) and places["500"] < 100
