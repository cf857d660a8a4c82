"""A shard: one trio task that moves octets for thousands of sessions.

Theory of operation
===================

A trio task for each session costs a task switch for each reply. A shard is one task with an epoll of its own. trio waits
for that epoll's descriptor, and the shard then serves a batch of ready connections in one plain loop. After some
milliseconds it lets trio's other tasks run. Nurseries, cancellation and signals stay trio's.

The loop has a fast path for connections without TLS and with nothing left to write: read, take the time, `receive`, write.
It serves the connections of one kind: those that were opened here, once there are any, or else those that were accepted.
Everything else (connecting, TLS, partial writes, pending actions, errors) happens in `engine.connection_handler`.

Ready connections are served in groups. The shard reads from all connections of a group, then calls all their sessions,
then makes all their writes. The sessions' code thus stays in the processor's caches while it runs, which each system call
would evict, and a peer is woken once for several writes. That saves a twentieth of the cost of a message. All octets of a
group are passed on with one time, taken after its last read. All other events wait until the writes are made, because a
timer may close a connection whose octets were read and not yet passed on. So do the sessions that are over: to close a
connection and to open the next one takes as long as ten writes, for which other peers would wait.

Latencies do not depend on when the shard reads. The session of a connection that was opened here is told when the kernel
received the octets (`engine.kernel_clock`), and when the write that they answer was given to the kernel.

The shard has no time-outs. A session's `deadline_ns` is a number, and `_close_overdue` reads all of them several times a
second.

An exception of a session is a bug and propagates. Whatever a socket does ends in `session.connection_lost`.
"""

from __future__ import annotations

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
    CLIENT_READ_BYTES,
    SERVER_READ_BYTES,
    Connection,
    Route,
    connect_error_kind,
)
from smtpbench.engine.connection_handler import ConnectionHandler, FastPathEntry, os_text
from smtpbench.engine.kernel_clock import (
    STAMP_BYTES,
    Ancillary,
    handshake_ns,
    request_stamps,
    unpack_timespec,
)
from smtpbench.engine.quickack import QuickAckSocket, acknowledge_at_once

_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)  # an enum would cost as much as the socket
_IN = select.EPOLLIN
_OUT = select.EPOLLOUT
#: Events taken from the epoll at once.
_POLL_EVENTS = 256
#: Connections in a group that is read, then processed, then written. A smaller group of 16 costs up to 5 % more CPU time.
_GROUP_SIZE = 64
#: Time after which trio's other tasks run. A number of events would not do: at one reply in a millisecond, the loop would
#: wait for the next one hundreds of times.
_TURN_NS = 10_000_000
#: How often deadlines are checked, seconds.
_DEADLINE_CHECK_S = 0.1
#: How long a listener accepts nothing after the process ran out of descriptors.
_ACCEPT_PAUSE_NS = 100_000_000
#: Groups of connections accepted for one event.
_ACCEPT_GROUPS = 4


class _Listener:
    """A listening socket, and what makes the sessions of its connections."""

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

    def accept_descriptor(self) -> int:
        """Return the descriptor of the next connection, which does not block. Raises OSError."""
        fd: int
        # `accept` makes a socket of it
        fd, _address = self.sock._accept()  # type: ignore[attr-defined]  # undocumented; the call that `accept` makes
        os.set_blocking(fd, False)
        return fd


