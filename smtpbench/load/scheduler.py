"""Arrival schedulers hand arrivals to sessions: to each session that is free (closed model) or on a schedule (open model).

Both count every issued arrival exactly once: its session counts it as accepted, rejected or failed, or the scheduler counts
it as dropped or interrupted. Both bound the number of connections that are open at once.

A scheduler runs inside the shard's loop, as callbacks and timers. It never waits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Protocol

from smtpbench.engine import api
from smtpbench.engine.connection import Connection, Route
from smtpbench.session.client import ClientSession
from smtpbench.session.context import (
    START,
    STOP,
    UNSCHEDULED,
    WAIT,
    SessionContext,
    SessionRecorder,
    UnansweredSample,
)

#: Delay before a connection that failed twice in a row is opened again. It doubles with each failure, up to the maximum.
BACKOFF_NS = 50_000_000
MAX_BACKOFF_NS = 1_000_000_000
#: The closed model opens this many connections at a time, so that the listen queue of the server does not overflow.
BURST = 100
BURST_INTERVAL_NS = 10_000_000
#: Most waiting arrivals whose lateness is looked at during a run.
_MAX_QUEUE_SHOWN = 20_000


class RecorderSource(Protocol):
    """The recorders that count arrivals (`load.recorders.Recorders`)."""

    def of(self, n: int, when_ns: int, /) -> SessionRecorder:
        """Return the recorder of arrival n, whose intended start is when_ns."""

    def valid_until_ns(self, when_ns: int, /) -> int:
        """Return until when arrivals have the same recorder as one at when_ns; 0 if the recorder depends on their number."""


class Transport(Protocol):
    """What a scheduler needs of a shard."""

    def call_at(self, when_ns: int, call: Callable[[int], None], /) -> None:
        """Call a function at a time."""

    def connect(self, session: api.OutgoingSession, route: Route, /) -> Connection | None:
        """Open a connection for a session."""

    def push(self, connection: Connection, out: api.Out, /) -> None:
        """Write what a session returned outside of the shard's own calls."""


class ArrivalScheduler(ABC):
    """Base of both models: the open sessions and the end of the run.

    Args:
        transport: Opens connections and runs timers.
        route: Way to the server.
        connections: Most connections open at once.
        recorders: Recorders that count the arrivals.
        on_finished: Called once, when no arrivals are left and every connection is closed.

    Attributes:
        context: What the sessions share; set by the creator, since context and scheduler refer to each other.
        sessions: Sessions that have a connection.
        connections_peak: Most connections open at once so far.
        late_ns: How late the generator began each arrival that had a free connection; the reader clears it.
        waited: Arrivals that found no free connection.
    """

    def __init__(
        self,
        transport: Transport,
        route: Route,
        connections: int,
        recorders: RecorderSource,
        on_finished: Callable[[], None],
    ) -> None:
        self.context: SessionContext
        self._transport = transport
        self._route = route
        self._connections = connections
        self._recorders = recorders
        self._on_finished = on_finished
        self._delayed = 0  # sessions that a timer will open
        self._arrivals_ended = False
        self._finished = False
        self.sessions: set[ClientSession] = set()
        self.connections_peak = 0
        self.late_ns: list[int] = []
        self.waited = 0

    @property
    def busy(self) -> int:
        """Number of connections that an arrival occupies."""
        return len(self.sessions)

    @property
    def waiting(self) -> int:
        """Number of arrivals that wait for a connection."""
        return 0

    @abstractmethod
    def start(self, now_ns: int) -> None:
        """Begin to issue arrivals."""

    @abstractmethod
    def stop_arrivals(self, now_ns: int) -> None:
        """Issue no more arrivals; those in progress may finish."""

    @abstractmethod
    def next_arrival(self, session: ClientSession, now_ns: int) -> int:
        """Assign the next arrival to a free session: START, or WAIT, or STOP if there are no more."""

    @abstractmethod
    def session_ended(self, session: ClientSession, now_ns: int) -> None:
        """Note that the connection of a session is closed."""

    def unanswered(self, now_ns: int) -> Iterator[tuple[SessionRecorder, list[UnansweredSample]]]:
        """Yield what is known now of the latencies that are waited for, each with the recorder of its arrival."""
        for session in list(self.sessions):
            yield session.recorder, session.unanswered(now_ns)

    def interrupt(self, now_ns: int) -> list[ClientSession]:
        """Interrupt the arrivals that wait, and return the sessions that the caller must stop."""
        self._arrivals_ended = True
        return list(self.sessions)

    def _open(self, n: int, intended_ns: int, recorder: SessionRecorder, now_ns: int, consecutive_failures: int = 0) -> None:
        session = ClientSession(self.context)
        session.consecutive_failures = consecutive_failures
        session.assign(n, intended_ns, recorder)
        session.open(now_ns)
        self.sessions.add(session)
        if len(self.sessions) > self.connections_peak:
            self.connections_peak = len(self.sessions)
        session.connection = self._transport.connect(session, self._route)

    def _remove(self, session: ClientSession) -> None:
        self.sessions.discard(session)
        session.connection = None  # they refer to each other; the garbage collector rarely runs

    def _check_finished(self) -> None:
        if self._arrivals_ended and not self.sessions and not self._delayed and not self._finished:
            self._finished = True
            self._on_finished()

    def _messages(self, n: int) -> int:
        fixed = self.context.messages
        return self.context.script.messages(n) if fixed is None else fixed


