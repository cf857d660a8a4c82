"""The exit code that results stand for, as the commands that made them would have ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from smtpbench.measure.saved import CAPACITY, COMPARISON, Saved
from smtpbench.report.reading import findings as judged
from smtpbench.report.reading import metrics as facts
from smtpbench.report.reading.sections import number, section

FINE, FINDINGS, COULD_NOT_RUN, THRESHOLD, INTERRUPTED = 0, 1, 3, 99, 130
#: What counts most first: a result that is not whole says least of all.
_GRAVEST: Final = (COULD_NOT_RUN, INTERRUPTED, THRESHOLD, FINDINGS)


def exit_code(saved: Iterable[Saved]) -> int:
    """The gravest of theirs."""
    codes = {code for head, one in facts.heads(saved) for code in _codes(head.status, one)}
    return next((code for code in _GRAVEST if code in codes), FINE)


def _codes(status: str, saved: Saved) -> Iterable[int]:
    if status not in (facts.COMPLETED, "aborted"):  # a threshold aborts, and has its own code
        yield INTERRUPTED if status == "interrupted" else COULD_NOT_RUN
    if any(not limit.passed for limit in facts.limits(saved)):
        yield THRESHOLD
    if any(found.counts for found in judged.findings(saved)):
        yield FINDINGS
    if saved.kind == COMPARISON and (
        any(shift.worse for shift in facts.shifts(saved)) or any(rule.worse for rule in facts.broken_differently(saved))
    ):
        yield FINDINGS
    if saved.kind == CAPACITY and number(section(saved.result, "capacity").get("rate_per_s")) is None:
        yield THRESHOLD
