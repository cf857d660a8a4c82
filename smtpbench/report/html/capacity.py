"""The page of a capacity search: the rate that was held, the knee of the latency, and every step on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smtpbench.errors import UsageError
from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Card, Cards, Cell, Heading, Notice, Plot, Section
from smtpbench.report.html.common import (
    THRESHOLD_HEADS,
    ending,
    limited,
    link_words,
    machine_section,
    notes_of,
    scenario_texts,
    status_of,
    table,
    threshold_row,
)
from smtpbench.report.html.curves import RATE, Chart, ChartSeries, Mark, linear, logarithmic
from smtpbench.report.html.drawing import chart_svg
from smtpbench.report.reading import lenient as sift
from smtpbench.threshold import parse_threshold
from smtpbench.units import format_bytes

_PERCENTILES = (("p50_ms", "p50", 0), ("p99_ms", "p99", 1), ("max_ms", "max", 4))
_LEAST_MS = 0.001
_OURS = ("generator", "connections")  # limits that say nothing of the target


def capacity_heading(saved: Saved) -> Heading:
    """Of its page."""
    status, tone, _ = status_of(saved)
    name, url = (sift.text(sift.at(saved.result, *path), 120) for path in (("scenario", "name"), ("target", "url")))
    about = [*link_words(saved)[1:], "capacity search, open model"]
    return Heading(f"Capacity: {name or 'a scenario'} → {url or 'a target'}", status, tone, about)


def capacity_sections(saved: Saved) -> list[Section]:
    """Everything below the heading."""
    steps = sift.records(saved.result.get("steps"))
    shown: list[Block] = [Plot(chart, chart_svg(chart, "wide"), "wide") for chart in _charts(saved, steps)]
    sections = [
        Section("Summary", [*_limited(saved), *ending(saved), *notes_of(saved), _cards(saved)]),
        Section(
            "Latency by rate", shown, "Where the curve turns upwards, the target is no longer keeping up: that is its knee."
        ),
        Section("Steps", [_steps(steps)] if steps else [], "In the order in which they ran."),
        Section(
            "Objectives",
            _objectives(saved, steps),
            "Of the step at the highest rate that held, and of the lowest that did not.",
        ),
        Section("The generator", [_generator(saved)]),
        Section("Plan and scenario", [_plan(saved), *scenario_texts([saved])]),
        machine_section([saved]),
    ]
    return [section for section in sections if section.blocks]


def _limited(saved: Saved) -> list[Block]:
    """The big warning, but for a rate that held although the generator was held up: that is what the target can do."""
    return [] if sift.at(saved.result, "capacity", "limited_by") == "objective" else limited(saved)


def _held(step: Mapping[str, Any]) -> bool:
    return step.get("held") is True


def _cards(saved: Saved) -> Block:
    found = saved.result.get("capacity")
    rate, failed = sift.number(sift.at(found, "rate_per_s")), sift.number(sift.at(found, "failed_rate_per_s"))
    precision = sift.number(sift.at(found, "precision_share"))
    by = sift.text(sift.at(found, "limited_by"), 60)
    return Cards([
        Card("capacity", "none held", "at any rate that was tried", "bad")
        if rate is None
        else Card("capacity", f"{sift.rate(rate)}/s", "highest rate that held", "good"),
        Card("did not hold", "–" if failed is None else f"{sift.rate(failed)}/s", "lowest rate that did not"),
        Card("precision", sift.share(precision), "between the two"),
        Card("limited by", by or "–", sift.text(sift.at(found, "reason"), 200), "bad" if by in _OURS else ""),
    ])  # fmt: skip


def _charts(saved: Saved, steps: Sequence[Mapping[str, Any]]) -> list[Chart]:
    by_rate: dict[float, Mapping[str, Any]] = {}
    for step in steps:
        rate = sift.number(step.get("rate_per_s"))
        if rate is not None and rate > 0:
            by_rate[rate] = step
    rates = sorted(by_rate)
    if not rates:
        return []
    marks = [Mark(rate, words, tone=tone) for rate, words, tone in _marked(saved) if rate is not None]
    limits = [(limit, text) for limit, text in _limits(saved)]
    series = []
    for column, name, key in _PERCENTILES:
        points = [sift.number(by_rate[rate].get(column)) for rate in rates]
        if any(point is not None for point in points):
            kept = tuple(None if point is None else max(_LEAST_MS, point) for point in points)
            series.append(ChartSeries(name, kept, key, "dashed" if name == "max" else "dotted"))
    values = [point for one in series for point in one.points if point is not None]
    charts = []
    x = linear("per_s", rates[-1] * 1.02, kind=RATE)
    if values:
        y = logarithmic("ms", [*values, *(max(_LEAST_MS, limit) for limit, _ in limits)])
        lines = [Mark(limit, text, upright=False, tone="bad") for limit, text in limits]
        about = "Message response time by the rate of arrivals."
        charts.append(
            Chart("message, response time by arrivals a second", x, y, tuple(rates), tuple(series), about, (*marks, *lines))
        )
    throughput = tuple(sift.number(by_rate[rate].get("throughput_per_s")) for rate in rates)
    if any(point is not None for point in throughput):
        top = max(point for point in throughput if point is not None)
        y = linear("per_s", max(top, rates[-1]))
        held = ChartSeries("accepted", throughput, 2, "dotted")
        offered = ChartSeries("offered", tuple(rates), 6, "dashed")
        charts.append(Chart("accepted a second by arrivals a second", x, y, tuple(rates), (held, offered), "", tuple(marks)))
    return charts


def _marked(saved: Saved) -> list[tuple[float | None, str, str]]:
    found = saved.result.get("capacity")
    rate, failed = sift.number(sift.at(found, "rate_per_s")), sift.number(sift.at(found, "failed_rate_per_s"))
    return [(rate, f"held: {sift.rate(rate)}/s", "good"), (failed, f"did not: {sift.rate(failed)}/s", "bad")]


def _limits(saved: Saved) -> list[tuple[float, str]]:
    """The objectives that are a line on the chart: a limit in milliseconds of the message's response."""
    found = []
    for text in sift.texts(sift.at(saved.result, "plan", "objectives"), 200)[:6]:
        try:
            threshold = parse_threshold(text)
        except UsageError:
            continue
        if threshold.kind == "ms" and threshold.path[:2] == ("message", "response") and threshold.limit > 0:
            found.append((threshold.limit, text))
    return found


