"""The generator watches itself, and says so when it was the bottleneck.

A figure that a slow generator produced is a figure about the generator. What is watched: the CPU of this process
against one core (a worker's loop uses one), the time it stood ready to run while others had the core (a server on the
same machine is the usual one), how late it began arrivals that had a connection at hand, how long the event loop kept a
timer waiting, and what the machine refused it.
"""

from __future__ import annotations

import os
import re
import resource
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from smtpbench.measure.histogram import Histogram
from smtpbench.units import NS_PER_S

#: A loop that is busier than this has no time left to be on time: queues form in front of it.
BUSY_SHARE = 0.9
#: A loop that stands in the queue for a core for more than this is served late so often that percentiles show it.
STARVED_SHARE = 0.1
#: Arrivals later than this (p99) distort response times that are counted in milliseconds.
LATE_P99_MS = 10.0
#: Errors that are this machine's and not the target's.
_LOCAL_ERRORS = {"no_descriptors": "file descriptors ran out", "no_ports": "local ports ran out"}


@dataclass(slots=True)
class Health:
    """What the generator's processes used and suffered. Counts add over workers and time; peaks are peaks.

    cpu_user_s, cpu_system_s: in the measured window. busiest_share: of one core, by the busiest worker;
    starved_share: of the time, how much the worker that waited longest for a core waited for it.
    late: how late arrivals began that had a connection at hand. loop_lag_max_ms: the longest a timer waited.
    waited: arrivals that found no free connection. connections_peak, peak_rss_bytes: over all workers.
    """

    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    busiest_share: float = 0.0
    starved_share: float = 0.0
    late: Histogram = field(default_factory=Histogram)
    loop_lag_max_ms: float = 0.0
    waited: int = 0
    connections_peak: int = 0
    peak_rss_bytes: int = 0


def cpu_times_s() -> tuple[float, float]:
    """This process's user and system time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def cpu_wait_s() -> float:
    """How long this process's main thread, in which the loop runs, was ready to run and was not (Linux; else 0).

    Source: the second figure of /proc/self/schedstat (Documentation/scheduler/sched-stats.rst), nanoseconds.
    """
    try:
        with open("/proc/self/schedstat", encoding="ascii") as stat:
            return int(stat.read().split()[1]) / NS_PER_S
    except (OSError, ValueError, IndexError):
        return 0.0


def peak_rss_bytes() -> int:
    """The most memory this process ever held."""
    # not getrusage: its ru_maxrss survives exec, so a worker would be charged with what its parent held
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
            found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def limit_reasons(health: Health, errors: Counter[str], *, closed_model: bool) -> list[str]:
    """Why the generator was the bottleneck, in words; empty where it was not."""
    reasons = []
    if health.busiest_share > BUSY_SHARE:
        reasons.append(f"its core was {health.busiest_share:.0%} busy")
    if health.starved_share > STARVED_SHARE:
        reasons.append(f"other processes had its core {health.starved_share:.0%} of the time that it could have run")
    late_p99_ms = health.late.percentiles_ms([99])[99]
    if not closed_model and late_p99_ms > LATE_P99_MS:
        reasons.append(f"arrivals began late by {late_p99_ms:.1f} ms (p99)")
    reasons += [f"{text} ({errors[kind]} times)" for kind, text in _LOCAL_ERRORS.items() if errors[kind]]
    return reasons


def machine() -> dict[str, Any]:
    """What the run ran on."""
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
