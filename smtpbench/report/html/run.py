"""The page of runs: of one, or of several laid over one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Card, Cards, Cell, Notice, PageHeading, Section
from smtpbench.report.html.common import (
    ALL_TEXT,
    MAX_SHOWN,
    THRESHOLD_HEADS,
    badge_of,
    dialogues,
    identity,
    joined,
    machine_section,
    scenario_texts,
    short,
    table,
    threshold_row,
    verdict,
)
from smtpbench.report.html.drawing import bar_svg
from smtpbench.report.html.latency import latency_section
from smtpbench.report.html.server import server_cards, server_section
from smtpbench.report.html.timeline import health_charts, time_section
from smtpbench.report.reading.findings import finding_count_of
from smtpbench.report.reading.formatting import format_count, format_ms, format_rate, format_seconds, format_share
from smtpbench.report.reading.head import GeneratorLoad, generator_of, head_of, label_of, scenario_of, seed_of
from smtpbench.report.reading.metrics import (
    NO_STATISTICS,
    RESPONSE,
    SERVICE,
    SHOWN_DRAIN_S,
    counts_by_metric,
    counts_of,
    domains_of,
    example_of_reply,
    examples_of,
    hostile_of,
    load_of,
    messages_of,
    statistics_of,
    thresholds_of,
    throughput_of,
)
from smtpbench.report.reading.server import server_of
from smtpbench.report.reading.verdict import further_notes_of
from smtpbench.units import format_bytes

_OUTCOMES = ("accepted", "rejected", "failed", "dropped", "interrupted")
_PERCENTILES = ("p50", "p95", "p99", "max")
_CODE_TONES = {"2": "good", "3": "good", "4": "warn"}
_MAX_METRICS, _MAX_CODES, _MAX_ENHANCED, _MAX_ERRORS, _MAX_DOMAINS = 60, 30, 40, 60, 100


def run_heading(runs: Sequence[Saved]) -> PageHeading:
    """Return the head of the page."""
    if len(runs) > 1:
        keys = [Cell(f"{label_of(run)}: {_title(run)}", key=at) for at, run in enumerate(runs)]
        return PageHeading(f"{len(runs)} runs: {joined([_title(run) for run in runs])}", runs=keys)
    status, tone = badge_of(runs[0])
    return PageHeading(_title(runs[0]), status, tone, [*identity(runs[0])[1:], _model(runs[0])])


def run_sections(runs: Sequence[Saved]) -> list[Section]:
    """Return everything below the heading, in the order in which it is read."""
    several, timelines = len(runs) > 1, [run.timeline() for run in runs]
    first: list[Block] = []
    for run in runs:
        prefix = _prefix(runs, run)
        first += [*verdict(run, prefix), *_closed_model(run, prefix)]
    sections = [
        Section("Summary", [*first, _summary_table(runs) if several else _cards(runs[0])]),
        Section(
            "Thresholds",
            list(_thresholds(runs)),
            "Each threshold with the measured value and the distance from the limit, as a share of the limit.",
        ),
        latency_section(runs),
        time_section(runs, timelines),
        server_section(runs, timelines),
        Section("Replies and errors", list(_replies(runs))),
        Section("Recipient domains", list(_domains(runs)), "Messages and their response time, for each recipient domain."),
        Section("Hostile sessions", list(_hostile(runs))),
        Section(
            "Load generator",
            [*_generator(runs), *health_charts(runs, timelines)],
            "What the generator itself used, and how far it fell behind its schedule.",
        ),
        Section("Scenario and load", [_load(runs), *scenario_texts(runs)]),
        machine_section(runs),
    ]
    return [section for section in sections if section.blocks]


def _prefix(runs: Sequence[Saved], run: Saved) -> str:
    """The name of a run, where there are several."""
    return f"{label_of(run)}: " if len(runs) > 1 else ""


def _title(run: Saved) -> str:
    head = head_of(run)
    return f"{short(head.scenario, 120) or 'a scenario'} → {short(head.target, 120) or 'a target'}"


def _model(run: Saved) -> str:
    load = load_of(run)
    connections = "connection" if load.connections == 1 else "connections"
    if not load.is_open:
        return f"closed model, {format_count(load.connections)} {connections}"
    ends = sorted({min(load.rates_per_s), max(load.rates_per_s)}) if load.rates_per_s else []
    rate = "–".join(f"{end:,g}" for end in ends)
    process = short(load.arrival_process, 20)
    return f"open model, {rate}/s {process}, at most {format_count(load.connections)} {connections}"


def _closed_model(run: Saved, prefix: str) -> list[Block]:
    if load_of(run).is_open or any("losed model" in note for note in further_notes_of(run)):
        return []
    return [Notice(f"{prefix}closed model: coordinated omission may hide slow replies from the latency figures", (), "info")]


def _share(run: Saved, outcome: str) -> float | None:
    messages = messages_of(run)
    return messages[outcome] / messages["attempted"] if messages["attempted"] else None


def _cards(run: Saved) -> Cards:
    load, messages, generator = load_of(run), messages_of(run), generator_of(run)
    sending = f"accepted, over {format_seconds(load.sending_s)}"
    if load.draining_s is not None and load.draining_s >= SHOWN_DRAIN_S:
        sending += f", then {format_seconds(load.draining_s)} of drain"
    cards = [Card("throughput", f"{format_rate(throughput_of(run))}/s", sending)]
    for name in _OUTCOMES:
        count = messages[name]
        if count or name in ("accepted", "rejected", "failed"):
            tone = "bad" if count and name == "failed" else "warn" if count and name != "accepted" else ""
            cards.append(Card(name, f"{count:,}", f"{format_share(_share(run, name))} of {messages['attempted']:,}", tone))
    response = statistics_of(run, "message", RESPONSE)
    if response is not None:
        time = "response" if load.is_open else "service"
        cards += [
            Card(f"message {name}", format_ms(response[f"{name}_ms"]), f"{time} time") for name in ("p50", "p99", "max")
        ]
    thresholds = thresholds_of(run)
    if thresholds:
        passed = sum(threshold.passed for threshold in thresholds)
        tone = "good" if passed == len(thresholds) else "bad"
        cards.append(Card("thresholds", f"{passed} of {len(thresholds)}", "passed", tone))
    cards += server_cards(run)
    busiest = format_share(generator.busiest_worker_share, 0)
    cards.append(Card("generator", busiest, "of a core, busiest worker", "bad" if generator.limited else "good"))
    return Cards(cards)


def _summary_table(runs: Sequence[Saved]) -> Block:
    responses = [statistics_of(run, "message", RESPONSE) or NO_STATISTICS for run in runs]
    counts = [messages_of(run) for run in runs]
    shown = [name for name in _OUTCOMES if name in ("accepted", "failed") or any(count[name] for count in counts)]
    table_rows: list[Sequence[Cell | str]] = [
        ["accepted per second", *(format_rate(throughput_of(run)) for run in runs)],
        *(
            [
                name,
                *(f"{count[name]:,} ({format_share(_share(run, name))})" for run, count in zip(runs, counts, strict=True)),
            ]
            for name in shown
        ),
        *(
            [f"message {name}, response time", *(format_ms(response[f"{name}_ms"]) for response in responses)]
            for name in _PERCENTILES
        ),
        ["measured for", *(format_seconds(load_of(run).window_s) for run in runs)],
        ["load", *map(_model, runs)],
        *_server_rows(runs),
        ["generator, busiest core", *(format_share(generator_of(run).busiest_worker_share, 0) for run in runs)],
        ["outcome", *(Cell(*badge_of(run)) for run in runs)],
    ]
    heads: list[Cell | str] = ["figure", *(Cell(label_of(run), number=True, key=at) for at, run in enumerate(runs))]
    return table(heads, table_rows, as_cards=True)


def _server_rows(runs: Sequence[Saved]) -> list[Sequence[Cell | str]]:
    """A row for the CPU time of the servers, where one of them is known."""
    servers = [server_of(run) for run in runs]
    if all(server is None for server in servers):
        return []
    times = (None if server is None else server.cpu_ms_per_message for server in servers)
    return [["CPU of the server, for a message", *map(format_ms, times)]]


def _thresholds(runs: Sequence[Saved]) -> Iterator[Block]:
    for run in runs:
        thresholds = sorted(thresholds_of(run)[:MAX_SHOWN], key=lambda threshold: threshold.passed)
        if thresholds:
            caption = label_of(run) if len(runs) > 1 else ""
            yield table(THRESHOLD_HEADS, map(threshold_row, thresholds), caption=caption, as_cards=True)


def _replies(runs: Sequence[Saved]) -> Iterator[Block]:
    for run in runs:
        prefix, examples = _prefix(runs, run), examples_of(run)
        codes, has_examples = _reply_rows(run, examples)
        size = "wide" if has_examples else "half"
        if codes:
            heads = ["metric", "reply", "count", "share", *(["example"] if has_examples else [])]
            yield table(heads, codes, caption=f"{prefix}Replies by metric", size=size, as_cards=True)
        enhanced = [
            [short(metric, 40), short(code, 40), f"{count:,}"]
            for metric, counts in counts_by_metric(run, "enhanced")[:_MAX_METRICS]
            for code, count in list(counts.items())[:_MAX_ENHANCED]
        ]
        if enhanced:
            heads = ["metric", "enhanced code", "count"]
            yield table(heads, enhanced, caption=f"{prefix}Enhanced status codes", numbers=2, size=size)
        errors: list[list[Cell | str]] = [
            [Cell(short(path[0], 60), "bad"), f"{count:,}", Cell(short(examples.get(path[0], "")))]
            for path, count in list(counts_of(run, "errors").items())[:_MAX_ERRORS]
        ]
        if errors:
            yield table(
                ["error", "count", "example"], errors, caption=f"{prefix}Errors of connections and sessions", as_cards=True
            )


def _reply_rows(run: Saved, examples: dict[str, str]) -> tuple[list[list[Cell | str]], bool]:
    """A row for each metric and code, and whether any has an example, which is then its last cell."""
    table_rows: list[list[Cell | str]] = []
    found = False
    for metric, counts in counts_by_metric(run, "replies")[:_MAX_METRICS]:
        total = sum(counts.values())
        for code, count in list(counts.items())[:_MAX_CODES]:
            tone = _CODE_TONES.get(code[:1], "bad")
            example = short(example_of_reply(examples, metric, code))
            found = found or bool(example)
            part = count / total if total else 0.0
            share = Cell(format_share(part), number=True, drawing=bar_svg(part, tone))
            table_rows.append([short(metric, 40), Cell(short(code, 20), tone), f"{count:,}", share, Cell(example)])
    return (table_rows if found else [row[:-1] for row in table_rows]), found


def _domains(runs: Sequence[Saved]) -> Iterator[Block]:
    heads = ["domain", "attempted", "accepted", "rejected", "failed", "accepted/s", "p50", "p99", "max"]
    for run in runs:
        table_rows = []
        for domain in domains_of(run)[:_MAX_DOMAINS]:
            counts = [format_count(domain.messages[outcome]) for outcome in ("attempted", *_OUTCOMES[:3])]
            times = [format_ms(domain.response_ms[f"{percentile}_ms"]) for percentile in ("p50", "p99", "max")]
            table_rows.append([short(domain.domain, 100), *counts, format_rate(domain.messages_per_s), *times])
        if table_rows:
            yield table(heads, table_rows, caption=label_of(run) if len(runs) > 1 else "", as_cards=True)


def _hostile(runs: Sequence[Saved]) -> Iterator[Block]:
    for run in runs:
        hostile = hostile_of(run)
        if hostile is None:
            continue
        findings = finding_count_of(run)
        yield Cards([
            Card("hostile sessions", f"{hostile.sessions:,}", "mutated, in the second half of the run"),
            Card("share", format_share(hostile.share), f"of the sessions; requested: {format_share(hostile.share_wanted)}"),
            Card("findings", f"{findings:,}", "shown below" if findings else "none", "bad" if findings else "good"),
        ])  # fmt: skip
        is_open = load_of(run).is_open
        table_rows = []
        for phase in hostile.phases:
            times = phase.ms("message", RESPONSE if is_open else SERVICE)
            name = "before the hostile sessions" if phase.name == "before" else "beside the hostile sessions"
            figures = [format_rate(phase.rate_per_s), format_count(phase.failed)]
            table_rows.append([name, *figures, *(format_ms(times[f"{percentile}_ms"]) for percentile in _PERCENTILES)])
        if table_rows:
            about = f"Effect on regular sessions, with the {'response' if is_open else 'service'} time of their messages."
            yield table(["regular sessions", "accepted/s", "failed", *_PERCENTILES], table_rows, about=about, as_cards=True)
        yield from dialogues(run)


def _generator(runs: Sequence[Saved]) -> Iterator[Block]:
    figures: tuple[tuple[str, Callable[[GeneratorLoad], str]], ...] = (
        ("CPU, busiest worker, of a core", lambda load: format_share(load.busiest_worker_share)),
        ("time spent waiting for a core", lambda load: format_share(load.starved_worker_share)),
        ("CPU time, user + system", lambda load: f"{format_rate(load.cpu_user_s)} + {format_rate(load.cpu_system_s)} s"),
        ("delay of arrivals, p99", lambda load: format_ms(load.late_p99_ms)),
        ("delay of arrivals, max", lambda load: format_ms(load.late_max_ms)),
        ("delay of reads, p99", lambda load: format_ms(load.read_delay_p99_ms)),
        ("delay of reads, max", lambda load: format_ms(load.read_delay_max_ms)),
        ("event loop lag, max", lambda load: format_ms(load.loop_lag_max_ms)),
        ("arrivals without a free connection", _waited),
        ("open connections, max", lambda load: format_count(load.connections_peak)),
        ("memory, max", lambda load: format_bytes(load.peak_rss_bytes)),
        ("was the bottleneck", lambda load: "YES" if load.limited else "no"),
    )
    loads = [generator_of(run) for run in runs]
    about = "Service times end when the kernel has received the reply, so the delay of reads is not part of them."
    for run, load in zip(runs, loads, strict=True):
        if load.read_delay_effects:
            about += f" {_prefix(runs, run)}With it, percentiles would be higher: {', '.join(load.read_delay_effects)}."
    yield table(["figure", *_column_heads(runs)], [[name, *map(value, loads)] for name, value in figures], about=about)


def _waited(load: GeneratorLoad) -> str:
    """The arrivals that waited for a connection, and in which workers."""
    waited, by_worker = format_count(load.arrivals_waited), load.arrivals_waited_by_worker
    if len(by_worker) < 2 or not any(by_worker):
        return waited
    workers = ", ".join(f"worker {number}: {count:,}" for number, count in enumerate(by_worker) if count)
    return short(f"{waited} ({workers})")


def _column_heads(runs: Sequence[Saved]) -> list[str]:
    """A column for each run; the only column of a single run has no head."""
    return [label_of(run) for run in runs] if len(runs) > 1 else ["value"]


def _load(runs: Sequence[Saved]) -> Block:
    loads = [load_of(run) for run in runs]
    return table(["setting", *_column_heads(runs)], [
        ["load", *map(_model, runs)],
        ["warm-up", *(format_seconds(load.warmup_s) for load in loads)],
        ["measured for", *(format_seconds(load.window_s) for load in loads)],
        ["reply timeout", *(format_seconds(load.timeout_s) for load in loads)],
        ["workers", *(format_count(load.workers) for load in loads)],
        ["seed", *(seed_of(run) for run in runs)],
        ["scenario, SHA-256", *(short(scenario_of(run).sha256, 12) for run in runs)],
    ], numbers=ALL_TEXT)  # fmt: skip
