"""What a campaign collects: one suspect for each way in which the server is wrong, and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from smtpbench.rules.reply_tracker import Violation
from smtpbench.session.runner import SessionResult
from smtpbench.supervisor.death import Death

#: Repetitions of a suspect.
CONFIRMATIONS: Final = 3
#: Candidates of a crash to keep besides the likeliest one.
MAX_CANDIDATES: Final = 10
#: Why a suspect was not repeated as often as that, or not shrunk.
TIME_UP: Final = "the time was up"

#: Rule and cause. Cases with the same key show the same bug.
SuspectKey = tuple[str, str]

# Phases of a campaign.
BASELINE: Final = "baseline"
CASES: Final = "cases"
CONFIRMATION: Final = "confirmation"


@dataclass(slots=True)
class Suspect:
    """The case that represents all cases with the same key.

    Attributes:
        number: Number of the case, from 0; -1 for the scenario itself.
        session_result: The session that shows the violation.
        violation: What is wrong.
        hits: Cases with this key.
        seen: Repetitions that showed the violation again.
        tried: Repetitions.
        time_up: Whether the time was up before it was repeated as often as it should be, and shrunk.
        unproved: The target died, and no repetition shows that this case is the cause.
        death: How the server's process ended; None if it did not, or if that is not known.
        log_lines: Error lines in the server's log while the session ran alone, escaped.
        about: Further keys for the file of the finding.
    """

    number: int
    session_result: SessionResult
    violation: Violation
    hits: int = 1
    seen: int = 0
    tried: int = 0
    time_up: bool = False
    unproved: bool = False
    death: Death | None = None
    log_lines: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_deterministic(self) -> bool:
        """Whether every repetition showed it."""
        return self.seen == CONFIRMATIONS

    @property
    def is_load_only(self) -> bool:
        """Whether it was repeated, and no repetition showed it."""
        return self.tried > 0 and not self.seen

    @property
    def reproducibility(self) -> str:
        """Return `3 of 3, deterministic`, `1 of 3, flaky`, `0 of 3, load-only`, or why it is not known."""
        if self.unproved:
            return "1 of 1, not proved"
        if not self.tried:
            return f"1 of 1, {TIME_UP}" if self.time_up else "1 of 1, the target is gone"
        if self.tried < CONFIRMATIONS:
            return f"{self.seen} of {self.tried}, {TIME_UP if self.time_up else 'the server was busy'}"
        kind = "deterministic" if self.seen == self.tried else "flaky" if self.seen else "load-only"
        return f"{self.seen} of {self.tried}, {kind}"


@dataclass(slots=True)
class CampaignStats:
    """Progress and counts of a campaign.

    Attributes:
        cases_limit: Cases to generate, at most.
        duration_limit_s: Time for the campaign, seconds; None without a limit.
        phase: BASELINE, CASES or CONFIRMATION.
        elapsed_s: Time since the first case, seconds; it stops when the last case has ended.
        generated: Cases that began.
        run: Cases that ended, and that the server did not refuse.
        retried: How often a case ran again, because the server refused it before.
        given_up: Cases that the server refused each time.
        connections_lowest: Cases that ran at the same time when the server refused most; 0 if it refused none.
        refusal: What the server did in place of serving such a case, such as `a greeting of 421`; empty if there was none.
        interrupted: Cases that were ended because the time was up; nothing is concluded from them.
        answered: Cases of these in which the server replied to a command.
        verbs: Verbs that had a reply, as `ReplyTracker.answered` has them.
        silence: Why nothing can be said: the server replied to no command of the baseline. Empty if it did.
        suspects: Suspects so far.
        confirmed: Suspects that were repeated and shrunk, in the phase CONFIRMATION.
        target_gone: Whether the target died.
        crash_candidates: Cases that may have crashed the target, besides the one among the suspects, the likeliest first.
    """

    cases_limit: int = 0
    duration_limit_s: float | None = None
    phase: str = BASELINE
    elapsed_s: float = 0.0
    generated: int = 0
    run: int = 0
    retried: int = 0
    given_up: int = 0
    connections_lowest: int = 0
    refusal: str = ""
    interrupted: int = 0
    answered: int = 0
    verbs: set[str] = field(default_factory=set)
    silence: str = ""
    suspects: dict[SuspectKey, Suspect] = field(default_factory=dict)
    confirmed: int = 0
    target_gone: bool = False
    crash_candidates: list[SessionResult] = field(default_factory=list)

    @property
    def not_repeated(self) -> int:
        """Suspects that were not repeated as often as they should be, because the time was up."""
        return sum(suspect.time_up and suspect.tried < CONFIRMATIONS for suspect in self.suspects.values())

    @property
    def not_shrunk(self) -> int:
        """Suspects that were repeated, and that the time was too short to shrink."""
        return sum(suspect.time_up and suspect.is_deterministic for suspect in self.suspects.values())

    @property
    def share_done(self) -> float:
        """Return how much of the phase is done, from 0 to 1: by cases or by time, whichever limit is nearer."""
        if self.phase == BASELINE:
            return 0.0
        if self.phase == CONFIRMATION:
            return self.confirmed / len(self.suspects) if self.suspects else 1.0
        by_cases = self.run / self.cases_limit if self.cases_limit else 0.0
        by_time = self.elapsed_s / self.duration_limit_s if self.duration_limit_s else 0.0
        return min(1.0, max(by_cases, by_time))

    def add(self, number: int, session_result: SessionResult, violations: Sequence[Violation]) -> None:
        """Record what is wrong with a case. The case with the lowest number represents its key."""
        for violation in violations:
            key = (violation.rule, violation.cause)
            suspect = self.suspects.get(key)
            if suspect is None:
                self.suspects[key] = Suspect(number, session_result, violation)
            else:
                suspect.hits += 1
                if number < suspect.number:
                    suspect.number, suspect.session_result, suspect.violation = number, session_result, violation
