"""The time that a campaign may take, and how its phases share it.

Theory of operation
===================

Cases begin until the time is up. Once there are suspects, a part of the time is kept for them: what confirming all of them
is likely to take, and half of the whole time at most. Cases that are still running when no more begin get half of the time
that is left, and the search for the cases that killed the target gets most of the rest. A campaign ends at most `GRACE_S`
after its limit, whatever the target does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Time for the sessions that are open when the time is up, seconds.
GRACE_S = 1.0
#: Share of the time that is kept for confirming suspects, at most.
_CONFIRMATION_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """When a campaign ends. Times are those of trio's clock, seconds.

    Attributes:
        started_s: Start of the campaign.
        duration_s: What it may take; infinite without a limit.
    """

    started_s: float
    duration_s: float = math.inf

    @property
    def end_s(self) -> float:
        """When the time is up."""
        return self.started_s + self.duration_s

    @property
    def latest_s(self) -> float:
        """When the last session ends at the latest."""
        return self.end_s + GRACE_S

    def cases_end_s(self, confirmation_s: float) -> float:
        """Return when cases stop to begin.

        Args:
            confirmation_s: What confirming the suspects so far is likely to take, seconds.
        """
        if math.isinf(self.duration_s):
            return self.end_s
        return self.end_s - min(self.duration_s * _CONFIRMATION_SHARE, confirmation_s)

    def share_of_the_rest_s(self, now_s: float, share: float = 0.5) -> float:
        """Return when a share of the time that is left has passed: `GRACE_S` from now at least, `latest_s` at most."""
        return min(now_s + max(GRACE_S, (self.end_s - now_s) * share), max(now_s, self.latest_s))
