"""An observer for runs whose progress is not shown: one of many in a study, or a trial of the doctor."""

from __future__ import annotations

from collections.abc import Callable

from smtpbench.measure.files import Tick
from smtpbench.measure.recorder import Interval


class SilentObserver:
    """Ignores the seconds of a run.

    Args:
        notify: Function that receives the run's notifications; without one they are discarded.
    """

    def __init__(self, notify: Callable[[str], None] | None = None) -> None:
        self._notify = notify

    def preparing(self, done: int, total: int) -> None:
        """Ignore how many message files are prepared."""

    def tick(self, tick: Tick, totals: Interval) -> None:
        """Ignore a second of the run."""

    def notify(self, text: str) -> None:
        """Forward a notification, where a function was given."""
        if self._notify is not None:
            self._notify(text)
