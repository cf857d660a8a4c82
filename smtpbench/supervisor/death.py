"""What is known of the end of a server's process."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import Any

from smtpbench.supervisor.crash_report import CrashReport
from smtpbench.text import visible


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the server's output or of its log.

    Attributes:
        at_ns: When it was read, of `time.monotonic_ns`.
        text: The line, without its end; not escaped.
        source: `output` for standard output and error, otherwise the path of the log file.
    """

    at_ns: int
    text: str
    source: str = "output"


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a server's process that nobody asked for.

    Attributes:
        at_ns: When it was noticed, of `time.monotonic_ns`.
        pid: The process; 0 if it is not known.
        exit_status: Its exit status; None if a signal ended it, or if the status is not known.
        signal_number: The signal that ended it; None if none did, or if that is not known.
        report: Report of a sanitizer or of the language's runtime; None without one.
        last_output: The last lines that the server wrote before.
        core_file: Name of the core file; empty if there is none.
        restarted_by: Who started it again: `smtpbench`, `others`, or empty for nobody so far.
    """

    at_ns: int
    pid: int = 0
    exit_status: int | None = None
    signal_number: int | None = None
    report: CrashReport | None = None
    last_output: tuple[str, ...] = ()
    core_file: str = ""
    restarted_by: str = ""

    @property
    def how(self) -> str:
        """Return how the process ended: `signal 6 (SIGABRT)`, `exit status 1`, or `cause not known`."""
        if self.signal_number is not None:
            try:
                name = f" ({signal.Signals(self.signal_number).name})"
            except ValueError:
                name = ""
            return f"signal {self.signal_number}{name}"
        return "cause not known" if self.exit_status is None else f"exit status {self.exit_status}"

    @property
    def cause(self) -> str:
        """Return the key by which deaths are grouped: the report's key, or how the process ended without a report."""
        return self.report.key if self.report is not None else self.how

    @property
    def text(self) -> str:
        """Return one phrase for a finding: `signal 6 (SIGABRT), AddressSanitizer: heap-buffer-overflow in parse_rcpt`."""
        return self.how if self.report is None else f"{self.how}, {visible(self.report.summary)}"

    def restarted(self, by: str) -> Death:
        """Return the death with who started the server again."""
        return replace(self, restarted_by=by)

    def to_data(self) -> dict[str, Any]:
        """Return an element of `server.deaths` of a result."""
        return {
            "how": self.how,
            "exit_status": self.exit_status,
            "signal": self.signal_number,
            "cause": visible(self.cause),
            "report": None if self.report is None else self.report.to_data(),
            "last_output": [visible(line) for line in self.last_output],
            "core_file": visible(self.core_file),
            "restarted_by": self.restarted_by,
        }
