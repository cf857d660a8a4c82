"""The recorder in which sessions count, and the intervals that are read from it once a second.

Theory of operation
===================

A session records a sample with one `list.append` of one integer: `service_ns + (late_us << LATE_SHIFT)`. `late_us` is the
time from the intended start of the arrival to its actual start. One number thus holds service time and response time. In
the closed model, arrivals have no intended start: `late_us` is 0, and the response time equals the service time.

Once a second, `drain` converts the lists to histograms and clears them in place, so that a session may keep the `append` of
a list. A drain returns an `Interval`: plain data that a pipe can carry. The totals of a run are the sum of the intervals of
all processes, and an interval too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from smtpbench.measure.histogram import Histogram
from smtpbench.session.context import LATE_SHIFT, UnansweredSample
from smtpbench.smtp.reply import PREFIX_BYTES, enhanced_code, first_code

_SERVICE_MASK = (1 << LATE_SHIFT) - 1

MESSAGE_COUNTS = ("accepted", "rejected", "failed", "dropped", "interrupted")
#: Most combinations of verb, code and enhanced code that are counted separately. A server may send a different enhanced
#: code with every reply; further ones are counted as OTHER.
MAX_REPLY_KINDS = 2000
#: Enhanced code of replies beyond that limit.
OTHER = "other"
#: Most octets of a reply, or characters of an error, that are kept as an example.
MAX_EXAMPLE_BYTES = 200
#: Number of samples that one step of a drain converts.
SAMPLES_PER_STEP = 4000
#: Most unexpected replies that are kept as examples. The kinds of error are few, and each keeps its first detail.
MAX_EXAMPLES = 200


@lru_cache(maxsize=1024)
def _codes(head: bytes) -> tuple[int, str]:
    """Return code and enhanced code of a reply that begins with these octets."""
    return first_code(head.partition(b"\n")[0]), enhanced_code(head)


class Recorder:
    """Counts and samples of the sessions of one worker.

    Args:
        reply_count: Number of replies that the script expects (`Script.reply_count`).
        lmtp: Whether each recipient has a reply of its own after the final dot (RFC 2033 §4.2).

    Attributes:
        recipients_accepted: LMTP: recipients with a 2yz reply after the final dot.
        recipients_rejected: LMTP: recipients with another reply there.
        reply_caches: One dict for each expected reply, for use by the client session.
        accepted: Accepted messages.
        rejected: Rejected messages.
        failed: Failed messages.
        dropped: Messages that found no free connection and were dropped.
        interrupted: Messages that had not finished at the end.
        error_total: Errors since the start.
    """

    __slots__ = (
        "_accepted_in_time", "_censored", "_drained_replies", "_errors", "_examples", "_lmtp", "_replies", "_timings",
        "_waits_ns", "accepted", "dropped", "error_total", "failed", "interrupted", "recipients_accepted",
        "recipients_rejected", "rejected", "reply_caches",
    )  # fmt: skip

    def __init__(self, reply_count: int = 0, *, lmtp: bool = False) -> None:
        self._lmtp = lmtp
        self.recipients_accepted = self.recipients_rejected = 0
        self.reply_caches: list[dict[bytes, Any]] = [{} for _ in range(reply_count)]
        self.accepted = self.rejected = self.failed = self.dropped = self.interrupted = 0
        self._replies: dict[tuple[str, int, str, bool, str], list[int]] = {}
        self._timings: dict[tuple[str, bool], list[int]] = {}
        self._drained_replies = self.error_total = 0
        self._errors: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._censored: list[UnansweredSample] = []
        self._waits_ns: list[int] = []
        self._accepted_in_time: int | None = None  # None while arrivals are issued

    def samples(self, verb: str, metric: str, raw: bytes, ok: bool) -> list[int]:
        """Return the list for the samples of replies to a verb that have the code and the enhanced code of `raw`.

        Appending a sample counts the reply and, unless `metric` is empty, records its latency under that metric. The same
        list is returned as long as the recorder exists.
        """
        code, enhanced = _codes(raw[:PREFIX_BYTES])
        key = (verb, code, enhanced, ok, metric)
        found = self._replies.get(key)
        if found is None and enhanced and len(self._replies) >= MAX_REPLY_KINDS:
            key = (verb, code, OTHER, ok, metric)
            found = self._replies.get(key)
        if found is None:
            found = self._replies[key] = []
            if not ok and len(self._examples) < MAX_EXAMPLES:
                example = raw[:MAX_EXAMPLE_BYTES].decode("utf-8", "surrogateescape")
                self._keep_example(f"{verb} {code} {key[2]}".rstrip(), example)
        return found

    def timing(self, metric: str, ok: bool = True) -> list[int]:
        """Return the list for a time that no single reply gives: connect, tls, pipeline, transfer, transaction, session."""
        found = self._timings.get((metric, ok))
        if found is None:
            found = self._timings[metric, ok] = []
        return found

    def error(self, kind: str, detail: str = "", count: int = 1) -> None:
        """Count an error, and keep the first detail of its kind."""
        self._errors[kind] += count
        self.error_total += count
        if detail:
            self._keep_example(kind, detail)

    @property
    def reply_total(self) -> int:
        """Replies since the start."""
        return self._drained_replies + sum(map(len, self._replies.values()))

    def censor(self, samples: Iterable[UnansweredSample], waits_ns: Sequence[int] = ()) -> None:
        """Record latencies of which only a lower bound is known.

        Args:
            samples: The bounds.
            waits_ns: How long each message that the end of the run cut off had waited for a reply.
        """
        self._censored += samples
        self._waits_ns += waits_ns

    def _keep_example(self, what: str, text: str) -> None:
        self._examples.setdefault(what, text[:MAX_EXAMPLE_BYTES].strip("\r\n"))

    def end_sending(self) -> None:
        """Note that the sending window is over: messages that are accepted from now on are late for the throughput."""
        if self._accepted_in_time is None:
            self._accepted_in_time = self.accepted

    def drain(self) -> Interval:
        """Return what was counted since the last drain, and reset the counts."""
        interval = Interval()
        for _ in self.drain_steps(interval):
            pass
        return interval

    def drain_steps(self, interval: Interval) -> Iterator[None]:
        """Drain into an empty interval, in steps of at most a millisecond, so that an event loop can run between them.

        What is counted meanwhile belongs to the next drain.
        """
        by_metric: dict[tuple[str, bool], list[int]] = {}
        for (verb, code, enhanced, ok, metric), samples in self._replies.items():
            if samples:
                interval.replies[verb, code, enhanced, ok] += len(samples)
                if metric:
                    by_metric.setdefault((metric, ok), []).extend(samples)
                self._drained_replies += len(samples)
                samples.clear()
        for key, samples in self._timings.items():
            if samples:
                by_metric.setdefault(key, []).extend(samples)
                samples.clear()
        if self._accepted_in_time is not None:
            interval.accepted_late = self.accepted - self._accepted_in_time
            self._accepted_in_time = 0
        for name in MESSAGE_COUNTS:
            count = getattr(self, name)
            if count:
                interval.messages[name] = count
                setattr(self, name, 0)
        if self._lmtp:
            interval.lmtp = True
            interval.lmtp_recipients = Counter(accepted=self.recipients_accepted, rejected=self.recipients_rejected)
            self.recipients_accepted = self.recipients_rejected = 0
        interval.errors, self._errors = self._errors, Counter()
        interval.examples = dict(self._examples)
        for key, samples in by_metric.items():
            latency = interval.latencies[key] = Latency.empty()
            for start in range(0, len(samples), SAMPLES_PER_STEP):
                latency.record(samples[start : start + SAMPLES_PER_STEP])
                yield
        yield from self._drain_censored(interval)

    def _drain_censored(self, interval: Interval) -> Iterator[None]:
        censored, self._censored = self._censored, []
        waits_ns, self._waits_ns = self._waits_ns, []
        interval.waits.record(waits_ns)
        for start in range(0, len(censored), SAMPLES_PER_STEP):
            by_metric: dict[str, list[UnansweredSample]] = {}
            for sample in censored[start : start + SAMPLES_PER_STEP]:
                by_metric.setdefault(sample.metric, []).append(sample)
            for metric, samples in by_metric.items():
                services_ns = [sample.service_ns for sample in samples if sample.service_ns is not None]
                responses_ns = [sample.response_ns for sample in samples]
                whole = interval.latencies.setdefault((metric, True), Latency.empty())
                bounds = interval.censored.setdefault(metric, Latency.empty())
                for latency in (whole, bounds):
                    latency.record_bounds(services_ns, responses_ns)
            yield


@dataclass(slots=True)
class Latency:
    """Service time and response time of one metric.

    Attributes:
        service: Time from the write of the command until the kernel had received the reply.
        response: Time from the intended start of the arrival to the reply; the same object as `service` if no arrival was
            late.
    """

    service: Histogram
    response: Histogram

    @classmethod
    def empty(cls) -> Latency:
        """Return a latency without samples."""
        service = Histogram()
        return cls(service, service)

    def record(self, samples: list[int]) -> None:
        """Add samples of a recorder (see the theory of operation), at least one."""
        if max(samples) <= _SERVICE_MASK:
            self.service.record(samples)
            if self.response is not self.service:
                self.response.record(samples)
            return
        self._separate_response()
        services_ns = [sample & _SERVICE_MASK for sample in samples]
        self.service.record(services_ns)
        late_us = [sample >> LATE_SHIFT for sample in samples]
        self.response.record([ns + 1000 * us for ns, us in zip(services_ns, late_us, strict=True)])

    def record_bounds(self, services_ns: list[int], responses_ns: list[int]) -> None:
        """Add lower bounds of both times; a service time that has not begun has none."""
        if services_ns != responses_ns:
            self._separate_response()
        self.service.record(services_ns)
        if self.response is not self.service:
            self.response.record(responses_ns)

    def _separate_response(self) -> None:
        if self.response is self.service:
            self.response = Histogram()
            self.response.add(self.service)

    def add(self, other: Latency) -> None:
        """Add the samples of another latency."""
        if other.response is not other.service:
            self._separate_response()
        self.service.add(other.service)
        if self.response is not self.service:
            self.response.add(other.response)

    def to_data(self) -> list[Any]:
        """Return service and response time as data; the latter is None if it is the same."""
        return [self.service.to_data(), None if self.response is self.service else self.response.to_data()]


@dataclass(slots=True)
class Interval:
    """What was counted in an interval of time; plain data.

    Attributes:
        messages: Outcome (one of MESSAGE_COUNTS) → number of messages.
        replies: (verb, code, enhanced code, expected) → number of replies.
        latencies: (metric, expected) → latency.
        errors: Kind of error → number of errors.
        examples: Unexpected reply or kind of error → its first text.
        censored: Metric → the lower bounds among the latencies of expected replies, of replies that did not come.
        waits: How long the messages that the end of the run cut off had waited for a reply.
        accepted_late: Accepted messages whose reply came after the sending window.
        lmtp: Each recipient has a reply of its own after the final dot.
        lmtp_recipients: `accepted` and `rejected` → number of recipients by these replies.
    """

    messages: Counter[str] = field(default_factory=Counter)
    replies: Counter[tuple[str, int, str, bool]] = field(default_factory=Counter)
    latencies: dict[tuple[str, bool], Latency] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    censored: dict[str, Latency] = field(default_factory=dict)
    waits: Histogram = field(default_factory=Histogram)
    accepted_late: int = 0
    lmtp: bool = False
    lmtp_recipients: Counter[str] = field(default_factory=Counter)

    def add(self, other: Interval) -> None:
        """Add another interval. Workers, seconds and phases are all summed in this way."""
        self.messages.update(other.messages)
        self.replies.update(other.replies)
        self.errors.update(other.errors)
        self.examples = {**other.examples, **self.examples}
        self.waits.add(other.waits)
        self.accepted_late += other.accepted_late
        self.lmtp = self.lmtp or other.lmtp
        self.lmtp_recipients.update(other.lmtp_recipients)
        for key, latency in other.latencies.items():
            total = self.latencies.get(key)
            if total is None:
                total = self.latencies[key] = Latency.empty()
            total.add(latency)
        for metric, bounds in other.censored.items():
            self.censored.setdefault(metric, Latency.empty()).add(bounds)

    @property
    def has_data(self) -> bool:
        """Whether anything was counted."""
        return bool(self.messages or self.replies or self.latencies or self.errors)

    @property
    def accepted_while_sending(self) -> int:
        """Number of messages accepted in the sending window."""
        return self.messages["accepted"] - self.accepted_late

    @property
    def attempted(self) -> int:
        """Number of messages of all outcomes."""
        return sum(self.messages.values())

    def recipients(self) -> tuple[int, int]:
        """Return the numbers of accepted and rejected recipients.

        SMTP answers for each recipient at RCPT. LMTP may refuse one there, and answers for each of the others after the
        final dot (RFC 2033 §4.2).
        """
        counts = [(code // 100 == 2, count) for (verb, code, _, _), count in self.replies.items() if verb == "RCPT"]
        rejected = sum(count for accepted, count in counts if not accepted)
        if self.lmtp:
            return self.lmtp_recipients["accepted"], rejected + self.lmtp_recipients["rejected"]
        return sum(count for accepted, count in counts if accepted), rejected

    def to_data(self) -> dict[str, Any]:
        """Return the interval as data for JSON; `from_data` reads it."""
        return {
            "messages": self.messages,
            "replies": [[*key, count] for key, count in self.replies.items()],
            "latencies": [[*key, *latency.to_data()] for key, latency in self.latencies.items()],
            "errors": self.errors,
            "examples": self.examples,
            "censored": [[metric, *bounds.to_data()] for metric, bounds in self.censored.items()],
            "waits": self.waits.to_data(),
            "accepted_late": self.accepted_late,
            "lmtp": self.lmtp,
            "lmtp_recipients": self.lmtp_recipients,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Interval:
        """Return the interval that `to_data` wrote."""
        interval = cls(Counter(data["messages"]), errors=Counter(data["errors"]), examples=data["examples"])
        for verb, code, enhanced, ok, count in data["replies"]:
            interval.replies[verb, code, enhanced, ok] = count
        for metric, ok, service_data, response_data in data["latencies"]:
            service = Histogram.from_data(service_data)
            response = service if response_data is None else Histogram.from_data(response_data)
            interval.latencies[metric, ok] = Latency(service, response)
        for metric, service_data, response_data in data["censored"]:
            service = Histogram.from_data(service_data)
            response = service if response_data is None else Histogram.from_data(response_data)
            interval.censored[metric] = Latency(service, response)
        interval.waits = Histogram.from_data(data["waits"])
        interval.accepted_late = data["accepted_late"]
        interval.lmtp, interval.lmtp_recipients = data["lmtp"], Counter(data["lmtp_recipients"])
        return interval
