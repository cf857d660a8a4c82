"""Options that take one of a few words: the words, for the commands and for the shell's completion."""

from __future__ import annotations

from collections.abc import Collection

from smtpbench.errors import UsageError
from smtpbench.text import did_you_mean

PROGRESS = ("auto", "live", "plain", "none")
ARRIVALS = ("uniform", "poisson")
WHEN_BUSY = ("wait", "drop")
TIMES = ("response", "service")


def one_of(option: str, value: str | None, known: Collection[str]) -> None:
    """Raise UsageError for a value, other than None, that is not known."""
    if value is not None and value not in known:
        raise UsageError(f"{option} {value}: allowed are {', '.join(known)}{did_you_mean(value, known)}")
