"""Measurement of one step of a capacity search: whether its rate passed, and if not, what limited it.

Theory of operation
===================

A percentile alone shows late that a rate lies just above the limit. At 1.05 times the limit the backlog grows by a twentieth
of a second each second, so after five seconds no arrival may have waited for long. The backlog itself is therefore measured
once a second: the arrivals that are in progress or wait for a connection. Its growth is the median of the slopes between all
pairs of seconds (Theil 1950, Sen 1968), on which one stall has little influence. After a stall the backlog jumps and then
shrinks. At a rate above the limit it grows in every second, and only that is conclusive.

What limited a failed step is decided as follows:

- If the backlog grew in every second and the generator's core was not fully used, the server was the limit, even if other
  processes delayed the generator now and then.
- If messages were served as fast as over a single connection while arrivals waited for a connection, the number of
  connections was the limit.
- If a latency objective failed while the generator was the bottleneck, the step does not show the limit of the server.
- If messages failed, the server was the limit, unless the generator's machine had no descriptor or port for them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any, Final, NamedTuple

from smtpbench.engine import api
from smtpbench.load.meter import STEADY, Collector
from smtpbench.load.plan import LoadPlan
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.measure.files import Tick
from smtpbench.measure.health import BUSY_SHARE
from smtpbench.measure.recorder import Interval
from smtpbench.measure.thresholds import Figures, describe, evaluate
from smtpbench.study.search import CONNECTIONS, GENERATOR, SearchStep
from smtpbench.supervisor.server_record import ServerRecord
from smtpbench.text import plural
from smtpbench.threshold import TIME, Threshold
from smtpbench.units import NS_PER_S

#: Growth of the backlog that is tolerated, as a share of the arrivals and a part of the precision.
GROWTH_PER_PRECISION = 0.25
#: A backlog grows if more pairs of seconds rise than fall by this much (Kendall's tau), and by this many arrivals.
_STEADY_TAU, _MIN_RISE = 0.5, 3.0
#: A step is ended early if this share of the arrivals was added to the backlog in each of this many seconds.
_OVERLOAD_SHARE, _OVERLOAD_SECONDS = 0.2, 2
#: The backlog must have this many arrivals before a step is ended early.
_OVERLOAD_ARRIVALS = 20
#: A step is also ended early if this share of the messages failed, and this many.
_FAILING_SHARE, _FAILING_MESSAGES = 0.1, 20
#: A generator whose core had less than this share to spare may have caused a backlog.
_SPARE_SHARE = 0.1
#: A service time of at most this times that of a single connection means that the load did not slow the server down.
_UNSLOWED_FACTOR = 1.25
#: A tick is counted for a second if it differs from it by at most this.
_TICK_TOLERANCE_S = 0.05
#: Errors that come from this machine and not from the target.
_GENERATOR_ERRORS = (api.NO_DESCRIPTORS, api.NO_PORTS)
_BACKLOG_OBJECTIVE: Final = "the backlog does not grow"


class StepSecond(NamedTuple):
    """State at the end of one second of a step.

    Attributes:
        at_s: Seconds since the start of the step, warm-up included.
        backlog: Arrivals in progress or waiting for a connection.
        accepted: Messages accepted in this second.
        waiting: Arrivals waiting for a connection.
        failed_objectives: Latency objectives that failed in this second taken alone.
    """

    at_s: float
    backlog: int
    accepted: int = 0
    waiting: int = 0
    failed_objectives: frozenset[str] = frozenset()


@dataclass
class StepMeasurement:
    """What is measured while a step runs.

    Attributes:
        rate_per_s: Rate of the step, arrivals a second.
        plan: Load of the step.
        objectives: Thresholds that must be met.
        seconds: Seconds of the measured window; the first one is the state at its beginning.
        abort_reason: Why the step should end early; empty if it should not.
        overloaded: Whether it should end early because of its backlog.
    """

    rate_per_s: float
    plan: LoadPlan
    objectives: Sequence[Threshold]
    seconds: list[StepSecond] = field(default_factory=list)
    abort_reason: str = ""
    overloaded: bool = False

    def tick(self, tick: Tick, totals: Interval) -> None:
        """Record a second of the run."""
        warmup_s, end_s = (ns / NS_PER_S for ns in (self.plan.warmup_ns, self.plan.issuing_ns))
        in_window = warmup_s - _TICK_TOLERANCE_S <= tick.end_s <= end_s + _TICK_TOLERANCE_S
        if self.abort_reason or not in_window or tick.length_s < 0.5:
            return  # the drain does not depend on the rate
        latency_objectives = [one for one in self.objectives if one.latency_name and not one.domain]
        results = evaluate(latency_objectives, Figures(tick.interval, tick.length_s, {}))
        failed = frozenset(one.threshold.text for one in results if one.value is not None and not one.passed)
        accepted = tick.interval.messages["accepted"]
        self.seconds.append(StepSecond(tick.end_s, tick.busy + tick.waiting, accepted, tick.waiting, failed))
        if tick.phase == STEADY:
            overload = overload_reason(self.seconds, self.rate_per_s)
            self.abort_reason, self.overloaded = overload or _failure_reason(totals), bool(overload)


@dataclass(frozen=True, slots=True)
class StepMonitor(ThresholdMonitor):
    """Ends a step early if its measurement has a reason."""

    measurement: StepMeasurement | None = None

    def abort_reason(self, collector: Collector, plan: LoadPlan, end_s: float, server: ServerRecord | None = None) -> str:
        """Return why the step should end early; an empty string if it should not."""
        return self.measurement.abort_reason if self.measurement else ""


@dataclass(frozen=True, slots=True)
class UnloadedTarget:
    """The server without load, with which steps are compared.

    Attributes:
        precision_share: Precision of the search, as a share of the rate.
        service_ms: Median service time over a single connection, milliseconds; None if unknown.
    """

    precision_share: float
    service_ms: float | None


def backlog_growth_per_s(seconds: Sequence[StepSecond]) -> float:
    """Return the growth of the backlog, arrivals a second (Theil–Sen estimator)."""
    slopes = [(b.backlog - a.backlog) / (b.at_s - a.at_s) for a, b in combinations(seconds, 2) if b.at_s > a.at_s]
    return statistics.median(slopes) if slopes else 0.0


def backlog_grows(seconds: Sequence[StepSecond], rate_per_s: float, precision_share: float) -> bool:
    """Return whether the backlog grew from second to second, by more than the precision allows."""
    pairs = list(combinations(seconds, 2))
    if len(seconds) < 3:
        return False
    tau = sum((b.backlog > a.backlog) - (b.backlog < a.backlog) for a, b in pairs) / len(pairs)
    slope = backlog_growth_per_s(seconds)
    rise = slope * (seconds[-1].at_s - seconds[0].at_s)
    return tau >= _STEADY_TAU and rise >= _MIN_RISE and slope > GROWTH_PER_PRECISION * precision_share * rate_per_s


def backlog_grows_every_second(seconds: Sequence[StepSecond]) -> bool:
    """Return whether the backlog was greater at the end of each second than at its beginning."""
    return len(seconds) > 2 and all(b.backlog > a.backlog for a, b in pairwise(seconds))


def overload_reason(seconds: Sequence[StepSecond], rate_per_s: float) -> str:
    """Return why a step need not continue: a large share of the arrivals joins the backlog in every second."""
    latest = seconds[-1 - _OVERLOAD_SECONDS :]
    if len(latest) <= _OVERLOAD_SECONDS or latest[-1].backlog < _OVERLOAD_ARRIVALS:
        return ""
    shares = [(b.backlog - a.backlog) / ((b.at_s - a.at_s) * rate_per_s) for a, b in pairwise(latest)]
    if min(shares) < _OVERLOAD_SHARE:
        return ""
    backlog = plural(latest[-1].backlog, "arrival")
    return f"{backlog} in the backlog, which grew by at least {min(shares):.0%} of the arrivals each second"


def _failure_reason(totals: Interval) -> str:
    failed, attempted = totals.messages["failed"], totals.attempted
    if failed < max(_FAILING_MESSAGES, _FAILING_SHARE * attempted):
        return ""
    return f"{failed:,} of {plural(attempted, 'message')} failed"


def evaluate_step(
    measurement: StepMeasurement, purpose: str, result: Mapping[str, Any], unloaded: UnloadedTarget
) -> tuple[SearchStep, dict[str, Any]]:
    """Return what decisions need to know of a step, and its entry in the result's `steps`."""
    rate_per_s, seconds, generator = measurement.rate_per_s, measurement.seconds, result["generator"]
    growing = measurement.overloaded or backlog_grows(seconds, rate_per_s, unloaded.precision_share)
    growth_share = backlog_growth_per_s(seconds) / rate_per_s
    limit_share = GROWTH_PER_PRECISION * unloaded.precision_share
    objectives = [
        {"text": one["threshold"], "unit": one["unit"], "value": one["value"], "passed": one["passed"],
         "margin": one["margin_share"]}
        for one in result["thresholds"]
    ]  # fmt: skip
    objectives.append({
        "text": _BACKLOG_OBJECTIVE, "unit": "share", "value": growth_share, "passed": not growing,
        "margin": (limit_share - growth_share) / limit_share,
    })  # fmt: skip
    failed = [one for one in result["thresholds"] if not one["passed"]]
    passed = not growing and not failed and not measurement.abort_reason
    grows_steadily = growing and backlog_grows_every_second(seconds)
    limited_by = "" if passed else _limiting_factor(grows_steadily, failed, seconds, result, unloaded)
    # a generator whose core was not fully used may not be the limit when the step is repeated
    may_recover = limited_by == GENERATOR and generator["busiest_worker_share"] <= BUSY_SHARE
    lasting = grows_steadily or bool(measurement.abort_reason) or _failed_every_second(failed, seconds)
    served_per_s = rate_per_s * (1 - growth_share) if grows_steadily else None
    step = SearchStep(rate_per_s, purpose, passed, not passed and not may_recover and lasting, limited_by, served_per_s)
    times = result["latency"].get("message", {}).get("response", {})
    entry = {
        "rate_per_s": rate_per_s,
        "purpose": purpose,
        "held": passed,
        "measured_s": result["load"]["window_s"],
        "throughput_per_s": result["throughput"]["messages_per_s"] if passed else _throughput_per_s(seconds, result),
        **{name: result["messages"][name] for name in ("accepted", "rejected", "failed", "dropped", "interrupted")},
        "objectives": objectives,
        **{name: times.get(name) for name in ("p50_ms", "p99_ms", "max_ms")},
        "backlog_growth_share": growth_share,
        "generator_limited": bool(generator["limited"]),
        "limited_by": limited_by or None,
        "conclusive": step.conclusive,
        "served_per_s": served_per_s,
        **_server_figures(result),
        "why": _explanation(passed, growing, limited_by, failed, measurement, result),
    }
    return step, entry


