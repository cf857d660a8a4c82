"""A sink at work: listeners on the engine, one service behind them, and counts at the end."""

from __future__ import annotations

import ipaddress
import math
import os
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from smtpbench.engine import api
from smtpbench.engine.shard import Shard
from smtpbench.errors import CannotRun, UsageError
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import CLOSING_421, Envelope, ServerContext, ServerCounts
from smtpbench.units import NS_PER_S

BACKLOG = 4096


class _Turned:
    """A connection beyond the cap: 421 and goodbye."""

    __slots__ = ("deadline_ns", "pending_action", "wake_ns")

    def __init__(self) -> None:
        self.pending_action = api.NOTHING
        self.wake_ns = 0
        self.deadline_ns = api.NEVER

    def connected(self, now_ns: int) -> api.Out:
        self.pending_action = api.LINGER
        return CLOSING_421

    def tls_started(self, now_ns: int) -> api.Out:
        return b""

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        return b""

    def wake(self, now_ns: int) -> api.Out:
        return b""

    def eof_received(self, now_ns: int) -> api.Out:
        return b""

    def connection_lost(self, why: str, detail: str, now_ns: int) -> None:
        pass


def acceptor(
    service: ServerContext, connections: int | None, session: type[ServerSession] = ServerSession
) -> Callable[[], api.Session]:
    """What makes each connection its session; beyond `connections` at once they are turned away."""

    def accept() -> api.Session:
        if connections is not None and service.counts.connections_open >= connections:
            return _Turned()
        return session(service)

    return accept


@dataclass(slots=True)
class Sink:
    """A sink that runs. port: of its first listener. messages: what it took, where it keeps them."""

    service: ServerContext
    port: int
    messages: list[Envelope] = field(default_factory=list)

    @property
    def counts(self) -> ServerCounts:
        """What its sessions did so far."""
        return self.service.counts


@asynccontextmanager
async def sink_running(
    service: ServerContext | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    connections: int | None = None,
    keep: bool = False,
    session: type[ServerSession] = ServerSession,
) -> AsyncIterator[Sink]:
    """Run a sink inside this event loop for as long as the context lasts, by default on a free port."""
    service = service or ServerContext()
    sock = listening(host, port)
    sink = Sink(service, sock.getsockname()[1])
    if keep:
        service.on_message = sink.messages.append
    shard = Shard()
    shard.listen(sock, acceptor(service, connections, session), tls=tls)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.run)
        try:
            yield sink
        finally:
            nursery.cancel_scope.cancel()


def listening(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises CannotRun."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        raise CannotRun(f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}") from None
    return sock


def _listening_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise CannotRun(f"cannot listen on {path}: {error.strerror or error}") from None
    return sock


def listen_at(address: str, *, authorized: bool) -> tuple[socket.socket, str]:
    """A socket for `HOST:PORT`, `[IPv6]:PORT` or `unix:/path`, and its name with the real port.

    Raises UsageError, also for an address that is not loopback unless `authorized`; CannotRun.
    """
    if address.startswith("unix:"):
        return _listening_unix(address.removeprefix("unix:")), address
    host, colon, port_text = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not colon or not port_text.isdecimal() or int(port_text) > 65535:
        raise UsageError(f"--listen {address}: write HOST:PORT, [IPv6]:PORT or unix:/path, with a port up to 65535")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise CannotRun(f"--listen {address}: {(error.strerror or str(error)).lower()}") from None
    if not authorized and not ipaddress.ip_address(str(found).partition("%")[0]).is_loopback:
        raise UsageError(f"--listen {address} is open to other machines; a sink takes any mail: say --authorized if so")
    sock = listening(str(found), int(port_text))
    shown = f"[{found}]" if ":" in str(found) else found
    return sock, f"{shown}:{sock.getsockname()[1]}"


def server_tls(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """The context for a certificate and its key. Raises UsageError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, FileNotFoundError) else "cannot be read as certificate and key"
        raise UsageError(f"--tls-cert {certificate}: {reason}") from None
    return context


def self_signed(folder: Path | None = None) -> tuple[Path, Path]:
    """A certificate of its own for localhost, made by `openssl`: the files of certificate and key. Raises CannotRun.

    folder: where they go; None makes one.
    """
    folder = folder or Path(tempfile.mkdtemp(prefix="smtpbench-tls-"))
    certificate, key = folder / "cert.pem", folder / "key.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
    what = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    whose = ["-subj", "/CN=localhost", "-addext", names]
    argv = ["openssl", "req", "-x509", *what, *whose, "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotRun(f"--self-signed needs the openssl command, which failed: {error}") from None
    return certificate, key


async def serve(
    service: ServerContext,
    addresses: list[str],
    *,
    tls: ssl.SSLContext | None,
    connections: int | None,
    duration_ns: int | None,
    authorized: bool,
    on_ready: Callable[[list[str]], None],
    session: type[ServerSession] = ServerSession,
) -> None:
    """Listen until SIGINT or SIGTERM, or for a time. on_ready is told the addresses with their real ports."""
    shard = Shard(alone=True)
    names = []
    accept = acceptor(service, connections, session)
    for address in addresses:
        sock, name = listen_at(address, authorized=authorized)
        shard.listen(sock, accept, tls=tls)
        names.append(name)
    try:
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                nursery.start_soon(shard.run)
                on_ready(names)
                with trio.move_on_after(math.inf if duration_ns is None else duration_ns / NS_PER_S):
                    async for _ in signals:
                        break
            nursery.cancel_scope.cancel()
    finally:
        for address in addresses:
            if address.startswith("unix:"):
                with suppress(OSError):
                    os.unlink(address.removeprefix("unix:"))
