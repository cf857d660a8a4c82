"""The parts of a comparison: candidates, plan, metrics that were compared, and rules that candidates violate differently."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from smtpbench.measure.comparison import CANNOT_TELL, is_worse
from smtpbench.measure.saved import COMPARISON, Saved
from smtpbench.report.reading.findings import read_severity, verdict_mark
from smtpbench.report.reading.head import SavedTarget, read_target
from smtpbench.report.reading.lenient import duration_s, entries, items, mapping, natural, number, records, text, texts
from smtpbench.rules.rule import FAILING_SEVERITIES, NOT_RUN, VIOLATED
from smtpbench.threshold import COUNT, RATE, SHARE, format_value


class ComparedMetric(NamedTuple):
    """One metric of a candidate, compared with the baseline.

    Attributes:
        metric: The metric, such as `message.p99`.
        unit: Unit of the values: `ms`, `share`, `per_s` or `count`.
        better: `lower` or `higher`.
        baseline: Name of the baseline.
        candidate: Name of the candidate.
        baseline_value: Median of the baseline.
        candidate_value: Median of the candidate.
        change: Change from the baseline to the candidate; None where it is unknown.
        low: Lower end of the confidence interval of the change.
        high: Upper end of it.
        relative: Whether the change is a share of the baseline's value; else it is in the unit.
        verdict: `faster`, `slower`, `more`, `fewer`, `less`, `no difference shown` or `cannot tell`.
        worse: Whether the candidate is worse.
    """

    metric: str
    unit: str
    better: str
    baseline: str
    candidate: str
    baseline_value: float | None
    candidate_value: float | None
    change: float | None
    low: float | None
    high: float | None
    relative: bool
    verdict: str
    worse: bool

    @property
    def interval(self) -> tuple[float, float, float] | None:
        """Lower end, change and upper end; None where one of them is missing."""
        if self.low is None or self.change is None or self.high is None:
            return None
        return self.low, self.change, self.high

    @property
    def change_text(self) -> str:
        """The change with its interval: `-11.2% [-13.0 … -9.4]`; percentage points for shares; empty where it is unknown."""
        interval = self.interval
        if interval is None:
            return ""
        low, change, high = interval
        if not self.relative and self.unit != SHARE:
            shown_change, *ends = (_signed(self.unit, value) for value in (change, low, high))
            return f"{shown_change} [{' … '.join(ends)}]"
        numbers = [100 * value for value in (change, low, high)]
        most = max(map(abs, numbers))
        digits = 0 if most >= 100 else 1 if most >= 1 or not most else min(6, 1 - math.floor(math.log10(most)))
        shown, shown_low, shown_high = (f"{value:+,.{digits}f}" for value in numbers)
        return f"{shown}{'%' if self.relative else ' pts'} [{shown_low} … {shown_high}]"


def _signed(unit: str, value: float) -> str:
    """A difference with its sign: a plain number for a count, otherwise in the unit."""
    if unit in (COUNT, RATE):
        return f"{value:+,.1f}"
    return f"{'-' if value < 0 else '+'}{format_value(unit, abs(value))}"


class ComparedRule(NamedTuple):
    """A rule that some candidates violate and others do not.

    Attributes:
        name: Name of the rule.
        section: Section of the RFC.
        severity: Severity of the violation.
        requirement: What the RFC requires.
        verdicts: Verdict by candidate.
        worse: Whether it is severe, and a candidate violates it and the baseline does not.
    """

    name: str
    section: str
    severity: str
    requirement: str
    verdicts: Mapping[str, str]
    worse: bool

    def mark(self, candidate: str) -> str:
        """Return the verdict on one candidate as one word."""
        return verdict_mark(self.verdicts.get(candidate, NOT_RUN), self.severity)


class SavedCandidate(NamedTuple):
    """A candidate of a comparison.

    Attributes:
        name: Its name.
        about: Its description.
        target: Its target.
        options: Options of the command line that it has of its own.
        start: Command that starts it.
        connections: Connections of its load; None where it is unknown.
        runs: Folders of its runs.
        limited_runs: Runs in which the generator was the bottleneck.
        silences: When it did not answer: the run, and from when to when, in seconds.
    """

    name: str
    about: str
    target: SavedTarget
    options: str
    start: str
    connections: float | None
    runs: Sequence[str]
    limited_runs: int
    silences: Sequence[tuple[str, float, float]] = ()


class ComparisonSchedule(NamedTuple):
    """How a comparison measured.

    Attributes:
        repeats_done: Rounds, or values a side where the candidates did not take turns.
        duration_s: Length of a run, seconds.
        confidence: Confidence of all intervals together, from 0 to 1.
        least_share: Smallest relative change that is reported.
        paired: Whether the candidates took turns.
        method: How the intervals were calculated.
    """

    repeats_done: int
    duration_s: float | None
    confidence: float | None
    least_share: float | None
    paired: bool
    method: str


class RepeatedMetric(NamedTuple):
    """The values of one metric in all repeats.

    Attributes:
        metric: The metric.
        unit: Unit of the values.
        values: Values by candidate.
    """

    metric: str
    unit: str
    values: Sequence[tuple[str, Sequence[float]]]


def title_of(saved: Saved) -> tuple[str, str]:
    """Return the name and the description of a comparison."""
    return text(saved.result.get("name")), text(saved.result.get("about"))


def schedule_of(saved: Saved) -> ComparisonSchedule:
    """Return how a comparison measured."""
    plan = mapping(saved.result, "plan")
    return ComparisonSchedule(
        repeats_done=natural(plan.get("repeats_done")),
        duration_s=duration_s(plan.get("duration_s")),
        confidence=number(plan.get("confidence")),
        least_share=number(plan.get("least_share")),
        paired=plan.get("paired") is True,
        method=text(plan.get("method")),
    )


def candidates_of(saved: Saved) -> list[SavedCandidate]:
    """Return the candidates of a comparison; the first is the baseline."""
    return [
        SavedCandidate(
            name=text(side.get("name")),
            about=text(side.get("about")),
            target=read_target(side.get("target")),
            options=text(side.get("options")),
            start=text(side.get("start")),
            connections=number(mapping(side, "load").get("connections")),
            runs=texts(side.get("runs")),
            limited_runs=natural(side.get("limited_runs")),
            silences=list(_silences(side)),
        )
        for side in records(saved.result.get("candidates"))
    ]


def _silences(side: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    for one in records(side.get("silences")):
        begin_s, end_s = duration_s(one.get("from_s")), duration_s(one.get("to_s"))
        if begin_s is not None and end_s is not None:
            yield text(one.get("run")) or "?", begin_s, end_s


def compared_metrics_of(saved: Saved) -> list[ComparedMetric]:
    """Return what a comparison found of each metric."""
    if saved.kind != COMPARISON:
        return []
    found = []
    for entry in records(saved.result.get("differences")):
        verdict, better = text(entry.get("verdict")) or CANNOT_TELL, text(entry.get("better"))
        found.append(
            ComparedMetric(
                metric=text(entry.get("metric")),
                unit=text(entry.get("unit")),
                better=better,
                baseline=text(entry.get("baseline")),
                candidate=text(entry.get("candidate")),
                baseline_value=number(entry.get("baseline_value")),
                candidate_value=number(entry.get("candidate_value")),
                change=number(entry.get("change")),
                low=number(entry.get("low")),
                high=number(entry.get("high")),
                relative=entry.get("relative") is True,
                verdict=verdict,
                worse=is_worse({"verdict": verdict, "better": better}),
            )
        )
    return found


def compared_rules_of(saved: Saved) -> list[ComparedRule]:
    """Return the rules that candidates of a comparison violate differently."""
    found = []
    for entry in records(saved.result.get("rule_differences")) if saved.kind == COMPARISON else []:
        verdicts = {name: text(verdict) for name, verdict in items(entry.get("verdicts"))}
        severity = read_severity(entry.get("severity"))
        worse = severity in FAILING_SEVERITIES and next(iter(verdicts.values()), VIOLATED) != VIOLATED
        name, section, requirement = (text(entry.get(key)) for key in ("rule", "section", "requirement"))
        found.append(ComparedRule(name or "?", section, severity, requirement, verdicts, worse))
    return found


def has_compared_rules(saved: Saved) -> bool:
    """Return whether a comparison compared rules at all."""
    return bool(mapping(saved.result, "rules"))


def repeated_metrics_of(saved: Saved) -> list[RepeatedMetric]:
    """Return the values of every metric in all repeats of a comparison."""
    return [
        RepeatedMetric(
            text(figure.get("metric")),
            text(figure.get("unit")),
            [
                (name, [value for value in map(number, entries(values)) if value is not None])
                for name, values in items(figure.get("values"))
            ],
        )
        for figure in records(saved.result.get("figures"))
    ]
