"""What was measured: latencies, counts, thresholds, the load of a run, and the key figures of results of every kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import MESSAGE_COUNTS
from smtpbench.measure.saved import CAPACITY, COMPARISON, FUZZ, RUN, Saved
from smtpbench.measure.thresholds import describe
from smtpbench.report.reading.formatting import LowerBound
from smtpbench.report.reading.head import generator_of
from smtpbench.report.reading.lenient import duration_s, items, mapping, natural, number, records, text, texts
from smtpbench.report.reading.server import FIGURES, server_of
from smtpbench.units import NS_PER_MS

SERVICE, RESPONSE = "service", "response"
OPEN: Final = "open"
#: Statistics of a latency: keys of a result, in milliseconds.
STATISTICS: Final = ("min_ms", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms")
#: Latency metrics in the order of a session; `*` stands for the names that a scenario gives.
_METRIC_ORDER: Final = (
    "connect", "tls", "banner", "HELO", "EHLO", "LHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "*",
    "pipeline", "transfer", "message", "transaction", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT", "session",
)  # fmt: skip

#: A shorter drain is not worth a mention, seconds.
SHOWN_DRAIN_S: Final = 0.5
Milliseconds = Mapping[str, float | None]
NO_STATISTICS: Final[Milliseconds] = dict.fromkeys(STATISTICS)


class MetricLatency(NamedTuple):
    """Service or response time of one metric.

    Attributes:
        metric: What was timed: `message`, `RCPT`, `session`.
        time: `service` or `response`.
        expected: Whether it is the time of replies that the scenario expects; else of the others.
        samples: Number of samples.
        ms: Milliseconds by statistic, see STATISTICS.
        histogram: The histogram as the result encodes it.
    """

    metric: str
    time: str
    expected: bool
    samples: int
    ms: Milliseconds
    histogram: str

    def decoded(self) -> Histogram | None:
        """Return the histogram, with its extremes to the nanosecond; None where it is not encoded as HdrHistogram does."""
        try:
            found = Histogram.decode(self.histogram)
        except ValueError:
            return None
        low, high = self.ms["min_ms"], self.ms["max_ms"]
        if low is not None and high is not None and 0 <= low <= high:
            found.min_ns, found.max_ns = round(low * NS_PER_MS), round(high * NS_PER_MS)
        return found


class SavedThreshold(NamedTuple):
    """A threshold of a run or an objective of a capacity search, with the measured value.

    Attributes:
        text: The threshold as the user wrote it.
        unit: Unit of the limit and of the value: `ms`, `share`, `per_s` or `count`.
        limit: The limit.
        value: What was measured; None where nothing was.
        margin_share: Distance from the limit as a share of it; negative where the threshold failed.
        passed: Whether it passed.
        sentence: All of it as text.
    """

    text: str
    unit: str
    limit: float | None
    value: float | None
    margin_share: float | None
    passed: bool
    sentence: str


class RunLoad(NamedTuple):
    """The load that a run put on its target.

    Attributes:
        model: `open` or `closed`.
        connections: Most connections at once.
        workers: Worker processes.
        rates_per_s: Arrivals per second at the ends of the stages of an open model.
        arrival_process: How arrivals are spaced.
        warmup_s: Warm-up, seconds.
        window_s: Measurement, seconds.
        sending_s: The part of it in which arrivals were issued, seconds.
        draining_s: The part of it after that, seconds; None for results without it.
        timeout_s: Longest time that a reply may take, seconds.
    """

    model: str
    connections: float | None
    workers: float | None
    rates_per_s: Sequence[float]
    arrival_process: str
    warmup_s: float | None
    window_s: float | None
    sending_s: float | None
    draining_s: float | None
    timeout_s: float | None

    @property
    def is_open(self) -> bool:
        """Whether arrivals follow a schedule that does not depend on replies."""
        return self.model == OPEN


class DomainFigures(NamedTuple):
    """What was measured of one recipient domain.

    Attributes:
        domain: The domain.
        messages: Messages by outcome.
        messages_per_s: Accepted messages per second.
        response_ms: Response time of messages by statistic.
    """

    domain: str
    messages: Mapping[str, float | None]
    messages_per_s: float | None
    response_ms: Milliseconds


class HostilePhase(NamedTuple):
    """The regular sessions of a run before the hostile sessions or beside them.

    Attributes:
        name: `before` or `beside`.
        rate_per_s: Accepted messages per second.
        failed: Messages that failed.
        latencies: Milliseconds by statistic, for each metric and time.
    """

    name: str
    rate_per_s: float | None
    failed: float | None
    latencies: Mapping[tuple[str, str], Milliseconds]

    def ms(self, metric: str, time: str) -> Milliseconds:
        """Return the statistics of one metric; without values where it was not measured."""
        return self.latencies.get((metric, time), NO_STATISTICS)


class HostileSessions(NamedTuple):
    """The hostile sessions of a run.

    Attributes:
        sessions: How many ran.
        share: Their share of the sessions in the second half.
        share_wanted: The share that the user asked for.
        target_gone: Whether the target crashed.
        phases: The regular sessions before them and beside them.
    """

    sessions: int
    share: float | None
    share_wanted: float | None
    target_gone: bool
    phases: Sequence[HostilePhase]


class KeyFigure(NamedTuple):
    """A key figure of a result.

    Attributes:
        name: Its name, with the unit.
        value: A number or a text.
    """

    name: str
    value: float | int | str


def metric_order(metric: str) -> tuple[int, str]:
    """Return the key that sorts latency metrics as a session has them."""
    return _METRIC_ORDER.index(metric if metric in _METRIC_ORDER else "*"), metric


def latencies_of(saved: Saved) -> list[MetricLatency]:
    """Return the service and the response time of every metric."""
    found = []
    for section, expected in (("latency", True), ("latency_failed", False)):
        for metric, times in items(saved.result.get(section)):
            for time in (SERVICE, RESPONSE):
                value = mapping(times, time)
                if value:
                    encoded = value.get("histogram")
                    histogram = encoded if isinstance(encoded, str) else ""
                    samples = natural(value.get("count"))
                    found.append(MetricLatency(metric, time, expected, samples, _statistics(value), histogram))
    return found


def _statistics(value: Mapping[str, Any]) -> Milliseconds:
    bounds = texts(value.get("lower_bounds"))
    found = {statistic: number(value.get(statistic)) for statistic in STATISTICS}
    return {name: LowerBound(ms) if ms is not None and name in bounds else ms for name, ms in found.items()}


def statistics_of(saved: Saved, metric: str, time: str) -> Milliseconds | None:
    """Return the statistics of one metric's expected replies; None where it was not measured."""
    value = mapping(saved.result, "latency", metric, time)
    return _statistics(value) if value else None


