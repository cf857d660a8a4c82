"""What a step of a capacity search showed: whether its rate held, and if not, whether that is clear and whose fault it was.

Theory of operation
===================

A percentile alone tells a rate just above the limit late: at 1.05 of it the backlog grows by a twentieth of a second each
second, and after five seconds nobody may have waited for long. So the backlog itself is watched: the arrivals that are
under way or wait for a connection, once a second. Its growth is the median of the slopes between all pairs of seconds
(Theil 1950, Sen 1968), which one stall does not move much: after a stall the backlog jumps and then shrinks, at a rate above
the limit it grows in every second, and only that is clear.

A backlog that grows in every second while the generator's core had time to spare is the server's, even where other processes
held up the generator now and then. One whose messages are served as fast as a lone connection's, while arrivals wait for a
connection, is the number of connections. A latency that broke in a step in which the generator was the bottleneck says
nothing about the server; messages that failed do, unless it was the generator's machine that had no file or port for them.
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
from smtpbench.measure.thresholds import Figures, evaluate, sentence
from smtpbench.study.steps import CONNECTIONS, GENERATOR, SearchStep
from smtpbench.threshold import TIME, Threshold
from smtpbench.units import NS_PER_S

#: How much of the arrivals may pile up, as a part of the precision: a rate that far above the limit still counts as held.
GROWTH_A_PRECISION = 0.25
#: A growth shows in more pairs of seconds that rise than fall, by this much (Kendall's tau), and in so many arrivals.
_STEADY_TAU, _LEAST_RISE = 0.5, 3.0
#: A step is ended early once so much of what arrived piled up, a second after the other, and it is so many arrivals.
_HOPELESS_SHARE, _HOPELESS_ARRIVALS, _HOPELESS_SECONDS = 0.2, 20, 2
#: Or once so much of it failed, and so many.
_FAILING_SHARE, _FAILING_MESSAGES = 0.1, 20
#: A generator whose core had less than this to spare may be what a backlog comes from.
_SPARE_SHARE = 0.1
#: A server whose service time is no more than this times a lone connection's was not made slower by the load.
_UNMOVED = 1.25
#: A tick this much later than its second is not that second's.
_LATE_S = 0.05
#: Errors that are this machine's and not the target's.
_OWN_ERRORS = (api.NO_DESCRIPTORS, api.NO_PORTS)
_BACKLOG: Final = "the backlog does not grow"


class Point(NamedTuple):
    """A second of a step. at_s: from its start, warm-up included. backlog: arrivals under way or waiting for a connection.

    accepted: messages taken in it. waiting: arrivals that waited for a connection. broken: the objectives of latency
    that failed in this second taken alone.
    """

    at_s: float
    backlog: int
    accepted: int = 0
    waiting: int = 0
    broken: frozenset[str] = frozenset()


@dataclass
class StepMeasurement:
    """Watches one step. points: its steady seconds, each with the state at its end; the first begins the measured window.

    hopeless: why it should be ended early; empty where it should not. overwhelmed: whether that is its backlog.
    """

    rate_per_s: float
    plan: LoadPlan
    objectives: Sequence[Threshold]
    points: list[Point] = field(default_factory=list)
    hopeless: str = ""
    overwhelmed: bool = False

    def tick(self, tick: Tick, totals: Interval) -> None:
        """Take a second of the run."""
        warmup_s, end_s = (ns / NS_PER_S for ns in (self.plan.warmup_ns, self.plan.issuing_ns))
        if self.hopeless or not warmup_s - _LATE_S <= tick.end_s <= end_s + _LATE_S or tick.length_s < 0.5:
            return  # what is drained says nothing of the rate
        of_latency = [one for one in self.objectives if one.latency_name and not one.domain]
        verdicts = evaluate(of_latency, Figures(tick.interval, tick.length_s, {}))
        broken = frozenset(one.threshold.text for one in verdicts if one.value is not None and not one.passed)
        accepted = tick.interval.messages["accepted"]
        self.points.append(Point(tick.end_s, tick.busy + tick.waiting, accepted, tick.waiting, broken))
        if tick.phase == STEADY:
            piled_up = overwhelmed(self.points, self.rate_per_s)
            self.hopeless, self.overwhelmed = piled_up or _failing(totals), bool(piled_up)


@dataclass(frozen=True, slots=True)
class StepWatch(ThresholdMonitor):
    """Ends a step whose gauge says that it is hopeless."""

    measurement: StepMeasurement | None = None

    def broken(self, collector: Collector, plan: LoadPlan, end_s: float) -> str:
        """Why the step should go no further; empty where it may."""
        return self.measurement.hopeless if self.measurement else ""


@dataclass(frozen=True, slots=True)
class UnloadedTarget:
    """What steps are held against. service_ms: the median service time of a lone connection's message, None if unknown."""

    precision_share: float
    service_ms: float | None


