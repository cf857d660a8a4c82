"""`.hgrm`, read as HdrHistogram's plotFiles.html reads it, against the library's own percentiles."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram
from hostile_results import check_result, comparison_result, run_result, saved

from smtpbench.errors import UsageError
from smtpbench.measure.histogram import Histogram
from smtpbench.report.formats.hgrm import hgrm, percentile_lines

_ROW = re.compile(r" *(\d+\.\d{3}) +(\d\.\d{12}) +(\d+)(?: +(\d+\.\d{2}))?")


def plotted(text: str) -> list[tuple[float, float, int]]:
    """Return (milliseconds, share, count) for each line, and assert what a strict reader of the format expects."""
    head, blank, *rest = text.splitlines()
    assert head.split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert blank == ""
    value_lines = [line for line in rest if not line.startswith("#")]
    foot = rest[len(value_lines) :]
    assert [line.split()[0] for line in foot[:3]] == ["#[Mean", "#[Max", "#[Buckets"]
    assert all(line.startswith("#[") and line.endswith("]") for line in foot)
    found = []
    for line in value_lines:
        match = _ROW.fullmatch(line)
        assert match, line
        share = float(match[2])
        assert share == 1 or match[4] is not None
        if share < 0.999999:
            assert float(match[4]) == pytest.approx(1 / (1 - share), rel=0.01)
        found.append((float(match[1]), share, int(match[3])))
    return found


@pytest.mark.parametrize("time", ["response", "service"])
def test_percentiles_agree_with_the_library(time: str) -> None:
    result = run_result("x")
    plotted_lines = plotted(hgrm([saved(result)], metric="RCPT", time=time))
    times = result["latency"]["RCPT"][time]
    library: Any = HdrHistogram.decode(times["histogram"])
    for value_ms, share, count in plotted_lines:
        expected_ms = min(library.get_value_at_percentile(100 * count / times["count"]) / 1000, times["max_ms"])
        assert count >= share * times["count"] - 1e-6
        assert value_ms == pytest.approx(expected_ms, abs=0.0006)
    assert plotted_lines[-1][1:] == (1.0, times["count"])
    assert plotted_lines[-1][0] == pytest.approx(times["max_ms"], abs=0.0006)
    assert plotted_lines == sorted(plotted_lines)
    assert plotted_lines[0][1] == 0


def test_steps_are_those_of_hdrhistogram() -> None:
    draw = random.Random(1)
    plotted_lines = plotted(percentile_lines(Histogram.of([draw.randrange(10**9) for _ in range(1000)]), "note"))
    assert [share for _, share, _ in plotted_lines[:9]] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65]
    assert plotted_lines[-2][1] >= 0.999


def test_histograms_of_no_few_and_many_samples_are_written() -> None:
    assert plotted(percentile_lines(Histogram(), "note")) == []
    assert {row[0] for row in plotted(percentile_lines(Histogram.of([5_000_000]), "note"))} == {5.0}
    many = Histogram()
    many.counts.update({5: 2**62, 9: 1})
    many.count, many.max_ns = 2**62 + 1, 9_000
    plotted_lines = plotted(percentile_lines(many, "note"))
    assert len(plotted_lines) < 400
    assert plotted_lines[-1] == (0.009, 1.0, 2**62 + 1)


def test_without_exactly_one_histogram_there_is_a_clear_error() -> None:
    run = saved(run_result("x"))
    note = hgrm([saved(comparison_result()), run]).splitlines()[-1]
    assert note == "#[Values in milliseconds: message response time of mine (2)]"
    for results, metric, message in (
        ([run, run], "message", "2 results hold message response"),
        ([run], "nosuch", "these results hold no histogram of nosuch response; available metrics: .*RCPT"),
        ([saved(comparison_result())], "message", "nor any other latency"),
    ):
        with pytest.raises(UsageError, match=message):
            hgrm(results, metric=metric)
    broken = check_result("x", latency={"RCPT": {"response": {"count": 1, "histogram": "HISTblah"}}})
    with pytest.raises(UsageError, match="is not readable"):
        hgrm([saved(broken)], metric="RCPT")
