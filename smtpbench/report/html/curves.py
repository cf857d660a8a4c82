"""Numbers into charts: axes with their ticks, and points. Nothing is drawn here; `drawing` and the page's script do that.

The axis of percentiles is the "nines" axis of HdrHistogram's plots: the share q stands at log10(1 / (1 - q)), so 90 % stands
at 1, 99 % at 2, 99.9 % at 3, and every nine is as wide as the last. Of n samples the greatest stands at log10(n), where a
curve ends: further right nothing was measured.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.saved import Second
from smtpbench.report.reading.lenient import at_most
from smtpbench.units import NS_PER_MS, format_duration

#: Points of a curve for each nine.
_A_NINE = 16
_MOST_NINES = 7.0
#: Points of a chart over time: seconds beyond that are put together.
POINTS: Final = 600
_LEAST_MS = 0.001
_SHORT_TICK_S = 0.25
#: Of a heatmap while it is counted: parts of a decade, and stretches of time.
_FINE_ROWS = 200
_MOST_STRETCHES = 1000
_LATEST_S = 1e9
NINES, TIME, RATE, LINEAR, LOG = "nines", "time", "rate", "linear", "log"
_QUANTILES = ((0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99"), (0.99999, "99.999"),
              (0.999999, "99.9999"), (0.9999999, "99.99999"))  # fmt: skip

Points = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """kind: NINES, TIME, RATE, LINEAR or LOG. unit: ms, s, per_s, count, percent or nothing. ticks: (where, text)."""

    kind: str
    unit: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Where a value stands, from 0 to 1."""
        low, high = self.low, self.high
        if self.kind == LOG:
            value, low, high = (math.log10(max(one, 1e-9)) for one in (value, low, high))
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5


@dataclass(frozen=True, slots=True)
class ChartSeries:
    """key: of its colour. look: line, dashed, area, or dotted, which shows the points on the line."""

    name: str
    points: Points
    key: int = 0
    look: str = "line"


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across the chart with a word at it. upright: at an x; else at a y."""

    place: float
    text: str
    upright: bool = True
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of x that is shaded, such as the warm-up."""

    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """about: what it shows, in a sentence, for whoever cannot see it."""

    title: str
    x: Axis
    y: Axis
    xs: tuple[float, ...]
    series: tuple[ChartSeries, ...]
    about: str = ""
    marks: tuple[Mark, ...] = ()
    bands: tuple[Band, ...] = ()


def said(unit: str, value: float) -> str:
    """A value on an axis."""
    if unit == "ms":
        return "0" if value <= 0 else _short(value)
    if unit == "s":
        return f"{value:g} s" if value < 120 or value % 60 else f"{value / 60:g} min"
    if unit == "percent":
        return f"{value:g} %"
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:g}"


def _short(value_ms: float) -> str:
    """A round duration without the digits that say nothing."""
    digits, _, unit = format_duration(value_ms * NS_PER_MS).partition(" ")
    return f"{float(digits):g} {unit}"


def linear(unit: str, high: float, low: float = 0.0, kind: str = LINEAR, *, most: int = 6) -> Axis:
    """From low to high, with up to `most` round ticks; an axis that is LINEAR ends at one."""
    span = high - low if high > low else 1.0
    step = _round_step(span / most, sixties=kind == TIME)
    top = low + span if kind != LINEAR else math.ceil((low + span) / step - 1e-9) * step
    first = math.ceil(low / step - 1e-9)
    places = [round(at * step, 9) for at in range(first, math.floor(top / step + 1e-9) + 1)]
    return Axis(kind, unit, low, top, tuple((place, said(unit, place)) for place in places))


def _round_step(least: float, *, sixties: bool) -> float:
    if sixties and least > 10:
        return next((step for step in (15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200) if step >= least), least)
    power = 10.0 ** math.floor(math.log10(least))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def logarithmic(unit: str, values: Sequence[float]) -> Axis:
    """From the round value below the least to the one above the greatest; ticks at 1, 2 and 5, or fewer where it is long."""
    least = max(min(values, default=1.0), 1e-6)
    greatest = max(max(values, default=1.0), least)
    lows = [place for place in _steps(least, greatest) if place <= least * (1 + 1e-9)]
    highs = [place for place in _steps(least, greatest) if place >= greatest * (1 - 1e-9)]
    low, high = lows[-1], highs[0]
    if high <= low:
        high = low * 2
    decades = math.log10(high / low)
    factors = (1, 2, 5) if decades <= 2.2 else (1, 3) if decades <= 3.2 else (1,)
    ticks = [place for place in _steps(low, high, factors) if low * (1 - 1e-9) <= place <= high * (1 + 1e-9)]
    return Axis(LOG, unit, low, high, tuple((place, said(unit, place)) for place in ticks))


