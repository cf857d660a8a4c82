"""Every verdict on what trials measured; and trials that end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smtpbench.doctor.diagnosis import BAD, OK, WARN, graded, worst
from smtpbench.doctor.measured import cost_diagnosis, timers_diagnosis
from smtpbench.doctor.trials import Cost, time_clock, time_timers, write_speed
from smtpbench.measure.histogram import Histogram

MS = 1_000_000
GOOD = Cost(messages=20_000, window_s=2.0, cpu_us=80.0, busy_share=0.8, starved_share=0.01, rss_bytes=50_000_000)


@pytest.mark.parametrize(("late_ns", "verdict"), [(MS // 10, OK), (3 * MS, WARN), (20 * MS, BAD)])
def test_timers(late_ns: int, verdict: str) -> None:
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
        (Cost(trouble="nothing listens there"), BAD),
    ],
)
def test_costs(cost: Cost, verdict: str) -> None:
    assert cost_diagnosis(cost).verdict == verdict


def test_a_cost_in_messages() -> None:
    one = cost_diagnosis(GOOD)
    assert "about 11,250 messages/s" in one.limits  # 1 s / 80 us, nine tenths of it
    assert "saw 10,000/s" in one.limits
    assert one.figures["most_messages_per_s"] == 12_500


def test_the_gravest_verdict() -> None:
    assert [graded(value, 2, 5) for value in (1, 2, 4.9, 5)] == [OK, WARN, WARN, BAD]
    assert worst([]) == OK
    assert worst([cost_diagnosis(GOOD), cost_diagnosis(replace(GOOD, cpu_us=400.0))]) == WARN


async def test_each_timer_is_told_once() -> None:
    late = await time_timers(50, 100_000)
    assert late.count == 50


def test_a_clock_moves_forward() -> None:
    clock = time_clock()
    assert clock.step_ns > 0
    assert clock.read_ns > 0


def test_what_was_written_is_not_left_behind(tmp_path: Path) -> None:
    assert write_speed(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="No such"):
        write_speed(tmp_path / "nowhere")
