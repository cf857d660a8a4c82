"""Base of a study of many runs: how it ends (complete, by a signal, or because a run was not possible), and its report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from smtpbench.errors import CannotRun
from smtpbench.measure.saved import SCHEMAS
from smtpbench.session.runner import interruptible
from smtpbench.text import visible

COMPLETED, INTERRUPTED, COULD_NOT_RUN = "completed", "interrupted", "could-not-run"

ReportProgress = Callable[[str], None]


class StudyProgress:
    """A study in progress. Whatever ends it, the completed runs are its result.

    Attributes:
        status: COMPLETED, INTERRUPTED or COULD_NOT_RUN.
        reason: Why it ended early; empty if it is complete.
    """

    def __init__(self, report_progress: ReportProgress) -> None:
        self._report_progress = report_progress
        self._started = datetime.now(UTC)
        self.status, self.reason = COMPLETED, ""

    async def _run_work(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work until its end, a signal or an error; set `status` and `reason`. Raises UsageError."""
        try:
            if await interruptible(work, lambda came, scope: scope.cancel()):
                self._mark_interrupted()
        except BaseExceptionGroup as group:
            error = _single_error(group)
            if not isinstance(error, CannotRun):
                raise error from None
            self.status, self.reason = COULD_NOT_RUN, str(error)

    def _mark_interrupted(self) -> None:
        self.status, self.reason = INTERRUPTED, "by a signal"

    def _result_header(self, kind: str) -> dict[str, Any]:
        """Return the first keys of the study's `result.json`."""
        return {
            "schema": SCHEMAS[kind][0],
            "kind": kind,
            "started": self._started.isoformat(timespec="milliseconds"),
            "outcome": {"status": self.status, "reason": visible(self.reason, 1000)},
        }


def _single_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error inside the groups that nurseries made of it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
