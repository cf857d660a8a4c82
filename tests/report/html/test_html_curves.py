"""Axes and points of charts: the nines axis, ticks, and aggregation over time."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from smtpbench.measure.histogram import Histogram
from smtpbench.report.html.curves import (
    LOG,
    RATE,
    TIME,
    Axis,
    Band,
    linear,
    logarithmic,
    mean,
    nines,
    over_time,
    overlaid_time,
    percentile_curve,
    phases,
    rates,
)

MS = 1_000_000


def histogram(count: int, seed: int = 1) -> Histogram:
    generator = random.Random(seed)
    return Histogram.of([int(generator.lognormvariate(1, 1) * MS) for _ in range(count)])


def test_every_nine_has_the_same_width() -> None:
    axis = nines(100_000)
    places = {text: place for place, text in axis.ticks}
    assert places["50 %"] == pytest.approx(math.log10(2))
    assert [places[text] for text in ("0 %", "90 %", "99 %", "99.9 %", "99.99 %")] == pytest.approx([0, 1, 2, 3, 4])
    assert axis.high == pytest.approx(5)  # 100,000 samples resolve one in 100,000


@pytest.mark.parametrize("count", [1, 2, 9, 1000, 12_345])
def test_curve_holds_the_percentiles_and_ends_at_the_maximum(count: int) -> None:
    one = histogram(count)
    chart = percentile_curve("message", [("service", 0, "line", one)])
    assert chart is not None
    points = [(x, y) for x, y in zip(chart.xs, chart.series[0].points, strict=True) if y is not None]
    for x, y in points[:-1]:
        percent = 100 * (1 - 10**-x)
        assert y == pytest.approx(one.percentiles_ms([percent])[percent], rel=0.02)
    assert points[-1][1] == one.max_ns / MS
    assert points[-1][0] == pytest.approx(math.log10(count), abs=1 / 16)
    assert [y for _, y in points] == sorted(y for _, y in points)
    assert chart.y.low <= points[0][1]
    assert chart.y.high >= points[-1][1]


def test_curve_of_fewer_samples_ends_earlier() -> None:
    chart = percentile_curve("message", [("few", 0, "line", histogram(10)), ("many", 1, "line", histogram(10_000))])
    assert chart is not None
    few, many = (series.points for series in chart.series)
    assert few[-1] is None
    assert None not in many
    assert sum(point is not None for point in few) == 17  # 16 points for a nine, and the end
    assert percentile_curve("message", []) is None


@pytest.mark.parametrize(
    ("axis", "texts"),
    [
        (linear("per_s", 950), ["0", "200", "400", "600", "800", "1,000"]),
        (linear("count", 3), ["0", "0.5", "1", "1.5", "2", "2.5", "3"]),
        (linear("s", 14, kind=TIME), ["0 s", "5 s", "10 s"]),
        (linear("s", 600, kind=TIME), ["0 s", "2 min", "4 min", "6 min", "8 min", "10 min"]),
        (linear("s", 90_000, kind=TIME), ["0 s", "250 min", "500 min", "750 min", "1000 min", "1250 min", "1500 min"]),
        (linear("percent", 97), ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]),
        (logarithmic("ms", [0.4, 9]), ["200 us", "500 us", "1 ms", "2 ms", "5 ms", "10 ms"]),
        (logarithmic("ms", [0.02, 4000]), ["100 us", "1 ms", "10 ms", "100 ms", "1 s"]),
        (logarithmic("ms", []), ["1 ms", "2 ms"]),
    ],
)  # fmt: skip
def test_ticks_are_round_and_few(axis: Axis, texts: list[str]) -> None:
    assert [text for _, text in axis.ticks] == texts
    assert all(axis.low - 1e-9 <= place <= axis.high + 1e-9 for place, _ in axis.ticks)


def test_values_have_their_place_on_an_axis() -> None:
    assert [linear("", 100).place(value) for value in (-5, 0, 25, 100, 1e9)] == [0, 0, 0.25, 1, 1]
    assert Axis(LOG, "ms", 1, 100, ()).place(10) == pytest.approx(0.5)
    assert linear("per_s", 816, kind=RATE).high == 816


def test_seconds_of_a_long_run_share_points() -> None:
    timeline = [{"t_s": at + 1.0, "max": float(at % 7)} for at in range(6000)]
    chart = over_time("latency", "ms", timeline, [("max", "max", 0, "line")])
    assert chart is not None
    assert len(chart.xs) == 600
    assert chart.series[0].points == (6.0,) * 600  # the worst of ten seconds
    averaged = over_time("rate", "per_s", timeline, [("max", "max", 0, "line")], join=mean)
    assert averaged is not None
    assert averaged.series[0].points[0] == pytest.approx(sum(at % 7 for at in range(10)) / 10)


def test_second_without_a_value_is_a_gap_and_no_values_are_no_chart() -> None:
    timeline: list[dict[str, Any]] = [{"t_s": 1.0, "p99": 5.0}, {"t_s": 2.0, "p99": None}, {"t_s": 3.0, "p99": 7.0}]
    chart = over_time("latency", "ms", timeline, [("p99", "p99", 0, "line"), ("p50", "p50", 1, "line")], log=True)
    assert chart is not None
    assert [series.points for series in chart.series] == [(5.0, None, 7.0)]
    assert over_time("latency", "ms", timeline, [("nothing", "", 0, "line")]) is None
    assert overlaid_time("latency", "ms", []) is None


def test_rate_is_the_count_divided_by_the_length_of_the_tick() -> None:
    timeline: list[dict[str, Any]] = [
            {"t_s": 1.0, "accepted": 100.0}, {"t_s": 3.0, "accepted": 100.0}, {"t_s": 3.1, "accepted": 26.0},
            {"t_s": 3.1, "accepted": 9.0}, {"t_s": None, "accepted": 9.0}]  # fmt: skip
    found = rates(timeline, ["accepted"])
    assert [row["t_s"] for row in found] == [1.0, 3.1]
    assert [row["accepted"] for row in found] == pytest.approx([100, 135 / 2.1])


def test_warmup_and_drain_are_shaded() -> None:
    timeline = [{"t_s": float(at + 1), "phase": "warmup" if at < 3 else "steady" if at < 8 else "drain"} for at in range(9)]
    assert phases(timeline) == (Band(0.0, 3.0, "warm-up"), Band(8.0, 9.0, "drain"))
