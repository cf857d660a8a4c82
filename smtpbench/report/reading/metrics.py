"""What a result says, typed and made safe: the one place where formats read results.

A result may have been made up by anybody, so nothing in it is believed. What is missing is empty, what is no number is
None, and every text is one that `reading.words` made safe, so that a format escapes its own markup and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from smtpbench.measure.comparison import CANNOT_TELL, worse
from smtpbench.measure.recorder import MESSAGE_COUNTS
from smtpbench.measure.saved import CAPACITY, COMPARISON, FUZZ, RUN, Saved
from smtpbench.measure.thresholds import sentence
from smtpbench.report.reading.findings import severity_of
from smtpbench.report.reading.sections import duration_s, instant, natural, number, records, section, texts, words
from smtpbench.rules.rule import SECURITY, VIOLATED, VIOLATION

COMPLETED: Final = "completed"
#: The statistics of a slot's time: keys of a result, in milliseconds.
STATISTICS: Final = ("min_ms", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms")
TIMES: Final = ("service", "response")


class Head(NamedTuple):
    """What a result is about. label: unlike every other's of a report. status: `completed`, or what ended it."""

    label: str
    kind: str
    status: str
    reason: str
    started: datetime | None
    scenario: str
    target: str
    banner: str
    version: str
    seconds: float | None


class Times(NamedTuple):
    """One slot's service or response time. ok: of replies that were expected. ms: by STATISTICS. histogram: as encoded."""

    slot: str
    time: str
    ok: bool
    samples: int
    ms: Mapping[str, float | None]
    histogram: str


class Limit(NamedTuple):
    """A threshold, or an objective, with what was measured; said: all of it in words. value, limit: in the unit."""

    text: str
    unit: str
    limit: float | None
    value: float | None
    margin_share: float | None
    passed: bool
    said: str


class ComparedMetric(NamedTuple):
    """An entry of a comparison's `differences`."""

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

    def to_data(self) -> dict[str, Any]:
        """As `comparison.change_text` reads it; without a change where its interval is not whole."""
        data = self._asdict()
        return data if None not in (self.low, self.high) else {**data, "change": None}


class ComparedRule(NamedTuple):
    """A rule that some candidates of a comparison break and others do not. verdicts: by candidate."""

    name: str
    severity: str
    requirement: str
    verdicts: Mapping[str, str]
    worse: bool


class CapacityStep(NamedTuple):
    """A step of a search for capacity. limited_by: why it did not hold. p50_ms … max_ms: response time of messages."""

    rate_per_s: float | None
    throughput_per_s: float | None
    held: bool
    limited_by: str
    why: str
    counts: Mapping[str, int]
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    limits: Sequence[Limit]


class Phase(NamedTuple):
    """Honest sessions of a run before the hostile ones, or beside them. message_ms: response time: p50, p99, max."""

    name: str
    rate_per_s: float | None
    message_ms: Sequence[float | None]


class Figure(NamedTuple):
    """A key figure. value: a number with its unit in the name, or a text."""

    name: str
    value: float | int | str


# -- of a result --------------------------------------------------------------------------------------------------------


def heads(saved: Iterable[Saved]) -> list[tuple[Head, Saved]]:
    """Each result with its head; a label that was taken has a number behind it."""
    taken: set[str] = set()
    found = []
    for one in saved:
        base = words(one.label) or one.kind
        label, number_ = base, 1
        while label in taken:
            number_ += 1
            label = f"{base} ({number_})"
        taken.add(label)
        found.append((_head(one, label), one))
    return found


