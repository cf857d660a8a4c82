"""Confirming suspects: each is repeated while the target is otherwise idle, and shrunk if it shows each time.

Theory of operation
===================

A suspect is repeated `CONFIRMATIONS` times, on a new connection each time. One that shows every time is deterministic, one
that shows sometimes is flaky, and one that never shows needs load.

A deterministic suspect is shrunk without the end of its session (QUIT and the quiet period after it), because that end is
the same for all cases. The end is chosen afterwards: the shortest one with which the violation still shows reliably becomes
the end of the finding.

All of this has a time limit for each suspect, and the limit of the campaign. What is known when the time is up stands: the
repetitions so far, and the session as it was before shrinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import trio

from smtpbench.fuzz.mutation import replace_steps, without_wrong_ends_of_text
from smtpbench.fuzz.oracle import Oracle, replies_balanced
from smtpbench.fuzz.shrink import scenario_lines, shrink
from smtpbench.fuzz.suspect import CONFIRMATIONS, Suspect, SuspectKey
from smtpbench.rules.discover import REFUSAL_RETRY_DELAYS_S
from smtpbench.rules.reply_tracker import TRACKED_RULES, Violation, names_wrong_end
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session import script as s
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script, Step
from smtpbench.units import NS_PER_MS

#: Wait for unsolicited replies at the end of a session, where the server does not close the connection.
QUIET_PERIOD = Step(s.PAUSE, pause_ns=200 * NS_PER_MS)
#: The same while a case is shrunk.
SHORT_QUIET_PERIOD = Step(s.PAUSE, pause_ns=60 * NS_PER_MS)


class Reproduction(NamedTuple):
    """A script that ran while the target was otherwise idle.

    Attributes:
        session_result: The session with the target.
        peer_results: The session with the second target, where there is one.
        violations: All that is wrong with it.
        refusal: How the server refused the session, as `Dialogue.refusal` has it; empty if it served it.
    """

    session_result: SessionResult
    peer_results: tuple[SessionResult, ...]
    violations: list[Violation]
    refusal: str

    def find(self, key: SuspectKey) -> Violation | None:
        """Return the violation with this key, None where it did not show."""
        return next((violation for violation in self.violations if (violation.rule, violation.cause) == key), None)

    def is_free_of_races(self, ending: Sequence[Step]) -> bool:
        """Return whether the replies at the end of the session do not depend on timing.

        They do not where the session waited for late replies, or where it waited for every reply that was due and got no
        others. A reply of 221 is no sign of that: a session that believes it sends text waits for none, and on a slower
        machine it is over before the replies come.
        """
        return QUIET_PERIOD in ending or all(map(replies_balanced, (self.session_result, *self.peer_results)))


class Confirmation:
    """Repeats scripts on an idle target, confirms suspects and shrinks them.

    Args:
        runner: Runs sessions with the target; nothing else may use the target meanwhile.
        peer: Runs sessions with the second target; None without one.
        oracle: Finds violations.
        scenario: The scenario that cases were made from; its own commands are kept or removed as a whole.
        shrink_s: Time for shrinking one suspect, seconds.
    """

    def __init__(
        self, runner: SessionRunner, peer: SessionRunner | None, oracle: Oracle, scenario: Script, shrink_s: float
    ) -> None:
        self._runner = runner
        self._peer = peer
        self._oracle = oracle
        self._scenario = scenario
        self._shrink_s = shrink_s

    async def reproduce(self, script: Script, slow_ns: int, timeout_ns: int | None = None) -> Reproduction:
        """Run a script, with the second target as well.

        Args:
            script: What to run.
            slow_ns: A reply that takes longer is a violation, nanoseconds.
            timeout_ns: Limit for one reply, nanoseconds; None for the runner's.
        """
        session_result = await self._runner.run(script, TrackedSession, timeout_ns)
        dialogue = Dialogue.of(session_result.transcript)
        for delay_s in REFUSAL_RETRY_DELAYS_S:
            if not dialogue.refusal:
                break
            await trio.sleep(delay_s)
            session_result = await self._runner.run(script, TrackedSession, timeout_ns)
            dialogue = Dialogue.of(session_result.transcript)
        peer_results = () if self._peer is None else (await self._peer.run(script, TrackedSession, timeout_ns),)
        violations = self._oracle.evaluate(session_result, dialogue, slow_ns, peer_results)
        return Reproduction(session_result, peer_results, violations, dialogue.refusal)

    async def repeat(self, key: SuspectKey, suspect: Suspect, slow_ns: int) -> None:
        """Repeat a suspect, as often as it takes to confirm it. `slow_ns`: see `reproduce`."""
        for _ in range(CONFIRMATIONS):
            reproduction = await self.reproduce(suspect.session_result.script, slow_ns)
            suspect.tried += not reproduction.refusal
            suspect.seen += not reproduction.refusal and reproduction.find(key) is not None

    async def control(self, suspect: Suspect, slow_ns: int) -> Suspect | None:
        """Run the control of a suspect that blames a wrong end of the message text: the same text without that end.

        Returns:
            The suspect to use instead, where the control shows that the end is not the cause; otherwise None.
        """
        script = suspect.session_result.script
        if not names_wrong_end(suspect.violation):
            return None
        steps = without_wrong_ends_of_text(script.steps)
        reproduction = await self.reproduce(replace_steps(script, steps), slow_ns)
        for violation in reproduction.violations:
            if violation.rule in ("data-desync", "one-reply"):
                return Suspect(suspect.number, reproduction.session_result, violation, suspect.hits)
        return None

    async def shrink(self, key: SuspectKey, suspect: Suspect, slow_ns: int) -> None:
        """Shorten the session of a suspect that showed in each repetition. `slow_ns`: see `reproduce`."""
        steps, quit_steps = split_end(suspect.session_result.script.steps)
        without_end = replace_steps(self._scenario, steps)

        async def shows_violation(script: Script) -> bool:
            # while shrinking, a hang is cut short: only its final repetition waits for the whole time limit
            tried = _append(script, *quit_steps, SHORT_QUIET_PERIOD)
            return (await self.reproduce(tried, slow_ns, timeout_ns=slow_ns)).find(key) is not None

        # the time that is left is for the ends too
        left_s = max(0.0, trio.current_effective_deadline() - trio.current_time())
        small = await shrink(without_end, shows_violation, min(self._shrink_s, left_s / 2), scenario_lines(self._scenario))
        for ending in ([], quit_steps, [QUIET_PERIOD], [*quit_steps, QUIET_PERIOD]):
            complete = _append(small, *ending)
            reproduction = await self.reproduce(complete, slow_ns)
            violation = reproduction.find(key)
            if violation is None:
                continue
            if reproduction.is_free_of_races(ending) or await self._shows_each_time(key, complete, slow_ns):
                suspect.session_result, suspect.violation = reproduction.session_result, violation
                return

    async def _shows_each_time(self, key: SuspectKey, script: Script, slow_ns: int) -> bool:
        """Return whether the violation is in a reply's content and shows in each repetition.

        The number of replies depends on timing where a session does not wait for late ones; the content does not.
        """
        if key[0] in TRACKED_RULES or self._peer is not None:
            return False
        for _ in range(CONFIRMATIONS):
            if (await self.reproduce(script, slow_ns)).find(key) is None:
                return False
        return True


def split_end(steps: Sequence[Step]) -> tuple[Sequence[Step], Sequence[Step]]:
    """Return the steps of a case without the end that all cases have, and QUIT where that end has one."""
    quit_steps = [step for step in steps[-2:-1] if step.wire == b"QUIT\r\n"]
    return steps[: -1 - len(quit_steps)], quit_steps


def _append(script: Script, *steps: Step) -> Script:
    return replace_steps(script, [*script.steps, *steps])
