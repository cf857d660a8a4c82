"""A server that somebody else runs: its end is noticed, and who started it again is found.

Theory of operation
===================

The first process of the server is the one that `--watch` names, or the one that listens on a loopback target. A pidfd tells
of its end (`supervisor.process_end`). Then the process that listens on the target is looked for until there is one: a
service manager or a loop of a shell has started the server again. Watching goes on with that process.
"""

from __future__ import annotations

import time
from contextlib import suppress

import psutil
import trio

from smtpbench.errors import SmtpbenchError
from smtpbench.supervisor.observed import SEARCH_S, EndedListener, ObservedServer
from smtpbench.supervisor.process_end import ProcessEnd
from smtpbench.supervisor.processes import WatchedProcesses, listener_of, listening_sockets, resolve_watch
from smtpbench.supervisor.server_options import ServerOptions
from smtpbench.supervisor.usage import UsageSampler
from smtpbench.target import Access

#: Time for which the next process is looked for often, and the time between two looks later; seconds.
_OFTEN_S, _SELDOM_POLL_S = 5.0, 0.5


class WatchedServer(ObservedServer):
    """A server that somebody else runs; see the module."""

    def __init__(self, options: ServerOptions, access: Access, nursery: trio.Nursery) -> None:
        super().__init__(options, access, nursery)
        self._end: ProcessEnd | None = None

    async def start(self) -> None:
        """Find the processes and watch them. Raises CannotRun and UsageError for processes that `--watch` names wrongly."""
        self.follow_logs()
        if self._options.watch.kind == "none":
            return
        if self._options.watch.kind:
            found: WatchedProcesses | None = await trio.to_thread.run_sync(resolve_watch, self._options.watch)
        else:
            found = await self._find_listener()
        if found is None:
            self.nursery.start_soon(self._watch_later)
        else:
            await self._begin(found)

    async def _begin(self, found: WatchedProcesses) -> None:
        await self.nursery.start(self._watch_all, found.main)
        self.count_usage(UsageSampler(self._roots, cgroup=found.cgroup, restarts=lambda: self.restarts))

    async def _watch_later(self) -> None:
        """Look again for a while: the server may be about to start."""
        for _ in range(round(_OFTEN_S / _SELDOM_POLL_S)):
            await trio.sleep(_SELDOM_POLL_S)
            found = await self._find_listener()
            if found is not None:
                await self._begin(found)
                return

    def _roots(self) -> list[int]:
        return [self._end.process.pid] if self._end is not None and not self._end.ended else []

    def _is_ending(self) -> bool:
        noted = self.deaths[-1].pid if self.deaths else None
        return self._end is not None and self._end.ended and self._end.process.pid != noted

    def _may_end(self) -> bool:
        return self._end is not None and (not self._end.ended or self._is_ending())

    async def _watch_all(
        self, process: psutil.Process, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Watch a process and those that come after it."""
        while True:
            with ProcessEnd(process) as self._end:
                sockets = await self._sockets()
                self.known = True
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                how = await self._end.wait()
                ended = EndedListener(sockets, time.clock_gettime(time.CLOCK_BOOTTIME))
                ended_ns = self._end.ended_ns or time.monotonic_ns()
                index = self._add_end(process, ended_ns, how, self.take_log_lines())
                self._searching = True
                process = await self._find_next(ended)
            self._searching = False
            self._restarted(index, "others")

    async def _find_next(self, ended: EndedListener) -> psutil.Process:
        often_until = trio.current_time() + _OFTEN_S
        while True:
            with suppress(SmtpbenchError):
                process = await trio.to_thread.run_sync(self.next_listener, ended)
                if process is not None:
                    return process
            often = trio.current_time() < often_until
            if not often and self._options.watch.kind in ("unit", "cgroup"):
                with suppress(SmtpbenchError):
                    named = await trio.to_thread.run_sync(resolve_watch, self._options.watch)
                    return named.main
            await trio.sleep(SEARCH_S if often else _SELDOM_POLL_S)

    async def _sockets(self) -> frozenset[str]:
        with suppress(SmtpbenchError):
            return await trio.to_thread.run_sync(lambda: listening_sockets(self.routes))
        return frozenset()

    async def _find_listener(self) -> WatchedProcesses | None:
        with suppress(SmtpbenchError):  # the command itself reports a target that cannot be reached
            process = await trio.to_thread.run_sync(lambda: listener_of(self.routes))
            return None if process is None else WatchedProcesses(process)
        return None
