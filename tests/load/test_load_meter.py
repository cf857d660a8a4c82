"""From recorders to totals: what is counted by domain is part of the totals too."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from figures import busy_recorder

from smtpbench.engine.pacing import Stage
from smtpbench.load.meter import Collector, Meter, WorkerReport
from smtpbench.load.plan import LoadPlan
from smtpbench.load.recorders import Recorders, RecordersByDomain
from smtpbench.load.silence import ReplyMonitor
from smtpbench.measure.files import TIMELINE_COLUMNS, timeline_lines
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import MESSAGE_COUNTS, Interval
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


def report_at(end_s: float, worker: int, warmup: Interval | None = None, steady: Interval | None = None) -> WorkerReport:
    """Return what a worker reports at a time, seconds after the start."""
    names = ("connections_open", "busy", "waiting", "waited", "lag_ns", "connections_peak", "rss_bytes")
    nothing: dict[str, Any] = dict.fromkeys((*names, "cpu_user_s", "cpu_system_s", "cpu_wait_s"), 0)
    return WorkerReport(
        worker=worker,
        end_ns=round(end_s * NS_PER_S),
        length_ns=NS_PER_S,
        warmup=warmup or Interval(),
        baseline=Interval(),
        steady=steady or Interval(),
        late=Histogram(),
        **nothing,
    )


def lines_of(collector: Collector, *reports: WorkerReport) -> list[dict[str, str]]:
    """Return the rows of the timeline for the reports of a second."""
    for report in reports:
        collector.add(report)
    tick = collector.flush()
    assert tick is not None
    return list(csv.DictReader(timeline_lines(tick), TIMELINE_COLUMNS))


RAMP = LoadPlan(
    connections=5,
    workers=3,
    warmup_ns=2 * NS_PER_S,
    stages=(Stage(3 * NS_PER_S, 0.0, 90.0), Stage(2 * NS_PER_S, 90.0, 10.0)),
)


@pytest.mark.parametrize("plan", [RAMP, replace(RAMP, stages=(), duration_ns=5 * NS_PER_S), replace(RAMP, workers=1)])
def test_rows_add_up_to_the_totals(plan: LoadPlan) -> None:
    """Reports of several workers come at different times, and one holds arrivals of the warm-up and measured ones."""
    collector, seed = Collector(plan, 0), 0
    expected = {"warmup": Counter[str](), "steady": Counter[str]()}
    timeline_rows: list[dict[str, str]] = []
    for second in range(1, 9):
        reports = []
        for worker in range(plan.workers):
            counted: dict[str, Interval] = {}
            for name, begins, ends in (("warmup", 0, 4), ("steady", 2, 8)):
                if begins < second <= ends and (second + worker) % 3:
                    seed += 1
                    counted[name] = busy_recorder(40, seed=seed).drain()
                    expected[name].update(counted[name].messages)
            reports.append(report_at(second + 0.01 * worker, worker, counted.get("warmup"), counted.get("steady")))
        timeline_rows += lines_of(collector, *reports)
    assert {row["phase"] for row in timeline_rows} == {"warmup", "steady", "drain"}
    for name, whole in (("warmup", collector.warmup), ("steady", collector.totals)):
        mine = [row for row in timeline_rows if (row["phase"] == "warmup") is (name == "warmup")]
        found = {outcome: sum(int(row[outcome]) for row in mine) for outcome in MESSAGE_COUNTS}
        assert found == dict(whole.messages) == dict(expected[name])
        assert sum(int(row["errors"]) for row in mine) == whole.errors.total()
    assert [row["t_s"] for row in timeline_rows] == sorted(row["t_s"] for row in timeline_rows)


def test_row_of_a_second_of_the_warmup_is_labelled_so_although_its_report_is_late() -> None:
    collector = Collector(replace(RAMP, workers=1), 0)

    def some() -> Interval:
        return busy_recorder(10).drain()

    assert [row["phase"] for row in lines_of(collector, report_at(1.003, 0))] == ["warmup"]
    assert [row["phase"] for row in lines_of(collector, report_at(2.004, 0))] == ["warmup"]
    assert [row["phase"] for row in lines_of(collector, report_at(3.002, 0))] == ["steady"]
    assert [row["phase"] for row in lines_of(collector, report_at(4.001, 0, steady=some()))] == ["steady"]
    collector = Collector(replace(RAMP, workers=1), 0)
    assert [row["phase"] for row in lines_of(collector, report_at(2.004, 0, warmup=some()))] == ["warmup"]
    collector = Collector(replace(RAMP, workers=1), 0)
    assert [row["phase"] for row in lines_of(collector, report_at(2.004, 0, warmup=some(), steady=some()))] == [
        "warmup",
        "steady",
    ]