class ClosedModel(ArrivalScheduler):
    """A fixed number of connections, each of which begins the next arrival as soon as the last one is over.

    Args:
        numbers: Arrival numbers; the run ends after the last one.
        end_ns: Time at which the run ends, of `time.monotonic_ns`.
        warmup_numbers: Arrival numbers until `measure_ns`.
        measure_ns: End of the warm-up, of `time.monotonic_ns`.
    """

    def __init__(
        self,
        transport: Transport,
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
        super().__init__(transport, route, connections, recorders, on_finished)
        self._numbers = numbers if warmup_numbers is None else warmup_numbers
        self._measured_numbers = numbers
        self._switch_ns = api.NEVER if warmup_numbers is None else measure_ns
        self._end_ns = end_ns
        self._valid_until_ns = 0  # until then neither the recorder nor the source of the numbers changes
        self._recorder: SessionRecorder

    def start(self, now_ns: int) -> None:
        for first in range(0, self._connections, BURST):
            count = min(BURST, self._connections - first)
            self._delayed += count
            self._transport.call_at(now_ns + first // BURST * BURST_INTERVAL_NS, partial(self._open_burst, count))
        if self._end_ns != api.NEVER:
            self._transport.call_at(self._end_ns, self.stop_arrivals)

    def stop_arrivals(self, now_ns: int) -> None:
        self._arrivals_ended = True
        self._check_finished()

    def next_arrival(self, session: ClientSession, now_ns: int) -> int:
        check = now_ns >= self._valid_until_ns or self._arrivals_ended
        n = self._next_number(now_ns) if check else next(self._numbers, None)
        if n is None:
            self._arrivals_ended = True
            return STOP
        session.assign(n, UNSCHEDULED, self._recorder)
        return START

    def session_ended(self, session: ClientSession, now_ns: int) -> None:
        self._remove(session)
        consecutive_failures = session.consecutive_failures + 1 if session.broken else 0
        if session.given_back:
            self._open(session.n, UNSCHEDULED, session.recorder, now_ns)
        elif consecutive_failures < 2:
            self._open_next(now_ns, consecutive_failures)
        elif not self._arrivals_ended:
            self._delayed += 1
            backoff_ns = min(MAX_BACKOFF_NS, BACKOFF_NS << min(consecutive_failures - 2, 10))
            self._transport.call_at(now_ns + backoff_ns, lambda now: self._open_delayed(now, consecutive_failures))
        self._check_finished()

    def _open_burst(self, count: int, now_ns: int) -> None:
        for _ in range(count):
            self._open_delayed(now_ns, 0)

    def _open_delayed(self, now_ns: int, consecutive_failures: int) -> None:
        self._delayed -= 1
        self._open_next(now_ns, consecutive_failures)
        self._check_finished()

    def _open_next(self, now_ns: int, consecutive_failures: int) -> None:
        check = now_ns >= self._valid_until_ns or self._arrivals_ended
        n = self._next_number(now_ns) if check else next(self._numbers, None)
        if n is None:
            self._arrivals_ended = True
        else:
            self._open(n, UNSCHEDULED, self._recorder, now_ns, consecutive_failures)

    def _next_number(self, now_ns: int) -> int | None:
        if self._arrivals_ended or now_ns >= self._end_ns:
            self._arrivals_ended = True
            return None
        if now_ns >= self._switch_ns:
            self._numbers, self._switch_ns = self._measured_numbers, api.NEVER
        n = next(self._numbers, None)
        if n is None:
            self._arrivals_ended = True
            return None
        self._recorder = self._recorders.of(n, now_ns)
        self._valid_until_ns = min(self._switch_ns, self._end_ns, self._recorders.valid_until_ns(now_ns))
        return n


class OpenModel(ArrivalScheduler):
    """Arrivals on a schedule that does not depend on the server.

    An arrival uses an idle connection. Without one it opens a connection, as long as fewer than `connections` are open. Else
    it waits for the first connection that becomes free, or, with `drop`, it is dropped.

    Args:
        arrivals: (number, nanoseconds after `start_ns`), in order.
        start_ns: Start of the schedule, of `time.monotonic_ns`.
        drop: Whether an arrival that finds no free connection is dropped.
    """

    def __init__(
        self,
        transport: Transport,
        route: Route,
        connections: int,
        recorders: RecorderSource,
        on_finished: Callable[[], None],
        *,
        arrivals: Iterator[tuple[int, int]],
        start_ns: int,
        drop: bool = False,
    ) -> None:
        super().__init__(transport, route, connections, recorders, on_finished)
        self._arrivals = arrivals
        self._start_ns = start_ns
        self._drop = drop
        self._next: tuple[int, int] | None = None
        self._opening_for_queue = False
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
        self._issue_due(now_ns)

    def stop_arrivals(self, now_ns: int) -> None:
        if not self._arrivals_ended:
            self._next = None
            self._interrupt_queue(now_ns)
            self._end_arrivals(now_ns)

    def unanswered(self, now_ns: int) -> Iterator[tuple[SessionRecorder, list[UnansweredSample]]]:
        yield from super().unanswered(now_ns)
        for n, intended_ns in list(islice(self._queue, _MAX_QUEUE_SHOWN)):  # the oldest
            yield self._recorders.of(n, intended_ns), self._unanswered_in_queue(n, intended_ns, now_ns)

    def interrupt(self, now_ns: int) -> list[ClientSession]:
        self._next = None
        self._interrupt_queue(now_ns)
        return super().interrupt(now_ns)

    def next_arrival(self, session: ClientSession, now_ns: int) -> int:
        if self._queue:
            n, intended_ns = self._queue.popleft()
            session.assign(n, intended_ns, self._recorders.of(n, intended_ns))
            return START
        if self._arrivals_ended:
            return STOP
        self._idle.append(session)
        return WAIT

    def session_ended(self, session: ClientSession, now_ns: int) -> None:
        self._remove(session)
        if session in self._idle:
            self._idle.remove(session)
        if session.given_back:
            self._queue.appendleft((session.n, session.intended_ns))
        self._open_for_queue(now_ns)
        self._check_finished()

    def _issue_due(self, now_ns: int) -> None:
        """Issue the arrivals that are due, and set the timer for the next one."""
        while self._next is not None:
            n, after_ns = self._next
            intended_ns = self._start_ns + after_ns
            if intended_ns > now_ns:
                self._transport.call_at(intended_ns, self._issue_due)
                return
            self._issue(n, intended_ns, now_ns)
            self._next = next(self._arrivals, None)
        self._end_arrivals(now_ns)

    def _issue(self, n: int, intended_ns: int, now_ns: int) -> None:
        if self._idle:
            self.late_ns.append(now_ns - intended_ns)
            session = self._idle.popleft()
            session.assign(n, intended_ns, self._recorders.of(n, intended_ns))
            self._transport.push(session.connection, session.resume(now_ns))
        elif len(self.sessions) < self._connections and not self._queue:
            self.late_ns.append(now_ns - intended_ns)
            self._open(n, intended_ns, self._recorders.of(n, intended_ns), now_ns)
        elif self._drop:
            self._recorders.of(n, intended_ns).dropped += self._messages(n)
        else:
            self.waited += 1
            self._queue.append((n, intended_ns))

    def _open_for_queue(self, now_ns: int) -> None:
        """Open connections for arrivals that wait.

        A connection that fails at once calls this again, through `session_ended`; the inner call returns.
        """
        if self._opening_for_queue:
            return
        self._opening_for_queue = True
        while self._queue and len(self.sessions) < self._connections:
            n, intended_ns = self._queue.popleft()
            self._open(n, intended_ns, self._recorders.of(n, intended_ns), now_ns)
        self._opening_for_queue = False

    def _end_arrivals(self, now_ns: int) -> None:
        """End the schedule, and let idle sessions run their teardown."""
        self._arrivals_ended = True
        while self._idle:
            session = self._idle.popleft()
            self._transport.push(session.connection, session.finish_waiting(now_ns))
        self._check_finished()

    def _unanswered_in_queue(self, n: int, intended_ns: int, now_ns: int) -> list[UnansweredSample]:
        names = filter(None, (self.context.message_metric, "transaction"))
        samples = [UnansweredSample(name, None, max(0, now_ns - intended_ns)) for name in names]
        return samples * self._messages(n)

    def _interrupt_queue(self, now_ns: int) -> None:
        while self._queue:
            n, intended_ns = self._queue.popleft()
            recorder = self._recorders.of(n, intended_ns)
            recorder.censor(self._unanswered_in_queue(n, intended_ns, now_ns))
            recorder.interrupted += self._messages(n)

    def _check_finished(self) -> None:
        if not self._queue:
            super()._check_finished()
