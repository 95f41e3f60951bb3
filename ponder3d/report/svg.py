"""Line, bar and dot charts as SVG."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#666666")
_MIXED = ((255, 0.0), (255, 0.5), (0, 0.5), (255, 0.25), (0, 0.25))
"""By how much colours are mixed with white (255) or black each time they come again; nothing gets too pale to see."""
_WIDTH, _HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 28, 36


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: tuple[tuple[float, float], ...]
    """(x, y) in the order of x; values that are not finite are left out."""
    markers: bool = False
    """Whether to mark every point, for lines of few points."""
    spreads: tuple[float, ...] = ()
    """By how much each point may lie higher or lower; drawn as whiskers. Empty: nothing is said."""


@dataclass(frozen=True)
class Bar:
    """One bar of a chart."""

    name: str
    share: float
    """Its length, in [0, 1]."""


@dataclass(frozen=True)
class Dot:
    """One row of a dot chart."""

    name: str
    value: float
    spread: float = 0.0
    """By how much the value may lie higher or lower; drawn as a whisker."""
    colour: int = 0
    """Which of the colours of lines it has (``line_colours``)."""


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Shares as horizontal bars from top to bottom, the longest as wide as there is room; empty without any."""
    longest = max((bar.share for bar in bars), default=0.0)
    if longest <= 0:
        return ""
    left, row = 150, 17
    room = _WIDTH - left - _RIGHT - 44
    height = _TOP + row * len(bars) + 8
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(title)}">',
        f'<text x="{_RIGHT}" y="16" class="title">{html.escape(title)}</text>',
    ]
    for number, bar in enumerate(bars):
        y, width = _TOP + row * number, room * bar.share / longest
        parts.append(f'<text x="{left - 6}" y="{y + 11}" text-anchor="end">{html.escape(_short(bar.name))}</text>')
        parts.append(f'<rect x="{left}" y="{y + 2}" width="{width:.1f}" height="{row - 5}" fill="{_COLOURS[0]}"/>')
        parts.append(f'<text x="{left + width + 5:.1f}" y="{y + 11}">{bar.share:.1%}</text>')
    return "\n".join([*parts, "</svg>"])


