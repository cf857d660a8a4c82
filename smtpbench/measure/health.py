"""The load generator monitors itself and reports when it was the bottleneck.

If the generator is too slow, the latencies describe the generator and not the server. It measures:

- its CPU time, compared with one core (the event loop of a worker uses one);
- the time in which it was ready to run and had no core, usually because the server runs on the same machine;
- how late it began arrivals that had a free connection;
- how long after the kernel had received a reply it read it (service times do not include that: they end in the kernel);
- the lag of the event loop;
- errors that are caused by the limits of this machine.

On shared cores, the generator waits for a core while the server or others use it. That the server needs the cores is a
property of the server, and no reason to doubt the result. The time of waiting is therefore divided among those that used the
cores, in proportion to the CPU time of each: the server, and the others, which are other processes and other workers.
Arrivals that begin late for this reason are no limit of the generator either. Where it is not known what the server used,
all the time of waiting counts as the others'.
"""

from __future__ import annotations

import os
import re
import resource
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from smtpbench.measure.histogram import Histogram
from smtpbench.measure.notes import SHARED_CORES
from smtpbench.measure.recorder import Interval
from smtpbench.text import plural
from smtpbench.units import NS_PER_S

#: An event loop with a higher share of CPU time is late: events queue up.
BUSY_SHARE = 0.9
#: An event loop that waits for a core for a larger share of the time is late so often that percentiles show it.
STARVED_SHARE = 0.1
#: Arrivals that begin later than this (p99) distort response times of some milliseconds.
LATE_P99_MS = 10.0
#: A percentile that the read delay would have raised by more than this is named.
MOVED_SHARE = 0.1
_MOVED_PERCENTS = (50.0, 90.0, 95.0, 99.0)
#: Metrics that include what the generator does between a reply and the next command.
OWN_TIMES = frozenset({"connect", "tls", "transaction", "session"})
#: Errors that are caused by this machine and not by the target.
_LOCAL_ERRORS = {"no_descriptors": "file descriptors ran out", "no_ports": "local ports ran out"}


@dataclass(slots=True)
class Health:
    """What the processes of the generator used, and how late they were.

    Attributes:
        cpu_user_s: User CPU time of all workers in the measured window.
        cpu_system_s: System CPU time of all workers in the measured window.
        busiest_share: CPU time of the busiest worker, as a share of one core.
        starved_share: Share of the time in which the worker that waited longest had to wait for a core.
        server_cores: How many cores the server used in the measured window; 0 if that is not known.
        other_cores: How many cores other processes, and for each worker the other workers, used in the measured window.
        late: How late arrivals began that had a free connection.
        read_delay: How long after the kernel had received replies they were read: a sample of the reads, and the longest of
            each second.
        clock_steps: How often the time of the machine was set.
        loop_lag_max_ms: Longest lag of an event loop.
        waited: Arrivals that found no free connection.
        waited_by_worker: The same, by the number of the worker.
        connections_peak: Most connections open at once, summed over the workers.
        peak_rss_bytes: Most memory in use, summed over the workers.
    """

    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    busiest_share: float = 0.0
    starved_share: float = 0.0
    server_cores: float = 0.0
    other_cores: float = 0.0
    late: Histogram = field(default_factory=Histogram)
    read_delay: Histogram = field(default_factory=Histogram)
    clock_steps: int = 0
    loop_lag_max_ms: float = 0.0
    waited: int = 0
    waited_by_worker: Counter[int] = field(default_factory=Counter)
    connections_peak: int = 0
    peak_rss_bytes: int = 0

    @property
    def starved_by_others_share(self) -> float:
        """The part of `starved_share` in which others than the server used the cores."""
        used = self.server_cores + self.other_cores
        return self.starved_share * (self.other_cores / used if self.server_cores and used else 1.0)

    @property
    def shares_cores(self) -> bool:
        """Whether the generator waited for a core notably long because the server used it, and for no other reason."""
        return self.starved_share > STARVED_SHARE >= self.starved_by_others_share and self.busiest_share <= BUSY_SHARE


