"""Servers that are busy: what they refused runs again, with fewer connections, and what they never served does not count."""

from __future__ import annotations

import pytest
from saved_results import rules_result
from simulated import campaign_on

from smtpbench.engine import api
from smtpbench.fuzz.admission import ATTEMPTS, Admission, Case
from smtpbench.measure.saved import FUZZ
from smtpbench.report.reading.findings import cases_of
from smtpbench.report.terminal.scorecard import findings_card
from smtpbench.session.server import ServerSession
from smtpbench.smtp.state import DATA


class _BusyServer(ServerSession):
    """Serves a few connections at a time and refuses the others."""

    __slots__ = ("counted",)
    served = 0
    most = 8
    refusal = b"421 4.7.0 Too many connections\r\n"

    def connected(self, now_ns: int) -> api.Out:
        server = type(self)
        self.counted = server.served < server.most
        if not self.counted:
            self.pending_action = api.CLOSE
            return self.refusal
        server.served += 1
        return super().connected(now_ns)

    def connection_lost(self, reason: str, detail: str, now_ns: int) -> None:
        if self.counted:
            type(self).served -= 1
        super().connection_lost(reason, detail, now_ns)


@pytest.mark.parametrize("refusal", [b"421 4.7.0 Too many connections\r\n", b"554 5.7.0 Too many connections\r\n", b""])
def test_refused_cases_run_again_with_fewer_connections(refusal: bytes) -> None:
    server = type("Busy", (_BusyServer,), {"refusal": refusal, "__slots__": ()})
    stats, _ = campaign_on(server, cases=400)
    assert (stats.generated, stats.run, stats.given_up) == (400, 400, 0)
    assert stats.retried > 0
    assert 1 <= stats.connections_lowest < 2 * _BusyServer.most
    assert stats.refusal == (f"a greeting of {refusal[:3].decode()}" if refusal else "no greeting")
    assert not stats.suspects


def test_421_to_the_first_command_is_a_refusal_too() -> None:
    class Later(_BusyServer):
        __slots__ = ()

        def connected(self, now_ns: int) -> api.Out:
            super().connected(now_ns)
            self.pending_action = api.NOTHING
            return b"220 mx.example\r\n"

        def receive(self, data: bytes, now_ns: int) -> api.Out:
            if self.counted:
                return super().receive(data, now_ns)
            self.pending_action = api.CLOSE
            return b"421 4.3.2 Busy\r\n"

    stats, _ = campaign_on(Later, cases=300)
    # a case whose mutation is in the first command is judged as it is
    assert stats.run + stats.given_up == 300
    assert stats.retried > 0
    assert stats.refusal == "a reply of 421 to the first command"


def test_campaign_without_refusals_is_not_slowed_down() -> None:
    stats, _ = campaign_on(ServerSession, cases=200)
    assert (stats.run, stats.retried, stats.given_up, stats.connections_lowest, stats.refusal) == (200, 0, 0, 0, "")


def test_violations_of_a_busy_server_are_found() -> None:
    class RcptAnywhere(_BusyServer):
        __slots__ = ()

        def handle_command(self, line: bytes) -> bytes:
            return b"250 Ok\r\n" if line.startswith(b"RCPT TO:<") else super().handle_command(line)

    stats, _ = campaign_on(RcptAnywhere, cases=200)
    assert {suspect.reproducibility for suspect in stats.suspects.values()} == {"3 of 3, deterministic"}
    assert "rcpt-first" in {rule for rule, _ in stats.suspects}


def test_server_that_serves_nobody_after_the_baseline_ends_the_campaign() -> None:
    class Closing(_BusyServer):
        __slots__ = ()
        connections = 0

        def connected(self, now_ns: int) -> api.Out:
            Closing.connections += 1
            Closing.most = 100 if Closing.connections <= 16 else 0
            return super().connected(now_ns)

    stats, took_s = campaign_on(Closing, cases=100_000)
    assert stats.run == 0
    assert stats.given_up == stats.generated <= 100
    assert took_s < 60


def test_server_that_refuses_the_baseline_is_named() -> None:
    class Full(_BusyServer):
        __slots__ = ()
        most = 0

    stats, took_s = campaign_on(Full)
    assert stats.silence == "a greeting of 421"
    assert stats.generated == 0
    assert took_s < 10


def test_number_of_connections_falls_once_for_cases_that_began_together() -> None:
    admission = Admission(40)
    serials = [admission.begin() for _ in range(40)]
    for serial in serials:
        admission.refuse(Case(serial, ()), serial, 40, 0.0, "no greeting")
    assert admission.connections == admission.lowest == 30
    for _ in range(8 * 30):
        admission.serve()
    assert admission.connections == 31
    admission.refuse(Case(41, ()), admission.begin(), 4, 0.0, "no greeting")
    assert (admission.connections, admission.lowest) == (3, 3)
    admission.refuse(Case(42, ()), admission.begin(), 3, 0.0, "no connection", is_busy=False)
    assert (admission.connections, admission.lowest) == (3, 3)


def test_case_is_given_up_after_some_attempts() -> None:
    admission, case, now_s = Admission(4), Case(7, ()), 0.0
    while case is not None:
        admission.refuse(case, admission.begin(), 1, now_s, "no greeting")
        if admission.given_up:
            break
        assert admission.next_due(now_s) is None
        now_s = admission.next_due_s
        due = admission.next_due(now_s)
        assert due is not None
        case = due
    assert (admission.given_up, admission.retried) == (1, ATTEMPTS - 1)
    assert now_s < 10


def test_output_counts_what_was_refused() -> None:
    counts = {"generated": 9, "run": 7, "retried": 5, "given_up": 2, "connections_lowest": 1, "refusal": "no greeting"}
    saved = rules_result(FUZZ, cases=counts)
    note = (
        "cases that the server refused (no greeting) ran again 5 times, on as few as 1 connection; "
        "2 cases given up, not counted as run"
    )
    assert cases_of(saved).notes == [note]
    assert f"{note}.\n" in findings_card(saved.result, color=False)


class _StrictServer(_BusyServer):
    """Refuses input that comes before its reply was due, and closes the connection; serves few connections at a time."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        in_text = self.state == DATA
        if not in_text and data.count(b"\n") > 1:
            self.pending_action = api.CLOSE
            return b"554 5.5.0 SMTP protocol synchronization error\r\n"
        return super().receive(data, now_ns)


def test_close_with_a_refusal_under_load_is_no_crash() -> None:
    stats, _ = campaign_on(_StrictServer, cases=600)
    assert stats.retried > 0
    assert not stats.target_gone
    assert "health" not in {rule for rule, _ in stats.suspects}
