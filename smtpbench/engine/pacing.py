"""Pacing: when each arrival is meant to begin, as arithmetic.

An arrival process is a rate over time. Integrated, it says how many arrivals are due after t; inverted, when the i-th
is due. A uniform process takes the points 0, 1, 2 … of that count, a Poisson process takes a running sum of
exponential steps: the same inversion serves both, and ramps as well as steady stages (RFC 2330 §11.1 for the sampling).

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
    """A stretch of the schedule whose arrival rate goes evenly from one figure to another.

    duration_ns: how long; rate_from_per_s, rate_to_per_s: arrivals a second at its two ends.
    """

    duration_ns: int
    rate_from_per_s: float
    rate_to_per_s: float

    @property
    def arrivals(self) -> float:
        """How many arrivals are due in it."""
        return (self.rate_from_per_s + self.rate_to_per_s) / 2 * self.duration_ns / _NS_PER_S

    def when_ns(self, due: float) -> float:
        """The time in this stage at which `due` arrivals of it are due; 0 ≤ due ≤ arrivals."""
        # due = from·t + slope·t²/2, solved in the form that is also right (and exact) where the slope is zero
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


def share(arrivals: Iterator[tuple[int, int]], worker: int, workers: int) -> Iterator[tuple[int, int]]:
    """Every workers-th arrival, beginning with number `worker`: together the workers keep the one schedule."""
    return ((i, when_ns) for i, when_ns in arrivals if i % workers == worker)


def duration_ns(stages: Sequence[Stage]) -> int:
    """How long the schedule lasts."""
    return sum(stage.duration_ns for stage in stages)
