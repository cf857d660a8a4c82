"""Watching a target while it is fuzzed: health checks, and which case crashed it.

Theory of operation
===================

A health check runs the unchanged scenario at a fixed interval. A target that gives no greeting in two checks in a row is
gone, and the campaign generates no more cases. It is not gone, only busy, while it keeps connections of cases open that it
greeted: a process that dies closes them.

The cases that the target cut off shortly before are ranked. The case that most likely crashed it sent something that is not
part of the scenario, and sent it last. Where a supervisor restarts the target, the ranked cases run again one by one until
one of them ends the target again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import trio

from smtpbench.rules.discover import EXIT_DELAY_S, SLOW_GREETING_NS
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script
from smtpbench.session.transcript import CLIENT
from smtpbench.units import NS_PER_S

#: Time between two health checks, seconds.
HEALTH_CHECK_INTERVAL_S = 0.25
#: Time for a supervisor to restart the target, seconds.
_RESTART_TIMEOUT_S = 3.0
#: Cases to keep besides the likeliest one.
_MAX_CANDIDATES = 10

#: Number of a case, and its session.
NumberedResult = tuple[int, SessionResult]


class TargetHealth:
    """Knows whether the target still greets.

    Args:
        runner: Runs the health checks, which are measured apart from the cases.
        script: The scenario, unchanged.
        is_serving: Returns whether a connection of a case is open that the target greeted.

    Attributes:
        gone: Whether the target died.
    """

    def __init__(self, runner: SessionRunner, script: Script, is_serving: Callable[[], bool]) -> None:
        self._runner = runner
        self._script = script
        self._is_serving = is_serving
        self._lock = trio.Lock()
        self._healthy_s = -math.inf  # when the last check began that the target passed
        self.gone = False

    async def check(self) -> None:
        """Run a health check, and a second, more patient one if the first fails: a process takes a moment to exit.

        A check that began after this call serves for it too, so that many calls at once cost one check.
        """
        called_s = trio.current_time()
        async with self._lock:
            if self.gone or self._healthy_s >= called_s:
                return
            began_s = trio.current_time()
            if await self._greets():
                self._healthy_s = began_s
                return
            await trio.sleep(EXIT_DELAY_S)
            self.gone = not await self._greets(SLOW_GREETING_NS) and not self._is_serving()

    async def find_crashing_case(self, cut_off: Sequence[NumberedResult], latest_s: float) -> list[NumberedResult]:
        """Return the cases that may have crashed the target, the likeliest first.

        Args:
            cut_off: Cases that the target cut off. Those of its last second are considered.
            latest_s: When to stop repeating them, in trio's time.
        """
        if not cut_off:
            return []
        end_ns = max(session_result.transcript.entries[-1].at_ns for _, session_result in cut_off)
        recent = [case for case in cut_off if case[1].transcript.entries[-1].at_ns > end_ns - NS_PER_S]
        candidates = sorted(recent, key=self._likelihood, reverse=True)[: _MAX_CANDIDATES + 1]
        with trio.move_on_at(latest_s):
            if await self._restarted():
                for number, session_result in candidates:
                    await self._runner.run(session_result.script, TrackedSession)
                    await trio.sleep(EXIT_DELAY_S)
                    if not await self._greets():
                        return [(number, session_result)]
        return candidates

    def _likelihood(self, case: NumberedResult) -> tuple[bool, bool, int]:
        entries = case[1].transcript.entries[:-1]
        last = max((entry for entry in entries if entry.who == CLIENT), key=lambda entry: entry.at_ns, default=None)
        if last is None:
            return False, False, 0
        is_scenario = last.data == b"QUIT\r\n" or any(last.data == step.wire for step in self._script.steps)
        return entries[-1] is last, not is_scenario, last.at_ns

    async def _restarted(self) -> bool:
        with trio.move_on_after(_RESTART_TIMEOUT_S):
            while not await self._greets():  # noqa: ASYNC110  (no event tells of another process)
                await trio.sleep(EXIT_DELAY_S)
            return True
        return False

    async def _greets(self, timeout_ns: int | None = None) -> bool:
        session_result = await self._runner.run(self._script, TrackedSession, timeout_ns)
        return bool(session_result.transcript.received())
