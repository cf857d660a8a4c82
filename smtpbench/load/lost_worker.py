"""A worker process that ended before the end of its share of the run."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from smtpbench.load.plan import LoadPlan
from smtpbench.session import script as s
from smtpbench.session.script import Script
from smtpbench.text import plural
from smtpbench.units import NS_PER_S


@dataclass(frozen=True, slots=True)
class LostWorker:
    """A worker that was lost, and what it had reported.

    Attributes:
        number: Number of the worker.
        status: Exit status of its process; negative for the signal that ended it.
        last_report_ns: End of its last report, nanoseconds after the start of the run; 0 without a report.
        counted: Messages of the measured window that it had reported.
    """

    number: int
    status: int
    last_report_ns: int
    counted: int

    @property
    def cause(self) -> str:
        """How its process ended: `worker 1 was killed by SIGKILL`."""
        if self.status < 0:
            try:
                return f"worker {self.number} was killed by {signal.Signals(-self.status).name}"
            except ValueError:
                return f"worker {self.number} was killed by signal {-self.status}"
        return f"worker {self.number} ended with status {self.status}"

    def describe(self, planned: int | None) -> str:
        """Return what is missing as text.

        Args:
            planned: Messages of its share; None if the share is a length of time.
        """
        last = f"its last report is of {self.last_report_ns / NS_PER_S:.1f} s" if self.last_report_ns else "without a report"
        missing = "the rest of its share was not issued"
        if planned is not None:
            missing = f"not issued or not reported: {self.missing(planned):,} of {plural(planned, 'message')} of its share"
        return f"{self.cause}, {last}; {missing}"

    def missing(self, planned: int) -> int:
        """Return how many of the planned messages are not counted."""
        return max(0, planned - self.counted)

    def to_data(self, planned: int | None) -> dict[str, Any]:
        """Return an entry of `lost_workers` of the result."""
        return {
            "worker": self.number,
            "cause": self.cause,
            "last_report_s": self.last_report_ns / NS_PER_S,
            "messages_counted": self.counted,
            "messages_planned": planned,
            "messages_unissued": None if planned is None else self.missing(planned),
        }


def planned_messages(plan: LoadPlan, script: Script, worker: int) -> int | None:
    """Return the messages of one worker's share of the measured window; None if only a length of time ends it."""
    if plan.open_model:
        numbers = (n for n, after_ns in plan.schedule(worker) if after_ns >= plan.warmup_ns)
    elif plan.arrivals is not None and plan.duration_ns is None:
        numbers = (n for n in plan.numbers(worker))
    else:
        return None
    if any(step.kind == s.CHOOSE for step in script.steps):
        return sum(map(script.messages, numbers))
    return script.messages(0) * sum(1 for _ in numbers)
