"""Latency of runs: percentile curves of every metric on an axis of nines, and a table of all metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Cell, Plot, Section
from smtpbench.report.html.common import short, table
from smtpbench.report.html.curves import Chart, percentile_curve
from smtpbench.report.html.drawing import chart_svg
from smtpbench.report.reading.formatting import format_ms
from smtpbench.report.reading.head import label_of
from smtpbench.report.reading.metrics import RESPONSE, SERVICE, MetricLatency, latencies_of, load_of, metric_order

#: Metrics that a page shows at most.
MAX_METRICS: Final = 40
_MAX_CURVES = 24
_MAX_NAME = 60
_COLUMNS = ("min", "p50", "p90", "p95", "p99", "p99_9", "max")
#: The first of these that was measured has the largest chart.
_MAIN_METRICS = ("message", "transaction", "session")

#: Latencies by metric, time, and whether replies were as expected.
Latencies = dict[tuple[str, str, bool], MetricLatency]


def latency_section(runs: Sequence[Saved]) -> Section:
    """Return the section on latency: curves first, then the figures."""
    latencies = [_latencies(run) for run in runs]
    names = metric_names(runs)
    main = next((name for name in _MAIN_METRICS if name in names), names[0] if names else "")
    ordered = [main, *(name for name in names if name != main)] if names else []
    blocks: list[Block] = []
    for name in ordered[:_MAX_CURVES]:
        chart = _chart(runs, latencies, name)
        if chart is not None:
            size = "small" if blocks else "wide"
            blocks.append(Plot(chart, chart_svg(chart, size), size))
    blocks += _tables(runs, latencies)
    about = "A curve shows the time within which a percentage of the samples completed. Every nine has the same width. "
    about += (
        "Response time starts when the arrival was scheduled, service time when the command was written."
        if any(load_of(run).is_open for run in runs)
        else "Service time starts when the command was written and ends with the reply."
    )
    return Section("Latency", blocks, about)


def metric_names(runs: Sequence[Saved], *, expected: bool = True) -> list[str]:
    """Return the metrics of all runs, in the order of a session."""
    names = set()
    for run in runs:
        measured = dict.fromkeys(latency.metric for latency in latencies_of(run) if latency.expected == expected)
        names |= set(list(measured)[:MAX_METRICS])
    return sorted(names, key=metric_order)


def _latencies(run: Saved) -> Latencies:
    return {(latency.metric, latency.time, latency.expected): latency for latency in latencies_of(run)}


def _chart(runs: Sequence[Saved], latencies: Sequence[Latencies], metric: str) -> Chart | None:
    curves: list[tuple[str, int, str, Histogram]] = []
    for at, (run, measured) in enumerate(zip(runs, latencies, strict=True)):
        times = ((RESPONSE, "line"), (SERVICE, "dashed")) if load_of(run).is_open else ((SERVICE, "line"),)
        for number, (time, look) in enumerate(times):
            latency = measured.get((metric, time, True))
            histogram = latency.decoded() if latency is not None else None
            if histogram is not None and histogram.count:
                name = f"{label_of(run)}, {time}" if len(runs) > 1 else time
                curves.append((name, at if len(runs) > 1 else number, look, histogram))
    return percentile_curve(short(metric, _MAX_NAME), curves)


def _tables(runs: Sequence[Saved], latencies: Sequence[Latencies]) -> Iterator[Block]:
    several = len(runs) > 1
    heads = ["metric", *(["run"] if several else []), "count", *(name.replace("_", ".") for name in _COLUMNS)]
    for expected, title in ((True, "expected replies"), (False, "unexpected replies")):
        for time in (SERVICE, RESPONSE):
            if time == RESPONSE and not any(load_of(run).is_open for run in runs):
                continue
            table_rows = list(_table_rows(runs, latencies, time, expected=expected))
            if table_rows:
                caption = f"{time.capitalize()} time, {title}"
                yield table(heads, table_rows, caption=caption, numbers=2 if several else 1)


def _table_rows(
    runs: Sequence[Saved], latencies: Sequence[Latencies], time: str, *, expected: bool
) -> Iterator[list[Cell | str]]:
    for metric in metric_names(runs, expected=expected):
        for at, (run, measured) in enumerate(zip(runs, latencies, strict=True)):
            latency = measured.get((metric, time, expected))
            if latency is not None:
                label = [Cell(label_of(run), key=at)] if len(runs) > 1 else []
                figures = (format_ms(latency.ms[f"{name}_ms"]) for name in _COLUMNS)
                yield [short(metric, _MAX_NAME), *label, f"{latency.samples:,}", *figures]
