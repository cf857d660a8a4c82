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
from smtpbench.fuzz.campaign import Campaign, CampaignPlan, CampaignStats, Pace, Suspect
from smtpbench.fuzz.mutation import command_step, concrete, made
from smtpbench.measure.health import cpu_times_s, machine
from smtpbench.measure.recorder import Recorder
from smtpbench.measure.result import figures, latency_section, versions
from smtpbench.rules import rule as r
from smtpbench.rules.discover import Fixture, discover, reach
from smtpbench.rules.divergence import DIVERGENCE
from smtpbench.rules.finding import Finding, circumstances, rule_data, target_data
from smtpbench.rules.register import BY_NAME, RULES
from smtpbench.rules.reply_tracker import TRACKED_RULES, Violation
from smtpbench.rules.target_info import TargetInfo
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import ScenarioFile
from smtpbench.session import script as s
from smtpbench.session.runner import interruptible, session_runner
from smtpbench.session.script import Script
from smtpbench.target import Access
from smtpbench.text import visible

#: The message of a case: small, for what is tried is the protocol.
MESSAGE_BYTES = 300


#: A finding as a baseline has it: its rule, and its cause; None where a rule was found broken as such, by `check`.
Known = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class FuzzRequest:
    """What to fuzz, and with what. known: the findings that are not new.

    peer: a second target, which every case is said to as well. folder: where the findings' files will be, for the command
    that says one again.
    """

    file: ScenarioFile
    access: Access
    plan: CampaignPlan
    recipient: str = ""
    sender: str = ""
    known: frozenset[Known] = frozenset()
    peer: Access | None = None
    folder: Path = Path("findings")


@dataclass(frozen=True, slots=True)
class FuzzResult:
    """What a hunt brought home: `result.json`, the findings, `new` of which count, and what else it may have died of."""

    result: dict[str, Any]
    findings: list[Finding]
    candidates: list[Finding]
    new_findings: int
    stopped: bool


async def fuzz_target(
    request: FuzzRequest, report_progress: Callable[[CampaignStats], None] = lambda stats: None, pace: Pace | None = None
) -> FuzzResult:
    """Fuzz a target until its plan is done, it is gone, or somebody interrupts. Raises CannotRun, UsageError."""
    access, url = request.access, request.access.target.url
    route = await reach(access)
    started, began = datetime.now(UTC), (time.monotonic(), *cpu_times_s())
    recorder, baseline_latency = Recorder(), Recorder()
    async with AsyncExitStack() as runners:
        here = await runners.enter_async_context(session_runner(route, access.timeout_ns, access.credentials, recorder))
        baseline = await runners.enter_async_context(
            session_runner(route, access.timeout_ns, access.credentials, baseline_latency)
        )
        peer = None
        if request.peer is not None:
            there = session_runner(await reach(request.peer), access.timeout_ns, request.peer.credentials)
            peer = await runners.enter_async_context(there)
        try:
            target_info, banner = await discover(baseline, Fixture.of(access, request.recipient, request.sender))
        except CannotRun as error:
            raise CannotRun(f"cannot fuzz {url}: {error}") from None
        campaign = Campaign(here, baseline, _script(request, target_info), target_info, request.plan, peer, pace)

        def on_signal(came: int, scope: trio.CancelScope) -> None:
            campaign.stop.set()  # the first ends the drawing of cases
            if came > 1:
                scope.cancel()  # the second the confirming too

        with _rarely_collecting():
            stopped = await interruptible(lambda: campaign.run(report_progress), on_signal) > 0
        stats = campaign.stats
        about = circumstances(url, target_info, banner, started) | {"seed": request.plan.seed, "versions": versions()}
        if request.peer is not None:
            about["peer"] = visible(request.peer.target.url)
        findings = [_finding(suspect, about) for suspect in stats.suspects.values()]
        died = Violation("health", "it may be this session that the target died of", "the target is gone")
        candidates = [_finding(Suspect(-1, session_result, died), about) for session_result in stats.others]
        findings.sort(key=lambda finding: (r.SEVERITIES.index(finding.severity), finding.id))
        result = {
            **_result(request, stats, findings),
            "started": started.isoformat(timespec="seconds"),
            "outcome": "interrupted" if stopped else "complete",
            "target": target_data(url, target_info, banner) | {"gone": stats.gone},
            "machine": machine(),
            "versions": versions(),
            **figures(recorder.drain(), began, here.connections_peak),
            "latency_canary": latency_section(baseline_latency.drain(), ok=True),
        }
    new = sum(not _is_known(request.known, finding) and _counts(finding, request.plan.strict) for finding in findings)
    return FuzzResult(result, findings, candidates, new, stopped)


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


def _script(request: FuzzRequest, target_info: TargetInfo) -> Script:
    """The scenario's steps for one pass, to the recipient that is known."""
    target = request.access.target
    options = CompileOptions(
        lmtp=target.lmtp, implicit_tls=target.implicit_tls, starttls=target.starttls,
        credentials=target_info.credentials is not None, message_bytes=MESSAGE_BYTES,
    )  # fmt: skip
    base = concrete(compile_scenario(request.file, options))
    steps = []
    for step in base.steps:
        wire = step.wire if isinstance(step.wire, bytes) else b""
        if wire.startswith(b"RCPT TO:<") and target_info.recipient and step.kind == s.COMMAND:
            step = replace(command_step(f"RCPT TO:<{target_info.recipient}>\r\n".encode()), metric=step.metric)
        elif wire.startswith(b"MAIL FROM:<") and request.sender and step.kind == s.COMMAND:
            step = replace(command_step(f"MAIL FROM:<{request.sender}>\r\n".encode()), metric=step.metric)
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
    rule = BY_NAME.get(suspect.violation.rule, DIVERGENCE)
    return Finding(
        rule.name,
        rule.severity,
        suspect.violation.actual,
        suspect.session_result.script,
        suspect.session_result.transcript,
        "fuzz",
        reproducibility=suspect.reproducibility,
        hits=suspect.hits,
        cause=suspect.violation.cause,
        about=about,
    )


def _result(request: FuzzRequest, stats: CampaignStats, findings: Sequence[Finding]) -> dict[str, Any]:
    """What is told of the cases, the rules and the findings."""
    broken: Mapping[str, str] = {finding.rule: finding.actual for finding in reversed(findings)}
    rules = (*RULES, DIVERGENCE) if request.peer else RULES
    read = {DIVERGENCE.name} | {rule.name for rule in RULES if rule.invariant is not None} | TRACKED_RULES
    verdicts = {
        rule.name: (r.VIOLATED, broken[rule.name]) if rule.name in broken
        else (r.PASS if rule.name in read and stats.run else r.NOT_RUN, "")
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
            "generated": stats.generated,
            "run": stats.run,
            "confirmed": sum(suspect.seen > 0 for suspect in stats.suspects.values()),
            "may_have_killed_it": len(stats.others),
        },
        "strict": request.plan.strict,
        "rules": {rule.name: rule_data(rule, *verdicts[rule.name]) for rule in rules},
        "findings": [
            finding.to_data(shlex.join([*again, str(request.folder / f"{finding.id}.yaml")]))
            | {"known": _is_known(request.known, finding)}
            for finding in findings
        ],
    }
