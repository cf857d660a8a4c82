"""What a rule is: a requirement of an RFC, the dialogue that tries it, and what is judged of the answer.

A rule is one of two kinds. A *probe* brings its own scripts, spoken on a connection each, and judges them together. An
*invariant* judges any dialogue at all, whoever wrote it: those of probes, of a fuzzer, of a load test.

What cannot be tried (an extension that is not offered, a login that nobody gave) is inconclusive with its reason, and
never a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script

# Severities.
SECURITY: Final = "security"
VIOLATION: Final = "violation"  #: a MUST
WARNING: Final = "warning"  #: a MUST that the field widely relaxes
ADVICE: Final = "advice"  #: a SHOULD
#: Severity → what it says of a rule; the gravest first.
SEVERITY_MEANINGS: Final[Mapping[str, str]] = {
    SECURITY: "A breach can be used for an attack, such as SMTP smuggling.",
    VIOLATION: "The RFC says MUST.",
    WARNING: "The RFC says MUST, and many servers in the field are more permissive.",
    ADVICE: "The RFC says SHOULD. These rules are tried with `--strict` only.",
}
SEVERITIES: Final = tuple(SEVERITY_MEANINGS)

# Verdicts; these are the words of `rules.<name>.verdict`.
PASS: Final = "pass"
VIOLATED: Final = "violation"
INCONCLUSIVE: Final = "inconclusive"
NOT_RUN: Final = "not-run"


class Verdict(NamedTuple):
    """What came of a rule. actual: what the server did, or why nothing can be told. take: the dialogue that shows it."""

    status: str
    actual: str = ""
    dialogue_index: int = 0


PASSED: Final = Verdict(PASS)


def violated(actual: str, dialogue_index: int = 0) -> Verdict:
    """The requirement is not met; `actual` says what was done instead, and holds no octets of the server's but codes."""
    return Verdict(VIOLATED, actual, dialogue_index)


def inconclusive(reason: str, dialogue_index: int = 0) -> Verdict:
    """Nothing can be told."""
    return Verdict(INCONCLUSIVE, reason, dialogue_index)


def passed_unless(wrong: bool, actual: str, dialogue_index: int = 0) -> Verdict:
    """PASS, or the violation."""
    return violated(actual, dialogue_index) if wrong else PASSED


def provokes_only(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    """What an invariant's own probe judges: nothing, for it only provokes."""
    return PASSED


Probe = Callable[[TargetInfo], Sequence[Script]]
Evaluate = Callable[[TargetInfo, Sequence[Dialogue]], Verdict]
Invariant = Callable[[TargetInfo, Dialogue], str]


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the register.

    id, name: `R51`, `eod-lf-lf`. section: `RFC 5321 §4.1.1.4`. requirement: in our own words. expected: what a server that
    keeps it does. needs: what the target must offer, see `Offer.lacks`. probe, judge: of a probe. invariant: what is wrong
    with a dialogue, in words, or nothing. alone: it may end the server or take long, so nothing else is tried meanwhile.
    turned_away: it can be judged of a server that greets with a refusal. by_turn: its invariant judges each write and the
    replies to it by themselves, but for whether EHLO or HELO was taken before, and whether anything asked for SMTPUTF8.
    """

    id: str
    name: str
    section: str
    severity: str
    requirement: str
    expected: str
    needs: tuple[str, ...] = ()
    probe: Probe | None = None
    evaluate: Evaluate | None = None
    invariant: Invariant | None = None
    exclusive: bool = False
    allows_refused_greeting: bool = False
    by_exchange: bool = False
