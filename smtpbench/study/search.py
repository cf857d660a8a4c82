"""Decisions of a capacity search: which rate is next, and when the search is over. Pure functions, no clock, no socket.

Theory of operation
===================

A step is a run at one rate. It passes if every objective was met. The search doubles the rate until a step fails. It then
narrows the gap between the highest rate that passed and the lowest rate that failed.

Where a step failed because its backlog grew, the growth shows how many arrivals were served meanwhile, which is the limit
itself. The next two rates lie closely below and closely above that limit. If that does not narrow the gap (the limit is one
of latency), the search takes the geometric mean of both ends.

Noise is one-sided: a busy machine makes a rate fail that would have passed, and hardly ever the other way round. A failure
therefore counts at once only if it is conclusive (`study.step_measurement` defines that). Any other failure is repeated:

- A rate passes if it passed one time more than it failed.
- A rate fails if it failed two times more than it passed.
- The upper bound of the search is tried once more before the end if it has no conclusive failure.

A failure for which the generator or its number of connections is responsible does not concern the server. If it is
conclusive or repeats, the rate becomes the upper bound of the search and the result names what the limit was.

At the end, a longer step confirms the rate that was found. If that step fails, the search continues below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: What ended the search; GENERATOR and CONNECTIONS also name what made a step fail if it was not the server.
OBJECTIVE, GENERATOR, CONNECTIONS, MAX_RATE, NOTHING = "objective", "generator", "connections", "max-rate", "nothing"
#: Purposes of a step: find the region of the limit, find the limit in it, confirm the rate that was found.
PROBE, NEAR, CONFIRM = "probe", "near", "confirm"
#: A rate is tried at most this many times; then the majority decides.
MAX_TRIES = 5
#: A rate that was limited by the generator this many times, and never passed, is out of the generator's reach.
LIMITED_TRIES = 3
#: The upper bound is tried this many times if it has no conclusive failure; once more if the generator was the limit.
BOUND_TRIES = 3
#: Factors between rates: downwards while no rate has passed, upwards while every rate has.
DOWN, UP = 4.0, 2.0
#: Distances from the limit that a backlog showed, as parts of the precision; their sum is less than the precision.
_BELOW, _ABOVE = 0.5, 0.45
_PASSED, _FAILED, _LIMITED, _UNDECIDED = "passed", "failed", "limited", "undecided"
#: A step near the limit lasts at most this many times the length that was asked for, however few arrivals it has.
_MAX_LENGTH_FACTOR: Final = 4.0
#: Arrivals that a 99th percentile needs.
_PROBE_ARRIVALS: Final = 100.0


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """Bounds of a search.

    Attributes:
        first_per_s: First rate, arrivals a second.
        lowest_per_s: Lowest rate that the search tries.
        precision_share: Gap at which the search ends, as a share of the lower rate.
        max_rate_per_s: Highest rate that the search tries; None for no such limit.
        max_steps: Number of steps after which the search ends with what it has.
    """

    first_per_s: float
    lowest_per_s: float
    precision_share: float = 0.05
    max_rate_per_s: float | None = None
    max_steps: int = 30


@dataclass(frozen=True, slots=True)
class SearchStep:
    """What decisions need to know of a completed step.

    Attributes:
        rate_per_s: Its rate, arrivals a second.
        purpose: PROBE, NEAR or CONFIRM.
        held: Whether it passed: every objective was met.
        conclusive: Whether its failure needs no repetition, whatever the limit was.
        limited_by: GENERATOR or CONNECTIONS if one of them made it fail and not the server; otherwise empty.
        served_per_s: Arrivals served a second while a backlog grew; None if none grew.
    """

    rate_per_s: float
    purpose: str
    passed: bool
    conclusive: bool = False
    limited_by: str = ""
    served_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class NextStep:
    """The step to make next."""

    rate_per_s: float
    purpose: str


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        rate_per_s: Highest rate that passed; None if none did.
        failed_rate_per_s: Lowest rate above it that failed; None if none did.
        precision_share: Gap between both, as a share of the lower one.
        limited_by: OBJECTIVE, GENERATOR, CONNECTIONS, MAX_RATE or NOTHING.
        reason: The same as a sentence.
    """

    rate_per_s: float | None
    failed_rate_per_s: float | None
    precision_share: float | None
    limited_by: str
    reason: str