def _steps(least: float, greatest: float, factors: Sequence[int] = (1, 2, 5)) -> list[float]:
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(greatest)) + 1)
    return [float(f"{factor}e{power}") for power in powers for factor in factors]


def nines(most_samples: int) -> Axis:
    """The axis of percentiles, up to the last that so many samples can tell."""
    high = min(_MOST_NINES, max(1.0, math.log10(max(1, most_samples))))
    ticks = [(-math.log10(1 - quantile), text) for quantile, text in _QUANTILES]
    return Axis(NINES, "", 0.0, high, tuple((place, f"{text} %") for place, text in ticks if place <= high + 1e-9))


def percentile_curve(title: str, histograms: Sequence[tuple[str, int, str, Histogram]]) -> Chart | None:
    """Curves of (name, colour, look, histogram); None where there is nothing to show."""
    if not histograms:
        return None
    axis = nines(max(histogram.count for _, _, _, histogram in histograms))
    places = [at / _A_NINE for at in range(math.floor(axis.high * _A_NINE) + 1)]
    if axis.high - places[-1] > 1e-9:
        places.append(axis.high)
    series = tuple(ChartSeries(name, _curve(one, places), key, look) for name, key, look, one in histograms)
    values = [value for one in series for value in one.points if value is not None]
    return Chart(
        title, axis, logarithmic("ms", values), tuple(round(place, 4) for place in places), series,
        f"{title}: time below which a percentage lies, from the median to the slowest.",
    )  # fmt: skip


def _curve(histogram: Histogram, places: Sequence[float]) -> Points:
    """The values at the places; the greatest where its rank is reached, and None beyond."""
    end = math.log10(histogram.count)
    percents = [100 * (1 - 10**-place) for place in places if place < end]
    found = histogram.percentiles_ms(percents)
    points: list[float | None] = [max(_LEAST_MS, found[percent]) for percent in percents]
    if len(points) < len(places):
        points.append(max(_LEAST_MS, histogram.max_ns / NS_PER_MS))
    return (*points, *[None] * (len(places) - len(points)))


def over_time(
    title: str, unit: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str, int, str]], **more: Any
) -> Chart | None:
    """Columns (column, name, colour, look) of a timeline; None where there is none. Beyond POINTS rows are put together."""
    return overlaid_time(title, unit, [(rows, columns)], **more)


def overlaid_time(
    title: str,
    unit: str,
    timelines: Sequence[tuple[Sequence[Mapping[str, Any]], Sequence[tuple[str, str, int, str]]]],
    *,
    join: Callable[[Sequence[float]], float] = max,
    log: bool = False,
    about: str = "",
    bands: tuple[Band, ...] = (),
) -> Chart | None:
    """Columns of several timelines, second by second. join: makes one value of those that are put together."""
    ends = [at_most([row.get("t_s") for row in rows]) for rows, _ in timelines]
    end_s = max(ends, default=0.0)
    if end_s <= 0:
        return None
    width_s = max(1.0, end_s / POINTS)
    bins = math.ceil(end_s / width_s)
    series = []
    for rows, columns in timelines:
        for column, name, key, look in columns:
            found: list[list[float]] = [[] for _ in range(bins)]
            for row in rows:
                t_s, value = row.get("t_s"), row.get(column)
                if t_s is not None and value is not None and 0 <= t_s <= end_s and value >= 0:
                    found[min(bins - 1, max(0, math.ceil((t_s - 0.5) / width_s) - 1))].append(value)
            points = tuple(join(values) if values else None for values in found)
            if any(point is not None for point in points):
                series.append(ChartSeries(name, points, key, look))
    if not series:
        return None
    values = [value for one in series for value in one.points if value is not None]
    y = logarithmic(unit, [max(_LEAST_MS, value) for value in values]) if log else linear(unit, max(values) or 1.0)
    xs = tuple(round((at + 1) * width_s, 2) for at in range(bins))
    return Chart(title, linear("s", end_s, kind=TIME), y, xs, tuple(series), about or title, bands=bands)


