"""Conductors against fake wires: sessions whose server the test plays."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeRecorder, repeated, transaction

from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.load.recorders import Recorders, RecordersByDomain
from smtpbench.load.scheduler import BURST, ArrivalScheduler, ClosedModel, OpenModel
from smtpbench.session.client import ClientSession
from smtpbench.session.context import SessionContext
from smtpbench.session.script import Script

MS = 1_000_000


class Wires:
    """A network whose server answers each write after `service_ns`, on a clock that jumps from event to event."""

    def __init__(self, service_ns: int = MS, refuse: Callable[[int], bool] = lambda now_ns: False) -> None:
        self.now_ns = 0
        self.service_ns = service_ns
        self.refuse = refuse
        self.events: list[tuple[int, int, Callable[[int], None]]] = []
        self.order = count()
        self.connected = 0
        self.attempts_ns: list[int] = []

    def call_at(self, when_ns: int, call: Callable[[int], None]) -> None:
        heapq.heappush(self.events, (max(when_ns, self.now_ns), next(self.order), call))

    def connect(self, session: Any, route: Route) -> Any:
        self.attempts_ns.append(self.now_ns)
        connection = SimpleNamespace(session=session, closing=False, greeted=False)
        if self.refuse(self.now_ns):
            session.connection_lost(api.CONNECT_REFUSED, "", self.now_ns)
            return None
        self.connected += 1
        session.connected(self.now_ns)
        self._answer(connection, b"220 s\r\n")
        return connection

    def push(self, connection: Any, out: api.Out) -> None:
        self._serve(connection, out)

    def _answer(self, connection: Any, reply: bytes) -> None:
        self.call_at(self.now_ns + self.service_ns, lambda now_ns: self._hear(connection, reply))

    def _hear(self, connection: Any, reply: bytes) -> None:
        if not connection.closing:
            self._serve(connection, connection.session.receive(reply, self.now_ns))

    def _serve(self, connection: Any, out: Any) -> None:
        for line in out.splitlines(keepends=True):
            if not line.startswith((b"x", b".")):
                code = b"354" if line.startswith(b"DATA") else b"221" if line.startswith(b"QUIT") else b"250"
                self._answer(connection, code + b" ok\r\n")
            elif line.startswith(b"."):
                self._answer(connection, b"250 queued\r\n")
        if connection.session.pending_action == api.CLOSE:
            connection.closing = True
            connection.session.connection_lost(api.ENDED, "", self.now_ns)

    def run(self, until_ns: int = 10**15) -> None:
        while self.events and self.events[0][0] <= until_ns:
            self.now_ns, _, call = heapq.heappop(self.events)
            call(self.now_ns)


class OneBook:
    """Every arrival is counted in one book."""

    def __init__(self, recorder: FakeRecorder) -> None:
        self.recorder = recorder

    def of(self, n: int, when_ns: int) -> FakeRecorder:
        return self.recorder

    def same_until_ns(self, when_ns: int) -> int:
        return api.NEVER


class Stage:
    """A conductor with its wires and book; or with books of its own."""

    def __init__(
        self,
        model: type[ArrivalScheduler],
        script: Script,
        connections: int,
        wires: Wires,
        recorders: Recorders | None = None,
        **options: Any,
    ) -> None:
        self.wires = wires
        self.recorder = FakeRecorder(script.reply_count)
        self.finished = 0
        self.scheduler = model(
            wires, Route(2, ""), connections, recorders or OneBook(self.recorder), self._finish, **options
        )
        self.scheduler.context = SessionContext(script, self.scheduler, timeout_ns=10**9)
        wires.call_at(0, self.scheduler.start)

    def _finish(self) -> None:
        self.finished += 1

    def lates_us(self, metric: str) -> list[int]:
        return [sample >> 44 for sample in self.recorder.timings[metric, True]]


ONCE = Script.of("once", (repeated().steps[0], *transaction(1), repeated().steps[-1]), teardown=5)


@pytest.mark.parametrize("script", [repeated(iterations=7), repeated(iterations=10**9), ONCE])
@pytest.mark.parametrize("connections", [1, 3, BURST + 1])
def test_the_closed_model_issues_each_number_once_and_bounds_its_connections(script: Script, connections: int) -> None:
    stage = Stage(ClosedModel, script, connections, Wires(), numbers=iter(range(100)))
    stage.wires.run()
    assert stage.recorder.messages == {"accepted": 100}
    assert stage.finished == 1
    assert stage.scheduler.connections_peak <= connections
    assert max(stage.lates_us("transaction")) == 0
    expected = {"once": 100}.get(script.name, -(-100 // 7) if script.iterations == 7 and connections == 1 else None)
    assert expected is None or stage.wires.connected == expected


def test_the_closed_model_ends_in_time() -> None:
    stage = Stage(ClosedModel, repeated(iterations=10**9), 2, Wires(), numbers=count(), end_ns=100 * MS)
    stage.wires.run()
    assert stage.finished == 1
    # 2 ms until the first MAIL, then 4 ms a message; what was begun before the end is finished
    assert stage.recorder.messages == {"accepted": 2 * 25}


def test_the_closed_model_rests_before_it_knocks_again() -> None:
    stage = Stage(ClosedModel, repeated(), 1, Wires(refuse=lambda now_ns: now_ns < 500 * MS), numbers=iter(range(20)))
    stage.wires.run()
    assert stage.finished == 1
    assert [at // MS for at in stage.wires.attempts_ns[:7]] == [0, 0, 50, 150, 350, 750, 793]
    assert stage.recorder.messages == {"failed": 5, "accepted": 15}
    assert stage.recorder.errors == {api.CONNECT_REFUSED: 5}


def arrivals(every_ns: int, number: int) -> Iterable[tuple[int, int]]:
    return ((i, i * every_ns) for i in range(number))


def open_stage(script: Script, connections: int, every_ms: int, number: int, service_ms: int = 1, **options: Any) -> Stage:
    schedule = iter(arrivals(every_ms * MS, number))
    return Stage(OpenModel, script, connections, Wires(service_ms * MS), arrivals=schedule, start_ns=0, **options)


@pytest.mark.parametrize("script", [repeated(iterations=7), repeated(iterations=10**9), ONCE])
def test_the_open_model_keeps_its_schedule(script: Script) -> None:
    stage = open_stage(script, connections=10, every_ms=10, number=50)
    stage.wires.run()
    assert stage.recorder.messages == {"accepted": 50}
    assert stage.finished == 1
    assert stage.scheduler.waited == 0
    assert stage.scheduler.late_ns == [0] * 50


def test_an_arrival_without_a_connection_waits_and_its_wait_is_counted() -> None:
    # one connection, 4 ms a message, an arrival each 2 ms: the i-th waits about 2 ms longer than the one before it
    stage = open_stage(repeated(iterations=10**9), connections=1, every_ms=2, number=10)
    stage.wires.run()
    assert stage.recorder.messages == {"accepted": 10}
    assert stage.lates_us("transaction") == [2000 + 2000 * i for i in range(10)]
    assert stage.scheduler.waited == 9
    assert stage.scheduler.connections_peak == 1


def test_or_it_is_dropped() -> None:
    stage = open_stage(repeated(iterations=10**9), connections=1, every_ms=2, number=10, drop=True)
    stage.wires.run()
    counts = stage.recorder.messages
    assert counts["dropped"] >= 4
    assert sum(counts.values()) == 10
    assert max(stage.lates_us("transaction")) <= 2000  # the first has to connect


def test_a_late_wake_up_is_the_generator_s_own_lateness() -> None:
    stage = open_stage(repeated(), connections=10, every_ms=10, number=3)
    stage.wires.call_at(0, lambda now_ns: None)
    stage.wires.run(until_ns=9 * MS)
    stage.wires.now_ns = 13 * MS
    stage.wires.events = [(max(when, 13 * MS), order, call) for when, order, call in stage.wires.events]
    stage.wires.run()
    assert stage.scheduler.late_ns == [0, 3 * MS, 0]
    assert stage.recorder.messages == {"accepted": 3}


@pytest.mark.parametrize("connections", [1, 20])
def test_leaving_early_counts_every_arrival_that_was_issued(connections: int) -> None:
    stage = open_stage(repeated(iterations=10**9), connections=connections, every_ms=2, number=1000)
    stage.wires.call_at(101 * MS, stage.scheduler.stop_arrivals)
    stage.wires.run()
    assert stage.finished == 1
    counts = stage.recorder.messages
    assert sum(counts.values()) == 51
    assert counts.get("interrupted", 0) == (0 if connections == 20 else 51 - counts["accepted"])


def test_a_cut_stops_the_sessions_and_forgets_nobody() -> None:
    stage = open_stage(repeated(iterations=10**9), connections=2, every_ms=1, number=100)
    stage.wires.run(until_ns=50 * MS)
    sessions: list[ClientSession] = stage.scheduler.interrupt()
    for session in sessions:
        session.connection.closing = True
        session.connection_lost(api.STOPPED, "", stage.wires.now_ns)
    assert stage.finished == 1
    assert sum(stage.recorder.messages.values()) == 51
    assert stage.recorder.messages["interrupted"] > 2


def test_a_refused_connection_fails_its_arrival_and_no_other() -> None:
    stage = open_stage(repeated(), connections=3, every_ms=10, number=20)
    stage.wires.refuse = lambda now_ns: 50 * MS <= now_ns < 100 * MS
    stage.wires.run()
    counts = stage.recorder.messages
    assert counts["accepted"] + counts.get("failed", 0) == 20
    assert stage.finished == 1


# -- books ------------------------------------------------------------------------------------------------------------


def counted(recorders: Recorders) -> dict[str, dict[str, int]]:
    """The messages in each book that has any."""
    found: dict[str, Any] = {name: getattr(recorders, name).drain().messages for name in ("warmup", "baseline", "steady")}
    for domain, (baseline, recorder) in recorders.by_domain.items():
        found |= {f"baseline@{domain}": baseline.drain().messages, f"steady@{domain}": recorder.drain().messages}
    return {name: dict(messages) for name, messages in found.items() if messages}


def by_domain(script: Script) -> RecordersByDomain:
    """Three arrivals of ten are for a.example, one for b.example; others are for domains that nobody asked for."""
    return RecordersByDomain(
        script.reply_count, ["a.example", "b.example"], lambda n: "aaabccccc"[n % 10 : n % 10 + 1] + ".example"
    )


@pytest.mark.parametrize("script", [repeated(iterations=7), repeated(iterations=10**9), ONCE])
def test_the_closed_model_counts_each_arrival_in_its_domain(script: Script) -> None:
    recorders = by_domain(script)
    stage = Stage(ClosedModel, script, 3, Wires(), recorders, numbers=iter(range(100)))
    stage.wires.run()
    assert counted(recorders) == {
        "steady": {"accepted": 60}, "steady@a.example": {"accepted": 30}, "steady@b.example": {"accepted": 10}
    }  # fmt: skip


def test_a_clock_that_was_read_earlier_changes_no_book() -> None:
    # a session is told the time at which its read completed; a timer that ran before it may have been told a later one
    recorders = by_domain(ONCE)
    stage = Stage(ClosedModel, ONCE, 1, Wires(), recorders, numbers=count(2))
    assigned: list[tuple[int, object]] = []
    session: Any = SimpleNamespace(assign=lambda n, intended_ns, recorder: assigned.append((n, recorder)))
    for now_ns in (50, 40, 30, 60):
        stage.scheduler.next_arrival(session, now_ns)
    assert assigned == [(n, recorders.of(n, 0)) for n in range(2, 6)]


@pytest.mark.parametrize("drop", [False, True])
def test_the_open_model_counts_each_arrival_in_its_domain_whatever_becomes_of_it(drop: bool) -> None:
    script = repeated(iterations=10**9)
    recorders = by_domain(script)
    schedule = iter(arrivals(2 * MS, 100))
    stage = Stage(OpenModel, script, 1, Wires(), recorders, arrivals=schedule, start_ns=0, drop=drop)
    if not drop:
        stage.wires.call_at(150 * MS, stage.scheduler.stop_arrivals)
    stage.wires.run()
    found = counted(recorders)
    sums = {name: sum(messages.values()) for name, messages in found.items()}
    issued = 100 if drop else 75
    expected = {domain: sum(1 for n in range(issued) if n % 10 in tens) for domain, tens in (("a", (0, 1, 2)), ("b", (3,)))}
    assert {name: sums[f"steady@{name}.example"] for name in "ab"} == expected
    assert sum(sums.values()) == issued
    assert found["steady@a.example"]["dropped" if drop else "interrupted"] > 0


@pytest.mark.parametrize("make", [lambda script: Recorders(script.reply_count), by_domain], ids=["whole", "by domain"])
def test_a_session_that_goes_on_changes_its_book_with_the_phase(make: Callable[[Script], Recorders]) -> None:
    script = repeated(iterations=10**9)
    recorders = make(script)
    recorders.begin(100 * MS, 200 * MS)
    stage = Stage(
        ClosedModel, script, 1, Wires(), recorders, numbers=count(), end_ns=300 * MS, warmup_numbers=count(10**12),
        measure_ns=100 * MS,
    )  # fmt: skip
    stage.wires.run()
    found = counted(recorders)
    sums = {
        phase: sum(messages["accepted"] for name, messages in found.items() if name.partition("@")[0] == phase)
        for phase in ("warmup", "baseline", "steady")
    }
    assert sums == {"warmup": 25, "baseline": 25, "steady": 25}
    if recorders.by_domain:
        assert found["baseline@b.example"] == {"accepted": 3}
        assert "warmup@b.example" not in found
