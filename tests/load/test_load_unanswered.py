"""Arrivals that the server never answers: they are late, they have failed, and the result says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from smtpbench.load.meter import Collector, WorkerReport
from smtpbench.load.plan import LoadPlan
from smtpbench.load.recorders import Recorders
from smtpbench.load.silence import ReplyMonitor, SilenceMonitor, Tenth
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
    assert describe(verdict("message.p99<50ms", totals).to_data()).startswith("message.p99 < 50ms is ≥ 5000 ms, ")
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


def report(end_s: int, steady: Interval, pending: Interval, tenths: Sequence[Tenth] = (), worker: int = 0) -> WorkerReport:
    return WorkerReport(
        worker=worker, end_ns=end_s * NS_PER_S, length_ns=NS_PER_S, warmup=Interval(), baseline=Interval(), steady=steady,
        connections_open=1, busy=1, waiting=0, waited=0, cpu_user_s=0, cpu_system_s=0, cpu_wait_s=0, lag_ns=0,
        late=Histogram(), connections_peak=1, rss_bytes=1, pending=pending, tenths=list(tenths),
    )  # fmt: skip


def tenths_of(states: str, begin: int = 0, since_s: float = 0) -> list[Tenth]:
    """Return tenths: `a` answered, `d` a reply was due and none came, `-` nobody waited."""
    found = [Tenth(begin + at, state == "a", state == "d") for at, state in enumerate(states)]
    first = states.find("d")
    if first >= 0:
        found[first] = found[first]._replace(since_ns=round(since_s * NS_PER_S))
    return found


def test_collector_finds_a_silence_from_which_the_server_recovers() -> None:
    collector = Collector(LoadPlan(), 0)
    collector.add(report(1, interval_of([1] * 9, []), Interval(), tenths_of("aaaaaaaaad", since_s=0.874)))
    collector.add(report(2, Interval(), Interval(), tenths_of("dddddddddd", 10)))
    collector.add(report(3, interval_of([1] * 9, []), Interval(), tenths_of("ddaaaaaaaa", 20)))
    assert collector.silences() == [(0.874, 2.2)]
    piped = WorkerReport.from_data(
        json.loads(json.dumps(report(4, Interval(), Interval(), tenths_of("d" * 10, 30)).to_data()))
    )
    collector.add(piped)
    assert collector.silences() == [(0.874, 2.2), (3.0, 4.0)]


def test_warm_up_shows_how_fast_the_server_usually_greets() -> None:
    def greeted(*times_s: int) -> Interval:
        recorder = Recorder()
        recorder.timing("MAIL").extend([NS_PER_MS] * 100)
        recorder.timing("banner").extend(seconds * NS_PER_S for seconds in times_s)
        return recorder.drain()

    collector = Collector(LoadPlan(warmup_ns=NS_PER_S), 0)
    collector.add(report(2, greeted(1, 1), Interval(), tenths_of("a" * 10 + "d" * 10)))
    assert collector.silences() == []
    collector.warmup.add(greeted(0))
    assert collector.silences() == [(1.0, 2.0)]


def test_server_that_answers_one_worker_is_not_silent() -> None:
    collector = Collector(LoadPlan(workers=2), 0)
    collector.add(report(2, Interval(), Interval(), tenths_of("d" * 20)))
    collector.add(report(2, Interval(), Interval(), tenths_of("-" * 15 + "a" + "-" * 4), worker=1))
    assert collector.silences() == [(0.0, 1.5)]


@pytest.mark.parametrize(
    ("banners_ms", "found"), [([1, 9000, 9000, 9000], [(0.0, 9.0)]), ([9000] * 4, []), ([1] * 3 + [9000] * 30, [])]
)
def test_few_greetings_are_slow_because_of_a_stall_and_all_because_of_the_server(
    banners_ms: list[int], found: list[tuple[float, float]]
) -> None:
    recorder = Recorder()
    recorder.timing("MAIL").extend([NS_PER_MS] * 100)
    recorder.timing("banner").extend(ms * NS_PER_MS for ms in banners_ms)
    monitor = SilenceMonitor()
    monitor.add(tenths_of("d" * 90 + "a"))
    assert monitor.found(recorder.drain()) == found


@pytest.mark.parametrize(
    ("states", "since_s", "median_ms", "found"),
    [
        ("a" * 9 + "d" * 15 + "a" * 5, 0, 1, [(0.9, 2.4)]),
        ("a" * 9 + "d" * 15 + "a" * 5, 0.85, 1, [(0.85, 2.4)]),
        ("a" * 9 + "d" * 15 + "a" * 5, 0.2, 1, [(0.9, 2.4)]),  # it waited longer than the others, which were answered
        ("a" * 9 + "d" * 9 + "a" * 5, 0, 1, [(0.9, 1.8)]),
        ("a" * 9 + "d" * 7 + "a" * 5, 0, 1, []),  # too short
        ("a" * 9 + "-" * 30 + "a" * 5, 0, 1, []),  # nobody waited
        ("d" * 30 + "a", 0, 3000, []),  # as slow as always
        ("d" * 30 + "a", 0, 10, [(0.0, 3.0)]),
        ("d" * 5 + "a" + "d" * 5, 0, 1, []),
        ("ddd" + "-" * 4 + "ddd" + "-" * 4 + "d" * 5 + "-" * 9, 0, 1, [(0.0, 1.9)]),  # arrivals that time out
    ],
)
def test_silence_is_a_long_time_without_replies_that_are_due(
    states: str, since_s: float, median_ms: int, found: list[tuple[float, float]]
) -> None:
    monitor = SilenceMonitor()
    monitor.add(tenths_of(states, since_s=since_s))
    assert monitor.found(interval_of([median_ms] * 9, [])) == found


def test_beginnings_of_short_silences_are_forgotten() -> None:
    monitor = SilenceMonitor()
    for at in range(0, 10_000, 4):
        monitor.add(tenths_of("da", at, since_s=at / 10 - 0.05))
    monitor.add(tenths_of("aa" + "d" * 20, 10_000, since_s=1000.15))
    assert monitor.found(interval_of([1] * 9, [])) == [(1000.15, 1002.2)]
    assert len(monitor._since_ns) <= 500


def session(since_s: float, transfer: object = None) -> Any:
    return SimpleNamespace(waiting_since_ns=round(since_s * NS_PER_S), transfer=transfer)


def test_worker_notes_whether_a_reply_came() -> None:
    recorders = Recorders(0)
    replies = recorders.steady.samples("MAIL", "MAIL", b"250 ok\r\n", True)
    monitor = ReplyMonitor(recorders, 10 * NS_PER_S)

    def look(at_s: float, *sessions: Any) -> list[Tenth]:
        monitor.look(round((10 + at_s) * NS_PER_S), sessions)
        return monitor.take()

    replies.append(1)
    assert look(0.101, session(10.05)) == [Tenth(0, answered=True)]
    recorders.steady.drain()  # a drained reply is not a reply that came
    assert look(0.2, session(10.15), session(10.12)) == [Tenth(1, answered=False, due=True, since_ns=NS_PER_S * 12 // 100)]
    assert look(0.3, session(10.15), session(10.12)) == [Tenth(2, answered=False, due=True)]
    assert look(0.4, session(0), session(10.3, transfer="in progress")) == [Tenth(3, answered=False)]
    recorders.steady.error("refused")
    assert look(0.5) == [Tenth(4, answered=False, due=True)]
    # the worker itself was late: what came meanwhile may not have been read yet
    assert look(0.8, session(10.12)) == [Tenth(number, answered=False) for number in (5, 6, 7)]
    assert look(0.81, session(10.12)) == []
    assert look(0.9, session(9.8, transfer="stalled")) == [Tenth(8, answered=False, due=True)]