def thresholds_of(saved: Saved) -> list[SavedThreshold]:
    """Return the thresholds of a run."""
    return [read_threshold(entry, "threshold") for entry in records(saved.result.get("thresholds"))]


def read_threshold(entry: Mapping[str, Any], text_key: str) -> SavedThreshold:
    """Return a threshold whose text is at `text_key`."""
    shown, unit = text(entry.get(text_key)) or "?", text(entry.get("unit"))
    value, margin = number(entry.get("value")), number(entry.get("margin_share", entry.get("margin")))
    passed = entry.get("passed") is True
    as_sentence = describe({
        "threshold": shown, "value": value, "unit": unit, "margin_share": margin, "passed": passed,
        "lower_bound": entry.get("lower_bound") is True,
    })  # fmt: skip
    return SavedThreshold(shown, unit, number(entry.get("limit")), value, margin, passed, as_sentence)


def load_of(saved: Saved) -> RunLoad:
    """Return the load of a run."""
    load = mapping(saved.result, "load")
    ends = [number(stage.get(end)) for stage in records(load.get("stages")) for end in ("rate_from_per_s", "rate_to_per_s")]
    return RunLoad(
        model=text(load.get("model")),
        connections=number(load.get("connections")),
        workers=number(load.get("workers")),
        rates_per_s=[rate for rate in ends if rate is not None],
        arrival_process=text(load.get("arrival_process")),
        warmup_s=duration_s(load.get("warmup_s")),
        window_s=duration_s(load.get("window_s")),
        sending_s=duration_s(load.get("sending_s", load.get("window_s"))),
        draining_s=duration_s(load.get("draining_s")),
        timeout_s=duration_s(load.get("timeout_s")),
    )


def throughput_of(saved: Saved) -> float | None:
    """Return the accepted messages per second of a run."""
    return number(mapping(saved.result, "throughput").get("messages_per_s"))


def messages_of(saved: Saved) -> dict[str, int]:
    """Return the messages of a run by outcome, with `attempted` for all of them."""
    messages = mapping(saved.result, "messages")
    return {name: natural(messages.get(name)) for name in ("attempted", *MESSAGE_COUNTS)}


