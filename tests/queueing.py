"""A server that is arithmetic: workers with one queue, and the run that would have measured it, without clock or socket."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from heapq import heapreplace
from typing import Any

import trio
from figures import result_of, tick

from smtpbench.load import run as loading
from smtpbench.measure.health import Health
from smtpbench.measure.recorder import Interval, Latency
from smtpbench.measure.thresholds import Figures, evaluate
from smtpbench.units import NS_PER_S

NOTHING_BEFORE: Any = None


class Queue:
    """In place of `load.run.run`: a server of `workers`, each busy for service_s with a message; or for exp(service_s).

    connections: so many messages are with the server at once, at most; the rest wait. stalls: the numbers of the runs
    (from 1; the lone connection's is the first) in which nobody works for stall_s in the middle. health: the generator's,
    by rate. failing: the share of messages that fail, by rate. on_run: called before each.
    """

    def __init__(
        self, service_s: float, workers: int, *, random_work: bool = False, connections: int = 10**6,
        stalls: tuple[int, ...] = (), stall_s: float = 0.5, health: Callable[[float], Health] = lambda rate: Health(),
        failing: Callable[[float], float] = lambda rate: 0.0, on_run: Callable[[int], None] = lambda number: None,
    ) -> None:  # fmt: skip
        self.service_s, self.workers, self.random_work = service_s, workers, random_work
        self.connections, self.stalls, self.stall_s = connections, stalls, stall_s
        self.health, self.failing, self.on_run = health, failing, on_run
        self.requests: list[loading.RunRequest] = []

    @property
    def limit_per_s(self) -> float:
        """What it can do."""
        return min(self.workers, self.connections) / self.service_s

    async def __call__(self, request: loading.RunRequest, observer: loading.Observer) -> loading.RunResult:
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        self.on_run(len(self.requests))
        return self._closed(request) if not request.plan.stages else self._open(request, observer)

    def _closed(self, request: loading.RunRequest) -> loading.RunResult:
        count = request.plan.arrivals or 1
        totals = _interval([self.service_s] * count, [self.service_s] * count)
        return loading.RunResult(self._result(request, totals, count * self.service_s, Health(), ""), None, False)

    def _open(self, request: loading.RunRequest, observer: loading.Observer) -> loading.RunResult:
        plan = request.plan
        rate = plan.stages[0].rate_from_per_s
        warmup_s, end_s = plan.warmup_ns / NS_PER_S, plan.issuing_ns / NS_PER_S
        draw = random.Random(f"{plan.seed} {rate}")
        came = [after_ns / NS_PER_S for _, after_ns in plan.schedule(0)]
        begun, done = self._serve(came, end_s, draw)
        totals, ended, why = Interval(), 0, ""
        for second in range(1, int(end_s) + 1):
            served = bisect_right(done, second)
            response = [done[i] - came[i] for i in range(ended, served)]
            service = [done[i] - begun[i] for i in range(ended, served)]
            ended = served
            failed = sum(draw.random() < self.failing(rate) for _ in service)
            interval = _interval(service[failed:], response[failed:], failed)
            if second > warmup_s:
                totals.add(interval)
            backlog = bisect_right(came, second) - served
            waiting = bisect_right(came, second) - bisect_right(begun, second)
            phase = "steady" if second > warmup_s else "warmup"
            observer.tick(tick(interval, end_s=float(second), phase=phase, busy=backlog - waiting, waiting=waiting), totals)
            why = request.watch.failed(NOTHING_BEFORE, plan, float(second))
            if why:
                break
        result = self._result(request, totals, second - warmup_s, self.health(rate), why)
        return loading.RunResult(result, None, False)

    def _serve(self, came: list[float], end_s: float, draw: random.Random) -> tuple[list[float], list[float]]:
        """When each was given to the server, and when it was done; both in order."""
        free, slots = [0.0] * self.workers, [0.0] * min(self.connections, len(came) or 1)
        stalled = (end_s / 2, end_s / 2 + self.stall_s) if len(self.requests) in self.stalls else (0.0, 0.0)
        begun, done = [], []
        for at in came:
            given = max(at, slots[0])
            work_s = draw.expovariate(1 / self.service_s) if self.random_work else self.service_s
            start = max(given, free[0])
            start = stalled[1] if stalled[0] <= start < stalled[1] else start
            heapreplace(free, start + work_s)
            heapreplace(slots, start + work_s)
            begun.append(given)
            done.append(start + work_s)
        return begun, sorted(done)

    def _result(
        self, request: loading.RunRequest, totals: Interval, window_s: float, health: Health, why: str
    ) -> dict[str, Any]:
        outcome = {"status": "aborted" if why else "completed", "reason": why}
        result = result_of(totals, health=health, window_s=window_s, outcome=outcome)
        figures = Figures(totals, window_s, result["generator"])
        return result | {"thresholds": [one.to_data() for one in evaluate(request.watch.thresholds, figures)]}


def _interval(service_s: list[float], response_s: list[float], failed: int = 0) -> Interval:
    interval = Interval(Counter({"accepted": len(service_s), "failed": failed}))
    if service_s:
        both = Latency.empty()
        both.service.record([round(s * NS_PER_S) for s in service_s])
        whole = Latency.empty()
        whole.service.record([round(s * NS_PER_S) for s in response_s])
        for slot in ("message", "transaction"):
            interval.latencies[slot, True] = Latency(both.service, whole.service)
    return interval
