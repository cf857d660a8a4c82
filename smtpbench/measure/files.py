"""What a run writes while it goes on: `histograms.hlog` and `timeline.csv`.

Both are appended to once a second, so a crash loses a second. A disk that will not take more does not end a run: the
files go on in a temporary folder, and the trouble is told.

`histograms.hlog` holds what the result's figures are made of: the lines of one tag, added up, are that slot's histogram
in `result.json`, and the warm-up is not among them. A line is 1 to 3 KB for a slot that is busy and varied.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval
from smtpbench.units import NS_PER_MS

PHASES = ("warmup", "steady", "drain")
TIMELINE = "timeline.csv"
HLOG = "histograms.hlog"

TIMELINE_COLUMNS = (
    "t_s", "phase", "accepted", "rejected", "failed", "dropped", "interrupted", "errors", "connections_open",
    "connections_busy", "arrivals_waiting", "message_service_p50_ms", "message_service_p99_ms",
    "message_service_max_ms", "message_response_p50_ms", "message_response_p99_ms", "message_response_max_ms",
    "cpu_percent", "loop_lag_ms",
)  # fmt: skip


@dataclass(slots=True)
class Tick:
    """One second of a run, over all workers.

    end_s: when it ended, counted from the start of the run; length_s: how long it was. phase: one of PHASES.
    interval: all that was counted in it. measured: what of that the result's figures count (not the warm-up's
    arrivals), None where it is all.
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
    measured: Interval | None = None


class RunFiles:
    """The two growing files of a run: in its folder, or, from the moment that one takes no more, in a temporary one.

    folder: where they are. trouble: what the disk refused and what came of it, in words; else empty.
    """

    def __init__(self, folder: Path, started: datetime) -> None:
        self.folder = folder
        self.trouble = ""
        self._heads = {TIMELINE: csv_line(TIMELINE_COLUMNS), HLOG: hlog_header(started)}
        self._sizes_bytes = dict.fromkeys(self._heads, 0)
        self._given_up = False
        try:
            self._begin()
        except OSError as error:
            self._move(error)

    def add_steps(self, tick: Tick) -> Iterator[None]:
        """Append a second to both, in small steps: whoever has a loop to run runs it between them."""
        if not self._given_up:
            self._append(TIMELINE, timeline_line(tick))
            yield
            lines = []
            for line in hlog_lines(tick):
                lines.append(line)
                yield
            self._append(HLOG, "".join(lines))

    def _append(self, name: str, text: str) -> None:
        if self._given_up:
            return
        try:
            self._write(name, text)
        except OSError as error:
            if self._move(error):
                self._append(name, text)

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, head in self._heads.items():
            (self.folder / name).write_bytes(b"")
            self._sizes_bytes[name] = 0
            self._write(name, head)

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        try:
            with path.open("ab") as out:
                out.write(text.encode("ascii"))
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, self._sizes_bytes[name])  # no half line is left behind
            raise
        self._sizes_bytes[name] += len(text)

    def _move(self, error: OSError) -> bool:
        """Go on in a temporary folder with a copy of what was written, or, where that fails too, no more."""
        moved, before, sizes_bytes = bool(self.trouble), self.folder, dict(self._sizes_bytes)
        self.trouble += ("; " if moved else "") + _told(error, self.folder)
        self._given_up = True
        if moved:
            return False
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="smtpbench-"))
            self._begin()
            for name, size_bytes in sizes_bytes.items():
                self._copy(before / name, name, size_bytes)
        except OSError as another:
            self.trouble += "; " + _told(another, self.folder)
            return False
        self.trouble += f"; {TIMELINE} and {HLOG} go on in {self.folder}"
        self._given_up = False
        return True

    def _copy(self, before: Path, name: str, size_bytes: int) -> None:
        if size_bytes and before.exists():
            shutil.copyfile(before, self.folder / name)
            os.truncate(self.folder / name, size_bytes)
            self._sizes_bytes[name] = size_bytes


def _told(error: OSError, folder: Path) -> str:
    return f"{error.filename or folder}: {error.strerror or error}"


def csv_line(values: tuple[object, ...]) -> str:
    """One line of CSV (RFC 4180, but with the line end that awk and diff want)."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue()


def timeline_line(tick: Tick) -> str:
    """The line of `timeline.csv` for a second."""
    counts, latency = tick.interval.messages, tick.interval.latencies.get(("message", True))
    if latency is None:
        times = [""] * 6
    else:
        service = _p50_p99_max(latency.service)
        times = service + (service if latency.response is latency.service else _p50_p99_max(latency.response))
    return csv_line((
        f"{tick.end_s:.2f}", tick.phase, *(counts[name] for name in TIMELINE_COLUMNS[2:7]),
        sum(tick.interval.errors.values()), tick.connections_open, tick.busy, tick.waiting, *times,
        f"{tick.cpu_share * 100:.1f}", f"{tick.lag_ms:.1f}",
    ))  # fmt: skip


def _p50_p99_max(histogram: Histogram) -> list[str]:
    found = histogram.percentiles_ms([50, 99])
    return [f"{value:.3f}" for value in (found[50], found[99], histogram.max_ns / NS_PER_MS)]


def hlog_header(started: datetime) -> str:
    """The head of an HdrHistogram log, version 1.2: its times are seconds from the start, its values microseconds.

    Source: the class comment of HdrHistogram's HistogramLogReader.
    """
    start_s = started.timestamp()
    return (
        "#[Logged by smtpbench; values in microseconds, interval maxima in milliseconds]\n"
        "#[Histogram log format version 1.2]\n"
        f"#[StartTime: {start_s:.3f} (seconds since epoch), {started.astimezone(UTC).isoformat()}]\n"
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
    )


def hlog_lines(tick: Tick) -> Iterator[str]:
    """A tagged line for each slot's service time and one for its response time, in every interval that has samples.

    Both, even where they are the same: a sum over the lines of a tag must miss nothing.
    """
    measured = tick.interval if tick.measured is None else tick.measured
    start_s = max(0.0, tick.end_s - tick.length_s)
    for (metric, ok), latency in sorted(measured.latencies.items()):
        name = tag(metric if ok else f"{metric}.failed")
        service = _figures(latency.service)
        response = service if latency.response is latency.service else _figures(latency.response)
        for kind, figures in (("service", service), ("response", response)):
            yield f"Tag={name}.{kind},{start_s:.3f},{tick.length_s:.3f},{figures}\n"


def _figures(histogram: Histogram) -> str:
    return f"{histogram.max_ns / NS_PER_MS:.3f},{histogram.encode()}"


def tag(text: str) -> str:
    """A tag as the format allows it, no comma and no white space, and ASCII for whoever reads it."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text)
