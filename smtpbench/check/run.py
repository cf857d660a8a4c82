"""`smtpbench check`: connect, discover what the target offers, check it against the rules, and build the result."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple

import trio

from smtpbench.check.checker import Checker
from smtpbench.check.rule_result import RuleResult
from smtpbench.errors import CannotRun
from smtpbench.measure.health import cpu_times_s, machine
from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.measure.result import common_sections, versions
from smtpbench.rules import rule as r
from smtpbench.rules.discover import Fixture, discover, reach
from smtpbench.rules.finding import Finding, circumstances, rule_data, target_data
from smtpbench.rules.register import RULES
from smtpbench.rules.rule import Rule
from smtpbench.session.runner import interruptible, session_runner
from smtpbench.supervisor.server_record import ServerRecord, server_data
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.target import Access

#: First phase of a check: find out what the target offers.
DISCOVERY: Final = "discovery"
#: A finding may come long before the next rule has a result.
_REPORT_INTERVAL_S: Final = 1.0


class CheckProgress(NamedTuple):
    """Progress of a check.

    Attributes:
        done: Rules that have a result.
        total: Rules to check.
        rule: Name of the rule that was or is next evaluated; empty at first.
        target: URL of the target.
        phase: `discovery`, or a phase of `check.checker`.
    """

    done: int
    total: int
    rule: str
    target: str
    phase: str = DISCOVERY


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What to check.

    Attributes:
        access: How to reach the target.
        rules: Rules to check.
        recipient: Recipient address that the target accepts; empty to discover one.
        sender: Envelope sender; empty for the default.
        strict: Whether rules of severity `advice` are checked.
        options: Options as typed, for the command that repeats a check.
        server: The server under test, started or watched; None if nothing is known of its processes.
        append_server_row: Called with the lines of the server's timeline, as they are known.
    """

    access: Access
    rules: Sequence[Rule]
    recipient: str = ""
    sender: str = ""
    strict: bool = False
    options: Sequence[str] = ()
    server: SupervisedServer | None = field(default=None, compare=False)
    append_server_row: Callable[[str], None] = field(default=lambda lines: None, compare=False)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of a check.

    Attributes:
        result: Content of `result.json`.
        findings: One finding for each rule that is violated in a session.
        stopped: Whether the user interrupted the check.
    """

    result: dict[str, Any]
    findings: list[Finding]
    stopped: bool


#: Takes a function that returns the result so far; it may call the function at once, or not at all.
ReportResult = Callable[[Callable[[], CheckResult]], None]


async def run_check(
    request: CheckRequest,
    report_progress: Callable[[CheckProgress], None] = lambda progress: None,
    report_result: ReportResult = lambda make_result: None,
) -> CheckResult:
    """Check a target.

    Args:
        request: What to check.
        report_progress: Called at the start, when a rule has a result, and before a rule that runs alone.
        report_result: Called every second, with a function that returns the result so far.

    Raises:
        CannotRun: The target cannot be reached.
        UsageError: An option does not fit the target.
    """
    access, url = request.access, request.access.target.url
    rules = [rule for rule in request.rules if request.strict or rule.severity != r.ADVICE]
    report_progress(CheckProgress(0, len(rules), "", url))
    route, started = await reach(access), datetime.now(UTC)
    server_record = None if request.server is None else ServerRecord(request.server, request.append_server_row)
    if server_record is not None:
        server_record.begin()
    recorder, began = Recorder(), (time.monotonic(), *cpu_times_s())
    totals, environment = Interval(), {"machine": machine(), "versions": versions()}

    def report_rule(phase: str, done: int, rule: str) -> None:
        report_progress(CheckProgress(done, len(rules), rule, url, phase))

    async with session_runner(route, access.timeout_ns, access.credentials, recorder) as runner:
        try:
            target_info, banner = await discover(runner, Fixture.of(access, request.recipient, request.sender))
        except CannotRun as error:
            raise CannotRun(f"cannot check {url}: {error}") from None
        checker = Checker(runner, target_info, report_rule, request.server)
        about = circumstances(url, target_info, banner, started) | {"versions": versions()}
        stopped = ended = False

        def make_result() -> CheckResult:
            rule_results = checker.results_so_far(rules)
            totals.add(recorder.drain())
            if server_record is not None:
                server_record.flush()
            violated = [rule_result for rule_result in (*rule_results, *checker.further_results) if rule_result.violated]
            findings = [_build_finding(rule_result, about) for rule_result in violated]
            by_name = {rule_result.rule.name: rule_result for rule_result in rule_results}
            result = {
                "schema": "smtpbench-check/1",
                "kind": "check",
                "started": started.isoformat(timespec="seconds"),
                "outcome": "interrupted" if stopped else "complete",
                "target": target_data(url, target_info, banner),
                "strict": request.strict,
                "rules": {rule.name: _rule_data(rule, by_name.get(rule.name)) for rule in RULES},
                "findings": [_finding_data(request, *one) for one in zip(violated, findings, strict=True)],
                **environment,
                **common_sections(totals, began, runner.connections_peak),
                **server_data(server_record, ended=ended),
            }
            return CheckResult(result, [finding for finding in findings if finding], stopped)

        async def report_every_second() -> None:
            while True:
                report_result(make_result)
                await trio.sleep(_REPORT_INTERVAL_S)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(report_every_second)
            stopped = await interruptible(partial(checker.run, rules), lambda count, scope: scope.cancel()) > 0
            nursery.cancel_scope.cancel()
        ended = True
        return make_result()


def _rule_data(rule: Rule, rule_result: RuleResult | None) -> dict[str, str]:
    if rule_result is None:
        return rule_data(rule, r.NOT_RUN, "")
    return rule_data(rule, rule_result.verdict.status, rule_result.verdict.actual, rule_result.severity)


def _build_finding(rule_result: RuleResult, about: Mapping[str, Any]) -> Finding | None:
    """Return the finding of a violated rule, None where no session shows the violation."""
    if rule_result.session_result is None:
        return None
    rule, verdict = rule_result.rule, rule_result.verdict
    return Finding(
        rule.name,
        rule_result.severity,
        verdict.actual,
        rule_result.session_result.script,
        rule_result.session_result.transcript,
        "check",
        dialogue_index=verdict.dialogue_index,
        reproducibility=rule_result.reproducibility,
        cause=rule_result.cause,
        about={**about, **rule_result.about},
        log_lines=rule_result.log_lines,
        death=None if rule_result.death is None else rule_result.death.to_data(),
    )


def _finding_data(request: CheckRequest, rule_result: RuleResult, finding: Finding | None) -> dict[str, Any]:
    rule = rule_result.rule
    repeat = shlex.join(["smtpbench", "check", "--target", request.access.target.url, *request.options, rule.name])
    if finding is not None:
        return finding.to_data(repeat)
    return {
        "id": rule.name, "rule": rule.name, "severity": rule_result.severity, "actual": rule_result.verdict.actual,
        "reproducibility": rule_result.reproducibility, "hits": 1, "file": "", "dialogue": [], "repeat": repeat,
    }  # fmt: skip
