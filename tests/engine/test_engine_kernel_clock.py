"""When the kernel received octets: the stamps, their clock, and what a session is told."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from pathlib import Path

import pytest
import servers
import trio
from fakes import FakeSession

from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.engine.kernel_clock import Ancillary, KernelClock, handshake_ns
from smtpbench.engine.shard import Shard

S = 1_000_000_000
#: What the kernel sends with octets that it received 5.25 s after 1970-01-01.
STAMP: Ancillary = [(socket.SOL_SOCKET, 35, struct.pack("qq", 5, S // 4))]


class FakeClocks:
    """A monotonic clock, and the time of the machine, which somebody may set; each reading takes some time."""

    def __init__(self) -> None:
        self.monotonic_ns = 100 * S
        self.realtime_ns = 5 * S
        self.gap_ns = 0

    def monotonic(self) -> int:
        self.monotonic_ns += self.gap_ns
        self.realtime_ns += self.gap_ns
        return self.monotonic_ns

    def clock(self) -> KernelClock:
        return KernelClock(self.monotonic, lambda: self.realtime_ns)


def test_stamp_is_converted_to_the_clock_of_the_sessions() -> None:
    assert FakeClocks().clock().received_ns(STAMP, 100 * S, 101 * S) == 100 * S + S // 4


def test_octets_without_a_stamp_are_received_when_they_are_read() -> None:
    assert FakeClocks().clock().received_ns((), 100 * S, 101 * S) == 101 * S


def test_octets_that_came_before_the_write_answer_it_at_once() -> None:
    assert FakeClocks().clock().received_ns(STAMP, 100 * S + S // 2, 101 * S) == 100 * S + S // 2


@pytest.mark.parametrize("set_s", [-3600, 3600])
def test_time_that_is_set_during_the_run_is_noticed_and_falsifies_no_latency(set_s: int) -> None:
    clocks = FakeClocks()
    clock = clocks.clock()
    clocks.realtime_ns += set_s * S
    stamp: Ancillary = [(socket.SOL_SOCKET, 35, struct.pack("qq", 5 + set_s, S // 4))]
    assert clock.received_ns(stamp, 100 * S, 101 * S) == 101 * S  # not known: the time of the read
    assert clock.steps == 1
    assert clock.received_ns(stamp, 100 * S, 101 * S) == 100 * S + S // 4
    clock.update()
    assert clock.steps == 1


def test_reading_that_was_interrupted_is_not_taken_for_a_step() -> None:
    clocks = FakeClocks()
    clock = clocks.clock()
    offset_ns = clock.offset_ns
    clocks.gap_ns = S // 100
    clock.update()
    assert (clock.offset_ns, clock.steps) == (offset_ns, 0)


class TimedSession(FakeSession):
    """A session that notes when it received octets."""

    def __init__(self, action: int = api.NOTHING) -> None:
        super().__init__(b"", action)
        self.read_ns = 0
        self.ready, self.answered = trio.Event(), trio.Event()

    def connected(self, now_ns: int) -> api.Out:
        assert self.sent_ns <= self.received_ns <= now_ns
        if not self.first_action:
            self.ready.set()
        return super().connected(now_ns)

    def tls_started(self, now_ns: int) -> api.Out:
        assert self.received_ns <= now_ns
        self.ready.set()
        return super().tls_started(now_ns)

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        self.read_ns = now_ns
        self.answered.set()
        return b"next"


async def receive_late(
    session: TimedSession, listener: socket.socket, route: Route, tls: servers.Tls | None
) -> tuple[int, int]:
    """Let a session receive octets that had been there before the shard could read; return when, and the read delay."""
    shard = Shard(note_read_delays=True)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shard.run)
            connection = shard.connect(session, route)
            assert connection is not None
            server, _ = listener.accept()
            if tls is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(tls.cert, tls.key)
                context.num_tickets = 0
                server = await trio.to_thread.run_sync(lambda: context.wrap_socket(server, server_side=True))
            await session.ready.wait()
            server.sendall(b"250 ok\r\n")
            assert select.select([connection.fd], [], [], 30)[0]
            there_ns = time.monotonic_ns()
            await session.answered.wait()
            (delay_ns,) = shard.take_read_delays() or [-1]
            server.close()
            nursery.cancel_scope.cancel()
    return there_ns, delay_ns


@pytest.mark.parametrize("with_tls", [False, True])
async def test_session_is_told_when_the_kernel_received(tls: servers.Tls, with_tls: bool) -> None:
    session = TimedSession(api.START_TLS if with_tls else api.NOTHING)
    client_side = ssl.create_default_context(cafile=str(tls.ca))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        route = Route(socket.AF_INET, listener.getsockname(), client_side if with_tls else None, "localhost")
        there_ns, delay_ns = await receive_late(session, listener, route, tls if with_tls else None)
    assert 0 < session.received_ns <= there_ns < session.read_ns
    assert delay_ns == session.read_ns - session.received_ns
    assert session.sent_ns >= session.read_ns  # of what it wrote in answer


async def test_octets_of_a_unix_socket_are_received_when_they_are_read(tmp_path: Path) -> None:
    session = TimedSession()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        there_ns, delay_ns = await receive_late(session, listener, Route(socket.AF_UNIX, str(tmp_path / "s")), None)
    assert there_ns < session.received_ns == session.read_ns
    assert delay_ns == -1


def test_time_of_the_handshake_is_that_of_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began_ns = time.monotonic_ns()
        with socket.create_connection(listener.getsockname()) as sock:
            took_ns = time.monotonic_ns() - began_ns
            assert 0 < handshake_ns(sock) <= took_ns
    with socket.socket(socket.AF_UNIX) as sock:
        assert handshake_ns(sock) == 0
