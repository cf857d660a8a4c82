"""`smtpbench replay`: repeat findings and report whether they are STILL THERE or FIXED, or whether it CANNOT TELL.

A finding of `check` holds one of the sessions of a rule's probe. The other sessions of the probe run again, because the rule
evaluates all of them together. A finding of `fuzz`, and a finding of an invariant, is evaluated by its own session alone. A
session that did not run to its end shows nothing.

Each session runs beside an idle one, so that a server that dies is told from one that closes a connection, even if it is
started again at once (`rules.crash`). Where the server's processes are known, its death is a fact: a crash is STILL THERE if
the server dies in one of `_CRASH_ATTEMPTS` sessions, and FIXED if it lives, unless it was never proved that this session
kills it. Growth is judged by measuring the server (`check.growth`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import trio

from smtpbench.check.growth import replay_growth
from smtpbench.errors import CannotRun, UsageError
from smtpbench.rules import rule as r
from smtpbench.rules.crash import is_cut_off
from smtpbench.rules.discover import REFUSAL_RETRY_DELAYS_S, Fixture, discover, reach
from smtpbench.rules.divergence import DIVERGENCE, find_divergence
from smtpbench.rules.end_reason import describe_end
from smtpbench.rules.finding import plain
from smtpbench.rules.register import BY_NAME
from smtpbench.rules.reply_tracker import find_violations, match_replies
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import ScenarioFile, load_finding
from smtpbench.scenario.model import FindingMetadata
from smtpbench.session.client import ClientSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import UNREACHABLE, SessionRunner, session_runner
from smtpbench.session.script import Script
from smtpbench.supervisor.log_evidence import LOG_CAUSE, LogSearch, error_text
from smtpbench.supervisor.lone_session import bring_back, find_outage, run_alone
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.target import Access

#: Sessions in which a server that is watched must live, before a crash counts as fixed: it may depend on timing.
_CRASH_ATTEMPTS = 3
#: Part of the reproducibility of a crash of which the session is not known, see `fuzz.suspect`.
_NOT_PROVED = "not proved"
#: Rules that a server violates by dying.
_CRASH_RULES = frozenset({"health", "close-without-421"})

STILL_THERE = "STILL THERE"
FIXED = "FIXED"
CANNOT_TELL = "CANNOT TELL"


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Result of one finding file.

    Attributes:
        path: The file.
        rule: Name of the rule.
        status: STILL_THERE, FIXED or CANNOT_TELL.
        actual: What the server did, or why the status is not known.
    """

    path: Path
    rule: str
    status: str
    actual: str = ""


class _Status(NamedTuple):
    status: str
    actual: str = ""


def read_findings(paths: Sequence[Path], *, allow_files: bool = False) -> list[ScenarioFile]:
    """Return the finding files at these paths, and those in folders at these paths.

    Args:
        paths: Files and folders.
        allow_files: Whether a finding may name files outside its folder.

    Raises:
        UsageError: A folder holds no finding, or a file is not a finding.
        ScenarioError: A file is not a valid scenario.
    """
    files = []
    for path in paths:
        found = sorted(path.glob("**/*.yaml")) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{path}: this folder contains no finding")
        files += [load_finding(file, allow_files=allow_files) for file in found]
    for file in files:
        if file.scenario.finding is None:
            raise UsageError(f"{file.path}: this scenario is not a finding: it has no key `finding`")
        if file.scenario.finding.rule not in (*BY_NAME, DIVERGENCE.name):
            raise UsageError(f"{file.path}: there is no rule {file.scenario.finding.rule!r}")
    return files


async def replay(
    files: Sequence[ScenarioFile],
    access: Access,
    peer: Access | None = None,
    report_progress: Callable[[int, Path], None] = lambda done, path: None,
    server: SupervisedServer | None = None,
) -> list[ReplayResult]:
    """Repeat findings on a target, one after the other.

    Args:
        files: Files of findings.
        access: How to reach the target.
        peer: How to reach the second target, for divergences.
        report_progress: Called before each finding, with the number of those that are done and its file.
        server: The server under test, started or watched; None if nothing is known of its processes.

    Raises:
        CannotRun: The target cannot be reached.
        UsageError: An option does not fit the target.
    """
    replay_results: list[ReplayResult] = []
    target_infos: dict[Fixture, TargetInfo] = {}
    async with AsyncExitStack() as runners:
        runner, *peers = [
            await runners.enter_async_context(session_runner(await reach(one), one.timeout_ns, one.credentials))
            for one in (access, peer) if one is not None
        ]  # fmt: skip
        for done, file in enumerate(files):
            report_progress(done, file.path)
            finding = file.scenario.finding
            assert finding is not None
            fixture = Fixture.of(access, finding.recipient, finding.sender)
            try:
                if fixture not in target_infos:
                    target_infos[fixture] = (await discover(runner, fixture))[0]
            except CannotRun as error:
                if not replay_results:
                    raise CannotRun(f"cannot replay findings on {access.target.url}: {error}") from None
                replay_results.append(ReplayResult(file.path, finding.rule, CANNOT_TELL, str(error)))
                continue
            status, actual = await _replay_finding(
                runner, peers[0] if peers else None, target_infos[fixture], file, finding, server
            )
            replay_results.append(ReplayResult(file.path, finding.rule, status, actual))
    return replay_results


