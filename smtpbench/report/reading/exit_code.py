"""The exit code of saved results: the one that the commands which made them ended with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from smtpbench.measure.saved import CAPACITY, COMPARISON, RUN, Saved
from smtpbench.report.reading.capacity import capacity_of
from smtpbench.report.reading.comparison import compared_metrics_of, compared_rules_of
from smtpbench.report.reading.findings import findings_of
from smtpbench.report.reading.head import COMPLETED, heads_of
from smtpbench.report.reading.metrics import messages_of, thresholds_of
from smtpbench.report.reading.server import deaths_of

FINE, FINDINGS, COULD_NOT_RUN, INCOMPLETE, THRESHOLD, INTERRUPTED = 0, 1, 3, 4, 99, 130
#: Exit codes in the order of precedence: a result that was not completed comes first.
_PRECEDENCE: Final = (COULD_NOT_RUN, INTERRUPTED, THRESHOLD, INCOMPLETE, FINDINGS)
#: Thresholds that ask for messages that are not accepted, such as `rejected > 99%`.
_WANTS_REFUSAL = re.compile(r"(?:rejected|failed|recipients\.rejected|replies\.\S+\.[45]\w\w)(?:@\S+)? (?:>|>=|==) .*")


def exit_code(several: Iterable[Saved]) -> int:
    """Return the exit code of several results, which is that of the worst."""
    codes = {code for head, saved in heads_of(several) for code in _codes(head.status, saved)}
    return next((code for code in _PRECEDENCE if code in codes), FINE)


def nothing_accepted(saved: Saved) -> bool:
    """Return whether a run sent messages and the server accepted none, unless a threshold that passed asks for that."""
    messages = messages_of(saved)
    wanted = any(
        threshold.passed and threshold.limit and _WANTS_REFUSAL.fullmatch(threshold.text)
        for threshold in thresholds_of(saved)
    )
    return saved.kind == RUN and messages["attempted"] > 0 and not messages["accepted"] and not wanted


def _codes(status: str, saved: Saved) -> Iterable[int]:
    if status == "incomplete":  # its thresholds were judged on a part of the load
        yield INCOMPLETE
        return
    if status not in (COMPLETED, "aborted"):  # a threshold aborts, and has a code of its own
        yield INTERRUPTED if status == "interrupted" else COULD_NOT_RUN
    if any(not threshold.passed for threshold in thresholds_of(saved)):
        yield THRESHOLD
    if nothing_accepted(saved):
        yield INCOMPLETE
    if any(finding.counts for finding in findings_of(saved)) or (saved.kind == RUN and deaths_of(saved)):
        yield FINDINGS
    if saved.kind == COMPARISON and (
        any(metric.worse for metric in compared_metrics_of(saved)) or any(rule.worse for rule in compared_rules_of(saved))
    ):
        yield FINDINGS
    if saved.kind == CAPACITY and capacity_of(saved).rate_per_s is None:
        yield THRESHOLD
