"""The shard with real sockets and sessions that know no SMTP."""

from __future__ import annotations

import errno
import gc
import socket
import ssl
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import servers
import trio
from fakes import FakeSession

from smtpbench.engine import api
from smtpbench.engine.connection import UNSENT_BYTES, Route, connect_error_kind
from smtpbench.engine.shard import Shard


@asynccontextmanager
async def pair(
    client: FakeSession, server: FakeSession, *, tls: servers.Tls | None = None, name: str = "localhost"
) -> AsyncIterator[Shard]:
    """Run a shard in which the client has connected to the server."""
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


class TlsSession(FakeSession):
    """A session that writes nothing before TLS."""

    def connected(self, now_ns: int) -> api.Out:
        super().connected(now_ns)
        return b""


@pytest.mark.parametrize("with_tls", [False, True])
@pytest.mark.parametrize(
    "out",
    [b"x", b"x" * 5_000_000, (b"head", b"y" * 5_000_000), [b"a", b"b" * 100_000, b"c"]],
    ids=["small", "large", "pair", "segments"],
)
async def test_large_and_segmented_writes_arrive_whole(tls: servers.Tls, out: api.Out, with_tls: bool) -> None:
    whole = b"".join(out) if isinstance(out, (tuple, list)) else out
    kind, pending_action = (TlsSession, api.START_TLS) if with_tls else (FakeSession, api.NOTHING)
    client, server = kind(out, pending_action), kind(b"", pending_action, expect=len(whole))
    async with pair(client, server, tls=tls if with_tls else None):
        pass
    assert server.received == whole
    assert (client.reason, server.reason) == (api.CLOSED, api.ENDED)
    assert ("tls_started" in client.events) is with_tls


async def test_octets_held_by_the_tls_layer_are_read(tls: servers.Tls) -> None:
    sent = b"y" * 10_000  # one TLS record, and twenty reads of a client
    client, server = TlsSession(b"", api.START_TLS, expect=len(sent)), TlsSession(sent, api.START_TLS)
    async with pair(client, server, tls=tls):
        pass
    assert client.received == sent


def test_connection_reset_while_connecting_is_not_a_refused_connection() -> None:
    assert connect_error_kind(errno.ECONNRESET) == api.CONNECTION_RESET
    assert connect_error_kind(errno.ECONNREFUSED) == api.CONNECT_REFUSED


async def test_certificate_for_another_name_is_not_trusted(tls: servers.Tls) -> None:
    client, server = TlsSession(b"x", api.START_TLS), TlsSession(b"", api.START_TLS)
    async with pair(client, server, tls=tls, name="elsewhere.example"):
        pass
    assert client.reason == api.TLS_FAILED
    assert "tls_started" not in client.events


@pytest.mark.parametrize(
    ("pending_action", "client_reason", "server_reason"),
    [
        (api.CLOSE, api.ENDED, api.CLOSED),
        (api.RESET, api.ENDED, api.CONNECTION_RESET),
        (api.LINGER, api.ENDED, api.CLOSED),
    ],
)
async def test_end_reasons_of_close_reset_and_linger(pending_action: int, client_reason: str, server_reason: str) -> None:
    client, server = FakeSession(b"bye", pending_action), FakeSession()
    async with pair(client, server):
        pass
    assert (client.reason, server.reason) == (client_reason, server_reason)
    assert server.received in ((b"bye",) if pending_action != api.RESET else (b"bye", b""))


async def test_half_close_continues_reading() -> None:
    client, server = FakeSession(b"ask", api.HALF_CLOSE), FakeSession()
    async with pair(client, server):
        pass
    assert client.events[:2] == ["connected", "wake"]
    assert server.received.startswith(b"ask")
    assert server.events[:2] == ["connected", "eof_received"]


async def test_sleep_ends_at_its_time_and_the_deadline_closes_the_connection() -> None:
    client, server = FakeSession(b"", api.SLEEP), FakeSession()
    client.deadline_ns = time.monotonic_ns() + 300_000_000
    async with pair(client, server):
        pass
    assert client.events == ["connected", "wake", "connection_lost"]
    assert client.reason == api.TIMEOUT
    assert server.received == b"awake"


