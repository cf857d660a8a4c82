"""The console report of a load run.

Everything here is made from a result alone. Text in a result has its control characters escaped already (`smtpbench.text`).
A file may come from anywhere, so it is escaped once more before it is shown.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smtpbench.measure.saved import RUN, Saved
from smtpbench.report.reading.findings import recorded_findings_of
from smtpbench.report.reading.formatting import MISSING, format_ms
from smtpbench.report.reading.head import generator_of, head_of
from smtpbench.report.reading.metrics import (
    RESPONSE,
    SERVICE,
    SHOWN_DRAIN_S,
    RunLoad,
    counts_of,
    example_of_reply,
    examples_of,
    hostile_of,
    latencies_of,
    load_of,
    messages_of,
    metric_order,
    throughput_of,
)
from smtpbench.report.reading.verdict import further_notes_of, verdict_of
from smtpbench.report.terminal.screen import Screen, cells, cut, padded, styled
from smtpbench.report.terminal.server import server_lines
from smtpbench.report.terminal.verdict import verdict_lines
from smtpbench.text import plural, visible
from smtpbench.units import format_bytes

#: Latency metrics in the order of importance, for a screen that cannot hold all.
_IMPORTANT = (
    "message", "transaction", "transfer", "pipeline", "session", "connect", "tls", "RCPT", "MAIL", "DATA", "AUTH", "EHLO",
)  # fmt: skip
#: Lines of a screen that errors and refusals get, however many latency metrics there are.
_ERROR_LINES = 4
#: Lines of a screen that the server gets at most, and that errors and latency are left if it takes more than one.
_SERVER_LINES, _LEAST_LINES = 5, 8
#: Lines of the shortest table of latency: its head, one metric, and how many more there are.
_LEAST_TABLE = 3
_METRIC_CELLS = 12
_PLAIN, _BOLD, _YELLOW = "", "1", "33"


def final_table(result: Mapping[str, Any], place: str, *, color: bool = False, screen: Screen | None = None) -> str:
    """Return the report of a run.

    Args:
        result: Content of `result.json`.
        place: Where the result is saved; the line of it is the only one that may be wider than the screen.
        color: Whether to use ANSI escapes.
        screen: Size to fit into, by leaving out what `result.json` holds too; None for everything, in whole lines.
    """
    run = Saved(RUN, dict(result), Path(place))
    head = _headline(run, screen)
    before, notes = [*_hostile(run), _generator(run)], _notes(run, screen)
    saved, verdict = f"saved: {visible(place, 1000)}", verdict_lines(verdict_of(run), screen)
    errors = _errors(run)
    if screen is None:
        foot = [*before, *server_lines(run), *notes]
        metrics = _latency(run, None)
    else:
        last = len(verdict) + (cells(saved) + screen.width - 1) // screen.width
        room = screen.height - len(head) - len(before) - len(notes) - last
        server = server_lines(run, screen, max(1, min(_SERVER_LINES, room - _LEAST_LINES)))
        foot = [*before, *server, *notes]
        room -= len(server)
        kept = _fold(errors, min(len(errors), _ERROR_LINES), "kind")
        metrics = _latency(run, room - len(kept))
        errors = _fold(errors, room - len(metrics), "kind") if len(errors) > len(kept) else kept
    lines = [(line, _BOLD if at == 1 else _PLAIN) for at, line in enumerate(head)]
    lines += [(line, _PLAIN) for line in metrics]
    lines += [(line, _YELLOW) for line in errors]
    lines += [(line, _PLAIN) for line in foot]
    lines = [(line if screen is None else cut(line, screen.width), style) for line, style in lines]
    lines += [(saved, _PLAIN), *verdict]
    return "\n".join(styled(line, style if color else _PLAIN) for line, style in lines)


def _headline(run: Saved, screen: Screen | None) -> list[str]:
    head, messages, load = head_of(run), messages_of(run), load_of(run)
    title = f"{head.scenario} → {head.target}"
    throughput = throughput_of(run)
    per_second = MISSING if throughput is None else f"{throughput:,.1f}"
    rate = f"{per_second} messages/s accepted over {_decimal(load.sending_s)} s"
    if load.draining_s is not None and load.draining_s >= SHOWN_DRAIN_S:
        rate += f" of sending, then {load.draining_s:.1f} s of drain"
    recipients = counts_of(run, "recipients")
    rate += f"  (recipients {recipients.get(('accepted',), 0):,}, refused {recipients.get(('rejected',), 0):,})"
    always = ("accepted", "rejected", "failed")
    shown = [name for name, count in messages.items() if name != "attempted" and (count or name in always)]
    # a hard space keeps a name and its number on one line
    total, *parts = (f"{name}\xa0{messages[name]:,}" for name in ("attempted", *shown))
    sums = f"{total} = {' + '.join(parts)}"
    lines = [sums] if screen is None else textwrap.wrap(sums, screen.width, subsequent_indent="  ")
    connections = _connections(load.connections)
    if load.is_open:
        model = f"open model, {_rate(load)} {load.arrival_process}, at most {connections}"
    else:
        model = f"closed model, {connections}: latency not safe from coordinated omission"
    return [title, rate, *(line.replace("\xa0", " ") for line in lines), model]


def _decimal(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"


def _connections(count: float | None) -> str:
    return f"{MISSING} connections" if count is None else plural(int(count), "connection")


def _rate(load: RunLoad) -> str:
    rates = load.rates_per_s
    if not rates:
        return MISSING
    return f"{rates[0]:g}/s" if len(set(rates)) == 1 else f"{min(rates):g}–{max(rates):g}/s"


def _latency(run: Saved, room: int | None) -> list[str]:
    """Return the table of latency metrics in at most `room` lines; None for all."""
    is_open = load_of(run).is_open
    latencies = {(one.metric, one.time): one for one in latencies_of(run) if one.expected}
    measured = list(dict.fromkeys(metric for metric, time in latencies if time == SERVICE))
    if not measured:
        return []
    shown = sorted(measured, key=_importance)
    if room is not None and len(shown) + 1 > room:
        if room < _LEAST_TABLE:
            return [f"latency: {plural(len(shown), 'metric')}; see result.json"][: max(0, room)]
        shown = shown[: room - 2]
    names = {metric: metric if room is None else cut(metric, _METRIC_CELLS) for metric in shown}
    width = max([_METRIC_CELLS, *map(cells, names.values())])
    percentiles = ("p50", "p95", "p99", "max")
    heads = "".join(f"{head:>9}" for head in percentiles) + (f"{'resp. p50':>11}{'resp. p99':>11}" if is_open else "")
    lines = [f"{'service time':<{width}}{'count':>10}{heads}"]
    for metric in sorted(shown, key=metric_order):
        service, response = latencies[metric, SERVICE], latencies.get((metric, RESPONSE))
        figures = f"{service.samples:>10,}" + "".join(f"{format_ms(service.ms[f'{name}_ms']):>9}" for name in percentiles)
        if is_open:
            times = [None if response is None else response.ms[f"{name}_ms"] for name in ("p50", "p99")]
            figures += "".join(f"{format_ms(time):>11}" for time in times)
        lines.append(padded(names[metric], width) + figures)
    if len(shown) < len(measured):
        lines.append(f"and {plural(len(measured) - len(shown), 'more metric')}; see result.json")
    return lines


def _importance(metric: str) -> tuple[int, tuple[int, str]]:
    return _IMPORTANT.index(metric) if metric in _IMPORTANT else len(_IMPORTANT), metric_order(metric)


def _errors(run: Saved) -> list[str]:
    """Return errors by kind and refusals, the most frequent first, each with an example."""
    examples = examples_of(run)
    found = [(count, f"{path[0]}: {examples.get(path[0], '')}") for path, count in counts_of(run, "errors").items()]
    for path, count in counts_of(run, "replies").items():
        example = example_of_reply(examples, *path) if len(path) == 2 else ""
        if example:
            found.append((count, f"{path[0]} refused: {example}"))
    found.sort(key=lambda entry: -entry[0])
    return [f"{count:>9,} × {text}" for count, text in found]


def _fold(lines: list[str], room: int | None, noun: str) -> list[str]:
    """Return the first lines, and how many more there are, in at most `room` lines; None for all."""
    if room is None or len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"and {plural(len(lines) - room + 1, f'more {noun}')}; see result.json"]


def _hostile(run: Saved) -> list[str]:
    """Return what hostile sessions did to the latency of the others, and which rules they broke."""
    hostile = hostile_of(run)
    if hostile is None:
        return []
    time = RESPONSE if load_of(run).is_open else SERVICE
    share = MISSING if hostile.share is None else f"{hostile.share:.1%}"
    lines = [f"hostile: {plural(hostile.sessions, 'session')}, {share} of all in the second half"]
    measured = [metric for metric in _IMPORTANT if all((metric, time) in phase.latencies for phase in hostile.phases)]
    for metric in measured[:1]:
        for phase in hostile.phases:
            times = phase.ms(metric, time)
            percentiles = ", ".join(f"{name} {format_ms(times[f'{name}_ms'])}" for name in ("p50", "p99", "max"))
            rate = MISSING if phase.rate_per_s is None else f"{phase.rate_per_s:,.1f}"
            lines.append(f"  {phase.name}: {rate} msg/s, {metric} {time} {percentiles}")
    found = [f"{finding.severity} {finding.rule}" for finding in recorded_findings_of(run)]
    lines.append(f"  findings: {', '.join(found) or 'none'}")
    return lines


def _generator(run: Saved) -> str:
    generator = generator_of(run)
    busy = MISSING if generator.busiest_worker_share is None else f"{generator.busiest_worker_share:.0%}"
    text = f"generator: core {busy} busy"
    if load_of(run).is_open:
        text += f", late p99 {format_ms(generator.late_p99_ms)}"
    return f"{text}, {format_bytes(generator.peak_rss_bytes)}, {_connections(generator.connections_peak)} at most"


def _notes(run: Saved, screen: Screen | None) -> list[str]:
    """Return the notes, without the one on the closed model, which the headline has."""
    notes = [f"note: {note}" for note in further_notes_of(run) if not note.startswith("Closed model")]
    return _fold(notes, None if screen is None else 2, "note")
