"""Runs second by second: throughput, errors, latency, connections, the heatmap, and the generator's own health."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Picture, Plot, Section
from smtpbench.report.html.common import label_of
from smtpbench.report.html.curves import Chart, heatmap, mean, over_time, overlaid_time, phases, rates
from smtpbench.report.html.drawing import chart_svg, heatmap_svg

_ACCEPTED = ("accepted", "accepted", 0, "area")
_TROUBLES = (("rejected", "rejected", 1, "line"), ("failed", "failed", 4, "line"), ("dropped", "dropped", 3, "line"),
             ("errors", "errors", 6, "dashed"))  # fmt: skip
_HEATMAPS = 6

Timeline = Sequence[Mapping[str, Any]]


def time_section(runs: Sequence[Saved], timelines: Sequence[Timeline]) -> Section:
    """What happened when."""
    charts = _alone(timelines[0]) if len(runs) == 1 else _overlaid(runs, timelines)
    drawn = [chart for chart in charts if chart is not None]
    # two a row: of an odd number the first has a row of its own
    sizes = ["wide" if at == 0 and len(drawn) % 2 else "half" for at in range(len(drawn))]
    blocks: list[Block] = [Plot(chart, chart_svg(chart, size), size) for chart, size in zip(drawn, sizes, strict=True)]
    for run in runs[:_HEATMAPS]:
        who = f", {label_of(run)}" if len(runs) > 1 else ""
        title = f"message, response time over time{who}"
        grid = heatmap(run.seconds("message", "response"))
        if grid is not None:
            about = "The stronger a cell, the larger its share of that time's messages; a faint one may be a single message."
            blocks.append(Picture(title, heatmap_svg(grid, f"Heatmap: {title}"), grid, about))
    return Section("Over time", blocks)


def health_charts(runs: Sequence[Saved], timelines: Sequence[Timeline]) -> Iterator[Block]:
    """What the generator felt, second by second."""
    for column, title, unit in (("cpu_percent", "CPU of the generator, 100 % is a core", "percent"),
                                ("loop_lag_ms", "event loop late by", "ms")):  # fmt: skip
        chart = overlaid_time(title, unit, [
            (rows, [(column, label_of(run) if len(runs) > 1 else column.partition("_")[0], at, "line")])
            for at, (run, rows) in enumerate(zip(runs, timelines, strict=True))
        ])  # fmt: skip
        if chart is not None:
            yield Plot(chart, chart_svg(chart, "half"), "half")


def _alone(rows: Timeline) -> list[Chart | None]:
    bands = phases(rows)
    counted = rates(rows, ["accepted", *(column for column, _, _, _ in _TROUBLES)])
    troubles = [entry for entry in _TROUBLES if any(row[entry[0]] for row in counted)]
    percentiles = [(f"message_response_{name}_ms", name, key, "line") for key, name in ((0, "p50"), (1, "p99"), (4, "max"))]
    held = [("connections_open", "open", 0, "line"), ("connections_busy", "busy", 2, "line"),
            ("arrivals_waiting", "arrivals waiting", 1, "line")]  # fmt: skip
    return [
        over_time("accepted a second", "per_s", counted, [_ACCEPTED], join=mean, bands=bands),
        over_time("not accepted, and errors, a second", "per_s", counted, troubles, join=mean, bands=bands),
        over_time("message, response time", "ms", rows, percentiles, log=True, bands=bands),
        over_time("connections", "count", rows, held, bands=bands),
    ]


def _overlaid(runs: Sequence[Saved], timelines: Sequence[Timeline]) -> list[Chart | None]:
    names = [label_of(run) for run in runs]
    numbered = list(enumerate(zip(names, timelines, strict=True)))

    def of(column: str) -> list[tuple[Timeline, list[tuple[str, str, int, str]]]]:
        return [(rows, [(column, name, at, "line")]) for at, (name, rows) in numbered]

    accepted = [(rates(rows, ["accepted"]), [("accepted", name, at, "line")]) for at, (name, rows) in numbered]
    failed = [(rates(rows, ["failed"]), [("failed", name, at, "line")]) for at, (name, rows) in numbered]
    some_failed = any(row["failed"] for rows, _ in failed for row in rows)
    return [
        overlaid_time("accepted a second", "per_s", accepted, join=mean),
        overlaid_time("failed a second", "per_s", failed, join=mean) if some_failed else None,
        overlaid_time("message p99, response time", "ms", of("message_response_p99_ms"), log=True),
        overlaid_time("message p50, response time", "ms", of("message_response_p50_ms"), log=True),
    ]
