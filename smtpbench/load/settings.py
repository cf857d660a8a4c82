"""Which load: what the scenario says, overridden by what the command line says."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TypeVar

from smtpbench.engine.pacing import Stage
from smtpbench.errors import UsageError
from smtpbench.load.plan import UNENDING_NS, LoadPlan
from smtpbench.scenario.model import Load
from smtpbench.units import NS_PER_S, parse_duration_ns, parse_ends, parse_rate_per_s, parse_share

DEFAULT_CONNECTIONS = {"closed": 10, "open": 100}
HOSTILE_MOST = 0.5
DEFAULT_DURATION_NS = 10 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Overrides:
    """The options of the command line as they were typed; None where one was not given."""

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


def make_plan(load: Load, given: Overrides) -> LoadPlan:
    """The plan of a run. Raises UsageError for what cannot be meant."""
    messages, duration_ns = _extent(load, given)
    stages = _stages(load, given, duration_ns)
    model = "open" if stages else "closed"
    if not stages:
        for name, value in (("arrivals", given.arrivals), ("when-busy", given.when_busy)):
            if value is not None:
                raise UsageError(f"--{name} belongs to the open model; give a --rate too")
    connections = _first(given.connections, load.connections, DEFAULT_CONNECTIONS[model])
    workers = _first(given.workers, load.workers, 1)
    if workers > connections:
        raise UsageError(f"{workers} workers cannot share {connections} connections; each needs one at least")
    timeout_ns = _first(_duration("timeout", given.timeout), load.timeout, 30 * NS_PER_S)
    if timeout_ns == 0:
        raise UsageError("--timeout must be more than 0")
    warmup_ns = _first(_duration("warmup", given.warmup), load.warmup, 0)
    plan = LoadPlan(
        connections=connections,
        arrivals=messages,
        duration_ns=None if stages else duration_ns,
        stages=stages,
        poisson=_first(given.arrivals, load.arrivals, "uniform") == "poisson",
        drop=_first(given.when_busy, load.when_busy, "wait") == "drop",
        warmup_ns=warmup_ns,
        drain_ns=_first(_duration("drain", given.drain), load.drain, 5 * NS_PER_S),
        timeout_ns=timeout_ns,
        seed=_first(given.seed, load.seed, secrets.randbits(32)),
        workers=workers,
    )
    if given.hostile is None:
        return plan
    if plan.issuing_ns >= UNENDING_NS:
        raise UsageError("--hostile needs a --duration: its first half is quiet, to compare with")
    return replace(plan, baseline_ns=(plan.issuing_ns - warmup_ns) // 2)


def hostile_share(text: str | None) -> float:
    """The share of sessions that are mutated, 0 where none was named. Raises UsageError."""
    share = 0.0 if text is None else parse_share(text)
    if text is not None and not 0 < share <= HOSTILE_MOST:
        raise UsageError(f"--hostile {text}: more than nothing, and {HOSTILE_MOST:.0%} at most")
    return share


T = TypeVar("T")


def _first(typed: T | None, written: T | None, default: T) -> T:
    """What was typed, else what the scenario says, else the default."""
    return typed if typed is not None else written if written is not None else default


def _extent(load: Load, given: Overrides) -> tuple[int | None, int | None]:
    """How many arrivals and for how long. One that is typed replaces both of the scenario's."""
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
    """The open model's schedule; empty for the closed model."""
    if given.rate is None and load.stages is not None:
        if load.rate is not None:
            raise UsageError("the scenario's load has both a rate and stages; one says all")
        if duration_ns is not None:
            raise UsageError("stages have durations of their own; leave --duration out, or give a --rate")
        stages = tuple(Stage(stage.for_, *stage.rate) for stage in load.stages)
    else:
        rate = parse_ends(given.rate, parse_rate_per_s) if given.rate is not None else load.rate
        if rate is None:
            return ()
        if duration_ns is None and rate[0] != rate[1]:
            raise UsageError("a rate that changes needs a duration to change in; give --duration")
        stages = (Stage(UNENDING_NS if duration_ns is None else duration_ns, *rate),)
    if not any(stage.arrivals for stage in stages):
        raise UsageError("at this rate nothing would ever be sent")
    return stages


def _duration(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else parse_duration_ns(text)
    except UsageError as error:
        raise UsageError(f"--{option}: {error}") from None
