"""Watching a run: a panel that redraws itself on a terminal, or a plain line every few seconds."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Protocol, TextIO

from smtpbench.measure.files import Tick
from smtpbench.measure.recorder import Interval
from smtpbench.report.terminal.tables import progress_line

AUTO, LIVE, PLAIN, NONE = "auto", "live", "plain", "none"
#: On something that is no terminal: a line this often, in seconds of the run.
PLAIN_EVERY_S = 5.0
_SPARKS = "▁▂▃▄▅▆▇█"
_HISTORY = 60


class View(Protocol):
    """Something that shows a run while it goes on; use it as a context."""

    def __enter__(self) -> View: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None: ...

    def tick(self, tick: Tick, totals: Interval) -> None:
        """About a second has passed."""

    def notify(self, text: str) -> None:
        """Something the user should know now."""


def view(how: str, err: TextIO | None = None) -> View:
    """The view for `--progress`: `auto` takes the live one on a terminal and plain lines elsewhere."""
    err = err or sys.stderr
    if how == LIVE or (how == AUTO and err.isatty() and os.environ.get("TERM") != "dumb"):
        return _Live()
    return _Plain(err, quiet=how == NONE)


class _Plain:
    def __init__(self, err: TextIO, *, quiet: bool) -> None:
        self._err = err
        self._quiet = quiet
        self._next_s = 0.0

    def __enter__(self) -> View:
        return self

    def __exit__(self, kind: object, error: object, tb: object) -> None:
        self._err.flush()

    def tick(self, tick: Tick, totals: Interval) -> None:
        if not self._quiet and tick.end_s >= self._next_s:
            self._next_s = tick.end_s + PLAIN_EVERY_S - 0.5
            print(progress_line(tick, totals), file=self._err, flush=True)

    def notify(self, text: str) -> None:
        print(f"smtpbench: {text}", file=self._err, flush=True)


class _Live:
    """A few lines that redraw themselves: counts, and the last minute's throughput and response time as sparks."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._rates: list[float] = []
        self._times_ms: list[float] = []

    def __enter__(self) -> View:
        self._live.start()
        return self

    def __exit__(self, kind: object, error: object, tb: object) -> None:
        self._live.stop()

    def tick(self, tick: Tick, totals: Interval) -> None:
        from rich.text import Text

        self._rates.append(tick.interval.messages["accepted"] / tick.length_s)
        latency = tick.interval.latencies.get(("message", True))
        self._times_ms.append(latency.response.percentiles_ms([99])[99] if latency else 0.0)
        width = max(10, min(_HISTORY, self._console.width - 24))
        lines = [
            progress_line(tick, totals),
            f"  messages/s   {sparks(self._rates[-width:])} {self._rates[-1]:,.0f}",
            f"  p99 in ms    {sparks(self._times_ms[-width:])} {self._times_ms[-1]:,.1f}",
            f"  generator    CPU {tick.cpu_share:.0%}, worst lag {tick.lag_ms:.1f} ms",
        ]
        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)

    def notify(self, text: str) -> None:
        self._console.print(f"smtpbench: {text}", markup=False)


def sparks(values: list[float]) -> str:
    """Values as blocks of one to eight eighths of the greatest."""
    top = max(values, default=0.0)
    return "".join(_SPARKS[min(7, int(value / top * 8))] if top else _SPARKS[0] for value in values)
