"""OpenMetrics text: what was measured, for Prometheus (a textfile collector, a push, `promtool`).

Names, labels and buckets are those of `run --metrics` where both have them. Times are seconds, as OpenMetrics wants its base
units. Each result has its label on every sample; no sample has a time of its own, for it is the scrape's that counts.

Source: the OpenMetrics specification 1.0.0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.saved import CAPACITY, Saved
from smtpbench.report.formats.buckets import EDGES_TEXT, Buckets
from smtpbench.report.reading import findings as judged
from smtpbench.report.reading import metrics as facts
from smtpbench.report.reading.metrics import Head, Times
from smtpbench.report.reading.sections import instant_text, number, section
from smtpbench.rules.rule import PASS, VIOLATED
from smtpbench.units import NS_PER_S

_CODE = re.compile(r"[2-5][0-9]{2}")
_QUANTILES: Final = {"p50_ms": "0.5", "p90_ms": "0.9", "p95_ms": "0.95", "p99_ms": "0.99", "p99_9_ms": "0.999"}
#: family → type, unit (the end of its name, or nothing), help.
_FAMILIES: Final = {
    "smtpbench_result": ("info", "", "A result, and what it is about."),
    "smtpbench_completed": ("gauge", "", "1 where it came to its end."),
    "smtpbench_measured_seconds": ("gauge", "seconds", "How long was measured."),
    "smtpbench_messages": ("counter", "", "Messages by outcome."),
    "smtpbench_recipients": ("counter", "", "RCPT commands by outcome."),
    "smtpbench_replies": ("counter", "", "Replies by verb, code and the class of that."),
    "smtpbench_errors": ("counter", "", "Connections and sessions that broke, by kind."),
    "smtpbench_throughput_messages_per_second": ("gauge", "", "Messages accepted a second."),
    "smtpbench_latency_seconds": ("histogram", "seconds", "Service and response time of a slot."),
    "smtpbench_latency_quantile_seconds": ("gauge", "seconds", "The same: what so many of the samples keep below."),
    "smtpbench_latency_max_seconds": ("gauge", "seconds", "The longest of a slot."),
    "smtpbench_threshold_passed": ("gauge", "", "1 where it held."),
    "smtpbench_threshold_value": ("gauge", "", "What was measured, in the unit that is its label."),
    "smtpbench_rule_kept": ("gauge", "", "1 where the server keeps a rule, 0 where it breaks it."),
    "smtpbench_findings": ("gauge", "", "Findings by rule."),
    "smtpbench_difference": ("gauge", "", "Change from the baseline: a share of its value, or the metric's unit."),
    "smtpbench_difference_worse": ("gauge", "", "1 where the candidate is worse."),
    "smtpbench_capacity_messages_per_second": ("gauge", "", "The highest rate that held."),
}  # fmt: skip


class _Sample(NamedTuple):
    family: str
    suffix: str
    labels: Mapping[str, str]
    value: float


def openmetrics(saved: Sequence[Saved]) -> str:
    """The exposition, which `# EOF` ends."""
    found: dict[str, dict[str, float]] = {family: {} for family in _FAMILIES}
    for head, one in facts.heads(saved):
        for sample in _samples(head, one):
            labels = ",".join(f'{name}="{_escaped(text)}"' for name, text in {"result": head.label, **sample.labels}.items())
            # two names of a made-up result may have become one
            found[sample.family][f"{sample.family}{sample.suffix}{{{labels}}}"] = sample.value
    lines = []
    for family, (kind, unit, told) in _FAMILIES.items():
        if found[family]:
            lines += [f"# TYPE {family} {kind}", *([f"# UNIT {family} {unit}"] if unit else []), f"# HELP {family} {told}"]
            lines += [f"{name} {value!r}" for name, value in found[family].items()]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _samples(head: Head, saved: Saved) -> Iterator[_Sample]:
    about = {
        "kind": head.kind, "scenario": head.scenario, "target": head.target, "started": instant_text(head.started),
        "banner": head.banner, "version": head.version,
    }  # fmt: skip
    yield _Sample("smtpbench_result", "_info", about, 1)
    yield _gauge("completed", {}, head.status == facts.COMPLETED)
    yield from _maybe("measured_seconds", {}, head.seconds)
    for name, label in (("messages", "outcome"), ("recipients", "outcome"), ("errors", "kind")):
        for path, count in facts.counts(saved, name).items():
            if len(path) == 1 and path != ("attempted",):
                yield _Sample(f"smtpbench_{name}", "_total", {label: path[0]}, count)
    for path, count in facts.counts(saved, "replies").items():
        if len(path) == 2:
            verb, code = path
            kind = f"{code[0]}xx" if _CODE.fullmatch(code) else "malformed"
            yield _Sample("smtpbench_replies", "_total", {"verb": verb, "class": kind, "code": code}, count)
    throughput = number(section(saved.result, "throughput").get("messages_per_s"))
    yield from _maybe("throughput_messages_per_second", {}, throughput)
    yield from _latencies(saved)
    for limit in facts.limits(saved):
        yield _gauge("threshold_passed", {"threshold": limit.text}, limit.passed)
        yield from _maybe("threshold_value", {"threshold": limit.text, "unit": limit.unit}, limit.value)
    for ruling in judged.verdicts(saved):
        if ruling.verdict in (PASS, VIOLATED):
            yield _gauge("rule_kept", {"rule": ruling.name, "severity": ruling.severity}, ruling.verdict == PASS)
    for (rule, severity), count in Counter((one.rule, one.severity) for one in judged.findings(saved)).items():
        yield _gauge("findings", {"rule": rule, "severity": severity}, count)
    for shift in facts.shifts(saved):
        versus = {"metric": shift.metric, "baseline": shift.baseline, "candidate": shift.candidate}
        for bound in ("change", "low", "high"):
            unit = "share" if shift.relative else shift.unit
            yield from _maybe("difference", {**versus, "unit": unit, "of": bound}, getattr(shift, bound))
        yield _gauge("difference_worse", versus, shift.worse)
    if saved.kind == CAPACITY:
        yield from _maybe("capacity_messages_per_second", {}, number(section(saved.result, "capacity").get("rate_per_s")))


def _latencies(saved: Saved) -> Iterator[_Sample]:
    for one in facts.times(saved):
        labels = {"slot": one.slot, "expected": str(one.ok).lower(), "time": one.time}
        yield from _histogram(one, labels)
        for statistic, quantile in _QUANTILES.items():
            value = one.ms[statistic]
            if value is not None:
                yield _gauge("latency_quantile_seconds", {**labels, "quantile": quantile}, value / 1000)
        if one.ms["max_ms"] is not None:
            yield _gauge("latency_max_seconds", labels, one.ms["max_ms"] / 1000)


def _histogram(one: Times, labels: Mapping[str, str]) -> Iterator[_Sample]:
    """With the buckets that a scrape of the run itself had."""
    mean_ms = one.ms["mean_ms"]
    try:
        histogram = Histogram.decode(one.histogram)
    except ValueError:
        return
    buckets = Buckets()
    buckets.add(histogram)
    for edge, count in zip(EDGES_TEXT, accumulate(buckets.counts), strict=True):
        yield _Sample("smtpbench_latency_seconds", "_bucket", {**labels, "le": edge}, count)
    yield _Sample("smtpbench_latency_seconds", "_count", labels, histogram.count)
    sum_s = buckets.sum_ns / NS_PER_S if mean_ms is None or mean_ms < 0 else mean_ms * histogram.count / 1000
    yield _Sample("smtpbench_latency_seconds", "_sum", labels, sum_s)


def _gauge(name: str, labels: Mapping[str, str], value: float) -> _Sample:
    return _Sample(f"smtpbench_{name}", "", labels, float(value))


def _maybe(name: str, labels: Mapping[str, str], value: float | None) -> Iterator[_Sample]:
    if value is not None:
        yield _gauge(name, labels, value)