def growth_per_s(points: Sequence[Point]) -> float:
    """Arrivals a second by which the backlog grew (Theil–Sen)."""
    slopes = [(b.backlog - a.backlog) / (b.at_s - a.at_s) for a, b in combinations(points, 2) if b.at_s > a.at_s]
    return statistics.median(slopes) if slopes else 0.0


def grows(points: Sequence[Point], rate_per_s: float, precision_share: float) -> bool:
    """Whether the backlog grew from second to second, by more than the precision leaves room for."""
    pairs = list(combinations(points, 2))
    if len(points) < 3:
        return False
    tau = sum((b.backlog > a.backlog) - (b.backlog < a.backlog) for a, b in pairs) / len(pairs)
    slope = growth_per_s(points)
    rise = slope * (points[-1].at_s - points[0].at_s)
    return tau >= _STEADY_TAU and rise >= _LEAST_RISE and slope > GROWTH_A_PRECISION * precision_share * rate_per_s


def rises_throughout(points: Sequence[Point]) -> bool:
    """Whether the backlog was greater at the end of each second than at its beginning."""
    return len(points) > 2 and all(b.backlog > a.backlog for a, b in pairwise(points))


def overwhelmed(points: Sequence[Point], rate_per_s: float) -> str:
    """Why no more of a step is needed, in words: a good part of what arrives piles up, second after second."""
    latest = points[-1 - _HOPELESS_SECONDS :]
    if len(latest) <= _HOPELESS_SECONDS or latest[-1].backlog < _HOPELESS_ARRIVALS:
        return ""
    shares = [(b.backlog - a.backlog) / ((b.at_s - a.at_s) * rate_per_s) for a, b in pairwise(latest)]
    if min(shares) < _HOPELESS_SHARE:
        return ""
    return f"{latest[-1].backlog:,} arrivals were not served yet, {min(shares):.0%} of those that came"


def _failing(totals: Interval) -> str:
    failed, attempted = totals.messages["failed"], totals.attempted
    if failed < max(_FAILING_MESSAGES, _FAILING_SHARE * attempted):
        return ""
    return f"{failed:,} of {attempted:,} messages failed"


