"""What a doctor says: one thing that was looked at, whether it is well, what it limits, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Verdicts, the gravest last. `unknown`: the machine does not tell, as in a container.
OK, UNKNOWN, WARN, BAD = "ok", "unknown", "warn", "bad"
VERDICTS = (OK, UNKNOWN, WARN, BAD)
CANNOT_BE_TOLD = "cannot be told"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One of them.

    value: what was found, in words. limits: what follows for a run, in plain figures. advice: what to do; empty where there
    is nothing. figures: the same as numbers, a unit in every key.
    """

    name: str
    verdict: str
    value: str
    limits: str = ""
    advice: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """An entry of the report's `checks`."""
        return {name: getattr(self, name) for name in self.__slots__} | {"figures": dict(self.figures)}


def unknown(name: str, why: str) -> Diagnosis:
    """What the machine does not tell, and why that is so or what it would have limited."""
    return Diagnosis(name, UNKNOWN, CANNOT_BE_TOLD, why)


def worst(diagnoses: Iterable[Diagnosis]) -> str:
    """The gravest verdict among them."""
    return max((one.verdict for one in diagnoses), key=VERDICTS.index, default=OK)


def graded(value: float, warn: float, bad: float) -> str:
    """The verdict of something that should be small: at `warn` or above it is doubtful, at `bad` it is bad."""
    return BAD if value >= bad else WARN if value >= warn else OK
