"""Finding the cases that kill or hang a server whose processes are known.

Theory of operation
===================

The cases that were under way run again alone, the likeliest first, until the server dies or hangs of one. The server is
fresh after that, and the case is repeated there; the third time only its last command. Then it is shrunk, and the server is
started again after each attempt that kills it. Outages with the same cause after the same command are one finding.

While it is shrunk, a case ends with QUIT: the reply to it says that the server lives, so that nobody waits for its end.

Where no case does it alone, all of them run at the same time on a fresh server. If that kills it, or if nothing does, the
likeliest case is the finding, and it says that this is not proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from smtpbench.fuzz.confirmation import split_end
from smtpbench.fuzz.losses import CutOffCase, last_verb
from smtpbench.fuzz.mutation import command_step, replace_steps
from smtpbench.fuzz.outages import Outage, Outages
from smtpbench.fuzz.shrink import scenario_lines, shrink
from smtpbench.fuzz.suspect import CONFIRMATIONS, MAX_CANDIDATES, CampaignStats, Suspect, SuspectKey
from smtpbench.fuzz.target_health import TargetHealth
from smtpbench.fuzz.time_limit import TimeLimit
from smtpbench.rules import rule as r
from smtpbench.rules.reply_tracker import Violation
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script, Step
from smtpbench.session.transcript import CLIENT
from smtpbench.supervisor.death import Death
from smtpbench.supervisor.log_evidence import quoted_lines
from smtpbench.supervisor.lone_session import run_alone
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.text import visible
from smtpbench.units import NS_PER_S

#: Attempts to run a script where the target gives no greeting.
_ATTEMPTS: Final = 3
#: Cases to try of an outage whose cause may be known, because a case with the same command was under way.
_FEW_CASES: Final = 6
#: Time for finding the cases that killed the target, in times that shrinking one may take.
_SEARCHES: Final = 2
#: Share of the time that is left for it.
_SEARCH_SHARE: Final = 0.8
#: Share of the time for searching that one outage may take.
_OUTAGE_SHARE: Final = 0.5
#: Limit for a reply of a server that was just started, nanoseconds: to the cases of an outage, and to one that was found.
_ATTEMPT_NS: Final = NS_PER_S
_PATIENT_NS: Final = 3 * NS_PER_S
#: Share of the time that is left for shrinking.
_SHRINK_SHARE: Final = 0.8
#: Later than any session, nanoseconds.
_ALL_NS: Final = 1 << 62
_QUIT: Final = b"QUIT\r\n"
#: Cause of a death of which it is not known how the process ended, see `Death.cause`.
_UNKNOWN: Final = Death(0).cause
#: Cause of an outage that is a hang, see `Outage.cause`.
_HANG: Final = "hang"


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A script that ran alone.

    Attributes:
        session_result: The session.
        death: The end of the server's process; None if it did not end.
        hung: Whether its process lives, and it greets nobody.
        log_lines: Error lines in the server's log meanwhile, escaped.
    """

    session_result: SessionResult
    death: Death | None = None
    hung: bool = False
    log_lines: tuple[str, ...] = ()

    @property
    def cause(self) -> str:
        """Return the cause as `Outage.cause` has it; empty if nothing happened."""
        return self.death.cause if self.death is not None else _HANG if self.hung else ""


