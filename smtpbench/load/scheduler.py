"""Conductors hand arrivals to sessions: as fast as they come back (closed model) or on a schedule (open model).

Both keep one promise: every arrival that was issued is counted exactly once, as accepted, rejected or failed by its
session, or here as dropped or interrupted. And both bound the connections that are open at once.

They run inside the shard's loop, as callbacks and timers, and never wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from smtpbench.engine import api
from smtpbench.engine.connection import Connection, Route
from smtpbench.session.client import ClientSession
from smtpbench.session.context import START, STOP, UNSCHEDULED, WAIT, SessionContext, SessionRecorder

#: A connection that broke twice in a row is tried again after this long, then after twice as long, up to the most.
BACKOFF_NS = 50_000_000
BACKOFF_MOST_NS = 1_000_000_000
#: The closed model opens its connections in bursts, so that a listen queue is not flooded at the start.
BURST = 100
BURST_EVERY_NS = 10_000_000


class RecorderSource(Protocol):
    """Where arrivals are counted (`load.recorders.Books`)."""

    def of(self, n: int, when_ns: int, /) -> SessionRecorder:
        """The book of arrival n, meant to begin at that time."""

    def same_until_ns(self, when_ns: int, /) -> int:
        """Until when every arrival has the book of one that begins at when_ns; 0 where the book depends on its number."""


class Transport(Protocol):
    """What a conductor needs of a shard."""

    def call_at(self, when_ns: int, call: Callable[[int], None], /) -> None:
        """Make a call at a time."""

    def connect(self, session: api.Session, route: Route, /) -> Connection | None:
        """Open a connection for a session."""

    def push(self, connection: Connection, out: api.Out, /) -> None:
        """Write what a session gave outside of the loop."""


class ArrivalScheduler:
    """What both models share: the open sessions, and knowing when all is over.

    books: where arrivals are counted.
    on_finished: called once, when no arrival is to come and every connection is closed.
    late_ns: how late the generator itself began arrivals that had a connection at hand; its reader clears it.
    waited: arrivals that found no free connection.
    """

    def __init__(
        self, wires: Transport, route: Route, connections: int, recorders: RecorderSource, on_finished: Callable[[], None]
    ) -> None:
        self.context: SessionContext  # set by whoever makes both: each needs the other
        self._wires = wires
        self._route = route
        self._connections = connections
        self._books = recorders
        self._on_finished = on_finished
        self._pending = 0  # sessions that a timer will open
        self._leaving = False
        self._finished = False
        self.sessions: set[ClientSession] = set()
        self.connections_peak = 0
        self.late_ns: list[int] = []
        self.waited = 0

    @property
    def busy(self) -> int:
        """Connections that an arrival occupies."""
        return len(self.sessions)

    @property
    def waiting(self) -> int:
        """Arrivals that wait for a connection."""
        return 0

    def start(self, now_ns: int) -> None:
        """Begin to issue arrivals."""
        raise NotImplementedError

    def stop_arrivals(self, now_ns: int) -> None:
        """Issue no more arrivals; those under way may end."""
        raise NotImplementedError

    def next_arrival(self, session: ClientSession, now_ns: int) -> int:
        """A session's pass may begin: GO, WAIT or LEAVE."""
        raise NotImplementedError

    def session_ended(self, session: ClientSession, now_ns: int) -> None:
        """A session's connection is gone."""
        raise NotImplementedError

    def interrupt(self) -> list[ClientSession]:
        """The time is up: what waits is interrupted; the sessions to stop are returned."""
        self._leaving = True
        return list(self.sessions)

    def _open(self, n: int, intended_ns: int, recorder: SessionRecorder, now_ns: int, consecutive_failures: int = 0) -> None:
        session = ClientSession(self.context)
        session.consecutive_failures = consecutive_failures
        session.assign(n, intended_ns, recorder)
        session.open(now_ns)
        self.sessions.add(session)
        if len(self.sessions) > self.connections_peak:
            self.connections_peak = len(self.sessions)
        session.connection = self._wires.connect(session, self._route)

    def _forget(self, session: ClientSession) -> None:
        self.sessions.discard(session)
        session.connection = None  # they point at each other: without this only the collector would free them

    def _check_finished(self) -> None:
        if self._leaving and not self.sessions and not self._pending and not self._finished:
            self._finished = True
            self._on_finished()

    def _messages(self, n: int) -> int:
        fixed = self.context.messages
        return self.context.script.messages(n) if fixed is None else fixed


