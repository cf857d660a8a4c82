"""The server under test on a page: what it used, over time and in total, how it died, and what its log said.

The charts share their axis of time with those of the load. Their values are those of `server.csv`, which holds differences
for each second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from smtpbench.measure.saved import Saved
from smtpbench.measure.timeline import Timeline as SavedTimeline
from smtpbench.report.html.blocks import Block, Card, Listing, Notice, Plot, Section
from smtpbench.report.html.common import ALL_TEXT, MAX_SHOWN, short, table
from smtpbench.report.html.curves import KIB, MIB, Chart, Timeline, mean, overlaid_time, phases
from smtpbench.report.html.drawing import chart_svg
from smtpbench.report.html.timeline import death_marks
from smtpbench.report.reading.formatting import MISSING, format_count, format_ms, format_seconds
from smtpbench.report.reading.head import label_of
from smtpbench.report.reading.lenient import greatest
from smtpbench.report.reading.server import (
    ServerUsage,
    deaths_by_cause,
    format_cpu_s,
    format_size,
    log_lines_by_text,
    server_of,
    totals_of_server,
)
from smtpbench.text import plural

_MIB: Final = 2**20
_MAX_CAUSES = 30
_MAX_LINE = 600
#: Rows of the table for readers without JavaScript.
_MAX_PARTS = 20
#: A second that is shorter than this has no rate, seconds.
_SHORT_S = 0.1
#: Columns of the charts, made of those of `server.csv`.
_COLUMNS: Final = (
    "t_s", "cpu_cores", "cpu_user_cores", "cpu_system_cores", "memory_mib", "fds", "threads", "processes", "read_mib",
    "write_mib",
)  # fmt: skip
#: Charts of one run: title, unit, (column, name, colour, look); and how the seconds of a point are joined.
_CHARTS: Final = (
    ("CPU of the server, cores", "count",
     (("cpu_cores", "user + system", 0, "area"), ("cpu_system_cores", "system", 1, "line")), mean),
    ("Memory of the server", MIB, (("memory_mib", "memory", 2, "line"),), max),
    ("Descriptors, threads and processes of the server", "count",
     (("fds", "descriptors", 0, "line"), ("threads", "threads", 1, "line"), ("processes", "processes", 3, "dashed")), max),
    ("Disk of the server, per second", MIB,
     (("write_mib", "written", 4, "line"), ("read_mib", "read", 6, "line")), mean),
)  # fmt: skip
#: Charts of several runs laid over one another: title, unit, column, how the seconds of a point are joined.
_OVERLAID: Final = (
    ("CPU of the server, cores", "count", "cpu_cores", mean),
    ("Memory of the server", MIB, "memory_mib", max),
    ("Descriptors of the server", "count", "fds", max),
    ("Written to disks by the server, per second", MIB, "write_mib", mean),
)


def server_section(runs: Sequence[Saved], timelines: Sequence[Timeline] = ()) -> Section:
    """Return the section on the server; without blocks where nothing is known of it.

    Args:
        runs: The results.
        timelines: Their timelines, whose axis of time the charts share.
    """
    known = [(run, server) for run in runs if (server := server_of(run)) is not None]
    usages = [usage_over_time(run.server_timeline()) for run, _ in known]
    blocks: list[Block] = []
    for run, server in known:
        blocks += _deaths(server, f"{label_of(run)}: " if len(runs) > 1 else "")
    drawn = [chart for chart in _charts(runs, [run for run, _ in known], usages, timelines) if chart is not None]
    sizes = ["wide" if at == 0 and len(drawn) % 2 else "half" for at in range(len(drawn))]
    blocks += [Plot(chart, chart_svg(chart, size), size) for chart, size in zip(drawn, sizes, strict=True)]
    if len(usages) == 1 and drawn:
        blocks.append(_seconds_table(usages[0]))
    if known:
        blocks.append(_totals(runs, known))
    for run, server in known:
        blocks += _log(server, f"{label_of(run)}: " if len(runs) > 1 else "")
    return Section("Server", blocks, "What the processes of the server under test used, those that ended included.")


def server_cards(saved: Saved) -> list[Card]:
    """Return the key figures of the server."""
    server = server_of(saved)
    if server is None:
        return []
    cards = []
    if server.cpu_ms_per_message is not None:
        cards.append(Card("server", format_ms(server.cpu_ms_per_message), "of CPU for an accepted message"))
    elif server.cpu_s is not None:
        cards.append(Card("server", format_cpu_s(server.cpu_s), "of CPU"))
    if server.deaths:
        cards.append(Card("server died", plural(len(server.deaths), "time"), short(server.deaths[0].how, 60), "bad"))
    return cards


def usage_over_time(timeline: Timeline) -> SavedTimeline:
    """Return what the server used, by the second: CPU in cores, memory and disk in MiB; None for what is not known."""
    found, before_s = SavedTimeline(_COLUMNS), 0.0
    for second in timeline:
        t_s = second.get("end_s")
        if t_s is None or t_s <= before_s:
            continue
        length_s, before_s = t_s - before_s, t_s

        def mib(column: str, per_s: float, row: Mapping[str, Any] = second) -> float | None:
            value = row.get(column)
            return None if value is None or per_s < _SHORT_S else value / _MIB / per_s

        user, system = second.get("cpu_user_share"), second.get("cpu_system_share")
        found.append({
            "t_s": t_s, "cpu_user_cores": user, "cpu_system_cores": system,
            "cpu_cores": None if user is None or system is None else user + system,
            "memory_mib": mib("memory_bytes", 1.0), "read_mib": mib("read_bytes", length_s),
            "write_mib": mib("write_bytes", length_s),
            **{name: second.get(name) for name in ("fds", "threads", "processes")},
        })  # fmt: skip
    return found


def _charts(
    runs: Sequence[Saved], known: Sequence[Saved], usages: Sequence[Timeline], timelines: Sequence[Timeline]
) -> Iterator[Chart | None]:
    end_s = greatest([second.get("t_s") for timeline in timelines for second in timeline])
    if len(runs) == 1:
        bands = phases(timelines[0]) if timelines else ()
        for run, usage in zip(known, usages, strict=True):
            for title, unit, columns, join in _CHARTS:
                shown, (scaled,) = _scaled(unit, [usage], [column for column, *_ in columns])
                yield overlaid_time(
                    title, shown, [(scaled, columns)], join=join, bands=bands, marks=death_marks(run), least_end_s=end_s
                )
        return
    at_of = {id(run): at for at, run in enumerate(runs)}
    for title, unit, column, join in _OVERLAID:
        shown, scaled_usages = _scaled(unit, usages, [column])
        columns_of = [
            (usage, [(column, label_of(run), at_of[id(run)], "line")])
            for run, usage in zip(known, scaled_usages, strict=True)
        ]
        yield overlaid_time(title, shown, columns_of, join=join, least_end_s=end_s)


def _scaled(unit: str, usages: Sequence[Timeline], columns: Sequence[str]) -> tuple[str, Sequence[Timeline]]:
    """Return sizes in KiB where all of them are below a MiB, with the unit; anything else as it is."""
    most = greatest([second.get(column) for usage in usages for second in usage for column in columns])
    if unit != MIB or not 0 < most < 1:
        return unit, usages
    return KIB, [
        [
            {**second, **{column: 1024 * second[column] for column in columns if second.get(column) is not None}}
            for second in usage
        ]
        for usage in usages
    ]


def _totals(runs: Sequence[Saved], known: Sequence[tuple[Saved, ServerUsage]]) -> Block:
    columns = [totals_of_server(server) for _, server in known]
    names = list(dict.fromkeys(name for column in columns for name, _ in column))
    values = [dict(column) for column in columns]
    shown = [
        [name, *(short(column.get(name, MISSING)) for column in values)]
        for name in names
        if any(column.get(name, MISSING) != MISSING for column in values)
    ]
    heads = [label_of(run) for run, _ in known] if len(runs) > 1 else ["value"]
    return table(["figure", *heads], shown)


def _seconds_table(usage: Timeline) -> Block:
    """The values of the charts for readers without JavaScript, who cannot point at a curve."""
    seconds = list(usage)
    size = max(1, -(-len(seconds) // _MAX_PARTS))
    parts = [seconds[at : at + size] for at in range(0, len(seconds), size)]

    def joined(
        part: Sequence[Mapping[str, Any]],
        column: str,
        join: Callable[[Sequence[float]], float],
        shown: Callable[[float], str],
    ) -> str:
        values = [second[column] for second in part if second.get(column) is not None]
        return shown(join(values)) if values else MISSING

    def size_of(value: float) -> str:
        return format_size(value * _MIB)

    table_rows = [
        [
            format_seconds(part[-1]["t_s"]), joined(part, "cpu_cores", mean, lambda value: f"{value:.2f}"),
            joined(part, "memory_mib", max, size_of), joined(part, "fds", max, format_count),
            joined(part, "threads", max, format_count), joined(part, "read_mib", mean, size_of),
            joined(part, "write_mib", mean, size_of),
        ]
        for part in parts
    ]  # fmt: skip
    heads = ["until", "CPU, cores", "memory", "descriptors", "threads", "read a second", "written a second"]
    made = table(heads, table_rows, caption="The server over time", as_cards=True)
    return replace(made, without_script=True)


def _deaths(server: ServerUsage, prefix: str) -> Iterator[Block]:
    groups = deaths_by_cause(server.deaths)
    for deaths in groups[:_MAX_CAUSES]:
        details = [f"{name}: {short(value)}" for name, value in deaths.details]
        yield Notice(f"{prefix}{short(deaths.headline)}", details, "bad")
        if deaths.first.output:
            title = f"{prefix}output of the server before it died"
            yield Listing(title, "\n".join(short(line, _MAX_LINE) for line in deaths.first.output))
    more = len(groups) - _MAX_CAUSES
    if more > 0:
        yield Notice(f"{prefix}and {plural(more, 'more cause')} of death: see result.json", (), "bad")


def _log(server: ServerUsage, prefix: str) -> Iterator[Block]:
    if not server.log_lines:
        return
    groups = log_lines_by_text(server.log_lines)
    table_rows = [
        [
            MISSING if line.at_s is None else format_seconds(line.at_s),
            short(line.source),
            f"{number:,}",
            short(line.text, _MAX_LINE),
        ]
        for line, number in groups[:MAX_SHOWN]
    ]
    more = sum(number for _, number in groups[MAX_SHOWN:]) + server.log_lines_dropped
    heads = ["first after", "source", "count", "line"]
    caption = f"{prefix}Lines on errors in the server's log" + (f", and {plural(more, 'more line')}" if more else "")
    yield table(heads, table_rows, caption=caption, numbers=ALL_TEXT, as_cards=True)
