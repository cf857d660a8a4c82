"""Thresholds as users write them: `message.p99 < 200ms`, `failed < 0.1%`, `throughput > 450/s`,
`server.rss_growth < 10MiB/h`.

This module parses thresholds and compares values with them; `measure.thresholds` looks up what was measured. A metric is one
of these:

- a latency with a statistic (`message.p99`, `RCPT.service.max`); it is the response time unless `service` is given
- an outcome of messages, or a count of replies, recipients or errors
- the throughput
- a figure of the generator itself
- what the server under test used

All but the last two may be limited to one recipient domain: `message.p99@gmail.example < 500ms`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from smtpbench.errors import UsageError
from smtpbench.smtp.domain import canonical
from smtpbench.text import did_you_mean
from smtpbench.units import NS_PER_MS, format_bytes, parse_duration_ns, parse_rate_per_s, parse_size_bytes

#: Kinds of value: milliseconds, a share from 0 to 1, events a second, a count, octets, octets an hour.
TIME, SHARE, RATE, COUNT, SIZE, SIZE_RATE = "ms", "share", "per_s", "count", "bytes", "bytes_per_h"
OUTCOMES: Final = ("attempted", "accepted", "rejected", "failed", "dropped", "interrupted")
#: Metric of the generator → its kind, and its key in the result's `generator`.
GENERATOR_METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "late_p50": (TIME, "late_p50_ms"),
    "late_p99": (TIME, "late_p99_ms"),
    "late_max": (TIME, "late_max_ms"),
    "loop_lag": (TIME, "loop_lag_max_ms"),
    "cpu": (SHARE, "busiest_worker_share"),
    "limited": (COUNT, "limited"),
}
#: Metric of the server under test → its kind, its key in the result's `server`, and the factor to the unit of the kind.
SERVER_METRICS: Final[Mapping[str, tuple[str, str, float]]] = {
    "cpu_ms_per_message": (TIME, "cpu_ms_per_message", 1.0),
    "cpu_s": (TIME, "cpu_s", 1000.0),
    "cpu": (SHARE, "cores_share", 1.0),
    "rss_max": (SIZE, "rss_max_bytes", 1.0),
    "rss_growth": (SIZE_RATE, "rss_growth_bytes_per_hour", 1.0),
    "fds_max": (COUNT, "fds_max", 1.0),
    "threads_max": (COUNT, "threads_max", 1.0),
    "read_bytes": (SIZE, "read_bytes", 1.0),
    "write_bytes": (SIZE, "write_bytes", 1.0),
    "restarts": (COUNT, "restarts", 1.0),
}
#: Metrics of the server that only rise while a run goes on.
_RISING: Final = frozenset({"cpu_s", "rss_max", "read_bytes", "write_bytes"})


class MetricFamily(NamedTuple):
    """Metrics whose names are formed alike.

    Attributes:
        name: The name, with placeholders: `replies.<verb>.<code>`.
        meaning: What is measured.
        examples: Names that most runs have, which completion offers.
    """

    name: str
    meaning: str
    examples: tuple[str, ...]


#: Latencies by name. Others are named after the verb that is answered, or by the key `as` of a step.
LATENCIES: Final[Mapping[str, str]] = {
    "transfer": "From the first octet of the message, or of a BDAT chunk, until the kernel has taken its last. Only of "
    "those that the kernel did not take at once, most often large ones.",
    "message": "From the end of the message, its last octet taken by the kernel, to its reply.",
    "transaction": "From MAIL to the last reply of the mail transaction.",
    "session": "From the start of the connection to its end.",
    "connect": "The TCP connection.",
    "tls": "The TLS handshake.",
    "banner": "From the connection to the greeting.",
    "pipeline": "A group of commands sent in one write, from the write to the last reply.",
}
STATISTICS: Final[Mapping[str, str]] = {
    "p50": "A percentile: any from `p0` to `p100`, with up to four decimals, such as `p99.9`.",
    "min": "The least value.",
    "mean": "The arithmetic mean.",
    "max": "The greatest value.",
    "count": "The number of samples.",
}
METRICS: Final = (
    MetricFamily("throughput", "Messages accepted per second of the sending window, without the drain.", ("throughput",)),
    MetricFamily("attempted", "Messages attempted: the sum of all outcomes.", ("attempted",)),
    MetricFamily(
        "accepted",
        "Messages the server accepted: a 2yz reply to the end of the message; with LMTP, for one recipient or more.",
        ("accepted",),
    ),
    MetricFamily("rejected", "Messages the server rejected, at MAIL, RCPT, DATA or the end.", ("rejected",)),
    MetricFamily(
        "failed", "Messages without an outcome: the connection broke, or no reply came; in thresholds interrupted ones too.",
        ("failed",),
    ),
    MetricFamily("dropped", "Open model with `when-busy: drop`: arrivals for which no connection was free.", ("dropped",)),
    MetricFamily("interrupted", "Messages interrupted by the end of the run.", ("interrupted",)),
    MetricFamily("errors", "Connections and sessions that failed.", ("errors",)),
    MetricFamily(
        "errors.<kind>", "Those of one kind: `connect_refused`, `timeout`, `reset`, `closed`, `tls_failed`, "
        "`mixed_reply_codes` (lines of one reply have different codes; the last one counts) …", (),
    ),
    MetricFamily(
        "recipients.accepted", "RCPT commands with a 2yz reply; with LMTP, recipients with a 2yz reply after the final dot.",
        ("recipients.accepted",),
    ),
    MetricFamily(
        "recipients.rejected", "RCPT commands with another reply; with LMTP, also recipients with one after the final dot.",
        ("recipients.rejected",),
    ),
    MetricFamily("replies.<verb>", "Replies to a verb.", ()),
    MetricFamily(
        "replies.<verb>.<code>", "Replies to a verb with a code, or with a class of codes.",
        ("replies.RCPT.4xx", "replies.RCPT.5xx"),
    ),
    MetricFamily(
        "<latency>.<statistic>",
        "Response time: from the time at which the arrival was due, so that waiting for a connection counts.",
        tuple(f"{name}.{statistic}" for name in ("message", "transaction", "session", "connect", "RCPT", "DATA")
              for statistic in ("p50", "p95", "p99", "p99.9", "max", "mean", "service.p99")),
    ),
    MetricFamily("<latency>.service.<statistic>", "Service time: from the write to the reply.", ()),
    MetricFamily(
        "generator.late_p50", "Open model: how late arrivals began although a connection was free; median.",
        ("generator.late_p50",),
    ),
    MetricFamily("generator.late_p99", "The same, 99th percentile.", ("generator.late_p99",)),
    MetricFamily("generator.late_max", "The same, greatest value.", ("generator.late_max",)),
    MetricFamily("generator.loop_lag", "The longest delay of a timer in the event loop.", ("generator.loop_lag",)),
    MetricFamily("generator.cpu", "Share of one core that the busiest worker used.", ("generator.cpu",)),
    MetricFamily(
        "generator.limited", "1 if smtpbench itself was the bottleneck, or may have been; otherwise 0.",
        ("generator.limited",),
    ),
    MetricFamily(
        "server.cpu_ms_per_message", "CPU time of the server under test for each accepted message of the measured window. "
        "For this and the following, its processes must be known: started by `--start`, named by `--watch`, or on this "
        "machine.", ("server.cpu_ms_per_message",),
    ),
    MetricFamily("server.cpu_s", "CPU time of all its processes in the measured window.", ("server.cpu_s",)),
    MetricFamily("server.cpu", "The same, as a share of all cores of the machine.", ("server.cpu",)),
    MetricFamily(
        "server.rss_max", "Most memory in use at once: the proportional set size, or the resident set size where the first "
        "cannot be read.", ("server.rss_max",),
    ),
    MetricFamily(
        "server.rss_growth", "How fast memory grew: the slope over the measured window, which must have 12 s or more. Most "
        "servers grow while they are new; some minutes after a warm-up say more than some seconds. In thresholds it is "
        "evaluated at the end only.", ("server.rss_growth",),
    ),
    MetricFamily("server.fds_max", "Most descriptors open at once.", ("server.fds_max",)),
    MetricFamily("server.threads_max", "Most threads at once.", ("server.threads_max",)),
    MetricFamily("server.read_bytes", "Octets that it read from disks in the measured window.", ("server.read_bytes",)),
    MetricFamily("server.write_bytes", "Octets that it wrote to disks in the measured window.", ("server.write_bytes",)),
    MetricFamily("server.restarts", "How often it was started again in the measured window.", ("server.restarts",)),
)  # fmt: skip
#: Names that most runs have; latencies may have names of a scenario's own, and any percentile may be asked for.
METRIC_NAMES: Final = tuple(name for family in METRICS for name in family.examples)
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq,
}  # fmt: skip
_THRESHOLD = re.compile(r"\s*(?P<metric>[^\s<>=]+)\s*(?P<operator><=|>=|==|<|>)\s*(?P<limit>\S.*?)\s*")
_LATENCY_PATH_LENGTH = 3
_S_PER_HOUR = 3600
_PERCENTILE = re.compile(r"p(?P<percent>\d{1,2}(?:\.\d{1,4})?|100)")
_CODE = re.compile(r"[2-5](?:xx|[0-9]{2})")
_EXAMPLES = "message.p99 < 200ms, failed < 0.1%, throughput > 450/s, replies.RCPT.4xx < 5 or generator.late_p99 < 10ms"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric without a limit, for comparisons.

    Attributes:
        text: As the user wrote it.
        path: Its parts in full, see `Threshold`.
        kind: Kind of its values; SHARE for a metric that may be a count or a share.
    """

    text: str
    path: tuple[str, ...]
    kind: str

    @property
    def more_is_better(self) -> bool:
        """Whether a higher value is better."""
        return self.path[0] in ("throughput", "accepted") or self.path == ("recipients", "accepted")

    @property
    def latency_name(self) -> str:
        """Name of its latency; empty for a metric that is not a latency."""
        return latency_name_of(self.path)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A condition on a metric.

    Attributes:
        text: As the user wrote it, with single spaces.
        path: Parts of the metric in full; of a latency (name, `response` or `service`, statistic).
        operator: One of < <= > >= ==.
        limit: The limit, in the unit of its kind.
        kind: Kind of the limit: TIME, SHARE, RATE, COUNT, SIZE or SIZE_RATE.
        domain: Recipient domain, as `smtp.domain.canonical` spells it; empty for the whole run.
    """

    text: str
    path: tuple[str, ...]
    operator: str
    limit: float
    kind: str
    domain: str = ""

    @property
    def metric(self) -> str:
        """The metric in full: `message.response.p99@gmail.example`."""
        return ".".join(self.path) + (f"@{self.domain}" if self.domain else "")

    def is_met_by(self, value: float) -> bool:
        """Return whether a value meets the condition."""
        return _OPERATORS[self.operator](value, self.limit)

    @property
    def latency_name(self) -> str:
        """Name of its latency; empty for a metric that is not a latency."""
        return latency_name_of(self.path)

    @property
    def only_at_the_end(self) -> bool:
        """Whether it is evaluated at the end only: a count may still reach a lower limit, and memory grows at the start."""
        rises = self.kind == COUNT or (self.path[0] == "server" and self.path[1] in _RISING)
        return self.kind == SIZE_RATE or (rises and self.operator not in ("<", "<="))

    def margin(self, value: float) -> float | None:
        """Return the distance of a value from the limit, as a share of the limit; negative if the condition is not met."""
        if not self.limit or math.isnan(value):
            return None
        return (self.limit - value if self.operator.startswith("<") else value - self.limit) / self.limit


def latency_name_of(path: tuple[str, ...]) -> str:
    """Return the name of the latency in a path; an empty string for a metric that is not a latency."""
    return path[0] if len(path) == _LATENCY_PATH_LENGTH and path[1] in ("service", "response") else ""


def parse_threshold(text: str) -> Threshold:
    """Parse a threshold. Raises UsageError."""
    match = _THRESHOLD.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r} is not a threshold; write a metric, one of < <= > >= ==, and a limit, like {_EXAMPLES}")
    name, at, domain_text = match["metric"].rpartition("@")
    path, kinds = _parse_path(name if at else match["metric"])
    domain = _parse_domain(domain_text, path, text) if at else ""
    kind, limit = _parse_limit(match["limit"])
    if kind not in kinds:
        expected = " or ".join(LIMITS[one] for one in kinds)
        raise UsageError(f"threshold {text!r}: the limit of {match['metric']} must be {expected}")
    return Threshold(" ".join(match.group("metric", "operator", "limit")), path, match["operator"], limit, kind, domain)


def _parse_domain(domain_text: str, path: tuple[str, ...], text: str) -> str:
    if path[0] in ("generator", "server"):
        raise UsageError(f"threshold {text!r}: metrics of the {path[0]} exist for the whole run only; omit @{domain_text}")
    domain = canonical(domain_text.encode("utf-8", "surrogateescape"))
    if domain is None:
        raise UsageError(f"threshold {text!r}: {domain_text!r} is not a domain; write one like gmail.example or [192.0.2.1]")
    return domain


def parse_metric(text: str) -> Metric:
    """Parse a metric, which is the part of a threshold before the operator. Raises UsageError."""
    if "@" in text:
        raise UsageError(f"metric {text!r} has a domain; only thresholds may be limited to a domain")
    path, kinds = _parse_path(text.strip())
    return Metric(text.strip(), path, SHARE if SHARE in kinds else kinds[0])


#: Kind of value → how a limit of that kind is written.
LIMITS: Final[Mapping[str, str]] = {
    TIME: "a time, like 200ms", SHARE: "a percentage, like 0.1%", RATE: "a rate, like 450/s", COUNT: "a number",
    SIZE: "a size, like 500MiB", SIZE_RATE: "a size per time, like 10MiB/h",
}  # fmt: skip


def limits_of(metric: str) -> tuple[str, ...]:
    """Return the kinds of limit that a metric may have. Raises UsageError for a name that is not one."""
    return _parse_path(metric)[1]


def _parse_path(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the full path of a metric and the kinds of limit that it may have. Raises UsageError."""
    head, *rest = text.split(".", 1)
    tail = rest[0] if rest else ""
    if head in OUTCOMES and not tail:
        return (head,), (COUNT, SHARE) if head != "attempted" else (COUNT,)
    if head == "throughput" and not tail:
        return (head,), (RATE,)
    if head == "errors":
        return (head, tail) if tail else (head,), (COUNT, SHARE)
    if head == "recipients" and tail in ("accepted", "rejected"):
        return (head, tail), (COUNT, SHARE)
    if head == "replies" and tail:
        verb, _, code = tail.rpartition(".") if _CODE.fullmatch(tail.rpartition(".")[2]) else (tail, "", "")
        if verb:
            return (head, verb, code) if code else (head, verb), (COUNT, SHARE) if code else (COUNT,)
    if head == "generator" and tail in GENERATOR_METRICS:
        return (head, tail), (GENERATOR_METRICS[tail][0],)
    if head == "server" and tail in SERVER_METRICS:
        return (head, tail), (SERVER_METRICS[tail][0],)
    return _parse_latency(text)


