"""The shard with real sockets: two plain sessions of the tests' own, which know no SMTP either."""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import servers
import trio

from smtpbench.engine import api
from smtpbench.engine.connection import Route, connect_error_kind
from smtpbench.engine.shard import Shard


class Recorder:
    """A session that writes what it is told to and remembers what happened."""

    def __init__(self, output: api.Out = b"", pending_action: int = api.NOTHING, expect: int = 0) -> None:
        self.output, self.first_wants, self.expect = output, pending_action, expect
        self.pending_action, self.wake_ns, self.deadline_ns = api.NOTHING, 0, api.NEVER
        self.received = b""
        self.events: list[str] = []
        self.why = ""
        self.done = trio.Event()

    def connected(self, now_ns: int) -> api.Out:
        self.events.append("opened")
        self.pending_action = self.first_wants
        if self.pending_action == api.SLEEP:
            self.wake_ns = now_ns + 5_000_000
        return self.output

    def tls_started(self, now_ns: int) -> api.Out:
        self.events.append("secured")
        return self.output

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        self.received += data
        if self.expect and len(self.received) >= self.expect:
            self.pending_action = api.CLOSE
        return b""

    def wake(self, now_ns: int) -> api.Out:
        self.events.append("woke")
        return b"awake"

    def eof_received(self, now_ns: int) -> api.Out:
        self.events.append("ended")
        self.pending_action = api.CLOSE
        return b""

    def connection_lost(self, why: str, detail: str, now_ns: int) -> None:
        self.events.append("lost")
        self.why = why
        self.done.set()


@asynccontextmanager
async def pair(
    client: Recorder, server: Recorder, *, tls: servers.Tls | None = None, name: str = "localhost"
) -> AsyncIterator[Shard]:
    """A shard in which the client has connected to the server."""
    serving = client_side = None
    if tls is not None:
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(tls.cert, tls.key)
        client_side = ssl.create_default_context(cafile=str(tls.ca))
    listener = socket.create_server(("127.0.0.1", 0))
    shard = Shard()
    shard.listen(listener, lambda: server, tls=serving)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shard.run)
            shard.connect(client, Route(socket.AF_INET, listener.getsockname(), client_side, name))
            yield shard
            await client.done.wait()
            await server.done.wait()
            nursery.cancel_scope.cancel()


class Secure(Recorder):
    """One that says nothing before TLS stands."""

    def connected(self, now_ns: int) -> api.Out:
        super().connected(now_ns)
        return b""


@pytest.mark.parametrize("with_tls", [False, True])
@pytest.mark.parametrize(
    "out",
    [b"x", b"x" * 5_000_000, (b"head", b"y" * 5_000_000), [b"a", b"b" * 100_000, b"c"]],
    ids=["small", "large", "pair", "segments"],
)
async def test_every_octet_arrives_however_slowly_the_kernel_takes_it(
    tls: servers.Tls, out: api.Out, with_tls: bool
) -> None:
    whole = b"".join(out) if isinstance(out, (tuple, list)) else out
    kind, pending_action = (Secure, api.START_TLS) if with_tls else (Recorder, api.NOTHING)
    client, server = kind(out, pending_action), kind(b"", pending_action, expect=len(whole))
    async with pair(client, server, tls=tls if with_tls else None):
        pass
    assert server.received == whole
    assert (client.why, server.why) == (api.CLOSED, api.ENDED)
    assert ("secured" in client.events) is with_tls


async def test_what_the_tls_layer_holds_back_is_read_although_no_epoll_tells_of_it(tls: servers.Tls) -> None:
    sent = b"y" * 10_000  # one record of TLS, and a score of a client's reads
    client, server = Secure(b"", api.START_TLS, expect=len(sent)), Secure(sent, api.START_TLS)
    async with pair(client, server, tls=tls):
        pass
    assert client.received == sent


def test_a_connection_that_was_taken_and_reset_at_once_was_no_failure_to_connect() -> None:
    assert connect_error_kind(errno.ECONNRESET) == api.CONNECTION_RESET
    assert connect_error_kind(errno.ECONNREFUSED) == api.CONNECT_REFUSED


async def test_a_certificate_for_another_name_is_not_taken(tls: servers.Tls) -> None:
    client, server = Secure(b"x", api.START_TLS), Secure(b"", api.START_TLS)
    async with pair(client, server, tls=tls, name="elsewhere.example"):
        pass
    assert client.why == api.TLS_FAILED
    assert "secured" not in client.events


@pytest.mark.parametrize(
    ("pending_action", "client_why", "server_why"),
    [
        (api.CLOSE, api.ENDED, api.CLOSED),
        (api.RESET, api.ENDED, api.CONNECTION_RESET),
        (api.LINGER, api.ENDED, api.CLOSED),
    ],
)
async def test_ways_to_leave(pending_action: int, client_why: str, server_why: str) -> None:
    client, server = Recorder(b"bye", pending_action), Recorder()
    async with pair(client, server):
        pass
    assert (client.why, server.why) == (client_why, server_why)
    assert server.received in ((b"bye",) if pending_action != api.RESET else (b"bye", b""))


async def test_a_half_close_still_hears_the_answer() -> None:
    client, server = Recorder(b"ask", api.HALF_CLOSE), Recorder()
    async with pair(client, server):
        pass
    assert client.events[:2] == ["opened", "woke"]
    assert server.received.startswith(b"ask")
    assert server.events[:2] == ["opened", "ended"]


async def test_a_sleeper_is_woken_and_a_deadline_ends_a_wait() -> None:
    client, server = Recorder(b"", api.SLEEP), Recorder()
    client.deadline_ns = time.monotonic_ns() + 300_000_000
    async with pair(client, server):
        pass
    assert client.events == ["opened", "woke", "lost"]
    assert client.why == api.TIMEOUT
    assert server.received == b"awake"


class Noticed(Recorder):
    """One that says when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = trio.Event()

    def connected(self, now_ns: int) -> api.Out:
        self.is_open.set()
        return super().connected(now_ns)


async def test_what_is_cut_off_is_told_so_once() -> None:
    client, server = Noticed(), Noticed()
    listener = socket.create_server(("127.0.0.1", 0))
    shard = Shard()
    shard.listen(listener, lambda: server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.run)
        shard.connect(client, Route(socket.AF_INET, listener.getsockname()))
        await server.is_open.wait()
        nursery.cancel_scope.cancel()
    assert client.why == server.why == api.STOPPED
    assert client.events.count("lost") == server.events.count("lost") == 1


@pytest.mark.parametrize("missing", ["port", "socket"])
async def test_nobody_listens(missing: str, tmp_path: object) -> None:
    route = Route(socket.AF_INET, ("127.0.0.1", servers.free_port()))
    if missing == "socket":
        route = Route(socket.AF_UNIX, f"{tmp_path}/none")
    client, shard = Recorder(), Shard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.run)
        shard.connect(client, route)
        await client.done.wait()
        nursery.cancel_scope.cancel()
    assert client.why == (api.CONNECT_REFUSED if missing == "port" else api.CONNECT_FAILED)
    assert client.events == ["lost"]
