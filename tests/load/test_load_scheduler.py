"""Arrival schedulers on a simulated network, whose clock jumps from event to event."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
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
from smtpbench.session.context import LATE_SHIFT, SessionContext
from smtpbench.session.script import Script

MS = 1_000_000


class FakeTransport:
    """A network and a server, simulated on a clock that jumps from event to event.

    Args:
        service_ns: Time from a command to its reply.
        refuse: Returns whether a connection at a time is refused.
        stall_ns: Start and end of an interval in which the server sends no reply; due replies follow at its end.
    """

    def __init__(
        self,
        service_ns: int = MS,
        refuse: Callable[[int], bool] = lambda now_ns: False,
        stall_ns: tuple[int, int] = (0, 0),
    ) -> None:
        self.now_ns = 0
        self.service_ns = service_ns
        self.refuse = refuse
        self.stall_ns = stall_ns
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
        session.received_ns = self.now_ns
        session.connected(self.now_ns)
        self._answer(connection, b"220 s\r\n")
        return connection

    def push(self, connection: Any, out: api.Out) -> None:
        self._serve(connection, out)

    def _answer(self, connection: Any, reply: bytes) -> None:
        when_ns = self.now_ns + self.service_ns
        if self.stall_ns[0] <= when_ns < self.stall_ns[1]:
            when_ns = self.stall_ns[1]
        self.call_at(when_ns, lambda now_ns: self._deliver(connection, reply))

    def _deliver(self, connection: Any, reply: bytes) -> None:
        if not connection.closing:
            connection.session.received_ns = self.now_ns
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


class OneRecorder:
    """Counts every arrival in one recorder."""

    def __init__(self, recorder: FakeRecorder) -> None:
        self.recorder = recorder

    def of(self, n: int, when_ns: int) -> FakeRecorder:
        return self.recorder

    def valid_until_ns(self, when_ns: int) -> int:
        return api.NEVER


class Simulation:
    """A scheduler on a simulated network.

    Attributes:
        recorder: Counts the arrivals, unless other recorders are given.
        finished: How often the scheduler said that it has finished.
    """

    def __init__(
        self,
        model: type[ArrivalScheduler],
        script: Script,
        connections: int,
        transport: FakeTransport,
        recorders: Recorders | None = None,
        **options: Any,
    ) -> None:
        self.transport = transport
        self.recorder = FakeRecorder(script.reply_count)
        self.finished = 0
        self.scheduler = model(
            transport, Route(2, ""), connections, recorders or OneRecorder(self.recorder), self._finish, **options
        )
        self.scheduler.context = SessionContext(script, self.scheduler, timeout_ns=10**9)
        transport.call_at(0, self.scheduler.start)

    def _finish(self) -> None:
        self.finished += 1

    def late_us(self, metric: str) -> list[int]:
        """Return how late each sample of a metric began."""
        return [sample >> LATE_SHIFT for sample in self.recorder.timings[metric, True]]


ONCE = Script.of("once", (repeated().steps[0], *transaction(1), repeated().steps[-1]), teardown=5)


@pytest.mark.parametrize("script", [repeated(iterations=7), repeated(iterations=10**9), ONCE])
@pytest.mark.parametrize("connections", [1, 3, BURST + 1])
def test_closed_model_issues_each_number_once_and_limits_connections(script: Script, connections: int) -> None:
    simulation = Simulation(ClosedModel, script, connections, FakeTransport(), numbers=iter(range(100)))
    simulation.transport.run()
    assert simulation.recorder.messages == {"accepted": 100}
    assert simulation.finished == 1
    assert simulation.scheduler.connections_peak <= connections
    assert max(simulation.late_us("transaction")) == 0
    expected = {"once": 100}.get(script.name, -(-100 // 7) if script.iterations == 7 and connections == 1 else None)
    assert expected is None or simulation.transport.connected == expected


def test_closed_model_ends_at_its_end_time() -> None:
    simulation = Simulation(ClosedModel, repeated(iterations=10**9), 2, FakeTransport(), numbers=count(), end_ns=100 * MS)
    simulation.transport.run()
    assert simulation.finished == 1
    # 2 ms until the first MAIL, then 4 ms for each message; arrivals that began before the end are completed
    assert simulation.recorder.messages == {"accepted": 2 * 25}


def test_closed_model_backs_off_after_failed_connections() -> None:
    simulation = Simulation(
        ClosedModel, repeated(), 1, FakeTransport(refuse=lambda now_ns: now_ns < 500 * MS), numbers=iter(range(20))
    )
    simulation.transport.run()
    assert simulation.finished == 1
    assert [at // MS for at in simulation.transport.attempts_ns[:7]] == [0, 0, 50, 150, 350, 750, 793]
    assert simulation.recorder.messages == {"failed": 5, "accepted": 15}
    assert simulation.recorder.errors == {api.CONNECT_REFUSED: 5}


def arrivals(interval_ns: int, number: int) -> Iterator[tuple[int, int]]:
    return ((i, i * interval_ns) for i in range(number))


def open_simulation(
    script: Script, connections: int, interval_ms: int, number: int, service_ms: int = 1, **options: Any
) -> Simulation:
    schedule = arrivals(interval_ms * MS, number)
    return Simulation(
        OpenModel, script, connections, FakeTransport(service_ms * MS), arrivals=schedule, start_ns=0, **options
    )


@pytest.mark.parametrize("script", [repeated(iterations=7), repeated(iterations=10**9), ONCE])
def test_open_model_follows_its_schedule(script: Script) -> None:
    simulation = open_simulation(script, connections=10, interval_ms=10, number=50)
    simulation.transport.run()
    assert simulation.recorder.messages == {"accepted": 50}
    assert simulation.finished == 1
    assert simulation.scheduler.waited == 0
    assert simulation.scheduler.late_ns == [0] * 50


def test_arrival_without_connection_waits_and_its_wait_is_recorded() -> None:
    # one connection, 4 ms for each message, an arrival every 2 ms: each waits 2 ms longer than the one before it
    simulation = open_simulation(repeated(iterations=10**9), connections=1, interval_ms=2, number=10)
    simulation.transport.run()
    assert simulation.recorder.messages == {"accepted": 10}
    assert simulation.late_us("transaction") == [2000 + 2000 * i for i in range(10)]
    assert simulation.scheduler.waited == 9
    assert simulation.scheduler.connections_peak == 1


def test_stall_of_the_server_is_in_response_times_and_hardly_in_service_times() -> None:
    # an arrival every 5 ms for 2 s; no reply for 1 s of them; 10 connections
    transport = FakeTransport(stall_ns=(500 * MS, 1500 * MS))
    simulation = Simulation(OpenModel, repeated(iterations=10**9), 10, transport, arrivals=arrivals(5 * MS, 400), start_ns=0)
    transport.run()
    assert simulation.recorder.messages == {"accepted": 400}
    samples = simulation.recorder.timings["transaction", True]
    service_ms = [(sample & (1 << LATE_SHIFT) - 1) // MS for sample in samples]
    response_ms = [service + (sample >> LATE_SHIFT) // 1000 for service, sample in zip(service_ms, samples, strict=True)]
    # only a message that the stall met on a connection took longer than the 4 ms of its 4 replies
    assert 0 < sum(service > 4 for service in service_ms) <= 10
    # the 200 arrivals of the stall waited for what was left of it: half of them for more than 500 ms
    assert sum(response > 500 for response in response_ms) == pytest.approx(100, abs=10)
    assert max(response_ms) == pytest.approx(1000, abs=10)
    # without the lateness of the arrivals, 97 % of the messages would seem to have met no stall
    assert sorted(service_ms)[int(0.97 * 400)] == 4
    assert sorted(response_ms)[int(0.97 * 400)] > 900


def test_arrival_without_connection_is_dropped_on_request() -> None:
    simulation = open_simulation(repeated(iterations=10**9), connections=1, interval_ms=2, number=10, drop=True)
    simulation.transport.run()
    counts = simulation.recorder.messages
    assert counts["dropped"] >= 4
    assert sum(counts.values()) == 10
    assert max(simulation.late_us("transaction")) <= 2000  # the first one waits for the connection


def test_late_timer_is_recorded_as_lateness_of_the_generator() -> None:
    simulation = open_simulation(repeated(), connections=10, interval_ms=10, number=3)
    simulation.transport.call_at(0, lambda now_ns: None)
    simulation.transport.run(until_ns=9 * MS)
    simulation.transport.now_ns = 13 * MS
    simulation.transport.events = [(max(when, 13 * MS), order, call) for when, order, call in simulation.transport.events]
    simulation.transport.run()
    assert simulation.scheduler.late_ns == [0, 3 * MS, 0]
    assert simulation.recorder.messages == {"accepted": 3}


@pytest.mark.parametrize("connections", [1, 20])
def test_every_issued_arrival_is_counted_after_an_early_end(connections: int) -> None:
    simulation = open_simulation(repeated(iterations=10**9), connections=connections, interval_ms=2, number=1000)
    simulation.transport.call_at(101 * MS, simulation.scheduler.stop_arrivals)
    simulation.transport.run()
    assert simulation.finished == 1
    counts = simulation.recorder.messages
    assert sum(counts.values()) == 51
    assert counts.get("interrupted", 0) == (0 if connections == 20 else 51 - counts["accepted"])


def test_every_issued_arrival_is_counted_after_an_interruption() -> None:
    simulation = open_simulation(repeated(iterations=10**9), connections=2, interval_ms=1, number=100)
    simulation.transport.run(until_ns=50 * MS)
    sessions: list[ClientSession] = simulation.scheduler.interrupt(simulation.transport.now_ns)
    for session in sessions:
        session.connection.closing = True
        session.connection_lost(api.STOPPED, "", simulation.transport.now_ns)
    assert simulation.finished == 1
    assert sum(simulation.recorder.messages.values()) == 51
    assert simulation.recorder.messages["interrupted"] > 2


def hanging_simulation() -> Simulation:
    """An arrival every 10 ms; the server answers for 45 ms, and then never."""
    transport = FakeTransport(stall_ns=(45 * MS, 10**12))
    return Simulation(OpenModel, repeated(iterations=10**9), 2, transport, arrivals=arrivals(10 * MS, 100), start_ns=0)


@pytest.mark.parametrize("by", ["interrupt", "stop_arrivals"])
def test_arrival_that_is_cut_off_is_at_least_as_late_as_the_cut(by: str) -> None:
    simulation = hanging_simulation()
    simulation.transport.run(until_ns=200 * MS)
    if by == "interrupt":
        sessions = simulation.scheduler.interrupt(200 * MS)
    else:
        simulation.scheduler.stop_arrivals(200 * MS)
        sessions = list(simulation.scheduler.sessions)
    for session in sessions:
        session.connection_lost(api.STOPPED, "", 200 * MS)
    late_ms = [sample.response_ns // MS for sample in simulation.recorder.censored if sample.metric == "message"]
    assert len(late_ms) == simulation.recorder.messages["interrupted"]
    assert sorted(late_ms) == list(range(0, 10 * len(late_ms), 10))
    # what waited for a connection has no service time; what waited for a reply has one, in the step that waited
    assert {sample.metric for sample in simulation.recorder.censored if sample.service_ns is not None}
    assert len(simulation.recorder.waits_ns) == 2


def test_arrivals_in_progress_are_known_to_be_late_before_they_are_cut_off() -> None:
    simulation = hanging_simulation()
    simulation.transport.run(until_ns=200 * MS)
    found = [sample for _, samples in simulation.scheduler.unanswered(200 * MS) for sample in samples]
    late_ms = [sample.response_ns // MS for sample in found if sample.metric == "message"]
    assert sorted(late_ms) == list(range(0, 10 * len(late_ms), 10))
    assert len(late_ms) >= 15
    assert not simulation.recorder.censored


def test_reply_that_times_out_is_as_late_as_the_time_out() -> None:
    transport = FakeTransport(stall_ns=(45 * MS, 10**12))
    simulation = Simulation(ClosedModel, repeated(iterations=10**9), 1, transport, numbers=iter(range(100)))
    transport.run(until_ns=200 * MS)
    (session,) = simulation.scheduler.sessions
    session.connection_lost(api.TIMEOUT, "", 1000 * MS)
    found = {sample.metric: sample for sample in simulation.recorder.censored}
    assert {"message", "transaction"} <= set(found)
    assert all(sample.service_ns == sample.response_ns > 900 * MS for sample in found.values())
    assert simulation.recorder.waits_ns == []


def test_refused_connection_fails_its_arrival_only() -> None:
    simulation = open_simulation(repeated(), connections=3, interval_ms=10, number=20)
    simulation.transport.refuse = lambda now_ns: 50 * MS <= now_ns < 100 * MS
    simulation.transport.run()
    counts = simulation.recorder.messages
    assert counts["accepted"] + counts.get("failed", 0) == 20
    assert simulation.finished == 1


# -- recorders ------------------------------------------------------------------------------------------------------------


def counted(recorders: Recorders) -> dict[str, dict[str, int]]:
    """Return the messages in each recorder that has any."""
    found: dict[str, Any] = {name: getattr(recorders, name).drain().messages for name in ("warmup", "baseline", "steady")}
    for domain, (baseline, recorder) in recorders.by_domain.items():
        found |= {f"baseline@{domain}": baseline.drain().messages, f"steady@{domain}": recorder.drain().messages}
    return {name: dict(messages) for name, messages in found.items() if messages}


def by_domain(script: Script) -> RecordersByDomain:
    """Return recorders for two domains: three of ten arrivals are for a.example, one is for b.example."""
    return RecordersByDomain(
        script.reply_count, ["a.example", "b.example"], lambda n: "aaabccccc"[n % 10 : n % 10 + 1] + ".example"
    )


@pytest.mark.parametrize("script", [repeated(iterations=7), repeated(iterations=10**9), ONCE])
def test_closed_model_counts_each_arrival_in_its_domain(script: Script) -> None:
    recorders = by_domain(script)
    simulation = Simulation(ClosedModel, script, 3, FakeTransport(), recorders, numbers=iter(range(100)))
    simulation.transport.run()
    assert counted(recorders) == {
        "steady": {"accepted": 60}, "steady@a.example": {"accepted": 30}, "steady@b.example": {"accepted": 10}
    }  # fmt: skip


def test_times_out_of_order_do_not_change_the_recorder() -> None:
    # a session receives the time at which its read completed; a timer that ran before it may have received a later time
    recorders = by_domain(ONCE)
    simulation = Simulation(ClosedModel, ONCE, 1, FakeTransport(), recorders, numbers=count(2))
    assigned: list[tuple[int, object]] = []
    session: Any = SimpleNamespace(assign=lambda n, intended_ns, recorder: assigned.append((n, recorder)))
    for now_ns in (50, 40, 30, 60):
        simulation.scheduler.next_arrival(session, now_ns)
    assert assigned == [(n, recorders.of(n, 0)) for n in range(2, 6)]


@pytest.mark.parametrize("drop", [False, True])
def test_open_model_counts_each_arrival_in_its_domain_whatever_its_outcome(drop: bool) -> None:
    script = repeated(iterations=10**9)
    recorders = by_domain(script)
    schedule = arrivals(2 * MS, 100)
    simulation = Simulation(OpenModel, script, 1, FakeTransport(), recorders, arrivals=schedule, start_ns=0, drop=drop)
    if not drop:
        simulation.transport.call_at(150 * MS, simulation.scheduler.stop_arrivals)
    simulation.transport.run()
    found = counted(recorders)
    sums = {name: sum(messages.values()) for name, messages in found.items()}
    issued = 100 if drop else 75
    expected = {domain: sum(1 for n in range(issued) if n % 10 in tens) for domain, tens in (("a", (0, 1, 2)), ("b", (3,)))}
    assert {name: sums[f"steady@{name}.example"] for name in "ab"} == expected
    assert sum(sums.values()) == issued
    assert found["steady@a.example"]["dropped" if drop else "interrupted"] > 0


@pytest.mark.parametrize("make", [lambda script: Recorders(script.reply_count), by_domain], ids=["whole", "by domain"])
def test_session_changes_its_recorder_with_the_phase(make: Callable[[Script], Recorders]) -> None:
    script = repeated(iterations=10**9)
    recorders = make(script)
    recorders.set_phases(100 * MS, 200 * MS)
    simulation = Simulation(
        ClosedModel, script, 1, FakeTransport(), recorders, numbers=count(), end_ns=300 * MS, warmup_numbers=count(10**12),
        measure_ns=100 * MS,
    )  # fmt: skip
    simulation.transport.run()
    found = counted(recorders)
    sums = {
        phase: sum(messages["accepted"] for name, messages in found.items() if name.partition("@")[0] == phase)
        for phase in ("warmup", "baseline", "steady")
    }
    assert sums == {"warmup": 25, "baseline": 25, "steady": 25}
    if recorders.by_domain:
        assert found["baseline@b.example"] == {"accepted": 3}
        assert "warmup@b.example" not in found


class LimitedTransport(FakeTransport):
    """A server that closes a connection after its third message, with a 421 that comes behind the reply."""

    def _serve(self, connection: Any, out: Any) -> None:
        connection.accepted = getattr(connection, "accepted", 0) + out.count(b"\r\n.\r\n")
        if out.startswith(b"MAIL") and connection.accepted == 3:
            out = b""
            self.call_at(self.now_ns, lambda now_ns: self._deliver(connection, b"421 4.7.0 enough\r\n"))
        super()._serve(connection, out)


@pytest.mark.parametrize("model", [ClosedModel, OpenModel])
def test_limit_of_messages_a_connection_fails_no_message(model: type[ArrivalScheduler]) -> None:
    transport = LimitedTransport()
    options: dict[str, Any] = {"numbers": iter(range(20))}
    if model is OpenModel:
        options = {"arrivals": arrivals(MS, 20), "start_ns": 0}  # more than two connections can serve: some wait
    simulation = Simulation(model, repeated(iterations=10**9), 2, transport, **options)
    transport.run()
    assert simulation.finished == 1
    assert simulation.recorder.messages == {"accepted": 20}
    assert set(simulation.recorder.errors) == {"closed_idle"}
    assert simulation.scheduler.connections_peak == 2
    assert transport.connected >= 7
