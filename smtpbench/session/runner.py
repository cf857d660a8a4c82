"""Runs scripts, each on a connection of its own, and returns their transcripts.

A load run counts thousands of sessions and keeps none. Rules and the fuzzer need whole sessions, but few of them; these are
what `SessionRunner` runs. Both use `ClientSession` on a shard.
"""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.engine.shard import Shard
from smtpbench.errors import SmtpbenchError
from smtpbench.session.client import ClientSession
from smtpbench.session.context import STOP, UNSCHEDULED, SessionContext, SessionRecorder, UnansweredSample
from smtpbench.session.script import Script
from smtpbench.session.transcript import Transcript
from smtpbench.units import NS_PER_S

#: A session ends after this many times the timeout of a reply, and not before `_MIN_SESSION_NS`.
_SESSION_TIMEOUTS = 40
_MIN_SESSION_NS = 30 * NS_PER_S


class FirstErrorRecorder:
    """A recorder that keeps the first error only.

    Attributes:
        first: (kind, detail) of that error.
    """

    def __init__(self, reply_count: int) -> None:
        self.reply_caches: list[dict[bytes, Any]] = [{} for _ in range(reply_count)]
        self.accepted = self.rejected = self.failed = self.dropped = self.interrupted = 0
        self.recipients_accepted = self.recipients_rejected = 0
        self.first: tuple[str, str] | None = None

    def samples(self, verb: str, metric: str, raw: bytes, ok: bool) -> list[int]:
        """Return a list that nobody reads."""
        return []

    def timing(self, metric: str, ok: bool = True) -> list[int]:
        """Return a list that nobody reads."""
        return []

    def error(self, kind: str, detail: str = "", count: int = 1) -> None:
        """Keep the error if it is the first."""
        self.first = self.first or (kind, detail)

    def censor(self, samples: Iterable[UnansweredSample], waits_ns: Sequence[int] = ()) -> None:
        """Discard lower bounds."""


@dataclass(frozen=True, slots=True)
class SessionResult:
    """What one run of a script gave.

    Attributes:
        error: (kind, detail) of the first error; None if there was none, or a recorder has it.
        session: The session that ran the script.
    """

    script: Script
    transcript: Transcript
    error: tuple[str, str] | None
    session: ClientSession | None = field(default=None, repr=False, compare=False)


class _SingleSession:
    """Arrival source of one session: calls `on_end` when it is over."""

    def __init__(self, script: Script, errors: FirstErrorRecorder | None, on_end: Callable[[SessionResult], None]) -> None:
        self._script = script
        self._on_end = on_end
        self.transcript = Transcript()
        self.errors = errors

    def next_arrival(self, session: ClientSession, now_ns: int) -> int:
        return STOP

    def session_ended(self, session: ClientSession, now_ns: int) -> None:
        session.connection = None
        self._on_end(SessionResult(self._script, self.transcript, self.errors.first if self.errors else None, session))


class SessionRunner:
    """Runs scripts against one target. Made by `session_runner`.

    Attributes:
        connections_peak: Most connections that were open at once.
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
        """Run a script on a new connection and return its result once the session is over.

        Args:
            session_class: Class of the session, if it waits for other replies than the script expects.
            timeout_ns: How long a reply may take; None for the runner's own timeout.
        """
        done, results = trio.Event(), list[SessionResult]()

        def on_end(result: SessionResult) -> None:
            results.append(result)
            done.set()

        session = self.start(script, on_end, session_class, timeout_ns)
        try:
            await done.wait()
        except trio.Cancelled:
            self.stop(session)
            raise
        return results[0]

    def start(
        self,
        script: Script,
        on_end: Callable[[SessionResult], None],
        session_class: type[ClientSession] = ClientSession,
        timeout_ns: int | None = None,
    ) -> ClientSession:
        """Run a script without waiting: `on_end` is called from the shard's loop once the session is over."""
        errors = FirstErrorRecorder(script.reply_count) if self._recorder is None else None
        recorder = self._recorder if errors is None else errors
        assert recorder is not None
        source = _SingleSession(script, errors, on_end)
        session = session_class(
            SessionContext(script, source, timeout_ns or self._timeout_ns, self._credentials), source.transcript
        )
        session.assign(0, UNSCHEDULED, recorder)
        now_ns = time.monotonic_ns()
        session.open(now_ns)
        session.session_deadline_ns = now_ns + self._limit_ns(script, timeout_ns or self._timeout_ns)
        session.connection = self._shard.connect(session, self._route)
        self.connections_peak = max(self.connections_peak, self._shard.connections_open)
        return session

    def stop(self, session: ClientSession) -> None:
        """End a session that was started, unless it is over."""
        if session.connection is not None:
            self._shard.stop(session.connection)

    @staticmethod
    def _limit_ns(script: Script, timeout_ns: int) -> int:
        """Return how long a session may take, nanoseconds, whatever the server does."""
        pauses_ns = sum(step.pause_ns for step in script.steps)
        return max(_MIN_SESSION_NS, _SESSION_TIMEOUTS * timeout_ns) + pauses_ns


@asynccontextmanager
async def session_runner(
    route: Route, timeout_ns: int, credentials: tuple[str, str] | None = None, recorder: SessionRecorder | None = None
) -> AsyncIterator[SessionRunner]:
    """Return a runner for one target, with a shard of its own.

    An SmtpbenchError leaves the context as it is, not inside an exception group.

    Args:
        route: Where to connect.
        timeout_ns: How long a reply may take, nanoseconds.
        credentials: (user, password) of AUTH steps that name none.
        recorder: Counts all sessions; None to keep the first error of each.
    """
    shard = Shard()
    failure: SmtpbenchError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.run)
        try:
            yield SessionRunner(shard, route, timeout_ns, credentials, recorder)
        except SmtpbenchError as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def interruptible(work: Callable[[], Awaitable[object]], on_signal: Callable[[int, trio.CancelScope], None]) -> int:
    """Do some work; return how many signals (SIGINT, SIGTERM) came meanwhile.

    Args:
        work: The work.
        on_signal: Called at each signal with how many came so far, and the scope of the work.
    """
    signal_count = 0
    async with trio.open_nursery() as nursery:

        async def watch(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            nonlocal signal_count
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    signal_count += 1
                    on_signal(signal_count, nursery.cancel_scope)

        await nursery.start(watch)  # work may not reach its first checkpoint for long
        await work()
        nursery.cancel_scope.cancel()
    return signal_count


#: End reasons of a session whose connection was never made.
UNREACHABLE = frozenset({
    api.CONNECT_REFUSED, api.CONNECT_TIMEOUT, api.CONNECT_FAILED, api.NO_DESCRIPTORS, api.NO_PORTS,
})  # fmt: skip
