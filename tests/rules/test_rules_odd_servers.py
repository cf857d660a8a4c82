"""Verdicts on servers that are unusual, and on servers whose fault looks like another."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
import trio
from check_sink import check_sink, client_context, server_context
from odd_servers import (
    LineLimitSession,
    NoNoopSession,
    RunsTextSession,
    SilentNoopSession,
    SynchronizedSession,
    TlsFirst530Session,
    TlsFirstSession,
)

from smtpbench.engine import api
from smtpbench.engine.connection import Route
from smtpbench.fuzz.mutation import command_step, without_wrong_ends_of_text
from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, fuzz_target
from smtpbench.rules import rule as r
from smtpbench.rules.discover import Fixture, discover
from smtpbench.rules.register import BY_NAME
from smtpbench.rules.reply_tracker import Violation, find_violations, without_wrong_ends
from smtpbench.rules.rule import INCONCLUSIVE, PASS, VIOLATED
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.session import script as s
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import session_runner
from smtpbench.session.script import Script, Step
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.mutants import MUTANTS
from smtpbench.sink.serve import sink_running
from smtpbench.smtp import state
from smtpbench.target import Access, parse_target

_LAST_IN_A_GROUP = (b"EHLO", b"DATA", b"VRFY", b"EXPN", b"TURN", b"QUIT", b"NOOP")


@pytest.mark.parametrize("recipient", ["", "b@recipient.example"])
def test_pipelined_groups_end_with_the_commands_that_must_be_last(recipient: str) -> None:
    probe = BY_NAME["pipelining"].probe
    assert probe is not None
    _, joined = probe(TargetInfo(recipient=recipient, keywords_before_tls={"PIPELINING": ""}))
    groups = [step.wire for step in joined.steps if isinstance(step.wire, bytes) and step.wire]
    assert any(group.count(b"\r\n") > 1 for group in groups)
    for group in groups:
        commands = group.split(b"\r\n")[:-2]
        assert not [command for command in commands if command[:4].upper() in _LAST_IN_A_GROUP]


def test_server_that_enforces_pipelined_groups_passes() -> None:
    assert check_sink(["pipelining", "segmentation"], SynchronizedSession)["pipelining"].verdict.status == PASS


@pytest.mark.parametrize("session", [ServerSession, MUTANTS["pipelining"]])
def test_pipelining_still_tells_a_server_that_loses_a_command(session: type[ServerSession]) -> None:
    assert (check_sink(["pipelining"], session)["pipelining"].verdict.status == PASS) == (session is ServerSession)


@pytest.mark.parametrize("session", [TlsFirstSession, TlsFirst530Session])
def test_auth_that_is_refused_for_another_reason_is_inconclusive(session: type[TlsFirstSession]) -> None:
    for name, result in check_sink(["auth-order", "auth-input", "auth-mechanism", "auth-bypass"], session).items():
        assert result.verdict.status == INCONCLUSIVE, name
        assert str(session.code) in result.verdict.actual


def fuzz(session: type[ServerSession], *families: str, cases: int = 300, timeout_ns: int = 3_000_000_000) -> FuzzResult:
    plan = CampaignPlan(cases, None, 1, 20, families, 20, shrink_s=0.5)

    async def main() -> FuzzResult:
        async with sink_running(session_class=session) as sink:
            access = Access(parse_target(f"smtp://127.0.0.1:{sink.port}"), timeout_ns=timeout_ns)
            return await fuzz_target(FuzzRequest(load_scenario(find_scenario("relay")), access, plan))

    return trio.run(main)


def test_server_that_enforces_groups_has_no_finding_of_fuzz() -> None:
    assert fuzz(SynchronizedSession, "pipeline", "order").findings == []


@pytest.mark.parametrize("session", [RunsTextSession, LineLimitSession])
def test_text_that_is_read_as_commands_is_one_violation_and_one_finding(session: type[ServerSession]) -> None:
    names = ["eod-lf-lf", "eod-lf-crlf", "eod-crlf-lf", "eod-cr", "eod-odd", "data-desync"]
    results = check_sink(names, session)
    assert [name for name, result in results.items() if result.violated] == ["data-desync"]
    findings = fuzz(session, "end", "dots").findings
    assert [(finding.rule, finding.cause) for finding in findings] == [("data-desync", "")]


@pytest.mark.parametrize("name", ["eod-lf-lf", "eod-lf-crlf", "eod-cr"])
def test_wrong_end_is_still_found(name: str) -> None:
    assert check_sink([name], MUTANTS[name])[name].violated
    assert name in {finding.rule for finding in fuzz(MUTANTS[name], "end", cases=150).findings}


@pytest.mark.parametrize(
    ("octets", "without"),
    [
        (b"a\n.\nb\r\n.\r\n", b"a\nx\nb\r\n.\r\n"),
        (b"a\r.\r.\rb\r\n..\r\n.\r\n", b"a\rx\rx\rb\r\n..\r\n.\r\n"),
        (b"a\r\n. \r\n.\n.\n", b"a\r\nx \r\nx\nx\n"),
        (b"a.b\r\n.\r\n", b"a.b\r\n.\r\n"),
    ],
)
def test_control_differs_in_the_dots_of_wrong_ends_only(octets: bytes, without: bytes) -> None:
    assert without_wrong_ends(octets) == without
    step = replace(command_step(octets), split=(octets[:3], octets[3:]))
    (control,) = without_wrong_ends_of_text([step])
    assert control.wire == without == b"".join(control.split)


@pytest.mark.parametrize("session", [NoNoopSession, SilentNoopSession])
def test_noop_that_does_not_work_is_not_blamed_on_case_and_health(session: type[ServerSession]) -> None:
    results = check_sink(["verb-case", "health"], session, timeout_ns=300_000_000)
    assert not [name for name, result in results.items() if result.violated]


def test_verbs_in_mixed_case_are_still_compared_with_upper_case() -> None:
    class OnlyUpperCase(NoNoopSession):
        __slots__ = ()

        def handle_command(self, line: bytes) -> bytes:
            return super().handle_command(line) if line[:4].isupper() else b"500 5.5.2 Not recognised\r\n"

    verdict = check_sink(["verb-case"], OnlyUpperCase)["verb-case"].verdict
    assert (verdict.status, verdict.actual) == (VIOLATED, "the server replied 500 to rSeT")


def test_server_that_delays_noop_gets_fewer_of_them() -> None:
    def commands(noop_ns: int) -> int:
        probe = BY_NAME["health"].probe
        assert probe is not None
        return max(len(step.expected_replies) for step in probe(TargetInfo(noop_ns=noop_ns))[0].steps)

    assert commands(100_000) == 10_000
    assert commands(100_000_000) == 20
    assert commands(10_000_000_000) == 2


def test_discovery_measures_noop() -> None:
    async def main() -> TargetInfo:
        async with sink_running(session_class=SilentNoopSession) as sink:
            route = Route(socket.AF_INET, ("127.0.0.1", sink.port))
            async with session_runner(route, 200_000_000) as runner:
                return (await discover(runner, Fixture()))[0]

    assert trio.run(main).noop_code == 0


def test_fuzz_does_not_report_noop_that_never_gets_a_reply() -> None:
    findings = fuzz(SilentNoopSession, "order", cases=60, timeout_ns=200_000_000).findings
    assert "no reply to NOOP" not in {finding.cause for finding in findings}


def test_half_close_inside_tls_shows_no_fault_of_a_correct_server() -> None:
    async def main() -> list[Violation]:
        async with sink_running(ServerContext(implicit_tls=True), tls=server_context()) as sink:
            route = Route(socket.AF_INET, ("127.0.0.1", sink.port), client_context(), "localhost")
            async with session_runner(route, 2_000_000_000) as runner:
                found = []
                for kind in (s.HALF_CLOSE, s.FIN):
                    steps = (command_step(b"EHLO c.example\r\n"), Step(kind), Step(s.PAUSE, pause_ns=20_000_000))
                    script = Script.of("half", steps, greeting=s.ANY_GREETING, implicit_tls=True)
                    session_result = await runner.run(script, TrackedSession)
                    assert session_result.transcript.received().endswith(b"\r\n")
                    assert session_result.transcript.received().isascii()
                    found += find_violations(Dialogue.of(session_result.transcript))
                return found

    assert trio.run(main) == []


class _NoRcptNeededSession(ServerSession):
    """Accepts a message without RCPT, and a second MAIL after RCPT."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        if line.startswith(b"MAIL FROM:<") and self.state == state.RCPT:
            return b"250 2.1.0 Ok\r\n"
        if line == b"DATA\r\n" and self.state == state.MAIL:
            self.state = state.RCPT
        return super().handle_command(line)


