"""Finding the case that crashes the target: the candidates run again, and what kills the target a second time is the cause.

Theory of operation
===================

Half of the candidates run at the same time, each beside an idle session (`rules.crash`). If the target dies, the cause is
among them, otherwise in the other half; so a few deaths lead to one case. This case is then repeated alone, as other
suspects are, and shrunk. Each death is followed by a wait until the target is started again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import trio

from smtpbench.fuzz.confirmation import split_end
from smtpbench.fuzz.losses import CutOffCase, last_verb
from smtpbench.fuzz.mutation import replace_steps
from smtpbench.fuzz.shrink import scenario_lines, shrink
from smtpbench.fuzz.suspect import CONFIRMATIONS, Suspect
from smtpbench.fuzz.target_health import TargetHealth
from smtpbench.rules import rule as r
from smtpbench.rules.crash import WatchedResult, is_cut_off, run_watched
from smtpbench.rules.reply_tracker import Violation
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script

#: Attempts to run a script where the target gives no greeting.
_ATTEMPTS: Final = 3


class CrashSearch:
    """Repeats cases that may crash the target.

    Args:
        runner: Runs sessions with the target; nothing else may use the target meanwhile.
        health: Waits for the target to come back.
        scenario: The scenario that cases were made from; its own commands are kept or removed as a whole.
    """

    def __init__(self, runner: SessionRunner, health: TargetHealth, scenario: Script) -> None:
        self._runner = runner
        self._health = health
        self._scenario = scenario

    async def find(self, cases: Sequence[CutOffCase], slow_ns: int) -> CutOffCase | None:
        """Return the case that kills the target, None if none of them does. The target may be gone afterwards.

        Args:
            cases: The candidates.
            slow_ns: Limit for one reply, nanoseconds: a case that only waits is not worth the time of others.
        """
        if not await self._any_kills(cases, slow_ns):
            return None
        while len(cases) > 1 and not self._health.gone:
            half = cases[: (len(cases) + 1) // 2]
            if await self._any_kills(half, slow_ns):
                cases = half
            elif not await self._any_kills(cases := cases[len(half) :], slow_ns):
                return None  # it takes several of them
        return cases[0] if len(cases) == 1 else None

    async def prove(self, case: CutOffCase, slow_ns: int, shrink_s: float, known: Collection[str]) -> Suspect:
        """Repeat a case that kills the target, shrink it, and return it as a suspect.

        Args:
            case: The case.
            slow_ns: See `find`.
            shrink_s: Time for shrinking, seconds.
            known: Causes of crashes that were shrunk already.
        """
        suspect = Suspect(case.number, case.session_result, _violation(WatchedResult(case.session_result, "")))
        script = case.session_result.script
        while suspect.tried < CONFIRMATIONS and not self._health.gone:
            suspect.tried += 1
            watched = await self._run(script)
            if watched.death:
                suspect.seen += 1
                suspect.session_result, suspect.violation = watched.session_result, _violation(watched)
        if suspect.seen == CONFIRMATIONS and suspect.violation.cause not in known and not self._health.gone:
            await self._shrink(suspect, slow_ns, shrink_s)
        return suspect

    async def _shrink(self, suspect: Suspect, slow_ns: int, shrink_s: float) -> None:
        cut_off = _is_cut_off(suspect.session_result)

        async def kills(tried: Script) -> bool:
            if self._health.gone:
                return False
            watched = await self._run(tried, slow_ns)
            # a session that the client ends says less of what the server was processing
            return bool(watched.death) and (_is_cut_off(watched.session_result) or not cut_off)

        steps, _ = split_end(suspect.session_result.script.steps)
        begin = replace_steps(self._scenario, steps)
        small = await shrink(begin, kills, shrink_s, scenario_lines(self._scenario), concurrency=1)
        watched = await self._run(small)
        if watched.death:
            suspect.session_result, suspect.violation = watched.session_result, _violation(watched)

    async def _any_kills(self, cases: Sequence[CutOffCase], slow_ns: int) -> bool:
        """Return whether the target dies while these cases run at the same time."""
        if self._health.gone:
            return False
        deaths: list[str] = []

        async def run_case(case: CutOffCase) -> None:
            watched = await run_watched(self._runner, case.session_result.script, TrackedSession, slow_ns)
            deaths.append(watched.death)

        async with trio.open_nursery() as nursery:
            for case in cases:
                nursery.start_soon(run_case, case)
        died = any(deaths) or not await self._health.greets()
        if died:
            await self._health.wait_until_back()
        return died

    async def _run(self, script: Script, timeout_ns: int | None = None) -> WatchedResult:
        """Run a script, and wait until the target is back if it died."""
        watched = await run_watched(self._runner, script, TrackedSession, timeout_ns)
        for _ in range(_ATTEMPTS - 1):
            dialogue = Dialogue.of(watched.session_result.transcript)
            if dialogue.greeted or not await self._health.wait_until_back():
                break
            watched = await run_watched(self._runner, script, TrackedSession, timeout_ns)
        death = watched.death
        if not death and _is_cut_off(watched.session_result) and not await self._health.greets():
            death = "it accepts no connection after this session"
        if death:
            await self._health.wait_until_back()
        return watched._replace(death=death)


def _is_cut_off(session_result: SessionResult) -> bool:
    return is_cut_off(Dialogue.of(session_result.transcript))


def _violation(watched: WatchedResult) -> Violation:
    verb = last_verb(watched.session_result)
    return Violation("health", f"the server died after {verb}: {watched.death}", f"the server died after {verb}", r.CRASH)
