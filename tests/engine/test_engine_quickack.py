"""Acknowledging at once: the option is set anew after each read, in the clear and inside TLS, and only if asked for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest
import servers
import trio
from fakes import FakeSession

from smtpbench.engine import api, quickack
from smtpbench.engine.connection import Connection, Route
from smtpbench.engine.quickack import QuickAckSocket
from smtpbench.engine.shard import Shard
from smtpbench.load.job import Job, route_of
from smtpbench.load.plan import LoadPlan
from smtpbench.session.script import Script


@pytest.fixture
def peers() -> Iterator[tuple[QuickAckSocket, socket.socket]]:
    """A connected client socket and its peer."""
    with socket.create_server(("127.0.0.1", 0)) as listener, QuickAckSocket(socket.AF_INET) as client:
        client.connect(listener.getsockname())
        peer, _ = listener.accept()
        with peer:
            yield client, peer


def is_set(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))


@pytest.mark.parametrize("read", [lambda sock: sock.recv(100), lambda sock: sock.recvmsg(100, 64)[0]])
def test_each_read_sets_the_option_anew(peers: tuple[QuickAckSocket, socket.socket], read: object) -> None:
    client, peer = peers
    assert callable(read)
    for octets in (b"one", b"two"):
        peer.sendall(octets)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)  # as the kernel does after a write
        assert not is_set(client)
        assert read(client) == octets
        assert is_set(client)


def test_a_read_inside_tls_that_brings_no_octets_acknowledges_too(
    peers: tuple[QuickAckSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = peers
    connection = Connection(
        client.fileno(),
        FakeSession(),
        ssl.create_default_context(),
        client,
        client=FakeSession(),
        server_name="localhost",
    )
    connection.start_tls()
    assert isinstance(connection.sock, ssl.SSLSocket)
    acknowledged: list[socket.socket] = []
    monkeypatch.setattr(quickack, "acknowledge_at_once", acknowledged.append)
    monkeypatch.setattr(ssl.SSLSocket, "recv", lambda sock, size: (_ for _ in ()).throw(ssl.SSLWantReadError()))
    with pytest.raises(ssl.SSLWantReadError):  # the octets were session tickets
        connection.recv(100)
    assert acknowledged == [connection.sock]
    connection.sock.close()


@pytest.mark.parametrize("wanted", [False, True])
async def test_the_route_decides(tls: servers.Tls, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledged: list[socket.socket] = []
    monkeypatch.setattr(quickack, "acknowledge_at_once", acknowledged.append)
    client, server = FakeSession(expect=5), FakeSession(b"hello")
    shard = Shard()
    listener = socket.create_server(("127.0.0.1", 0))
    shard.listen(listener, lambda: server)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shard.run)
            shard.connect(client, Route(socket.AF_INET, listener.getsockname(), quickack=wanted))
            await client.done.wait()
            nursery.cancel_scope.cancel()
    assert client.received == b"hello"
    assert client.reason == api.ENDED
    assert bool(acknowledged) is wanted


@pytest.mark.parametrize(
    ("family", "wanted", "expected"),
    [(socket.AF_INET, True, True), (socket.AF_INET, False, False), (socket.AF_UNIX, True, False)],
)
def test_a_job_takes_it_from_the_plan(family: int, wanted: bool, expected: bool) -> None:
    plan = LoadPlan(quickack=wanted)
    job = Job("x.yaml", "", "smtp://127.0.0.1:25", "id", "2026-01-01", plan, family, ("127.0.0.1", 25))
    job = Job.from_json(job.to_json())
    assert route_of(job, Script.of("empty", (), loop_start=0, teardown=0, iterations=1)).quickack is expected
