"""What results of every kind hold: outcome, scenario, target, generator, machine and notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from smtpbench.measure.partial import REASONS
from smtpbench.measure.saved import CAPACITY, COMPARISON, RUN, Saved
from smtpbench.report.reading.formatting import format_share
from smtpbench.report.reading.lenient import (
    duration_s,
    entries,
    instant,
    items,
    lines,
    mapping,
    natural,
    number,
    records,
    text,
    texts,
)

COMPLETED: Final = "completed"
UNKNOWN: Final = "unknown"
_LABEL_CHARACTERS = 80
_MAX_SEED = 10**40


class Head(NamedTuple):
    """Identity and outcome of a result.

    Attributes:
        label: Name of the result, unique within a report.
        kind: `run`, `check`, `fuzz`, `comparison` or `capacity`.
        status: `completed`, or how it ended otherwise; `unknown` where the result holds no outcome.
        reason: Why it ended that way.
        started: Start, in UTC.
        scenario: Name of the scenario.
        target: Address of the target; of a comparison, of all its targets.
        banner: Greeting of the target.
        version: Version of smtpbench.
        seconds: Length of the measurement.
    """

    label: str
    kind: str
    status: str
    reason: str
    started: datetime | None
    scenario: str
    target: str
    banner: str
    version: str
    seconds: float | None


class SavedScenario(NamedTuple):
    """The scenario of a result.

    Attributes:
        name: Its name.
        file: Path of its file, as the user wrote it.
        sha256: Digest of the file.
        text: Content of the file, of several lines.
    """

    name: str
    file: str
    sha256: str
    text: str


class SavedTarget(NamedTuple):
    """What is known of a target.

    Attributes:
        url: Its address.
        banner: Its greeting.
        extensions: Extensions that it announces in reply to EHLO.
        extensions_inside_tls: Those that it announces after STARTTLS.
        recipient: A recipient address that it accepts.
        gone: Whether it stopped to answer for good.
    """

    url: str
    banner: str
    extensions: Sequence[str]
    extensions_inside_tls: Sequence[str]
    recipient: str
    gone: bool


class GeneratorLoad(NamedTuple):
    """How busy the generator was.

    Attributes:
        known: Whether the result holds figures of the generator.
        limited: Whether the generator was the bottleneck.
        limited_reasons: Why it was.
        busiest_worker_share: CPU of the busiest worker, as a share of a core.
        starved_worker_share: Share of the time for which a worker waited for a core.
        cpu_s: CPU time of a check or a campaign, seconds.
        cpu_user_s: CPU time in user mode, seconds.
        cpu_system_s: CPU time in the kernel, seconds.
        late_p99_ms: 99th percentile of the delay of arrivals.
        late_max_ms: Longest delay of an arrival.
        read_delay_p99_ms: 99th percentile of the delay of reads; None where no read was timed.
        read_delay_max_ms: Longest delay of a read; None likewise.
        read_delay_effects: Percentiles that the delay of reads would have distorted, each as text.
        loop_lag_max_ms: Longest delay of an event loop.
        arrivals_waited: Arrivals that found no free connection.
        arrivals_waited_by_worker: The same, for each worker.
        connections_peak: Most connections that were open at once.
        peak_rss_bytes: Most memory that was in use.
    """

    known: bool
    limited: bool
    limited_reasons: Sequence[str]
    busiest_worker_share: float | None
    starved_worker_share: float | None
    cpu_s: float | None
    cpu_user_s: float | None
    cpu_system_s: float | None
    late_p99_ms: float | None
    late_max_ms: float | None
    read_delay_p99_ms: float | None
    read_delay_max_ms: float | None
    read_delay_effects: Sequence[str]
    loop_lag_max_ms: float | None
    arrivals_waited: float | None
    arrivals_waited_by_worker: Sequence[int]
    connections_peak: float | None
    peak_rss_bytes: int


class SavedMachine(NamedTuple):
    """Where a result was made.

    Attributes:
        cpu: Model of the processor.
        cores: Number of cores; 0 where it is unknown.
        memory_bytes: Memory; 0 where it is unknown.
        kernel: Operating system kernel.
        versions: Programs and their versions.
    """

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    versions: Sequence[tuple[str, str]]


def heads_of(several: Iterable[Saved]) -> list[tuple[Head, Saved]]:
    """Return each result with its head; a label that is already in use gets a number."""
    used: set[str] = set()
    found = []
    for saved in several:
        base = text(saved.label) or saved.kind
        label, suffix = base, 1
        while label in used:
            suffix += 1
            label = f"{base} ({suffix})"
        used.add(label)
        found.append((head_of(saved, label), saved))
    return found


def head_of(saved: Saved, label: str = "") -> Head:
    """Return the head of a result."""
    result = saved.result
    outcome = result.get("outcome")
    status = text(mapping(outcome).get("status")) or text(outcome)
    target = mapping(result, "target")
    if saved.kind == COMPARISON:
        urls = [text(mapping(side, "target").get("url")) for side in records(result.get("candidates"))]
        url = ", ".join(filter(None, urls))
    else:
        url = text(target.get("url"))
    return Head(
        label=label or label_of(saved),
        kind=saved.kind,
        status=COMPLETED if status in ("complete", COMPLETED) else status or UNKNOWN,
        reason=text(mapping(outcome).get("reason")) or REASONS.get(status, ""),
        started=instant(result.get("started")),
        scenario=text(mapping(result, "scenario").get("name")) or text(result.get("name")),
        target=url,
        banner=text(target.get("banner")),
        version=text(mapping(result, "versions").get("smtpbench")),
        seconds=_measured_s(saved),
    )


def label_of(saved: Saved) -> str:
    """Return the label of a result, short enough for the head of a column."""
    return text(saved.label, _LABEL_CHARACTERS)


def _measured_s(saved: Saved) -> float | None:
    """Length of the measurement in seconds."""
    result = saved.result
    if saved.kind == RUN:
        return duration_s(mapping(result, "load").get("window_s"))
    if saved.kind == CAPACITY:
        return sum(duration_s(step.get("measured_s")) or 0.0 for step in records(result.get("steps")))
    if saved.kind == COMPARISON:
        plan = mapping(result, "plan")
        run_s, repeats = duration_s(plan.get("duration_s")), natural(plan.get("repeats_done"))
        return run_s * repeats * len(records(result.get("candidates"))) if run_s is not None else None
    return None


def scenario_of(saved: Saved) -> SavedScenario:
    """Return the scenario of a result."""
    scenario = mapping(saved.result, "scenario")
    name, file, sha256 = (text(scenario.get(key)) for key in ("name", "file", "sha256"))
    return SavedScenario(name, file, sha256, lines(scenario.get("text")))


def target_of(saved: Saved) -> SavedTarget:
    """Return the target of a result."""
    return read_target(saved.result.get("target"))


def read_target(value: object) -> SavedTarget:
    """Return the target that a part of a result describes."""
    target = mapping(value)
    return SavedTarget(
        url=text(target.get("url")),
        banner=text(target.get("banner")),
        extensions=texts(target.get("extensions")),
        extensions_inside_tls=texts(target.get("extensions_inside_tls")),
        recipient=text(target.get("recipient")),
        gone=target.get("gone") is True,
    )


def generator_of(saved: Saved) -> GeneratorLoad:
    """Return how busy the generator was."""
    generator = mapping(saved.result, "generator")
    read_delay = mapping(generator, "read_delay")
    timed = bool(natural(read_delay.get("count")))
    return GeneratorLoad(
        known=isinstance(saved.result.get("generator"), dict),
        limited=generator.get("limited") is True,
        limited_reasons=texts(generator.get("limited_reasons")),
        busiest_worker_share=number(generator.get("busiest_worker_share")),
        starved_worker_share=number(generator.get("starved_worker_share")),
        cpu_s=number(generator.get("cpu_s")),
        cpu_user_s=number(generator.get("cpu_user_s")),
        cpu_system_s=number(generator.get("cpu_system_s")),
        late_p99_ms=number(generator.get("late_p99_ms")),
        late_max_ms=number(generator.get("late_max_ms")),
        read_delay_p99_ms=number(read_delay.get("p99_ms")) if timed else None,
        read_delay_max_ms=number(read_delay.get("max_ms")) if timed else None,
        read_delay_effects=[
            f"{text(effect.get('metric'))} {text(effect.get('statistic'))} by {format_share(number(effect.get('share')), 0)}"
            for effect in records(read_delay.get("would_add"))
        ],
        loop_lag_max_ms=number(generator.get("loop_lag_max_ms")),
        arrivals_waited=number(generator.get("arrivals_waited")),
        arrivals_waited_by_worker=[natural(count) for count in entries(generator.get("arrivals_waited_by_worker"))],
        connections_peak=number(generator.get("connections_peak")),
        peak_rss_bytes=natural(generator.get("peak_rss_bytes")),
    )


def machine_of(saved: Saved) -> SavedMachine:
    """Return where a result was made."""
    machine = mapping(saved.result, "machine")
    return SavedMachine(
        cpu=text(machine.get("cpu")),
        cores=natural(machine.get("cores")),
        memory_bytes=natural(machine.get("memory_bytes")),
        kernel=text(machine.get("kernel")),
        versions=[(name, text(version)) for name, version in items(saved.result.get("versions"))],
    )


def seed_of(saved: Saved) -> str:
    """Return the random seed of a result; empty where there is none."""
    return read_seed(saved.result.get("seed"))


def read_seed(value: object) -> str:
    """Return a seed, which is a number of up to 40 digits, as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < _MAX_SEED else ""
    return text(value)
