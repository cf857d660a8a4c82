"""Evaluate thresholds: for each, the measured value and its distance from the limit.

A threshold without data fails.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval
from smtpbench.threshold import COUNT, GENERATOR_METRICS, SHARE, Metric, Threshold, format_value, percent_of


@dataclass(frozen=True, slots=True)
class Figures:
    """What thresholds are evaluated on.

    Attributes:
        totals: What was counted in the measured window.
        window_s: Length of the measured window, seconds.
        generator: `generator` of the result (`result.generator_section`).
        domains: Recipient domain → its part of the totals.
    """

    totals: Interval
    window_s: float
    generator: Mapping[str, Any]
    domains: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ThresholdResult:
    """A threshold and what was measured.

    Attributes:
        threshold: The threshold.
        value: Measured value, in the unit of the threshold; None without data.
    """

    threshold: Threshold
    value: float | None

    @property
    def passed(self) -> bool:
        """Whether the condition is met; false without data."""
        return self.value is not None and self.threshold.is_met_by(self.value)

    def to_data(self) -> dict[str, Any]:
        """Return an entry of `thresholds` of the result."""
        threshold, value = self.threshold, self.value
        return {
            "threshold": threshold.text,
            "metric": threshold.metric,
            "unit": threshold.kind,
            "limit": threshold.limit,
            "value": value,
            "margin_share": None if value is None else threshold.margin(value),
            "passed": self.passed,
        }


def evaluate(thresholds: Sequence[Threshold], figures: Figures) -> list[ThresholdResult]:
    """Return the result of each threshold."""
    return [ThresholdResult(threshold, _value_for_domain(threshold, figures)) for threshold in thresholds]


def failed_during_run(thresholds: Sequence[Threshold], figures: Figures) -> list[ThresholdResult]:
    """Return the thresholds that have failed in a run in progress; those that can only be judged at the end are left out."""
    verdicts = evaluate([one for one in thresholds if not one.only_at_the_end], figures)
    return [verdict for verdict in verdicts if verdict.value is not None and not verdict.passed]


def _value_for_domain(threshold: Threshold, figures: Figures) -> float | None:
    """Return the value of the whole run or of a recipient domain; None for a domain that received no message."""
    if not threshold.domain:
        return value_of(threshold, figures)
    of_domain = figures.domains.get(threshold.domain)
    return value_of(threshold, replace(figures, totals=of_domain)) if of_domain and of_domain.has_data else None


def value_of(metric: Threshold | Metric, figures: Figures) -> float | None:
    """Return the value of a metric; None without data."""
    head, *rest = metric.path
    totals = figures.totals
    if head == "throughput":
        return totals.messages["accepted"] / figures.window_s if figures.window_s else None
    if head == "generator":
        return float(figures.generator[GENERATOR_METRICS[rest[0]][1]])
    if head == "recipients":
        accepted, rejected = totals.recipients()
        return _share_or_count(metric.kind, accepted if rest == ["accepted"] else rejected, accepted + rejected)
    if head == "replies":
        counts = [(str(code), count) for (verb, code, _, _), count in totals.replies.items() if verb == rest[0]]
        wanted = rest[1].rstrip("x") if len(rest) > 1 else ""
        matching = sum(count for code, count in counts if code.startswith(wanted))
        return _share_or_count(metric.kind, matching, sum(count for _, count in counts))
    if head == "errors":
        found = totals.errors[rest[0]] if rest else sum(totals.errors.values())
        return _share_or_count(metric.kind, found, totals.attempted)
    if rest:
        return _latency(totals, *metric.path)
    return _share_or_count(metric.kind, totals.attempted if head == "attempted" else totals.messages[head], totals.attempted)


def _share_or_count(kind: str, count: int, whole: int) -> float | None:
    if kind == SHARE:
        return count / whole if whole else None
    return float(count)


def _latency(totals: Interval, metric: str, time: str, statistic: str) -> float | None:
    latency = totals.latencies.get((metric, True))
    if latency is None:
        return 0.0 if statistic == COUNT else None
    histogram: Histogram = getattr(latency, time)
    if statistic == COUNT:
        return float(histogram.count)
    if not histogram.count:
        return None
    percent = percent_of(statistic)
    if percent is not None:
        return histogram.percentiles_ms([percent])[percent]
    value_ns = {"min": histogram.min_ns, "mean": histogram.sum_ns / histogram.count, "max": histogram.max_ns}[statistic]
    return value_ns / 1e6


def describe(entry: Mapping[str, Any]) -> str:
    """Return an entry of `thresholds` as text: `message.p99 < 200ms: 34.1 ms, 83% to spare`."""
    value, unit, margin = entry["value"], entry["unit"], entry["margin_share"]
    if value is None:
        return f"{entry['threshold']}: no data"
    text = f"{entry['threshold']}: {format_value(unit, value)}"
    if margin is None or math.isinf(margin):
        return text
    return f"{text}, {abs(margin):.0%} {'to spare' if entry['passed'] else 'beyond the limit'}"
