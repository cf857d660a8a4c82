"""A plan: how much load, for how long, in which model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from smtpbench.engine import pacing
from smtpbench.engine.api import NEVER
from smtpbench.engine.pacing import Stage
from smtpbench.units import NS_PER_S

#: The length of a stage that only a number of arrivals ends: an open model's `-r … -n …`.
UNENDING_NS = 365 * 24 * 3600 * NS_PER_S
_WARMUP_NUMBERS = 10**12


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The load of a run.

    connections: open at once at most, over all workers.
    arrivals: how many to issue after the warm-up, None for as many as the time allows.
    duration_ns: how long the closed model issues them, warm-up not counted; None where their number ends it.
    stages: the open model's rates; empty for the closed model. poisson: exponential gaps instead of even ones.
    drop: an arrival that finds no free connection is dropped instead of waiting.
    warmup_ns: issued and served before what is measured. drain_ns: what is under way at the end may take this long.
    timeout_ns: how long one reply may take. quiet_ns: how long after the warm-up no hostile session begins; 0 for a run
    without any.
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
    baseline_ns: int = 0

    @property
    def open_model(self) -> bool:
        """Whether arrivals come on a schedule."""
        return bool(self.stages)

    @property
    def issuing_ns(self) -> int:
        """From the start, warm-up included, to the last moment an arrival may begin; NEVER where a count ends it."""
        if self.open_model:
            return self.warmup_ns + pacing.duration_ns(self.stages)
        return NEVER if self.duration_ns is None else self.warmup_ns + self.duration_ns

    def schedule(self, worker: int) -> Iterator[tuple[int, int]]:
        """The open model's arrivals of one worker: (number, nanoseconds after the start)."""
        stages = list(self.stages)
        if self.warmup_ns:
            first = stages[0].rate_from_per_s
            stages.insert(0, Stage(self.warmup_ns, first, first))
        arrivals = pacing.schedule(stages, poisson=self.poisson, seed=self.seed)
        return pacing.share(self._limited(arrivals), worker, self.workers)

    def _limited(self, arrivals: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """As many as are wanted; those of the warm-up do not count."""
        measured = 0
        for number, after_ns in arrivals:
            if after_ns >= self.warmup_ns:
                if measured == self.arrivals:
                    return
                measured += 1
            yield number, after_ns

    def warmup_numbers(self, worker: int) -> Iterator[int]:
        """The closed model's arrival numbers of one worker during the warm-up: as many as it takes, used nowhere else."""
        return count(_WARMUP_NUMBERS + worker, self.workers)

    def numbers(self, worker: int) -> Iterator[int]:
        """The closed model's arrival numbers of one worker after it."""
        every = self.workers
        return iter(count(worker, every) if self.arrivals is None else range(worker, self.arrivals, every))

    def connections_of(self, worker: int) -> int:
        """This worker's part of the connections."""
        return self.connections // self.workers + (worker < self.connections % self.workers)