def test_message_without_recipient_is_not_blamed_on_a_second_mail() -> None:
    results = check_sink(["nested-mail-rcpt", "no-rcpt"], _NoRcptNeededSession)
    assert results["nested-mail-rcpt"].verdict.status == INCONCLUSIVE
    assert results["no-rcpt"].verdict.status == VIOLATED


class _NewTransactionSession(ServerSession):
    """Begins a new transaction with a second MAIL."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        if line.startswith(b"MAIL FROM:<") and self.state in state.TRANSACTION:
            self.clear_transaction()
        return super().handle_command(line)


def test_second_mail_may_begin_a_new_transaction() -> None:
    assert check_sink(["nested-mail-rcpt"], _NewTransactionSession)["nested-mail-rcpt"].verdict.status == PASS


class _NoMailSession(ServerSession):
    """Refuses every MAIL."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        return b"550 5.7.1 Not from you\r\n" if line.startswith(b"MAIL") else super().handle_command(line)


def test_refusal_of_every_mail_is_not_blamed_on_the_parameter_auth() -> None:
    result = check_sink(["auth-parameter"], _NoMailSession)["auth-parameter"]
    assert result.verdict == r.inconclusive("the server replied 550 to MAIL")


class _DyingSession(ServerSession):
    """The server dies of some input: it resets that connection and accepts no more."""

    __slots__ = ()
    fatal = b""
    dead = False

    def connected(self, now_ns: int) -> api.Out:
        if type(self).dead:
            self.pending_action = api.RESET
            return b""
        return super().connected(now_ns)

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        if type(self).fatal in data:
            type(self).dead = True
            self.pending_action = api.RESET
            return b""
        return super().receive(data, now_ns)


