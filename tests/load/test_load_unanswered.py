"""Arrivals that the server never answers: they are late, they have failed, and the result says so."""

from __future__ import annotations

from typing import Any

import pytest
from figures import busy_recorder

from smtpbench.load.meter import Collector, WorkerReport
from smtpbench.load.plan import LoadPlan
from smtpbench.load.silence import SilenceMonitor
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.measure.censoring import is_lower_bound, withheld
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.measure.result import latency_section
from smtpbench.measure.saved import totals_of
from smtpbench.measure.thresholds import Figures, describe, evaluate, failed_during_run
from smtpbench.session.context import UnansweredSample
from smtpbench.threshold import parse_threshold
from smtpbench.units import NS_PER_MS, NS_PER_S


def interval_of(answered_ms: list[int], cut_ms: list[int], *, waits_ms: list[int] | None = None) -> Interval:
    """Return what a recorder counts: answered messages, and messages that the end of the run cut off."""
    recorder = Recorder()
    recorder.accepted = len(answered_ms)
    recorder.timing("message").extend(ms * NS_PER_MS for ms in answered_ms)
    recorder.timing("transaction").extend(ms * NS_PER_MS for ms in answered_ms)
    recorder.interrupted = len(cut_ms)
    samples = [UnansweredSample(name, None, ms * NS_PER_MS) for ms in cut_ms for name in ("message", "transaction")]
    recorder.censor(samples, [ms * NS_PER_MS for ms in (waits_ms or [])])
    return recorder.drain()


def verdict(text: str, totals: Interval, *, closed_model: bool = False) -> Any:
    return evaluate([parse_threshold(text)], Figures(totals, 10.0, {}, closed_model=closed_model))[0]


@pytest.mark.parametrize(
    ("text", "passed", "lower_bound"),
    [
        ("message.p99<50ms", False, True),
        ("message.p99<8s", False, True),  # the bound is 5 s, and the truth may be anything above
        ("message.p50<50ms", True, False),  # half of all were answered in time, whatever became of the others
        ("message.p99>1s", True, True),
        ("message.max<1h", False, True),
        ("message.mean<1h", False, True),
        ("message.min<50ms", True, False),
        ("message.service.p99<50ms", True, False),  # none of them had been sent
        ("failed<1%", False, False),
        ("failed<6%", True, False),
        ("failed==0", False, False),
        ("message.count>=95", True, False),
        ("message.count>=96", False, False),
    ],
)
def test_threshold_that_an_unanswered_arrival_could_break_fails(text: str, passed: bool, lower_bound: bool) -> None:
    found = verdict(text, interval_of([1] * 95, [5000] * 5))
    assert (found.passed, found.lower_bound) == (passed, lower_bound)


def test_threshold_names_the_bound() -> None:
    totals = interval_of([1] * 95, [5000] * 5)
    assert describe(verdict("message.p99<50ms", totals).to_data()).startswith("message.p99 < 50ms: ≥ 5000 ms, ")
    assert describe(verdict("message.p99<8s", totals).to_data()).endswith(
        "which may be beyond the limit, because replies did not come"
    )


def test_bound_during_a_run_fails_once_it_is_beyond_the_limit() -> None:
    thresholds = [parse_threshold(text) for text in ("message.p99<50ms", "message.p99<8s", "message.mean>9s")]
    failed = failed_during_run(thresholds, Figures(interval_of([1] * 95, [5000] * 5), 10.0, {}))
    assert [one.threshold.text for one in failed] == ["message.p99 < 50ms"]


def test_closed_model_counts_the_arrivals_that_were_withheld() -> None:
    totals = interval_of([1] * 10_000, [5000] * 2, waits_ms=[5000] * 2)
    assert verdict("message.p99<50ms", totals).passed
    assert verdict("failed<0.1%", totals).passed
    assert not verdict("message.p99<50ms", totals, closed_model=True).passed
    assert not verdict("failed<0.1%", totals, closed_model=True).passed
    # what a closed model cuts off after about the time of a transaction says nothing about others
    brief = interval_of([1] * 10_000, [1] * 2, waits_ms=[1] * 2)
    assert verdict("message.p99<50ms", brief, closed_model=True).passed
    assert verdict("failed<0.1%", brief, closed_model=True).passed


def test_withheld_arrivals_are_spread_over_the_wait() -> None:
    found = withheld(Histogram.of([NS_PER_S]), NS_PER_S / 10_000)
    assert found.count == pytest.approx(10_000, abs=1)
    assert found.max_ns < NS_PER_S
    assert found.sum_ns / found.count == pytest.approx(NS_PER_S / 2, rel=0.02)
    assert not withheld(Histogram.of([NS_PER_S]), 0.0).count


