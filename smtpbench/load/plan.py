"""The plan of a run: how much load, for how long, in which model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from smtpbench.engine import pacing
from smtpbench.engine.api import NEVER
from smtpbench.engine.pacing import Stage
from smtpbench.units import NS_PER_S

#: Length of a stage that ends with a number of arrivals only: `-r … -n …`.
UNBOUNDED_NS = 365 * 24 * 3600 * NS_PER_S
#: Arrivals of the closed model's warm-up are numbered from here, so that they share no number with measured ones.
_FIRST_WARMUP_NUMBER = 10**12


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The load of a run.

    Attributes:
        connections: Most connections open at once, over all workers.
        arrivals: Number of arrivals after the warm-up; None for as many as the time allows.
        duration_ns: How long the closed model issues arrivals after the warm-up; None if their number ends it.
        stages: Arrival rates of the open model; empty for the closed model.
        poisson: Whether the gaps between arrivals are exponential instead of equal.
        drop: Whether an arrival that finds no free connection is dropped instead of waiting.
        warmup_ns: Length of the warm-up, which is not measured.
        drain_ns: Grace period for arrivals in progress at the end.
        timeout_ns: Limit for one reply.
        seed: Random seed.
        workers: Number of processes.
        quickack: Whether the client acknowledges at once what the server sends.
        baseline_ns: Time after the warm-up without hostile sessions; 0 for a run that has none.
    """

    connections: int = 10
    arrivals: int | None = None
    duration_ns: int | None = None
    stages: tuple[Stage, ...] = ()
    poisson: bool = False
    drop: bool = False
    warmup_ns: int = 0
    drain_ns: int = 5 * NS_PER_S
    timeout_ns: int = 30 * NS_PER_S
    seed: int = 0
    workers: int = 1
    quickack: bool = False
    baseline_ns: int = 0

    @property
    def open_model(self) -> bool:
        """Whether arrivals follow a schedule."""
        return bool(self.stages)

    @property
    def issuing_ns(self) -> int:
        """Time from the start, warm-up included, to the last possible arrival; NEVER if a number of arrivals ends it."""
        if self.open_model:
            return self.warmup_ns + pacing.duration_ns(self.stages)
        return NEVER if self.duration_ns is None else self.warmup_ns + self.duration_ns

    @property
    def sending_ns(self) -> int:
        """Length of the sending window, after the warm-up; NEVER if a number of arrivals ends the closed model.

        In the open model it ends when the next arrival would be due, so that it holds its arrivals at their rate.
        """
        if not self.open_model:
            return NEVER if self.duration_ns is None else self.duration_ns
        return pacing.duration_ns(self.stages) if self.arrivals is None else pacing.when_due_ns(self.stages, self.arrivals)

    def schedule(self, worker: int) -> Iterator[tuple[int, int]]:
        """Return the arrivals of one worker in the open model: (number, nanoseconds after the start)."""
        stages = list(self.stages)
        if self.warmup_ns:
            first = stages[0].rate_from_per_s
            stages.insert(0, Stage(self.warmup_ns, first, first))
        arrivals = pacing.schedule(stages, poisson=self.poisson, seed=self.seed)
        return pacing.share(self._limited(arrivals), worker, self.workers, self.connections)

    def _limited(self, arrivals: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield arrivals until their number is reached; those of the warm-up do not count."""
        measured = 0
        for number, after_ns in arrivals:
            if after_ns >= self.warmup_ns:
                if measured == self.arrivals:
                    return
                measured += 1
            yield number, after_ns

    def warmup_numbers(self, worker: int) -> Iterator[int]:
        """Return the arrival numbers of one worker during the warm-up of the closed model; they do not end."""
        return count(_FIRST_WARMUP_NUMBER + worker, self.workers)

    def numbers(self, worker: int) -> Iterator[int]:
        """Return the arrival numbers of one worker after the warm-up of the closed model, as `pacing.share` has them."""
        step, connections, end = self.workers, self.connections, self.arrivals
        if connections % step == 0:
            return iter(count(worker, step) if end is None else range(worker, end, step))
        if end is None:
            return (first + k for first in count(0, connections) for k in range(worker, connections, step))
        firsts = range(0, end, connections)
        return (n for first in firsts for n in range(first + worker, min(first + connections, end), step))

    def connections_of(self, worker: int) -> int:
        """Return how many of the connections one worker may open."""
        return self.connections // self.workers + (worker < self.connections % self.workers)
