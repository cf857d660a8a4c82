"""Verdicts on servers that are unusual, and on servers whose fault looks like another."""

from __future__ import annotations

import pytest
import trio
from check_sink import check_sink
from odd_servers import SynchronizedSession, TlsFirst530Session, TlsFirstSession

from smtpbench.fuzz.campaign import CampaignPlan
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, fuzz_target
from smtpbench.rules.register import BY_NAME
from smtpbench.rules.rule import INCONCLUSIVE, PASS
from smtpbench.rules.target_info import TargetInfo
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.session.server import ServerSession
from smtpbench.sink.mutants import MUTANTS
from smtpbench.sink.serve import sink_running
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


def test_server_that_enforces_groups_has_no_finding_of_fuzz() -> None:
    plan = CampaignPlan(300, None, 1, 20, ("pipeline", "order"), 20, shrink_s=1.0)

    async def main() -> FuzzResult:
        async with sink_running(session_class=SynchronizedSession) as sink:
            access = Access(parse_target(f"smtp://127.0.0.1:{sink.port}"))
            return await fuzz_target(FuzzRequest(load_scenario(find_scenario("relay")), access, plan))

    assert trio.run(main).findings == []