class ClosedModel(ArrivalScheduler):
    """A fixed number of connections, each beginning the next arrival as soon as its last one is over.

    numbers: the arrival numbers to use; the run ends with them, or at end_ns. Until measure_ns they come from
    warmup_numbers.
    """

    def __init__(
        self,
        wires: Transport,
        route: Route,
        connections: int,
        recorders: RecorderSource,
        on_finished: Callable[[], None],
        *,
        numbers: Iterator[int],
        end_ns: int = api.NEVER,
        warmup_numbers: Iterator[int] | None = None,
        measure_ns: int = 0,
    ) -> None:
        super().__init__(wires, route, connections, recorders, on_finished)
        self._numbers = numbers if warmup_numbers is None else warmup_numbers
        self._measured_numbers = numbers
        self._switch_ns = api.NEVER if warmup_numbers is None else measure_ns
        self._end_ns = end_ns
        self._same_until_ns = 0  # before then neither the book nor the numbers change
        self._recorder: SessionRecorder

    def start(self, now_ns: int) -> None:
        for first in range(0, self._connections, BURST):
            count = min(BURST, self._connections - first)
            self._pending += count
            self._wires.call_at(now_ns + first // BURST * BURST_EVERY_NS, partial(self._burst, count))
        if self._end_ns != api.NEVER:
            self._wires.call_at(self._end_ns, self.stop_arrivals)

    def stop_arrivals(self, now_ns: int) -> None:
        self._leaving = True
        self._check_finished()

    def next_arrival(self, session: ClientSession, now_ns: int) -> int:
        changing = now_ns >= self._same_until_ns or self._leaving
        n = self._next_number(now_ns) if changing else next(self._numbers, None)
        if n is None:
            self._leaving = True
            return STOP
        session.assign(n, UNSCHEDULED, self._recorder)
        return START

    def session_ended(self, session: ClientSession, now_ns: int) -> None:
        self._forget(session)
        consecutive_failures = session.consecutive_failures + 1 if session.broken else 0
        if consecutive_failures < 2:
            self._open_next(now_ns, consecutive_failures)
        elif not self._leaving:
            self._pending += 1
            rest_ns = min(BACKOFF_MOST_NS, BACKOFF_NS << min(consecutive_failures - 2, 10))
            self._wires.call_at(now_ns + rest_ns, lambda now: self._open_pending(now, consecutive_failures))
        self._check_finished()

    def _burst(self, count: int, now_ns: int) -> None:
        for _ in range(count):
            self._open_pending(now_ns, 0)

    def _open_pending(self, now_ns: int, consecutive_failures: int) -> None:
        self._pending -= 1
        self._open_next(now_ns, consecutive_failures)
        self._check_finished()

    def _open_next(self, now_ns: int, consecutive_failures: int) -> None:
        n = self._next_number(now_ns)
        if n is not None:
            self._open(n, UNSCHEDULED, self._recorder, now_ns, consecutive_failures)

    def _next_number(self, now_ns: int) -> int | None:
        if self._leaving or now_ns >= self._end_ns:
            self._leaving = True
            return None
        if now_ns >= self._switch_ns:
            self._numbers, self._switch_ns = self._measured_numbers, api.NEVER
        n = next(self._numbers, None)
        if n is None:
            self._leaving = True
            return None
        self._recorder = self._books.of(n, now_ns)
        self._same_until_ns = min(self._switch_ns, self._end_ns, self._books.same_until_ns(now_ns))
        return n


class OpenModel(ArrivalScheduler):
    """Arrivals on a schedule, whatever the server does.

    arrivals: (number, nanoseconds after start_ns) in order. An arrival takes an idle connection, or opens one while
    there are fewer than `connections`; else it waits for the first that comes free, or, with `drop`, is dropped.
    """

    def __init__(
        self,
        wires: Transport,
        route: Route,
        connections: int,
        recorders: RecorderSource,
        on_finished: Callable[[], None],
        *,
        arrivals: Iterator[tuple[int, int]],
        start_ns: int,
        drop: bool = False,
    ) -> None:
        super().__init__(wires, route, connections, recorders, on_finished)
        self._arrivals = arrivals
        self._start_ns = start_ns
        self._drop = drop
        self._next: tuple[int, int] | None = None
        self._exhausted = False
        self._filling = False
        self._idle: deque[ClientSession] = deque()
        self._queue: deque[tuple[int, int]] = deque()

    @property
    def busy(self) -> int:
        return len(self.sessions) - len(self._idle)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def start(self, now_ns: int) -> None:
        self._next = next(self._arrivals, None)
        self._release(now_ns)

    def stop_arrivals(self, now_ns: int) -> None:
        if not self._exhausted:
            self._next = None
            self._interrupt_queue()
            self._exhaust(now_ns)

    def interrupt(self) -> list[ClientSession]:
        self._next = None
        self._interrupt_queue()
        self._exhausted = True
        return super().interrupt()

    def next_arrival(self, session: ClientSession, now_ns: int) -> int:
        if self._queue:
            n, intended_ns = self._queue.popleft()
            session.assign(n, intended_ns, self._books.of(n, intended_ns))
            return START
        if self._exhausted:
            return STOP
        self._idle.append(session)
        return WAIT

    def session_ended(self, session: ClientSession, now_ns: int) -> None:
        self._forget(session)
        if session in self._idle:
            self._idle.remove(session)
        self._fill(now_ns)
        self._check_finished()

    def _release(self, now_ns: int) -> None:
        """Issue the arrivals that are due and set the timer for the next."""
        while self._next is not None:
            n, after_ns = self._next
            intended_ns = self._start_ns + after_ns
            if intended_ns > now_ns:
                self._wires.call_at(intended_ns, self._release)
                return
            self._issue(n, intended_ns, now_ns)
            self._next = next(self._arrivals, None)
        self._exhaust(now_ns)

    def _issue(self, n: int, intended_ns: int, now_ns: int) -> None:
        if self._idle:
            self.late_ns.append(now_ns - intended_ns)
            session = self._idle.popleft()
            session.assign(n, intended_ns, self._books.of(n, intended_ns))
            self._wires.push(session.connection, session.resume(now_ns))
        elif len(self.sessions) < self._connections and not self._queue:
            self.late_ns.append(now_ns - intended_ns)
            self._open(n, intended_ns, self._books.of(n, intended_ns), now_ns)
        elif self._drop:
            self._books.of(n, intended_ns).dropped += self._messages(n)
        else:
            self.waited += 1
            self._queue.append((n, intended_ns))

    def _fill(self, now_ns: int) -> None:
        """Open connections for arrivals that wait. A connection that fails at once comes back here: hence the guard."""
        if self._filling:
            return
        self._filling = True
        while self._queue and len(self.sessions) < self._connections:
            n, intended_ns = self._queue.popleft()
            self._open(n, intended_ns, self._books.of(n, intended_ns), now_ns)
        self._filling = False

    def _exhaust(self, now_ns: int) -> None:
        """No arrival is to come: idle connections say farewell."""
        self._exhausted = True
        self._leaving = True
        while self._idle:
            session = self._idle.popleft()
            self._wires.push(session.connection, session.finish_waiting(now_ns))
        self._check_finished()

    def _interrupt_queue(self) -> None:
        while self._queue:
            n, intended_ns = self._queue.popleft()
            self._books.of(n, intended_ns).interrupted += self._messages(n)

    def _check_finished(self) -> None:
        if not self._queue:
            super()._check_finished()