def step_length_s(purpose: str, rate_per_s: float, step_s: float, precision_share: float) -> float:
    """Return how long a step lasts, in seconds.

    A step near the limit has so many arrivals that the scatter of random work on the server is less than the precision (one
    divided by the square of the precision), yet it lasts at most four times the length that was asked for. Measurements are
    taken once a second, so a step lasts whole seconds.
    """
    arrivals = _PROBE_ARRIVALS if purpose == PROBE else precision_share**-2
    least_s = step_s / 2 if purpose == PROBE else step_s
    lasts_s = max(least_s, min(_MAX_LENGTH_FACTOR * step_s, arrivals / rate_per_s))
    whole_s = math.ceil(lasts_s) if lasts_s > 1 else lasts_s
    return 2 * whole_s if purpose == CONFIRM else whole_s


def decide(limits: SearchLimits, steps: Sequence[SearchStep]) -> NextStep | SearchResult:
    """Return the next step after these, or the result if the search is over."""
    if len(steps) >= limits.max_steps:
        return search_result(limits, steps)
    verdicts = _rate_verdicts(steps)
    again = next((rate for rate, verdict in verdicts.items() if verdict == _UNDECIDED), None)
    if again is not None:
        return NextStep(again, next(step.purpose for step in reversed(steps) if step.rate_per_s == again))
    passed, failed = _bounds(verdicts)
    if failed is None:
        top = limits.max_rate_per_s
        if passed is not None and (top is None or passed < top):
            return NextStep(_capped(rounded(passed * UP), top), PROBE)
        if passed is None:
            return NextStep(_capped(limits.first_per_s, top), PROBE)
        return _final_step(limits, steps, passed)
    if passed is None:
        if failed <= limits.lowest_per_s:
            return search_result(limits, steps)
        near = _rate_near_backlog_limit(steps, limits.precision_share, 0.0, failed)
        return NextStep(max(limits.lowest_per_s, rounded(failed / DOWN) if near is None else near), PROBE)
    if failed / passed - 1 <= limits.precision_share:
        return _final_step(limits, steps, passed)
    near = _rate_near_backlog_limit(steps, limits.precision_share, passed, failed)
    between = rounded(math.sqrt(passed * failed)) if near is None else near
    if not passed < between < failed:
        return _final_step(limits, steps, passed)
    return NextStep(between, NEAR)


def remaining_s(limits: SearchLimits, steps: Sequence[SearchStep], step_s: float, warmup_s: float) -> float | None:
    """Return the time that the steps to come will take, in seconds; None while only one bound of the rate is known.

    Each step between the bounds halves the gap between them, as a ratio of rates. One longer step confirms the result. Steps
    that have to be repeated are not foreseen.

    Args:
        limits: Bounds of the search.
        steps: Completed steps.
        step_s: Length of a step that was asked for, seconds.
        warmup_s: Warm-up of each step, seconds.
    """
    following = decide(limits, steps)
    if isinstance(following, SearchResult):
        return 0.0
    passed, failed = _bounds(_rate_verdicts(steps))
    if passed is None or failed is None:
        return None
    halvings = math.ceil(max(0.0, math.log2(math.log(failed / passed) / math.log1p(limits.precision_share))))
    purposes = [CONFIRM] if following.purpose == CONFIRM else [*[NEAR] * max(1, halvings), CONFIRM]
    return sum(warmup_s + step_length_s(one, passed, step_s, limits.precision_share) for one in purposes)


