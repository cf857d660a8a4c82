"""What a run writes while it goes on: `histograms.hlog` and `timeline.csv`.

Both are appended to once a second, so a crash loses a second. A disk that will not take more does not end a run: the
trouble is kept, the rest is not written, and the result says so.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from smtpbench.measure.recorder import Interval

PHASES = ("warmup", "steady", "drain")

TIMELINE_COLUMNS = (
    "t_s", "phase", "accepted", "rejected", "failed", "dropped", "interrupted", "errors", "connections_open",
    "connections_busy", "arrivals_waiting", "message_service_p50_ms", "message_service_p99_ms",
    "message_response_p50_ms", "message_response_p99_ms", "message_response_max_ms", "cpu_percent", "loop_lag_ms",
)  # fmt: skip


@dataclass(slots=True)
class Tick:
    """One second of a run, over all workers.

    end_s: when it ended, counted from the start of the run; length_s: how long it was. phase: one of PHASES.
    cpu_share: of one core, summed over workers. lag_ms: the longest a timer waited.
    """

    end_s: float
    length_s: float
    phase: str
    interval: Interval
    connections_open: int
    busy: int
    waiting: int
    cpu_share: float
    lag_ms: float


class RunFiles:
    """The two growing files of a run, in its folder. `trouble` says what the disk refused, else it is empty."""

    def __init__(self, folder: Path, started: datetime) -> None:
        self.trouble = ""
        self._hlog = folder / "histograms.hlog"
        self._timeline = folder / "timeline.csv"
        self._start_s = started.timestamp()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._hlog.write_text(hlog_header(started), encoding="ascii")
            self._timeline.write_text(csv_line(TIMELINE_COLUMNS), encoding="ascii")
        except OSError as error:
            self.trouble = f"{error.filename or folder}: {error.strerror or error}"

    def add(self, tick: Tick) -> None:
        """Append a second to both."""
        if self.trouble:
            return
        try:
            with self._timeline.open("a", encoding="ascii") as out:
                out.write(timeline_line(tick))
            with self._hlog.open("a", encoding="ascii") as out:
                out.writelines(hlog_lines(tick))
        except OSError as error:
            self.trouble = f"{error.filename or self._timeline.parent}: {error.strerror or error}"


def csv_line(values: tuple[object, ...]) -> str:
    """One line of CSV (RFC 4180)."""
    out = io.StringIO()
    csv.writer(out).writerow(values)
    return out.getvalue()


def timeline_line(tick: Tick) -> str:
    """The line of `timeline.csv` for a second."""
    counts, latency = tick.interval.messages, tick.interval.latencies.get(("message", True))
    if latency is None:
        times: list[object] = ["", "", "", "", ""]
    else:
        service, response = latency.service.percentiles_ms([50, 99]), latency.response.percentiles_ms([50, 99])
        values = (service[50], service[99], response[50], response[99], latency.response.max_ns / 1e6)
        times = [f"{value:.3f}" for value in values]
    return csv_line((
        f"{tick.end_s:.2f}", tick.phase, *(counts[name] for name in TIMELINE_COLUMNS[2:7]),
        sum(tick.interval.errors.values()), tick.connections_open, tick.busy, tick.waiting, *times,
        f"{tick.cpu_share * 100:.1f}", f"{tick.lag_ms:.1f}",
    ))  # fmt: skip


def hlog_header(started: datetime) -> str:
    """The head of an HdrHistogram log, version 1.2: its times are seconds from the start, its values microseconds."""
    start_s = started.timestamp()
    return (
        "#[Logged by smtpbench; values in microseconds, interval maxima in milliseconds]\n"
        "#[Histogram log format version 1.2]\n"
        f"#[StartTime: {start_s:.3f} (seconds since epoch), {started.astimezone(UTC).isoformat()}]\n"
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
    )


def hlog_lines(tick: Tick) -> list[str]:
    """A tagged line for each slot's service time, and for its response time where that is another."""
    lines = []
    for (slot, ok), latency in sorted(tick.interval.latencies.items()):
        kinds = [("service", latency.service)]
        if latency.response is not latency.service:
            kinds.append(("response", latency.response))
        for kind, histogram in kinds:
            tag = f"{slot}.{kind}" if ok else f"{slot}.failed.{kind}"
            start_s = max(0.0, tick.end_s - tick.length_s)
            figures = f"{start_s:.3f},{tick.length_s:.3f},{histogram.max_ns / 1e6:.3f}"
            lines.append(f"Tag={_tag(tag)},{figures},{histogram.encode()}\n")
    return lines


def _tag(text: str) -> str:
    """A tag as the format allows it: no comma, no white space."""
    return "".join(character if character.isalnum() or character in "._-+" else "_" for character in text)
