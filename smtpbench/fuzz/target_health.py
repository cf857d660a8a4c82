"""Watching a target while it is fuzzed: does it still greet?

Theory of operation
===================

A health check runs the unchanged scenario at a fixed interval. A target that gives no greeting in two checks in a row has
`RESTART_TIMEOUT_S` to come back, because a supervisor may start it again. After that it is gone, and the campaign generates
no more cases. It is not gone, only busy, while it keeps connections of cases open that it greeted: a process that dies
closes them.

Where the server's processes are known, a death is a fact, and nobody has to check twice. A server that smtpbench can start
again is started again if it hangs: its process lives, and it greets nobody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import trio

from smtpbench.engine import api
from smtpbench.fuzz.outages import Outages
from smtpbench.rules.discover import EXIT_DELAY_S, RESTART_POLL_S, RESTART_TIMEOUT_S, SLOW_GREETING_NS
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionRunner
from smtpbench.session.script import Script
from smtpbench.supervisor.supervised import SupervisedServer

#: Time for others to start a server again whose end is known, seconds: the first time, and once they have done it.
_RESTART_WATCHED_S = 6.0
_RESTART_BY_OTHERS_S = 15.0
#: Time between two health checks, seconds.
HEALTH_CHECK_INTERVAL_S = 0.25


class TargetHealth:
    """Knows whether the target still greets.

    Args:
        runner: Runs the health checks, which are measured apart from the cases.
        script: The scenario, unchanged.
        on_refused: Called with the time where a connection is refused, nanoseconds of the engine's clock.
        is_serving: Returns whether a connection of a case is open that the target greeted.
        server: The server under test; None if nothing is known of its processes.
        outages: Records hangs.

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
        server: SupervisedServer | None = None,
        outages: Outages | None = None,
    ) -> None:
        self._runner = runner
        self._script = script
        self._on_refused = on_refused
        self._is_serving = is_serving
        self._lock = trio.Lock()
        self._server = server
        self._outages = outages
        self._healthy_s = -math.inf  # when the last check began that the target passed
        self._healthy_ns = time.monotonic_ns()
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
            began_s, began_ns = trio.current_time(), time.monotonic_ns()
            if await self.greets():
                self._healthy_s, self._healthy_ns = began_s, began_ns
                return
            if not await self._died():
                await trio.sleep(EXIT_DELAY_S)
                # who waits longer for a server that can be started again finds less in the same time
                slow_ns = None if self._can_restart else SLOW_GREETING_NS
                if await self.greets(slow_ns) or self._is_serving():
                    return
            await self._wait(hung=self._can_restart and not await self._died())

    async def wait_until_back(self, *, hung: bool = False) -> bool:
        """Wait for a target that died to greet again. Return False, and set `gone`, if it does not in time.

        Args:
            hung: Whether it did not die and greets nobody, so that it must be started again.
        """
        async with self._lock:
            if not self.gone:
                await self._wait(hung=hung and self._can_restart)
            return not self.gone

    async def greets(self, timeout_ns: int | None = None) -> bool:
        """Return whether the target greets a new connection."""
        transcript = (await self._runner.run(self._script, TrackedSession, timeout_ns)).transcript
        end_reason = Dialogue.of(transcript).end_reason
        self.hung = end_reason == api.TIMEOUT
        if end_reason == api.CONNECT_REFUSED:
            self._on_refused(transcript.entries[-1].at_ns)
        return bool(transcript.received())

    @property
    def _can_restart(self) -> bool:
        return self._server is not None and self._server.can_restart

    async def _died(self) -> bool:
        """Return whether the target is known to have died since it last greeted."""
        server = self._server
        return server is not None and server.known and await server.death_since(self._healthy_ns) is not None

    async def _wait(self, *, hung: bool) -> None:
        if await (self._restart_hung() if hung else self._wait_until_ready()):
            self._healthy_ns = time.monotonic_ns()
        else:
            self.gone = True

    async def _restart_hung(self) -> bool:
        assert self._server is not None
        if self._outages is not None:
            self._outages.hang(self._healthy_ns, time.monotonic_ns())
        try:
            return await self._server.restart() and await self.greets()
        finally:
            if self._outages is not None:
                self._outages.end_hang(time.monotonic_ns())

    async def _wait_until_ready(self) -> bool:
        server = self._server
        if server is not None and server.can_restart:
            return (await server.wait_until_ready() and await self.greets()) or (
                await server.restart() and await self.greets()
            )
        greets = self.greets if server is None or not server.known else server.wait_until_ready
        with trio.move_on_after(self._restart_timeout_s()):
            while not await greets():  # noqa: ASYNC110  (no event tells of another process)
                await trio.sleep(RESTART_POLL_S)
            return True
        return False

    def _restart_timeout_s(self) -> float:
        """Return how long others have for starting the target again, seconds: longer if they are known to do that."""
        server = self._server
        if server is None or not server.known:
            return RESTART_TIMEOUT_S
        return _RESTART_BY_OTHERS_S if any(death.restarted_by for death in server.deaths) else _RESTART_WATCHED_S
