"""The capacity search on a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from smtpbench.report.terminal.capacity import capacity_table


def step(rate: float, held: bool, p50_ms: float | None, p99_ms: float | None, **changes: Any) -> dict[str, Any]:
    return {"rate_per_s": rate, "held": held, "throughput_per_s": min(rate, 400.0), "p50_ms": p50_ms, "p99_ms": p99_ms,
            "limited_by": None, **changes}  # fmt: skip


def result_of(*steps: Any, **capacity: Any) -> dict[str, Any]:
    found = {"rate_per_s": 390.0, "failed_rate_per_s": 409.0, "precision_share": 0.0487, "limited_by": "objective",
             "reason": "390/s passed, 409/s failed", **capacity}  # fmt: skip
    return {"scenario": {"name": "relay"}, "target": {"url": "smtp://127.0.0.1:25", "banner": "220 x"},
            "outcome": {"status": "completed", "reason": ""}, "capacity": found, "steps": list(steps),
            "plan": {"objectives": ["failed < 0.1%", "message.p99 < 100ms"], "connections": 100}}  # fmt: skip


STEPS = (step(100, True, 10.0, 10.0), step(800, False, 100.0, 1000.0), step(390, True, 10.0, 100.0))


def test_rate_and_plot_of_latency_by_rate() -> None:
    lines = capacity_table(result_of(*STEPS)).splitlines()
    assert lines[:2] == [
        "relay against smtp://127.0.0.1:25  220 x",
        "objectives: failed < 0.1%, message.p99 < 100ms, no growing backlog",
    ]
    assert lines[-4:] == [
        "     rate               served     p50     p99   10.0ms     response      1.00s",
        "    100/s passed         100/s  10.0ms  10.0ms   #             :",
        "    390/s passed <--     390/s  10.0ms   100ms   o-------------#",
        "    800/s FAILED         400/s   100ms   1.00s                 o--------------#",
    ]
    assert max(map(len, lines)) <= 80


def test_step_that_the_generator_limited_is_marked() -> None:
    limited = capacity_table(result_of(*STEPS, step(500, False, 1.0, 2.0, limited_by="generator"), limited_by="generator"))
    assert "500/s generator?" in limited


def test_colour_on_request() -> None:
    assert "\x1b[32m" in capacity_table(result_of(*STEPS), color=True)
    assert "\x1b" not in capacity_table(result_of(*STEPS))


@pytest.mark.parametrize(
    "hostile_results",
    [
        {},
        {"capacity": [], "plan": "x", "steps": {}, "outcome": None, "target": 3, "scenario": []},
        result_of(step(float("nan"), True, float("inf"), -1.0), "no step", {}, {"rate_per_s": "x", "limited_by": []}),
        result_of(step(10**400, False, 10**400, 0.0), step(True, False, 1e-300, 1e300)),
        result_of(step(1, True, 1.0, 1.0), rate_per_s="\x1b[2J", reason={"a": "\x1b[31m"}, limited_by=["]]>"]),
        result_of(*STEPS) | {"plan": {"objectives": ["message.p99 < " + "9" * 400 + "ms", 7, "\x1b", None]}},
        result_of(*STEPS) | {"plan": {"objectives": "message.p99 < 1ms", "connections": "x"}},
        result_of(*STEPS) | {"target": {"url": "\u202e\ud800", "banner": "x" * 100_000}},
    ],
)  # fmt: skip
def test_made_up_results_are_shown_without_an_error(hostile_results: dict[str, Any]) -> None:
    text = capacity_table(hostile_results)
    assert "\x1b" not in text
    assert "\u202e" not in text
    text.encode()