def counts_of(saved: Saved, section: str) -> dict[tuple[str, ...], int]:
    """Return the counts of a section by their names, at any depth: `replies` holds {("RCPT", "550"): 3}."""
    found: Counter[tuple[str, ...]] = Counter()

    def add(value: object, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for name, inner in items(value):
                add(inner, (*path, name))
        elif path and number(value) is not None:
            found[path] += natural(value)

    add(mapping(saved.result, section), ())
    return dict(found)


def counts_by_metric(saved: Saved, section: str) -> list[tuple[str, dict[str, int]]]:
    """Return the counts of `replies` or `enhanced` by code, for each metric in the order of a session."""
    found: dict[str, dict[str, int]] = {}
    for path, count in counts_of(saved, section).items():
        if len(path) == 2:
            metric, code = path
            found.setdefault(metric, {})[code] = count
    return sorted(found.items(), key=lambda item: metric_order(item[0]))


def examples_of(saved: Saved) -> dict[str, str]:
    """Return an example of each error and of each unexpected reply, by its name."""
    return {name: text(example) for name, example in items(saved.result.get("examples"))}


def example_of_reply(examples: Mapping[str, str], metric: str, code: str) -> str:
    """Return the example of a reply; empty where there is none."""
    return next((example for name, example in examples.items() if f"{name} ".startswith(f"{metric} {code} ")), "")


def domains_of(saved: Saved) -> list[DomainFigures]:
    """Return what was measured of each recipient domain."""
    found = []
    for domain, figures in items(saved.result.get("domains")):
        counts = mapping(figures, "messages")
        messages = {name: number(counts.get(name)) for name in ("attempted", *MESSAGE_COUNTS)}
        rate = number(mapping(figures, "throughput").get("messages_per_s"))
        response = _statistics(mapping(figures, "latency", "message", RESPONSE))
        found.append(DomainFigures(domain, messages, rate, response))
    return found


def hostile_of(saved: Saved) -> HostileSessions | None:
    """Return the hostile sessions of a run; None where there were none."""
    value = saved.result.get("hostile") if saved.kind == RUN else None
    if not isinstance(value, dict):
        return None
    phases = []
    for key, name in (("quiet", "before"), ("beside", "beside")):
        phase = mapping(value, key)
        if phase:
            latencies = {
                (metric, time): _statistics(mapping(times, time))
                for metric, times in items(phase.get("latency"))
                for time in (SERVICE, RESPONSE)
                if mapping(times, time)
            }
            failed = number(mapping(phase, "messages").get("failed"))
            phases.append(HostilePhase(name, number(phase.get("messages_per_s")), failed, latencies))
    return HostileSessions(
        sessions=natural(mapping(value, "cases").get("run")),
        share=number(value.get("share")),
        share_wanted=number(value.get("share_wanted")),
        target_gone=value.get("target_gone") is True,
        phases=phases,
    )


def key_figures_of(saved: Saved) -> list[KeyFigure]:
    """Return the key figures of a result of any kind."""
    result = saved.result
    found: list[KeyFigure] = []

    def add(name: str, value: object) -> None:
        shown = number(value)
        if shown is not None:
            found.append(KeyFigure(name, int(shown) if isinstance(value, int) else shown))

    if saved.kind == RUN:
        for name in ("attempted", *MESSAGE_COUNTS):
            add(f"messages.{name}", mapping(result, "messages").get(name))
        add("throughput.messages_per_s", mapping(result, "throughput").get("messages_per_s"))
        add("load.window_s", mapping(result, "load").get("window_s"))
        add("load.sending_s", load_of(saved).sending_s)
        found.append(KeyFigure("load.model", text(mapping(result, "load").get("model"))))
        for statistic in ("p50_ms", "p99_ms", "max_ms"):
            add(f"message.response.{statistic}", mapping(result, "latency", "message", RESPONSE).get(statistic))
    elif saved.kind == CAPACITY:
        for name in ("rate_per_s", "failed_rate_per_s", "precision_share"):
            add(f"capacity.{name}", mapping(result, "capacity").get(name))
        found.append(KeyFigure("capacity.limited_by", text(mapping(result, "capacity").get("limited_by"))))
    elif saved.kind == COMPARISON:
        add("plan.repeats_done", mapping(result, "plan").get("repeats_done"))
        add("plan.confidence", mapping(result, "plan").get("confidence"))
    elif saved.kind == FUZZ:
        for name in ("run", "confirmed"):
            add(f"cases.{name}", mapping(result, "cases").get(name))
        add("seed", result.get("seed"))
    server = server_of(saved)
    if server is not None:
        for name in FIGURES:
            value = getattr(server, name)
            if value is not None:
                found.append(KeyFigure(f"server.{name}", value))
        found.append(KeyFigure("server.deaths", len(server.deaths)))
    found += [KeyFigure("generator.limited", reason) for reason in generator_of(saved).limited_reasons[:3]]
    return found
