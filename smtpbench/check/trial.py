"""One target on trial: connect, find out what it offers, judge it, and say so as a result."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from smtpbench.check.judge import Court, Outcome
from smtpbench.errors import CannotRun
from smtpbench.measure.health import cpu_times_s, machine
from smtpbench.measure.recorder import Book
from smtpbench.measure.result import figures, versions
from smtpbench.rules import rule as r
from smtpbench.rules.discover import Fixture, discover, reach
from smtpbench.rules.finding import Finding, circumstances, rule_data, target_data
from smtpbench.rules.register import RULES
from smtpbench.rules.rule import Rule
from smtpbench.session.stage import interruptible, stage
from smtpbench.target import Access


@dataclass(frozen=True, slots=True)
class Request:
    """What to judge. rules: those to try. strict: SHOULDs count. options: as typed, for the command that repeats it."""

    access: Access
    rules: Sequence[Rule]
    recipient: str = ""
    sender: str = ""
    strict: bool = False
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a trial: `result.json`, and a finding for each rule that is broken. stopped: somebody interrupted."""

    result: dict[str, Any]
    findings: list[Finding]
    stopped: bool


async def trial(request: Request) -> Verdict:
    """Judge a target. Raises CannotRun where it cannot be reached, UsageError."""
    access = request.access
    route, started = await reach(access), datetime.now(UTC)
    book, began = Book(), (time.monotonic(), *cpu_times_s())
    async with stage(route, access.timeout_ns, access.credentials, book) as here:
        try:
            offer, banner = await discover(here, Fixture.of(access, request.recipient, request.sender))
        except CannotRun as error:
            raise CannotRun(f"cannot judge {access.target.url}: {error}") from None
        tried = [rule for rule in request.rules if request.strict or rule.severity != r.ADVICE]
        court = Court(here, offer)
        stopped = await interruptible(partial(court.judge, tried), lambda came, scope: scope.cancel()) > 0
        outcomes = court.so_far(tried)
        about = circumstances(access.target.url, offer, banner, started) | {"versions": versions()}
        found = {one.rule.name: _finding(one, about) for one in outcomes if one.broken}
        by_name = {outcome.rule.name: outcome for outcome in outcomes}
        result = {
            "schema": "smtpbench-check/1",
            "kind": "check",
            "started": started.isoformat(timespec="seconds"),
            "outcome": "interrupted" if stopped else "complete",
            "target": target_data(access.target.url, offer, banner),
            "strict": request.strict,
            "rules": {rule.name: _rule_data(rule, by_name.get(rule.name)) for rule in RULES},
            "findings": [_finding_data(request, one, found[one.rule.name]) for one in outcomes if one.broken],
            "machine": machine(),
            "versions": versions(),
            **figures(book.drain(), began, here.connections_peak),
        }
    return Verdict(result, [finding for finding in found.values() if finding], stopped)


def _rule_data(rule: Rule, outcome: Outcome | None) -> dict[str, str]:
    return rule_data(rule, *(outcome.judgement[:2] if outcome else (r.NOT_RUN, "")))


def _finding(outcome: Outcome, about: Mapping[str, Any]) -> Finding | None:
    """The finding of a broken rule; None where no session shows it."""
    if outcome.take is None:
        return None
    rule, judgement = outcome.rule, outcome.judgement
    return Finding(
        rule.name, rule.severity, judgement.actual, outcome.take.script, outcome.take.tape, "check",
        take=judgement.take, reproducibility=outcome.reproducibility, about=about,
    )  # fmt: skip


def _finding_data(request: Request, outcome: Outcome, finding: Finding | None) -> dict[str, Any]:
    rule = outcome.rule
    repeat = shlex.join(["smtpbench", "check", "--target", request.access.target.url, *request.options, rule.name])
    if finding is not None:
        return finding.to_data(repeat)
    return {
        "id": rule.name, "rule": rule.name, "severity": rule.severity, "actual": outcome.judgement.actual,
        "reproducibility": outcome.reproducibility, "hits": 1, "file": "", "dialogue": [], "repeat": repeat,
    }  # fmt: skip