def entry_of(
    measurement: StepMeasurement, purpose: str, result: Mapping[str, Any], bench: UnloadedTarget
) -> tuple[SearchStep, dict[str, Any]]:
    """What a step decides, and its entry in the result's `steps`, out of what its run measured."""
    rate_per_s, points, generator = measurement.rate_per_s, measurement.points, result["generator"]
    growing = measurement.overwhelmed or grows(points, rate_per_s, bench.precision_share)
    growth_share = growth_per_s(points) / rate_per_s
    limit_share = GROWTH_A_PRECISION * bench.precision_share
    objectives = [
        {"text": one["threshold"], "unit": one["unit"], "value": one["value"], "passed": one["passed"],
         "margin": one["margin_share"]}
        for one in result["thresholds"]
    ]  # fmt: skip
    objectives.append({
        "text": _BACKLOG, "unit": "share", "value": growth_share, "passed": not growing,
        "margin": (limit_share - growth_share) / limit_share,
    })  # fmt: skip
    broken = [one for one in result["thresholds"] if not one["passed"]]
    held = not growing and not broken and not measurement.hopeless
    steady = growing and rises_throughout(points)
    blame = "" if held else _blame(steady, broken, points, result, bench)
    passing = (
        blame == GENERATOR and generator["busiest_worker_share"] <= BUSY_SHARE
    )  # others may leave it its core next time
    clear = not held and not passing and (steady or bool(measurement.hopeless) or _all_along(broken, points))
    served = rate_per_s * (1 - growth_share) if steady else None
    step = SearchStep(rate_per_s, purpose, held, clear, blame, served)
    times = result["latency"].get("message", {}).get("response", {})
    entry = {
        "rate_per_s": rate_per_s,
        "purpose": purpose,
        "held": held,
        "measured_s": result["load"]["window_s"],
        "throughput_per_s": result["throughput"]["messages_per_s"] if held else _throughput_per_s(points, result),
        **{name: result["messages"][name] for name in ("accepted", "rejected", "failed", "dropped", "interrupted")},
        "objectives": objectives,
        **{name: times.get(name) for name in ("p50_ms", "p99_ms", "max_ms")},
        "backlog_growth_share": growth_share,
        "generator_limited": bool(generator["limited"]),
        "limited_by": blame or None,
        "why": _why(held, growing, blame, broken, measurement, result),
    }
    return step, entry


def _throughput_per_s(points: Sequence[Point], result: Mapping[str, Any]) -> float:
    """Messages taken a second while they arrived: of the run's own seconds, which count the warm-up's messages too."""
    if len(points) > 1:
        return sum(point.accepted for point in points[1:]) / (points[-1].at_s - points[0].at_s)
    return float(result["throughput"]["messages_per_s"])


def _blame(
    steady: bool,
    broken: Sequence[Mapping[str, Any]],
    points: Sequence[Point],
    result: Mapping[str, Any],
    bench: UnloadedTarget,
) -> str:
    """Who else than the server a failure may come from; empty where it was the server."""
    generator = result["generator"]
    spare_share = 1 - generator["busiest_worker_share"] - generator["starved_worker_share"]
    slowed = all(one["unit"] == TIME for one in broken)
    refused = any(result["errors"].get(kind) for kind in _OWN_ERRORS)
    if spare_share < _SPARE_SHARE if steady else generator["limited"] and (slowed or refused):
        return GENERATOR
    service_ms = service_ms_of(result)
    waited = any(point.waiting for point in points)
    if waited and service_ms is not None and bench.service_ms and service_ms <= _UNMOVED * bench.service_ms:
        return CONNECTIONS
    return ""


def service_ms_of(result: Mapping[str, Any]) -> float | None:
    """The median service time of a mail transaction, or of a message where there is no such slot; None for neither."""
    for slot in ("transaction", "message"):
        times = result["latency"].get(slot)
        if times:
            return float(times["service"]["p50_ms"])
    return None


def _all_along(broken: Sequence[Mapping[str, Any]], points: Sequence[Point]) -> bool:
    """Whether an objective failed in each second taken alone: no passing trouble did that."""
    seconds = points[1:]
    return len(seconds) > 1 and any(all(one["threshold"] in point.broken for point in seconds) for one in broken)


def _why(
    held: bool,
    growing: bool,
    blame: str,
    broken: Sequence[Mapping[str, Any]],
    measurement: StepMeasurement,
    result: Mapping[str, Any],
) -> str:
    if held:
        return "every objective held"
    words = [measurement.hopeless] if measurement.hopeless else []
    if growing and not measurement.hopeless:
        words.append(f"the backlog grew by {growth_per_s(measurement.points):,.1f} arrivals a second")
    words += [sentence(one) for one in broken]
    if blame == GENERATOR:
        reasons = "; ".join(result["generator"]["limited_reasons"]) or "its core had no time left"
        words.append(f"the generator was the bottleneck ({reasons})")
    elif blame == CONNECTIONS:
        words.append(
            f"all {measurement.plan.connections:,} connections were busy and the server no slower: more are needed (-c)"
        )
    return "; ".join(words)