async def _replay_finding(
    runner: SessionRunner,
    peer: SessionRunner | None,
    target_info: TargetInfo,
    file: ScenarioFile,
    finding: FindingMetadata,
    server: SupervisedServer | None,
) -> _Status:
    options = CompileOptions(
        lmtp=target_info.lmtp, implicit_tls=target_info.implicit_tls, credentials=target_info.credentials is not None
    )
    script = plain(compile_scenario(file, options))
    if finding.growth is not None:
        still, actual = await replay_growth(runner, server, target_info, script, finding.growth)
        return _Status(CANNOT_TELL if still is None else STILL_THERE if still else FIXED, actual)
    # a finding of `fuzz` was found by a session that waits for exactly the replies that are due
    session_class = TrackedSession if finding.by == "fuzz" else ClientSession
    if finding.cause.startswith(LOG_CAUSE):
        return await _search_log(LogSearch(runner, server, session_class) if server is not None else None, script, finding)
    lone = await run_alone(runner, script, server, session_class)
    is_crash = finding.rule in _CRASH_RULES or finding.severity in (r.CRASH, r.HANG)
    judged_by_death = finding.severity == r.CRASH and server is not None and server.known
    for _ in range(_CRASH_ATTEMPTS - 1 if judged_by_death else 0):
        if lone.how:
            break
        lone = await run_alone(runner, script, server, session_class)
    session_result = lone.session_result
    dialogue = Dialogue.of(session_result.transcript)
    for delay_s in REFUSAL_RETRY_DELAYS_S:
        if not dialogue.is_busy or lone.how:
            break
        await trio.sleep(delay_s)
        session_result = await runner.run(script, session_class)
        dialogue = Dialogue.of(session_result.transcript)
    if finding.rule == DIVERGENCE.name:
        if peer is None:
            return _Status(CANNOT_TELL, "a divergence needs two targets: give --target twice")
        divergence = find_divergence(dialogue, Dialogue.of((await peer.run(script, session_class)).transcript))
        return _Status(STILL_THERE, divergence.actual) if divergence else _Status(FIXED)
    rule = BY_NAME[finding.rule]
    if lone.how:
        await bring_back(server, runner, target_info)  # the next finding needs it
        return _Status(STILL_THERE if is_crash else CANNOT_TELL, f"the server died: {lone.how}")
    if dialogue.end_reason in UNREACHABLE or not dialogue.greeted:
        return _Status(CANNOT_TELL, f"no greeting ({describe_end(dialogue.end_reason)})")
    if dialogue.refusal and not rule.allows_refused_greeting:
        return _Status(CANNOT_TELL, f"the server serves no session: {dialogue.refusal}")
    gone = "" if dialogue.last_code == 221 else await find_outage(server, runner, target_info, lone)
    if gone:
        await bring_back(server, runner, target_info, hung=gone == r.HANG)
        actual = "the server greets no client after this session"
        return _Status(STILL_THERE if is_crash else CANNOT_TELL, actual)
    if is_crash and _NOT_PROVED in finding.reproducibility:
        return _Status(CANNOT_TELL, "the server lives, and it is not proved that it died of this session")
    if judged_by_death:
        return _Status(FIXED)
    if finding.severity == r.CRASH and is_cut_off(dialogue):
        return _Status(CANNOT_TELL, "the server closed the connection in place of a reply, and may have died")
    violations = find_violations(dialogue, lmtp=target_info.lmtp)
    actual = next((violation.actual for violation in violations if violation.rule == finding.rule), "")
    if not actual and rule.invariant is not None:
        actual = rule.invariant(target_info, dialogue)
    if actual:
        return _Status(STILL_THERE, actual)
    if finding.by == "check" and rule.evaluate is not None and rule.probe is not None:
        return await _evaluate_probe(runner, target_info, rule, finding.take, dialogue)
    return _Status(FIXED)


async def _search_log(search: LogSearch | None, script: Script, finding: FindingMetadata) -> _Status:
    """Return whether a session still makes a line appear in the server's log."""
    if search is None or not search.is_log_known:
        return _Status(CANNOT_TELL, "nothing is known of the server's log")
    key = finding.cause.removeprefix(LOG_CAUSE)
    for _ in range(_CRASH_ATTEMPTS):
        _, lines = await search.run(script, key)
        if lines:
            return _Status(STILL_THERE, error_text(key, lines))
    return _Status(FIXED)


async def _evaluate_probe(
    runner: SessionRunner, target_info: TargetInfo, rule: r.Rule, dialogue_index: int, dialogue: Dialogue
) -> _Status:
    """Evaluate a rule with this dialogue in place of its own one of the same index."""
    assert rule.probe is not None
    assert rule.evaluate is not None
    missing = target_info.missing(rule.needs)
    scripts = [] if missing else rule.probe(target_info)
    if rule.evaluates_single and not (scripts or missing):
        dialogues = [dialogue] * (dialogue_index + 1)
    elif dialogue_index >= len(scripts):
        return _Status(CANNOT_TELL, missing or "for this target the rule has fewer sessions")
    else:
        dialogues = [
            dialogue if index == dialogue_index else Dialogue.of((await runner.run(script)).transcript)
            for index, script in enumerate(scripts)
        ]
    verdict = rule.evaluate(target_info, [match_replies(one, lmtp=target_info.lmtp) for one in dialogues])
    if verdict.status == r.VIOLATED:
        return _Status(STILL_THERE, verdict.actual)
    return _Status(FIXED) if verdict.status == r.PASS else _Status(CANNOT_TELL, verdict.actual)
