"""Runs a sink: listeners on the engine, and one server context for all their connections."""

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


class _RefusedConnection:
    """A connection beyond the limit: it gets 421 and is closed."""

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

    def connection_lost(self, reason: str, detail: str, now_ns: int) -> None:
        pass


def session_factory(
    context: ServerContext, max_connections: int | None, session_class: type[ServerSession] = ServerSession
) -> Callable[[], api.Session]:
    """Return the function that makes the session of each new connection.

    Args:
        context: What all sessions share.
        max_connections: Most connections at once; each beyond gets 421. None for no limit.
        session_class: Class of the sessions.
    """

    def accept() -> api.Session:
        if max_connections is not None and context.counts.connections_open >= max_connections:
            return _RefusedConnection()
        return session_class(context)

    return accept


@dataclass(slots=True)
class Sink:
    """A sink that runs.

    Attributes:
        context: What all sessions share.
        port: Port of the listener.
        messages: Messages accepted so far, if they are kept.
    """

    context: ServerContext
    port: int
    messages: list[Envelope] = field(default_factory=list)

    @property
    def counts(self) -> ServerCounts:
        """Counts of all sessions so far."""
        return self.context.counts


@asynccontextmanager
async def sink_running(
    context: ServerContext | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    max_connections: int | None = None,
    keep_messages: bool = False,
    session_class: type[ServerSession] = ServerSession,
) -> AsyncIterator[Sink]:
    """Run a sink inside this event loop for as long as the context lasts.

    Args:
        context: What all sessions share.
        host, port: Where to listen; port 0 is any free one.
        tls: For STARTTLS or implicit TLS.
        max_connections: Most connections at once; None for no limit.
        keep_messages: Keep accepted messages in `Sink.messages`.
        session_class: Class of the sessions.

    Raises:
        CannotRun: The address cannot be listened on.
    """
    context = context or ServerContext()
    sock = listening_socket(host, port)
    sink = Sink(context, sock.getsockname()[1])
    if keep_messages:
        context.on_message = sink.messages.append
    shard = Shard()
    shard.listen(sock, session_factory(context, max_connections, session_class), tls=tls)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.run)
        try:
            yield sink
        finally:
            nursery.cancel_scope.cancel()


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket. Raises CannotRun."""
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


def _listening_unix_socket(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise CannotRun(f"cannot listen on {path}: {error.strerror or error}") from None
    return sock


def listen_at(address: str, *, authorized: bool) -> tuple[socket.socket, str]:
    """Return a listening socket and its name with the real port.

    Args:
        address: `HOST:PORT`, `[IPv6]:PORT` or `unix:/path`.
        authorized: Allow an address that other machines can reach.

    Raises:
        UsageError: The address is malformed, or not loopback and not authorized.
        CannotRun: The address is unknown or cannot be listened on.
    """
    if address.startswith("unix:"):
        return _listening_unix_socket(address.removeprefix("unix:")), address
    host, colon, port_text = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not colon or not port_text.isdecimal() or int(port_text) > 65535:
        raise UsageError(f"--listen {address}: write HOST:PORT, [IPv6]:PORT or unix:/path; the port is at most 65535")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise CannotRun(f"--listen {address}: {(error.strerror or str(error)).lower()}") from None
    if not authorized and not ipaddress.ip_address(str(found).partition("%")[0]).is_loopback:
        raise UsageError(f"--listen {address}: other machines can reach this address; add --authorized to allow it")
    sock = listening_socket(str(found), int(port_text))
    shown = f"[{found}]" if ":" in str(found) else found
    return sock, f"{shown}:{sock.getsockname()[1]}"


def server_tls(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Return the TLS context for a certificate and its key. Raises UsageError if they cannot be read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, FileNotFoundError) else "cannot be read as certificate and key"
        raise UsageError(f"--tls-cert {certificate}: {reason}") from None
    return context


def self_signed(folder: Path | None = None) -> tuple[Path, Path]:
    """Make a self-signed certificate for localhost with `openssl`; return the files of certificate and key.

    Args:
        folder: Folder of the files; None for a new temporary one.

    Raises:
        CannotRun: The openssl command is missing or failed.
    """
    folder = folder or Path(tempfile.mkdtemp(prefix="smtpbench-tls-"))
    certificate, key = folder / "cert.pem", folder / "key.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
    key_options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    subject = ["-subj", "/CN=localhost", "-addext", names]
    argv = ["openssl", "req", "-x509", *key_options, *subject, "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotRun(f"--self-signed needs the openssl command, which failed: {error}") from None
    return certificate, key


async def serve(
    context: ServerContext,
    addresses: list[str],
    *,
    tls: ssl.SSLContext | None,
    max_connections: int | None,
    duration_ns: int | None,
    authorized: bool,
    on_ready: Callable[[list[str]], None],
    session_class: type[ServerSession] = ServerSession,
) -> None:
    """Listen until SIGINT or SIGTERM.

    Args:
        context: What all sessions share.
        addresses: Where to listen; see `listen_at`.
        tls: For STARTTLS or implicit TLS.
        max_connections: Most connections at once; None for no limit.
        duration_ns: Stop after this time; None for no limit.
        authorized: Allow addresses that other machines can reach.
        on_ready: Called with the addresses and their real ports once all are listened on.
        session_class: Class of the sessions.

    Raises:
        UsageError: See `listen_at`.
        CannotRun: See `listen_at`.
    """
    shard = Shard(alone=True)
    names = []
    accept = session_factory(context, max_connections, session_class)
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
