"""Reports of crashes in a server's output: sanitizers, and the runtimes of languages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smtpbench.text import visible


@dataclass(frozen=True, slots=True)
class CrashReport:
    """A report, shortened.

    Attributes:
        kind: What wrote it: `AddressSanitizer`, `Go panic`, `Python traceback` and so on.
        summary: One line: `AddressSanitizer: heap-buffer-overflow in parse_rcpt`.
        frames: The top frames, function names without addresses, the innermost first; at most 3.
        lines: The lines of the report that are worth quoting.
    """

    kind: str
    summary: str
    frames: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Return the key by which deaths are grouped: kind and top frames, or the summary where there are no frames."""
        return f"{self.kind}: {' < '.join(self.frames)}" if self.frames else self.summary

    def to_data(self) -> dict[str, Any]:
        """Return `report` of an element of `server.deaths`."""
        return {
            "kind": self.kind,
            "summary": visible(self.summary),
            "frames": [visible(frame) for frame in self.frames],
            "lines": [visible(line) for line in self.lines],
        }


def find_crash_report(lines: Sequence[str]) -> CrashReport | None:
    """Return the last report of a crash in the output of a server; None without one.

    Args:
        lines: The last lines of the output, the oldest first.
    """
    raise NotImplementedError
