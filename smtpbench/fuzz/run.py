"""`smtpbench fuzz`: connect, discover what the target offers, run a campaign with a scenario, and build the result."""

from __future__ import annotations

import gc
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import trio

from smtpbench.errors import CannotRun
from smtpbench.fuzz.campaign import Campaign
from smtpbench.fuzz.mutation import command_step, fixed_script, replace_steps
from smtpbench.fuzz.plan import CampaignPlan, CaseLimiter
from smtpbench.fuzz.suspect import TIME_UP, CampaignStats, Suspect
from smtpbench.fuzz.time_limit import TimeLimit
from smtpbench.measure.health import cpu_times_s, machine
from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.measure.result import common_sections, latency_section, versions
from smtpbench.rules import rule as r
from smtpbench.rules.discover import Fixture, discover, raise_for_line_ends, reach
from smtpbench.rules.divergence import DIVERGENCE
from smtpbench.rules.finding import SHOWN_OCTETS, Finding, circumstances, rule_data, target_data
from smtpbench.rules.register import BY_NAME, RULES
from smtpbench.rules.reply_tracker import TRACKED_RULES, Violation
from smtpbench.rules.rule import Rule
from smtpbench.rules.target_info import TargetInfo
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import ScenarioFile
from smtpbench.session import script as s
from smtpbench.session.runner import SessionRunner, interruptible, session_runner
from smtpbench.session.script import Script
from smtpbench.session.transcript import CLIENT
from smtpbench.smtp.reply import Reply
from smtpbench.smtp.state import BANNER
from smtpbench.supervisor.server_record import ServerRecord, server_data
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.target import Access
from smtpbench.text import visible

#: Size of a case's message, unless its header is longer: small, because the protocol is under test.
MESSAGE_BYTES = 300

#: Reproducibility of a finding that was not repeated before the campaign ended.
_NOT_REPEATED = "1 of 1, not repeated"

#: A known finding of a baseline: its rule and its cause. A cause of None covers all findings of the rule (those of `check`).
KnownFinding = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class FuzzRequest:
    """What to fuzz, and how.

    Attributes:
        file: Scenario to make cases from.
        access: How to reach the target.
        plan: What the campaign does.
        recipient: Recipient address that the target accepts; empty to discover one.
        sender: Envelope sender; empty for the scenario's.
        known: Findings that are not new.
        peer: Second target that every case runs with as well, to find where the two differ.
        folder: Folder for the files of findings; it is part of the command that replays a finding.
        options: Further options of that command.
        server: The server under test, started or watched; None if nothing is known of its processes.
        append_server_row: Called with the lines of the server's timeline, as they are known.
    """

    file: ScenarioFile
    access: Access
    plan: CampaignPlan
    recipient: str = ""
    sender: str = ""
    known: frozenset[KnownFinding] = frozenset()
    peer: Access | None = None
    folder: Path = Path("findings")
    options: Sequence[str] = ()
    server: SupervisedServer | None = field(default=None, compare=False)
    append_server_row: Callable[[str], None] = field(default=lambda lines: None, compare=False)


@dataclass(frozen=True, slots=True)
class FuzzResult:
    """Result of a campaign.

    Attributes:
        result: Content of `result.json`.
        findings: Confirmed and unconfirmed findings, the most severe first.
        candidates: Further sessions that may have crashed the target.
        new_findings: Findings that are not known and that a build should fail for.
        stopped: Whether the user interrupted the campaign.
    """

    result: dict[str, Any]
    findings: list[Finding]
    candidates: list[Finding]
    new_findings: int
    stopped: bool


#: Takes a function that returns the result so far; it may call the function at once, or not at all.
ReportResult = Callable[[Callable[[], FuzzResult]], None]


