"""The book that sessions write into, and what is read out of it once a second.

Theory of operation
===================

On the hot path a sample is one `list.append` of one integer, `service_ns + (late_us << LATE_SHIFT)`: late_us is how
long after its intended start the arrival began, so that service time and response time come out of the same number.
In the closed model no arrival has an intended start, all lateness is 0, and response time equals service time.

Off the hot path `drain` turns the lists into histograms and empties them in place: whoever holds a list's `append`
may go on using it. What a drain gives is an `Interval`, plain data that goes over a pipe; the totals of a run are the
sum of its intervals, whichever process they came from, and an interval again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from smtpbench.measure.histogram import Histogram
from smtpbench.session.context import LATE_SHIFT
from smtpbench.smtp.reply import PREFIX_BYTES, enhanced_code, first_code

_SERVICE_MASK = (1 << LATE_SHIFT) - 1

MESSAGE_COUNTS = ("accepted", "rejected", "failed", "dropped", "interrupted")
#: How many kinds of reply are told apart. A server may give every reply an enhanced code of its own; what comes after
#: so many is counted under its code alone.
REPLY_KINDS = 2000
#: What stands for the enhanced code of those.
OTHER = "other"
#: How many octets of a refusal or characters of an error are kept as an example of it.
EXAMPLE_BYTES = 200
#: How many samples one step of a drain takes.
STEP_SAMPLES = 4000
#: How many refusals are kept an example of; kinds of error are few, and each has its own.
EXAMPLES = 200


@lru_cache(maxsize=1024)
def _codes(head: bytes) -> tuple[int, str]:
    """Code and enhanced code of a reply that begins with these octets."""
    return first_code(head.partition(b"\n")[0]), enhanced_code(head)


class Recorder:
    """What one worker's sessions count in. `rows` is the client session's own memory, a dict for each of its asks."""

    __slots__ = (
        "_errors", "_examples", "_replies", "_timings", "accepted", "dropped", "failed", "interrupted", "rejected",
        "reply_caches",
    )  # fmt: skip

    def __init__(self, reply_count: int = 0) -> None:
        self.reply_caches: list[dict[bytes, Any]] = [{} for _ in range(reply_count)]
        self.accepted = self.rejected = self.failed = self.dropped = self.interrupted = 0
        self._replies: dict[tuple[str, int, str, bool, str], list[int]] = {}
        self._timings: dict[tuple[str, bool], list[int]] = {}
        self._errors: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def samples(self, verb: str, metric: str, raw: bytes, ok: bool) -> list[int]:
        """The list for the latencies of this verb's replies with raw's code and enhanced code.

        Appending counts the reply and, where slot is not empty, records the latency under it. The list stays the
        same one for the book's life.
        """
        code, enhanced = _codes(raw[:PREFIX_BYTES])
        key = (verb, code, enhanced, ok, metric)
        found = self._replies.get(key)
        if found is None and enhanced and len(self._replies) >= REPLY_KINDS:
            key = (verb, code, OTHER, ok, metric)
            found = self._replies.get(key)
        if found is None:
            found = self._replies[key] = []
            if not ok and len(self._examples) < EXAMPLES:
                said = raw[:EXAMPLE_BYTES].decode("utf-8", "surrogateescape")
                self._example(f"{verb} {code} {key[2]}".rstrip(), said)
        return found

    def timing(self, metric: str, ok: bool = True) -> list[int]:
        """The list for a time that no single reply gives: connect, tls, pipeline, transaction, session."""
        found = self._timings.get((metric, ok))
        if found is None:
            found = self._timings[metric, ok] = []
        return found

    def error(self, kind: str, detail: str = "", count: int = 1) -> None:
        """Count an error, and keep the first detail of its kind."""
        self._errors[kind] += count
        if detail:
            self._example(kind, detail)

    def _example(self, what: str, text: str) -> None:
        self._examples.setdefault(what, text[:EXAMPLE_BYTES].strip("\r\n"))

    def drain(self) -> Interval:
        """Take everything that was counted since the last drain."""
        interval = Interval()
        for _ in self.drain_steps(interval):
            pass
        return interval

    def drain_steps(self, interval: Interval) -> Iterator[None]:
        """The same into an empty interval, in steps of a millisecond or less, so that a loop may run between them.

        What is counted while it goes on belongs to the next drain.
        """
        by_slot: dict[tuple[str, bool], list[int]] = {}
        for (verb, code, enhanced, ok, metric), samples in self._replies.items():
            if samples:
                interval.replies[verb, code, enhanced, ok] += len(samples)
                if metric:
                    by_slot.setdefault((metric, ok), []).extend(samples)
                samples.clear()
        for key, samples in self._timings.items():
            if samples:
                by_slot.setdefault(key, []).extend(samples)
                samples.clear()
        for name in MESSAGE_COUNTS:
            count = getattr(self, name)
            if count:
                interval.messages[name] = count
                setattr(self, name, 0)
        interval.errors, self._errors = self._errors, Counter()
        interval.examples = dict(self._examples)
        for key, samples in by_slot.items():
            latency = interval.latencies[key] = Latency.empty()
            for start in range(0, len(samples), STEP_SAMPLES):
                latency.record(samples[start : start + STEP_SAMPLES])
                yield


@dataclass(slots=True)
class Latency:
    """Service and response time of one slot; the same object twice where no arrival was late."""

    service: Histogram
    response: Histogram

    @classmethod
    def empty(cls) -> Latency:
        """Of no samples yet."""
        service = Histogram()
        return cls(service, service)

    def record(self, samples: list[int]) -> None:
        """Add samples of a book (see above), at least one."""
        if max(samples) <= _SERVICE_MASK:
            self.service.record(samples)
            if self.response is not self.service:
                self.response.record(samples)
            return
        self._part()
        services_ns = [sample & _SERVICE_MASK for sample in samples]
        self.service.record(services_ns)
        late_us = [sample >> LATE_SHIFT for sample in samples]
        self.response.record([ns + 1000 * us for ns, us in zip(services_ns, late_us, strict=True)])

    def _part(self) -> None:
        if self.response is self.service:
            self.response = Histogram()
            self.response.add(self.service)

    def add(self, other: Latency) -> None:
        """Add another's samples to these."""
        if other.response is not other.service:
            self._part()
        self.service.add(other.service)
        if self.response is not self.service:
            self.response.add(other.response)

    def to_data(self) -> list[Any]:
        """Service and response as data, the latter None where it is the same."""
        return [self.service.to_data(), None if self.response is self.service else self.response.to_data()]


