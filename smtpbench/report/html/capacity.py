"""The page of a capacity search: the capacity, the knee of the latency curve, and every step of the search."""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.errors import UsageError
from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Card, Cards, Cell, Notice, PageHeading, Plot, Section
from smtpbench.report.html.common import (
    ALL_TEXT,
    MAX_SHOWN,
    THRESHOLD_HEADS,
    badge_of,
    identity,
    machine_section,
    scenario_texts,
    short,
    table,
    threshold_row,
    verdict,
)
from smtpbench.report.html.curves import PERCENT, RATE, Chart, ChartSeries, Mark, linear, logarithmic
from smtpbench.report.html.drawing import chart_svg
from smtpbench.report.reading.capacity import (
    OWN_LIMITS,
    CapacityStep,
    capacity_of,
    capacity_schedule_of,
    capacity_steps_of,
    has_server_figures,
)
from smtpbench.report.reading.formatting import MISSING, format_count, format_ms, format_rate, format_seconds, format_share
from smtpbench.report.reading.head import generator_of, head_of
from smtpbench.threshold import parse_threshold
from smtpbench.units import format_bytes

_MIN_MS = 0.001
_MAX_LIMITS = 6
_MAX_OBJECTIVES = 30


def capacity_heading(saved: Saved) -> PageHeading:
    """Return the head of the page."""
    status, tone = badge_of(saved)
    head = head_of(saved)
    title = f"Capacity: {short(head.scenario, 120) or 'a scenario'} → {short(head.target, 120) or 'a target'}"
    return PageHeading(title, status, tone, [*identity(saved)[1:], "capacity search, open model"])


def capacity_sections(saved: Saved) -> list[Section]:
    """Return everything below the heading."""
    steps = capacity_steps_of(saved)[:MAX_SHOWN]
    charts: list[Block] = [Plot(chart, chart_svg(chart, "wide"), "wide") for chart in _charts(saved, steps)]
    sections = [
        Section("Summary", [*verdict(saved), _cards(saved)]),
        Section("Latency by rate", charts, "At the knee, where the curve turns upwards, the target no longer keeps up."),
        Section("Steps", [_steps(steps)] if steps else [], "In the order in which they ran."),
        Section("Objectives", _objectives(saved, steps), "At the highest rate that passed and the lowest that failed."),
        Section("Load generator", [_generator(saved)]),
        Section("Settings and scenario", [_schedule(saved), *scenario_texts([saved])]),
        machine_section([saved]),
    ]
    return [section for section in sections if section.blocks]


def _per_second(rate_per_s: float | None) -> str:
    return MISSING if rate_per_s is None else f"{format_rate(rate_per_s)}/s"


def _cards(saved: Saved) -> Block:
    found = capacity_of(saved)
    limited_by = short(found.limited_by, 60)
    return Cards([
        Card("capacity", "unknown", "no rate passed", "bad")
        if found.rate_per_s is None
        else Card("capacity", _per_second(found.rate_per_s), "highest rate that passed", "good"),
        Card("lowest failed rate", _per_second(found.failed_rate_per_s), "did not meet the objectives"),
        Card("precision", format_share(found.precision_share), "distance between the two rates"),
        Card("limited by", limited_by or MISSING, "", "bad" if limited_by in OWN_LIMITS else ""),
    ])  # fmt: skip


def _charts(saved: Saved, steps: Sequence[CapacityStep]) -> list[Chart]:
    by_rate = {step.rate_per_s: step for step in steps if step.rate_per_s is not None and step.rate_per_s > 0}
    if not by_rate:
        return []
    rates = tuple(sorted(by_rate))
    ordered = [by_rate[rate] for rate in rates]
    marks = _rate_marks(saved)
    x = linear("per_s", rates[-1] * 1.02, kind=RATE)
    charts = []
    columns = (
        ("p50", 0, [step.p50_ms for step in ordered]),
        ("p99", 1, [step.p99_ms for step in ordered]),
        ("max", 4, [step.max_ms for step in ordered]),
    )
    series = [
        ChartSeries(
            name,
            tuple(None if value is None else max(_MIN_MS, value) for value in values),
            key,
            "dashed" if name == "max" else "dotted",
        )
        for name, key, values in columns
        if any(value is not None for value in values)
    ]
    points = [point for one in series for point in one.points if point is not None]
    if points:
        limits = _limits(saved)
        y = logarithmic("ms", [*points, *(max(_MIN_MS, limit) for limit, _ in limits)])
        lines = [Mark(limit, text, upright=False, tone="bad") for limit, text in limits]
        about = "Response time of messages by the rate of arrivals."
        charts.append(Chart("Message, response time by arrival rate", x, y, rates, tuple(series), about, (*marks, *lines)))
    throughput = tuple(step.throughput_per_s for step in ordered)
    known = [rate for rate in throughput if rate is not None]
    if known:
        y = linear("per_s", max(*known, rates[-1]))
        accepted = ChartSeries("accepted", throughput, 2, "dotted")
        offered = ChartSeries("offered", rates, 6, "dashed")
        charts.append(
            Chart("Accepted messages per second by arrival rate", x, y, rates, (accepted, offered), "", tuple(marks))
        )
    shares = tuple(None if step.server_cores_share is None else 100 * step.server_cores_share for step in ordered)
    if any(share is not None for share in shares):
        used = ChartSeries("server", shares, 0, "dotted")
        about = "Share of the machine's cores that the server used, by the rate of arrivals."
        title = "Server, share of the machine's cores, by arrival rate"
        charts.append(Chart(title, x, linear(PERCENT, 100.0), rates, (used,), about, tuple(marks)))
    return charts


