"""SVG: well-formed, without style attributes, and every point at its place."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.saved import Second
from smtpbench.report.html.curves import Band, Chart, ChartSeries, Mark, linear
from smtpbench.report.html.drawing import bar_svg, chart_svg, heatmap_svg, interval_svg, scale_svg, strip_svg
from smtpbench.report.html.heatmap import heatmap

MS = 1_000_000
EVIL = '</text><script>alert(1)</script>"&'


def chart(*series: ChartSeries, xs: tuple[float, ...] = (0.0, 50.0, 100.0)) -> Chart:
    marks = (Mark(50.0, EVIL, tone="good"), Mark(5.0, EVIL, upright=False))
    return Chart(EVIL, linear("", 100), linear("count", 10), xs, series, EVIL, marks, (Band(0, 10, EVIL),))


def paths(svg: str, cls: str) -> list[str]:
    return [one.attrib["d"] for one in ElementTree.fromstring(svg).iter("path") if one.attrib["class"].startswith(cls)]


@pytest.mark.parametrize("size", ["small", "half", "wide"])
def test_drawing_with_any_text_is_well_formed(size: str) -> None:
    drawings = [
        chart_svg(chart(ChartSeries(EVIL, (1.0, None, 3.0), 9, look)), size) for look in ("line", "dashed", "area", "dotted")
    ]
    drawings += [interval_svg(-1, 0, 1, (-2, 2), "bad", EVIL), strip_svg([1, 2], (1, 2), 8, EVIL), bar_svg(7.0)]
    drawings.append(scale_svg([EVIL, EVIL, EVIL]))
    for svg in drawings:
        found = list(ElementTree.fromstring(svg).iter())
        assert {one.tag for one in found} <= {"svg", "path", "text", "rect", "line", "circle", "g"}
        assert not any("style" in one.attrib or any(name.startswith("on") for name in one.attrib) for one in found)


def test_line_goes_through_its_points() -> None:
    svg = chart_svg(chart(ChartSeries("a", (0.0, 10.0, 5.0))), "half")
    room = int(re.findall(r'viewBox="0 0 2000 (\d+)"', svg)[0])
    assert paths(svg, "line") == [f"M0 {room}l1000 -{room}l1000 {room // 2}"]


def test_gap_splits_a_line_and_a_single_point_is_a_dot() -> None:
    svg = chart_svg(chart(ChartSeries("a", (10.0, None, 10.0))), "half")
    assert paths(svg, "line") == ["M0 0h0M2000 0h0"]
    assert paths(chart_svg(chart(ChartSeries("a", (None, None, None))), "half"), "line") == []


def test_level_line_is_drawn_from_end_to_end() -> None:
    xs = tuple(float(at) for at in range(101))
    assert paths(chart_svg(chart(ChartSeries("a", (10.0,) * 101), xs=xs), "half"), "line") == ["M0 0l2000 0"]


def drawn(seconds: Iterable[Second], **options: int) -> str:
    grid = heatmap(seconds, **options)
    assert grid is not None
    return heatmap_svg(grid, "about")


def cells(svg: str) -> dict[tuple[int, int], int]:
    """The level of each cell by column and row, the lowest row first."""
    found: dict[tuple[int, int], int] = {}
    for one in ElementTree.fromstring(svg).iter("path"):
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", one.attrib["d"]):
            found |= {(int(x) + at, 9 - int(y)): int(one.attrib["class"][1:]) for at in range(int(width))}
    return found


def test_heatmap_is_darkest_where_most_samples_are() -> None:
    samples = [Second(float(at), 1.0, Histogram.of([MS] * 80 + [8 * MS] * 20)) for at in range(4)]
    svg = drawn([*samples[:3], Second(3.0, 1.0, Histogram.of([8 * MS]))], row_count=10)
    found = cells(svg)
    assert {column for column, _ in found} == {0, 1, 2, 3}
    fast, slow = found[0, min(row for _, row in found)], found[0, max(row for _, row in found)]
    assert fast > slow > 0
    assert found[3, max(row for _, row in found)] == 8  # all samples of the column
    assert len(found) == 7


def test_long_run_has_a_limited_number_of_columns() -> None:
    svg = drawn(Second(float(at), 1.0, Histogram.of([(1 + at % 50) * MS])) for at in range(5000))
    assert max(column for column, _ in cells(svg)) == 109
    assert len(svg) < 60_000


def test_run_of_hours_is_counted_completely_in_little_memory() -> None:
    seconds = (Second(float(at), 1.0, Histogram.of([MS] * 2)) for at in range(20_000))
    tracemalloc.start()
    grid = heatmap(seconds)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grid is not None
    # samples on the border of two columns are shown in both
    assert 2 * 20_000 <= sum(column.total() for column in grid.columns) <= 2.2 * 2 * 20_000
    assert all(column.total() for column in grid.columns)
    assert peak_bytes < 5_000_000


def test_ticks_of_unequal_length_leave_no_gap() -> None:
    ends = [0.0, 1.01, 2.02, 3.03, 4.1, 5.0, 6.01, 7.02, 8.03]
    seconds = [Second(start, end - start, Histogram.of([MS])) for start, end in pairwise(ends)]
    svg = drawn(seconds, row_count=10)
    assert {column for column, _ in cells(svg)} == set(range(9))


def test_run_without_samples_has_no_heatmap() -> None:
    forged = [Second(-1.0, 1.0, Histogram.of([MS])), Second(1e12, 1.0, Histogram.of([MS])), Second(0.0, 1.0, Histogram())]
    assert heatmap(forged) is None


def test_interval_is_drawn_at_its_place() -> None:
    found = ElementTree.fromstring(interval_svg(-0.1, 0.0, 0.3, (-0.5, 0.5), "bad", "about"))
    whisker = found.findall("line")[1].attrib
    assert (whisker["x1"], whisker["x2"]) == ("40.00%", "80.00%")
    assert found.findall("circle")[0].attrib["cx"] == "50.00%"