class Shard(ConnectionHandler):
    """Connections, listeners and timers of one event loop.

    Args:
        clock: Returns nanoseconds of a monotonic clock. Timers use `time.monotonic_ns`.
        alone: No other task of this process is urgent. The loop then waits for its next batch itself, for a millisecond at
            most, before trio waits: a wait by trio costs as much as several replies.
        note_read_delays: Keep how late each read of a connection that was opened here was, for `take_read_delays`.

    Attributes:
        connections_open: Connections that are open now.
    """

    def __init__(
        self, clock: Callable[[], int] = time.monotonic_ns, *, alone: bool = False, note_read_delays: bool = False
    ) -> None:
        super().__init__(clock, note_read_delays=note_read_delays)
        self._poll_timeout_s = 0.001 if alone else 0.0
        self._serve_group = self._serve_accepted
        self._listeners: dict[int, _Listener] = {}

    async def run(self) -> None:
        """Serve until cancelled; then close every connection with the reason `stopped`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._close_overdue)
            try:
                await self._serve()
            finally:
                self.close()

    async def _serve(self) -> None:
        poll, timeout_s = self._epoll.poll, self._poll_timeout_s
        while True:
            await trio.lowlevel.wait_readable(self._epoll)
            turn_ends_ns = self._clock() + _TURN_NS
            while self._clock() < turn_ends_ns and (events := poll(timeout_s, _POLL_EVENTS)):
                for first in range(0, len(events), _GROUP_SIZE):
                    self._serve_group(events[first : first + _GROUP_SIZE])

    def _serve_accepted(self, events: list[tuple[int, int]]) -> None:
        """Serve a group of events, of which those of accepted connections matter most."""
        fast_path, read, readable = self._fast_path, os.read, _IN  # a little cheaper than recv
        received: list[tuple[bytes, FastPathEntry]] = []
        others = []
        for fd, mask in events:
            entry = fast_path.get(fd)
            if entry is not None and mask == readable:
                try:
                    received.append((read(fd, SERVER_READ_BYTES), entry))
                except BlockingIOError:
                    continue
                except OSError as error:
                    self._socket_failed(entry[3], error)
            else:
                others.append((fd, mask))
        now_ns = self._clock()
        outputs: list[tuple[Any, FastPathEntry]] = []
        for data, entry in received:
            if not data:
                self._end_of_input(entry[3])
                continue
            out = entry[1](data, now_ns)
            if out:
                outputs.append((out, entry))
            elif entry[2].pending_action:
                self._perform_action(entry[3])
        write = os.write
        for out, (_, _, session, connection) in outputs:
            try:
                sent = write(connection.fd, out)
            except (OSError, TypeError) as error:
                self._write_again(connection, out, error)
                continue
            if sent != len(out):
                self._write(connection, out[sent:])
            elif session.pending_action:
                self._perform_action(connection)
        for fd, mask in others:
            self._serve_other(fd, mask)

    def _serve_opened(self, events: list[tuple[int, int]]) -> None:
        """Do the same for connections that were opened here, whose sessions are told the times of the kernel.

        These are two loops, because one would have to ask for each reply which kind of connection it came from.
        """
        fast_path, readable, close = self._fast_path, _IN, api.CLOSE
        received: list[tuple[tuple[bytes, Ancillary, int, Any], FastPathEntry]] = []
        others = []
        for fd, mask in events:
            entry = fast_path.get(fd)
            if entry is not None and mask == readable:
                try:
                    received.append((entry[0](CLIENT_READ_BYTES, STAMP_BYTES), entry))
                except BlockingIOError:
                    continue
                except OSError as error:
                    self._socket_failed(entry[3], error)
            else:
                others.append((fd, mask))
        clock, offset_ns, note_delay = self._clock, self._kernel.offset_ns, self._read_delays_ns.append
        now_ns = clock()
        outputs: list[tuple[Any, FastPathEntry]] = []
        ended: list[Connection] = []
        for (data, ancillary, _, _), entry in received:
            _, receive, session, connection = entry
            if ancillary:  # as in `KernelClock.received_ns`, whose call would cost more than what it does
                seconds, nanoseconds = unpack_timespec(ancillary[0][2])
                received_ns = seconds * 1_000_000_000 + nanoseconds - offset_ns
                if not session.sent_ns <= received_ns <= now_ns:
                    received_ns = self._kernel.received_ns(ancillary, session.sent_ns, now_ns)
                note_delay(now_ns - received_ns)
                session.received_ns = received_ns
            elif data:
                session.received_ns = now_ns
            else:
                self._end_of_input(connection)
                continue
            out = receive(data, now_ns)
            if out:
                outputs.append((out, entry))
            elif session.pending_action == close:
                ended.append(connection)
            elif session.pending_action:
                self._perform_action(connection)
        write = os.write
        for out, (_, _, session, connection) in outputs:
            session.sent_ns = clock()
            try:
                sent = write(connection.fd, out)
            except (OSError, TypeError) as error:
                self._write_again(connection, out, error)
                continue
            if sent != len(out):
                self._write(connection, out[sent:])
            elif session.pending_action:
                self._perform_action(connection)
        for connection in ended:
            self._perform_action(connection)
        for fd, mask in others:
            self._serve_other(fd, mask)

    def _serve_other(self, fd: int, mask: int) -> None:
        """Serve an event that the fast path does not."""
        connection = self._connections.get(fd)
        if connection is not None:
            self._serve_ready(connection, mask)
        elif fd == self._timers.fd:
            self._timers.run_due(self._clock)
        elif fd in self._listeners:
            self._accept(self._listeners[fd])

    async def _close_overdue(self) -> None:
        """Check the deadlines several times a second."""
        while True:
            await trio.sleep(_DEADLINE_CHECK_S)
            self._kernel.update()
            self.check_deadlines()

    def check_deadlines(self) -> None:
        """Close the connections whose deadline has passed, and tell the others' sessions which writes arrive.

        A slow peer may take octets, and yet not enough of them for the kernel to call the socket writable.
        """
        now_ns = self._clock()
        for connection in self._connections.values():
            if connection.queued_bytes and connection.client is not None and connection.acknowledged():
                connection.client.octets_acknowledged(now_ns)
        overdue = [c for c in self._connections.values() if (c.linger_until_ns or c.session.deadline_ns) < now_ns]
        for connection in overdue:
            if connection.linger_until_ns:
                self._close(connection, api.ENDED)
            else:
                self._close(connection, api.CONNECT_TIMEOUT if connection.connecting else api.TIMEOUT)

    # -- what callers use ------------------------------------------------------------------------------------

    def take_read_delays(self) -> list[int]:
        """Return how late each read since the last call was, nanoseconds after the kernel had received the octets.

        Reads whose octets the kernel did not stamp are left out.
        """
        delays_ns = list(self._read_delays_ns)
        self._read_delays_ns.clear()
        return delays_ns

    @property
    def clock_steps(self) -> int:
        """How often the time of the machine was set while the shard ran."""
        return self._kernel.steps

    def connect(self, session: api.OutgoingSession, route: Route) -> Connection | None:
        """Connect a session. Return None if that fails at once; `session.connection_lost` was called then."""
        try:
            sock = (QuickAckSocket if route.quickack else socket.SocketType)(route.family, _STREAM)
        except OSError as error:
            session.connection_lost(connect_error_kind(error.errno or 0), os_text(error.errno or 0), self._clock())
            return None
        if not self._opens:
            self._opens, self._serve_group = True, self._serve_opened
            self._fast_path.clear()
        session.sent_ns = self._clock()
        error_number = sock.connect_ex(route.address)
        took_ns = 0
        if error_number == errno.EINPROGRESS:
            # on loopback it is done by now, and a second call is cheaper than waiting for the epoll
            took_ns = handshake_ns(sock)
            error_number = 0 if took_ns else sock.connect_ex(route.address)
        if error_number not in (0, errno.EALREADY):
            sock.close()
            session.connection_lost(connect_error_kind(error_number), os_text(error_number), self._clock())
            return None
        if route.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request_stamps(sock)
        if route.quickack:
            acknowledge_at_once(sock)
        fd = sock.fileno()
        connection = self._connections[fd] = Connection(fd, session, route.tls, sock, session, route.server_name)
        self.connections_open += 1
        if error_number:
            self._epoll.register(fd, _IN | _OUT)
        else:
            self._epoll.register(fd, _IN)
            self._start_session(connection, session, took_ns)
        return connection

    def listen(
        self,
        sock: socket.socket,
        accept: Callable[[], api.Session | None],
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Accept connections on a listening socket.

        Args:
            sock: The listening socket.
            accept: Returns the session of a new connection; None closes the connection at once.
            tls: For START_TLS. A session of implicit TLS (RFC 8314 §3.3) requests it as soon as it is connected.
        """
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # its connections inherit it
        self._listeners[sock.fileno()] = _Listener(sock, accept, tls)
        self._epoll.register(sock.fileno(), _IN)

    def push(self, connection: Connection, out: api.Out) -> None:
        """Write what a session returned outside the loop, and perform its pending action."""
        if not connection.closing:
            self._write(connection, out)

    def stop(self, connection: Connection) -> None:
        """Close a connection with the reason `stopped`."""
        if not connection.closing:
            self._close(connection, api.STOPPED)

    def close(self) -> None:
        """Close every listener and connection."""
        for listener in self._listeners.values():
            listener.sock.close()
        self._listeners.clear()
        for connection in list(self._connections.values()):
            self.stop(connection)
        self._timers.close()
        self._epoll.close()

    def _accept(self, listener: _Listener) -> None:
        """Accept all connections that wait. They are served in groups, as reads are."""
        for _ in range(_ACCEPT_GROUPS):
            descriptors = self._take_descriptors(listener)
            outputs: list[tuple[api.Out, Connection]] = []
            for fd in descriptors:
                session = listener.accept()
                if session is None:
                    os.close(fd)
                    continue
                connection = self._connections[fd] = Connection(fd, session, listener.tls)
                self.connections_open += 1
                self._enter_fast_path(connection)
                outputs.append((session.connected(self._clock()), connection))
            for out, connection in outputs:
                self._epoll.register(connection.fd, _IN)
                self._write(connection, out)
            if len(descriptors) < _GROUP_SIZE:
                return

    def _take_descriptors(self, listener: _Listener) -> list[int]:
        """Return the descriptors of at most a group of connections that wait."""
        descriptors: list[int] = []
        for _ in range(_GROUP_SIZE):
            try:
                descriptors.append(listener.accept_descriptor())
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._pause_accepting(listener)
                    break
                # else the peer closed while it was in the queue
        return descriptors

    def _pause_accepting(self, listener: _Listener) -> None:
        """Accept nothing for a while: without a free descriptor, a ready listener would keep the loop busy."""
        fd = listener.sock.fileno()
        self._epoll.modify(fd, 0)
        self.call_at(self._clock() + _ACCEPT_PAUSE_NS, lambda now_ns: self._epoll.modify(fd, _IN))