class OutageSearch:
    """Finds the cases behind outages, and records them as suspects.

    Args:
        stats: The suspects of the campaign.
        runner: Runs sessions with the server; nothing else may use it in a search.
        server: The server.
        health: Waits for the server to come back.
        outages: The outages.
        scenario: The scenario that cases were made from; its own commands are kept or removed as a whole.
        shrink_s: Time for shrinking one suspect, seconds.
    """

    def __init__(
        self,
        stats: CampaignStats,
        runner: SessionRunner,
        server: SupervisedServer,
        health: TargetHealth,
        outages: Outages,
        scenario: Script,
        shrink_s: float,
    ) -> None:
        self._stats = stats
        self._runner = runner
        self._server = server
        self._health = health
        self._outages = outages
        self._scenario = scenario
        self._shrink_s = shrink_s
        #: cause of outages → verb that the server was processing → the suspect that was proved
        self._proved: dict[str, dict[str, Suspect]] = {}

    @property
    def search_s(self) -> float:
        """What finding the cases is likely to take, seconds."""
        return _SEARCHES * self._shrink_s if self._outages.settled else 0.0

    @property
    def proved(self) -> dict[str, Suspect]:
        """Return the suspects that were proved to kill the server, by the verb that it was processing."""
        return {
            verb: suspect for cause, by_verb in self._proved.items() if cause != _HANG for verb, suspect in by_verb.items()
        }

    def settle(self, now_ns: int) -> None:
        """Record outages. The likeliest case stands for each until its cause is found, or if the command ends before."""
        for outage in self._outages.settle(now_ns):
            self._drop_waits(outage)
            self._add_unproved(outage)

    async def find(self, slow_ns: int, limit: TimeLimit) -> None:
        """Find the cases behind all outages.

        Args:
            slow_ns: Limit for a reply in a search, nanoseconds.
            limit: When the campaign ends.
        """
        self.settle(_ALL_NS)
        outages = self._outages.settled
        for outage in outages:
            self._stats.suspects.pop(("health", _unproved_cause(outage)), None)
        self._stats.crash_candidates = []
        now_s = trio.current_time()
        latest_s = limit.share_of_the_rest_s(now_s, _SEARCH_SHARE)
        deadline_s = min(now_s + _SEARCHES * self._shrink_s, latest_s)
        unexplained = _each_cause_first(outages)
        with trio.move_on_at(latest_s):
            for outage in list(unexplained):
                if self._health.gone:
                    break
                await self._explain(outage, slow_ns, deadline_s)
                unexplained.remove(outage)
        for outage in outages:
            proved = self._proved_for(outage)
            if not proved:
                continue
            unproved = self._stats.suspects.pop(("health", _unproved_cause(outage)), None)
            if unproved is not None:
                next(iter(proved.values())).hits += unproved.hits
                self._stats.crash_candidates = []
        for outage in unexplained:  # the time was up, or the server did not come back
            self._add_known(outage)
        for cause, count in self._outages.not_kept.items():
            for suspect in [*self._proved.get(cause, {}).values()][:1]:
                suspect.hits += count

    # -- one outage ------------------------------------------------------------------------------------------------

    async def _explain(self, outage: Outage, slow_ns: int, deadline_s: float) -> None:
        """Find which case is behind an outage, and record it."""
        proved = self._proved_for(outage)
        has_report = outage.death is not None and outage.death.report is not None
        if has_report and proved:
            self._add_known(outage)
            return
        cases = [case for case in outage.cases if last_verb(case.session_result) not in proved]
        if proved and len(cases) < len(outage.cases):
            cases = cases[:_FEW_CASES]
        now_s = trio.current_time()
        end_s = min(deadline_s, now_s + max(self._shrink_s, (deadline_s - now_s) * _OUTAGE_SHARE))
        for case in cases:
            if self._health.gone or trio.current_time() >= end_s:
                break
            attempt = await self._attempt(case.session_result.script, max(slow_ns, _ATTEMPT_NS))
            if attempt.cause:
                await self._prove(case, attempt, slow_ns, deadline_s)
                if _is_same(attempt.cause, outage.cause):
                    return
        if proved or self._health.gone or trio.current_time() >= end_s:
            self._add_known(outage)
            return
        self._add_unproved(outage, together=await self._any_kills(outage.cases, slow_ns))

    async def _prove(self, case: CutOffCase, attempt: _Attempt, slow_ns: int, deadline_s: float) -> None:
        """Repeat a case of which the server died or hung, shrink it, and record it."""
        cause, script = attempt.cause, case.session_result.script
        known = self._proved.setdefault(cause, {})
        suspect = Suspect(case.number, case.session_result, _violation(attempt), seen=1, tried=1, time_up=True)
        _take(suspect, attempt)
        # what is known when the time is up stands
        key = suspect.violation.rule, suspect.violation.cause
        stored = self._stats.suspects.setdefault(key, suspect)
        known[last_verb(case.session_result)] = known[last_verb(suspect.session_result)] = stored
        if stored is not suspect:
            stored.hits += 1
            return
        # a server that was just started may be slow, and one that hangs makes the client wait for all of it
        patient_ns = slow_ns if attempt.hung else max(slow_ns, _PATIENT_NS)
        while suspect.tried < CONFIRMATIONS and not self._health.gone:
            if suspect.seen == CONFIRMATIONS - 1 and await self._kills_by_itself(suspect, cause, patient_ns):
                break
            again = await self._attempt(script, patient_ns)
            suspect.tried += 1
            if _is_same(again.cause, cause):
                suspect.seen += 1
                _take(suspect, again)
        if suspect.seen > 1 and not self._health.gone:
            await self._shrink(suspect, cause, patient_ns, max(0.0, deadline_s - trio.current_time()))
        suspect.time_up = False
        self._store_again(key, suspect)
        known[last_verb(suspect.session_result)] = self._stats.suspects["health", suspect.violation.cause]

    async def _kills_by_itself(self, suspect: Suspect, cause: str, slow_ns: int) -> bool:
        """Try whether the command that had no reply does it alone, or after the first line of the scenario.

        It does often, and then a server that starts slowly has to be started once, and not for each step that is removed.
        """
        result = suspect.session_result
        last_sent = next((entry.data for entry in reversed(result.transcript.entries) if entry.who == CLIENT), b"")
        step = next((step for step in reversed(result.script.steps) if step.wire == last_sent), None)
        if step is None or step.wire == _QUIT:
            return False
        for steps in ([step], [*self._scenario.steps[:1], step]):
            attempt = await self._attempt(with_quit(replace_steps(self._scenario, steps)), slow_ns)
            if _is_same(attempt.cause, cause):
                suspect.tried += 1
                suspect.seen += 1
                _take(suspect, attempt)
                return True
        return False

    def _store_again(self, key: SuspectKey, suspect: Suspect) -> None:
        """Store a suspect whose command is another one than it seemed before it was shrunk."""
        new_key = suspect.violation.rule, suspect.violation.cause
        if new_key == key:
            return
        suspects = self._stats.suspects
        del suspects[key]
        stored = suspects.setdefault(new_key, suspect)
        if stored is not suspect:
            stored.hits += suspect.hits
            for by_verb in self._proved.values():
                for verb in [verb for verb, one in by_verb.items() if one is suspect]:
                    by_verb[verb] = stored

    async def _shrink(self, suspect: Suspect, cause: str, slow_ns: int, time_s: float) -> None:
        steps, _ = split_end(suspect.session_result.script.steps)
        whole_line = ends_with(steps, b"\r\n")

        async def kills(script: Script) -> bool:
            if self._health.gone or (whole_line and not ends_with(script.steps, b"\r\n")):
                return False
            attempt = await self._attempt(with_quit(script), slow_ns)
            if not _is_same(attempt.cause, cause):
                return False
            _take(suspect, attempt)
            return True

        begin, shrink_s = replace_steps(self._scenario, steps), min(self._shrink_s, _SHRINK_SHARE * time_s)
        small = await shrink(begin, kills, shrink_s, scenario_lines(self._scenario), concurrency=1)
        if len(small.steps) < len(suspect.session_result.script.steps):  # it ends with QUIT
            attempt = await self._attempt(small, slow_ns)
            if _is_same(attempt.cause, cause):
                _take(suspect, attempt)

    async def _attempt(self, script: Script, timeout_ns: int) -> _Attempt:
        """Run a script alone, and wait until the server is back if it died or hung."""
        for _ in range(_ATTEMPTS):
            lone = await run_alone(self._runner, script, self._server, TrackedSession, timeout_ns)
            dialogue = Dialogue.of(lone.session_result.transcript)
            # a server that died before it greeted died of an earlier session
            is_over = dialogue.greeted or (lone.death is not None and script.greeting is None)
            if is_over or not await self._health.wait_until_back():
                break
        death, hung = lone.death, lone.hung
        log_lines = tuple(quoted_lines(self._server.log_lines(lone.from_ns, lone.to_ns)))
        if death is not None or hung:
            await self._health.wait_until_back(hung=hung)
            # who started it again is known only now
            death = next((one for one in self._server.deaths if death is not None and one.at_ns == death.at_ns), death)
        return _Attempt(lone.session_result, death, hung, log_lines)

    async def _any_kills(self, cases: Sequence[CutOffCase], slow_ns: int) -> bool:
        """Return whether a fresh server dies or hangs while these cases run at the same time."""
        if len(cases) < 2 or (self._server.can_restart and not await self._server.restart()):
            return False
        lone = await run_alone(self._runner, self._scenario, self._server, TrackedSession, slow_ns)  # it is ready
        async with trio.open_nursery() as nursery:
            for case in cases:
                nursery.start_soon(self._runner.run, case.session_result.script, TrackedSession, slow_ns)
        died = await self._server.death_since(lone.to_ns) is not None
        hung = not died and not await self._health.greets(slow_ns)
        if died or hung:
            await self._health.wait_until_back(hung=hung)
        return died or hung

    # -- suspects --------------------------------------------------------------------------------------------------

    def _proved_for(self, outage: Outage) -> dict[str, Suspect]:
        """Return the suspects that may be behind an outage; any may, if it is not known how the process ended."""
        return self.proved if outage.cause == _UNKNOWN else self._proved.get(outage.cause, {})

    def _add_known(self, outage: Outage) -> None:
        """Count an outage for the suspect with the same cause; record its likeliest case where there is none."""
        proved = self._proved_for(outage)
        suspect = next((proved[verb] for case in outage.cases if (verb := last_verb(case.session_result)) in proved), None)
        suspect = suspect or next(iter(proved.values()), None)
        if suspect is not None:
            suspect.hits += 1
        else:
            self._add_unproved(outage)

    def _add_unproved(self, outage: Outage, *, together: bool = False) -> None:
        """Record an outage whose case is not proved: the likeliest one, and the others as candidates."""
        cause = _unproved_cause(outage)
        known = self._stats.suspects.get(("health", cause))
        if known is not None:
            known.hits += 1
            return
        if not outage.cases:
            return
        likeliest, *others = outage.cases
        what = "greeted nobody, and its process was alive" if outage.death is None else f"died: {outage.death.text}"
        afterwards = "it did not come back; " if self._health.gone else ""
        if together:
            which = f"it takes several of the {outage.open} sessions at that moment, and this one is the likeliest"
        elif outage.open < 2:
            which = "this session was the only one at that moment"
        else:
            which = f"of the {outage.open} sessions at that moment, this one is the likeliest cause"
        severity = r.HANG if outage.death is None else r.CRASH
        violation = Violation("health", f"the server {what}; {afterwards}{which}; this is not proved", cause, severity)
        suspect = Suspect(likeliest.number, likeliest.session_result, violation, unproved=True, death=outage.death)
        self._stats.suspects["health", cause] = suspect
        self._stats.crash_candidates = [case.session_result for case in others[:MAX_CANDIDATES]]

    def _drop_waits(self, outage: Outage) -> None:
        """Drop suspects that only say that a session had no reply, because the server hung."""
        if outage.death is not None:
            return
        for key, suspect in list(self._stats.suspects.items()):
            entries = suspect.session_result.transcript.entries
            if suspect.violation.severity == r.HANG and outage.from_ns <= entries[-1].at_ns <= outage.to_ns:
                del self._stats.suspects[key]


