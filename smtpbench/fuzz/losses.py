"""Cases that the target cut off, grouped by the moment: the traces of a crash.

Theory of operation
===================

A process that dies cuts off all its sessions at the same moment, and refuses connections until it is started again. So the
cases that are cut off within `_SAME_MOMENT_NS` of each other form one loss. Whether they are one crash or several closed
connections is known a moment later: a loss is *sudden* where it has several cases or where connections were refused after
it. Sudden losses wait for the end of the campaign, when their cases run again one by one. The cases of other losses are what
they seem to be: the server closed the connection.

What a rule says of the end of a cut-off session holds only if the server did not die, so it waits as well.

Where the server's processes are known, `fuzz.outages` records the cases that an outage cut off. Other losses are closed
connections, unless connections were refused after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from smtpbench.rules.crash import sanitizer_reported
from smtpbench.rules.divergence import DIVERGENCE
from smtpbench.rules.reply_tracker import Violation
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.runner import SessionResult
from smtpbench.session.script import Script
from smtpbench.session.transcript import CLIENT
from smtpbench.smtp.command import EXPECTED, verb_of
from smtpbench.smtp.state import MESSAGE
from smtpbench.units import NS_PER_MS, NS_PER_S

_SAME_MOMENT_NS: Final = 50 * NS_PER_MS
#: A process that died refuses connections within this time.
_REFUSAL_NS: Final = NS_PER_S
#: Cases of one loss to keep; losses to keep where nothing but the moment speaks for a crash, and others.
_MAX_CASES: Final = 24
_MAX_SUDDEN: Final = 3
_MAX_REFUSED: Final = 30
#: Rules about how a session ended.
END_RULES: Final = frozenset({"close-without-421", DIVERGENCE.name})


class CutOffCase(NamedTuple):
    """A case that the target cut off.

    Attributes:
        number: Number of the case.
        session_result: The session.
        violations: What is wrong with the session if the server did not die.
    """

    number: int
    session_result: SessionResult
    violations: Sequence[Violation] = ()

    @property
    def end_ns(self) -> int:
        """Return when the session ended, nanoseconds of the engine's clock."""
        return self.session_result.transcript.entries[-1].at_ns

    def was_open(self, at_ns: int, late_ns: int) -> bool:
        """Return whether the session was open at a moment, or had ended at most `late_ns` before."""
        return self.session_result.transcript.was_open(at_ns, late_ns)


@dataclass(slots=True)
class Loss:
    """Cases that were cut off at the same moment.

    Attributes:
        cases: The cases, in the order in which they ended.
        cut_off: Number of all cases, of which the likeliest causes of a crash are kept.
        refused: Connections were refused afterwards, or a sanitizer reported the crash.
    """

    cases: list[CutOffCase] = field(default_factory=list)
    cut_off: int = 0
    refused: bool = False

    @property
    def sudden(self) -> bool:
        """Return whether it may be a crash."""
        return self.refused or self.cut_off > 1


class Losses:
    """Collects the cases that a target cut off.

    Args:
        script: The scenario, unchanged.
        explain: Returns whether cases are known to be cut off by a death or a hang that is recorded elsewhere; None if
            nothing is known of the server's processes.

    Attributes:
        sudden: Losses that may be crashes, in the order in which they happened.
        not_kept: Losses that may be crashes and are too many to keep.
    """

    def __init__(self, script: Script, explain: Callable[[Sequence[CutOffCase]], bool] | None = None) -> None:
        self._script = script
        self._explain = explain
        self._open: list[Loss] = []
        self.sudden: list[Loss] = []
        self.not_kept = 0

    @property
    def deaths_are_known(self) -> bool:
        """Whether deaths are recorded elsewhere, so that a case that was cut off alone is no trace of one."""
        return self._explain is not None

    def add(self, case: CutOffCase) -> None:
        """Record a case that was cut off."""
        latest = self._open[-1] if self._open else None
        if latest is None or abs(case.end_ns - latest.cases[-1].end_ns) > _SAME_MOMENT_NS:
            latest = Loss()
            self._open.append(latest)
        latest.cut_off += 1
        latest.refused = latest.refused or sanitizer_reported(case.session_result.transcript)
        latest.cases.append(case)

    def refuse(self, now_ns: int) -> None:
        """Record that the target refused a connection: the latest loss may be its cause."""
        if self._open and now_ns < self._open[-1].cases[-1].end_ns + _REFUSAL_NS:
            self._open[-1].refused = True

    def settle(self, now_ns: int) -> Iterator[CutOffCase]:
        """Decide on the losses that are older than the time in which connections may be refused.

        Yields:
            The cases that are no trace of a crash.
        """
        while self._open and self._open[0].cases[-1].end_ns + _REFUSAL_NS < now_ns:
            loss = self._open.pop(0)
            if self._explain is not None and self._explain(loss.cases):
                continue
            if self._explain is not None and not loss.refused:
                yield from loss.cases  # the server did not die
                continue
            alike = sum(other.refused == loss.refused for other in self.sudden)
            if loss.sudden:
                loss.cases.sort(key=lambda case: likelihood(case.session_result, self._script), reverse=True)
            if loss.sudden and alike < (_MAX_REFUSED if loss.refused else _MAX_SUDDEN):
                del loss.cases[_MAX_CASES:]
                self.sudden.append(loss)
            elif loss.refused:
                self.not_kept += 1
            else:
                yield from loss.cases


def likelihood(session_result: SessionResult, script: Script) -> tuple[bool, bool, bool, int]:
    """Return how likely a session crashed the target, as a value to sort by.

    A session qualifies if its last write had no reply although one was due, and if that write is not a line of the scenario.
    Of several, the earliest write is the likeliest cause: the target replied to what came before it, and what came after it
    was probably not read any more.
    """
    entries = session_result.transcript.entries[:-1]
    last = max((entry for entry in entries if entry.who == CLIENT), key=lambda entry: entry.at_ns, default=None)
    if last is None:
        return False, False, False, 0
    session = session_result.session
    due = not isinstance(session, TrackedSession) or session.tracker.replies_due > 0 or session.tracker.lenient
    is_scenario = last.data == b"QUIT\r\n" or any(last.data == step.wire for step in script.steps)
    return entries[-1] is last, due, not is_scenario, -last.at_ns


def last_verb(session_result: SessionResult) -> str:
    """Return what the target was processing when the session ended: the verb of the first command without a reply."""
    session = session_result.session
    verb = session.tracker.next_due if isinstance(session, TrackedSession) else ""
    if not verb:
        # a line may take several writes
        sent = b"".join(entry.data for entry in session_result.transcript.entries if entry.who == CLIENT)
        verb = verb_of(sent.rstrip(b"\r\n").rpartition(b"\n")[2])
    return "the end of the message text" if verb == MESSAGE else verb if verb in EXPECTED else "an unknown command"