def _head(saved: Saved, label: str) -> Head:
    result = saved.result
    outcome = result.get("outcome")
    status = words(section(outcome).get("status")) or words(outcome)
    scenario, target = section(result, "scenario"), section(result, "target")
    if saved.kind == COMPARISON:
        urls = [words(section(side, "target").get("url")) for side in records(result.get("candidates"))]
        url = ", ".join(filter(None, urls))
    else:
        url = words(target.get("url"))
    return Head(
        label=label,
        kind=saved.kind,
        status=COMPLETED if status in ("complete", COMPLETED) else status or "unknown",
        reason=words(section(outcome).get("reason")),
        started=instant(result.get("started")),
        scenario=words(scenario.get("name")) or words(result.get("name")),
        target=url,
        banner=words(target.get("banner")),
        version=words(section(result, "versions").get("smtpbench")),
        seconds=_seconds(saved),
    )


def _seconds(saved: Saved) -> float | None:
    """How long was measured."""
    result = saved.result
    if saved.kind == RUN:
        return duration_s(section(result, "load").get("window_s"))
    if saved.kind == CAPACITY:
        return sum(duration_s(step.get("measured_s")) or 0.0 for step in records(result.get("steps")))
    if saved.kind == COMPARISON:
        plan = section(result, "plan")
        each, rounds = duration_s(plan.get("duration_s")), natural(plan.get("repeats_done"))
        return each * rounds * len(records(result.get("candidates"))) if each is not None else None
    return None


def times(saved: Saved) -> list[Times]:
    """Every slot's service and response time."""
    found = []
    for name, ok in (("latency", True), ("latency_failed", False)):
        for slot, both in section(saved.result, name).items():
            for time in TIMES:
                one = section(both, time)
                if one:
                    ms = {statistic: number(one.get(statistic)) for statistic in STATISTICS}
                    encoded = one.get("histogram")
                    histogram = encoded if isinstance(encoded, str) else ""
                    found.append(Times(words(slot), time, ok, natural(one.get("count")), ms, histogram))
    return found


def limits(saved: Saved) -> list[Limit]:
    """The thresholds of a run."""
    return [_limit(entry, "threshold") for entry in records(saved.result.get("thresholds"))]


def _limit(entry: Mapping[str, Any], name: str) -> Limit:
    text, unit = words(entry.get(name)) or "?", words(entry.get("unit"))
    value, margin = number(entry.get("value")), number(entry.get("margin_share", entry.get("margin")))
    passed = entry.get("passed") is True
    said = sentence({"threshold": text, "value": value, "unit": unit, "margin_share": margin, "passed": passed})
    return Limit(text, unit, number(entry.get("limit")), value, margin, passed, said)


def shifts(saved: Saved) -> list[ComparedMetric]:
    """What a comparison found of each metric."""
    if saved.kind != COMPARISON:
        return []
    found = []
    for entry in records(saved.result.get("differences")):
        verdict, better = words(entry.get("verdict")) or CANNOT_TELL, words(entry.get("better"))
        found.append(
            ComparedMetric(
                metric=words(entry.get("metric")),
                unit=words(entry.get("unit")),
                better=better,
                baseline=words(entry.get("baseline")),
                candidate=words(entry.get("candidate")),
                baseline_value=number(entry.get("baseline_value")),
                candidate_value=number(entry.get("candidate_value")),
                change=number(entry.get("change")),
                low=number(entry.get("low")),
                high=number(entry.get("high")),
                relative=entry.get("relative") is True,
                verdict=verdict,
                worse=worse({"verdict": verdict, "better": better}),
            )
        )
    return found


def broken_differently(saved: Saved) -> list[ComparedRule]:
    """What a comparison found of the rules. worse: somebody breaks it that is not the first, and it is grave."""
    found = []
    for entry in records(saved.result.get("rule_differences")) if saved.kind == COMPARISON else []:
        verdicts = {words(name): words(verdict) for name, verdict in section(entry, "verdicts").items()}
        severity = severity_of(entry.get("severity"))
        worse_ = severity in (SECURITY, VIOLATION) and next(iter(verdicts.values()), VIOLATED) != VIOLATED
        found.append(
            ComparedRule(words(entry.get("rule")) or "?", severity, words(entry.get("requirement")), verdicts, worse_)
        )
    return found


