"""Verdicts on measurements, and the measurements themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smtpbench.doctor.diagnosis import BAD, OK, WARN, grade, worst
from smtpbench.doctor.measurement_checks import cost_diagnosis, timers_diagnosis
from smtpbench.doctor.measurements import MessageCost, measure_clock, measure_disk_speed, measure_timers
from smtpbench.measure.histogram import Histogram

MS = 1_000_000
GOOD = MessageCost(messages=20_000, window_s=2.0, cpu_us=80.0, busy_share=0.8, starved_share=0.01, rss_bytes=50_000_000)


@pytest.mark.parametrize(("late_ns", "verdict"), [(MS // 10, OK), (3 * MS, WARN), (20 * MS, BAD)])
def test_verdict_on_timers(late_ns: int, verdict: str) -> None:
    one = timers_diagnosis(Histogram.of([late_ns] * 100))
    assert one.verdict == verdict
    assert one.figures["late_p99_ms"] == pytest.approx(late_ns / MS, rel=0.01)


@pytest.mark.parametrize(
    ("cost", "verdict"),
    [
        (GOOD, OK),
        (replace(GOOD, cpu_us=400.0), WARN),
        (replace(GOOD, starved_share=0.4), WARN),
        (replace(GOOD, cpu_us=2000.0), BAD),
        (MessageCost(error="nothing listens there"), BAD),
    ],
)
def test_verdict_on_the_cost_of_a_message(cost: MessageCost, verdict: str) -> None:
    assert cost_diagnosis(cost).verdict == verdict


def test_cost_is_given_in_messages_a_second() -> None:
    one = cost_diagnosis(GOOD)
    assert "about 11,250 messages/s" in one.limits  # 1 s / 80 us, nine tenths of it
    assert "it sent 10,000/s" in one.limits
    assert one.figures["most_messages_per_s"] == 12_500


def test_worst_verdict_wins() -> None:
    assert [grade(value, 2, 5) for value in (1, 2, 4.9, 5)] == [OK, WARN, WARN, BAD]
    assert worst([]) == OK
    assert worst([cost_diagnosis(GOOD), cost_diagnosis(replace(GOOD, cpu_us=400.0))]) == WARN


async def test_each_timer_is_measured_once() -> None:
    late = await measure_timers(50, 100_000)
    assert late.count == 50


def test_clock_moves_forward() -> None:
    clock = measure_clock()
    assert clock.step_ns > 0
    assert clock.read_ns > 0


def test_disk_test_leaves_no_file(tmp_path: Path) -> None:
    assert measure_disk_speed(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="No such"):
        measure_disk_speed(tmp_path / "nowhere")