def _steps(steps: Sequence[Mapping[str, Any]]) -> Block:
    heads = [
        "rate",
        "what for",
        "",
        "accepted/s",
        "p50",
        "p99",
        "max",
        "accepted",
        "rejected",
        "failed",
        "dropped",
        "measured",
        "why",
    ]
    rows: list[list[Cell | str]] = []
    for step in steps:
        held = _held(step)
        why = sift.text(step.get("why"))
        if step.get("limited_by") == "generator":
            why = f"GENERATOR LIMITED. {why}"
        rows.append([
            Cell(f"{sift.rate(step.get('rate_per_s'))}/s"), Cell(sift.text(step.get("purpose"), 20)),
            Cell("held" if held else "did not hold", "good" if held else "bad"),
            sift.rate(step.get("throughput_per_s")), *(sift.ms(step.get(column)) for column, _, _ in _PERCENTILES),
            *(sift.count(step.get(name)) for name in ("accepted", "rejected", "failed", "dropped")),
            sift.seconds(step.get("measured_s")), Cell(why),
        ])  # fmt: skip
    return table(heads, rows)


def _objectives(saved: Saved, steps: Sequence[Mapping[str, Any]]) -> list[Block]:
    found = saved.result.get("capacity")
    best, worst = (
        next((step for step in reversed(steps) if _held(step) is held and step.get("rate_per_s") == rate), None)
        for held, rate in ((True, sift.at(found, "rate_per_s")), (False, sift.at(found, "failed_rate_per_s")))
    )
    blocks: list[Block] = []
    for step in (best, worst):
        rows = [
            threshold_row(one, one.get("text"), one.get("margin")) for one in sift.records(sift.at(step, "objectives"), 30)
        ]
        if rows and step is not None:
            blocks.append(table(THRESHOLD_HEADS, rows, caption=f"at {sift.rate(step.get('rate_per_s'))}/s"))
    return blocks


def _generator(saved: Saved) -> Block:
    generator: Any = saved.result.get("generator")
    if not isinstance(generator, Mapping):
        return Notice("The result says nothing of the generator.")
    rows = [
        ["busiest worker, of a core", sift.share(generator.get("busiest_worker_share"))],
        ["waited for a core", sift.share(generator.get("starved_worker_share"))],
        ["arrivals late, p99", sift.ms(generator.get("late_p99_ms"))],
        ["memory, at most", format_bytes(sift.natural(generator.get("peak_rss_bytes")))],
        ["was the bottleneck", "YES" if generator.get("limited") is True else "no"],
    ]
    return table(["generator", ""], rows)


def _plan(saved: Saved) -> Block:
    plan = saved.result.get("plan")
    first, highest = (sift.number(sift.at(plan, f"{name}_rate_per_s")) for name in ("first", "max"))
    rows = [
        ["objectives", "; ".join(sift.texts(sift.at(plan, "objectives")))],
        ["first rate", "–" if first is None else f"{sift.rate(first)}/s"],
        ["precision wanted", sift.share(sift.at(plan, "precision_share"))],
        ["a step", sift.seconds(sift.at(plan, "step_s"))],
        ["warm-up of a step", sift.seconds(sift.at(plan, "warmup_s"))],
        ["connections at most", sift.count(sift.at(plan, "connections"))],
        ["workers", sift.count(sift.at(plan, "workers"))],
        ["highest rate to try", "–" if highest is None else f"{sift.rate(highest)}/s"],
        ["seed", sift.text(str(sift.at(plan, "seed"))[:40])],
    ]
    return table(["how", ""], rows)
