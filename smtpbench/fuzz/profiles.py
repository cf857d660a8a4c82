"""Profiles of `smtpbench fuzz`: how large a campaign is.

Help texts and shell completion import this module, so it imports nothing that takes time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class FuzzProfile(NamedTuple):
    """Limits of a fuzzing campaign, which ends at whichever of `cases` and `duration_s` is reached first.

    Attributes:
        description: What the profile is for.
        cases: Cases to generate, at most.
        duration_s: Time for the campaign, seconds: cases, then confirming and shrinking what they found.
        connections: Cases that run at the same time, each on its own connection.
        shrink_s: Time for shrinking one finding, seconds.
    """

    description: str
    cases: int
    duration_s: int
    connections: int
    shrink_s: float


#: Name, as `--profile` takes it → limits.
PROFILES: Final[Mapping[str, FuzzProfile]] = {
    "quick": FuzzProfile("A first look while developing.", 1_000, 30, 50, 6.0),
    "ci": FuzzProfile("A build step.", 10_000, 2 * 60, 100, 10.0),
    "deep": FuzzProfile("A search that may run for an hour.", 10_000_000, 60 * 60, 500, 30.0),
}
