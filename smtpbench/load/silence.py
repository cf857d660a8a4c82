"""Times in which the server did not answer at all although replies were due.

Theory of operation
===================

Ten times a second, each worker looks whether a reply came since it looked last, and if none came, whether one was due
(`ReplyMonitor`). The reports of the workers carry what it saw. The run adds that (`SilenceMonitor`): a silence is a time in
which no worker got a reply and at least one of them waited for one. So a stall is found whether or not the server recovers
from it, with an error of a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from smtpbench.measure.recorder import Interval
from smtpbench.units import NS_PER_S

if TYPE_CHECKING:
    from smtpbench.load.recorders import Recorders

#: Length of a tenth.
TENTH_NS: Final = NS_PER_S // 10
#: A shorter time without a reply is not reported, seconds. A stall of a second is: its ends are known to a tenth.
MIN_SILENCE_S = 0.8
#: Nor is one that is shorter than so many times the slowest median of a reply, or of a transaction.
_SLOWEST_FACTOR, _TRANSACTION_FACTOR = 5.0, 2.0
#: A metric with a smaller share of the samples of the most frequent one has few samples.
_FEW_SHARE = 0.1
#: A transfer without progress for so long waits for the server.
_STALLED_TRANSFER_NS = NS_PER_S
#: Beginnings of silences that are kept to the nanosecond.
_MAX_BEGINNINGS = 500
_ANSWERED, _DUE = 1, 2


class Tenth(NamedTuple):
    """A tenth of a second of one worker; neither answered nor due if nobody waited, or the worker was late itself.

    Attributes:
        number: Number of the tenth, from 0 at the start of the run.
        answered: Whether a reply came.
        due: Whether none came although one was due.
        since_ns: Since when the connection that waits longest waits, nanoseconds after the start of the run; 0 if unknown.
    """

    number: int
    answered: bool
    due: bool = False
    since_ns: int = 0


class ReplyMonitor:
    """Looks ten times a second whether replies come.

    Args:
        recorders: The recorders of the worker.
        start_ns: Start of the run, of `time.monotonic_ns`.
    """

    def __init__(self, recorders: Recorders, start_ns: int = 0) -> None:
        self._recorders = recorders
        self._start_ns = start_ns
        self._tenths: list[Tenth] = []
        self._next = 0
        self._replies = self._errors = 0
        self._was_due = False

    def look(self, now_ns: int, sessions: Iterable[Any]) -> None:
        """Note whether a reply came since the last call, at a time of `time.monotonic_ns`.

        Args:
            now_ns: The time.
            sessions: The sessions of the worker.
        """
        number = round((now_ns - self._start_ns) / TENTH_NS) - 1
        if number < self._next:
            return
        replies, errors = self._recorders.counted()
        answered, on_time = replies != self._replies, number == self._next
        since_ns, due = 0, False
        if not answered and on_time:  # what came while the worker itself was late may not have been read yet
            waiting = _waits_since_ns(sessions, now_ns)
            if self._was_due:  # only the first tenth of a silence needs its beginning
                due = next(waiting, None) is not None or errors != self._errors
            else:
                earliest_ns = min(waiting, default=None)
                due = earliest_ns is not None or errors != self._errors
                since_ns = 0 if earliest_ns is None else max(0, earliest_ns - self._start_ns)
        self._tenths += [Tenth(one, answered) for one in range(self._next, number)]
        self._tenths.append(Tenth(number, answered, due, since_ns))
        self._was_due = due or (self._was_due and not answered)
        self._replies, self._errors, self._next = replies, errors, number + 1

    def take(self) -> list[Tenth]:
        """Return the tenths of a second since the last call."""
        taken, self._tenths = self._tenths, []
        return taken


def _waits_since_ns(sessions: Iterable[Any], now_ns: int) -> Iterator[int]:
    """Yield since when each session that a reply is due to has waited, of `time.monotonic_ns`."""
    for session in sessions:
        since_ns = session.waiting_since_ns
        if since_ns and (session.transfer is None or now_ns - since_ns > _STALLED_TRANSFER_NS):
            yield since_ns


class SilenceMonitor:
    """Finds the times without a reply in what all workers noted."""

    def __init__(self) -> None:
        self._states = bytearray()  # a state for each tenth: an hour takes 36 kB
        self._since_ns: dict[int, int] = {}

    def add(self, tenths: Iterable[Tenth]) -> None:
        """Add tenths of a second of a worker."""
        for tenth in tenths:
            missing = tenth.number + 1 - len(self._states)
            if missing > 0:
                self._states += bytes(missing)
            self._states[tenth.number] |= _ANSWERED * tenth.answered | _DUE * tenth.due
            if tenth.since_ns:
                if len(self._since_ns) >= _MAX_BEGINNINGS:
                    self._forget_short_silences()
                self._since_ns[tenth.number] = min(tenth.since_ns, self._since_ns.get(tenth.number, tenth.since_ns))

    def _forget_short_silences(self) -> None:
        """Drop the beginnings of silences that ended too soon to be reported, or all: they are known to a tenth anyway."""
        least = round(MIN_SILENCE_S * NS_PER_S / TENTH_NS)
        kept = {
            number: since_ns
            for number, since_ns in self._since_ns.items()
            if not any(state & _ANSWERED for state in self._states[number : number + least])
        }
        self._since_ns = kept if len(kept) < _MAX_BEGINNINGS else {}

    def found(self, totals: Interval) -> list[tuple[float, float]]:
        """Return the times without a reply, (from, to) in seconds, that are long for a server with these latencies."""
        least_s = max([MIN_SILENCE_S, *_slow_s(totals)])
        seconds = ((begin_ns / NS_PER_S, end_ns / NS_PER_S) for begin_ns, end_ns in self._silences_ns())
        return [(begin_s, end_s) for begin_s, end_s in seconds if end_s - begin_s >= least_s]

    def _silences_ns(self) -> Iterator[tuple[int, int]]:
        first = last = -1
        for number, state in enumerate(self._states):
            if state == _DUE:
                first, last = number if first < 0 else first, number
            elif state & _ANSWERED:
                if first >= 0:
                    yield self._begin_ns(first), (last + 1) * TENTH_NS
                first = -1
        if first >= 0:
            yield self._begin_ns(first), (last + 1) * TENTH_NS

    def _begin_ns(self, first: int) -> int:
        """When the first tenth of a silence begins, or the wait if that began in the tenth before, or in this one."""
        begin_ns, since_ns = first * TENTH_NS, self._since_ns.get(first, 0)
        return since_ns if since_ns > begin_ns - TENTH_NS else begin_ns


def _slow_s(totals: Interval) -> Iterator[float]:
    """Yield how long a wait for a reply is not unusual: by its median, or its minimum where the samples are few.

    Most connections may have been opened during a stall, so the median of a greeting says little about the server.
    """
    most = max((latency.service.count for latency in totals.latencies.values()), default=0)
    for (metric, ok), latency in totals.latencies.items():
        service, bounds = latency.service, totals.censored.get(metric)
        known = service.count and (bounds is None or bounds.service.count < service.count / 2)
        if ok and known and metric != "session":
            factor = _TRANSACTION_FACTOR if metric == "transaction" else _SLOWEST_FACTOR
            few = service.count < _FEW_SHARE * most
            yield factor * (service.min_ns / 1e6 if few else service.percentiles_ms([50])[50]) / 1000
