"""One target on trial: connect, find out what it offers, judge it, and say so as a result."""

from __future__ import annotations

import hashlib
import shlex
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from smtpbench.check.discover import Fixture, discover
from smtpbench.check.judge import Court, Outcome
from smtpbench.errors import CannotRun
from smtpbench.measure.health import Health, cpu_times_s, machine, peak_rss_bytes
from smtpbench.measure.recorder import Book, Interval
from smtpbench.measure.result import generator_section, latency_section, replies_section, versions
from smtpbench.rules import rule as r
from smtpbench.rules.offer import Offer
from smtpbench.rules.register import RULES
from smtpbench.rules.rule import Rule
from smtpbench.session.stage import stage
from smtpbench.session.transcript import EVENT, SERVER, Transcript
from smtpbench.smtp.reply import Reply
from smtpbench.target import Target, Trust, resolve, tls_context
from smtpbench.text import visible

#: Octets of one read or write that a dialogue shows.
SHOWN = 300
#: Lines of a dialogue that are shown; what is more is cut out of the middle.
LINES = 40


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


async def trial(request: Request) -> dict[str, Any]:
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
            outcomes = await Court(here, offer).judge(tried)
            return _result(request, started, offer, banner, outcomes) | _figures(book.drain(), began, here.connections_peak)
    raise trouble


def _result(request: Request, started: datetime, offer: Offer, banner: Reply, outcomes: Sequence[Outcome]) -> dict[str, Any]:
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
        "findings": [_finding(request, outcome) for outcome in outcomes if outcome.broken],
        "machine": machine(),
        "versions": versions(),
    }


def _figures(totals: Interval, began: tuple[float, float, float], connections_peak: int) -> dict[str, Any]:
    """The sections that every result has: what was heard, how fast, and what it cost."""
    window_s, user_s, system_s = (now - then for now, then in zip((time.monotonic(), *cpu_times_s()), began, strict=True))
    health = Health(user_s, system_s, connections_peak=connections_peak, peak_rss_bytes=peak_rss_bytes())
    replies, enhanced = replies_section(totals)
    return {
        "latency": latency_section(totals, ok=True),
        "replies": replies,
        "enhanced": enhanced,
        "errors": dict(totals.errors),
        "generator": generator_section(health, totals, window_s, closed_model=True),
    }


def _rule_data(rule: Rule, outcome: Outcome | None) -> dict[str, str]:
    verdict, actual = (r.NOT_RUN, "") if outcome is None else outcome.judgement[:2]
    return {
        "verdict": verdict, "severity": rule.severity, "id": rule.id, "section": rule.section,
        "requirement": rule.requirement, "expected": rule.expected, "actual": actual,
    }  # fmt: skip


def _finding(request: Request, outcome: Outcome) -> dict[str, Any]:
    rule = outcome.rule
    tape = outcome.take.tape if outcome.take else Transcript()
    digest = hashlib.sha256(b"".join(entry.data for entry in tape.entries if entry.who == "C")).hexdigest()[:8]
    return {
        "id": f"{rule.name}-{digest}",
        "rule": rule.name,
        "severity": rule.severity,
        "actual": outcome.judgement.actual,
        "reproducibility": outcome.reproducibility,
        "dialogue": dialogue_lines(tape),
        "repeat": shlex.join(["smtpbench", "check", "--target", request.target.url, *request.options, rule.name]),
    }


def dialogue_lines(tape: Transcript) -> list[str]:
    """A transcript as `C:` and `S:` lines, every octet visible; what is long is cut, and says so.

    Reads that follow one another are shown as one: how the server cut its octets is chance.
    """
    lines = []
    for who, entries in groupby(tape.entries, key=lambda entry: entry.who):
        parts = [entry.data for entry in entries]
        for octets in [b"".join(parts)] if who == SERVER else parts:
            more = f" {len(octets):,} octets" if len(octets) > SHOWN else ""
            lines.append(f"({visible(octets)})" if who == EVENT else f"{who}: {visible(octets, SHOWN)}{more}")
    if len(lines) > LINES:
        half = LINES // 2
        lines = [*lines[:half], f"… {len(lines) - LINES} more …", *lines[-half:]]
    return lines
