"""Servers that reply to nothing, or without an end: no rule passes, and no memory is spent on them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable

import pytest
import trio
from check_sink import check_sink
from odd_servers import (
    BinarySession,
    EchoSession,
    EhloOnlySession,
    EndlessLinesSession,
    EndlessReplySession,
    LaterEmptyLinesSession,
    LaterEndlessSession,
    SilentSession,
)

from smtpbench.check.run import CheckRequest, CheckResult, run_check
from smtpbench.engine.connection import CLIENT_READ_BYTES
from smtpbench.errors import CannotRun
from smtpbench.fuzz.families import FAMILIES
from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, fuzz_target
from smtpbench.rules.register import RULES
from smtpbench.rules.rule import INCONCLUSIVE, PASS, VIOLATED
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.session.server import ServerSession
from smtpbench.session.transcript import MAX_RECEIVED_LINES
from smtpbench.sink.serve import sink_running
from smtpbench.smtp.reply import MAX_KEPT_REPLY_BYTES
from smtpbench.target import Access, parse_target

_TIMEOUT_NS = 200_000_000
SILENT = {
    SilentSession: "no reply in time",
    EchoSession: "the reply to it is no reply of SMTP",
    EndlessReplySession: "a reply has no end",
    EndlessLinesSession: "a reply has no end",
    BinarySession: "the greeting is no reply of SMTP",
}


def access_to(port: int) -> Access:
    return Access(parse_target(f"smtp://127.0.0.1:{port}"), timeout_ns=_TIMEOUT_NS)


async def fuzz_port(port: int) -> FuzzResult:
    plan = CampaignPlan(20, None, 1, 4, tuple(FAMILIES), 20, shrink_s=0.1)
    return await fuzz_target(FuzzRequest(load_scenario(find_scenario("relay")), access_to(port), plan))


async def check_port(port: int) -> CheckResult:
    return await run_check(CheckRequest(access_to(port), RULES))


async def fuzz(session: type[ServerSession]) -> FuzzResult:
    async with sink_running(session_class=session) as sink:
        return await fuzz_port(sink.port)


@pytest.mark.parametrize("session", SILENT)
@pytest.mark.parametrize("judge", [check_port, fuzz_port])
def test_server_that_replies_to_no_command_cannot_be_judged(
    judge: Callable[[int], Awaitable[object]], session: type[ServerSession]
) -> None:
    async def main() -> None:
        async with sink_running(session_class=session) as sink:
            with pytest.raises(CannotRun, match=f"no session gets past EHLO: .*{SILENT[session]}"):
                await judge(sink.port)

    trio.run(main)


def test_no_rule_passes_whose_stimulus_had_no_reply() -> None:
    names = ["rset-250", "no-side-effect", "verb-case", "unknown-500", "quit", "enhanced-code", "close-without-421"]
    results = check_sink([*names, "ehlo-grammar"], EhloOnlySession, timeout_ns=_TIMEOUT_NS)
    assert {name for name, result in results.items() if result.verdict.status == PASS} == {"ehlo-grammar"}
    assert results["rset-250"].verdict.status == INCONCLUSIVE
    assert results["rset-250"].verdict.actual == "the server did not reply to RSET in time"


def test_invariant_is_evaluated_although_its_own_probe_had_no_reply() -> None:
    class BadCode(EhloOnlySession):
        __slots__ = ()

        def handle_command(self, line: bytes) -> bytes:
            return b"999 x\r\n" if line == b"NOOP\r\n" else super().handle_command(line)

    results = check_sink(["code-range", "noop-250"], BadCode, timeout_ns=_TIMEOUT_NS)
    assert results["code-range"].verdict.status == VIOLATED


def test_endless_replies_are_cut() -> None:
    results = check_sink(["rset-250", "noop-250", "quit"], LaterEndlessSession, timeout_ns=2_000_000_000)
    for result in results.values():
        assert result.verdict.status == INCONCLUSIVE
        assert result.session_result is not None
        assert result.session_result.transcript.received_bytes < 2 * MAX_KEPT_REPLY_BYTES


def test_lines_count_like_the_memory_that_their_replies_take() -> None:
    tracemalloc.start()
    results = check_sink(["rset-250", "noop-250", "quit"], LaterEmptyLinesSession, timeout_ns=2_000_000_000)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for result in results.values():
        assert result.session_result is not None
        assert result.session_result.transcript.received_lines < MAX_RECEIVED_LINES + CLIENT_READ_BYTES
    assert peak_bytes < 30_000_000


def test_endless_reply_is_a_finding_of_fuzz() -> None:
    fuzz_result = trio.run(fuzz, LaterEndlessSession)
    assert ("a reply without an end", "hang") in {(finding.cause, finding.severity) for finding in fuzz_result.findings}


def test_campaign_passes_no_rule_that_it_did_not_test() -> None:
    fuzz_result = trio.run(fuzz, ServerSession)
    rules = fuzz_result.result["rules"]
    assert rules["tls-inject"]["verdict"] == INCONCLUSIVE
    assert rules["tls-inject"]["actual"] == "STARTTLS is not offered"
    assert rules["reply-syntax"]["verdict"] == PASS
