"""The server under test, for the commands that test it: its deaths, its log, its resources, and how to start it again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import trio

from smtpbench.errors import CannotRun
from smtpbench.measure.server_usage import MeasuredServer, UsageSample
from smtpbench.supervisor.death import Death, LogLine
from smtpbench.supervisor.helper_process import helper_running
from smtpbench.supervisor.server_options import ServerOptions
from smtpbench.supervisor.started import StartedServer
from smtpbench.supervisor.watched import WatchedServer
from smtpbench.target import Access


class SupervisedServer(Protocol):
    """The server under test. All methods work for a server of which nothing can be known; they return nothing then.

    Attributes:
        known: Whether the processes of the server are known, so that no death is missed.
        can_restart: Whether `restart` starts the server again.
        deaths: Deaths so far, in order; those that smtpbench asked for are none.
        samples: Resources used, once a second, in order.
        measured: Whose resources they are, and how they are counted.
    """

    known: bool
    can_restart: bool
    deaths: list[Death]
    samples: list[UsageSample]

    @property
    def measured(self) -> MeasuredServer: ...

    async def death_since(self, at_ns: int) -> Death | None:
        """Return the first death after a moment. Wait for a process that is just ending, at most 0.3 s.

        Args:
            at_ns: The moment, of `time.monotonic_ns`.
        """

    async def wait_until_ready(self) -> bool:
        """Wait until the server is ready, after a death too. Return False if it is not started again, or not in time."""

    async def restart(self) -> bool:
        """Stop the server and start it again, so that it has no state; this is no death. Return whether it is ready."""

    def log_lines(self, from_ns: int, to_ns: int) -> list[LogLine]:
        """Return the lines that match the pattern for errors and were read between two moments."""

    def measure(self) -> UsageSample | None:
        """Return a sample of this moment; None if it cannot be read."""


@asynccontextmanager
async def supervised(options: ServerOptions, access: Access, log: Path | None = None) -> AsyncIterator[SupervisedServer]:
    """Start the server if there is a command for that, watch it while the context lasts, and stop it at the end.

    The server does not outlive this process, whatever ends it. What the context raises leaves it as it is, not inside an
    exception group.

    Args:
        options: How it is started and watched.
        access: How it is reached.
        log: File that its output is appended to; None to keep only the last lines.

    Raises:
        CannotRun: Another server answers already, or the server is not ready in time, or `watch` names no process, or the
            server still runs at the end.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            running = _started(options, access, log, nursery) if options.start else _watched(options, access, nursery)
            async with running as server:
                yield server
        except (Exception, KeyboardInterrupt) as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


@asynccontextmanager
async def _started(
    options: ServerOptions, access: Access, log: Path | None, nursery: trio.Nursery
) -> AsyncIterator[SupervisedServer]:
    server = StartedServer(options, access, log, nursery)
    with _without_empty(log):
        async with helper_running(server.on_event) as helper:
            nursery.start_soon(helper.receive)
            failed = True
            try:
                await server.start(helper)
                yield server
                failed = False
            finally:
                with trio.CancelScope(shield=True):
                    try:
                        await server.stop()
                    except CannotRun:
                        if not failed:  # the first error is the one to report
                            raise


@contextmanager
def _without_empty(log: Path | None) -> Iterator[None]:
    """Remove the log at the end if the server wrote nothing."""
    try:
        yield
    finally:
        if log is not None:
            with suppress(OSError):
                if not log.stat().st_size:
                    log.unlink()


@asynccontextmanager
async def _watched(options: ServerOptions, access: Access, nursery: trio.Nursery) -> AsyncIterator[SupervisedServer]:
    server = WatchedServer(options, access, nursery)
    await server.start()
    yield server
