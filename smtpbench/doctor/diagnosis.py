"""Diagnosis: one thing that the doctor examined, its verdict, what it limits, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Verdicts, the worst last. `unknown`: the machine does not show it, as in some containers.
OK, UNKNOWN, WARN, BAD = "ok", "unknown", "warn", "bad"
VERDICTS = (OK, UNKNOWN, WARN, BAD)
NOT_AVAILABLE = "not available"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One check of the report.

    Attributes:
        name: What was examined.
        verdict: OK, UNKNOWN, WARN or BAD.
        value: What was found, as text.
        limits: What follows for a run, with figures.
        advice: What to do; empty if nothing needs to be done.
        figures: The same as numbers; each key ends with its unit.
    """

    name: str
    verdict: str
    value: str
    limits: str = ""
    advice: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """Return the entry in the report's `checks`."""
        return {name: getattr(self, name) for name in self.__slots__} | {"figures": dict(self.figures)}


def unknown(name: str, limits: str) -> Diagnosis:
    """Return the diagnosis of something that the machine does not show.

    Args:
        name: What was to be examined.
        limits: What it would limit, or why it is not available.
    """
    return Diagnosis(name, UNKNOWN, NOT_AVAILABLE, limits)


def worst(diagnoses: Iterable[Diagnosis]) -> str:
    """Return the worst verdict among these."""
    return max((one.verdict for one in diagnoses), key=VERDICTS.index, default=OK)


def grade(value: float, warn: float, bad: float) -> str:
    """Return the verdict on a value that should be small: WARN from `warn` on, BAD from `bad` on."""
    return BAD if value >= bad else WARN if value >= warn else OK
