"""The rows of `timeline.csv` in memory, for reports: a run of a day has 86,400 of them."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, overload

#: A row: number by column, None for a value that is missing; `phase` is a text.
TimelineRow = dict[str, float | str | None]
_PHASE: Final = "phase"


class Timeline(Sequence[TimelineRow]):
    """Rows in order of time, kept by column in eight octets a value.

    A row is made when it is asked for. As a dict, each would take 1.5 KB.

    Args:
        columns: Names of the columns; values of others are discarded.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._numbers = {name: array("d") for name in columns if name != _PHASE}
        self._phases: list[str | None] | None = [] if _PHASE in columns else None
        self._length = 0

    def append(self, row: Mapping[str, float | str | None]) -> None:
        """Add a row; a number that is missing, or not finite, is None in it."""
        for name, numbers in self._numbers.items():
            value = row.get(name)
            numbers.append(value if isinstance(value, int | float) else math.nan)
        if self._phases is not None:
            phase = row.get(_PHASE)
            self._phases.append(sys.intern(phase) if isinstance(phase, str) else None)
        self._length += 1

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> TimelineRow: ...

    @overload
    def __getitem__(self, at: slice) -> list[TimelineRow]: ...

    def __getitem__(self, at: int | slice) -> TimelineRow | list[TimelineRow]:
        if isinstance(at, slice):
            return [self._row(one) for one in range(*at.indices(self._length))]
        return self._row(range(self._length)[at])

    def __iter__(self) -> Iterator[TimelineRow]:
        return map(self._row, range(self._length))

    def _row(self, at: int) -> TimelineRow:
        row: TimelineRow = {}
        for name, numbers in self._numbers.items():
            value = numbers[at]
            row[name] = None if math.isnan(value) else value
        if self._phases is not None:
            row[_PHASE] = self._phases[at]
        return row
