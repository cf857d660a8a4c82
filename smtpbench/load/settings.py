"""The load of a run: what the scenario says, overridden by the options of the command line."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TypeVar

from smtpbench.engine.pacing import Stage
from smtpbench.errors import UsageError
from smtpbench.load.plan import UNBOUNDED_NS, LoadPlan
from smtpbench.scenario.model import Load
from smtpbench.text import plural
from smtpbench.units import NS_PER_S, parse_duration_ns, parse_ends, parse_rate_per_s, parse_share

DEFAULT_CONNECTIONS = {"closed": 10, "open": 100}
DEFAULT_DURATION_NS = 10 * NS_PER_S
MAX_HOSTILE_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Overrides:
    """The options of the command line as text and numbers; None for an option that was not given."""

    connections: int | None = None
    messages: int | None = None
    duration: str | None = None
    rate: str | None = None
    arrivals: str | None = None
    when_busy: str | None = None
    warmup: str | None = None
    drain: str | None = None
    timeout: str | None = None
    workers: int | None = None
    seed: int | None = None
    hostile: str | None = None
    quickack: bool = False


def make_plan(load: Load, given: Overrides) -> LoadPlan:
    """Return the plan of a run.

    Args:
        load: Load in the scenario.
        given: Options of the command line.

    Raises:
        UsageError: An option is not valid, or options contradict each other.
    """
    messages, duration_ns = _messages_and_duration(load, given)
    stages = _stages(load, given, duration_ns)
    model = "open" if stages else "closed"
    if not stages:
        for name, value in (("arrivals", given.arrivals), ("when-busy", given.when_busy)):
            if value is not None:
                raise UsageError(f"--{name} applies to the open model only; add --rate")
    connections = _first_given(given.connections, load.connections, DEFAULT_CONNECTIONS[model])
    workers = _first_given(given.workers, load.workers, 1)
    if workers > connections:
        raise UsageError(
            f"{workers} workers cannot share {plural(connections, 'connection')}; each worker needs at least one"
        )
    timeout_ns = _first_given(_duration("timeout", given.timeout), load.timeout, 30 * NS_PER_S)
    if timeout_ns == 0:
        raise UsageError("--timeout must be more than 0")
    warmup_ns = _first_given(_duration("warmup", given.warmup), load.warmup, 0)
    plan = LoadPlan(
        connections=connections,
        arrivals=messages,
        duration_ns=None if stages else duration_ns,
        stages=stages,
        poisson=_first_given(given.arrivals, load.arrivals, "uniform") == "poisson",
        drop=_first_given(given.when_busy, load.when_busy, "wait") == "drop",
        warmup_ns=warmup_ns,
        drain_ns=_first_given(_duration("drain", given.drain), load.drain, 5 * NS_PER_S),
        timeout_ns=timeout_ns,
        seed=_first_given(given.seed, load.seed, secrets.randbits(32)),
        workers=workers,
        quickack=given.quickack,
    )
    if given.hostile is None:
        return plan
    if plan.issuing_ns >= UNBOUNDED_NS:
        raise UsageError(
            "--hostile needs a --duration; the first half of the run measures the target without hostile sessions"
        )
    return replace(plan, baseline_ns=(plan.issuing_ns - warmup_ns) // 2)


def hostile_share(text: str | None) -> float:
    """Return the share of sessions that are mutated, from 0 to 1; 0 without a text. Raises UsageError."""
    share = 0.0 if text is None else parse_share(text)
    if text is not None and not 0 < share <= MAX_HOSTILE_SHARE:
        raise UsageError(f"--hostile {text}: must be more than 0% and at most {MAX_HOSTILE_SHARE:.0%}")
    return share


T = TypeVar("T")


def _first_given(option: T | None, scenario: T | None, default: T) -> T:
    """Return the value of the option, else that of the scenario, else the default."""
    return option if option is not None else scenario if scenario is not None else default


def _messages_and_duration(load: Load, given: Overrides) -> tuple[int | None, int | None]:
    """Return how many messages to send and for how long (ns). Either option replaces both values of the scenario."""
    if given.messages is not None or given.duration is not None:
        messages, duration_ns = given.messages, _duration("duration", given.duration)
    else:
        messages, duration_ns = load.messages, load.duration
    if duration_ns == 0:
        raise UsageError("a duration must be more than 0")
    staged = load.stages is not None and given.rate is None
    if messages is None and duration_ns is None and not staged:
        duration_ns = DEFAULT_DURATION_NS
    return messages, duration_ns


def _stages(load: Load, given: Overrides, duration_ns: int | None) -> tuple[Stage, ...]:
    """Return the arrival rates of the open model; empty for the closed model."""
    if given.rate is None and load.stages is not None:
        if load.rate is not None:
            raise UsageError("the load of the scenario has both a rate and stages; use one of them")
        if duration_ns is not None:
            raise UsageError("stages have durations of their own; omit --duration, or add --rate")
        stages = tuple(Stage(stage.for_, *stage.rate) for stage in load.stages)
    else:
        rate = _rates(given.rate) if given.rate is not None else load.rate
        if rate is None:
            return ()
        if duration_ns is None and rate[0] != rate[1]:
            raise UsageError("a rate that changes needs a duration; add --duration")
        stages = (Stage(UNBOUNDED_NS if duration_ns is None else duration_ns, *rate),)
    if not any(stage.arrivals for stage in stages):
        raise UsageError("at this rate no message is ever sent")
    return stages


def _rates(text: str) -> tuple[float, float]:
    try:
        return parse_ends(text, parse_rate_per_s)
    except UsageError as error:
        raise UsageError(f"--rate: {error}") from None


def _duration(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else parse_duration_ns(text)
    except UsageError as error:
        raise UsageError(f"--{option}: {error}") from None