@dataclass(slots=True)
class Interval:
    """What was counted in a stretch of time; plain data at heart.

    replies: (verb, code, enhanced code, as expected) → count. latencies: (slot, as expected) → Latency.
    """

    messages: Counter[str] = field(default_factory=Counter)
    replies: Counter[tuple[str, int, str, bool]] = field(default_factory=Counter)
    latencies: dict[tuple[str, bool], Latency] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, other: Interval) -> None:
        """Add another interval's counts to these: the one way in which workers, seconds and phases are summed."""
        self.messages.update(other.messages)
        self.replies.update(other.replies)
        self.errors.update(other.errors)
        self.examples = {**other.examples, **self.examples}
        for key, latency in other.latencies.items():
            mine = self.latencies.get(key)
            if mine is None:
                mine = self.latencies[key] = Latency.empty()
            mine.add(latency)

    @property
    def counted(self) -> bool:
        """Whether there is anything in it."""
        return bool(self.messages or self.replies or self.latencies or self.errors)

    @property
    def attempted(self) -> int:
        """Messages of every outcome."""
        return sum(self.messages.values())

    def recipients(self) -> tuple[int, int]:
        """Recipients accepted and rejected, by the replies to RCPT."""
        counts = [(code // 100 == 2, count) for (verb, code, _, _), count in self.replies.items() if verb == "RCPT"]
        return sum(count for taken, count in counts if taken), sum(count for taken, count in counts if not taken)

    def to_data(self) -> dict[str, Any]:
        """Data that JSON holds; `from_data` reads it."""
        return {
            "messages": self.messages,
            "replies": [[*key, count] for key, count in self.replies.items()],
            "latencies": [[*key, *latency.to_data()] for key, latency in self.latencies.items()],
            "errors": self.errors,
            "examples": self.examples,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Interval:
        """The interval of a `to_data`."""
        interval = cls(Counter(data["messages"]), errors=Counter(data["errors"]), examples=data["examples"])
        for verb, code, enhanced, ok, count in data["replies"]:
            interval.replies[verb, code, enhanced, ok] = count
        for metric, ok, service_data, response_data in data["latencies"]:
            service = Histogram.from_data(service_data)
            response = service if response_data is None else Histogram.from_data(response_data)
            interval.latencies[metric, ok] = Latency(service, response)
        return interval
