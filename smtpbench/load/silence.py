"""Times in which the server did not answer at all although replies were due."""

from __future__ import annotations

from smtpbench.measure.recorder import Interval
from smtpbench.units import NS_PER_S

#: A shorter time without a reply is not reported, seconds.
MIN_SILENCE_S = 1.0
#: Nor is one that is shorter than so many times the slowest median of a reply.
_SLOWEST_FACTOR = 5.0


class SilenceMonitor:
    """Finds the times without a reply from what was counted second by second."""

    def __init__(self) -> None:
        self._silences_s: list[tuple[float, float]] = []
        self._begin_ns: int | None = None
        self._end_ns = 0
        self._last_ns = 0  # end of the second before
        self._before_ns = 0  # its beginning

    def add(self, end_ns: int, replies: int, waiting_since_ns: int | None) -> None:
        """Add a second of the run.

        Args:
            end_ns: Its end, nanoseconds after the start of the run.
            replies: Number of replies in it.
            waiting_since_ns: Since when the connection that waits longest has waited for a reply; None if none waits.
        """
        if replies:
            self._close()
        elif self._begin_ns is not None:
            self._end_ns = end_ns
        elif waiting_since_ns is not None:
            # the last reply came in the second before, or the wait began later
            self._begin_ns, self._end_ns = max(waiting_since_ns, self._before_ns), end_ns
        self._before_ns, self._last_ns = self._last_ns, end_ns

    def _close(self) -> None:
        if self._begin_ns is not None:
            begin_s, end_s = self._begin_ns / NS_PER_S, self._end_ns / NS_PER_S
            if end_s - begin_s >= MIN_SILENCE_S:
                self._silences_s.append((begin_s, end_s))
            self._begin_ns = None

    def found(self, totals: Interval) -> list[tuple[float, float]]:
        """Return the times without a reply, (from, to) in seconds, that are long for a server with these latencies."""
        self._close()
        medians_ms = [0.0]
        for (metric, ok), latency in totals.latencies.items():
            if ok and metric not in ("session", "transaction"):
                bounds = totals.censored.get(metric)
                if bounds is None or bounds.service.count < latency.service.count / 2:
                    medians_ms.append(latency.service.percentiles_ms([50])[50])
        least_s = max(MIN_SILENCE_S, _SLOWEST_FACTOR * max(medians_ms) / 1000)
        return [(begin_s, end_s) for begin_s, end_s in self._silences_s if end_s - begin_s >= least_s]
