"""Charts as data: axes with their ticks, and points. `drawing` and the page's script draw them.

The axis of percentiles is the "nines" axis of HdrHistogram's plots. The share q is at log10(1 / (1 - q)): 90 % is at 1, 99 %
at 2, 99.9 % at 3, and every nine has the same width. The greatest of n samples is at log10(n), where the curve ends, because
nothing was measured beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.timeline import Timeline as SavedTimeline
from smtpbench.report.reading.lenient import greatest
from smtpbench.units import NS_PER_MS, format_duration

#: Points of a curve for each nine.
_POINTS_PER_NINE = 16
_MAX_NINES = 7.0
#: Points of a chart over time; of a longer run, several seconds share a point.
MAX_POINTS: Final = 600
#: Lowest value on a logarithmic axis of milliseconds.
MIN_MS: Final = 0.001
_SHORT_TICK_S = 0.25
PERCENT: Final = "percent"
MIB: Final = "MiB"
KIB: Final = "KiB"
NINES, TIME, RATE, LINEAR, LOG = "nines", "time", "rate", "linear", "log"
_QUANTILES = ((0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99"), (0.99999, "99.999"),
              (0.999999, "99.9999"), (0.9999999, "99.99999"))  # fmt: skip

Points = tuple[float | None, ...]
#: Seconds of a run, as `Saved.timeline` returns them.
Timeline = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis.

    Attributes:
        kind: NINES, TIME, RATE, LINEAR or LOG.
        unit: `ms`, `s`, `per_s`, `count`, `percent`, `MiB`, `KiB` or empty.
        low: Value at its start.
        high: Value at its end.
        ticks: (value, text).
    """

    kind: str
    unit: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Return the position of a value, from 0 to 1."""
        low, high = self.low, self.high
        if self.kind == LOG:
            value, low, high = (math.log10(max(one, 1e-9)) for one in (value, low, high))
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5


@dataclass(frozen=True, slots=True)
class ChartSeries:
    """A curve.

    Attributes:
        name: Its name in the legend.
        points: Its values, None where there is none.
        key: Its colour.
        look: `line`, `dashed`, `area`, or `dotted`, which marks the points.
    """

    name: str
    points: Points
    key: int = 0
    look: str = "line"


@dataclass(frozen=True, slots=True)
class Mark:
    """A labelled line across the chart.

    Attributes:
        place: Value on the axis.
        text: Its label.
        upright: Whether it is at an x; else at a y.
        tone: Its tone.
    """

    place: float
    text: str
    upright: bool = True
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Band:
    """A shaded range of x, such as the warm-up.

    Attributes:
        low: Its start.
        high: Its end.
        text: Its name in the legend.
    """

    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        title: Its title.
        x: Its horizontal axis.
        y: Its vertical axis.
        xs: Values of x that all series share.
        series: Its curves.
        about: What it shows, for screen readers.
        marks: Lines across it.
        bands: Shaded ranges.
    """

    title: str
    x: Axis
    y: Axis
    xs: tuple[float, ...]
    series: tuple[ChartSeries, ...]
    about: str = ""
    marks: tuple[Mark, ...] = ()
    bands: tuple[Band, ...] = ()


def format_tick(unit: str, value: float) -> str:
    """Return a value as the text of a tick."""
    if unit == "ms":
        return "0" if value <= 0 else _round_duration(value)
    if unit == "s":
        return f"{value:g} s" if value < 120 or value % 60 else f"{value / 60:g} min"
    if unit in (PERCENT, MIB, KIB):
        return f"{value:g} {'%' if unit == PERCENT else unit}"
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:g}"


def _round_duration(value_ms: float) -> str:
    """A round duration without trailing zeros."""
    digits, _, unit = format_duration(value_ms * NS_PER_MS).partition(" ")
    return f"{float(digits):g} {unit}"


