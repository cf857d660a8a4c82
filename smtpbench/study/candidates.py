"""Candidates of a comparison, ready to run: target, load, commands and metrics, from a comparison file or options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smtpbench.errors import UsageError
from smtpbench.load.plan import LoadPlan
from smtpbench.load.settings import Overrides, make_plan
from smtpbench.load.threshold_monitor import metrics_of
from smtpbench.measure.saved import COMPARISON
from smtpbench.scenario.comparison import CandidateSpec, Comparison, overlaid
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import ScenarioFile, find_scenario, load_scenario
from smtpbench.scenario.model import Load
from smtpbench.study.resume import (
    common_settings,
    continue_from,
    load_settings,
    target_settings,
)
from smtpbench.supervisor.server_options import ServerOptions, make_server_options
from smtpbench.target import Access, Trust, parse_target, read_password
from smtpbench.text import did_you_mean
from smtpbench.threshold import Metric
from smtpbench.units import NS_PER_S, format_bytes, format_duration

#: Length of a run if neither the comparison nor the stages of its scenario set it. Many short runs show more than few long.
DURATION_NS = 5 * NS_PER_S
WARMUP_NS = 1 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate of a comparison.

    Attributes:
        name: Its name, which is also the name of its folders.
        access: Its target and how to reach it.
        plan: Load of each run.
        message_bytes: Message size, instead of that of the scenario; None to keep it.
        server: How its server is started, watched and stopped.
        recipient: Recipient for checks of the protocol rules.
        sender: Envelope sender for checks of the protocol rules.
        about: One sentence on what is different about it.
        options: Load options that differ from the comparison's, as text.
    """

    name: str
    access: Access
    plan: LoadPlan
    message_bytes: int | None
    server: ServerOptions
    recipient: str = ""
    sender: str = ""
    about: str = ""
    options: str = ""


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """A comparison, checked as far as possible without the network.

    Attributes:
        comparison: The comparison file.
        file: The scenario.
        metrics: Metrics to compare, all of which the scenario has.
        candidates: The candidates; the others are compared with the first.
        folder: Folder for the result and the folders of the runs.
        seed: Random seed of the first round; each round adds one.
        interrupted: Result of the interrupted comparison to continue; None to start from the beginning.
    """

    comparison: Comparison
    file: ScenarioFile
    metrics: Sequence[Metric]
    candidates: Sequence[Candidate]
    folder: Path
    seed: int
    interrupted: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """How all candidates are reached, unless a candidate says otherwise.

    Attributes:
        trust: How TLS is checked.
        password_file: File whose first line is the password.
        timeout_ns: Limit for one reply, nanoseconds.
        authorized: Whether targets may be other machines.
    """

    trust: Trust = field(default_factory=Trust)
    password_file: Path | None = None
    timeout_ns: int = 3 * NS_PER_S
    authorized: bool = False


def make_request(
    comparison: Comparison,
    base_folder: Path,
    access_options: AccessOptions,
    folder: Path,
    seed: int,
    *,
    allow_files: bool = False,
) -> CompareRequest:
    """Return the request for a comparison, checked as far as possible without the network.

    Args:
        comparison: The comparison file.
        base_folder: Folder to which the scenario and the commands of the comparison are relative.
        access_options: How candidates are reached unless they say otherwise.
        folder: Folder for the result.
        seed: Random seed.
        allow_files: Whether the scenario may name files outside its folder.

    Raises:
        UsageError: A candidate, its load or a metric is wrong.
    """
    found = find_scenario(comparison.scenario)
    path = found if found.exists() or found.is_absolute() else base_folder / found
    file = load_scenario(path, allow_files=allow_files)
    candidates = [
        _candidate(name, spec, comparison, file.scenario.load, base_folder, access_options, seed)
        for name, spec in comparison.candidates.items()
    ]
    return CompareRequest(comparison, file, _metrics(comparison, file, candidates[0]), candidates, folder, seed)


def resumed(request: CompareRequest, *, keep_seed: bool) -> CompareRequest:
    """Return a request that continues the interrupted comparison in its folder, or the request itself if there is none.

    Args:
        request: What the command asks for.
        keep_seed: Whether the user gave the seed; without that it is the one of the interrupted comparison.

    Raises:
        UsageError: The comparison in the folder is complete, has other settings, or is none.
    """
    found, seed = continue_from(
        request.folder, COMPARISON, request.seed, lambda seed: settings_of(replace(request, seed=seed)), keep_seed=keep_seed
    )
    return replace(request, seed=seed, interrupted=found)


