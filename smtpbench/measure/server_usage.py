"""Resources that the server under test used: samples of its whole process tree, `server` of a result, and `server.csv`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final

from smtpbench.measure.files import csv_line
from smtpbench.measure.trend import Trend, linear_trend
from smtpbench.text import visible
from smtpbench.units import NS_PER_S


@dataclass(frozen=True, slots=True)
class UsageSample:
    """What the server's processes have used up to a moment, and what they hold at that moment.

    Counters include processes that have ended. A value that cannot be read is None; it is never estimated.

    Attributes:
        at_ns: The moment, of `time.monotonic_ns`.
        cpu_user_s: User CPU time, seconds.
        cpu_system_s: System CPU time, seconds.
        memory_bytes: Memory in use: the proportional set size (PSS) where it can be read, else the resident set size.
        rss_bytes: Resident set size, which takes less to read; shared pages count once for each process.
        processes: Processes that exist.
        threads: Threads that exist.
        fds: Open file descriptors.
        minor_faults: Page faults that took no disk access.
        major_faults: Page faults that took one.
        read_bytes: Octets read from disks.
        write_bytes: Octets written to disks.
        fsyncs: Calls that wait for a disk.
        voluntary_switches: Context switches of processes that waited.
        involuntary_switches: Context switches of processes whose time was up.
        restarts: How often the server was started again.
    """

    at_ns: int
    cpu_user_s: float
    cpu_system_s: float
    memory_bytes: int | None = None
    processes: int = 0
    threads: int | None = None
    fds: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None
    fsyncs: int | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None
    restarts: int = 0
    rss_bytes: int | None = None

    @property
    def cpu_s(self) -> float:
        """User and system CPU time, seconds."""
        return self.cpu_user_s + self.cpu_system_s


#: A page of memory: memory changes in such steps.
_PAGE_BYTES: Final = 4096
_S_PER_HOUR: Final = 3600.0
#: A row whose end is at most so long after the start of the window ends with it.
_ROW_TOLERANCE_S: Final = 0.05
#: Lines of the log that a result holds, at most.
MAX_LOG_LINES: Final = 100

#: Name of the file in the folder of a result.
SERVER_CSV: Final = "server.csv"
SERVER_COLUMNS: Final = (
    "end_s", "cpu_user_share", "cpu_system_share", "memory_bytes", "processes", "threads", "fds", "read_bytes",
    "write_bytes", "minor_faults", "major_faults", "voluntary_switches", "involuntary_switches", "restarts",
)  # fmt: skip
_HELD: Final = ("memory_bytes", "processes", "threads", "fds")
_COUNTED: Final = (
    "read_bytes", "write_bytes", "minor_faults", "major_faults", "voluntary_switches", "involuntary_switches", "restarts",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MeasuredServer:
    """What a reader must know of the server whose resources were measured.

    Attributes:
        started_by: `smtpbench`, or `others`.
        name: Command of its first process; empty if it is not known.
        source: How CPU time was counted: `cgroup` or `processes`.
        memory: Which memory was read: `pss` or `rss`; empty if none was.
        cores: Cores that its processes may run on; empty if that is not known.
    """

    started_by: str = "others"
    name: str = ""
    source: str = "processes"
    memory: str = "rss"
    cores: frozenset[int] = frozenset()


class UsageWindow:
    """What a server used between the first and the last of its samples.

    Attributes:
        first: First sample; None before it.
        last: Last sample; None before it.
    """

    def __init__(self) -> None:
        self.first: UsageSample | None = None
        self.last: UsageSample | None = None
        self._most: dict[str, int] = {}
        self._stretches: list[list[tuple[float, float]]] = [[]]

    def add(self, sample: UsageSample) -> None:
        """Add a sample; samples come in the order of their times."""
        if self.last is not None and sample.restarts != self.last.restarts:
            self._stretches.append([])
        for name in _HELD:
            value = getattr(sample, name)
            if value is not None:
                self._most[name] = max(value, self._most.get(name, 0))
        if sample.memory_bytes is not None:
            self._stretches[-1].append((sample.at_ns / NS_PER_S, float(sample.memory_bytes)))
        self.first, self.last = self.first or sample, sample

    @property
    def length_s(self) -> float:
        """Time from the first sample to the last, seconds."""
        return (self.last.at_ns - self.first.at_ns) / NS_PER_S if self.first and self.last else 0.0

    @property
    def cpu_s(self) -> float | None:
        """CPU time, seconds; None without two samples."""
        return self.last.cpu_s - self.first.cpu_s if self.length_s and self.first and self.last else None

    def memory_growth(self) -> Trend | None:
        """Return how much memory grew, octets a second; None if the time was too short for a figure.

        A server that was started again begins with little memory: the longest time without a restart is what counts. At both
        ends of the window there may be no connection yet, or no more, so that the first and the last sample do not count.
        """
        if self.first is None or self.last is None:
            return None
        begin_s, end_s = self.first.at_ns / NS_PER_S, self.last.at_ns / NS_PER_S
        inner = [[point for point in points if begin_s < point[0] < end_s] for points in self._stretches]
        longest = max(inner, key=lambda points: points[-1][0] - points[0][0] if points else 0.0)
        return linear_trend(longest, resolution=_PAGE_BYTES)

    def figures(self, messages: int | None, cores: int, *, growth: bool = True) -> dict[str, Any]:
        """Return the figures of `server` of a result; None for those that are not known.

        Args:
            messages: Messages that were accepted in this time; None if a message is not what was tested.
            cores: Cores of the machine.
            growth: Whether the growth of memory is calculated, which takes as long as there are samples.
        """
        length_s, cpu_s = self.length_s, self.cpu_s
        trend = self.memory_growth() if growth else None
        cpu_ms = 1000 * cpu_s / messages if cpu_s is not None and messages else None
        interval = None if trend is None else [trend.low * _S_PER_HOUR, trend.high * _S_PER_HOUR]
        return {
            "window_s": length_s,
            "cpu_s": cpu_s,
            "cpu_user_s": self._used("cpu_user_s"),
            "cpu_system_s": self._used("cpu_system_s"),
            "cpu_ms_per_message": cpu_ms,
            "cores_share": None if cpu_s is None else cpu_s / length_s / cores,
            "rss_max_bytes": self._most.get("memory_bytes"),
            "rss_growth_bytes_per_hour": None if trend is None else trend.slope * _S_PER_HOUR,
            "rss_growth_interval_bytes_per_hour": interval,
            "fds_max": self._most.get("fds"),
            "threads_max": self._most.get("threads"),
            "processes_max": self._most.get("processes"),
            **{name: self._used(name) for name in (*_COUNTED[2:4], *_COUNTED[:2], "fsyncs", *_COUNTED[4:6])},
            "restarts": self._used("restarts") or 0,
        }

    def _used(self, name: str) -> Any:
        return growth_between(self.first, self.last, name) if self.first and self.last and self.length_s else None


def usage_section(
    server: MeasuredServer,
    window: UsageWindow,
    *,
    messages: int | None = None,
    deaths: Sequence[Mapping[str, Any]] = (),
    log_lines: Sequence[Mapping[str, Any]] = (),
    cores: int | None = None,
    growth: bool = True,
) -> dict[str, Any] | None:
    """Return `server` of a result; None if nothing is known of the server.

    Args:
        server: Whose resources they are.
        window: What it used in the measured window.
        messages: Messages that were accepted in the window; None if a message is not what was tested.
        deaths: Elements of `server.deaths`.
        log_lines: Elements of `server.log_lines`; those that are too many are counted.
        cores: Cores of the machine; None for those of this one.
        growth: Whether the growth of memory is calculated.
    """
    if window.first is None and not deaths and not log_lines:
        return None
    return {
        "started_by": server.started_by,
        "name": visible(server.name),
        "source": server.source,
        "memory": server.memory,
        **window.figures(messages, cores or os.cpu_count() or 1, growth=growth),
        "deaths": list(deaths),
        "log_lines": list(log_lines[:MAX_LOG_LINES]),
        "log_lines_dropped": max(0, len(log_lines) - MAX_LOG_LINES),
    }


def growth_between(first: UsageSample, last: UsageSample, name: str) -> Any:
    """Return how much a counter has grown from one sample to another; None if it is not known in one of them."""
    before, after = getattr(first, name), getattr(last, name)
    return None if before is None or after is None else max(type(after)(0), after - before)


def server_line(before: UsageSample, now: UsageSample, start_ns: int) -> str:
    """Return a line of `server.csv`: what the server used between two samples, and what it held at the second.

    Args:
        before: The sample before.
        now: The sample.
        start_ns: Start of the run, of `time.monotonic_ns`.
    """
    length_s = (now.at_ns - before.at_ns) / NS_PER_S
    user_s, system_s = now.cpu_user_s - before.cpu_user_s, now.cpu_system_s - before.cpu_system_s
    return csv_line((
        f"{(now.at_ns - start_ns) / NS_PER_S:.3f}",
        *(f"{used_s / length_s:.4f}" if length_s > 0 else "" for used_s in (user_s, system_s)),
        *(_cell(getattr(now, name)) for name in _HELD),
        *(_cell(growth_between(before, now, name)) for name in _COUNTED),
    ))  # fmt: skip


def _cell(value: int | None) -> str:
    return "" if value is None else str(value)


def samples_of(server_rows: Iterable[Mapping[str, float | None]], from_s: float = 0.0) -> list[UsageSample]:
    """Return the samples that the rows of `server.csv` were made of, with counters that begin at 0.

    Args:
        server_rows: Rows in order, None for a cell that is empty or not a number.
        from_s: Start of the window; the last sample before it is the first that is returned.
    """
    totals = dict.fromkeys(("cpu_user", "cpu_system", *_COUNTED), 0.0)
    missing: set[str] = set()
    samples = [_sample_of({"end_s": from_s}, totals, missing)]
    for row in server_rows:
        end_s = row.get("end_s")
        if end_s is None:
            continue
        if end_s <= from_s + _ROW_TOLERANCE_S:  # what it counted was before
            samples = [_sample_of(row, dict.fromkeys(totals, 0.0), set())]
            continue
        length_s = end_s - samples[-1].at_ns / NS_PER_S
        for name in ("cpu_user", "cpu_system"):
            totals[name] += (row.get(f"{name}_share") or 0.0) * length_s
        for name in _COUNTED:
            missing |= {name} if row.get(name) is None else set()
            totals[name] += row.get(name) or 0.0
        samples.append(_sample_of(row, totals, missing))
    return samples


def _sample_of(row: Mapping[str, float | None], totals: Mapping[str, float], missing: Set[str]) -> UsageSample:
    held: dict[str, Any] = {name: None if (value := row.get(name)) is None else int(value) for name in _HELD}
    counted: dict[str, Any] = {name: None if name in missing else int(totals[name]) for name in _COUNTED}
    return UsageSample(
        at_ns=round((row.get("end_s") or 0.0) * NS_PER_S),
        cpu_user_s=totals["cpu_user"],
        cpu_system_s=totals["cpu_system"],
        **{**held, **counted, "processes": held["processes"] or 0, "restarts": counted["restarts"] or 0},
    )


def rebuilt_section(
    section: Mapping[str, Any],
    server_rows: Iterable[Mapping[str, float | None]],
    *,
    from_s: float,
    messages: int,
) -> dict[str, Any] | None:
    """Return `server` of the result of a run that was killed, from what was written last and from `server.csv`.

    Args:
        section: `server` as it was written last.
        server_rows: Rows of `server.csv`.
        from_s: Start of the measured window, seconds after the start of the run.
        messages: Messages that were accepted in the window.
    """
    window = UsageWindow()
    for sample in samples_of(server_rows, from_s):
        window.add(sample)
    server = MeasuredServer(**{name: section[name] for name in ("started_by", "name", "source", "memory")})
    rebuilt = usage_section(
        server, window, messages=messages, deaths=section.get("deaths", ()), log_lines=section.get("log_lines", ())
    )
    return rebuilt and {**rebuilt, "log_lines_dropped": section.get("log_lines_dropped", 0)}