def test_percentile_is_exact_below_the_first_that_was_cut_off() -> None:
    whole, censored = Histogram.of([10_000] * 90 + [90_000] * 10), Histogram.of([90_000] * 5)
    assert [is_lower_bound(whole, censored, percent) for percent in (50, 90, 96, 100)] == [False, False, True, True]
    assert not is_lower_bound(whole, None, 100)


def test_percentile_that_hardly_changes_bears_no_mark_and_is_compared_exactly() -> None:
    # 2 of 1,000 were cut off, so that the median may be that of two samples further up: 0.2 % more
    recorder = Recorder()
    recorder.timing("message").extend((1000 + at) * 1_000_000 for at in range(998))
    recorder.censor([UnansweredSample("message", NS_PER_MS, NS_PER_MS)] * 2)
    totals = recorder.drain()
    assert latency_section(totals, ok=True)["message"]["response"]["lower_bounds"] == ["mean_ms", "p99_9_ms", "max_ms"]
    assert verdict("message.p50<1510ms", totals).passed
    value_ms = verdict("message.p50<1510ms", totals).value
    assert not verdict(f"message.p50<{value_ms + 0.5}ms", totals).passed


def test_result_marks_its_lower_bounds_and_a_reader_gets_them_back() -> None:
    totals = interval_of([1] * 95, [5000] * 5)
    section = latency_section(Interval.from_data(totals.to_data()), ok=True)
    response, service = (section["message"][time] for time in ("response", "service"))
    assert (response["count"], response["censored"]) == (100, 5)
    assert response["lower_bounds"] == ["mean_ms", "p99_ms", "p99_9_ms", "max_ms"]
    assert response["p99_ms"] >= 5000 > response["p95_ms"]
    assert (service["count"], service["censored"], service["lower_bounds"]) == (95, 0, [])
    result = {"messages": dict(totals.messages), "errors": {}, "replies": {}, "latency": section, "latency_failed": {}}
    assert not verdict("message.p99<8s", totals_of(result)).passed


def test_collector_adds_what_is_in_progress_only_while_it_is() -> None:
    plan = LoadPlan()
    collector = Collector(plan, 0)
    monitor = ThresholdMonitor([parse_threshold("message.p99<50ms")], grace_ns=0)
    pending = interval_of([], [5000] * 5)
    pending.messages.clear()
    collector.add(report(2, interval_of([1] * 95, []), pending))
    assert "≥ 5000 ms" in monitor.abort_reason(collector, plan, 2.0)
    assert collector.totals.latencies["message", True].response.count == 95
    collector.add(report(3, Interval(), Interval()))
    assert monitor.abort_reason(collector, plan, 3.0) == ""


def report(end_s: int, steady: Interval, pending: Interval, waiting_since_s: float = 0) -> WorkerReport:
    return WorkerReport(
        worker=0, end_ns=end_s * NS_PER_S, length_ns=NS_PER_S, warmup=Interval(), baseline=Interval(), steady=steady,
        connections_open=1, busy=1, waiting=0, waited=0, cpu_user_s=0, cpu_system_s=0, cpu_wait_s=0, lag_ns=0,
        late=Histogram(), connections_peak=1, rss_bytes=1, pending=pending,
        waiting_since_ns=round(waiting_since_s * NS_PER_S),
    )  # fmt: skip


def test_collector_finds_when_the_server_stopped_answering() -> None:
    collector = Collector(LoadPlan(), 0)
    for end_s in range(1, 4):
        collector.add(report(end_s, busy_recorder(seed=1).drain(), Interval(), end_s - 0.001))
        collector.flush()
    for end_s in range(4, 8):
        collector.add(report(end_s, Interval(), Interval(), 2.25))
        collector.flush()
    assert collector.silences() == [(2.25, 7.0)]


@pytest.mark.parametrize(
    ("seconds", "median_ms", "found"),
    [
        ([(5, 0.9), (0, 1.5), (0, 1.5), (5, 3.9)], 1, [(1.5, 3.0)]),
        ([(5, 0.9), (0, 1.5), (5, 2.9)], 1, []),  # less than a second
        ([(5, None), (0, None), (0, None), (5, None)], 1, []),  # nobody waited
        ([(1, 0.9), (0, 0.9), (0, 0.9), (1, 3.9)], 3000, []),  # as slow as always
        ([(5, None), (0, None), (0, 2.5), (0, 2.5)], 1, [(2.5, 4.0)]),
    ],
)
def test_silence_is_a_long_time_without_replies_that_are_due(
    seconds: list[tuple[int, float | None]], median_ms: int, found: list[tuple[float, float]]
) -> None:
    monitor = SilenceMonitor()
    for at, (replies, since_s) in enumerate(seconds, 1):
        monitor.add(at * NS_PER_S, replies, None if since_s is None else round(since_s * NS_PER_S))
    assert monitor.found(interval_of([median_ms] * 9, [])) == found
