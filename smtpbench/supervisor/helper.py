"""The process that runs the server under test. It is the parent of all its processes, and it outlives smtpbench.

Theory of operation
===================

smtpbench starts `main` as a program of its own: only the standard library, a session of its own, and no reaction to
Ctrl-C. The kernel hands it every process of the server whose parent ended (PR_SET_CHILD_SUBREAPER), also those with a
session or a process group of their own. So all processes of the server are its descendants, whatever they do, and it learns
how each orphan ended.

Requests and events are JSON objects, one a line, on the socket that is its standard input. When smtpbench ends, even by
SIGKILL, the socket closes and a descriptor of the process becomes readable. Then the helper stops the server: the stop
command first, SIGTERM to all descendants, and SIGKILL to those that are left. It looks for descendants until there is none.

Where a control group (cgroup v2) can be made, the server runs in it. The kernel counts its CPU time then, that of
short-lived processes included, and kills all of its processes at once. Without a control group everything else works alike.

The output of the server comes through a pipe, so each line has the time at which it was written. It goes to the log file as
it is. The last lines are kept for the report of a death, and lines that match the pattern are reported at once.

What is a death
===============

The main process is the one of the start command. Its end is a death. There is one exception: it exits with status 0 while
other processes of the server exist. The server runs in the background then, as `postfix start` does. The processes that have
lost their parent at the time when the server is ready are its leaders. The end of a leader by a signal is a death, and so is
the end of the last leader. What ends after a request to stop the server is none.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from smtpbench.supervisor.process_tree import descendants, send_signal, stat_of
from smtpbench.supervisor.server_output import ServerOutput, open_log

_PR_SET_CHILD_SUBREAPER = 36
#: Events that wait for smtpbench to read them, octets; lines are dropped beyond.
_QUEUE_OCTETS = 1 << 22
#: Time in which a server ends by itself after its stop command, and that in which SIGKILL must end all, seconds.
_SETTLE_S, _KILL_S = 2.0, 10.0
_POLL_S = 0.02
_CGROUP = "smtpbench-"
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)


def _make_cgroup() -> str:
    """Make a control group below that of this process and return its path; empty if that is not possible."""
    with contextlib.suppress(OSError, StopIteration, IndexError):
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            mount = next(line.split(" - ")[0].split()[4] for line in file if line.split(" - ")[1].startswith("cgroup2 "))
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            own = next(line.rstrip("\n")[3:] for line in file if line.startswith("0::"))
        parent = mount + own.rstrip("/")
        for name in os.listdir(parent):  # of helpers that were killed
            pid = name.removeprefix(_CGROUP)
            if name != pid and not os.path.exists(f"/proc/{pid}"):
                with contextlib.suppress(OSError):
                    os.rmdir(f"{parent}/{name}")
        path = f"{parent}/{_CGROUP}{os.getpid()}"
        os.mkdir(path)
        return path
    return ""


class Helper:
    """The process; see the module.

    Args:
        channel: Socket for requests and events.
        parent: The process that started this one.
    """

    def __init__(self, channel: socket.socket, parent: int) -> None:
        self._channel = channel
        self._poll = select.poll()
        self._received = b""
        self._queue = bytearray()
        self._request: dict[str, Any] = {}
        self._output: ServerOutput | None = None
        self._main = self._stop_command = 0
        self._stop_status: int | None = None
        self._background = self._ready = self._stopping = self._gone = False
        self._listening = True
        self._name = ""
        self._leaders: set[int] = set()
        self._cgroup = _make_cgroup()
        self._wakeup, writer = os.pipe()
        for descriptor in (self._wakeup, writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._parent = os.pidfd_open(parent)
        channel.setblocking(False)
        for descriptor in (channel.fileno(), self._wakeup, self._parent):
            self._poll.register(descriptor, select.POLLIN)

    def serve(self) -> None:
        """Do what is asked until smtpbench ends; then stop the server, also after an error."""
        try:
            while not self._gone:
                self._wait(None)
                for request in self._requests():
                    if request["op"] == "run":
                        self._run(request)
                    elif request["op"] == "ready":
                        self._ready = True
                        self._leaders |= self._children()
                    elif request["op"] == "lines":
                        self._emit("lines", lines=self._take_lines())
                    else:
                        self._stop(request)
                        self._request = {}  # its stop command has done its work
        finally:
            self._stop(self._request)
        if self._cgroup:
            with contextlib.suppress(OSError):
                os.rmdir(self._cgroup)

    def _emit(self, event: str, **values: Any) -> None:
        if event != "line" or len(self._queue) < _QUEUE_OCTETS:
            self._queue += json.dumps({"event": event, **values}).encode() + b"\n"
            self._flush()

    def _flush(self) -> None:
        if self._gone:
            self._queue.clear()
        try:
            while self._queue:
                del self._queue[: self._channel.send(self._queue)]
        except BlockingIOError:
            pass
        except OSError:
            self._gone = True
        if self._listening:
            self._poll.modify(self._channel, select.POLLIN | (select.POLLOUT if self._queue else 0))

    def _requests(self) -> list[dict[str, Any]]:
        """Return the requests that have come; find out whether smtpbench has ended."""
        try:
            while data := self._channel.recv(1 << 16):
                self._received += data
            self._gone = True
        except BlockingIOError:
            pass
        except OSError:
            self._gone = True
        *lines, self._received = self._received.split(b"\n")
        return [] if self._gone else [json.loads(line) for line in lines]

    def _wait(self, timeout_s: float | None) -> None:
        """Wait for an event, at most for a time; read output and reap processes."""
        milliseconds = None if timeout_s is None else timeout_s * 1000
        for descriptor, events in self._poll.poll(milliseconds):
            if descriptor == self._wakeup:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup, 1 << 16)
            elif descriptor == self._parent:
                self._gone = True
                self._poll.unregister(self._parent)
            elif self._output is not None and descriptor == self._output.reader:
                if not self._output.read():
                    self._poll.unregister(descriptor)
            elif events & select.POLLOUT:
                self._flush()
        self._reap()

    # Starting -----------------------------------------------------------------------------------------------------------

    def _run(self, request: dict[str, Any]) -> None:
        self._close_output()
        self._request = request
        self._output = ServerOutput(request["log"], request["pattern"], request["text"], self._emit)
        self._poll.register(self._output.reader, select.POLLIN)
        self._background = self._ready = self._stopping = False
        self._leaders = set()
        self._main = self._spawn(request["command"], self._output.writer, self._cgroup)
        os.close(self._output.writer)
        self._emit("started", pid=self._main, cgroup=self._cgroup)

    def _spawn(self, command: str, output: int, cgroup: str) -> int:
        """Run a shell command in a session of its own; return its process."""
        held, release = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.setsid()
                os.close(release)
                os.read(held, 1)  # until it is in its control group
                for number in (*_IGNORED, signal.SIGCHLD, signal.SIGXFSZ):
                    signal.signal(number, signal.SIG_DFL)
                os.chdir(self._request["folder"])
                for descriptor in (1, 2):
                    os.dup2(output, descriptor)
                os.execv("/bin/sh", ["/bin/sh", "-c", command])
            except OSError as error:
                os.write(output, f"{error}\n".encode())
            finally:
                os._exit(127)
        if cgroup:
            try:
                with open(f"{cgroup}/cgroup.procs", "w", encoding="ascii") as file:
                    file.write(str(pid))
            except OSError:  # the group may be made, but no process may be moved into it
                with contextlib.suppress(OSError):
                    os.rmdir(cgroup)
                self._cgroup = ""
        os.close(held)
        os.close(release)
        return pid

    def _close_output(self) -> list[str]:
        """Read what is left of the output, close it and return its last lines."""
        lines = self._take_lines()
        if self._output is not None:
            with contextlib.suppress(KeyError):
                self._poll.unregister(self._output.reader)
            self._output.close()
            self._output = None
        return lines

    def _take_lines(self) -> list[str]:
        """Return the last lines of the output that were not returned before."""
        if self._output is None:
            return []
        self._output.finish()
        return self._output.take_last_lines()

    # Ends of processes --------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = self._wait_for_child()
            except ChildProcessError:
                return
            if not pid:
                return
            self._ended(pid, status, usage)

    def _wait_for_child(self) -> tuple[int, int, Any]:
        """Reap a child; its name is read before, while it is a zombie."""
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return 0, 0, None
        stat = stat_of(found.si_pid)
        self._name = stat.name if stat is not None else ""
        return os.wait4(found.si_pid, 0)

    def _ended(self, pid: int, status: int, usage: Any) -> None:
        if pid == self._stop_command:
            self._stop_command, self._stop_status = 0, os.waitstatus_to_exitcode(status)
            return
        code = os.waitstatus_to_exitcode(status)
        was_leader = pid in self._leaders
        self._leaders.discard(pid)
        main = pid == self._main
        if self._stopping or not (main or self._background):
            return
        children = self._children()
        if main and not code and children:
            self._background, self._leaders = True, children
            self._emit("background", processes=len(children))
            return
        if self._background and not self._ready and not self._leaders:
            self._leaders = children
        dead = main or (self._background and (not self._leaders or (was_leader and code < 0)))
        if dead:
            self._background = False
            self._emit(
                "ended", pid=pid, main=main, code=code, core=os.WCOREDUMP(status), name=self._name, left=len(children),
                at_ns=time.monotonic_ns(), user_s=usage.ru_utime, system_s=usage.ru_stime, lines=self._take_lines(),
            )  # fmt: skip
            self._leaders = set()
            self._main = 0

    def _children(self) -> set[int]:
        me = os.getpid()
        return {pid for pid in descendants(me) if (stat := stat_of(pid)) is not None and stat.parent == me}

    # Stopping -----------------------------------------------------------------------------------------------------------

    def _stop(self, request: dict[str, Any]) -> None:
        """Run the stop command and end all descendants; report those that cannot be ended."""
        self._stopping, self._listening = True, False
        self._poll.unregister(self._channel)  # what is asked meanwhile waits
        if request.get("stop") and self._run_stop_command(request):
            self._until_none(_SETTLE_S, 0)
        if not self._until_none(request.get("grace_s", 0), signal.SIGTERM):
            if self._cgroup:
                with contextlib.suppress(OSError), open(f"{self._cgroup}/cgroup.kill", "w", encoding="ascii") as file:
                    file.write("1")
            self._until_none(_KILL_S, signal.SIGKILL)
        lines = self._close_output()
        left = sorted(descendants(os.getpid()))
        self._poll.register(self._channel, select.POLLIN)
        self._listening = True
        self._emit("stopped", left=left, lines=lines)

    def _run_stop_command(self, request: dict[str, Any]) -> bool:
        """Run the stop command for a limited time. Return whether it succeeded."""
        output = open_log(self._request["log"])
        self._stop_status = None
        command = self._stop_command = self._spawn(request["stop"], output, "")
        deadline_s = time.monotonic() + request["stop_s"]
        os.close(output)
        while self._stop_command and time.monotonic() < deadline_s:
            self._wait(_POLL_S)
        if self._stop_command:
            with contextlib.suppress(OSError):
                os.killpg(command, signal.SIGKILL)
        return self._stop_status == 0

    def _until_none(self, limit_s: float, number: int) -> bool:
        """Wait until there is no descendant, and send each a signal once. Return whether there is none."""
        deadline_s = time.monotonic() + limit_s
        signalled: set[tuple[int, str]] = set()
        while True:
            self._reap()
            found = descendants(os.getpid())
            if not found:
                return True
            if time.monotonic() >= deadline_s:
                return False
            for pid, started in found.items() if number else ():
                if number == signal.SIGKILL or (pid, started) not in signalled:
                    signalled.add((pid, started))
                    send_signal(pid, started, number)
                    send_signal(pid, started, signal.SIGCONT)  # a stopped process acts on no signal but SIGKILL
            self._wait(_POLL_S)


def main() -> None:
    """Serve the process that started this one."""
    parent = int(sys.argv[1])
    channel = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3))  # the user may have closed 1 and 2
    with open(os.devnull, "r+b") as null:
        for descriptor in (0, 1, 2):
            os.dup2(null.fileno(), descriptor)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() == parent:  # otherwise smtpbench has ended already
        Helper(channel, parent).serve()