def rates(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[dict[str, float]]:
    """Counts of a timeline as events a second; a tick too short to tell a rate is put to the one before it."""
    found: list[dict[str, float]] = []
    began_s, last_s = 0.0, 0.0
    for row in rows:
        t_s = row.get("t_s")
        if t_s is None or t_s <= last_s:
            continue
        counts = {column: row.get(column) or 0.0 for column in columns}
        if found and t_s - last_s < _SHORT_TICK_S:
            before = found.pop()
            counts = {column: counts[column] + before[column] * (last_s - began_s) for column in columns}
        else:
            began_s = last_s
        last_s = t_s
        found.append({"t_s": t_s, **{column: counts[column] / (t_s - began_s) for column in columns}})
    return found


def mean(values: Sequence[float]) -> float:
    """Of the values that are put together."""
    return sum(values) / len(values)


def phases(rows: Sequence[Mapping[str, Any]]) -> tuple[Band, ...]:
    """The warm-up and the drain of a timeline."""
    found = []
    for phase, text in (("warmup", "warm-up"), ("drain", "drain")):
        ends = [row["t_s"] for row in rows if row.get("phase") == phase and row.get("t_s") is not None]
        if ends:
            found.append(Band(max(0.0, min(ends) - 1), max(ends), text))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Grid:
    """Latency over time, counted in cells. columns: samples by row, in order of time. y: where the rows lie."""

    columns: tuple[Counter[int], ...]
    rows: int
    y: Axis
    end_s: float


def heatmap(samples: Iterable[Second], *, most_columns: int = 110, rows: int = 34) -> Grid | None:
    """A column is a stretch of time, a row a stretch of the logarithm of the time taken; None where there are no samples."""
    stretches: dict[int, _Stretch] = {}
    width_s = 1.0
    place_of: dict[int, int] = {}
    least_ns, greatest_ns = math.inf, 0
    for one in samples:
        if not one.histogram.count or not (0 <= one.start_s < _LATEST_S and 0 <= one.length_s < _LATEST_S):
            continue
        cells: Counter[int] = Counter()
        for low_us, high_us, count in one.histogram.buckets():
            place = place_of.get(low_us)
            if place is None:
                place = place_of[low_us] = round(math.log10((low_us + high_us) / 2000) * _FINE_ROWS)
            cells[place] += count
        least_ns, greatest_ns = min(least_ns, one.histogram.min_ns), max(greatest_ns, one.histogram.max_ns)
        _add(stretches, _Stretch(one.start_s, one.start_s + one.length_s, cells), width_s)
        while len(stretches) > _MOST_STRETCHES:  # a run of a day must not be held second by second
            width_s *= 2
            before, stretches = stretches, {}
            for stretch in before.values():
                _add(stretches, stretch, width_s)
    if not stretches:
        return None
    end_s = max(one.end_s for one in stretches.values()) or 1.0
    axis = logarithmic("ms", [max(_LEAST_MS, value / NS_PER_MS) for value in (least_ns, greatest_ns)])
    row_of = {place: min(rows - 1, int(axis.place(10 ** (place / _FINE_ROWS)) * rows)) for place in place_of.values()}
    columns = max(1, min(most_columns, math.ceil(end_s)))
    counts = tuple(Counter[int]() for _ in range(columns))
    for stretch in stretches.values():
        inside: Counter[int] = Counter()
        for place, count in stretch.cells.items():
            inside[row_of[place]] += count
        for column in _columns(stretch, end_s / columns, columns):
            counts[column].update(inside)
    return Grid(counts, rows, axis, end_s)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Samples of some seconds. cells: by the logarithm of their milliseconds, in parts of a decade."""

    start_s: float
    end_s: float
    cells: Counter[int]


def _add(stretches: dict[int, _Stretch], one: _Stretch, width_s: float) -> None:
    """Put a stretch to the one of the same `width_s` seconds, if there is one."""
    key = int((one.start_s + one.end_s) / 2 / width_s)
    other = stretches.get(key)
    if other is not None:
        one.cells.update(other.cells)
        one = _Stretch(min(one.start_s, other.start_s), max(one.end_s, other.end_s), one.cells)
    stretches[key] = one


def _columns(one: _Stretch, width_s: float, columns: int) -> set[int]:
    """Where its middle is, and each column whose middle lies in it: ticks are not all as long, and must leave no gap."""
    first, last = (math.ceil(time_s / width_s - 0.5) for time_s in (one.start_s, one.end_s))
    middle = int((one.start_s + one.end_s) / 2 / width_s)
    return {min(columns - 1, middle), *range(max(0, first), min(columns, last))}
