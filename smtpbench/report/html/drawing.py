"""Charts as SVG: for readers without JavaScript, for print, and until the script has drawn its own.

An SVG takes the width of its container and has a fixed height. Curves are in an inner SVG whose x axis is segmented. Text is
outside it, positioned in percent, so that it keeps its size on a telephone. Colours are classes of style.css, because the
page's Content-Security-Policy rejects style attributes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

from markupsafe import Markup, escape

from smtpbench.report.html.curves import NINES, Axis, Chart, ChartSeries
from smtpbench.report.html.heatmap import Grid
from smtpbench.report.reading.formatting import format_seconds

HEIGHTS = {"small": 170, "half": 230, "wide": 320}
COLOURS = 8
#: Units of the inner SVG: its width, and units for each pixel of its height; whole numbers are then precise enough.
_WIDTH = 2000
_UNITS_PER_PIXEL = 4
_TOP, _FOOT = 14, 22
#: Colours of a heatmap.
LEVELS = 9


def chart_svg(chart: Chart, size: str) -> Markup:
    """Return a chart."""
    height = HEIGHTS[size]
    room = height - _TOP - _FOOT
    deep = room * _UNITS_PER_PIXEL
    parts = [
        f'<svg class="chart" width="100%" height="{height}" role="img" aria-label="{escape(chart.about or chart.title)}">',
        f'<svg x="0" y="{_TOP}" width="100%" height="{room}" viewBox="0 0 {_WIDTH} {deep}" preserveAspectRatio="none">',
    ]
    for band in chart.bands:
        low, high = _across(chart.x, band.low), _across(chart.x, band.high)
        parts.append(f'<rect class="band" x="{low}" y="0" width="{max(1, high - low):g}" height="{deep}"/>')
    parts += [_line("grid", 0, y, _WIDTH, y) for y in (_down(chart.y, place, deep) for place, _ in chart.y.ticks)]
    parts += [_line("grid", x, 0, x, deep) for x in (_across(chart.x, place) for place, _ in chart.x.ticks)]
    for series in chart.series:
        parts += _series(chart, series, deep)
    for mark in chart.marks:
        if mark.upright:
            x = _across(chart.x, mark.place)
            parts.append(_line(f"mark {mark.tone}", x, 0, x, deep))
        else:
            y = _down(chart.y, mark.place, deep)
            parts.append(_line(f"mark {mark.tone}", 0, y, _WIDTH, y))
    parts += ["</svg>", *_labels(chart, room, height), "</svg>"]
    return Markup("".join(parts))


def _labels(chart: Chart, room: int, height: int) -> Iterable[str]:
    is_small = height < HEIGHTS["half"]
    for place, text in chart.x.ticks:
        share = chart.x.place(place)
        anchor = "start" if share < 0.02 else "end" if share > 0.95 else "middle"
        if not (is_small and chart.x.kind == NINES and text == "50 %"):
            yield f'<text class="tick" x="{share * 100:.2f}%" y="{height - 6}" text-anchor="{anchor}">{escape(text)}</text>'
    for place, text in chart.y.ticks:
        y = _TOP + _down(chart.y, place, room)
        yield f'<text class="tick halo" x="2" y="{y - 3:g}">{escape(text)}</text>'
    for at, mark in enumerate(chart.marks):
        if mark.upright:
            share = chart.x.place(mark.place)
            anchor = "end" if share > 0.6 else "start"
            yield _label(f"mark {mark.tone}", f"{share * 100:.2f}%", _TOP + 14 + 15 * at, anchor, mark.text)
        else:
            yield _label(f"mark {mark.tone}", "99.5%", _TOP + _down(chart.y, mark.place, room) - 4, "end", mark.text)


def _label(cls: str, x: str, y: float, anchor: str, text: str) -> str:
    shift = ' dx="-4"' if anchor == "end" else ' dx="4"'
    return f'<text class="halo {cls}" x="{x}" y="{y:g}" text-anchor="{anchor}"{shift}>{escape(text)}</text>'


def _across(axis: Axis, value: float) -> float:
    return round(axis.place(value) * _WIDTH, 1)


def _down(axis: Axis, value: float, room: int) -> float:
    return round((1 - axis.place(value)) * room, 1)


def _line(cls: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="{cls.strip()}" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>'


def _series(chart: Chart, series: ChartSeries, room: int) -> Iterable[str]:
    segments: list[list[tuple[int, int]]] = [[]]
    for x, y in zip(chart.xs, series.points, strict=True):
        if y is None:
            segments.append([])
        else:
            segments[-1].append((round(_across(chart.x, x)), round(_down(chart.y, y, room))))
    drawn = [segment for segment in segments if segment]
    colour = f"c{series.key % COLOURS}"
    if series.look == "area":
        for segment in drawn:
            yield f'<path class="area {colour}" d="M{segment[0][0]} {room}{_path(segment, "L")}V{room}z"/>'
    if drawn:
        look = "" if series.look == "area" else f" {series.look}"  # the class `area` fills a path
        yield f'<path class="line {colour}{look}" d="{"".join(_path(segment, "M") for segment in drawn)}"/>'
    if series.look == "dotted":
        dots = "".join(f"M{x} {y}h0" for segment in drawn for x, y in segment)
        yield f'<path class="dots {colour}" d="{dots}"/>'


def _path(points: Sequence[tuple[int, int]], first: str) -> str:
    """A polyline in relative steps, which are short; inner points of a level part are left out."""
    (last_x, last_y), rest = points[0], points[1:]
    parts = [f"{first}{last_x} {last_y}"]
    for at, (x, y) in enumerate(rest):
        if y == last_y and at + 1 < len(rest) and rest[at + 1][1] == y:
            continue
        parts.append(f"l{x - last_x} {y - last_y}")
        last_x, last_y = x, y
    # a single point is a line without length, which round caps turn into a dot
    return "".join(parts) if rest else f"{parts[0]}h0"


def heatmap_svg(grid: Grid, about: str) -> Markup:
    """Return a heatmap: the darker a cell, the larger its share of the samples in its column."""
    height = HEIGHTS["wide"]
    room = height - _TOP - _FOOT
    row_count, columns = grid.row_count, len(grid.columns)
    paths: list[list[str]] = [[] for _ in range(LEVELS)]
    totals = [column.total() for column in grid.columns]
    for row in range(row_count):
        levels = (_level(column[row], total) for column, total in zip(grid.columns, totals, strict=True))
        at = 0
        for level, cells in groupby(levels):
            width = len(list(cells))
            if level is not None:
                paths[level].append(f"M{at} {row_count - 1 - row}h{width}v1h-{width}z")
            at += width
    drawn = "".join(f'<path class="h{level}" d="{"".join(path)}"/>' for level, path in enumerate(paths) if path)
    ticks = [
        f'<text class="tick halo" x="2" y="{_TOP + _down(grid.y, place, room) - 3:g}">{escape(text)}</text>'
        for place, text in grid.y.ticks
    ]
    times = [
        f'<text class="tick" x="{share}%" y="{height - 6}" text-anchor="{anchor}">'
        f"{format_seconds(grid.end_s * share / 100)}</text>"
        for share, anchor in ((0, "start"), (25, "middle"), (50, "middle"), (75, "middle"), (100, "end"))
    ]
    return Markup(
        f'<svg class="chart heat" width="100%" height="{height}" role="img" aria-label="{escape(about)}">'
        f'<svg x="0" y="{_TOP}" width="100%" height="{room}" viewBox="0 0 {columns} {row_count}" preserveAspectRatio="none">'
        f"{drawn}</svg>{''.join(ticks)}{''.join(times)}</svg>"
    )


def _level(count: int, total: int) -> int | None:
    """The level of a cell, by the square root of its share, so that a few slow samples stay visible."""
    return min(LEVELS - 1, int(math.sqrt(count / total) * LEVELS)) if count else None


def interval_svg(low: float, value: float, high: float, ends: tuple[float, float], tone: str, about: str) -> Markup:
    """Return an interval with its middle value on an axis from ends[0] to ends[1] with a mark at 0."""
    axis = Axis("linear", "", *ends, ())
    left, middle, right, zero = (axis.place(one) * 100 for one in (low, value, high, 0.0))
    return Markup(
        f'<svg class="interval" width="100%" height="22" role="img" aria-label="{escape(about)}">'
        f'<line class="zero" x1="{zero:.2f}%" x2="{zero:.2f}%" y1="0" y2="22"/>'
        f'<line class="whisker {tone}" x1="{left:.2f}%" x2="{right:.2f}%" y1="11" y2="11"/>'
        f'<line class="whisker {tone}" x1="{left:.2f}%" x2="{left:.2f}%" y1="6" y2="16"/>'
        f'<line class="whisker {tone}" x1="{right:.2f}%" x2="{right:.2f}%" y1="6" y2="16"/>'
        f'<circle class="middle {tone}" cx="{middle:.2f}%" cy="11" r="4.5"/></svg>'
    )


def bar_svg(share: float, tone: str = "") -> Markup:
    """Return a share from 0 to 1 as a bar; screen readers skip it, because the number is beside it."""
    width = max(0.0, min(1.0, share)) * 100
    return Markup(
        f'<svg class="bar" width="72" height="10" aria-hidden="true"><rect class="rail" width="100%" height="10" rx="3"/>'
        f'<rect class="fill {tone}" width="{width:.1f}%" height="10" rx="3"/></svg>'
    )


def scale_svg(texts: Sequence[str]) -> Markup:
    """Return the head of a column of intervals: a text at its start, its middle and its end."""
    places = zip(texts, ("0%", "50%", "100%"), ("start", "middle", "end"), strict=True)
    labels = "".join(f'<text x="{x}" y="12" text-anchor="{anchor}">{escape(text)}</text>' for text, x, anchor in places)
    return Markup(f'<svg class="interval scale" width="100%" height="16">{labels}</svg>')


def strip_svg(values: Sequence[float], ends: tuple[float, float], key: int, about: str) -> Markup:
    """Return values as dots on an axis between two ends."""
    low, high = ends
    margin = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    axis = Axis("linear", "", low - margin, high + margin, ())
    dots = "".join(f'<circle cx="{axis.place(value) * 100:.1f}%" cy="9" r="4"/>' for value in values[:200])
    return Markup(
        f'<svg class="interval" width="100%" height="18" role="img" aria-label="{escape(about)}">'
        f'<line class="zero" x1="0" x2="100%" y1="9" y2="9"/><g class="strip c{key % COLOURS}">{dots}</g></svg>'
    )