class AwaitableSession(FakeSession):
    """A session whose connection a test can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.is_connected = trio.Event()

    def connected(self, now_ns: int) -> api.Out:
        self.is_connected.set()
        return super().connected(now_ns)


async def test_stopped_connections_are_reported_once() -> None:
    client, server = AwaitableSession(), AwaitableSession()
    listener = socket.create_server(("127.0.0.1", 0))
    shard = Shard()
    shard.listen(listener, lambda: server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.run)
        shard.connect(client, Route(socket.AF_INET, listener.getsockname()))
        await server.is_connected.wait()
        nursery.cancel_scope.cancel()
    assert client.reason == server.reason == api.STOPPED
    assert client.events.count("connection_lost") == server.events.count("connection_lost") == 1


@pytest.mark.parametrize("missing", ["port", "socket"])
async def test_connect_without_a_listener_fails(missing: str, tmp_path: object) -> None:
    route = Route(socket.AF_INET, ("127.0.0.1", servers.free_port()))
    if missing == "socket":
        route = Route(socket.AF_UNIX, f"{tmp_path}/none")
    client, shard = FakeSession(), Shard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.run)
        shard.connect(client, route)
        await client.done.wait()
        nursery.cancel_scope.cancel()
    assert client.reason == (api.CONNECT_REFUSED if missing == "port" else api.CONNECT_FAILED)
    assert client.events == ["connection_lost"]


class _LateReplySession(FakeSession):
    """A server that replies."""

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        super().receive(data, now_ns)
        return b"a late reply"

    def connected(self, now_ns: int) -> api.Out:
        super().connected(now_ns)
        return b""


class _HalfClosingSession(TlsSession):
    """A client that half-closes inside TLS."""

    def __init__(self, action: int) -> None:
        super().__init__(b"ask", api.START_TLS)
        self.half_close = action

    def tls_started(self, now_ns: int) -> api.Out:
        self.pending_action = self.half_close
        return super().tls_started(now_ns)

    def wake(self, now_ns: int) -> api.Out:
        self.events.append("wake")
        return b""


@pytest.mark.parametrize("action", [api.HALF_CLOSE, api.FIN])
async def test_what_comes_after_a_half_close_inside_tls_is_decrypted(tls: servers.Tls, action: int) -> None:
    client, server = _HalfClosingSession(action), _LateReplySession(b"", api.START_TLS)
    async with pair(client, server, tls=tls):
        pass
    assert server.received == b"ask"
    assert "eof_received" in server.events
    assert client.received == b"a late reply"
    assert "wake" in client.events


@pytest.mark.parametrize(
    "out", [b"more", (b"more", b"than that"), [b"more", b"and more"]], ids=["plain", "pair", "segments"]
)
async def test_reply_that_is_there_is_read_before_a_reset_is_reported(out: api.Out) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    shard, client = Shard(), FakeSession()
    connection = shard.connect(client, Route(socket.AF_INET, listener.getsockname()))
    assert connection is not None
    server, _ = listener.accept()
    server.sendall(b"552 too big\r\n" * 100)  # more than one read
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    shard.push(connection, out)
    assert client.received == b"552 too big\r\n" * 100
    assert client.reason == api.CONNECTION_RESET
    shard.close()
    listener.close()


@pytest.mark.parametrize("with_tls", [False, True])
async def test_closed_connection_is_freed_without_the_garbage_collector(tls: servers.Tls, with_tls: bool) -> None:
    """During a run the collector rarely runs, and a run may open millions of connections."""
    kind, pending_action = (TlsSession, api.START_TLS) if with_tls else (FakeSession, api.NOTHING)
    client, server = kind(b"octets", pending_action), kind(b"", pending_action, expect=6)
    left = weakref.ref(client), weakref.ref(server)
    gc.disable()
    try:
        async with pair(client, server, tls=tls if with_tls else None):
            pass
        del client, server
        assert [session() for session in left] == [None, None]
    finally:
        gc.enable()


class PingPongSession(FakeSession):
    """A session that sends back what it receives, without an end."""

    count = 0

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        self.count += 1
        return data


async def test_other_tasks_run_every_few_milliseconds_however_slowly_replies_come() -> None:
    now_ns = 0

    def clock_of_slow_replies() -> int:
        nonlocal now_ns
        now_ns += 500_000
        return now_ns

    client, server, shard = PingPongSession(b"x"), PingPongSession(), Shard(clock_of_slow_replies, alone=True)
    listener = socket.create_server(("127.0.0.1", 0))
    shard.listen(listener, lambda: server)
    longest = 0
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shard.run)
            shard.connect(client, Route(socket.AF_INET, listener.getsockname()))
            while client.count < 300:
                before = client.count
                await trio.lowlevel.checkpoint()
                longest = max(longest, client.count - before)
            nursery.cancel_scope.cancel()
    assert 0 < longest <= 10


class _SlowReader:
    """A client session on a shard, and its peer that reads only when it is told to."""

    def __init__(self, out: api.Out, expect: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.now_ns = 10**9
        self.shard, self.client = Shard(lambda: self.now_ns), FakeSession()
        self.client.timeout_ns = 10**9
        self.connection = self.shard.connect(self.client, Route(socket.AF_INET, self.listener.getsockname()))
        assert self.connection is not None
        self.peer, _ = self.listener.accept()
        self.left = expect
        self.shard.push(self.connection, out)

    def read_some(self) -> None:
        """Read once, and let the shard write what the kernel takes then."""
        assert self.connection is not None
        self.left -= len(self.peer.recv(min(self.left, 1 << 20)))
        if self.connection.outbox:
            self.shard._flush(self.connection)  # what the loop does when the socket is writable

    def close(self) -> None:
        self.peer.close()
        self.shard.close()
        self.listener.close()


@pytest.mark.parametrize("out", [(b"head", b"y" * 20_000_000), b"y" * 20_000_004], ids=["pair", "one"])
def test_write_that_the_kernel_takes_in_parts_is_reported_as_it_progresses(out: api.Out) -> None:
    slow = _SlowReader(out, 20_000_004)
    assert slow.client.events == ["connected", "write progressed"]
    assert slow.connection is not None
    slow.shard._flush(slow.connection)
    kept_bytes = slow.connection.outbox_bytes
    events = list(slow.client.events)
    slow.shard._flush(slow.connection)  # nobody has read: the kernel takes nothing
    if slow.connection.outbox_bytes == kept_bytes:
        assert slow.client.events == events
    while slow.left:
        slow.read_some()
    assert slow.client.events.count("write finished") == 1
    assert slow.client.events[-1] == "write finished"
    assert slow.client.events.count("write progressed") > 2
    slow.close()


@pytest.mark.parametrize("out", [b"y" * 1000, (b"head", b"y" * 40_000), [b"a", b"b"]], ids=["one", "pair", "segments"])
def test_write_that_the_kernel_takes_at_once_is_not_reported(out: api.Out) -> None:
    slow = _SlowReader(out, 0)
    assert slow.client.events == ["connected"]
    slow.close()


async def test_message_of_several_tls_records_is_taken_at_once(tls: servers.Tls) -> None:
    out = (b"head", b"y" * 100_000)
    client, server = TlsSession(out, api.START_TLS), TlsSession(b"", api.START_TLS, expect=100_004)
    async with pair(client, server, tls=tls):
        pass
    assert server.received == b"".join(out)
    assert not [event for event in client.events if event.startswith("write")]


async def test_large_write_inside_tls_is_reported_as_it_progresses(tls: servers.Tls) -> None:
    out = (b"head", b"y" * 5_000_000)
    client, server = TlsSession(out, api.START_TLS), TlsSession(b"", api.START_TLS, expect=5_000_004)
    async with pair(client, server, tls=tls):
        pass
    assert server.received == b"".join(out)
    events = [event for event in client.events if event.startswith("write")]
    assert events.count("write progressed") > 2
    assert events.count("write finished") == 1
    assert events[-1] == "write finished"


def test_kernel_keeps_little_of_a_large_write_unsent() -> None:
    """Without a limit it takes megabytes, and the end of the write says nothing about when the last octet was sent."""
    slow = _SlowReader((b"head", b"y" * 20_000_000), 20_000_004)
    assert slow.connection is not None
    assert slow.connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES
    slow.close()


def test_peer_that_takes_little_is_not_overdue_and_one_that_stops_reading_is() -> None:
    """A peer may take less than makes its socket writable for the kernel: then there is no event, and yet progress."""
    slow = _SlowReader((b"head", b"y" * 20_000_000), 20_000_004)
    connection = slow.connection
    assert connection is not None
    for _ in range(3):
        queued_bytes = connection.unacknowledged_bytes()
        while connection.unacknowledged_bytes() == queued_bytes:
            slow.peer.recv(1000)
        slow.now_ns += 2 * 10**9
        slow.shard.check_deadlines()
        assert slow.client.events[-1] == "octets acknowledged"
        assert slow.client.deadline_ns == slow.now_ns + 10**9
    queued_bytes = 0
    while connection.unacknowledged_bytes() != queued_bytes:  # what the peer's kernel still takes
        queued_bytes = connection.unacknowledged_bytes()
        slow.shard.check_deadlines()
    assert not slow.client.reason
    slow.now_ns += 2 * 10**9
    slow.shard.check_deadlines()
    assert slow.client.reason == api.TIMEOUT
    slow.close()
