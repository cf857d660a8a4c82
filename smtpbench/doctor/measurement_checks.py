"""Diagnoses of what was measured: delays of timers and the cost of a message. Pure functions."""

from __future__ import annotations

from smtpbench.doctor.diagnosis import BAD, OK, WARN, Diagnosis, grade
from smtpbench.doctor.measurements import SAMPLE_MESSAGE_BYTES, MessageCost
from smtpbench.measure.health import BUSY_SHARE, LATE_P99_MS, STARVED_SHARE
from smtpbench.measure.histogram import Histogram
from smtpbench.units import NS_PER_MS, format_duration

#: A current core needs 40 to 100 us for a message over loopback; from these values on, something slows it down.
_SLOW_US, _VERY_SLOW_US = 250.0, 1000.0


def timers_diagnosis(late: Histogram) -> Diagnosis:
    """Return the diagnosis of how late timers are, which is how late arrivals of an open model start."""
    found = late.percentiles_ms([50, 99])
    verdict = grade(found[99], LATE_P99_MS / 5, LATE_P99_MS)
    times = [format_duration(ms * NS_PER_MS) for ms in (found[50], found[99], late.max_ns / NS_PER_MS)]
    return Diagnosis(
        "timers",
        verdict,
        f"late by p50 {times[0]}, p99 {times[1]}, max {times[2]}",
        f"arrivals with --rate start late by this; from a p99 of {LATE_P99_MS:g} ms on, a run reports GENERATOR LIMITED",
        "" if verdict == OK else "check other load, stolen time, CPU quota and CPU governor",
        {"late_p50_ms": found[50], "late_p99_ms": found[99], "late_max_ms": late.max_ns / 1e6},
    )


def cost_diagnosis(cost: MessageCost) -> Diagnosis:
    """Return the diagnosis of what a message costs the generator on this machine."""
    name = "cost of a message"
    if cost.error:
        return Diagnosis(name, BAD, f"not measured: {cost.error}", advice="fix this first; a run would fail in the same way")
    limit_per_s = 1e6 / cost.cpu_us
    starved = cost.starved_share > STARVED_SHARE
    verdict = max(grade(cost.cpu_us, _SLOW_US, _VERY_SLOW_US), WARN if starved else OK, key=(OK, WARN, BAD).index)
    waited = f", and the worker waited for it {cost.starved_share:.0%} of the time" if starved else ""
    return Diagnosis(
        name,
        verdict,
        f"{cost.cpu_us:.1f} us of CPU ({SAMPLE_MESSAGE_BYTES:,} octets, connections reused); the core was "
        f"{cost.busy_share:.0%} busy{waited}",
        f"one worker sends about {limit_per_s * BUSY_SHARE:,.0f} messages/s with its core {BUSY_SHARE:.0%} busy; in this "
        f"measurement, which shared the machine with its server, it sent {cost.messages / cost.window_s:,.0f}/s",
        "" if verdict == OK else "check cores, other load and Python; reuse connections, pipeline, or add --workers",
        {
            "cpu_us": cost.cpu_us, "messages_per_s": cost.messages / cost.window_s, "most_messages_per_s": limit_per_s,
            "starved_share": cost.starved_share, "rss_bytes": cost.rss_bytes,
        },
    )  # fmt: skip