def ends_with(steps: Sequence[Step], end: bytes) -> bool:
    """Return whether the last octets that are sent are these."""
    wires = [step.wire if isinstance(step.wire, bytes) else b"".join(step.wire) for step in steps]
    return b"".join(wires).endswith(end)


def with_quit(script: Script) -> Script:
    """Return a script that ends with QUIT, if that is a line of its own."""
    if not ends_with(script.steps, b"\n"):
        return script
    return replace_steps(script, [*script.steps, command_step(_QUIT)])


def _each_cause_first(outages: Sequence[Outage]) -> list[Outage]:
    """Return the outages, the first of each cause before the others, and those whose cause is not known last."""
    seen, first, others = set[str](), list[Outage](), list[Outage]()
    for outage in sorted(outages, key=lambda outage: outage.cause == _UNKNOWN):
        (others if outage.cause in seen else first).append(outage)
        seen.add(outage.cause)
    return first + others


def _is_same(cause: str, other: str) -> bool:
    """Return whether two causes may be the same: it is not always known how a process ended that others run."""
    return cause == other or (_UNKNOWN in (cause, other) and "" not in (cause, other) and _HANG not in (cause, other))


def _take(suspect: Suspect, attempt: _Attempt) -> None:
    """Let an attempt be the evidence of a suspect."""
    suspect.session_result, suspect.violation = attempt.session_result, _violation(attempt)
    suspect.death, suspect.log_lines = attempt.death, attempt.log_lines


def _violation(attempt: _Attempt) -> Violation:
    verb = last_verb(attempt.session_result)
    if attempt.death is None:
        text = f"the server greets nobody after {verb}"
        return Violation("health", f"{text}; its process is alive", text, r.HANG)
    text, death = f"the server died after {verb}", attempt.death
    return Violation("health", f"{text}: {death.text}", f"{text}: {visible(death.cause)}", r.CRASH)


def _unproved_cause(outage: Outage) -> str:
    return "the server greets nobody" if outage.death is None else f"the server died: {visible(outage.cause)}"
