"""A stage: scripts spoken one after another or at once, each on a connection of its own, each kept on tape.

`load` counts sessions by the thousand and keeps none of them; whoever judges wants a few, whole. Both speak with the
same `ClientSession` on the same shard; this is the conductor of the second kind.
"""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.engine.shard import Shard
from smtpbench.errors import SmtpbenchError
from smtpbench.session.client import ClientSession
from smtpbench.session.context import STOP, UNSCHEDULED, SessionContext, SessionRecorder
from smtpbench.session.script import Script
from smtpbench.session.transcript import Transcript


class FirstErrorRecorder:
    """A book that only keeps the first error: (kind, detail)."""

    def __init__(self, reply_count: int) -> None:
        self.reply_caches: list[dict[bytes, Any]] = [{} for _ in range(reply_count)]
        self.accepted = self.rejected = self.failed = self.dropped = self.interrupted = 0
        self.first: tuple[str, str] | None = None

    def samples(self, verb: str, metric: str, raw: bytes, ok: bool) -> list[int]:
        """A list that nobody reads."""
        return []

    def timing(self, metric: str, ok: bool = True) -> list[int]:
        """The same."""
        return []

    def error(self, kind: str, detail: str = "", count: int = 1) -> None:
        """Keep the first."""
        self.first = self.first or (kind, detail)


@dataclass(frozen=True, slots=True)
class SessionResult:
    """One speaking of a script.

    error: the first thing that went wrong, as (kind, detail); None also where a book has it. session: who spoke.
    """

    script: Script
    transcript: Transcript
    error: tuple[str, str] | None
    session: ClientSession | None = field(default=None, repr=False, compare=False)


class _SingleSession:
    """The conductor of one session: tells when it is over."""

    def __init__(self, script: Script, errors: FirstErrorRecorder | None, then: Callable[[SessionResult], None]) -> None:
        self._script = script
        self._then = then
        self.transcript = Transcript()
        self.errors = errors

    def next_arrival(self, session: ClientSession, now_ns: int) -> int:
        return STOP

    def session_ended(self, session: ClientSession, now_ns: int) -> None:
        session.connection = None
        self._then(SessionResult(self._script, self.transcript, self.errors.first if self.errors else None, session))


class SessionRunner:
    """Where scripts are spoken. Made by `stage`.

    connections_peak: the most that were open at once. timeout_ns: how long a reply may take. book: where all that is
    spoken is counted; None for nowhere.
    """

    def __init__(
        self,
        shard: Shard,
        route: Route,
        timeout_ns: int,
        credentials: tuple[str, str] | None,
        recorder: SessionRecorder | None,
    ) -> None:
        self._shard = shard
        self._route = route
        self._recorder = recorder
        self.connections_peak = 0
        self._timeout_ns = timeout_ns
        self._credentials = credentials

    async def run(
        self, script: Script, session_class: type[ClientSession] = ClientSession, timeout_ns: int | None = None
    ) -> SessionResult:
        """Speak a script on a new connection and return what was heard, when all is over.

        speaker: the class of the session, for who speaks otherwise than by the script's asks. timeout_ns: another patience
        than the stage's.
        """
        done, session_results = trio.Event(), list[SessionResult]()

        def over(take: SessionResult) -> None:
            session_results.append(take)
            done.set()

        session = self.start(script, over, session_class, timeout_ns)
        try:
            await done.wait()
        except trio.Cancelled:
            if session.connection is not None:
                self._shard.stop(session.connection)
            raise
        return session_results[0]

    def start(
        self,
        script: Script,
        over: Callable[[SessionResult], None],
        session_class: type[ClientSession] = ClientSession,
        timeout_ns: int | None = None,
    ) -> ClientSession:
        """The same for who does not wait: `over` is called when all is over, from within the shard's loop."""
        errors = FirstErrorRecorder(script.reply_count) if self._recorder is None else None
        recorder = self._recorder if errors is None else errors
        assert recorder is not None
        solo = _SingleSession(script, errors, over)
        session = session_class(
            SessionContext(script, solo, timeout_ns or self._timeout_ns, self._credentials), solo.transcript
        )
        session.assign(0, UNSCHEDULED, recorder)
        session.open(time.monotonic_ns())
        session.connection = self._shard.connect(session, self._route)
        self.connections_peak = max(self.connections_peak, self._shard.connections_open)
        return session


@asynccontextmanager
async def session_runner(
    route: Route, timeout_ns: int, credentials: tuple[str, str] | None = None, recorder: SessionRecorder | None = None
) -> AsyncIterator[SessionRunner]:
    """A stage for one target, with a shard of its own. An error of ours leaves it as it is, and not in a group."""
    shard = Shard()
    trouble: SmtpbenchError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.run)
        try:
            yield SessionRunner(shard, route, timeout_ns, credentials, recorder)
        except SmtpbenchError as error:
            trouble = error
        nursery.cancel_scope.cancel()
    if trouble is not None:
        raise trouble


async def interruptible(work: Callable[[], Awaitable[object]], on_signal: Callable[[int, trio.CancelScope], None]) -> int:
    """Do some work, and tell of each SIGINT and SIGTERM meanwhile; how many came.

    on_signal: given how many came so far, and the scope of the work.
    """
    came = 0
    async with trio.open_nursery() as nursery:

        async def watch(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            nonlocal came
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    came += 1
                    on_signal(came, nursery.cancel_scope)

        await nursery.start(watch)  # work may not reach its first checkpoint for long
        await work()
        nursery.cancel_scope.cancel()
    return came


#: How a session that never began ended.
UNREACHABLE = frozenset({
    api.CONNECT_REFUSED, api.CONNECT_TIMEOUT, api.CONNECT_FAILED, api.NO_DESCRIPTORS, api.NO_PORTS,
})  # fmt: skip
