"""From recorders to totals: what is counted by domain is part of the totals too."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from figures import busy_recorder

from smtpbench.load.meter import Collector, Meter, WorkerReport
from smtpbench.load.plan import LoadPlan
from smtpbench.load.recorders import Recorders, RecordersByDomain
from smtpbench.load.silence import ReplyMonitor
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval
from smtpbench.units import NS_PER_S


def recorders_by_domain() -> RecordersByDomain:
    """Return recorders with the seeds 1 (warm-up), 2 (baseline; 3 and 4 by domain) and 5 (then; 6 and 7 by domain)."""
    recorders = RecordersByDomain(0, ["a.example", "b.example", "never.example"], lambda n: "")
    recorders.warmup, recorders.baseline, recorders.steady = (
        busy_recorder(seed=1),
        busy_recorder(seed=2),
        busy_recorder(seed=5),
    )
    recorders.by_domain["a.example"] = busy_recorder(seed=3), busy_recorder(seed=6, late_us=900)
    recorders.by_domain["b.example"] = busy_recorder(seed=4), busy_recorder(seed=7)
    return recorders


async def report_of(recorders: Recorders, worker: int) -> WorkerReport:
    """Return the report of a worker with these recorders."""
    scheduler = SimpleNamespace(
        late_ns=[], waited=0, sessions=[SimpleNamespace(waiting_since_ns=0)], busy=1, waiting=0, connections_peak=1
    )
    scheduler.unanswered = lambda now_ns: iter(())
    shard = SimpleNamespace(take_read_delays=list, clock_steps=0)
    stands_in: Any = SimpleNamespace(
        scheduler=scheduler, recorders=recorders, shard=shard, start_ns=0, reply_monitor=ReplyMonitor(recorders)
    )
    return await Meter(worker).read(stands_in, 2 * NS_PER_S, 0)


def sum_of(*seeds: int) -> Any:
    """Return the sum of recorders with these seeds."""
    whole = Interval()
    for seed in seeds:
        whole.add(busy_recorder(seed=seed, late_us=900 if seed == 6 else 0).drain())
    return comparable(whole)


def comparable(interval: Interval) -> Any:
    """Return an interval in a form that can be compared; of examples, whose texts depend on the order, only the kinds."""

    def bare(histogram: Histogram) -> Any:
        return [getattr(histogram, name) for name in histogram.__slots__]

    latencies = {key: (bare(latency.service), bare(latency.response)) for key, latency in interval.latencies.items()}
    return interval.messages, interval.replies, interval.errors, set(interval.examples), latencies


@pytest.mark.parametrize("piped", [False, True])
async def test_totals_include_the_domains_that_are_counted_separately(piped: bool) -> None:
    collector = Collector(LoadPlan(warmup_ns=NS_PER_S, duration_ns=10 * NS_PER_S, baseline_ns=5 * NS_PER_S, workers=2), 0)
    for worker in (0, 1):
        report = await report_of(recorders_by_domain() if worker == 0 else Recorders(0), worker)
        collector.add(WorkerReport.from_data(json.loads(json.dumps(report.to_data()))) if piped else report)
    assert comparable(collector.totals) == sum_of(2, 3, 4, 5, 6, 7)
    assert comparable(collector.baseline) == sum_of(2, 3, 4)
    assert comparable(collector.with_hostile) == sum_of(5, 6, 7)
    assert comparable(collector.warmup) == sum_of(1)
    assert {name: comparable(counted) for name, counted in collector.domains.items()} == {
        "a.example": sum_of(3, 6), "b.example": sum_of(4, 7), "never.example": sum_of()
    }  # fmt: skip
    tick = collector.flush()
    assert tick is not None
    assert comparable(tick.interval) == sum_of(1, 2, 3, 4, 5, 6, 7)
    assert tick.measured is not None
    assert comparable(tick.measured) == sum_of(2, 3, 4, 5, 6, 7)


async def test_counts_are_reported_once() -> None:
    recorders = recorders_by_domain()
    await report_of(recorders, 0)
    again = await report_of(recorders, 0)
    assert not any(part.has_data for parts in again.domains.values() for part in parts)
