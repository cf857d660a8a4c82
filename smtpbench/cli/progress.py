"""Progress of commands that are not load runs, as `report.terminal.progress` shows it."""

from __future__ import annotations

import time
from collections.abc import Callable

from smtpbench.cli.choices import PROGRESS, one_of
from smtpbench.report.terminal.progress import ProgressDisplay, ProgressUpdate, progress_display, remaining_s
from smtpbench.study.progress import StudyUpdate


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

    def update(self, status: str, share: float | None = None, *, equal_parts: bool = False) -> None:
        """Show how far the command has come.

        Args:
            status: What it does now and its latest figures.
            share: Part of the work that is done, 0 to 1; None where the whole is not known.
            equal_parts: Whether all parts take equally long, so that the time left follows from the share.
        """
        elapsed_s = self.elapsed_s
        left_s = remaining_s(elapsed_s, share) if equal_parts else None
        self._display.update(ProgressUpdate(elapsed_s, status, share, left_s))

    def study(self, update: StudyUpdate) -> None:
        """Show how far a study has come; without a share, it is taken of the time."""
        elapsed_s, share, left_s = self.elapsed_s, update.share, update.remaining_s
        if share is None and left_s is not None:
            share = elapsed_s / (elapsed_s + left_s) if left_s else 1.0
        elif left_s is None:
            left_s = remaining_s(elapsed_s, share)
        self._display.update(ProgressUpdate(elapsed_s, update.text, share, left_s, milestone=update.milestone))
