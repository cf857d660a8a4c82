"""Simulated server: workers with one queue, and the run that would have measured it, without clock or socket."""

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

NO_COLLECTOR: Any = None


class Queue:
    """Stands in for `load.run.run`: a server with workers, each of which is busy for some time with a message.

    Attributes:
        service_s: Time that a worker takes for a message, seconds.
        workers: Number of workers.
        random_work: Whether that time is exponentially distributed.
        connections: Largest number of messages that the server has at the same time; the others wait.
        stalls: Numbers of the runs, from 1 for the baseline, in the middle of which no worker works for a while.
        stall_s: Length of such a stall, seconds.
        health: Health of the generator, by rate.
        failing: Share of messages that fail, by rate.
        on_run: Function that is called before each run with its number.
        requests: Requests of the runs so far.
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
        """Its capacity, messages a second."""
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
        arrived = [after_ns / NS_PER_S for _, after_ns in plan.schedule(0)]
        started, done = self._serve(arrived, end_s, draw)
        totals, ended, reason = Interval(), 0, ""
        for second in range(1, int(end_s) + 1):
            served = bisect_right(done, second)
            response = [done[i] - arrived[i] for i in range(ended, served)]
            service = [done[i] - started[i] for i in range(ended, served)]
            ended = served
            failed = sum(draw.random() < self.failing(rate) for _ in service)
            interval = _interval(service[failed:], response[failed:], failed)
            if second > warmup_s:
                totals.add(interval)
            backlog = bisect_right(arrived, second) - served
            waiting = bisect_right(arrived, second) - bisect_right(started, second)
            phase = "steady" if second > warmup_s else "warmup"
            observer.tick(tick(interval, end_s=float(second), phase=phase, busy=backlog - waiting, waiting=waiting), totals)
            reason = request.watch.failed(NO_COLLECTOR, plan, float(second))
            if reason:
                break
        result = self._result(request, totals, second - warmup_s, self.health(rate), reason)
        return loading.RunResult(result, None, False)

    def _serve(self, arrived: list[float], end_s: float, draw: random.Random) -> tuple[list[float], list[float]]:
        """Return when each message was given to the server, and when it was served, both in order."""
        free_at, busy_until = [0.0] * self.workers, [0.0] * min(self.connections, len(arrived) or 1)
        stalled = (end_s / 2, end_s / 2 + self.stall_s) if len(self.requests) in self.stalls else (0.0, 0.0)
        started, done = [], []
        for at in arrived:
            given = max(at, busy_until[0])
            work_s = draw.expovariate(1 / self.service_s) if self.random_work else self.service_s
            start = max(given, free_at[0])
            start = stalled[1] if stalled[0] <= start < stalled[1] else start
            heapreplace(free_at, start + work_s)
            heapreplace(busy_until, start + work_s)
            started.append(given)
            done.append(start + work_s)
        return started, sorted(done)

    def _result(
        self, request: loading.RunRequest, totals: Interval, window_s: float, health: Health, reason: str
    ) -> dict[str, Any]:
        outcome = {"status": "aborted" if reason else "completed", "reason": reason}
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
        for metric in ("message", "transaction"):
            interval.latencies[metric, True] = Latency(both.service, whole.service)
    return interval
