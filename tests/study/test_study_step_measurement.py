"""What a step showed: backlogs that grow, jump or stay, and whose fault a failure was."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from figures import tick

from smtpbench.engine.pacing import Stage
from smtpbench.load.plan import LoadPlan
from smtpbench.measure.recorder import Interval
from smtpbench.study.step_measurement import (
    Point,
    StepMeasurement,
    StepWatch,
    UnloadedTarget,
    entry_of,
    grows,
    growth_per_s,
    overwhelmed,
    rises_throughout,
)
from smtpbench.study.steps import CONNECTIONS, GENERATOR, NEAR
from smtpbench.threshold import parse_threshold


def points(*backlogs: int, waiting: int = 0, broken: frozenset[str] = frozenset()) -> list[Point]:
    return [Point(float(at), backlog, 380, waiting, broken) for at, backlog in enumerate(backlogs, 1)]


@pytest.mark.parametrize(
    ("backlogs", "slope", "growing", "throughout"),
    [
        ((4, 14, 24, 34, 44, 54), 10.0, True, True),
        ((4, 4, 3, 4, 5, 4), 0.0, False, False),
        ((4, 5, 60, 50, 41, 30), 5.2, False, False),  # one stall, and what it left shrinks
        ((4, 4, 16, 75, 97, 86), 22.0, True, False),  # a long one: it may be, and is not clear
        ((0, 1, 2, 3, 4, 5), 1.0, False, True),  # 1 in 400 is within what the precision leaves room for
        ((60, 50, 40, 30, 20, 10), -10.0, False, False),
        ((4, 44), 40.0, False, False),  # two seconds are no trend
        ((), 0.0, False, False),
    ],
)
def test_growth(backlogs: tuple[int, ...], slope: float, growing: bool, throughout: bool) -> None:
    found = points(*backlogs)
    assert growth_per_s(found) == pytest.approx(slope, abs=0.1)
    assert grows(found, 400.0, 0.05) is growing
    assert rises_throughout(found) is throughout


def test_a_step_is_hopeless_once_much_of_what_arrives_piles_up_second_after_second() -> None:
    assert overwhelmed(points(100, 300, 500), 400.0) == "500 arrivals were not served yet, 50% of those that came"
    assert overwhelmed(points(100, 300), 400.0) == ""
    assert overwhelmed(points(4, 300, 290), 400.0) == ""
    assert overwhelmed(points(0, 3, 6), 5.0) == ""  # a handful is no crowd


def read(
    found: list[Point], *, busy: float = 0.2, starved: float = 0.0, limited: bool = False, service_ms: float = 30.0,
    value: float | None = 50.0, hopeless: str = "", failed: float = 0.0, errors: tuple[str, ...] = (),
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    threshold = "message.p99 < 100ms"
    passed = value is not None and value < 100
    result = {
        "generator": {"limited": limited, "limited_reasons": ["its core was 95% busy"] if limited else [],
                      "busiest_worker_share": busy, "starved_worker_share": starved},
        "thresholds": [{"threshold": threshold, "unit": "ms", "value": value, "passed": passed,
                        "margin_share": None if value is None else (100 - value) / 100},
                       {"threshold": "failed < 1%", "unit": "share", "value": failed, "passed": failed < 0.01,
                        "margin_share": (0.01 - failed) / 0.01}],
        "errors": dict.fromkeys(errors, 5),
        "latency": {"message": {"response": {"p50_ms": 10.0, "p99_ms": value, "max_ms": value},
                                "service": {"p50_ms": service_ms}}},
        "messages": dict.fromkeys(("accepted", "rejected", "failed", "dropped", "interrupted"), 0),
        "load": {"window_s": 5.0},
        "throughput": {"messages_per_s": 99.0},
    }  # fmt: skip
    measurement = StepMeasurement(400.0, LoadPlan(connections=10), (), found, hopeless)
    return entry_of(measurement, NEAR, result, UnloadedTarget(0.05, 10.0))


STILL, RISING = (4, 4, 4, 4, 4), (4, 24, 44, 64, 84)


def test_seconds_are_watched_until_nothing_can_come_of_it() -> None:
    measurement = StepMeasurement(
        400.0, LoadPlan(warmup_ns=10**9, stages=(Stage(5 * 10**9, 400.0, 400.0),)), [parse_threshold("message.p99<1s")]
    )
    begun = [
        (0.5, 0.5, 9),
        (1.0, 0.5, 100),
        (2.01, 1.01, 300),
        (2.2, 0.19, 5),
        (3.0, 0.8, 500),
        (3.9, 0.9, 0),
        (9.0, 1.0, 0),
    ]
    for end_s, length_s, busy in begun:
        measurement.tick(tick(Interval(), end_s=end_s, length_s=length_s, busy=busy, waiting=0), Interval())
    assert [(point.at_s, point.backlog) for point in measurement.points] == [(1.0, 100), (2.01, 300), (3.0, 500)]
    assert measurement.overwhelmed
    assert StepWatch(measurement=measurement).broken(None, measurement.plan, 3.0) == measurement.hopeless != ""  # type: ignore[arg-type]  # unread
    failing = Interval(Counter({"accepted": 50, "failed": 50}))
    other = StepMeasurement(400.0, measurement.plan, ())
    other.tick(tick(failing, end_s=2.0, busy=4, waiting=0), failing)
    assert (other.hopeless, other.overwhelmed) == ("50 of 100 messages failed", False)


def test_what_held() -> None:
    step, entry = read(points(*STILL), limited=True)
    assert (step.held, step.blame, entry["why"], entry["generator_limited"]) == (True, "", "every objective held", True)
    assert entry["throughput_per_s"] == 99.0
    assert entry["objectives"][-1] == {
        "text": "the backlog does not grow", "unit": "share", "value": 0.0, "passed": True, "margin": 1.0,
    }  # fmt: skip


def test_a_backlog_that_grows_is_clear_and_shows_what_was_served() -> None:
    step, entry = read(points(*RISING))
    assert (step.held, step.clear, step.blame, step.served_per_s) == (False, True, "", 380.0)
    assert entry["why"] == "the backlog grew by 20.0 arrivals a second"
    assert entry["throughput_per_s"] == 380.0
    assert not entry["objectives"][-1]["passed"]


def test_a_passing_trouble_is_not_clear_and_one_that_lasts_is() -> None:
    assert not read(points(*STILL), value=150.0)[0].clear
    assert read(points(*STILL, broken=frozenset({"message.p99 < 100ms"})), value=150.0)[0].clear
    assert not read(points(4, 4, 16, 75, 97, 86))[0].clear
    assert read(points(*STILL), hopeless="300 of 600 messages failed")[0].clear
    assert not read(points(*STILL), value=None)[0].held  # nothing was shown


def test_whose_fault_it_was() -> None:
    assert read(points(*STILL), value=150.0, limited=True)[0].blame == GENERATOR
    assert read(points(*RISING), busy=0.8, starved=0.15)[0].blame == GENERATOR
    assert read(points(*RISING), busy=0.2, starved=0.3, limited=True)[0].blame == ""
    assert read(points(*RISING, waiting=3), service_ms=11.0)[0].blame == CONNECTIONS
    assert read(points(*RISING, waiting=3), service_ms=20.0)[0].blame == ""
    assert read(points(*RISING), service_ms=11.0)[0].blame == ""
    assert read(points(*STILL), failed=0.1, limited=True)[0].blame == ""
    assert read(points(*STILL), failed=0.1, limited=True, errors=("no_ports",))[0].blame == GENERATOR
    step, entry = read(points(*RISING), busy=0.95, limited=True)
    assert (step.clear, entry["limited_by"]) == (True, GENERATOR)  # it has no more to give
    assert not read(points(*RISING), busy=0.6, starved=0.35, limited=True)[0].clear  # it may have next time
    assert read(points(*RISING, waiting=3), service_ms=11.0)[0].clear
    assert "its core was 95% busy" in entry["why"]
