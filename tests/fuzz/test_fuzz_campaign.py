"""Campaigns on test servers: no findings on a correct one, the bug of a mutant, crashes, and files of findings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import trio

from smtpbench.fuzz.families import FAMILIES
from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, KnownFinding, fuzz_target
from smtpbench.fuzz.suspect import CASES, CONFIRMATION, CampaignStats
from smtpbench.measure.saved import FUZZ, Saved
from smtpbench.report.reading.exit_code import exit_code
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import find_scenario, load_scenario, load_text
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.mutants import MUTANTS
from smtpbench.sink.serve import sink_running
from smtpbench.target import Access, parse_target


def access(port: int) -> Access:
    return Access(parse_target(f"smtp://127.0.0.1:{port}"))


def fuzz(
    session: type[ServerSession] = ServerSession, *, cases: int = 300, connections: int = 30, **options: object
) -> FuzzResult:
    settings: dict[str, Any] = {"families": tuple(FAMILIES), "max_findings": 20, "shrink_s": 10.0} | options
    plan = CampaignPlan(cases, None, 1, connections, **settings)

    async def main() -> FuzzResult:
        async with sink_running(ServerContext(size_bytes=100_000), session_class=session) as sink:
            return await fuzz_target(FuzzRequest(load_scenario(find_scenario("relay")), access(sink.port), plan))

    return trio.run(main)


def keys(fuzz_result: FuzzResult) -> list[tuple[str, str]]:
    return [(finding.rule, finding.cause) for finding in fuzz_result.findings]


def test_correct_server_has_no_findings() -> None:
    fuzz_result = fuzz(cases=400)
    assert keys(fuzz_result) == []
    assert fuzz_result.new_findings == 0
    result = fuzz_result.result
    counts = {name: count for name, count in result["cases"].items() if count}
    assert counts == {"generated": 400, "run": 400}
    assert result["rules"]["eod-lf-lf"]["verdict"] == "pass"
    assert result["rules"]["postmaster"]["verdict"] == "not-run"
    assert result["latency"]["MAIL"]["service"]["count"] > 100
    assert result["latency_canary"]["MAIL"]["service"]["count"] >= 16


def test_bug_of_a_mutant_is_found_and_shrunk() -> None:
    fuzz_result = fuzz(MUTANTS["eod-lf-crlf"], families=("end",), cases=150)
    rules = [finding.rule for finding in fuzz_result.findings]
    assert "eod-lf-crlf" in rules
    finding = next(finding for finding in fuzz_result.findings if finding.rule == "eod-lf-crlf")
    assert finding.reproducibility == "3 of 3, deterministic"
    assert finding.severity == "security"
    wires = [step.wire for step in finding.script.steps if step.wire]
    assert [str(wire[:4]) for wire in wires[:4]] == ["b'EHLO'", "b'MAIL'", "b'RCPT'", "b'DATA'"]
    assert len(wires) <= 6
    assert fuzz_result.new_findings >= 1


def test_findings_do_not_depend_on_concurrency() -> None:
    alone, together = (fuzz(MUTANTS["no-rcpt"], connections=connections, cases=120) for connections in (1, 60))
    assert keys(alone) == keys(together) != []
    assert alone.result["cases"] == together.result["cases"]


def test_finding_file_is_a_scenario_of_the_same_octets() -> None:
    fuzz_result = fuzz(MUTANTS["rcpt-first"], families=("order",), cases=100)
    finding = next(finding for finding in fuzz_result.findings if finding.rule == "rcpt-first")
    file = load_text(finding.to_text(), Path("finding.yaml"))
    assert file.scenario.finding is not None
    assert file.scenario.finding.cause == finding.cause
    script = compile_scenario(file, CompileOptions())
    assert [step.wire for step in script.steps] == [step.wire for step in finding.script.steps]


def test_known_findings_are_not_new() -> None:
    plan = CampaignPlan(100, None, 1, 30, ("order",), 20, shrink_s=1.0)

    async def main(known: frozenset[KnownFinding]) -> FuzzResult:
        async with sink_running(session_class=MUTANTS["rcpt-first"]) as sink:
            return await fuzz_target(
                FuzzRequest(load_scenario(find_scenario("relay")), access(sink.port), plan, known=known)
            )

    first = trio.run(partial(main, frozenset()))
    assert first.new_findings == len(first.findings) > 0
    assert trio.run(partial(main, frozenset(keys(first)))).new_findings == 0


class _BusySession(ServerSession):
    """Replies 500 to NOOP while many connections are open."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        if line == b"NOOP\r\n" and self.counts.connections_open > 8:
            return b"500 5.3.2 Busy\r\n"
        return super().handle_command(line)


def test_finding_under_load_only_fails_no_build() -> None:
    fuzz_result = fuzz(_BusySession, families=("order",))
    (finding,) = fuzz_result.findings
    assert (finding.rule, finding.reproducibility) == ("noop-250", "0 of 3, load-only")
    assert fuzz_result.new_findings == 0
    assert exit_code([Saved(FUZZ, fuzz_result.result, Path("result.json"))]) == 0


def test_divergence_of_two_servers_is_found() -> None:
    plan = CampaignPlan(150, None, 1, 30, ("order",), 20, shrink_s=5.0)

    async def main(session: type[ServerSession]) -> FuzzResult:
        async with sink_running(session_class=session) as sink, sink_running() as other:
            return await fuzz_target(
                FuzzRequest(load_scenario(find_scenario("relay")), access(sink.port), plan, peer=access(other.port))
            )

    assert keys(trio.run(main, ServerSession)) == []
    fuzz_result = trio.run(main, MUTANTS["required-verbs"])
    assert keys(fuzz_result) == [("divergence", "HELO 5 2")]
    assert [step.wire for step in fuzz_result.findings[0].script.steps if step.wire] == [b"HELO e\r\n"]
    assert fuzz_result.result["rules"]["divergence"]["verdict"] == "violation"


def test_share_done_follows_the_nearer_limit() -> None:
    stats = CampaignStats(cases_limit=100, duration_limit_s=10.0)
    assert stats.share_done == 0.0
    stats.phase, stats.run, stats.elapsed_s = CASES, 20, 5.0
    assert stats.share_done == 0.5
    stats.run = 80
    assert stats.share_done == 0.8
    stats.phase = CONFIRMATION
    assert stats.share_done == 1.0


def test_progress_is_reported_in_each_phase() -> None:
    plan = CampaignPlan(60, 60_000_000_000, 1, 4, ("order", "pause"), 20, shrink_s=1.0)
    shares: dict[str, list[float]] = {CASES: [], CONFIRMATION: []}

    async def main() -> None:
        async with sink_running(session_class=MUTANTS["rcpt-first"]) as sink:
            request = FuzzRequest(load_scenario(find_scenario("relay")), access(sink.port), plan)
            await fuzz_target(request, lambda stats: shares[stats.phase].append(stats.share_done))

    trio.run(main)
    for phase in shares.values():
        assert phase == sorted(phase) != []
    assert shares[CONFIRMATION][-1] == 1.0
