"""From what a comparison says to candidates that can be run: scenario, targets, loads, commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from smtpbench.errors import UsageError
from smtpbench.load.plan import LoadPlan
from smtpbench.load.settings import Overrides, make_plan
from smtpbench.load.threshold_monitor import metrics_of
from smtpbench.scenario.comparison import CandidateSpec, Comparison, overlaid
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import ScenarioFile, find_scenario, load_scenario
from smtpbench.scenario.model import Load
from smtpbench.study.servers import Commands
from smtpbench.target import Access, Trust, parse_target, read_password
from smtpbench.text import did_you_mean
from smtpbench.threshold import Metric
from smtpbench.units import NS_PER_S, format_bytes, format_duration

#: Of a run, where neither the comparison nor its scenario's stages say: many short runs tell more than few long ones.
DURATION_NS = 5 * NS_PER_S
WARMUP_NS = 1 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Candidate:
    """One side of a comparison. options: what is loaded otherwise than the others, in words."""

    name: str
    access: Access
    plan: LoadPlan
    message_bytes: int | None
    commands: Commands
    recipient: str = ""
    sender: str = ""
    about: str = ""
    options: str = ""


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """A comparison that can be made. metrics: those that the scenario's runs have. folder: where it is kept."""

    comparison: Comparison
    file: ScenarioFile
    metrics: Sequence[Metric]
    candidates: Sequence[Candidate]
    folder: Path
    seed: int


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """What all candidates are reached with, unless they say otherwise."""

    trust: Trust = field(default_factory=Trust)
    password_file: Path | None = None
    timeout_ns: int = 3 * NS_PER_S
    authorized: bool = False


def make_request(comparison: Comparison, beside: Path, means: AccessOptions, folder: Path, seed: int) -> CompareRequest:
    """Everything that can be known before the network is asked. Raises UsageError.

    beside: the folder that the comparison's scenario and its commands are relative to.
    """
    found = find_scenario(comparison.scenario)
    file = load_scenario(found if found.exists() or found.is_absolute() else beside / found)
    candidates = [
        _candidate(name, entry, comparison, file.scenario.load, beside, means, seed)
        for name, entry in comparison.candidates.items()
    ]
    return CompareRequest(comparison, file, _metrics(comparison, file, candidates[0]), candidates, folder, seed)


def _candidate(
    name: str, entry: CandidateSpec, comparison: Comparison, load: Load, beside: Path, means: AccessOptions, seed: int
) -> Candidate:
    if entry.target is None:
        raise UsageError(f"the candidate {name!r} has no target: give it one, like smtp://127.0.0.1:2525")
    if entry.stop and not entry.start:
        raise UsageError(f"the candidate {name!r} is stopped and never started: give it a `start` too")
    target = parse_target(entry.target)
    trust = replace(
        means.trust, ca=Path(entry.ca) if entry.ca else means.trust.ca, insecure=entry.insecure or means.trust.insecure
    )
    password_file = Path(entry.password_file) if entry.password_file else means.password_file
    access = Access(target, trust, read_password(password_file) if target.user else None, means.timeout_ns, means.authorized)
    try:
        plan = make_plan(_load(load, comparison.load, entry.load), Overrides(seed=seed))
    except UsageError as error:
        raise UsageError(f"the candidate {name!r}: {error}") from None
    return Candidate(
        name, access, plan,
        message_bytes=comparison.size if entry.size is None else entry.size,
        commands=Commands(entry.start, entry.stop, entry.ready, beside),
        recipient=entry.recipient, sender=entry.sender, about=entry.about, options=_told(entry),
    )  # fmt: skip


def _load(scenario: Load, comparison: Load, entry: Load) -> Load:
    """The candidate's load: its own word first, then the comparison's, then the scenario's."""
    said = comparison.model_fields_set | entry.model_fields_set
    load = overlaid(overlaid(scenario, comparison), entry)
    if not said & {"messages", "duration", "stages"} and load.stages is None:
        load = load.model_copy(update={"duration": DURATION_NS, "messages": None})
    return load if "warmup" in said else load.model_copy(update={"warmup": WARMUP_NS})


def _told(entry: CandidateSpec) -> str:
    """`connections 10, rate 100/s`: what an entry says of the load."""
    words = []
    for name in sorted(entry.load.model_fields_set):
        value = getattr(entry.load, name)
        if name == "rate":
            value = "..".join(f"{rate:g}/s" for rate in dict.fromkeys(value))
        elif name in ("duration", "warmup", "drain", "timeout"):
            value = format_duration(value)
        elif name == "stages":
            value = f"{len(value)} of them"
        words.append(f"{name.replace('_', '-')} {value}")
    return ", ".join(words + ([f"messages of {format_bytes(entry.size)}"] if entry.size is not None else []))


def _metrics(comparison: Comparison, file: ScenarioFile, candidate: Candidate) -> list[Metric]:
    """Those asked for; of those that nobody asked for, the ones that there are. Raises UsageError."""
    target = candidate.access.target
    options = CompileOptions(lmtp=target.lmtp, implicit_tls=target.implicit_tls, starttls=target.starttls,
                      credentials=candidate.access.credentials is not None)  # fmt: skip
    slots = metrics_of(compile_scenario(file, options))
    for metric in comparison.metrics:
        if metric.latency_name and metric.latency_name not in slots and "metrics" in comparison.model_fields_set:
            hint = did_you_mean(metric.latency_name, slots) or f"; there are {', '.join(slots)}"
            raise UsageError(f"{metric.text!r}: nothing is timed as {metric.latency_name!r}{hint}")
    return [metric for metric in comparison.metrics if not metric.latency_name or metric.latency_name in slots]
