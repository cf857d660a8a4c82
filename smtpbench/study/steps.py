"""Which rate a capacity search tries next, and when it has found what it looked for: decisions, without a clock or a socket.

Theory of operation
===================

A step is one rate, held or not. The search doubles the rate until one is not held, and then narrows the gap between the
highest that held and the lowest that did not. Where a step failed because its backlog grew, how fast it grew says what was
served meanwhile, and that is the limit itself: the next two rates are taken from closely below and closely above it, and
only where that does not narrow the gap (the limit is one of latency) is the gap halved, by ratio.

Noise is one-sided: a machine that was busy with something else makes a rate fail that would have held, and hardly ever the
other way round. So a failure counts at once only where it is clear (`study.measurement` says what is). Any other is
tried again:
one more that held than failed is enough for a rate, two more that failed are needed against it, and a rate that bounds the
search without a clear failure is tried once more before its end. A failure for which the generator or its number of
connections is to blame says nothing about the server: where it is clear or comes again it bounds the search, and the verdict
says who was the limit.

At the end the rate that was found has a longer step. Where that fails, the search goes on below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: What ended the search; or who is to blame for a failure that is not the server's.
OBJECTIVE, GENERATOR, CONNECTIONS, MAX_RATE, NOTHING = "objective", "generator", "connections", "max-rate", "nothing"
#: Purposes of a step: to find the region, to find the limit in it, to make sure of it.
PROBE, NEAR, CONFIRM = "probe", "near", "confirm"
#: How often a rate is tried at most before whatever was seen decides.
TRIES = 5
#: So often the same blame makes a rate one that this generator cannot be used for.
BLAMED_TRIES = 3
#: And so often a rate without a clear failure is tried before it is taken for the bound; once more with any blame.
CHALLENGED_TRIES = 3
#: How far a search goes down at a time while nothing has held, and up while everything has.
DOWN, UP = 4.0, 2.0
#: The rates beside a limit that a backlog showed, as parts of the precision: together they are less than it.
_BELOW, _ABOVE = 0.5, 0.45
_HELD, _FAILED, _BLAMED, _OPEN = "held", "failed", "blamed", "open"
#: A near step lasts no longer than so many times what was asked for, however few arrivals that gives.
_PATIENCE: Final = 4.0
#: A p99 needs so many arrivals.
_ARRIVALS_A_PROBE: Final = 100.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a search keeps to.

    first_per_s: the first rate. lowest_per_s: it never goes below. precision_share: the gap to be left, as a share of the
    lower rate. max_rate_per_s: it never goes above; None for no such limit. most_steps: it then says what it has.
    """

    first_per_s: float
    lowest_per_s: float
    precision_share: float = 0.05
    max_rate_per_s: float | None = None
    most_steps: int = 30


