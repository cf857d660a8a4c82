"""Rules: a requirement of an RFC, the dialogues that test it, and how they are evaluated.

There are two kinds of rules, and a rule can be both. A rule with a *probe* brings its own scripts, which run on a connection
each, and evaluates their dialogues together. A rule with an *invariant* evaluates any dialogue, whether it comes from a
probe, from a fuzzing campaign or from a load test.

A rule that cannot be tested (an extension is not offered, no credentials are given) is inconclusive. It never passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script

# Severities, the most severe first.
CRASH: Final = "crash"  #: a server that died
HANG: Final = "hang"  #: a server that does not reply
SECURITY: Final = "security"
VIOLATION: Final = "violation"  #: a MUST
WARNING: Final = "warning"  #: a MUST that many servers relax
ADVICE: Final = "advice"  #: a SHOULD
#: Severity → what it says of a rule; the gravest first.
SEVERITY_MEANINGS: Final[Mapping[str, str]] = {
    CRASH: "The server died of what a client sent. All its sessions are lost, and its memory may be corrupt.",
    HANG: "The server accepts connections, and it stops replying, in one session or in all.",
    SECURITY: "A breach can be used for an attack, such as SMTP smuggling.",
    VIOLATION: "The RFC says MUST.",
    WARNING: "The RFC says MUST, and many servers in the field are more permissive.",
    ADVICE: "The RFC says SHOULD. These rules are tried with `--strict` only.",
}
SEVERITIES: Final = tuple(SEVERITY_MEANINGS)
#: Severities that make a command fail without `--strict`.
FAILING_SEVERITIES: Final = (CRASH, HANG, SECURITY, VIOLATION)

# Statuses of a verdict, as in `rules.<name>.verdict` of a result.
PASS: Final = "pass"
VIOLATED: Final = "violation"
INCONCLUSIVE: Final = "inconclusive"
NOT_RUN: Final = "not-run"


class Verdict(NamedTuple):
    """Result of evaluating a rule.

    Attributes:
        status: PASS, VIOLATED, INCONCLUSIVE or NOT_RUN.
        actual: What the server did, or why the rule is inconclusive.
        dialogue_index: Index of the dialogue that shows it.
        severity: Severity of a violation; empty for that of the rule.
    """

    status: str
    actual: str = ""
    dialogue_index: int = 0
    severity: str = ""


PASSED: Final = Verdict(PASS)


#: How the reproducibility of a finding begins that no repetition on an idle target showed.
_NEVER_REPEATED: Final = "0 of "


def fails_command(severity: str, *, strict: bool, reproducibility: str = "", known: bool = False) -> bool:
    """Return whether a violation makes a command fail, and a build that runs it.

    A warning never does, advice only with `--strict`, and a finding that shows under load only is for people to look at.
    Commands and reports all ask this function.

    Args:
        severity: Severity of the violation.
        strict: Whether advice counts.
        reproducibility: Reproducibility of the finding, such as `0 of 3, load-only`; empty if it was not repeated.
        known: Whether the finding is in the baseline.
    """
    severities = (*FAILING_SEVERITIES, ADVICE) if strict else FAILING_SEVERITIES
    return severity in severities and not known and not reproducibility.startswith(_NEVER_REPEATED)


def violated(actual: str, dialogue_index: int = 0, severity: str = "") -> Verdict:
    """Return the verdict of a violation.

    Args:
        actual: What the server did. Of its octets, only reply codes may appear in it.
        dialogue_index: Index of the dialogue that shows it.
        severity: Severity of the violation; empty for that of the rule.
    """
    return Verdict(VIOLATED, actual, dialogue_index, severity)


def inconclusive(reason: str, dialogue_index: int = 0) -> Verdict:
    """Return the verdict of a rule that could not be tested, with the reason."""
    return Verdict(INCONCLUSIVE, reason, dialogue_index)


def violated_if(condition: bool, actual: str, dialogue_index: int = 0) -> Verdict:
    """Return a violation if the condition is true, else PASSED."""
    return violated(actual, dialogue_index) if condition else PASSED


def always_passed(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    """Return PASSED: for a probe whose dialogues only the invariant of the rule evaluates."""
    return PASSED


Probe = Callable[[TargetInfo], Sequence[Script]]
Evaluate = Callable[[TargetInfo, Sequence[Dialogue]], Verdict]
Invariant = Callable[[TargetInfo, Dialogue], str]


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the rule register.

    Attributes:
        id: Number, such as `R51`.
        name: Name, such as `eod-lf-lf`.
        section: Where the requirement stands, such as `RFC 5321 §4.1.1.4`.
        severity: One of `SEVERITIES`: that of the worst violation. A violation may have a lower one of its own.
        requirement: The requirement in other words than the RFC's.
        expected: What a correct server does in the probe.
        needs: What the target must offer, see `TargetInfo.missing`.
        probe: Returns the scripts of the probe, one for each session.
        evaluate: Evaluates the dialogues of the probe.
        invariant: Returns what is wrong with a dialogue; empty if nothing is.
        exclusive: The probe may crash the server or take long, so no other session runs at the same time.
        allows_close: The server may close the connection in place of a reply to what the probe tests.
        allows_refused_greeting: The rule can be tested on a server that greets with 4yz or 5yz.
        evaluates_single: The dialogue of a finding can be evaluated on a target for which the rule has no probe.
        by_exchange: The invariant evaluates each exchange by itself. It may depend on whether EHLO or HELO was accepted
            before, and on whether the session uses SMTPUTF8.
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
    allows_close: bool = False
    allows_refused_greeting: bool = False
    evaluates_single: bool = False
    by_exchange: bool = False
