"""A shard: one trio task that moves octets for thousands of sessions.

Theory of operation
===================

A trio task for each session costs a task switch for each reply. A shard is one task with an epoll of its own: trio
waits for that epoll's descriptor, and a batch of ready connections is then served in one plain loop. trio stays what
everything around is made of: nurseries, cancellation, signals.

The loop's short path is for connections in the clear with nothing left to write: read, stamp, `receive`, write.
Everything else (connecting, TLS, partial writes, wishes, errors) happens in `_ready` and what it calls.

Where many connections are ready, a few at a time are all read, then all heard, then all written. The session's code
then stays in the processor's caches while it runs (each system call drives it out), and a peer is woken once for
several writes, which takes a twentieth off what a message costs. Their stamp is one, taken when the last of those reads
is done: microseconds late, where serving them one by one would read the last of them much later. All other events
wait until the writing is done, since a timer may close a connection that was read and not yet heard.

There are no time-outs in here: a session's `deadline_ns` is a number, and `_sweep` reads all of them a few times a second.

A session's errors of its own are bugs and propagate; whatever a socket does ends in `session.connection_lost`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import trio

from smtpbench.engine import api
from smtpbench.engine.connection import (
    LINGER_NS,
    Connection,
    Route,
    connect_error_kind,
    tls_error_text,
)
from smtpbench.engine.timer import Timers

_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)  # not an enum: making one costs as much as the socket
_IN = select.EPOLLIN
_OUT = select.EPOLLOUT
_BATCH = 256
#: Connections that are read together, then heard together, then written together.
_CHUNK = 16
#: Events served before trio's other tasks get their turn: some milliseconds of work.
_TURN = 512
#: How often deadlines are looked at.
SWEEP_S = 0.1
#: How long a listener rests when there is no descriptor for a new connection.
_ACCEPT_REST_NS = 100_000_000
_ACCEPT_BATCH = 256


_Short = tuple[int, Callable[[bytes, int], api.Out], api.Session, Connection]


class _Listener:
    """A listening socket among the connections."""

    __slots__ = ("accept", "sock", "tls")

    def __init__(
        self,
        sock: socket.socket,
        accept: Callable[[], api.Session | None],
        tls: ssl.SSLContext | None,
    ) -> None:
        self.sock = sock
        self.accept = accept
        self.tls = tls


class Shard:
    """Connections, listeners and timers of one event loop.

    clock: nanoseconds of a monotonic clock; timers keep to `time.monotonic_ns`.
    alone: nothing else in this process is in a hurry. Then the loop waits for its next batch itself, for a millisecond
    at most, before it lets trio wait: going through trio costs as much as several replies.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns, *, alone: bool = False) -> None:
        self._clock = clock
        self._linger_s = 0.001 if alone else 0.0
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._short: dict[int, _Short] = {}  # those of the connections that may take the short path
        self._listeners: dict[int, _Listener] = {}
        self._timers = Timers()
        self._epoll.register(self._timers.fd, _IN)
        self.connections_open = 0

    async def run(self) -> None:
        """Serve until cancelled; then every connection is closed and its session told `stopped`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            try:
                await self._serve()
            finally:
                self.close()

    async def _serve(self) -> None:
        poll, linger_s = self._epoll.poll, self._linger_s
        while True:
            await trio.lowlevel.wait_readable(self._epoll)
            served = 0
            while served < _TURN and (events := poll(linger_s, _BATCH)):
                served += len(events)
                for first in range(0, len(events), _CHUNK):
                    self._serve_chunk(events[first : first + _CHUNK])

    def _serve_chunk(self, events: list[tuple[int, int]]) -> None:
        short, read, write, readable = self._short, os.read, os.write, _IN  # a little cheaper than recv and send
        received, others = [], []
        for fd, mask in events:
            entry = short.get(fd)
            if entry is not None and mask == readable:
                try:
                    received.append((read(fd, entry[0]), entry))
                except BlockingIOError:
                    continue
                except OSError as error:
                    self._broken(entry[3], error)
            else:
                others.append((fd, mask))
        now_ns = self._clock()
        said = []
        for data, entry in received:
            if not data:
                self._peer_closed(entry[3])
                continue
            out: Any = entry[1](data, now_ns)
            if out:
                said.append((out, entry))
            elif entry[2].pending_action:
                self._perform_action(entry[3])
        for out, (_, _, session, connection) in said:
            try:
                sent = write(connection.fd, out)
            except BlockingIOError:
                sent = 0
            except TypeError:  # a pair or segments: too rare to ask each time
                self._write(connection, out)
                continue
            except OSError as error:
                self._broken(connection, error)
                continue
            if sent != len(out):
                self._write(connection, out[sent:])
            elif session.pending_action:
                self._perform_action(connection)
        for fd, mask in others:
            self._serve_other(fd, mask)

    def _serve_other(self, fd: int, mask: int) -> None:
        """An event that is not octets for a session on the short path."""
        connection = self._connections.get(fd)
        if connection is not None:
            self._ready(connection, mask)
        elif fd == self._timers.fd:
            self._timers.run_due(self._clock())
        elif fd in self._listeners:
            self._accept(self._listeners[fd])

    async def _sweep(self) -> None:
        """Close what has waited past its deadline."""
        while True:
            await trio.sleep(SWEEP_S)
            now_ns = self._clock()
            overdue = [c for c in self._connections.values() if (c.linger_until_ns or c.session.deadline_ns) < now_ns]
            for connection in overdue:
                if connection.linger_until_ns:
                    self._close(connection, api.ENDED)
                else:
                    self._close(connection, api.CONNECT_TIMEOUT if connection.connecting else api.TIMEOUT)

    # -- what others ask of it -------------------------------------------------------------------------------

    def call_at(self, when_ns: int, call: Callable[[int], None]) -> None:
        """Call `call(now_ns)` at a time of the clock, from inside the loop."""
        self._timers.call_at(when_ns, call)

    def connect(self, session: api.Session, route: Route) -> Connection | None:
        """Open a connection for a session. None where that fails at once: the session has then been told."""
        try:
            sock = socket.socket(route.family, _STREAM)
        except OSError as error:
            session.connection_lost(connect_error_kind(error.errno or 0), _os_text(error.errno or 0), self._clock())
            return None
        error_number = sock.connect_ex(route.address)
        if error_number == errno.EINPROGRESS:
            # on loopback it is done by now, and asking again is cheaper than waiting for the epoll to say so
            error_number = sock.connect_ex(route.address)
        if error_number not in (0, errno.EALREADY):
            sock.close()
            session.connection_lost(connect_error_kind(error_number), _os_text(error_number), self._clock())
            return None
        if route.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, session, route.tls, server_name=route.server_name, server_side=False)
        self._connections[connection.fd] = connection
        self.connections_open += 1
        if error_number:
            self._epoll.register(connection.fd, _IN | _OUT)
        else:
            self._epoll.register(connection.fd, _IN)
            self._opened(connection)
        return connection

    def listen(
        self,
        sock: socket.socket,
        accept: Callable[[], api.Session | None],
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Accept connections on a listening socket; `accept` makes each its session, None to close it at once.

        tls is for their START_TLS; a session of implicit TLS (RFC 8314 §3.3) wants that as soon as it is opened.
        """
        sock.setblocking(False)
        self._listeners[sock.fileno()] = _Listener(sock, accept, tls)
        self._epoll.register(sock.fileno(), _IN)

    def push(self, connection: Connection, out: api.Out) -> None:
        """Write octets that a session gave outside of the loop, and see to its wishes."""
        if not connection.closing:
            self._write(connection, out)

    def stop(self, connection: Connection) -> None:
        """Cut a connection off: its session is told `stopped`."""
        if not connection.closing:
            self._close(connection, api.STOPPED)

    def close(self) -> None:
        """Cut everything off and give the descriptors back."""
        for listener in self._listeners.values():
            listener.sock.close()
        self._listeners.clear()
        for connection in list(self._connections.values()):
            self.stop(connection)
        self._timers.close()
        self._epoll.close()

    # -- the long way ----------------------------------------------------------------------------------------

    def _ready(self, connection: Connection, mask: int) -> None:
        if connection.connecting:
            self._connected(connection)
        elif connection.handshaking:
            self._handshake(connection)
        elif connection.linger_until_ns:
            self._discard(connection)
        elif connection.peer_closed and mask & (select.EPOLLERR | select.EPOLLHUP):
            self._close(connection, api.CONNECTION_RESET)
        else:
            if mask & _OUT and connection.outbox:
                self._flush(connection)
            if mask & ~_OUT and not connection.closing and not connection.peer_closed:
                self._read(connection)

    def _connected(self, connection: Connection) -> None:
        error_number = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error_number:
            connection.failure = _os_text(error_number)
            self._close(connection, connect_error_kind(error_number))
            return
        self._watch(connection, _IN)
        self._opened(connection)

    def _opened(self, connection: Connection) -> None:
        connection.connecting = False
        self._short[connection.fd] = connection.short
        self._write(connection, connection.session.connected(self._clock()))

    def _read(self, connection: Connection) -> None:
        """Read once, and in TLS what else the TLS layer has: epoll tells of the rest, after everybody else had a turn."""
        while not connection.closing:
            try:
                data = connection.recv(connection.read_bytes)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._broken(connection, error)
                return
            if not data:
                self._peer_closed(connection)
                return
            self._write(connection, connection.session.receive(data, self._clock()))
            if not connection.tls or connection.handshaking or not connection.pending():
                return

    def _discard(self, connection: Connection) -> None:
        try:
            while connection.recv(connection.read_bytes):
                pass
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            pass
        self._close(connection, api.ENDED)

    def _write(self, connection: Connection, out: api.Out) -> None:
        """Write as much as the kernel takes; once all is written, do what the session wants."""
        if out:
            try:
                done = connection.write(out)
            except OSError as error:
                self._broken(connection, error)
                return
            if not done:
                self._short.pop(connection.fd, None)
                self._watch(connection, _IN | _OUT)
                return
        if not connection.outbox and connection.session.pending_action:
            self._perform_action(connection)

    def _flush(self, connection: Connection) -> None:
        try:
            done = connection.flush()
        except OSError as error:
            self._broken(connection, error)
            return
        if done:
            if not connection.tls and not connection.peer_closed:
                self._short[connection.fd] = connection.short
            self._watch(connection, 0 if connection.peer_closed else _IN)
            if connection.session.pending_action:
                self._perform_action(connection)

    def _perform_action(self, connection: Connection) -> None:
        """What the session wanted, now that all it said is written."""
        session = connection.session
        pending_action, session.pending_action = session.pending_action, api.NOTHING
        if pending_action == api.CLOSE:
            self._close(connection, api.CLOSED if connection.peer_closed else api.ENDED)
        elif pending_action == api.START_TLS:
            self._start_tls(connection)
        elif pending_action == api.SLEEP:
            self.call_at(session.wake_ns, lambda now_ns: self._wake(connection, now_ns))
        elif pending_action == api.HALF_CLOSE:
            self._shut_down(connection)
            self._write(connection, session.wake(self._clock()))
        elif pending_action == api.RESET:
            self._close(connection, api.ENDED, reset=True)
        elif pending_action == api.LINGER:
            self._shut_down(connection)
            self._short.pop(connection.fd, None)
            connection.linger_until_ns = self._clock() + LINGER_NS

    def _wake(self, connection: Connection, now_ns: int) -> None:
        if not connection.closing and not connection.linger_until_ns:
            self._write(connection, connection.session.wake(now_ns))

    @staticmethod
    def _shut_down(connection: Connection) -> None:
        with contextlib.suppress(OSError):  # the peer is gone already, which the next read will say
            connection.sock.shutdown(socket.SHUT_WR)

    def _start_tls(self, connection: Connection) -> None:
        self._short.pop(connection.fd, None)
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
        self._write(connection, connection.session.tls_started(self._clock()))
        if not connection.closing and not connection.outbox:
            self._read(connection)  # what came with the handshake's end lies in the TLS layer: epoll will not tell

    def _accept(self, listener: _Listener) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                sock, _address = listener.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._rest(listener)
                    return
                continue  # that peer gave up while it was in the queue
            sock.setblocking(False)
            session = listener.accept()
            if session is None:
                sock.close()
                continue
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, session, listener.tls, server_name=None, server_side=True)
            self._connections[connection.fd] = connection
            self._short[connection.fd] = connection.short
            self._epoll.register(connection.fd, _IN)
            self.connections_open += 1
            self._write(connection, session.connected(self._clock()))

    def _rest(self, listener: _Listener) -> None:
        """No descriptor is left: a ready listener would keep the loop busy for nothing."""
        fd = listener.sock.fileno()
        self._epoll.modify(fd, 0)
        self.call_at(self._clock() + _ACCEPT_REST_NS, lambda now_ns: self._epoll.modify(fd, _IN))

    def _watch(self, connection: Connection, mask: int) -> None:
        if mask != connection.mask:
            connection.mask = mask
            self._epoll.modify(connection.fd, mask)

    def _peer_closed(self, connection: Connection) -> None:
        """The peer will say no more; what the session still has to say may be written yet."""
        connection.peer_closed = True
        self._short.pop(connection.fd, None)
        if connection.outbox and not connection.server_side:
            # a client has nothing to gain from writing on: no reply will come, and perhaps nobody reads
            self._close(connection, api.CLOSED)
            return
        self._watch(connection, _OUT if connection.outbox else 0)
        self._write(connection, connection.session.eof_received(self._clock()))

    def _broken(self, connection: Connection, error: OSError) -> None:
        if isinstance(error, ssl.SSLError):
            connection.failure = tls_error_text(error)
            self._close(connection, api.CLOSED if isinstance(error, ssl.SSLEOFError) else api.TLS_FAILED)
        else:
            connection.failure = _os_text(error.errno or 0)
            self._close(connection, api.CONNECTION_RESET)

    def _close(self, connection: Connection, why: str, *, reset: bool = False) -> None:
        if connection.closing:
            return
        del self._connections[connection.fd]
        self._short.pop(connection.fd, None)
        self.connections_open -= 1
        connection.close(reset=reset)  # which takes the descriptor out of the epoll too
        connection.session.connection_lost(why, connection.failure, self._clock())


def _os_text(number: int) -> str:
    return os.strerror(number).lower()
