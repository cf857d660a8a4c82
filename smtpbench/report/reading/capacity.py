"""The parts of a capacity search: the capacity that was found, the plan, and every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from smtpbench.measure.saved import CAPACITY, Saved
from smtpbench.report.reading.formatting import format_rate, format_share
from smtpbench.report.reading.head import read_seed
from smtpbench.report.reading.lenient import duration_s, mapping, natural, number, records, text, texts
from smtpbench.report.reading.metrics import SavedThreshold, read_threshold

#: Values of `limited_by` for limits that are not the target's.
OWN_LIMITS = ("generator", "connections")
OBJECTIVE = "objective"
_OUTCOMES = ("accepted", "rejected", "failed", "dropped")


class FoundCapacity(NamedTuple):
    """The outcome of a capacity search.

    Attributes:
        rate_per_s: Highest rate that met the objectives; None where no rate did.
        failed_rate_per_s: Lowest rate that did not meet them.
        precision_share: Distance between the two, as a share of the lower one.
        limited_by: What set the limit: `objective`, `generator`, `connections` or `max-rate`.
        reason: The same as a sentence.
    """

    rate_per_s: float | None
    failed_rate_per_s: float | None
    precision_share: float | None
    limited_by: str
    reason: str


class CapacitySchedule(NamedTuple):
    """How a capacity search was to measure.

    Attributes:
        objectives: What a rate must meet.
        first_rate_per_s: Rate of the first step.
        max_rate_per_s: Highest rate to try; None without a limit.
        precision_share: Precision that was asked for.
        step_s: Length of a step, seconds.
        warmup_s: Warm-up of a step, seconds.
        connections: Most connections at once.
        workers: Worker processes.
        seed: Random seed.
    """

    objectives: Sequence[str]
    first_rate_per_s: float | None
    max_rate_per_s: float | None
    precision_share: float | None
    step_s: float | None
    warmup_s: float | None
    connections: float | None
    workers: float | None
    seed: str


class CapacityStep(NamedTuple):
    """A step of a capacity search.

    Attributes:
        rate_per_s: Rate of arrivals.
        throughput_per_s: Accepted messages per second.
        held: Whether the rate met the objectives.
        purpose: Why the step was made.
        limited_by: What limited it, where it did not meet them.
        why: The same as a sentence.
        measured_s: Length of the measurement, seconds.
        counts: Messages by outcome.
        p50_ms: Median of the response time of messages.
        p99_ms: 99th percentile of it.
        max_ms: Maximum of it.
        objectives: The objectives with the measured values.
        server_cores_share: Share of all cores of the machine that the server used.
        server_cpu_ms_per_message: CPU time of the server for an accepted message, milliseconds.
    """

    rate_per_s: float | None
    throughput_per_s: float | None
    held: bool
    purpose: str
    limited_by: str
    why: str
    measured_s: float | None
    counts: Mapping[str, int]
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    objectives: Sequence[SavedThreshold]
    server_cores_share: float | None = None
    server_cpu_ms_per_message: float | None = None


def capacity_of(saved: Saved) -> FoundCapacity:
    """Return the outcome of a capacity search."""
    found = mapping(saved.result, "capacity")
    return FoundCapacity(
        rate_per_s=number(found.get("rate_per_s")),
        failed_rate_per_s=number(found.get("failed_rate_per_s")),
        precision_share=number(found.get("precision_share")),
        limited_by=text(found.get("limited_by")),
        reason=text(found.get("reason")),
    )


def capacity_schedule_of(saved: Saved) -> CapacitySchedule:
    """Return how a capacity search was to measure."""
    plan = mapping(saved.result, "plan")
    return CapacitySchedule(
        objectives=texts(plan.get("objectives")),
        first_rate_per_s=number(plan.get("first_rate_per_s")),
        max_rate_per_s=number(plan.get("max_rate_per_s")),
        precision_share=number(plan.get("precision_share")),
        step_s=duration_s(plan.get("step_s")),
        warmup_s=duration_s(plan.get("warmup_s")),
        connections=number(plan.get("connections")),
        workers=number(plan.get("workers")),
        seed=read_seed(plan.get("seed")),
    )


def capacity_steps_of(saved: Saved) -> list[CapacityStep]:
    """Return the steps of a capacity search, in the order in which they ran."""
    if saved.kind != CAPACITY:
        return []
    return [
        CapacityStep(
            rate_per_s=number(entry.get("rate_per_s")),
            throughput_per_s=number(entry.get("throughput_per_s")),
            held=entry.get("held") is True,
            purpose=text(entry.get("purpose")),
            limited_by=text(entry.get("limited_by")),
            why=text(entry.get("why")),
            measured_s=duration_s(entry.get("measured_s")),
            counts={name: natural(entry.get(name)) for name in _OUTCOMES},
            p50_ms=number(entry.get("p50_ms")),
            p99_ms=number(entry.get("p99_ms")),
            max_ms=number(entry.get("max_ms")),
            objectives=[read_threshold(objective, "text") for objective in records(entry.get("objectives"))],
            server_cores_share=number(entry.get("server_cores_share")),
            server_cpu_ms_per_message=number(entry.get("server_cpu_ms_per_message")),
        )
        for entry in records(saved.result.get("steps"))
    ]


def server_at_the_knee(saved: Saved) -> str:
    """Return how much of the machine's cores the server used at the lowest rate that failed, or else at the highest.

    Returns:
        A sentence; empty where it is unknown.
    """
    found, steps = capacity_of(saved), capacity_steps_of(saved)
    for rate in (found.failed_rate_per_s, found.rate_per_s):
        at_rate = [step for step in steps if step.rate_per_s == rate and step.server_cores_share is not None]
        if rate is not None and at_rate:
            used = format_share(at_rate[-1].server_cores_share, 0)
            return f"at {format_rate(rate)}/s the server used {used} of the machine's cores"
    return ""


def has_server_figures(steps: Sequence[CapacityStep]) -> bool:
    """Return whether any step has figures of the server."""
    return any(one.server_cores_share is not None or one.server_cpu_ms_per_message is not None for one in steps)
