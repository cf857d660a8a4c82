"""The server under test: what its processes used, how they died, and what its log said.

A result holds it where the processes of the server were known. A figure that could not be read is None, and no report shows
it as zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from smtpbench.measure.saved import Saved
from smtpbench.report.reading.formatting import MISSING, format_count, format_ms, format_seconds, format_share
from smtpbench.report.reading.lenient import duration_s, entries, mapping, natural, number, records, text, texts
from smtpbench.text import plural
from smtpbench.units import format_bytes

#: A server that uses this share of the machine's cores has used them up, alone or together with the generator.
USED_UP_SHARE: Final = 0.9
#: Lines of a report, of the last output or of a log that are read at most.
_MAX_LINES = 100
_MAX_DEATHS = 1000
_MAX_NAMED = 3

T = TypeVar("T")


class SavedDeath(NamedTuple):
    """An end of the server's process that nobody asked for.

    Attributes:
        at_s: When it was noticed, seconds after the start; None where it is unknown.
        how: `signal 6 (SIGABRT)`, `exit status 1` or `cause not known`.
        summary: Summary of the report of a sanitizer or of the language's runtime; empty without a report.
        frames: Top frames of the report, the innermost first.
        report_lines: Lines of the report that are worth quoting.
        last_output: The last lines that the server wrote before.
        core_file: Name of the core file; empty if there is none.
        restarted_by: Who started it again: `smtpbench`, `others`, or empty for nobody.
    """

    at_s: float | None
    how: str
    summary: str
    frames: Sequence[str]
    report_lines: Sequence[str]
    last_output: Sequence[str]
    core_file: str
    restarted_by: str

    @property
    def text(self) -> str:
        """How the server died, as one phrase: `signal 6 (SIGABRT), AddressSanitizer: heap-buffer-overflow in parse_rcpt`."""
        return f"{self.how}, {self.summary}" if self.summary else self.how

    @property
    def details(self) -> list[tuple[str, str]]:
        """What else is known of it, as names with values; without the output."""
        restarted = {"smtpbench": "by smtpbench", "others": "by others"}.get(self.restarted_by, "")
        return [
            (name, value)
            for name, value in (
                ("noticed", "" if self.at_s is None else f"after {format_seconds(self.at_s)}"),
                ("frames", " < ".join(self.frames)),
                ("core file", self.core_file),
                ("started again", restarted),
            )
            if value
        ]

    @property
    def output(self) -> Sequence[str]:
        """The lines to quote: those of the report, or else the last output."""
        return self.report_lines or self.last_output


class DeathsOfOneCause(NamedTuple):
    """Deaths that read alike.

    Attributes:
        first: The first of them.
        number: How many there are.
    """

    first: SavedDeath
    number: int

    @property
    def headline(self) -> str:
        """How often the server died, when first, and how."""
        return f"server died{self.when}: {self.first.text}"

    @property
    def when(self) -> str:
        """` 3 times, first after 2.1 s`; begins with a space, and is empty where there is nothing to say."""
        at_s = self.first.at_s
        times = f" {plural(self.number, 'time')}" if self.number > 1 else ""
        return times if at_s is None else f"{times}{', first' if times else ''} after {format_seconds(at_s)}"

    @property
    def details(self) -> list[tuple[str, str]]:
        """What else is known of the first one, without what the headline says."""
        return [(name, value) for name, value in self.first.details if name != "noticed"]


class SavedLogLine(NamedTuple):
    """A line of the server's output or of its log that speaks of an error.

    Attributes:
        at_s: When it was read, seconds after the start; None where it is unknown.
        source: `output`, or the path of the log file; empty where it is unknown.
        text: The line.
    """

    at_s: float | None
    source: str
    text: str

    @property
    def quoted(self) -> str:
        """The line after its source."""
        return f"{self.source}: {self.text}" if self.source else self.text


class ServerUsage(NamedTuple):
    """What is known of the server under test.

    Attributes:
        name: Command of its first process.
        started_by: `smtpbench` or `others`.
        memory_is: `pss` or `rss`: what the figures of memory are.
        cpu_from: How its CPU time was counted: `cgroup` or `processes`.
        window_s: Length of the time in which it was measured, seconds.
        cpu_s: CPU time, seconds.
        cpu_user_s: CPU time in user mode, seconds.
        cpu_system_s: CPU time in the kernel, seconds.
        cpu_ms_per_message: CPU time for an accepted message, milliseconds; None in a check or a campaign.
        cores_share: Share of all cores of the machine.
        rss_max_bytes: Most memory.
        rss_growth_bytes_per_hour: Growth of its memory.
        rss_growth_interval: Interval of the growth; None where it is unknown.
        fds_max: Most open descriptors.
        threads_max: Most threads.
        processes_max: Most processes.
        minor_faults: Page faults that took no disk access.
        major_faults: Page faults that took one.
        read_bytes: Octets read from disks.
        write_bytes: Octets written to disks.
        fsyncs: Calls that waited for a disk.
        voluntary_switches: Context switches of processes that waited.
        involuntary_switches: Context switches of processes whose time was up.
        restarts: How often it was started again.
        deaths: Its deaths, in order.
        log_lines: Lines of its log that speak of an error.
        log_lines_dropped: Further ones, which the result does not hold.
    """

    name: str
    started_by: str
    memory_is: str
    cpu_from: str
    window_s: float | None
    cpu_s: float | None
    cpu_user_s: float | None
    cpu_system_s: float | None
    cpu_ms_per_message: float | None
    cores_share: float | None
    rss_max_bytes: float | None
    rss_growth_bytes_per_hour: float | None
    rss_growth_interval: tuple[float, float] | None
    fds_max: float | None
    threads_max: float | None
    processes_max: float | None
    minor_faults: float | None
    major_faults: float | None
    read_bytes: float | None
    write_bytes: float | None
    fsyncs: float | None
    voluntary_switches: float | None
    involuntary_switches: float | None
    restarts: int
    deaths: Sequence[SavedDeath]
    log_lines: Sequence[SavedLogLine]
    log_lines_dropped: int


#: Figures that formats for programs have, with the names of a result.
FIGURES: Final = (
    "cpu_s", "cpu_user_s", "cpu_system_s", "cpu_ms_per_message", "cores_share", "rss_max_bytes",
    "rss_growth_bytes_per_hour", "fds_max", "threads_max", "processes_max", "minor_faults", "major_faults", "read_bytes",
    "write_bytes", "fsyncs", "voluntary_switches", "involuntary_switches", "restarts",
)  # fmt: skip


def server_of(saved: Saved) -> ServerUsage | None:
    """Return what a result holds of the server under test; None where nothing is known."""
    value = saved.result.get("server")
    if not isinstance(value, Mapping):
        return None

    def figure(name: str) -> float | None:
        return number(value.get(name))

    ends = [number(end) for end in entries(value.get("rss_growth_interval_bytes_per_hour"), 2)]
    return ServerUsage(
        name=text(value.get("name")),
        started_by=text(value.get("started_by")),
        memory_is=text(value.get("memory")),
        cpu_from=text(value.get("source")),
        window_s=duration_s(value.get("window_s")),
        cpu_s=duration_s(value.get("cpu_s")),
        cpu_user_s=duration_s(value.get("cpu_user_s")),
        cpu_system_s=duration_s(value.get("cpu_system_s")),
        cpu_ms_per_message=figure("cpu_ms_per_message"),
        cores_share=figure("cores_share"),
        rss_max_bytes=figure("rss_max_bytes"),
        rss_growth_bytes_per_hour=figure("rss_growth_bytes_per_hour"),
        rss_growth_interval=(ends[0], ends[1]) if len(ends) == 2 and ends[0] is not None and ends[1] is not None else None,
        fds_max=figure("fds_max"),
        threads_max=figure("threads_max"),
        processes_max=figure("processes_max"),
        minor_faults=figure("minor_faults"),
        major_faults=figure("major_faults"),
        read_bytes=figure("read_bytes"),
        write_bytes=figure("write_bytes"),
        fsyncs=figure("fsyncs"),
        voluntary_switches=figure("voluntary_switches"),
        involuntary_switches=figure("involuntary_switches"),
        restarts=natural(value.get("restarts")),
        deaths=[read_death(entry) for entry in records(value.get("deaths"), _MAX_DEATHS)],
        log_lines=read_log_lines(value.get("log_lines")),
        log_lines_dropped=natural(value.get("log_lines_dropped")),
    )


def deaths_of(saved: Saved) -> Sequence[SavedDeath]:
    """Return the deaths of the server during a command; none where nothing is known."""
    server = server_of(saved)
    return server.deaths if server is not None else ()


def deaths_by_cause(deaths: Sequence[SavedDeath]) -> list[DeathsOfOneCause]:
    """Return the deaths that read alike together, in the order of the first ones."""
    return [DeathsOfOneCause(death, count) for death, count in _alike(deaths, lambda death: death.text)]


def read_death(entry: Mapping[str, Any]) -> SavedDeath:
    """Return a death, as a result or a finding holds it."""
    report = mapping(entry, "report")
    return SavedDeath(
        at_s=duration_s(entry.get("at_s")),
        how=text(entry.get("how")) or "cause not known",
        summary=text(report.get("summary")),
        frames=texts(report.get("frames"))[:_MAX_LINES],
        report_lines=texts(report.get("lines"))[:_MAX_LINES],
        last_output=texts(entry.get("last_output"))[-_MAX_LINES:],
        core_file=text(entry.get("core_file")),
        restarted_by=text(entry.get("restarted_by")),
    )


def read_log_lines(value: object) -> list[SavedLogLine]:
    """Return lines of the server's log: a result holds them with time and source, a finding as text."""
    return [
        SavedLogLine(duration_s(entry.get("at_s")), text(entry.get("source")), text(entry.get("text")))
        if isinstance(entry, Mapping)
        else SavedLogLine(None, "", text(entry))
        for entry in entries(value, _MAX_LINES)
        if isinstance(entry, Mapping | str)
    ]


