"""Checks of a server that dies and is started again: one finding of `health`, and no other rule is blamed."""

from __future__ import annotations

import trio
from dying_server import dying_server

from smtpbench.check.run import CheckRequest, CheckResult, run_check
from smtpbench.rules import rule as r
from smtpbench.rules.register import find
from smtpbench.target import Access, parse_target

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
