"""Judging what trials measured. Pure: from figures to diagnoses."""

from __future__ import annotations

from smtpbench.doctor.diagnosis import BAD, OK, WARN, Diagnosis, graded
from smtpbench.doctor.trials import TRIAL_MESSAGE_BYTES, Cost
from smtpbench.measure.health import BUSY_SHARE, LATE_P99_MS, STARVED_SHARE
from smtpbench.measure.histogram import Histogram
from smtpbench.units import NS_PER_MS, format_duration

#: A core of this decade needs 40 to 100 us for a message, loopback included; beyond these something slows it down.
_DEAR_US, _TOO_DEAR_US = 250.0, 1000.0


def timers_diagnosis(late: Histogram) -> Diagnosis:
    """Of how late timers are, which is how late an open model's arrivals begin."""
    found = late.percentiles_ms([50, 99])
    verdict = graded(found[99], LATE_P99_MS / 5, LATE_P99_MS)
    times = [format_duration(ms * NS_PER_MS) for ms in (found[50], found[99], late.max_ns / NS_PER_MS)]
    return Diagnosis(
        "timers",
        verdict,
        f"late by p50 {times[0]}, p99 {times[1]}, max {times[2]}",
        f"arrivals of --rate begin so late; from a p99 of {LATE_P99_MS:g} ms on a run says GENERATOR LIMITED",
        "" if verdict == OK else "look at other load, stolen time, CPU quota and governor",
        {"late_p50_ms": found[50], "late_p99_ms": found[99], "late_max_ms": late.max_ns / 1e6},
    )


def cost_diagnosis(cost: Cost) -> Diagnosis:
    """Of what a message costs the generator here."""
    name = "cost of a message"
    if cost.trouble:
        return Diagnosis(name, BAD, f"not measured: {cost.trouble}", advice="a run would fail alike: mend this first")
    most_per_s = 1e6 / cost.cpu_us
    starved = cost.starved_share > STARVED_SHARE
    verdict = max(graded(cost.cpu_us, _DEAR_US, _TOO_DEAR_US), WARN if starved else OK, key=(OK, WARN, BAD).index)
    waited = f", and waited for it {cost.starved_share:.0%} of the time" if starved else ""
    return Diagnosis(
        name,
        verdict,
        f"{cost.cpu_us:.1f} us of CPU ({TRIAL_MESSAGE_BYTES:,} octets, connections kept); its core was "
        f"{cost.busy_share:.0%} busy{waited}",
        f"one worker drives about {most_per_s * BUSY_SHARE:,.0f} messages/s with its core {BUSY_SHARE:.0%} busy; this "
        f"trial, whose sink shared the machine, saw {cost.messages / cost.window_s:,.0f}/s",
        "" if verdict == OK else "look at cores, other load and Python; keep connections open, pipeline, or add --workers",
        {
            "cpu_us": cost.cpu_us, "messages_per_s": cost.messages / cost.window_s, "most_messages_per_s": most_per_s,
            "starved_share": cost.starved_share, "rss_bytes": cost.rss_bytes,
        },
    )  # fmt: skip
