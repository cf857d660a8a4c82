"""What is observed of a server, whether smtpbench starts it or not: deaths, lines of its log, resources."""

from __future__ import annotations

import os
import time
from bisect import bisect_left, insort
from functools import cached_property
from typing import Final, NamedTuple

import psutil
import trio

from smtpbench.engine.connection import Route
from smtpbench.measure.server_usage import MeasuredServer, UsageSample
from smtpbench.rules.discover import RESTART_TIMEOUT_S, is_greeting
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.runner import session_runner
from smtpbench.supervisor.crash_report import find_crash_report
from smtpbench.supervisor.death import Death, LogLine
from smtpbench.supervisor.log_tail import LogTail
from smtpbench.supervisor.process_end import HowEnded
from smtpbench.supervisor.process_tree import stat_of
from smtpbench.supervisor.processes import listener_of, listening_sockets
from smtpbench.supervisor.server_options import ServerOptions
from smtpbench.supervisor.usage import UsageSampler
from smtpbench.target import Access

#: Time in which a process that has closed its connections ends, seconds.
EXIT_S: Final = 0.3
#: Seconds between two attempts to connect to a server that starts or stops: the first, and the longest.
POLL_S, LONGEST_POLL_S = 0.01, 0.1
#: Seconds between two looks for the process that others start after a death.
SEARCH_S: Final = 0.02
#: Lines that match the pattern for errors and are kept.
_MAX_LOG_LINES: Final = 10_000
_LAST_LINES: Final = 20


class EndedListener(NamedTuple):
    """A process that listened, and ended.

    Attributes:
        sockets: Inodes of its sockets.
        boot_time_s: When its end was noticed, seconds since the machine started.
    """

    sockets: frozenset[str]
    boot_time_s: float


