"""Progress of a long command: a panel that redraws itself on a terminal, or a plain line every few seconds.

Every long command reports `ProgressUpdate`s to one `ProgressDisplay`. It shows what the command works on, the share that is
done, the time left and the current figures. Progress goes to standard error, so that standard output holds results alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TextIO

from smtpbench.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

AUTO, LIVE, PLAIN, NONE = "auto", "live", "plain", "none"
#: Least time between two plain lines, seconds of the command.
PLAIN_INTERVAL_S = 5.0
#: The first plain line comes after this time, seconds: a command that is over by then prints none.
FIRST_LINE_S = 0.9
_BAR_COLUMNS = 30


class ProgressUpdate(NamedTuple):
    """How far a command has come.

    Attributes:
        elapsed_s: Time since its start, seconds.
        status: What it does now and its latest figures, one line.
        share: Part of the work that is done, 0 to 1; None where the whole is not known.
        remaining_s: Time left, seconds; None where there is no basis for an estimate.
        details: Further lines, for the panel alone.
        milestone: Whether a plain line is printed at once, because part of the work is complete.
    """

    elapsed_s: float
    status: str
    share: float | None = None
    remaining_s: float | None = None
    details: Sequence[str] = ()
    milestone: bool = False


class ProgressDisplay(Protocol):
    """Shows progress while a command runs; it is used as a context."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

    def update(self, update: ProgressUpdate) -> None:
        """Show how far the command has come."""

    def notify(self, text: str) -> None:
        """Show what the user should know now, in every mode."""


def progress_display(mode: str, subject: str, err: TextIO | None = None) -> ProgressDisplay:
    """Return the display for `--progress`.

    Args:
        mode: AUTO, LIVE, PLAIN or NONE; AUTO is LIVE on a terminal and PLAIN elsewhere.
        subject: What the command works on: `relay → smtp://127.0.0.1:2525`.
        err: Stream to write to; None for standard error.
    """
    err = err or sys.stderr
    if mode == LIVE or (mode == AUTO and err.isatty() and os.environ.get("TERM") != "dumb"):
        return LiveDisplay(subject)
    return PlainDisplay(subject, err, silent=mode == NONE)


def remaining_s(elapsed_s: float, share: float | None) -> float | None:
    """Return the time left of work whose parts take equally long, in seconds; None before a part is done."""
    return elapsed_s * (1 - share) / share if share else None


def completion_text(update: ProgressUpdate) -> str:
    """Return `40% done, 18 s left`; without a known whole, the time elapsed."""
    if update.share is None:
        return f"{duration_text(update.elapsed_s)} elapsed"
    left = "" if update.remaining_s is None else f", {duration_text(update.remaining_s)} left"
    return f"{min(update.share, 1.0):.0%} done{left}"


def duration_text(seconds: float) -> str:
    """Return whole seconds in at most two units: `18 s`, `2 min`, `2 min 5 s`, `1 h 2 min`."""
    whole = max(0, round(seconds))
    units = ((whole // 3600, "h"), (whole % 3600 // 60, "min"), (whole % 60, "s"))
    parts = [f"{count} {unit}" for count, unit in units[: 2 if whole >= 3600 else 3] if count]
    return " ".join(parts) or "0 s"


class PlainDisplay:
    """A line every few seconds, for logs and pipes."""

    def __init__(self, subject: str, err: TextIO, *, silent: bool) -> None:
        self._subject = subject
        self._err = err
        self._silent = silent
        self._next_s = FIRST_LINE_S
        self._last_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._err.flush()

    def update(self, update: ProgressUpdate) -> None:
        if update.elapsed_s < self._last_s:  # another part of the work begins, whose time counts from its own start
            self._next_s = FIRST_LINE_S
        self._last_s = update.elapsed_s
        if self._silent or (update.elapsed_s < self._next_s and not update.milestone):
            return
        self._next_s = update.elapsed_s + PLAIN_INTERVAL_S - 0.5
        parts = (self._subject, completion_text(update), update.status)
        print(f"smtpbench: {printable('  '.join(filter(None, parts)))}", file=self._err, flush=True)

    def notify(self, text: str) -> None:
        print(f"smtpbench: {printable(text)}", file=self._err, flush=True)


class LiveDisplay:
    """A panel of a few lines that redraws itself."""

    def __init__(self, subject: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._subject = subject
        self._console = Console(stderr=True, highlight=False, emoji=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def update(self, update: ProgressUpdate) -> None:
        from rich.console import Group
        from rich.text import Text

        lines = [update.status, *update.details]
        shown = [Text(printable(line), no_wrap=True, overflow="ellipsis") for line in (self._subject, *lines) if line]
        self._live.update(Group(shown[0], self._completion(update), *shown[1:]), refresh=True)

    def notify(self, text: str) -> None:
        self._console.print(f"smtpbench: {printable(text)}", markup=False)

    def _completion(self, update: ProgressUpdate) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        text = Text(completion_text(update))
        if update.share is None:
            return text
        row = Table.grid(padding=(0, 2))
        row.add_row(ProgressBar(total=1.0, completed=min(update.share, 1.0), width=_BAR_COLUMNS), text)
        return row
