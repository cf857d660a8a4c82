"""Which book an arrival is counted in: that of its phase, and of its domain where that is counted apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from smtpbench.engine.api import NEVER
from smtpbench.measure.recorder import Recorder


class Recorders:
    """A worker's books.

    warmup, book: what is counted before and after the warm-up's end. quiet: what would be in the book, but came before
    the first hostile session. apart: by domain, what would be in quiet and in the book, but is looked at by itself too.
    """

    def __init__(self, reply_count: int) -> None:
        self.warmup = Recorder(reply_count)
        self.baseline = Recorder(reply_count)
        self.steady = Recorder(reply_count)
        self.by_domain: dict[str, tuple[Recorder, Recorder]] = {}
        self._measure_ns = 0
        self._hostile_ns = 0

    def begin(self, measure_ns: int, hostile_ns: int) -> None:
        """When the warm-up ends, and when the first hostile session may begin; of `time.monotonic_ns`."""
        self._measure_ns = measure_ns
        self._hostile_ns = hostile_ns

    def of(self, n: int, when_ns: int) -> Recorder:
        """The book of arrival n, meant to begin at that time."""
        if when_ns >= self._hostile_ns:
            return self.steady
        return self.baseline if when_ns >= self._measure_ns else self.warmup

    def same_until_ns(self, when_ns: int) -> int:
        """Until when every arrival has the book of one that begins at when_ns; 0 where the book depends on its number."""
        return next((end_ns for end_ns in (self._measure_ns, self._hostile_ns) if when_ns < end_ns), NEVER)


class RecordersByDomain(Recorders):
    """The same with books for some domains. domain_of: arrival number → the domain it is for.

    The warm-up is counted as a whole: nothing is asked of its domains.
    """

    def __init__(self, reply_count: int, domains: Iterable[str], domain_of: Callable[[int], str]) -> None:
        super().__init__(reply_count)
        self.by_domain = {domain: (Recorder(reply_count), Recorder(reply_count)) for domain in domains}
        self._domain_of = domain_of

    def of(self, n: int, when_ns: int) -> Recorder:
        if when_ns < self._measure_ns:
            return self.warmup
        found = self.by_domain.get(self._domain_of(n))
        return super().of(n, when_ns) if found is None else found[when_ns >= self._hostile_ns]

    def same_until_ns(self, when_ns: int) -> int:
        return self._measure_ns if when_ns < self._measure_ns else 0