def cpu_times_s() -> tuple[float, float]:
    """Return user and system CPU time of this process, seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def cpu_wait_s() -> float:
    """Return how long the main thread, which runs the event loop, was ready to run and had no core (Linux; else 0).

    Source: the second number in /proc/self/schedstat (Documentation/scheduler/sched-stats.rst), nanoseconds.
    """
    try:
        with open("/proc/self/schedstat", encoding="ascii") as stat:
            return int(stat.read().split()[1]) / NS_PER_S
    except (OSError, ValueError, IndexError):
        return 0.0


def machine_busy_s() -> float:
    """Return how long processes have used the cores of this machine since it was started, seconds; 0 if that is not known.

    Time that a hypervisor took away is included, interrupts are not. Source: proc_stat(5).
    """
    try:
        with open("/proc/stat", encoding="ascii") as stat:
            user, nice, system, _, _, _, _, steal = (int(field) for field in stat.readline().split()[1:9])
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + steal) / os.sysconf("SC_CLK_TCK")


def peak_rss_bytes() -> int:
    """Return the most memory that this process has used."""
    # not getrusage: its ru_maxrss survives exec, so that a worker would report the memory of its parent
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
            found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard limit; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def limit_reasons(health: Health, errors: Counter[str], *, closed_model: bool) -> list[str]:
    """Return why the generator was the bottleneck, one phrase for each reason; empty if it was not."""
    reasons = []
    if health.busiest_share > BUSY_SHARE:
        reasons.append(f"the busiest worker used {health.busiest_share:.0%} of its core")
    if health.starved_by_others_share > STARVED_SHARE:
        used = f", while the server used {health.server_cores:.1f} cores and others {health.other_cores:.1f}"
        reasons.append(
            f"a worker that was ready to run waited {health.starved_share:.0%} of the time for a core"
            + (used if health.server_cores else "")
        )
    late_p99_ms = health.late.percentiles_ms([99])[99]
    if not closed_model and late_p99_ms > LATE_P99_MS and not health.shares_cores:
        reasons.append(f"arrivals began {late_p99_ms:.1f} ms late (p99)")
    reasons += [f"{text} ({plural(errors[kind], 'time')})" for kind, text in _LOCAL_ERRORS.items() if errors[kind]]
    return reasons


def shared_cores_note(health: Health, cores: int) -> str:
    """Return the sentence for a run whose generator waited for cores that the server used; empty for others."""
    if not health.shares_cores:
        return ""
    return (
        f"{SHARED_CORES}{plural(cores, 'core')}; the server used {health.server_cores:.1f} of them, so that a "
        f"worker that was ready to run waited {health.starved_share:.0%} of the time for a core."
    )


def moved_percentiles(read_delay: Histogram, totals: Interval) -> list[dict[str, Any]]:
    """Return `generator.read_delay.would_add`: the percentiles that would be wrong if reads ended the service times.

    An entry names metric and statistic, and the share that the read delay of the same percentile would add to it. Shares
    up to `MOVED_SHARE` are left out; of each metric, the largest counts.
    """
    if not read_delay.count:
        return []
    delays_ms = read_delay.percentiles_ms(_MOVED_PERCENTS)
    found = []
    for (metric, ok), latency in sorted(totals.latencies.items()):
        if not ok or metric in OWN_TIMES or not latency.service.count:
            continue
        services_ms = latency.service.percentiles_ms(_MOVED_PERCENTS)
        share, percent = max((delays_ms[one] / max(services_ms[one], 0.001), one) for one in _MOVED_PERCENTS)
        if share > MOVED_SHARE:
            found.append({"metric": metric, "statistic": f"p{percent:g}", "share": share})
    return found


def machine() -> dict[str, Any]:
    """Return `machine` of a result: what this machine is."""
    kernel = os.uname()
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{kernel.sysname} {kernel.release}",
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return ""
