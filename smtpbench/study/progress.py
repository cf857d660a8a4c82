"""Base of a study of many runs: its progress, how it ends, and the first keys of its result.

A study ends when it is complete, by a signal, or because a run was not possible.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from smtpbench.errors import CannotRun
from smtpbench.load.plan import UNBOUNDED_NS, LoadPlan
from smtpbench.load.silent_observer import SilentObserver
from smtpbench.measure.files import Tick
from smtpbench.measure.recorder import Interval
from smtpbench.measure.saved import SCHEMAS
from smtpbench.session.runner import interruptible
from smtpbench.text import plural, visible
from smtpbench.units import NS_PER_S

COMPLETED, INTERRUPTED, COULD_NOT_RUN = "completed", "interrupted", "could-not-run"


class StudyUpdate(NamedTuple):
    """How far a study has come.

    Attributes:
        text: What it does now, or what a run measured.
        share: Part of the work that is done, 0 to 1; None where the whole is not known.
        remaining_s: Time left, seconds; None where it follows from the share, or is not known.
        milestone: Whether a part of the work is complete.
    """

    text: str
    share: float | None = None
    remaining_s: float | None = None
    milestone: bool = False


ReportProgress = Callable[[StudyUpdate], None]


class StudyProgress:
    """A study in progress. Whatever ends it, the completed runs are its result.

    Args:
        report_progress: Function that receives the progress.
        settings: What decides what the study measures; `--resume` compares it.
        interrupted: Result of the interrupted study that this one continues; None for a study from the beginning.

    Attributes:
        status: COMPLETED, INTERRUPTED or COULD_NOT_RUN.
        reason: Why it ended early; empty if it is complete.
    """

    def __init__(
        self, report_progress: ReportProgress, settings: Mapping[str, Any], interrupted: Mapping[str, Any] | None
    ) -> None:
        self._report_progress = report_progress
        self._settings = settings
        now = _iso(datetime.now(UTC))
        self._started = now if interrupted is None else str(interrupted.get("started", now))
        self._resumed: list[dict[str, Any]] = [] if interrupted is None else list(interrupted.get("resumed", []))
        self.status, self.reason = COMPLETED, ""

    def _note_resumption(self, kept: int) -> None:
        """Record that the study was resumed now; kept: number of rounds or steps of the interrupted one that it keeps."""
        self._resumed.append({"at": _iso(datetime.now(UTC)), "kept": kept})

    def _resumption_notes(self, unit: str) -> list[str]:
        """Return a note for each time that the study was resumed; unit: what was kept, `round` or `step`."""
        return [f"Resumed at {visible(str(one['at']))}, after {plural(one['kept'], unit)}." for one in self._resumed]

    def _notify(self, text: str) -> None:
        """Report what the user should know now."""
        self._report_progress(StudyUpdate(text, milestone=True))

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
            "started": self._started,
            "outcome": {"status": self.status, "reason": visible(self.reason, 1000)},
            "settings": dict(self._settings),
            "resumed": self._resumed,
        }


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


def _single_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error inside the groups that nurseries made of it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class RunObserver(SilentObserver):
    """Reports how much of one run of a study is over, once a second.

    Args:
        plan: Load of the run.
        notify: Function that receives the run's notifications.
        report_run: Function that receives the time since the run's start in seconds, and the part of it that is over.
    """

    def __init__(self, plan: LoadPlan, notify: Callable[[str], None], report_run: Callable[[float, float], None]) -> None:
        super().__init__(notify)
        self._plan = plan
        self._report_run = report_run

    def tick(self, tick: Tick, totals: Interval) -> None:
        """Report a second of the run."""
        shares = [0.0]
        if self._plan.issuing_ns < UNBOUNDED_NS:
            shares.append(tick.end_s * NS_PER_S / self._plan.issuing_ns)
        if self._plan.arrivals:
            shares.append(totals.attempted / self._plan.arrivals)
        self._report_run(tick.end_s, min(1.0, max(shares)))