@pytest.mark.parametrize("fatal", [b'<""@', b"\r\n" * 20, b"XYZZY\r\nRSET\r\n"])
def test_input_that_servers_have_died_of_is_tried(fatal: bytes) -> None:
    session = type("Dying", (_DyingSession,), {"fatal": fatal, "__slots__": ()})
    result = check_sink(["health"], session)["health"]
    assert result.violated
    assert result.session_result is not None
    assert any(fatal in entry.data for entry in result.session_result.transcript.entries)


class _DiesOfSecondMechanism(_DyingSession):
    """The server dies of AUTH with another mechanism than that of an exchange that was cancelled."""

    __slots__ = ("cancelled",)

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        cancelled = getattr(self, "cancelled", False)
        if data.startswith(b"*"):
            self.cancelled = True
        if cancelled and data.startswith(b"AUTH LOGIN"):
            type(self).dead = True
            self.pending_action = api.RESET
            return b""
        return ServerSession.receive(self, data, now_ns)


def test_second_mechanism_after_a_cancelled_one_is_tried() -> None:
    result = check_sink(["health"], _DiesOfSecondMechanism)["health"]
    assert result.violated
    assert result.session_result is not None
    sent = [entry.data for entry in result.session_result.transcript.entries]
    assert any(data.startswith(b"AUTH LOGIN") for data in sent)