class ObservedServer:
    """A server with what is observed of it; see `SupervisedServer`.

    Attributes:
        known: Whether the processes of the server are known.
        can_restart: Whether `restart` starts the server again.
        deaths: Deaths so far, in order.
        samples: Resources used, once a second, in order.
        restarts: How often the server was started again.
        nursery: Runs what follows the logs and takes samples.
    """

    can_restart = False
    #: Who started the server: `smtpbench` or `others`.
    started_by = "others"

    def __init__(self, options: ServerOptions, access: Access, nursery: trio.Nursery) -> None:
        self.known = False
        self.deaths: list[Death] = []
        self.samples: list[UsageSample] = []
        self.restarts = 0
        self.nursery = nursery
        self._options = options
        self._access = access
        self._searching = False
        self._sampler: UsageSampler | None = None
        self._logs: LogTail | None = None
        self._lines_taken_ns = 0
        self._lines: list[LogLine] = []
        self._changed = trio.Event()

    async def death_since(self, at_ns: int) -> Death | None:
        """Return the first death after a moment. Wait for a process that is just ending, at most 0.3 s."""
        with trio.move_on_after(EXIT_S):
            while not (found := self._death_after(at_ns)) and self._may_end():
                await self._changed.wait()
            return found
        with trio.move_on_after(EXIT_S):  # it has ended, and how is not known yet
            while not (found := self._death_after(at_ns)) and self._is_ending():
                await self._changed.wait()
            return found
        return None

    @property
    def measured(self) -> MeasuredServer:
        """Whose resources they are, and how they are counted."""
        sampler = self._sampler
        if sampler is None:
            return MeasuredServer(self.started_by)
        return MeasuredServer(self.started_by, sampler.name, sampler.source, sampler.memory, sampler.cores)

    def follow_logs(self) -> None:
        """Follow the log files. Raises UsageError for one that cannot be read."""
        if self._options.logs:
            logs = [self._options.folder / log for log in self._options.logs]
            self._logs = LogTail(logs, self._options.log_pattern, on_match=self.add_line)
            self.nursery.start_soon(self._logs.follow)

    def take_log_lines(self) -> list[str]:
        """Return the last lines of the log files since the last call, what was written just now included."""
        if self._logs is None:
            return []
        self._logs.poll_now(final=True)
        from_ns, self._lines_taken_ns = self._lines_taken_ns, time.monotonic_ns()
        return self._logs.last_lines(from_ns=from_ns)

    def count_usage(self, sampler: UsageSampler) -> None:
        """Sample once a second what the processes of the server use."""
        self._sampler = sampler
        self.nursery.start_soon(sampler.run, self._add_sample)

    def _add_sample(self, sample: UsageSample) -> None:
        if self.known:
            self.samples.append(sample)

    def log_lines(self, from_ns: int, to_ns: int) -> list[LogLine]:
        """Return the lines that match the pattern for errors and were read between two moments."""
        if self._logs is not None:
            self._logs.poll_now()
        first = bisect_left(self._lines, from_ns, key=lambda line: line.at_ns)
        last = bisect_left(self._lines, to_ns + 1, key=lambda line: line.at_ns)
        return self._lines[first:last]

    async def wait_until_ready(self) -> bool:
        """Wait until the server greets, as others may start it again. Return False if it does not in time."""
        with trio.move_on_after(RESTART_TIMEOUT_S):
            while self._searching or not await self.greets():  # noqa: ASYNC110  (no event tells of another process)
                await trio.sleep(SEARCH_S)
            return True
        return await self.greets()

    async def restart(self) -> bool:
        """Return False: only who started a server can start it again."""
        return False

    def measure(self) -> UsageSample | None:
        """Return a sample of this moment; None if it cannot be read."""
        return self._sampler.measure() if self._sampler is not None and self.known else None

    def add_line(self, line: LogLine) -> None:
        """Add a line that matches the pattern for errors."""
        if len(self._lines) >= _MAX_LOG_LINES:
            del self._lines[: _MAX_LOG_LINES // 10]
        insort(self._lines, line, key=lambda one: one.at_ns)
        self._notify()

    def next_listener(self, ended: EndedListener) -> psutil.Process | None:
        """Return the process that listens after the end of another one; None if there is none yet.

        A child of the one that ended may hold its socket for a while. It is not a new server.
        """
        process = listener_of(self.routes)
        if process is None or listening_sockets(self.routes) != ended.sockets:
            return process
        stat = stat_of(process.pid)  # a service manager passes one socket to each process that it starts
        is_new = stat is not None and int(stat.started) / os.sysconf("SC_CLK_TCK") >= ended.boot_time_s
        return process if is_new else None

    @cached_property
    def routes(self) -> list[Route]:
        """Routes to the target. Raises CannotRun and UsageError, as `Access.routes`."""
        return self._access.routes()

    async def greets(self) -> bool:
        """Return whether the server greets a new connection, with any reply code."""
        target = self._access.target
        target_info = TargetInfo(lmtp=target.lmtp, implicit_tls=target.implicit_tls)
        for route in self.routes:
            async with session_runner(route, self._access.timeout_ns) as runner:
                if await is_greeting(runner, target_info):
                    return True
        return False

    async def accepts(self) -> bool:
        """Return whether the server accepts a new connection."""
        for route in self.routes:
            with trio.socket.socket(route.family) as connection, trio.move_on_after(self._access.timeout_ns / 1e9):
                try:
                    await connection.connect(route.address)
                except OSError:
                    continue
                return True
        return False

    def _death_after(self, at_ns: int) -> Death | None:
        return next((one for one in self.deaths if one.at_ns > at_ns), None)

    def _may_end(self) -> bool:
        """Return whether there is a process whose end would be noticed."""
        return self.known

    def _is_ending(self) -> bool:
        """Return whether a process has ended of which it is not known yet how."""
        return False

    def _notify(self) -> None:
        """Wake up all that wait for a change."""
        self._changed.set()
        self._changed = trio.Event()

    def _add_death(self, death: Death) -> int:
        """Add a death; return its index."""
        self.deaths.append(death)
        self._notify()
        return len(self.deaths) - 1

    def _add_end(self, process: psutil.Process, at_ns: int, how: HowEnded, lines: list[str]) -> int:
        """Add the death of a process that was watched; return its index.

        Args:
            process: The process.
            at_ns: When it ended, of `time.monotonic_ns`.
            how: How it ended.
            lines: Lines of the output and of the logs since the last death.
        """
        report = find_crash_report(lines, how.signal_number)
        return self._add_death(
            Death(at_ns, process.pid, how.exit_status, how.signal_number, report, last_output=last_lines(lines))
        )

    def _restarted(self, index: int, by: str) -> None:
        """Note who started the server again after a death."""
        self.restarts += 1
        self.deaths[index] = self.deaths[index].restarted(by)
        self._notify()


def last_lines(lines: list[str]) -> tuple[str, ...]:
    """Return the lines of the output that the record of a death keeps."""
    return tuple(lines[-_LAST_LINES:])
