"""Pacing: when each arrival is meant to begin, by arithmetic.

An arrival process is a rate over time. Its integral is the number of arrivals due after t; the inverse gives the time at
which the i-th is due. A uniform process takes the points 0, 1, 2 … of that number. A Poisson process takes a running sum of
exponential steps. Both use the same inverse, for ramps and for steady stages (RFC 2330 §11.1 describes the sampling).

Times are nanoseconds from the start of the schedule. Nothing here sleeps or reads a clock.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the schedule in which the arrival rate changes linearly.

    Attributes:
        duration_ns: Length, nanoseconds.
        rate_from_per_s: Arrivals a second at its start.
        rate_to_per_s: Arrivals a second at its end.
    """

    duration_ns: int
    rate_from_per_s: float
    rate_to_per_s: float

    @property
    def arrivals(self) -> float:
        """Number of arrivals due in the stage."""
        return (self.rate_from_per_s + self.rate_to_per_s) / 2 * self.duration_ns / _NS_PER_S

    def when_ns(self, due: float) -> float:
        """Return the time in this stage at which `due` of its arrivals are due; 0 ≤ due ≤ arrivals."""
        # due = from·t + slope·t²/2, solved in the form that is exact for a slope of zero too
        slope = (self.rate_to_per_s - self.rate_from_per_s) / (self.duration_ns / _NS_PER_S)
        root = math.sqrt(max(0.0, self.rate_from_per_s**2 + 2 * slope * due))
        divisor = self.rate_from_per_s + root
        return 2 * due / divisor * _NS_PER_S if divisor else 0.0


def schedule(stages: Sequence[Stage], *, poisson: bool = False, seed: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (i, when_ns) for every arrival of the stages, in order; the same seed gives the same Poisson times."""
    draw = random.Random(f"arrivals {seed}").expovariate
    before_ns, before_due = 0, 0.0
    remaining = iter(stages)
    stage = next(remaining, None)
    due = draw(1.0) if poisson else 0.0
    for i in count():
        while stage is not None and due - before_due >= stage.arrivals:
            before_ns += stage.duration_ns
            before_due += stage.arrivals
            stage = next(remaining, None)
        if stage is None:
            return
        yield i, before_ns + round(stage.when_ns(due - before_due))
        due = due + draw(1.0) if poisson else float(i + 1)


def when_due_ns(stages: Sequence[Stage], due: float) -> int:
    """Return the time at which so many arrivals are due, or the end of the stages if they have fewer."""
    before_ns = 0
    for stage in stages:
        if due < stage.arrivals:
            return before_ns + round(stage.when_ns(due))
        due -= stage.arrivals
        before_ns += stage.duration_ns
    return before_ns


def share(arrivals: Iterator[tuple[int, int]], worker: int, workers: int, connections: int) -> Iterator[tuple[int, int]]:
    """Return the arrivals of one worker; together the workers keep one schedule.

    Arrivals go to the connections in turn, and connection k belongs to worker k modulo `workers`. A worker with more of the
    connections thus has more of the arrivals.
    """
    return ((i, when_ns) for i, when_ns in arrivals if i % connections % workers == worker)


def duration_ns(stages: Sequence[Stage]) -> int:
    """Return the length of the schedule, nanoseconds."""
    return sum(stage.duration_ns for stage in stages)
