"""A capacity search on the console: its steps with a plot of latency over rate.

The plot has a line for each step, by rate: the median (`o`) and the 99th percentile (`#`) of the message's response time on
a logarithmic scale, and the limit of the objective (`:`) where there is one. The knee is where the marks leave the left
margin. Where the server was watched, there are its share of the machine's cores and its CPU time for a message too.

It is made from the result alone. A result may come from anywhere: a value that is not a number is shown as missing, and text
is escaped.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from smtpbench.errors import UsageError
from smtpbench.measure.saved import CAPACITY, Saved
from smtpbench.report.reading.capacity import (
    CapacityStep,
    FoundCapacity,
    capacity_of,
    capacity_schedule_of,
    capacity_steps_of,
    has_server_figures,
)
from smtpbench.report.reading.head import head_of
from smtpbench.report.reading.verdict import further_notes_of
from smtpbench.report.terminal.screen import Screen, styled
from smtpbench.threshold import TIME, parse_threshold
from smtpbench.units import NS_PER_S, format_duration

_BOLD, _GREEN, _RED, _YELLOW, _PLAIN = "1", "32", "1;31", "33", ""
#: Columns of the plot, of the figures beside it, and of those of the server.
_PLOT_CELLS, _TABLE_CELLS, _SERVER_CELLS = 30, 49, 17
_MAX_MS = 1e9
_BLAMED = {"generator": "generator?", "connections": "too few -c"}


def capacity_table(result: Mapping[str, Any], *, color: bool = False, screen: Screen | None = None) -> str:
    """Return the report of a search, with a line for each step, by rate.

    Args:
        result: Content of `result.json`.
        color: Whether to use ANSI escapes.
        screen: Size to wrap long lines to; None for whole lines.
    """
    saved = Saved(CAPACITY, dict(result), Path())
    head, found, objectives = head_of(saved), capacity_of(saved), capacity_schedule_of(saved).objectives
    lines = [
        (f"{head.scenario} against {head.target}  {head.banner}", _PLAIN),
        *((line, _PLAIN) for line in _wrapped(f"objectives: {', '.join([*objectives, 'no growing backlog'])}", screen)),
    ]
    steps = capacity_steps_of(saved)
    if steps:
        lines += [("", _PLAIN), *_plot(steps, found, _limit_ms(objectives), screen)]
    lines += [(f"note: {note}", _PLAIN) for note in further_notes_of(saved)]
    return "\n".join(styled(line, style if color else _PLAIN) for line, style in lines)


def _wrapped(text: str, screen: Screen | None) -> list[str]:
    if screen is None:
        return [text]
    return textwrap.wrap(text, screen.width, subsequent_indent="  ", break_long_words=False)


def _plot(
    steps: Sequence[CapacityStep], found: FoundCapacity, limit_ms: float | None, screen: Screen | None
) -> list[tuple[str, str]]:
    """Return a line for each step, by rate."""
    times = [ms for step in steps for ms in map(_time_ms, (step.p50_ms, step.p99_ms)) if ms is not None]
    times += [limit_ms] if limit_ms and times else []
    scale = (min(times), max(max(times), min(times) * 1.01)) if times else (1.0, 10.0)
    ends = [_ms(ms) for ms in scale]
    with_server = has_server_figures(steps)
    beside = _TABLE_CELLS + (_SERVER_CELLS if with_server else 0)
    width = _PLOT_CELLS if screen is None else min(_PLOT_CELLS, screen.width - beside)
    between = width - len(ends[0]) - len(ends[1])
    title = "response" if between > len("response") + 1 else ""
    head = f"{ends[0]}{title:^{max(1, between)}}{ends[1]}" if times else ""
    of_server = f" {'server':>7} {'CPU/msg':>8}" if with_server else ""
    lines = [(f"{'rate':>9} {'':10} {'served':>9} {'p50':>7} {'p99':>7}{of_server}   {head}".rstrip(), _PLAIN)]
    for step in sorted(steps, key=lambda step: step.rate_per_s or 0.0):
        outcome = "passed" if step.held else _BLAMED.get(step.limited_by, "FAILED")
        if step.held and step.rate_per_s == found.rate_per_s:
            outcome, style = "passed <--", _GREEN
        else:
            style = _PLAIN if step.held else _YELLOW if step.limited_by else _RED
        median_ms, p99_ms = _time_ms(step.p50_ms), _time_ms(step.p99_ms)
        figures = f"{_rate(step.rate_per_s):>9} {outcome:<10} {_rate(step.throughput_per_s):>9}"
        bar = _bar(median_ms, p99_ms, limit_ms, scale, width)
        used = f" {_share(step.server_cores_share):>7} {_ms(step.server_cpu_ms_per_message):>8}" if with_server else ""
        lines.append((f"{figures} {_ms(median_ms):>7} {_ms(p99_ms):>7}{used}   {bar}".rstrip(), style))
    return lines


def _bar(
    median_ms: float | None, p99_ms: float | None, limit_ms: float | None, scale: tuple[float, float], width: int
) -> str:
    if median_ms is None or p99_ms is None:
        return ""
    low, high = scale

    def column(ms: float) -> int:
        return round((width - 1) * math.log(ms / low) / math.log(high / low))

    columns = [" "] * width
    if limit_ms:
        columns[column(limit_ms)] = ":"
    begin, end = sorted((column(median_ms), column(p99_ms)))
    columns[begin : end + 1] = ["o", *"-" * (end - begin - 1), "#"] if end > begin else ["#"]
    return "".join(columns)


def _limit_ms(objectives: Iterable[str]) -> float | None:
    """Return the limit of the first objective on the message's response time."""
    for text in objectives:
        try:
            threshold = parse_threshold(text)
        except (UsageError, OverflowError):  # a made-up file may hold a limit that is too large for a number
            continue
        if threshold.path[:2] == ("message", "response") and threshold.kind == TIME and 0 < threshold.limit < _MAX_MS:
            return threshold.limit
    return None


def _time_ms(ms: float | None) -> float | None:
    """Return a time that a run can have measured; None for anything else."""
    return ms if ms is not None and 0 < ms < _MAX_MS else None


def _ms(ms: float | None) -> str:
    return "-" if ms is None else format_duration(ms * NS_PER_S / 1000).replace(" ", "")


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _rate(rate_per_s: float | None) -> str:
    return "-" if rate_per_s is None else f"{rate_per_s:.4g}/s" if rate_per_s < 10_000 else f"{rate_per_s:,.0f}/s"
