"""Outages of a server whose processes are known: when it died or hung, and the cases that were under way.

Theory of operation
===================

The supervisor says when a process ended. Cases that were open at that moment, or that ended within `_BEFORE_NS` before it,
may be the cause: a client need not wait for the reply to what kills the server. Cases are remembered for that long.

A server that greets nobody while its process lives hangs. The cases since it last greeted may be the cause. It is started
again, which cuts off the cases that are open; that is no death.

What a rule says of the end of a session in an outage says nothing of the server, and is dropped.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from smtpbench.engine import api
from smtpbench.fuzz.losses import CutOffCase, likelihood
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult
from smtpbench.session.script import Script
from smtpbench.session.transcript import CLIENT
from smtpbench.supervisor.death import Death
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.units import NS_PER_MS

#: A case that ended this long before the death was noticed may be its cause, or was cut off by it.
_BEFORE_NS: Final = 500 * NS_PER_MS
#: A connection that the death cut off is reported within this time after it was noticed.
_AFTER_NS: Final = 500 * NS_PER_MS
#: Cases that are remembered, at most.
_MAX_REMEMBERED: Final = 1_000
#: Longest line that a server must accept (RFC 5321 §4.5.3.1.4), octets.
_LINE_OCTETS: Final = 512
_PLAIN_LINE: Final = re.compile(rb"[\x20-\x7e]*\r\n")
#: Later than any session, nanoseconds.
_LATER_NS: Final = 1 << 62
#: Cases of one outage to keep, and outages with the same cause.
MAX_CASES: Final = 50
_MAX_ALIKE: Final = 20


@dataclass(slots=True)
class Outage:
    """A death or a hang.

    Attributes:
        at_ns: When it was noticed, of `time.monotonic_ns`.
        death: The end of the process; None for a hang.
        from_ns: Cases that ended before this moment are not the cause.
        to_ns: Sessions that ended until this moment may have been cut off by it.
        cases: Cases that may be the cause, the likeliest first once it is settled.
        open: Number of all cases that were under way.
    """

    at_ns: int
    death: Death | None
    from_ns: int
    to_ns: int
    cases: list[CutOffCase] = field(default_factory=list)
    open: int = 0

    @property
    def cause(self) -> str:
        """Return the key by which outages are grouped."""
        return "hang" if self.death is None else self.death.cause


class Outages:
    """Collects the outages of a server whose processes are known.

    Args:
        server: The server.
        script: The scenario, unchanged.

    Attributes:
        settled: Outages of which all cases are known, in order.
        not_kept: Outages by cause that are like others and too many to keep.
    """

    def __init__(self, server: SupervisedServer, script: Script) -> None:
        self._server = server
        self._script = script
        self._latest: deque[CutOffCase] = deque(maxlen=_MAX_REMEMBERED)
        self._open: list[Outage] = []
        self._deaths_seen = len(server.deaths)
        self._counts: dict[str, int] = {}
        self._windows: deque[Outage] = deque(maxlen=_MAX_REMEMBERED)
        self.settled: list[Outage] = []
        self.not_kept: dict[str, int] = {}

    def add(self, case: CutOffCase) -> None:
        """Record a case that ended."""
        self._latest.append(case)
        for outage in self._open:
            _add_if_open(outage, case)

    @property
    def latest(self) -> Sequence[CutOffCase]:
        """Return the latest cases, the oldest first."""
        return self._latest

    def update(self) -> None:
        """Record the deaths since the last call."""
        deaths = self._server.deaths
        for death in deaths[self._deaths_seen :]:
            self._begin(Outage(death.at_ns, death, death.at_ns - _BEFORE_NS, death.at_ns + _AFTER_NS))
        self._deaths_seen = len(deaths)

    def hang(self, from_ns: int, now_ns: int) -> None:
        """Record that the server greets nobody since a moment; it is stopped now."""
        self._begin(Outage(now_ns, None, from_ns, _LATER_NS))

    def end_hang(self, now_ns: int) -> None:
        """Record that a server that hung was started again, or that this failed."""
        for outage in self._windows:
            outage.to_ns = min(outage.to_ns, now_ns + _AFTER_NS)

    def settle(self, now_ns: int) -> list[Outage]:
        """Return the outages that were settled by this call: all sessions that they cut off have ended."""
        self.update()
        done = [outage for outage in self._open if outage.to_ns < now_ns]
        self._open = [outage for outage in self._open if outage.to_ns >= now_ns]
        for outage in done:
            outage.open = len(outage.cases)
            outage.cases.sort(key=self._likelihood, reverse=True)
            del outage.cases[MAX_CASES:]
        self.settled += done
        return done

    def covers(self, at_ns: int) -> bool:
        """Return whether a moment is that of an outage."""
        self.update()
        return any(outage.from_ns <= at_ns <= outage.to_ns for outage in self._windows)

    def explain(self, cases: Iterable[CutOffCase]) -> bool:
        """Return whether sessions that were cut off at the same moment were so by an outage."""
        self.update()
        return any(outage.from_ns <= case.end_ns <= outage.to_ns for case in cases for outage in self._windows)

    def _likelihood(self, case: CutOffCase) -> tuple[bool, bool, bool, bool, bool, int]:
        """Return how likely a case is the cause, as a value to sort by.

        A group of commands may have had some of its replies, so what matters most is that one was due. A server still waits
        for the rest of a line that has no end. Of other lines, those are likelier that hold what few clients send.
        """
        unanswered, due, not_scenario, order = likelihood(case.session_result, self._script)
        entries = case.session_result.transcript.entries
        last = next((entry.data for entry in reversed(entries) if entry.who == CLIENT), b"")
        is_open = Dialogue.of(case.session_result.transcript).end_reason != api.ENDED
        was_processed = due and is_open and last.endswith(b"\n")
        return was_processed, not_scenario, _is_odd(last), unanswered, is_open, order

    def _begin(self, outage: Outage) -> None:
        self._windows.append(outage)
        count = self._counts[outage.cause] = self._counts.get(outage.cause, 0) + 1
        if count > _MAX_ALIKE:
            self.not_kept[outage.cause] = self.not_kept.get(outage.cause, 0) + 1
            return
        self._open.append(outage)
        for case in self._latest:
            _add_if_open(outage, case)


def _add_if_open(outage: Outage, case: CutOffCase) -> None:
    """Record a case that was under way when the server died or hung."""
    if not (outage.from_ns <= case.end_ns and _begin_ns(case.session_result) <= outage.at_ns):
        return
    if Dialogue.of(case.session_result.transcript).last_code != 221:  # the server was there until its end
        outage.cases.append(case)


def _is_odd(octets: bytes) -> bool:
    """Return whether what was sent is no short line of printable ASCII."""
    return len(octets) > _LINE_OCTETS or _PLAIN_LINE.fullmatch(octets) is None


def _begin_ns(session_result: SessionResult) -> int:
    return session_result.transcript.entries[0].at_ns
