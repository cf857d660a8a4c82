"""The files that a run writes while it goes on: `histograms.hlog` and `timeline.csv`, and `server.csv` where it is known.

All are appended to once a second, so that a crash loses at most a second. If the disk is full, the run does not end: the
files continue in a temporary folder, and the user is informed.

`histograms.hlog` holds the latencies of the result: the sum of the lines of one tag is the histogram of that metric in
`result.json`. The warm-up is not included. A line has 1 to 3 KB for a metric with many different values.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
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
    """About one second of a run, over all workers.

    Attributes:
        end_s: End, seconds after the start of the run.
        length_s: Length, seconds.
        phase: One of PHASES.
        interval: Everything that was counted.
        connections_open: Open connections at the end.
        busy: Connections that an arrival occupied at the end.
        waiting: Arrivals that waited for a connection at the end.
        cpu_share: CPU time of all workers, as a share of one core.
        lag_ms: Longest lag of an event loop.
        measured: The part of the interval that is not warm-up; None if that is all of it.
        warmup: The part of the interval that is warm-up; None if there is none.
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
    warmup: Interval | None = None


class AppendedFiles:
    """Files that a command appends to: in its folder or, once that cannot be written, in a temporary folder.

    Args:
        folder: Folder of the files.
        headers: Name of each file → its first lines.

    Attributes:
        folder: Folder that holds the files.
        errors: What could not be written and where the files continue, as a sentence; else empty.
    """

    def __init__(self, folder: Path, headers: Mapping[str, str]) -> None:
        self.folder = folder
        self.errors = ""
        self._headers = headers
        self._sizes_bytes = dict.fromkeys(headers, 0)
        self._disabled = False
        try:
            self._create()
        except OSError as error:
            self._switch_folder(error)

    def append(self, name: str, text: str) -> None:
        """Append lines to a file, which begins with its header."""
        if self._disabled:
            return
        try:
            self._write(name, text if self._sizes_bytes[name] else self._headers[name] + text)
        except OSError as error:
            if self._switch_folder(error):
                self.append(name, text)

    def _create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self._headers:
            (self.folder / name).unlink(missing_ok=True)
            self._sizes_bytes[name] = 0

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        try:
            with path.open("ab") as out:
                out.write(text.encode("ascii"))
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, self._sizes_bytes[name])  # leave no incomplete line
            raise
        self._sizes_bytes[name] += len(text)

    def _switch_folder(self, error: OSError) -> bool:
        """Continue in a temporary folder with a copy of the files; if that fails too, stop writing and return False."""
        moved, before, sizes_bytes = bool(self.errors), self.folder, dict(self._sizes_bytes)
        self.errors += ("; " if moved else "") + _error_text(error, self.folder)
        self._disabled = True
        if moved:
            return False
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="smtpbench-"))
            self._create()
            for name, size_bytes in sizes_bytes.items():
                self._copy(before / name, name, size_bytes)
        except OSError as another:
            self.errors += "; " + _error_text(another, self.folder)
            return False
        *names, last = [name for name in self._headers if sizes_bytes[name]] or self._headers
        verb = "continue" if names else "continues"
        self.errors += f"; {', '.join(names)}{' and ' if names else ''}{last} {verb} in {self.folder}"
        self._disabled = False
        return True

    def _copy(self, before: Path, name: str, size_bytes: int) -> None:
        if size_bytes and before.exists():
            shutil.copyfile(before, self.folder / name)
            os.truncate(self.folder / name, size_bytes)
            self._sizes_bytes[name] = size_bytes


class RunFiles(AppendedFiles):
    """The files that a run appends to.

    Args:
        folder: Folder of the run.
        started: Start of the run.
        others: Name of each further file → its first lines.
    """

    def __init__(self, folder: Path, started: datetime, others: Mapping[str, str] | None = None) -> None:
        own = {TIMELINE: csv_line(TIMELINE_COLUMNS), HLOG: hlog_header(started)}
        super().__init__(folder, own | dict(others or {}))
        for name in own:  # the others may stay without lines, and are not made then
            self.append(name, "")

    def add_steps(self, tick: Tick) -> Iterator[None]:
        """Append a second to both files in small steps, so that an event loop can run between them."""
        if not self._disabled:
            self.append(TIMELINE, "".join(timeline_lines(tick)))
            yield
            lines = []
            for line in hlog_lines(tick):
                lines.append(line)
                yield
            self.append(HLOG, "".join(lines))


def _error_text(error: OSError, folder: Path) -> str:
    return f"{error.filename or folder}: {error.strerror or error}"


def csv_line(values: tuple[object, ...]) -> str:
    """Return one line of CSV (RFC 4180, but with LF as line end, for awk and diff)."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue()


def timeline_lines(tick: Tick) -> Iterator[str]:
    """Yield the lines of `timeline.csv` for a second.

    There are two, of the same time, for a second in which arrivals of the warm-up and measured ones ended. The lines that
    are not of the warm-up thus add up to the totals.
    """
    if tick.warmup is None:
        yield timeline_line(tick, tick.interval, tick.phase)
        return
    yield timeline_line(tick, tick.warmup, "warmup")
    if tick.phase != "warmup" or (tick.measured is not None and tick.measured.has_data):
        phase = "steady" if tick.phase == "warmup" else tick.phase
        yield timeline_line(tick, Interval() if tick.measured is None else tick.measured, phase)


def timeline_line(tick: Tick, counted: Interval, phase: str) -> str:
    """Return a line of `timeline.csv`: what was counted, in one phase of the run."""
    counts, latency = counted.messages, counted.latencies.get(("message", True))
    if latency is None:
        times = [""] * 6
    else:
        service = _p50_p99_max(latency.service)
        times = service + (service if latency.response is latency.service else _p50_p99_max(latency.response))
    return csv_line((
        f"{tick.end_s:.2f}", phase, *(counts[name] for name in TIMELINE_COLUMNS[2:7]),
        sum(counted.errors.values()), tick.connections_open, tick.busy, tick.waiting, *times,
        f"{tick.cpu_share * 100:.1f}", f"{tick.lag_ms:.1f}",
    ))  # fmt: skip


def _p50_p99_max(histogram: Histogram) -> list[str]:
    found = histogram.percentiles_ms([50, 99])
    return [f"{value:.3f}" for value in (found[50], found[99], histogram.max_ns / NS_PER_MS)]


def hlog_header(started: datetime) -> str:
    """Return the header of an HdrHistogram log, version 1.2: times are seconds from the start, values are microseconds.

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
    """Yield two lines for each metric that has samples: its service time and its response time.

    Both lines are written even if they are equal, so that the lines of one tag always add up to the total.
    """
    measured = tick.interval if tick.measured is None else tick.measured
    start_s = max(0.0, tick.end_s - tick.length_s)
    for (metric, ok), latency in sorted(measured.latencies.items()):
        name = tag(metric if ok else f"{metric}.failed")
        service = _max_and_histogram(latency.service)
        response = service if latency.response is latency.service else _max_and_histogram(latency.response)
        for kind, figures in (("service", service), ("response", response)):
            yield f"Tag={name}.{kind},{start_s:.3f},{tick.length_s:.3f},{figures}\n"


def _max_and_histogram(histogram: Histogram) -> str:
    return f"{histogram.max_ns / NS_PER_MS:.3f},{histogram.encode()}"


def tag(text: str) -> str:
    """Return a text as a tag: ASCII, without the commas and the white space that the format does not allow."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text)
