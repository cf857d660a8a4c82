"""Deaths of a server as they are seen from outside, where nothing is known of its processes.

Theory of operation
===================

A process that dies closes all its connections at the same moment, and nobody accepts new ones until another process listens.
So the connections that are cut off within `SAME_MOMENT_NS` of each other form one burst. The refusals that follow it within
`REFUSAL_NS` belong to it. A burst is *sudden* if it has several connections or a refusal. It is a *restart* if connections
were refused: then nobody listened, whatever the reason was. Refusals without a connection that was cut off are a burst as
well, if the server answered before: it may have died while no connection was open.

Whether a burst is over is known `REFUSAL_NS` after its last event. A server that closes several connections at once on
purpose looks the same as long as it goes on to accept new ones. That is why a burst without a refusal is evidence of nothing
by itself; `rules.crash` can test it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from smtpbench.supervisor.death import Death
from smtpbench.text import plural
from smtpbench.units import NS_PER_MS, NS_PER_S

#: The kernel closes the connections of a process within this time.
SAME_MOMENT_NS: Final = 50 * NS_PER_MS
#: A process that died refuses connections within this time.
REFUSAL_NS: Final = NS_PER_S
#: Connections of a burst whose items are kept.
_MAX_ITEMS: Final = 1000

Item = TypeVar("Item")


@dataclass(slots=True)
class Burst(Generic[Item]):
    """Connections that were cut off at the same moment, and refusals after it.

    Attributes:
        first_ns: Time of the first event.
        cut_off_ns: Time at which the last connection was cut off.
        last_ns: Time of the last event.
        cut_off: Number of connections that were cut off.
        refused: Number of connections that were refused.
        back_ns: When the server answered again after a refusal; None if it did not.
        items: What the caller gave for the connections that were cut off, at most 1,000 of them.
    """

    first_ns: int
    cut_off_ns: int
    last_ns: int
    cut_off: int = 0
    refused: int = 0
    back_ns: int | None = None
    items: list[Item] = field(default_factory=list)

    @property
    def sudden(self) -> bool:
        """Whether the server may have died."""
        return self.restart or self.cut_off > 1

    @property
    def restart(self) -> bool:
        """Whether nobody listened afterwards."""
        return self.refused > 0

    @property
    def text(self) -> str:
        """One phrase for a finding: `3 connections cut off within 2 ms, then 7 refused for 120 ms`."""
        within_ms = (self.cut_off_ns - self.first_ns) / NS_PER_MS
        phrase = f"{plural(self.cut_off, 'connection')} cut off" + (
            f" within {within_ms:.0f} ms" if self.cut_off > 1 else ""
        )
        if not self.restart:
            return phrase
        gone_ms = ((self.back_ns or self.last_ns) - self.cut_off_ns) / NS_PER_MS
        after = "" if self.back_ns is not None else " at least"
        return f"{phrase}, then {self.refused:,} refused for{after} {gone_ms:.0f} ms"

    def death(self) -> Death | None:
        """Return the death for which this is evidence; None without a refusal. Its cause is not known."""
        if not self.restart:
            return None
        return Death(self.first_ns, restarted_by="others" if self.back_ns is not None else "")


class BurstDetector(Generic[Item]):
    """Finds bursts among the events of all connections to a server. It has no clock: each event comes with its time.

    Events may come in a slightly wrong order, as several sessions report them.
    """

    def __init__(self) -> None:
        self._open: list[Burst[Item]] = []
        self._answered = False

    def cut_off(self, at_ns: int, item: Item) -> None:
        """Record a connection that the server closed or reset although a reply was due."""
        burst = self._latest()
        if burst is None or burst.restart or abs(at_ns - burst.cut_off_ns) > SAME_MOMENT_NS:
            burst = self._begin(at_ns)
        burst.cut_off += 1
        burst.cut_off_ns = burst.last_ns = max(burst.cut_off_ns, at_ns)
        burst.first_ns = min(burst.first_ns, at_ns)
        if len(burst.items) < _MAX_ITEMS:
            burst.items.append(item)

    def refused(self, at_ns: int) -> None:
        """Record a connection that was refused."""
        burst = self._latest()
        if burst is None or burst.back_ns is not None or at_ns >= burst.last_ns + REFUSAL_NS:
            if not self._answered:
                return  # nothing is known of a server that never answered
            burst = self._begin(at_ns)
        burst.refused += 1
        burst.last_ns = max(burst.last_ns, at_ns)

    def answered(self, at_ns: int) -> None:
        """Record a connection that the server accepted and greeted."""
        self._answered = True
        burst = self._latest()
        if burst is not None and burst.restart and burst.back_ns is None and at_ns >= burst.last_ns:
            burst.back_ns = at_ns

    def settle(self, now_ns: int) -> Iterator[Burst[Item]]:
        """Yield the bursts that are over, each once, in order."""
        while self._open and (self._open[0].back_ns is not None or self._open[0].last_ns + REFUSAL_NS < now_ns):
            yield self._open.pop(0)

    def _latest(self) -> Burst[Item] | None:
        return self._open[-1] if self._open else None

    def _begin(self, at_ns: int) -> Burst[Item]:
        burst = Burst[Item](at_ns, at_ns, at_ns)
        self._open.append(burst)
        return burst