def search_result(limits: SearchLimits, steps: Sequence[SearchStep]) -> SearchResult:
    """Return what these steps show, whether the search is over or not."""
    verdicts = _rate_verdicts(steps)
    passed, failed = _bounds(verdicts)
    gap = None if passed is None or failed is None else failed / passed - 1
    if failed is not None and verdicts[failed] == _LIMITED:
        limited_by = next(step.limited_by for step in reversed(steps) if step.rate_per_s == failed and step.limited_by)
        limit = "the generator" if limited_by == GENERATOR else "the number of connections"
        found = "no rate met the objectives" if passed is None else f"at least {passed:g}/s"
        return SearchResult(
            passed, failed, gap, limited_by, f"{found}: at {failed:g}/s {limit} was the limit, not the server"
        )
    if passed is None:
        if failed is None:
            return SearchResult(None, None, None, NOTHING, "no step was completed")
        return SearchResult(None, failed, None, OBJECTIVE, f"the lowest rate tried, {failed:g}/s, failed")
    if failed is None:
        if limits.max_rate_per_s is not None and passed >= limits.max_rate_per_s:
            return SearchResult(passed, None, None, MAX_RATE, f"at least {passed:g}/s, the highest rate that was asked for")
        return SearchResult(passed, None, None, NOTHING, f"at least {passed:g}/s: no rate failed")
    assert gap is not None
    reason = f"{passed:g}/s passed, {failed:g}/s failed"
    if gap > limits.precision_share:
        reason += f"; the gap of {gap:.0%} is wider than the precision of {limits.precision_share:.0%}"
    elif not _is_confirmed(steps, passed):
        reason += "; not confirmed by a longer step"
    return SearchResult(passed, failed, gap, OBJECTIVE, reason)


def rounded(rate_per_s: float) -> float:
    """Return a rate rounded to four digits, which is finer than any precision that can be asked for."""
    return float(f"{rate_per_s:.4g}")


def _capped(rate_per_s: float, top_per_s: float | None) -> float:
    return rate_per_s if top_per_s is None else min(rate_per_s, top_per_s)


def _rate_verdicts(steps: Sequence[SearchStep]) -> dict[float, str]:
    """Return the verdict on each rate, in the order in which the rates were tried first."""
    tries_by_rate: dict[float, list[SearchStep]] = {}
    for step in steps:
        tries_by_rate.setdefault(step.rate_per_s, []).append(step)
    return {rate: _rate_verdict(tries) for rate, tries in tries_by_rate.items()}


def _rate_verdict(tries: Sequence[SearchStep]) -> str:
    passed = sum(step.passed for step in tries)
    limited = sum(not step.passed and bool(step.limited_by) for step in tries)
    failed = len(tries) - passed - limited
    conclusive = [step for step in tries if step.conclusive and not step.passed]
    if conclusive and not passed:
        return _LIMITED if conclusive[-1].limited_by else _FAILED
    if failed >= passed + 2:
        return _FAILED
    if passed > failed and (passed > limited or len(tries) >= MAX_TRIES):
        return _PASSED
    if limited >= LIMITED_TRIES and not passed:
        return _LIMITED
    if len(tries) < MAX_TRIES:
        return _UNDECIDED
    return _LIMITED if limited > failed else _FAILED


def _bounds(verdicts: dict[float, str]) -> tuple[float | None, float | None]:
    """Return the highest rate that passed below the lowest that did not, and that lowest one."""
    failed = min((rate for rate, verdict in verdicts.items() if verdict in (_FAILED, _LIMITED)), default=None)
    passed = [rate for rate, verdict in verdicts.items() if verdict == _PASSED and (failed is None or rate < failed)]
    return max(passed, default=None), failed


def _rate_near_backlog_limit(
    steps: Sequence[SearchStep], precision_share: float, passed: float, failed: float
) -> float | None:
    """Return a rate between both bounds, just below or just above the limit that a growing backlog showed."""
    limits = sorted(step.served_per_s for step in steps if step.served_per_s and not step.passed)
    if not limits:
        return None
    limit = limits[len(limits) // 2]
    for share in (-_BELOW, _ABOVE):
        rate = rounded(limit * (1 + share * precision_share))
        if passed < rate < failed:
            return rate
    return None


def _is_confirmed(steps: Sequence[SearchStep], rate: float) -> bool:
    return any(step.passed and step.purpose == CONFIRM for step in steps if step.rate_per_s == rate)


def _final_step(limits: SearchLimits, steps: Sequence[SearchStep], passed: float) -> NextStep | SearchResult:
    """Return a step that still has to be made before the end, or the result.

    An upper bound without a conclusive failure is tried again. Then the rate that passed is confirmed by a longer step.
    """
    _, failed = _bounds(_rate_verdicts(steps))
    tries = [step for step in steps if step.rate_per_s == failed]
    enough = BOUND_TRIES + any(step.limited_by for step in tries)
    if failed is not None and len(tries) < enough and not any(step.conclusive for step in tries):
        return NextStep(failed, NEAR)
    return search_result(limits, steps) if _is_confirmed(steps, passed) else NextStep(passed, CONFIRM)