def log_lines_by_text(lines: Sequence[SavedLogLine]) -> list[tuple[SavedLogLine, int]]:
    """Return the first of the lines that read alike, and how many there are, in the order of the first ones."""
    return _alike(lines, lambda line: line.quoted)


def _alike(items: Sequence[T], key: Callable[[T], str]) -> list[tuple[T, int]]:
    """Return the first item of each key, and how many have it, in the order of the first ones."""
    first: dict[str, T] = {}
    for item in items:
        first.setdefault(key(item), item)
    counts = Counter(map(key, items))
    return [(item, counts[name]) for name, item in first.items()]


def deaths_text(deaths: Sequence[SavedDeath]) -> str:
    """Return how often the server died and how, as one phrase: `2 times: signal 6 (SIGABRT)`."""
    counts = Counter(death.text for death in deaths)
    named = [
        f"{how} ({count:,} ×)" if count > 1 and len(counts) > 1 else how for how, count in counts.most_common(_MAX_NAMED)
    ]
    more = len(counts) - len(named)
    what = "; ".join(named) + (f"; and {plural(more, 'more cause')}" if more > 0 else "")
    if len(deaths) == 1:
        at_s = deaths[0].at_s
        return f"{what}, after {format_seconds(at_s)}" if at_s is not None else what
    return f"{plural(len(deaths), 'time')}: {what}"


