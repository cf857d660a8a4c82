"""What a shard does with one connection outside its fast path.

`ConnectionHandler` holds the connections of a shard and serves all that is not the fast path of `engine.shard`: the end of
a connect, TLS, writes that the kernel takes in parts, actions that a session requests, errors, and the end of a connection.
`engine.shard.Shard` is its only subclass, so that no event costs a call from one object to another; the two share all names.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from smtpbench.engine import api
from smtpbench.engine.connection import LINGER_NS, Connection, connect_error_kind, tls_error_text
from smtpbench.engine.kernel_clock import STAMP_BYTES, Ancillary, KernelClock, handshake_ns, peek_stamp
from smtpbench.engine.timer import Timers

_IN = select.EPOLLIN
_OUT = select.EPOLLOUT


#: What the fast path needs of a connection: its socket's `recvmsg` (`os.read` of one that was accepted), `session.receive`,
#: the session (Any, because only the sessions of a connection that was opened here have times), the connection.
FastPathEntry = tuple[Callable[[int, int], Any], Callable[[bytes, int], api.Out], Any, Connection]


class ConnectionHandler:
    """The connections of one event loop.

    Args:
        clock: Returns nanoseconds of a monotonic clock. Timers use `time.monotonic_ns`.
        note_read_delays: Keep how late each read of a connection that was opened here was.

    Attributes:
        connections_open: Connections that are open now.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns, *, note_read_delays: bool = False) -> None:
        self._clock = clock
        self._kernel = KernelClock(clock)
        self._read_delays_ns: list[int] | deque[int] = [] if note_read_delays else deque(maxlen=0)
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._fast_path: dict[int, FastPathEntry] = {}  # by descriptor; of connections of one kind only
        self._opens = False
        self._timers = Timers()
        self._epoll.register(self._timers.fd, _IN)
        self.connections_open = 0

    def call_at(self, when_ns: int, call: Callable[[int], None]) -> None:
        """Call `call(now_ns)` at a time, from inside the loop."""
        self._timers.call_at(when_ns, call)

    def _write_again(self, connection: Connection, out: api.Out, error: OSError | TypeError) -> None:
        """Write what the fast path could not."""
        if isinstance(error, BlockingIOError | TypeError):  # a full buffer; a pair or segments, too rare to test for
            self._write(connection, out)
        else:
            self._write_failed(connection, error)

    def _enter_fast_path(self, connection: Connection) -> None:
        if (connection.client is not None) is self._opens:
            self._fast_path[connection.fd] = connection.fast_path_entry

    def _serve_ready(self, connection: Connection, mask: int) -> None:
        if connection.connecting and connection.client is not None:
            self._finish_connect(connection, connection.client)
        elif connection.handshaking:
            self._handshake(connection)
        elif connection.linger_until_ns:
            self._discard_input(connection)
        elif connection.peer_closed and mask & (select.EPOLLERR | select.EPOLLHUP):
            self._close(connection, api.CONNECTION_RESET)
        else:
            if mask & _OUT and connection.outbox:
                self._flush(connection)
            if mask & ~_OUT and not connection.closing and not connection.peer_closed:
                self._read(connection)

    def _finish_connect(self, connection: Connection, client: api.OutgoingSession) -> None:
        took_ns = handshake_ns(connection.sock)
        error_number = 0 if took_ns else connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error_number:
            connection.failure = os_text(error_number)
            self._close(connection, connect_error_kind(error_number))
            return
        self._watch(connection, _IN)
        self._start_session(connection, client, took_ns)

    def _start_session(self, connection: Connection, client: api.OutgoingSession, took_ns: int) -> None:
        """Begin the session of a connection that was opened here.

        Args:
            connection: The connection.
            client: Its session.
            took_ns: Time from the SYN to the SYN-ACK, nanoseconds; 0 if it is not known.
        """
        connection.connecting = False
        self._enter_fast_path(connection)
        now_ns = self._clock()
        client.received_ns = min(client.sent_ns + took_ns, now_ns) if took_ns else now_ns
        self._write(connection, client.connected(now_ns))

    def _read(self, connection: Connection) -> None:
        """Read once, and in TLS all that the TLS layer holds; epoll reports the rest after other connections were served."""
        ancillary: Ancillary = ()
        while not connection.closing:
            try:
                if connection.client is None:
                    data = connection.recv(connection.read_bytes)
                elif connection.tls:
                    # without octets in the socket, what comes next came with what was read before
                    ancillary = peek_stamp(connection.sock, connection.read_bytes) or ancillary
                    data = connection.recv(connection.read_bytes)
                else:
                    data, ancillary, _, _ = connection.sock.recvmsg(connection.read_bytes, STAMP_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._socket_failed(connection, error)
                return
            if not data:
                self._end_of_input(connection)
                return
            now_ns = self._clock()
            if connection.client is not None:
                self._set_received(connection.client, ancillary, now_ns)
            self._write(connection, connection.session.receive(data, now_ns))
            if not connection.tls or connection.handshaking or not connection.pending():
                return

    def _set_received(self, client: api.OutgoingSession, ancillary: Ancillary, now_ns: int) -> None:
        client.received_ns = self._kernel.received_ns(ancillary, client.sent_ns, now_ns)
        if ancillary:
            self._read_delays_ns.append(now_ns - client.received_ns)

    def _discard_input(self, connection: Connection) -> None:
        try:
            while connection.recv(connection.read_bytes):
                pass
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            pass
        self._close(connection, api.ENDED)

    def _write(self, connection: Connection, out: api.Out) -> None:
        """Write as much as the kernel takes; once all is written, perform the session's pending action."""
        if out:
            first = not connection.outbox
            if connection.client is not None:
                connection.client.sent_ns = self._clock()
            try:
                done = connection.write(out)
            except OSError as error:
                self._write_failed(connection, error)
                return
            if not done:
                self._fast_path.pop(connection.fd, None)
                self._watch(connection, _IN | _OUT)
                if first:
                    self._report_progress(connection)
                return
        if not connection.outbox and connection.session.pending_action:
            self._perform_action(connection)

    def _flush(self, connection: Connection) -> None:
        kept_bytes = connection.outbox_bytes
        try:
            done = connection.flush()
        except OSError as error:
            self._write_failed(connection, error)
            return
        if connection.tls or connection.outbox_bytes < kept_bytes:
            # the TLS layer takes a segment as a whole, at its end; that the socket was writable is progress
            self._report_progress(connection)
        if done:
            if not connection.tls and not connection.peer_closed:
                self._enter_fast_path(connection)
            self._watch(connection, 0 if connection.peer_closed else _IN)
            if connection.session.pending_action:
                self._perform_action(connection)

    def _report_progress(self, connection: Connection) -> None:
        """Tell the session of a connection that was opened here how a write goes on that the kernel takes in parts."""
        if connection.client is not None:
            connection.queued_bytes = connection.unacknowledged_bytes()
            connection.client.write_progressed(self._clock(), connection.outbox_bytes)

    def _perform_action(self, connection: Connection) -> None:
        """Perform the session's pending action, now that all its output is written."""
        session = connection.session
        pending_action, session.pending_action = session.pending_action, api.NOTHING
        if pending_action == api.CLOSE:
            self._close(connection, api.CLOSED if connection.peer_closed else api.ENDED)
        elif pending_action == api.START_TLS:
            self._start_tls(connection)
        elif pending_action == api.SLEEP:
            self.call_at(session.wake_ns, lambda now_ns: self._wake(connection, now_ns))
        elif pending_action in (api.HALF_CLOSE, api.FIN):
            connection.half_close(fin=pending_action == api.FIN)
            self._write(connection, session.wake(self._clock()))
        elif pending_action == api.RESET:
            self._close(connection, api.ENDED, reset=True)
        elif pending_action == api.LINGER:
            connection.half_close(fin=True)
            self._fast_path.pop(connection.fd, None)
            connection.linger_until_ns = self._clock() + LINGER_NS

    def _wake(self, connection: Connection, now_ns: int) -> None:
        if not connection.closing and not connection.linger_until_ns:
            self._write(connection, connection.session.wake(now_ns))

    def _start_tls(self, connection: Connection) -> None:
        self._fast_path.pop(connection.fd, None)
        try:
            connection.start_tls()
        except (OSError, ValueError) as error:
            connection.failure = tls_error_text(error)
            self._close(connection, api.TLS_FAILED)
            return
        self._handshake(connection)

    def _handshake(self, connection: Connection) -> None:
        sock = connection.sock
        assert isinstance(sock, ssl.SSLSocket)
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(connection, _IN)
            return
        except ssl.SSLWantWriteError:
            self._watch(connection, _OUT)
            return
        except (OSError, ValueError) as error:
            connection.failure = tls_error_text(error)
            self._close(connection, api.TLS_FAILED)
            return
        connection.handshaking = False
        self._watch(connection, _IN)
        now_ns = self._clock()
        if connection.client is not None:
            connection.client.received_ns = now_ns
        self._write(connection, connection.session.tls_started(now_ns))
        if not connection.closing and not connection.outbox:
            self._read(connection)  # octets behind the handshake are in the TLS layer: epoll does not report them

    def _watch(self, connection: Connection, mask: int) -> None:
        if mask != connection.mask:
            connection.mask = mask
            self._epoll.modify(connection.fd, mask)

    def _end_of_input(self, connection: Connection) -> None:
        """Handle the peer's close of its writing side; what the session has left may still be written."""
        connection.peer_closed = True
        self._fast_path.pop(connection.fd, None)
        if connection.outbox and connection.client is not None:
            # a client need not write on: no reply will come, and the peer may not read
            self._close(connection, api.CLOSED)
            return
        self._watch(connection, _OUT if connection.outbox else 0)
        self._write(connection, connection.session.eof_received(self._clock()))

    def _write_failed(self, connection: Connection, error: OSError) -> None:
        """Let a client read what the peer wrote before it reset the connection, then report the error.

        A server that refuses a message while it is sent replies and closes. Its reply is in the kernel's buffer when the
        next write fails. What the session would write after it is lost, as the connection is.
        """
        client = connection.client
        while client is not None and not connection.handshaking and client.pending_action == api.NOTHING:
            try:
                data = connection.recv(connection.read_bytes)
            except OSError:
                break
            if not data:
                break
            client.received_ns = self._clock()
            client.receive(data, client.received_ns)
        self._socket_failed(connection, error)

    def _socket_failed(self, connection: Connection, error: OSError) -> None:
        if isinstance(error, ssl.SSLError):
            connection.failure = tls_error_text(error)
            self._close(connection, api.CLOSED if isinstance(error, ssl.SSLEOFError) else api.TLS_FAILED)
        else:
            connection.failure = os_text(error.errno or 0)
            self._close(connection, api.CONNECTION_RESET)

    def _close(self, connection: Connection, reason: str, *, reset: bool = False) -> None:
        if connection.closing:
            return
        del self._connections[connection.fd]
        self._fast_path.pop(connection.fd, None)
        self.connections_open -= 1
        connection.close(reset=reset)  # which takes the descriptor out of the epoll too
        connection.session.connection_lost(reason, connection.failure, self._clock())


def os_text(number: int) -> str:
    return os.strerror(number).lower()
