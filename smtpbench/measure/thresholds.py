"""Evaluate thresholds: for each, the measured value and its distance from the limit.

A threshold without data fails. So does one that a reply which never came could break: the latency of such an arrival is a
lower bound, and the message counts as failed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from smtpbench.measure.censoring import highest_possible_ms, is_lower_bound, withheld
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval, Latency
from smtpbench.threshold import COUNT, GENERATOR_METRICS, SERVER_METRICS, SHARE, Metric, Threshold, format_value, percent_of

#: Operators of a condition that a higher value can break.
_UPPER_LIMITS = ("<", "<=", "==")


@dataclass(frozen=True, slots=True)
class Figures:
    """What thresholds are evaluated on.

    Attributes:
        totals: What was counted in the measured window.
        window_s: Length of the measured window, seconds.
        generator: `generator` of the result (`result.generator_section`).
        domains: Recipient domain → its part of the totals.
        closed_model: Whether a connection that waits for a reply begins no arrivals.
        sending_s: Length of the sending window, seconds; None if it is the measured window.
        server: `server` of the result; None if nothing is known of the server.
    """

    totals: Interval
    window_s: float
    generator: Mapping[str, Any]
    domains: Mapping[str, Interval] = field(default_factory=dict)
    closed_model: bool = False
    sending_s: float | None = None
    server: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ThresholdResult:
    """A threshold and what was measured.

    Attributes:
        threshold: The threshold.
        value: Measured value, in the unit of the threshold; None without data.
        lower_bound: Whether the true value may be notably higher, because replies did not come.
        highest: The highest value that is possible then; None if the value is exact.
    """

    threshold: Threshold
    value: float | None
    lower_bound: bool = False
    highest: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the condition is met; false without data, and if a higher value could break it."""
        if self.value is None:
            return False
        if self.highest is not None and self.threshold.operator in _UPPER_LIMITS:
            return self.threshold.is_met_by(self.highest)
        return self.threshold.is_met_by(self.value)

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
            "lower_bound": self.lower_bound,
        }


def evaluate(thresholds: Sequence[Threshold], figures: Figures) -> list[ThresholdResult]:
    """Return the result of each threshold."""
    return [_evaluate_one(threshold, figures) for threshold in thresholds]


def _evaluate_one(threshold: Threshold, figures: Figures) -> ThresholdResult:
    if threshold.domain:
        of_domain = figures.domains.get(threshold.domain)
        if of_domain is None or not of_domain.has_data:
            return ThresholdResult(threshold, None)
        figures = replace(figures, totals=of_domain)
    totals = figures.totals
    if figures.closed_model and totals.waits.count:
        totals, missing = _with_withheld(totals)
    else:
        missing = 0
    if threshold.path == ("failed",):
        failed = totals.messages["failed"] + totals.messages["interrupted"] + missing
        return ThresholdResult(threshold, _share_or_count(threshold.kind, failed, totals.attempted + missing))
    value = value_of(threshold, replace(figures, totals=totals))
    bounds = totals.censored.get(threshold.latency_name)
    if value is None or bounds is None:
        return ThresholdResult(threshold, value)
    _, time, statistic = threshold.path
    censored: Histogram = getattr(bounds, time)
    percent = percent_of(statistic)
    if percent is not None:
        whole: Histogram = getattr(totals.latencies[threshold.latency_name, True], time)
        marked, highest = is_lower_bound(whole, censored, percent), highest_possible_ms(whole, censored, percent)
    else:
        marked = bool(censored.count) and statistic in ("mean", "max")
        highest = math.inf if marked else value
    return ThresholdResult(threshold, value, marked, None if highest <= value else highest)


def _with_withheld(totals: Interval) -> tuple[Interval, int]:
    """Return totals with the arrivals that a closed model did not issue while it waited in vain, and their number."""
    pace_ns = _pace_ns(totals)
    extra = withheld(totals.waits, pace_ns)
    if not extra.count:
        return totals, 0
    whole = Interval()
    whole.add(totals)
    added = Latency(extra, extra)
    for metric in totals.censored:
        whole.latencies[metric, True].add(added)
        whole.censored[metric].add(added)
    return whole, extra.count


def _pace_ns(totals: Interval) -> float:
    """Return the mean time of the transactions that were answered; 0 without any."""
    latency, bounds = totals.latencies.get(("transaction", True)), totals.censored.get("transaction")
    if latency is None:
        return 0.0
    cut_count, cut_ns = (bounds.service.count, bounds.service.sum_ns) if bounds else (0, 0)
    answered = latency.service.count - cut_count
    return (latency.service.sum_ns - cut_ns) / answered if answered else 0.0


def failed_during_run(thresholds: Sequence[Threshold], figures: Figures) -> list[ThresholdResult]:
    """Return the thresholds that have failed in a run in progress; those that can only be judged at the end are left out.

    A lower bound has failed once it is beyond the limit itself: the reply may still come.
    """
    verdicts = evaluate([one for one in thresholds if not one.only_at_the_end], figures)
    return [verdict for verdict in verdicts if _has_failed(verdict)]


def _has_failed(verdict: ThresholdResult) -> bool:
    if verdict.value is None or verdict.threshold.is_met_by(verdict.value):
        return False
    return not verdict.lower_bound or verdict.threshold.operator in ("<", "<=")


def value_of(metric: Threshold | Metric, figures: Figures) -> float | None:
    """Return the value of a metric; None without data."""
    head, *rest = metric.path
    totals = figures.totals
    if head == "throughput":
        sending_s = figures.window_s if figures.sending_s is None else figures.sending_s
        return totals.accepted_while_sending / sending_s if sending_s else None
    if head == "generator":
        return float(figures.generator[GENERATOR_METRICS[rest[0]][1]])
    if head == "server":
        _, key, factor = SERVER_METRICS[rest[0]]
        found = (figures.server or {}).get(key)
        return None if found is None else float(found) * factor
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
        bounds = totals.censored.get(metric)
        return float(histogram.count - (getattr(bounds, time).count if bounds else 0))
    if not histogram.count:
        return None
    percent = percent_of(statistic)
    if percent is not None:
        return histogram.percentiles_ms([percent])[percent]
    value_ns = {"min": histogram.min_ns, "mean": histogram.sum_ns / histogram.count, "max": histogram.max_ns}[statistic]
    return value_ns / 1e6


def describe(entry: Mapping[str, Any]) -> str:
    """Return an entry of `thresholds` as text: `message.p99 < 200ms is 34.1 ms, 83% to spare`."""
    value, unit, margin = entry["value"], entry["unit"], entry["margin_share"]
    if value is None:
        return f"{entry['threshold']} has no data"
    bounded = bool(entry.get("lower_bound"))
    text = f"{entry['threshold']} is {'≥ ' if bounded else ''}{format_value(unit, value)}"
    if bounded and not entry["passed"] and margin is not None and margin >= 0:
        return f"{text}, which may be beyond the limit, because replies did not come"
    if margin is None or math.isinf(margin):
        return text
    return f"{text}, {abs(margin):.0%} {'to spare' if entry['passed'] else 'beyond the limit'}"
