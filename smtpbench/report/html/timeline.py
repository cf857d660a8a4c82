"""Runs over time: throughput, errors, latency, connections, the heatmap, and the load of the generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Heatmap, Plot, Section
from smtpbench.report.html.curves import Chart, Mark, Timeline, mean, over_time, overlaid_time, phases, rates
from smtpbench.report.html.drawing import chart_svg, heatmap_svg
from smtpbench.report.html.heatmap import heatmap
from smtpbench.report.reading.head import label_of
from smtpbench.report.reading.server import deaths_of

_ACCEPTED = ("accepted", "accepted", 0, "area")
_PROBLEMS = (("rejected", "rejected", 1, "line"), ("failed", "failed", 4, "line"), ("dropped", "dropped", 3, "line"),
             ("errors", "errors", 6, "dashed"))  # fmt: skip
_MAX_HEATMAPS = 6
#: Deaths that a chart marks at most, and those that have a label.
_MAX_MARKS, _MAX_LABELS = 50, 3
_HEATMAP_ABOUT = "The colour of a cell is its share of the messages in its column. A faint cell may be a single message."


def time_section(runs: Sequence[Saved], timelines: Sequence[Timeline]) -> Section:
    """Return the section with everything over time."""
    charts = _single(timelines[0], death_marks(runs[0])) if len(runs) == 1 else _overlaid(runs, timelines)
    drawn = [chart for chart in charts if chart is not None]
    # two a row: of an odd number the first has a row of its own
    sizes = ["wide" if at == 0 and len(drawn) % 2 else "half" for at in range(len(drawn))]
    blocks: list[Block] = [Plot(chart, chart_svg(chart, size), size) for chart, size in zip(drawn, sizes, strict=True)]
    for run in runs[:_MAX_HEATMAPS]:
        suffix = f", {label_of(run)}" if len(runs) > 1 else ""
        title = f"Message, response time over time{suffix}"
        grid = heatmap(run.seconds("message", "response"))
        if grid is not None:
            blocks.append(Heatmap(title, heatmap_svg(grid, f"Heatmap: {title}"), grid, _HEATMAP_ABOUT))
    return Section("Over time", blocks)


def health_charts(runs: Sequence[Saved], timelines: Sequence[Timeline]) -> Iterator[Block]:
    """Yield charts of the generator's CPU and of the lag of its event loop."""
    for column, name, title, unit in (
        ("cpu_percent", "CPU", "CPU of the generator (100 % is one core)", "percent"),
        ("loop_lag_ms", "lag", "Event loop lag", "ms"),
    ):
        columns = [
            (timeline, [(column, label_of(run) if len(runs) > 1 else name, at, "line")])
            for at, (run, timeline) in enumerate(zip(runs, timelines, strict=True))
        ]
        chart = overlaid_time(title, unit, columns)
        if chart is not None:
            yield Plot(chart, chart_svg(chart, "half"), "half")


def death_marks(run: Saved) -> tuple[Mark, ...]:
    """Return a mark for each death of the server whose time is known; the first ones have a label."""
    times_s = [death.at_s for death in deaths_of(run)[:_MAX_MARKS] if death.at_s is not None]
    return tuple(Mark(at_s, "server died" if at < _MAX_LABELS else "", tone="bad") for at, at_s in enumerate(times_s))


def _single(timeline: Timeline, deaths: tuple[Mark, ...] = ()) -> list[Chart | None]:
    bands = phases(timeline)
    counted = rates(timeline, ["accepted", *(column for column, _, _, _ in _PROBLEMS)])
    problems = [entry for entry in _PROBLEMS if any(second[entry[0]] for second in counted)]
    percentiles = [(f"message_response_{name}_ms", name, key, "line") for key, name in ((0, "p50"), (1, "p99"), (4, "max"))]
    connections = [("connections_open", "open", 0, "line"), ("connections_busy", "busy", 2, "line"),
                   ("arrivals_waiting", "arrivals waiting", 1, "line")]  # fmt: skip
    return [
        over_time("Accepted messages per second", "per_s", counted, [_ACCEPTED], join=mean, bands=bands, marks=deaths),
        over_time("Problems per second", "per_s", counted, problems, join=mean, bands=bands, marks=deaths),
        over_time("Message, response time", "ms", timeline, percentiles, log=True, bands=bands, marks=deaths),
        over_time("Connections", "count", timeline, connections, bands=bands, marks=deaths),
    ]


def _overlaid(runs: Sequence[Saved], timelines: Sequence[Timeline]) -> list[Chart | None]:
    names = [label_of(run) for run in runs]
    numbered = list(enumerate(zip(names, timelines, strict=True)))

    def of(column: str) -> list[tuple[Timeline, list[tuple[str, str, int, str]]]]:
        return [(timeline, [(column, name, at, "line")]) for at, (name, timeline) in numbered]

    def rates_of(column: str) -> list[tuple[Timeline, list[tuple[str, str, int, str]]]]:
        return [(rates(timeline, [column]), [(column, name, at, "line")]) for at, (name, timeline) in numbered]

    failed = rates_of("failed")
    some_failed = any(second["failed"] for counted, _ in failed for second in counted)
    return [
        overlaid_time("Accepted messages per second", "per_s", rates_of("accepted"), join=mean),
        overlaid_time("Failed messages per second", "per_s", failed, join=mean) if some_failed else None,
        overlaid_time("Message p99, response time", "ms", of("message_response_p99_ms"), log=True),
        overlaid_time("Message p50, response time", "ms", of("message_response_p50_ms"), log=True),
    ]
