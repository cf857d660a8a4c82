"""Thresholds: the values of their metrics, and their results as text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from figures import MS

from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.measure.thresholds import Figures, describe, evaluate, failed_during_run, value_of
from smtpbench.session.context import LATE_SHIFT
from smtpbench.threshold import parse_threshold

GENERATOR = {
    "late_p50_ms": 1.0, "late_p99_ms": 7.0, "late_max_ms": 9.0, "loop_lag_max_ms": 2.0, "busiest_worker_share": 0.6,
    "limited": True,
}  # fmt: skip


def figures() -> Figures:
    """Return figures of 100 messages: 4 rejected, 1 failed; each took 3 ms, one 50 ms, and began 2 ms late."""
    recorder = Recorder()
    recorder.accepted, recorder.rejected, recorder.failed = 95, 4, 1
    recorder.error("closed_421")
    late = 2000 << LATE_SHIFT
    recorder.samples("message", "message", b"250 2.0.0 Ok\r\n", True).extend([3 * MS + late] * 99 + [50 * MS + late])
    recorder.samples("RCPT", "RCPT", b"250 Ok\r\n", True).extend([MS] * 90)
    recorder.samples("RCPT", "RCPT", b"450 4.2.1 Later\r\n", False).extend([MS] * 6)
    recorder.samples("RCPT", "RCPT", b"550 5.1.1 No\r\n", False).extend([MS] * 4)
    return Figures(recorder.drain(), 10.0, GENERATOR)


@pytest.mark.parametrize(
    ("metric", "limit", "value"),
    [
        ("server.cpu_ms_per_message", "1ms", 1.5),
        ("server.cpu_s", "1s", 30_000.0),
        ("server.cpu", "1%", 0.8),
        ("server.rss_max", "1B", 1000.0),
        ("server.rss_growth", "1B/h", -5.0),
        ("server.fds_max", "1", 7.0),
        ("server.threads_max", "1", None),
        ("server.restarts", "1", 0.0),
    ],
)
def test_values_of_what_the_server_used(metric: str, limit: str, value: float | None) -> None:
    server = {
        "cpu_ms_per_message": 1.5, "cpu_s": 30.0, "cores_share": 0.8, "rss_max_bytes": 1000, "fds_max": 7,
        "rss_growth_bytes_per_hour": -5.0, "threads_max": None, "restarts": 0,
    }  # fmt: skip
    threshold = parse_threshold(f"{metric} < {limit}")
    assert value_of(threshold, replace(figures(), server=server)) == value
    (unknown,) = evaluate([threshold], figures())
    assert (unknown.value, unknown.passed) == (None, False)


@pytest.mark.parametrize(
    ("metric", "limit", "value"),
    [
        ("message.p99", "1ms", 5.0),
        ("message.service.p99", "1ms", 3.0),
        ("message.service.max", "1ms", 50.0),
        ("message.service.mean", "1ms", 3.47),
        ("message.service.min", "1ms", 3.0),
        ("message.count", "1", 100.0),
        ("attempted", "1", 100.0),
        ("failed", "1", 1.0),
        ("failed", "1%", 0.01),
        ("rejected", "1%", 0.04),
        ("throughput", "1/s", 9.5),
        ("recipients.accepted", "1", 90.0),
        ("recipients.rejected", "1%", 0.1),
        ("replies.RCPT", "1", 100.0),
        ("replies.RCPT.4xx", "1", 6.0),
        ("replies.RCPT.550", "1%", 0.04),
        ("replies.RCPT.551", "1", 0.0),
        ("errors", "1", 1.0),
        ("errors.closed_421", "1%", 0.01),
        ("errors.timeout", "1", 0.0),
        ("generator.late_p99", "1ms", 7.0),
        ("generator.cpu", "1%", 0.6),
        ("generator.limited", "1", 1.0),
    ],
)
def test_value_of_each_metric(metric: str, limit: str, value: float) -> None:
    assert value_of(parse_threshold(f"{metric} < {limit}"), figures()) == pytest.approx(value, rel=0.002)


def test_domain_has_its_own_values() -> None:
    whole = figures()
    recorder = Recorder()
    recorder.accepted, recorder.rejected = 8, 2
    recorder.samples("RCPT", "RCPT", b"550 5.1.1 No\r\n", False).extend([MS] * 2)
    recorder.samples("RCPT", "RCPT", b"250 Ok\r\n", True).extend([MS] * 8)
    of_both = replace(whole, domains={"x.example": recorder.drain(), "empty.example": Interval()})
    texts = {
        "rejected < 5%": 0.04, "rejected@X.example < 5%": 0.2, "throughput@x.example > 1/s": 0.8,
        "replies.RCPT.5xx@x.example < 1%": 0.2, "recipients.accepted@x.example > 1": 8.0, "errors@x.example < 1": 0.0,
        "RCPT.max@x.example < 2ms": 1.0, "message.p99@x.example < 1ms": None, "message.count@x.example < 1": 0.0,
        # a domain without messages fails every threshold, even one with an upper limit of a count
        "rejected@empty.example < 5": None, "rejected@nosuch.example < 5": None,
    }  # fmt: skip
    verdicts = evaluate([parse_threshold(text) for text in texts], of_both)
    for verdict, value in zip(verdicts, texts.values(), strict=True):
        assert verdict.value == (value if value is None else pytest.approx(value, rel=0.002)), verdict.threshold.text
    assert verdicts[1].to_data()["metric"] == "rejected@x.example"
    assert [one.passed for one in verdicts[-2:]] == [False, False]
    broken = failed_during_run([one.threshold for one in verdicts], of_both)
    assert [one.threshold.text.partition(" ")[0] for one in broken] == [
        "rejected@X.example", "throughput@x.example", "replies.RCPT.5xx@x.example"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["message.p99 < 1s", "failed < 5%", "recipients.rejected < 5%", "replies.RCPT.4xx < 5%"])
def test_threshold_without_data_fails(text: str) -> None:
    (verdict,) = evaluate([parse_threshold(text)], Figures(Interval(), 10.0, GENERATOR))
    assert verdict.value is None
    assert not verdict.passed
    assert describe(verdict.to_data()) == f"{text} has no data"


def test_run_in_progress_fails_only_by_thresholds_that_need_no_end() -> None:
    texts = ("message.p99 < 1ms", "accepted > 1000", "throughput > 100/s", "failed < 5", "nosuch.p50 < 1ms")
    broken = failed_during_run([parse_threshold(text) for text in texts], figures())
    assert [verdict.threshold.text for verdict in broken] == ["message.p99 < 1ms", "throughput > 100/s"]


def test_threshold_result_as_text() -> None:
    texts = [
        describe(one.to_data())
        for one in evaluate([parse_threshold(t) for t in ("failed < 2%", "failed < 0.5%")], figures())
    ]
    assert texts == ["failed < 2% is 1 %, 50% to spare", "failed < 0.5% is 1 %, 100% beyond the limit"]
