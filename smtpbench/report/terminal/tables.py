"""The console report of a load run, and what all console reports share: screens, colours and text that is safe to print.

Everything here is made from a result alone. Text in a result has its control characters escaped already (`smtpbench.text`).
A file may come from anywhere, so it is escaped once more before it is shown.
"""

from __future__ import annotations

import os
import textwrap
import unicodedata
from typing import Any, NamedTuple, TextIO

from smtpbench.measure.thresholds import sentence
from smtpbench.text import plural, visible
from smtpbench.units import NS_PER_MS, format_bytes, format_duration


class Screen(NamedTuple):
    """Size of a terminal, which a report may be fitted to.

    Attributes:
        width: Columns.
        height: Lines, without the one of the prompt.
    """

    width: int = 80
    height: int = 23


#: Latency metrics in the order of a session; names from a scenario stand in the place of `*`.
_ORDER = (
    "connect", "tls", "banner", "HELO", "EHLO", "LHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "*",
    "pipeline", "message", "transaction", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT", "session",
)  # fmt: skip
#: Latency metrics in the order of importance, for a screen that cannot hold all.
_IMPORTANT = (
    "message", "transaction", "pipeline", "session", "connect", "tls", "RCPT", "MAIL", "DATA", "AUTH", "EHLO",
)  # fmt: skip
#: Lines of a screen that errors and refusals get, however many latency metrics there are.
_ERROR_LINES = 4
_METRIC_CELLS = 12

_PLAIN, _BOLD, _RED, _YELLOW = "", "1", "1;31", "33"


def final_table(result: dict[str, Any], saved: str, *, color: bool = False, screen: Screen | None = None) -> str:
    """Return the report of a run.

    Args:
        result: Content of `result.json`.
        saved: Where the result is saved; the only line that may be wider than the screen.
        color: Whether to use ANSI escapes.
        screen: Size to fit into, by leaving out what `result.json` holds too; None for everything, in whole lines.
    """
    head = _headline(result, screen)
    foot = [*_thresholds(result, screen), *_hostile(result), *_generator(result, screen), *_notes(result, screen)]
    saved = f"saved: {visible(saved, 1000)}"
    errors = _errors(result)
    if screen is None:
        metrics = _latency(result, None)
    else:
        room = screen.height - len(head) - len(foot) - (cells(saved) + screen.width - 1) // screen.width
        kept = _fold(errors, min(len(errors), _ERROR_LINES), "kind")
        metrics = _latency(result, room - len(kept))
        errors = _fold(errors, room - len(metrics), "kind") if len(errors) > len(kept) else kept
    lines = [(line, _BOLD if at == 1 else _PLAIN) for at, line in enumerate(head)]
    lines += [(line, _PLAIN) for line in metrics]
    lines += [(line, _YELLOW) for line in errors]
    lines += [(line, _RED if line.startswith(("GENERATOR", "FAILED")) else _PLAIN) for line in foot]
    shown = ((line if screen is None else cut(line, screen.width), style if color else _PLAIN) for line, style in lines)
    return "\n".join([*(styled(line, style) for line, style in shown), saved])


def wants_color(out: TextIO) -> bool:
    """Return whether to write colours to a stream; every command asks here.

    `NO_COLOR` (https://no-color.org) forbids them. `FORCE_COLOR` (https://force-color.org) asks for them, in a pipe too, and
    its value 0 forbids them. Without either, a terminal gets them unless it is `TERM=dumb`.
    """
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR")
    if forced:
        return forced != "0"
    return out.isatty() and os.environ.get("TERM") != "dumb"


def screen_of(out: TextIO) -> Screen | None:
    """Return the size of the terminal that a stream writes to, at least 80 × 24; None where it is not a terminal."""
    if not out.isatty():
        return None
    try:
        width, height = os.get_terminal_size(out.fileno())
    except OSError:
        return Screen()
    return Screen(max(width, Screen().width), max(height - 1, Screen().height))


def cells(text: str) -> int:
    """Return the columns of a terminal that a text takes (Unicode Standard Annex #11)."""
    return sum(map(_cells_of, text))


