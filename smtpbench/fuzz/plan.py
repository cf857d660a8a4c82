"""What a fuzzing campaign is asked to do, and what may delay its cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from smtpbench.units import NS_PER_S

#: Confirming a suspect may take this many times the timeout of a reply, besides the time for shrinking it: three
#: repetitions, and one attempt with each end.
_CONFIRMATION_TIMEOUTS = 10


@dataclass(frozen=True, slots=True)
class CampaignPlan:
    """What a campaign does. It ends at whichever of `cases` and `duration_ns` is reached first.

    Attributes:
        cases: Cases to generate, at most.
        duration_ns: Time for all of it, nanoseconds; None without a limit.
        seed: Random seed; the same seed generates the same cases.
        connections: Cases that run at the same time.
        families: Mutation families to use, see `fuzz.families`.
        max_findings: No more cases begin once there are this many suspects.
        strict: Whether rules of severity `advice` count.
        shrink_s: Time for shrinking one suspect, seconds.
        aliases: Further recipients that the target accepts; mutations use them.
        unknown: A recipient that the target refuses; empty for an unlikely one. Mutations use it.
        timeout_ns: Limit for one reply, nanoseconds. The time for confirming one suspect follows from it.
    """

    cases: int
    duration_ns: int | None
    seed: int
    connections: int
    families: Sequence[str]
    max_findings: int
    strict: bool = False
    shrink_s: float = 5.0
    aliases: Sequence[str] = ()
    unknown: str = ""
    timeout_ns: int = 3 * NS_PER_S

    @property
    def duration_s(self) -> float:
        """Time for all of it, seconds; infinite without a limit."""
        return math.inf if self.duration_ns is None else self.duration_ns / NS_PER_S

    @property
    def confirmation_s(self) -> float:
        """Time for confirming and shrinking one suspect, seconds."""
        return self.shrink_s + _CONFIRMATION_TIMEOUTS * self.timeout_ns / NS_PER_S


class CaseLimiter(Protocol):
    """Decides when cases may begin, where that is not as soon as a connection is free."""

    async def wait_for_start(self) -> None:
        """Wait until the campaign may begin its first case. Called once, after the baseline."""

    async def wait_for_case(self, number: int) -> bool:
        """Wait until case `number` may begin. Return False if no more cases may begin."""
