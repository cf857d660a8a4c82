"""What a run writes while it goes on: `histograms.hlog` and `timeline.csv`.

Both are appended to once a second, so a crash loses a second. A disk that will not take more does not end a run: the
files go on in a temporary folder, and the trouble is told.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from smtpbench.measure.recorder import Interval

PHASES = ("warmup", "steady", "drain")
TIMELINE = "timeline.csv"
HLOG = "histograms.hlog"

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
    """The two growing files of a run: in its folder, or, from the moment that one takes no more, in a temporary one.

    folder: where they are. trouble: what the disk refused and what came of it, in words; else empty.
    """

    def __init__(self, folder: Path, started: datetime) -> None:
        self.folder = folder
        self.trouble = ""
        self._heads = {TIMELINE: csv_line(TIMELINE_COLUMNS), HLOG: hlog_header(started)}
        self._sizes_bytes = dict.fromkeys(self._heads, 0)
        self._lost = False
        try:
            self._begin()
        except OSError as error:
            self._move(error)

    def add_steps(self, tick: Tick) -> Iterator[None]:
        """Append a second to both, in small steps: whoever has a loop to run runs it between them."""
        if not self._lost:
            self._append(TIMELINE, timeline_line(tick))
            yield
            lines = []
            for line in hlog_lines(tick):
                lines.append(line)
                yield
            self._append(HLOG, "".join(lines))

    def _append(self, name: str, text: str) -> None:
        try:
            self._write(name, text)
        except OSError as error:
            self._move(error)
            if not self._lost:
                with contextlib.suppress(OSError):
                    self._write(name, text)

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

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, head in self._heads.items():
            (self.folder / name).write_bytes(b"")
            self._sizes_bytes[name] = 0
            self._write(name, head)

    def _move(self, error: OSError) -> None:
        """Go on in a temporary folder, with a copy of what was written; where that is full too, the rest is lost."""
        self._lost = bool(self.trouble)
        self.trouble = self.trouble or f"{error.filename or self.folder}: {error.strerror or error}"
        if self._lost:
            self.trouble += f"; {self.folder}: {error.strerror or error}"
            return
        before, sizes_bytes = self.folder, dict(self._sizes_bytes)
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="smtpbench-"))
            self._begin()
            for name, size_bytes in sizes_bytes.items():
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(before / name, self.folder / name)
                    os.truncate(self.folder / name, size_bytes)
                    self._sizes_bytes[name] = size_bytes
        except OSError as second:
            self._lost = True
            self.trouble += f"; {self.folder}: {second.strerror or second}"
        else:
            self.trouble += f"; {TIMELINE} and {HLOG} go on in {self.folder}"


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


def hlog_lines(tick: Tick) -> Iterator[str]:
    """A tagged line for each slot's service time, and for its response time where that is another."""
    for (slot, ok), latency in sorted(tick.interval.latencies.items()):
        kinds = [("service", latency.service)]
        if latency.response is not latency.service:
            kinds.append(("response", latency.response))
        for kind, histogram in kinds:
            tag = f"{slot}.{kind}" if ok else f"{slot}.failed.{kind}"
            start_s = max(0.0, tick.end_s - tick.length_s)
            figures = f"{start_s:.3f},{tick.length_s:.3f},{histogram.max_ns / 1e6:.3f}"
            yield f"Tag={_tag(tag)},{figures},{histogram.encode()}\n"


def _tag(text: str) -> str:
    """A tag as the format allows it: no comma, no white space."""
    return "".join(character if character.isalnum() or character in "._-+" else "_" for character in text)
