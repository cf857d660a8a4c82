"""Growth and busy loops in campaigns on real servers: one finding for each, and none on a clean server."""

from __future__ import annotations

import pytest
import trio
from leaking_server import CLEAN, MEMORY, SILENT_SPIN, leaking_server, let_any_use_be_busy

from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, fuzz_target
from smtpbench.rules.finding import Finding
from smtpbench.scenario.load import find_scenario, load_scenario
from smtpbench.target import Access, parse_target


@pytest.fixture(autouse=True)
def _time_on_a_slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_S", "MOST_S"):
        monkeypatch.setattr(f"smtpbench.fuzz.growth.{name}", 120.0)


def fuzz(fault: str, *, can_restart: bool = False) -> FuzzResult:
    plan = CampaignPlan(700, None, 1, 8, ("order",), 20, shrink_s=2.0)

    async def main() -> FuzzResult:
        with leaking_server(fault, can_restart=can_restart) as server:
            access = Access(parse_target(f"smtp://127.0.0.1:{server.port}"))
            return await fuzz_target(FuzzRequest(load_scenario(find_scenario("relay")), access, plan, server=server))

    return trio.run(main)


def health_findings(fuzz_result: FuzzResult) -> list[Finding]:
    return [finding for finding in fuzz_result.findings if finding.rule == "health" and finding.severity != "hang"]


def test_clean_server_has_no_finding() -> None:
    assert fuzz(CLEAN).findings == []


def test_memory_leak_of_a_command_is_one_finding_of_the_campaign() -> None:
    fuzz_result = fuzz(MEMORY)
    (finding,) = fuzz_result.findings
    assert (finding.rule, finding.severity, finding.cause) == ("health", "violation", "memory grows for each RSET")
    assert finding.reproducibility == "3 of 3, deterministic"
    assert finding.about["growth"]["per-session"] == 50
    assert fuzz_result.new_findings == 1
    assert {step.wire for step in finding.script.steps[1:-1]} == {b"RSET\r\n"}


@pytest.mark.parametrize(("can_restart", "reproducibility"), [(True, " of 3"), (False, "1 of 1, not proved")])
def test_busy_loop_is_one_finding(can_restart: bool, reproducibility: str, monkeypatch: pytest.MonkeyPatch) -> None:
    let_any_use_be_busy(monkeypatch)
    (finding,) = health_findings(fuzz(SILENT_SPIN, can_restart=can_restart))
    assert (finding.severity, finding.cause, finding.about["growth"]) == ("violation", "busy loop", {"resource": "cpu"})
    assert reproducibility in finding.reproducibility
    assert any(step.wire.startswith(b"VRFY") for step in finding.script.steps)
    assert finding.actual.startswith("busy loop: the server used ")