def _parse_latency(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    match = re.fullmatch(
        r"(?P<name>.+?)(?:\.(?P<time>service|response))?\.(?P<statistic>p\d{1,3}(?:\.\d{1,4})?|[a-z]+)", text
    )
    if match:
        path = (match["name"], match["time"] or "response", match["statistic"])
        if _PERCENTILE.fullmatch(match["statistic"]) or match["statistic"] in ("min", "mean", "max"):
            return path, (TIME,)
        if match["statistic"] == "count":
            return path, (COUNT,)
    hint = did_you_mean(text, METRIC_NAMES) or f"; thresholds look like {_EXAMPLES}"
    raise UsageError(f"{text!r} is not a metric{hint}")


def percent_of(statistic: str) -> float | None:
    """Return the percentage of a percentile: `p99.9` → 99.9; None for another statistic."""
    match = _PERCENTILE.fullmatch(statistic)
    return float(match["percent"]) if match else None


def _parse_limit(text: str) -> tuple[str, float]:
    if text.endswith("%"):
        try:
            return SHARE, float(text[:-1]) / 100
        except ValueError:
            raise UsageError(f"{text!r} is not a percentage; write one like 0.1%") from None
    size, slash, unit = text.partition("/")
    if slash and re.search("[A-Za-z]", size):
        return SIZE_RATE, parse_size_bytes(size) * parse_rate_per_s(f"1/{unit.strip()}") * _S_PER_HOUR
    if slash:
        return RATE, parse_rate_per_s(text)
    if text.endswith("B"):
        return SIZE, float(parse_size_bytes(text))
    if re.fullmatch(r"\d{1,15}", text):
        return COUNT, float(text)
    return TIME, parse_duration_ns(text) / NS_PER_MS


def format_value(kind: str, value: float) -> str:
    """Return a value as text: `12.3 ms`, `0.12 %`, `450.1/s`, `17`, `64.0 KiB`, `1.25 MiB/h`."""
    if kind == TIME:
        return f"{value:.4g} ms" if value < 10_000 else f"{value / 1000:.4g} s"
    if kind == SHARE:
        return f"{100 * value:.4g} %"
    if kind in (SIZE, SIZE_RATE):
        sign = "-" if value < 0 else ""
        return sign + format_bytes(abs(value)) + ("/h" if kind == SIZE_RATE else "")
    return f"{value:,.1f}/s" if kind == RATE else f"{value:,.0f}"
