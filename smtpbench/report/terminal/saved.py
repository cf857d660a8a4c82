"""Saved results on the console, as `run`, `check`, `fuzz`, `compare` and `capacity` printed them."""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.measure.saved import CHECK, COMPARISON, FUZZ, RUN, Saved
from smtpbench.report.terminal.capacity import capacity_table
from smtpbench.report.terminal.comparison import comparison_table
from smtpbench.report.terminal.scorecard import column_letter, findings_card, matrix, scorecard
from smtpbench.report.terminal.screen import Screen
from smtpbench.report.terminal.tables import final_table
from smtpbench.report.terminal.verdict import verdict_text


def saved_results(saved: Sequence[Saved], *, color: bool = False, screen: Screen | None = None) -> str:
    """Return the report of each result; several results of `check` give one matrix."""
    if len(saved) > 1 and all(one.kind == CHECK for one in saved):
        table = matrix([one.result for one in saved], color=color)
        return f"{table}\n\n{matrix_verdicts(saved, color=color, screen=screen)}"
    return "\n\n".join(_report(one, color, screen) for one in saved)


def matrix_verdicts(saved: Sequence[Saved], *, color: bool = False, screen: Screen | None = None) -> str:
    """Return the verdict on each result of a matrix, under the letter of its column."""
    labels = map(column_letter, range(len(saved)))
    return "\n".join(
        verdict_text(one, color=color, screen=screen, label=label) for one, label in zip(saved, labels, strict=True)
    )


def _report(saved: Saved, color: bool, screen: Screen | None) -> str:
    report = _whole_report(saved, color, screen)
    # the report of a run ends with its verdict, because all of it has to fit the screen
    return report if saved.kind == RUN else f"{report}\n{verdict_text(saved, color=color, screen=screen)}"


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
