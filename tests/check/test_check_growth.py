"""Growth and busy loops in checks and replays of real servers."""

from __future__ import annotations

from pathlib import Path

import trio
from leaking_server import CLEAN, MEMORY, SPIN, LeakingServer, leaking_server

from smtpbench.check.replay import CANNOT_TELL, FIXED, STILL_THERE, read_findings, replay
from smtpbench.check.run import CheckRequest, CheckResult, run_check
from smtpbench.rules.register import find
from smtpbench.target import Access, parse_target

#: Rules whose probes send what leaks or spins, and `health`.
RULES = find(["health", "rset-250", "no-side-effect"])


def access(server: LeakingServer) -> Access:
    return Access(parse_target(f"smtp://127.0.0.1:{server.port}"))


async def check(server: LeakingServer) -> CheckResult:
    return await run_check(CheckRequest(access(server), RULES, server=server))


def test_clean_server_passes() -> None:
    with leaking_server(CLEAN) as server:
        checked = trio.run(check, server)
    assert checked.findings == []
    assert checked.result["rules"]["health"]["verdict"] == "pass"


def test_memory_leak_violates_health_and_is_replayed_by_growth(tmp_path: Path) -> None:
    async def main() -> list[str]:
        with leaking_server(MEMORY) as server, leaking_server(CLEAN) as clean:
            checked = await check(server)
            (finding,) = checked.findings
            assert (finding.rule, finding.severity) == ("health", "violation")
            assert finding.cause == "memory grows for each RSET"
            assert checked.result["rules"]["health"]["actual"] == finding.actual
            (tmp_path / "finding.yaml").write_text(finding.to_text())
            files = read_findings([tmp_path])
            targets = [(server, server), (clean, clean), (server, None)]
            return [(await replay(files, access(one), server=known))[0].status for one, known in targets]

    assert trio.run(main) == [STILL_THERE, FIXED, CANNOT_TELL]


def test_busy_loop_violates_health_and_is_replayed_by_cpu_use(tmp_path: Path) -> None:
    async def main() -> list[str]:
        with leaking_server(SPIN) as server, leaking_server(CLEAN) as clean:
            (finding,) = (await check(server)).findings
            assert (finding.rule, finding.severity, finding.cause) == ("health", "violation", "busy loop")
            assert any(step.wire.startswith(b"VRFY") for step in finding.script.steps)
            (tmp_path / "finding.yaml").write_text(finding.to_text())
            files = read_findings([tmp_path])
            return [(await replay(files, access(one), server=one))[0].status for one in (server, clean)]

    assert trio.run(main) == [STILL_THERE, FIXED]
