"""A study of many runs: how it ends (whole, by a signal, or because one could not be run), and what it says of that."""

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
    """A study under way. status, reason: how it ended; what there was until then is its result."""

    def __init__(self, report_progress: ReportProgress) -> None:
        self._report_progress = report_progress
        self._started = datetime.now(UTC)
        self.status, self.reason = COMPLETED, ""

    async def _through(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do all of the work. What goes wrong ends it, and is told by `status` and `reason`. Raises UsageError."""
        try:
            if await interruptible(work, lambda came, scope: scope.cancel()):
                self._stop()
        except BaseExceptionGroup as group:
            error = _only(group)
            if not isinstance(error, CannotRun):
                raise error from None
            self.status, self.reason = COULD_NOT_RUN, str(error)

    def _stop(self) -> None:
        self.status, self.reason = INTERRUPTED, "by a signal"

    def _head(self, kind: str) -> dict[str, Any]:
        """What every study's `result.json` begins with."""
        return {
            "schema": SCHEMAS[kind][0],
            "kind": kind,
            "started": self._started.isoformat(timespec="milliseconds"),
            "outcome": {"status": self.status, "reason": visible(self.reason, 1000)},
        }


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a nursery was left with."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
