"""Checks of a server that dies and is started again: one finding of `health`, and no other rule is blamed."""

from __future__ import annotations

import pytest
import trio
from dying_server import WatchedDyingServer, dying_server, running

from smtpbench.check.run import CheckRequest, CheckResult, run_check
from smtpbench.rules import discover
from smtpbench.rules import rule as r
from smtpbench.rules.register import find
from smtpbench.supervisor.death import Death
from smtpbench.target import Access, parse_target
from smtpbench.units import NS_PER_S

NAMES = ("required-verbs", "close-without-421", "noop-250", "rset-250", "verb-case", "re-ehlo", "health")


def check(names: tuple[str, ...], *, alone: bool = False) -> CheckResult:
    async def main() -> CheckResult:
        async with dying_server(lambda line: line.startswith(b"VRFY"), alone=alone) as server:
            access = Access(parse_target(f"smtp://127.0.0.1:{server.port}"))
            return await run_check(CheckRequest(access, find(names), recipient="b@recipient.example"))

    return trio.run(main)


def test_crash_of_a_supervised_server_is_one_finding_of_health() -> None:
    done = check(NAMES)
    (finding,) = done.findings
    assert (finding.rule, finding.severity, finding.reproducibility) == ("health", "crash", "2 of 2")
    assert finding.actual == "the server died: an idle session of another client was cut off at the same moment"
    verdicts = {name: done.result["rules"][name]["verdict"] for name in NAMES}
    assert verdicts.pop("health") == r.VIOLATED
    assert verdicts.pop("required-verbs") == verdicts.pop("close-without-421") == r.INCONCLUSIVE
    assert done.result["rules"]["required-verbs"]["actual"] == "the server died or hung in this session"
    assert set(verdicts.values()) == {r.PASS}


def test_crash_is_a_finding_of_the_rule_that_was_asked_for() -> None:
    (finding,) = check(("required-verbs",)).findings
    assert (finding.rule, finding.severity) == ("required-verbs", "crash")


def test_server_of_which_one_connection_dies_is_not_said_to_have_died() -> None:
    done = check(NAMES, alone=True)
    assert done.result["rules"]["health"]["verdict"] == r.PASS
    assert "close-without-421" in {finding.rule for finding in done.findings}


def check_watched(names: tuple[str, ...], server: WatchedDyingServer) -> CheckResult:
    async def main() -> CheckResult:
        async with running(server.process) as process:
            access = Access(parse_target(f"smtp://127.0.0.1:{process.port}"), timeout_ns=NS_PER_S)
            return await run_check(CheckRequest(access, find(names), recipient="b@recipient.example", server=server))

    return trio.run(main)


@pytest.mark.parametrize("can_restart", [True, False])
def test_finding_of_a_watched_server_says_how_its_process_ended(can_restart: bool) -> None:
    server = WatchedDyingServer(
        lambda line: line.startswith(b"VRFY"), death_of=lambda line: Death(0, exit_status=3), can_restart=can_restart
    )
    done = check_watched(NAMES, server)
    (finding,) = done.findings
    assert (finding.rule, finding.severity, finding.reproducibility) == ("health", "crash", "2 of 2")
    assert finding.actual == "the server died: exit status 3"
    assert finding.death is not None
    assert finding.death["exit_status"] == 3
    verdicts = {name: done.result["rules"][name]["verdict"] for name in NAMES}
    assert verdicts.pop("health") == r.VIOLATED
    assert verdicts.pop("required-verbs") == verdicts.pop("close-without-421") == r.INCONCLUSIVE
    assert set(verdicts.values()) == {r.PASS}


def test_one_death_leaves_the_other_rules_with_a_verdict() -> None:
    server = WatchedDyingServer(lambda line: line.startswith(b"nOoP"))
    done = check_watched((), server)
    reasons = ("the server died or hung in this session", "the target is gone", "no greeting")
    blamed = {name for name, rule in done.result["rules"].items() if rule["actual"].startswith(reasons)}
    assert {finding.rule for finding in done.findings if finding.severity == r.CRASH} == {"health"}
    assert blamed == {"verb-case"}


def test_server_that_hangs_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "SLOW_GREETING_NS", NS_PER_S)
    server = WatchedDyingServer(lambda line: False, is_hanging=lambda line: line.startswith(b'MAIL FROM:<"\r'))
    done = check_watched(("health", "noop-250"), server)
    (finding,) = done.findings
    assert (finding.rule, finding.severity, finding.reproducibility) == ("health", "hang", "2 of 2")
    assert server.restarts >= 2
    assert done.result["rules"]["noop-250"]["verdict"] == r.PASS


def test_session_that_makes_an_error_appear_in_the_log_violates_health() -> None:
    def on_line(line: bytes) -> None:
        if line.startswith(b"nOoP"):
            server.log("panic: no handler 17")
        if line.startswith(b"EHLO"):
            server.log("error: any session causes this")

    server = WatchedDyingServer(lambda line: False, on_line=on_line)
    done = check_watched(("verb-case", "noop-250", "health"), server)
    finding = next(finding for finding in done.findings if finding.rule == "health")
    assert (finding.severity, finding.cause) == ("violation", "the server's log: panic: no handler …")
    assert finding.actual == "the server's log speaks of an error: panic: no handler 17"
    assert finding.log_lines == ["panic: no handler 17"]
