"""Watching a target while it is fuzzed: does it still greet?

Theory of operation
===================

A health check runs the unchanged scenario at a fixed interval. A target that gives no greeting in two checks in a row has
`RESTART_TIMEOUT_S` to come back, because a supervisor may start it again. After that it is gone, and the campaign generates
no more cases. It is not gone, only busy, while it keeps connections of cases open that it greeted: a process that dies
closes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from smtpbench.engine import api
from smtpbench.rules.discover import EXIT_DELAY_S, RESTART_POLL_S, RESTART_TIMEOUT_S, SLOW_GREETING_NS
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionRunner
from smtpbench.session.script import Script

#: Time between two health checks, seconds.
HEALTH_CHECK_INTERVAL_S = 0.25


class TargetHealth:
    """Knows whether the target still greets.

    Args:
        runner: Runs the health checks, which are measured apart from the cases.
        script: The scenario, unchanged.
        on_refused: Called with the time where a connection is refused, nanoseconds of the engine's clock.
        is_serving: Returns whether a connection of a case is open that the target greeted.

    Attributes:
        gone: Whether the target died, or stopped to greet.
        hung: Whether it accepts connections and does not greet.
    """

    def __init__(
        self,
        runner: SessionRunner,
        script: Script,
        on_refused: Callable[[int], None] = lambda now_ns: None,
        is_serving: Callable[[], bool] = lambda: False,
    ) -> None:
        self._runner = runner
        self._script = script
        self._on_refused = on_refused
        self._is_serving = is_serving
        self._lock = trio.Lock()
        self._healthy_s = -math.inf  # when the last check began that the target passed
        self.gone = False
        self.hung = False

    async def check(self) -> None:
        """Run a health check, and a second, more patient one if the first fails: a process takes a moment to exit.

        A check that began after this call serves for it too, so that many calls at once cost one check.
        """
        called_s = trio.current_time()
        async with self._lock:
            if self.gone or self._healthy_s >= called_s:
                return
            began_s = trio.current_time()
            if await self.greets():
                self._healthy_s = began_s
                return
            await trio.sleep(EXIT_DELAY_S)
            if not (await self.greets(SLOW_GREETING_NS) or self._is_serving()):
                await self._wait()

    async def wait_until_back(self) -> bool:
        """Wait for a target that died to greet again. Return False, and set `gone`, if it does not in time."""
        async with self._lock:
            if not self.gone:
                await self._wait()
            return not self.gone

    async def greets(self, timeout_ns: int | None = None) -> bool:
        """Return whether the target greets a new connection."""
        transcript = (await self._runner.run(self._script, TrackedSession, timeout_ns)).transcript
        end_reason = Dialogue.of(transcript).end_reason
        self.hung = end_reason == api.TIMEOUT
        if end_reason == api.CONNECT_REFUSED:
            self._on_refused(transcript.entries[-1].at_ns)
        return bool(transcript.received())

    async def _wait(self) -> None:
        with trio.move_on_after(RESTART_TIMEOUT_S):
            while not await self.greets():  # noqa: ASYNC110  (no event tells of another process)
                await trio.sleep(RESTART_POLL_S)
            return
        self.gone = True
