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
from smtpbench.rules.account import audit
from smtpbench.rules.accounted import AccountedSession
from smtpbench.rules.differ import DIVERGENCE, differ
from smtpbench.rules.discover import Fixture, alive, discover, reach
from smtpbench.rules.finding import plain
from smtpbench.rules.offer import Offer
from smtpbench.rules.register import BY_NAME
from smtpbench.scenario.compile import Options, compile_scenario
from smtpbench.scenario.load import ScenarioFile, load_scenario
from smtpbench.scenario.model import Finding
from smtpbench.session.client import ClientSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.stage import UNREACHABLE, Stage, stage
from smtpbench.target import Access

STILL_THERE = "STILL THERE"
FIXED = "FIXED"
CANNOT_TELL = "CANNOT TELL"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of one file. word: STILL_THERE, FIXED or CANNOT_TELL. actual: what was seen, or why nothing was."""

    path: Path
    rule: str
    word: str
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


async def replay(files: Sequence[ScenarioFile], access: Access, peer: Access | None = None) -> list[Replayed]:
    """Say each finding to the target, one after the other. peer: a second target, for divergences.

    Raises CannotRun where it cannot be reached, UsageError.
    """
    outcomes: list[Replayed] = []
    offers: dict[Fixture, Offer] = {}
    async with AsyncExitStack() as stages:
        here, *there = [
            await stages.enter_async_context(stage(await reach(one), one.timeout_ns, one.credentials))
            for one in (access, peer) if one is not None
        ]  # fmt: skip
        for file in files:
            finding = file.scenario.finding
            assert finding is not None
            fixture = Fixture.of(access, finding.recipient, finding.sender)
            try:
                if fixture not in offers:
                    offers[fixture] = (await discover(here, fixture))[0]
            except CannotRun as error:
                if not outcomes:
                    raise
                outcomes.append(Replayed(file.path, finding.rule, CANNOT_TELL, str(error)))
                continue
            outcomes.append(await _again(here, there[0] if there else None, offers[fixture], file, finding))
    return outcomes


async def _again(here: Stage, peer: Stage | None, offer: Offer, file: ScenarioFile, finding: Finding) -> Replayed:
    options = Options(lmtp=offer.lmtp, implicit_tls=offer.implicit_tls, credentials=offer.credentials is not None)
    script = plain(compile_scenario(file, options))
    # what was found by waiting for the replies that are owed is said again in the same way
    speaker = AccountedSession if finding.by == "fuzz" else ClientSession
    take = await here.perform(script, speaker)
    dialogue = Dialogue.of(take.tape)

    def told(word: str, actual: str) -> Replayed:
        return Replayed(file.path, finding.rule, word, actual)

    if finding.rule == DIVERGENCE.name:
        if peer is None:
            return told(CANNOT_TELL, "a divergence is of two targets: say --target twice")
        difference = differ(dialogue, Dialogue.of((await peer.perform(script, speaker)).tape))
        return told(STILL_THERE, difference.actual) if difference else told(FIXED, "")
    rule = BY_NAME[finding.rule]
    if dialogue.fate in UNREACHABLE or not dialogue.began:
        return told(CANNOT_TELL, f"no greeting ({dialogue.fate})")
    if dialogue.last_code != 221 and not await alive(here, offer):
        return told(STILL_THERE if finding.rule == "health" else CANNOT_TELL, "after it the target is gone")
    wrong = next((one.actual for one in audit(take.tape, lmtp=offer.lmtp) if one.rule == finding.rule), "")
    if not wrong and rule.invariant is not None:
        wrong = rule.invariant(offer, dialogue)
    if wrong:
        return told(STILL_THERE, wrong)
    if finding.by == "check" and rule.judge is not None and rule.probe is not None:
        return told(*await _judged_again(here, offer, rule, finding.take, dialogue))
    return told(FIXED, "")


async def _judged_again(here: Stage, offer: Offer, rule: r.Rule, at: int, dialogue: Dialogue) -> tuple[str, str]:
    """The rule's judgement, with this dialogue in the place of its own."""
    assert rule.probe is not None
    assert rule.judge is not None
    lack = offer.lacks(rule.needs)
    scripts = [] if lack else rule.probe(offer)
    if at >= len(scripts):
        return CANNOT_TELL, lack or "the rule has fewer dialogues for this target"
    dialogues = [
        dialogue if place == at else Dialogue.of((await here.perform(script)).tape) for place, script in enumerate(scripts)
    ]
    judgement = rule.judge(offer, dialogues)
    if judgement.verdict == r.BROKEN:
        return STILL_THERE, judgement.actual
    return (FIXED, "") if judgement.verdict == r.PASS else (CANNOT_TELL, judgement.actual)