def steps(saved: Saved) -> list[CapacityStep]:
    """The steps of a search for capacity, in the order in which they ran."""
    if saved.kind != CAPACITY:
        return []
    return [
        CapacityStep(
            rate_per_s=number(entry.get("rate_per_s")),
            throughput_per_s=number(entry.get("throughput_per_s")),
            held=entry.get("held") is True,
            limited_by=words(entry.get("limited_by")),
            why=words(entry.get("why")),
            counts={name: natural(entry.get(name)) for name in ("accepted", "rejected", "failed", "dropped")},
            p50_ms=number(entry.get("p50_ms")),
            p99_ms=number(entry.get("p99_ms")),
            max_ms=number(entry.get("max_ms")),
            limits=[_limit(one, "text") for one in records(entry.get("objectives"))],
        )
        for entry in records(saved.result.get("steps"))
    ]


def phases(saved: Saved) -> list[Phase]:
    """What hostile sessions did to honest ones; empty where there were none."""
    hostile = section(saved.result, "hostile") if saved.kind == RUN else {}
    found = []
    for key, name in (("quiet", "before"), ("beside", "beside")):
        phase = section(hostile, key)
        if phase:
            message = section(phase, "latency", "message", "response")
            times_ms = [number(message.get(statistic)) for statistic in ("p50_ms", "p99_ms", "max_ms")]
            found.append(Phase(name, number(phase.get("messages_per_s")), times_ms))
    return found


def counts(saved: Saved, *names: str) -> dict[tuple[str, ...], int]:
    """Counts by their names, however deep: `counts(run, "replies")` → {("RCPT", "550"): 3}."""
    found: Counter[tuple[str, ...]] = Counter()

    def walk(value: object, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, (*path, words(name)))
        elif path and number(value) is not None:
            found[path] += natural(value)

    walk(section(saved.result, *names), ())
    return dict(found)


def figures(saved: Saved) -> list[Figure]:
    """The key figures of a result."""
    result = saved.result
    found: list[Figure] = []

    def add(name: str, value: object) -> None:
        shown = number(value)
        if shown is not None:
            found.append(Figure(name, int(shown) if isinstance(value, int) else shown))

    if saved.kind == RUN:
        for name in ("attempted", *MESSAGE_COUNTS):
            add(f"messages.{name}", section(result, "messages").get(name))
        add("throughput.messages_per_s", section(result, "throughput").get("messages_per_s"))
        add("load.window_s", section(result, "load").get("window_s"))
        found.append(Figure("load.model", words(section(result, "load").get("model"))))
        for statistic in ("p50_ms", "p99_ms", "max_ms"):
            add(f"message.response.{statistic}", section(result, "latency", "message", "response").get(statistic))
    elif saved.kind == CAPACITY:
        for name in ("rate_per_s", "failed_rate_per_s", "precision_share"):
            add(f"capacity.{name}", section(result, "capacity").get(name))
        found.append(Figure("capacity.limited_by", words(section(result, "capacity").get("limited_by"))))
    elif saved.kind == COMPARISON:
        add("plan.repeats_done", section(result, "plan").get("repeats_done"))
        add("plan.confidence", section(result, "plan").get("confidence"))
    elif saved.kind == FUZZ:
        for name in ("run", "confirmed"):
            add(f"cases.{name}", section(result, "cases").get(name))
        add("seed", result.get("seed"))
    reasons = texts(section(result, "generator").get("limited_reasons"))
    found += [Figure("generator.limited", reason) for reason in reasons[:3]]
    return found


def notes(saved: Saved) -> list[str]:
    """What a reader must know."""
    limited = [f"the generator was the bottleneck: {text}" for text in
               texts(section(saved.result, "generator").get("limited_reasons"))]  # fmt: skip
    return limited + texts(saved.result.get("notes"))
