"""The page of runs: one, or several laid over one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Card, Cards, Cell, Heading, Notice, Section
from smtpbench.report.html.common import (
    THRESHOLD_HEADS,
    dialogues,
    ending,
    label_of,
    limited,
    link_words,
    machine_section,
    notes_of,
    scenario_texts,
    status_of,
    table,
    threshold_row,
)
from smtpbench.report.html.drawing import bar_svg
from smtpbench.report.html.latency import latency_section
from smtpbench.report.html.timeline import health_charts, time_section
from smtpbench.report.reading import lenient as sift
from smtpbench.report.terminal.tables import metric_order
from smtpbench.units import format_bytes

_OUTCOMES = ("accepted", "rejected", "failed", "dropped", "interrupted")
_OPEN = "open"
_PERCENTILES = ("p50", "p95", "p99", "max")

_Read = Callable[[str], Any]


def run_heading(runs: Sequence[Saved]) -> Heading:
    """Of the page."""
    if len(runs) > 1:
        keys = [Cell(f"{label_of(run)}: {_title(run)}", key=at) for at, run in enumerate(runs)]
        return Heading(f"{len(runs)} runs", runs=keys)
    status, tone, _ = status_of(runs[0])
    return Heading(_title(runs[0]), status, tone, [*link_words(runs[0])[1:], _model(runs[0])])


def run_sections(runs: Sequence[Saved]) -> list[Section]:
    """Everything below the heading, in the order in which it is read."""
    several, timelines = len(runs) > 1, [run.timeline() for run in runs]
    first: list[Block] = []
    for run in runs:
        who = f"{label_of(run)}: " if several else ""
        first += [*limited(run, who), *ending(run, who), *_closed(run, who), *notes_of(run, who)]
    sections = [
        Section("Summary", [*first, _summary_table(runs) if several else _cards(runs[0])]),
        Section("Thresholds", list(_thresholds(runs)), "What was to hold, with the value that was measured and its margin."),
        latency_section(runs),
        time_section(runs, timelines),
        Section("Replies and errors", list(_replies(runs))),
        Section("Recipient domains", list(_domains(runs)), "What was counted of the arrivals for each domain."),
        Section("Hostile sessions", list(_hostile(runs))),
        Section(
            "The generator",
            [*_generator(runs), *health_charts(runs, timelines)],
            "What the measuring itself used and suffered.",
        ),
        Section("Scenario and load", [_load(runs), *scenario_texts(runs)]),
        machine_section(runs),
    ]
    return [section for section in sections if section.blocks]


def _title(run: Saved) -> str:
    name, url = (sift.text(sift.at(run.result, *path), 120) for path in (("scenario", "name"), ("target", "url")))
    return f"{name or 'a scenario'} → {url or 'a target'}"


def _is_open(run: Saved) -> bool:
    return bool(sift.at(run.result, "load", "model") == _OPEN)


def _model(run: Saved) -> str:
    load = run.result.get("load")
    connections = sift.count(sift.at(load, "connections"))
    if not _is_open(run):
        return f"closed model, {connections} connections"
    rates = [sift.number(stage.get(end)) for stage in sift.records(sift.at(load, "stages"))
             for end in ("rate_from_per_s", "rate_to_per_s")]  # fmt: skip
    known = [rate for rate in rates if rate is not None]
    ends = sorted({min(known), max(known)}) if known else []
    said = "–".join(f"{rate:,g}" for rate in ends)
    return f"open model, {said}/s {sift.text(sift.at(load, 'arrival_process'), 20)}, at most {connections} connections"


def _closed(run: Saved, who: str) -> list[Block]:
    if _is_open(run) or any("losed model" in note for note in sift.texts(run.result.get("notes"))):
        return []
    return [Notice(f"{who}closed model: latency is not safe from coordinated omission", (), "info")]


def _messages(run: Saved, name: str) -> int:
    return sift.natural(sift.at(run.result, "messages", name))


def _share(run: Saved, name: str) -> float | None:
    attempted = _messages(run, "attempted")
    return _messages(run, name) / attempted if attempted else None


def _cards(run: Saved) -> Cards:
    result = run.result
    response = sift.at(result, "latency", "message", "response")
    window = sift.seconds(sift.at(result, "load", "window_s"))
    cards = [
        Card("throughput", f"{sift.rate(sift.at(result, 'throughput', 'messages_per_s'))}/s", f"accepted, over {window}")
    ]
    for name in _OUTCOMES:
        count = _messages(run, name)
        if count or name in ("accepted", "rejected", "failed"):
            tone = "bad" if count and name == "failed" else "warn" if count and name != "accepted" else ""
            cards.append(
                Card(name, f"{count:,}", f"{sift.share(_share(run, name))} of {_messages(run, 'attempted'):,}", tone)
            )
    if response is not None:
        kind = "response" if _is_open(run) else "service"
        cards += [
            Card(f"message {name}", sift.ms(sift.at(response, f"{name}_ms")), f"{kind} time")
            for name in ("p50", "p99", "max")
        ]
    thresholds = sift.records(result.get("thresholds"))
    if thresholds:
        held = sum(one.get("passed") is True for one in thresholds)
        tone = "good" if held == len(thresholds) else "bad"
        cards.append(Card("thresholds", f"{held} of {len(thresholds)}", "held", tone))
    busy, is_limited = sift.at(result, "generator", "busiest_worker_share"), sift.at(result, "generator", "limited") is True
    cards.append(Card("generator", sift.share(busy, 0), "of a core, its busiest worker", "bad" if is_limited else "good"))
    return Cards(cards)


def _summary_table(runs: Sequence[Saved]) -> Block:
    latencies = [partial(sift.at, sift.at(run.result, "latency", "message", "response")) for run in runs]
    busiest = (sift.at(run.result, "generator", "busiest_worker_share") for run in runs)
    shown = [name for name in _OUTCOMES if name in ("accepted", "failed") or any(_messages(run, name) for run in runs)]
    rows = [
        ["accepted a second", *(sift.rate(sift.at(run.result, "throughput", "messages_per_s")) for run in runs)],
        *([name, *(f"{_messages(run, name):,} ({sift.share(_share(run, name))})" for run in runs)] for name in shown),
        *([f"message {name}, response", *(sift.ms(of(f"{name}_ms")) for of in latencies)] for name in _PERCENTILES),
        ["measured for", *(sift.seconds(sift.at(run.result, "load", "window_s")) for run in runs)],
        ["load", *map(_model, runs)],
        ["generator, busiest core", *(sift.share(share, 0) for share in busiest)],
        ["ended", *(status_of(run)[0] for run in runs)],
    ]
    return table(["figure", *(Cell(label_of(run), number=True, key=at) for at, run in enumerate(runs))], rows)


def _thresholds(runs: Sequence[Saved]) -> Iterator[Block]:
    for run in runs:
        entries = sift.records(run.result.get("thresholds"))
        if entries:
            rows = [
                threshold_row(one, one.get("threshold"), one.get("margin_share"))
                for one in sorted(entries, key=lambda one: one.get("passed") is True)
            ]
            caption = label_of(run) if len(runs) > 1 else ""
            yield table(THRESHOLD_HEADS, rows, caption=caption)


def _replies(runs: Sequence[Saved]) -> Iterator[Block]:
    for run in runs:
        who = f"{label_of(run)}: " if len(runs) > 1 else ""
        result, examples = run.result, dict(sift.items(run.result.get("examples")))
        codes, has_examples = _codes(result, examples)
        rows = [[sift.text(verb, 40), sift.text(code, 40), sift.count(count)]
                for verb, found in _by_slot(result.get("enhanced")) for code, count in sift.items(found, 40)]  # fmt: skip
        if codes:
            heads = ["slot", "reply", "count", "of the slot's", *(["example"] if has_examples else [])]
            yield table(heads, codes, caption=f"{who}replies by slot", size="wide" if has_examples else "half")
        if rows:
            size = "wide" if has_examples else "half"
            yield table(["slot", "enhanced code", "count"], rows, caption=f"{who}enhanced codes", numbers=2, size=size)
        errors: list[list[Cell | str]] = [
            [Cell(sift.text(kind, 60), "bad"), sift.count(count), Cell(sift.text(examples.get(kind)))]
            for kind, count in sift.items(result.get("errors"), 60)
        ]
        if errors:
            yield table(["error", "count", "example"], errors, caption=f"{who}connections and sessions that broke")


def _by_slot(section: Any) -> list[tuple[str, Any]]:
    return sorted(sift.items(section, 60), key=lambda item: metric_order(item[0]))


def _codes(result: Mapping[str, Any], examples: Mapping[str, Any]) -> tuple[list[list[Cell | str]], bool]:
    """A row a slot and code, and whether any has an example, which is then its last cell."""
    rows: list[list[Cell | str]] = []
    for verb, codes in _by_slot(result.get("replies")):
        total = sum(sift.natural(count) for _, count in sift.items(codes))
        for code, count in sift.items(codes, 30):
            tone = {"2": "good", "3": "good", "4": "warn"}.get(code[:1], "bad")
            said = next((text for what, text in examples.items() if f"{what} ".startswith(f"{verb} {code} ")), "")
            part = sift.natural(count) / total if total else 0.0
            share = Cell(sift.share(part), number=True, drawing=bar_svg(part, tone))
            reply = Cell(sift.text(code, 20), tone)
            rows.append([sift.text(verb, 40), reply, sift.count(count), share, Cell(sift.text(said))])
    has_examples = any(isinstance(row[-1], Cell) and row[-1].text for row in rows)
    return (rows if has_examples else [row[:-1] for row in rows]), has_examples


def _domains(runs: Sequence[Saved]) -> Iterator[Block]:
    heads = ["domain", "attempted", "accepted", "rejected", "failed", "accepted/s", "p50", "p99", "max"]
    for run in runs:
        rows = []
        for name, counted in sift.items(run.result.get("domains"), 100):
            counts = [sift.count(sift.at(counted, "messages", outcome)) for outcome in ("attempted", *_OUTCOMES[:3])]
            response = sift.at(counted, "latency", "message", "response")
            times = [sift.ms(sift.at(response, f"{percent}_ms")) for percent in ("p50", "p99", "max")]
            rate = sift.rate(sift.at(counted, "throughput", "messages_per_s"))
            rows.append([sift.text(name, 100), *counts, rate, *times])
        if rows:
            yield table(heads, rows, caption=label_of(run) if len(runs) > 1 else "", about="Times: message, response.")


def _hostile(runs: Sequence[Saved]) -> Iterator[Block]:
    for run in runs:
        hostile = run.result.get("hostile")
        if not isinstance(hostile, Mapping):
            continue
        who = f"{label_of(run)}: " if len(runs) > 1 else ""
        if hostile.get("target_gone") is True:
            yield Notice(f"{who}the target died of one of them", (), "bad")
        findings = sift.entries(hostile.get("findings"))
        yield Cards([
            Card("hostile sessions", sift.count(sift.at(hostile, "cases", "run")), "mutated, in the second half"),
            Card("their share", sift.share(hostile.get("share")), f"{sift.share(hostile.get('share_wanted'))} was wanted"),
            Card("findings", f"{len(findings):,}", "below, with what was said", "bad" if findings else "good"),
        ])  # fmt: skip
        rows = []
        kind = "response" if _is_open(run) else "service"
        for phase, words in (("quiet", "before"), ("beside", "beside the hostile")):
            times = sift.at(hostile, phase, "latency", "message", kind)
            honest = partial(sift.at, sift.at(hostile, phase))
            figures = [sift.rate(honest("messages_per_s")), sift.count(honest("messages", "failed"))]
            rows.append([words, *figures, *(sift.ms(sift.at(times, f"{percent}_ms")) for percent in _PERCENTILES)])
        heads = ["honest sessions", "accepted/s", "failed", *_PERCENTILES]
        yield table(heads, rows, about=f"What the others felt of it. Times: message, {kind}.")
        yield from dialogues(hostile.get("findings"), hostile.get("rules"))


def _generator(runs: Sequence[Saved]) -> Iterator[Block]:
    for run in runs:
        yield from limited(run, f"{label_of(run)}: " if len(runs) > 1 else "")
    rows: tuple[tuple[str, Callable[[_Read], str]], ...] = (
        ("busiest worker, of a core", lambda of: sift.share(of("busiest_worker_share"))),
        ("waited for a core", lambda of: sift.share(of("starved_worker_share"))),
        ("CPU time, user + system", lambda of: f"{sift.rate(of('cpu_user_s'))} + {sift.rate(of('cpu_system_s'))} s"),
        ("arrivals late, p99", lambda of: sift.ms(of("late_p99_ms"))),
        ("arrivals late, at most", lambda of: sift.ms(of("late_max_ms"))),
        ("event loop late, at most", lambda of: sift.ms(of("loop_lag_max_ms"))),
        ("arrivals without a free connection", lambda of: sift.count(of("arrivals_waited"))),
        ("connections open, at most", lambda of: sift.count(of("connections_peak"))),
        ("memory, at most", lambda of: format_bytes(sift.natural(of("peak_rss_bytes")))),
        ("was the bottleneck", lambda of: "YES" if of("limited") is True else "no"),
    )
    readers = [partial(sift.at, sift.at(run.result, "generator")) for run in runs]
    yield table(["generator", *_names(runs)], [[name, *map(value, readers)] for name, value in rows])


def _names(runs: Sequence[Saved]) -> list[str]:
    """Heads of the columns of several runs; nothing over the one column of a single one."""
    return [label_of(run) for run in runs] if len(runs) > 1 else [""]


def _load(runs: Sequence[Saved]) -> Block:
    loads = [partial(sift.at, sift.at(run.result, "load")) for run in runs]
    return table(["how", *_names(runs)], [
        ["load", *map(_model, runs)],
        ["warm-up", *(sift.seconds(of("warmup_s")) for of in loads)],
        ["measured for", *(sift.seconds(of("window_s")) for of in loads)],
        ["a reply may take", *(sift.seconds(of("timeout_s")) for of in loads)],
        ["workers", *(sift.count(of("workers")) for of in loads)],
        ["seed", *(sift.text(str(run.result.get("seed"))[:40]) for run in runs)],
        ["scenario, sha256", *(sift.text(sift.at(run.result, "scenario", "sha256"), 12) for run in runs)],
    ])  # fmt: skip