def saturation_text(server: ServerUsage, generator_cpu_s: float | None, cores: int) -> str:
    """Return what a sentence says of a server that used up the cores; empty for a server that did not.

    Args:
        server: What is known of the server.
        generator_cpu_s: CPU time of the generator in the same window, on the same machine; None where it is unknown.
        cores: Cores of the machine; 0 where they are unknown.
    """
    share = server.cores_share
    if share is None:
        return ""
    whose = _cores_text(cores)
    if server.threads_max == 1 and share * cores >= USED_UP_SHARE:
        return f"the only thread of the server used {format_share(share * cores, 0)} of a core"
    if share >= USED_UP_SHARE:
        return f"the server used {format_share(share, 0)} of {whose}"
    if generator_cpu_s is None or not server.window_s or not cores:
        return ""
    generator_share = generator_cpu_s / server.window_s / cores
    # a generator that needs most of the cores is the limit itself
    if share + generator_share >= USED_UP_SHARE and share >= generator_share:
        used = f"the server used {format_share(share, 0)} of {whose}, and the generator {format_share(generator_share, 0)}"
        return f"{used}: hardly anything was left"
    return ""


def _cores_text(cores: int) -> str:
    return "the only core" if cores == 1 else f"the {cores:,} cores" if cores else "the machine's cores"


