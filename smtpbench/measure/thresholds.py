"""What became of a run's thresholds: each with the value that was measured, and how far that is from the limit.

A threshold whose metric was never measured fails: nothing was shown to hold.
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
    """What thresholds are read from.

    window_s: of the totals. generator: as in the result (`result.generator_section`). domains: the parts of the totals that
    were counted apart, by recipient domain.
    """

    totals: Interval
    window_s: float
    generator: Mapping[str, Any]
    domains: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ThresholdResult:
    """value: in the unit of the threshold's kind; None where nothing was measured."""

    threshold: Threshold
    value: float | None

    @property
    def passed(self) -> bool:
        """Whether it held."""
        return self.value is not None and self.threshold.is_met_by(self.value)

    def to_data(self) -> dict[str, Any]:
        """An entry of the result's `thresholds`."""
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
    """Each threshold with what was measured."""
    return [ThresholdResult(threshold, _value(threshold, figures)) for threshold in thresholds]


def failed_for_good(thresholds: Sequence[Threshold], figures: Figures) -> list[ThresholdResult]:
    """Those that fail while a run is under way, and are not only waiting for more to come."""
    verdicts = evaluate([one for one in thresholds if not one.only_at_the_end], figures)
    return [verdict for verdict in verdicts if verdict.value is not None and not verdict.passed]


def _value(threshold: Threshold, figures: Figures) -> float | None:
    """What was measured of the whole run or of a domain; of a domain that nobody wrote to, not even a count of 0 was."""
    if not threshold.domain:
        return value_of(threshold, figures)
    of_domain = figures.domains.get(threshold.domain)
    return value_of(threshold, replace(figures, totals=of_domain)) if of_domain and of_domain.counted else None


def value_of(asked: Threshold | Metric, figures: Figures) -> float | None:
    """What the totals hold of its metric; None where nothing was measured."""
    head, *rest = asked.path
    totals = figures.totals
    if head == "throughput":
        return totals.messages["accepted"] / figures.window_s if figures.window_s else None
    if head == "generator":
        return float(figures.generator[GENERATOR_METRICS[rest[0]][1]])
    if head == "recipients":
        accepted, rejected = totals.recipients()
        return _of(asked.kind, accepted if rest == ["accepted"] else rejected, accepted + rejected)
    if head == "replies":
        counts = [(str(code), count) for (verb, code, _, _), count in totals.replies.items() if verb == rest[0]]
        wanted = rest[1].rstrip("x") if len(rest) > 1 else ""
        return _of(asked.kind, sum(n for code, n in counts if code.startswith(wanted)), sum(n for _, n in counts))
    if head == "errors":
        found = totals.errors[rest[0]] if rest else sum(totals.errors.values())
        return _of(asked.kind, found, totals.attempted)
    if rest:
        return _latency(totals, *asked.path)
    return _of(asked.kind, totals.attempted if head == "attempted" else totals.messages[head], totals.attempted)


def _of(kind: str, count: int, whole: int) -> float | None:
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


def sentence(entry: Mapping[str, Any]) -> str:
    """An entry of the result's `thresholds` in words: `message.p99 < 200ms: 34.1 ms, 83 % to spare`."""
    value, unit, margin = entry["value"], entry["unit"], entry["margin_share"]
    if value is None:
        return f"{entry['threshold']}: nothing of it was measured"
    said = f"{entry['threshold']}: {format_value(unit, value)}"
    if margin is None or math.isinf(margin):
        return said
    return f"{said}, {abs(margin):.0%} {'to spare' if entry['passed'] else 'beyond it'}"
