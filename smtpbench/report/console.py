"""What a run looks like on a terminal: a line a second, and at the end a table that one screen holds."""

from __future__ import annotations

from typing import Any

from smtpbench.measure.files import Tick
from smtpbench.measure.recorder import Interval
from smtpbench.text import visible
from smtpbench.units import NS_PER_MS, format_bytes, format_duration

WIDTH = 80
#: Slots in the order of a session; verbs come where `*` stands.
_ORDER = ("connect", "tls", "banner", "*", "pipeline", "message", "transaction", "session")
_MOST_SLOTS = 12
_MOST_TROUBLES = 4


def final_table(result: dict[str, Any], saved: str) -> str:
    """The result on one screen: at most 24 lines of 80 columns where there is little trouble to tell."""
    lines = [*_headline(result), *_latency(result), *_troubles(result), *_generator(result)]
    lines += [f"note: {note}" for note in result["notes"] if not note.startswith("Closed model")]
    lines.append(f"saved: {visible(saved, 1000)}")
    return "\n".join(line if line.startswith("saved:") else _cut(line) for line in lines)


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


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _headline(result: dict[str, Any]) -> list[str]:
    messages, load = result["messages"], result["load"]
    status = result["outcome"]["status"]
    title = f"{result['scenario']['name']} → {result['target']['url']}"
    if status != "completed":
        title += f"   {status.upper()}"
    rate = f"{result['throughput']['messages_per_s']:,.1f} messages/s accepted over {load['window_s']:.1f} s"
    counts = "  ".join(f"{name} {messages[name]:,}" for name in messages if name == "attempted" or messages[name])
    if load["model"] == "closed":
        model = f"closed model, {load['connections']} connections: latency not safe from coordinated omission"
    else:
        model = f"open model, {_rate(load)} {load['arrival_process']}, at most {load['connections']} connections"
    recipients = result["recipients"]
    return [visible(title, WIDTH), rate, f"{counts}  (recipients {recipients['accepted']:,})", model]


def _rate(load: dict[str, Any]) -> str:
    rates = [rate for stage in load["stages"] for rate in (stage["rate_from_per_s"], stage["rate_to_per_s"])]
    return f"{rates[0]:g}/s" if len(set(rates)) == 1 else f"{min(rates):g}–{max(rates):g}/s"


def _latency(result: dict[str, Any]) -> list[str]:
    latency, is_open = result["latency"], result["load"]["model"] == "open"
    if not latency:
        return []
    known = [slot for slot in _ORDER if slot != "*"]
    verbs = [slot for slot in latency if slot not in known]
    slots = [s for entry in _ORDER for s in (verbs if entry == "*" else [entry]) if s in latency]
    heads = ("count", "p50", "p95", "p99", "max") + (("resp p50", "p99") if is_open else ())
    rows = [f"{'service time':<13}" + "".join(f"{head:>9}" for head in heads)]
    for slot in slots[:_MOST_SLOTS]:
        service, response = latency[slot]["service"], latency[slot]["response"]
        cells = [f"{service['count']:,}"]
        cells += [_ms(service[name]) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")]
        cells += [_ms(response[name]) for name in ("p50_ms", "p99_ms")] if is_open else []
        rows.append(f"{visible(slot, 13):<13}" + "".join(f"{cell:>9}" for cell in cells))
    return rows


def _ms(value: float) -> str:
    return format_duration(value * NS_PER_MS)


def _troubles(result: dict[str, Any]) -> list[str]:
    """Errors by kind and replies that said no, the most frequent first, with an example of each."""
    found: list[tuple[int, str]] = []
    examples = result["examples"]
    for kind, count in result["errors"].items():
        found.append((count, f"{kind}: {visible(examples.get(kind, ''), WIDTH)}"))
    for verb, codes in result["replies"].items():
        for code, count in codes.items():
            text = next((said for what, said in examples.items() if f"{what} ".startswith(f"{verb} {code} ")), None)
            if text is not None:
                found.append((count, f"{verb} refused: {visible(text, WIDTH)}"))
    found.sort(key=lambda entry: -entry[0])
    lines = [f"{count:>9,} × {text}" for count, text in found[:_MOST_TROUBLES]]
    if len(found) > _MOST_TROUBLES:
        lines.append(f"{'':>9}   and {len(found) - _MOST_TROUBLES} more kinds; see result.json")
    return lines


def _generator(result: dict[str, Any]) -> list[str]:
    g = result["generator"]
    text = f"generator: CPU {g['cpu_s']:.1f} s ({g['busiest_worker_share']:.0%} of its core)"
    if result["load"]["model"] == "open":
        text += f", late p99 {_ms(g['late_p99_ms'])}"
    text += f", {format_bytes(g['peak_rss_bytes'])}, {g['connections_peak']:,} connections"
    return [text, *(f"GENERATOR LIMITED: {reason}" for reason in g["limited_reasons"])]
