"""What a run looks like on a terminal: a line a second, and at the end a table that one screen holds.

Everything here is made from a result or a tick alone. Text in a result is visible already (`smtpbench.text`), but a
file may come from anywhere, so it is made safe once more before it is shown.
"""

from __future__ import annotations

import os
import textwrap
import unicodedata
from typing import Any, TextIO

from smtpbench.measure.files import Tick
from smtpbench.measure.recorder import Interval
from smtpbench.measure.thresholds import sentence
from smtpbench.text import visible
from smtpbench.units import NS_PER_MS, format_bytes, format_duration

WIDTH = 80
HEIGHT = 23  #: of 24: the last one is the prompt's
#: Slots in the order of a session; names that a scenario gives stand where `*` does.
_ORDER = (
    "connect", "tls", "banner", "HELO", "EHLO", "LHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "*",
    "pipeline", "message", "transaction", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT", "session",
)  # fmt: skip
#: Those that a screen shows first where it cannot hold all.
_FIRST = ("message", "transaction", "pipeline", "session", "connect", "tls", "RCPT", "MAIL", "DATA", "AUTH", "EHLO")
#: Lines kept for troubles, however many slots there are.
_TROUBLES = 4
_SLOT_CELLS = 12

_PLAIN, _BOLD, _RED, _YELLOW = "", "1", "1;31", "33"


def final_table(result: dict[str, Any], saved: str, *, color: bool = False) -> str:
    """The result in 23 lines of 80 columns; what does not fit there is said to be in `result.json`.

    saved: where the result is, in words; the only line that may be longer. color: with ANSI escapes.
    """
    head = _headline(result)
    foot = [*_thresholds(result), *_beside(result), *_generator(result), *_notes(result)]
    saved = f"saved: {visible(saved, 1000)}"
    room = HEIGHT - len(head) - len(foot) - (cells(saved) + WIDTH - 1) // WIDTH
    found = _troubles(result)
    troubles = _fold(found, min(len(found), _TROUBLES), "kinds")
    slots = _latency(result, room - len(troubles))
    if len(found) > len(troubles):
        troubles = _fold(found, room - len(slots), "kinds")
    lines = [(line, _BOLD if at == 1 else _PLAIN) for at, line in enumerate(head)]
    lines += [(line, _PLAIN) for line in slots]
    lines += [(line, _YELLOW) for line in troubles]
    lines += [(line, _RED if line.startswith(("GENERATOR", "FAILED")) else _PLAIN) for line in foot]
    return "\n".join([*(styled(cut(line, WIDTH), style if color else _PLAIN) for line, style in lines), saved])


def wants_color(out: TextIO) -> bool:
    """Whether to write colours to a stream: every command asks here.

    `NO_COLOR` (https://no-color.org) forbids them. Else `FORCE_COLOR` (https://force-color.org) wants them, into a pipe as
    well; 0 is its no. Else they go to a terminal that is not `TERM=dumb`.
    """
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR")
    if forced:
        return forced != "0"
    return out.isatty() and os.environ.get("TERM") != "dumb"


def progress_line(tick: Tick, totals: Interval) -> str:
    """One second in one line, for a log."""
    counts = totals.messages
    rate = tick.interval.messages["accepted"] / tick.length_s
    parts = [f"{tick.end_s:5.0f}s {tick.phase:<6} {rate:>9,.0f} msg/s", f"accepted {counts['accepted']:,}"]
    parts += [f"{name} {counts[name]:,}" for name in ("rejected", "failed", "dropped") if counts[name]]
    latency = tick.interval.latencies.get(("message", True))
    if latency is not None:
        parts.append(f"message p99 {format_duration(latency.response.percentiles_ms([99])[99] * NS_PER_MS)}")
    parts.append(f"open {tick.connections_open:,}")
    if tick.waiting:
        parts.append(f"waiting {tick.waiting:,}")
    return "  ".join(parts)


def cells(text: str) -> int:
    """How many columns of a terminal a text takes (Unicode Standard Annex #11)."""
    return sum(map(_cells_of, text))