def cut(text: str, max_cells: int) -> str:
    """Return a text of at most so many columns; `…` stands for what is missing."""
    if cells(text) <= max_cells:
        return text
    kept, left = [], max_cells - 1
    for character in text:
        left -= _cells_of(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


def padded(text: str, width: int) -> str:
    """Return a text with spaces after it, up to a width in columns."""
    return text + " " * (width - cells(text))


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def styled(line: str, style: str) -> str:
    """Return a line in an ANSI style such as `1;31`; an empty style changes nothing."""
    return f"\x1b[{style}m{line}\x1b[0m" if style else line


def safe(text: Any) -> str:
    """Return text of a result without control characters, whatever the file held."""
    # escaped text has its backslashes doubled; escaping it again would double them once more
    return visible(str(text), 10_000).replace("\\\\", "\\")


def _headline(result: dict[str, Any], screen: Screen | None) -> list[str]:
    messages, load, recipients = result["messages"], result["load"], result["recipients"]
    status = result["outcome"]["status"]
    title = f"{safe(result['scenario']['name'])} → {safe(result['target']['url'])}"
    if status != "completed":
        ending = f"   {safe(status).upper()}"
        title = (title if screen is None else cut(title, screen.width - cells(ending))) + ending
    rate = f"{result['throughput']['messages_per_s']:,.1f} messages/s accepted over {load['window_s']:.1f} s"
    rate += f"  (recipients {recipients['accepted']:,}, refused {recipients['rejected']:,})"
    always = ("accepted", "rejected", "failed")
    shown = [name for name, count in messages.items() if name != "attempted" and (count or name in always)]
    # a hard space keeps a name and its number on one line
    total, *parts = (f"{name}\xa0{messages[name]:,}" for name in ("attempted", *shown))
    sums = f"{total} = {' + '.join(parts)}"
    lines = [sums] if screen is None else textwrap.wrap(sums, screen.width, subsequent_indent="  ")
    connections = plural(load["connections"], "connection")
    if load["model"] == "closed":
        model = f"closed model, {connections}: latency not safe from coordinated omission"
    else:
        model = f"open model, {_rate(load)} {load['arrival_process']}, at most {connections}"
    return [title, rate, *(line.replace("\xa0", " ") for line in lines), model]


def _rate(load: dict[str, Any]) -> str:
    rates = [rate for stage in load["stages"] for rate in (stage["rate_from_per_s"], stage["rate_to_per_s"])]
    return f"{rates[0]:g}/s" if len(set(rates)) == 1 else f"{min(rates):g}–{max(rates):g}/s"


def _latency(result: dict[str, Any], room: int | None) -> list[str]:
    """Return the table of latency metrics in at most `room` lines; None for all."""
    latency, is_open = result["latency"], result["load"]["model"] == "open"
    if not latency:
        return []
    shown = sorted(latency, key=_importance)
    if room is not None and len(shown) + 1 > room:
        shown = shown[: room - 2]
    names = {metric: safe(metric) if room is None else cut(safe(metric), _METRIC_CELLS) for metric in shown}
    width = max([_METRIC_CELLS, *map(cells, names.values())])
    percentiles = ("p50", "p95", "p99", "max")
    heads = "".join(f"{head:>9}" for head in percentiles) + (f"{'resp. p50':>11}{'resp. p99':>11}" if is_open else "")
    lines = [f"{'service time':<{width}}{'count':>10}{heads}"]
    for metric in sorted(shown, key=metric_order):
        service, response = latency[metric]["service"], latency[metric]["response"]
        figures = f"{service['count']:>10,}" + "".join(f"{_ms(service[f'{name}_ms']):>9}" for name in percentiles)
        figures += "".join(f"{_ms(response[f'{name}_ms']):>11}" for name in ("p50", "p99")) if is_open else ""
        lines.append(padded(names[metric], width) + figures)
    if len(shown) < len(latency):
        lines.append(f"and {plural(len(latency) - len(shown), 'more metric')}; see result.json")
    return lines


def metric_order(metric: str) -> tuple[int, str]:
    """Return the key that sorts latency metrics in the order of a session."""
    return _ORDER.index(metric if metric in _ORDER else "*"), metric


def _importance(metric: str) -> tuple[int, tuple[int, str]]:
    return _IMPORTANT.index(metric) if metric in _IMPORTANT else len(_IMPORTANT), metric_order(metric)


def _ms(value: float) -> str:
    return format_duration(value * NS_PER_MS)


def _errors(result: dict[str, Any]) -> list[str]:
    """Return errors by kind and refusals, the most frequent first, each with an example."""
    found: list[tuple[int, str]] = []
    examples = result["examples"]
    for kind, count in result["errors"].items():
        found.append((count, f"{safe(kind)}: {safe(examples.get(kind, ''))}"))
    for verb, codes in result["replies"].items():
        for code, count in codes.items():
            example = next((text for name, text in examples.items() if f"{name} ".startswith(f"{verb} {code} ")), None)
            if example is not None:
                found.append((count, f"{safe(verb)} refused: {safe(example)}"))
    found.sort(key=lambda entry: -entry[0])
    return [f"{count:>9,} × {text}" for count, text in found]


def _fold(lines: list[str], room: int | None, noun: str) -> list[str]:
    """Return the first lines, and how many more there are, in at most `room` lines; None for all."""
    if room is None or len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"and {plural(len(lines) - room + 1, f'more {noun}')}; see result.json"]


