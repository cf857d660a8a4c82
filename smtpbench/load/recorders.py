"""The recorders of a worker: which of them counts an arrival depends on the phase of the run and on the recipient domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from smtpbench.engine.api import NEVER
from smtpbench.measure.recorder import Recorder


class Recorders:
    """One recorder for each phase of a run.

    Args:
        reply_count: Number of replies that the script expects (`Script.reply_count`).
        lmtp: Whether the protocol is LMTP.

    Attributes:
        warmup: Arrivals of the warm-up.
        baseline: Arrivals after the warm-up and before the first hostile session.
        steady: All later arrivals; without hostile sessions, all arrivals after the warm-up.
        by_domain: Recipient domain → its recorders for the baseline and the steady phase. What they count is counted nowhere
            else.
    """

    def __init__(self, reply_count: int, *, lmtp: bool = False) -> None:
        self.warmup = Recorder(reply_count, lmtp=lmtp)
        self.baseline = Recorder(reply_count, lmtp=lmtp)
        self.steady = Recorder(reply_count, lmtp=lmtp)
        self.by_domain: dict[str, tuple[Recorder, Recorder]] = {}
        self._measure_ns = 0
        self._hostile_ns = 0

    def set_phases(self, measure_ns: int, hostile_ns: int) -> None:
        """Set the end of the warm-up and the time of the first hostile session, of `time.monotonic_ns`."""
        self._measure_ns = measure_ns
        self._hostile_ns = hostile_ns

    def end_sending(self) -> None:
        """Note in every recorder that the sending window is over."""
        for recorder in (self.baseline, self.steady, *(one for pair in self.by_domain.values() for one in pair)):
            recorder.end_sending()

    def counted(self) -> tuple[int, int]:
        """Return how many replies and how many errors were counted since the start."""
        every = (self.warmup, self.baseline, self.steady, *(one for pair in self.by_domain.values() for one in pair))
        return sum(one.reply_total for one in every), sum(one.error_total for one in every)

    def of(self, n: int, when_ns: int) -> Recorder:
        """Return the recorder of arrival n, whose intended start is when_ns."""
        if when_ns >= self._hostile_ns:
            return self.steady
        return self.baseline if when_ns >= self._measure_ns else self.warmup

    def valid_until_ns(self, when_ns: int) -> int:
        """Return until when arrivals have the same recorder as one at when_ns; 0 if the recorder depends on their number."""
        return next((end_ns for end_ns in (self._measure_ns, self._hostile_ns) if when_ns < end_ns), NEVER)


class RecordersByDomain(Recorders):
    """Recorders that count some recipient domains separately.

    The warm-up is counted as a whole, because thresholds of a domain do not apply to it.

    Args:
        reply_count: Number of replies that the script expects (`Script.reply_count`).
        domains: Recipient domains to count separately.
        domain_of: Returns the recipient domain of an arrival.
        lmtp: Whether the protocol is LMTP.
    """

    def __init__(
        self, reply_count: int, domains: Iterable[str], domain_of: Callable[[int], str], *, lmtp: bool = False
    ) -> None:
        super().__init__(reply_count, lmtp=lmtp)
        self.by_domain = {domain: (Recorder(reply_count, lmtp=lmtp), Recorder(reply_count, lmtp=lmtp)) for domain in domains}
        self._domain_of = domain_of

    def of(self, n: int, when_ns: int) -> Recorder:
        if when_ns < self._measure_ns:
            return self.warmup
        found = self.by_domain.get(self._domain_of(n))
        return super().of(n, when_ns) if found is None else found[when_ns >= self._hostile_ns]

    def valid_until_ns(self, when_ns: int) -> int:
        return self._measure_ns if when_ns < self._measure_ns else 0
