"""From books to totals: what is counted apart by domain belongs to the whole as well."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from figures import busy_recorder

from smtpbench.load.meter import Collector, Meter, WorkerReport
from smtpbench.load.plan import LoadPlan
from smtpbench.load.recorders import Recorders, RecordersByDomain
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval
from smtpbench.units import NS_PER_S


def apart() -> RecordersByDomain:
    """Warm-up 1; before the first hostile session 2, and 3 and 4 for domains; beside them 5, and 6 and 7."""
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
    """What a worker with these books reports."""
    scheduler = SimpleNamespace(late_ns=[], waited=0, sessions=[1], busy=1, waiting=0, connections_peak=1)
    stands_in: Any = SimpleNamespace(scheduler=scheduler, recorders=recorders, start_ns=0)
    return await Meter(worker).read(stands_in, 2 * NS_PER_S, 0)


def together(*seeds: int) -> Any:
    """All of those books in one."""
    whole = Interval()
    for seed in seeds:
        whole.add(busy_recorder(seed=seed, late_us=900 if seed == 6 else 0).drain())
    return plain(whole)


def plain(interval: Interval) -> Any:
    """What can be compared; of examples, which depend on what came first, the kinds."""

    def bare(histogram: Histogram) -> Any:
        return [getattr(histogram, name) for name in histogram.__slots__]

    latencies = {key: (bare(latency.service), bare(latency.response)) for key, latency in interval.latencies.items()}
    return interval.messages, interval.replies, interval.errors, set(interval.examples), latencies


@pytest.mark.parametrize("piped", [False, True])
async def test_the_whole_is_what_it_would_be_and_each_domain_its_part(piped: bool) -> None:
    collector = Collector(LoadPlan(warmup_ns=NS_PER_S, duration_ns=10 * NS_PER_S, baseline_ns=5 * NS_PER_S, workers=2), 0)
    for worker in (0, 1):
        report = await report_of(apart() if worker == 0 else Recorders(0), worker)
        collector.add(WorkerReport.from_data(json.loads(json.dumps(report.to_data()))) if piped else report)
    assert plain(collector.totals) == together(2, 3, 4, 5, 6, 7)
    assert plain(collector.baseline) == together(2, 3, 4)
    assert plain(collector.beside) == together(5, 6, 7)
    assert plain(collector.warmup) == together(1)
    assert {name: plain(counted) for name, counted in collector.domains.items()} == {
        "a.example": together(3, 6), "b.example": together(4, 7), "never.example": together()
    }  # fmt: skip
    tick = collector.flush()
    assert tick is not None
    assert plain(tick.interval) == together(1, 2, 3, 4, 5, 6, 7)
    assert tick.measured is not None
    assert plain(tick.measured) == together(2, 3, 4, 5, 6, 7)


async def test_what_was_reported_once_is_not_reported_again() -> None:
    recorders = apart()
    await report_of(recorders, 0)
    again = await report_of(recorders, 0)
    assert not any(part.counted for parts in again.domains.values() for part in parts)
