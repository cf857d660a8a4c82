"""Read a saved result of any kind, its timeline and its histograms by second.

The folder of a run may have been copied, truncated by a full disk or edited. What is missing is therefore empty, what is
not a number is left out, and a file that is not a result is one clear error. Text in a result may come from a server or
from whoever wrote the file. The code that shows it must escape it.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from smtpbench.errors import UsageError
from smtpbench.measure.files import HLOG, TIMELINE, tag
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.partial import KILLED, PARTIAL, REASONS, RUNNING, is_locked, rebuilt_run
from smtpbench.measure.recorder import MESSAGE_COUNTS, Interval, Latency
from smtpbench.measure.server_usage import SERVER_CSV
from smtpbench.measure.timeline import Timeline, TimelineRow
from smtpbench.text import visible
from smtpbench.units import NS_PER_MS

RUN, CHECK, FUZZ, COMPARISON, CAPACITY = "run", "check", "fuzz", "comparison", "capacity"
#: The schema of each kind of result, and the sections that every result of this kind must have.
SCHEMAS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    RUN: ("smtpbench-result/1", (
        "outcome", "scenario", "target", "load", "messages", "recipients", "throughput", "latency", "latency_failed",
        "replies", "enhanced", "errors", "examples", "warmup", "generator", "machine", "versions",
    )),
    CHECK: ("smtpbench-check/1", ("target", "rules", "generator", "machine", "versions")),
    FUZZ: ("smtpbench-fuzz/1", ("target", "rules", "cases", "generator", "machine", "versions")),
    COMPARISON: ("smtpbench-comparison/1", ("outcome", "scenario", "plan", "machine", "versions")),
    CAPACITY: ("smtpbench-capacity/1", ("outcome", "scenario", "target", "plan", "capacity", "machine", "versions")),
}  # fmt: skip
#: Name of the file in the folder of a result.
RESULT: Final = "result.json"
_KIND_OF = {schema: kind for kind, (schema, _) in SCHEMAS.items()}


class Second(NamedTuple):
    """The histogram of about one second of a run.

    Attributes:
        start_s: Start, seconds after the start of the run, warm-up included.
        length_s: Length, seconds.
        histogram: Latencies.
    """

    start_s: float
    length_s: float
    histogram: Histogram


@dataclass(frozen=True)
class Saved:
    """A saved result.

    Attributes:
        kind: RUN, CHECK, FUZZ, COMPARISON or CAPACITY.
        result: Content of the file.
        path: Path of the file.
    """

    kind: str
    result: dict[str, Any] = field(repr=False)
    path: Path

    @property
    def folder(self) -> Path:
        """Folder of the file."""
        return self.path.parent

    @property
    def label(self) -> str:
        """Short name of the result: that of its folder, or of a file with another name than `result.json`."""
        return visible(self.path.resolve().parent.name) if self.path.name in (RESULT, PARTIAL) else visible(self.path.stem)

    def timeline(self) -> Timeline:
        """Return the rows of `timeline.csv`, one for each second; None for a value that is empty or not a number."""
        return _read_timeline(self.folder / TIMELINE)

    def server_timeline(self) -> Timeline:
        """Return the rows of `server.csv`, likewise."""
        return _read_timeline(self.folder / SERVER_CSV)

    def seconds(self, metric: str, time: str = "response", *, ok: bool = True) -> Iterator[Second]:
        """Yield the histograms of one metric from `histograms.hlog`, in order.

        Args:
            metric: Latency metric.
            time: `service` or `response`.
            ok: Whether the replies were expected.
        """
        wanted = f"Tag={tag(metric if ok else f'{metric}.failed')}.{time},"
        try:
            with (self.folder / HLOG).open(encoding="ascii", errors="replace") as lines:
                for line in lines:
                    if line.startswith(wanted):
                        second = _parse_second(line[len(wanted) :])
                        if second is not None:
                            yield second
        except OSError:
            return


def totals_of(result: Mapping[str, Any]) -> Interval:
    """Return the totals of a run from its result: messages, replies without enhanced codes, errors and latencies.

    A metric without histogram in the result is left out.
    """
    totals = Interval(
        Counter({name: int(result["messages"].get(name, 0)) for name in MESSAGE_COUNTS}), errors=Counter(result["errors"])
    )
    in_time = result.get("throughput", {}).get("messages")
    if isinstance(in_time, int):
        totals.accepted_late = totals.messages["accepted"] - in_time
    for verb, codes in result["replies"].items():
        for code, count in codes.items():
            totals.replies[verb, int(code) if code.isdecimal() else 0, "", True] += count
    recipients = result.get("recipients", {})
    counts = tuple(int(recipients.get(name, 0)) for name in ("accepted", "rejected"))
    if recipients and counts != totals.recipients():  # those of LMTP do not follow from the replies to RCPT alone
        refused = totals.recipients()[1]
        totals.lmtp, totals.lmtp_recipients = True, Counter(accepted=counts[0], rejected=counts[1] - refused)
    for section, ok in (("latency", True), ("latency_failed", False)):
        for metric, times in result[section].items():
            with suppress(KeyError, ValueError, TypeError):
                totals.latencies[metric, ok] = Latency(*(_read_histogram(times[time]) for time in ("service", "response")))
                if ok and any(times[time].get("censored") for time in ("service", "response")):
                    totals.censored[metric] = Latency(*(_read_bounds(times[time]) for time in ("service", "response")))
    return totals


def _read_histogram(times: Mapping[str, Any]) -> Histogram:
    """Return a histogram of the result, with its exact sum, minimum and maximum."""
    histogram = Histogram.decode(times["histogram"])
    histogram.min_ns, histogram.max_ns = (round(float(times[name]) * NS_PER_MS) for name in ("min_ms", "max_ms"))
    histogram.sum_ns = round(float(times["mean_ms"]) * histogram.count * NS_PER_MS)
    histogram.out_of_range = int(times["out_of_range"])
    return histogram


def _read_bounds(times: Mapping[str, Any]) -> Histogram:
    """Return the lower bounds among the samples of a latency."""
    return Histogram.decode(times["censored_histogram"]) if times.get("censored") else Histogram()


def _read_timeline(path: Path) -> Timeline:
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            reader = csv.DictReader(lines)
            timeline = Timeline(reader.fieldnames or ())
            for row in reader:
                timeline.append(_parse_timeline_row(row))
            return timeline
    except (OSError, csv.Error):
        return Timeline(())


def _numbers_only(timeline: Timeline) -> Iterator[dict[str, float | None]]:
    for row in timeline:
        yield {name: value if isinstance(value, float) else None for name, value in row.items()}


def _parse_timeline_row(row: Mapping[Any, Any]) -> TimelineRow:
    named = {name: value for name, value in row.items() if name is not None}
    return {name: value if name == "phase" else _parse_number(value) for name, value in named.items()}


def _parse_number(text: object) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _parse_second(line: str) -> Second | None:
    fields = line.rstrip("\n").split(",")
    try:
        start_s, length_s, _, encoded = fields
        return Second(float(start_s), float(length_s), Histogram.decode(encoded))
    except ValueError:
        return None


def load(path: Path) -> Saved:
    """Read a result from its file or its folder; of a command that was killed, what it had found. Raises UsageError."""
    file = path / RESULT if path.is_dir() else path
    if path.is_dir() and not file.exists() and (path / PARTIAL).exists():
        file = path / PARTIAL
    saved = _load_file(file)
    return _completed(saved) if file.name == PARTIAL else saved


def _completed(saved: Saved) -> Saved:
    """Return what a command had found when it was killed, with what the other files of its folder hold."""
    result = saved.result
    if saved.kind == RUN:
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            result = rebuilt_run(
                result, saved.timeline(), _all_histograms(saved.folder), _numbers_only(saved.server_timeline())
            )
    status = RUNNING if is_locked(saved.folder) else KILLED
    outcome = {"status": status, "reason": REASONS[status]} if isinstance(result.get("outcome"), dict) else status
    return Saved(saved.kind, {**result, "outcome": outcome}, saved.path)


def _all_histograms(folder: Path) -> Iterator[tuple[str, str, bool, Histogram]]:
    """Yield metric, time, whether the replies were expected, and histogram of each line of `histograms.hlog`."""
    with suppress(OSError), (folder / HLOG).open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            name, comma, rest = line.removeprefix("Tag=").partition(",")
            second = _parse_second(rest) if comma and line.startswith("Tag=") else None
            if second is not None:
                metric, _, time = name.rpartition(".")
                yield metric.removesuffix(".failed"), time, not metric.endswith(".failed"), second.histogram


def _load_file(file: Path) -> Saved:
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{file}: not a result of smtpbench: not JSON") from None
    schema = str(result.get("schema")) if isinstance(result, dict) else ""
    if not schema.startswith("smtpbench-"):
        raise UsageError(f'{file}: not a result of smtpbench: its key "schema" must be "{SCHEMAS[RUN][0]}" or the like')
    kind = _KIND_OF.get(schema)
    if kind is None:
        known = ", ".join(_KIND_OF)
        raise UsageError(f"{file}: unknown version {visible(schema)}; this version of smtpbench reads {known}")
    missing = [name for name in SCHEMAS[kind][1] if not isinstance(result.get(name), dict)]
    if missing:
        raise UsageError(f"{file}: incomplete; missing: {', '.join(missing)}")
    return Saved(kind, result, file)
