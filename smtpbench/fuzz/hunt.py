"""A hunt: connect, find out what the target offers, fuzz it with a scenario, and say so as a result."""

from __future__ import annotations

import gc
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from smtpbench.errors import CannotRun
from smtpbench.fuzz.campaign import Campaign, Pace, Plan, Suspect, Tally
from smtpbench.fuzz.mutation import concrete, made, say
from smtpbench.measure.health import cpu_times_s, machine
from smtpbench.measure.recorder import Book
from smtpbench.measure.result import figures, latency_section, versions
from smtpbench.rules import rule as r
from smtpbench.rules.account import AUDITED, Wrong
from smtpbench.rules.differ import DIVERGENCE
from smtpbench.rules.discover import Fixture, discover, reach
from smtpbench.rules.finding import Finding, circumstances, rule_data, target_data
from smtpbench.rules.offer import Offer
from smtpbench.rules.register import BY_NAME, RULES
from smtpbench.scenario.compile import Options, compile_scenario
from smtpbench.scenario.load import ScenarioFile
from smtpbench.session import script as s
from smtpbench.session.script import Script
from smtpbench.session.stage import interruptible, stage
from smtpbench.target import Access
from smtpbench.text import visible

#: The message of a case: small, for what is tried is the protocol.
MESSAGE_BYTES = 300


#: A finding as a baseline has it: its rule, and its cause; None where a rule was found broken as such, by `check`.
Known = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Request:
    """What to fuzz, and with what. known: the findings that are not new.

    peer: a second target, which every case is said to as well. folder: where the findings' files will be, for the command
    that says one again.
    """

    file: ScenarioFile
    access: Access
    plan: Plan
    recipient: str = ""
    sender: str = ""
    known: frozenset[Known] = frozenset()
    peer: Access | None = None
    folder: Path = Path("findings")


@dataclass(frozen=True, slots=True)
class Catch:
    """What a hunt brought home: `result.json`, the findings, `new` of which count, and what else it may have died of."""

    result: dict[str, Any]
    findings: list[Finding]
    candidates: list[Finding]
    new: int
    stopped: bool


async def hunt(request: Request, tell: Callable[[Tally], None] = lambda tally: None, pace: Pace | None = None) -> Catch:
    """Fuzz a target until its plan is done, it is gone, or somebody interrupts. Raises CannotRun, UsageError."""
    access, url = request.access, request.access.target.url
    route = await reach(access)
    started, began = datetime.now(UTC), (time.monotonic(), *cpu_times_s())
    book, calm = Book(), Book()
    async with AsyncExitStack() as stages:
        here = await stages.enter_async_context(stage(route, access.timeout_ns, access.credentials, book))
        quiet = await stages.enter_async_context(stage(route, access.timeout_ns, access.credentials, calm))
        peer = None
        if request.peer is not None:
            there = stage(await reach(request.peer), access.timeout_ns, request.peer.credentials)
            peer = await stages.enter_async_context(there)
        try:
            offer, banner = await discover(quiet, Fixture.of(access, request.recipient, request.sender))
        except CannotRun as error:
            raise CannotRun(f"cannot fuzz {url}: {error}") from None
        campaign = Campaign(here, quiet, _script(request, offer), offer, request.plan, peer, pace)

        def on_signal(came: int, scope: trio.CancelScope) -> None:
            campaign.stop.set()  # the first ends the drawing of cases
            if came > 1:
                scope.cancel()  # the second the confirming too

        with _rarely_collecting():
            stopped = await interruptible(lambda: campaign.run(tell), on_signal) > 0
        tally = campaign.tally
        about = circumstances(url, offer, banner, started) | {"seed": request.plan.seed, "versions": versions()}
        if request.peer is not None:
            about["peer"] = visible(request.peer.target.url)
        findings = [_finding(suspect, about) for suspect in tally.suspects.values()]
        died = Wrong("health", "it may be this session that the target died of", "the target is gone")
        candidates = [_finding(Suspect(-1, take, died), about) for take in tally.others]
        findings.sort(key=lambda finding: (r.SEVERITIES.index(finding.severity), finding.id))
        result = {
            **_result(request, tally, findings),
            "started": started.isoformat(timespec="seconds"),
            "outcome": "interrupted" if stopped else "complete",
            "target": target_data(url, offer, banner) | {"gone": tally.gone},
            "machine": machine(),
            "versions": versions(),
            **figures(book.drain(), began, here.connections_peak),
            "latency_canary": latency_section(calm.drain(), ok=True),
        }
    new = sum(not _is_known(request.known, finding) and _counts(finding, request.plan.strict) for finding in findings)
    return Catch(result, findings, candidates, new, stopped)


