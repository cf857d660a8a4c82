"""Values of options: those that are one of a few words, and those that are parsed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from smtpbench.errors import UsageError
from smtpbench.text import did_you_mean

PROGRESS = ("auto", "live", "plain", "none")
ARRIVALS = ("uniform", "poisson")
WHEN_BUSY = ("wait", "drop")
RESTART = ("always", "never")
TIMES = ("response", "service")

T = TypeVar("T")


def one_of(option: str, value: str | None, known: Collection[str]) -> None:
    """Raise UsageError for a value, other than None, that is not known."""
    if value is not None and value not in known:
        raise UsageError(f"{option} {value}: allowed are {', '.join(known)}{did_you_mean(value, known)}")


def option_value(option: str, parse: Callable[[str], T], text: str) -> T:
    """Return the parsed value of an option; a UsageError of its parser names the option."""
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None