def _server_figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the server used in a step; nothing where its processes are not known."""
    server = result.get("server")
    if server is None:
        return {}
    return {f"server_{name}": server[name] for name in ("cores_share", "cpu_ms_per_message")}


def search_step_of(entry: Mapping[str, Any]) -> SearchStep:
    """Return what decisions need to know of a step, from its entry. Raises KeyError, TypeError and ValueError."""
    return SearchStep(
        float(entry["rate_per_s"]),
        str(entry["purpose"]),
        entry["held"] is True,
        entry["conclusive"] is True,
        entry["limited_by"] or "",
        None if entry["served_per_s"] is None else float(entry["served_per_s"]),
    )


def _throughput_per_s(seconds: Sequence[StepSecond], result: Mapping[str, Any]) -> float:
    """Return the messages accepted a second while arrivals came, those that arrived in the warm-up included."""
    if len(seconds) > 1:
        return sum(second.accepted for second in seconds[1:]) / (seconds[-1].at_s - seconds[0].at_s)
    return float(result["throughput"]["messages_per_s"])


def _limiting_factor(
    steady_growth: bool,
    failed: Sequence[Mapping[str, Any]],
    seconds: Sequence[StepSecond],
    result: Mapping[str, Any],
    unloaded: UnloadedTarget,
) -> str:
    """Return what a failure may come from other than the server; an empty string if it was the server."""
    generator = result["generator"]
    # a core that the server used instead is the limit of the server
    starved_share = generator.get("starved_by_others_share", generator["starved_worker_share"])
    spare_share = 1 - generator["busiest_worker_share"] - starved_share
    only_latency = all(one["unit"] == TIME for one in failed)
    no_resources = any(result["errors"].get(kind) for kind in _GENERATOR_ERRORS)
    if spare_share < _SPARE_SHARE if steady_growth else generator["limited"] and (only_latency or no_resources):
        return GENERATOR
    service_ms = median_service_ms(result)
    waited = any(second.waiting for second in seconds)
    if waited and service_ms is not None and unloaded.service_ms and service_ms <= _UNSLOWED_FACTOR * unloaded.service_ms:
        return CONNECTIONS
    return ""


def median_service_ms(result: Mapping[str, Any]) -> float | None:
    """Return the median service time of mail transactions, or else of messages, milliseconds; None without either."""
    for metric in ("transaction", "message"):
        times = result["latency"].get(metric)
        if times:
            return float(times["service"]["p50_ms"])
    return None


def _failed_every_second(failed: Sequence[Mapping[str, Any]], seconds: Sequence[StepSecond]) -> bool:
    """Return whether an objective failed in each second taken alone, which no passing trouble causes."""
    measured = seconds[1:]
    return len(measured) > 1 and any(
        all(one["threshold"] in second.failed_objectives for second in measured) for one in failed
    )


def _explanation(
    passed: bool,
    growing: bool,
    limited_by: str,
    failed: Sequence[Mapping[str, Any]],
    measurement: StepMeasurement,
    result: Mapping[str, Any],
) -> str:
    if passed:
        return "all objectives were met"
    reasons = [measurement.abort_reason] if measurement.abort_reason else []
    if growing and not measurement.abort_reason:
        reasons.append(f"the backlog grew by {backlog_growth_per_s(measurement.seconds):,.1f} arrivals/s")
    reasons += [describe(one) for one in failed]
    if limited_by == GENERATOR:
        causes = "; ".join(result["generator"]["limited_reasons"]) or "its core was fully used"
        reasons.append(f"the generator was the bottleneck ({causes})")
    elif limited_by == CONNECTIONS:
        count = measurement.plan.connections
        busy = "the only connection was" if count == 1 else f"all {count:,} connections were"
        reasons.append(f"{busy} busy while the server was not slower than without load; use more connections (-c)")
    return "; ".join(reasons)