@dataclass(frozen=True, slots=True)
class SearchStep:
    """A step that was made, as far as it decides anything.

    clear: its failure needs no second look, whoever is to blame. blame: GENERATOR or CONNECTIONS where those failed and not
    the server; empty otherwise. served_per_s: arrivals that were served a second while a backlog grew; None where none did.
    """

    rate_per_s: float
    purpose: str
    held: bool
    clear: bool = False
    blame: str = ""
    served_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Next:
    """The step to make."""

    rate_per_s: float
    purpose: str


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What was found.

    rate_per_s: the highest that held, None where none did. failed_rate_per_s: the lowest above it that did not.
    precision_share: the gap between both. limited_by: OBJECTIVE, GENERATOR, CONNECTIONS, MAX_RATE or NOTHING.
    """

    rate_per_s: float | None
    failed_rate_per_s: float | None
    precision_share: float | None
    limited_by: str
    reason: str


def length_s(purpose: str, rate_per_s: float, step_s: float, precision_share: float) -> float:
    """How long a step lasts.

    Near the limit it has as many arrivals as it takes for the scatter of a server's random work to be less than the
    precision (one over its square), yet no more than a few times the length that was asked for. What is watched is watched
    once a second, so it lasts whole seconds.
    """
    arrivals = _ARRIVALS_A_PROBE if purpose == PROBE else precision_share**-2
    least_s = step_s / 2 if purpose == PROBE else step_s
    lasts_s = max(least_s, min(_PATIENCE * step_s, arrivals / rate_per_s))
    whole_s = math.ceil(lasts_s) if lasts_s > 1 else lasts_s
    return 2 * whole_s if purpose == CONFIRM else whole_s


def decide(limits: Limits, steps: Sequence[SearchStep]) -> Next | SearchResult:
    """The next step after these, or what they have found."""
    if len(steps) >= limits.most_steps:
        return verdict(limits, steps)
    opinions = _opinions(steps)
    again = next((rate for rate, opinion in opinions.items() if opinion == _OPEN), None)
    if again is not None:
        return Next(again, next(step.purpose for step in reversed(steps) if step.rate_per_s == again))
    held, failed = _gap(opinions)
    if failed is None:
        top = limits.max_rate_per_s
        if held is not None and (top is None or held < top):
            return Next(_least(rounded(held * UP), top), PROBE)
        if held is None:
            return Next(_least(limits.first_per_s, top), PROBE)
        return _confirmed(limits, steps, held)
    if held is None:
        if failed <= limits.lowest_per_s:
            return verdict(limits, steps)
        hint = _hint(steps, limits.precision_share, 0.0, failed)
        return Next(max(limits.lowest_per_s, rounded(failed / DOWN) if hint is None else hint), PROBE)
    if failed / held - 1 <= limits.precision_share:
        return _confirmed(limits, steps, held)
    hint = _hint(steps, limits.precision_share, held, failed)
    between = rounded(math.sqrt(held * failed)) if hint is None else hint
    if not held < between < failed:
        return _confirmed(limits, steps, held)
    return Next(between, NEAR)


def verdict(limits: Limits, steps: Sequence[SearchStep]) -> SearchResult:
    """What these steps show, whether the search is over or not."""
    opinions = _opinions(steps)
    held, failed = _gap(opinions)
    gap = None if held is None or failed is None else failed / held - 1
    if failed is not None and opinions[failed] == _BLAMED:
        blame = next(step.blame for step in reversed(steps) if step.rate_per_s == failed and step.blame)
        who = "the generator" if blame == GENERATOR else "the number of connections"
        said = "nothing could be shown to hold" if held is None else f"at least {held:g}/s"
        return SearchResult(held, failed, gap, blame, f"{said}: at {failed:g}/s {who} was the limit and not the server")
    if held is None:
        if failed is None:
            return SearchResult(None, None, None, NOTHING, "no step was made to its end")
        return SearchResult(None, failed, None, OBJECTIVE, f"not even {failed:g}/s held")
    if failed is None:
        if limits.max_rate_per_s is not None and held >= limits.max_rate_per_s:
            return SearchResult(held, None, None, MAX_RATE, f"at least {held:g}/s, and no more was asked for")
        return SearchResult(held, None, None, NOTHING, f"at least {held:g}/s: no rate was found that does not hold")
    assert gap is not None
    said = f"{held:g}/s held, {failed:g}/s did not"
    if gap > limits.precision_share:
        said += f"; they lie {gap:.0%} apart, which the steps did not bring down to {limits.precision_share:.0%}"
    elif not _is_confirmed(steps, held):
        said += "; a longer step was not made"
    return SearchResult(held, failed, gap, OBJECTIVE, said)


def rounded(rate_per_s: float) -> float:
    """To four digits, which no precision that can be asked for goes beyond."""
    return float(f"{rate_per_s:.4g}")


def _least(rate_per_s: float, top_per_s: float | None) -> float:
    return rate_per_s if top_per_s is None else min(rate_per_s, top_per_s)


def _opinions(steps: Sequence[SearchStep]) -> dict[float, str]:
    """What was made of each rate, by rate in the order in which they were tried first."""
    tried: dict[float, list[SearchStep]] = {}
    for step in steps:
        tried.setdefault(step.rate_per_s, []).append(step)
    return {rate: _opinion(tries) for rate, tries in tried.items()}


def _opinion(tries: Sequence[SearchStep]) -> str:
    held = sum(step.held for step in tries)
    blamed = sum(not step.held and bool(step.blame) for step in tries)
    failed = len(tries) - held - blamed
    clear = [step for step in tries if step.clear and not step.held]
    if clear and not held:
        return _BLAMED if clear[-1].blame else _FAILED
    if failed >= held + 2:
        return _FAILED
    if held > failed and (held > blamed or len(tries) >= TRIES):
        return _HELD
    if blamed >= BLAMED_TRIES and not held:
        return _BLAMED
    if len(tries) < TRIES:
        return _OPEN
    return _BLAMED if blamed > failed else _FAILED


def _gap(opinions: dict[float, str]) -> tuple[float | None, float | None]:
    """The highest rate that held below the lowest that did not, and that one."""
    failed = min((rate for rate, opinion in opinions.items() if opinion in (_FAILED, _BLAMED)), default=None)
    held = [rate for rate, opinion in opinions.items() if opinion == _HELD and (failed is None or rate < failed)]
    return max(held, default=None), failed


def _hint(steps: Sequence[SearchStep], precision_share: float, held: float, failed: float) -> float | None:
    """A rate strictly between both that lies just below or just above the limit that a backlog showed."""
    shown = sorted(step.served_per_s for step in steps if step.served_per_s and not step.held)
    if not shown:
        return None
    limit = shown[len(shown) // 2]
    for share in (-_BELOW, _ABOVE):
        rate = rounded(limit * (1 + share * precision_share))
        if held < rate < failed:
            return rate
    return None


def _is_confirmed(steps: Sequence[SearchStep], rate: float) -> bool:
    return any(step.held and step.purpose == CONFIRM for step in steps if step.rate_per_s == rate)


def _confirmed(limits: Limits, steps: Sequence[SearchStep], held: float) -> Next | SearchResult:
    """The last steps: the rate above is challenged where it never failed clearly, then the one that held is made sure of."""
    _, failed = _gap(_opinions(steps))
    tries = [step for step in steps if step.rate_per_s == failed]
    enough = CHALLENGED_TRIES + any(step.blame for step in tries)
    if failed is not None and len(tries) < enough and not any(step.clear for step in tries):
        return Next(failed, NEAR)
    return verdict(limits, steps) if _is_confirmed(steps, held) else Next(held, CONFIRM)