@contextmanager
def _rarely_collecting() -> Iterator[None]:
    """What is loaded by now stays, and a case leaves next to no cycles: the collector need not walk again and again."""
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _script(request: Request, offer: Offer) -> Script:
    """The scenario's steps for one pass, to the recipient that is known."""
    target = request.access.target
    options = Options(
        lmtp=target.lmtp, implicit_tls=target.implicit_tls, starttls=target.starttls,
        credentials=offer.credentials is not None, message_bytes=MESSAGE_BYTES,
    )  # fmt: skip
    base = concrete(compile_scenario(request.file, options))
    steps = []
    for step in base.steps:
        wire = step.wire if isinstance(step.wire, bytes) else b""
        if wire.startswith(b"RCPT TO:<") and offer.recipient and step.kind == s.SAY:
            step = replace(say(f"RCPT TO:<{offer.recipient}>\r\n".encode()), slot=step.slot)
        elif wire.startswith(b"MAIL FROM:<") and request.sender and step.kind == s.SAY:
            step = replace(say(f"MAIL FROM:<{request.sender}>\r\n".encode()), slot=step.slot)
        steps.append(step)
    return made(base, steps)


def _is_known(known: frozenset[Known], finding: Finding) -> bool:
    return (finding.rule, finding.cause) in known or (finding.rule, None) in known


def _counts(finding: Finding, strict: bool) -> bool:
    """Whether a build should fail for it; what was never seen again with nobody else there is for people to look at."""
    if finding.reproducibility.startswith("0 of"):
        return False
    return finding.severity in (r.SECURITY, r.VIOLATION) or (strict and finding.severity == r.ADVICE)


def _finding(suspect: Suspect, about: Mapping[str, Any]) -> Finding:
    rule = BY_NAME.get(suspect.wrong.rule, DIVERGENCE)
    return Finding(
        rule.name, rule.severity, suspect.wrong.actual, suspect.take.script, suspect.take.tape, "fuzz",
        reproducibility=suspect.reproducibility, hits=suspect.hits, cause=suspect.wrong.cause, about=about,
    )  # fmt: skip


def _result(request: Request, tally: Tally, findings: Sequence[Finding]) -> dict[str, Any]:
    """What is told of the cases, the rules and the findings."""
    broken: Mapping[str, str] = {finding.rule: finding.actual for finding in reversed(findings)}
    rules = (*RULES, DIVERGENCE) if request.peer else RULES
    read = {DIVERGENCE.name} | {rule.name for rule in RULES if rule.invariant is not None} | AUDITED
    verdicts = {
        rule.name: (r.BROKEN, broken[rule.name]) if rule.name in broken
        else (r.PASS if rule.name in read and tally.run else r.NOT_RUN, "")
        for rule in rules
    }  # fmt: skip
    urls = [one.target.url for one in (request.access, request.peer) if one is not None]
    again = ["smtpbench", "replay", *(word for url in urls for word in ("--target", url))]
    return {
        "schema": "smtpbench-fuzz/1",
        "kind": "fuzz",
        "scenario": {"name": request.file.name},
        "peer": visible(urls[1]) if request.peer else "",
        "seed": request.plan.seed,
        "families": list(request.plan.families),
        "cases": {
            "generated": tally.generated,
            "run": tally.run,
            "confirmed": sum(suspect.seen > 0 for suspect in tally.suspects.values()),
            "may_have_killed_it": len(tally.others),
        },
        "strict": request.plan.strict,
        "rules": {rule.name: rule_data(rule, *verdicts[rule.name]) for rule in rules},
        "findings": [
            finding.to_data(shlex.join([*again, str(request.folder / f"{finding.id}.yaml")]))
            | {"known": _is_known(request.known, finding)}
            for finding in findings
        ],
    }