def format_size(value: float | None) -> str:
    """Return a size; a placeholder where it is unknown."""
    return MISSING if value is None else f"{'-' if value < 0 else ''}{format_bytes(abs(value))}"


def format_growth(value: float | None) -> str:
    """Return a growth for an hour: `+3.10 MiB/h`."""
    return MISSING if value is None else f"{_signed_size(value)}/h"


def _format_interval(interval: tuple[float, float] | None) -> str:
    return MISSING if interval is None else f"{_signed_size(interval[0])} … {_signed_size(interval[1])}"


def _signed_size(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{format_bytes(abs(value))}"


def format_cpu_s(value: float | None) -> str:
    """Return a CPU time in seconds in the unit that fits."""
    return MISSING if value is None else format_ms(1000 * value)


def totals_of_server(server: ServerUsage) -> list[tuple[str, str]]:
    """Return every figure of the server with its name, for a table; figures that are unknown have a placeholder."""
    user, system = format_cpu_s(server.cpu_user_s), format_cpu_s(server.cpu_system_s)
    memory = "memory (proportional set size)" if server.memory_is == "pss" else "memory (resident set size)"
    return [
        ("command", server.name or MISSING),
        ("started by", server.started_by or MISSING),
        ("measured for", format_seconds(server.window_s)),
        ("CPU time for an accepted message", format_ms(server.cpu_ms_per_message)),
        ("CPU time", format_cpu_s(server.cpu_s)),
        ("CPU time, user + system", f"{user} + {system}"),
        ("share of the machine's cores", format_share(server.cores_share)),
        (f"{memory}, max", format_size(server.rss_max_bytes)),
        ("growth of the memory", format_growth(server.rss_growth_bytes_per_hour)),
        ("interval of the growth", _format_interval(server.rss_growth_interval)),
        ("open descriptors, max", format_count(server.fds_max)),
        ("threads, max", format_count(server.threads_max)),
        ("processes, max", format_count(server.processes_max)),
        ("page faults without disk access", format_count(server.minor_faults)),
        ("page faults with disk access", format_count(server.major_faults)),
        ("read from disks", format_size(server.read_bytes)),
        ("written to disks", format_size(server.write_bytes)),
        ("fsync calls", format_count(server.fsyncs)),
        ("context switches, waiting", format_count(server.voluntary_switches)),
        ("context switches, time was up", format_count(server.involuntary_switches)),
        ("restarts", f"{server.restarts:,}"),
        ("deaths", f"{len(server.deaths):,}"),
    ]


def summary_of_server(server: ServerUsage) -> list[str]:
    """Return the figures of the server as a few phrases, the most important first; unknown figures are left out."""
    growth, interval = server.rss_growth_bytes_per_hour, server.rss_growth_interval
    if interval is not None and interval[0] <= 0 <= interval[1]:
        growth = None  # it may be none
    memory = "" if server.rss_max_bytes is None else f"memory at most {format_size(server.rss_max_bytes)}"
    if memory and growth is not None:
        memory += f" ({format_growth(growth)})"
    counted = [(server.fds_max, "descriptor"), (server.threads_max, "thread"), (server.processes_max, "process")]
    most = ", ".join(plural(int(value), noun) for value, noun in counted if value is not None)
    disk = [
        f"{format_size(value)} {done}"
        for value, done in ((server.read_bytes, "read"), (server.write_bytes, "written"))
        if value is not None
    ]
    cpu_ms, share = server.cpu_ms_per_message, server.cores_share
    return [
        phrase
        for phrase in (
            "" if cpu_ms is None else f"{format_ms(cpu_ms)} of CPU a message",
            f"{format_cpu_s(server.cpu_s)} of CPU" if cpu_ms is None and server.cpu_s is not None else "",
            "" if share is None else f"{format_share(share, 0)} of the machine's cores",
            memory,
            most,
            f"disk {', '.join(disk)}" if disk else "",
            plural(server.restarts, "restart") if server.restarts else "",
        )
        if phrase
    ]