def _thresholds(result: dict[str, Any], screen: Screen | None) -> list[str]:
    """Return a line for each threshold, the failed ones first."""
    entries = sorted(result.get("thresholds", ()), key=lambda entry: bool(entry["passed"]))
    lines = [f"{'held' if one['passed'] else 'FAILED'}: {safe(sentence(one))}" for one in entries]
    return _fold(lines, None if screen is None else 6, "threshold")


def _hostile(result: dict[str, Any]) -> list[str]:
    """Return what hostile sessions did to the latency of the others, and which rules they broke."""
    hostile = result.get("hostile")
    if hostile is None:
        return []
    kind = "response" if result["load"]["model"] == "open" else "service"
    metrics = [one for one in _IMPORTANT if all(one in hostile[phase]["latency"] for phase in ("quiet", "beside"))]
    found = [f"{safe(one['severity'])} {safe(one['rule'])}" for one in hostile["findings"]]
    sessions = plural(hostile["cases"]["run"], "session")
    lines = [f"hostile: {sessions}, {hostile['share']:.1%} of all in the second half"]
    for metric in metrics[:1]:
        for phase, label in (("quiet", "before"), ("beside", "beside")):
            times = hostile[phase]["latency"][metric][kind]
            percentiles = ", ".join(f"{name} {_ms(times[f'{name}_ms'])}" for name in ("p50", "p99", "max"))
            lines.append(f"  {label}: {hostile[phase]['messages_per_s']:,.1f} msg/s, {metric} {kind} {percentiles}")
    if hostile["target_gone"]:
        lines.append("  the target crashed during one of them")
    lines.append(f"  findings: {', '.join(found) or 'none'}")
    return lines


def _generator(result: dict[str, Any], screen: Screen | None) -> list[str]:
    generator = result["generator"]
    text = f"generator: core {generator['busiest_worker_share']:.0%} busy"
    if result["load"]["model"] == "open":
        text += f", late p99 {_ms(generator['late_p99_ms'])}"
    peak = plural(generator["connections_peak"], "connection")
    text += f", {format_bytes(generator['peak_rss_bytes'])}, {peak} at most"
    reasons = [f"GENERATOR LIMITED: {safe(reason)}" for reason in generator["limited_reasons"]]
    return [text, *_fold(reasons, None if screen is None else 3, "reason")]


def _notes(result: dict[str, Any], screen: Screen | None) -> list[str]:
    """Return the notes, without the one on the closed model, which the headline has."""
    notes = [f"note: {safe(note)}" for note in result["notes"] if not note.startswith("Closed model")]
    return _fold(notes, None if screen is None else 2, "note")
