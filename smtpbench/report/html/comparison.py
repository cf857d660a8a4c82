"""The page of a comparison: metrics with their intervals on one axis, and rules with different verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby

from markupsafe import Markup

from smtpbench.measure.comparison import CANNOT_TELL, NO_DIFFERENCE
from smtpbench.measure.saved import Saved
from smtpbench.report.html.blocks import Block, Cell, Notice, PageHeading, Properties, Section
from smtpbench.report.html.common import (
    ALL_TEXT,
    MAX_CANDIDATES,
    MAX_SHOWN,
    badge_of,
    machine_section,
    scenario_texts,
    short,
    start_text,
    table,
    verdict,
)
from smtpbench.report.html.drawing import interval_svg, scale_svg, strip_svg
from smtpbench.report.reading.comparison import (
    ComparedMetric,
    ComparedRule,
    SavedCandidate,
    candidates_of,
    compared_metrics_of,
    compared_rules_of,
    has_compared_rules,
    repeated_metrics_of,
    schedule_of,
    title_of,
)
from smtpbench.report.reading.findings import MARK_TONES
from smtpbench.report.reading.formatting import MISSING, format_count, format_seconds, format_share
from smtpbench.report.reading.head import scenario_of
from smtpbench.text import plural
from smtpbench.threshold import format_value

_MAX_NAME, _MAX_METRIC, _MAX_FIGURES, _MAX_METHOD = 60, 80, 40, 1000
_MAX_RATIO = 1e4
_MAX_TITLE = 4


def comparison_heading(saved: Saved) -> PageHeading:
    """Return the head of the page."""
    status, tone = badge_of(saved)
    keys = [Cell(_candidate_text(side), key=at) for at, side in enumerate(candidates_of(saved)[:MAX_CANDIDATES])]
    about = [line for line in (short(title_of(saved)[1]), start_text(saved)) if line]
    return PageHeading(_title(saved), status, tone, about, keys)


def _title(saved: Saved) -> str:
    """Return the title: the comparison, its scenario, its candidates and their targets."""
    name, scenario = title_of(saved)[0], scenario_of(saved).name
    what = short(name, 120) or short(scenario, 120) or "a scenario"
    if scenario and scenario not in name:
        what += f" ({short(scenario, 120)})"
    sides = candidates_of(saved)[:_MAX_TITLE]
    targets = list(dict.fromkeys(short(side.target.url, 120) for side in sides if side.target.url))
    if len(targets) == 1:
        versus = " / ".join(short(side.name, _MAX_NAME) for side in sides) + f" → {targets[0]}"
    else:
        versus = " / ".join(f"{short(side.name, _MAX_NAME)} → {short(side.target.url, 120)}" for side in sides)
    return f"Comparison: {what}: {versus}" if versus else f"Comparison: {what}"


def comparison_sections(saved: Saved) -> list[Section]:
    """Return everything below the heading."""
    sections = [
        Section("Differences", [*verdict(saved), *_metrics(saved)], _method(saved)),
        Section(
            "All runs", list(_repeats(saved)), "Each dot is the value of one round. The intervals are calculated from them."
        ),
        Section("Rules with different verdicts", list(_rules(saved))),
        Section("Candidates", list(_candidates(saved))),
        Section("Scenario", scenario_texts([saved])),
        machine_section([saved]),
    ]
    return [section for section in sections if section.blocks]


def _candidate_text(side: SavedCandidate) -> str:
    details = [short(text, 120) for text in (side.target.url, side.options, side.about) if text]
    return f"{short(side.name, _MAX_NAME)}: {', '.join(details)}"


def _method(saved: Saved) -> str:
    schedule = schedule_of(saved)
    if schedule.paired:
        repeats = f"{plural(schedule.repeats_done, 'interleaved round')}, {format_seconds(schedule.duration_s)} each run."
    else:
        repeats = f"{plural(schedule.repeats_done, 'value')} a side, {format_seconds(schedule.duration_s)} each run."
    return (
        f"{repeats} Simultaneous confidence level: {format_share(schedule.confidence, 0)}. Relative changes below "
        f"{format_share(schedule.least_share)} are not reported as a difference. Intervals are drawn by ratio: decreases to "
        "the left of the line, increases to the right. Shares have a scale of their own."
    )


def _metrics(saved: Saved) -> Iterator[Block]:
    metrics = compared_metrics_of(saved)[:MAX_SHOWN]
    for (candidate, baseline), grouped in groupby(metrics, key=lambda metric: (metric.candidate, metric.baseline)):
        group = list(grouped)
        ends = [
            _logarithm(end)
            for metric in group
            if metric.relative and metric.interval is not None
            for end in (metric.interval[0], metric.interval[2])
        ]
        # an interval without bounds must not make all others invisible
        widest = min(math.log(_MAX_RATIO), max(map(abs, ends), default=0.1) * 1.05 or 0.1)
        baseline, candidate = short(baseline, _MAX_METRIC), short(candidate, _MAX_METRIC)
        scale = Cell("", drawing=_scale(widest))
        heads: list[Cell | str] = ["metric", "verdict", baseline, candidate, "change and interval", scale]
        caption = f"{candidate} compared with {baseline}, medians"
        yield table(heads, [_metric_row(metric, widest) for metric in group], caption=caption, as_cards=True)


def _logarithm(change: float) -> float:
    """Where a relative change is drawn: by the logarithm of the ratio, so that half and double are equally far from 0."""
    return math.log1p(max(-0.9999, change))


def _scale(widest: float) -> Markup:
    ratio = math.exp(widest)
    if ratio < 2:
        return scale_svg([f"−{1 - 1 / ratio:.0%}", "0", f"+{ratio - 1:.0%}"])
    return scale_svg([f"÷ {ratio:.3g}", "same", f"× {ratio:.3g}"])


def _metric_row(metric: ComparedMetric, widest: float) -> list[Cell | str]:
    values = [
        MISSING if value is None else format_value(metric.unit, value)
        for value in (metric.baseline_value, metric.candidate_value)
    ]
    verdict = metric.verdict
    tone = "faint" if verdict == NO_DIFFERENCE else "warn" if verdict == CANNOT_TELL else "bad" if metric.worse else "good"
    drawing = Cell("")
    if metric.interval is not None:
        low, change, high = metric.interval
        reach = max(abs(low), abs(high)) * 1.05 or 1.0
        if metric.relative:
            low, change, high, reach = _logarithm(low), _logarithm(change), _logarithm(high), widest
        drawing = Cell("", drawing=interval_svg(low, change, high, (-reach, reach), tone, metric.change_text))
    outcome = Cell(short(verdict, _MAX_METRIC), tone)
    return [short(metric.metric, _MAX_METRIC), outcome, *values, metric.change_text, drawing]


def _repeats(saved: Saved) -> Iterator[Block]:
    table_rows: list[list[Cell | str]] = []
    for repeated in repeated_metrics_of(saved)[:_MAX_FIGURES]:
        values = repeated.values[:MAX_CANDIDATES]
        every = [value for _, found in values for value in found]
        if not every:
            continue
        ends = (min(every), max(every))
        for at, (name, found) in enumerate(values):
            metric, candidate = short(repeated.metric, _MAX_METRIC), short(name, _MAX_NAME)
            span = " … ".join(format_value(repeated.unit, end) for end in (min(found), max(found))) if found else MISSING
            drawing = strip_svg(found, ends, at, f"{candidate}: {plural(len(found), 'value')}")
            table_rows.append([metric, Cell(candidate, key=at), Cell("", drawing=drawing), Cell(span, number=True)])
    if table_rows:
        yield table(["metric", "candidate", "", "min … max"], table_rows, numbers=ALL_TEXT, as_cards=True)


def _rules(saved: Saved) -> Iterator[Block]:
    if not has_compared_rules(saved):
        return
    rules = compared_rules_of(saved)[:MAX_SHOWN]
    if not rules:
        yield Notice("All candidates violate the same rules.", (), "good")
        return
    names = list(dict.fromkeys(name for rule in rules for name in rule.verdicts))[:MAX_CANDIDATES]
    table_rows: list[list[Cell | str]] = [
        [
            short(rule.name, _MAX_METRIC),
            short(rule.section, _MAX_NAME),
            *(_verdict(rule, name) for name in names),
            short(rule.requirement),
        ]
        for rule in rules
    ]
    heads = ["rule", "section", *(short(name, _MAX_NAME) for name in names), "requirement"]
    yield table(heads, table_rows, numbers=ALL_TEXT, as_cards=True)


def _verdict(rule: ComparedRule, candidate: str) -> Cell:
    mark = short(rule.mark(candidate), 40)
    return Cell(mark, MARK_TONES.get(mark, "faint"))


def _candidates(saved: Saved) -> Iterator[Block]:
    for side in candidates_of(saved)[:MAX_CANDIDATES]:
        pairs = [
            ("candidate", short(side.name, _MAX_NAME)),
            ("about", short(side.about)),
            ("target", short(side.target.url)),
            ("greeting", short(side.target.banner)),
            ("options", short(side.options)),
            ("start command", short(side.start)),
            ("connections", format_count(side.connections) if side.connections is not None else ""),
            ("runs", f"{len(side.runs):,}: {short(side.runs[0], 120)} …" if side.runs else ""),
        ]
        yield Properties([(name, value) for name, value in pairs if value])
    method = schedule_of(saved).method
    if method:
        yield Notice(f"Calculation of the intervals: {short(method, _MAX_METHOD)}")
