"""Heatmaps as data: latency over time, counted in cells."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from smtpbench.measure.saved import Second
from smtpbench.report.html.curves import MIN_MS, Axis, logarithmic
from smtpbench.units import NS_PER_MS

#: Resolution while samples are counted: rows for each decade of latency, and spans of time.
_ROWS_PER_DECADE = 200
_MAX_SPANS = 500
_MAX_TIME_S = 1e9


@dataclass(frozen=True, slots=True)
class Grid:
    """Latency over time, counted in cells.

    Attributes:
        columns: Samples by row, in order of time.
        row_count: Number of rows, which start at the lowest latency.
        y: Axis of the rows.
        end_s: End of the last column, seconds.
    """

    columns: tuple[Counter[int], ...]
    row_count: int
    y: Axis
    end_s: float


def heatmap(samples: Iterable[Second], *, max_columns: int = 110, row_count: int = 34) -> Grid | None:
    """Return a heatmap of time by the logarithm of the latency; None without samples."""
    spans: dict[int, _Span] = {}
    width_s = 1.0
    fine_row_of: dict[int, int] = {}
    min_ns, max_ns = math.inf, 0
    for one in samples:
        if not one.histogram.count or not (0 <= one.start_s < _MAX_TIME_S and 0 <= one.length_s < _MAX_TIME_S):
            continue
        cells: Counter[int] = Counter()
        for low_us, high_us, count in one.histogram.buckets():
            fine_row = fine_row_of.get(low_us)
            if fine_row is None:
                fine_row = fine_row_of[low_us] = round(math.log10((low_us + high_us) / 2000) * _ROWS_PER_DECADE)
            cells[fine_row] += count
        min_ns, max_ns = min(min_ns, one.histogram.min_ns), max(max_ns, one.histogram.max_ns)
        _add(spans, _Span(one.start_s, one.start_s + one.length_s, cells), width_s)
        while len(spans) > _MAX_SPANS:  # a run of a day does not fit into memory second by second
            width_s *= 2
            before, spans = spans, {}
            for span in before.values():
                _add(spans, span, width_s)
    if not spans:
        return None
    end_s = max(one.end_s for one in spans.values()) or 1.0
    axis = logarithmic("ms", [max(MIN_MS, value / NS_PER_MS) for value in (min_ns, max_ns)])
    row_of = {
        fine_row: min(row_count - 1, int(axis.place(10 ** (fine_row / _ROWS_PER_DECADE)) * row_count))
        for fine_row in fine_row_of.values()
    }
    columns = max(1, min(max_columns, math.ceil(end_s)))
    counts = tuple(Counter[int]() for _ in range(columns))
    for span in spans.values():
        inside: Counter[int] = Counter()
        for fine_row, count in span.cells.items():
            inside[row_of[fine_row]] += count
        for column in _columns(span, end_s / columns, columns):
            counts[column].update(inside)
    return Grid(counts, row_count, axis, end_s)


@dataclass(frozen=True, slots=True)
class _Span:
    """Samples of some seconds.

    Attributes:
        start_s: Start, seconds.
        end_s: End, seconds.
        cells: Samples by the logarithm of their milliseconds, in parts of a decade.
    """

    start_s: float
    end_s: float
    cells: Counter[int]


def _add(spans: dict[int, _Span], one: _Span, width_s: float) -> None:
    """Add a span to the one of the same `width_s` seconds, if there is one."""
    key = int((one.start_s + one.end_s) / 2 / width_s)
    other = spans.get(key)
    if other is not None:
        one.cells.update(other.cells)
        one = _Span(min(one.start_s, other.start_s), max(one.end_s, other.end_s), one.cells)
    spans[key] = one


def _columns(one: _Span, width_s: float, columns: int) -> set[int]:
    """The column of its middle, and every column whose middle is inside it, so that ticks of unequal length leave no gap."""
    first, last = (math.ceil(time_s / width_s - 0.5) for time_s in (one.start_s, one.end_s))
    middle = int((one.start_s + one.end_s) / 2 / width_s)
    return {min(columns - 1, middle), *range(max(0, first), min(columns, last))}
