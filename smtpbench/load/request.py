"""What a run is asked to do, who follows it, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from smtpbench.errors import CannotRun
from smtpbench.load.plan import LoadPlan
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.measure.files import Tick
from smtpbench.measure.recorder import Interval
from smtpbench.scenario.load import ScenarioFile
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.target import Target, Trust


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run as the user asked for it.

    Attributes:
        file: Scenario.
        target: Server to test.
        plan: Load.
        out: Folder for the files of the run.
        trust: TLS settings.
        password: Password for AUTH; None if there is none.
        authorized: Whether the target may be another machine than this one.
        message_bytes: Size of each message, octets; None for the size in the scenario.
        hostile: Share of the sessions that are mutated, from 0 to 1.
        monitor: Thresholds.
        server: The server under test, started or watched; None if nothing is known of its processes.
    """

    file: ScenarioFile
    target: Target
    plan: LoadPlan
    out: Path
    trust: Trust = field(default_factory=Trust)
    password: str | None = field(default=None, repr=False)
    authorized: bool = False
    message_bytes: int | None = None
    hostile: float = 0.0
    monitor: ThresholdMonitor = field(default_factory=ThresholdMonitor)
    server: SupervisedServer | None = field(default=None, compare=False)


class Observer(Protocol):
    """Follows a run while it goes on."""

    def preparing(self, done: int, total: int) -> None:
        """Receive how many message files are prepared, and how many there are."""

    def tick(self, tick: Tick, totals: Interval) -> None:
        """Receive the figures of the last second and the totals so far."""

    def notify(self, text: str) -> None:
        """Receive a message for the user."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A result and its file.

    Attributes:
        result: Content of `result.json`.
        saved: Path of the file; None if it could not be written anywhere.
        interrupted: Whether a signal ended the run.
        findings: Number of new findings of the hostile sessions.
        incomplete: Which workers were lost; empty if none was.
    """

    result: dict[str, Any]
    saved: Path | None
    interrupted: bool
    findings: int = 0
    incomplete: str = ""

    def require_complete(self) -> None:
        """Raise CannotRun for a run that lost a worker: its figures are those of a smaller load."""
        if self.incomplete:
            raise CannotRun(f"a run is incomplete: {self.incomplete}")