async def fuzz_target(
    request: FuzzRequest,
    report_progress: Callable[[CampaignStats], None] = lambda stats: None,
    limiter: CaseLimiter | None = None,
    report_result: ReportResult = lambda make_result: None,
) -> FuzzResult:
    """Fuzz a target until the plan is done, the target is gone, or the user interrupts.

    Args:
        request: What to fuzz.
        report_progress: Called several times a second with the progress of the campaign.
        limiter: Decides when cases may begin; None for as soon as a connection is free.
        report_result: Called as often, with a function that returns the result so far.

    Raises:
        CannotRun: The target cannot be reached.
        UsageError: An option does not fit the target.
    """
    access, url = request.access, request.access.target.url
    limit = TimeLimit(trio.current_time(), request.plan.duration_s)
    route = await reach(access)
    started, began = datetime.now(UTC), (time.monotonic(), *cpu_times_s())
    server_record = None if request.server is None else ServerRecord(request.server, request.append_server_row)
    if server_record is not None:
        server_record.begin()
    recorder, baseline_recorder = Recorder(), Recorder()
    totals, baseline_totals = Interval(), Interval()
    environment = {"machine": machine(), "versions": versions()}
    async with AsyncExitStack() as runners:
        runner = await runners.enter_async_context(session_runner(route, access.timeout_ns, access.credentials, recorder))
        baseline = await runners.enter_async_context(
            session_runner(route, access.timeout_ns, access.credentials, baseline_recorder)
        )
        peer = None
        if request.peer is not None:
            peer = await runners.enter_async_context(
                session_runner(await reach(request.peer), access.timeout_ns, request.peer.credentials)
            )
        try:
            target_info, banner = await _discover(baseline, request, limit)
        except CannotRun as error:
            raise CannotRun(f"cannot fuzz {url}: {error}") from None
        script = _scenario_script(request, target_info)
        campaign = Campaign(runner, baseline, script, target_info, request.plan, peer, limiter, limit, request.server)

        def on_signal(count: int, scope: trio.CancelScope) -> None:
            campaign.stop.set()  # the first signal ends the cases, the second one the confirmation too
            if count > 1:
                scope.cancel()

        stats, stopped, ended = campaign.stats, False, False
        about = circumstances(url, target_info, banner, started) | {"seed": request.plan.seed, "versions": versions()}
        if request.peer is not None:
            about["peer"] = visible(request.peer.target.url)

        def drain_recorders() -> None:
            totals.add(recorder.drain())
            baseline_totals.add(baseline_recorder.drain())
            if server_record is not None:
                server_record.flush()

        def make_result() -> FuzzResult:
            drain_recorders()
            suspects = stats.suspects.values()
            findings = [
                _build_finding(
                    suspect, about, repeated=bool(suspect.tried or suspect.time_up or suspect.unproved or stats.target_gone)
                )
                for suspect in suspects
            ]
            candidates = _build_candidates(stats, about)
            findings.sort(key=lambda finding: (r.SEVERITIES.index(finding.severity), finding.id))
            result = {
                **_campaign_data(request, stats, findings, candidates, partial(_untested, target_info, stats.verbs)),
                "started": started.isoformat(timespec="seconds"),
                "outcome": "interrupted" if stopped else "complete",
                "target": target_data(url, target_info, banner) | {"gone": stats.target_gone},
                **environment,
                **common_sections(totals, began, runner.connections_peak),
                "latency_canary": latency_section(baseline_totals, ok=True),
                **server_data(server_record, ended=ended),
            }
            new = sum(_fails_build(request, finding) for finding in findings)
            return FuzzResult(result, findings, candidates, new, stopped)

        def report(stats: CampaignStats) -> None:
            drain_recorders()  # a campaign of hours keeps counts, not samples
            report_progress(stats)
            report_result(make_result)

        report_result(make_result)
        with _rare_garbage_collection():
            stopped = await interruptible(lambda: campaign.run(report), on_signal) > 0
        silence = stats.silence
        if not (silence or stopped or stats.generated or stats.suspects):
            raise CannotRun(f"cannot fuzz {url}: {TIME_UP} before the first case; give more with --duration")
        if stats.generated and not (silence or stopped or stats.run or stats.suspects):
            silence = f"the server serves no case: {stats.refusal or TIME_UP}"
        if stats.run and not (stats.answered or stats.suspects):
            silence = "the server replied to the baseline, and to no command of a case"
        if silence:
            raise CannotRun(f"cannot fuzz {url}: no session gets past EHLO: {silence}")
        ended = True
        return make_result()


async def _discover(runner: SessionRunner, request: FuzzRequest, limit: TimeLimit) -> tuple[TargetInfo, Reply]:
    """Return what the target offers, and its greeting. Raises CannotRun, also if the time is up before that is known."""
    for address in (*request.plan.aliases, request.plan.unknown):
        raise_for_line_ends(recipient=address)
    with trio.move_on_at(limit.latest_s):
        return await discover(runner, Fixture.of(request.access, request.recipient, request.sender))
    raise CannotRun(f"{TIME_UP} before it was known what the server offers")


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    """Collect garbage rarely: what is loaded by now stays in use, and a case leaves hardly any reference cycles."""
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _scenario_script(request: FuzzRequest, target_info: TargetInfo) -> Script:
    """Return one iteration of the scenario, to recipients that the target accepts."""
    target = request.access.target
    options = CompileOptions(
        lmtp=target.lmtp, implicit_tls=target.implicit_tls, starttls=target.starttls,
        credentials=target_info.credentials is not None, message_bytes=MESSAGE_BYTES, extend_message=True,
    )  # fmt: skip
    base = fixed_script(compile_scenario(request.file, options))
    recipients = cycle((target_info.recipient, *request.plan.aliases))
    steps = []
    for step in base.steps:
        wire = step.wire if isinstance(step.wire, bytes) else b""
        if wire.startswith(b"RCPT TO:<") and target_info.recipient and step.kind == s.COMMAND:
            step = replace(command_step(f"RCPT TO:<{next(recipients)}>\r\n".encode()), metric=step.metric)
        elif wire.startswith(b"MAIL FROM:<") and request.sender and step.kind == s.COMMAND:
            step = replace(command_step(f"MAIL FROM:<{request.sender}>\r\n".encode()), metric=step.metric)
        steps.append(step)
    return replace_steps(base, steps)


def _is_known(known: frozenset[KnownFinding], finding: Finding) -> bool:
    return (finding.rule, finding.cause) in known or (finding.rule, None) in known


