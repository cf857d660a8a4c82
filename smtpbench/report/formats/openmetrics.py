"""OpenMetrics text: what was measured, for Prometheus (a textfile collector, a push, `promtool`).

Names, labels and buckets are those of `run --metrics` where both have them. Times are in seconds, the base unit of
OpenMetrics. Every sample carries the label of its result. No sample has a timestamp, because Prometheus uses that of the
scrape.

Source: the OpenMetrics specification 1.0.0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from smtpbench.measure.saved import CAPACITY, Saved
from smtpbench.report.formats.buckets import EDGES_TEXT, Buckets
from smtpbench.report.reading.capacity import capacity_of
from smtpbench.report.reading.comparison import compared_metrics_of
from smtpbench.report.reading.findings import findings_of, verdicts_of
from smtpbench.report.reading.formatting import format_instant
from smtpbench.report.reading.head import COMPLETED, Head, heads_of
from smtpbench.report.reading.metrics import MetricLatency, counts_of, latencies_of, thresholds_of, throughput_of
from smtpbench.report.reading.server import server_of
from smtpbench.rules.rule import PASS, VIOLATED
from smtpbench.units import NS_PER_S

_CODE = re.compile(r"[2-5][0-9]{2}")
_QUANTILES: Final = {"p50_ms": "0.5", "p90_ms": "0.9", "p95_ms": "0.95", "p99_ms": "0.99", "p99_9_ms": "0.999"}
#: family → type, unit (with which its name ends, or nothing), help.
_FAMILIES: Final = {
    "smtpbench_result": ("info", "", "A result and what it is about."),
    "smtpbench_completed": ("gauge", "", "1 if the measurement completed."),
    "smtpbench_measured_seconds": ("gauge", "seconds", "Length of the measurement."),
    "smtpbench_messages": ("counter", "", "Messages by outcome."),
    "smtpbench_recipients": ("counter", "", "Recipients by outcome: at RCPT, in LMTP after the final dot too."),
    "smtpbench_replies": ("counter", "", "Replies by verb, code and class of the code."),
    "smtpbench_errors": ("counter", "", "Failures of connections and sessions, by kind."),
    "smtpbench_throughput_messages_per_second": ("gauge", "", "Accepted messages per second."),
    "smtpbench_latency_seconds": ("histogram", "seconds", "Service and response time of a metric."),
    "smtpbench_latency_quantile_seconds": ("gauge", "seconds", "Quantiles of the service and response time of a metric."),
    "smtpbench_latency_max_seconds": ("gauge", "seconds", "Maximum of the service and response time of a metric."),
    "smtpbench_server_cpu_seconds": ("counter", "seconds", "CPU time of the server under test, by mode."),
    "smtpbench_server_cpu_seconds_per_message": ("gauge", "", "CPU time of the server for an accepted message."),
    "smtpbench_server_cores_ratio": ("gauge", "ratio", "Share of the machine's cores that the server used."),
    "smtpbench_server_memory_max_bytes": ("gauge", "bytes", "Most memory of the server."),
    "smtpbench_server_memory_growth_bytes_per_hour": ("gauge", "", "Growth of the memory of the server."),
    "smtpbench_server_descriptors_max": ("gauge", "", "Most open descriptors of the server."),
    "smtpbench_server_threads_max": ("gauge", "", "Most threads of the server."),
    "smtpbench_server_processes_max": ("gauge", "", "Most processes of the server."),
    "smtpbench_server_disk_bytes": ("counter", "bytes", "Octets that the server read from disks and wrote to them."),
    "smtpbench_server_fsyncs": ("counter", "", "Calls of the server that waited for a disk."),
    "smtpbench_server_page_faults": ("counter", "", "Page faults of the server: major ones took a disk access."),
    "smtpbench_server_context_switches": ("counter", "", "Context switches of the server; involuntary: its time was up."),
    "smtpbench_server_restarts": ("counter", "", "How often the server was started again."),
    "smtpbench_server_deaths": ("counter", "", "Deaths of the server, by how it died."),
    "smtpbench_threshold_passed": ("gauge", "", "1 if the threshold passed."),
    "smtpbench_threshold_value": ("gauge", "", "Measured value of a threshold, in the unit of its label."),
    "smtpbench_rule_kept": ("gauge", "", "1 if the server complies with a rule, 0 if it violates it."),
    "smtpbench_findings": ("gauge", "", "Findings by rule."),
    "smtpbench_difference": ("gauge", "", "Change from the baseline: a share of its value, or in the unit of the metric."),
    "smtpbench_difference_worse": ("gauge", "", "1 if the candidate is worse."),
    "smtpbench_capacity_messages_per_second": ("gauge", "", "Highest rate that met the objectives."),
}  # fmt: skip


class _Sample(NamedTuple):
    family: str
    suffix: str
    labels: Mapping[str, str]
    value: float


def openmetrics(several: Sequence[Saved]) -> str:
    """Return the exposition, which `# EOF` ends."""
    found: dict[str, dict[str, float]] = {family: {} for family in _FAMILIES}
    for head, saved in heads_of(several):
        for sample in _samples(head, saved):
            labels = ",".join(f'{name}="{_escaped(text)}"' for name, text in {"result": head.label, **sample.labels}.items())
            # two names of a made-up result may be the same once they are visible
            found[sample.family][f"{sample.family}{sample.suffix}{{{labels}}}"] = sample.value
    lines = []
    for family, (kind, unit, help_text) in _FAMILIES.items():
        if found[family]:
            lines += [
                f"# TYPE {family} {kind}",
                *([f"# UNIT {family} {unit}"] if unit else []),
                f"# HELP {family} {help_text}",
            ]
            lines += [f"{name} {value!r}" for name, value in found[family].items()]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _samples(head: Head, saved: Saved) -> Iterator[_Sample]:
    about = {
        "kind": head.kind, "scenario": head.scenario, "target": head.target, "started": format_instant(head.started),
        "banner": head.banner, "version": head.version,
    }  # fmt: skip
    yield _Sample("smtpbench_result", "_info", about, 1)
    yield _gauge("completed", {}, head.status == COMPLETED)
    yield from _maybe("measured_seconds", {}, head.seconds)
    for name, label in (("messages", "outcome"), ("recipients", "outcome"), ("errors", "kind")):
        for path, count in counts_of(saved, name).items():
            if len(path) == 1 and path != ("attempted",):
                yield _Sample(f"smtpbench_{name}", "_total", {label: path[0]}, count)
    for path, count in counts_of(saved, "replies").items():
        if len(path) == 2:
            verb, code = path
            kind = f"{code[0]}xx" if _CODE.fullmatch(code) else "malformed"
            yield _Sample("smtpbench_replies", "_total", {"verb": verb, "class": kind, "code": code}, count)
    yield from _maybe("throughput_messages_per_second", {}, throughput_of(saved))
    yield from _latencies(saved)
    yield from _server(saved)
    for threshold in thresholds_of(saved):
        yield _gauge("threshold_passed", {"threshold": threshold.text}, threshold.passed)
        yield from _maybe("threshold_value", {"threshold": threshold.text, "unit": threshold.unit}, threshold.value)
    for verdict in verdicts_of(saved):
        if verdict.verdict in (PASS, VIOLATED):
            yield _gauge("rule_kept", {"rule": verdict.name, "severity": verdict.severity}, verdict.verdict == PASS)
    for (rule, severity), count in Counter((one.rule, one.severity) for one in findings_of(saved)).items():
        yield _gauge("findings", {"rule": rule, "severity": severity}, count)
    for metric in compared_metrics_of(saved):
        labels = {"metric": metric.metric, "baseline": metric.baseline, "candidate": metric.candidate}
        for bound in ("change", "low", "high"):
            unit = "share" if metric.relative else metric.unit
            yield from _maybe("difference", {**labels, "unit": unit, "of": bound}, getattr(metric, bound))
        yield _gauge("difference_worse", labels, metric.worse)
    if saved.kind == CAPACITY:
        yield from _maybe("capacity_messages_per_second", {}, capacity_of(saved).rate_per_s)


def _server(saved: Saved) -> Iterator[_Sample]:
    server = server_of(saved)
    if server is None:
        return
    for name, label, value_of in (
        ("cpu_seconds", "mode", {"user": server.cpu_user_s, "system": server.cpu_system_s}),
        ("disk_bytes", "direction", {"read": server.read_bytes, "write": server.write_bytes}),
        ("page_faults", "kind", {"minor": server.minor_faults, "major": server.major_faults}),
        ("context_switches", "kind", {"voluntary": server.voluntary_switches, "involuntary": server.involuntary_switches}),
        ("fsyncs", "", {"": server.fsyncs}),
        ("restarts", "", {"": server.restarts}),
    ):
        for labelled, value in value_of.items():
            if value is not None and value >= 0:
                yield _Sample(f"smtpbench_server_{name}", "_total", {label: labelled} if label else {}, float(value))
    for death, count in Counter(one.text for one in server.deaths).items():
        yield _Sample("smtpbench_server_deaths", "_total", {"how": death}, count)
    cpu_ms = server.cpu_ms_per_message
    yield from _maybe("server_cpu_seconds_per_message", {}, None if cpu_ms is None else cpu_ms / 1000)
    yield from _maybe("server_cores_ratio", {}, server.cores_share)
    yield from _maybe("server_memory_max_bytes", {"kind": server.memory_is}, server.rss_max_bytes)
    yield from _maybe("server_memory_growth_bytes_per_hour", {}, server.rss_growth_bytes_per_hour)
    yield from _maybe("server_descriptors_max", {}, server.fds_max)
    yield from _maybe("server_threads_max", {}, server.threads_max)
    yield from _maybe("server_processes_max", {}, server.processes_max)


def _latencies(saved: Saved) -> Iterator[_Sample]:
    for latency in latencies_of(saved):
        labels = {"slot": latency.metric, "expected": str(latency.expected).lower(), "time": latency.time}
        yield from _histogram(latency, labels)
        for statistic, quantile in _QUANTILES.items():
            value = latency.ms[statistic]
            if value is not None:
                yield _gauge("latency_quantile_seconds", {**labels, "quantile": quantile}, value / 1000)
        max_ms = latency.ms["max_ms"]
        if max_ms is not None:
            yield _gauge("latency_max_seconds", labels, max_ms / 1000)


def _histogram(latency: MetricLatency, labels: Mapping[str, str]) -> Iterator[_Sample]:
    """The histogram in the buckets that a scrape of the run itself has."""
    histogram = latency.decoded()
    if histogram is None:
        return
    buckets = Buckets()
    buckets.add(histogram)
    for edge, count in zip(EDGES_TEXT, accumulate(buckets.counts), strict=True):
        yield _Sample("smtpbench_latency_seconds", "_bucket", {**labels, "le": edge}, count)
    yield _Sample("smtpbench_latency_seconds", "_count", labels, histogram.count)
    mean_ms = latency.ms["mean_ms"]
    sum_s = buckets.sum_ns / NS_PER_S if mean_ms is None or mean_ms < 0 else mean_ms * histogram.count / 1000
    yield _Sample("smtpbench_latency_seconds", "_sum", labels, sum_s)


def _gauge(name: str, labels: Mapping[str, str], value: float) -> _Sample:
    return _Sample(f"smtpbench_{name}", "", labels, float(value))


def _maybe(name: str, labels: Mapping[str, str], value: float | None) -> Iterator[_Sample]:
    if value is not None:
        yield _gauge(name, labels, value)
