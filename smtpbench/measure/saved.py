"""What was saved, read back: a result of any kind, its timeline and its histograms by second.

A run's folder may have been copied, cut short by a full disk or edited, so nothing in it is believed: what is missing
is empty, what is no number is left out, and a file that is no result at all is one clear error. Text in it may come
from a server, or from somebody who made the file up; whoever shows it escapes it.
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
from smtpbench.measure.recorder import MESSAGE_COUNTS, Interval, Latency
from smtpbench.text import visible
from smtpbench.units import NS_PER_MS

RUN, CHECK, FUZZ, COMPARISON, CAPACITY = "run", "check", "fuzz", "comparison", "capacity"
#: The schema of each kind of result, and the sections without which nothing can be made of it.
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
#: The file of a result in its folder.
RESULT: Final = "result.json"
_KIND_OF = {schema: kind for kind, (schema, _) in SCHEMAS.items()}


class Second(NamedTuple):
    """The histogram of one stretch of a run. start_s: from the run's start, warm-up included."""

    start_s: float
    length_s: float
    histogram: Histogram


@dataclass(frozen=True)
class Saved:
    """One result, and the folder that it lies in.

    kind: RUN, CHECK, FUZZ, COMPARISON or CAPACITY. result: as in the file. path: of the file.
    """

    kind: str
    result: dict[str, Any] = field(repr=False)
    path: Path

    @property
    def folder(self) -> Path:
        """Where its other files lie."""
        return self.path.parent

    @property
    def label(self) -> str:
        """What tells it from others: its folder's name."""
        return visible(self.path.resolve().parent.name) if self.path.name == RESULT else visible(self.path.stem)

    def timeline(self) -> list[dict[str, float | str | None]]:
        """`timeline.csv`: a row a second, numbers where there are numbers, None where there is nothing."""
        try:
            with (self.folder / TIMELINE).open(encoding="utf-8", errors="replace", newline="") as lines:
                return [
                    {name: value if name == "phase" else _number(value) for name, value in row.items() if name is not None}
                    for row in csv.DictReader(lines)
                ]
        except (OSError, csv.Error):
            return []

    def seconds(self, metric: str, time: str = "response", *, ok: bool = True) -> Iterator[Second]:
        """One slot's histograms out of `histograms.hlog`, in order. time: `service` or `response`."""
        wanted = f"Tag={tag(metric if ok else f'{metric}.failed')}.{time},"
        try:
            with (self.folder / HLOG).open(encoding="ascii", errors="replace") as lines:
                for line in lines:
                    if line.startswith(wanted):
                        second = _second(line[len(wanted) :])
                        if second is not None:
                            yield second
        except OSError:
            return


def totals_of(result: Mapping[str, Any]) -> Interval:
    """What a run counted, out of its result: messages, replies without enhanced codes, errors, latencies.

    Slots whose histogram the result does not hold are left out.
    """
    totals = Interval(
        Counter({name: int(result["messages"].get(name, 0)) for name in MESSAGE_COUNTS}), errors=Counter(result["errors"])
    )
    for verb, codes in result["replies"].items():
        for code, count in codes.items():
            totals.replies[verb, int(code) if code.isdecimal() else 0, "", True] += count
    for section, ok in (("latency", True), ("latency_failed", False)):
        for metric, times in result[section].items():
            with suppress(KeyError, ValueError, TypeError):
                totals.latencies[metric, ok] = Latency(*(_histogram(times[time]) for time in ("service", "response")))
    return totals


def _histogram(times: Mapping[str, Any]) -> Histogram:
    """The histogram of a slot's time, and what is known of it exactly."""
    histogram = Histogram.decode(times["histogram"])
    histogram.min_ns, histogram.max_ns = (round(float(times[name]) * NS_PER_MS) for name in ("min_ms", "max_ms"))
    histogram.sum_ns = round(float(times["mean_ms"]) * histogram.count * NS_PER_MS)
    histogram.out_of_range = int(times["out_of_range"])
    return histogram


def _number(text: object) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _second(line: str) -> Second | None:
    fields = line.rstrip("\n").split(",")
    try:
        start_s, length_s, _, encoded = fields
        return Second(float(start_s), float(length_s), Histogram.decode(encoded))
    except ValueError:
        return None


def load(path: Path) -> Saved:
    """Read a result back, from its file or its folder. Raises UsageError."""
    file = path / RESULT if path.is_dir() else path
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{file}: not a result of smtpbench, nor JSON at all") from None
    schema = str(result.get("schema")) if isinstance(result, dict) else ""
    if not schema.startswith("smtpbench-"):
        raise UsageError(f'{file}: not a result of smtpbench, which says "schema": "{SCHEMAS[RUN][0]}" or the like')
    kind = _KIND_OF.get(schema)
    if kind is None:
        known = ", ".join(_KIND_OF)
        raise UsageError(f"{file}: its version is {visible(schema)}; this smtpbench reads {known} only")
    missing = [name for name in SCHEMAS[kind][1] if not isinstance(result.get(name), dict)]
    if missing:
        raise UsageError(f"{file}: incomplete, it lacks {', '.join(missing)}")
    return Saved(kind, result, file)
