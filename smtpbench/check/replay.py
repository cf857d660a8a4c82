"""Saying a finding again: is what it shows STILL THERE, is it FIXED, or CAN nobody TELL?

A finding of `check` is one of its rule's dialogues; the others are made anew, for they only compare. A finding of `fuzz`,
and any of an invariant, is judged by its own transcript alone. A session that did not come to its end shows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from smtpbench.errors import CannotRun, UsageError
from smtpbench.rules import rule as r
from smtpbench.rules.discover import Fixture, discover, is_alive, reach
from smtpbench.rules.divergence import DIVERGENCE, find_divergence
from smtpbench.rules.finding import plain
from smtpbench.rules.register import BY_NAME
from smtpbench.rules.reply_tracker import find_violations
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import ScenarioFile, load_scenario
from smtpbench.scenario.model import FindingMetadata
from smtpbench.session.client import ClientSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import UNREACHABLE, SessionRunner, session_runner
from smtpbench.target import Access

STILL_THERE = "STILL THERE"
FIXED = "FIXED"
CANNOT_TELL = "CANNOT TELL"


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What came of one file. word: STILL_THERE, FIXED or CANNOT_TELL. actual: what was seen, or why nothing was."""

    path: Path
    rule: str
    status: str
    actual: str = ""


def read_findings(paths: Sequence[Path]) -> list[ScenarioFile]:
    """The finding files at these paths, those of a folder included. Raises UsageError, ScenarioError."""
    files = []
    for path in paths:
        found = sorted(path.glob("**/*.yaml")) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{path}: there is no finding in this folder")
        files += [load_scenario(one) for one in found]
    for file in files:
        if file.scenario.finding is None:
            raise UsageError(f"{file.path}: a scenario, but no finding: it has no key `finding`")
        if file.scenario.finding.rule not in (*BY_NAME, DIVERGENCE.name):
            raise UsageError(f"{file.path}: there is no rule {file.scenario.finding.rule!r}")
    return files


async def replay(files: Sequence[ScenarioFile], access: Access, peer: Access | None = None) -> list[ReplayResult]:
    """Say each finding to the target, one after the other. peer: a second target, for divergences.

    Raises CannotRun where it cannot be reached, UsageError.
    """
    outcomes: list[ReplayResult] = []
    target_infos: dict[Fixture, TargetInfo] = {}
    async with AsyncExitStack() as runners:
        here, *there = [
            await runners.enter_async_context(session_runner(await reach(one), one.timeout_ns, one.credentials))
            for one in (access, peer) if one is not None
        ]  # fmt: skip
        for file in files:
            finding = file.scenario.finding
            assert finding is not None
            fixture = Fixture.of(access, finding.recipient, finding.sender)
            try:
                if fixture not in target_infos:
                    target_infos[fixture] = (await discover(here, fixture))[0]
            except CannotRun as error:
                if not outcomes:
                    raise
                outcomes.append(ReplayResult(file.path, finding.rule, CANNOT_TELL, str(error)))
                continue
            outcomes.append(await _again(here, there[0] if there else None, target_infos[fixture], file, finding))
    return outcomes


async def _again(
    here: SessionRunner, peer: SessionRunner | None, target_info: TargetInfo, file: ScenarioFile, finding: FindingMetadata
) -> ReplayResult:
    options = CompileOptions(
        lmtp=target_info.lmtp, implicit_tls=target_info.implicit_tls, credentials=target_info.credentials is not None
    )
    script = plain(compile_scenario(file, options))
    # what was found by waiting for the replies that are owed is said again in the same way
    session_class = TrackedSession if finding.by == "fuzz" else ClientSession
    session_result = await here.run(script, session_class)
    dialogue = Dialogue.of(session_result.transcript)

    def told(word: str, actual: str) -> ReplayResult:
        return ReplayResult(file.path, finding.rule, word, actual)

    if finding.rule == DIVERGENCE.name:
        if peer is None:
            return told(CANNOT_TELL, "a divergence is of two targets: say --target twice")
        difference = find_divergence(dialogue, Dialogue.of((await peer.run(script, session_class)).transcript))
        return told(STILL_THERE, difference.actual) if difference else told(FIXED, "")
    rule = BY_NAME[finding.rule]
    if dialogue.end_reason in UNREACHABLE or not dialogue.greeted:
        return told(CANNOT_TELL, f"no greeting ({dialogue.end_reason})")
    if dialogue.last_code != 221 and not await is_alive(here, target_info):
        return told(STILL_THERE if finding.rule == "health" else CANNOT_TELL, "after it the target is gone")
    violation = next(
        (
            one.actual
            for one in find_violations(session_result.transcript, lmtp=target_info.lmtp)
            if one.rule == finding.rule
        ),
        "",
    )
    if not violation and rule.invariant is not None:
        violation = rule.invariant(target_info, dialogue)
    if violation:
        return told(STILL_THERE, violation)
    if finding.by == "check" and rule.evaluate is not None and rule.probe is not None:
        return told(*await _judged_again(here, target_info, rule, finding.take, dialogue))
    return told(FIXED, "")


async def _judged_again(
    here: SessionRunner, target_info: TargetInfo, rule: r.Rule, at: int, dialogue: Dialogue
) -> tuple[str, str]:
    """The rule's judgement, with this dialogue in the place of its own."""
    assert rule.probe is not None
    assert rule.evaluate is not None
    lack = target_info.missing(rule.needs)
    scripts = [] if lack else rule.probe(target_info)
    if at >= len(scripts):
        return CANNOT_TELL, lack or "the rule has fewer dialogues for this target"
    dialogues = [
        dialogue if place == at else Dialogue.of((await here.run(script)).transcript) for place, script in enumerate(scripts)
    ]
    verdict = rule.evaluate(target_info, dialogues)
    if verdict.status == r.VIOLATED:
        return STILL_THERE, verdict.actual
    return (FIXED, "") if verdict.status == r.PASS else (CANNOT_TELL, verdict.actual)