def settings_of(request: CompareRequest) -> dict[str, Any]:
    """Return what decides what a comparison measures."""
    comparison = request.comparison
    return {
        **common_settings(request.file),
        "repeats": comparison.repeats,
        "seed": request.seed,
        "metrics": [metric.text for metric in request.metrics],
        "confidence": comparison.confidence,
        "least_share": comparison.least,
        "check": comparison.check,
        "order": [one.name for one in request.candidates],
        "candidates": {
            one.name: {
                **target_settings(one.access, one.message_bytes),
                **load_settings(one.plan),
                "start": one.server.start,
                "stop": one.server.stop,
                "recipient": one.recipient,
                "sender": one.sender,
            }
            for one in request.candidates
        },
    }


def _candidate(
    name: str,
    spec: CandidateSpec,
    comparison: Comparison,
    load: Load,
    base_folder: Path,
    access_options: AccessOptions,
    seed: int,
) -> Candidate:
    if spec.target is None:
        raise UsageError(f"candidate {name!r} has no target; add one, like target: smtp://127.0.0.1:2525")
    target = parse_target(spec.target)
    trust = access_options.trust
    trust = replace(trust, ca=Path(spec.ca) if spec.ca else trust.ca, insecure=spec.insecure or trust.insecure)
    password_file = Path(spec.password_file) if spec.password_file else access_options.password_file
    password = read_password(password_file) if target.user else None
    try:
        plan = make_plan(_load(load, comparison.load, spec.load), Overrides(seed=seed))
        server = make_server_options(
            start=spec.start,
            stop=spec.stop,
            ready=spec.ready_when,
            ready_ns=spec.ready,
            logs=[base_folder / log for log in spec.server_log],
            log_pattern=spec.log_pattern,
            watch=spec.watch,
            folder=base_folder,
        )
    except UsageError as error:
        raise UsageError(f"candidate {name!r}: {error}") from None
    return Candidate(
        name=name,
        access=Access(target, trust, password, access_options.timeout_ns, access_options.authorized),
        plan=plan,
        message_bytes=comparison.size if spec.size is None else spec.size,
        server=server,
        recipient=spec.recipient,
        sender=spec.sender,
        about=spec.about,
        options=_describe_load(spec),
    )


def _load(scenario: Load, comparison: Load, candidate: Load) -> Load:
    """Return the candidate's load; its own settings win over the comparison's, and these over the scenario's."""
    given = comparison.model_fields_set | candidate.model_fields_set
    load = overlaid(overlaid(scenario, comparison), candidate)
    if not given & {"messages", "duration", "stages"} and load.stages is None:
        load = load.model_copy(update={"duration": DURATION_NS, "messages": None})
    return load if "warmup" in given else load.model_copy(update={"warmup": WARMUP_NS})


def _describe_load(spec: CandidateSpec) -> str:
    """Return the load settings of a candidate as text: `connections 10, rate 100/s`."""
    settings = []
    for name in sorted(spec.load.model_fields_set):
        value = getattr(spec.load, name)
        if name == "rate":
            value = "..".join(f"{rate:g}/s" for rate in dict.fromkeys(value))
        elif name in ("duration", "warmup", "drain", "timeout"):
            value = format_duration(value)
        elif name == "stages":
            value = f"{len(value)}"
        settings.append(f"{name.replace('_', '-')} {value}")
    return ", ".join(settings + ([f"message size {format_bytes(spec.size)}"] if spec.size is not None else []))


def _metrics(comparison: Comparison, file: ScenarioFile, candidate: Candidate) -> list[Metric]:
    """Return the metrics that were asked for, or else those of the default list that the scenario has.

    Raises UsageError for a metric that was asked for and that the scenario does not have.
    """
    target = candidate.access.target
    options = CompileOptions(
        lmtp=target.lmtp,
        implicit_tls=target.implicit_tls,
        starttls=target.starttls,
        credentials=candidate.access.credentials is not None,
    )
    names = metrics_of(compile_scenario(file, options))
    for metric in comparison.metrics:
        if metric.latency_name and metric.latency_name not in names and "metrics" in comparison.model_fields_set:
            hint = did_you_mean(metric.latency_name, names) or f"; latencies of the scenario: {', '.join(names)}"
            raise UsageError(f"metric {metric.text!r}: this scenario has no latency {metric.latency_name!r}{hint}")
    return [metric for metric in comparison.metrics if not metric.latency_name or metric.latency_name in names]