def _rate_marks(saved: Saved) -> list[Mark]:
    found = capacity_of(saved)
    marked = ((found.rate_per_s, "passed", "good"), (found.failed_rate_per_s, "failed", "bad"))
    return [Mark(rate, f"{outcome}: {_per_second(rate)}", tone=tone) for rate, outcome, tone in marked if rate is not None]


def _limits(saved: Saved) -> list[tuple[float, str]]:
    """The objectives that are a line on the chart: limits of the response time of messages, in milliseconds."""
    found = []
    for objective in capacity_schedule_of(saved).objectives[:_MAX_LIMITS]:
        text = short(objective, 200)
        try:
            threshold = parse_threshold(text)
        except UsageError:
            continue
        if threshold.kind == "ms" and threshold.path[:2] == ("message", "response") and threshold.limit > 0:
            found.append((threshold.limit, text))
    return found


def _steps(steps: Sequence[CapacityStep]) -> Block:
    with_server = has_server_figures(steps)
    heads = ["rate", "purpose", "objectives", "accepted/s", "p50", "p99", "max",
             *(["server, cores", "CPU a message"] if with_server else []), "accepted", "rejected", "failed", "dropped",
             "measured", "reason"]  # fmt: skip
    table_rows: list[list[Cell | str]] = []
    for step in steps:
        reason = short(step.why)
        if step.limited_by == "generator":
            reason = f"GENERATOR LIMITED. {reason}"
        table_rows.append([
            Cell(_per_second(step.rate_per_s)), Cell(short(step.purpose, 20)),
            _outcome(step),
            format_rate(step.throughput_per_s), *map(format_ms, (step.p50_ms, step.p99_ms, step.max_ms)),
            *((format_share(step.server_cores_share, 0), format_ms(step.server_cpu_ms_per_message))
              if with_server else ()),
            *(f"{count:,}" for count in step.counts.values()), format_seconds(step.measured_s), Cell(reason),
        ])  # fmt: skip
    return table(heads, table_rows, as_cards=True)


def _outcome(step: CapacityStep) -> Cell:
    """Whether a step passed; a step with a limit of the generator's own is inconclusive."""
    if step.held:
        return Cell("passed", "good")
    return Cell("inconclusive", "warn") if step.limited_by in OWN_LIMITS else Cell("FAILED", "bad")


def _objectives(saved: Saved, steps: Sequence[CapacityStep]) -> list[Block]:
    found = capacity_of(saved)
    blocks: list[Block] = []
    for held, rate in ((True, found.rate_per_s), (False, found.failed_rate_per_s)):
        step = next((step for step in reversed(steps) if step.held is held and step.rate_per_s == rate), None)
        if step is not None and step.objectives:
            table_rows = map(threshold_row, step.objectives[:_MAX_OBJECTIVES])
            blocks.append(
                table(("objective", *THRESHOLD_HEADS[1:]), table_rows, caption=f"at {_per_second(rate)}", as_cards=True)
            )
    return blocks


def _generator(saved: Saved) -> Block:
    load = generator_of(saved)
    if not load.known:
        return Notice("The result holds no figures of the generator.")
    table_rows = [
        ["CPU, busiest worker, of a core", format_share(load.busiest_worker_share)],
        ["time spent waiting for a core", format_share(load.starved_worker_share)],
        ["delay of arrivals, p99", format_ms(load.late_p99_ms)],
        ["memory, max", format_bytes(load.peak_rss_bytes)],
        ["was the bottleneck", "YES" if load.limited else "no"],
    ]
    return table(["figure", "value"], table_rows)


def _schedule(saved: Saved) -> Block:
    schedule = capacity_schedule_of(saved)
    table_rows = [
        ["objectives", "; ".join(map(short, schedule.objectives))],
        ["first rate", _per_second(schedule.first_rate_per_s)],
        ["precision", format_share(schedule.precision_share)],
        ["length of a step", format_seconds(schedule.step_s)],
        ["warm-up of a step", format_seconds(schedule.warmup_s)],
        ["connections, max", format_count(schedule.connections)],
        ["workers", format_count(schedule.workers)],
        ["highest rate to try", _per_second(schedule.max_rate_per_s)],
        ["seed", schedule.seed],
    ]
    return table(["setting", "value"], table_rows, numbers=ALL_TEXT)