def cut(text: str, most_cells: int) -> str:
    """A text that takes no more columns than that; `…` stands for what is missing."""
    if cells(text) <= most_cells:
        return text
    kept, left = [], most_cells - 1
    for character in text:
        left -= _cells_of(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def styled(line: str, style: str) -> str:
    """The line in an ANSI style such as `1;31`; as it is where the style is empty."""
    return f"\x1b[{style}m{line}\x1b[0m" if style else line


def safe(text: Any) -> str:
    """Text of a result, for a terminal: whatever the file held, no control character is in it."""
    # a visible text has its backslashes doubled; making it visible again would double them once more
    return visible(str(text), 10_000).replace("\\\\", "\\")


def _headline(result: dict[str, Any]) -> list[str]:
    messages, load, recipients = result["messages"], result["load"], result["recipients"]
    status = result["outcome"]["status"]
    title = f"{safe(result['scenario']['name'])} → {safe(result['target']['url'])}"
    if status != "completed":
        ending = f"   {safe(status).upper()}"
        title = cut(title, WIDTH - cells(ending)) + ending
    rate = f"{result['throughput']['messages_per_s']:,.1f} messages/s accepted over {load['window_s']:.1f} s"
    rate += f"  (recipients {recipients['accepted']:,}, refused {recipients['rejected']:,})"
    always = ("accepted", "rejected", "failed")
    shown = [name for name, count in messages.items() if name != "attempted" and (count or name in always)]
    # a hard space keeps a name and its number on one line
    total, *parts = (f"{name}\xa0{messages[name]:,}" for name in ("attempted", *shown))
    wrapped = textwrap.wrap(f"{total} = {' + '.join(parts)}", WIDTH, subsequent_indent="  ")
    sums = [line.replace("\xa0", " ") for line in wrapped]
    if load["model"] == "closed":
        model = f"closed model, {load['connections']:,} connections: latency not safe from coordinated omission"
    else:
        model = f"open model, {_rate(load)} {load['arrival_process']}, at most {load['connections']:,} connections"
    return [title, rate, *sums, model]


def _rate(load: dict[str, Any]) -> str:
    rates = [rate for stage in load["stages"] for rate in (stage["rate_from_per_s"], stage["rate_to_per_s"])]
    return f"{rates[0]:g}/s" if len(set(rates)) == 1 else f"{min(rates):g}–{max(rates):g}/s"


def _latency(result: dict[str, Any], room: int) -> list[str]:
    """The table of slots in at most `room` lines."""
    latency, is_open = result["latency"], result["load"]["model"] == "open"
    if not latency:
        return []
    shown = sorted(latency, key=_importance)
    if len(shown) + 1 > room:
        shown = shown[: room - 2]
    percentiles = ("p50", "p95", "p99", "max")
    heads = "".join(f"{head:>9}" for head in percentiles) + (f"{'resp. p50':>11}{'resp. p99':>11}" if is_open else "")
    rows = [f"{'service time':<{_SLOT_CELLS}}{'count':>10}{heads}"]
    for slot in sorted(shown, key=slot_order):
        service, response = latency[slot]["service"], latency[slot]["response"]
        row = f"{service['count']:>10,}" + "".join(f"{_ms(service[f'{name}_ms']):>9}" for name in percentiles)
        row += "".join(f"{_ms(response[f'{name}_ms']):>11}" for name in ("p50", "p99")) if is_open else ""
        name = cut(safe(slot), _SLOT_CELLS)
        rows.append(name + " " * (_SLOT_CELLS - cells(name)) + row)
    if len(shown) < len(latency):
        rows.append(f"and {len(latency) - len(shown)} more slots; see result.json")
    return rows


def slot_order(slot: str) -> tuple[int, str]:
    """The key that sorts slots as a session has them."""
    return _ORDER.index(slot if slot in _ORDER else "*"), slot


def _importance(slot: str) -> tuple[int, tuple[int, str]]:
    return _FIRST.index(slot) if slot in _FIRST else len(_FIRST), slot_order(slot)


def _ms(value: float) -> str:
    return format_duration(value * NS_PER_MS)


def _troubles(result: dict[str, Any]) -> list[str]:
    """Errors by kind and replies that said no, the most frequent first, with an example of each."""
    found: list[tuple[int, str]] = []
    examples = result["examples"]
    for kind, count in result["errors"].items():
        found.append((count, f"{safe(kind)}: {safe(examples.get(kind, ''))}"))
    for verb, codes in result["replies"].items():
        for code, count in codes.items():
            example = next((said for what, said in examples.items() if f"{what} ".startswith(f"{verb} {code} ")), None)
            if example is not None:
                found.append((count, f"{safe(verb)} refused: {safe(example)}"))
    found.sort(key=lambda entry: -entry[0])
    return [f"{count:>9,} × {text}" for count, text in found]


def _fold(lines: list[str], room: int, what: str) -> list[str]:
    """The first of the lines, and how many more there are, in at most `room` lines."""
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"and {len(lines) - room + 1} more {what}; see result.json"]


def _thresholds(result: dict[str, Any]) -> list[str]:
    """What was to hold, the failed ones first."""
    entries = sorted(result.get("thresholds", ()), key=lambda entry: bool(entry["passed"]))
    return _fold([f"{'held' if one['passed'] else 'FAILED'}: {safe(sentence(one))}" for one in entries], 6, "thresholds")


def _beside(result: dict[str, Any]) -> list[str]:
    """What hostile sessions did to honest ones, and what they found; the findings themselves stand in their files."""
    hostile = result.get("hostile")
    if hostile is None:
        return []
    kind = "response" if result["load"]["model"] == "open" else "service"
    slots = [slot for slot in _FIRST if all(slot in hostile[phase]["latency"] for phase in ("quiet", "beside"))]
    found = [f"{safe(one['severity'])} {safe(one['rule'])}" for one in hostile["findings"]]
    lines = [f"hostile: {hostile['cases']['run']:,} sessions, {hostile['share']:.1%} of all in the second half"]
    for slot in slots[:1]:
        for phase, words in (("quiet", "before"), ("beside", "beside")):
            times = hostile[phase]["latency"][slot][kind]
            percentiles = ", ".join(f"{name} {_ms(times[f'{name}_ms'])}" for name in ("p50", "p99", "max"))
            lines.append(f"  {words}: {hostile[phase]['messages_per_s']:,.1f} msg/s, {slot} {kind} {percentiles}")
    if hostile["target_gone"]:
        lines.append("  the target died of one of them")
    lines.append(f"  findings: {', '.join(found[:4]) or 'none'}" + (f" and {len(found) - 4} more" if len(found) > 4 else ""))
    return lines


def _generator(result: dict[str, Any]) -> list[str]:
    g = result["generator"]
    text = f"generator: core {g['busiest_worker_share']:.0%} busy"
    if result["load"]["model"] == "open":
        text += f", late p99 {_ms(g['late_p99_ms'])}"
    text += f", {format_bytes(g['peak_rss_bytes'])}, {g['connections_peak']:,} connections at most"
    return [text, *_fold([f"GENERATOR LIMITED: {safe(reason)}" for reason in g["limited_reasons"]], 3, "reasons")]


def _notes(result: dict[str, Any]) -> list[str]:
    """What a reader must know; the headline has said it of the closed model."""
    notes = [f"note: {safe(note)}" for note in result["notes"] if not note.startswith("Closed model")]
    return _fold(notes, 2, "notes")