def linear(unit: str, high: float, low: float = 0.0, kind: str = LINEAR, *, max_ticks: int = 6) -> Axis:
    """Return an axis with up to `max_ticks` round ticks; an axis of kind LINEAR ends at a tick."""
    span = high - low if high > low else 1.0
    step = _round_step(span / max_ticks, sixties=kind == TIME)
    top = low + span if kind != LINEAR else math.ceil((low + span) / step - 1e-9) * step
    first = math.ceil(low / step - 1e-9)
    places = [round(at * step, 9) for at in range(first, math.floor(top / step + 1e-9) + 1)]
    return Axis(kind, unit, low, top, tuple((place, format_tick(unit, place)) for place in places))


def _round_step(least: float, *, sixties: bool) -> float:
    if sixties and least > 10:
        return next((step for step in (15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200) if step >= least), least)
    power = 10.0 ** math.floor(math.log10(least))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def logarithmic(unit: str, values: Sequence[float]) -> Axis:
    """Return an axis between round values, with ticks at 1, 2 and 5 of each decade, or fewer on a long axis."""
    smallest = max(min(values, default=1.0), 1e-6)
    largest = max(max(values, default=1.0), smallest)
    lows = [place for place in _steps(smallest, largest) if place <= smallest * (1 + 1e-9)]
    highs = [place for place in _steps(smallest, largest) if place >= largest * (1 - 1e-9)]
    low, high = lows[-1], highs[0]
    if high <= low:
        high = low * 2
    decades = math.log10(high / low)
    factors = (1, 2, 5) if decades <= 2.2 else (1, 3) if decades <= 3.2 else (1,)
    ticks = [place for place in _steps(low, high, factors) if low * (1 - 1e-9) <= place <= high * (1 + 1e-9)]
    return Axis(LOG, unit, low, high, tuple((place, format_tick(unit, place)) for place in ticks))


def _steps(least: float, greatest: float, factors: Sequence[int] = (1, 2, 5)) -> list[float]:
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(greatest)) + 1)
    return [float(f"{factor}e{power}") for power in powers for factor in factors]


def nines(max_samples: int) -> Axis:
    """Return the axis of percentiles, up to the last that a number of samples can resolve."""
    high = min(_MAX_NINES, max(1.0, math.log10(max(1, max_samples))))
    ticks = [(-math.log10(1 - quantile), text) for quantile, text in _QUANTILES]
    return Axis(NINES, "", 0.0, high, tuple((place, f"{text} %") for place, text in ticks if place <= high + 1e-9))


def percentile_curve(title: str, histograms: Sequence[tuple[str, int, str, Histogram]]) -> Chart | None:
    """Return curves of (name, colour, look, histogram); None where there is nothing to show."""
    if not histograms:
        return None
    axis = nines(max(histogram.count for _, _, _, histogram in histograms))
    places = [at / _POINTS_PER_NINE for at in range(math.floor(axis.high * _POINTS_PER_NINE) + 1)]
    if axis.high - places[-1] > 1e-9:
        places.append(axis.high)
    series = tuple(ChartSeries(name, _curve(one, places), key, look) for name, key, look, one in histograms)
    values = [value for one in series for value in one.points if value is not None]
    return Chart(
        title, axis, logarithmic("ms", values), tuple(round(place, 4) for place in places), series,
        f"{title}: time within which a percentage of the samples completed, up to the slowest sample.",
    )  # fmt: skip


def _curve(histogram: Histogram, places: Sequence[float]) -> Points:
    """The values at the places; the greatest at its rank, and None beyond."""
    end = math.log10(histogram.count)
    percents = [100 * (1 - 10**-place) for place in places if place < end]
    found = histogram.percentiles_ms(percents)
    points: list[float | None] = [max(MIN_MS, found[percent]) for percent in percents]
    if len(points) < len(places):
        points.append(max(MIN_MS, histogram.max_ns / NS_PER_MS))
    return (*points, *[None] * (len(places) - len(points)))


