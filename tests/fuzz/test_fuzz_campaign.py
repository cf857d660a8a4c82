"""A campaign on sinks: nothing on the clean one, the bug on a mutant, the same whatever the concurrency; deaths; files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import trio

from smtpbench.engine import api
from smtpbench.fuzz.campaign import CampaignPlan
from smtpbench.fuzz.mutation import FAMILIES
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, Known, fuzz_target
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import find_scenario, load_scenario, load_text
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.mutants import MUTANTS
from smtpbench.sink.serve import sink_running
from smtpbench.target import Access, parse_target


def access(port: int) -> Access:
    return Access(parse_target(f"smtp://127.0.0.1:{port}"))


def fuzzed(
    session: type[ServerSession] = ServerSession, *, cases: int = 300, connections: int = 30, **options: object
) -> FuzzResult:
    settings: dict[str, Any] = {"families": FAMILIES, "max_findings": 20, "shrink_s": 10.0} | options
    plan = CampaignPlan(cases, None, 1, connections, **settings)

    async def main() -> FuzzResult:
        async with sink_running(ServerContext(size_bytes=100_000), session_class=session) as sink:
            return await fuzz_target(FuzzRequest(load_scenario(find_scenario("relay")), access(sink.port), plan))

    return trio.run(main)


def found(catch: FuzzResult) -> list[tuple[str, str]]:
    return [(finding.rule, finding.cause) for finding in catch.findings]


def test_the_clean_sink_shows_nothing() -> None:
    catch = fuzzed(cases=400)
    assert found(catch) == []
    assert catch.new_findings == 0
    result = catch.result
    assert result["cases"] == {"generated": 400, "run": 400, "confirmed": 0, "may_have_killed_it": 0}
    assert result["rules"]["eod-lf-lf"]["verdict"] == "pass"
    assert result["rules"]["postmaster"]["verdict"] == "not-run"
    assert result["latency"]["MAIL"]["service"]["count"] > 100
    assert result["latency_canary"]["MAIL"]["service"]["count"] >= 16


def test_a_mutant_is_found_and_the_finding_is_short() -> None:
    catch = fuzzed(MUTANTS["eod-lf-crlf"], families=("end",), cases=150)
    rules = [finding.rule for finding in catch.findings]
    assert "eod-lf-crlf" in rules
    finding = next(one for one in catch.findings if one.rule == "eod-lf-crlf")
    assert finding.reproducibility == "3 of 3, deterministic"
    assert finding.severity == "security"
    wires = [step.wire for step in finding.script.steps if step.wire]
    assert [str(wire[:4]) for wire in wires[:4]] == ["b'EHLO'", "b'MAIL'", "b'RCPT'", "b'DATA'"]
    assert len(wires) <= 6
    assert catch.new_findings >= 1


def test_concurrency_changes_nothing() -> None:
    alone, together = (fuzzed(MUTANTS["no-rcpt"], connections=at_once, cases=120) for at_once in (1, 60))
    assert found(alone) == found(together) != []
    assert alone.result["cases"] == together.result["cases"]


def test_a_finding_is_a_scenario_and_reads_back_to_the_same_octets() -> None:
    catch = fuzzed(MUTANTS["rcpt-first"], families=("order",), cases=100)
    finding = next(one for one in catch.findings if one.rule == "rcpt-first")
    file = load_text(finding.to_text(), Path("finding.yaml"))
    assert file.scenario.finding is not None
    assert file.scenario.finding.cause == finding.cause
    script = compile_scenario(file, CompileOptions())
    assert [step.wire for step in script.steps] == [step.wire for step in finding.script.steps]


class _Mortal(ServerSession):
    """VRFY ends the whole server, and where it has revivals left, somebody starts it again after some connections."""

    __slots__ = ()
    dead = False
    revivals = 0
    knocks = 0

    def connected(self, now_ns: int) -> api.Out:
        if _Mortal.dead:
            _Mortal.knocks += 1
            if _Mortal.revivals and _Mortal.knocks > 9:
                _Mortal.revivals, _Mortal.knocks, _Mortal.dead = _Mortal.revivals - 1, 0, False
                return super().connected(now_ns)
            self.pending_action = api.RESET
            return b""
        return super().connected(now_ns)

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        if b"VRFY" in data:
            _Mortal.dead = True
        if _Mortal.dead:
            self.pending_action = api.RESET
            return b""
        return super().receive(data, now_ns)


def test_the_case_that_killed_the_target_is_kept() -> None:
    _Mortal.dead = False
    catch = fuzzed(_Mortal, families=("order",), connections=1, cases=400)
    assert not _Mortal.revivals
    (finding,) = [one for one in catch.findings if one.cause == "the target is gone"]
    assert catch.result["target"]["gone"]
    assert any(b"VRFY" in entry.data for entry in finding.transcript.entries)
    assert catch.result["cases"]["generated"] < 400


def test_where_the_target_is_started_again_the_killer_is_asked_for() -> None:
    _Mortal.dead, _Mortal.knocks, _Mortal.revivals = False, 0, 1
    catch = fuzzed(_Mortal, families=("order",), connections=4, cases=400)
    (finding,) = [one for one in catch.findings if one.cause == "the target is gone"]
    assert any(b"VRFY" in entry.data for entry in finding.transcript.entries)
    assert _Mortal.revivals == 0
    assert catch.result["cases"]["may_have_killed_it"] == 0
    assert catch.candidates == []


def test_a_baseline_lets_what_is_known_pass() -> None:
    plan = CampaignPlan(100, None, 1, 30, ("order",), 20, shrink_s=1.0)

    async def main(known: frozenset[Known]) -> FuzzResult:
        async with sink_running(session_class=MUTANTS["rcpt-first"]) as sink:
            return await fuzz_target(
                FuzzRequest(load_scenario(find_scenario("relay")), access(sink.port), plan, known=known)
            )

    first = trio.run(partial(main, frozenset()))
    assert first.new_findings == len(first.findings) > 0
    assert trio.run(partial(main, frozenset(found(first)))).new_findings == 0


def test_two_servers_that_differ_are_told_apart() -> None:
    plan = CampaignPlan(150, None, 1, 30, ("order",), 20, shrink_s=5.0)

    async def main(session: type[ServerSession]) -> FuzzResult:
        async with sink_running(session_class=session) as sink, sink_running() as other:
            return await fuzz_target(
                FuzzRequest(load_scenario(find_scenario("relay")), access(sink.port), plan, peer=access(other.port))
            )

    assert found(trio.run(main, ServerSession)) == []
    catch = trio.run(main, MUTANTS["required-verbs"])
    assert found(catch) == [("divergence", "HELO 5 2")]
    assert [step.wire for step in catch.findings[0].script.steps if step.wire] == [b"HELO e\r\n"]
    assert catch.result["rules"]["divergence"]["verdict"] == "violation"
