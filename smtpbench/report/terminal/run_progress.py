"""Progress of a load run: its rate and latency of the last second, from the ticks of the run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence, Sized
from typing import Protocol

from smtpbench.measure.files import Tick
from smtpbench.measure.recorder import Interval
from smtpbench.measure.server_usage import UsageSample
from smtpbench.report.terminal.progress import ProgressDisplay, ProgressUpdate, remaining_s
from smtpbench.text import plural
from smtpbench.units import NS_PER_MS, NS_PER_S, format_bytes, format_duration

_SPARKS = "▁▂▃▄▅▆▇█"
#: Seconds that the panel's sparklines cover.
_HISTORY = 60
#: Time between two updates while message files are prepared, seconds.
_PREPARING_INTERVAL_S = 0.2


class LiveServer(Protocol):
    """The server under test, as far as progress shows it."""

    @property
    def samples(self) -> Sequence[UsageSample]:
        """What it has used, about once a second, in order."""

    @property
    def deaths(self) -> Sized:
        """Its deaths so far."""


class Watcher(Protocol):
    """What watches a run: the progress display, and what serves its figures."""

    def preparing(self, done: int, total: int) -> None: ...
    def tick(self, tick: Tick, totals: Interval) -> None: ...
    def notify(self, text: str) -> None: ...
    def watch(self, server: LiveServer) -> None: ...


class RunProgress:
    """Turns the ticks of a run into progress updates.

    Args:
        display: Where the updates go.
        length_s: Time from the start to the last arrival, warm-up included, seconds; None where a count ends the run.
        messages: Number of arrivals that ends the run; None where its length does.
    """

    def __init__(self, display: ProgressDisplay, length_s: float | None, messages: int | None) -> None:
        self._display = display
        self._length_s = length_s
        self._messages = messages
        self._server: LiveServer | None = None
        self._preparing_since_s = self._shown_s = 0.0
        self._rates: deque[float] = deque(maxlen=_HISTORY)
        self._p99_ms: deque[float] = deque(maxlen=_HISTORY)

    def watch(self, server: LiveServer) -> None:
        """Show what the server uses, from now on."""
        self._server = server

    def preparing(self, done: int, total: int) -> None:
        """Show how many message files are prepared, before the run begins."""
        now_s = time.monotonic()
        self._preparing_since_s = self._preparing_since_s or now_s
        if done < total and now_s < self._shown_s + _PREPARING_INTERVAL_S:
            return
        self._shown_s = now_s
        elapsed_s, share = now_s - self._preparing_since_s, done / total
        status = f"preparing messages: {done:,} of {total:,} files"
        self._display.update(ProgressUpdate(elapsed_s, status, share, remaining_s(elapsed_s, share)))

    def tick(self, tick: Tick, totals: Interval) -> None:
        """Show the second that has passed."""
        self._rates.append(tick.interval.messages["accepted"] / tick.length_s)
        latency = tick.interval.latencies.get(("message", True))
        self._p99_ms.append(latency.response.percentiles_ms([99])[99] if latency else 0.0)
        shares = []
        if self._length_s:
            shares.append(tick.end_s / self._length_s)
        if self._messages:
            shares.append(totals.attempted / self._messages)
        share = min(1.0, max(shares)) if shares else None
        if self._length_s is not None and not self._messages:
            left_s: float | None = max(0.0, self._length_s - tick.end_s)
        else:
            left_s = remaining_s(tick.end_s, share)
        self._display.update(
            ProgressUpdate(
                elapsed_s=tick.end_s,
                status=status_line(tick, totals),
                share=share,
                remaining_s=left_s,
                details=[
                    f"messages/s  {sparkline(self._rates)} {self._rates[-1]:,.0f}",
                    f"p99 in ms   {sparkline(self._p99_ms)} {self._p99_ms[-1]:,.1f}",
                    f"generator   CPU {tick.cpu_share:.0%}, worst lag {tick.lag_ms:.1f} ms",
                    *([f"server      {text}"] if (text := server_text(self._server)) else []),
                ],
            )
        )

    def notify(self, text: str) -> None:
        """Show what the user should know now."""
        self._display.notify(text)


def status_line(tick: Tick, totals: Interval) -> str:
    """Return one second as one line: phase, rate, counts so far, latency, connections."""
    counts = totals.messages
    rate = tick.interval.messages["accepted"] / tick.length_s
    parts = [tick.phase, f"{rate:,.0f} msg/s", f"accepted {counts['accepted']:,}"]
    parts += [f"{name} {counts[name]:,}" for name in ("rejected", "failed", "dropped") if counts[name]]
    latency = tick.interval.latencies.get(("message", True))
    if latency is not None:
        parts.append(f"message p99 {format_duration(latency.response.percentiles_ms([99])[99] * NS_PER_MS)}")
    parts.append(f"open {tick.connections_open:,}")
    if tick.waiting:
        parts.append(f"waiting {tick.waiting:,}")
    return "  ".join(parts)


def server_text(server: LiveServer | None) -> str:
    """Return what the server used between its last two samples, as one line; empty where nothing is known."""
    if server is None:
        return ""
    parts = []
    if len(server.samples) > 1:
        before, last = server.samples[-2:]
        length_s = (last.at_ns - before.at_ns) / NS_PER_S
        # the counters of a server that was started again may begin anew
        if length_s > 0 and last.cpu_s >= before.cpu_s:
            parts.append(f"CPU {(last.cpu_s - before.cpu_s) / length_s:.0%}")
    if server.samples and server.samples[-1].memory_bytes is not None:
        parts.append(f"memory {format_bytes(server.samples[-1].memory_bytes)}")
    if server.deaths:
        parts.append(f"died {plural(len(server.deaths), 'time')}")
    return ", ".join(parts)


def sparkline(values: Collection[float]) -> str:
    """Return values as blocks of one to eight eighths of the greatest."""
    top = max(values, default=0.0)
    return "".join(_SPARKS[min(7, int(value / top * 8))] if top else _SPARKS[0] for value in values)
