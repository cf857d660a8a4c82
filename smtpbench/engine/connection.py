"""One connection: a socket, its session, and the octets that the kernel did not take yet."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import ssl
import struct
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from smtpbench.engine import api
from smtpbench.engine.quickack import QuickAckSocket, acknowledging_recv

#: Size of a server's reads, so that a message arrives in few of them. (When a block of 64 KiB or more is freed, glibc
#: consolidates its whole heap.)
SERVER_READ_BYTES = 16 * 1024
#: Size of a client's reads: the largest whose object Python's own allocator serves (512 octets). Nearly every reply fits;
#: the rest of a longer one comes with the next read.
CLIENT_READ_BYTES = 479

_LINGER_ZERO = struct.pack("ii", 1, 0)
#: Octets of a large output that the kernel keeps unsent, at most. Without a limit it takes some megabytes at once, and the
#: end of a write says nothing about when the last octet was sent.
UNSENT_BYTES = 128 * 1024
#: How long a lingering close waits for the peer's close.
LINGER_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Route:
    """Where to connect, and how to verify the peer.

    Attributes:
        family: AF_INET, AF_INET6 or AF_UNIX.
        address: Address as `socket.connect` takes it for the family.
        tls: Context of START_TLS.
        server_name: Name for SNI, which the certificate must contain.
        quickack: Acknowledge at once what the peer sends (TCP only).
    """

    family: int
    address: tuple[str, int] | tuple[str, int, int, int] | str
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    quickack: bool = False


class Connection:
    """A socket that belongs to a shard. Only the shard calls it.

    Args:
        fd: Descriptor of the socket, which does not block.
        session: What the octets are for.
        context: Context of START_TLS.
        sock: The socket. None for a connection that was accepted: most of them need no object, which would cost a fortieth
            of the CPU time of a connection.
        client: The session, if the connection was opened here.
        server_name: Name for SNI.

    Attributes:
        client: The session, if the connection was opened here; None for one that was accepted.
        queued_bytes: Octets that the peer had not acknowledged after the last write of an output that the kernel takes in
            parts.
        unsent_limited: The kernel keeps at most UNSENT_BYTES unsent.
        linger_until_ns: When a lingering close stops waiting for the peer's, 0 if it does not linger.
        pending: Returns how many octets the TLS layer holds, which epoll does not report.
        mask: Events that the epoll watches for, -1 before the first change.
        failure: Reason, as text, of an end that the session did not request.
    """

    __slots__ = (
        "_sock",
        "client",
        "closing",
        "connecting",
        "failure",
        "fd",
        "handshaking",
        "linger_until_ns",
        "mask",
        "outbox",
        "peer_closed",
        "pending",
        "queued_bytes",
        "read_bytes",
        "recv",
        "send",
        "server_name",
        "session",
        "tls",
        "tls_context",
        "unsent_limited",
    )  # fmt: skip

    def __init__(
        self, fd: int, session: api.Session, context: ssl.SSLContext | None, sock: socket.SocketType | None = None,
        client: api.OutgoingSession | None = None, server_name: str | None = None,
    ) -> None:  # fmt: skip
        self._sock = sock
        self.fd = fd
        self.recv: Callable[[int], bytes]
        self.send: Callable[[bytes], int]
        if sock is None:
            self.recv, self.send = partial(os.read, fd), partial(os.write, fd)
        else:
            self.recv, self.send = sock.recv, sock.send
        self.session = session
        self.tls_context = context
        self.server_name = server_name
        self.client = client
        self.outbox: list[bytes] = []
        self.read_bytes = SERVER_READ_BYTES if client is None else CLIENT_READ_BYTES
        self.connecting = client is not None
        self.handshaking = False
        self.tls = False
        self.closing = False
        self.linger_until_ns = 0
        self.peer_closed = False
        self.pending: Callable[[], int] = int
        self.mask = -1
        self.queued_bytes = 0
        self.unsent_limited = False
        self.failure = ""

    @property
    def sock(self) -> socket.SocketType:
        """The socket, made of the descriptor if it is not there yet."""
        if self._sock is None:
            self._sock = socket.socket(fileno=self.fd)
            self._sock.setblocking(False)
        return self._sock

    @property
    def fast_path_entry(self) -> tuple[Callable[[int, int], Any], Callable[[bytes, int], api.Out], Any, Connection]:
        """What the shard's fast path needs, as one tuple (read, receive, session, connection).

        The connection does not keep it: the two would refer to each other, and the garbage collector rarely runs.
        """
        return os.read if self._sock is None else self._sock.recvmsg, self.session.receive, self.session, self

    def start_tls(self) -> None:
        """Wrap the socket; the shard does the handshake step by step. Raises OSError or ValueError."""
        if self.tls_context is None:
            raise ValueError("no TLS context for this connection")
        quickack = isinstance(self.sock, QuickAckSocket)
        wrapped = self.tls_context.wrap_socket(
            self.sock,  # type: ignore[arg-type]  # the base class has all that is called
            server_side=self.client is None,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=True,
            server_hostname=self.server_name,
        )
        self._sock = wrapped
        self.recv = acknowledging_recv(wrapped) if quickack else wrapped.recv
        self.send = wrapped.send
        self.pending = wrapped.pending
        self.handshaking = True
        self.tls = True

    def write(self, out: api.Out) -> bool:
        """Write an output or keep it for later; return whether nothing is left to write. Raises OSError."""
        if self.outbox:
            self.outbox += out if isinstance(out, list) else [b"".join(out) if isinstance(out, tuple) else out]
            return False
        if isinstance(out, bytes):
            return self._write_one(out)
        if isinstance(out, tuple):
            return self._write_pair(*out)
        for index, segment in enumerate(out):
            if not self._write_one(segment):
                self.outbox += out[index + 1 :]
                return False
        return True

    @property
    def outbox_bytes(self) -> int:
        """Number of octets that were kept."""
        return sum(map(len, self.outbox))

    def acknowledged(self) -> bool:
        """Return whether the peer has acknowledged more octets since the last call or write."""
        before, self.queued_bytes = self.queued_bytes, self.unacknowledged_bytes()
        return self.queued_bytes < before

    def unacknowledged_bytes(self) -> int:
        """Return how many octets the kernel has taken that the peer has not acknowledged."""
        try:
            return int.from_bytes(fcntl.ioctl(self.fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0

    def flush(self) -> bool:
        """Write what was kept; return whether nothing is left. Raises OSError."""
        outbox, self.outbox = self.outbox, []
        return self.write(outbox)

    def _write_one(self, segment: bytes) -> bool:
        try:
            sent = self.send(segment)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        if sent == len(segment):
            return True
        # the rest of a large body is a view, so it is not copied for each piece that the kernel takes
        self.outbox.append(memoryview(segment)[sent:])  # type: ignore[arg-type]  # a view is as good as bytes to send()
        return False

    def _write_pair(self, head: bytes, body: bytes) -> bool:
        if len(body) > UNSENT_BYTES and not self.unsent_limited:
            self._limit_unsent()
        if self.tls:
            return self._write_one(head) and self._write_one(body) if not self.outbox else False
        try:
            sent = os.writev(self.fd, (head, body))
        except BlockingIOError:
            sent = 0
        if sent == len(head) + len(body):
            return True
        if sent < len(head):
            self.outbox += [head[sent:], body]
        else:
            self.outbox.append(memoryview(body)[sent - len(head) :])  # type: ignore[arg-type]  # as above
        return False

    def _limit_unsent(self) -> None:
        self.unsent_limited = True
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def half_close(self, *, fin: bool) -> None:
        """Close the writing side; reading continues, decrypted as before.

        Args:
            fin: End the TCP connection's writing side. Inside TLS, the default is to end that of TLS, by close_notify.
        """
        with contextlib.suppress(OSError, ValueError):  # the peer is gone; the next read reports it
            if self.tls and not fin and isinstance(self.sock, ssl.SSLSocket):
                self.sock.unwrap()  # sends close_notify, and does not wait for the peer's
            else:
                # not the method of SSLSocket, which would end decryption
                socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def close(self, *, reset: bool = False) -> None:
        """Close the descriptor, with a FIN or with a reset."""
        self.closing = True
        if reset or self.tls:
            with contextlib.suppress(OSError, ValueError):
                if reset:
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
                elif not self.handshaking and isinstance(self.sock, ssl.SSLSocket):
                    self.sock.unwrap()  # sends close_notify without waiting for the peer's
        if self._sock is None:
            os.close(self.fd)
        else:
            self._sock.close()


_CONNECT_KINDS = {
    errno.EMFILE: api.NO_DESCRIPTORS,
    errno.ENFILE: api.NO_DESCRIPTORS,
    errno.EADDRNOTAVAIL: api.NO_PORTS,
    errno.EADDRINUSE: api.NO_PORTS,
    errno.ECONNREFUSED: api.CONNECT_REFUSED,
    errno.ETIMEDOUT: api.CONNECT_TIMEOUT,
    errno.ECONNRESET: api.CONNECTION_RESET,  # the peer had accepted it: a refusal is ECONNREFUSED
}


def connect_error_kind(number: int) -> str:
    """Return the kind in `errors.<kind>` for the errno of a failed connect."""
    return _CONNECT_KINDS.get(number, api.CONNECT_FAILED)


def tls_error_text(error: Exception) -> str:
    """Return what went wrong in a handshake, as text that helps to repair it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or "the peer closed during the handshake"