def over_time(
    title: str, unit: str, timeline: Timeline, columns: Sequence[tuple[str, str, int, str]], **more: Any
) -> Chart | None:
    """Return a chart of columns (column, name, colour, look) of a timeline; None where they hold nothing."""
    return overlaid_time(title, unit, [(timeline, columns)], **more)


def overlaid_time(
    title: str,
    unit: str,
    timelines: Sequence[tuple[Timeline, Sequence[tuple[str, str, int, str]]]],
    *,
    join: Callable[[Sequence[float]], float] = max,
    log: bool = False,
    about: str = "",
    bands: tuple[Band, ...] = (),
    marks: tuple[Mark, ...] = (),
    least_end_s: float = 0.0,
) -> Chart | None:
    """Return a chart of columns of several timelines; None where they hold nothing.

    Args:
        title: Title of the chart.
        unit: Unit of the values.
        timelines: Timelines with their columns (column, name, colour, look).
        join: Makes one value of several seconds that share a point.
        log: Whether the vertical axis is logarithmic.
        about: What the chart shows; its title without it.
        bands: Shaded ranges of time.
        marks: Lines across the chart.
        least_end_s: Least end of the axis of time, so that charts of different files share it, seconds.
    """
    ends = [greatest([second.get("t_s") for second in timeline]) for timeline, _ in timelines]
    if max(ends, default=0.0) <= 0:
        return None
    end_s = max(*ends, least_end_s)
    width_s = max(1.0, end_s / MAX_POINTS)
    bins = math.ceil(end_s / width_s)
    series = []
    for timeline, columns in timelines:
        for column, name, key, look in columns:
            found: list[list[float]] = [[] for _ in range(bins)]
            for second in timeline:
                t_s, value = second.get("t_s"), second.get(column)
                if t_s is not None and value is not None and 0 <= t_s <= end_s and value >= 0:
                    found[min(bins - 1, max(0, math.ceil((t_s - 0.5) / width_s) - 1))].append(value)
            points = tuple(join(values) if values else None for values in found)
            if any(point is not None for point in points):
                series.append(ChartSeries(name, points, key, look))
    if not series:
        return None
    values = [value for one in series for value in one.points if value is not None]
    y = logarithmic(unit, [max(MIN_MS, value) for value in values]) if log else linear(unit, max(values) or 1.0)
    xs = tuple(round((at + 1) * width_s, 2) for at in range(bins))
    return Chart(title, linear("s", end_s, kind=TIME), y, xs, tuple(series), about or title, marks, bands)


def rates(timeline: Timeline, columns: Sequence[str]) -> SavedTimeline:
    """Return the counts of a timeline as events per second; a tick too short for a rate is added to the one before it.

    So is a second line of the same time, which is that of another phase.
    """
    found = SavedTimeline(("t_s", *columns))
    counts: dict[str, float] = {}  # of the tick from began_s to last_s
    began_s, last_s = 0.0, 0.0
    for second in timeline:
        t_s = second.get("t_s")
        if t_s is None or t_s < last_s or (t_s == last_s and not counts):
            continue
        more = {column: second.get(column) or 0.0 for column in columns}
        if counts and t_s - last_s < _SHORT_TICK_S:
            counts = {column: counts[column] + more[column] for column in columns}
        else:
            if counts:
                found.append({"t_s": last_s, **{column: counts[column] / (last_s - began_s) for column in columns}})
            counts, began_s = more, last_s
        last_s = t_s
    if counts:
        found.append({"t_s": last_s, **{column: counts[column] / (last_s - began_s) for column in columns}})
    return found


def mean(values: Sequence[float]) -> float:
    """Return the mean of values."""
    return sum(values) / len(values)


def phases(timeline: Timeline) -> tuple[Band, ...]:
    """Return the warm-up and the drain of a timeline."""
    found = []
    for phase, text in (("warmup", "warm-up"), ("drain", "drain")):
        ends = [second["t_s"] for second in timeline if second.get("phase") == phase and second.get("t_s") is not None]
        if ends:
            found.append(Band(max(0.0, min(ends) - 1), max(ends), text))
    return tuple(found)
