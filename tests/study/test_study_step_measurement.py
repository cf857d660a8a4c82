"""Measurement of one step: growth of the backlog, early ends, and what limited a failed step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from figures import tick

from smtpbench.engine.pacing import Stage
from smtpbench.load.plan import LoadPlan
from smtpbench.measure.recorder import Interval
from smtpbench.study.search import CONNECTIONS, GENERATOR, NEAR
from smtpbench.study.step_measurement import (
    StepMeasurement,
    StepMonitor,
    StepSecond,
    UnloadedTarget,
    backlog_grows,
    backlog_grows_every_second,
    backlog_growth_per_s,
    evaluate_step,
    overload_reason,
)
from smtpbench.threshold import parse_threshold


def seconds_of(*backlogs: int, waiting: int = 0, failed: frozenset[str] = frozenset()) -> list[StepSecond]:
    return [StepSecond(float(at), backlog, 380, waiting, failed) for at, backlog in enumerate(backlogs, 1)]


@pytest.mark.parametrize(
    ("backlogs", "slope", "grows", "every_second"),
    [
        ((4, 14, 24, 34, 44, 54), 10.0, True, True),
        ((4, 4, 3, 4, 5, 4), 0.0, False, False),
        ((4, 5, 60, 50, 41, 30), 5.2, False, False),  # a stall, after which the backlog shrinks
        ((4, 4, 16, 75, 97, 86), 22.0, True, False),  # a long stall: possible growth, not conclusive
        ((0, 1, 2, 3, 4, 5), 1.0, False, True),  # 1 in 400 is within the precision
        ((60, 50, 40, 30, 20, 10), -10.0, False, False),
        ((4, 44), 40.0, False, False),  # two seconds are no trend
        ((), 0.0, False, False),
    ],
)
def test_growth_of_the_backlog(backlogs: tuple[int, ...], slope: float, grows: bool, every_second: bool) -> None:
    found = seconds_of(*backlogs)
    assert backlog_growth_per_s(found) == pytest.approx(slope, abs=0.1)
    assert backlog_grows(found, 400.0, 0.05) is grows
    assert backlog_grows_every_second(found) is every_second


def test_step_is_overloaded_if_much_of_the_arrivals_joins_the_backlog_each_second() -> None:
    assert overload_reason(seconds_of(100, 300, 500), 400.0) == (
        "500 arrivals in the backlog, which grew by at least 50% of the arrivals each second"
    )
    assert overload_reason(seconds_of(100, 300), 400.0) == ""
    assert overload_reason(seconds_of(4, 300, 290), 400.0) == ""
    assert overload_reason(seconds_of(0, 3, 6), 5.0) == ""  # too few arrivals


def evaluate(
    found: list[StepSecond], *, busy: float = 0.2, starved: float = 0.0, limited: bool = False, service_ms: float = 30.0,
    value: float | None = 50.0, abort_reason: str = "", failed: float = 0.0, errors: tuple[str, ...] = (),
    starved_by_others: float | None = None,
    server: dict[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    threshold = "message.p99 < 100ms"
    passed = value is not None and value < 100
    result = {
        "generator": {"limited": limited, "limited_reasons": ["its core was 95% busy"] if limited else [],
                      "busiest_worker_share": busy, "starved_worker_share": starved,
                      **({} if starved_by_others is None else {"starved_by_others_share": starved_by_others})},
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
    measurement = StepMeasurement(400.0, LoadPlan(connections=10), (), found, abort_reason)
    if server is not None:
        result["server"] = server
    return evaluate_step(measurement, NEAR, result, UnloadedTarget(0.05, 10.0))


STEADY, RISING = (4, 4, 4, 4, 4), (4, 24, 44, 64, 84)


def test_seconds_are_recorded_until_the_step_cannot_pass() -> None:
    measurement = StepMeasurement(
        400.0, LoadPlan(warmup_ns=10**9, stages=(Stage(5 * 10**9, 400.0, 400.0),)), [parse_threshold("message.p99<1s")]
    )
    ticks = [
        (0.5, 0.5, 9),
        (1.0, 0.5, 100),
        (2.01, 1.01, 300),
        (2.2, 0.19, 5),
        (3.0, 0.8, 500),
        (3.9, 0.9, 0),
        (9.0, 1.0, 0),
    ]
    for end_s, length_s, busy in ticks:
        measurement.tick(tick(Interval(), end_s=end_s, length_s=length_s, busy=busy, waiting=0), Interval())
    assert [(second.at_s, second.backlog) for second in measurement.seconds] == [(1.0, 100), (2.01, 300), (3.0, 500)]
    assert measurement.overloaded
    collector: Any = None  # not read
    reason = StepMonitor(measurement=measurement).abort_reason(collector, measurement.plan, 3.0)
    assert reason == measurement.abort_reason != ""
    failing = Interval(Counter({"accepted": 50, "failed": 50}))
    other = StepMeasurement(400.0, measurement.plan, ())
    other.tick(tick(failing, end_s=2.0, busy=4, waiting=0), failing)
    assert (other.abort_reason, other.overloaded) == ("50 of 100 messages failed", False)


def test_step_that_passed() -> None:
    step, entry = evaluate(seconds_of(*STEADY), limited=True)
    assert (step.passed, step.limited_by, entry["why"], entry["generator_limited"]) == (
        True,
        "",
        "all objectives were met",
        True,
    )
    assert entry["throughput_per_s"] == 99.0
    assert entry["objectives"][-1] == {
        "text": "the backlog does not grow", "unit": "share", "value": 0.0, "passed": True, "margin": 1.0,
    }  # fmt: skip


def test_step_has_what_the_server_used_where_it_is_known() -> None:
    seconds = seconds_of(4, 5, 4, 5)
    _, entry = evaluate(seconds, server={"cores_share": 0.97, "cpu_ms_per_message": None, "deaths": []})
    assert (entry["server_cores_share"], entry["server_cpu_ms_per_message"]) == (0.97, None)
    _, entry = evaluate(seconds)
    assert not any(name.startswith("server") for name in entry)


def test_growing_backlog_is_conclusive_and_shows_the_service_rate() -> None:
    step, entry = evaluate(seconds_of(*RISING))
    assert (step.passed, step.conclusive, step.limited_by, step.served_per_s) == (False, True, "", 380.0)
    assert entry["why"] == "the backlog grew by 20.0 arrivals/s"
    assert entry["throughput_per_s"] == 380.0
    assert not entry["objectives"][-1]["passed"]


def test_failure_is_conclusive_only_if_it_lasts() -> None:
    assert not evaluate(seconds_of(*STEADY), value=150.0)[0].conclusive
    assert evaluate(seconds_of(*STEADY, failed=frozenset({"message.p99 < 100ms"})), value=150.0)[0].conclusive
    assert not evaluate(seconds_of(4, 4, 16, 75, 97, 86))[0].conclusive
    assert evaluate(seconds_of(*STEADY), abort_reason="300 of 600 messages failed")[0].conclusive
    assert not evaluate(seconds_of(*STEADY), value=None)[0].passed  # a threshold without data fails


def test_limit_is_attributed_to_server_generator_or_connections() -> None:
    assert evaluate(seconds_of(*STEADY), value=150.0, limited=True)[0].limited_by == GENERATOR
    assert evaluate(seconds_of(*RISING), busy=0.8, starved=0.15)[0].limited_by == GENERATOR
    assert evaluate(seconds_of(*RISING), busy=0.6, starved=0.35, starved_by_others=0.01)[0].limited_by == ""  # the server's
    assert evaluate(seconds_of(*RISING), busy=0.6, starved=0.35, starved_by_others=0.34)[0].limited_by == GENERATOR
    assert evaluate(seconds_of(*RISING), busy=0.2, starved=0.3, limited=True)[0].limited_by == ""
    assert evaluate(seconds_of(*RISING, waiting=3), service_ms=11.0)[0].limited_by == CONNECTIONS
    assert evaluate(seconds_of(*RISING, waiting=3), service_ms=20.0)[0].limited_by == ""
    assert evaluate(seconds_of(*RISING), service_ms=11.0)[0].limited_by == ""
    assert evaluate(seconds_of(*STEADY), failed=0.1, limited=True)[0].limited_by == ""
    assert evaluate(seconds_of(*STEADY), failed=0.1, limited=True, errors=("no_ports",))[0].limited_by == GENERATOR
    step, entry = evaluate(seconds_of(*RISING), busy=0.95, limited=True)
    assert (step.conclusive, entry["limited_by"]) == (True, GENERATOR)  # its core is fully used
    assert not evaluate(seconds_of(*RISING), busy=0.6, starved=0.35, limited=True)[
        0
    ].conclusive  # the core may be free next time
    assert evaluate(seconds_of(*RISING, waiting=3), service_ms=11.0)[0].conclusive
    assert "its core was 95% busy" in entry["why"]
