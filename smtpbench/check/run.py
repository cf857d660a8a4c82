"""One target on trial: connect, find out what it offers, judge it, and say so as a result."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from smtpbench.check.checker import Checker, RuleResult
from smtpbench.errors import CannotRun
from smtpbench.measure.health import cpu_times_s, machine
from smtpbench.measure.recorder import Recorder
from smtpbench.measure.result import figures, versions
from smtpbench.rules import rule as r
from smtpbench.rules.discover import Fixture, discover, reach
from smtpbench.rules.finding import Finding, circumstances, rule_data, target_data
from smtpbench.rules.register import RULES
from smtpbench.rules.rule import Rule
from smtpbench.session.runner import interruptible, session_runner
from smtpbench.target import Access


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What to judge. rules: those to try. strict: SHOULDs count. options: as typed, for the command that repeats it."""

    access: Access
    rules: Sequence[Rule]
    recipient: str = ""
    sender: str = ""
    strict: bool = False
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of a trial: `result.json`, and a finding for each rule that is broken. stopped: somebody interrupted."""

    result: dict[str, Any]
    findings: list[Finding]
    stopped: bool


async def run_check(request: CheckRequest) -> CheckResult:
    """Judge a target. Raises CannotRun where it cannot be reached, UsageError."""
    access = request.access
    route, started = await reach(access), datetime.now(UTC)
    recorder, began = Recorder(), (time.monotonic(), *cpu_times_s())
    async with session_runner(route, access.timeout_ns, access.credentials, recorder) as here:
        try:
            target_info, banner = await discover(here, Fixture.of(access, request.recipient, request.sender))
        except CannotRun as error:
            raise CannotRun(f"cannot judge {access.target.url}: {error}") from None
        tried = [rule for rule in request.rules if request.strict or rule.severity != r.ADVICE]
        check_run = Checker(here, target_info)
        stopped = await interruptible(partial(check_run.run, tried), lambda came, scope: scope.cancel()) > 0
        outcomes = check_run.finished(tried)
        about = circumstances(access.target.url, target_info, banner, started) | {"versions": versions()}
        found = {one.rule.name: _finding(one, about) for one in outcomes if one.violated}
        by_name = {outcome.rule.name: outcome for outcome in outcomes}
        result = {
            "schema": "smtpbench-check/1",
            "kind": "check",
            "started": started.isoformat(timespec="seconds"),
            "outcome": "interrupted" if stopped else "complete",
            "target": target_data(access.target.url, target_info, banner),
            "strict": request.strict,
            "rules": {rule.name: _rule_data(rule, by_name.get(rule.name)) for rule in RULES},
            "findings": [_finding_data(request, one, found[one.rule.name]) for one in outcomes if one.violated],
            "machine": machine(),
            "versions": versions(),
            **figures(recorder.drain(), began, here.connections_peak),
        }
    return CheckResult(result, [finding for finding in found.values() if finding], stopped)


def _rule_data(rule: Rule, outcome: RuleResult | None) -> dict[str, str]:
    return rule_data(rule, *(outcome.verdict[:2] if outcome else (r.NOT_RUN, "")))


def _finding(outcome: RuleResult, about: Mapping[str, Any]) -> Finding | None:
    """The finding of a broken rule; None where no session shows it."""
    if outcome.session_result is None:
        return None
    rule, verdict = outcome.rule, outcome.verdict
    return Finding(
        rule.name,
        rule.severity,
        verdict.actual,
        outcome.session_result.script,
        outcome.session_result.transcript,
        "check",
        take=verdict.dialogue_index,
        reproducibility=outcome.reproducibility,
        about=about,
    )


def _finding_data(request: CheckRequest, outcome: RuleResult, finding: Finding | None) -> dict[str, Any]:
    rule = outcome.rule
    repeat = shlex.join(["smtpbench", "check", "--target", request.access.target.url, *request.options, rule.name])
    if finding is not None:
        return finding.to_data(repeat)
    return {
        "id": rule.name, "rule": rule.name, "severity": rule.severity, "actual": outcome.verdict.actual,
        "reproducibility": outcome.reproducibility, "hits": 1, "file": "", "dialogue": [], "repeat": repeat,
    }  # fmt: skip