def dot_chart(title: str, dots: Sequence[Dot], unit: str, reference: float | None = None) -> str:
    """Values side by side, one row each from top to bottom, on an axis that need not begin at 0.

    What is not finite is left out; the chart is empty without any. ``reference`` is a dashed line to compare with.
    """
    reference = reference if reference is not None and math.isfinite(reference) else None
    dots = [dot for dot in dots if math.isfinite(dot.value) and math.isfinite(dot.spread)]
    if not dots:
        return ""
    ends = [dot.value + sign * dot.spread for dot in dots for sign in (-1, 1)]
    ends += [] if reference is None else [reference]
    ticks = round_ticks(min(ends), max(ends))
    left, row = 150, 17
    bottom = _TOP + row * len(dots)

    def place(value: float) -> float:
        return left + (value - ticks[0]) / ((ticks[-1] - ticks[0]) or 1) * (_WIDTH - left - _RIGHT - 8)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 24}" role="img" aria-label="{html.escape(title)}">',
        f'<text x="{_RIGHT}" y="16" class="title">{html.escape(title)}</text>',
    ]
    for tick in ticks:
        x = place(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{bottom}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="4" y="{bottom + 14}">{html.escape(unit)}</text>')
    if reference is not None:
        x = place(reference)
        parts.append(f'<path d="M{x:.1f} {_TOP - 4}V{bottom}" stroke="#888" stroke-dasharray="4 3"/>')
    for number, dot in enumerate(dots):
        y, colour = _TOP + row * number + row / 2, _shade(dot.colour)
        low, at, high = (place(dot.value + sign * dot.spread) for sign in (-1, 0, 1))
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{html.escape(_short(dot.name))}</text>')
        parts.append(f'<path d="M{low:.1f} {y:.1f}H{high:.1f}" stroke="{colour}" opacity="0.5"/>')
        parts.append(f'<circle cx="{at:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
    return "\n".join([*parts, "</svg>"])


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "."


def line_chart(
    title: str, series: Sequence[Series], x_label: str, y_label: str, log_x: bool = False, legend: bool = True
) -> str:
    """A chart with ticks at round numbers and a legend; an empty string if there is nothing to draw.

    With ``log_x``, equal factors of x are equally far apart, and the ticks are the x that occur, which must be above 0;
    points at 0 are drawn half as far out as the smallest of the others. Without ``legend`` the page says which line is
    whose (``line_colours``).
    """
    drawn = [(number, _finite(s)) for number, s in enumerate(series)]
    numbers = [number for number, s in drawn if s.points]  # a line keeps its colour whatever others are empty
    finite = [s for _, s in drawn if s.points]
    if not finite:
        return ""
    names: dict[float, str] = {}
    if log_x:
        least = min((x for s in finite for x, _ in s.points if x > 0), default=1.0)
        names = {_log(x, least): f"{x:g}" for s in finite for x, _ in s.points}
        finite = [replace(s, points=tuple((_log(x, least), y) for x, y in s.points)) for s in finite]
    xs = [x for s in finite for x, _ in s.points]
    ends = [(y, spread) for s in finite for (_, y), spread in zip(s.points, _spreads(s), strict=True)]
    ys = [y + sign * spread for y, spread in ends for sign in (-1, 1)]
    x_ticks, y_ticks = sorted(names) or round_ticks(min(xs), max(xs)), round_ticks(min(ys), max(ys))
    x_lo, x_hi = min(min(xs), x_ticks[0]), max(max(xs), x_ticks[-1])
    y_lo, y_hi = min(min(ys), y_ticks[0]), max(max(ys), y_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_lo) / ((x_hi - x_lo) or 1)
        up = (y - y_lo) / ((y_hi - y_lo) or 1)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        f'<text x="{_LEFT}" y="16" class="title">{html.escape(title)}</text>',
    ]
    for tick in y_ticks:
        _, y = place(x_lo, tick)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        x, _ = place(tick, y_lo)
        named = names.get(tick, f"{tick:g}")
        inside = min(x, _WIDTH - 3.5 * len(named))  # half of what the letters take
        parts.append(f'<text x="{inside:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{named}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{html.escape(x_label)}</text>')
    parts.append(f'<text x="4" y="{_HEIGHT - 4}">{html.escape(y_label)}</text>')
    for row, (number, line) in enumerate(zip(numbers, finite, strict=True)):
        colour, dashes = _shade(number), ' stroke-dasharray="5 3"' if number >= len(_COLOURS) else ""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in line.points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}/>')
        for (x, y), spread in zip(line.points, _spreads(line), strict=True):
            if spread:
                (across, low), (_, high) = place(x, y - spread), place(x, y + spread)
                parts.append(f'<path d="M{across:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" opacity="0.5"/>')
        if line.markers or len(line.points) == 1:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
                for x, y in (place(*p) for p in line.points)
            ]
        if legend and len(finite) > 1:
            y = _TOP + 8 + 14 * row
            parts.append(f'<rect x="{_WIDTH - 128}" y="{y - 8}" width="10" height="10" fill="{colour}"/>')
            parts.append(f'<text x="{_WIDTH - 114}" y="{y + 1}">{html.escape(line.name)}</text>')
    return "\n".join([*parts, "</svg>"])


def line_colours(names: Sequence[str]) -> list[tuple[str, tuple[int, int, int]]]:
    """The colours of the lines of a chart, by name, for ``Page.legend``."""
    return [(name, _rgb(_shade(number))) for number, name in enumerate(names)]


def _shade(number: int) -> str:
    """The colour of a line by its number. When all have been used they come again, mixed as ``_MIXED`` says; those
    lines are dashed too."""
    again, number = divmod(number, len(_COLOURS))
    towards, share = _MIXED[again % len(_MIXED)]
    return "#{:02x}{:02x}{:02x}".format(*(round(part + share * (towards - part)) for part in _rgb(_COLOURS[number])))


def _rgb(shade: str) -> tuple[int, int, int]:
    return int(shade[1:3], 16), int(shade[3:5], 16), int(shade[5:7], 16)


def _finite(line: Series) -> Series:
    """Without the points that cannot be drawn."""
    kept = [(p, s) for p, s in zip(line.points, _spreads(line), strict=True) if all(map(math.isfinite, (*p, s)))]
    return replace(line, points=tuple(p for p, _ in kept), spreads=tuple(s for _, s in kept))


def _spreads(line: Series) -> tuple[float, ...]:
    return line.spreads or (0.0,) * len(line.points)


def _log(x: float, least: float) -> float:
    return math.log10(x if x > 0 else least / 2)


def round_ticks(lo: float, hi: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover [lo, hi]; two at least."""
    if hi <= lo:
        lo, hi = lo - (abs(lo) or 1) * 0.5, lo + (abs(lo) or 1) * 0.5
    raw = (hi - lo) / (most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(lo / step + 1e-9), math.ceil(hi / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
