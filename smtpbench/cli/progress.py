"""Progress of commands that are not load runs, as `report.terminal.progress` shows it."""

from __future__ import annotations

import time
from collections.abc import Callable

from smtpbench.cli.choices import PROGRESS, one_of
from smtpbench.report.terminal.progress import ProgressDisplay, ProgressUpdate, progress_display


def display_for(mode: str, *subject: str) -> ProgressDisplay:
    """Return the display for the value of `--progress`. Raises UsageError.

    Args:
        mode: Value of the option.
        subject: Scenario and target, those that there are.
    """
    one_of("--progress", mode, PROGRESS)
    return progress_display(mode, " → ".join(filter(None, subject)))


class ElapsedProgress:
    """Adds the time since the command's start to each update."""

    def __init__(self, display: ProgressDisplay, clock: Callable[[], float] = time.monotonic) -> None:
        self._display = display
        self._clock = clock
        self._start_s = clock()

    @property
    def elapsed_s(self) -> float:
        """Time since the start, seconds."""
        return self._clock() - self._start_s

    def update(self, status: str, share: float | None = None, *, milestone: bool = False) -> None:
        """Show how far the command has come; see `ProgressUpdate`."""
        self._display.update(ProgressUpdate(self.elapsed_s, status, share, milestone=milestone))

    def count(self, done: int, total: int, status: str, *, milestone: bool = False) -> None:
        """Show that so many of all parts are done."""
        self.update(status, done / total if total else None, milestone=milestone)
