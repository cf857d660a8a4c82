"""A server that smtpbench starts: readiness, deaths, restarts and its end.

Theory of operation
===================

The helper runs the start command and reports what happens to the server's processes (`supervisor.helper`). A server is in
one of four states. It is STARTING until it is ready. It is READY until it dies. Where it is started again after a death, it
is STARTING once more; otherwise, and where no start succeeds for `RESTART_S`, it is DOWN. It is STOPPING where smtpbench
asked for it, and what ends then is no death.

A start command may exit with status 0 and leave no process, like `docker start`. Its server runs elsewhere: whether it is
ready can be told, and its stop command stops it, but no death of it is noticed.

A shell whose command was ended by a signal exits with 128 and the number of the signal (POSIX, Shell Command Language,
2.8.2). Where the main process is a shell, its status is read in this way.
"""

from __future__ import annotations

import math
import shlex
import shutil
import signal
import time
from pathlib import Path
from typing import Any, Final

import psutil
import trio

from smtpbench.errors import CannotRun
from smtpbench.supervisor import helper_process
from smtpbench.supervisor.core_file import find_core_file
from smtpbench.supervisor.crash_report import find_crash_report
from smtpbench.supervisor.death import Death, LogLine
from smtpbench.supervisor.helper_process import Event, HelperProcess
from smtpbench.supervisor.observed import LONGEST_POLL_S, POLL_S, SEARCH_S, EndedListener, ObservedServer, last_lines
from smtpbench.supervisor.process_end import HowEnded, ProcessEnd
from smtpbench.supervisor.process_tree import descendants
from smtpbench.supervisor.processes import listener_of, listening_sockets
from smtpbench.supervisor.server_options import ServerOptions
from smtpbench.supervisor.usage import UsageSampler
from smtpbench.target import Access
from smtpbench.text import visible
from smtpbench.units import NS_PER_S

STARTING, READY, DOWN, STOPPING = "starting", "ready", "down", "stopping"

#: Time for which starts are tried again after a death, seconds; a port may stay in use for a minute (TIME_WAIT).
RESTART_S: Final = 75.0
#: Wait between two starts that fail, seconds: the first, and the longest.
_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.1, 5.0
#: Time in which a server that runs must answer, seconds.
_ANSWER_S: Final = 5.0
#: Time in which the main process ends of the end of the process that listens, seconds.
_CONSEQUENCE_S: Final = 0.1
_SHELLS: Final = frozenset({"sh", "dash", "bash", "ash", "busybox"})
_LAST_LINES: Final = 5


