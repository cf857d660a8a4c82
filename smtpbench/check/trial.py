"""One target on trial: connect, find out what it offers, judge it, and say so as a result."""

from __future__ import annotations

import shlex
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from smtpbench.check.judge import Court, Outcome
from smtpbench.errors import CannotRun
from smtpbench.measure.health import cpu_times_s, machine
from smtpbench.measure.recorder import Book
from smtpbench.measure.result import figures, versions
from smtpbench.rules import rule as r
from smtpbench.rules.discover import Fixture, discover
from smtpbench.rules.finding import SHOWN, Finding, rule_data
from smtpbench.rules.offer import Offer
from smtpbench.rules.register import RULES
from smtpbench.rules.rule import Rule
from smtpbench.session.stage import interruptible, stage
from smtpbench.smtp.reply import Reply
from smtpbench.target import Target, Trust, resolve, tls_context
from smtpbench.text import visible


@dataclass(frozen=True, slots=True)
class Request:
    """What to judge. rules: those to try. strict: SHOULDs count. options: as typed, for the command that repeats it."""

    target: Target
    rules: Sequence[Rule]
    trust: Trust = field(default_factory=Trust)
    password: str | None = field(default=None, repr=False)
    recipient: str = ""
    sender: str = ""
    timeout_ns: int = 3_000_000_000
    strict: bool = False
    authorized: bool = False
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a trial: `result.json`, and a finding for each rule that is broken. stopped: somebody interrupted."""

    result: dict[str, Any]
    findings: list[Finding]
    stopped: bool


async def trial(request: Request) -> Verdict:
    """Judge a target. Raises CannotRun where it cannot be reached, UsageError."""
    target = request.target
    try:
        context: ssl.SSLContext | None = tls_context(request.trust)
    except ssl.SSLError as error:
        raise CannotRun(f"TLS cannot be set up: {error}") from None
    routes = resolve(target, context, request.trust, authorized=request.authorized)
    credentials = (target.user, request.password) if target.user and request.password is not None else None
    fixture = Fixture(request.recipient, request.sender, credentials, target.lmtp, target.implicit_tls)
    started = datetime.now(UTC)
    trouble = CannotRun(f"{target.url} has no address")
    for route in routes:
        book, began = Book(), (time.monotonic(), *cpu_times_s())
        async with stage(route, request.timeout_ns, credentials, book) as here:
            try:
                offer, banner = await discover(here, fixture)
            except CannotRun as error:
                trouble = CannotRun(f"cannot judge {target.url}: {error}")
                continue
            tried = [rule for rule in request.rules if request.strict or rule.severity != r.ADVICE]
            court = Court(here, offer)
            stopped = await interruptible(partial(court.judge, tried), lambda came, scope: scope.cancel()) > 0
            outcomes = court.so_far(tried)
            found = {one.rule.name: finding_of(request, offer, banner, started, one) for one in outcomes if one.broken}
            result = _result(request, started, offer, banner, outcomes, found)
            result |= figures(book.drain(), began, here.connections_peak)
            result["outcome"] = "interrupted" if stopped else "complete"
            return Verdict(result, [finding for finding in found.values() if finding], stopped)
    raise trouble


def _result(
    request: Request,
    started: datetime,
    offer: Offer,
    banner: Reply,
    outcomes: Sequence[Outcome],
    found: Mapping[str, Finding | None],
) -> dict[str, Any]:
    by_name = {outcome.rule.name: outcome for outcome in outcomes}
    return {
        "schema": "smtpbench-check/1",
        "kind": "check",
        "started": started.isoformat(timespec="seconds"),
        "target": {
            "url": visible(request.target.url),
            "banner": visible(banner.raw.rstrip(b"\r\n"), SHOWN),
            "extensions": [visible(keyword) for keyword in sorted(offer.clear)],
            "extensions_inside_tls": [visible(keyword) for keyword in sorted(offer.inside)],
            "recipient": visible(offer.recipient),
        },
        "strict": request.strict,
        "rules": {rule.name: _rule_data(rule, by_name.get(rule.name)) for rule in RULES},
        "findings": [_finding_data(request, one, found[one.rule.name]) for one in outcomes if one.broken],
        "machine": machine(),
        "versions": versions(),
    }


def _rule_data(rule: Rule, outcome: Outcome | None) -> dict[str, str]:
    return rule_data(rule, *(outcome.judgement[:2] if outcome else (r.NOT_RUN, "")))


def finding_of(request: Request, offer: Offer, banner: Reply, started: datetime, outcome: Outcome) -> Finding | None:
    """The finding of a broken rule; None where no session shows it."""
    if outcome.take is None:
        return None
    rule = outcome.rule
    about = {
        "recipient": offer.recipient, "sender": offer.sender, "found": started.isoformat(timespec="seconds"),
        "target": visible(request.target.url), "banner": visible(banner.raw.rstrip(b"\r\n"), SHOWN), "versions": versions(),
    }  # fmt: skip
    judgement = outcome.judgement
    return Finding(
        rule.name, rule.severity, judgement.actual, outcome.take.script, outcome.take.tape, "check",
        take=judgement.take, reproducibility=outcome.reproducibility, about=about,
    )  # fmt: skip


def _finding_data(request: Request, outcome: Outcome, finding: Finding | None) -> dict[str, Any]:
    rule = outcome.rule
    repeat = shlex.join(["smtpbench", "check", "--target", request.target.url, *request.options, rule.name])
    if finding is not None:
        return finding.to_data(repeat)
    return {
        "id": rule.name, "rule": rule.name, "severity": rule.severity, "actual": outcome.judgement.actual,
        "reproducibility": outcome.reproducibility, "hits": 1, "file": "", "dialogue": [], "repeat": repeat,
    }  # fmt: skip
