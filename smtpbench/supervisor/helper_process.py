"""The helper (`supervisor.helper`) as smtpbench sees it: requests, and events as they come."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import trio

import smtpbench

#: Time for the stop command, and from SIGTERM to SIGKILL, seconds.
STOP_S: Final = 20.0
GRACE_S: Final = 10.0
_PROGRAM: Final = "import sys; sys.path.insert(0, {root!r}); from smtpbench.supervisor.helper import main; main()"
_RECEIVE_OCTETS: Final = 1 << 16

Event = dict[str, Any]


class HelperProcess:
    """The helper. Made by `helper_running`.

    Attributes:
        pid: Its process; all processes of the server are its descendants.
        main: Process of the start command.
        last_output: The last lines of the output of a server that was stopped.
        cgroup: Control group of the server; None if there is none. Known once a server was started.
        lost: Whether it ended, so that nothing is known any more.
    """

    def __init__(self, pid: int, channel: trio.SocketStream, on_event: Callable[[Event], None]) -> None:
        self._channel = channel
        self._on_event = on_event
        self._started = self._stopped = self._lines_came = trio.Event()
        self._left: list[int] = []
        self.pid = pid
        self.main = 0
        self.last_output: list[str] = []
        self.cgroup: Path | None = None
        self.lost = False

    async def start(self, request: Event) -> None:
        """Run the start command; see `Helper`."""
        self._started = trio.Event()
        await self._send("run", request)
        await self._started.wait()

    async def server_is_ready(self) -> None:
        """Tell the helper that the server is ready; see there what that decides."""
        await self._send("ready", {})

    async def take_lines(self) -> list[str]:
        """Return the last lines of the output that came with no event before."""
        self._lines_came = trio.Event()
        await self._send("lines", {})
        await self._lines_came.wait()
        return self.last_output

    async def stop(self, command: str) -> list[int]:
        """Run the stop command, if there is one, and end all processes. Return those that could not be ended."""
        self._stopped = trio.Event()
        self._left = []
        await self._send("stop", {"stop": command, "stop_s": STOP_S, "grace_s": GRACE_S})
        await self._stopped.wait()
        return self._left

    async def _send(self, operation: str, values: Event) -> None:
        with suppress(trio.BrokenResourceError):  # `receive` notices it
            await self._channel.send_all(json.dumps({"op": operation, **values}).encode() + b"\n")
        if self.lost:
            self._release()

    async def receive(self) -> None:
        """Receive events until the helper ends or is no longer needed. This is not cancelled: stopping needs it."""
        buffer = b""
        with trio.CancelScope(shield=True), suppress(trio.BrokenResourceError):
            try:
                while data := await self._channel.receive_some(_RECEIVE_OCTETS):
                    *lines, buffer = (buffer + data).split(b"\n")
                    for line in lines:
                        self._handle(json.loads(line))
            except trio.ClosedResourceError:
                return
        self.lost = True
        self._on_event({"event": "lost"})
        self._release()

    def _release(self) -> None:
        """Wake up all that wait for an answer, as none will come."""
        for event in (self._started, self._stopped, self._lines_came):
            event.set()

    def _handle(self, event: Event) -> None:
        match event["event"]:
            case "started":
                self.main = event["pid"]
                self.cgroup = Path(event["cgroup"]) if event["cgroup"] else None
                self._started.set()
            case "lines":
                self.last_output = event["lines"]
                self._lines_came.set()
            case "stopped":
                self._left = event["left"]
                self.last_output = event["lines"]
                self._stopped.set()
            case _:
                self._on_event(event)


@asynccontextmanager
async def helper_running(on_event: Callable[[Event], None]) -> AsyncIterator[HelperProcess]:
    """Run the helper while the context lasts. At its end all processes of the server are stopped, if they were not before.

    Args:
        on_event: Called for each event of the server: `background`, `text`, `line`, `ended`, `lost`.
    """
    ours, its = socket.socketpair()
    program = _PROGRAM.format(root=str(Path(smtpbench.__file__).parent.parent))
    with its:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", "-c", program, str(os.getpid())], stdin=its, start_new_session=True
        )
    channel = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    helper = HelperProcess(process.pid, channel, on_event)
    try:
        yield helper
    finally:
        channel.socket.close()
        with trio.CancelScope(shield=True):
            await process.wait()
        if helper.lost:
            _end_orphans(helper)


def _end_orphans(helper: HelperProcess) -> None:
    """End the processes of a server whose helper was killed, as far as they can be found."""
    if helper.main:
        with suppress(OSError):
            os.killpg(helper.main, signal.SIGKILL)
    if helper.cgroup is not None:
        with suppress(OSError):
            (helper.cgroup / "cgroup.kill").write_text("1", encoding="ascii")