def _fails_build(request: FuzzRequest, finding: Finding) -> bool:
    return r.fails_command(
        finding.severity,
        strict=request.plan.strict,
        reproducibility=finding.reproducibility,
        known=_is_known(request.known, finding),
    )


def _build_finding(suspect: Suspect, about: Mapping[str, Any], *, repeated: bool = True) -> Finding:
    rule = BY_NAME.get(suspect.violation.rule, DIVERGENCE)
    return Finding(
        rule.name,
        suspect.violation.severity or rule.severity,
        suspect.violation.actual,
        suspect.session_result.script,
        suspect.session_result.transcript,
        "fuzz",
        reproducibility=suspect.reproducibility if repeated else _NOT_REPEATED,
        hits=suspect.hits,
        cause=suspect.violation.cause,
        about={**about, **suspect.about},
        death=None if suspect.death is None else suspect.death.to_data(),
        log_lines=suspect.log_lines,
    )


def _build_candidates(stats: CampaignStats, about: Mapping[str, Any]) -> list[Finding]:
    """Return the cases that may have crashed the target, besides the one among the findings, the likeliest first."""
    total = 1 + len(stats.crash_candidates)
    unproved = next((suspect for suspect in stats.suspects.values() if suspect.unproved), None)
    severity, cause = ("", "") if unproved is None else (unproved.violation.severity, unproved.violation.cause)
    candidates = []
    for rank, session_result in enumerate(stats.crash_candidates, 2):
        actual = f"number {rank} of {total} sessions that may have crashed the target, the likeliest first; not proved"
        suspect = Suspect(-1, session_result, Violation("health", actual, cause, severity), unproved=True)
        candidates.append(_build_finding(suspect, about))
    return candidates


#: Beginning of the name of a rule → the verb that must have had a reply; any reply will do for other rules.
_STIMULI: Mapping[str, str] = {
    "eod-": "message", "data-desync": "message", "post-data-clear": "message", "no-rcpt": "message", "tls-": "STARTTLS",
    "auth-": "AUTH", "bdat-": "BDAT", "rset-": "RSET", "noop-": "NOOP", "quit": "QUIT", "rcpt-first": "RCPT",
    "nested-mail": "MAIL", "bad-mail-state": "MAIL",
}  # fmt: skip


def _untested(target_info: TargetInfo, verbs: Set[str], rule: Rule) -> str:
    """Return why a campaign without a finding says nothing about a rule; empty if the rule passed."""
    missing = target_info.missing(rule.needs)
    if missing:
        return missing
    verb = next((verb for beginning, verb in _STIMULI.items() if rule.name.startswith(beginning)), "")
    if verb in verbs or (not verb and verbs - {BANNER}):
        return ""
    return f"the server replied to no {verb or 'command'}"


def _campaign_data(
    request: FuzzRequest,
    stats: CampaignStats,
    findings: Sequence[Finding],
    candidates: Sequence[Finding],
    untested: Callable[[Rule], str],
) -> dict[str, Any]:
    """Return the part of the result about cases, rules and findings."""
    first_of: Mapping[str, Finding] = {finding.rule: finding for finding in reversed(findings)}
    rules = (*RULES, DIVERGENCE) if request.peer else RULES
    evaluated = {DIVERGENCE.name} | {rule.name for rule in RULES if rule.invariant is not None} | TRACKED_RULES

    def verdict_of(rule: Rule) -> tuple[str, str] | tuple[str, str, str]:
        if rule.name in first_of:
            return r.VIOLATED, first_of[rule.name].actual, first_of[rule.name].severity
        if rule.name not in evaluated or not stats.run:
            return r.NOT_RUN, ""
        reason = untested(rule)
        return (r.INCONCLUSIVE, reason) if reason else (r.PASS, "")

    verdicts = {rule.name: verdict_of(rule) for rule in rules}
    urls = [access.target.url for access in (request.access, request.peer) if access is not None]
    replay = ["smtpbench", "replay", *(argument for url in urls for argument in ("--target", url))]
    replay += request.options
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
            "may_have_killed_it": len(stats.crash_candidates),
            "retried": stats.retried,
            "given_up": stats.given_up,
            "connections_lowest": stats.connections_lowest,
            "refusal": stats.refusal,
            "interrupted": stats.interrupted,
            "not_repeated": stats.not_repeated,
            "not_shrunk": stats.not_shrunk,
        },
        "strict": request.plan.strict,
        "rules": {rule.name: rule_data(rule, *verdicts[rule.name]) for rule in rules},
        "findings": [
            finding.to_data(shlex.join([*replay, str(request.folder / f"{finding.id}.yaml")]))
            | {"known": _is_known(request.known, finding)}
            for finding in findings
        ],
        "candidates": [
            {"id": candidate.id, "file": f"candidates/{candidate.id}.yaml", "last_sent": _last_line_sent(candidate)}
            for candidate in candidates
        ],
    }


def _last_line_sent(finding: Finding) -> str:
    sent = [entry.data for entry in finding.transcript.entries if entry.who == CLIENT]
    return visible(sent[-1], SHOWN_OCTETS) if sent else ""
