"""An SMTP server of one process that dies of some lines, with all its connections, and that a supervisor starts again."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing
from fakes import FakeServer

from smtpbench.supervisor.death import Death

_REPLIES = {
    b"EHLO": b"250-dying.example\r\n250 8BITMIME\r\n", b"HELO": b"250 dying.example\r\n", b"MAIL": b"250 ok\r\n",
    b"RCPT": b"250 ok\r\n", b"DATA": b"354 go\r\n", b"RSET": b"250 ok\r\n", b"NOOP": b"250 ok\r\n", b"QUIT": b"221 bye\r\n",
    b"VRFY": b"252 ok\r\n",
}  # fmt: skip
#: Verb → the verb that must come before it.
_NEEDS = {b"MAIL": b"", b"RCPT": b"MAIL", b"DATA": b"RCPT"}


class DyingServer:
    """The server; see the module.

    Args:
        is_deadly: Whether a command line kills it.
        starts: How often it is started.
        alone: A deadly line ends its own connection only.
        is_hanging: Whether after a command line the server answers nobody, until it is started again.
        on_line: Called with each command line, before anything is done.
        on_death: Called with the deadly line.
    """

    def __init__(
        self,
        is_deadly: Callable[[bytes], bool],
        starts: int = 1000,
        *,
        alone: bool = False,
        is_hanging: Callable[[bytes], bool] = lambda line: False,
        on_line: Callable[[bytes], None] = lambda line: None,
        on_death: Callable[[bytes], None] = lambda line: None,
    ) -> None:
        self._is_deadly = is_deadly
        self._starts = starts
        self._alone = alone
        self._is_hanging = is_hanging
        self._on_line = on_line
        self._on_death = on_death
        self._hung = False
        self._stopped = False
        self._life = trio.CancelScope()
        self.port = 0
        self.deaths = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until it is cancelled. It is started again at once, as long as `starts` allows it."""
        while self.deaths < self._starts:
            listener = socket.create_server(("127.0.0.1", self.port), backlog=200)
            self.port = listener.getsockname()[1]
            with trio.CancelScope() as self._life, trio.socket.from_stdlib_socket(listener) as accepting:
                async with trio.open_nursery() as nursery:
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    while True:
                        connection, _ = await accepting.accept()
                        nursery.start_soon(self._serve, connection)
            self.deaths += not self._stopped
            self._hung = self._stopped = False

    def restart(self) -> None:
        """Stop it, which is no death; it is started again at once."""
        self._stopped = True
        self._life.cancel()

    async def _serve(self, connection: trio.socket.SocketType) -> None:
        stream = trio.SocketStream(connection)
        with connection:
            try:
                if self._hung:
                    await trio.sleep_forever()
                await stream.send_all(b"220 dying.example\r\n")
                await self._answer(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def _answer(self, stream: trio.SocketStream) -> None:
        buffer, in_text, envelope = b"", False, b""
        async for data in stream:
            buffer += data
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                self._on_line(line)
                self._hung = self._hung or (not in_text and self._is_hanging(line))
                if self._hung:
                    await trio.sleep_forever()
                if in_text:
                    in_text, envelope = line != b".\r", b""
                    reply = b"" if in_text else b"250 ok\r\n"
                elif self._is_deadly(line):
                    if not self._alone:
                        self._on_death(line)
                        self._life.cancel()
                    return
                else:
                    verb = line[:4].upper()
                    reply = _REPLIES.get(verb, b"500 what\r\n")
                    if verb in _NEEDS and envelope != _NEEDS[verb] and envelope != verb:
                        reply = b"503 not now\r\n"
                    elif verb in (b"MAIL", b"RCPT"):
                        envelope = verb
                    elif verb in (b"EHLO", b"HELO", b"RSET"):
                        envelope = b""
                    in_text = reply.startswith(b"354")
                await stream.send_all(reply)
                if reply[:3] == b"221":
                    return


@asynccontextmanager
async def dying_server(
    is_deadly: Callable[[bytes], bool], starts: int = 1000, *, alone: bool = False
) -> AsyncIterator[DyingServer]:
    """Return a server that serves; see `DyingServer`."""
    async with running(DyingServer(is_deadly, starts, alone=alone)) as server:
        yield server


@asynccontextmanager
async def running(server: DyingServer) -> AsyncIterator[DyingServer]:
    """Let a server serve while the context lasts."""
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield server
        nursery.cancel_scope.cancel()


class WatchedDyingServer(FakeServer):
    """A dying server of which the processes are known.

    Args:
        is_deadly: See `DyingServer`.
        starts: See `DyingServer`.
        is_hanging: See `DyingServer`.
        on_line: See `DyingServer`.
        death_of: Returns what is known of a death, from the deadly line.
        can_restart: Whether it can be started again.
    """

    def __init__(
        self,
        is_deadly: Callable[[bytes], bool],
        starts: int = 1000,
        *,
        is_hanging: Callable[[bytes], bool] = lambda line: False,
        on_line: Callable[[bytes], None] = lambda line: None,
        death_of: Callable[[bytes], Death] = lambda line: Death(0, signal_number=6),
        can_restart: bool = True,
    ) -> None:
        super().__init__(can_restart=can_restart)
        self._death_of = death_of
        self._starts = starts
        self.process = DyingServer(is_deadly, starts, is_hanging=is_hanging, on_line=on_line, on_death=self._die)

    async def wait_until_ready(self) -> bool:
        return self.process.deaths < self._starts

    async def restart(self) -> bool:
        self.restarts += 1
        self.process.restart()
        await trio.testing.wait_all_tasks_blocked()
        return True

    def _die(self, line: bytes) -> None:
        self.die(self._death_of(line))
