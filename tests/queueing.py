"""A computed server: workers with one queue, and the run that would have measured it, without clock or socket."""

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
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval, Latency
from smtpbench.measure.thresholds import Figures, evaluate
from smtpbench.units import NS_PER_S

#: Thresholds of these tests do not read the totals.
NO_COLLECTOR: Any = None


class Queue:
    """Replaces `load.run.run`: each call is a run against a server with one queue.

    Args:
        service_s: Time that a worker of the server needs for a message; its mean, if `random_work`.
        workers: Number of workers of the server.
        random_work: Whether the time for a message is exponential.
        connections: Most messages at the server at once; the others wait.
        stalls: Numbers of the runs, from 1, in the middle of which no worker works for `stall_s`.
        stall_s: Length of these stalls.
        health: What the generator used, by rate.
        failing: Share of messages that fail, by rate.
        on_run: Called with the number of each run before it begins.

    Attributes:
        requests: Requests of the runs so far.
    """

    def __init__(
        self,
        service_s: float,
        workers: int,
        *,
        random_work: bool = False,
        connections: int = 10**6,
        stalls: tuple[int, ...] = (),
        stall_s: float = 0.5,
        health: Callable[[float], Health] = lambda rate: Health(),
        failing: Callable[[float], float] = lambda rate: 0.0,
        on_run: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.service_s, self.workers, self.random_work = service_s, workers, random_work
        self.connections, self.stalls, self.stall_s = connections, stalls, stall_s
        self.health, self.failing, self.on_run = health, failing, on_run
        self.requests: list[loading.RunRequest] = []

    @property
    def limit_per_s(self) -> float:
        """Highest rate that the server sustains."""
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
        arrived_s = [after_ns / NS_PER_S for _, after_ns in plan.schedule(0)]
        sent_s, replied_s = self._serve(arrived_s, end_s, draw)
        totals, ended, reason = Interval(), 0, ""
        for second in range(1, int(end_s) + 1):
            served = bisect_right(replied_s, second)
            response = [replied_s[i] - arrived_s[i] for i in range(ended, served)]
            service = [replied_s[i] - sent_s[i] for i in range(ended, served)]
            ended = served
            failed = sum(draw.random() < self.failing(rate) for _ in service)
            interval = _interval(service[failed:], response[failed:], failed)
            if second > warmup_s:
                totals.add(interval)
            backlog = bisect_right(arrived_s, second) - served
            waiting = bisect_right(arrived_s, second) - bisect_right(sent_s, second)
            phase = "steady" if second > warmup_s else "warmup"
            observer.tick(tick(interval, end_s=float(second), phase=phase, busy=backlog - waiting, waiting=waiting), totals)
            reason = request.monitor.abort_reason(NO_COLLECTOR, plan, float(second))
            if reason:
                break
        result = self._result(request, totals, second - warmup_s, self.health(rate), reason)
        return loading.RunResult(result, None, False)

    def _serve(self, arrived_s: list[float], end_s: float, draw: random.Random) -> tuple[list[float], list[float]]:
        """Return when each message was sent to the server, and when replies came; both in order."""
        free_at_s, connection_free_at_s = [0.0] * self.workers, [0.0] * min(self.connections, len(arrived_s) or 1)
        stalled = (end_s / 2, end_s / 2 + self.stall_s) if len(self.requests) in self.stalls else (0.0, 0.0)
        sent_s, replied_s = [], []
        for at in arrived_s:
            sent_at_s = max(at, connection_free_at_s[0])
            work_s = draw.expovariate(1 / self.service_s) if self.random_work else self.service_s
            start = max(sent_at_s, free_at_s[0])
            start = stalled[1] if stalled[0] <= start < stalled[1] else start
            heapreplace(free_at_s, start + work_s)
            heapreplace(connection_free_at_s, start + work_s)
            sent_s.append(sent_at_s)
            replied_s.append(start + work_s)
        return sent_s, sorted(replied_s)

    def _result(
        self, request: loading.RunRequest, totals: Interval, window_s: float, health: Health, reason: str
    ) -> dict[str, Any]:
        outcome = {"status": "aborted" if reason else "completed", "reason": reason}
        result = result_of(totals, health=health, window_s=window_s, outcome=outcome)
        figures = Figures(totals, window_s, result["generator"])
        return result | {"thresholds": [one.to_data() for one in evaluate(request.monitor.thresholds, figures)]}


def _interval(service_s: list[float], response_s: list[float], failed: int = 0) -> Interval:
    interval = Interval(Counter({"accepted": len(service_s), "failed": failed}))
    if service_s:
        service, response = (Histogram.of([round(s * NS_PER_S) for s in times_s]) for times_s in (service_s, response_s))
        for metric in ("message", "transaction"):
            interval.latencies[metric, True] = Latency(service, response)
    return interval