class StartedServer(ObservedServer):
    """A server that smtpbench starts; see the module.

    Attributes:
        helper: The process that runs it; set by `start`.
    """

    can_restart = True
    started_by = "smtpbench"

    def __init__(self, options: ServerOptions, access: Access, log: Path | None, nursery: trio.Nursery) -> None:
        super().__init__(options, access, nursery)
        self._log = log
        self.helper: HelperProcess
        self._state = DOWN
        self._elsewhere = False
        self._text_seen = False
        self._failure: Event | None = None
        self._started_s = 0.0
        self._lock = trio.Lock()
        self._starts = 0
        self._listener_differs = True
        self._listener_end: ProcessEnd | None = None
        self._listener_death: int | None = None

    async def start(self, helper: HelperProcess) -> None:
        """Start the server for the first time and wait until it is ready. Raises CannotRun."""
        self.helper = helper
        url = self._access.target.url
        if await self.greets():
            raise CannotRun(f"another server already answers at {url}; stop it first")
        self.follow_logs()
        if await self._start_once():
            self.count_usage(UsageSampler(reaper=helper.pid, cgroup=helper.cgroup, restarts=lambda: self.restarts))
            return
        await self._stop()
        if helper.lost:
            raise CannotRun(f"the process that runs the server at {url} was killed")
        if self._failure is not None:
            how = self._death_of(self._failure).how.replace("exit status", "status")
            raise CannotRun(f"the server at {url} ended with {how}{_tail_text(self._failure['lines'])}")
        waited = f"within {self._options.ready_ns / NS_PER_S:g} s"
        missing = {
            "greets": f"did not greet {waited}",
            "port": f"did not accept a connection {waited}",
            "text": f"did not write {visible(self._options.ready.value)!r} {waited}",
            "file": f"did not make the file {visible(self._options.ready.value)} {waited}",
        }[self._options.ready.kind]
        raise CannotRun(f"the server at {url} {missing}{_tail_text(helper.last_output)}")

    async def stop(self) -> None:
        """Stop the server for good. Raises CannotRun if it still runs then."""
        async with self._lock:
            left = await self._stop() if self._state != STOPPING else []
        url = self._access.target.url
        if left:
            raise CannotRun(f"the server at {url} has processes that could not be ended: {', '.join(map(str, left))}")
        if self._elsewhere and await self.greets():
            raise CannotRun(f"the server at {url} still answers after it was stopped; add a command with --stop")

    async def wait_until_ready(self) -> bool:
        """Wait until the server is ready, after a death too. Return False if it is not started again, or not in time."""
        while self._state in (STARTING, STOPPING) and not self.helper.lost:
            await self._changed.wait()
        with trio.move_on_after(_ANSWER_S):
            while self._state == READY:
                if not self._searching and await self._answers():
                    return True
                with trio.move_on_after(LONGEST_POLL_S):
                    await self._changed.wait()
            return self._state != DOWN and await self.wait_until_ready()  # it died meanwhile
        return False

    async def restart(self) -> bool:
        """Stop the server and start it again, so that it has no state; this is no death. Return whether it is ready."""
        async with self._lock:
            await self._stop()
            if not await self._start_repeatedly():
                return False
        if self.deaths and not self.deaths[-1].restarted_by:
            self._restarted(len(self.deaths) - 1, "smtpbench")
        else:
            self.restarts += 1
        return True

    def on_event(self, event: Event) -> None:
        """Take an event of the helper."""
        match event["event"]:
            case "line":
                self.add_line(LogLine(event["at_ns"], event["text"]))
            case "text":
                self._text_seen = True
            case "lost":
                self.known = False
            case "ended" if self._state == STARTING and not event["code"] and not event["left"]:
                self._elsewhere = True
            case "ended" if self._state == STARTING:
                self._failure = event
            case "ended" if self._state == READY and not event["code"] and not event["left"]:
                self.nursery.start_soon(self._end_unless_elsewhere, event)
            case "ended" if self._state == READY:
                self._end(event)
        self._notify()

    # Starting and stopping ----------------------------------------------------------------------------------------------

    async def _stop(self) -> list[int]:
        self._state = STOPPING
        self._starts += 1
        left = await self.helper.stop(self._options.stop)
        if self._elsewhere:
            with trio.move_on_after(helper_process.STOP_S):
                while await self.greets():  # noqa: ASYNC110  (another process gives no event to wait for)
                    await trio.sleep(LONGEST_POLL_S)
        return left

    async def _start_once(self) -> bool:
        """Start the server and wait until it is ready. Return False if it ended before, or is not ready in time."""
        options = self._options
        self._state = STARTING
        self._starts += 1
        self._elsewhere = self._text_seen = False
        self._listener_end = None
        self._failure = None
        self._started_s = math.floor(time.time())  # file systems may round times down
        old_file = _identity(Path(options.folder, options.ready.value))
        request: dict[str, Any] = {
            "command": as_main_process(options.start),
            "stop": options.stop,
            "stop_s": helper_process.STOP_S,
            "grace_s": helper_process.GRACE_S,
            "folder": str(options.folder.absolute()),
            "log": str(self._log.absolute()) if self._log is not None else "/dev/null",
            "pattern": options.log_pattern,
            "text": options.ready.value if options.ready.kind == "text" else "",
        }
        await self.helper.start(request)
        delay_s = POLL_S
        with trio.move_on_after(options.ready_ns / NS_PER_S):
            while not await self._is_ready(old_file):
                if self._failed():
                    return False
                with trio.move_on_after(delay_s):
                    await self._changed.wait()
                delay_s = min(delay_s * 1.5, LONGEST_POLL_S)
            if self._failed():  # another server answers
                return False
            await self.helper.server_is_ready()
            if self._listener_differs:
                await self._watch_listener()
            if self._failed():
                return False
            self._state = READY
            self.known = not self._elsewhere
            self._notify()
            return True
        return False

    async def _start_repeatedly(self) -> bool:
        """Start the server until it is ready; wait longer after each start that fails. Return False after `RESTART_S`."""
        back_off_s = _BACK_OFF_S
        with trio.move_on_after(RESTART_S):
            while not await self._start_once():
                self._state = STOPPING
                await self.helper.stop("")
                if self.helper.lost:
                    break
                await trio.sleep(back_off_s)
                back_off_s = min(2 * back_off_s, _LONGEST_BACK_OFF_S)
            else:
                return True
        self._state = DOWN
        self._notify()
        return False

    def _failed(self) -> bool:
        """Return whether the server that is being started has ended."""
        return self._failure is not None or self.helper.lost

    async def _is_ready(self, old_file: tuple[int, int] | None) -> bool:
        match self._options.ready.kind:
            case "greets":
                return await self.greets()
            case "port":
                return await self.accepts()
            case "text":
                return self._text_seen
            case _:
                found = _identity(Path(self._options.folder, self._options.ready.value))
                return found is not None and found != old_file

    async def _answers(self) -> bool:
        return await (self.greets() if self._options.ready.kind == "greets" else self.accepts())

    # Deaths -------------------------------------------------------------------------------------------------------------

    async def _end_unless_elsewhere(self, event: Event) -> None:
        """Take exit status 0 without a process left as a death, unless the server runs elsewhere."""
        if not await self._answers():
            self._end(event)
        else:
            self._elsewhere, self.known = True, False

    def _may_end(self) -> bool:
        return self.known and self._state == READY

    def _end(self, event: Event) -> None:
        death = self._death_of(event)
        self._state = STARTING if self._options.restart else DOWN
        self._starts += 1
        # the process that listens may have ended a while before the main process: that is one death
        index = self._add_death(death) if self._listener_death is None else self._listener_death
        if self._options.restart:
            self.nursery.start_soon(self._start_again, index)

    async def _start_again(self, index: int) -> None:
        async with self._lock:
            if self._state == STARTING:
                self._state = STOPPING
                await self.helper.stop("")  # what the process that died has left
                if await self._start_repeatedly():
                    self._restarted(index, "smtpbench")

    def _is_ending(self) -> bool:
        return self._listener_end is not None and self._listener_end.ended

    async def _watch_listener(self) -> None:
        """Watch the process that listens, where it is not the main process: a loop in the start command restarts it."""
        process = await self._listener()
        self._listener_differs = process is not None and process.pid != self.helper.main
        if process is not None and self._listener_differs:
            self.nursery.start_soon(self._watch_listeners, process, self._starts)

    async def _watch_listeners(self, first: psutil.Process, start: int) -> None:
        process: psutil.Process | None = first
        while process is not None:
            with ProcessEnd(process) as end:
                self._listener_end = end
                sockets = await trio.to_thread.run_sync(listening_sockets, self.routes)
                how = await end.wait()
                at_ns = end.ended_ns or time.monotonic_ns()
                ended = EndedListener(sockets, time.clock_gettime(time.CLOCK_BOOTTIME))
                with trio.move_on_after(_CONSEQUENCE_S):
                    while self._is_running(start):
                        await self._changed.wait()
                if self._starts == start:
                    self._listener_end = None
            if not self._is_running(start):  # the main process ended too, or smtpbench asked for it
                return
            lines = [*self.take_log_lines(), *await self.helper.take_lines()]
            index = self._listener_death = self._add_end(process, at_ns, how, lines)
            self._searching = True
            process = None
            while process is None and self._is_running(start):
                await trio.sleep(SEARCH_S)
                process = await trio.to_thread.run_sync(self.next_listener, ended)
            self._searching = False
            self._listener_death = None
            if process is not None:
                self._restarted(index, "others")

    def _is_running(self, start: int) -> bool:
        """Return whether a start of the server is not over, as far as the helper tells."""
        return self._starts == start and not self._failed()

    async def _listener(self) -> psutil.Process | None:
        """Return the process of the server that listens."""
        process = await trio.to_thread.run_sync(listener_of, self.routes)
        return process if process is not None and process.pid in descendants(self.helper.pid) else None

    def _death_of(self, event: Event) -> Death:
        code, lines = event["code"], [*self.take_log_lines(), *event["lines"]]
        pid, how = event["pid"], HowEnded()
        if self._listener_end is not None and self._listener_end.ended:  # the main process has waited for it
            pid, how = self._listener_end.process.pid, self._listener_end.how()
            self._listener_end = None
        if how.known:
            code = how.exit_status if how.exit_status is not None else -(how.signal_number or 0)
        elif event["name"] in _SHELLS and code - 128 in signal.valid_signals():
            code = 128 - code
        signal_number = -code if code < 0 else None
        core_file = (
            find_core_file(event["pid"], event["name"], self._options.folder, self._started_s) if event["core"] else ""
        )
        return Death(
            at_ns=event["at_ns"],
            pid=pid if how.known else event["pid"],
            exit_status=code if code >= 0 else None,
            signal_number=signal_number,
            report=find_crash_report(lines, signal_number),
            last_output=last_lines(lines),
            core_file=core_file,
        )


def as_main_process(command: str) -> str:
    """Return a shell command that does the same, with `exec` where it runs a single program.

    Some shells wait for their only program, and others become it. What is watched should be the program.
    """
    try:
        tokens = list(shlex.shlex(command, posix=False, punctuation_chars=True))
    except ValueError:  # the shell reports it
        return command
    operators = any(set(word) <= set("();<>|&") for word in tokens)
    is_program = bool(tokens) and shutil.which(command.split()[0]) is not None
    return f"exec {command}" if is_program and not operators and "\n" not in command.strip() else command


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what distinguishes a file from an older one with the same name; None if there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _tail_text(lines: list[str]) -> str:
    """Return the last lines of the output for an error text."""
    shown = [visible(line) for line in lines if line.strip()][-_LAST_LINES:]
    return f"; its last output: {' / '.join(shown)}" if shown else ""
