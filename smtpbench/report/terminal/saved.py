"""Saved results on the console, as `run`, `check`, `fuzz`, `compare` and `capacity` printed them."""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.measure.partial import REASONS
from smtpbench.measure.saved import CHECK, COMPARISON, FUZZ, RUN, Saved
from smtpbench.report.reading.head import head_of
from smtpbench.report.terminal.capacity import capacity_table
from smtpbench.report.terminal.comparison import comparison_table
from smtpbench.report.terminal.scorecard import findings_card, matrix, scorecard
from smtpbench.report.terminal.tables import Screen, final_table


def saved_results(saved: Sequence[Saved], *, color: bool = False, screen: Screen | None = None) -> str:
    """Return the report of each result; several results of `check` give one matrix."""
    if len(saved) > 1 and all(one.kind == CHECK for one in saved):
        return matrix([one.result for one in saved], color=color)
    return "\n\n".join(_report(one, color, screen) for one in saved)


def _report(saved: Saved, color: bool, screen: Screen | None) -> str:
    head = head_of(saved)
    ending = f"{head.status.upper()}: {head.reason}\n" if head.status in REASONS else ""
    return ending + _whole_report(saved, color, screen)


def _whole_report(saved: Saved, color: bool, screen: Screen | None) -> str:
    if saved.kind == RUN:
        return final_table(saved.result, str(saved.path), color=color, screen=screen)
    if saved.kind == CHECK:
        return scorecard(saved.result, color=color)
    if saved.kind == FUZZ:
        return findings_card(saved.result, color=color)
    if saved.kind == COMPARISON:
        return comparison_table(saved.result, color=color)
    return capacity_table(saved.result, color=color, screen=screen)
